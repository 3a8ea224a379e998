"""The lines of a log's file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from connectors.files import unpacked

_MAX_LINE_BYTES: Final = 16 << 20


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a file, without their LF.

    Raises:
        OSError: a line is longer than `_MAX_LINE_BYTES`.
    """
    with unpacked(str(path)) as file:
        while line := file.readline(_MAX_LINE_BYTES + 1):
            if len(line) > _MAX_LINE_BYTES:
                raise OSError(f"a line is over {_MAX_LINE_BYTES >> 20} MiB: is this an NDJSON file?")
            yield line.removesuffix(b"\n")
