"""The ledger: of every source partition, at every tick, received = accepted + repeated + rejected."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from flows.clock import Cut
from flows.errors import RejectingError, StateError
from flows.events import REASONS, TOO_LATE
from flows.intake import Receipt
from flows.messages import Outcome

FORMAT: Final = 1
COUNTS: Final = (
    "received",
    "accepted",
    "repeated",
    "invalid_traffic",
    "clock_skewed",
    *(f"rejected.{reason}" for reason in REASONS),
)
FIELDS: Final = (*COUNTS, "position", "watermark_ms", "as_of_ms")
"""The fields of a partition's row in Redis."""


class Account(NamedTuple):
    """One partition's counts since the log's beginning, at a cut."""

    partition: str
    counts: dict[str, int]
    position: int
    watermark_ms: int


@dataclass
class Ledger:
    """Counts by partition, proven at every cut.

    Args:
        reject_share, reject_least: a flow of which more than this share of at least this many messages is
            rejected is stopped.
    """

    reject_share: float
    reject_least: int
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    marks: dict[str, tuple[int, int]] = field(default_factory=dict)
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    _changed: set[str] = field(default_factory=set)

    def receive(self, receipt: Receipt) -> None:
        """The source's side."""
        partition = receipt.tick.sender
        counts = self._of(partition)
        counts["received"] += receipt.received
        counts["clock_skewed"] += receipt.skewed
        for reason, number in receipt.rejected.items():
            counts[f"rejected.{reason}"] += number
        self.marks[partition] = (receipt.tick.position, receipt.tick.watermark_ms)
        self.arrivals += receipt.arrivals
        if receipt.received:
            self._changed.add(partition)

    def settle(self, outcome: Outcome) -> None:
        """A placement shard's side."""
        counts = self._of(outcome.sender)
        counts["accepted"] += outcome.accepted
        counts["repeated"] += outcome.repeated
        counts[f"rejected.{TOO_LATE}"] += outcome.too_late
        counts["invalid_traffic"] += outcome.invalid_traffic
        self._changed.add(outcome.sender)

    def cut(self, cut: Cut) -> tuple[list[Account], list[tuple[float, int]]]:
        """The accounts that changed, and the arrivals that the cut covers.

        Raises:
            RejectingError: nearly everything is rejected.
        """
        received = rejected = 0
        for partition, counts in self.counts.items():
            lost = sum(counts[f"rejected.{reason}"] for reason in REASONS)
            assert counts["received"] == counts["accepted"] + counts["repeated"] + lost, (partition, counts)
            received, rejected = received + counts["received"], rejected + lost
        if received >= self.reject_least and rejected > self.reject_share * received:
            reasons = {
                reason: sum(of[f"rejected.{reason}"] for of in self.counts.values()) for reason in REASONS
            }
            raise RejectingError(
                f"{rejected:,} of {received:,} messages were rejected ({_listed(reasons)}): is this the "
                f"right topic or file? "
                "See the dead letters; AUDIOPIXEL_REJECT_SHARE sets the limit"
            )
        accounts = [
            Account(name, dict(self.counts[name]), *self.marks.get(name, (0, 0)))
            for name in sorted(self._changed)
        ]
        arrivals, self.arrivals = self.arrivals, []
        self._changed.clear()
        return accounts, arrivals

    def _of(self, partition: str) -> dict[str, int]:
        return self.counts.setdefault(partition, dict.fromkeys(COUNTS, 0))

    def snapshot(self) -> tuple[Any, ...]:
        """Plain state with its format's version."""
        return FORMAT, {name: dict(counts) for name, counts in self.counts.items()}, dict(self.marks)

    def restore(self, state: tuple[Any, ...]) -> None:
        """Take `snapshot`'s state up again, with every account to be given out anew.

        Raises:
            StateError: another format's.
        """
        if state[0] != FORMAT:
            raise StateError(
                f"the recovery store holds a ledger of format {state[0]}, this version reads {FORMAT}: "
                "run the version that wrote it, or recompute from the log with --recompute and an empty "
                "recovery directory"
            )
        self.counts = {name: dict(counts) for name, counts in state[1].items()}
        self.marks = dict(state[2])
        self._changed = set(self.counts)


def _listed(reasons: dict[str, int]) -> str:
    return ", ".join(f"{reason} {number:,}" for reason, number in reasons.items() if number)
