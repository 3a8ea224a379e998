"""examples/bidder.py against rows that the flow wrote: it bids by fresh ones and refuses all others."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from redis import Redis

from connectors.embedded import EmbeddedValkey
from flows.delivery.pacing import Thresholds, pace
from flows.model.fields import FIELDS, WINDOWS
from flows.model.plan import Plan
from flows.replay import replay
from flows.settings.loading import load
from flows.simulate.feed import plans, run_log, write_plans
from flows.simulate.traffic import Traffic

EXAMPLE = Path(__file__).parents[3] / "examples" / "bidder.py"
META, STARVED, STEADY = "audiopixel:v1:meta", "pl-0003", "pl-0000"
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
NOW_MS = 500_000 * HOUR_MS - 1
"""A moment at which the present minute is over, so that `1h` has sixty whole ones."""


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """Half an hour of traffic that ends now, with plans of a day."""
    folder = tmp_path_factory.mktemp("live")
    start_ms = (time.time_ns() // 60_000_000_000 - 30) * 60_000
    traffic = Traffic(1, 4, 20.0, start_ms=start_ms)
    run_log(folder / "log.ndjson", traffic, 36_000)
    write_plans(folder / "plans.csv", plans(traffic, timedelta(days=1)))
    with EmbeddedValkey() as server:
        settings = load(redis_url=server.url, plans=folder / "plans.csv", delivery_grace=timedelta(minutes=1))
        replay([str(folder / "log.ndjson")], settings, b"a key of a test!")
        yield server


@pytest.fixture
def redis(valkey: EmbeddedValkey) -> Iterator[Any]:
    """Just written by a flow that judges: what a replay leaves is of the log's end."""
    with Redis.from_url(valkey.url, decode_responses=True) as client:
        before = client.hgetall(META)
        now_ms = time.time_ns() // 1_000_000
        client.hset(META, mapping={"judged": 1, "flushed_ms": now_ms, "watermark_ms": now_ms - 11_000})
        keys = [f"audiopixel:v1:placement:{{{name}}}" for name in (STARVED, STEADY)]
        rows = [client.hgetall(key) for key in keys]
        yield client
        client.delete(META, *keys)
        client.hset(META, mapping=before)
        for key, row in zip(keys, rows, strict=True):
            client.hset(key, mapping=row)


@pytest.fixture
def reader() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bidder", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_fresh_planned_row_gives_a_bid_factor(redis: Any, reader: ModuleType) -> None:
    starved, steady = reader.factor(redis, STARVED, most=1e6), reader.factor(redis, STEADY)
    assert starved is not None
    assert steady is not None
    assert starved > 2
    assert 0.5 < steady < 1.5


def test_the_factor_stays_between_a_half_and_two_unless_set(redis: Any, reader: ModuleType) -> None:
    times, why = reader.advice(redis, STARVED)
    assert times == 2.0
    assert float(why.split()[1]) > 2
    assert reader.factor(redis, STARVED, most=3.0) == 3.0
    ahead = {"delivery.state": "over", "delivery.delivered": 900, "delivery.booked": 1_000}
    set_fields(redis, STEADY, ahead | {"delivery.projected": 5_000})
    assert reader.advice(redis, STEADY) == (0.5, "needs 0.02 x its present rate")
    assert reader.factor(redis, STEADY, least=0.1) == 0.1


def set_fields(redis: Any, placement: str, fields: dict[str, Any]) -> None:
    """Write fields of a row; None deletes a field."""
    key = f"audiopixel:v1:placement:{{{placement}}}"
    for name, value in fields.items():
        redis.hdel(key, name) if value is None else redis.hset(key, name, value)


@pytest.mark.parametrize("fresh", [True, False])
def test_an_ad_in_blocked_content_is_stopped(redis: Any, reader: ModuleType, fresh: bool) -> None:
    """The bidder once bid such an ad up by half, against rule 6 of the page."""
    if not fresh:
        redis.hset(META, "judged", 0)
    set_fields(redis, STEADY, {"flight.blocked_impressions": 912})
    assert reader.advice(redis, STEADY) == (0.0, "912 impressions in blocked content")
    reader.reviewed[STEADY] = 912
    assert (reader.factor(redis, STEADY) is not None) == fresh
    set_fields(redis, STEADY, {"flight.blocked_impressions": 913})
    assert reader.factor(redis, STEADY) == 0.0


@pytest.mark.parametrize(
    ("last", "hour", "left"), [("0", "900", True), ("1", "900", False), ("0", "0", False)]
)
def test_a_stopped_ad_is_left(redis: Any, reader: ModuleType, last: str, hour: str, left: bool) -> None:
    set_fields(redis, STEADY, {"5m.impressions": last, "1h.impressions": hour})
    times, why = reader.advice(redis, STEADY)
    assert (times is None) == left
    assert ("no impression for five minutes" in why) == left


@pytest.mark.parametrize("reason", ["feed_silent", "collector"])
def test_an_unjudged_row_is_left_with_the_reason(redis: Any, reader: ModuleType, reason: str) -> None:
    set_fields(redis, STEADY, {"delivery.judged": 0, "delivery.unjudged_reason": reason})
    assert reader.advice(redis, STEADY) == (None, f"the row is not judged: {reason}")
    set_fields(redis, STEADY, {"delivery.judged": 1, "delivery.unjudged_reason": None})
    assert reader.factor(redis, STEADY) is not None


UNKNOWN = ("delivery.delivered", "delivery.indicator", "delivery.projected", "delivery.short_by")


@pytest.mark.parametrize(
    "state", ["unknown_before", "ended_unknown", "not_started", "paused", "warming_up", "complete", "new"]
)
def test_unknown_and_unsteerable_states_are_left(redis: Any, reader: ModuleType, state: str) -> None:
    """A flight that began before the flow counted was bid up 3.5 times from its first hour."""
    set_fields(redis, STEADY, {"delivery.state": state, **dict.fromkeys(UNKNOWN)})
    assert reader.advice(redis, STEADY) == (None, f"state {state}")


@pytest.mark.parametrize("value", [None, "many"])
@pytest.mark.parametrize(
    "field",
    [
        *("5m.impressions", "1h.impressions", "flight.blocked_impressions", "fence", "rev"),
        *("delivery.state", "delivery.judged", "delivery.booked"),
    ],
)
def test_a_row_without_a_field_that_a_rule_reads_is_left(
    redis: Any, reader: ModuleType, field: str, value: str | None
) -> None:
    set_fields(redis, STEADY, {field: value})
    expected = "the row is incomplete" if (field, value) != ("delivery.state", "many") else "state many"
    assert reader.advice(redis, STEADY) == (None, expected)


@pytest.mark.parametrize("schema", [0, 2])
def test_rows_of_another_schema_are_left(redis: Any, reader: ModuleType, schema: int) -> None:
    redis.hset(META, "schema", schema)
    assert reader.factor(redis, STEADY) is None


def test_a_row_of_another_redis_type_is_left(redis: Any, reader: ModuleType) -> None:
    redis.set("audiopixel:v1:placement:{text}", "no hash")
    assert reader.advice(redis, "text") == (None, "the row is incomplete")
    redis.delete("audiopixel:v1:placement:{text}")


def test_a_row_without_its_pacing_is_left(redis: Any, reader: ModuleType) -> None:
    set_fields(redis, STEADY, {"delivery.state": "under", **dict.fromkeys(UNKNOWN)})
    assert reader.advice(redis, STEADY) == (None, "pacing is not known")


def paced(redis: Any, plan: Plan, delivered: int, last_hour: int) -> str:
    """Write the row of a planned placement as a flow paces it; returns its state."""
    found = pace(plan, delivered, last_hour, NOW_MS, Thresholds())
    names = (
        "state",
        "booked",
        "delivered",
        "expected",
        "indicator",
        "projected",
        "required_rate",
        "start_ms",
    )
    row = {f"delivery.{name}": value for name in names if (value := getattr(found, name)) is not None}
    row |= {"delivery.judged": 1, "5m.impressions": last_hour // 12, "flight.blocked_impressions": 0}
    key = f"audiopixel:v1:placement:{{{plan.placement_id}}}"
    redis.delete(key)
    redis.hset(key, mapping=row | {"1h.impressions": last_hour, "generation": 1, "fence": 1, "rev": 1})
    redis.hset(META, "watermark_ms", NOW_MS)
    return found.state


@pytest.fixture
def then(reader: ModuleType, monkeypatch: pytest.MonkeyPatch, redis: Any) -> None:
    """The reader's clock is a second past `NOW_MS`, at which the flow has just written."""
    redis.hset(META, "flushed_ms", NOW_MS)
    monkeypatch.setattr(reader.time, "time", lambda: NOW_MS / 1000 + 1)


@pytest.mark.usefixtures("then")
def test_minutes_of_a_pause_are_no_part_of_the_present_rate(redis: Any, reader: ModuleType) -> None:
    """On plan at 1,200 an unpaused hour, of which the last 60 minutes had five: the factor was 12."""
    start_ms, end_ms = NOW_MS + 1 - 12 * HOUR_MS, NOW_MS + 1 + 12 * HOUR_MS
    pauses = ((NOW_MS + 1 - HOUR_MS, NOW_MS + 1 - 5 * MINUTE_MS),)
    plan = Plan("paused", 1_200 * 23 + 100, start_ms, end_ms, pauses=pauses)
    delivered = 1_200 * 11 + 100
    assert paced(redis, plan, delivered, 100) == "on_track"
    assert reader.factor(redis, "paused") == pytest.approx(1.0, rel=0.001)
    assert paced(redis, plan, delivered - 3_000, 50) == "under"
    assert reader.factor(redis, "paused", most=9.0) == pytest.approx(17_400 / (12 * 600), rel=0.001)


@pytest.mark.usefixtures("then")
def test_impressions_before_the_flight_are_outside_the_present_rate(redis: Any, reader: ModuleType) -> None:
    """1,000 an hour until a flight begins 20 minutes ago, 600 since: it needed less than it has."""
    start_ms = NOW_MS + 1 - 20 * MINUTE_MS
    plan = Plan("renewed", 24_000, start_ms, start_ms + 24 * HOUR_MS)
    assert paced(redis, plan, 200, 1_000 * 40 // 60 + 200) == "under"
    assert reader.factor(redis, "renewed") == pytest.approx(23_800 / 14_200, rel=0.001)


@pytest.mark.usefixtures("then")
def test_a_frontloaded_curve_is_followed(redis: Any, reader: ModuleType) -> None:
    plan = Plan("early", 24_000, NOW_MS + 1 - 6 * HOUR_MS, NOW_MS + 1 + 18 * HOUR_MS, curve="frontloaded")
    assert paced(redis, plan, 7_500, 1_250) == "on_track"
    assert reader.factor(redis, "early") == pytest.approx(1.0, rel=0.001)


@pytest.mark.usefixtures("then")
@pytest.mark.parametrize(("last_hour", "factor"), [(0, None), (80, None), (50, 2.0)])
def test_an_hour_within_chance_or_empty_gives_no_factor(
    redis: Any, reader: ModuleType, last_hour: int, factor: float | None
) -> None:
    plan = Plan("short", 2_400, NOW_MS + 1 - 12 * HOUR_MS, NOW_MS + 1 + 12 * HOUR_MS)
    paced(redis, plan, 1_200, last_hour)
    assert reader.factor(redis, "short") == (factor and pytest.approx(factor, rel=0.001))


@pytest.mark.parametrize(
    "meta",
    [{"judged": 0}, {"flushed_ms": 0}, {"watermark_ms": 0}, {"flushed_ms": 1_764_000_000_000}],
)
def test_unjudged_unwritten_and_old_rows_are_refused(
    redis: Any, reader: ModuleType, meta: dict[str, int]
) -> None:
    redis.hset(META, mapping=meta)
    assert reader.factor(redis, STARVED) is None


def test_a_missing_row_is_refused(redis: Any, reader: ModuleType) -> None:
    assert reader.factor(redis, "pl-nobody") is None
    redis.delete(META)
    assert reader.factor(redis, STARVED) is None


def test_a_regressed_row_is_refused_until_it_is_newer(redis: Any, reader: ModuleType) -> None:
    key = f"audiopixel:v1:placement:{{{STARVED}}}"
    rev = int(redis.hget(key, "rev"))
    assert reader.factor(redis, STARVED) is not None
    redis.hset(key, "rev", rev - 1)
    assert reader.factor(redis, STARVED) is None
    redis.hset(key, "rev", rev)
    assert reader.factor(redis, STARVED) is not None


def test_as_a_program_it_prints_a_line_a_placement(redis: Any, valkey: EmbeddedValkey) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), valkey.url, STARVED, "pl-nobody"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    first, second = done.stdout.splitlines()
    assert re.fullmatch(rf"{STARVED} bid 2\.00 x \(needs \d+\.\d\d x its present rate\)", first)
    assert second == "pl-nobody leave the bid as it is (there is no such row)"
    set_fields(redis, STARVED, {"flight.blocked_impressions": 1})
    command = [sys.executable, str(EXAMPLE), "--most", "0.75", valkey.url, STARVED, STEADY]
    stopped = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    said = f"{STARVED} stop (1 impressions in blocked content)\n{STEADY} bid 0.75 x (needs "
    assert stopped.startswith(said)


def test_the_page_for_bidders_shows_this_reader_after_the_client() -> None:
    page = (EXAMPLE.parents[1] / "docs" / "bidders.md").read_text()
    programs = [block.split("```")[0] for block in page.split("```python\n")[1:]]
    assert programs == [EXAMPLE.with_name("bid.py").read_text(), EXAMPLE.read_text()]


def fields_of_the_page() -> dict[str, str]:
    """The condition of absence of each field in the page's table of a placement."""
    page = (EXAMPLE.parents[1] / "docs" / "bidders.md").read_text()
    table = page.split("## Fields of a placement\n")[1].split("\n## ")[0]
    found = {}
    for cells in re.findall(r"^\| (`.*) \|$", table, re.M):
        names, *_, absent = cells.split(" | ")
        for name in re.findall("`([^`]+)`", names):
            windows = WINDOWS if name.startswith("<window>") else [""]
            found |= {name.replace("<window>", window): absent for window in windows}
    return found


def test_the_fields_of_the_page_are_fields_of_a_row() -> None:
    named = fields_of_the_page().keys()
    assert len(named) > 50
    assert named - {"generation", "fence", "rev"} <= set(FIELDS)


def test_a_required_field_is_in_every_row(redis: Any) -> None:
    never = {name for name, absent in fields_of_the_page().items() if absent in ("never", "never in a row")}
    assert len(never) > 20
    for name in redis.zrange("audiopixel:v1:index:placement", 0, -1):
        row = redis.hgetall(f"audiopixel:v1:placement:{{{name}}}")
        assert never <= row.keys()
        assert {one for one in row if one.startswith("delivery.")} <= fields_of_the_page().keys()


def test_the_page_lists_metas_fields(redis: Any) -> None:
    page = (EXAMPLE.parents[1] / "docs" / "bidders.md").read_text()
    table = page.split("## Fields of `meta`\n")[1].split("\n## ")[0]
    named = {
        name
        for cells in re.findall(r"^\| (`[^|]+) \|", table, re.M)
        for name in re.findall("`([^`]+)`", cells)
    }
    assert set(redis.hgetall(META)) <= named
