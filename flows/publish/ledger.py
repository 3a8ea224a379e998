"""The ledger. For every source partition, at every tick: messages = marks + received, and received = accepted
+ repeated + rejected.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from flows.errors import RejectingError, StateError
from flows.model.events import REASONS, TOO_LATE
from flows.model.messages import PartitionAccount, PixelOutcomes, Receipt
from flows.model.ticks import Cut, awake_ms

FORMAT: Final = 4
PARTS: Final = 12
PART_MS: Final = 300_000
"""The least length of a part of the judged time, in ms. The judged parts cover about the last hour."""
COUNTS: Final = (
    "marks",
    "received",
    "accepted",
    "repeated",
    "invalid_traffic",
    "clock_skewed",
    *(f"rejected.{reason}" for reason in REASONS),
)
FIELDS: Final = (*COUNTS, "position", "watermark_ms", "as_of_ms")
"""The fields of a partition's hash in Redis."""


@dataclass
class Ledger:
    """Counts by partition, checked at every cut.

    Args:
        reject_share, reject_least: the share of rejected messages above which the flow stops. It is a share
            of the last hour's messages, or of the last `reject_least` messages if an hour has fewer.
        now_ms: a monotonic clock.
    """

    reject_share: float
    reject_least: int
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    reached: dict[str, tuple[int, int]] = field(default_factory=dict)
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    now_ms: Callable[[], int] = awake_ms
    _parts: deque[Counter[str]] = field(default_factory=lambda: deque([Counter()], PARTS))
    _changed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._began_ms = self.now_ms()

    def receive(self, receipt: Receipt) -> None:
        """Take the counts of a source partition."""
        partition = receipt.tick.sender
        counts = self._counts_of(partition)
        counts["received"] += receipt.received
        counts["marks"] += receipt.marks
        counts["clock_skewed"] += receipt.skewed
        self._parts[-1]["received"] += receipt.received
        for reason, number in receipt.rejected.items():
            counts[f"rejected.{reason}"] += number
            self._parts[-1][reason] += number
        self.reached[partition] = (receipt.tick.position, receipt.tick.watermark_ms)
        self.arrivals += receipt.arrivals
        if receipt.received or receipt.marks:
            self._changed.add(partition)

    def add_outcomes(self, outcome: PixelOutcomes) -> None:
        """Take the counts of a placement shard."""
        counts = self._counts_of(outcome.sender)
        counts["accepted"] += outcome.accepted
        counts["repeated"] += outcome.repeated
        counts[f"rejected.{TOO_LATE}"] += outcome.too_late
        self._parts[-1][TOO_LATE] += outcome.too_late
        counts["invalid_traffic"] += outcome.invalid_traffic
        self._changed.add(outcome.sender)

    def cut(self, cut: Cut) -> tuple[list[PartitionAccount], list[tuple[float, int]]]:
        """The accounts that changed, and the arrivals that the cut covers.

        Raises:
            RejectingError: nearly everything is rejected.
        """
        for partition, counts in self.counts.items():
            lost = sum(counts[f"rejected.{reason}"] for reason in REASONS)
            assert counts["received"] == counts["accepted"] + counts["repeated"] + lost, (partition, counts)
        self._judge()
        accounts = [
            PartitionAccount(name, dict(self.counts[name]), *self.reached.get(name, (0, 0)))
            for name in sorted(self._changed)
        ]
        arrivals, self.arrivals = self.arrivals, []
        self._changed.clear()
        return accounts, arrivals

    def _judge(self) -> None:
        """Compare the rejections of the last hour with the limits. Over all time a good month would hide a
        bad hour.

        A part ends when it has lasted `PART_MS` and has its share of `reject_least`. All parts together
        therefore always have enough messages, and their number is fixed.
        """
        lately = sum(self._parts, Counter[str]())
        received = lately.pop("received", 0)
        rejected = lately.total()
        if received >= self.reject_least and rejected > self.reject_share * received:
            raise RejectingError(
                f"{rejected:,} of {received:,} messages were rejected ({_listed(lately)}): is this the "
                f"right topic or file? "
                "See the dead letters; AUDIOPIXEL_REJECT_SHARE sets the limit"
            )
        now_ms = self.now_ms()
        if (
            now_ms - self._began_ms >= PART_MS
            and self._parts[-1]["received"] * (PARTS - 1) >= self.reject_least
        ):
            self._parts.append(Counter())
            self._began_ms = now_ms

    def _counts_of(self, partition: str) -> dict[str, int]:
        return self.counts.setdefault(partition, dict.fromkeys(COUNTS, 0))

    def gather(self) -> None:
        """Copy nothing: the state is small."""

    def snapshot(self) -> tuple[Any, ...]:
        """The state as plain values, with its format."""
        counts = {name: dict(counts) for name, counts in self.counts.items()}
        parts = [dict(part) for part in self._parts]
        return FORMAT, counts, dict(self.reached), (parts, self.now_ms() - self._began_ms)

    def restore(self, state: tuple[Any, ...]) -> None:
        """Load a state of `snapshot`; every account is published again.

        Raises:
            StateError: the state is of another format.
        """
        if state[0] != FORMAT:
            raise StateError(
                f"the recovery store holds a ledger of format {state[0]}, this version reads {FORMAT}: "
                "run the version that wrote it, or recompute from the log with --recompute and an empty "
                "recovery directory"
            )
        self.counts = {name: dict(counts) for name, counts in state[1].items()}
        self.reached = dict(state[2])
        parts, age_ms = state[3]
        self._parts, self._began_ms = deque(map(Counter, parts), PARTS), self.now_ms() - age_ms
        self._changed = set(self.counts)


def values_of(account: PartitionAccount, cut: Cut) -> list[int | str | None]:
    """The values of `FIELDS` of a partition at a cut."""
    counts = [account.counts[name] for name in COUNTS]
    return [*counts, account.position, account.watermark_ms, cut.watermark_ms]


def _listed(reasons: Counter[str]) -> str:
    return ", ".join(f"{reason} {reasons[reason]:,}" for reason in REASONS if reasons[reason])
