"""Conversions that wait, decisions on them, and a decision as it is given out.

There may be many at once: as structs that the garbage collector does not look at they cost a third of what
tuples do.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from flows.model.conversions import OTHER_RULES
from flows.model.dimensions import Dimensions
from flows.model.pixel import ConversionPixel


class PendingConversion(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An accepted, valid conversion that waits for its minute to be final; `listener`, `household` 0: not
    known. `twice`: it is asked about by the edge's key of before, too; `again`: by that.
    """

    ts_ms: int
    listener: int
    key: int
    pixel: ConversionPixel
    household: int = 0
    twice: bool = False
    again: bool = False


def pending(
    pixel: ConversionPixel, ts_ms: int, listener: int, key: int, household: int
) -> list[PendingConversion]:
    """A conversion that waits; twice where it is asked about by the edge's key of before, too. Whose it is
    stands nowhere else, so that nothing is left of who is forgotten meanwhile.
    """
    if not any(pixel.before):
        return [PendingConversion(ts_ms, listener, key, pixel, household)]
    twice, (before, home) = pixel.combo[0] is None, pixel.before
    pixel = replace(pixel, before=(0, 0))
    waits = [PendingConversion(ts_ms, listener, key, pixel, household, twice)]
    return [*waits, PendingConversion(ts_ms, before, key, pixel, home, twice, again=True)] if twice else waits


class Credit(msgspec.Struct, frozen=True, gc=False):
    """A part of a conversion: to whom, how much of it (0 for a touch that was eligible and not chosen), how,
    and how long after the touch (None without a touch).
    """

    combo: Dimensions
    millionths: int
    way: str
    age_ms: int | None


class Decision(msgspec.Struct, frozen=True, gc=False):
    """A conversion that has been decided: by which rule, a model or one of `OTHER_RULES`, what it found, in
    the order of time and placement, whether a cap of touches may have changed its credits, and by whom of
    `flows.model.conversions.JOINED` they are joined (None: by no touch). `noisy`: its household has too many
    listeners to join it.
    """

    conversion: PendingConversion
    rule: str
    found: list[Credit]
    capped: bool = False
    joined_by: str | None = None
    noisy: bool = False

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
    """A decision's JSON; `claimed`: a public tag has told the conversion's value; `methodology`: the hash of
    how it was decided.
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


class DecisionRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A decision as it is given out.

    Attributes:
        key: JSON of what makes the conversion one: `[campaign, type, order]`, or `[campaign, event]`.
        names: the ids by which people ask for it: of its order, and of its event.
        body: JSON.
    """

    key: bytes
    names: list[str]
    body: bytes
