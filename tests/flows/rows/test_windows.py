"""Minutes and windows: compares a shard of rows with sums that are computed again from the same increments at
every cut.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rows_support import batch as pixels_of
from rows_support import windows_of

from flows.errors import StateError
from flows.model.counts import (
    BY_FLIGHT,
    BY_MINUTE,
    CONSENTED_PLAYS,
    FLIGHT_COUNTS,
    HELD_COLUMN,
    MINUTE_COUNTS,
    REPAIRED,
)
from flows.model.day_parts import COLUMNS as DAY_COLUMNS
from flows.model.day_parts import DAYS_OPEN
from flows.model.delays import DELAYS
from flows.model.dimensions import Dimensions
from flows.model.events import COMPLETE, IMPRESSION, OF_PLAY, START
from flows.model.fields import FIELDS
from flows.model.messages import CreditBatch, RowBatch
from flows.model.ticks import Cut
from flows.rows import published
from flows.rows.published import pack_rows
from flows.rows.row_index import Limits
from flows.rows.row_shard import RowShard
from flows.rows.sparse_cells import SparseWindows
from flows.rows.values import Minutes, Windows
from flows.state import journal
from flows.state.arrays import U64
from flows.state.saves import decode, encode

MINUTE, HOUR = 60_000, 3_600_000
MATURE_MS = 90_000
SENDERS = 2
NOBODY = np.zeros(0, np.uint64)
ROWS = [("placement", "a"), ("placement", "b"), ("campaign", "c"), ("program", "p"), ("platform", "f")]
LONDON = ZoneInfo("Europe/London")

Row = tuple[str, str]
Counts = npt.NDArray[np.int64]


def utc_ms(*of: int) -> int:
    return int(datetime(*of, tzinfo=UTC).timestamp()) * 1000  # type: ignore[misc, arg-type]  # year to second


BEGINNINGS = (utc_ms(2026, 3, 28, 22, 50), utc_ms(2026, 10, 24, 22, 50), utc_ms(2026, 7, 1, 12, 0))
"""Before the days of 23 and of 25 hours, and an ordinary noon."""


@cache
def london_day(minute: int) -> int:
    return datetime.fromtimestamp(minute * 60, LONDON).toordinal()


@dataclass(frozen=True)
class Entry:
    """An increment `by` to a column of a row, `offset` minutes after the watermark's, with an optional
    listener.
    """

    sender: int
    row: int
    offset: int
    column: int
    by: int
    who: int
    flight_column: int
    campaign: str | None


@dataclass(frozen=True)
class Step:
    """The watermark moves on by `jump_ms`, with these increments; before it a snapshot may be taken,
    and the shard restarted from it."""

    jump_ms: int
    ticks: int
    before: str
    entries: list[Entry]


JUMPS = (0, 0, 1_000, 20_000, 60_000, 60_000, 61_000, 300_000, 59 * MINUTE, 61 * MINUTE, 3 * HOUR, 26 * HOUR)
OFFSETS = (0, 0, 0, -1, -2, -7, -40, 1, 2, 5, 50, 130)
CHOICES: tuple[Any, ...] = (
    range(SENDERS),
    range(len(ROWS)),
    OFFSETS,
    range(MINUTE_COUNTS),
    (1, 1, 2, -1),
    range(6),
    range(FLIGHT_COUNTS),
    ("c", "d", None),
)
ENTRIES = st.lists(st.builds(Entry, *(st.sampled_from(choices) for choices in CHOICES)), max_size=8)
STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(JUMPS),
        st.integers(1, 4),
        st.sampled_from(("", "", "snapshot", "restart")),
        ENTRIES,
    ),
    min_size=5,
    max_size=40,
)


def any_steps(rng: random.Random, number: int) -> list[Step]:
    return [
        Step(
            rng.choice(JUMPS[: rng.choice((4, 7, len(JUMPS)))]),
            rng.randint(1, 4),
            rng.choice(["", "", "", "", "snapshot", "restart"]),
            [Entry(*(rng.choice(choices) for choices in CHOICES)) for _ in range(rng.randint(0, 12))],
        )
        for _ in range(number)
    ]


@dataclass
class Brute:
    """All increments ever, and what follows from them."""

    lateness_ms: int
    watermark_ms: int = 0
    ended: bool = False
    cells: dict[tuple[Row, int], Counts] = field(default_factory=dict)
    totals: dict[Row, Counts] = field(default_factory=dict)
    touches: set[tuple[Row, int, int]] = field(default_factory=set)
    latest: dict[Row, int] = field(default_factory=dict)
    first: dict[Row, int] = field(default_factory=dict)
    labels: dict[Row, tuple[int, str]] = field(default_factory=dict)
    delays: dict[Row, list[int]] = field(default_factory=dict)

    @property
    def minute(self) -> int:
        return self.watermark_ms // MINUTE

    def final(self, minute: int) -> bool:
        return self.ended or (minute + 1) * MINUTE + self.lateness_ms <= self.watermark_ms

    def sums(self, row: Row, chosen: Callable[[int], bool]) -> Counts:
        counts = [of for (name, minute), of in self.cells.items() if name == row and chosen(minute)]
        total: Counts = np.sum([np.zeros(MINUTE_COUNTS, np.int64), *counts], axis=0)
        return total

    def settled(self, row: Row, chosen: Callable[[int], bool]) -> Counts:
        """The counts of a day or flight. Repaired counts and counts waiting for a start are included only if
        final.
        """
        sums = self.sums(row, chosen)
        final = self.sums(row, lambda minute: chosen(minute) and self.final(minute))
        sums[REPAIRED] = final[REPAIRED]
        for code in OF_PLAY:
            sums[code] += final[code + HELD_COLUMN]
            sums[code + HELD_COLUMN] -= final[code + HELD_COLUMN]
        return sums

    def windows(self) -> list[Callable[[int], bool]]:
        today = london_day(self.minute)
        return [
            lambda minute: self.minute - 4 <= minute <= self.minute,
            lambda minute: self.minute - 59 <= minute <= self.minute,
            lambda minute: london_day(minute) == today,
            lambda minute: True,
        ]

    def numbers(self, row: Row) -> dict[str, Any]:
        sums = [
            (self.sums if place < 2 else self.settled)(row, of) for place, of in enumerate(self.windows())
        ]
        sums[2][OF_PLAY[0] + HELD_COLUMN : OF_PLAY[-1] + HELD_COLUMN + 1] = 0
        return {
            "sums": [counts.tolist() for counts in sums],
            "reach": [
                len({who for name, m, who in self.touches if name == row and of(m)}) for of in self.windows()
            ],
            "totals": self.totals[row].tolist(),
            "latest": self.latest[row],
            "since": self.first[row],
            "campaign": self.labels[row][1] if row in self.labels else None,
            "delay": self.median(sorted(self.delays.get(row, []))),
        }

    @staticmethod
    def median(classes: list[int]) -> str | None:
        """The upper bound of the class in the middle: an eighth of a second, and twice as long each."""
        return f"{2.0 ** (classes[(len(classes) - 1) // 2] - 3):g}" if classes else None

    def mature(self, row: Row) -> list[list[int]]:
        """Starts and completes of the minutes of 5m and 1h that ended long enough before the watermark."""
        of = [
            self.sums(row, lambda m, of=of: of(m) and (m + 1) * MINUTE + MATURE_MS <= self.watermark_ms)  # type: ignore[misc]  # bound early
            for of in self.windows()[:2]
        ]
        return [[int(counts[START]), int(counts[COMPLETE])] for counts in of]


def batches(brute: Brute, cut: Cut, entries: list[Entry]) -> list[RowBatch]:
    """The entries as the placement shards send them, and into `brute`."""
    out = []
    open_from = max(0, (brute.watermark_ms - brute.lateness_ms) // MINUTE)
    for sender in range(SENDERS):
        mine = [entry for entry in entries if entry.sender == sender]
        rows = sorted({ROWS[entry.row] for entry in mine})
        place = np.array([rows.index(ROWS[entry.row]) for entry in mine], np.uint32)
        start = (cut.watermark_ms // MINUTE) if not brute.watermark_ms else brute.minute
        minutes = np.array([max(start + entry.offset, open_from) for entry in mine], np.uint32)
        counts = np.zeros((len(mine), MINUTE_COUNTS), np.int64)
        totals = np.zeros((len(mine), FLIGHT_COUNTS), np.int64)
        latest, first = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
        labels: list[tuple[int, int, Dimensions]] = []
        touched = [i for i, entry in enumerate(mine) if entry.who]
        for i, entry in enumerate(mine):
            row, minute = ROWS[entry.row], int(minutes[i])
            ts = minute * MINUTE + 7
            counts[i, entry.column] = entry.by
            totals[i, entry.flight_column] = 1
            latest[place[i]] = max(latest[place[i]], ts)
            first[place[i]] = min(first[place[i]] or ts, ts)
            brute.cells[row, minute] = (
                brute.cells.get((row, minute), np.zeros(MINUTE_COUNTS, np.int64)) + counts[i]
            )
            brute.totals[row] = brute.totals.get(row, np.zeros(FLIGHT_COUNTS, np.int64)) + totals[i]
            brute.latest[row] = max(brute.latest.get(row, 0), ts)
            brute.first[row] = min(brute.first.get(row, ts), ts)
            if entry.who:
                brute.touches.add((row, minute, entry.who))
            if row[0] == "placement":
                labels.append((int(place[i]), ts, (row[1], entry.campaign, None, None, None, None, None)))
                if entry.campaign:
                    brute.labels[row] = max(brute.labels.get(row, (0, "")), (ts, entry.campaign))
        delays = []
        for entry in mine:
            if ROWS[entry.row][0] == "platform":
                brute.delays.setdefault(ROWS[entry.row], []).append(2 * entry.who)
                delays.append(("f", [int(at == 2 * entry.who) for at in range(DELAYS)]))
        who = np.array([mine[i].who for i in touched], np.uint64)
        out.append(
            RowBatch(
                sender,
                0,
                cut,
                rows,
                latest,
                place,
                minutes,
                counts,
                place,
                totals,
                place[touched],
                minutes[touched],
                who,
                labels,
                first,
                latest,
                delays=delays,
            )
        )
    return out


class World:
    """A shard, the rows of its readers, and brute-force sums of the same increments."""

    LIMITS = Limits(stays=180)

    def __init__(self, lateness_ms: int, begin_ms: int, every: int, recovery: Path | None = None) -> None:
        self.recovery = recovery
        self.brute, self.begin_ms, self.every = Brute(lateness_ms), begin_ms, every
        self.shard = self.new_shard()
        self.tick = 1_000
        self.readers: dict[Row, dict[str, Any]] = {}
        self.given: dict[tuple[str, int], int] = {}
        self.finals: dict[tuple[str, int], list[int]] = {}
        self.mature: dict[Row, Any] = {}
        self.gone: set[Row] = set()

    def new_shard(self) -> RowShard:
        return RowShard(
            0, 1, self.brute.lateness_ms, MATURE_MS, london_day, self.every, self.recovery, self.LIMITS
        )

    def run(self, steps: list[Step]) -> None:
        for step in steps:
            if step.before:
                state = decode(encode(self.shard.snapshot()))
            else:
                self.shard.gather()
            if step.before == "restart":
                self.shard = self.new_shard()
                self.shard.restore(state)
                self.readers.clear()  # what readers have is unknown: all rows must be published again
            self.tick += step.ticks
            begun_ms = self.brute.watermark_ms or self.begin_ms
            self.cut(Cut(self.tick, begun_ms + step.jump_ms, False, ()), step.entries)
        self.cut(Cut(self.tick + 1, self.brute.watermark_ms, True, ()), [])

    def cut(self, cut: Cut, entries: list[Entry]) -> None:
        turns = cut.watermark_ms // MINUTE > self.brute.watermark_ms // MINUTE
        windows, due = self.shard.apply(cut, batches(self.brute, cut, entries))
        self.brute.watermark_ms, self.brute.ended = cut.watermark_ms, cut.ended
        if windows is not None:
            self.publish(windows)
        self.leave(cut)
        alive = self.brute.totals.keys() - self.gone
        assert self.readers == {row: self.brute.numbers(row) for row in alive}
        assert not turns or {row: self.mature[row] for row in alive} == {
            row: self.brute.mature(row) for row in alive
        }
        self.minutes(cut, due)

    def leave(self, cut: Cut) -> None:
        """A row goes when it had no pixel for three hours and the day of its last one is over."""
        self.gone.update(self.shard.ended_rows)
        for row in self.shard.ended_rows:
            self.readers.pop(row, None)
        for row, latest in self.brute.latest.items():
            quiet_ms = cut.watermark_ms - latest
            assert row not in self.shard.ended_rows or quiet_ms >= 180 * MINUTE - MINUTE
            assert row in self.gone or quiet_ms < 29 * HOUR + self.brute.lateness_ms

    def publish(self, windows: Windows) -> None:
        for i, row in enumerate(windows.rows):
            self.gone.discard(row)
            self.readers[row] = {
                "sums": [counts[i].tolist() for counts in windows.sums],
                "reach": [int(reach[i]) for reach in windows.reach],
                "totals": windows.totals[i].tolist(),
                "latest": int(windows.latest[i]),
                "since": int(windows.since[i]),
                "campaign": windows.labels[i][0],
                "delay": windows.delays[i],
            }
            self.mature[row] = [mature[i].tolist() for mature in windows.mature]
            assert self.mature[row] == self.brute.mature(row)

    def minutes(self, cut: Cut, due: list[Minutes]) -> None:
        """A placement's minute is final once, at once, for good; provisional no more often than asked."""
        for some in due:
            for placement, minute, counts in zip(
                some.placements, some.minutes, some.counts.tolist(), strict=True
            ):
                assert any(counts) or (placement, minute) in self.given, "readers need no minute of zeros"
                assert counts == self.brute.cells[("placement", placement), minute].tolist()
                assert (placement, minute) not in self.finals
                if some.final:
                    self.finals[placement, minute] = counts
                else:
                    assert cut.number - self.given.get((placement, minute), 0) >= self.every
                self.given[placement, minute] = cut.number
        cells = {
            (row[1], minute): of.tolist()
            for (row, minute), of in self.brute.cells.items()
            if row[0] == "placement" and (of.any() or (row[1], minute) in self.given)
        }
        if self.every:
            assert self.finals == {key: counts for key, counts in cells.items() if self.brute.final(key[1])}
        else:
            assert due == []


@settings(suppress_health_check=list(HealthCheck))
@given(
    STEPS,
    st.sampled_from((0, MINUTE // 2, 2 * MINUTE, 10 * MINUTE, 90 * MINUTE)),
    st.sampled_from(BEGINNINGS),
    st.sampled_from((0, 1, 5)),
    st.booleans(),
)
def test_every_cut_shows_the_sums_so_far(
    steps: list[Step], lateness_ms: int, begin_ms: int, every: int, in_files: bool
) -> None:
    with TemporaryDirectory() as name:
        World(lateness_ms, begin_ms, every, Path(name) if in_files else None).run(steps)


@pytest.mark.parametrize("seed", range(12))
def test_a_run_longer_than_its_memory_shows_the_sums(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    World(
        rng.choice((0, MINUTE // 2, 2 * MINUTE, 10 * MINUTE, 90 * MINUTE)),
        rng.choice(BEGINNINGS),
        rng.choice((1, 3)),
        tmp_path if seed % 3 else None,
    ).run(any_steps(rng, 120))
    assert any(path.is_file() for path in tmp_path.rglob("*")) == (seed % 3 > 0)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are small, and cleaned up all the time."""
    monkeypatch.setattr(journal, "SPILL_BYTES", 2_000)
    monkeypatch.setattr(journal, "COMPACTION_SLACK", 2)


def impressions(cut: Cut, minutes: range, who: U64 = NOBODY, homes: U64 = NOBODY) -> RowBatch:
    """An increment in each minute, in one row; those of the first minutes have a listener and a household
    each.
    """
    n = len(minutes)
    counts = np.zeros((n, MINUTE_COUNTS), np.int64)
    counts[:, IMPRESSION] = 1
    rows, none = np.zeros(n, np.uint32), np.zeros(0, np.uint32)
    totals = np.zeros((0, FLIGHT_COUNTS), np.int64)
    latest, first = (np.array([minutes[place] * MINUTE]) for place in (-1, 0))
    which, heard = np.array(minutes, np.uint32), rows[: len(who)]
    return RowBatch(
        0, 0, cut, [("placement", "a")], latest, rows, which, counts, none, totals, heard, which[: len(who)],
        who, [], first, latest, homes=homes,
    )  # fmt: skip


def test_a_turning_minute_publishes_rows_with_changed_windows() -> None:
    shard = RowShard(0, 1, 10 * MINUTE, 30 * MINUTE, london_day)
    given = []
    for minute in range(1, 66):
        cut = Cut(minute, utc_ms(2026, 7, 1, 12, 0) + minute * MINUTE, False, ())
        heard = range(cut.watermark_ms // MINUTE, cut.watermark_ms // MINUTE + 1)
        windows, _ = shard.apply(cut, [impressions(cut, heard)] if minute == 1 else [])
        given += [minute] if windows is not None else []
    assert given == [1, 6, 12, 32, 61]  # first pixel, out of five minutes, final, mature, out of the hour


@pytest.mark.parametrize(
    ("begin_ms", "hours"),
    [
        (utc_ms(2026, 3, 28), [24, 23, 24]),
        (utc_ms(2026, 10, 23, 23), [24, 25, 24]),
        (utc_ms(2026, 6, 30, 23), [24, 24, 24]),
    ],
)
def test_a_day_in_london_has_23_24_or_25_hours(begin_ms: int, hours: list[int]) -> None:
    shard = RowShard(0, 1, 10 * MINUTE, MATURE_MS, london_day)
    full: Counter[int] = Counter()
    first = begin_ms // MINUTE
    for start in range(first, first + 60 * sum(hours), 30):
        minutes = range(start, start + 30)
        cut = Cut(start, minutes[-1] * MINUTE, False, ())
        windows, _ = shard.apply(cut, [impressions(cut, minutes)])
        assert windows is not None
        full[london_day(start)] = int(windows.sums[2][0, IMPRESSION])
        assert int(windows.sums[1][0, IMPRESSION]) == min(60, start + 30 - first)
    assert list(full.values()) == [60 * number for number in hours]


def test_a_log_of_the_first_minute_of_1970_has_a_day() -> None:
    shard, ended = RowShard(0, 1, 10 * MINUTE, MATURE_MS, london_day), Cut(1, 1, True, ())
    windows, _ = shard.apply(ended, [impressions(ended, range(1))])
    assert windows is not None
    assert [int(sums[0, IMPRESSION]) for sums in windows.sums[2:]] == [1, 1]


def credited(cut: Cut, minute: int) -> CreditBatch:
    """A conversion to the row of `impressions`."""
    at, column = np.zeros(1, np.uint32), np.zeros(1, np.uint8)
    whole = np.array([1_000_000])
    return CreditBatch(
        0, cut, [("placement", "a")], at, np.array([minute], np.uint32), column, whole, [], [], []
    )


def test_a_planned_flight_restarts_if_the_plan_moves_it() -> None:
    shard = RowShard(0, 1, 10 * MINUTE, MATURE_MS, london_day)
    first = utc_ms(2026, 7, 1, 12, 0) // MINUTE

    def flight(number: int, minutes: range, converted: int) -> tuple[int, int]:
        """Impressions and conversions after a cut; both count in the day in any case."""
        here = Cut(number, minutes[-1] * MINUTE, False, ())
        windows, _ = shard.apply(here, [impressions(here, minutes)], credited(here, converted))
        assert windows is not None
        (day, flown), sums = windows_of(windows.credits, 0)[2:], windows.sums
        assert day is not None
        assert flown is not None
        assert (day[0], sums[2][0, IMPRESSION]) == (number * 1_000_000, minutes[-1] - first + 1)
        return int(sums[3][0, IMPRESSION]), int(flown[0]) // 1_000_000

    shard.plan("a", first + 3, first + 60)
    assert flight(1, range(first, first + 5), first + 2) == (2, 0)
    assert flight(2, range(first + 5, first + 6), first + 3) == (3, 1)
    shard.plan("a", first + 5, first + 60)
    assert flight(3, range(first + 6, first + 7), first + 4) == (2, 0)
    shard.restore(decode(encode(shard.snapshot())))
    assert flight(4, range(first + 7, first + 8), first + 7) == (3, 1)


def test_a_final_minute_stays_final_under_a_lateness_lengthened_later() -> None:
    shard, noon = RowShard(0, 1, MINUTE, MATURE_MS, london_day), utc_ms(2026, 7, 1, 12, 0) // MINUTE
    here = Cut(1, noon * MINUTE, False, ())
    shard.apply(here, [impressions(here, range(noon, noon + 1))])
    longer = RowShard(0, 1, 30 * MINUTE, MATURE_MS, london_day)
    longer.restore(decode(encode(shard.snapshot())))
    assert longer.first_open == shard.first_open > noon - 29


def test_households_before_a_future_flight_are_outside_it() -> None:
    shard, noon = RowShard(0, 1, 10 * MINUTE, MATURE_MS, london_day), utc_ms(2026, 7, 1, 12, 0) // MINUTE

    def reach_after(number: int, minute: int) -> tuple[list[int], list[int]]:
        """Listeners and households of the day and of the flight, after one more of each was heard."""
        here = Cut(number, minute * MINUTE, False, ())
        some = np.array([number], np.uint64)
        windows, _ = shard.apply(here, [impressions(here, range(minute, minute + 1), some, some)])
        assert windows is not None
        return [int(one[0]) for one in windows.reach[2:]], [int(one[0]) for one in windows.homes]

    assert reach_after(1, noon) == ([1, 1], [1, 1])
    shard.plan("a", noon + 5, noon + 60)
    assert reach_after(2, noon + 1) == ([2, 0], [2, 0])
    assert reach_after(3, noon + 5) == ([3, 1], [3, 1])
    shard.plan("a", noon + 9, noon + 60)
    assert reach_after(4, noon + 9) == ([4, 1], [4, 1])


def test_a_row_of_one_conversion_shows_an_empty_next_day() -> None:
    shard, noon = RowShard(0, 1, 10 * MINUTE, MATURE_MS, london_day), utc_ms(2026, 7, 1, 12, 0) // MINUTE
    days = []
    for number, minute in enumerate((noon, noon + 180, noon + 24 * 60, noon + 25 * 60)):
        cut = Cut(number, minute * MINUTE, False, ())
        some = credited(cut, noon)._replace(rows=[("campaign", "c")]) if minute == noon else None
        windows, _ = shard.apply(cut, [impressions(cut, range(minute, minute + 1))], some)
        assert windows is not None
        if ("campaign", "c") in windows.rows:
            days.append(windows_of(windows.credits, windows.rows.index(("campaign", "c")))[2])
    assert days[0] is not None
    assert days[-1] is not None
    assert (days[0].any(), days[-1].any()) == (True, False)


def test_memory_is_flat_in_a_run_of_a_week() -> None:
    shard = RowShard(0, 1, 10 * MINUTE, MATURE_MS, london_day, 10)
    used, state = [], []
    first = BEGINNINGS[0] // MINUTE
    for start in range(first, first + 7 * 24 * 60, 20):
        cut = Cut(start, (start + 19) * MINUTE, False, ())
        shard.apply(cut, [impressions(cut, range(start, start + 20))])
        used.append(shard.cells.used)
        state.append(len(encode(shard.snapshot())))
    assert max(used) <= 60 + 20 + 10
    settled = (DAYS_OPEN + 2) * 24 * 3  # the days that may still change are kept, too
    assert max(state[settled:]) <= 1.02 * min(state[settled:])
    assert max(state) - state[6] <= (DAYS_OPEN + 1) * 8 * (DAY_COLUMNS + 3)


def test_a_change_to_a_final_minute_stops_the_flow() -> None:
    shard = RowShard(0, 1, 0, MATURE_MS, london_day)
    first = BEGINNINGS[2] // MINUTE
    cut = Cut(1, (first + 5) * MINUTE, False, ())
    shard.apply(cut, [impressions(cut, range(first, first + 5))])
    assert shard.final_through_ms == (first + 5) * MINUTE
    with pytest.raises(AssertionError, match="final"):
        shard.apply(cut, [impressions(cut, range(first + 4, first + 6))])


def test_state_of_another_format_or_ring_is_refused() -> None:
    shard = RowShard(0, 1, 0, MATURE_MS, london_day)
    state = shard.snapshot()
    with pytest.raises(StateError, match="format 99"):
        shard.restore((99, *state[1:]))
    with pytest.raises(StateError, match="shards=1"):
        RowShard(0, 2, 0, MATURE_MS, london_day).restore(state)


def test_the_columns_match_the_kernels() -> None:
    assert BY_MINUTE[START : COMPLETE + 1] == (
        "starts",
        "first_quartiles",
        "midpoints",
        "third_quartiles",
        "completes",
    )
    assert BY_MINUTE[REPAIRED] == "repaired"
    assert [BY_MINUTE[code + HELD_COLUMN] for code in OF_PLAY] == [
        f"held_{BY_MINUTE[code]}" for code in OF_PLAY
    ]
    assert BY_FLIGHT == (
        "pixels",
        "consented",
        "repeated",
        "too_late",
        "invalid_traffic",
        "blocked_impressions",
    )


@pytest.mark.parametrize("seed", range(8))
def test_frequency_is_never_below_one(seed: int) -> None:
    who = np.random.default_rng(seed).integers(1, (1 << 64) - 1, 20_000, np.uint64).tolist()
    shard = RowShard(0, 1, 600_000, 90_000, lambda minute: minute // 1440)
    cut = Cut(1, 29_000_000 * 60_000, False, ())
    windows, _ = shard.apply(cut, [pixels_of(cut, [(29_000_000, one) for one in who])])
    assert windows is not None
    reach = int(windows.reach[3][0])
    (row,) = pack_rows(windows, cut.watermark_ms, 0)
    told = dict(zip(FIELDS, msgspec.msgpack.decode(row.packed), strict=True))
    assert float(told["flight.frequency"]) == pytest.approx(max(1, len(who) / reach), abs=1e-6)
    assert float(told["1h.frequency"]) >= 1
    windows.sums[3][0, CONSENTED_PLAYS] //= 2  # half of the starts have no play id
    (row,) = pack_rows(windows, cut.watermark_ms, 0)
    told = dict(zip(FIELDS, msgspec.msgpack.decode(row.packed), strict=True))
    assert told["flight.frequency"] == "1"


@given(st.data())
def test_equal_rows_are_packed_like_single_ones(data: st.DataObject) -> None:
    """New rows mostly are alike; none takes a number of another's."""
    cut = Cut(1, 29_000_000 * 60_000, False, ())
    shard = RowShard(0, 1, 600_000, 90_000, lambda minute: minute // 1440)
    windows, _ = shard.apply(cut, [pixels_of(cut, [(29_000_000, 7)])])
    assert windows is not None
    number, count = data.draw(st.integers(1, 6)), st.integers(0, 1)
    size = len(windows.rows)

    def several(of: Any) -> Any:
        if isinstance(of, SparseWindows):
            rows = np.array(sorted(data.draw(st.sets(st.integers(0, number * size - 1)))), np.int64)
            added = data.draw(count) * np.arange(len(rows))[:, None]
            sums = {name: added + np.zeros(of.sums[name].shape[1], np.int64) for name in of.sums}
            return SparseWindows(rows, sums)
        if isinstance(of, tuple):
            return tuple(map(several, of))
        if isinstance(of, np.ndarray):
            copies = np.concatenate([of] * number)
            at = data.draw(st.integers(0, copies.size - 1))
            copies.flat[at] += data.draw(count)
            return copies
        return list(of) * number

    many = Windows(*map(several, windows))
    names = [(scope, f"{name}-{n // size}") for n, (scope, name) in enumerate(many.rows)]
    many = many._replace(rows=names, currencies=[data.draw(st.sampled_from([None, "EUR"])) for _ in names])

    def alone(of: Any, row: int) -> Any:
        if isinstance(of, SparseWindows):
            return of.part(slice(row, row + 1))
        return tuple(alone(one, row) for one in of) if isinstance(of, tuple) else of[row : row + 1]

    with patch.object(published, "AT_ONCE", data.draw(st.integers(1, 4))):
        packed = pack_rows(many, 9, 8)
    assert [(one.scope, one.name) for one in packed] == names
    for row, one in enumerate(packed):
        assert one == pack_rows(Windows(*(alone(of, row) for of in many)), 9, 8)[0]
        values = msgspec.msgpack.decode(one.packed)
        assert len(values) == len(FIELDS)
        assert msgspec.msgpack.encode(values) == one.packed
