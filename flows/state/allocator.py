"""Settings of the C library's allocator for a process that soon uses freed memory again."""

from __future__ import annotations

import ctypes
import gc
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_KEPT_BYTES: Final = 64 << 20
_YOUNG_OBJECTS: Final = 100_000
"""New objects between two runs of the garbage collector. A flood of new names makes thousands a cut."""


def share_one_arena() -> None:
    """Make all threads allocate from the C library's main arena. Call this before they start.

    A cluster's worker is not the main thread, and would have an arena of its own. Such an arena returns an
    empty heap to the system at once, whatever the threshold of `keep_memory`. The system clears each page
    that it assigns again.
    """
    _mallopt({_M_ARENA_MAX: 1})


def keep_memory() -> None:
    """Keep freed memory in the C library, which would return megabytes to the system and request them again a
    moment later. Make the garbage collector skip permanent objects, and run less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])
    _mallopt({_M_MMAP_THRESHOLD: _KEPT_BYTES, _M_TRIM_THRESHOLD: _KEPT_BYTES})


def _mallopt(options: dict[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # only the GNU C library has it
    if mallopt is not None:
        for option, value in options.items():
            mallopt(option, value)
