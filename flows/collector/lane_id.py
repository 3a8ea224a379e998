"""The ids under which the processes of one spool directory write."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from uuid import uuid4

from connectors.durable import replace_file

MAX_BEFORE: Final = 100
"""The greatest number of earlier ids that are stored: processes that die one after another while Kafka is
away leave more.
"""


class LaneId:
    """An id of this process alone, `directory~process`, and the earlier ids that the log may still wait for.

    A copy of a directory, with a disk or an image, has the same first part. If that were the whole id, two
    processes would take back each other's low marks.

    Args:
        path: the file of the ids, this process's first.

    Raises:
        ValueError: the file is damaged.
        OSError: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        ids = path.read_text().split() if path.exists() else []
        of_directory = ids[0].partition("~")[0] if ids else uuid4().hex[:16]
        self.id = f"{of_directory}~{uuid4().hex[:8]}"
        self.before = tuple(ids[:MAX_BEFORE])
        self._keep()

    def forget_before(self) -> None:
        """Drop the earlier ids, once byes for them are in the log.

        Raises:
            OSError: the file cannot be written.
        """
        self.before = ()
        self._keep()

    def remove(self) -> None:
        """Remove the file, so that no process adopts the id again.

        Raises:
            OSError: the file cannot be removed.
        """
        self._path.unlink()

    def _keep(self) -> None:
        replace_file(self._path, "\n".join((self.id, *self.before)).encode())
