"""A name that leaves `other` shows no number below 0, and what it shows adds up."""

from __future__ import annotations

import numpy as np

from flows.model.basis import BASES, SIDES
from flows.model.conversion_columns import CLASSES, WHOLE
from flows.model.counts import CONSENTED_PLAYS, HELD_COLUMN, MINUTE_COUNTS, REPAIRED
from flows.model.events import CODES
from flows.model.messages import ConversionAccount, CreditBatch
from flows.model.ticks import Cut
from flows.rows.ended import RowName
from flows.rows.packing import NIL, fill_counts
from flows.rows.published import _shown, side_values
from flows.rows.row_columns import RowColumns
from flows.rows.row_conversions import RowConversions

SKIP, MUTE = CODES["skip"], CODES["mute"]
C: RowName = ("campaign", "c")


def noted(of: RowColumns, *moved: tuple[int, int], account: tuple[int, ...] = (0, 0, 0, 0)) -> None:
    frequency = [(C, place, listeners, WHOLE) for place, listeners in moved]
    empty = np.zeros(0, np.uint32)
    places = empty, empty, empty.astype(np.uint8), empty.astype(np.int64)
    accounts = [(C, ConversionAccount(*account))]
    RowConversions(of).note(
        CreditBatch(0, Cut(1, 0, False, ()), [], *places, frequency, [], accounts), lambda _: 0
    )


def test_a_listener_counted_in_other_leaves_no_class_of_the_row() -> None:
    of = RowColumns()
    noted(of, (0, -2), (1, 2))
    noted(of, (0, 3))
    assert of.frequencies[0][0] == (3, 2, *[0] * (len(CLASSES) - 2))


def test_a_conversion_accepted_in_other_stays_accepted() -> None:
    of = RowColumns()
    noted(of, account=(1, 0, 0, 1))
    noted(of, account=(0, 2, 1, -3))
    assert of.accounts[0] == ConversionAccount(3, 2, 1, 0)
    noted(of, account=(1, 0, 0, 1))
    assert of.accounts[0] == ConversionAccount(4, 2, 1, 1)


def test_bases_sum_to_the_impressions_after_upgrades_in_other() -> None:
    for impressions, audible, streamed in ((0, 1, 0), (2, 1, 0), (3, 5, -1), (3, -1, 2)):
        sides = np.zeros(len(SIDES), np.int64)
        sides[:2] = audible, streamed
        bases = side_values(np.array([impressions]), sides[None])[0, : len(BASES)]
        shown = np.where(bases == NIL, 0, bases).tolist()
        assert sum(shown) == impressions
        assert min(shown) >= 0


def test_a_correction_from_other_never_makes_a_count_negative() -> None:
    sums, every, none = np.zeros((1, MINUTE_COUNTS), np.int64), np.ones(1, bool), np.zeros(1, np.int64)
    sums[0, [REPAIRED, SKIP + HELD_COLUMN, MUTE, MUTE + HELD_COLUMN]] = -1, -1, 2, -1
    out = np.zeros((1, CONSENTED_PLAYS + 4), np.int64)
    fill_counts(out, sums, every, none, ~every)
    for shown in (out[0], _shown(sums, every)[0]):
        assert (shown[REPAIRED], shown[SKIP], shown[MUTE]) == (0, 0, 1)
