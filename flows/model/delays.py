"""Classes of a pixel's delay: from its event time to its receipt."""

from __future__ import annotations

from typing import Final

FIRST_MS: Final = 125
DELAYS: Final = 15
"""The number of classes. A pixel has the number of its class in four bits, from 1 on, or 0 if its receipt is
unknown.
"""
BOUNDS_S: Final = (*(FIRST_MS * (1 << power) / 1000 for power in range(DELAYS - 1)), 86_400)
"""The upper bound of each class, twice that of the class before. Event time is at most a day before the
receipt, so no delay exceeds the last bound.
"""
