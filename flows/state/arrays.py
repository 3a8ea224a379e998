"""Types of arrays, arrays made longer, and arrays of mapped memory: names that need no compiler."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Int: TypeAlias = Any
"""A number of the machine type that numba infers. mypy treats int and np.uint64 as unrelated types."""
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U32 = npt.NDArray[np.uint32]
U16 = npt.NDArray[np.uint16]
U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]

_MAPPED_BYTES: Final = 1 << 20
"""The least size of an array that has pages of its own."""
_CONSUMED_BYTES: Final = 4 << 20
"""The size of a part of `consumed`."""


def mapped_zeros(shape: tuple[int, ...], dtype: type[np.generic]) -> Any:
    """Zeros for a table that grows; a large array has pages of its own.

    The C library keeps the memory that a table frees, and the grown table is too large for this hole. All
    shards grow at about the same time, so the holes of 10 M plays took 400 MiB. A table's own pages go back
    to the system at once, and an unused page takes no memory.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < _MAPPED_BYTES:
        return np.zeros(shape, dtype)
    pages = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if (huge := getattr(mmap, "MADV_HUGEPAGE", None)) is not None:  # as numpy advises; Linux has it
        with suppress(OSError):  # a kernel without huge pages refuses it
            pages.madvise(huge)
    return np.frombuffer(pages, dtype).reshape(shape)


def mapped_copy(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A long-lived `array`: itself, or a copy in pages of its own if it is large (`mapped_zeros`)."""
    if array.nbytes < _MAPPED_BYTES or _pages_of(array) is not None:
        return array
    copy: npt.NDArray[Any] = mapped_zeros(array.shape, array.dtype.type)
    copy[:] = array
    return copy


def consumed(rows: Any) -> Iterator[Any]:
    """The rows of a table that is no longer needed, part by part. A part's pages go back to the system once
    the caller takes the next part. A table and its successor in the same order are never both whole in
    memory.
    """
    pages, row_bytes = _pages_of(rows), rows.nbytes // max(1, len(rows))
    if pages is None:
        yield rows
        return
    for begin in range(0, len(rows), step := _CONSUMED_BYTES // row_bytes):
        yield rows[begin : begin + step]
        end_byte = (begin + step) * row_bytes // mmap.PAGESIZE * mmap.PAGESIZE
        begin_byte = begin * row_bytes // mmap.PAGESIZE * mmap.PAGESIZE
        if end_byte <= len(pages):
            with suppress(OSError):  # pages that are locked in memory stay
                pages.madvise(mmap.MADV_DONTNEED, begin_byte, end_byte - begin_byte)


def _pages_of(array: Any) -> mmap.mmap | None:
    """The mapped pages that an array of `mapped_zeros` fills; None for any other array."""
    base = array
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    return base if isinstance(base, mmap.mmap) and len(base) == array.nbytes else None


def doubled(array: Any) -> Any:
    """`array`, followed by as many zeros."""
    return np.concatenate([array, np.zeros_like(array)])


def longer(array: Any, length: int, fill: int) -> Any:
    """`array` with at least `length` places along its last axis, and at least doubled if it grows. New places
    have the value `fill`.
    """
    *outer_lengths, length_before = array.shape
    if length_before >= length:
        return array
    added = np.full((*outer_lengths, max(length, 2 * length_before, 64) - length_before), fill, array.dtype)
    return np.concatenate([array, added], axis=-1)
