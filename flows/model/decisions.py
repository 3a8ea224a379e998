"""Conversions that wait, decisions on them, and the published form of a decision.

Many exist at once. Structs without garbage collection cost a third of what tuples cost.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec.structs import replace

from flows.model.conversion_columns import OTHER_RULES
from flows.model.dimensions import Dimensions
from flows.model.pixel import ConversionPixel

VALUES: Final = ("same", "other", "none")
"""The value of a server's conversion compared with that of the public tag's conversion that it confirms: the
same, another, or `none` if the tag's conversion had no value that counts.
"""
SAME, OTHER, NONE = VALUES


class PendingConversion(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An accepted, valid conversion that waits for its minute to be final.

    Attributes:
        listener, household: keyed hashes; 0 if unknown.
        has_second: a second copy waits under the pseudonyms of the collector's previous key.
        is_second: this is the second copy.
        claimed_ms: the time, epoch ms, at which its order was claimed, if it confirms the claim, else None.
            `ts_ms` is no earlier.
    """

    ts_ms: int
    listener: int
    key: int
    pixel: ConversionPixel
    household: int = 0
    has_second: bool = False
    is_second: bool = False
    claimed_ms: int | None = None

    @property
    def accounted(self) -> bool:
        """True if the account of all conversions counts it on arrival.

        The account leaves out second copies, possible confirmations, and claimed conversions where only
        servers' conversions count.
        """
        return not self.is_second and not self.pixel.apart and self.claimed_ms is None


def pending(
    pixel: ConversionPixel,
    ts_ms: int,
    listener: int,
    key: int,
    household: int,
    claimed_ms: int | None = None,
) -> list[PendingConversion]:
    """A conversion that waits. A second copy waits under the pseudonyms of the collector's previous key, if
    the conversion has them and names no placement.

    The listener is stored nowhere else, so that the erasure of a person leaves nothing.

    Args:
        claimed_ms: see `PendingConversion`.
    """
    previous_listener, previous_household = pixel.before
    if claimed_ms is not None:
        ts_ms = max(ts_ms, claimed_ms)
    if not (previous_listener or previous_household):
        return [PendingConversion(ts_ms, listener, key, pixel, household, claimed_ms=claimed_ms)]
    has_second, pixel = pixel.combo[0] is None, replace(pixel, before=(0, 0))
    conversion = PendingConversion(ts_ms, listener, key, pixel, household, has_second, claimed_ms=claimed_ms)
    if not has_second:
        return [conversion]
    second = replace(conversion, listener=previous_listener, household=previous_household, is_second=True)
    return [conversion, second]


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
        capped: a cap on touches may have changed the credits.
        joined_by: one of `flows.model.conversion_columns.JOINED`, None without a touch.
        noisy: the household has too many listeners for its touches to be credited.
        classes: additions to `Decided.frequency` if a possible confirmation confirms nothing.
        claimed_value: the value of the claim that it confirms; None if it confirms none.
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
        """One of `VALUES`: the conversion's value compared with the claimed one."""
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
        if len(credits) == 1 and credits[0].millionths:  # most decisions
            return credits
        return [credit for credit in credits if credit.millionths]


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
        names: the ids by which it is searched: of its order, and of its event.
        body: JSON.
    """

    key: bytes
    names: list[str]
    body: bytes
