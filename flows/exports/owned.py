"""The lock of an export's files: one process at a time has them."""

from __future__ import annotations

import fcntl
from io import TextIOWrapper
from pathlib import Path

from flows.errors import StateError


def take_lock(directory: Path, name: str, path: Path) -> TextIOWrapper:
    """Make the directory, and take the lock of an export. Closing the returned file releases the lock.

    Args:
        name: the export's name.
        path: the file that the lock protects; errors name it.

    Raises:
        StateError: another process has it.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = (directory / f"{name}.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise StateError(
            f"{path}: another process has it: run one export of a name, or give this one another --name"
        ) from None
    return lock
