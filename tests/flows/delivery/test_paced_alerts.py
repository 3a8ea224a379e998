"""Alerts on their way out: the readers of a change of state, and their number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import pytest
from test_paced_rows import AT_MS, PLAN, SINCE_MS, Held, Writer, delivery, flushed, row, rows, sent_alerts

from connectors.redis.client import Client
from flows.errors import AudiopixelError
from flows.model.plan import PlanBook
from flows.model.ticks import Cut
from flows.publish.redis_writer import LONGEST_PAUSE_S
from flows.settings.fields import Settings


@dataclass
class Topic:
    """The alerts that a topic received."""

    position: int = 0
    alerts: list[tuple[str, str, str]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    flushes: int = 0

    def write(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        for key, value in items:
            said = msgspec.json.decode(value)
            self.keys.append(key.decode())
            self.alerts.append((said["placement"], said["from"], said["to"]))

    def flush(self) -> None:
        self.flushes += 1

    def close(self) -> None:
        pass


def telling(settings: Settings, book: PlanBook, number: int = 0) -> tuple[Writer, Topic]:
    """An execution, and the topic that it tells."""
    writer, topic = Writer(settings, Held(book), number), Topic()
    writer.publisher.writer.alerts_to = topic
    return writer, topic


def test_alerts_wait_for_redis_and_are_sent_once(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings, elapsed_s = settings_of(redis_timeout=0.2), 0.0
    writer, topic = telling(settings, PlanBook([PLAN]))
    writer.publisher.monotonic_s = lambda: elapsed_s
    writer.flush(10, rows(1000))
    assert topic.alerts == [("p", "not_started", "complete")]
    writer.plans.book = PlanBook([replace(PLAN, booked=9000)])
    client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")  # until UNPAUSE
    try:
        for position in range(11, 15):
            elapsed_s += LONGEST_PAUSE_S
            writer.flush(position, rows(1000))
    finally:
        client.execute_command("CLIENT", "UNPAUSE")
    assert topic.alerts == [("p", "not_started", "complete")]
    elapsed_s += LONGEST_PAUSE_S
    writer.flush(15, rows(1000))
    assert topic.alerts == [("p", "not_started", "complete"), ("p", "complete", "under")]
    assert sent_alerts(client, settings) == topic.alerts
    writer.publisher.close()


def test_a_replaced_execution_sends_no_alert(settings_of: Callable[..., Settings], client: Client) -> None:
    settings = settings_of()
    stale, topic = telling(settings, PlanBook([PLAN]))
    stale.flush(10, rows(1000))
    newer, _ = telling(settings, PlanBook([PLAN]), stale.number)
    newer.flush(11, rows(1000))
    stale.plans.book = PlanBook([replace(PLAN, booked=9000)])
    with pytest.raises(AudiopixelError, match="another execution took over"):
        stale.flush(12, rows(1000))
    assert topic.alerts == sent_alerts(client, settings) == [("p", "not_started", "complete")]
    for one in (stale, newer):
        one.publisher.close()


def test_many_changes_of_one_flush_wait_for_the_topic_few_times(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    """Flights of a whole market begin with the same minute."""
    plans = [replace(PLAN, placement_id=f"p{n:04}") for n in range(1_200)]
    settings = settings_of()
    writer, topic = telling(settings, PlanBook(plans))
    writer.flush(10, flushed(*(row("placement", plan.placement_id, 200, plan) for plan in plans)))
    assert topic.alerts == sent_alerts(client, settings)
    assert topic.alerts == [(plan.placement_id, "not_started", "under") for plan in plans]
    assert topic.flushes <= 3
    writer.publisher.close()


def states(client: Client, settings: Settings) -> tuple[str | None, str | None]:
    """The state of the placement, and the state of the last alert in its row."""
    found = delivery(client, settings, "placement", "p")
    return found.get("state"), found.get("alerted_state")


def test_alerts_wait_for_fresh_numbers_and_are_sent_once(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings, plans, age_s = settings_of(), Held(PlanBook([PLAN])), 10.0

    def execution(number: int) -> tuple[Writer, Topic]:
        writer, topic = telling(settings, plans.book, number)
        writer.publisher.clock_s = lambda: AT_MS / 1000 + 60 * (writer.number) + age_s
        return writer, topic

    writer, topic = execution(0)
    writer.flush(10, rows(1000))
    assert topic.alerts == [("p", "not_started", "complete")]
    age_s = 301.0
    plans.book = writer.plans.book = PlanBook([replace(PLAN, booked=9000)])
    writer.flush(11, rows(1000))
    assert states(client, settings) == ("under", "complete")
    writer.publisher.close()

    writer, topic = execution(2)  # a restart forgets nothing
    writer.flush(12, rows(1001))
    assert states(client, settings) == ("under", "complete")
    assert topic.alerts == []
    age_s = 10.0
    writer.flush(13, flushed(), watermark_ms=AT_MS + 3 * 60_000)  # within the minute, and no row has changed
    assert topic.alerts == [("p", "complete", "under")]
    assert states(client, settings) == ("under", None)
    age_s = 301.0
    writer.plans.book = PlanBook([PLAN])
    writer.flush(14, rows(1001))
    assert states(client, settings) == ("complete", "under")
    writer.plans.book = PlanBook([replace(PLAN, booked=9000)])
    writer.flush(15, rows(1001))
    assert states(client, settings) == ("under", None)
    age_s = 10.0
    writer.flush(16, rows(1001))
    assert topic.alerts == [("p", "complete", "under")], "it is as it was told"
    writer.publisher.close()


@pytest.mark.parametrize(
    ("cut", "changes"),
    [
        # A flow without a message knows no delivery of a flight that began earlier.
        (Cut(1, 0, False, (("t/0", 0),), empty=True), [("fresh", "not_started", "warming_up")]),
        (Cut(1, AT_MS, True, (("t/0", 1),), counted_since_ms=SINCE_MS), [("p", "not_started", "under")]),
    ],
    ids=["empty", "ended"],
)
def test_empty_topics_and_ended_logs_are_never_stale(
    settings_of: Callable[..., Settings], client: Client, cut: Cut, changes: list[tuple[str, str, str]]
) -> None:
    settings, fresh = settings_of(), replace(PLAN, placement_id="fresh", start_ms=AT_MS + 1)
    writer, topic = telling(settings, PlanBook([PLAN, fresh]))
    writer.publisher.clock_s = lambda: (AT_MS + 600_000) / 1000
    writer.publisher.flush(cut, flushed())
    assert client.hget(f"{settings.namespace}:meta", "judged") == "0"
    assert topic.alerts == changes
    writer.publisher.close()
