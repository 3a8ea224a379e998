"""The oracle against logs of known truth, and its comparison against a real Valkey."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from connectors.embedded import EmbeddedValkey
from flows.differences import Difference, differences, format_differences, minute_differences
from flows.reconcile import Recomputation, recompute

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def adversarial() -> Recomputation:
    return recompute([DATA / "adversarial.ndjson.gz"])


@pytest.fixture(scope="module")
def own_valkey() -> Iterator[redis.Redis]:
    with EmbeddedValkey() as server, redis.Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
def published(adversarial: Recomputation, own_valkey: redis.Redis) -> redis.Redis:
    """A Valkey that holds exactly what the log says."""
    own_valkey.flushall()
    pipeline = own_valkey.pipeline(transaction=False)
    for (scope, name), row in adversarial.flight.items():
        pipeline.hset(f"audiopixel:v1:{scope}:{{{name}}}", mapping=row)
        pipeline.zadd(f"audiopixel:v1:index:{scope}", {name: 1})
    pipeline.hset("audiopixel:v1:meta", "unattributed", adversarial.totals["unattributed"])
    pipeline.execute()
    return own_valkey


@pytest.mark.parametrize(
    ("log", "truth", "listen_days"),
    [
        ("adversarial", "adversarial.truth.csv", 14),
        ("obd", "obd.truth.csv", 14),
        ("mta", "mta.truth.csv", 14),
        ("mta", "mta.truth-listen-7d.csv", 7),
    ],
)
def test_every_flight_number_of_the_truth_comes_out(log: str, truth: str, listen_days: int) -> None:
    found = recompute([DATA / f"{log}.ndjson.gz"], listen_window=timedelta(days=listen_days)).flight
    with (DATA / truth).open() as lines:
        rows = {row.pop("placement_id"): row for row in csv.DictReader(lines)}
    placements = {name: row for (scope, name), row in found.items() if scope == "placement"}
    assert placements.keys() == rows.keys()
    for name, row in rows.items():
        assert {metric: str(placements[name][metric]) for metric in row} == row, name


def test_every_minute_of_the_truth_comes_out(adversarial: Recomputation) -> None:
    with gzip.open(DATA / "adversarial.minutes.csv.gz", "rt") as lines:
        rows = {(row.pop("placement_id"), int(row.pop("minute_ms"))): row for row in csv.DictReader(lines)}
    metrics = next(iter(rows.values())).keys()
    for key, row in rows.items():
        assert {metric: str(adversarial.minutes[key][metric]) for metric in row} == row, key
    for key in adversarial.minutes.keys() - rows.keys():
        assert not any(adversarial.minutes[key][metric] for metric in metrics), key


def test_the_totals_of_the_truth_come_out(adversarial: Recomputation) -> None:
    truth = json.loads((DATA / "adversarial.totals.json").read_text())
    assert {name: adversarial.totals[name] for name in truth} == truth


def test_every_line_ends_in_exactly_one_way(adversarial: Recomputation) -> None:
    (account,) = adversarial.ledger.values()
    rejected = sum(count for name, count in account.items() if name.startswith("rejected."))
    assert account["received"] == account["accepted"] + account["repeated"] + rejected


def test_a_log_split_by_listener_gives_the_same_numbers(tmp_path: Path) -> None:
    parts = [[], []]  # type: list[list[bytes]]
    with gzip.open(DATA / "mta.ndjson.gz") as lines:
        for line in lines:
            parts[int(json.loads(line)["listener_id"], 16) % 2].append(line)
    files = [tmp_path / "a.ndjson", tmp_path / "b.ndjson.gz"]
    files[0].write_bytes(b"".join(parts[0]))
    files[1].write_bytes(gzip.compress(b"".join(parts[1])))
    split = recompute(files)
    whole = recompute([DATA / "mta.ndjson.gz"])
    assert (split.flight, split.minutes, split.totals) == (whole.flight, whole.minutes, whole.totals)
    assert [account["received"] for account in split.ledger.values()] == [len(part) for part in parts]


def test_what_is_published_exactly_has_no_difference(
    adversarial: Recomputation, published: redis.Redis
) -> None:
    assert differences(adversarial, published) == []
    assert format_differences([]) == ""


def test_one_play_too_many_is_listed(adversarial: Recomputation, published: redis.Redis) -> None:
    published.hincrby("audiopixel:v1:placement:{pl-000}", "flight.completes", 1)
    wrong = Difference("placement", "pl-000", "flight.completes", "1941", "1942")
    assert differences(adversarial, published) == [wrong]
    assert format_differences([wrong]).splitlines()[1].split() == [
        *("placement", "pl-000", "flight.completes", "1941", "1942")
    ]
    assert differences(adversarial, published, without=["completes"]) == []


def test_missing_and_surplus_rows_and_index_entries_are_listed(
    adversarial: Recomputation, published: redis.Redis
) -> None:
    published.delete("audiopixel:v1:placement:{pl-000}")
    published.zadd("audiopixel:v1:index:station", {"st-nobody": 1})
    published.zrem("audiopixel:v1:index:campaign", "c-0")
    published.hdel("audiopixel:v1:meta", "unattributed")
    assert [(d.scope, d.id, d.metric) for d in differences(adversarial, published)] == [
        ("campaign", "c-0", "index"),
        ("meta", "", "unattributed"),
        ("placement", "pl-000", "row"),
        ("station", "st-nobody", "row"),
    ]


@pytest.mark.parametrize(
    ("placement", "factor", "differs"),
    [("pl-000", 1.03, False), ("pl-000", 1.04, True), ("pl-001", 1.002, True)],
)
def test_reach_may_be_off_by_four_standard_errors_above_a_thousand_only(
    adversarial: Recomputation, published: redis.Redis, placement: str, factor: float, differs: bool
) -> None:
    reach = adversarial.flight["placement", placement]["flight.reach"]
    published.hset(f"audiopixel:v1:placement:{{{placement}}}", "flight.reach", round(reach * factor))
    assert bool(differences(adversarial, published)) == differs


def test_the_last_final_minute_counts_and_provisional_ones_do_not(
    adversarial: Recomputation, tmp_path: Path
) -> None:
    lines = []
    for (placement, minute), counts in adversarial.minutes.items():
        key = {"placement_id": placement, "minute_ms": minute}
        lines += [key | {"state": "final", "starts": 10**6}, key | counts | {"state": "final"}]
        lines.append(key | {"state": "provisional", "starts": 10**6})
    file = tmp_path / "minutes.ndjson"
    file.write_text("\n".join(map(json.dumps, lines)))
    assert minute_differences(adversarial, file) == []
    lines.append(lines[1] | {"impressions": lines[1]["impressions"] + 1})
    lines.append({"placement_id": "pl-nobody", "minute_ms": 0, "state": "final", "errors": 2})
    file.write_text("\n".join(map(json.dumps, lines)))
    found = minute_differences(adversarial, file)
    assert [(d.id.partition("|")[0], d.metric, d.expected) for d in found] == [
        (lines[1]["placement_id"], "impressions", str(lines[1]["impressions"])),
        ("pl-nobody", "errors", "0"),
    ]
