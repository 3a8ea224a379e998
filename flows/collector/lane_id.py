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

    A directory that was copied, with a disk or an image, has its part twice; were it the whole id, the two
    processes would take back each other's low marks.

    Args:
        path: of the file that keeps them, this process's first.

    Raises:
        ValueError: the file is damaged.
        OSError: the disk does not give or take it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        ids = path.read_text().split() if path.exists() else []
        of_directory = ids[0].partition("~")[0] if ids else uuid4().hex[:16]
        self.id = f"{of_directory}~{uuid4().hex[:8]}"
        self.before = tuple(ids[:MAX_BEFORE])
        self._keep()

    def forget_before(self) -> None:
        """Drop the earlier ids, once the log knows that they have ended.

        Raises:
            OSError: the disk does not take it.
        """
        self.before = ()
        self._keep()

    def remove(self) -> None:
        """Remove the file, so that no process takes the id up again.

        Raises:
            OSError: the disk does not take it.
        """
        self._path.unlink()

    def _keep(self) -> None:
        replace_file(self._path, "\n".join((self.id, *self.before)).encode())
