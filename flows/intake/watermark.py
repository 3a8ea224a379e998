"""Event time, watermark and first receipt of a source partition, from the log alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np

from connectors.stream import Messages
from flows.intake.holds import MAX_HOLD_MS, MAX_STATE, CollectorMarks, Holds
from flows.intake.schema import collector_in
from flows.model.delays import DELAYS, FIRST_MS
from flows.model.events import DELIVERED, IMPRESSION
from flows.model.pixel import CALLER_MINUTE_SHIFT, DELAY_SHIFT, INFO, POSITION, TS, WATERMARK
from flows.model.ticks import DAY_MS, MINUTE_MS, PROOF_INTERVAL_MS, RECENT_MS, STEP_MS
from flows.state.arrays import I64, U64, Int
from flows.state.kernel import lean

SKEW_MS: Final = 5 * MINUTE_MS
"""A clock that is clamped by more counts as `clock_skewed`."""

GREATEST, CANDIDATE, SKEWED = range(3)


@lean
def assign_event_times(pixels: U64, state: I64, bound_ms: Int, floor_ms: Int, bounded: bool) -> None:
    """Replace each pixel's clock by its event time, and its receipt by the watermark of the partition at this
    pixel.

    Event time is `ts` clamped to [received - 24 h, received + 60 s]. If no broker bounds the receipt (in a
    file it may be any time), a jump of more than 24 h counts only when the next pixel is within 24 h of it or
    later. An impression keeps the minute of its caller's clock, and every pixel the class of its delay.

    Args:
        pixels: (n, COLUMNS) uint64, changed in place.
        state: greatest event time, candidate for it (or 0), pixels with a skewed clock; int64[3], changed in
            place.
        bounded: whether a broker's timestamp bounds the receipts.
    """
    greatest = state[GREATEST]
    candidate = state[CANDIDATE]
    for i in range(len(pixels)):
        ts = np.int64(pixels[i, TS])
        received = np.int64(pixels[i, WATERMARK])
        if received > 0:
            clock_ms = ts
            ts = max(min(ts, received + MINUTE_MS), received - DAY_MS, np.int64(0))
            if abs(ts - clock_ms) > SKEW_MS:
                state[SKEWED] += 1
            moved = clock_ms // MINUTE_MS != ts // MINUTE_MS
            if moved and pixels[i, INFO] & np.uint64(0xFF) == np.uint64(IMPRESSION):
                caller_minute = np.uint64(max(np.int64(clock_ms // MINUTE_MS), np.int64(1)))
                pixels[i, INFO] |= caller_minute << np.uint64(CALLER_MINUTE_SHIFT)
            pixels[i, TS] = np.uint64(ts)
            if pixels[i, INFO] & np.uint64(0xFF) < np.uint64(DELIVERED):
                delay, bound = np.int64(1), np.int64(FIRST_MS)
                while received - ts > bound and delay < DELAYS:
                    delay, bound = delay + 1, bound * 2
                pixels[i, INFO] |= np.uint64(delay << DELAY_SHIFT)
        if candidate > 0:
            if ts >= candidate - DAY_MS:
                greatest = max(greatest, candidate)
            candidate = np.int64(0)
        if not bounded and ts > greatest + DAY_MS:
            candidate = ts
        else:
            greatest = max(greatest, ts)
        pixels[i, WATERMARK] = np.uint64(max(greatest - bound_ms, floor_ms, 0))
    state[GREATEST] = greatest
    state[CANDIDATE] = candidate


@dataclass
class PartitionClock:
    """The watermark of one source partition, which never decreases.

    The watermark of a partition that is read to its end advances by elapsed time. It then follows a line that
    lies `quiet_ms` behind the pixel that was furthest ahead of elapsed time. A pixel that moves the watermark
    by less than the elapsed time does not delay it. A pixel that moves it by more begins a new line. Time
    without proof, such as that of a restart, is added later, as far as the partitions of the log have
    advanced meanwhile.

    Args:
        bound_ms: out-of-orderness bound.
        quiet_ms: the lag behind elapsed time with which a quiet partition advances.
        greatest_ms, candidate_ms, floor_ms, held_ms: state from a snapshot.
        start_ms: the beginning of a partition without a pixel: the flow's watermark at its last proof of
            emptiness.
        ahead_ms: the proved time in excess of the advance by pixels.
        missed_ms: the elapsed time without proof that is not added yet.
        shown_ms: the time of the last proof, by the clock of `prove`; None without one.
    """

    bound_ms: int
    quiet_ms: int
    greatest_ms: int = 0
    candidate_ms: int = 0
    floor_ms: int = 0
    start_ms: int = 0
    held_ms: int = 0
    max_hold_ms: int = MAX_HOLD_MS
    max_state: int = MAX_STATE
    ahead_ms: int = field(default=0, compare=False)
    missed_ms: int = field(default=0, compare=False)
    shown_ms: int | None = field(default=None, compare=False)
    _proved_ms: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        self.holds = Holds(self.bound_ms, self.quiet_ms, self.max_hold_ms, self.max_state)

    @property
    def natural_ms(self) -> int:
        """The watermark that pixels alone would set, without waiting for collectors."""
        return max(self.greatest_ms - self.bound_ms, self.floor_ms, 0)

    @property
    def watermark_ms(self) -> int:
        """The watermark; 0 until a pixel or a mark sets it."""
        if self.holds.has_collectors and self.holds.least_ms is not None:
            return self.held_ms
        return max(self.natural_ms, self.held_ms)

    def judge(self, pixels: U64, bounded: bool = True) -> int:
        """Set the event times and watermarks of `pixels`, in place; returns the number of skewed clocks."""
        if not len(pixels):
            return 0
        if self.watermark_ms == 0:
            self.floor_ms = self.start_ms
        before_ms = self.watermark_ms
        state = np.array([self.greatest_ms, self.candidate_ms, 0], np.int64)
        assign_event_times(pixels, state, self.bound_ms, self.floor_ms, bounded)
        self.greatest_ms, self.candidate_ms = int(state[GREATEST]), int(state[CANDIDATE])
        self._moved(self.watermark_ms - before_ms, self.ahead_ms, self.missed_ms)
        return int(state[SKEWED])

    def _moved(self, by_ms: int, ahead_ms: int, missed_ms: int) -> None:
        self.ahead_ms = max(0, ahead_ms - by_ms)
        self.missed_ms = max(0, missed_ms - max(0, by_ms - ahead_ms))

    def follow(self, pixels: U64, messages: Messages, marks: CollectorMarks) -> int:
        """`judge` a batch's pixels, and bound the watermarks by the collectors that messages have named so
        far.

        `pixels` are those of `messages`, and are changed in place.
        """
        if not (self.holds.has_collectors or marks.collectors.any()):
            return self._judge_all(pixels, messages)
        if self.watermark_ms == 0:
            self.floor_ms = self.start_ms
        before_ms, natural_ms = self.watermark_ms, self.natural_ms
        ahead_ms, missed_ms = self.ahead_ms, self.missed_ms
        positions = messages.position_array()
        moments, marks = _stamped(pixels, positions, messages, marks)
        skewed = self._judge_all(pixels, messages)
        self.held_ms = self.holds.hold(pixels, positions, moments, marks, natural_ms, before_ms)
        self._end_hold()
        for collector in self.holds.unnamed():
            line = int(np.argmax(marks.collectors == collector))
            self.holds.name(collector, collector_in(messages.values[line]))
        self._moved(self.watermark_ms - before_ms, ahead_ms, missed_ms)
        return skewed

    def _end_hold(self) -> None:
        # Progress by low marks stays when pixels are again judged without low marks.
        if self.holds.least_ms is None:
            self.floor_ms = max(self.floor_ms, self.held_ms)

    def _judge_all(self, pixels: U64, messages: Messages) -> int:
        return sum(self.judge(part, bounded) for part, bounded in _by_bound(pixels, messages))

    def due(self, now_ms: int) -> bool:
        """True if another proof is due, by the clock of `prove`."""
        return self._proved_ms is None or now_ms - self._proved_ms >= PROOF_INTERVAL_MS

    def proved(self, now_ms: int) -> bool:
        """True if a recent proof exists that the partition was read to its end."""
        return self._proved_ms is not None and now_ms - self._proved_ms <= RECENT_MS

    def prove(self, now_ms: int, flow_ms: int = 0, head_ms: int = 0) -> None:
        """Advance by the time elapsed since the last proof, but by no more than `STEP_MS`.

        Call it after a proof that the partition was read to its end: an answer to a request sent after the
        last call. Time without proof does not count at once: in an outage, writers to the partition may have
        been blocked, too. It is added in steps, one for each proof, and never beyond `head_ms` - `quiet_ms`,
        so that a wrong clock has no effect.

        Args:
            now_ms: by a clock that continues through restarts, and never goes back within a process.
            flow_ms: the flow's watermark.
            head_ms: the greatest watermark of all partitions; 0 if unknown.
        """
        self._proved_ms = now_ms
        since_ms = 0 if self.shown_ms is None else max(0, now_ms - self.shown_ms)
        elapsed_ms, self.shown_ms = min(since_ms, STEP_MS), now_ms
        if self.holds.has_collectors:
            self.held_ms = self.holds.elapse(elapsed_ms, self.natural_ms, self.watermark_ms)
            self._end_hold()
            if self.holds.least_ms is not None:
                return
        if self.watermark_ms == 0:
            self.start_ms = max(self.start_ms, flow_ms)
            return
        self.missed_ms += since_ms - elapsed_ms
        self.ahead_ms += elapsed_ms
        if (step_ms := self.ahead_ms - self.quiet_ms) > 0:
            behind_ms = head_ms - self.quiet_ms - self.watermark_ms - step_ms
            more_ms = max(0, min(self.missed_ms, STEP_MS - step_ms, behind_ms))
            self.missed_ms -= more_ms
            self.floor_ms = self.watermark_ms + step_ms + more_ms
            self.ahead_ms = self.quiet_ms


def _by_bound(pixels: U64, messages: Messages) -> list[tuple[U64, bool]]:
    """The pixels in order, split where a broker's timestamp begins or ceases to bound the receipts."""
    stamps = messages.timestamps_ms
    if stamps is None or not len(pixels):
        return [(pixels, False)]
    if min(stamps) > 0:
        return [(pixels, True)]
    places = _places(messages.position_array(), pixels)
    bounded = np.asarray(stamps)[places] > 0
    bounds = [0, *(np.flatnonzero(np.diff(bounded)) + 1).tolist(), len(pixels)]
    return [(pixels[a:b], bool(bounded[a])) for a, b in pairwise(bounds)]


def _places(positions: I64, pixels: U64) -> I64:
    """For each pixel, the place of its message in `positions`."""
    places: I64 = pixels[:, POSITION].astype(np.int64)
    if len(places) and positions[-1] - positions[0] == len(positions) - 1:  # there is no gap
        places -= positions[0]
    else:
        places = np.searchsorted(positions, places)
    return places


def _stamped(
    pixels: U64, positions: I64, messages: Messages, marks: CollectorMarks
) -> tuple[I64, CollectorMarks]:
    """The times at which messages were written to the log; and the low marks, bounded by these times, and
    clocks.
    """
    stamps = np.array(messages.timestamps_ms or [], np.int64)
    moments, lows, nows = (np.empty(len(positions), np.int64) for _ in range(3))
    _stamp(pixels, positions, stamps, marks, moments, lows, nows)
    return moments, CollectorMarks(marks.collectors, lows, nows, marks.logged)


@lean
def _stamp(
    pixels: U64, positions: I64, stamps: I64, marks: CollectorMarks, moments: I64, lows: I64, nows: I64
) -> None:
    """Fill in `moments`, `lows` and `nows` in one pass.

    Without a broker's timestamp a message has its pixel's receipt. A mark has its own `logged_ms`, else its
    clock, else its low mark, else no time.
    """
    pixel = 0
    for i in range(len(positions)):
        stamp = stamps[i] if len(stamps) else np.int64(0)
        low, now, logged = marks.lows[i], marks.nows[i], marks.logged[i]
        moment = stamp
        if stamp <= 0:
            moment = logged if logged > 0 else now if now > 0 else max(low, np.int64(0))
        if pixel < len(pixels) and np.int64(pixels[pixel, POSITION]) == positions[i]:
            if stamp <= 0 and pixels[pixel, WATERMARK] > np.uint64(0):
                moment = np.int64(pixels[pixel, WATERMARK])
            pixel += 1
        moments[i] = moment
        lows[i] = min(low, stamp) if stamp > 0 else low
        # Without the time at which a mark was written to the log, its clock cannot be judged.
        nows[i] = now if stamp > 0 or logged > 0 else np.int64(0)


def first_receipt(pixels: U64, messages: Messages, marks: CollectorMarks) -> int:
    """The receipt of the first message with a receipt, in epoch ms; 0 if no message has one.

    The receipt of a pixel is its collector's, bounded by the broker's timestamp; else that timestamp; else
    its caller's clock. The receipt of another message is the broker's timestamp, else its collector's low
    mark.

    Args:
        pixels: of the messages, with unchanged times.
    """
    positions = np.array(messages.positions, np.int64)
    moments = np.maximum(marks.lows, 0)
    if messages.timestamps_ms is not None:
        stamps = np.array(messages.timestamps_ms, np.int64)
        moments = np.where(stamps > 0, stamps, moments)
    received, own = pixels[:, WATERMARK].astype(np.int64), pixels[:, TS].astype(np.int64)
    places = np.searchsorted(positions, pixels[:, POSITION].astype(np.int64))
    moments[places] = np.where(received > 0, received, own)
    timed = np.flatnonzero(moments)
    return int(moments[timed[0]]) if len(timed) else 0
