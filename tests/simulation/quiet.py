"""A time in which nothing but junk comes: the flow's time has to go on by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from simulation.history import BOUND_MS, JUNK_MS, QUIET_MS, History
from simulation.model import Model
from simulation.world import World, Wrong

STEP_MS: Final = 300
LAG_MS: Final = 8_000
"""So much later than partitions are quiet the flow's time may go on."""
SLEPT_MS: Final = 2_000
"""A process that was not awake for so long has no proof of that time, and may leave it out."""


class Quiet:
    """Watches a history's quiet time, if it has one."""

    def __init__(self, world: World, history: History, model: Model) -> None:
        self._world, self._since_ms = world, history.quiet_from_ms
        self._slowest_ms = min(_heads(history, model), default=0) - BOUND_MS
        self._looked = set[tuple[str, str]]()
        self._execution, self._begun_ms, self._shown_ms, self._passed_ms = 0, 0.0, 0, 0.0

    @property
    def now(self) -> bool:
        """True while nothing but junk comes."""
        return bool(self._since_ms) and 0 <= self._world.elapsed_ms - self._since_ms < JUNK_MS + 2_000

    def looked(self, partition: tuple[str, str]) -> None:
        """A partition has been read."""
        self._looked.add(partition)

    def may_pass(self, partitions: Sequence[tuple[str, str]]) -> bool:
        """True if time may pass: in a quiet time chance leaves no partition unread meanwhile."""
        if self.now and not self._looked.issuperset(partitions):
            return False
        self._looked.clear()
        return True

    def passed(self, execution: int, watermark_ms: int) -> None:
        """Let time pass; the flow's goes on by a second a second, once it was quiet for long in an execution.

        Args:
            watermark_ms: as readers have it. Less than it was: Redis was emptied, or is an older copy.

        Raises:
            Wrong: it stands still.
        """
        self._world.elapsed_ms += STEP_MS
        now_ms = self._world.elapsed_ms - self._since_ms
        slept = now_ms - self._passed_ms > SLEPT_MS
        if self._execution != execution or watermark_ms < self._shown_ms or slept:
            self._execution, self._begun_ms = execution, now_ms
        self._shown_ms, self._passed_ms = watermark_ms, now_ms
        due_ms = now_ms - self._begun_ms - QUIET_MS - LAG_MS
        if due_ms > 0 and watermark_ms < self._slowest_ms + due_ms:
            raise Wrong("time stands still while nothing but junk comes")


def _heads(history: History, model: Model) -> list[int]:
    """The greatest time of each partition that had a pixel before it was quiet."""
    found = []
    for name, some in history.entries.items():
        there = sum(entry.at_ms <= history.quiet_from_ms for entry in some)
        own_ms = [one.pixel["own_ms"] for one in model.read[name][:there] if "own_ms" in one.pixel]
        found += [max(own_ms)] if own_ms else []
    return found
