"""What the Redis writer makes of plans: rows keep their counts, withdrawn plans leave nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import msgspec

from connectors.redis import Client
from flows.clock import Cut
from flows.delivery import Thresholds
from flows.pacing import CAMPAIGN, IMPRESSIONS, Pacer
from flows.plans import Plan, PlanBook
from flows.publish import Flush, Publisher
from flows.rows import Row, empty
from flows.settings import Settings

HOUR_MS = 3_600_000
AT_MS = 2_000_000_000_000 // 60_000 * 60_000
PLAN = Plan("p", 1000, AT_MS - 2 * HOUR_MS, AT_MS + 2 * HOUR_MS, campaign_id="c")
FLIGHT = Thresholds(0.9, 1.1, timedelta(minutes=15))


@dataclass
class Held:
    """Plans as a test sets them."""

    book: PlanBook = field(default_factory=PlanBook)

    def refresh(self, now_ms: int) -> list[object]:
        return []


def row(scope: str, name: str, impressions: int) -> Row:
    values = empty(AT_MS)
    values[IMPRESSIONS] = impressions
    values[CAMPAIGN] = "c" if scope == "placement" else None
    return Row(scope, name, AT_MS, msgspec.msgpack.encode(values))


def rows(impressions: int) -> list[Flush]:
    return [Flush(0, None, [row("placement", "p", impressions), row("campaign", "c", impressions)])]  # type: ignore[arg-type]  # the writer is given the cut


@dataclass
class Writer:
    """An execution of the writer; each flush is a minute after the one before."""

    settings: Settings
    plans: Held
    number: int = 0

    def __post_init__(self) -> None:
        self.publisher = Publisher(self.settings, ["t/0"], True, pacer=Pacer(self.plans, FLIGHT))
        self.publisher.open()

    def flush(self, position: int, flushes: list[Flush]) -> None:
        self.number += 1
        cut = Cut(self.number, AT_MS + self.number * 60_000, False, (("t/0", position),))
        self.publisher.flush(cut, flushes)


def shown(client: Client, settings: Settings, scope: str, name: str) -> tuple[str | None, str | None]:
    found = client.hgetall(f"{settings.namespace}:{scope}:{{{name}}}")
    return found.get("flight.impressions"), found.get("delivery.state")


def test_a_row_that_was_read_again_behind_what_readers_have_keeps_its_counts_when_it_is_paced(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of()
    before = Writer(settings, Held(PlanBook([PLAN])))
    before.flush(10, rows(200))
    assert shown(client, settings, "placement", "p") == ("200", "under")
    before.publisher.close()

    after = Writer(settings, Held(PlanBook([PLAN])))
    after.flush(5, rows(200))  # still behind: nothing is published
    after.flush(11, [])
    assert shown(client, settings, "placement", "p") == ("200", "under")
    assert shown(client, settings, "campaign", "c") == ("200", "under")
    after.publisher.close()


def test_a_withdrawn_plan_leaves_its_rows_at_once_and_they_expire_again(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings, plans = settings_of(), Held(PlanBook([PLAN]))
    writer = Writer(settings, plans)
    writer.flush(10, rows(200))
    key = f"{settings.namespace}:placement:{{p}}"
    assert (shown(client, settings, "placement", "p"), client.ttl(key)) == (("200", "under"), -1)
    plans.book = PlanBook()
    writer.flush(11, [])
    assert shown(client, settings, "placement", "p") == ("200", None)
    assert shown(client, settings, "campaign", "c") == ("200", None)
    assert client.ttl(key) > 0
    writer.publisher.close()


def test_a_plan_that_comes_later_than_the_flow_does_not_tell_a_known_state_again(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of()
    before = Writer(settings, Held(PlanBook([PLAN])))
    before.flush(10, rows(200))
    before.publisher.close()
    plans = Held()
    after = Writer(settings, plans)
    after.flush(10, [])
    plans.book = PlanBook([PLAN])
    after.flush(11, rows(200))
    assert shown(client, settings, "placement", "p") == ("200", "under")
    assert client.xlen(f"{settings.namespace}:alerts") == 1
    after.publisher.close()
