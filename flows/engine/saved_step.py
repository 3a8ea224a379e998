"""A step whose state is saved: it copies changes at cuts, and reports durable saves."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

import structlog
from bytewax.operators import StatefulBatchLogic

from flows.engine.copies import Copy
from flows.engine.cut_step import Step
from flows.engine.save_threads import Work, wait_for_all
from flows.engine.saves import Saves
from flows.instruments import instruments
from flows.model.messages import Durable, Message, key_of
from flows.model.ticks import Cut
from flows.state import saves as disk
from flows.state.journal import taking

MOST_UNDER_WAY: Final = 2
"""The greatest number of unfinished saves of a step; before a further save it waits for the oldest."""
LOGGED_FROM_S: Final = 0.1
"""Seconds from which a wait for the disk is logged; a shorter one is only counted."""
_OPEN: Final[list[Step[Any]]] = []


def drain() -> None:
    """Abandon the steps of a flow that failed, which may have threads, and wait for work that needs the
    recovery directory.
    """
    while _OPEN:
        _OPEN.pop().abandon()
    wait_for_all()


class Saved(StatefulBatchLogic[Any, Message, None]):
    """A step whose state is saved at cuts, and restored when its key's first message comes.

    Args:
        step: its name in saves.
        build: returns the logic from its state, or from None at its beginning.
    """

    def __init__(self, saves: Saves, step: str, build: Callable[[Any], Step[Any]]) -> None:
        self._saves, self._step, self._build = saves, step, build
        self._key = ""
        self._logic: Step[Any] | None = None
        self._under_way: deque[Work] = deque()

    def on_batch(self, values: list[Any]) -> tuple[Iterable[Message], bool]:
        """Run the logic; also returns the signs of durable saves."""
        if self._logic is None:
            self._key = key_of(values[0])
            self._logic = self._build(self._saves.state(self._step, self._key))
            self._logic.at_cut = self.save
            _OPEN.append(self._logic)
        out, gone = self._logic.on_batch(values)
        assert not gone, "a step keeps its state"
        if self._under_way:
            out = [*out, *self._durable()]
        return out, StatefulBatchLogic.RETAIN

    def on_eof(self) -> tuple[Iterable[Message], bool]:
        """Wait for saves under way, and close the logic."""
        out = self._durable(wait=True)
        if self._logic is not None:
            self._logic.close()
            if self._logic in _OPEN:
                _OPEN.remove(self._logic)
        return out, StatefulBatchLogic.RETAIN

    def snapshot(self) -> None:
        """Give Bytewax nothing at the end of its epoch."""

    def save(self, cut: Cut) -> None:
        """Save the state at a cut that is a save. At any other cut copy a part of what the next save
        needs.
        """
        if not self._saves.wanted or self._logic is None:
            return
        if cut.save and len(self._under_way) >= MOST_UNDER_WAY:
            self._wait_for(self._under_way[-MOST_UNDER_WAY])
        began_s = time.monotonic()
        if cut.save:
            self._copy(cut, self._logic)
        else:
            self._logic.gather()
        instruments().save_pause.inc(time.monotonic() - began_s)

    def _copy(self, cut: Cut, logic: Step[Any]) -> None:
        """Copy the state, which a thread then writes."""
        with taking(cut.number) as listed:
            state = disk.encode(logic.snapshot())
        copy = Copy(self._step, self._key, state, listed, logic.settle)
        self._under_way.append(self._saves.put(cut, copy))

    def _wait_for(self, save: Work) -> None:
        if save.done():
            return
        began_s = time.monotonic()
        save.result()
        waited_s = time.monotonic() - began_s
        instruments().save_waits.inc(waited_s)
        if waited_s < LOGGED_FROM_S:
            return
        structlog.get_logger("saves").warning(
            "the flow waited for a save, behind the disk or an output",
            step=self._step,
            key=self._key,
            seconds=round(waited_s, 3),
        )

    def _durable(self, wait: bool = False) -> list[Durable]:
        """The signs of durable saves, in the order of cuts."""
        signs = []
        while self._under_way and (wait or self._under_way[0].done()):
            signs.append(self._under_way.popleft().result())
        return signs
