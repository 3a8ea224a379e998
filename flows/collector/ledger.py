"""The ledger of a collector: the outcome of every call, and of every event that was answered as stored."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

REFUSALS: Final = ("busy", "calls", "clock", "plans", "size", "store")
"""Reasons of events that were not stored."""


@dataclass
class Ledger:
    """Counts since the start; one event is one call.

    `calls = stored + not_counted + rejected + refused`, and
    `inherited + stored = acknowledged + resting + torn`.

    Attributes:
        stored: acknowledged by Kafka, or on the spool; a few so late that they were answered as refused.
        refused: not stored, and answered as refused.
        refused_by: the same by reason. `busy`: too many calls in hand. `calls`: too many from one address.
            `clock`: the disk does not take the clock. `plans`: they decide, and have not been read yet.
            `size`: Kafka can never take the event. `store`: neither Kafka nor the spool took it.
        inherited: records that rested at the start, torn ones among them.
        acknowledged: events in the log, each once however often it was sent.
        torn: records without their end, which a kill left and whose calls were never answered, and damaged
            ones.
    """

    calls: int = 0
    stored: int = 0
    not_counted: int = 0
    rejected: int = 0
    refused: int = 0
    inherited: int = 0
    acknowledged: int = 0
    torn: int = 0
    refused_by: Counter[str] = field(default_factory=Counter)

    def refuse(self, events: int, reason: str) -> None:
        """Count events that are not stored, and are answered as refused."""
        self.refused += events
        self.refused_by[reason] += events

    def balanced(self, resting: int) -> bool:
        """True if both equations hold while nothing is in hand."""
        answered = self.stored + self.not_counted + self.rejected + self.refused
        return (
            self.calls == answered and self.inherited + self.stored == self.acknowledged + resting + self.torn
        )

    def line(self, resting: int) -> str:
        """The ledger in one line, for the log at the exit."""
        return " ".join(f"{name}={count}" for name, count in self.counts(resting).items())

    def counts(self, resting: int) -> dict[str, int]:
        """All terms of both equations, by name."""
        terms = (name for name in self.__dataclass_fields__ if name != "refused_by")
        return {name: getattr(self, name) for name in terms} | {"resting": resting}
