"""Types of arrays, arrays made longer, and arrays of mapped memory: names that need no compiler."""

from __future__ import annotations

import math
import mmap
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Int: TypeAlias = Any
"""A number of whatever machine type numba infers: to mypy int and np.uint64 are strangers."""
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U32 = npt.NDArray[np.uint32]
U16 = npt.NDArray[np.uint16]
U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]

_MAPPED_BYTES: Final = 4 << 20
"""The least size of an array that has pages of its own."""


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
        pages.madvise(huge)
    return np.frombuffer(pages, dtype).reshape(shape)


def doubled(array: Any) -> Any:
    """`array` with as much room again, zeros."""
    return np.concatenate([array, np.zeros_like(array)])


def longer(array: Any, length: int, fill: int) -> Any:
    """`array` with at least `length` places along its last axis, doubling."""
    *outer_lengths, length_before = array.shape
    if length_before >= length:
        return array
    more = np.full((*outer_lengths, max(length, 2 * length_before, 64) - length_before), fill, array.dtype)
    return np.concatenate([array, more], axis=-1)
