"""Files of logs, plain or compressed."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import zstandard

READ_ERRORS: Final = (OSError, EOFError, zlib.error, zstandard.ZstdError)
"""The errors that `open_log` and reads of its file may raise."""
_BLOCK_BYTES: Final = 8 << 20
_MOST_LINES: Final = 1 << 16
"""The greatest number of lines in a block. Each line needs some hundred bytes besides its own."""
_MAX_LINE_BYTES: Final = 16 << 20


def open_log(path: Path) -> BinaryIO:
    """A file of lines (plain, `.gz` or `.zst`), open for reading as bytes. A truncated file raises `EOFError`
    at its end.
    """
    if path.suffix == ".gz":
        return io.BufferedReader(gzip.open(path))
    if path.suffix == ".zst":
        return io.BufferedReader(_ZstFile(path))
    return path.open("rb")


def blocks(path: Path) -> Iterator[tuple[bytes, Any]]:
    """Blocks of whole lines, of a few million bytes each, with the offset of each line's LF in the block.

    Raises:
        OSError: a line is longer than `_MAX_LINE_BYTES`.
    """
    incomplete = b""
    with open_log(path) as file:
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


class _ZstFile(io.RawIOBase):
    """A file of zstandard, read frame by frame. The library's own reader accepts a file that is truncated
    within a frame.
    """

    _PIECE: Final = 4096

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._frame: Any = None
        self._compressed = b""
        self._content = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._content:
            if not self._compressed:
                self._compressed = self._file.read(self._PIECE)
            if not self._compressed:
                if self._frame is not None:
                    raise EOFError("the file ends within a compressed frame: it was cut short")
                return 0
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._content = memoryview(self._frame.decompress(self._compressed))
            self._compressed = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = None
        size = min(len(buffer), len(self._content))
        buffer[:size], self._content = self._content[:size], self._content[size:]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()
