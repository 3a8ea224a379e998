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
from flows.model.fields import FIELDS, WINDOWS
from flows.replay import replay
from flows.settings.loading import load
from flows.simulate.feed import plans, run_log, write_plans
from flows.simulate.traffic import Traffic

EXAMPLE = Path(__file__).parents[3] / "examples" / "bidder.py"
META, STARVED, STEADY = "audiopixel:v1:meta", "pl-0003", "pl-0000"


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
        yield client
        client.delete(META)
        client.hset(META, mapping=before)


@pytest.fixture
def reader() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bidder", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_fresh_row_of_a_placement_with_a_plan_is_bid_by(redis: Any, reader: ModuleType) -> None:
    starved, steady = reader.factor(redis, STARVED), reader.factor(redis, STEADY)
    assert starved is not None
    assert steady is not None
    assert starved > 2
    assert 0.5 < steady < 1.5


@pytest.mark.parametrize(
    "meta",
    [{"judged": 0}, {"flushed_ms": 0}, {"watermark_ms": 0}, {"flushed_ms": 1_764_000_000_000}],
)
def test_what_is_not_judged_not_written_or_old_is_refused(
    redis: Any, reader: ModuleType, meta: dict[str, int]
) -> None:
    redis.hset(META, mapping=meta)
    assert reader.factor(redis, STARVED) is None


def test_what_is_not_there_is_refused(redis: Any, reader: ModuleType) -> None:
    assert reader.factor(redis, "pl-nobody") is None
    redis.delete(META)
    assert reader.factor(redis, STARVED) is None


def test_a_row_that_went_back_is_refused_until_it_is_newer(redis: Any, reader: ModuleType) -> None:
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
    assert re.fullmatch(rf"{STARVED} needs \d+\.\d\d x its present rate", first)
    assert second == "pl-nobody leave the bid as it is"


def test_the_page_for_bidders_begins_with_this_reader() -> None:
    page = (EXAMPLE.parents[1] / "docs" / "bidders.md").read_text()
    assert page.split("```python\n")[1].split("```")[0] == EXAMPLE.read_text()


def fields_of_the_page() -> dict[str, str]:
    """Of each field in the table of a placement's: when it may be absent."""
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


def test_a_field_that_is_never_absent_is_in_every_row(redis: Any) -> None:
    never = {name for name, absent in fields_of_the_page().items() if absent in ("never", "never in a row")}
    assert len(never) > 20
    for name in redis.zrange("audiopixel:v1:index:placement", 0, -1):
        row = redis.hgetall(f"audiopixel:v1:placement:{{{name}}}")
        assert never <= row.keys()
        assert {one for one in row if one.startswith("delivery.")} <= fields_of_the_page().keys()


def test_the_fields_of_meta_on_the_page_are_those_that_a_flow_writes(redis: Any) -> None:
    page = (EXAMPLE.parents[1] / "docs" / "bidders.md").read_text()
    table = page.split("## Fields of `meta`\n")[1].split("\n## ")[0]
    named = {
        name
        for cells in re.findall(r"^\| (`[^|]+) \|", table, re.M)
        for name in re.findall("`([^`]+)`", cells)
    }
    assert set(redis.hgetall(META)) <= named
