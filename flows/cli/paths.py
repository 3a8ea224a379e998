"""Checks of the files that a command names, before its work instead of after it."""

from __future__ import annotations

import os
from pathlib import Path

from connectors.files import regular
from flows.errors import AudiopixelError


def readable(path: Path | None) -> None:
    """Refuse a path, if given, that is no readable file.

    Raises:
        ConnectError: the file cannot be read; the message has the reason.
    """
    if path is not None:
        regular(str(path))


def writable(path: Path | None) -> None:
    """Refuse a path, if given, at which no file can be created or overwritten.

    Raises:
        AudiopixelError: the file cannot be written; the message has the reason.
    """
    if path is None:
        return
    try:
        if path.is_dir():
            raise AudiopixelError(f"{path}: is a directory: name a file")
        if not path.parent.is_dir():
            raise AudiopixelError(f"{path}: there is no directory {path.parent}: make it first")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise AudiopixelError(f"{path}: no permission to write it")
    except OSError as error:
        raise AudiopixelError(f"{path}: cannot be written: {error.strerror}") from None
