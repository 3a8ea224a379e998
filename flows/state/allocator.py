"""Memory of a process that soon needs again what it frees."""

from __future__ import annotations

import ctypes
import gc
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_KEPT_BYTES: Final = 64 << 20
_YOUNG: Final = 100_000
"""New objects between two runs of the garbage collector: a flood of names makes thousands a cut."""


def share_one_arena() -> None:
    """Let all threads allocate from the C library's main arena; to be called before they start.

    A worker of a cluster is no main thread. An arena of its own returns a heap as soon as it is empty,
    whatever the threshold of `keep_memory`, and the system clears each page that it gets again.
    """
    _mallopt({_M_ARENA_MAX: 1})


def keep_memory() -> None:
    """Let the C library keep freed memory, instead of returning megabytes to the system and asking for them
    again a moment later. Let the garbage collector skip permanent objects, and run less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])
    _mallopt({_M_MMAP_THRESHOLD: _KEPT_BYTES, _M_TRIM_THRESHOLD: _KEPT_BYTES})


def _mallopt(options: dict[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # only the GNU C library has it
    if mallopt is not None:
        for option, value in options.items():
            mallopt(option, value)
