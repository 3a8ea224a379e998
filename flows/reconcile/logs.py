"""Log files of the oracle, plain or compressed."""

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
"""Errors that reading a file of `open_log` may raise."""
_BLOCK_BYTES: Final = 8 << 20
_MOST_LINES: Final = 1 << 16
"""The greatest number of lines in a block: each takes some hundred bytes besides its own."""
_MAX_LINE_BYTES: Final = 16 << 20


def open_log(path: Path) -> BinaryIO:
    """A file of lines, plain, `.gz` or `.zst`, opened for reading as bytes. A file that was cut short raises
    `EOFError` at its end.
    """
    if path.suffix == ".gz":
        return io.BufferedReader(gzip.open(path))
    if path.suffix == ".zst":
        return io.BufferedReader(_ZstFile(path))
    return path.open("rb")


def blocks(path: Path) -> Iterator[tuple[bytes, Any]]:
    """Whole lines, a few million bytes at a time, and the offset at which each ends."""
    rest = b""
    with open_log(path) as file:
        while piece := file.read(_BLOCK_BYTES):
            block = rest + piece
            ends = np.flatnonzero(np.frombuffer(block, np.uint8) == 10)
            if not len(ends):
                rest = block
                if len(rest) > _MAX_LINE_BYTES:
                    raise OSError(f"a line is over {_MAX_LINE_BYTES >> 20} MiB: is this an NDJSON file?")
                continue
            rest = block[int(ends[-1]) + 1 :]
            for first in range(0, len(ends), _MOST_LINES):
                line_ends, begin = ends[first : first + _MOST_LINES], int(ends[first - 1]) + 1 if first else 0
                yield block[begin : int(line_ends[-1]) + 1], line_ends - begin
    if rest:
        yield rest, np.array([len(rest)])


class _ZstFile(io.RawIOBase):
    """A file of zstandard, read frame by frame: zstandard's own reader takes a file cut within a frame for a
    whole one.
    """

    _PIECE: Final = 4096

    def __init__(self, path: Path) -> None:
        self._packed = path.open("rb")
        self._frame: Any = None
        self._waiting = b""
        self._unpacked = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._unpacked:
            if not self._waiting:
                self._waiting = self._packed.read(self._PIECE)
            if not self._waiting:
                if self._frame is not None:
                    raise EOFError("the file ends within a compressed frame: it was cut short")
                return 0
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._unpacked = memoryview(self._frame.decompress(self._waiting))
            self._waiting = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = None
        size = min(len(buffer), len(self._unpacked))
        buffer[:size], self._unpacked = self._unpacked[:size], self._unpacked[size:]
        return size

    def close(self) -> None:
        self._packed.close()
        super().close()
