"""Conversions that wait, decisions on them, and a decision as it is published.

Many exist at once. Structs without garbage collection cost a third of tuples.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec.structs import replace

from flows.model.conversion_columns import OTHER_RULES
from flows.model.dimensions import Dimensions
from flows.model.pixel import ConversionPixel

VALUES: Final = ("same", "other", "none")
"""The value of a server's conversion compared with that of the public tag's which it confirms: the same,
another, or any if the tag's did not count.
"""
SAME, OTHER, NONE = VALUES


class PendingConversion(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An accepted, valid conversion that waits for its minute to be final.

    Attributes:
        listener, household: 0 if not known.
        twice: a second one waits under the pseudonyms of the collector's previous key.
        again: this is that second one.
        claimed_ms: the time at which its order was claimed, if it confirms that claim, else None. `ts_ms` is
            no earlier.
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
        """True if the account of all conversions counts it on arrival.

        The account leaves out second ones, conversions apart, and possible confirmations.
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
    """A conversion that waits. A second one waits under pseudonyms of the collector's previous key, if the
    conversion has them and names no placement.

    Its listener is stored nowhere else, so that erasing a person leaves nothing.

    Args:
        claimed_ms: see `PendingConversion`.
    """
    before, home = pixel.before
    if claimed_ms is not None:
        ts_ms = max(ts_ms, claimed_ms)
    if not (before or home):
        return [PendingConversion(ts_ms, listener, key, pixel, household, claimed_ms=claimed_ms)]
    twice, pixel = pixel.combo[0] is None, replace(pixel, before=(0, 0))
    conversion = PendingConversion(ts_ms, listener, key, pixel, household, twice, claimed_ms=claimed_ms)
    return (
        [conversion, replace(conversion, listener=before, household=home, again=True)]
        if twice
        else [conversion]
    )


class Credit(msgspec.Struct, frozen=True, gc=False):
    """A part of a conversion.

    Attributes:
        combo: the credited dimensions.
        millionths: the share, 0 for an eligible touch that was not chosen.
        way: `click`, `listen`, `utm` or `declared`.
        age_ms: time since the touch, None without a touch.
    """

    combo: Dimensions
    millionths: int
    way: str
    age_ms: int | None


class ClaimedValue(msgspec.Struct, frozen=True, gc=False):
    """The value of a claimed conversion, None if it has none that counts."""

    micros: int | None
    currency: str | None


class Decision(msgspec.Struct, frozen=True, gc=False):
    """A conversion that has been decided.

    Attributes:
        rule: a model, or one of `OTHER_RULES`.
        all_credits: credits in the order of time and placement.
        capped: a cap of touches may have changed its credits.
        joined_by: one of `flows.model.conversion_columns.JOINED`, None without a touch.
        noisy: its household has too many listeners to join it.
        classes: additions to `Decided.frequency` if a possible confirmation confirms nothing.
        claimed_value: the claimed value, if it confirms a claim.
    """

    conversion: PendingConversion
    rule: str
    all_credits: list[Credit]
    capped: bool = False
    joined_by: str | None = None
    noisy: bool = False
    classes: tuple[tuple[str, int, int, int], ...] = ()
    claimed_value: ClaimedValue | None = None

    @property
    def claimed_comparison(self) -> str:
        """One of `VALUES`: this value compared with that of the claimed conversion."""
        pixel, claimed = self.conversion.pixel, self.claimed_value
        if claimed is None or claimed.micros is None:
            return NONE
        return SAME if claimed == ClaimedValue(pixel.value_micros, pixel.currency) else OTHER

    @property
    def eligible(self) -> int:
        """The number of touches that could have been credited."""
        return 0 if self.rule in OTHER_RULES else len(self.all_credits)

    @property
    def credits(self) -> list[Credit]:
        """The parts of the whole, empty for an unattributed conversion."""
        credits = self.all_credits
        if len(credits) == 1 and credits[0].millionths:  # mostly
            return credits
        return [one for one in credits if one.millionths]


class Share(msgspec.Struct, gc=False):
    """A touch of a decision; `touched_at` is None for a credit without a touch."""

    placement_id: str | None
    campaign_id: str | None
    way: str
    millionths: int
    touched_at: int | None


class Body(msgspec.Struct, gc=False):
    """A decision's JSON.

    Attributes:
        claimed: a public tag has sent the conversion.
        methodology: the hash of the description by which it was decided.
        claimed_value_micros, claimed_currency: the claimed value, if it confirms a claim.
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
    """A decision as it is published.

    Attributes:
        key: JSON that identifies the conversion: `[campaign, type, order]`, or `[campaign, event]`. A
            server's after a claimed one has `[campaign, type, order, "server"]`, or
            `[campaign, null, event, "server"]`.
        names: the ids for a search: of its order, and of its event.
        body: JSON.
    """

    key: bytes
    names: list[str]
    body: bytes
