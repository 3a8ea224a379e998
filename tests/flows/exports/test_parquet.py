"""Days of final minutes and decisions as Parquet: complete, exact, and the same bytes whatever was killed."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import duckdb
import msgspec
import numpy as np
import pytest
from command_support import Command, errors_in
from export_support import Flow, Topic, letters_of

from connectors.kafka import KafkaTable, Record
from connectors.objects import Directory
from connectors.stream import ConnectError
from flows.exports.columns import DAY_MS, TABLES, Kind, decision_row, minute_row
from flows.exports.complete import ACKNOWLEDGED, Completeness, NewGeneration
from flows.exports.handover import Busy
from flows.exports.parquet import ParquetTarget, Topics
from flows.exports.staging import Staged, Staging
from flows.exports.warehouse import Warehouse
from flows.model.conversion_columns import CLAIMED, COLUMNS, MONEY_NAMES, VALUE
from flows.model.counts import MINUTE_COUNTS
from flows.model.decisions import Body
from flows.rows.published import minute_messages
from flows.rows.values import Minutes
from flows.settings import Settings

DAY = 20_600
START_MS = DAY * DAY_MS
DATE = "2026-05-27"
LATENESS_MS = 600_000
METHOD = "0123456789abcdef"


def minutes_of(placement: str, minutes: range, day: int = DAY, final: bool = True, rev: int = 5) -> list[Any]:
    counts = np.zeros((len(minutes), MINUTE_COUNTS), np.int64)
    counts[:, 0] = np.arange(len(minutes)) + 1
    numbers = [day * 1440 + minute for minute in minutes]
    nothing = [None] * len(minutes)
    values = Minutes([placement] * len(minutes), numbers, counts, [*nothing], final, [*nothing])
    return minute_messages(values, rev, START_MS + rev, lambda _: METHOD)


def decision_of(order: str, ts_ms: int, value: int | str | None = 12_500_000) -> tuple[bytes, bytes]:
    body = {
        "conversion": order,
        "order_id": order,
        "event_id": f"e-{order}",
        "type": "purchase",
        "ts": ts_ms,
        "campaign_id": "spring",
        "value_micros": value,
        "currency": "GBP",
        "rule": "last_touch",
        "eligible": 1,
        "capped": False,
        "credits": [
            {
                "placement_id": "a",
                "campaign_id": "spring",
                "way": "click",
                "millionths": 1_000_000,
                "touched_at": ts_ms - 60_000,
            }
        ],
    }
    return json.dumps(["spring", "purchase", order]).encode(), json.dumps(body).encode()


def fill(topic: Topic, settings: Settings) -> None:
    """Two days and a bit, with provisional minutes, repeats, and a message that is none."""
    minutes, credits = settings.kafka_minutes_topic, settings.kafka_credits_topic
    for day in (DAY, DAY + 1, DAY + 2):
        for placement in ("b", "a", "a b"):
            topic.put(
                minutes,
                *minutes_of(placement, range(9), day, final=False, rev=3),
                *minutes_of(placement, range(60), day),
            )
        topic.put(
            credits,
            decision_of(f"{day}-1", day * DAY_MS + 5),
            decision_of(f"{day}-2", day * DAY_MS + 9, str(10**30)),
        )
        topic.put(minutes, *minutes_of("a", range(40), day, rev=9))
    topic.put(minutes, (b"x|1", b'{"placement_id": "x", "minute_ms": 1, "state": "final"}'))
    ((_, whole),) = minutes_of("x", range(1), DAY)
    topic.put(minutes, (b"x|2", json.dumps(json.loads(whole) | {"conversions": 10**400}).encode()))


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
    }


def test_a_day_is_the_same_bytes_after_any_number_of_kills(
    settings: Settings, topic: Topic, flow: Flow, export: Callable[..., Command], tmp_path: Path
) -> None:
    fill(topic, settings)
    flow.fields["watermark_ms"] = (DAY + 2) * DAY_MS + LATENESS_MS
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    assert export("parquet", "--to", str(calm), "--name", "calm", "--once").wait(60) == 0

    def written(count: int) -> bool:
        return killed.exists() and sum(path.is_file() for path in killed.rglob("*")) >= count

    kills = 0
    for count in (1, 3, 7, 10):
        process = export("parquet", "--to", str(killed), "--name", "killed", "--once")
        deadline = time.monotonic() + 30
        while not written(count) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.0005)
        kills += process.poll() is None
        process.kill()
        process.wait(10)
    assert kills >= 2
    assert export("parquet", "--to", str(killed), "--name", "killed", "--once").wait(60) == 0
    whole = files(calm)
    assert len(whole) == 2 * 2 * 3
    left = {path: body for path, body in files(killed).items() if not path.endswith(".part")}
    assert {path: hashlib.sha256(body).hexdigest() for path, body in left.items()} == {
        path: hashlib.sha256(body).hexdigest() for path, body in whole.items()
    }
    manifest = json.loads(whole[f"minutes/generation=0/day={DATE}/_manifest.json"])
    data = whole[f"minutes/generation=0/day={DATE}/minutes.parquet"]
    assert manifest["files"] == [
        {"name": "minutes.parquet", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    ]
    assert (manifest["rows"], manifest["first_key"]) == (180, f"a b|{START_MS}")


def test_a_day_ends_by_the_flows_lateness(
    settings_of: Callable[..., Settings],
) -> None:
    meta = {"generation": "1", "fence": "1", "watermark_ms": str((DAY + 1) * DAY_MS + LATENESS_MS)}
    meta["allowed_lateness_ms"] = str(3 * LATENESS_MS)
    rev = iter(range(0, 10**9, 1_000))
    completeness = Completeness(settings_of(), lambda: meta | {"rev": str(next(rev))}, 1)
    assert {completeness.look() for _ in range(9)} == {-1, DAY}
    meta["watermark_ms"] = str((DAY + 1) * DAY_MS + 3 * LATENESS_MS)
    assert [completeness.look() for _ in range(9)][-1] == DAY + 1


@pytest.mark.parametrize("before", ["minutes", "decisions"])
def test_a_kill_within_a_day_leaves_no_kind_without_its_marker(
    before: Kind,
    settings: Settings,
    topic: Topic,
    flow: Flow,
    export: Callable[..., Command],
    tmp_path: Path,
) -> None:
    told = {"minutes": minutes_of("a", range(3)), "decisions": [decision_of("o", START_MS + 5)]}[before]
    rows = [row for _, row in filter(None, (TABLES[before].row(*one) for one in told))]
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    Warehouse(Directory(killed), 0).write(before, DAY, iter([rows]))
    assert len(files(killed)) == 3, "what such a kill leaves of a day"
    name = settings.kafka_minutes_topic if before == "minutes" else settings.kafka_credits_topic
    topic.put(name, *told)
    flow.fields["watermark_ms"] = (DAY + 1) * DAY_MS + LATENESS_MS
    for root in (calm, killed):
        assert export("parquet", "--to", str(root), "--name", root.name, "--once").wait(60) == 0
    assert len(files(calm)) == 6
    assert files(killed) == files(calm)
    late = minutes_of("late", range(1)) if before == "minutes" else [decision_of("late", START_MS + 9)]
    topic.put(name, *late)
    assert export("parquet", "--to", str(killed), "--name", "killed", "--once").wait(60) == 0
    assert files(killed) == files(calm)
    assert [letter["reason"] for letter in letters_of(settings)] == ["day_closed"]


def test_a_day_of_one_kind_keeps_late_messages(tmp_path: Path) -> None:
    warehouse, staging = Warehouse(Directory(tmp_path / "days"), 1), Staging(tmp_path)
    told = minutes_of("a", range(2))
    warehouse.write("minutes", DAY, iter([[row for _, row in filter(None, (minute_row(*told[0]),))]]))
    open_ = cast(Completeness, type("Complete", (), {"soon": DAY, "look": lambda _: DAY})())
    target = ParquetTarget({"m": "minutes"}, cast(Topics, None), open_, staging, warehouse)
    records = [Record("m", 0, offset, 1, *one) for offset, one in enumerate(told)]
    found = target.sort(records)
    assert [(letter.record.offset, letter.reason) for letter in found.letters] == [(1, "day_closed")]
    assert found.left_out == ["repeated"]
    for parcel in found.parcels:
        parcel.hand_over()
    assert target.places({("m", 0): 2}) == {("m", 0): 0}, "a kill before the day is written is no end either"
    staging.close()


def query(root: Path, kind: str, what: str) -> list[Any]:
    source = f"read_parquet('{root}/{kind}/*/*/*.parquet', hive_partitioning = true)"
    return duckdb.sql(f"SELECT {what} FROM {source} GROUP BY ALL ORDER BY ALL").fetchall()


def test_duckdb_reads_the_days_and_a_straggler_never_changes_one(
    settings: Settings, topic: Topic, flow: Flow, export: Callable[..., Command], tmp_path: Path
) -> None:
    fill(topic, settings)
    flow.fields["watermark_ms"] = (DAY + 1) * DAY_MS + LATENESS_MS
    root = tmp_path / "days"
    assert export("parquet", "--to", str(root), "--once").wait(60) == 0
    assert query(root, "minutes", "day::text, placement_id, count(*), sum(impressions)") == [
        (DATE, name, 60, 60 * 61 // 2) for name in ("a", "a b", "b")
    ]
    assert query(root, "decisions", "order_id, value_micros::text, credits[1].way") == [
        (f"{DAY}-1", "12500000", "click"),
        (f"{DAY}-2", str(10**30), "click"),
    ]
    before = files(root)
    topic.put(settings.kafka_minutes_topic, *minutes_of("a", range(2), rev=44), *minutes_of("late", range(1)))
    assert export("parquet", "--to", str(root), "--once").wait(60) == 0
    assert files(root) == before
    table = KafkaTable(settings.kafka_brokers, settings.kafka_exports_rejected_topic)
    letters = []
    deadline = time.monotonic() + 20
    while not table.caught_up and time.monotonic() < deadline:
        letters += [json.loads(change.value or b"") for change in table.read(settings.save_interval)]
    table.close()
    assert {(one["reason"], one["topic"]) for one in letters} == {
        ("malformed", settings.kafka_minutes_topic),
        ("day_closed", settings.kafka_minutes_topic),
    }
    assert sum(one["reason"] == "day_closed" for one in letters) == 1


def test_a_directory_takes_one_export_whatever_its_name(
    settings: Settings, topic: Topic, flow: Flow, export: Callable[..., Command], tmp_path: Path
) -> None:
    fill(topic, settings)
    flow.fields["watermark_ms"] = (DAY + 1) * DAY_MS + LATENESS_MS
    root = tmp_path / "days"
    with Directory(root).alone():
        assert export("parquet", "--to", str(root), "--name", "second", "--once").wait(60) == 3
    said = f"{root}: another export writes there: give each a directory of its own"
    assert errors_in((tmp_path / "export.log").read_text()) == [said]
    assert files(root) == {}
    assert export("parquet", "--to", str(root), "--name", "second", "--once").wait(60) == 0
    assert len(files(root)) == 6


def test_a_day_written_by_another_process_does_not_change(tmp_path: Path) -> None:
    shelf = Directory(tmp_path)
    first, second = Warehouse(shelf, 0), Warehouse(shelf, 0)

    def rows(count: int) -> Iterator[list[Any]]:
        found = [minute_row(*one) for one in minutes_of("a", range(count))]
        return iter([[row for _, row in filter(None, found)]])

    assert not second.complete("minutes", DAY)
    first.write("minutes", DAY, rows(3))
    whole = files(tmp_path)
    second.write("minutes", DAY, rows(2))
    assert files(tmp_path) == whole
    assert query(tmp_path, "minutes", "count(*)") == [(3,)]


def test_an_absent_kafka_at_a_due_day_ends_no_export(tmp_path: Path) -> None:
    away = [True]

    class Topics:
        def ends(self) -> dict[tuple[str, int], int]:
            if away[0]:
                raise ConnectError("Kafka is away")
            return {("m", 0): 6}

        def passed(self, _: object) -> bool:
            return True

    complete = cast(Completeness, type("Complete", (), {"soon": DAY + 1, "look": lambda _: DAY + 1})())
    staging, clock = Staging(tmp_path), [0.0]
    (found,) = (minute_row(*one) for one in minutes_of("a", range(1)))
    assert found is not None
    staging.add([Staged("minutes", *found, ("m", 0), 5)])
    warehouse = Warehouse(Directory(tmp_path / "days"), 1)
    target = ParquetTarget({"m": "minutes"}, Topics(), complete, staging, warehouse, clock_s=lambda: clock[0])
    with pytest.raises(Busy, match="Kafka is away"):
        target.sort([])
    assert target.waiting
    away[0], clock[0] = False, 1.0
    assert len(target.sort([]).parcels) == 1
    staging.close()


def test_a_new_generation_is_read_from_the_beginning_whatever_from_says(
    settings: Settings, topic: Topic, flow: Flow, export: Callable[..., Command], tmp_path: Path
) -> None:
    root = tmp_path / "days"
    flow.fields["watermark_ms"] = (DAY + 1) * DAY_MS + LATENESS_MS
    for one in minutes_of("a", range(4)):  # each a batch: by these the embedded broker counts its end
        topic.put(settings.kafka_minutes_topic, one, partition=0)
    assert export("parquet", "--to", str(root), "--once", "--from", "latest").wait(60) == 0
    assert files(root) == {}
    flow.fields["generation"] = 2
    assert export("parquet", "--to", str(root), "--once", "--from", "latest").wait(60) == 0
    assert query(root, "minutes", "generation, day::text, sum(impressions)") == [(2, DATE, 10)]


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that speaks S3's protocol; its `HOST:PORT`."""
    from moto.server import ThreadedMotoServer

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"{host}:{port}"
    server.stop()


def test_a_bucket_has_the_bytes_of_the_directory(
    settings: Settings, topic: Topic, flow: Flow, export: Callable[..., Command], tmp_path: Path, s3: str
) -> None:
    from pyarrow.fs import FileSelector, S3FileSystem

    fill(topic, settings)
    flow.fields["watermark_ms"] = (DAY + 1) * DAY_MS + LATENESS_MS
    store = S3FileSystem(endpoint_override=s3, scheme="http", region="eu-west-1", allow_bucket_creation=True)
    store.create_dir("trade")
    keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    at = f"s3://trade/audio?endpoint={s3}&scheme=http&region=eu-west-1"
    there = export("parquet", "--to", at, "--name", "there", "--once", **keys)
    here = export("parquet", "--to", str(tmp_path / "days"), "--once")
    assert (there.wait(60), here.wait(60)) == (0, 0)
    found = {
        one.path.removeprefix("trade/audio/"): store.open_input_file(one.path).read()
        for one in store.get_file_info(FileSelector("trade/audio", recursive=True))
        if one.is_file
    }
    assert len(found) == 6
    assert found == files(tmp_path / "days")


def test_a_day_is_complete_after_later_saves_of_one_execution(settings: Settings) -> None:
    intervals = {"flush_interval": timedelta(seconds=1), "save_interval": timedelta(seconds=2)}
    settings, meta = settings.model_copy(update=intervals), dict[str, str]()
    look = Completeness(settings, lambda: meta, generation=0).look
    settles = 30 + 3 * 2
    assert timedelta(seconds=30) == ACKNOWLEDGED

    def flush_meta(fence: int, rev: int, watermark_ms: int, generation: int = 0) -> int:
        meta.update(
            fence=str(fence), rev=str(rev), watermark_ms=str(watermark_ms), generation=str(generation)
        )
        return look()

    over = START_MS + DAY_MS + LATENESS_MS
    assert look() < DAY
    assert flush_meta(1, 101, over) <= DAY
    assert flush_meta(1, 101 + settles - 1, over + 50) <= DAY
    assert flush_meta(1, 101 + settles, over + 60) == DAY + 1
    fresh = Completeness(settings, lambda: meta, generation=0)
    look = fresh.look
    assert flush_meta(1, 200, over) < DAY
    assert flush_meta(2, 200 + settles, over) < DAY, "what the execution before wrote last may come again"
    assert flush_meta(2, 200 + 2 * settles, over) == DAY + 1
    with pytest.raises(NewGeneration):
        flush_meta(3, 300, over, generation=1)


def test_every_field_of_a_final_minute_has_a_column() -> None:
    credited = np.zeros(len(COLUMNS), np.int64)
    credited[: len(COLUMNS)] = 500_000
    credited[[VALUE, CLAIMED]] = 7, 11
    minutes = Minutes(["a"], [DAY * 1440], np.ones((1, MINUTE_COUNTS), np.int64), [credited], True, [None])
    ((key, value),) = minute_messages(minutes, 1, 1, lambda _: METHOD)
    found = minute_row(key, value)
    assert found is not None
    day, row = found
    named = dict(zip(TABLES["minutes"].schema.names, row[1:], strict=True))
    body = msgspec.json.decode(value)
    assert (day, named["more"]) == (DAY, None)
    same = body.keys() & named.keys() - {*MONEY_NAMES}
    assert {name: named[name] for name in same} == {name: body[name] for name in same}
    assert {name: named[name] for name in MONEY_NAMES} == {name: str(body[name]) for name in MONEY_NAMES}
    assert body.keys() - named.keys() == {"minute_ms", "state", "rev", "as_of_ms"}


def test_a_decision_marks_a_claimed_value() -> None:
    key, value = decision_of("o", START_MS)
    at = TABLES["decisions"].schema.names.index("claimed") + 1
    told = [decision_row(key, one) for one in (value, value[:-1] + b',"claimed":true}')]
    assert [row[at] for _, row in filter(None, told)] == [False, True]


def test_a_decision_has_every_field_of_its_message() -> None:
    key, value = decision_of("o", START_MS)
    found = decision_row(
        key, value[:-1] + b',"joined_by":"household","noisy_household":true,"methodology":"ab"}'
    )
    assert found is not None
    named = dict(zip(TABLES["decisions"].schema.names, found[1][1:], strict=True))
    assert named.keys() == {"key", *Body.__struct_fields__}
    assert [named[name] for name in ("joined_by", "noisy_household", "methodology")] == [
        "household",
        True,
        "ab",
    ]
    older = decision_row(key, value)
    assert older is not None
    assert older[1][-5:] == (None, False, None, None, None)
    claimed = b',"claimed_value_micros":"90071992547409930","claimed_currency":"GBP"}'
    confirmed = decision_row(key, value[:-1] + claimed)
    assert confirmed is not None
    assert confirmed[1][-2:] == ("90071992547409930", "GBP")


def test_an_unknown_field_is_kept() -> None:
    ((key, value),) = minutes_of("a", range(1))
    found = minute_row(key, value[:-1] + b',"impressions_download":3}')
    assert found is not None
    assert found[1][-1] == '{"impressions_download":3}'
