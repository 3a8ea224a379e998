"""The directory of an export: one process at a time has it, by its name."""

from __future__ import annotations

import fcntl
from io import TextIOWrapper
from pathlib import Path

from flows.errors import StateError


def own(directory: Path, name: str, path: Path) -> TextIOWrapper:
    """Make the directory, and take its lock of that name, which is held until the file is closed.

    Args:
        path: what the lock is for; errors name it.

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
