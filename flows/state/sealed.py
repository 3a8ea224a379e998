"""Files of a recovery directory, compared with their checksum: a change by the disk is detected, not misread.

A small file is a line of JSON, an object or an array, and below it the line's checksum. A line alone is
accepted, too: a person may have written it by a remedy. A torn file is not, since the beginning of an object
or array is neither.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import msgspec
import xxhash

from connectors.durable import replace_file
from flows.errors import UNREADABLE

MOST_BYTES: Final = 1 << 26
"""The longest small file. A manifest of 1,024 shards has some two megabytes."""
CHUNK_BYTES: Final = 1 << 20

T = TypeVar("T")


class Damaged(Exception):
    """A file is missing or is not what was written."""


class Missing(Damaged):
    """There is no such file."""


def checksum(*parts: bytes | memoryview) -> str:
    """32 hexadecimal digits of a file's content, part after part: a segment's name, and the checksum of a
    piece in a save.
    """
    return _digest(parts)


def _digest(parts: Iterable[bytes | memoryview]) -> str:
    hasher = xxhash.xxh3_128()
    for part in parts:
        hasher.update(part)
    return hasher.hexdigest()


def checksum_of(path: Path) -> str:
    """The checksum of a file, of which no more than `CHUNK_BYTES` are in memory.

    Raises:
        Damaged: it cannot be read.
    """
    with _opened(path) as file:
        return _digest(iter(partial(file.read, CHUNK_BYTES), b""))


def read(path: Path, offset: int = 0, size: int = -1) -> bytes:
    """`size` bytes of a file, or as many as it has; all with a size of -1.

    Raises:
        Damaged: it cannot be read.
    """
    with _opened(path) as file:
        file.seek(offset)
        return file.read(size)


def put_sealed(path: Path, value: Any) -> None:
    """Make a small file durable; `value` is an object or an array.

    Raises:
        OSError: the disk does not take it.
    """
    body = msgspec.json.encode(value)
    replace_file(path, body + b"\n" + checksum(body).encode())


def read_sealed(path: Path, form: msgspec.json.Decoder[T], by_hand: bool = True) -> T:
    """The value of a small file.

    Args:
        by_hand: whether a line alone is taken.

    Raises:
        Damaged: it is, or its value is of another form.
    """
    packed = read(path, size=MOST_BYTES + 1)
    body, _, below = packed.partition(b"\n")
    whole = below == checksum(body).encode() or (by_hand and not below)
    if len(packed) > MOST_BYTES or not whole:
        raise Damaged(f"{path} is damaged")
    try:
        return form.decode(body)
    except UNREADABLE as error:
        raise Damaged(f"{path} is damaged: {error}") from None


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file. Nothing is read of other files, such as a pipe: they might not end, or not
    begin.
    """
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Damaged(f"{path} is no regular file")
            yield file
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Missing(f"{path} cannot be read: {error.strerror}") from None
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error.strerror}") from None
