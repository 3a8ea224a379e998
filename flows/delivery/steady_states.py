"""Steady states: a state by ratio changes at a border of minutes, once the condition of the new state has
held for `hold_ms`.

States by the clock or by the booking (`not_started`, `paused`, `complete`, …) begin and end at once, and
`warming_up` ends at once. The memory is a function of the cuts, and a save has it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from flows.delivery.pacing import STATES, STILL, Delivery, State
from flows.model.flight import MINUTE_MS

RATIOS: Final = frozenset(STATES) - STILL - {"unknown_before"}
"""The states by ratio, for which a condition must hold for a time."""
EARLY: Final[State] = "warming_up"


class Memory(NamedTuple):
    """The state of a row, and the state that may follow it.

    Args:
        candidate: another state whose condition holds; None if the condition of `state` holds.
        since_ms: the border of minutes from which on the candidate's condition holds; 0 without a candidate.
        border_ms: the border of minutes of the last look.
    """

    state: State
    candidate: State | None
    since_ms: int
    border_ms: int


def steady(delivery: Delivery, memory: Memory | None, now_ms: int, hold_ms: int) -> Memory:
    """The memory after a border of minutes.

    A replay, or a flow that catches up, looks at few borders. A condition is therefore taken to hold from the
    first border after the last look.

    Args:
        delivery: the present delivery, with the state by the bands around the state of `memory`.
        hold_ms: the time for which a new condition must hold before it is the state.
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
    """The memory of an unjudged row: its state, without a candidate."""
    return Memory(memory.state, None, 0, now_ms // MINUTE_MS * MINUTE_MS)
