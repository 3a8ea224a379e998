"""Once, start cohort and lateness: the shards of plays against a model in plain Python, at every cut."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from plays_model import HORIZON_MS, KEY, MILESTONES, MINUTE, Call, Model

from connectors.stream import Messages
from flows.intake.decoder import Decoder
from flows.intake.split import Splitter
from flows.intake.watermark import PartitionClock
from flows.model.basis import BASES, SEEN, SIDES
from flows.model.counts import BY_FLIGHT, BY_MINUTE, HELD_COLUMN, REPAIRED
from flows.model.dimensions import SCOPES, Dimensions
from flows.model.events import COMPLETE, OF_PLAY, START
from flows.model.messages import PixelOutcomes, Pixels, RowBatch
from flows.model.ticks import Cut
from flows.plays.play_shard import PlayShard
from flows.state import interner, journal
from flows.state.homes import Homes
from flows.state.saves import decode, encode

BOUND_MS, YEAR_MS = 10_000, 365 * 86_400_000
BEGIN_MS = 29_000_000 * MINUTE
SHARDS = 2

Row = tuple[str, str]

EVENTS = ("start", "impression", "skip", "mute", "click", "error", "pause", "progress", "delivered")
CHOICES: tuple[tuple[Any, ...], ...] = (
    (0, 0, 1, 2),
    ("a", "a", "b"),
    (*"uvwxy", None),
    (*EVENTS, *MILESTONES, *MILESTONES, "start", "start", "impression"),
    (*[0] * 70, 1, 5, 13, 30, 60, 200, 700),
    (*[0] * 6, 5, 30, 60, 61, 130, 290, 400),
    ("e", "f"),
    ("c", "c", "d", None),
    ("p", "p", "q", None),
    ("l", "l", "m", None),
    (True, True, False, None),
    (False, False, False, False, False, True),
    (0, 0, 900, None),
    ("k", "m", None),
    (None, None, None, *BASES),
    (True, False, None, None),
    (None, None, 0, 125, 126, 3_000, 1_024_000, 1_024_001, 7_200_000),
)
"""Of each field of `Call`; what is frequent stands there often."""
SEND, CUT, SNAPSHOT, RESTART = "send", "cut", "snapshot", "restart"


class Lateness(int):
    """Another allowed lateness, in ms, with a restart."""


LATENESSES = tuple(map(Lateness, (0, MINUTE, 90_000, 2 * MINUTE, 4 * MINUTE)))
Step = Call | str | Lateness
STEPS = st.lists(
    st.one_of(
        st.builds(Call, *(st.sampled_from(choices) for choices in CHOICES)),
        st.builds(Call, *(st.sampled_from(choices) for choices in CHOICES)),
        st.builds(Call, *(st.sampled_from(choices) for choices in CHOICES)),
        st.sampled_from((SEND, SEND, CUT, CUT, CUT, CUT, SNAPSHOT, RESTART, *LATENESSES)),
    ),
    min_size=30,
    max_size=200,
)


def any_steps(rng: random.Random, number: int) -> list[Step]:
    return [
        rng.choice((SEND, CUT, CUT, SNAPSHOT, rng.choice((RESTART, *LATENESSES))))
        if rng.random() < 0.12
        else Call(*(rng.choice(c) for c in CHOICES))
        for _ in range(number)
    ]


HEARD_TWICE = [
    Call(0, "a", "u", event, 0, 0, "e", "c", "p", "l", True, False, 0, "k", None, True, None)
    for event in ("start", "impression")
]


def scoped(combo: Dimensions) -> list[Row]:
    return [(scope, name) for scope, name in zip(SCOPES, combo, strict=False) if name is not None]


class Source:
    """A partition with its own time and its messages not yet delivered."""

    def __init__(self, index: int) -> None:
        self.name = f"partition-{index}"
        self.now_ms = BEGIN_MS + index * 25_000
        self.greatest_ms = self.next = 0
        self.unsent: list[bytes] = []
        self.decoder, self.splitter = Decoder(KEY), Splitter(self.name, SHARDS, KEY)
        self.clock = PartitionClock(BOUND_MS, MINUTE)

    def call(self, call: Call) -> tuple[int, int]:
        """(event time, watermark) of the call."""
        self.now_ms += call.forward * 1000
        ts = self.now_ms - call.back * 1000
        self.greatest_ms = max(self.greatest_ms, ts)
        document = {
            "event_id": f"{call.partition}{call.event_id}",
            "event": call.event,
            "ts": ts,
            "placement_id": call.placement,
            "play_id": call.play and f"{call.partition}{call.play}",
            "campaign_id": call.campaign,
            "platform": call.platform,
            "creative_id": call.creative,
            "basis": call.basis,
            "device_confirmed": call.confirmed,
            "received_at": None if call.delay is None else ts + call.delay,
            "listener_id": call.listener,
            "consent": call.consent,
            "playhead_ms": call.playhead,
            "user_agent": "somebot/1" if call.bot else None,
        }
        self.unsent.append(msgspec.json.encode({k: v for k, v in document.items() if v is not None}))
        return ts, self.greatest_ms - BOUND_MS

    def send(self) -> list[Pixels]:
        first, self.next = self.next, self.next + len(self.unsent)
        batch = self.decoder.decode(Messages(self.unsent, range(first, self.next), self.next))
        assert not batch.rejected
        self.unsent = []
        self.clock.judge(batch.pixels)
        return self.splitter.split(batch)


def labelled(latest: dict[Dimensions, int]) -> dict[tuple[str | None, int], tuple[int, str]]:
    """By placement and scope the latest name with its time; of two with the same time the greater."""
    labels: dict[tuple[str | None, int], tuple[int, str]] = {}
    for combo, ts in latest.items():
        for scope, name in enumerate(combo):
            if name is not None:
                labels[combo[0], scope] = max(labels.get((combo[0], scope), (0, "")), (ts, name))
    return labels


class Published:
    """The sum of all increments."""

    def __init__(self) -> None:
        self.cells: dict[tuple[str, str, int], npt.NDArray[np.int64]] = {}
        self.totals: dict[Row, npt.NDArray[np.int64]] = {}
        self.touches: Counter[tuple[str, str, int, int]] = Counter()
        self.latest: dict[Row, int] = {}
        self.first: dict[Row, int] = {}
        self.labels: dict[Dimensions, int] = {}
        self.sides: Counter[tuple[str, str, int, str]] = Counter()
        self.bases: set[tuple[str, str, str]] = set()
        self.final: dict[tuple[str, str, int], npt.NDArray[np.int64]] = {}
        self.delays: Counter[tuple[str, int]] = Counter()

    def add(self, batch: RowBatch) -> None:
        for row, latest in zip(batch.rows, batch.latest.tolist(), strict=True):
            assert Homes(KEY, SHARDS).shard_of(*row) == batch.to
            self.latest[row] = max(self.latest.get(row, 0), latest)
        for row, first in zip(batch.rows, batch.first.tolist(), strict=True):
            if first:
                self.first[row] = min(self.first.get(row, first), first)
        for row, minute, counts in zip(
            batch.cell_rows, batch.cell_minutes.tolist(), batch.cell_counts, strict=True
        ):
            key = (*batch.rows[row], minute)
            self.cells[key] = self.cells.get(key, 0) + counts
        for row, counts in zip(batch.total_rows, batch.total_counts, strict=True):
            self.totals[batch.rows[row]] = self.totals.get(batch.rows[row], 0) + counts
        for place, minute, who in zip(
            batch.touch_rows, batch.touch_minutes.tolist(), batch.touch_listeners.tolist(), strict=True
        ):
            self.touches[*batch.rows[place], minute, who] += 1
        for place, (minute, column, amount) in zip(batch.side_rows, batch.sides.tolist(), strict=True):
            if column >= SEEN:
                self.bases.add((*batch.rows[place], BASES[column - SEEN]))
            else:
                self.sides[*batch.rows[place], minute, SIDES[column]] += amount
        for platform, classes in batch.delays:
            assert Homes(KEY, SHARDS).shard_of("platform", platform) == batch.to
            self.delays.update({(platform, at): count for at, count in enumerate(classes) if count})
        for place, ts, combo in batch.labels:
            assert batch.rows[place] == ("placement", combo[0])
            self.labels[combo] = max(self.labels.get(combo, 0), ts)

    def flights(self) -> dict[Row, npt.NDArray[np.int64]]:
        flights: dict[Row, npt.NDArray[np.int64]] = {}
        for (scope, name, _), counts in self.cells.items():
            flights[scope, name] = flights.get((scope, name), 0) + counts
        return flights

    def same_as(self, model: Model) -> None:
        cells: dict[tuple[str, str, int], Counter[str]] = {}
        for (combo, minute), counts in model.cells().items():
            for row in scoped(combo):
                cells.setdefault((*row, minute), Counter()).update(counts)
        assert named(self.cells, BY_MINUTE) == {key: +counts for key, counts in cells.items() if +counts}
        totals: dict[Row, Counter[str]] = {}
        for (combo, name), number in model.totals.items():
            for row in scoped(combo):
                totals.setdefault(row, Counter())[name] += number
        assert named(self.totals, BY_FLIGHT) == {row: +counts for row, counts in totals.items()}
        touches: Counter[tuple[str, str, int, int]] = Counter()
        for (combo, minute, who), number in model.touches.items():
            for row in scoped(combo):
                touches[*row, minute, who] += number
        assert self.touches.keys() == touches.keys()
        assert self.touches <= touches  # a listener with two touches between two cuts may be sent once
        sides: Counter[tuple[str, str, int, str]] = Counter()
        for (combo, minute, name), number in model.sides().items():
            for row in scoped(combo):
                sides[*row, minute, name] += number
        assert +self.sides == sides
        assert min(self.sides.values(), default=0) >= 0
        assert self.bases == {(*row, basis) for combo, basis in model.claims for row in scoped(combo)}
        assert self.delays == model.delays
        assert labelled(self.labels) == labelled(model.latest)
        assert all(ts <= model.latest[combo] for combo, ts in self.labels.items())
        latest: dict[Row, int] = {}
        for combo, ts in model.latest.items():
            for row in scoped(combo):
                latest[row] = max(latest.get(row, 0), ts)
        assert {row: ts for row, ts in self.latest.items() if ts} == latest
        first: dict[Row, int] = {}
        for combo, ts in model.first.items():
            for row in scoped(combo):
                first[row] = min(first.get(row, ts), ts)
        assert self.first == first

    def hold_to(self, before: dict[Row, npt.NDArray[np.int64]], model: Model, ended: bool) -> None:
        """Check the invariants of every cut. `before` are the flights of the previous cut."""
        flights = self.flights()
        for counts in (*self.cells.values(), *flights.values()):
            assert (np.diff(counts[START : COMPLETE + 1]) <= 0).all(), counts
            assert (counts >= 0).all(), counts
        falls = [REPAIRED, BY_MINUTE.index("consented_plays"), *(code + HELD_COLUMN for code in OF_PLAY)]
        for row, counts in before.items():
            fallen = [column for column in np.nonzero(flights[row] < counts)[0] if column not in falls]
            assert not fallen, (row, fallen)
        for key, counts in self.final.items():
            assert (self.cells[key] == counts).all(), f"{key} was final"
        self.final = {key: c for key, c in self.cells.items() if ended or key[2] < model.closed}


def named(counts: dict[Any, Any], names: Iterable[str]) -> dict[Any, Counter[str]]:
    given = {key: Counter(dict(zip(names, row.tolist(), strict=True))) for key, row in counts.items()}
    assert all(number >= 0 for row in given.values() for number in row.values())
    return {key: +row for key, row in given.items() if +row}


class World:
    """Sources, shards, and the model next to them."""

    def __init__(self, lateness_ms: int, recovery: Path | None = None) -> None:
        self.recovery = recovery
        self.model, self.published = Model(lateness_ms), Published()
        self.sources = [Source(index) for index in range(3)]
        self.shards = [self.new_shard(index) for index in range(SHARDS)]
        self.expected: Counter[tuple[str, str]] = Counter()
        self.given: Counter[tuple[str, str]] = Counter()
        self.late: list[tuple[str, int]] = []
        self.lates: list[tuple[str, int]] = []

    def new_shard(self, index: int) -> PlayShard:
        lateness_ms, recovery = self.model.lateness_ms, self.recovery
        return PlayShard(index, SHARDS, lateness_ms, HORIZON_MS, YEAR_MS, recovery=recovery, secret=KEY)

    def run(self, steps: list[Step]) -> None:
        for step in steps:
            if isinstance(step, Call):
                self.call(step)
            elif step == SEND:
                self.send()
            elif step == CUT:
                self.cut()
                for shard in self.shards:
                    shard.gather()
            else:
                self.cut()
                if isinstance(step, Lateness):
                    self.model.lateness_ms = step
                for index, old in enumerate(self.shards):
                    state = encode(old.snapshot())
                    if step != SNAPSHOT:
                        self.shards[index] = self.new_shard(index)
                        self.shards[index].restore(decode(state))
        self.cut()
        self.cut(ended=True)

    def call(self, call: Call) -> None:
        source = self.sources[call.partition]
        ts, watermark_ms = source.call(call)
        became = self.model.take(call, ts, watermark_ms)
        self.expected[source.name, became] += 1
        if became == "too_late":
            self.late.append((source.name, source.next + len(source.unsent) - 1))

    def send(self) -> None:
        for source in self.sources:
            for pixels in source.send():
                self.lates += [(late.sender, late.position) for late in self.shards[pixels.to].apply(pixels)]

    def cut(self, ended: bool = False) -> None:
        self.send()
        known = [source.clock.watermark_ms for source in self.sources if source.greatest_ms]
        cut = Cut(0, min(known, default=0), ended, ())
        before = self.published.flights()
        self.model.cut(cut.watermark_ms, ended)
        for shard in self.shards:
            batches, *_, outcomes = shard.cut(cut)
            assert [batch.to for batch in batches] == list(range(SHARDS))
            for batch in batches:
                self.published.add(batch)
            for outcome in outcomes:
                self.add_outcomes(outcome)
        assert self.given == self.expected
        assert sorted(self.lates) == sorted(self.late)
        self.published.same_as(self.model)
        self.published.hold_to(before, self.model, ended)

    def add_outcomes(self, outcome: PixelOutcomes) -> None:
        counts = {
            "accepted": outcome.accepted - outcome.invalid_traffic,
            "repeated": outcome.repeated,
            "too_late": outcome.too_late,
            "invalid_traffic": outcome.invalid_traffic,
        }
        for name, number in counts.items():
            if number:
                self.given[outcome.sender, name] += number


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are small, and cleaned up all the time."""
    monkeypatch.setattr(journal, "SPILL_BYTES", 200)
    monkeypatch.setattr(journal, "COMPACTION_SLACK", 2)


@settings(suppress_health_check=list(HealthCheck))
@example(steps=HEARD_TWICE, lateness_ms=0, files=False, forget_at=3)
@given(
    steps=STEPS,
    lateness_ms=st.sampled_from((0, MINUTE, 90_000, 2 * MINUTE)),
    files=st.booleans(),
    forget_at=st.sampled_from((3, 1000)),
)
def test_every_cut_matches_the_specification(
    steps: list[Step], lateness_ms: int, files: bool, forget_at: int
) -> None:
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(interner, "DROP_AT", forget_at)
        World(lateness_ms, Path(name) if files else None).run(steps)


@pytest.mark.parametrize("seed", range(30))
def test_long_runs_match_the_specification(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interner, "DROP_AT", rng.choice((3, 1000)))
        World(rng.choice((0, MINUTE // 2, MINUTE, 3 * MINUTE)), tmp_path if seed % 3 else None).run(
            any_steps(rng, 500)
        )
