"""A row ends after a long time without pixels, comes back whole, and is dropped in the end."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows_support import batch as impressions

from connectors.redis.client import Client
from flows.cli.reconcile_settings import rules
from flows.errors import StateError
from flows.model.basis import CODES, DELIVERIES, SEEN
from flows.model.conversion_columns import COLUMNS
from flows.model.counts import BY_FLIGHT, CONSENTED_PLAYS, FLIGHT_COUNTS, MINUTE_COUNTS
from flows.model.dimensions import Dimensions
from flows.model.events import IMPRESSION
from flows.model.fields import FIELDS
from flows.model.messages import ConversionAccount, CreditBatch, RowBatch
from flows.model.ticks import Cut
from flows.reconcile.comparison import differences
from flows.reconcile.recomputation import recompute
from flows.replay import replay
from flows.rows import published
from flows.rows.day_counts import DayCounts
from flows.rows.ended import Ended, RowName
from flows.rows.row_columns import RowColumns
from flows.rows.row_index import Limits, RowIndex
from flows.rows.row_shard import RowShard
from flows.rows.side_cells import UNKEYED_COLUMNS
from flows.settings.fields import Settings
from flows.state import journal
from flows.state.journal import Files
from flows.state.kernel import mixed
from flows.state.saves import decode, encode

KEY = b"a key of sixteen bytes or more"
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
T0 = 1_790_000_000_000 // DAY * DAY
A: RowName = ("placement", "a")
NAMES: list[RowName] = [("placement", f"p{n}") for n in range(6)]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are small, and the index is sorted all the time."""
    monkeypatch.setattr(journal, "SPILL_BYTES", 400)
    monkeypatch.setattr("flows.rows.ended.MERGE_AT", 3)


# The stored values of ended rows

DOINGS = st.lists(st.tuples(st.sampled_from(("end", "back", "later", "restart")), st.integers(0, 5)))


@given(DOINGS, st.booleans())
def test_whoever_ended_is_found_until_it_is_forgotten_whatever_restarts(
    doings: list[tuple[str, int]], in_files: bool
) -> None:
    kept: dict[RowName, tuple[int, list[Any]]] = {}
    alive, minute, remembered = set(NAMES), 1_000, 40
    with TemporaryDirectory() as name:
        root = Path(name) if in_files else None
        files, ended = Files.of(root, "rows", 0), Ended()
        for number, (doing, which) in enumerate(doings):
            row = NAMES[which]
            if doing == "end" and row in alive:
                values = [number, "x" * 50 * which]
                ended.put(row, minute, values)
                kept[row] = (minute, values)
                alive.remove(row)
            elif doing == "back" and row not in alive:
                last, values = kept.pop(row)
                found = ended.take(row, minute - remembered)
                assert found == (values if last >= minute - remembered else None)
                alive.add(row)
            elif doing == "later":
                minute += 7 * which
                ended.drop_expired(minute - remembered)
            elif doing == "restart":
                state = decode(encode(ended.snapshot(files)))
                files.keep(ended.file_names())
                files = Files.of(root, "rows", 0)
                ended = Ended.restored(state, files, alive)
        assert all(ended.take(row, minute - remembered) is None for row in alive)


def test_an_ended_row_damaged_on_disk_is_refused(tmp_path: Path) -> None:
    values = [7, "x" * 150, 2**40]

    def ended_rows() -> Ended:
        ended = Ended(b"a secret")
        for row in NAMES:
            ended.put(row, 1_000, values)
        state = decode(encode(ended.snapshot(files)))
        files.keep(ended.file_names())
        return Ended.restored(state, files, ())

    files = Files.of(tmp_path, "rows", 0)
    name = ended_rows().file_names()[0]
    path = tmp_path / "rows" / "0000" / name
    body, ended, refused = path.read_bytes(), ended_rows(), 0
    for at in range(len(body)):
        path.write_bytes(body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :])
        row = NAMES[at * len(NAMES[:3]) // len(body)]
        try:
            found = ended.take(row, 0)
        except StateError as error:
            refused += "restore the whole recovery directory" in str(error)
        else:
            assert found == values, at
            ended = ended_rows()
    assert refused > 0


def test_an_ended_row_takes_sixteen_bytes_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SPILL_BYTES", 1 << 18)
    monkeypatch.setattr("flows.rows.ended.MERGE_AT", 4_096)
    line = Line(tmp_path, Limits(rows=1 << 20, unplanned=1 << 20, unplanned_bytes=1 << 40))
    line.cut(T0, {f"p{n:05}": [n + 1] for n in range(20_000)}, campaign="c" * 64)
    line.cut(T0 + 3 * DAY, {"other": [1]})
    ended = line.shard.row_index.ended
    state = encode(line.shard.snapshot())
    assert len(ended) == 20_000
    size = sum(path.stat().st_size for path in (tmp_path / "rows").rglob("*") if path.is_file())
    print(
        f"{ended.nbytes / 20_000:.0f} B of memory, {size / 20_000:.0f} B of disk, {len(state):,} B a snapshot"
    )
    assert ended.nbytes < 20_000 * 16 + (1 << 18) + 100 * 4_096
    assert 20_000 * 50 < size < 20_000 * 1_024
    assert len(state) < 20_000 * 64 + (1 << 18)


# Rows


@dataclass
class Line:
    """A row shard that gets impressions, by placement and listener."""

    recovery: Path | None = None
    limits: Limits = field(default_factory=Limits)
    number: int = 0

    def __post_init__(self) -> None:
        self.shard = self.new()

    def new(self) -> RowShard:
        return RowShard(0, 1, 600_000, 90_000, lambda minute: minute // 1440, 0, self.recovery, self.limits)

    def restart(self) -> None:
        state = decode(encode(self.shard.snapshot()))
        self.shard = self.new()
        self.shard.restore(state)

    def cut(
        self,
        at_ms: int,
        heard: dict[str, list[int]],
        credits: CreditBatch | None = None,
        campaign: str | None = None,
        ended: bool = False,
    ) -> dict[RowName, dict[str, Any]]:
        """The rows that changed, as readers see them."""
        self.number += 1
        here = Cut(self.number, at_ms, ended, ())
        pairs = [(row, who) for row, of in enumerate(heard.values()) for who in of]
        where = np.array([row for row, _ in pairs], np.uint32)
        minutes = np.full(len(pairs), at_ms // MINUTE, np.uint32)
        counts = np.zeros((len(pairs), MINUTE_COUNTS), np.int64)
        counts[:, [IMPRESSION, CONSENTED_PLAYS]] = 1
        totals = np.zeros((len(pairs), FLIGHT_COUNTS), np.int64)
        totals[:, BY_FLIGHT.index("pixels")] = 1
        who = np.array([mixed(who, 1) for _, who in pairs], np.uint64)
        times = np.full(len(heard), at_ms)
        named: list[RowName] = [("placement", name) for name in heard]
        labels: list[tuple[int, int, Dimensions]] = [
            (row, at_ms, (name, campaign, None, None, None, None, None)) for row, name in enumerate(heard)
        ]
        # Each impression is a host's, and each row has a delivery.
        heard_rows, minute = np.arange(len(heard)), at_ms // MINUTE
        entries = [(where, CODES["ad_delivered"] - 1), (heard_rows, DELIVERIES)]
        entries.append((heard_rows, SEEN + CODES["ad_delivered"]))
        sides = [(minute, column, 1) for rows, column in entries for _ in rows]
        batch = RowBatch(
            0, 0, here, named, times, where, minutes, counts, where,
            totals, where, minutes, who, labels, times, times,
            np.concatenate([rows for rows, _ in entries]).astype(np.uint32),
            np.array(sides, np.int64).reshape(-1, 3),
        )  # fmt: skip
        windows, _ = self.shard.apply(here, [batch], credits)
        if windows is None:
            return {}
        some = published.pack_rows(windows, at_ms, self.shard.final_through_ms)
        return {
            (row.scope, row.name): {
                name: value
                for name, value in zip(FIELDS, msgspec.msgpack.decode(row.packed), strict=True)
                if value is not None
            }
            for row in some
        }


def test_a_row_stays_for_its_whole_time_after_its_last_pixel() -> None:
    line = Line()
    line.cut(T0 + 59_999, {"a": [1]})
    line.cut(T0 + 48 * HOUR + 10_000, {"b": [1]})  # in the minute of the day in which its pixel came
    assert line.shard.ended_rows == []
    line.cut(T0 + 49 * HOUR, {"b": [1]})
    assert ("placement", "a") in line.shard.ended_rows


def test_the_next_row_with_the_number_of_an_ended_row_has_no_minute_of_it() -> None:
    day_of, before, now = (lambda minute: minute // 1440), T0 // MINUTE, (T0 + DAY) // MINUTE
    shard, due = RowShard(0, 1, 600_000, 90_000, day_of, 1, limits=Limits(stays=60)), []
    for number, at, minutes, row in (
        (1, before, [before] * 3, ("campaign", "ended")),
        (2, now, [*range(now, now + 20)], ("placement", "b")),  # few of all cells have expired
        (3, now, [now], ("placement", "next")),
    ):
        cut = Cut(number, at * MINUTE, False, ())
        due = shard.apply(cut, [impressions(cut, [(minute, 0) for minute in minutes], row)])[1]
        assert (shard.ended_rows == [("campaign", "ended")]) == (number == 2)
    minutes_of_next = [
        (minute, some.final)
        for some in due
        for name, minute in zip(some.placements, some.minutes, strict=True)
        if name == "next"
    ]
    assert minutes_of_next == [(now, False)]


def test_a_row_that_ended_with_an_expired_minute_is_not_published_when_the_minute_is_mature() -> None:
    day_of, before, now = (lambda minute: minute // 1440), T0 // MINUTE + 1375, (T0 + DAY) // MINUTE
    shard = RowShard(0, 1, 600_000, 3 * HOUR, day_of, limits=Limits(stays=60))
    for number, at, minutes, row in (
        (1, before, [before], ("placement", "ended")),
        (2, now, [*range(now, now + 20)], ("placement", "b")),
        (3, before + 182, [before + 182], ("placement", "b")),
    ):
        cut = Cut(number, at * MINUTE, False, ())
        windows, _ = shard.apply(cut, [impressions(cut, [(minute, 0) for minute in minutes], row)])
    assert windows is not None
    assert windows.rows == [("placement", "b")]


def credited(at_ms: int) -> CreditBatch:
    """A conversion in placement a; what frequency and account of a campaign are, in its row, too."""
    amounts = {"conversions": 1_000_000, "conversion_value": 7_000_000}
    columns = np.array([COLUMNS.index(name) for name in amounts], np.uint8)
    minutes = np.full(2, at_ms // MINUTE, np.uint32)
    return CreditBatch(
        0, Cut(1, at_ms, False, ()), [A], np.zeros(2, np.uint32), minutes, columns,
        np.array([*amounts.values()]),
        [(A, 1, 3, 500_000)],
        [(A, "EUR")], [(A, ConversionAccount(4, 2, 1, 1))],
    )  # fmt: skip


def flight(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in row.items()
        if name.startswith(("flight.", "frequency.", "campaign_id", "conversion_currency"))
    }


@pytest.mark.parametrize("listeners", [3, 1_000, 5_000])
@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("in_files", [False, True])
def test_an_ended_row_returns_whole(listeners: int, restarts: bool, in_files: bool, tmp_path: Path) -> None:
    line = Line(tmp_path if in_files else None)
    line.cut(T0, {"a": list(range(1, listeners + 1)), "b": [1]}, credited(T0), campaign="autumn")
    before = line.cut(T0 + DAY, {"b": [2]}, ended=False)
    assert A in before, "its day is over"
    assert line.cut(T0 + 2 * DAY - HOUR, {"b": [2]}).keys() == {("placement", "b")}
    assert line.shard.ended_rows == []
    line.cut(T0 + 2 * DAY + HOUR, {"b": [3]})
    assert line.shard.ended_rows == [A]
    if restarts:
        line.restart()
    given = line.cut(T0 + 5 * DAY, {"b": [4]})
    assert given.keys() == {("placement", "b")}, "a restart gives out what is alive"
    line.cut(T0 + 5 * DAY + MINUTE, {f"reuses-{n}": [n] for n in range(1, 5)})
    if restarts:
        line.restart()
    after = line.cut(T0 + 6 * DAY, {"a": [1]})[A]
    grown = {"flight.impressions": 1, "flight.pixels": 1}
    grown |= {"flight.impressions_ad_delivered": 1, "flight.deliveries": 1}
    assert before[A]["impression_basis"] == after["impression_basis"] == "ad_delivered"
    as_before = flight(before[A])
    derived = {"flight.frequency", "flight.completions_per_impression"}
    assert {name: of for name, of in flight(after).items() if name not in derived} == {
        name: of + grown.get(name, 0) if name in grown else of
        for name, of in as_before.items()
        if name not in derived
    }
    assert as_before["flight.reach"] == pytest.approx(listeners, rel=0.03)
    assert {
        "flight.conversions": 1,
        "flight.conversion_value": 7_000_000,
        "conversion_currency": "EUR",
        "campaign_id": "autumn",
        "flight.conversions_accepted": 4,
        "frequency.2.listeners": 3,
        "flight.since_ms": T0,
    }.items() <= after.items()
    assert after["1d.impressions"] == after["1d.reach"] == 1
    assert line.cut(T0 + 6 * DAY + HOUR, {"b": [9]})[A]["1h.reach"] == 0


def test_a_row_quiet_beyond_its_memory_restarts_visibly() -> None:
    line = Line(limits=Limits(stays=120, remembered=6 * 1440))
    line.cut(T0, {"a": [1, 2], "b": [1, 2]})
    for day in (1, 2, 3, 4, 5):
        line.cut(T0 + day * DAY, {"c": [1]})
    remembered = line.cut(T0 + 6 * DAY, {"a": [3]})[A]
    assert (remembered["flight.impressions"], remembered["flight.since_ms"]) == (3, T0)
    line.cut(T0 + 7 * DAY, {"c": [1]})
    anew = line.cut(T0 + 8 * DAY, {"b": [1]})["placement", "b"]
    assert (anew["flight.impressions"], anew["flight.reach"], anew["flight.since_ms"]) == (1, 1, T0 + 8 * DAY)


def test_rows_without_listeners_or_with_only_credits_return() -> None:
    line = Line()
    line.cut(T0, {"b": [1]}, credited(T0))
    line.cut(T0 + 3 * DAY, {"c": [1]})
    assert set(line.shard.ended_rows) == {A, ("placement", "b")}
    after = line.cut(T0 + 4 * DAY, {"c": [1], "a": []})[A]
    assert (after["flight.conversions"], after["flight.reach"]) == (1, 0)


def test_a_planned_row_and_its_campaign_never_end() -> None:
    line = Line()
    line.shard.row_index.planned = frozenset([A])
    line.cut(T0, {"a": [1], "b": [1]})
    line.cut(T0 + 9 * DAY, {"c": [1]})
    assert line.shard.ended_rows == [("placement", "b")]
    line.shard.row_index.planned = frozenset()
    line.cut(T0 + 9 * DAY + HOUR, {"c": [1]})
    assert line.shard.ended_rows == [A]


def test_daily_new_placements_cost_only_their_last_days(tmp_path: Path) -> None:
    line = Line(tmp_path, Limits(stays=1440, remembered=5 * 1440))
    sizes, kept = [], []
    for day in range(40):
        line.cut(T0 + day * DAY, {f"d{day}-{n}": [n + 1, n + 2] for n in range(100)})
        line.cut(T0 + day * DAY + 12 * HOUR, {f"d{day}-{n}": [n + 1] for n in range(100)})
        sizes.append(len(encode(line.shard.snapshot())))
        kept.append(len(line.shard.row_index.ended))
    assert len(line.shard.row_index.names) <= 400
    assert len(line.shard.columns) <= 512
    assert len(line.shard.reached.table) <= 2_048
    assert max(kept) <= 100 * 8
    assert max(sizes[20:]) <= 1.1 * max(sizes[10:20])


# In Redis


def pixel(number: int, placement: str, at_ms: int) -> bytes:
    return json.dumps(
        {
            "event_id": f"e{number}",
            "event": "impression",
            "ts": at_ms,
            "received_at": at_ms,
            "placement_id": placement,
            "campaign_id": f"of-{placement}",
            "play_id": f"p{number}",
            "listener_id": f"l{number}",
            "consent": True,
        }
    ).encode()


def test_an_ended_row_leaves_redis_and_returns_whole(
    settings_of: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    log = tmp_path / "log.ndjson"
    lines, number = [], 0
    for day in range(12):
        for hour in range(0, 24, 2):
            names = ["steady", *(["short"] if day < 2 else []), *(["again"] if day in (0, 11) else [])]
            for name in names:
                number += 1
                lines.append(pixel(number, name, T0 + day * DAY + hour * HOUR))
    log.write_bytes(b"\n".join(lines) + b"\n")
    known = settings_of(recovery_dir=tmp_path / "recovery")
    replay([str(log)], known, KEY)

    def in_redis_and_index(scope: str, name: str) -> tuple[bool, bool]:
        space = known.namespace
        indexed = client.zscore(f"{space}:index:{scope}", name) is not None
        return bool(client.exists(f"{space}:{scope}:{{{name}}}")), indexed

    assert (
        in_redis_and_index("placement", "short")
        == in_redis_and_index("campaign", "of-short")
        == (False, False)
    )
    assert (
        in_redis_and_index("placement", "steady")
        == in_redis_and_index("campaign", "of-again")
        == (True, True)
    )
    again = client.hgetall(f"{known.namespace}:placement:{{again}}")
    assert (again["flight.impressions"], again["flight.since_ms"]) == ("24", str(T0))
    assert client.exists(f"{known.namespace}:sketch:{{steady}}")
    assert not client.exists(f"{known.namespace}:sketch:{{short}}")


@pytest.mark.parametrize("cut_ms", [1, 500])
def test_an_excluded_pixel_keeps_a_row_for_any_cuts(
    cut_ms: int, settings_of: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    """A single cut may hold days of a sparse log."""
    first = {"event": "impression", "placement_id": "a", "play_id": "p", "campaign_id": "c"}
    steady = [{"event": "impression", "placement_id": "a", "ts": T0 + day * DAY} for day in range(1, 6)]
    kept_out = [
        first | {"ts": T0 + 5 * DAY},
        first | {"ts": T0 + 5 * DAY, "campaign_id": "d", "user_agent": "a bot/1"},
        first | {"ts": T0 + 5 * DAY - HOUR, "campaign_id": "e", "play_id": "late"},
    ]
    early = [first | {"ts": T0}, *({**first, "ts": T0, "campaign_id": c, "play_id": c} for c in "de")]
    log = tmp_path / "log.ndjson"
    lines = [{"event_id": f"e{n}"} | one for n, one in enumerate([*early, *steady, *kept_out])]
    log.write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    often: dict[str, Any] = {"flush_interval": timedelta(milliseconds=cut_ms), "batch_messages": cut_ms}
    settings = settings_of(horizon=timedelta(days=6), **often)
    replay([str(log)], settings, KEY)
    for name, metric in (("c", "repeated"), ("d", "invalid_traffic"), ("e", "too_late")):
        row = client.hgetall(f"{settings.namespace}:campaign:{{{name}}}")
        assert (row["flight.impressions"], row[f"flight.{metric}"]) == ("1", "1"), name
    assert differences(recompute([log], rules(settings)), client, settings.namespace) == []


def days_again(counts: DayCounts, files: Files) -> DayCounts:
    """The open days after a save and a restart."""
    again = DayCounts(lambda minute: 700_000)
    again.cells.restore(counts.cells.snapshot(files), files)
    again.mark_all_due(5)
    return again


def test_days_of_an_ended_row_stay_away_after_a_restart(tmp_path: Path) -> None:
    def counted(counts: DayCounts, row: int, unkeyed: int) -> None:
        sides = np.array([[5, UNKEYED_COLUMNS[0], unkeyed]], np.int64)
        columns = RowColumns()
        columns.is_placement[:2] = True
        counts.add_sides(columns, np.array([row], np.uint32), sides)

    counts, files = DayCounts(lambda minute: 700_000), Files(tmp_path)
    counted(counts, 0, 1)
    counted(counts, 1, 2)
    counts.cells.snapshot(files)
    taken = counts.cells.take_out([1])
    again = days_again(counts, files)
    assert [rows.tolist() for rows in again.cells.rows_and_minutes(np.flatnonzero(again.cells.keys))] == [
        [0],
        [700_000],
    ]
    # Its number goes to another row, which has none of its days, and then comes back with its own.
    counts.cells.put_back(1, taken[1])
    again = days_again(counts, files)
    slots = np.flatnonzero(again.cells.keys)
    assert sorted(again.cells.counts[slots].sum(axis=1).tolist()) == [1, 2]


def test_a_second_restart_has_the_days_restored_by_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "COMPACTION_SLACK", 0)
    files, columns, rows = Files(tmp_path), RowColumns(), np.arange(8, dtype=np.uint32)
    columns.make_room(len(rows))
    columns.is_placement[: len(rows)] = True

    def counted(counts: DayCounts, some: npt.NDArray[np.uint32]) -> None:
        counts.count(columns, some, np.full(len(some), 5, np.uint32), np.ones(len(some), np.int64))

    counts, index = DayCounts(lambda minute: 700_000), RowIndex(Limits(rows=10))
    index.names = [("placement", f"p{row}") for row in rows]
    counted(counts, rows)
    counts.due(index, 5, 0, everything=True)
    counts = days_again(counts, files)
    for _ in range(3):  # outdated rows, so that the rows that stayed are appended again
        counted(counts, rows[:6])
        counts.cells.snapshot(files)
    assert (len(counts.cells), counts.cells.counts.sum()) == (8, 26)
    assert counts.cells.journal.rows < 8 + 3 * 6
    assert (days_again(counts, files).cells.counts.sum(), len(days_again(counts, files).cells)) == (26, 8)
