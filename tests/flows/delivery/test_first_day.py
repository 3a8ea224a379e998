"""The first day of a trial: campaigns that have run for weeks, with and without opening balances."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
from redis import Redis

from connectors.embedded import EmbeddedValkey
from flows.replay import replay
from flows.settings.loading import load

EXAMPLE: Final = Path(__file__).parents[3] / "examples" / "bidder.py"
NAMES: Final = ("breakfast", "drivetime", "evening", "news", "podcast")
MINUTE_MS: Final = 60_000
META: Final = "audiopixel:v1:meta"


def run(*arguments: str, url: str = "redis://127.0.0.1:1") -> subprocess.CompletedProcess[str]:
    """A command, of which nothing is set up but Redis."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AUDIOPIXEL_")}
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        env=kept | {"AUDIOPIXEL_REDIS_URL": url},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of two hours, the plans, and the publisher's report, as the command writes them."""
    folder = tmp_path_factory.mktemp("first-day")
    files = ["--plans", str(folder / "plans.csv"), "--theirs", str(folder / "theirs.csv")]
    done = run("simulate", str(folder / "log.ndjson"), "--scenario", "first-day", *files)
    assert done.returncode == 0, done.stderr
    (folder / "since").write_text(done.stderr.split(" since ")[1].split(",")[0])
    return folder


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture
def redis(valkey: EmbeddedValkey) -> Iterator[Any]:
    with Redis.from_url(valkey.url, decode_responses=True) as client:
        client.flushall()
        yield client


@pytest.fixture
def bidder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bidder", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def replayed(url: str, log: Path, plans: Path, minutes: int) -> None:
    """Replay the first minutes of a log."""
    lines = log.read_bytes().splitlines(keepends=True)
    since_ms = json.loads(lines[0])["received_at"] // MINUTE_MS * MINUTE_MS
    part = log.with_name(f"first-{minutes}.ndjson")
    before_ms = since_ms + minutes * MINUTE_MS
    part.write_bytes(b"".join(line for line in lines if json.loads(line)["received_at"] < before_ms))
    replay([str(part)], load(redis_url=url, plans=plans), b"a key of a test!")
    with Redis.from_url(url) as redis:  # as a live flow would have them at that minute
        redis.hset(META, mapping={"judged": 1, "watermark_ms": time.time_ns() // 1_000_000})


def row(redis: Any, name: str) -> dict[str, str]:
    found: dict[str, str] = redis.hgetall(f"audiopixel:v1:placement:{{{name}}}")
    return found


def test_without_balances_nothing_is_judged(
    redis: Any, valkey: EmbeddedValkey, folder: Path, bidder: ModuleType
) -> None:
    replayed(valkey.url, folder / "log.ndjson", folder / "plans.csv", 120)
    assert [row(redis, name)["delivery.state"] for name in NAMES] == ["unknown_before"] * 5
    assert redis.hget("audiopixel:v1:campaign:{first-day}", "delivery.state") == "unknown_before"
    assert not redis.exists("audiopixel:v1:alerts")
    assert [bidder.advice(redis, name) for name in NAMES] == [(None, "state unknown_before")] * 5


@pytest.mark.parametrize("minutes", [16, 30, 60, 120])
def test_with_balances_every_flight_is_on_track(
    redis: Any, valkey: EmbeddedValkey, folder: Path, bidder: ModuleType, minutes: int
) -> None:
    until = (folder / "since").read_text()
    files = [str(folder / "plans.csv"), "--delivered", str(folder / "theirs.csv")]
    done = run("plans", *files, "--until", until, "--out", str(folder / "balanced.csv"))
    assert done.returncode == 0, done.stderr
    replayed(valkey.url, folder / "log.ndjson", folder / "balanced.csv", minutes)
    rows = {name: row(redis, name) for name in NAMES}
    assert {name: one["delivery.state"] for name, one in rows.items()} == dict.fromkeys(NAMES, "on_track")
    assert {one["delivery.delivered_before_source"] for one in rows.values()} == {"theirs.csv"}
    factors = {name: bidder.advice(redis, name) for name in NAMES}
    for name, (factor, _) in factors.items():
        counted = int(rows[name]["flight.impressions"])
        assert abs(float(rows[name]["delivery.delivered"]) - float(rows[name]["delivery.expected"])) < 2
        # Without a factor the rate is right up to chance.
        assert factor is None or abs(factor - 1) <= 3 / math.sqrt(counted), (name, factor, counted)
    assert sum(factor is not None for factor, _ in factors.values()) >= 3, factors
