"""A row says the basis of its own impressions, and ends by its own pixels, whatever its name had before."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from connectors.stream import Messages
from flows.intake.decoder import Decoder
from flows.intake.split import Splitter
from flows.intake.watermark import PartitionClock
from flows.model.events import IMPRESSION
from flows.model.fields import basis_of
from flows.model.ticks import Cut
from flows.plays.play_shard import PlayShard
from flows.rows.row_index import Limits
from flows.rows.row_shard import RowShard

KEY = b"a key of sixteen bytes or more"
MINUTE, HOUR = 60_000, 60
T0 = 1_790_000_000_000 // 86_400_000 * 1440
"""A midnight, in minutes."""


class Flow:
    """A shard of plays and a shard of rows, with a cut after each pixel."""

    def __init__(self, limits: Limits) -> None:
        self.decoder, self.splitter = Decoder(KEY), Splitter("log", 1, KEY)
        self.clock, self.sent = PartitionClock(10_000, MINUTE), 0
        self.plays = PlayShard(0, 1, 10 * MINUTE, 24 * HOUR * MINUTE, 24 * HOUR * MINUTE)
        self.rows = RowShard(0, 1, 10 * MINUTE, MINUTE, lambda minute: minute // 1440, limits=limits)

    def pixel(self, name: str, minute: int, basis: str = "audible_2s", event: str = "impression") -> None:
        known = {"event_id": f"e{self.sent}", "event": event, "play_id": f"p{self.sent}"}
        line = known | {"ts": minute * MINUTE, "placement_id": name, "basis": basis}
        self.sent += 1
        messages = Messages([msgspec.json.encode(line)], range(self.sent - 1, self.sent), self.sent)
        decoded = self.decoder.decode(messages)
        self.clock.judge(decoded.pixels)
        for pixels in self.splitter.split(decoded):
            assert not self.plays.apply(pixels)
        cut = Cut(self.sent, minute * MINUTE, False, ())
        self.rows.apply(cut, self.plays.cut(cut)[0])

    def row(self, name: str) -> tuple[int, Any]:
        """The impressions of a row, and what it says of their basis."""
        number = self.rows.row_index.numbers["placement", name]
        windows = self.rows.numbers_of(np.array([number]))
        return int(windows.sums[3][0, IMPRESSION]), basis_of(int(windows.bases[0]))


@pytest.mark.parametrize(("then", "said"), [("audible_2s", "audible_2s"), ("vast_impression", "mixed")])
def test_a_name_leaving_other_publishes_its_own_rows_basis(then: str, said: str) -> None:
    flow = Flow(Limits(stays=2 * HOUR, rows=1))
    flow.pixel("a", T0, "vast_impression")
    for half_day in range(4):
        flow.pixel("b", T0 + 1 + half_day * 12 * HOUR, "audible_2s" if half_day else then)
    flow.pixel("b", T0 + 48 * HOUR, then)
    assert flow.row("b") == (2, said)


def test_a_restarted_row_publishes_its_basis_again() -> None:
    flow = Flow(Limits(stays=2 * HOUR, remembered=30 * HOUR))
    flow.pixel("b", T0)
    for hour in range(0, 60, 6):
        flow.pixel("a", T0 + 1 + hour * HOUR)
    flow.pixel("b", T0 + 60 * HOUR)
    assert flow.row("b") == (1, "audible_2s")


def test_a_late_settlement_is_no_pixel_of_its_row() -> None:
    """An orphan does, at the first cut that it is final by: as late as the next pixel of whoever comes."""
    flow = Flow(Limits(stays=48 * HOUR))
    flow.pixel("a", T0)
    flow.pixel("a", T0, event="complete")
    flow.pixel("b", T0 + 5 * 24 * HOUR)
    flow.pixel("b", T0 + 5 * 24 * HOUR + HOUR)
    assert [name for scope, name in flow.rows.row_index.numbers if scope == "placement"] == ["b"]
