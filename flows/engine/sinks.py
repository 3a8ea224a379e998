"""Outputs as steps.

Each output runs on one worker, so that a flush is written whole, and a file has a known length. They are
steps instead of Bytewax's sinks, since a step can report to the committer that all output before a cut is
durable.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from bytewax.operators import StatefulBatchLogic

from connectors.stream import Input
from flows.delivery import Pacer, Thresholds, open_plans
from flows.engine.aligner import Aligner
from flows.engine.cut_step import Step
from flows.engine.source import StopSignal
from flows.engine.start import store_methodology
from flows.engine.trace import Trace
from flows.methodology import Hashes
from flows.model.messages import CREDITS_SHARD, LEDGER_SHARD, Flush, Lines, Message
from flows.model.ticks import Cut, Methods, Tick
from flows.publish import Handover, LineWriter, Publisher
from flows.settings import Settings


@dataclass
class RedisSink:
    """The only writer of the whole flow: a flush is one whole cut.

    Attributes:
        in_line: use no thread.
        pace: the least time between two flushes before the log ends.
        store_descriptions: stores the descriptions of methodology for collectors' methods.
        listener_key: a fingerprint of the listeners' key.
        switches: lets another flow take over the rows, or this flow those of another.
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
    store_descriptions: Callable[[Settings, Sequence[Methods]], None] = store_methodology
    listener_key: str = ""
    switches: bool = False

    def open(self, state: tuple[Any, ...] | None) -> Handover:
        """Take the fence and take over; `state` is the handover's of a save."""
        file = open_plans(self.settings)
        settings = self.settings
        thresholds = Thresholds(
            settings.under, settings.over, settings.delivery_grace, settings.delivery_gap, settings.state_hold
        )
        described = Described(self.settings, self.store_descriptions)
        publisher = Publisher(
            self.settings,
            self.input.partitions(),
            state is not None,
            self.recompute,
            None if file is None else Pacer(file, thresholds, settings.zone),
            self.open_alerts() if file is not None and self.open_alerts is not None else None,
            clock_s=self.clock_s,
            monotonic_s=self.monotonic_s,
            process=self.process,
            methodology=described,
            listener_key=self.listener_key,
            switches=self.switches,
        )
        described.losses = lambda: publisher.backlog.losses
        publisher.open()
        if self.trace is not None:
            self.trace.watch("publisher", publisher, rests=True)
        return Handover(publisher, self.in_line, state)


class Described:
    """The hash of the description of methodology with collectors' methods. A thread stores the text once, and
    again after a loss of data in Redis, so that no flush waits for it.

    Attributes:
        losses: returns the number of times that Redis has lost its data.
    """

    def __init__(
        self, settings: Settings, store_descriptions: Callable[[Settings, Sequence[Methods]], None]
    ) -> None:
        self._settings, self._store, self._hashes = settings, store_descriptions, Hashes(settings)
        self._stored_methods: set[tuple[int, Methods]] = {(0, ())}  # the description as the flow starts
        self._storing: threading.Thread | None = None
        self.losses: Callable[[], int] = lambda: 0

    def __call__(self, methods: Methods) -> str:
        """The hash. A minute may be counted by the earlier methods alone, so their descriptions are stored,
        too.
        """
        several = [(self.losses(), methods[:n]) for n in range(len(methods) + 1)]
        new = [some for loss, some in several if (loss, some) not in self._stored_methods]
        if new and (self._storing is None or not self._storing.is_alive()):
            self._stored_methods = {*several}
            self._storing = threading.Thread(target=self._store, args=(self._settings, new), daemon=True)
            self._storing.start()
        return self._hashes.of(methods)


class RedisLogic(Step[Flush]):
    """The publisher after an aligner of the row shards, the ledger and the credit book.

    Rows are absolute, and all are published again after a resume. A save therefore has only the data that
    Redis may lack and that no step publishes again.
    """

    def __init__(self, sink: RedisSink, state: tuple[Any, ...] | None) -> None:
        self._stop, shards = sink.stop, range(sink.settings.shards)
        self._aligner = Aligner[int, Flush](frozenset((LEDGER_SHARD, CREDITS_SHARD, *shards)))
        if state is not None:
            self._aligner.restore(state[0])
        self._handover = sink.open(None if state is None else state[1])
        self._closed = False

    def on_batch(self, values: list[Flush]) -> tuple[Iterable[Message], bool]:
        """Flush every cut that all senders have reached. The last cuts of a log or before a stop are flushed
        to their end.
        """
        for value in values:
            for flushes in self._aligner.cuts(value.shard, value, value.cut.number):
                cut = flushes[0].cut
                self._handover.flush(cut, flushes, last=cut.ended or self._stop.requested)
                self.at_cut(cut)
        return [], StatefulBatchLogic.RETAIN

    def snapshot(self) -> tuple[Any, ...]:
        """The aligner's state and the handover's."""
        return self._aligner.snapshot(), self._handover.snapshot()

    def settle(self) -> None:
        """Wait until Redis has the decisions that exceed a save."""
        self._handover.settle()

    def close(self) -> None:
        """Close Redis."""
        if not self._closed:
            self._closed = True
            self._handover.close()

    def abandon(self) -> None:
        """Close Redis, after an error too."""
        self.close()


@dataclass
class LinesSink:
    """A topic or file of keyed messages; `open_writer` takes the position to continue from, or None
    at first.
    """

    open_writer: Callable[[int | None], LineWriter]


class LinesLogic(Step[Lines]):
    """An output of keyed messages after an aligner of their senders.

    Args:
        shards: that send lines.
        partitions: whether source partitions send lines too; their first tick names them.
    """

    def __init__(
        self, sink: LinesSink, shards: Iterable[int], partitions: bool, state: tuple[Any, ...] | None
    ) -> None:
        self._shards = tuple(shards)
        # No cut before a tick has come: messages of shards may arrive before the partitions' messages of the
        # same cut.
        self._aligner: Aligner[str | int, Lines] = Aligner(frozenset(() if partitions else self._shards))
        position: int | None = None
        if state is not None:
            aligner, position = state
            self._aligner.restore(aligner)
        self._writer = sink.open_writer(position)
        self._cut: Cut | None = None
        self._closed = False

    def on_batch(self, values: list[Lines]) -> tuple[Iterable[Message], bool]:
        """Write the messages in the order of cuts."""
        for value in values:
            for let_in, number in self._push(value):
                if let_in is not None:
                    self._writer.write(let_in.messages)
                    if isinstance(let_in.mark, Cut):
                        self._cut = let_in.mark
                elif number is not None:
                    assert self._cut is not None, "a cut without a shard"
                    self.at_cut(self._cut)
        return [], StatefulBatchLogic.RETAIN

    def _push(self, value: Lines) -> Iterable[tuple[Lines | None, int | None]]:
        if isinstance(value.mark, Tick):
            self._aligner.expect(frozenset((*value.mark.senders, *self._shards)))
        return self._aligner.push(value.sender, value, None if value.mark is None else value.mark.number)

    def settle(self) -> None:
        """Wait until the output has acknowledged all written messages."""
        if not self._closed:
            self._writer.flush()

    def snapshot(self) -> tuple[Any, ...]:
        """The aligner's state, and the position of the output, which is safe once it has settled."""
        return self._aligner.snapshot(), self._writer.position

    def close(self) -> None:
        """Make all lines durable, and close the output."""
        if not self._closed:
            self._closed = True
            self._writer.close()
