"""Classes of a pixel's delay: from its event time to its receipt."""

from __future__ import annotations

from typing import Final

FIRST_MS: Final = 125
DELAYS: Final = 15
"""A pixel has the number of its class, from 1 on, or 0 if its receipt is unknown; it has four bits."""
BOUNDS_S: Final = (*(FIRST_MS * (1 << at) / 1000 for at in range(DELAYS - 1)), 86_400)
"""The upper bound of each class, twice that of the one before. Event time is at most a day before the
receipt, so that no delay is beyond the last.
"""
