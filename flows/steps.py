"""The cores as Bytewax steps: sources, stateful logics and sinks that only pass on. What a step means is in
the core that it wraps.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import numpy as np
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from connectors.stream import Input
from flows import overlap, rows
from flows.align import Aligner
from flows.attribution import Decided, ListenerShard, Rules
from flows.batches import COLUMNS, ConversionPixel, Decoder
from flows.clock import ENDED, Cut, PartitionClock, Tick, cut
from flows.credits import CreditBatch, CreditBook
from flows.delivery import Thresholds
from flows.errors import StateError
from flows.forget import nobody
from flows.intake import Intake, Output, Receipt, position_of
from flows.kernel import U64
from flows.ledger import Ledger
from flows.metrics import instruments
from flows.outputs import LineWriter
from flows.pacing import Pacer, plan_file
from flows.plans import PlanBook, PlanSource
from flows.publish import CREDITS_SHARD, LEDGER_SHARD, Flush, Publisher
from flows.settings import Settings, ms
from flows.shards import Late, Outcome, Pixels, PlayShard, RowBatch, TouchBatch, row_shard
from flows.windows import RowShard


def now_ms() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000_000


@dataclass
class Stop:
    """A planned stop: set by a signal, seen by every source partition."""

    interval_ms: int
    _at: int | None = None

    def on_signals(self) -> None:
        """Let SIGTERM and SIGINT ask for it."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.set())

    def set(self) -> None:
        """Ask every partition to stop after one more tick, the same for all."""
        if self._at is None:
            self._at = now_ms() // self.interval_ms + 1

    @property
    def tick(self) -> int | None:
        """The number of the last tick, once the stop is asked for."""
        return self._at


# Source


class PixelPartition(StatefulSourcePartition[Output, tuple[Any, ...]]):
    """One source partition."""

    def __init__(
        self,
        intake: Intake,
        stop: Stop,
        linger: timedelta,
        clock_ms: Callable[[], int],
        denied: Callable[[], U64],
        plans: PlanSource | None,
    ) -> None:
        self._intake, self._stop, self._linger, self._clock_ms = intake, stop, linger, clock_ms
        self._denied, self._plans, self._book = denied, plans, PlanBook()
        self._awake: datetime | None = None
        self._done = False
        self._reported: int | None = None

    def next_batch(self) -> Iterable[Output]:
        """One output: a batch, or a tick, or both."""
        if self._done:
            raise StopIteration
        if self._stop.tick is not None:
            self._done = True
            return [self._intake.stop(self._stop.tick)]
        moment_ms = self._clock_ms()
        self._intake.deny(self._denied())
        if self._plans is not None:
            self._plans.refresh(moment_ms)
            if self._book is not self._plans.book:
                self._book = self._plans.book
                self._intake.decoder.follow(self._book)
        output = self._intake.step(moment_ms)
        self._done = self._intake.ended
        self._awake = None
        if not self._intake.full and not self._done:
            tick_ms = (self._intake.last_tick + 1) * self._intake.interval_ms
            wait_ms = max(1, min(ms(self._linger), tick_ms - moment_ms))
            self._awake = datetime.now(UTC) + timedelta(milliseconds=wait_ms)
        return [output] if output.pixels or output.letters or output.receipt else []

    def next_awake(self) -> datetime | None:
        """At once while there is much to read, else after a short gathering."""
        return self._awake

    def snapshot(self) -> tuple[Any, ...]:
        """The intake's; the previous snapshot's position, which is surely committed by now, is reported to
        lag tools.
        """
        if self._reported is not None:
            self._intake.reader.commit(self._reported)
        self._reported = self._intake.position
        return self._intake.snapshot()

    def close(self) -> None:
        """Let go of the reader."""
        self._intake.reader.close()


@dataclass
class PixelSource(FixedPartitionedSource[Output, tuple[Any, ...]]):
    """Every partition of an input; `denied` are the listeners who are to be forgotten."""

    input: Input
    settings: Settings
    listener_key: bytes
    stop: Stop
    clock_ms: Callable[[], int] = now_ms
    denied: Callable[[], U64] = nobody

    def list_parts(self) -> list[str]:
        """All partitions: any worker can read any."""
        self._partitions = self.input.partitions()
        return self._partitions

    def build_part(
        self, step_id: str, for_part: str, resume_state: tuple[Any, ...] | None
    ) -> StatefulSourcePartition[Output, tuple[Any, ...]]:
        """Open a partition where its snapshot left it."""
        settings, live = self.settings, self.input.live
        intake = Intake(
            for_part,
            tuple(self._partitions),
            self.input.open(for_part, None if resume_state is None else position_of(resume_state)),
            Decoder(self.listener_key, settings.consent == "assumed"),
            PartitionClock(ms(settings.out_of_orderness), ms(settings.quiet), guarded=not live),
            settings.shards,
            ms(settings.flush_interval),
            settings.batch_messages,
            live,
        )
        if resume_state is not None:
            intake.restore(resume_state)
        return PixelPartition(
            intake, self.stop, settings.linger, self.clock_ms, self.denied, plan_file(settings)
        )


# Plays


def shard_key(shard: int) -> str:
    """The Bytewax key of a shard: part of the recovery store."""
    return f"{shard:04d}"


class ForShard(NamedTuple):
    """An item with the shard that its key stands for, since Bytewax tells a logic's key to nobody."""

    shard: int
    item: Pixels | Tick


class PlaysOut(NamedTuple):
    """What a placement shard gives at once: late pixels, or a cut's messages."""

    late: list[Late]
    shard: int = 0
    cut: Cut | None = None
    batches: Sequence[RowBatch] = ()
    touches: Sequence[TouchBatch] = ()
    outcomes: Sequence[Outcome] = ()


class PlaysLogic(StatefulBatchLogic[ForShard, PlaysOut, tuple[Any, ...]]):
    """A placement shard behind an aligner of the source partitions."""

    def __init__(self, settings: Settings, state: tuple[Any, ...] | None) -> None:
        self._shard = PlayShard(
            -1,
            settings.shards,
            ms(settings.allowed_lateness),
            ms(settings.horizon),
            ms(settings.conversion_horizon),
            settings.attribution != "off",
        )
        self._aligner: Aligner[str, Pixels | Tick] = Aligner()
        self._ticks: dict[str, Tick] = {}
        self._forgotten: set[int] = set()
        self._cut = -1
        if state is not None:
            shard, at, held, ticks, self._cut, forgotten = state
            self._forgotten.update(forgotten)
            self._shard.restore(shard)
            self._aligner.restore(
                (*at, {sender: [_thawed(one) for one in queue] for sender, queue in held.items()})
            )
            self._ticks = {tick[0]: Tick(*tick) for tick in ticks}
            if self._aligner.released == ENDED:
                raise StateError(
                    "this recovery store is of logs that were replayed to their end, and nothing final "
                    "changes: "
                    "give another recovery directory, and --recompute to count the logs anew"
                )

    def on_batch(self, values: list[ForShard]) -> tuple[Iterable[PlaysOut], bool]:
        """Pixels into the shard; a cut out of it when every partition has ticked."""
        out: list[PlaysOut] = []
        for self._shard.index, value in values:
            mark, first = None, True
            if isinstance(value, Tick):
                mark, first = value.number, value.first
                self._aligner.expect(frozenset(value.senders))
            for item, number in self._aligner.push(value.sender, value, mark, first):
                if isinstance(item, Tick):
                    self._ticks[item.sender] = item
                    self._forgotten.update(item.forgotten)
                elif isinstance(item, Pixels):
                    if late := self._shard.apply(item):
                        out.append(PlaysOut(late))
                elif number is not None:
                    out.append(self._cut_at(number))
        return out, StatefulBatchLogic.RETAIN

    def _cut_at(self, number: int) -> PlaysOut:
        first, self._cut = self._cut < 0, self._cut + 1 if number == ENDED else number
        self._ticks = {name: tick for name, tick in self._ticks.items() if name in self._aligner.expected}
        here = replace(cut(self._ticks, self._cut), first=first)
        batches, touches, outcomes = self._shard.cut(here, self._forgotten)
        self._forgotten.clear()
        metrics, label = instruments(), shard_key(self._shard.index)
        metrics.state_plays.labels(label).set(self._shard.plays)
        metrics.state_bytes.labels(label).set(self._shard.table.nbytes)
        for outcome in outcomes:
            metrics.accepted.labels(outcome.sender).inc(outcome.accepted)
            metrics.repeated.labels(outcome.sender).inc(outcome.repeated)
            metrics.rejected.labels(outcome.sender, "too_late").inc(outcome.too_late)
            metrics.invalid_traffic.labels(outcome.sender).inc(outcome.invalid_traffic)
        return PlaysOut([], self._shard.index, here, batches, touches, outcomes)

    def snapshot(self) -> tuple[Any, ...]:
        """The shard's, the aligner's, and the ticks."""
        *at, held = self._aligner.snapshot()
        frozen = {sender: [(_frozen(item), mark) for item, mark in queue] for sender, queue in held.items()}
        return (
            self._shard.snapshot(),
            tuple(at),
            frozen,
            [astuple(tick) for tick in self._ticks.values()],
            self._cut,
            sorted(self._forgotten),
        )


def _frozen(item: Pixels | Tick) -> tuple[Any, ...]:
    if isinstance(item, Tick):
        return ("tick", *astuple(item))
    conversions = [(row.tobytes(), astuple(conversion)) for row, conversion in item.conversions]
    return ("pixels", item.sender, item.pixels.tobytes(), item.combos, conversions)


def _thawed(held: tuple[tuple[Any, ...], int | None]) -> tuple[Pixels | Tick, int | None]:
    (kind, *state), mark = held
    if kind == "tick":
        return Tick(*state), mark
    sender, pixels, combos, conversions = state
    apart = [(np.frombuffer(row, np.uint64), ConversionPixel(*conversion)) for row, conversion in conversions]
    return Pixels(sender, np.frombuffer(pixels, np.uint64).reshape(-1, COLUMNS).copy(), combos, apart), mark


# Attribution


class AttributionLogic(StatefulBatchLogic[TouchBatch, Decided, tuple[Any, ...]]):
    """A listener shard behind an aligner of the placement shards."""

    def __init__(self, settings: Settings, state: tuple[Any, ...] | None) -> None:
        directory = settings.recovery_dir
        self._shard = ListenerShard(
            -1,
            settings.shards,
            ms(settings.allowed_lateness),
            Rules(
                settings.attribution,
                ms(settings.click_window),
                ms(settings.listen_window),
                ms(settings.half_life),
                settings.utm_placements,
            ),
            None if directory is None else directory / "touches",
            settings.touch_listens,
            settings.touch_clicks,
        )
        self._aligner: Aligner[int, TouchBatch] = Aligner(frozenset(range(settings.shards)))
        self._batches: list[TouchBatch] = []
        self._utm, self._plans, self._planned = settings.utm_placements, plan_file(settings), ""
        if state is not None:
            shard, released = state
            self._shard.restore(shard)
            self._aligner.resume(released)

    def on_batch(self, values: list[TouchBatch]) -> tuple[Iterable[Decided], bool]:
        """Gather a cut's batches; what they decide out when all have come."""
        out: list[Decided] = []
        for value in values:
            self._shard.index = value.to
            for batch, number in self._aligner.push(value.sender, value, value.cut.number, value.cut.first):
                if batch is not None:
                    self._batches.append(batch)
                elif number is not None:
                    batches, self._batches = self._batches, []
                    self._follow_plans()
                    out.append(self._shard.apply(batches[0].cut, batches))
                    metrics, label = instruments(), shard_key(self._shard.index)
                    metrics.state_touches.labels(label).set(len(self._shard.store))
                    metrics.dropped_touches.labels(label).set(self._shard.store.dropped)
        return out, StatefulBatchLogic.RETAIN

    def _follow_plans(self) -> None:
        if self._plans is None:
            return
        self._plans.refresh(now_ms())
        if self._planned != (version := str(self._plans.book.version)):
            self._planned = version
            utm = {name: name for name in self._plans.book} | self._utm
            self._shard.rules = replace(self._shard.rules, utm=utm)

    def snapshot(self) -> tuple[Any, ...]:
        """The shard's; nothing waits between cuts, since an epoch holds a cut whole."""
        assert not self._batches
        assert not self._aligner.held
        return self._shard.snapshot(), self._aligner.released


class CreditsOut(NamedTuple):
    """The credit book at a cut: increments for the rows, its account, and the decisions as (id, JSON)."""

    batches: list[CreditBatch]
    flush: Flush
    decisions: list[tuple[bytes, bytes]]


class CreditsLogic(StatefulBatchLogic[Decided, CreditsOut, tuple[Any, ...]]):
    """The credit book behind an aligner of the listener shards."""

    def __init__(self, settings: Settings, state: tuple[Any, ...] | None) -> None:
        self._book, self._plans = CreditBook(settings.shards), plan_file(settings)
        self._aligner: Aligner[int, Decided] = Aligner(frozenset(range(settings.shards)))
        self._decided: list[Decided] = []
        if state is not None:
            book, released = state
            self._book.restore(book)
            self._aligner.resume(released)

    def on_batch(self, values: list[Decided]) -> tuple[Iterable[CreditsOut], bool]:
        """Gather a cut's decisions; their credits out when all have come."""
        out: list[CreditsOut] = []
        for value in values:
            for decided, number in self._aligner.push(value.shard, value, value.cut.number, value.cut.first):
                if decided is not None:
                    self._decided.append(decided)
                elif number is not None:
                    decisions, self._decided = self._decided, []
                    here = decisions[0].cut
                    if self._plans is not None:
                        self._plans.refresh(now_ms())
                        self._book.plans = self._plans.book
                    batches, account, told = self._book.cut(here, decisions)
                    flush = Flush(CREDITS_SHARD, here, [], [], [], account, told)
                    out.append(CreditsOut(batches, flush, [(name.encode(), body) for name, body in told]))
        return out, StatefulBatchLogic.RETAIN

    def snapshot(self) -> tuple[Any, ...]:
        """The book's."""
        assert not self._decided
        assert not self._aligner.held
        return self._book.snapshot(), self._aligner.released


# Rows


class RowsOut(NamedTuple):
    """A row shard at a cut: rows for Redis, and minutes as (key, JSON)."""

    flush: Flush
    minutes: list[tuple[bytes, bytes]]


class RowsLogic(StatefulBatchLogic[RowBatch | CreditBatch, RowsOut, tuple[Any, ...]]):
    """A row shard behind an aligner of the placement shards and the credit book."""

    def __init__(self, settings: Settings, minutes: bool, state: tuple[Any, ...] | None) -> None:
        every = max(1, settings.minutes_interval // settings.flush_interval) if minutes else 0
        self._shard = RowShard(
            -1,
            settings.shards,
            ms(settings.allowed_lateness),
            ms(settings.mature_after),
            _days(settings),
            every,
        )
        self._aligner: Aligner[int, RowBatch | CreditBatch] = Aligner(
            frozenset((CREDITS_SHARD, *range(settings.shards)))
        )
        self._batches: list[RowBatch] = []
        self._credits: CreditBatch | None = None
        self._plans, self._planned = plan_file(settings), ""
        if state is not None:
            shard, released = state
            self._shard.restore(shard)
            self._aligner.resume(released)

    def on_batch(self, values: list[RowBatch | CreditBatch]) -> tuple[Iterable[RowsOut], bool]:
        """Gather a cut's batches; rows and minutes out when all have come."""
        out: list[RowsOut] = []
        for value in values:
            sender = value.sender if isinstance(value, RowBatch) else CREDITS_SHARD
            for batch, number in self._aligner.push(sender, value, value.cut.number, value.cut.first):
                if isinstance(batch, RowBatch):
                    self._batches.append(batch)
                elif batch is not None:
                    self._credits = batch
                elif number is not None:
                    out.append(self._cut())
        return out, StatefulBatchLogic.RETAIN

    def _cut(self) -> RowsOut:
        here, self._shard.index = self._batches[0].cut, self._batches[0].to
        self._follow_plans()
        windows, due = self._shard.apply(here, self._batches, self._credits)
        self._batches, self._credits = [], None
        as_of_ms = self._shard.watermark_ms
        changed = rows.pack(windows, as_of_ms, self._shard.final_through_ms) if windows else []
        minutes = [message for some in due for message in rows.minute_messages(some, here.number, as_of_ms)]
        instruments().state_rows.labels(shard_key(self._shard.index)).set(len(self._shard.rows))
        sketches = [(name, overlap.pack(some)) for name, some in self._shard.sketches(here.ended)]
        return RowsOut(Flush(self._shard.index, here, changed, sketches=sketches), minutes)

    def _follow_plans(self) -> None:
        if self._plans is None:
            return
        self._plans.refresh(now_ms())
        if self._planned != (version := str(self._plans.book.version)):
            self._planned = version
            for name, plan in self._plans.book.items():
                if row_shard("placement", name, self._shard.shards) == self._shard.index:
                    self._shard.plan(name, plan.start_ms)

    def snapshot(self) -> tuple[Any, ...]:
        """The shard's; nothing waits between cuts, since an epoch holds a cut whole."""
        assert not self._batches
        assert not self._aligner.held
        return self._shard.snapshot(), self._aligner.released


def _days(settings: Settings) -> Callable[[int], int]:
    """Calendar day of a minute in the configured zone, remembered."""
    zone, known = settings.zone, dict[int, int]()

    def day_of(minute: int) -> int:
        day = known.get(minute)
        if day is None:
            if len(known) > 100_000:
                known.clear()
            day = known[minute] = datetime.fromtimestamp(minute * 60, zone).toordinal()
        return day

    return day_of


# Ledger


class Settled(NamedTuple):
    """A placement shard's outcomes at a cut."""

    shard: int
    cut: Cut
    outcomes: Sequence[Outcome]


class LedgerLogic(StatefulBatchLogic[Receipt | Settled, Flush, tuple[Any, ...]]):
    """The ledger behind an aligner of the source partitions and the placement shards."""

    def __init__(self, settings: Settings, state: tuple[Any, ...] | None) -> None:
        self._ledger = Ledger(settings.reject_share, settings.reject_least)
        self._shards = range(settings.shards)
        self._aligner: Aligner[str | int, Receipt | Settled] = Aligner()
        self._inside: list[Receipt | Settled] = []
        if state is not None:
            ledger, at, inside = state
            self._ledger.restore(ledger)
            held = {name: [(_receipt(one), mark) for one, mark in queue] for name, queue in at[2].items()}
            self._aligner.restore((at[0], at[1], held))
            self._inside = [_receipt(one) for one in inside]

    def on_batch(self, values: list[Receipt | Settled]) -> tuple[Iterable[Flush], bool]:
        """Both sides in; the accounts out when both have come to a cut."""
        out: list[Flush] = []
        for value in values:
            if isinstance(value, Receipt):
                self._aligner.expect(frozenset((*value.tick.senders, *self._shards)))
                tick = value.tick
                pushed = self._aligner.push(tick.sender, value, tick.number, tick.first)
            else:
                pushed = self._aligner.push(value.shard, value, value.cut.number, value.cut.first)
            for item, number in pushed:
                if item is not None:
                    self._inside.append(item)
                elif number is not None:
                    out.append(self._settle())
        return out, StatefulBatchLogic.RETAIN

    def _settle(self) -> Flush:
        here: Cut | None = None
        inside, self._inside = self._inside, []
        for one in inside:
            if isinstance(one, Receipt):
                self._ledger.receive(one)
            else:
                here = one.cut
                for outcome in one.outcomes:
                    self._ledger.settle(outcome)
        assert here is not None, "a cut without the placement shards"
        accounts, arrivals = self._ledger.cut(here)
        return Flush(LEDGER_SHARD, here, [], accounts, arrivals)

    def snapshot(self) -> tuple[Any, ...]:
        """The ledger's, and the receipts that no cut has covered yet."""
        at, released, held = self._aligner.snapshot()
        waiting = {name: [(_plain(one), mark) for one, mark in queue] for name, queue in held.items()}
        return self._ledger.snapshot(), (at, released, waiting), [_plain(one) for one in self._inside]


def _plain(receipt: Receipt | Settled) -> tuple[Any, ...]:
    assert isinstance(receipt, Receipt), "an epoch holds a cut whole"
    return (astuple(receipt.tick), *receipt[1:])


def _receipt(state: tuple[Any, ...]) -> Receipt:
    return Receipt(Tick(*state[0]), *state[1:])


# Sinks

_SINGLE: Final = "writer"
"""Part of the recovery store: the one partition of every sink."""


class RedisPartition(StatefulSinkPartition[Flush, int]):
    """The publisher behind an aligner of the row shards and the ledger."""

    def __init__(self, publisher: Publisher, shards: int) -> None:
        self._publisher = publisher
        self._aligner: Aligner[int, Flush] = Aligner(frozenset((LEDGER_SHARD, CREDITS_SHARD, *range(shards))))
        self._flushes: list[Flush] = []

    def write_batch(self, values: list[Flush]) -> None:
        """Flush every cut that all have reached."""
        for value in values:
            for flush, number in self._aligner.push(value.shard, value, value.cut.number):
                if flush is not None:
                    self._flushes.append(flush)
                elif number is not None:
                    flushes, self._flushes = self._flushes, []
                    self._publisher.flush(flushes[0].cut, flushes)

    def snapshot(self) -> int:
        """Nothing but that there was one: rows are absolute and all given out again after a resume."""
        return 1

    def close(self) -> None:
        """Let go of Redis."""
        self._publisher.close()


@dataclass
class RedisSink(FixedPartitionedSink[Flush, int]):
    """One writer for the whole flow: a flush is one cut, whole."""

    settings: Settings
    input: Input
    recompute: bool = False
    open_alerts: Callable[[], LineWriter] | None = None

    def list_parts(self) -> list[str]:
        """One."""
        return [_SINGLE]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> RedisPartition:
        """Take the fence and take over."""
        file = plan_file(self.settings)
        thresholds = Thresholds(self.settings.under, self.settings.over, self.settings.delivery_grace)
        publisher = Publisher(
            self.settings,
            self.input.partitions(),
            resume_state is not None,
            self.recompute,
            None if file is None else Pacer(file, thresholds),
            self.open_alerts() if file is not None and self.open_alerts is not None else None,
        )
        publisher.open()
        return RedisPartition(publisher, self.settings.shards)


class LinesPartition(StatefulSinkPartition[list[tuple[bytes, bytes]], int]):
    """One output of keyed messages, safe before an epoch is committed."""

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer

    def write_batch(self, values: list[list[tuple[bytes, bytes]]]) -> None:
        """Hand on."""
        for value in values:
            self._writer.write(value)

    def snapshot(self) -> int:
        """Where the output stands, with all before it safe."""
        self._writer.flush()
        return self._writer.position

    def close(self) -> None:
        """Make all safe."""
        self._writer.close()


@dataclass
class LinesSink(FixedPartitionedSink[list[tuple[bytes, bytes]], int]):
    """A topic or file of keyed messages; `open_writer` takes the position to go on from, None at first."""

    open_writer: Callable[[int | None], LineWriter]

    def list_parts(self) -> list[str]:
        """One."""
        return [_SINGLE]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> LinesPartition:
        """Open the output."""
        return LinesPartition(self.open_writer(resume_state))
