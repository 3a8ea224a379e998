"""Files and directories that a power cut does not take back, and that nobody else can read.

A file's content is safe once the file is fsynced; its name, only once its directory is, and so on upwards for
each directory that was made.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from flows.errors import StateError

PRIVATE: Final = 0o700
"""Mode of a directory; of a file, without the right to execute."""


def private_directory(path: Path) -> None:
    """Make a directory that is its owner's alone, durable by name, with all above it that are missing; one
    that is there is made private.

    Raises:
        StateError: others can reach it, and it is not ours to change.
        OSError: it cannot be made.
    """
    if not path.parent.exists():
        private_directory(path.parent)
    try:
        path.mkdir(mode=PRIVATE)
    except FileExistsError:
        found = path.stat()
        if found.st_mode & 0o077:
            # One with the sticky bit is shared on purpose, such as /tmp.
            if found.st_uid != os.geteuid() or found.st_mode & stat.S_ISVTX:
                raise StateError(
                    f"{path} can be reached by others than its owner, and is not this user's to change: give "
                    "it mode 0700, or name a directory inside it"
                ) from None
            path.chmod(PRIVATE)
    # Whoever made it may have died before this.
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def put(path: Path, body: bytes) -> None:
    """Write a private file, whole or not at all; its name is durable behind `sync_directory`."""
    partial = path.with_name(f"{path.name}.part")
    partial.unlink(missing_ok=True)  # a mode is given to a new file alone
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


@contextmanager
def privately() -> Iterator[None]:
    """Make files that this process's user alone can read, within the context."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)
