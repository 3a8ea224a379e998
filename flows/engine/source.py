"""Sources on Bytewax: an input's messages as batches for the placement shards, with a tick a flush."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from connectors.stream import Input
from flows.delivery import PlanFollower
from flows.engine.place import ALONE, Place
from flows.engine.save_threads import Defer, in_threads
from flows.engine.saves import Saves
from flows.engine.tick_clock import LATER, Anchor, TickClock, redis_anchor
from flows.intake import Decoder, Intake, PartitionClock, log_of, nobody, position_of
from flows.model.messages import Lines, Message, Output, ShardTick, key_of
from flows.model.ticks import awake_ms
from flows.settings import UNWATCHED, Settings, ms
from flows.state.arrays import U64
from flows.state.saves import encode

REST_S: Final = 0.002
"""The longest rest in s: between two rests the engine passes on messages of other members."""
LONG_AGO: Final = datetime.fromtimestamp(0, UTC)


@dataclass
class StopSignal:
    """A planned stop: set by a signal, seen by every source partition."""

    requested: bool = False
    _tick_number: int | None = None

    def on_signals(self) -> None:
        """Make SIGTERM and SIGINT request a stop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.set())

    def set(self) -> None:
        """Make every partition stop after one more tick, the same tick for all."""
        self.requested = True

    def tick(self, clock: TickClock) -> int:
        """The number of the last tick."""
        if self._tick_number is None:
            self._tick_number = clock.number + 1
        return self._tick_number


class Rest(threading.local):
    """The rest of a worker's partitions: they wait together, until the first of them is due.

    Bytewax would wait by the wall clock: after the clock is set back by an hour, a quiet partition would wait
    for an hour.
    """

    def __init__(self) -> None:
        self._due_ms: dict[str, int] = {}

    def until(self, partition: str, due_ms: int) -> bool:
        """Rest for a moment, unless one of the partitions is due; returns whether `partition` is."""
        self._due_ms[partition] = due_ms
        now_ms = awake_ms()
        if (left_ms := min(self._due_ms.values()) - now_ms) > 0:
            time.sleep(min(REST_S, left_ms / 1000))
        return due_ms <= now_ms

    def over(self, partition: str) -> None:
        """Stop waiting for this partition."""
        self._due_ms.pop(partition, None)


class Every(NamedTuple):
    """The differences between the numbers of two ticks: the usual one, and that of a flow that is behind."""

    usual: int = 1
    behind: int = 1


class PixelPartition(StatefulSourcePartition[tuple[str, Message], None]):
    """A source partition, which sends each `every`th tick of the clock."""

    def __init__(
        self,
        intake: Intake,
        stop: StopSignal,
        linger: timedelta,
        clock: TickClock,
        rest: Rest,
        denied: Callable[[], U64],
        plans: PlanFollower,
        saves: Saves,
        every: Every = Every(),  # noqa: B008  # it cannot be changed
    ) -> None:
        self._intake, self._stop, self._linger_ms, self._clock = intake, stop, ms(linger), clock
        self._every = every
        self._rest, self._denied, self._plans, self._saves = rest, denied, plans, saves
        self._due_ms = 0
        self._ended = False
        self._reported, self._report_due_ms = -1, 0

    def next_batch(self) -> Iterable[tuple[str, Message]]:
        """The messages of a batch, or of a tick, or of both."""
        if self._ended:
            raise StopIteration
        if self._stop.requested:
            self._ended = True
            self._rest.over(self._intake.partition)
            return self._messages(self._intake.stop(self._stop.tick(self._clock)))
        if not self._rest.until(self._intake.partition, self._due_ms):
            return []
        moment_ms = awake_ms()
        self._intake.deny(self._denied())
        if (book := self._plans.changed(moment_ms)) is not None:
            self._intake.follow(book)
        if self._plans.awaited:
            self._due_ms = moment_ms + self._linger_ms + 1
            return []
        clock = self._clock
        now_ms = clock.anchored_ms
        behind = self._intake.is_behind(now_ms, clock.head_ms)
        every = self._every.behind if behind else self._every.usual
        number, left_ms = clock.tick(every)
        output = self._intake.step(number, now_ms, clock.watermark_ms, clock.head_ms, every)
        self._ended = self._intake.ended
        # At once while there is much to read; else after a short gathering, which the next tick ends.
        wait_ms = 0 if self._intake.full else max(1, min(self._linger_ms, left_ms))
        self._due_ms = moment_ms + wait_ms
        if self._ended:
            self._rest.over(self._intake.partition)
        return self._messages(output)

    def _messages(self, output: Output) -> list[tuple[str, Message]]:
        """The output by its keys; a tick goes to every placement shard, after the pixels that it covers."""
        messages: list[Message] = [*output.pixels]
        tick = None if output.receipt is None else output.receipt.tick
        if output.letters or tick is not None:
            messages.append(Lines(output.letters, self._intake.partition, tick))
        if output.receipt is not None and tick is not None:
            saved = encode(self._intake.snapshot()) if self._saves.wanted else b""
            messages.append(output.receipt._replace(saved=saved))
            messages += [ShardTick(to, tick) for to in range(self._intake.shards)]
            self._report()
        return [(key_of(message), message) for message in messages]

    def next_awake(self) -> datetime | None:
        """The next batch is always due at once, since `Rest` does the waiting."""
        return LONG_AGO

    def _report(self) -> None:
        """Report the position of the newest save to lag tools, as often as a save is taken."""
        if (now_ms := awake_ms()) < self._report_due_ms:
            return
        self._report_due_ms = now_ms + ms(self._saves.settings.save_interval)
        position = self._saves.committed().get(self._intake.partition, -1)
        if position > self._reported:
            self._reported = position
            self._intake.reader.commit(position)

    def snapshot(self) -> None:
        """Give Bytewax nothing: the ledger's step saves the partition's state."""

    def close(self) -> None:
        """Close the reader."""
        self._intake.close()


@dataclass
class PixelSource(FixedPartitionedSource[tuple[str, Message], None]):
    """Every partition of an input.

    Attributes:
        denied: the erased listeners.
        ahead: of the intake.
        defer: does the slow part of saves in parallel to the flow.
        place: of the process in the cluster.
    """

    input: Input
    settings: Settings
    listener_key: bytes
    stop: StopSignal
    denied: Callable[..., U64] = nobody
    begun: Callable[[], None] = lambda: None
    anchor: Callable[[], Anchor] | None = None
    ahead: bool = True
    defer: Defer = in_threads
    place: Place = ALONE

    def __post_init__(self) -> None:
        self.clock = TickClock(ms(self.settings.flush_interval))
        self._rest = Rest()
        about = self.settings, self.listener_key, self.defer, self.place
        self.saves = Saves(*about, lambda: self.clock.ahead_ms, lambda: self._own_anchor().published)

    def _own_anchor(self) -> Anchor:
        return redis_anchor(self.settings) if self.anchor is None else self.anchor()

    def _anchored(self) -> Anchor:
        anchor = self._own_anchor()
        return anchor._replace(published=max(self.saves.published, anchor.published, key=LATER))

    def list_parts(self) -> list[str]:
        """All partitions: any worker can read any. All workers of the cluster are present when
        Bytewax asks.
        """
        resumed = self.saves.resumed
        self.begun()
        self.clock.begin(self._anchored, self.input.live)
        if resumed is not None:
            self.clock.raise_to(resumed.cut + 1)
            self.clock.continue_from(resumed.manifest.interval_ms, resumed.manifest.ahead_ms)
            self.clock.note_watermarks(resumed.manifest.watermark_ms)
        self._partitions = self.input.partitions()
        return self._partitions

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> PixelPartition:
        """Open a partition where the save left it."""
        settings, live = self.settings, self.input.live
        state = self.saves.partition(for_part)
        position, log_id = (None, "") if state is None else (position_of(state), log_of(state))
        intake = Intake(
            for_part,
            tuple(self._partitions),
            self.input.open(for_part, position, log_id),
            Decoder(
                self.listener_key,
                settings.consent == "assumed",
                {name: re.compile(own, re.IGNORECASE) for name, own in settings.invalid_agents.items()},
                platform_basis=settings.platform_basis,
                names=settings.names,
                planned=settings.labels == "planned",
                conversions_from=settings.conversions_from,
            ),
            PartitionClock(
                ms(settings.out_of_orderness),
                ms(settings.quiet),
                max_hold_ms=ms(settings.max_hold),
                max_state=settings.max_state,
            ),
            settings.shards,
            settings.batch_messages,
            live,
            ahead=self.ahead,
        )
        if state is not None:
            intake.restore(state)
            self.denied(intake.denied)
            self.clock.raise_to(intake.last_tick + 1)
        seldom = min(UNWATCHED, settings.flushes_a_save)
        return PixelPartition(
            intake,
            self.stop,
            settings.linger,
            self.clock,
            self._rest,
            self.denied,
            PlanFollower(settings),
            self.saves,
            every=Every(1 if live else seldom, seldom),
        )
