"""The wrappings of a file's content: compression, another encoding, and JSON that is not one object a line.

`wrapping` names the outermost wrapping from the first kilobyte of the content, and `UNWRAP` has the step that
removes it. The name of the file decides nothing.
"""

from __future__ import annotations

import bz2
import codecs
import io
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any, BinaryIO, Final, Protocol

import zstandard

from connectors.stream import ConnectError

HEAD_BYTES: Final = 1 << 10
MOST_STEPS: Final = 4
"""The greatest number of wrappings around each other."""
MAX_LINE_BYTES: Final = 16 << 20
READ_ERRORS: Final = (OSError, EOFError, UnicodeError, zlib.error, zstandard.ZstdError)
"""Errors of reading and unwrapping a file."""
Blocks = Iterator[bytes]
# Small, since zstandard decompresses a piece at once, to up to 32,768 times its size.
_PIECE_BYTES: Final = 2 << 10
# By then zstandard and zlib have returned something: their blocks are 128 KiB at most, and smaller.
_FIRST_BLOCK_BYTES: Final = 256 << 10
_UNWRAPPED_BYTES: Final = 256 << 10
_MARKS: Final = (
    (codecs.BOM_UTF8, "byte order mark"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_MAGIC: Final = (
    (re.compile(rb"\x1f\x8b\x08"), "gzip"),
    (re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"), "zstd"),
    (re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"), "bz2"),
)
_SUFFIXES: Final = {"gzip": ".gz", "zstd": ".zst", "bz2": ".bz2"}
_ARRAY: Final = re.compile(rb"\s*\[\s*(?:\{|\]?\s*\Z)")
_SPREAD: Final = re.compile(rb'\s*\{(?:[^\r\n]*[,{\[])?[ \t]*\r?\n\s*"')
"""An object whose second line begins with a name: no line of NDJSON does."""
_REFUSED: Final = (
    (re.compile(rb"PK\x03\x04"), "a zip archive or an Excel workbook: unpack it, or save its sheet as CSV"),
    (re.compile(rb"\xfd7zXZ\0"), "compressed by xz: unpack it, or compress it by gzip, zstd or bz2"),
    (re.compile(rb"\x04\x22\x4d\x18"), "compressed by lz4: unpack it, or compress it by gzip, zstd or bz2"),
    (re.compile(rb"PAR1"), 'a Parquet file: read it as a source with format = "parquet"'),
    (re.compile(rb"Obj\x01"), "an Avro file: write its records as Parquet or as lines of JSON"),
    (
        re.compile(rb"#(?:Version|Fields|Software):"),
        'a W3C log: remove its lines that begin with #, and read it as a source with format = "tsv", '
        "header = false",
    ),
    (re.compile(rb"\s*<(?:\?xml|!doctype|html)", re.I), "XML or HTML, perhaps the page of an error"),
)
_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|["{}\[\]]', re.DOTALL)
_BETWEEN: Final = b" \t\r\n,[]"


def wrapping(head: bytes) -> str:
    """The name of the outermost wrapping of a content that begins with `head`, a key of `UNWRAP`; empty if
    the content is lines already.

    Raises:
        ConnectError: the content is of a kind that is not read; the message names it and the remedy.
    """
    for magic, remedy in _REFUSED:
        if magic.match(head):
            raise ConnectError(f"is {remedy}")
    for magic, name in _MAGIC:
        if magic.match(head):
            return name
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    even, odd = head[:16:2], head[1:16:2]
    for name, letters, zeros in (("utf-16-le", even, odd), ("utf-16-be", odd, even)):
        if len(zeros) == 8 and not any(zeros) and all(letters):
            return name
    if _ARRAY.match(head):
        return "JSON array"
    return "objects over several lines" if _SPREAD.match(head) else ""


def unwrapped(
    path: str, file: BinaryIO, encoding: str = "", block_bytes: int = 256 << 10
) -> tuple[tuple[str, ...], Blocks]:
    """The names of a file's wrappings, and blocks of its content without them. The content is lines.

    Args:
        path: of the file, for messages. A suffix `.gz`, `.zst` or `.bz2` shows that content which begins like
            compressed content is compressed, even if it is damaged.
        file: at its beginning.
        encoding: of text without a byte order mark; UTF-8 by default.
        block_bytes: the least number of bytes of a block, but the last, of a wrapped file.

    Raises:
        ConnectError: the file is of a kind that is not read, or has too many wrappings. The blocks may raise
            any of `READ_ERRORS`, for example at the end of a truncated file.
    """
    steps: list[str] = []
    blocks: Blocks = iter(partial(file.read, _PIECE_BYTES), b"")
    while True:
        head, blocks = _peeked(blocks, HEAD_BYTES)
        try:
            step = wrapping(head[:HEAD_BYTES])
        except ConnectError as error:
            raise ConnectError(f"{path}: {error}") from None
        if step in _DECODERS and not path.endswith(_SUFFIXES[step]):
            # A sender who chooses the first bytes of a log must not make it pass for compressed.
            head, blocks = _peeked(blocks, _FIRST_BLOCK_BYTES)
            step = step if _decompresses(step, head) else ""
        if encoding and step not in _DECODERS:
            step, encoding = step if step in _OF_MARKS else encoding, ""
        if not step:
            return tuple(steps), _gathered(blocks, block_bytes) if steps else blocks
        if len(steps) == MOST_STEPS:
            raise ConnectError(f"{path}: is wrapped over {MOST_STEPS} times: {', '.join(steps)}, {step}")
        steps.append(step)
        blocks = UNWRAP[step](blocks) if step in UNWRAP else _decoded(blocks, step)


def lines_of(path: str, file: BinaryIO, encoding: str = "") -> BinaryIO:
    """An open file without its wrappings. Closing the result closes `file`.

    Raises:
        ConnectError: see `unwrapped`. Reading may raise any of `READ_ERRORS`.
    """
    try:
        steps, blocks = unwrapped(path, file, encoding)
    except BaseException:
        file.close()
        raise
    if is_plain(steps) and file.seekable():
        file.seek(bool(steps) * len(codecs.BOM_UTF8))
        return file
    return io.BufferedReader(_Content(file, blocks))


def table_of(path: str, data: bytes) -> bytes:
    """The content of a file, a table, without its wrappings.

    Raises:
        ConnectError: it cannot be unwrapped.
    """
    try:
        with lines_of(path, io.BytesIO(data)) as file:
            return file.read()
    except READ_ERRORS as error:
        raise ConnectError(f"{path}: cannot be read: {error}") from None


def is_plain(steps: tuple[str, ...]) -> bool:
    """True if the content is the bytes of the file, perhaps after a byte order mark."""
    return steps in ((), ("byte order mark",))


class _Content(io.RawIOBase):
    """The content of a file, as a file."""

    def __init__(self, file: BinaryIO, blocks: Blocks) -> None:
        self._file, self._blocks = file, blocks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._blocks, b""))
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


def _peeked(blocks: Blocks, size: int) -> tuple[bytes, Blocks]:
    """The first bytes, at least `size` if there are so many, and all blocks. An error follows the blocks
    before it.
    """
    pieces: list[bytes] = []
    try:
        while sum(map(len, pieces)) < size and (piece := next(blocks, None)) is not None:
            pieces.append(piece)
    except READ_ERRORS as error:
        blocks = _failing(error)
    return b"".join(pieces), chain(pieces, blocks)


def _failing(error: Exception) -> Blocks:
    raise error
    yield


def _gathered(blocks: Blocks, size: int) -> Blocks:
    """Blocks of at least `size` bytes. An error of `blocks` comes after all content before it."""
    pieces: list[bytes] = []
    length = 0
    try:
        for piece in blocks:
            pieces.append(piece)
            length += len(piece)
            if length >= size:
                yield b"".join(pieces)
                pieces, length = [], 0
    except READ_ERRORS:
        if length:
            yield b"".join(pieces)
        raise
    if length:
        yield b"".join(pieces)


class _Decoder(Protocol):
    """The common interface of the decompression objects of zlib, zstandard and bz2."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


_DECODERS: Final[Mapping[str, Callable[[], _Decoder]]] = {
    "gzip": partial(zlib.decompressobj, wbits=31),
    "zstd": lambda: zstandard.ZstdDecompressor().decompressobj(),
    "bz2": bz2.BZ2Decompressor,
}


def _pieces(data: bytes) -> Blocks:
    return (data[at : at + _PIECE_BYTES] for at in range(0, len(data), _PIECE_BYTES))


def _decompresses(name: str, head: bytes) -> bool:
    """True if compressed content begins with `head`. A block of bz2 may be longer; its magic is enough."""
    decoder = _DECODERS[name]()
    try:
        for piece in _pieces(head):
            if decoder.decompress(piece) or decoder.eof:
                return True
    except READ_ERRORS:
        return False
    return name == "bz2"


def _decompressed(blocks: Blocks, name: str) -> Blocks:
    # Not zstandard's stream_reader, which accepts a file that ends in the middle of a frame.
    decoder: _Decoder | None = None
    for data in chain.from_iterable(map(_pieces, blocks)):
        while data:
            decoder = decoder or _DECODERS[name]()
            yield decoder.decompress(data)
            data = b""
            if decoder.eof:
                data, decoder = decoder.unused_data, None
    if decoder:
        raise EOFError("it ends in the middle of its compressed data")


def _without_mark(blocks: Blocks) -> Blocks:
    left = len(codecs.BOM_UTF8)
    for block in blocks:
        yield block[left:]
        left = max(0, left - len(block))


def _decoded(blocks: Blocks, encoding: str) -> Blocks:
    """Text in UTF-8."""
    decoder = codecs.getincrementaldecoder(encoding)()
    for block in blocks:
        yield decoder.decode(block).encode()
    yield decoder.decode(b"", True).encode()


def _objects(blocks: Blocks) -> Blocks:
    """Each object of a JSON array, or of objects over several lines, as a line. A line feed becomes a
    carriage return, which JSON allows at the same places.
    """
    text, arrays, depth, at = b"", 0, 0, 0  # `text` is in no line yet, and is scanned up to `at`
    for block in _gathered(blocks, _UNWRAPPED_BYTES):
        text += block
        lines: list[bytes] = []
        start, tokens = 0, _TOKEN.finditer(text, at)
        at = len(text)
        for token in tokens:
            mark = token[0]
            if mark == b'"':  # a string that ends in a later block
                at = token.start()
                break
            if mark in b"[]":
                arrays += (1 if mark == b"[" else -1) if not depth else 0
            elif mark == b"{":
                if not depth:
                    lines.append(text[start : token.start()].strip(_BETWEEN))
                    start = token.start()
                depth += 1
            elif mark == b"}" and depth:
                depth -= 1
                if not depth:
                    lines.append(text[start : token.end()])
                    start = token.end()
        text, at = text[start:], at - start
        if len(text) > MAX_LINE_BYTES:
            raise OSError(f"an object is over {MAX_LINE_BYTES >> 20} MiB, or its quotes do not match")
        yield _ended(lines)
    if arrays > 0:
        raise EOFError("it ends in the middle of its JSON array")
    yield _ended([text.strip(_BETWEEN)])


def _ended(lines: list[bytes]) -> bytes:
    return b"".join(line.replace(b"\n", b"\r") + b"\n" for line in lines if line)


_OF_MARKS: Final = frozenset(name for _, name in _MARKS)
UNWRAP: Final[Mapping[str, Callable[[Blocks], Blocks]]] = {
    **{name: partial(_decompressed, name=name) for name in _DECODERS},
    **{name: partial(_decoded, encoding=name) for _, name in _MARKS[1:]},
    "byte order mark": _without_mark,
    "JSON array": _objects,
    "objects over several lines": _objects,
}
"""The steps that remove a wrapping, by its name."""
