"""The tick clock: one clock for all source partitions of all members, independent of their wall clocks.

Each process takes the number once from one clock for all, Redis's, and counts on from there by elapsed time.
A higher number from a save or a sender raises it. A sender's number is ahead of the clock's only for as long
as its message takes (L. Lamport, "Time, Clocks, and the Ordering of Events", 1978). The aligner therefore
never waits until the numbers of slower senders catch up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from operator import itemgetter
from threading import Lock
from typing import Final, NamedTuple

from connectors.redis import connect, read_rows, server_clock
from flows.model.ticks import ENDED, Cut, boot_ms
from flows.publish import number_of, positions_key, positions_of
from flows.settings import Settings


class Published(NamedTuple):
    """The last published cut: its number (-1 without one), positions and watermark."""

    number: int
    positions: dict[str, int]
    watermark_ms: int


NOTHING: Final = Published(-1, {}, 0)
LATER: Final = itemgetter(0, 2)
"""Orders by number, then by watermark. Number and positions are read one after another, and may belong to
different cuts.
"""


class Anchor(NamedTuple):
    """The anchor of tick numbers: epoch milliseconds, and the last published cut."""

    now_ms: int
    published: Published = NOTHING


def redis_anchor(settings: Settings) -> Anchor:
    """Redis's clock, and the cut of its `meta` and of its positions.

    Raises:
        ConnectError: Redis does not serve.
    """
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    now_ms, rev = server_clock(client, f"{settings.rows_at}:meta", "rev")
    (position_fields,) = read_rows(client, [positions_key(settings.rows_at)])
    client.close()
    number = -1 if rev is None else number_of({"rev": rev}, "rev")
    return Anchor(
        now_ms, Published(number, positions_of(position_fields), number_of(position_fields, "watermark_ms"))
    )


@dataclass
class TickClock:
    """The number of the due tick, for all of a process.

    Args:
        interval_ms: length of a tick.
        elapsed_ms: a monotonic clock.

    Attributes:
        watermark_ms: the flow's watermark, as far as this process has it; 0 if unknown.
        head_ms: the greatest watermark of all partitions, likewise.
        published: the last published cut, as `begin` found it.
    """

    interval_ms: int
    elapsed_ms: Callable[[], int] = boot_ms
    watermark_ms: int = 0
    head_ms: int = 0
    published: Published = NOTHING
    _ahead_ms: int | None = None
    _anchor_ms: int = 0
    _lock: Lock = field(default_factory=Lock)

    def begin(self, anchor: Callable[[], Anchor], live: bool = True) -> None:
        """Take the number, unless it has been taken: the first of a process's threads does it for all. A log
        that ends defines all of its time itself, so `live` is False there.
        """
        with self._lock:
            if self._ahead_ms is None:
                now_ms, published = anchor()
                self.published = published if live else NOTHING
                elapsed_ms = self.elapsed_ms()
                self._anchor_ms = now_ms - elapsed_ms
                self._ahead_ms = max(now_ms, (published.number + 1) * self.interval_ms) - elapsed_ms

    @property
    def anchored_ms(self) -> int:
        """Epoch milliseconds: the anchor's clock at the start, plus the elapsed time."""
        return self._anchor_ms + self.elapsed_ms()

    @property
    def _now_ms(self) -> int:
        return (self._ahead_ms or 0) + self.elapsed_ms()

    @property
    def number(self) -> int:
        """The number of the due tick; it grows by one an interval."""
        return self._now_ms // self.interval_ms

    def tick(self, every: int = 1) -> tuple[int, int]:
        """The number of the due tick among each `every`th, and the time until the next of them, in ms. Both
        are as of one time, so that a reader that is busy across the next tick does not miss it.
        """
        now_ms, step_ms = self._now_ms, every * self.interval_ms
        return now_ms // step_ms * every, step_ms - now_ms % step_ms

    def raise_to(self, number: int) -> None:
        """Raise the number to at least `number`, which a sender has sent or a snapshot holds."""
        # The mark of a log's end is no number of a tick.
        if number < ENDED and number > self.number:
            with self._lock:
                self._ahead_ms = (self._ahead_ms or 0) + max(0, number * self.interval_ms - self._now_ms)

    @property
    def ahead_ms(self) -> int:
        """The numbers' lead over the anchor's clock, in ms."""
        return (self._ahead_ms or 0) - self._anchor_ms

    def continue_from(self, interval_ms: int, ahead_ms: int) -> None:
        """Raise the number to at least the clock of an earlier execution, which went on counting. A Redis
        that was emptied does not show what was published. The call does nothing with an interval of 0, which
        stands for no earlier execution.
        """
        if interval_ms:
            self.raise_to((self.anchored_ms + ahead_ms) // interval_ms + 1)

    def at_least_published(self, cut: Cut) -> Cut:
        """The cut, with the watermark of an earlier execution if the cut has passed all that the execution
        published.

        Minutes may be final by that watermark. The log itself may never reach it again, since the watermark
        depended on the order of reading, or on a time at which the log was empty.
        """
        _, positions, watermark_ms = self.published
        if watermark_ms <= cut.watermark_ms or cut.ended:
            return cut
        return replace(cut, watermark_ms=watermark_ms) if cut.reaches(positions) else cut

    def note_watermarks(self, watermark_ms: int, head_ms: int = 0) -> None:
        """Take the least and the greatest watermark of all partitions at a cut."""
        self.watermark_ms = max(self.watermark_ms, watermark_ms)
        self.head_ms = max(self.head_ms, head_ms)
