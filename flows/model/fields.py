"""The fields of a published row, in their order, and how numbers are written in them."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

import msgspec

from flows.model.basis import BASES, MIXED, SHOWN, SIDE_WINDOWS
from flows.model.catalogue import metrics as catalogue
from flows.model.conversion_columns import CLASSES, MONEY_NAMES
from flows.model.counts import BY_FLIGHT, BY_MINUTE, CONSENTED_PLAYS
from flows.model.delivery_fields import DELIVERY as DELIVERY
from flows.model.delivery_fields import SPENDING as SPENDING
from flows.model.delivery_fields import WINDOWS as WINDOWS
from flows.model.dimensions import NAMES
from flows.model.messages import ConversionAccount

DOUBLES_HOLD: Final = 1 << 53
"""The greatest integer up to which a double holds every integer."""
COUNTS: Final = BY_MINUTE[:CONSENTED_PLAYS]
UNLINKED_STARTS: Final = COUNTS.index("unlinked_starts")
UNLINKED_COMPLETES: Final = COUNTS.index("unlinked_completes")
_RATES: Final = {metric.name: metric for metric in catalogue.RATES}
MATURE: Final = _RATES["mature_completion_rate"].windows
UNLINKED_RATE: Final = _RATES["unlinked_completion_rate"].windows
LABELS: Final = NAMES[1:]
NO_DELIVERY: Final = (None,) * len(DELIVERY)


CURRENCY: Final = "conversion_currency"
"""The currency of a row's values of conversions; absent until it has one."""
CREDITS: Final = catalogue.names((*catalogue.CREDITED, *catalogue.CONVERTED))
"""Conversion fields of a window; a count by type or way that is 0 is absent. Times are the upper bounds of
`flows.model.conversion_columns.AGES_S`.
"""
NEVER_NULL: Final = ("conversions", *MONEY_NAMES, "conversion_value_other_count")
NO_CREDITS: Final = [0 if name in NEVER_NULL else None for name in CREDITS]
RATE_AT: Final = CREDITS.index("conversion_rate")
ACCOUNT: Final = tuple(f"flight.conversions_{name}" for name in ConversionAccount._fields)
"""Fields of a campaign: the conversions that name it, wherever they are credited. accepted = attributed +
unattributed + pending. The last field counts those whose household has too many listeners to be credited.
"""
NO_ACCOUNT: Final = [None] * len(ACCOUNT)
SHARES: Final = catalogue.names(catalogue.SHARES)
CONSISTENCY: Final = (
    *(f"{window}.{name}" for window in SIDE_WINDOWS for name in SHARES),
    *catalogue.DELAY.fields(),
)
"""Fields of a platform: the shares of its plays that carry each fact, and the median delay of its pixels."""
NO_CONSISTENCY: Final = (None,) * len(CONSISTENCY)
FREQUENCY: Final = tuple(
    metric.name.replace(".", f".{name}.") for name in CLASSES for metric in catalogue.FREQUENCY
)
"""Fields of a campaign for each class of impressions per listener: the listeners in the class, the
conversions of listeners in the class, and these conversions per listener who was ever in the class.
"""
NO_FREQUENCY: Final = [None] * len(FREQUENCY)


READ_FIRST: Final = tuple(map(WINDOWS.index, ("flight", "1h", "5m", "1d")))
"""The windows in the order of a row, by their places in `WINDOWS`. Readers read the first ones first."""


IMPRESSION_BASIS: Final = "impression_basis"
"""The basis of a row's valid impressions, repeated pixels included; `mixed` if there are several."""


REACH_UNIT: Final = "reach_unit"
"""The unit of a row's reach: `listener`, or `household` if only households are known; absent if neither is.
"""


TIMES: Final = ("as_of_ms", "final_through_ms", "reach_as_of_ms")
"""The first values of a row: the times of the other values."""


ROW_HEAD: Final = (*TIMES, *LABELS, *catalogue.SINCE.fields())
"""The first values of a row, which differ by row. The other values are equal in many rows, mostly new ones.
"""


_BEHIND_COUNTS: Final = (
    *catalogue.RATES,
    *catalogue.CREDITED,
    *catalogue.CONVERTED,
    *catalogue.SIDES,
    catalogue.HOUSEHOLD_REACH,
)
"""The metrics that follow the counts of each window that they have."""


def _fields() -> tuple[str, ...]:
    fields = [*ROW_HEAD, *DELIVERY]
    fields += [f"flight.{name}" for name in (*BY_FLIGHT, catalogue.COVERAGE.name)]
    fields += [IMPRESSION_BASIS, REACH_UNIT]
    for place in READ_FIRST:
        window = WINDOWS[place]
        fields += [f"{window}.{name}" for name in COUNTS]
        fields += [metric.field(window) for metric in _BEHIND_COUNTS if window in metric.windows]
    return (*fields, CURRENCY, *FREQUENCY, *ACCOUNT, *CONSISTENCY)


FIELDS: Final = _fields()
"""The fields of a row, in the order of its packed values; a null is an absent field."""


FREQUENT_FIELDS: Final = (
    *ROW_HEAD,
    *DELIVERY,
    "flight.pixels",
    "flight.consented",
    "flight.consent_coverage",
    *(
        f"{WINDOWS[place]}.{name}"
        for place in READ_FIRST
        for name in (
            *COUNTS[: COUNTS.index("completes") + 1],
            "completion_rate",
            "completions_per_impression",
            "reach",
            "frequency",
        )
    ),
    *(f"{window}.mature_completion_rate" for window in MATURE),
    *(f"{window}.impressions_vast_impression" for window in SIDE_WINDOWS),
)
"""The fields that most pixels change, and the fields of a row's plan."""


ADDITIVE: Final = (
    *(f"flight.{name}" for name in BY_FLIGHT),
    *(f"{window}.{name}" for window in WINDOWS for name in (*COUNTS, "conversions")),
    *(f"{window}.{name}" for window in SIDE_WINDOWS for name in SHOWN[:-1]),
)
"""The fields that can be summed over rows. A row of `other`, which sums the names beyond a cap, has these."""
_ADDITIVE_PLACES: Final = tuple(map(FIELDS.index, ADDITIVE))


_HEAD, _LONG, _LONG_BYTES = 3, 0xCF, 9
_NUMBERS_AT: Final = _HEAD + len(TIMES) * _LONG_BYTES


def same_numbers(left: bytes, right: bytes) -> bool:
    """True if two packed rows differ in their `TIMES` at most. In MessagePack the times are 64-bit numbers
    after the array's head, unless the row does not have them yet.
    """
    if left[_NUMBERS_AT:] != right[_NUMBERS_AT:]:
        return False
    longs = range(_HEAD, _NUMBERS_AT, _LONG_BYTES)
    return all(packed[place] == _LONG for packed in (left, right) for place in longs)


def added_up(packed: Iterable[bytes]) -> list[int | str]:
    """The sums of the fields `ADDITIVE` over packed rows."""
    # Shares of a conversion are decimal fractions, whose binary sums would be inexact.
    parts = [
        [Decimal(row[place] or 0) for place in _ADDITIVE_PLACES]
        for row in map(msgspec.msgpack.decode, packed)
    ]
    sums = [sum(column, Decimal()) for column in zip(*parts, strict=True)]
    return [int(total) if total == int(total) else str(total) for total in sums]


def basis_of(basis_bits: int) -> str | None:
    """The basis of a row's impressions, from a bit for each basis that they have; None without a bit."""
    if not basis_bits:
        return None
    return MIXED if basis_bits & (basis_bits - 1) else BASES[basis_bits.bit_length() - 1]


def decimal(value: float) -> str:
    """A double with up to six places, without trailing zeros. For quotients of integers use `quotient`."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def quotient(part: int, whole: int) -> str:
    """`part / whole` for a `whole` above 0, rounded half to even to six places, without trailing zeros."""
    millionths, remainder = divmod(part * 10**6, whole)
    millionths += 2 * remainder > whole or (2 * remainder == whole and millionths % 2 == 1)
    units, places = divmod(abs(millionths), 10**6)
    return f"{'-' * (millionths < 0)}{units}.{places:06d}".rstrip("0").rstrip(".")


def exact(number: int) -> int | str:
    """An integer in a form that Lua and JavaScript read exactly: a text if a double, as they use, cannot hold
    it.
    """
    return number if abs(number) <= DOUBLES_HOLD else str(number)


def ratio(part: int, whole: int) -> str | None:
    """`quotient`; None if `whole` is 0."""
    return quotient(part, whole) if whole else None


def empty(as_of_ms: int) -> list[Any]:
    """The values of a row that has not had a pixel: counts are 0, rates, labels and delivery null."""
    values: list[Any] = [0 if _counts(name) else None for name in FIELDS]
    values[FIELDS.index("as_of_ms")] = as_of_ms
    return values


def _counts(field: str) -> bool:
    window, _, metric = field.partition(".")
    return (window in WINDOWS and metric in (*COUNTS, "reach", *NEVER_NULL)) or (
        window == "flight" and metric in BY_FLIGHT
    )
