"""Rows whose plans come and go, with the step that follows plans."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from flows.attribution.credit_book import CreditBook
from flows.engine.steps import RowsLogic
from flows.model.counts import FLIGHT_COUNTS, MINUTE_COUNTS
from flows.model.fields import FIELDS
from flows.model.messages import Flush, RowBatch
from flows.model.plan import Plan, PlanBook
from flows.model.ticks import Cut
from flows.settings.fields import Settings
from flows.state.saves import decode, encode

MINUTE, DAY = 60_000, 86_400_000
T0 = 1_790_000_000_000 // DAY * DAY
SECRET = b"sixteen bytes !!"
CAMPAIGN, OTHER = ("campaign", "c"), ("placement", "a")


class Line:
    """The only row shard, which also gets the times of repeated pixels."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._numbers = settings, count(1)
        self.logic = RowsLogic(settings, False, None, SECRET)

    def restart(self, settings: Settings | None = None) -> None:
        state = decode(encode(self.logic.snapshot()))
        self.logic = RowsLogic(settings or self._settings, False, state, SECRET)

    def cut(self, at_ms: int, *named: tuple[str, str]) -> dict[tuple[str, str], dict[str, Any]]:
        """The rows that changed."""
        number, n = next(self._numbers), len(named)
        here = Cut(number, at_ms, False, (), number == 1)
        rows, at, none = np.arange(n, dtype=np.uint32), np.full(n, at_ms), np.zeros(0, np.uint32)
        cells, totals = np.zeros((0, MINUTE_COUNTS), np.int64), np.full((n, FLIGHT_COUNTS), 5, np.int64)
        batch = RowBatch(
            0, 0, here, [*named], at, none, none, cells, rows, totals, none, none, none.astype(np.uint64), [],
            at, at, none, np.zeros((0, 3), np.int64),
        )  # fmt: skip
        out, _ = self.logic.on_batch([batch, *CreditBook(1).cut(here, [])[0]])
        (flush,) = (one for one in out if isinstance(one, Flush))
        return {
            (row.scope, row.name): dict(zip(FIELDS, msgspec.msgpack.decode(row.packed), strict=True))
            for row in flush.rows
        }


@pytest.mark.parametrize("restarts", [False, True])
def test_an_ended_campaign_returns_whole_with_its_plan(
    settings_of: Callable[..., Settings], restarts: bool
) -> None:
    line = Line(settings_of(shards=1))
    assert line.cut(T0, CAMPAIGN)[CAMPAIGN]["flight.repeated"] == 5
    line.cut(T0 + 5 * DAY, OTHER)
    assert CAMPAIGN not in line.logic._shard.row_index.numbers
    if restarts:
        line.restart()
    plan = Plan("new", 1_000, T0, T0 + 30 * DAY, campaign_id="c")
    assert CAMPAIGN not in line.cut(T0 + 5 * DAY, OTHER)
    line.logic._follow(PlanBook([plan]))
    assert line.cut(T0 + 5 * DAY + MINUTE, OTHER)[CAMPAIGN]["flight.repeated"] == 5
    assert CAMPAIGN not in line.cut(T0 + 9 * DAY, OTHER)
    assert CAMPAIGN in line.logic._shard.row_index.numbers, "it is planned"


@pytest.mark.parametrize("others", [1, 62, 63, 64, 127])
def test_a_row_returns_whole_also_when_its_table_grows(
    settings_of: Callable[..., Settings], others: int
) -> None:
    """Seed 162914: its mark was put into the table of before, so the flow failed, at each start again."""
    line = Line(settings_of(shards=1))
    line.cut(T0, CAMPAIGN)
    line.cut(T0 + 5 * DAY, OTHER)
    line.cut(T0 + 5 * DAY, *(("station", f"s{n}") for n in range(others)))
    line.logic._shard.bring_back(CAMPAIGN)
    assert line.cut(T0 + 5 * DAY + MINUTE, OTHER)[CAMPAIGN]["flight.repeated"] == 5


@pytest.mark.parametrize("names", [None, "plans.csv"], ids=["unset", "of another placement"])
def test_a_placement_unplanned_at_the_start_counts_its_own_flight(
    settings_of: Callable[..., Settings], tmp_path: Path, names: str | None
) -> None:
    plans = tmp_path / "plans.csv"
    header = "placement_id,booked,start,end\n"
    plans.write_text(f"{header}a,1000,2036-01-01T00:00Z,2036-02-01T00:00Z\n")
    line = Line(settings_of(shards=1, plans=plans))
    line.cut(T0, OTHER)
    assert line.logic._shard.row_index.planned == {OTHER}
    line.restart()
    plans.unlink()
    line.cut(T0 + MINUTE, OTHER)
    assert line.logic._shard.columns.planned.sum() == 1, "nobody has read the plans yet"
    plans.write_text(f"{header}b,1000,2036-01-01T00:00Z,2036-02-01T00:00Z\n")
    line.restart(settings_of(shards=1, plans=names and plans))
    line.cut(T0 + 2 * MINUTE, OTHER)
    of, row = line.logic._shard.columns, line.logic._shard.number(OTHER)
    assert (of.planned[row], of.flight_from[row]) == (0, 0)
