"""Steps that work by cuts: a core gets all messages of its senders between two cuts at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, Protocol, TypeVar

from bytewax.operators import StatefulBatchLogic

from flows.engine.aligner import Aligner
from flows.model.client_counts import ClientBatch, ClientCounts
from flows.model.messages import (
    CreditBatch,
    Decided,
    Message,
    Receipt,
    RowBatch,
    Settled,
    TouchBatch,
    UnjoinedBatch,
)
from flows.model.ticks import Cut

M = TypeVar(
    "M",
    RowBatch | CreditBatch,
    TouchBatch,
    UnjoinedBatch,
    ClientBatch,
    Decided | ClientCounts,
    Receipt | Settled,
)
T = TypeVar("T")


class Core(Protocol):
    """State that can be packed."""

    def gather(self) -> None: ...

    def snapshot(self) -> Any: ...

    def restore(self, state: Any) -> None: ...


class Step(StatefulBatchLogic[T, Message, Any], Generic[T]):
    """A step that reports its cuts, at which its state is a function of the cut alone.

    Attributes: at_cut: called at each cut, before any later item is taken in. It may call `snapshot`.
    """

    at_cut: Callable[[Cut], None] = staticmethod(lambda _: None)

    def gather(self) -> None:
        """Copy a part of what the next snapshot needs; called at cuts that are no saves."""

    def settle(self) -> None:
        """Wait until all output is safe; called in another thread."""

    def close(self) -> None:
        """Close the step's resources; called after the last message."""

    def abandon(self) -> None:
        """Stop the threads of the step; called when the flow has failed."""


class CutStep(Step[M], Generic[M]):
    """A core after an aligner that gathers the messages of all senders until they have come to a cut.

    Args:
        core: the stored part of the step, besides the aligner's state.
        senders: the senders that a cut waits for.
        state: the step's snapshot; None at its beginning.

    Raises:
        StateError: the state is of another format.
    """

    def __init__(self, core: Core, senders: Iterable[int | str], state: tuple[Any, ...] | None) -> None:
        self._core = core
        self._aligner: Aligner[str | int, M] = Aligner(frozenset(senders))
        if state is not None:
            core.restore(state[0])
            self._aligner.restore(state[1])

    @abstractmethod
    def cut(self, messages: list[M]) -> Iterable[Message]:
        """Process the messages since the last cut; returns the messages to send. Called once a cut."""

    def let_in(self, message: M) -> Iterator[list[M]]:
        """Pass a message to the aligner; yields the messages of each cut that it completes."""
        assert not isinstance(message, Receipt), "its senders are those of its tick"
        return self._aligner.cuts(message.sender, message, message.cut.number, message.cut.first)

    def on_batch(self, values: list[M]) -> tuple[Iterable[Message], bool]:
        """Gather messages, and process the cuts that they complete."""
        out: list[Message] = []
        for message in values:
            for gathered in self.let_in(message):
                out += self.cut(gathered)
                self.at_cut(next(one.cut for one in gathered if not isinstance(one, Receipt)))
        return out, StatefulBatchLogic.RETAIN

    def gather(self) -> None:
        """Gather the core's changes."""
        self._core.gather()

    def snapshot(self) -> tuple[Any, ...]:
        """The core's state and the aligner's, at a cut."""
        return self._core.snapshot(), self._aligner.snapshot()
