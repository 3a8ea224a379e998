"""Downloads and deliveries: events with a key are stored for the client shards, the others are counted."""

from __future__ import annotations

from typing import Final

import numpy as np

from flows.model.basis import CLIENTS_AT
from flows.model.client_counts import (
    COLUMNS_PER_KIND,
    COMBO_SHIFT,
    DELIVERIES,
    DETAILS,
    DOWNLOADS,
    KEY,
    KIND_SHIFT,
    TIME,
    UNKEYED,
    ClientBatch,
)
from flows.model.events import DELIVERED
from flows.model.pixel import TIE, TIE_SHIFT
from flows.model.ticks import Cut
from flows.plays.bases import note
from flows.plays.dimension_index import DimensionIndex
from flows.plays.increments import Increments
from flows.plays.slots import SENT_USED
from flows.state.arrays import I64, U64, Int
from flows.state.kernel import lean

_COMBO: Final = np.uint64(COMBO_SHIFT)
_REST: Final = np.uint64((1 << COMBO_SHIFT) - 1)
_NONE: Final[U64] = np.zeros((0, 3), np.uint64)


@lean
def keep_sent(increments: Increments, used: I64, key: Int, combo: Int, ts: Int, info: Int) -> None:
    """Store an accepted, valid event for its client shard, or count it as an event without a key. There must
    be room for one more of each kind.
    """
    kind = DELIVERIES if info & 0xFF == DELIVERED else DOWNLOADS
    if key == np.uint64(0):
        note(increments.sides, used, combo, ts // 60_000, CLIENTS_AT + kind * COLUMNS_PER_KIND + UNKEYED, 1)
        return
    place = used[SENT_USED]
    event_word = np.int64(combo) << COMBO_SHIFT | kind << KIND_SHIFT | (info >> TIE_SHIFT & TIE)
    increments.sent[place, KEY], increments.sent[place, TIME] = key, np.uint64(ts)
    increments.sent[place, DETAILS] = np.uint64(event_word)
    used[SENT_USED] += 1


def client_batches(sender: int, cut: Cut, shards: int, names: DimensionIndex, sent: U64) -> list[ClientBatch]:
    """A message to every client shard, empty or not, with its events, in their order."""
    if not len(sent):
        return [ClientBatch(sender, to, cut, [], _NONE) for to in range(shards)]
    homes = (sent[:, KEY] % np.uint64(shards)).astype(np.int64)
    batches = []
    for to in range(shards):
        own = sent[homes == to]
        combos, local = np.unique(own[:, DETAILS] >> _COMBO, return_inverse=True)
        own[:, DETAILS] = (own[:, DETAILS] & _REST) | local.astype(np.uint64) << _COMBO
        batches.append(ClientBatch(sender, to, cut, [names.combos[n] for n in combos.tolist()], own))
    return batches
