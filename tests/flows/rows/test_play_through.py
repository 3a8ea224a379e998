"""A share is at most 1: plays whose deliveries count in another row have none."""

from __future__ import annotations

import numpy as np

from flows.model.basis import CONFIRMED_PLAYS, DELIVERIES, SHOWN, SIDES
from flows.rows.published import _beside


def through(deliveries: int, confirmed: int) -> object:
    sides = np.zeros(len(SIDES), np.int64)
    sides[DELIVERIES], sides[CONFIRMED_PLAYS] = deliveries, confirmed
    return _beside(0, sides)[SHOWN.index("play_through")]


def test_a_share_above_one_is_absent() -> None:
    assert through(71, 32_141) is None
    assert through(0, 5) is None
    assert (through(4, 3), through(4, 4), through(4, 0)) == ("0.75", "1", None)
