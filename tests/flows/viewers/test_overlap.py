"""Overlap of reach: from sketches against sets, and from a log against who is in it."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from datetime import timedelta
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from connectors.redis.client import Client
from flows.cli.commands import app
from flows.model.messages import RowBatch
from flows.model.ticks import Cut
from flows.replay import replay
from flows.rows.reach import Distinct
from flows.rows.row_columns import SKETCH_FROM
from flows.rows.row_shard import RowShard
from flows.settings.fields import Settings
from flows.state.arrays import U8
from flows.state.hyperloglog import pack_registers, unpack_registers
from flows.viewers.overlap import Overlap, audience, overlap
from flows.waterfall import placements_of

DATA = Path(__file__).parents[2] / "data"
MINUTE = 60_000


def sketch(who: set[int]) -> U8:
    reached = Distinct()
    keys = np.array([random.Random(one).getrandbits(64) for one in sorted(who)], np.uint64)
    reached.add(np.zeros(len(keys), np.uint32), keys, 1)
    return unpack_registers(pack_registers(reached.registers_of(np.zeros(1, np.int64))[0]))


@pytest.mark.parametrize(
    ("a", "b", "both"),
    [(100, 50, 20), (400, 400, 400), (900, 5000, 300), (20_000, 30_000, 10_000), (300, 200, 0)],
)
def test_the_overlap_of_sets_is_within_its_error(a: int, b: int, both: int) -> None:
    found = overlap(sketch(set(range(a))), sketch(set(range(a - both, a - both + b))))
    assert abs(found.both - both) <= found.both_error
    assert found.both_error < 0.05 * (a + b) + 2
    assert abs(found.a - a) <= max(1, found.a_error) <= max(1, 0.03 * a)
    assert abs(found.b - b) <= max(1, found.b_error) <= max(1, 0.03 * b)


def test_an_empty_sketch_overlaps_with_none() -> None:
    nobody = np.zeros(1 << 14, np.uint8)
    assert overlap(nobody, sketch({1, 2, 3})) == Overlap(0, 3, 0, 0, 0, 0)


def test_registers_of_an_exact_set_equal_its_later_sketch() -> None:
    keys = np.random.default_rng(1).integers(1, 2**63, 1500).astype(np.uint64)
    reached, late = Distinct(), Distinct()
    for rows in (np.zeros(1500, np.uint32), np.ones(1500, np.uint32)):
        reached.add(rows, keys, 2)
    late.add(np.zeros(700, np.uint32), keys[:700], 1)
    before = late.registers_of(np.zeros(1, np.int64))[0]
    late.add(np.zeros(800, np.uint32), keys[700:], 1)
    whole = reached.registers_of(np.array([1, 0]))
    assert (whole[0] == whole[1]).all()
    assert (whole[0] == late.registers_of(np.zeros(1, np.int64))[0]).all()
    assert (before <= whole[0]).all()
    assert (before < whole[0]).any()


def fed(shard: RowShard, watermark_ms: int, who: range, ended: bool = False) -> list[str]:
    """The placements whose sketches are given out after `who` were reached by placement `a`."""
    cut = Cut(0, watermark_ms, ended, ())
    listeners = (np.array(who, np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    none32, none64 = np.zeros(0, np.uint32), np.zeros((0, 20), np.int64)
    touched = np.full(len(who), watermark_ms // MINUTE, np.uint32)
    rows, latest = [("placement", "a"), ("campaign", "c")], np.array([watermark_ms, watermark_ms])
    batch = RowBatch(
        0, 0, cut, rows, latest, none32, none32, none64, none32, none64[:, :5],
        np.zeros(len(who), np.uint32), touched, listeners, [], latest, latest,
    )  # fmt: skip
    shard.apply(cut, [batch])
    return [name for name, _ in shard.sketches(ended)]


def test_a_grown_sketch_is_published_once_a_minute() -> None:
    start = 29_400_000 * MINUTE
    shard = RowShard(0, 1, 10 * MINUTE, 90_000, lambda minute: minute // 1440)
    assert fed(shard, start, range(0)) == []
    assert fed(shard, start + MINUTE, range(200)) == ["a"]
    assert fed(shard, start + MINUTE + 5_000, range(300)) == []
    assert fed(shard, start + 2 * MINUTE, range(300)) == ["a"]
    assert fed(shard, start + 3 * MINUTE, range(302)) == []
    assert fed(shard, start + 1442 * MINUTE, range(302)) == ["a"]
    assert fed(shard, start + 1443 * MINUTE, range(303)) == []
    assert fed(shard, start + 1443 * MINUTE, range(303), ended=True) == ["a"]


def test_a_planned_placement_belongs_to_its_plans_campaign(
    settings_of: Callable[..., Settings], client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = tmp_path / "plans.csv"
    plans.write_text(
        "placement_id,booked,start,end,campaign_id,advertiser\n"
        "a,1000,2026-11-24T00:00Z,2026-11-27T00:00Z,spring,\nb,1000,2026-11-24T00:00Z,2026-11-27T00:00Z,spring,\n"
        "c,1000,2026-11-24T00:00Z,2026-11-27T00:00Z,,acme\nd,1000,2026-11-24T00:00Z,2026-11-27T00:00Z,,\n"
        "later,1000,2026-12-24T00:00Z,2026-12-27T00:00Z,spring,\n"
    )
    settings = settings_of(plans=plans)
    labels = {"a": "spring", "b": "autumn", "c": "autumn", "d": "autumn", "e": "autumn"}
    for n, (name, label) in enumerate(labels.items()):
        client.hset(f"{settings.namespace}:placement:{{{name}}}", "campaign_id", label)
        client.zadd(f"{settings.namespace}:index:placement", {name: 1})
        registers = pack_registers(sketch(set(range(1000 * n, 1000 * n + 1000))))
        client.hset(f"{settings.namespace}:sketch:{{{name}}}", "registers", registers)
    for name, value in {
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "NAMESPACE": settings.namespace,
        "PLANS": str(plans),
    }.items():
        monkeypatch.setenv(f"AUDIOPIXEL_{name}", value)
    told = CliRunner().invoke(app, ["overlap", "spring", "autumn", "--campaigns"])
    assert told.exit_code == 0, told.output
    lines = [line.split() for line in told.stdout.splitlines()]
    reached = {line[2]: int(line[3].replace(",", "")) for line in lines if line[:2] == ["reached", "by"]}
    assert reached["spring"] == pytest.approx(2_000, rel=0.03)  # a and b
    assert reached["autumn"] == pytest.approx(2_000, rel=0.03)  # d and e
    assert reached["both"] < 150
    assert "spring: 2 placements; 1 more have no sketch" in told.stdout


def test_the_command_tells_the_overlap_of_a_log(
    settings_of: Callable[..., Settings], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(row_ttl=timedelta(days=60))
    log = DATA / "mta.ndjson.gz"
    replay([str(log)], settings, b"a key of sixteen bytes or more")
    reached: dict[str, set[str]] = {}
    for line in gzip.decompress(log.read_bytes()).splitlines():
        event = json.loads(line)
        if event["event"] == "impression":
            reached.setdefault(event["placement_id"], set()).add(event["listener_id"])
    sketched = [name for name, who in reached.items() if len(who) >= SKETCH_FROM]
    assert 4 <= len(sketched) < len(reached)
    for a, b in combinations(sorted(sketched), 2):
        rows = [client.hget(f"{settings.namespace}:sketch:{{{name}}}", "registers") for name in (a, b)]
        found = overlap(*map(unpack_registers, rows))  # type: ignore[arg-type]  # text
        assert abs(found.both - len(reached[a] & reached[b])) <= found.both_error, (a, b)

    monkeypatch.setenv("AUDIOPIXEL_REDIS_URL", settings.redis_url.get_secret_value())
    monkeypatch.setenv("AUDIOPIXEL_NAMESPACE", settings.namespace)
    both = len(reached["eta"] & reached["iota"])
    shown = CliRunner().invoke(app, ["overlap", "eta", "iota"])
    assert shown.exit_code == 0
    told = [line.split() for line in shown.output.splitlines()]
    (count,) = [int(line[3].replace(",", "")) for line in told if line[:3] == ["reached", "by", "both"]]
    assert abs(count - both) < 200
    for name in ("eta", "iota"):
        (alone,) = [line for line in told if line[:3] == ["reached", "by", name]]
        number, error = (int(alone[place].replace(",", "")) for place in (3, 5))
        assert abs(number - len(reached[name])) <= error <= 0.03 * number
    assert "± is three standard errors; one of a sketch is 0.8 %" in shown.output
    shares = [float(line[5]) for line in told if line[0] == "of"]
    assert len(shares) == 2
    assert abs(shares[0] - 100 * both / len(reached["eta"])) < 6

    missing = CliRunner().invoke(app, ["overlap", "eta", "nowhere"])
    assert missing.exit_code == 1
    assert len(missing.output.strip().splitlines()) == 1
    assert "no sketch of placement 'nowhere'" in missing.output

    campaigns = {
        row["campaign_id"] for row in map(json.loads, gzip.decompress(log.read_bytes()).splitlines())
    }
    of = placements_of(client, settings.namespace, {})
    whole = {name: audience(client, settings.namespace, name, of) for name in campaigns if name}
    assert sum(one.placements for one in whole.values()) == len(sketched)
    assert any(one.without for one in whole.values())
    some = max(whole, key=lambda name: whole[name].placements)
    mistaken = CliRunner().invoke(app, ["overlap", "eta", some])
    assert f"no sketch of placement '{some}': it is a campaign: add --campaigns" in mistaken.output
