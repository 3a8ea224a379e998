"""The oracle against logs of known truth, and its comparison against a real Valkey."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from connectors.embedded import EmbeddedValkey
from flows.model.fields import FIELDS
from flows.publish import ledger
from flows.publish.layout import META_FIELDS
from flows.reconcile.comparison import compare, differences
from flows.reconcile.fields import META, PARTITION, ROW, VERSIONS, Check
from flows.reconcile.recomputation import recompute
from flows.reconcile.replay_files import minute_differences
from flows.reconcile.report import Difference, format_differences, summary
from flows.reconcile.rules import Rules
from flows.reconcile.truth import Recomputation
from flows.replay import replay
from flows.settings.loading import load

DATA = Path(__file__).parents[2] / "data"
LOG = DATA / "adversarial.ndjson.gz"


@pytest.fixture(scope="module")
def adversarial() -> Recomputation:
    return recompute([LOG])


@pytest.fixture(scope="module")
def own_valkey() -> Iterator[redis.Redis]:
    with EmbeddedValkey() as server, redis.Redis.from_url(server.url) as client:
        yield client


@pytest.fixture(scope="module")
def replayed(own_valkey: redis.Redis) -> dict[bytes, bytes]:
    """The keys of Redis after a replay of the log."""
    url = f"redis://127.0.0.1:{own_valkey.connection_pool.connection_kwargs['port']}/0"
    replay([str(LOG)], load(redis_url=url, metrics_port=0, shards=2), b"a key of sixteen bytes or more")
    return {key: own_valkey.dump(key) for key in own_valkey.keys("audiopixel:v1:*")}


@pytest.fixture
def published(replayed: dict[bytes, bytes], own_valkey: redis.Redis) -> redis.Redis:
    own_valkey.flushall()
    for key, packed in replayed.items():
        own_valkey.restore(key, 0, packed)
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
    found = recompute([DATA / f"{log}.ndjson.gz"], Rules(listen_window=timedelta(days=listen_days))).flight
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


def test_an_exact_publication_has_no_difference(adversarial: Recomputation, published: redis.Redis) -> None:
    assert differences(adversarial, published) == []
    assert format_differences([]) == ""


def as_a_live_flow(client: redis.Redis) -> None:
    """Let the partitions be a topic's: rows of a log that ended are all as of its end."""
    client.hset("audiopixel:v1:positions", "positions", json.dumps({"t/0": 1}))


@pytest.mark.parametrize(("minutes", "listed"), [(10, False), (3, True)])
def test_a_row_may_be_as_old_as_its_last_change(
    own_valkey: redis.Redis, tmp_path: Path, minutes: int, listed: bool
) -> None:
    # In its fifth minute the only pixel leaves `5m`; the hour keeps it until the end.
    own_valkey.flushall()
    begin_ms, log = 1_764_000_000_000, tmp_path / "log.ndjson"
    pixels = (("quiet", begin_ms), ("other", begin_ms + 30 * 60_000))
    log.write_text(
        "".join(
            json.dumps({"event_id": name, "event": "impression", "placement_id": name, "ts": ts}) + "\n"
            for name, ts in pixels
        )
    )
    url = f"redis://127.0.0.1:{own_valkey.connection_pool.connection_kwargs['port']}/0"
    replay([str(log)], load(redis_url=url, metrics_port=0, shards=2), b"a key of sixteen bytes or more")
    truth = recompute([log])
    assert differences(truth, own_valkey) == []
    as_a_live_flow(own_valkey)
    then = dict.fromkeys(("as_of_ms", "reach_as_of_ms"), begin_ms + minutes * 60_000)
    own_valkey.hset("audiopixel:v1:placement:{quiet}", mapping=then)
    told = {one.metric for one in differences(truth, own_valkey) if one.scope == "placement"}
    assert ("as_of_ms" in told) is listed


def test_a_row_may_be_as_old_as_metas_lower_bound(own_valkey: redis.Redis, tmp_path: Path) -> None:
    own_valkey.flushall()
    begin_ms, log, early = 1_764_000_000_000, tmp_path / "log.ndjson", tmp_path / "early.ndjson"
    quiet, other = (
        json.dumps({"event_id": name, "event": "impression", "placement_id": name, "ts": ts}) + "\n"
        for name, ts in (("quiet", begin_ms), ("other", begin_ms + 30 * 60_000))
    )
    early.write_text(quiet)
    log.write_text(quiet + other)
    url = f"redis://127.0.0.1:{own_valkey.connection_pool.connection_kwargs['port']}/0"
    for file, namespace in ((early, "early"), (log, "audiopixel:v1")):
        settings = load(redis_url=url, metrics_port=0, shards=2, namespace=namespace)
        replay([str(file)], settings, b"a key of sixteen bytes or more")
    truth, row = recompute([log]), "audiopixel:v1:placement:{quiet}"
    own_valkey.rename("early:placement:{quiet}", row)
    as_a_live_flow(own_valkey)
    assert "as_of_ms" in {one.metric for one in differences(truth, own_valkey) if one.id == "quiet"}
    own_valkey.hset("audiopixel:v1:meta", "rows_as_of_ms", begin_ms + 59_999)
    assert [one for one in differences(truth, own_valkey) if one.id == "quiet"] == []
    own_valkey.hset("audiopixel:v1:meta", "rows_as_of_ms", begin_ms + 6 * 60_000)
    assert "as_of_ms" in {one.metric for one in differences(truth, own_valkey) if one.id == "quiet"}


@pytest.mark.parametrize(
    ("event", "minutes", "kept", "listed"),
    [
        pytest.param("impression", (-30, -20, 10), {}, True, id="a day turned"),
        pytest.param("impression", (-30, -20, 10), {"timezone": "Asia/Tokyo"}, False, id="no day turned"),
        pytest.param(
            "start", (5, 12, 30), {"mature_after": timedelta(minutes=10)}, True, id="a start matured"
        ),
        pytest.param("start", (5, 12, 30), {"mature_after": timedelta(seconds=90)}, False, id="long mature"),
        pytest.param("click", (5, 12, 30), {"mature_after": timedelta(minutes=10)}, False, id="no start"),
    ],
)
def test_a_row_is_too_old_once_time_changes_its_numbers(
    own_valkey: redis.Redis,
    tmp_path: Path,
    event: str,
    minutes: tuple[int, int, int],
    kept: dict[str, Any],
    listed: bool,
) -> None:
    # The row is written after its only pixel and then unchanged to the end. Midnight in London is 0.
    heard, written, end = (1_764_028_800_000 + minute * 60_000 for minute in minutes)
    url = f"redis://127.0.0.1:{own_valkey.connection_pool.connection_kwargs['port']}/0"
    settings = load(redis_url=url, metrics_port=0, shards=2, **kept)
    log, row = tmp_path / "log.ndjson", "audiopixel:v1:placement:{quiet}"

    def replayed_to(last: int) -> dict[bytes, bytes]:
        own_valkey.flushall()
        of = {"event": "impression", "placement_id": "other"}
        quiet = {"event": event, "placement_id": "quiet", "play_id": "p"}
        lines = ({"event_id": "1", "ts": heard, **quiet}, {"event_id": "2", "ts": last, **of})
        log.write_text("".join(json.dumps(line) + "\n" for line in lines))
        replay([str(log)], settings, b"a key of sixteen bytes or more")
        return own_valkey.hgetall(row)  # type: ignore[return-value]  # not awaited: a blocking client's

    old = replayed_to(written)
    replayed_to(end)
    truth = recompute([log], Rules(**kept))
    assert differences(truth, own_valkey) == []
    as_a_live_flow(own_valkey)
    own_valkey.delete(row)
    own_valkey.hset(row, mapping=old)
    told = {one.metric for one in differences(truth, own_valkey) if one.scope == "placement"}
    assert ("as_of_ms" in told) is listed


def test_one_play_too_many_is_listed(adversarial: Recomputation, published: redis.Redis) -> None:
    published.hincrby("audiopixel:v1:placement:{pl-000}", "flight.completes", 1)
    wrong = Difference("placement", "pl-000", "flight.completes", "1941", "1942")
    found = differences(adversarial, published)
    rates = [one.metric for one in found if one != wrong]
    assert wrong in found
    assert rates == ["flight.completion_rate", "flight.completions_per_impression"]
    assert format_differences([wrong]).splitlines()[1].split() == [
        *("placement", "pl-000", "flight.completes", "1941", "1942")
    ]
    assert differences(adversarial, published, without=["completes", *(rate[7:] for rate in rates)]) == []


def test_every_published_field_has_a_class() -> None:
    assert {*FIELDS, *VERSIONS} == ROW.keys()
    assert {*ledger.FIELDS, *VERSIONS} == PARTITION.keys()
    assert {*META_FIELDS, *VERSIONS} == META.keys()


@pytest.mark.parametrize(
    ("key", "scope", "name"),
    [
        ("placement:{pl-000}", "placement", "pl-000"),
        ("campaign:{c-0}", "campaign", "c-0"),
        (f"partition:{{{LOG}}}", "partition", str(LOG)),
        ("meta", "meta", ""),
    ],
)
def test_nonsense_in_any_field_is_found(
    adversarial: Recomputation, published: redis.Redis, key: str, scope: str, name: str
) -> None:
    classes = {"partition": PARTITION, "meta": META}.get(scope, ROW)
    held = {field.decode() for field in published.hkeys(f"audiopixel:v1:{key}")}
    compared = {field for field in held if classes[field] is not Check.VERSION}
    published.hset(f"audiopixel:v1:{key}", mapping=dict.fromkeys(compared, "123456"))
    published.hset(f"audiopixel:v1:{key}", "flight.of_nobody", "1")
    found = {
        one.metric for one in differences(adversarial, published) if (one.scope, one.id) == (scope, name)
    }
    assert found >= compared | {"flight.of_nobody"}
    published.delete(f"audiopixel:v1:{key}")
    assert differences(adversarial, published)


def test_missing_and_surplus_numbers_are_differences(
    adversarial: Recomputation, published: redis.Redis
) -> None:
    row = "audiopixel:v1:placement:{pl-000}"
    published.hdel(row, "flight.completion_rate", "flight.frequency", "station", "as_of_ms", "rev")
    published.hset(row, mapping={"conversion_currency": "XXX", "delivery.booked": "1", "5m.frequency": "1"})
    assert {one.metric for one in differences(adversarial, published)} >= {
        *("flight.completion_rate", "flight.frequency", "station", "as_of_ms", "rev"),
        *("conversion_currency", "delivery.booked"),
    }


def test_compared_fields_are_reported_by_class(adversarial: Recomputation, published: redis.Redis) -> None:
    comparison = compare(adversarial, published)
    assert comparison.differences == []
    assert set(comparison.compared) == set(Check)
    assert comparison.compared.total() > 100 * comparison.rows
    assert f"{comparison.compared[Check.EXACT]:,} exact" in summary(comparison, adversarial)


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
    found = differences(adversarial, published, without=["frequency", "conversion_rate"])
    assert [one.metric for one in found] == ["flight.reach"] * differs


def test_the_last_final_minute_counts_and_provisional_ones_do_not(
    adversarial: Recomputation, tmp_path: Path
) -> None:
    lines = []
    for (placement, minute), counts in adversarial.minutes.items():
        key = {"placement_id": placement, "minute_ms": minute, "rev": 1, "as_of_ms": 0, "methodology": "m"}
        for rate, whole in (("completion_rate", "starts"), ("completions_per_impression", "impressions")):
            key[rate] = round(counts["completes"] / counts[whole], 6) if counts[whole] else None
        lines += [key | {"state": "final", "starts": 10**6}, key | counts | {"state": "final"}]
        lines.append(key | {"state": "provisional", "starts": 10**6})
    file = tmp_path / "minutes.ndjson"
    file.write_text("\n".join(map(json.dumps, lines)))
    assert minute_differences(adversarial, file) == []
    lines.append(lines[1] | {"errors": lines[1]["errors"] + 1})
    nobody = {"placement_id": "pl-nobody", "minute_ms": 0, "completion_rate": None}
    lines.append(key | nobody | {"completions_per_impression": None, "state": "final", "errors": 2})
    file.write_text("\n".join(map(json.dumps, lines)))
    found = minute_differences(adversarial, file)
    assert [(d.id.partition("|")[0], d.metric, d.expected) for d in found] == [
        (lines[1]["placement_id"], "errors", str(lines[1]["errors"])),
        ("pl-nobody", "errors", "0"),
    ]
