"""The indexes of rows: who is in them, and when who has expired is taken out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from connectors.redis import Client
from flows import rows
from flows.clock import Cut
from flows.delivery import Thresholds
from flows.pacing import Pacer, plan_file
from flows.publish import LAYOUTS, TRIM_EVERY_S, Flush, Publisher
from flows.settings import Settings, ms

NOW_S = 1_764_000_000.0
DAY_S = 86_400
PLAN = "placement_id,booked,start,end,campaign_id\nquiet,1000,2025-01-01T00:00Z,2026-01-01T00:00Z,autumn\n"


@dataclass
class Desk:
    """A publisher whose wall clock is turned by hand."""

    publisher: Publisher
    client: Client
    now_s: float = NOW_S
    number: int = 0

    def flush(self, *names: str, last_event_s: float = 0.0) -> None:
        """The rows of some placements, with their last event so long before now."""
        self.number += 1
        latest_ms = int((self.now_s - last_event_s) * 1000)
        packed = LAYOUTS["row"].pack(rows.empty(latest_ms))
        some = [rows.Row("placement", name, latest_ms, packed) for name in names]
        cut = Cut(self.number, int(self.now_s * 1000), False, (("log", self.number),))
        self.publisher.flush(cut, [Flush(0, cut, some)])

    def index(self, scope: str = "placement") -> set[str]:
        """Who is in the index."""
        key = f"{self.publisher.settings.namespace}:index:{scope}"
        return {str(name) for name in self.client.zrange(key, 0, -1)}

    def expire(self, name: str) -> None:
        """What its TTL would do to a row, by now."""
        key = f"{self.publisher.settings.namespace}:placement:{{{name}}}"
        assert 0 < self.client.pttl(key) <= ms(self.publisher.settings.row_ttl)
        self.client.delete(key)


@pytest.fixture
def desk(settings_of: Callable[..., Settings], client: Client, tmp_path: Path) -> Iterator[Desk]:
    plans = tmp_path / "plans.csv"
    plans.write_text(PLAN)
    settings = settings_of(plans=plans)
    file = plan_file(settings)
    assert file is not None
    pacer = Pacer(file, Thresholds(settings.under, settings.over, settings.delivery_grace))
    publisher = Publisher(settings, ["log"], False, pacer=pacer, clock_s=lambda: made.now_s)
    made = Desk(publisher, client)
    publisher.open()
    yield made
    publisher.close()


def test_who_has_expired_leaves_the_index_and_what_is_planned_or_there_never_does(desk: Desk) -> None:
    desk.flush("expired", "there", "again")
    assert desk.index() == {"expired", "there", "again", "quiet"}
    desk.now_s += 3 * DAY_S
    desk.expire("expired")
    desk.expire("again")
    desk.flush("again")
    assert desk.index() == {"there", "again", "quiet"}
    assert desk.index("campaign") == {"autumn"}


def test_the_indexes_are_looked_at_once_an_hour(desk: Desk) -> None:
    desk.flush("a", "b", last_event_s=3 * DAY_S)
    for name, before, after in (("a", {"a", "b"}, {"b"}), ("b", {"b"}, set())):
        desk.expire(name)
        desk.now_s += TRIM_EVERY_S - 1
        desk.flush()
        assert desk.index() == {"quiet", *before}
        desk.now_s += 1
        desk.flush()
        assert desk.index() == {"quiet", *after}


def test_an_index_that_cannot_be_trimmed_stops_no_flush(desk: Desk) -> None:
    desk.client.set(f"{desk.publisher.settings.namespace}:index:station", "no index")
    desk.now_s += TRIM_EVERY_S
    desk.flush("a")
    desk.flush("b")
    assert desk.index() == {"a", "b", "quiet"}
