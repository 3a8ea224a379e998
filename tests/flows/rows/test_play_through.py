"""A share is at most 1: plays whose deliveries count in another row have none."""

from __future__ import annotations

import numpy as np

from flows.model.basis import CONFIRMED_PLAYS, DELIVERIES, SHOWN, SIDES
from flows.rows.packing import NIL
from flows.rows.published import side_values


def through(deliveries: int, confirmed: int) -> int:
    sides = np.zeros(len(SIDES), np.int64)
    sides[DELIVERIES], sides[CONFIRMED_PLAYS] = deliveries, confirmed
    return int(side_values(np.zeros(1, np.int64), sides[None])[0, SHOWN.index("play_through")])


def test_a_share_above_one_is_absent() -> None:
    assert through(71, 32_141) == NIL
    assert through(0, 5) == NIL
    assert (through(4, 3), through(4, 4), through(4, 0)) == (750_000, 1_000_000, NIL)
