"""The moment from which a state holds, where the flow first judges long after the state began."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from redis import Redis
from test_paced_rows import AT_MS, PLAN, Held, Writer, delivery, rows

from connectors.embedded import EmbeddedValkey
from connectors.redis.client import Client
from flows.delivery.past_minutes import STORED_MINUTES, Past
from flows.model.messages import EndedMinutes, Flush
from flows.model.plan import PlanBook
from flows.replay import replay
from flows.settings.fields import Settings

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
START_MS: Final = 1_764_028_800_000
A_MINUTE: Final = 6


@pytest.fixture
def redis(valkey: EmbeddedValkey) -> Iterator[Any]:
    with Redis.from_url(valkey.url, decode_responses=True) as client:
        yield client


def log_of(path: Path, minutes: dict[str, range]) -> Path:
    """A log in which each placement has six impressions in each of its minutes."""
    step_ms = MINUTE_MS // A_MINUTE
    lines = []
    for name, of in minutes.items():
        for at_ms in range(of.start * MINUTE_MS, of.stop * MINUTE_MS, step_ms):
            ts = START_MS + at_ms
            event = {"event_id": f"{name}-{at_ms}", "event": "impression", "ts": ts, "received_at": ts}
            lines.append((ts, json.dumps(event | {"placement_id": name})))
    path.write_text("".join(f"{line}\n" for _, line in sorted(lines)))
    return path


def plans_of(path: Path, booked: int, *names: str) -> Path:
    head = "placement_id,booked,start,end,campaign_id"
    span = "2025-11-25T00:00:00Z,2025-11-25T10:00:00Z"
    path.write_text("\n".join([head, *(f"{name},{booked},{span},c" for name in names)]) + "\n")
    return path


def began(redis: Any, settings: Settings, scope: str, name: str) -> tuple[str, float]:
    """A row's state, and the minute of the flight from which on it holds."""
    found = redis.hgetall(f"{settings.namespace}:{scope}:{{{name}}}")
    return found["delivery.state"], (int(found["delivery.since_ms"]) - START_MS) / MINUTE_MS


def test_states_of_a_replayed_log_have_their_historical_begins(
    redis: Any, settings_of: Callable[..., Settings], tmp_path: Path
) -> None:
    # 3,600 in ten hours are six a minute. The first stops after an hour: at 66.7 min 0.9 of 400 are left.
    log = log_of(tmp_path / "log.ndjson", {"stops": range(60), "well": range(240), "begins": range(234, 240)})
    plans = plans_of(tmp_path / "plans.csv", 3_600, "stops", "well", "begins")
    settings = settings_of(plans=plans)
    replay([str(log)], settings, b"a key of a test!")

    state, minute = began(redis, settings, "placement", "stops")
    assert state == "under"
    assert 66 <= minute <= 76, "three hours ago, not now"
    assert began(redis, settings, "placement", "well") == ("on_track", 15.0), (
        "since it is old enough to be judged"
    )
    state, minute = began(redis, settings, "placement", "begins")
    assert (state, minute) == ("under", 15.0)
    state, minute = began(redis, settings, "campaign", "c")
    assert state == "under"
    assert minute == 15.0


def ended(start_ms: int, counts: list[int]) -> EndedMinutes:
    first = start_ms // MINUTE_MS
    return EndedMinutes(
        ["p"], np.zeros(len(counts), np.int64), first + np.arange(len(counts)), np.array(counts)
    )


def past_hours() -> list[Flush]:
    """`rows` of 200 impressions, all of them in the first minutes of the plan's flight."""
    some = rows(200)
    return [some[0]._replace(minutes=ended(PLAN.start_ms, [10] * 20 + [0] * 100)), *some[1:]]


def test_a_first_state_begins_at_its_first_minute_in_history(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of()
    writer = Writer(settings, Held(PlanBook([PLAN])))
    writer.flush(10, past_hours())
    # 200 of 1,000 in four hours are below 0.9 of what is due, by a standard error, from 57 minutes on.
    for scope, name in (("placement", "p"), ("campaign", "c")):
        since_ms = int(delivery(client, settings, scope, name)["since_ms"])
        assert 57 <= (since_ms - PLAN.start_ms) / MINUTE_MS <= 57 + 6, scope
    writer.publisher.close()


def test_a_state_without_minutes_begins_now(settings_of: Callable[..., Settings], client: Client) -> None:
    settings = settings_of()
    writer = Writer(settings, Held(PlanBook([PLAN])))
    writer.flush(10, rows(200))
    assert int(delivery(client, settings, "placement", "p")["since_ms"]) == AT_MS + MINUTE_MS
    writer.publisher.close()


def test_the_moment_is_in_the_save(settings_of: Callable[..., Settings], client: Client) -> None:
    settings = settings_of()
    before = Writer(settings, Held(PlanBook([PLAN])))
    before.flush(10, rows(200))
    since = delivery(client, settings, "placement", "p")["since_ms"]
    pacer = before.publisher.pacer
    assert pacer is not None
    saved = [list(one) for one in pacer.saved]
    before.publisher.close()
    client.flushdb()

    after = Writer(settings, Held(PlanBook([PLAN])), number=30)
    assert after.publisher.pacer is not None
    after.publisher.pacer.restore(saved)
    after.flush(11, rows(201))
    for scope, name in (("placement", "p"), ("campaign", "c")):
        assert delivery(client, settings, scope, name)["since_ms"] == since, scope
    after.publisher.close()


def test_a_state_begins_no_earlier_than_the_last_other_one(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of()
    writer = Writer(settings, Held(PlanBook([PLAN])))
    writer.flush(10, rows(460), AT_MS - 10 * MINUTE_MS)
    assert delivery(client, settings, "placement", "p")["state"] == "at_risk"
    writer.flush(11, past_hours(), AT_MS)  # by these minutes it was under for an hour
    of = delivery(client, settings, "placement", "p")
    assert of["state"] == "under"
    assert 0 <= int(of["since_ms"]) - (AT_MS - 10 * MINUTE_MS) <= 5 * MINUTE_MS
    writer.publisher.close()


def test_minutes_are_kept_for_a_day_and_go_with_the_plan() -> None:
    past, base = Past(), START_MS // MINUTE_MS
    past.take(ended(START_MS, [1] * (STORED_MINUTES + 100)))
    assert past.after("p", base + STORED_MINUTES + 90) == 10
    assert past.after("p", base + 100) == STORED_MINUTES
    assert past.first == base + 100
    assert past.after("q", base) == 0
    past.take(ended(START_MS, [1]))
    assert past.after("p", base + 100) == STORED_MINUTES, "what is older than a day is passed over"
    past.clear()
    assert past.after("p", base + 100) == 0
