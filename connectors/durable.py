"""Small files that a power cut leaves whole.

A file's content is safe once the file is fsynced; its name, only once its directory is.
"""

from __future__ import annotations

import os
from pathlib import Path


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def put(path: Path, *parts: bytes | memoryview) -> None:
    """Write a private file of `parts`, one behind the other, whole or not at all; its name is durable behind
    `sync_directory`.
    """
    partial = path.with_name(f"{path.name}.part")
    partial.unlink(missing_ok=True)  # a mode is given to a new file alone
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def replace_file(path: Path, body: bytes) -> None:
    """Write a private file so that a power cut leaves the old one or the new one, whole and by its name."""
    put(path, body)
    sync_directory(path.parent)
