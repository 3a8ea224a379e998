"""Files of logs, in blocks of lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from connectors.files import unpacked

_BLOCK_BYTES: Final = 8 << 20
_MOST_LINES: Final = 1 << 16
"""The greatest number of lines in a block. Each line needs some hundred bytes besides its own."""
_MAX_LINE_BYTES: Final = 16 << 20


def blocks(path: Path) -> Iterator[tuple[bytes, Any]]:
    """Blocks of whole lines, of a few million bytes each, with the offset of each line's LF in the block.

    Raises:
        OSError: a line is longer than `_MAX_LINE_BYTES`.
    """
    incomplete = b""
    with unpacked(str(path)) as file:
        while piece := file.read(_BLOCK_BYTES):
            block = incomplete + piece
            ends = np.flatnonzero(np.frombuffer(block, np.uint8) == 10)
            if not len(ends):
                incomplete = block
                if len(incomplete) > _MAX_LINE_BYTES:
                    raise OSError(f"a line is over {_MAX_LINE_BYTES >> 20} MiB: is this an NDJSON file?")
                continue
            incomplete = block[int(ends[-1]) + 1 :]
            for first in range(0, len(ends), _MOST_LINES):
                line_ends, begin = ends[first : first + _MOST_LINES], int(ends[first - 1]) + 1 if first else 0
                yield block[begin : int(line_ends[-1]) + 1], line_ends - begin
    if incomplete:
        yield incomplete, np.array([len(incomplete)])
