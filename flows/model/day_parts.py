"""Parts of a day's difference: the reasons for which another party may count an impression, a download or a
delivery that a placement's day does not have.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from flows.model.basis import BASES
from flows.model.client_counts import FINAL_AT, KINDS
from flows.model.pixel import MAX_REASONS
from flows.state.arrays import I64, U8, U32

REPEATED, TOO_LATE, REJECTED, ORPHANS, CLOCK_MOVED, INVALID = range(6)
"""Numbers of the parts; each reason of invalid traffic has one, from `INVALID` on.

`ORPHANS` are plays that started without an impression. `CLOCK_MOVED` is 1 in the minute of the caller's
clock, and -1 in the minute in which the impression counts.
"""
SENT: Final = INVALID + MAX_REASONS
"""Parts after those of impressions, `SENT_PARTS` for each of `flows.model.client_counts.KINDS`: pixels that
count, in a flight or not; repeats; pixels that came too late; and invalid traffic.
"""
SENT_COUNTED, SENT_REPEATED, SENT_TOO_LATE, SENT_INVALID = range(4)
SENT_PARTS: Final = 4
PARTS: Final = SENT + len(KINDS) * SENT_PARTS
PART_SHIFT: Final = 27
"""Minutes before the year 2100 have 27 bits. A part has the 5 bits above them."""
assert PARTS <= 1 << 32 - PART_SHIFT
FAR_MINUTES: Final = 24 * 60
"""The greatest error of a caller's clock, in minutes, with which its minute counts in the parts of a day."""
OLD_MINUTES: Final = 2 * 24 * 60
"""Pixels that are older than the watermark by more than this change no day."""
COUNTED, OUTSIDE, FIRST_PART = range(3)
"""Columns of a day. They are: impressions that count, and those of them outside the flight; the parts;
impressions inside the flight by basis, without the first; the columns of `flows.model.client_counts` that a
minute shows; and by kind the downloads and deliveries outside the flight.
"""
FIRST_BASIS: Final = FIRST_PART + PARTS
FIRST_CLIENT: Final = FIRST_BASIS + len(BASES) - 1
OUTSIDE_SENT: Final = FIRST_CLIENT + len(FINAL_AT)
COLUMNS: Final = OUTSIDE_SENT + len(KINDS)
DAYS_OPEN: Final = 3
"""Days before today that may still change."""


class Parts(NamedTuple):
    """Parts of one placement shard for one row shard at a tick; `rows` index the rows of their `RowBatch`."""

    rows: U32
    minutes: U32
    parts: U8
    counts: I64


NO_PARTS: Final = Parts(
    np.zeros(0, np.uint32), np.zeros(0, np.uint32), np.zeros(0, np.uint8), np.zeros(0, np.int64)
)


class AlikeDays(NamedTuple):
    """The counts, by `COLUMNS`, that are equal for some placements on a day. `day` is the ordinal of the
    date.
    """

    day: int
    counts: tuple[int, ...]
    placements: list[str]
