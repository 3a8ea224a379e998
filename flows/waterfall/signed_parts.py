"""Computes the parts of a difference: theirs - ours = the sum of the signed parts + the unexplained rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

FINE: Final = 0.05
LOOK: Final = 0.10
"""The shares of our count up to which a difference is fine, or worth a look, by the IAB's practice."""
INVALID: Final = "invalid_traffic"
OTHER_BASIS: Final = "other_basis"
PLUS: Final = ("repeated", INVALID, "too_late", "unsigned", "rejected", "orphans", "unkeyed", "same_client")
"""The parts that the other party may count and we do not."""
MINUS: Final = ("clock_moved", "outside_flight", OTHER_BASIS)
"""The parts that we count and the other party may not. `clock_moved` may have either sign."""
NAMES: Final = (*PLUS, *MINUS)
PART_WORDS: Final[Mapping[str, str]] = {
    "repeated": "pixels that had counted before",
    INVALID: "pixels of invalid traffic",
    "too_late": "pixels that came after their minute was final",
    "unsigned": "pixels without a signature or a plan",
    "rejected": "rejected pixels that name the placement",
    "unkeyed": "downloads or deliveries of which no client is known, so that no window counts them",
    "same_client": "downloads or deliveries of a client that the window has counted already",
    OTHER_BASIS: "impressions of another basis than theirs",
    "orphans": "plays that started and whose impression never came",
    "clock_moved": "impressions of another day by the caller's clock",
    "outside_flight": "pixels outside the flight",
}
_DAYS: Final = "audiopixel:v1:days:{PLACEMENT}:DAY"
BEHIND: Final[Mapping[str, str]] = {
    "repeated": f"{_DAYS} repeated; audiopixel_placement_repeated_total",
    INVALID: f"{_DAYS} invalid_traffic; audiopixel_invalid_traffic_total",
    "too_late": "audiopixel rejected --reason too_late --placement PLACEMENT",
    "unsigned": "audiopixel rejected --reason unsigned --placement PLACEMENT",
    "rejected": "audiopixel rejected --reason invalid --placement PLACEMENT",
    OTHER_BASIS: f"{_DAYS} bases; impression_basis of the row",
    "orphans": f"{_DAYS} orphans",
    "unkeyed": f"{_DAYS} sent; downloads_unkeyed, deliveries_unkeyed of the row",
    "same_client": f"{_DAYS} sent, by the windows of the IAB",
    "clock_moved": f"{_DAYS} clock_moved; audiopixel_clock_skewed_total",
    "outside_flight": f"{_DAYS} outside_flight; the plan's start and end",
}
"""The metric, the fields in Redis or the dead letters that also show a part."""


class Band(StrEnum):
    """The judgement of a difference."""

    FINE = "fine"
    LOOK = "look"
    BREACH = "breach"
    NONE = "no verdict"

    @property
    def words(self) -> str:
        """The judgement in words for people. Programs read the value."""
        return _WORDS[self]


_WORDS: Final = {
    Band.FINE: "fine",
    Band.LOOK: "worth a look",
    Band.BREACH: "over the tolerance",
    Band.NONE: "no verdict",
}


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a difference, with its sign.

    Attributes:
        name: one of `NAMES`. Invalid traffic has its reason: `invalid_traffic.REASON`.
        impressions: the number of impressions, or of deliveries or downloads.
    """

    name: str
    impressions: int

    @property
    def kind(self) -> str:
        """The name without the reason."""
        return self.name.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Counts:
    """Our counts of the days of a claim, of all its placements.

    Attributes:
        counted: the impressions, or the deliveries or downloads if the claim counts these.
        parts: the unsigned counts of parts by name. Invalid traffic is there only without reasons.
        invalid: the invalid traffic by reason.
    """

    counted: int = 0
    parts: Mapping[str, int] = field(default_factory=dict)
    invalid: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Difference:
    """A row of the waterfall.

    Attributes:
        scope, name, when: `placement` or `campaign`, its id, and a day or `flight`.
        ours: our count; None if it is unknown, for the reason in `note`. Then there are no parts and no
            verdict.
        theirs: the other party's count.
        tolerance: the contract's tolerance; None if the plan has none.
        counted: the metric that is compared: `impressions`, `deliveries`, `downloads_calendar`.
        note: the reason why our count is unknown, or a remark on it; may be empty.
    """

    scope: str
    name: str
    when: str
    ours: int | None
    theirs: int
    parts: Sequence[Part]
    tolerance: float | None = None
    note: str = ""
    counted: str = "impressions"

    @property
    def difference(self) -> int | None:
        """Theirs less ours; None if ours is unknown."""
        return None if self.ours is None else self.theirs - self.ours

    @property
    def unexplained(self) -> int | None:
        """The difference less the sum of the parts, of either sign; None if ours is unknown."""
        if self.difference is None:
            return None
        return self.difference - sum(part.impressions for part in self.parts)

    @property
    def share(self) -> float | None:
        """The difference divided by ours; None if ours is unknown, or if ours is 0 and theirs is not."""
        if self.ours is None:
            return None
        if not self.ours:
            return None if self.theirs else 0.0
        return (self.theirs - self.ours) / self.ours

    @property
    def band(self) -> Band:
        """The judgement. A contract's own tolerance wins over the IAB's."""
        if self.ours is None:
            return Band.NONE
        fine, look = (FINE, LOOK) if self.tolerance is None else (self.tolerance, self.tolerance)
        share = self.share
        if share is None or abs(share) > look:
            return Band.BREACH
        return Band.FINE if abs(share) <= fine else Band.LOOK


def signed(counts: Counts, excludes: frozenset[str] = frozenset()) -> list[Part]:
    """The parts with their signs, including those of 0. A part is 0 if `excludes` has its name, or the name
    of all invalid traffic.
    """
    parts = []
    for name in NAMES:
        if name != INVALID:
            sign = -1 if name in ("outside_flight", OTHER_BASIS) else 1
            parts.append(Part(name, 0 if name in excludes else sign * counts.parts.get(name, 0)))
            continue
        for reason, count in sorted(counts.invalid.items()):
            full_name = f"{INVALID}.{reason}"
            parts.append(Part(full_name, 0 if {INVALID, full_name} & excludes else count))
        if not counts.invalid:
            parts.append(Part(INVALID, 0 if INVALID in excludes else counts.parts.get(INVALID, 0)))
    return parts
