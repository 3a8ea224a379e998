"""Small files that a power cut leaves whole.

A file's content is durable once the file is fsynced; its name, once its directory is.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Taken(Exception):
    """Another process has locked the directory."""


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Lock a directory itself, without a lock file. A kill releases the lock. On a file system without locks
    it keeps no process out.

    Raises:
        Taken: another process has locked it.
        OSError: it cannot be opened.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Taken from None
        except OSError:  # NFS only locks files that are open for writing
            pass
        yield
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def put(path: Path, *parts: bytes | memoryview) -> None:
    """Write `parts` to a private file, one after another. The file appears whole or not at all; its name is
    durable after `sync_directory`.
    """
    partial = path.with_name(f"{path.name}.part")
    partial.unlink(missing_ok=True)  # only a new file gets the mode
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def replace_file(path: Path, body: bytes) -> None:
    """Write a private file so that a power cut leaves the old one or the new one, whole and by its name."""
    put(path, body)
    sync_directory(path.parent)
