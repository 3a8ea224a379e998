"""Files of a recovery directory, compared with their checksums, so that damage on the disk is detected.

A small file is a line of JSON, which is an object or an array, and a second line with the checksum of the
first. A file without a second line is accepted, too, since a person may have written it to follow a remedy. A
torn file is refused, since the beginning of an object or array is not valid JSON.
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

MAX_BYTES: Final = 1 << 26
"""The greatest size of a small file. A manifest of 1,024 shards has about two megabytes."""
CHUNK_BYTES: Final = 1 << 20

T = TypeVar("T")


class Damaged(Exception):
    """A file is missing, or is not as it was written."""


class Missing(Damaged):
    """The file does not exist."""


def checksum(*parts: bytes | memoryview) -> str:
    """The checksum of a content of several parts, as 32 hexadecimal digits: the name of a segment, and the
    checksum of a piece in a save.
    """
    return _digest(parts)


def _digest(parts: Iterable[bytes | memoryview]) -> str:
    hasher = xxhash.xxh3_128()
    for part in parts:
        hasher.update(part)
    return hasher.hexdigest()


def checksum_of(path: Path) -> str:
    """The checksum of a file, which is read in chunks of `CHUNK_BYTES`.

    Raises:
        Damaged: it cannot be read.
    """
    with _opened(path) as file:
        return _digest(iter(partial(file.read, CHUNK_BYTES), b""))


def read(path: Path, offset: int = 0, size: int = -1) -> bytes:
    """At most `size` bytes of a file from `offset` on; with a size of -1 all of them.

    Raises:
        Damaged: it cannot be read.
    """
    with _opened(path) as file:
        file.seek(offset)
        return file.read(size)


def put_sealed(path: Path, value: Any) -> None:
    """Write a small file, durably; `value` is an object or an array.

    Raises:
        OSError: the disk does not take it.
    """
    body = msgspec.json.encode(value)
    replace_file(path, body + b"\n" + checksum(body).encode())


def read_sealed(path: Path, form: msgspec.json.Decoder[T], bare_line: bool = True) -> T:
    """The value of a small file.

    Args:
        bare_line: whether a file without a checksum is accepted.

    Raises:
        Damaged: the file is damaged, or its value has another form.
    """
    packed = read(path, size=MAX_BYTES + 1)
    body, _, seal = packed.partition(b"\n")
    whole = seal == checksum(body).encode() or (bare_line and not seal)
    if len(packed) > MAX_BYTES or not whole:
        raise Damaged(f"{path} is damaged")
    try:
        return form.decode(body)
    except UNREADABLE as error:
        raise Damaged(f"{path} is damaged: {error}") from None


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file. Other files, such as a pipe, are refused: to read one might never begin or never
    end.
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
