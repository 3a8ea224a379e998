"""Counts of conversions: columns, ways, ages, classes of frequency."""

from __future__ import annotations

from typing import Final, Literal

from flows.model.catalogue.metrics import CONVERSION_TYPES, CREDITED, names
from flows.model.catalogue.metrics import JOINED as JOINED
from flows.model.catalogue.metrics import WAYS as WAYS
from flows.state.arrays import I64

WHOLE: Final = 1_000_000


Model = Literal["last_touch", "first_touch", "linear", "time_decay", "off"]
"""`off`: the placement shards send no touches, so that nothing is eligible."""
BY_LISTENER, BY_HOUSEHOLD = JOINED
CONFIRMED_RULE: Final = "confirmed"
"""The rule of a server's conversion that confirms a public tag's conversion, and gets its credits."""
OTHER_RULES: Final = ("declared", "utm", "none", CONFIRMED_RULE)
"""Rules of conversions that no touch decides."""


_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
AGES_S: Final = (
    *(10, 30, _MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE),
    *(_HOUR, 2 * _HOUR, 4 * _HOUR, 8 * _HOUR, 12 * _HOUR),
    *(_DAY, 2 * _DAY, 3 * _DAY, 4 * _DAY, 5 * _DAY, 7 * _DAY, 10 * _DAY, 14 * _DAY, 21 * _DAY),
    *(30 * _DAY, 45 * _DAY, 60 * _DAY),
)
"""Upper bounds of the classes of the time from the touch to the conversion, in seconds, up to the longest
window that the settings allow.
"""

COLUMNS: Final = (
    *names(CREDITED),
    *(f"age_{number}" for number in range(len(AGES_S))),
    "conversion_value_high",
    "conversion_value_claimed_high",
)
"""Columns of a row's counts of conversions. All are in millionths, except `…_other_count` (conversions) and
the two values, which are millionths of the row's currency. Each value has a column for its lower 32 bits
and one for its higher bits. 64 bits cannot hold the sum of two of the largest values. A conversion, and its
value, is claimed if a public tag has sent it, and confirmed if a server has sent the same order since
(`flows.attribution.claims`).
"""
TYPES_AT, WAYS_AT = 1, 1 + len(CONVERSION_TYPES)
JOINED_AT: Final = WAYS_AT + len(WAYS)
CLAIMED_COUNT: Final = JOINED_AT + len(JOINED)
CONFIRMED_COUNT: Final = CLAIMED_COUNT + 1
VALUE, CLAIMED = COLUMNS.index("conversion_value"), COLUMNS.index("conversion_value_claimed")
OTHER: Final = COLUMNS.index("conversion_value_other_count")
AGES_AT: Final = OTHER + 1
HIGH, CLAIMED_HIGH = COLUMNS.index("conversion_value_high"), COLUMNS.index("conversion_value_claimed_high")
MONEY: Final = {VALUE: HIGH, CLAIMED: CLAIMED_HIGH}
"""The column of the lower bits of each value, to the column of its higher bits."""
MONEY_NAMES: Final = tuple(COLUMNS[column] for column in MONEY)
VALUED: Final = len(COLUMNS)
"""A column that only a cut's increments have: conversions that add to a value, once the book of currencies
may have dropped one. A row of another currency counts these conversions instead of the value.
"""
VALUE_BITS: Final = 32
LOW: Final = (1 << VALUE_BITS) - 1

RowName = tuple[str, str]
"""Scope and id."""


def value_of(counts: I64, column: int = VALUE) -> int:
    """A value of a row's counts, exact at any size; `column` is one of `MONEY`."""
    return (int(counts[MONEY[column]]) << VALUE_BITS) + int(counts[column])


def carry(counts: I64) -> None:
    """Carry from the columns of the values' lower bits to those of the higher bits, for one row or many."""
    for low, high in MONEY.items():
        counts[..., high] += counts[..., low] >> VALUE_BITS
        counts[..., low] &= LOW


CLASSES: Final = ("1", "2", "3", "4-5", "6-10", "11+")
"""The classes of frequency: the impressions of a campaign that a listener has had."""
