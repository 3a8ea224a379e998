"""Types of arrays, and arrays made longer: names that need no compiler."""

from __future__ import annotations

from typing import Any, TypeAlias

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


def doubled(array: Any) -> Any:
    """`array` with as much room again, zeros."""
    return np.concatenate([array, np.zeros_like(array)])


def longer(array: Any, length: int, fill: int) -> Any:
    """`array` with at least `length` places along its last axis, doubling."""
    *others, here = array.shape
    if here >= length:
        return array
    more = np.full((*others, max(length, 2 * here, 64) - here), fill, array.dtype)
    return np.concatenate([array, more], axis=-1)
