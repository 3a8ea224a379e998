"""Aligned barriers: at a mark, a step with several senders has received one exact prefix of each sender's
stream.

Every sender sends items and numbered marks, in order. Items after a mark are held back until all other
senders have sent a mark of that number or a later one (K. M. Chandy and L. Lamport, "Distributed Snapshots",
1985). The cuts and the items between them depend on the senders' streams alone, not on how they interleave.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from flows.errors import StateError

S = TypeVar("S", bound=Hashable)
T = TypeVar("T")


@dataclass
class Aligner(Generic[S, T]):
    """Orders the items of several senders between their marks.

    Attributes:
        expected: the senders to wait for.
        let_in: the number of each sender's latest admitted mark.
        released: the number of the latest cut.
        awaited: the senders whose mark after that cut has not come.
        waiting: the items of fast senders after their latest mark, as (item, mark number or None).
        inside: the items admitted since the latest cut, if `cuts` gathers them.
    """

    expected: frozenset[S] = frozenset()
    let_in: dict[S, int] = field(default_factory=dict)
    released: int = -1
    awaited: set[S] = field(default_factory=set)
    waiting: dict[S, deque[tuple[T, int | None]]] = field(default_factory=dict)
    inside: list[T] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._await()

    def expect(self, senders: frozenset[S]) -> None:
        """From now on wait for exactly these senders, and drop the state of others."""
        if senders != self.expected:
            self.expected = senders
            self.let_in = {sender: number for sender, number in self.let_in.items() if sender in senders}
            self._await()

    def push(
        self, sender: S, item: T, mark: int | None = None, first: bool = True
    ) -> Iterator[tuple[T | None, int | None]]:
        """Take in one item of `sender`, which is a mark if it has a number. Yields (item, None) in order, and
        (None, number) at each cut.

        Args:
            first: whether the mark is the sender's first one ever.

        Raises:
            StateError: the mark is not the first, and this aligner has no earlier mark of the sender.
        """
        if mark is not None and not first and self.released < 0 and sender not in self.let_in:
            raise StateError(
                f"a step begins anew behind {sender}, which does not: the recovery store has lost its state. "
                "Restore the recovery directory from a backup, or recompute from the log with --recompute "
                "and an empty one"
            )
        if self.waiting.get(sender) or self.let_in.get(sender, -1) > self.released:
            self.waiting.setdefault(sender, deque()).append((item, mark))
        else:
            yield item, None
            if mark is not None:
                self._mark(sender, mark)
        if mark is not None:  # held marks too: the sender that blocked the cut may have left
            yield from self._release()

    def cuts(self, sender: S, item: T, mark: int | None = None, first: bool = True) -> Iterator[list[T]]:
        """Take in one item as `push` does, and gather; yields the items of each cut, in order.

        Raises:
            StateError: see `push`.
        """
        for let_in, number in self.push(sender, item, mark, first):
            if let_in is not None:
                self.inside.append(let_in)
            elif number is not None:
                inside, self.inside = self.inside, []
                yield inside

    def _await(self) -> None:
        self.awaited = {one for one in self.expected if self.let_in.get(one, -1) <= self.released}

    def _mark(self, sender: S, number: int) -> None:
        self.let_in[sender] = number
        if number > self.released:
            self.awaited.discard(sender)

    def _release(self) -> Iterator[tuple[T | None, int | None]]:
        while self.expected and not self.awaited:
            self.released = min(map(self.let_in.__getitem__, self.expected))
            self._await()
            yield None, self.released
            for waiting in sorted(self.waiting, key=str):
                queue = self.waiting[waiting]
                while queue and self.let_in.get(waiting, -1) <= self.released:
                    held_item, held_mark = queue.popleft()
                    yield held_item, None
                    if held_mark is not None:
                        self._mark(waiting, held_mark)
                if not queue:
                    del self.waiting[waiting]

    def snapshot(self) -> tuple[dict[S, int], int]:
        """The state at a cut as plain values, without `expected`; items after the cut are read again."""
        return dict(self.let_in), self.released

    def restore(self, state: tuple[dict[S, int], int]) -> None:
        """Load a state of `snapshot`."""
        numbers, self.released = state
        self.let_in = dict(numbers)
        self._await()
