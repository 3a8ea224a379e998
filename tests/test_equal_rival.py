"""The rival of equal work counts as the flow does: a log with faults, and again after a failure."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.equal import different_fields
from benchmarks.flow_file import KEY
from benchmarks.measure import UNPLANNED, Job
from benchmarks.peers import equal
from benchmarks.peers.job import Unavailable
from benchmarks.plain_log import write_log
from connectors.embedded import EmbeddedValkey
from connectors.redis.client import connect
from connectors.redis.commands import put_fields
from flows.replay import replay
from flows.settings.loading import load

EVENTS = 20_000
MINUTE_MS = 60_000
RUBBISH = (
    "{",
    "[]",
    "",
    '{"event_id":"x","event":"start"}',
    '{"event_id":"x","event":"sneeze","placement_id":"p"}',
)
ACCOUNT = (
    *("received", "accepted", "repeated", "invalid_traffic"),
    *(f"rejected.{reason}" for reason in ("malformed", "invalid", "unknown_event", "too_late")),
)


def faulty(plain: Path, log: Path, seed: int) -> None:
    """Write a log with the plays of another one, whose pixels have faults of every kind that both count."""
    chance = random.Random(seed)
    lines: list[tuple[float, int, str]] = []
    for number, line in enumerate(plain.read_text().splitlines()):
        pixel = json.loads(line)
        received, kind = pixel["received_at"], chance.random()
        at = float(received)
        if kind < 0.05:
            continue
        if kind < 0.1:  # held up: some before their start, some too late
            at += chance.choice((1, 5, 12, 40)) * MINUTE_MS * chance.random()
        elif kind < 0.15:
            pixel["consent"] = chance.choice((False, None))
        elif kind < 0.2:
            del pixel["play_id"]
        elif kind < 0.24:
            pixel |= chance.choice(({"user_agent": "Some-Crawler/1"}, {"invalid_traffic": "datacenter"}))
        elif kind < 0.28:
            pixel["event"], pixel["event_id"] = chance.choice(("click", "error")), f"e{number}"
        elif kind < 0.32:
            pixel["campaign_id"] = chance.choice(("c-other", "c-é", None, "[CAMPAIGN]", 'c-"1"'))
        elif kind < 0.36:
            pixel["ts"] += chance.choice((-3, -1, 1)) * 7 * MINUTE_MS
        elif kind < 0.38:
            del pixel["received_at"]
        elif kind < 0.4:
            pixel["user_agent"] = "Spotify/8.9 (like a robot)"
        elif kind < 0.42:
            lines.append((at, -number, chance.choice(RUBBISH)))
        lines.append((at, number, json.dumps(pixel, separators=chance.choice(((",", ":"), (", ", ": "))))))
    log.write_text("".join(f"{line}\n" for *_, line in sorted(lines)))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("engine", "rate"), [("equal", 2000.0), ("equal", 1.5), ("equal-failing", 1.5)])
def test_the_rival_counts_as_the_flow_does(engine: str, rate: float, tmp_path: Path) -> None:
    try:
        equal.version()
    except Unavailable as reason:
        pytest.skip(str(reason))
    plain, log = tmp_path / "plain.ndjson", tmp_path / "log.ndjson"
    write_log(plain, EVENTS, seed=3, placements=60, rate=rate, listeners=4_000)
    faulty(plain, log, seed=4)
    with EmbeddedValkey() as valkey:
        settings = load(redis_url=valkey.url, namespace="ours", **UNPLANNED)
        replay([str(log)], settings, KEY, recovery_dir=tmp_path / "recovery")
        scratch = tmp_path / "rival"
        scratch.mkdir()
        job = Job(log=str(log), events=EVENTS, warm="", scratch=str(scratch), redis_url=valkey.url)
        answers = equal.run(job, engine, warm_runs=1).answers
        client = connect(valkey.url)
        rivals = equal.namespace(scratch.name)
        assert different_fields(client, "ours", rivals) == []
        account = [client.hgetall(f"ours:partition:{{{log}}}"), client.hgetall(f"{rivals}:partition:{{log}}")]
        client.close()
    own, other = ({name: int(of[name]) for name in ACCOUNT} for of in account)
    assert other == own
    assert own["received"] == own["accepted"] + own["repeated"] + sum(own[name] for name in ACCOUNT[4:])
    assert all(own.values()) or rate == 2000.0, own
    assert sum(minute["impressions"] for minute in answers.minutes.values()) > EVENTS / 10


def test_each_differing_field_is_named() -> None:
    with EmbeddedValkey() as valkey:
        client = connect(valkey.url)
        for space, fields in (
            ("ours", {"1h.starts": "1", "1h.reach": "1", "5m.reach": "2000", "rev": "7", "as_of_ms": "9"}),
            ("theirs", {"1h.starts": "2", "1h.reach": "1", "5m.reach": "1990", "1d.starts": "1"}),
        ):
            client.zadd(f"{space}:index:placement", {"a": 1})
            put_fields(client, {f"{space}:placement:{{a}}": fields})
        client.zadd("theirs:index:campaign", {"c": 1})
        assert different_fields(client, "ours", "theirs") == [
            "placement/a 1d.starts: None and 1",
            "placement/a 1h.starts: 1 and 2",
            "placement/a as_of_ms: 9 and None",
            "campaign: 0 rows and 1",
        ]
        client.close()


@pytest.mark.timeout(500)
def test_without_java_the_rival_is_named_and_the_flow_compared(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    tools.joinpath("sh").symlink_to("/bin/sh")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.equal", "--smoke", "--events", "20000"],
        capture_output=True,
        text=True,
        timeout=480,
        check=False,
        cwd=tmp_path,
        env={"PATH": str(tools), "HOME": str(Path.home()), "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left out: peers.equal: no mvn here" in done.stdout
    assert re.search(r"outputs: equal in \d{3,} flights and \d{3,} minutes", done.stdout)
