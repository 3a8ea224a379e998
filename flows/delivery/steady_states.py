"""States that hold still: a state by ratio changes at a border of minutes, once the new one has held for a
while.

States by the clock or by the booking (`not_started`, `paused`, `complete`, …) come and go at once, and
`warming_up` goes at once. The memory is in the save, and a function of the cuts.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from flows.delivery.pacing import STATES, STILL, Delivery, State
from flows.model.flight import MINUTE_MS

RATIOS: Final = frozenset(STATES) - STILL - {"unknown_before"}
"""The states by ratio."""
EARLY: Final[State] = "warming_up"


class Memory(NamedTuple):
    """The state of a row, and the one that may follow it.

    Args:
        candidate: a state whose condition holds; None if that of `state` holds.
        since_ms: the border of minutes from which on it holds.
        border_ms: the border at which this was last looked at.
    """

    state: State
    candidate: State | None
    since_ms: int
    border_ms: int


def steady(delivery: Delivery, memory: Memory | None, now_ms: int, hold_ms: int) -> Memory:
    """The memory after a border of minutes.

    Args:
        delivery: of now; its state is by the bands around that of `memory`.
        hold_ms: the time for which a new condition must hold.

    Between two borders that were looked at, a condition is taken to have held from the first one after the
    earlier on: a replay, or a flow that catches up, looks at few of them.
    """
    border_ms, new = now_ms // MINUTE_MS * MINUTE_MS, delivery.state
    at_once = memory is None or memory.state not in RATIOS or memory.state == EARLY
    if memory is None or new not in RATIOS or delivery.indicator is None:
        return Memory(new, None, 0, border_ms)
    if memory.state in RATIOS and border_ms <= memory.border_ms:
        return memory
    if at_once or new == memory.state:
        return Memory(new, None, 0, border_ms)
    since_ms = memory.since_ms if memory.candidate == new else memory.border_ms + MINUTE_MS
    if border_ms - since_ms >= hold_ms:
        return Memory(new, None, 0, border_ms)
    return Memory(memory.state, new, since_ms, border_ms)


def unmoved(memory: Memory, now_ms: int) -> Memory:
    """The memory of a row that was not judged: its state, without a candidate."""
    return Memory(memory.state, None, 0, now_ms // MINUTE_MS * MINUTE_MS)
