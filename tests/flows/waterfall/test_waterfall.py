"""The waterfall: their files, the arithmetic, and a report that shows hostile ids as letters."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import duckdb
import pytest
from rich.console import Console
from typer.testing import CliRunner

from connectors.redis import put_fields
from connectors.redis.client import Client
from flows.cli.commands import app
from flows.errors import UsageError
from flows.model.plan import Plan
from flows.model.redis_keys import day_key, door_key
from flows.replay import replay
from flows.settings import Settings
from flows.simulate.feed import plans as plans_of
from flows.simulate.feed import run_log, write_plans
from flows.simulate.traffic import Traffic
from flows.waterfall import Band, Difference, as_html, as_json, as_table, compare, read_claims
from flows.waterfall.signed_parts import BEHIND, NAMES, PART_WORDS, Counts, Part, signed

DAY = date(2026, 11, 24)
HALF = b'[{"placement_id":"\\ud800","day":"flight","impressions":1}]'
ZONE = ZoneInfo("Europe/London")
NOON_MS = int(datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp() * 1000)
SENT = {
    "deliveries": 140,
    "deliveries_repeated": 7,
    "deliveries_too_late": 4,
    "deliveries_invalid_traffic": 6,
    "deliveries_outside_flight": 9,
    "deliveries_calendar": 120,
    "deliveries_first_touch": 110,
    "deliveries_unkeyed": 12,
    "downloads": 30,
    "downloads_calendar": 30,
}
DAY_FIELDS = {
    "impressions": "100",
    "repeated": "3",
    "too_late": "2",
    "rejected": "1",
    "orphans": "4",
    "clock_moved": "-2",
    "outside_flight": "5",
    "invalid_traffic": '{"declared_bot":6,"data_centre":1}',
    "bases": '{"audible_2s":30,"download":1}',
    "sent": json.dumps(SENT),
}


def difference(ours: int, theirs: int, tolerance: float | None = None, *parts: Part) -> Difference:
    return Difference("placement", "a", DAY.isoformat(), ours, theirs, parts, tolerance)


@pytest.mark.parametrize(
    ("theirs", "tolerance", "band"),
    [
        (105, None, Band.FINE),
        (95, None, Band.FINE),
        (106, None, Band.LOOK),
        (110, None, Band.LOOK),
        (111, None, Band.BREACH),
        (89, None, Band.BREACH),
        (103, 0.02, Band.BREACH),
        (120, 0.2, Band.FINE),
        (121, 0.2, Band.BREACH),
    ],
)
def test_a_band_is_the_iabs_and_a_contracts_own_tolerance_wins(
    theirs: int, tolerance: float | None, band: Band
) -> None:
    assert difference(100, theirs, tolerance).band is band


def test_an_unmatched_count_is_a_breach_and_two_zeros_are_fine() -> None:
    assert difference(0, 1).band is Band.BREACH
    assert difference(0, 0).band is Band.FINE


COUNTS = Counts(
    100, {"repeated": 3, "outside_flight": 5, "clock_moved": -2}, {"declared_bot": 6, "volume": 1}
)


def test_the_parts_and_the_unexplained_sum_to_the_difference() -> None:
    for theirs in (0, 99, 103, 500):
        row = difference(100, theirs, None, *signed(COUNTS))
        assert sum(part.impressions for part in row.parts) == 3 - 5 - 2 + 6 + 1
        assert sum(part.impressions for part in row.parts) + row.unexplained == theirs - 100


def test_a_part_excluded_by_the_other_side_explains_nothing() -> None:
    def remaining_parts(*excludes: str) -> dict[str, int]:
        parts = signed(COUNTS, frozenset(excludes))
        return {part.name: part.impressions for part in parts if part.impressions}

    assert "repeated" not in remaining_parts("repeated")
    assert remaining_parts("invalid_traffic").keys() == {"repeated", "outside_flight", "clock_moved"}
    assert remaining_parts("invalid_traffic.volume")["invalid_traffic.declared_bot"] == 6
    assert not remaining_parts(*NAMES)


def test_each_part_is_explained_with_a_link() -> None:
    assert set(NAMES) == PART_WORDS.keys() == BEHIND.keys()
    assert all(PART_WORDS.values())
    assert all(BEHIND.values())


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_same_rows_are_read_from_csv_json_and_parquet(tmp_path: Path) -> None:
    head = "placement_id,campaign_id,day,impressions,excludes"
    text = f"{head}\na,,2026-11-24,7,repeated;too_late\n,c,flight,9,\n\n"
    of_csv = read_claims(write(tmp_path / "a.csv", "\ufeff" + text))
    rows = [
        {"placement_id": "a", "day": "2026-11-24", "impressions": 7, "excludes": ["repeated", "too_late"]},
        {"campaign_id": "c", "day": "flight", "impressions": "9"},
    ]
    assert read_claims(write(tmp_path / "a.json", json.dumps(rows))) == of_csv
    parquet = tmp_path / "a.parquet"
    duckdb.sql(f"COPY (FROM read_csv('{tmp_path / 'a.csv'}', all_varchar = true)) TO '{parquet}'")
    assert read_claims(parquet) == of_csv
    for wrapped in (gzip.compress(text.encode()), text.encode("utf-16")):
        (tmp_path / "wrapped.csv").write_bytes(wrapped)
        assert read_claims(tmp_path / "wrapped.csv") == of_csv
    assert [(one.scope, one.name, one.day, one.number) for one in of_csv] == [
        ("placement", "a", DAY, 7),
        ("campaign", "c", None, 9),
    ]
    assert of_csv[0].excludes == {"repeated", "too_late"}


def test_a_tables_day_may_be_a_midnight_and_its_count_a_float(tmp_path: Path) -> None:
    table = tmp_path / "a.parquet"

    def read(day: str, count: str = "7::DOUBLE") -> list[tuple[date | None, int]]:
        row = f"SELECT 'a' AS placement_id, {day} AS day, {count} AS impressions"
        duckdb.sql(f"COPY ({row}) TO '{table}'")
        return [(one.day, one.number) for one in read_claims(table)]

    assert read("TIMESTAMP '2026-11-24'") == read("TIMESTAMP_NS '2026-11-24'") == [(DAY, 7)]
    assert read("DATE '2026-11-24'", "7::HUGEINT") == [(DAY, 7)]
    with pytest.raises(UsageError, match="day: takes a date"):
        read("TIMESTAMP '2026-11-24 12:00:00'")
    with pytest.raises(UsageError, match="impressions: takes a whole number"):
        read("DATE '2026-11-24'", "7.5::DOUBLE")


def test_a_small_parquet_file_of_large_cells_takes_no_memory(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = tmp_path / "a.parquet"
    names = pa.DictionaryArray.from_arrays(pa.array([0] * 300, pa.int32()), pa.array(["a" * (1 << 20)]))
    pq.write_table(pa.table({"placement_id": names}), table, compression="zstd")
    assert table.stat().st_size < 4_000
    with pytest.raises(UsageError, match="takes over 256 MB of memory: some cells are too long"):
        read_claims(table)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "placement_id,day,impressions\na,2026-11-24,5\nb,2026-11-24,5\na,2026-11-24,6\n",
            "a.csv:4: .*line 2",
        ),
        ("placement_id,day,impressions,impressions\na,2026-11-24,5,6\n", "column impressions is there twice"),
        ("placement_id;day;impressions\na;2026-11-24;5\n", "separated by commas"),
    ],
)
def test_no_count_of_a_file_takes_anothers_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_claims(write(tmp_path / "a.csv", text))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a,,2026-11-24,many,", "impressions: takes a whole number"),
        ("a,,2026-11-24,-1,", "impressions: takes a whole number"),
        (f"a,,2026-11-24,{'0' * 5_000},", "impressions: takes a whole number"),
        ("a,,24.11.2026,1,", "day: takes a date"),
        ("a,c,2026-11-24,1,", "takes either placement_id or campaign_id"),
        (",,2026-11-24,1,", "takes either placement_id or campaign_id"),
        (f"{'a' * 129},,2026-11-24,1,", "placement_id: takes at most 128"),
        ("a,,2026-11-24,1,bots", "excludes: no such part: bots"),
        ("a,,2026-11-24,1,repeated.x", "excludes: no such part"),
    ],
)
def test_a_wrong_row_is_named_with_its_line_and_column(tmp_path: Path, row: str, said: str) -> None:
    head = "placement_id,campaign_id,day,impressions,excludes\n"
    with pytest.raises(UsageError, match=said) as error:
        read_claims(write(tmp_path / "a.csv", head + row + "\n"))
    assert "a.csv:2" in str(error.value)


def test_an_id_of_another_type_is_refused(tmp_path: Path) -> None:
    row = {"day": "2026-11-24", "impressions": 1}
    for wrong in (["a"], {"a": 1}, True, False, []):
        text = json.dumps([row | {"placement_id": "b"}, row | {"placement_id": wrong}])
        with pytest.raises(UsageError, match=r"a\.json:2: placement_id: takes a text or a number"):
            read_claims(write(tmp_path / "a.json", text))
    rows = [row | {"placement_id": 7, "campaign_id": None}, row | {"campaign_id": "c", "placement_id": ""}]
    claims = read_claims(write(tmp_path / "a.json", json.dumps(rows)))
    assert [one.name for one in claims] == ["7", "c"]
    table = tmp_path / "a.parquet"
    select = "SELECT uuid() placement_id, DATE '2026-11-24' AS day, 1 impressions"
    duckdb.sql(select).write_parquet(str(table))
    assert len(read_claims(table)[0].name) == 36


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("a.csv", b"\xff\xfe"), ("a.json", b"{}"), ("a.json", HALF), ("a.json", b"[1]"), ("a.json", b"[")),
        *(("a.parquet", b"PAR1"), ("a.txt", b""), ("a.csv", b""), ("a.csv", b"placement_id,shoe\na,1\n")),
    ],
)
def test_a_file_without_a_table_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=name):
        read_claims(tmp_path / name)


# Against Redis


@pytest.fixture
def counted(settings_of: Callable[..., Settings], client: Client) -> Settings:
    settings = settings_of()
    namespace = settings.namespace
    fields = {
        f"{namespace}:meta": {"watermark_ms": str(NOON_MS)},
        day_key(namespace, "a", DAY): DAY_FIELDS,
        day_key(namespace, "b", DAY): {"impressions": "50", "invalid_traffic": '{"declared_bot":1}'},
        day_key(namespace, "a", DAY - timedelta(days=1)): {"impressions": "10"},
        door_key(namespace, "a", DAY.isoformat()): {
            "unsigned/c1/1": "8",
            "unsigned/c1/2": "1",
            "invalid/c2/1": "2",
            "unsigned.deliveries/c1/1": "2",
            "invalid.downloads/c1/1": "5",
        },
        door_key(namespace, "a", "2026-11-20"): {"unsigned/c1/1": "99"},
        f"{namespace}:placement:{{a}}": {"rev": "1"},
        f"{namespace}:placement:{{b}}": {"rev": "1", "campaign_id": "spring"},
    }
    put_fields(client, fields, timedelta(minutes=5))
    client.zadd(f"{namespace}:index:placement", {"a": 1, "b": 1})
    return settings


def plan(placement: str, **more: Any) -> Plan:
    start = int(datetime(2026, 11, 23, 6, tzinfo=UTC).timestamp() * 1000)
    return Plan(placement, 1000, start, start + 40 * 3_600_000, campaign_id="spring", **more)


def rows_of(
    client: Client, settings: Settings, path: Path, text: str, plans: dict[str, Plan]
) -> list[Difference]:
    claims = read_claims(write(path / "theirs.csv", text))
    return compare(client, settings.namespace, ZONE, plans, claims)


def test_a_days_parts_come_from_the_flow_and_from_the_doors(
    counted: Settings, client: Client, tmp_path: Path
) -> None:
    text = "placement_id,day,impressions\na,2026-11-24,121\n"
    (row,) = rows_of(client, counted, tmp_path, text, {"a": plan("a", tolerance=0.3)})
    assert {part.name: part.impressions for part in row.parts if part.impressions} == {
        "repeated": 3,
        "invalid_traffic.data_centre": 1,
        "invalid_traffic.declared_bot": 6,
        "too_late": 2,
        "unsigned": 9,
        "rejected": 3,
        "orphans": 4,
        "clock_moved": -2,
        "outside_flight": -5,
    }
    assert (row.ours, row.difference, row.unexplained, row.band) == (100, 21, 0, Band.FINE)


@pytest.mark.parametrize(
    ("basis", "others"),
    [("vast_impression", 31), ("audible_2s", 65), ("download", 94), ("streamed_full", 95)],
)
def test_a_report_of_one_basis_lacks_the_other_bases(
    counted: Settings, client: Client, tmp_path: Path, basis: str, others: int
) -> None:
    text = f"placement_id,day,impressions,basis\na,2026-11-24,70,{basis}\n"
    (row,) = rows_of(client, counted, tmp_path, text, {"a": plan("a")})
    assert {part.name: part.impressions for part in row.parts}["other_basis"] == -others
    assert row.ours == 100


@pytest.mark.parametrize(
    ("window", "ours", "by_window"),
    [
        ("", 140, {}),
        ("calendar", 120, {"unkeyed": 12, "same_client": 8}),
        ("first_touch", 110, {"unkeyed": 12, "same_client": 18}),
        ("last_touch", 0, {"unkeyed": 12, "same_client": 128}),
    ],
)
def test_deliveries_are_compared_in_the_reports_window(
    counted: Settings, client: Client, tmp_path: Path, window: str, ours: int, by_window: dict[str, int]
) -> None:
    text = f"placement_id,day,deliveries,window\na,2026-11-24,153,{window}\n"
    (row,) = rows_of(client, counted, tmp_path, text, {"a": plan("a")})
    metric = f"deliveries_{window}" if window else "deliveries"
    assert (row.ours, row.theirs, row.counted) == (ours, 153, metric)
    common = {"repeated": 7, "too_late": 4, "invalid_traffic": 6, "outside_flight": -9, "unsigned": 2}
    assert {part.name: part.impressions for part in row.parts if part.impressions} == common | by_window
    assert row.unexplained == 3
    assert json.loads(as_json([row]))[0]["counted"] == metric
    assert f"2026-11-24, {metric}" in as_html([row], "x")


@pytest.mark.parametrize(
    ("head", "row", "said"),
    [
        ("impressions,deliveries", "1,2", "takes one of impressions, deliveries, downloads"),
        ("impressions,basis", "1,heard", "basis: no such kind: heard"),
        ("deliveries,basis", "1,download", "basis: belongs to impressions"),
        ("deliveries", "x", "deliveries: takes a whole number"),
        ("downloads,window", "1,month", "window: no such kind: month"),
        ("impressions,window", "1,calendar", "window: belongs to deliveries and downloads"),
    ],
)
def test_a_row_counts_one_thing_of_one_kind(tmp_path: Path, head: str, row: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_claims(write(tmp_path / "a.csv", f"placement_id,day,{head}\na,2026-11-24,{row}\n"))


def test_a_flight_has_its_days_and_a_campaign_its_placements(
    counted: Settings, client: Client, tmp_path: Path
) -> None:
    text = (
        "placement_id,campaign_id,day,impressions\na,,flight,110\n,spring,2026-11-24,150\n,autumn,flight,1\n"
    )
    flight, campaign, nobody = rows_of(client, counted, tmp_path, text, {"a": plan("a")})
    assert (flight.ours, flight.note) == (110, "")
    assert campaign.ours == 150
    assert sum(part.impressions for part in campaign.parts if part.kind == "invalid_traffic") == 8
    assert nobody.note == "no placement of this campaign has a plan or a row"
    assert (nobody.ours, nobody.parts, nobody.band) == (None, [], Band.NONE)


@pytest.mark.parametrize(("advertiser", "ours"), [(None, 150), ("acme", 100)])
def test_an_anonymous_plans_placement_has_its_pixels_campaign(
    advertiser: str | None, ours: int, counted: Settings, client: Client, tmp_path: Path
) -> None:
    plans = {"a": plan("a"), "b": replace(plan("b"), campaign_id=None, advertiser=advertiser)}
    (row,) = rows_of(client, counted, tmp_path, "campaign_id,day,impressions\nspring,2026-11-24,1\n", plans)
    assert row.ours == ours


def test_a_campaigns_flight_says_how_many_placements_have_none(
    counted: Settings, client: Client, tmp_path: Path
) -> None:
    text = "campaign_id,day,impressions\nspring,flight,110\n"
    (row,) = rows_of(client, counted, tmp_path, text, {"a": plan("a")})
    assert (row.ours, row.note) == (
        110,
        "without a plan, so without a flight, and left out: 1 of 2 placements",
    )


@pytest.mark.parametrize(
    ("name", "day", "note", "ours"),
    [
        ("a", "2026-11-25", "today is not over", 0),
        ("a", "2026-11-26", "this day has not begun", None),
        ("a", "2026-09-01", "no longer kept", None),
        ("a", "flight", "the flight is not known: neither a plan nor a row has it", None),
        ("xyz", "2026-11-24", "Redis has neither a row nor a count of this placement", None),
    ],
)
def test_a_partly_known_day_is_marked_without_false_zeros(
    counted: Settings, client: Client, tmp_path: Path, name: str, day: str, note: str, ours: int | None
) -> None:
    (row,) = rows_of(client, counted, tmp_path, f"placement_id,day,impressions\n{name},{day},1\n", {})
    assert note in row.note
    assert (row.ours, row.band) == (ours, Band.NONE if ours is None else Band.BREACH)
    if ours is not None:
        return
    assert (row.difference, row.share, row.unexplained, row.parts) == (None, None, None, [])
    assert json.loads(as_json([row]))[0]["ours"] is None
    console = Console(record=True, width=200)
    console.print(as_table([row]))
    assert re.search(rf"placement {name} +{day} +– +1 +– +– +no verdict +", console.export_text())
    page = as_html([row], "t")
    assert "1 rows, 0 over the tolerance, 1 without a verdict" in page
    assert "no verdict: theirs 1, ours is not known." in page
    assert "<svg" not in page


@pytest.mark.parametrize(
    ("starts_in", "lasts", "note"),
    [
        (3, 5, "this flight has not begun"),
        (-70, 5, "days before 2026-09-24 are no longer kept"),
        (-70, 90, "days before 2026-09-24 are no longer kept"),
        (-62, 1, ""),
    ],
)
@pytest.mark.parametrize("name", ["placement_id", "campaign_id"])
def test_a_flight_with_deleted_or_future_days_is_marked(
    counted: Settings, client: Client, tmp_path: Path, name: str, starts_in: int, lasts: int, note: str
) -> None:
    today = int(datetime(2026, 11, 25, tzinfo=UTC).timestamp() * 1000)
    start_ms = today + starts_in * 86_400_000
    flight = replace(plan("old"), campaign_id="x", start_ms=start_ms, end_ms=start_ms + lasts * 86_400_000)
    now = replace(plan("now"), campaign_id="x", start_ms=today - 86_400_000, end_ms=today)
    of = {"placement_id": "old", "campaign_id": "x"}[name]
    plans = {"old": flight} | ({"now": now} if name == "campaign_id" and starts_in < 0 else {})
    rows = {f"{counted.namespace}:placement:{{{one}}}": {"rev": "1"} for one in ("old", "now")}
    put_fields(client, rows, timedelta(minutes=5))
    (row,) = rows_of(client, counted, tmp_path, f"{name},day,impressions\n{of},flight,500\n", plans)
    assert row.note == note
    assert (row.ours is None) == bool(note)


@pytest.mark.parametrize(("day", "gone"), [("2026-09-23", True), ("2026-09-24", False)])
def test_the_oldest_kept_day_is_not_reported_deleted(
    counted: Settings, client: Client, tmp_path: Path, day: str, gone: bool
) -> None:
    (row,) = rows_of(client, counted, tmp_path, f"placement_id,day,impressions\na,{day},1\n", {})
    assert ("no longer kept" in row.note) == gone


def test_an_unknown_campaign_in_redis_has_no_verdict(
    counted: Settings, client: Client, tmp_path: Path
) -> None:
    plans = {"a": plan("a"), "never": plan("never")}
    (row,) = rows_of(client, counted, tmp_path, "campaign_id,day,impressions\nspring,2026-11-24,1\n", plans)
    assert (row.ours, row.note) == (None, "Redis has neither a row nor a count of 1 of 3 placements")


@pytest.mark.parametrize(
    ("day", "counts_from", "ours"),
    [
        ("2026-11-24", datetime(2026, 11, 24, 0, 15), 100),
        ("2026-11-24", datetime(2026, 11, 24, 0, 16), None),
        ("2026-11-24", datetime(2026, 11, 25), None),
        ("flight", datetime(2026, 11, 23, 6, 15), 110),  # it began at 06:00
        ("flight", datetime(2026, 11, 23, 7), None),
        ("2026-11-23", datetime(2026, 11, 23, 6, 15), 10),
        ("2026-11-23", datetime(2026, 11, 23, 6, 16), None),
    ],
)
def test_days_before_the_flows_count_are_unknown(
    counted: Settings, client: Client, tmp_path: Path, day: str, counts_from: datetime, ours: int | None
) -> None:
    since_ms = int(counts_from.replace(tzinfo=UTC).timestamp() * 1000)
    client.hset(f"{counted.namespace}:meta", "counted_since_ms", since_ms)
    text = f"placement_id,day,impressions\na,{day},100\n"
    (row,) = rows_of(client, counted, tmp_path, text, {"a": plan("a")})
    assert row.ours == ours
    if ours is None:
        assert row.note == f"nothing before {counts_from.isoformat(' ', 'minutes')}+00:00 was counted"


HOSTILE = '<script>alert(1)</script>"\u202e\x1b[31m&'


def test_a_report_shows_hostile_ids_as_letters_and_runs_nothing() -> None:
    rows = [Difference("placement", HOSTILE, "2026-11-24", 100, 121, signed(COUNTS, frozenset()))]
    page = as_html(rows, HOSTILE)
    assert "<script" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;" in page
    console = Console(record=True, width=200)
    console.print(as_table(rows))
    assert "\x1b" not in console.export_text()
    told = as_json(rows)
    assert json.loads(told)[0]["placement_id"] == HOSTILE
    assert not set("\x1b\u202e") & set(told)


def test_a_charts_bars_begin_at_the_previous_end() -> None:
    row = Difference("placement", "a", "2026-11-24", 1_000, 1_021, signed(COUNTS, frozenset()))
    page = as_html([row], "t")
    svg = ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])
    bars = [(float(bar.attrib["x"]), float(bar.attrib["width"])) for bar in svg.iter("rect")]
    steps = [part.impressions for part in row.parts if part.impressions] + [row.unexplained]
    assert len(bars) == len(steps) + 2
    at, scale = bars[0][0] + bars[0][1], 0.0
    for step, (left, width) in zip(steps, bars[1:-1], strict=True):
        scale = scale or width / abs(step)
        begin = left if step > 0 else left + width
        assert begin == pytest.approx(at, abs=0.3)
        at += step * scale
    assert bars[-1][0] + bars[-1][1] == pytest.approx(at, abs=0.5)


@pytest.fixture
def run(counted: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("AUDIOPIXEL_REDIS_URL", counted.redis_url.get_secret_value())
    monkeypatch.setenv("AUDIOPIXEL_NAMESPACE", counted.namespace)
    return lambda *arguments: CliRunner().invoke(app, ["discrepancy", *map(str, arguments)])


def one_line(told: Any) -> str:
    """The error of a command without a verdict."""
    assert told.exit_code == 2, told.output
    assert told.stdout == ""
    assert told.stderr.count("\n") == 1
    return str(told.stderr)


HUGE = "9" * 5_000


@pytest.mark.parametrize(
    "fields",
    [
        {"impressions": "12.5"},
        {"impressions": HUGE},
        {"repeated": "x"},
        {"repeated": "1_0"},
        {"invalid_traffic": "{"},
        {"invalid_traffic": "[]"},
        {"invalid_traffic": f'{{"a":{HUGE}}}'},
        {"bases": '{"audible_2s":"1"}'},
    ],
)
def test_a_damaged_count_is_named_without_a_verdict(
    counted: Settings, client: Client, tmp_path: Path, run: Callable[..., Any], fields: dict[str, str]
) -> None:
    head = "placement_id,day,impressions,basis\n"
    file = write(tmp_path / "theirs.csv", f"{head}a,2026-11-24,104,audible_2s\n")
    key = day_key(counted.namespace, "a", DAY)
    client.hset(key, mapping=fields)
    assert f"{key} {next(iter(fields))} " in one_line(run(file))


@pytest.mark.parametrize(
    ("key", "field", "value"),
    [("door", "unsigned/c1/1", "\u00b2"), ("door", "unsigned/c1/1", HUGE), ("day", "sent", "[1]")],
)
def test_a_damaged_count_of_deliveries_or_a_door_is_named(
    counted: Settings,
    client: Client,
    tmp_path: Path,
    run: Callable[..., Any],
    key: str,
    field: str,
    value: str,
) -> None:
    of = "deliveries" if key == "day" else "impressions"
    file = write(tmp_path / "theirs.csv", f"placement_id,day,{of}\na,2026-11-24,104\n")
    keys = {
        "door": door_key(counted.namespace, "a", DAY.isoformat()),
        "day": day_key(counted.namespace, "a", DAY),
    }
    client.hset(keys[key], field, value)
    assert f"{keys[key]} {field} " in one_line(run(file))


@pytest.mark.parametrize("said", ["", "soon", HUGE, "99999999999999999999", "-99999999999999999", "0x1"])
def test_a_redis_without_a_flows_time_is_refused(
    counted: Settings, client: Client, tmp_path: Path, run: Callable[..., Any], said: str
) -> None:
    file = write(tmp_path / "theirs.csv", "placement_id,day,impressions\na,2026-11-24,104\n")
    client.hset(f"{counted.namespace}:meta", "watermark_ms", said)
    assert f"{counted.namespace}:meta watermark_ms " in one_line(run(file))
    client.delete(f"{counted.namespace}:meta")
    assert f"{counted.namespace}:meta in Redis has no watermark_ms" in one_line(run(file, "--json"))


def test_their_file_and_the_report_are_looked_at_before_the_work(
    counted: Settings, tmp_path: Path, run: Callable[..., Any]
) -> None:
    text = "placement_id,day,impressions\na,2026-11-24,104\n"
    file = write(tmp_path / "theirs.csv", text)
    (tmp_path / "link.html").hardlink_to(file)
    for report in (file, tmp_path / "link.html"):
        assert "is the file to compare: name another file for the report" in one_line(
            run(file, "--html", report)
        )
        assert file.read_text() == text
    assert "there is no directory" in run(file, "--html", tmp_path / "none" / "x.html").stderr
    assert "is a directory" in run(file, "--html", tmp_path).stderr
    os.mkfifo(tmp_path / "pipe.csv")
    assert "not a regular file" in one_line(run(tmp_path / "pipe.csv"))


def test_the_flight_comes_from_the_row_without_plans(
    settings_of: Callable[..., Settings],
    client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The flow has the plans; whoever runs the command has Redis alone."""
    traffic = Traffic(7, placements=2, rate=10)
    log = tmp_path / "pixels.ndjson"
    run_log(log, traffic, 3_000)
    write_plans(tmp_path / "plans.csv", plans_of(traffic, timedelta(days=1)))
    settings = settings_of(plans=tmp_path / "plans.csv")
    replay([str(log)], settings, b"a key of sixteen bytes or more")
    row = client.hgetall(f"{settings.namespace}:placement:{{pl-0000}}")
    ours = int(row["delivery.delivered"])
    assert ours > 100
    text = f"placement_id,campaign_id,day,impressions\npl-0000,,flight,{ours + 1}\n"
    file = write(tmp_path / "theirs.csv", text)
    monkeypatch.setenv("AUDIOPIXEL_REDIS_URL", settings.redis_url.get_secret_value())
    monkeypatch.setenv("AUDIOPIXEL_NAMESPACE", settings.namespace)

    def run_discrepancy() -> tuple[int, list[dict[str, Any]]]:
        done = CliRunner().invoke(app, ["discrepancy", str(file), "--json"])
        return done.exit_code, json.loads(done.stdout)

    code, (without,) = run_discrepancy()
    assert (code, without["ours"], without["band"]) == (0, ours, "fine")
    assert "the plans are not read here, so their tolerances are not known" in without["note"]
    begun = datetime.fromtimestamp(int(row["delivery.start_ms"]) / 1000, UTC).date()
    assert f"our count is of {begun} to " in without["note"]
    monkeypatch.setenv("AUDIOPIXEL_PLANS", str(tmp_path / "plans.csv"))
    code, (planned,) = run_discrepancy()
    assert {name: without[name] for name in planned if name != "note"} == {
        name: planned[name] for name in planned if name != "note"
    }
    file.write_text(text + "xyz,,flight,36000\n")
    monkeypatch.delenv("AUDIOPIXEL_PLANS")
    code, (_, unknown) = run_discrepancy()
    assert (code, unknown["ours"], unknown["band"]) == (2, None, "no verdict")
    file.write_text(text.replace(f",{ours + 1}", f",{2 * ours}") + "xyz,,flight,36000\n")
    assert run_discrepancy()[0] == 1, "over the tolerance is 1, whatever else is not known"


@pytest.mark.parametrize(("start", "end"), [("x", "1"), ("1", HUGE), ("1", "0"), ("1", "999999999999999")])
def test_a_damaged_flight_of_a_row_is_named(
    counted: Settings, client: Client, tmp_path: Path, run: Callable[..., Any], start: str, end: str
) -> None:
    file = write(tmp_path / "theirs.csv", "placement_id,day,impressions\na,flight,104\n")
    key = f"{counted.namespace}:placement:{{a}}"
    client.hset(key, mapping={"delivery.start_ms": start, "delivery.end_ms": end})
    assert f"{key} delivery.{'start' if start == 'x' else 'end'}_ms " in one_line(run(file))


@pytest.mark.parametrize(("theirs", "code"), [(104, 0), (130, 1)])
def test_the_command_exits_with_1_over_the_tolerance(
    counted: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: int, code: int
) -> None:
    file = write(tmp_path / "theirs.csv", f"placement_id,day,impressions\na,2026-11-24,{theirs}\n")
    monkeypatch.setenv("AUDIOPIXEL_REDIS_URL", counted.redis_url.get_secret_value())
    monkeypatch.setenv("AUDIOPIXEL_NAMESPACE", counted.namespace)
    report = tmp_path / "report.html"
    told = CliRunner().invoke(app, ["discrepancy", str(file), "--html", str(report)])
    assert told.exit_code == code, told.output
    assert "repeated +3" in told.output
    assert ("over the tolerance" in told.output) == (code == 1)
    assert f"{code} over the tolerance" in report.read_text()
    assert "breach" not in told.output + report.read_text(), "a legal word, for programs alone"
    assert report.read_text().startswith("<!doctype html>")
    told = CliRunner().invoke(app, ["discrepancy", str(file), "--json"])
    assert json.loads(told.output)[0]["unexplained"] == theirs - 121
