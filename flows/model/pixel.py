"""The 64-bit columns of a pixel, which decoding writes and every later kernel reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from flows.model.dimensions import LABELS, Dimensions


class ConversionPixel(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The part of a conversion that the columns of numbers cannot hold.

    Attributes:
        other_value: whether it names a value that does not count.
        claimed: whether a public tag has sent it.
        apart: whether it is claimed, and only servers' conversions count.
        before: its listener and its household by the edge's previous key, each 0 if unknown.
    """

    combo: Dimensions
    type: str
    order_id: str | None
    event_id: str
    value_micros: int | None
    currency: str | None
    utm_content: str | None
    other_value: bool = False
    claimed: bool = False
    before: tuple[int, int] = (0, 0)
    apart: bool = False


KEY, LISTENER, TS, WATERMARK, POSITION, INFO, COMBO, HOUSEHOLD = range(8)
"""The columns of a pixel. A `LISTENER` or `HOUSEHOLD` of 0 means none. The `LISTENER` of a `delivered` or
`download` is the key by which its client counts once, 0 without one. `TS` and `WATERMARK` are the caller's
clock and the receipt until `flows.intake.watermark` replaces them by the event time and the watermark.
"""
COLUMNS: Final = 8
LINKED: Final = 1 << 8
"""Flag in `INFO` (whose low byte is the event's code): the pixel names its play."""
CONSENTED: Final = 1 << 9
"""Flag in `INFO`: this listener may be measured."""
BLOCKED: Final = 1 << 10
"""Flag in `INFO`: the ad ran in a content category that its placement's plan blocks."""
BASIS_SHIFT: Final = 11
BASIS: Final = 7
"""`INFO >> BASIS_SHIFT & BASIS`: the code of its basis in `flows.model.basis`."""
CONFIRMED: Final = 1 << 14
"""Flag in `INFO`: the listener's device itself has made the call."""
REFUSED: Final = 1 << 15
"""Flag in `INFO`: a rejected impression that names its placement. It counts in the parts of a day alone."""
CLAIMED: Final = 1 << 31
"""Flag in `INFO`, of a conversion: a public tag has sent it, and it may take its order's place."""
CALLER_MINUTE_SHIFT: Final = 32
CALLER_MINUTE: Final = (1 << 27) - 1
"""`INFO >> CALLER_MINUTE_SHIFT & CALLER_MINUTE`, of an impression: the minute of the caller's clock if the
impression counts in another minute, else 0.
"""
TIE_SHIFT: Final = 32
TIE: Final = (1 << 31) - 1
"""`INFO >> TIE_SHIFT & TIE`, of a `delivered` or `download` with a client: a hash of its event id, which
orders events of one moment.
"""
DELAY_SHIFT: Final = 59
"""`INFO >> DELAY_SHIFT`, of an event whose code is less than `delivered`'s: the class of its delay
(`flows.model.delays`), 0 if the receipt is unknown.
"""
REASON_BITS: Final = 0xFF
INVALID_SHIFT: Final = 16
"""`INFO >> INVALID_SHIFT & REASON_BITS`: the reason for which the pixel is invalid traffic, as its place in
`traffic_reasons` plus 1; 0 if the pixel is valid.
"""
UNKNOWN_SHIFT: Final = 24
UNKNOWN: Final = (1 << len(LABELS)) - 1
assert UNKNOWN << UNKNOWN_SHIFT < CLAIMED
"""`INFO >> UNKNOWN_SHIFT & UNKNOWN`: a bit for each of `flows.model.dimensions.LABELS`, set if the pixel has
a name that no plan lists and only planned names count.
"""

DECLARED_BOT: Final = "declared_bot"
OTHER_REASON: Final = "other"
KNOWN_REASONS: Final = (
    DECLARED_BOT,
    "opawg_bot",
    "opawg_library",
    "iab_list",
    "crawler_list",
    "no_user_agent",
    "data_centre",
    "unverified_server",
    "volume",
    OTHER_REASON,
)
"""Reasons of invalid traffic, without those of the settings. The default rule's reason is first."""
MAX_OWN_REASONS: Final = 7
MAX_REASONS: Final = len(KNOWN_REASONS) + MAX_OWN_REASONS


def traffic_reasons(own_reasons: Iterable[str]) -> tuple[str, ...]:
    """The reasons of invalid traffic: the known ones, then those of the user's own lists."""
    return (*KNOWN_REASONS, *own_reasons)
