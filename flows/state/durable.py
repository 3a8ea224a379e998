"""Directories that survive a power cut, and that no other user can read.

The name of a file is safe only once its directory is fsynced, and so on upwards for each new directory.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from connectors.durable import sync_directory
from flows.errors import StateError

PRIVATE: Final = 0o700
"""Mode of a directory; of a file, without the right to execute."""


def private_directory(path: Path) -> None:
    """Make a directory and its missing parents, durable by name, of mode 0700. An existing directory gets
    this mode.

    Raises:
        StateError: other users can reach the directory, and this user may not change that.
        OSError: the directory cannot be made.
    """
    if not path.parent.exists():
        private_directory(path.parent)
    try:
        path.mkdir(mode=PRIVATE)
    except FileExistsError:
        status = path.stat()
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None
        if status.st_mode & 0o077:
            # A directory with the sticky bit is shared on purpose, such as /tmp.
            if status.st_uid != os.geteuid() or status.st_mode & stat.S_ISVTX:
                raise StateError(
                    f"other users can reach {path}, and this user may not change that: give it mode 0700, or "
                    "name a directory inside it"
                ) from None
            path.chmod(PRIVATE)
    # Also if it existed: the process that made it may have died before it synced the name.
    sync_directory(path.parent)


@contextmanager
def privately() -> Iterator[None]:
    """Make files that this process's user alone can read, within the context."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)
