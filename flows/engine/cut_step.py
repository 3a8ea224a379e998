"""A step that works by cuts: a core is given the messages of all its senders between two cuts at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from bytewax.operators import StatefulBatchLogic

from flows.engine.aligner import Aligner
from flows.model.clients import ClientBatch, ClientCounts
from flows.model.messages import (
    CreditBatch,
    Decided,
    Message,
    Pixels,
    Receipt,
    RowBatch,
    Settled,
    TouchBatch,
    UnjoinedBatch,
)
from flows.model.pixel import COLUMNS, ConversionPixel
from flows.model.ticks import Tick

FromShard = (
    RowBatch | CreditBatch | TouchBatch | UnjoinedBatch | ClientBatch | Decided | ClientCounts | Settled
)
M = TypeVar(
    "M",
    RowBatch | CreditBatch,
    TouchBatch,
    UnjoinedBatch,
    ClientBatch,
    Decided | ClientCounts,
    Receipt | Settled,
)


class Core(Protocol):
    """State that can be packed."""

    def snapshot(self) -> Any: ...

    def restore(self, state: Any) -> None: ...


class CutStep(StatefulBatchLogic[M, Message, tuple[Any, ...]], Generic[M]):
    """A core behind an aligner that gathers what the senders send until all have come to a cut.

    Args:
        core: what is stored of the step, beside the aligner's state.
        senders: for whom a cut waits.
        state: the step's snapshot; None: it begins.

    Raises:
        StateError: the state is of another format.
    """

    def __init__(self, core: Core, senders: Iterable[int | str], state: tuple[Any, ...] | None) -> None:
        self._core = core
        self._aligner: Aligner[str | int, M] = Aligner(frozenset(senders))
        if state is not None:
            core.restore(state[0])
            self._aligner.restore(state[1], thawed)

    @abstractmethod
    def cut(self, messages: list[M]) -> Iterable[Message]:
        """Give what follows from the messages since the cut before; called once a cut."""

    def let_in(self, message: M) -> Iterator[list[M]]:
        """Hand a message to the aligner; yields the messages of each cut that it completes."""
        assert not isinstance(message, Receipt), "its senders are those of its tick"
        return self._aligner.cuts(message.sender, message, message.cut.number, message.cut.first)

    def on_batch(self, values: list[M]) -> tuple[Iterable[Message], bool]:
        """Gather messages; the cuts that they complete."""
        cuts = (gathered for message in values for gathered in self.let_in(message))
        return [sent for gathered in cuts for sent in self.cut(gathered)], StatefulBatchLogic.RETAIN

    def snapshot(self) -> tuple[Any, ...]:
        """The core's state and the aligner's."""
        return self._core.snapshot(), self._aligner.snapshot(plain)


def plain(message: Pixels | Tick | FromShard | Receipt) -> tuple[Any, ...]:
    """Plain state of a message that waits for a cut. Only what partitions send can: the messages of all
    shards at a cut are of one epoch.
    """
    match message:
        case Tick():
            return ("tick", *astuple(message))
        case Receipt():
            return ("receipt", astuple(message.tick), *message[1:])
        case Pixels(sender, to, pixels, combos, conversions):
            apart = [(row.tobytes(), tuple(conversion)) for row, conversion in conversions]
            return ("pixels", sender, to, pixels.tobytes(), combos, apart)
    raise AssertionError(f"an epoch holds a cut whole, and has half of one: {message}")


def thawed(state: tuple[Any, ...]) -> Any:
    """Restore a message from `plain`'s state."""
    match state:
        case ("tick", *fields):
            return Tick(*fields)
        case ("receipt", tick, *counts):
            return Receipt(Tick(*tick), *counts)
    _, sender, to, pixels, combos, conversions = state
    apart = [(np.frombuffer(row, np.uint64), ConversionPixel(*conversion)) for row, conversion in conversions]
    return Pixels(sender, to, np.frombuffer(pixels, np.uint64).reshape(-1, COLUMNS).copy(), combos, apart)
