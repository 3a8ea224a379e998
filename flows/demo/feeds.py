"""Reports changes of the simulator's feed in lines: it waits for Kafka, has ended, or is silent."""

from __future__ import annotations

import time

from rich.console import Console
from rich.text import Text

from flows.demo.produce import WAITS_S, Simulator
from flows.viewers.reader import Snapshot
from flows.viewers.silence import sentences, silence_of

SETTLED_S = 3.0
"""The time, in s, without a change after which the silent units are reported, since they fall silent one by
one.
"""


class Feeds:
    """Reports each change once.

    Args:
        console: a terminal, where the head of the table names silent feeds, or a stream, where lines do.
    """

    def __init__(self, simulator: Simulator, console: Console) -> None:
        self._simulator, self._console = simulator, console
        self._lost = self._waiting = False
        self._silent: frozenset[str] = frozenset()
        self._reported: frozenset[str] = frozenset()
        self._since_s = time.monotonic()

    def lose(self) -> None:
        """End the simulator's producer."""
        if not self._lost:
            self._lost = True
            self._simulator.end()
            self._print("the simulator's producer has ended, as --lose-feed asks", "bold")

    def look(self, snapshot: Snapshot) -> None:
        """Report the changes since the last look.

        Raises:
            BaseException: the simulator's producer has failed.
        """
        waits_s = self._simulator.waits_s()
        if waits_s >= WAITS_S and not self._waiting:
            self._waiting = True
            self._print(
                f"the simulator's producer waits: Kafka has taken nothing for {waits_s:.0f} s. It resumes by "
                "itself, and nothing is lost",
                "bold red",
            )
        elif waits_s < WAITS_S and self._waiting:
            self._waiting = False
            self._print("the simulator's producer sends again", "bold green")
        self._look_for_silence(snapshot)

    def _look_for_silence(self, snapshot: Snapshot) -> None:
        now_s, silence = time.monotonic(), silence_of(snapshot)
        silent = frozenset(unit.key for unit in silence.units)
        if silent != self._silent:
            self._silent, self._since_s = silent, now_s
        if silent == self._reported or now_s - self._since_s < SETTLED_S:
            return
        self._reported = silent
        if self._console.is_terminal:
            return
        sentences_of_feeds = sentences(silence, 1000 * time.time()) or ("no feed is silent any more",)
        self._print(" ".join(sentences_of_feeds), "bold red" if silent else "bold green")

    def _print(self, words: str, style: str) -> None:
        self._console.print(Text(words, style), soft_wrap=True)
