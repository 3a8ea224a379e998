"""Makes a history that fails short: without faults, messages and workers that it does not need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from simulation.history import History
from simulation.play import Result

T = TypeVar("T")
MAX_TRIES = 150


def shrunk(history: History, failing: Callable[[History], Result], tries: int = MAX_TRIES) -> Result:
    """The shortest history that was found to fail yet, in the way of the first one.

    Args:
        failing: plays a history.
        tries: so many plays at most.
    """
    best = failing(history)
    assert best.wrong, "it does not fail"
    left, kind = tries, _kind(best.wrong)

    def still(some: History) -> bool:
        nonlocal best, left
        if left <= 0:
            return False
        left -= 1
        found = failing(some)
        fails = _kind(found.wrong) == kind
        if fails:
            best = found
        return fails

    progress = True
    while progress and left > 0:
        progress = any(still(one) for one in _simpler(best.history))
    return best


def _kind(wrong: str) -> str:
    """The words of what is wrong without names and numbers, the first ones."""
    return " ".join(word for word in wrong.split() if word.isalpha())[:30]


def _simpler(history: History) -> Iterator[History]:
    """Histories with less in them, the boldest cuts first."""
    for faults in _without(history.faults):
        yield replace(history, faults=tuple(faults))
    if len(history.seams) > 1:
        yield replace(history, seams=history.seams[:1])
    if history.seams:
        yield replace(history, seams=(), begin_ms=0)
    if set(history.workers) != {1}:
        yield replace(history, workers=(1,))
    if set(history.intervals_ms) != {1000}:
        yield replace(history, intervals_ms=(1000,))
    if len(set(history.lateness_ms)) > 1:
        yield replace(history, lateness_ms=history.lateness_ms[:1])
    if history.own_disks:
        yield replace(history, own_disks=False)
    if history.recompute:
        yield replace(history, recompute=False)
    for name, some in history.entries.items():
        for fewer in _without(some[:-1]):
            yield replace(history, entries={**history.entries, name: [*fewer, some[-1]]})


def _without(some: Sequence[T]) -> Iterator[Sequence[T]]:
    """A list without a half of it, a quarter, and so on to one."""
    size = len(some)
    while size:
        for begin in range(0, len(some), size):
            yield [*some[:begin], *some[begin + size :]]
        size //= 2
