"""Sources on Bytewax: an input's messages as batches for the placement shards, with a tick a flush."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from connectors.stream import Input
from flows.batches import Decoder
from flows.clock import PartitionClock
from flows.forget import nobody
from flows.intake import Intake, Output, position_of
from flows.kernel import U64
from flows.pacing import Followed
from flows.settings import Settings, ms


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


class PixelPartition(StatefulSourcePartition[Output, tuple[Any, ...]]):
    """One source partition."""

    def __init__(
        self,
        intake: Intake,
        stop: Stop,
        linger: timedelta,
        clock_ms: Callable[[], int],
        denied: Callable[[], U64],
        plans: Followed,
    ) -> None:
        self._intake, self._stop, self._linger, self._clock_ms = intake, stop, linger, clock_ms
        self._denied, self._plans = denied, plans
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
        if (book := self._plans.news(moment_ms)) is not None:
            self._intake.decoder.follow(book)
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
    begun: Callable[[], None] = lambda: None

    def list_parts(self) -> list[str]:
        """All partitions: any worker can read any. All workers of the cluster are there when it is asked."""
        self.begun()
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
            Decoder(
                self.listener_key,
                settings.consent == "assumed",
                [re.compile(own, re.IGNORECASE) for own in settings.invalid_agents.values()],
            ),
            PartitionClock(ms(settings.out_of_orderness), ms(settings.quiet)),
            settings.shards,
            ms(settings.flush_interval),
            settings.batch_messages,
            live,
        )
        if resume_state is not None:
            intake.restore(resume_state)
        return PixelPartition(
            intake, self.stop, settings.linger, self.clock_ms, self.denied, Followed(settings)
        )
