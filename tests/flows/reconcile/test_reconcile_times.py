"""The oracle and the times of a row: what it is as of, and what it says is final."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from connectors.redis.client import Client
from flows.cli.reconcile_settings import rules
from flows.reconcile.comparison import differences
from flows.reconcile.recomputation import recompute
from flows.reconcile.truth import Recomputation
from flows.replay import replay
from flows.settings.fields import Settings

T0, KEY = 1_764_000_000_000, b"a key of sixteen bytes or more"  # a full minute
HOUR_MS, END_MS = 3_600_000, T0 + 30 * 3_600_000 + 7_000
FINAL_MS = END_MS - 7_000 + 60_000
LATENESS_MS = 600_000
Replayed = tuple[Settings, Recomputation]


@pytest.fixture
def replayed(settings_of: Callable[..., Settings], tmp_path: Path) -> Replayed:
    """`old` was heard 30 hours before the log's end, `planned`, too; `new` at its end."""
    heard = [("old", T0), ("planned", T0), *(("new", END_MS + n) for n in range(-5_000, 1, 1_000))]
    log, plans = tmp_path / "log.ndjson", tmp_path / "plans.csv"
    pixel = {"event": "impression", "listener_id": "l", "consent": True}
    lines = [pixel | {"event_id": f"{name}{at}", "placement_id": name, "ts": at} for name, at in heard]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    plans.write_text("placement_id,booked,start,end\nplanned,9,2025-11-24T00:00Z,2025-12-24T00:00Z\n")
    settings = settings_of(plans=plans)
    replay([str(log)], settings, KEY)
    return settings, recompute([log], rules(settings))


def differing_times(found: Replayed, client: Client, name: str, **times: int) -> set[str]:
    """The times that are differences where a row says `times`."""
    settings, truth = found
    key = f"{settings.namespace}:placement:{{{name}}}"
    right = client.hgetall(key)
    client.hset(key, mapping=times)
    wrong = {one.metric for one in differences(truth, client, settings.namespace) if one.id == name}
    client.hset(key, mapping=right)
    return {of for of in wrong if of.endswith("_ms")}


def live(found: Replayed, client: Client) -> None:
    """Let the partitions be a topic's, and no longer the log's own."""
    client.hset(f"{found[0].namespace}:positions", "positions", json.dumps({"t/0": 1}))


def test_an_ended_log_has_only_final_minutes(replayed: Replayed, client: Client) -> None:
    for name in ("old", "planned", "new"):
        assert differing_times(replayed, client, name, final_through_ms=FINAL_MS) == set()
        for off_ms in (-660_000, -600_000, -60_000, -59_999, -1, 1, 60_000):
            found = differing_times(replayed, client, name, final_through_ms=FINAL_MS + off_ms)
            assert found == {"final_through_ms"}, (name, off_ms)


def test_each_row_of_an_ended_log_is_as_of_its_end(replayed: Replayed, client: Client) -> None:
    for name in ("old", "planned", "new"):
        for at_ms in (1, T0, END_MS - 10_000, END_MS - 1, END_MS, END_MS + 1):
            wrong = set() if at_ms == END_MS else {"as_of_ms", "reach_as_of_ms"}
            found = differing_times(replayed, client, name, as_of_ms=at_ms, reach_as_of_ms=at_ms)
            assert found >= wrong, (name, at_ms)


def test_a_live_row_is_final_up_to_its_lateness(replayed: Replayed, client: Client) -> None:
    live(replayed, client)
    closed_ms = (END_MS - LATENESS_MS) // 60_000 * 60_000
    for name in ("old", "planned", "new"):
        assert differing_times(replayed, client, name, final_through_ms=closed_ms) == set()
        for wrong in (closed_ms - 60_000, closed_ms - 1, closed_ms + 1, closed_ms + 60_000):
            assert differing_times(replayed, client, name, final_through_ms=wrong) == {"final_through_ms"}, (
                name
            )


def test_a_quiet_live_row_is_final_as_of_its_write(replayed: Replayed, client: Client) -> None:
    live(replayed, client)
    at_ms = T0 + 29 * HOUR_MS + 5_000
    closed_ms = (at_ms - LATENESS_MS) // 60_000 * 60_000
    times = {"as_of_ms": at_ms, "reach_as_of_ms": at_ms}
    assert differing_times(replayed, client, "old", final_through_ms=closed_ms, **times) == set()
    assert differing_times(replayed, client, "old", final_through_ms=5, **times) == {"final_through_ms"}
    assert differing_times(replayed, client, "old", final_through_ms=closed_ms - 60_000, **times) == {
        "final_through_ms"
    }
    assert "reach_as_of_ms" in differing_times(replayed, client, "old", reach_as_of_ms=at_ms)


def test_a_quiet_placements_delivery_may_be_newer_than_its_counts(replayed: Replayed, client: Client) -> None:
    # Its pacing is written every minute, with the counts of its shard's last version.
    live(replayed, client)
    counted_ms = T0 + 29 * HOUR_MS + 5_000
    closed_ms = (counted_ms - LATENESS_MS) // 60_000 * 60_000
    times = {"reach_as_of_ms": counted_ms, "final_through_ms": closed_ms}
    assert differing_times(replayed, client, "planned", **times) == set()
    assert differing_times(replayed, client, "planned", **times, as_of_ms=counted_ms) >= {"as_of_ms"}
    early = {"reach_as_of_ms": T0 + 60_000, "final_through_ms": T0 + 60_000 - LATENESS_MS}
    assert "reach_as_of_ms" in differing_times(replayed, client, "planned", **early)


HORIZON_MS, BOUND_MS = 1_800_000, 10_000


@pytest.mark.parametrize(
    ("later_ms", "event", "counts"),
    [
        (HORIZON_MS, "midpoint", (1, 0, 1, 0)),
        (HORIZON_MS + 1, "midpoint", (1, 1, 0, 0)),
        (HORIZON_MS, "start", (1, 0, 0, 1)),
        (HORIZON_MS + 1, "start", (2, 0, 0, 0)),
    ],
)
def test_a_play_is_remembered_for_the_horizon_after_its_newest_pixel(
    later_ms: int,
    event: str,
    counts: tuple[int, ...],
    settings_of: Callable[..., Settings],
    client: Client,
    tmp_path: Path,
) -> None:
    """As where a listener pauses: what comes then is of no play, or of a second one."""
    newest_ms = T0 + 30_000
    lines = [
        {"event": "start", "play_id": "paused", "ts": T0},
        {"event": "firstQuartile", "play_id": "paused", "ts": newest_ms},
        {"event": "click", "ts": newest_ms + later_ms + BOUND_MS},
        {"event": event, "play_id": "paused", "ts": newest_ms + later_ms + BOUND_MS},
    ]
    log, settings = tmp_path / "log.ndjson", settings_of()
    rows = [{"event_id": f"e{number}", "placement_id": "p", **line} for number, line in enumerate(lines)]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    replay([str(log)], settings, KEY)
    names = ("starts", "orphans", "too_late", "repeated")
    told = client.hmget(f"{settings.namespace}:placement:{{p}}", [f"flight.{name}" for name in names])
    assert tuple(int(one or 0) for one in told) == counts
    assert differences(recompute([log], rules(settings)), client, settings.namespace) == []
