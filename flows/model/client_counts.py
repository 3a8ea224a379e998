"""Downloads and deliveries by client: their published names, and the messages about them between stages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from flows.model.catalogue.metrics import BY_CLIENT, CLIENT_WINDOWS, names
from flows.model.dimensions import Dimensions
from flows.model.ticks import Cut

if TYPE_CHECKING:  # readers of rows import these names without the compiler
    from flows.state.arrays import I64, U8, U32, U64

KINDS: Final = ("downloads", "deliveries")
DOWNLOADS, DELIVERIES = range(2)
WINDOWS: Final = tuple(CLIENT_WINDOWS)
COLUMNS: Final = names(BY_CLIENT)
"""Columns of counts, one kind after another: the final count by window, the count without a key, and by
window an estimate of what is not final, which may fall.
"""
UNKEYED, PROVISIONAL = len(WINDOWS), len(WINDOWS) + 1
COLUMNS_PER_KIND: Final = len(COLUMNS) // len(KINDS)
FINAL_AT: Final = tuple(
    kind * COLUMNS_PER_KIND + place for kind in range(len(KINDS)) for place in range(UNKEYED + 1)
)
"""The columns that a published minute has."""

KEY, TIME, DETAILS = range(3)
"""The words of a delivery or download: its key, its time in epoch ms, and its dimensions | its kind | its
order among events of one time.
"""
COMBO_SHIFT: Final = 32
KIND_SHIFT: Final = 31


class ClientBatch(NamedTuple):
    """Accepted, valid events of one placement shard for one client shard at a tick. `sent` are (n, 3)
    words, whose dimensions index `names`.
    """

    sender: int
    to: int
    cut: Cut
    names: list[Dimensions]
    sent: U64


class ClientCounts(NamedTuple):
    """The increments of one client shard at a cut: `amounts[i]` to column `columns[i]` of `COLUMNS`, in a
    minute of the rows of `names[combos[i]]`.
    """

    shard: int
    cut: Cut
    names: list[Dimensions]
    combos: U32
    minutes: U32
    columns: U8
    amounts: I64

    @property
    def sender(self) -> str:
        """The shard's name as a sender, which no listener shard has."""
        return sender_of(self.shard)


def sender_of(shard: int) -> str:
    """The name of a client shard among the senders of a step."""
    return f"clients {shard}"


class SideIncrements(NamedTuple):
    """Increments for one row shard: `amounts[i]` to column `columns[i]` of `flows.model.basis.SIDES`, in a
    minute of `rows[row_places[i]]`.
    """

    rows: list[tuple[str, str]]
    row_places: U32
    minutes: U32
    columns: U8
    amounts: I64


NO_SIDE_INCREMENTS: Final = SideIncrements(
    [], np.zeros(0, np.uint32), np.zeros(0, np.uint32), np.zeros(0, np.uint8), np.zeros(0, np.int64)
)
