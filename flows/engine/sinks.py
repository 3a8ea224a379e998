"""Sinks on Bytewax: every one a single partition, so that a flush is written whole and its place is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from connectors.stream import Input
from flows.delivery import Pacer, Thresholds, plan_file
from flows.engine.aligner import Aligner
from flows.engine.source import StopSignal
from flows.engine.start import keep_methodology
from flows.engine.trace import Trace
from flows.methodology import Hashes
from flows.model.messages import CREDITS_SHARD, LEDGER_SHARD, Flush, Lines
from flows.model.ticks import Methods
from flows.publish import Handover, LineWriter, Publisher
from flows.settings import Settings

_SINGLE: Final = "writer"
"""Part of the recovery store: the one partition of every sink."""


class RedisPartition(StatefulSinkPartition[Flush, tuple[Any, ...]]):
    """The publisher behind an aligner of the row shards and the ledger."""

    def __init__(self, handover: Handover, shards: int, stop: StopSignal) -> None:
        self._handover, self._stop = handover, stop
        self._aligner = Aligner[int, Flush](frozenset((LEDGER_SHARD, CREDITS_SHARD, *range(shards))))

    def write_batch(self, values: list[Flush]) -> None:
        """Flush every cut that all have reached; the last ones of a log or before a stop, to their end."""
        for value in values:
            for flushes in self._aligner.cuts(value.shard, value, value.cut.number):
                cut = flushes[0].cut
                self._handover.flush(cut, flushes, last=cut.ended or self._stop.asked)

    def snapshot(self) -> tuple[Any, ...]:
        """The handover's. Rows are absolute, and all are given out again after a resume."""
        return self._handover.snapshot()

    def close(self) -> None:
        """Let go of Redis."""
        self._handover.close()


@dataclass
class RedisSink(FixedPartitionedSink[Flush, tuple[Any, ...]]):
    """One writer for the whole flow: a flush is one cut, whole. `in_line` is without a thread of its own;
    `tell` keeps the descriptions of methodology that collectors' methods make.
    """

    settings: Settings
    input: Input
    recompute: bool = False
    open_alerts: Callable[[], LineWriter] | None = None
    process: int = 0
    pace: timedelta = timedelta(0)
    clock_s: Callable[[], float] | None = None
    monotonic_s: Callable[[], float] = time.monotonic
    stop: StopSignal = field(default_factory=StopSignal)
    in_line: bool = False
    trace: Trace | None = None
    tell: Callable[[Settings, Sequence[Methods]], None] = keep_methodology

    def list_parts(self) -> list[str]:
        """One."""
        return [_SINGLE]

    def build_part(self, step_id: str, for_part: str, resume_state: tuple[Any, ...] | None) -> RedisPartition:
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
            clock_s=self.clock_s,
            monotonic_s=self.monotonic_s,
            process=self.process,
            pace_s=self.pace.total_seconds(),
            methodology=Described(self.settings, self.tell),
        )
        publisher.open()
        if self.trace is not None:
            self.trace.watch("publisher", publisher, rests=True)
        handover = Handover(publisher, self.in_line, resume_state)
        return RedisPartition(handover, self.settings.shards, self.stop)


class Described:
    """The hash of the description with collectors' methods; its text is told of once, on a thread: what it is
    told to may be away, and no flush waits for that.
    """

    def __init__(self, settings: Settings, tell: Callable[[Settings, Sequence[Methods]], None]) -> None:
        self._settings, self._tell, self._hashes = settings, tell, Hashes(settings)
        self._told = set[Methods]()

    def __call__(self, methods: Methods) -> str:
        """The hash. A minute may be counted by the earlier ones of the methods alone."""
        new = [some for n in range(len(methods)) if (some := methods[: n + 1]) not in self._told]
        if new:
            self._told.update(new)
            threading.Thread(target=self._tell, args=(self._settings, new), daemon=True).start()
        return self._hashes.of(methods)


class LinesPartition(StatefulSinkPartition[Lines, int]):
    """One output of keyed messages, safe before an epoch is committed."""

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer

    def write_batch(self, values: list[Lines]) -> None:
        """Hand on."""
        for value in values:
            self._writer.write(value.messages)

    def snapshot(self) -> int:
        """The position of the output, with all before it safe."""
        self._writer.flush()
        return self._writer.position

    def close(self) -> None:
        """Make all safe."""
        self._writer.close()


@dataclass
class LinesSink(FixedPartitionedSink[Lines, int]):
    """A topic or file of keyed messages; `open_writer` takes the position to go on from, None at first."""

    open_writer: Callable[[int | None], LineWriter]

    def list_parts(self) -> list[str]:
        """One."""
        return [_SINGLE]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> LinesPartition:
        """Open the output."""
        return LinesPartition(self.open_writer(resume_state))
