"""Memory of a process that soon needs again what it frees."""

from __future__ import annotations

import ctypes
import gc
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEPT_BYTES: Final = 64 << 20
_YOUNG: Final = 100_000
"""New objects between two looks of the garbage collector: a flood of names makes thousands a cut.
"""


def keep_memory() -> None:
    """Let the C library keep what is freed, instead of giving megabytes back to the system and asking for
    them again a moment later; and let the collector pass over what is there for good, and look less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # the GNU C library's alone
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
