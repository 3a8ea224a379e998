"""Conversions that wait, decisions on them, and a decision as it is given out.

There may be many at once: as structs that the garbage collector does not look at they cost a third of what
tuples do.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec.structs import replace

from flows.model.conversions import OTHER_RULES
from flows.model.dimensions import Dimensions
from flows.model.pixel import ConversionPixel

VALUES: Final = ("same", "other", "none")
"""The values of a server's conversion beside the public tag's that it confirms: the same, another, or any
where the tag had none that counts.
"""
SAME, OTHER, NONE = VALUES


class PendingConversion(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An accepted, valid conversion that waits for its minute to be final; `listener`, `household` 0: not
    known. `twice`: it is asked about by the edge's key of before, too; `again`: by that. `claimed_ms`: when
    its order was claimed, of one that confirms that; `ts_ms` is no earlier. None: it does not.
    """

    ts_ms: int
    listener: int
    key: int
    pixel: ConversionPixel
    household: int = 0
    twice: bool = False
    again: bool = False
    claimed_ms: int | None = None

    @property
    def accounted(self) -> bool:
        """True if it is in the account of all conversions from when it has come: not a second time, not apart
        from them, and not where it may say no more than another one has said.
        """
        return not self.again and not self.pixel.apart and self.claimed_ms is None


def pending(
    pixel: ConversionPixel,
    ts_ms: int,
    listener: int,
    key: int,
    household: int,
    claimed_ms: int | None = None,
) -> list[PendingConversion]:
    """A conversion that waits; twice where it is asked about by the edge's key of before, too. Whose it is
    stands nowhere else, so that nothing is left of who is forgotten meanwhile.

    Args:
        claimed_ms: see `PendingConversion`.
    """
    before, home = pixel.before
    if claimed_ms is not None:
        ts_ms = max(ts_ms, claimed_ms)
    if not (before or home):
        return [PendingConversion(ts_ms, listener, key, pixel, household, claimed_ms=claimed_ms)]
    twice, pixel = pixel.combo[0] is None, replace(pixel, before=(0, 0))
    one = PendingConversion(ts_ms, listener, key, pixel, household, twice, claimed_ms=claimed_ms)
    return [one, replace(one, listener=before, household=home, again=True)] if twice else [one]


class Credit(msgspec.Struct, frozen=True, gc=False):
    """A part of a conversion: to whom, how much of it (0 for a touch that was eligible and not chosen), how,
    and how long after the touch (None without a touch).
    """

    combo: Dimensions
    millionths: int
    way: str
    age_ms: int | None


class ClaimedValue(msgspec.Struct, frozen=True, gc=False):
    """The value that a claimed conversion has said; None: none that counts."""

    micros: int | None
    currency: str | None


class Decision(msgspec.Struct, frozen=True, gc=False):
    """A conversion that has been decided: by which rule, a model or one of `OTHER_RULES`, what it found, in
    the order of time and placement, whether a cap of touches may have changed its credits, and by whom of
    `flows.model.conversions.JOINED` they are joined (None: by no touch). `noisy`: its household has too many
    listeners to join it. `classes`: of one that may confirm another, what it adds to `Decided.frequency` if
    it does not. `said`: of one that confirms another, what that had said of its value.
    """

    conversion: PendingConversion
    rule: str
    found: list[Credit]
    capped: bool = False
    joined_by: str | None = None
    noisy: bool = False
    classes: tuple[tuple[str, int, int, int], ...] = ()
    said: ClaimedValue | None = None

    @property
    def value_as_said(self) -> str:
        """The one of `VALUES` that a value is to that of the conversion which it confirms."""
        pixel, said = self.conversion.pixel, self.said
        if said is None or said.micros is None:
            return NONE
        return SAME if said == ClaimedValue(pixel.value_micros, pixel.currency) else OTHER

    @property
    def eligible(self) -> int:
        """The number of touches that could have been credited."""
        return 0 if self.rule in OTHER_RULES else len(self.found)

    @property
    def credits(self) -> list[Credit]:
        """The parts of the whole; none: unattributed."""
        found = self.found
        if len(found) == 1 and found[0].millionths:  # mostly
            return found
        return [one for one in found if one.millionths]


class Share(msgspec.Struct, gc=False):
    """One touch of a decision; `touched_at` None: credited without one."""

    placement_id: str | None
    campaign_id: str | None
    way: str
    millionths: int
    touched_at: int | None


class Body(msgspec.Struct, gc=False):
    """A decision's JSON; `claimed`: a public tag has sent the conversion; `methodology`: the hash of how it
    was decided; `claimed_value_micros`, `claimed_currency`: of one that confirms another, what that said.
    """

    conversion: str
    order_id: str | None
    event_id: str
    type: str
    ts: int
    campaign_id: str | None
    value_micros: int | str | None
    currency: str | None
    rule: str
    eligible: int
    capped: bool
    credits: list[Share]
    joined_by: str | None = None
    noisy_household: bool = False
    claimed: bool = False
    methodology: str | None = None
    claimed_value_micros: int | str | None = None
    claimed_currency: str | None = None


class DecisionRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A decision as it is given out.

    Attributes:
        key: JSON of what makes the conversion one: `[campaign, type, order]`, or `[campaign, event]`; of a
            server's behind a claimed one `[campaign, type, order, "server"]`, or
            `[campaign, null, event, "server"]`.
        names: the ids by which people ask for it: of its order, and of its event.
        body: JSON.
    """

    key: bytes
    names: list[str]
    body: bytes
