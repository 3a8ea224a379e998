"""The ledger of a collector: what became of every call, and of every event that was answered as stored."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass
class Ledger:
    """Counts since the start; one event is one call.

    `calls = stored + not_counted + rejected + refused`, and
    `inherited + stored = acknowledged + resting + torn`.

    Attributes:
        stored: acknowledged by Kafka, or on the spool; so late, a few times, that it was answered as refused.
        refused: not stored, and answered so.
        inherited: what rested at the start, torn records among it.
        acknowledged: in the log, each event once however often it was sent.
        torn: records that a kill left without their end, which were never answered, or that the disk damaged.
    """

    calls: int = 0
    stored: int = 0
    not_counted: int = 0
    rejected: int = 0
    refused: int = 0
    inherited: int = 0
    acknowledged: int = 0
    torn: int = 0

    def balanced(self, resting: int) -> bool:
        """True if both equations hold while nothing is in hand."""
        answered = self.stored + self.not_counted + self.rejected + self.refused
        return (
            self.calls == answered and self.inherited + self.stored == self.acknowledged + resting + self.torn
        )

    def line(self, resting: int) -> str:
        """The ledger in one line, for the log at the exit."""
        counts = asdict(self) | {"resting": resting}
        return " ".join(f"{name}={count}" for name, count in counts.items())
