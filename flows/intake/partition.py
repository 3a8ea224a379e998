"""A source partition converts raw messages to pixels by shard, dead letters and ticks. It is a pure core with
a position.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from connectors.stream import EndOfInput, Messages, Reader
from flows.errors import StateError
from flows.instruments import instruments
from flows.intake.dead_letters import letter
from flows.intake.decoder import Batch, Decoder
from flows.intake.erasure import NOBODY, conversions_without, take_off
from flows.intake.labels import unknown_labels
from flows.intake.refused import with_refused
from flows.intake.senders import Senders
from flows.intake.split import Splitter
from flows.intake.watermark import PartitionClock, first_receipt
from flows.model.messages import Output, Pixels, Receipt
from flows.model.pixel import WATERMARK
from flows.model.plan import PlanBook
from flows.model.ticks import ENDED, Holes, Methods, Tick, first_of, joined, sum_of
from flows.state.arrays import U64

FORMAT: Final = 10
MAX_SKIPPED: Final = 3
"""The greatest number of consecutive due ticks that a partition may skip."""
BEHIND_MS: Final = 60_000
"""The age of the newest pixel, by Redis's clock, above which a partition may be behind."""
BEFORE_A_TICK: Final = 4
"""The number of batches read before a tick: messages that arrived in a pause are published with this tick,
instead of a second later.
"""


@dataclass
class Intake:
    """Reads, decodes, judges and splits one partition.

    Args:
        partition, partitions: the name of the partition, and of all partitions of the flow.
        reader: open at the position of `clock` and `last_tick`'s snapshot.
        live: whether the end of the input moves (a broker) or not (a file).
        ahead: whether a thread reads ahead while there is much to read.
        first_ms: receipt of the first message from the position on at which the partition was first opened; 0
            without one.
        last_ms: the broker's timestamp of the last message; 0 without one.
        holes: the times in which messages were lost.
    """

    partition: str
    partitions: tuple[str, ...]
    reader: Reader
    decoder: Decoder
    clock: PartitionClock
    shards: int
    batch_messages: int
    live: bool
    ahead: bool = True
    last_tick: int = 0
    denied: U64 = field(default_factory=lambda: NOBODY)
    methods: Methods = ()
    first_ms: int = 0
    last_ms: int = 0
    holes: Holes = ()
    _denied_now: list[int] = field(default_factory=list)
    _denied_sum: int = 0
    _rejected: dict[str, int] = field(default_factory=dict)
    _arrivals: list[tuple[float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._evicted, self._released = self.clock.holds.evicted, self.clock.holds.released
        self._splitter = Splitter(self.partition, self.shards, self.decoder.listener_key)
        self._senders, self._byes, self._proven, self._now_ms = Senders(), list[str](), False, 0
        self._received = self._skewed = self._marks = self._errors = self._skipped = 0
        self.position = self.reader.position
        self._start_skips = self.live and self.position > 0
        self.ended = self.full = self._empty = self._was_asleep = False
        self._listed = NOBODY
        self._thread = ThreadPoolExecutor(1, f"read {self.partition}") if self.ahead else None
        self._ahead: Future[tuple[Messages, Batch] | None] | None = None

    def is_behind(self, now_ms: int, head_ms: int) -> bool:
        """True while there are messages to read, and this partition's newest pixel and `head_ms` are old.

        Nobody waits for the numbers of each tick then, and a cut costs as much as many messages. If Redis's
        clock is over a minute ahead of the collectors', a flow that is not behind cuts as rarely: its numbers
        are the same, and up to 1.5 s older.
        """
        newest_ms = self.clock.greatest_ms
        return not self._empty and newest_ms > 0 and max(newest_ms, head_ms) < now_ms - BEHIND_MS

    def step(self, number: int, now_ms: int, flow_ms: int = 0, head_ms: int = 0, every: int = 1) -> Output:
        """Read once, and tick if `number` has changed.

        After the end of a finite partition, `ended` and the tick's `ended` are set; do not call `step` again.

        Args:
            number: of the tick that is due (`flows.engine.tick_clock`).
            now_ms: by a clock that goes on through restarts, and never back while the process lives.
            flow_ms, head_ms: the least and the greatest watermark of all partitions, as far as this process
                knows them.
            every: the difference between the numbers of two due ticks.
        """
        pixels: list[Pixels] = []
        letters: list[tuple[bytes, bytes]] = []
        self._now_ms, self._proven = now_ms, False
        if self.live and self.last_tick and number > self.last_tick + MAX_SKIPPED * every:
            return self._tick_for_sleep(number - 1)
        due = number > self.last_tick
        read: list[tuple[Messages, Batch]] = []
        try:
            read = list(self._next(due and not self.is_behind(now_ms, head_ms)))
        except EndOfInput:
            self.ended = True
        message_count = sum(len(messages.values) for messages, _ in read)
        self.full = message_count > 0 and (not self.live or 2 * message_count >= self.batch_messages)
        if self.full and self._thread is not None:
            self._ahead = self._thread.submit(self._read, self.batch_messages)
        for messages_batch in read:
            more, rejected = self._take(*messages_batch)
            pixels += more
            letters += rejected
        if self._ahead is None:
            # The reader may be past the end of a transaction, and past skipped messages: no message lies in
            # between.
            self.position = self.reader.position
        # Also with messages: a partition that receives only junk is as quiet as an empty one. Messages
        # read ahead are not counted yet, so they would make the proof invalid.
        if self.live and self._ahead is None and self.clock.due(now_ms) and self.reader.proven():
            if not self._was_asleep:
                self.clock.prove(now_ms, flow_ms, head_ms)
            self._was_asleep = False
        # With two messages a second no end is reported, but it can be proved.
        self._proven = self.live and self._ahead is None and self.clock.proved(now_ms)
        self._empty = self._ahead is None and (self.reader.caught_up or self.clock.proved(now_ms))
        receipt = self._tick(max(number, self.last_tick + 1)) if due or self.ended else None
        return Output(pixels, letters, receipt)

    def _tick_for_sleep(self, number: int) -> Output:
        """A tick for a time in which no message was read. Messages that are read now must be in no cut of
        that time: its other partitions were empty before these messages came. The next answer about the end
        is no proof either, since its request may be of that time.
        """
        self.full, self._empty, self._was_asleep = True, False, True
        return Output([], [], self._tick(number))

    def _next(self, due: bool) -> Iterator[tuple[Messages, Batch]]:
        """The batch that was read ahead, else one of the present messages. With `due` both, and as many as
        `BEFORE_A_TICK` batches of present messages.
        """
        ahead, self._ahead = self._ahead, None
        if ahead is not None and (read := ahead.result()) is not None:
            yield read
        if ahead is None or (due and self.live):
            batches = BEFORE_A_TICK if due and self.live else 1
            if (read := self._read(self.batch_messages * batches)) is not None:
                yield read

    def _read(self, limit: int) -> tuple[Messages, Batch] | None:
        """Messages with their pixels. If there is much to read, a thread reads them while the flow works on
        the last batch. The result does not depend on time, and is not used until `step` takes it.
        """
        messages = self.reader.read(limit)
        if messages is None or not len(messages.values):
            return None
        return messages, self.decoder.decode(messages)

    def follow(self, plans: PlanBook) -> None:
        """Judge content categories, labels and claimed conversions by these plans from now on."""
        self._wait()
        self.decoder.follow(plans)
        self._decode_again()

    def _wait(self) -> None:
        if self._ahead is not None:
            wait([self._ahead])

    def _decode_again(self) -> None:
        """Decode the messages that were read ahead again, by the present plans and deny-list."""
        ahead = self._ahead
        if ahead is not None and ahead.exception() is None and (read := ahead.result()) is not None:
            self._ahead = Future()
            self._ahead.set_result((read[0], self.decoder.decode(read[0])))

    def deny(self, listeners: U64) -> None:
        """From now on remove these listeners (sorted) from pixels; the next tick announces them."""
        if listeners is self._listed:
            return
        self._listed = listeners
        new = np.setdiff1d(listeners, self.denied)
        self.denied = np.union1d(self.denied, new)
        self._denied_now += new.tolist()
        self._denied_sum = sum_of(self.denied.tolist())
        self._wait()
        self.decoder.deny(self.denied)
        self._decode_again()

    def stop(self, number: int) -> Output:
        """A last tick before a planned stop, without a read, so that all messages read before are published.

        A partition without a pixel holds the flow's time: its unread messages may be older than messages that
        others have read.
        """
        self._empty = self._proven = False
        return Output([], [], self._tick(max(number, self.last_tick + 1), last=True))

    def _take(self, messages: Messages, batch: Batch) -> tuple[list[Pixels], list[tuple[bytes, bytes]]]:
        if self.live and len(batch.pixels):
            self._arrivals.append((float(np.mean(batch.pixels[:, WATERMARK])), len(batch.pixels)))
        if not self.first_ms:
            self.first_ms = first_receipt(batch.pixels, messages, batch.collector_marks)
        if messages.timestamps_ms:
            self._note_loss(messages.timestamps_ms, messages.lost)
        take_off(batch.pixels, self.denied)
        batch.conversions = conversions_without(batch.conversions, self.denied)
        before_ms = self.clock.watermark_ms
        skewed = self.clock.follow(batch.pixels, messages, batch.collector_marks)
        batch.pixels = with_refused(batch.pixels, batch.refused, before_ms)
        self.position = messages.next_position
        self._received += batch.received
        self._skewed += skewed
        self._marks += batch.marks
        if batch.methods:
            known_methods = {method for _, method in self.methods}
            new = [(ms, method) for method, ms in batch.methods.items() if method not in known_methods]
            self.methods = first_of((*self.methods, *new)) if new else self.methods
        metrics = instruments()
        metrics.received.labels(self.partition).inc(batch.received)
        metrics.marks.labels(self.partition).inc(batch.marks)
        metrics.clock_skewed.labels(self.partition).inc(skewed)
        for label, count in unknown_labels(batch.pixels) if self.decoder.planned else ():
            metrics.unknown_labels.labels(self.partition, label).inc(count)
        for _, rejection in batch.rejected:
            self._rejected[rejection.reason] = self._rejected.get(rejection.reason, 0) + 1
            metrics.rejected.labels(self.partition, rejection.reason).inc()
        letters = [letter(self.partition, position, rejection) for position, rejection in batch.rejected]
        self._byes += self._senders.byes(batch, messages)
        return self._splitter.split(batch, *self._senders.of(batch, messages)), letters

    def _note_loss(self, stamps_ms: Sequence[int], lost: int) -> None:
        """Take the timestamps of messages, before which others were lost."""
        if lost and 0 < self.last_ms < stamps_ms[0]:
            self.holes = joined((*self.holes, (self.last_ms, stamps_ms[0])))
        self.last_ms = stamps_ms[-1] or self.last_ms

    def _tick(self, number: int, last: bool = False) -> Receipt:
        first, self.last_tick = self.last_tick == 0, number
        holds = self.clock.holds
        held_by, held_why = holds.hold_of
        tick = Tick(
            sender=self.partition,
            senders=self.partitions,
            number=ENDED if self.ended else number,
            watermark_ms=self.clock.watermark_ms,
            # A live collector holds the flow, even if its low mark is too low for a watermark.
            holding=self.clock.watermark_ms > 0 or not self._empty or holds.least_ms is not None,
            ended=self.ended,
            position=self.position,
            greatest_ms=self.clock.greatest_ms,
            forgotten=tuple(self._denied_now),
            candidate_ms=self.clock.candidate_ms,
            first=first,
            low_mark_ms=holds.least_ms or 0,
            held_by=held_by,
            held_why=held_why,
            cloned=holds.cloned,
            methods=self.methods,
            last=last,
            first_ms=self.first_ms,
            skipped=self._start_skips,
            holes=self.holes,
            denied=self._denied_sum,
            in_history=self.reader.in_history,
        )
        receipt = Receipt(
            tick,
            self._received,
            self._rejected,
            self._skewed,
            self._arrivals,
            self._marks,
            now_ms=self._now_ms,
            proven=self._proven,
            byes=self._byes,
        )
        self._received = self._skewed = self._marks = 0
        self._rejected, self._arrivals, self._denied_now, self._byes = {}, [], [], []
        metrics, reader = instruments(), self.reader
        metrics.partition_watermark.labels(self.partition).set(self.clock.watermark_ms / 1000)
        metrics.low_mark.labels(self.partition).set((holds.least_ms or 0) / 1000)
        metrics.held_pixels.labels(self.partition).set(holds.while_held)
        metrics.wrong_clocks.labels(self.partition).set(holds.wrong_clocks)
        metrics.holds_evicted.labels(self.partition).inc(holds.evicted - self._evicted)
        metrics.holds_released.labels(self.partition).inc(holds.released - self._released)
        self._evicted, self._released = holds.evicted, holds.released
        ahead = max(0, reader.position - self.position) if self._ahead is not None else 0
        metrics.lag.labels(self.partition).set(reader.lag + ahead)
        metrics.kafka_errors.labels(self.partition).inc(reader.errors - self._errors)
        metrics.skipped.labels(self.partition).inc(reader.skipped - self._skipped)
        self._errors, self._skipped = reader.errors, reader.skipped
        return receipt

    def close(self) -> None:
        """Close the reader."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self.reader.close()

    def snapshot(self) -> tuple[Any, ...]:
        """The state after a tick as plain values, with the format."""
        clock = self.clock
        # The watermark is its own floor: with a larger bound it must not go back.
        times = clock.greatest_ms, clock.candidate_ms, clock.natural_ms, clock.start_ms, clock.watermark_ms
        state = *times, clock.ahead_ms, clock.missed_ms, clock.shown_ms
        denied, holds = self.denied.tobytes(), clock.holds.snapshot()
        log_id = self.reader.log_id if self.position else ""
        first = self.first_ms, self._start_skips, self.last_ms, self.holes
        return FORMAT, self.position, self.last_tick, state, denied, holds, self.methods, first, log_id

    def restore(self, state: tuple[Any, ...]) -> None:
        """Load a state of `snapshot`; the reader must be open at its position."""
        clock = self.clock
        _, _, self.last_tick, times, denied, holds, self.methods, first, _ = state
        self.first_ms, self._start_skips, self.last_ms, self.holes = first
        self.position = self.reader.position
        clock.greatest_ms, clock.candidate_ms, clock.floor_ms, clock.start_ms, clock.held_ms, *proofs = times
        clock.ahead_ms, clock.missed_ms, clock.shown_ms = proofs
        clock.holds.restore(holds)
        self._evicted, self._released = clock.holds.evicted, clock.holds.released
        self.denied = np.frombuffer(denied, np.uint64)
        self._denied_sum = sum_of(self.denied.tolist())
        self._wait()
        self.decoder.deny(self.denied)
        self._decode_again()


def position_of(state: tuple[Any, ...]) -> int:
    """The position at which a snapshot's partition continues.

    Raises:
        StateError: the state is of another format.
    """
    if state[0] != FORMAT:
        raise StateError(
            f"the recovery store holds source state of format {state[0]}, this version reads {FORMAT}: "
            "run the version that wrote it, or recompute from the log with --recompute and an empty recovery "
            "directory"
        )
    return int(state[1])


def log_of(state: tuple[Any, ...]) -> str:
    """The id of the log that the position is of; empty if unknown."""
    return str(state[-1])
