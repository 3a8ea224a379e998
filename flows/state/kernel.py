"""Compiled loops: numba's decorator with its type kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import numba
import numpy as np
from numba.core.cpu import CPUTargetOptions

from flows.state.arrays import Int
from flows.state.kernel_cache import place, place_of_all

_CACHE_DIR: Final = numba.config.CACHE_DIR
"""The setting `NUMBA_CACHE_DIR`, empty if it is not set."""
_COMMON_PLACE: Final = place_of_all(Path(__file__).parents[1], _CACHE_DIR)
"""The place of the loops that other modules compile in this process, such as the oracle's."""
numba.config.CACHE_DIR = _COMMON_PLACE

_NO_REFERENCE_COUNTS: Final = {"_nrt": False} if hasattr(CPUTargetOptions, "_nrt") else {}

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile `function` on first use, cached on disk, without the interpreter's lock."""
    return _cached(function, nogil=True)


def lean(function: F) -> F:
    """Compile as `kernel` does, without counting references to arrays.

    numba counts up and down for each array at each call, which takes half of the time of a loop with many
    arrays. Such a function allocates nothing and returns no array (`tests/flows/state/test_lean.py`). The
    option has no documentation, so numba is pinned to a minor version. A version without the option counts.
    """
    return _cached(function, nogil=True, **_NO_REFERENCE_COUNTS)


def inlined(function: F) -> F:
    """Compile as `lean` does, and as a part of each caller. LLVM by itself inlines short functions alone. A
    call passes seven words for each array, so the kernel of plays with calls to search cells takes a third
    longer.
    """
    return _cached(function, nogil=True, forceinline=True, **_NO_REFERENCE_COUNTS)


def brief(function: F) -> F:
    """Compile as `kernel` does, but keep the interpreter's lock. To get the lock back may take 5 ms, so a
    shorter loop does not release it.
    """
    return _cached(function)


def _cached(function: F, **options: bool) -> F:
    # numba reads the setting when it decorates.
    numba.config.CACHE_DIR = place(Path(function.__code__.co_filename), _CACHE_DIR)
    try:
        compiled: F = numba.njit(cache=True, **options)(function)
    finally:
        numba.config.CACHE_DIR = _COMMON_PLACE
    return compiled


@lean
def mixed(a: Int, b: Int) -> Int:
    """A 64-bit hash of two numbers (the finaliser of MurmurHash3 over their combination); never 0."""
    x = np.uint64(a) ^ (np.uint64(b) * np.uint64(0x9E3779B97F4A7C15))
    x ^= x >> np.uint64(33)
    x *= np.uint64(0xFF51AFD7ED558CCD)
    x ^= x >> np.uint64(33)
    x *= np.uint64(0xC4CEB9FE1A85EC53)
    x ^= x >> np.uint64(33)
    return x if x != np.uint64(0) else np.uint64(1)
