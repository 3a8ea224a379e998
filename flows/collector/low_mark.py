"""The low mark: everything that a collector has not yet put into the log was received no earlier.

Without it a spool would be pointless: once Kafka is back, one fresh pixel would move the watermark past all
resting events, and all of these would be too late.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class Call:
    """A call that is in hand: its time of receipt, and whether all of it is in the log or on the spool."""

    received_ms: int
    is_done: bool = False


@dataclass
class InHand:
    """Calls that were accepted, and are neither in the log nor on the spool, by their times of receipt.

    Times of receipt never go back, so the first call that is not done has the least.
    """

    _calls: deque[Call] = field(default_factory=deque)

    def take(self, received_ms: int) -> Call:
        """Note an accepted call, which is in hand until `finish`."""
        call = Call(received_ms)
        self._calls.append(call)
        return call

    def finish(self, call: Call) -> None:
        """Note that all of a call is in the log, on the spool, or refused."""
        call.is_done = True
        while self._calls and self._calls[0].is_done:
            self._calls.popleft()

    @property
    def least_ms(self) -> int | None:
        """The least time of receipt of the calls in hand; None if there are none."""
        return self._calls[0].received_ms if self._calls else None

    def __len__(self) -> int:
        return len(self._calls)


def low_mark(in_hand_ms: int | None, resting_ms: int | None, now_ms: int) -> int:
    """The least time of receipt of events that are not in the log; `now_ms` if there are none."""
    return min(time_ms for time_ms in (now_ms, in_hand_ms, resting_ms) if time_ms is not None)
