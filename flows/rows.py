"""What readers see: the fields of a Redis row and of a `placement-minutes` message, from counts. Contract:
docs/contracts.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from flows.attribution import WHOLE
from flows.batches import SCOPES
from flows.counts import BY_FLIGHT, BY_MINUTE, CONSENTED, CONSENTED_PLAYS, HELD, PIXELS
from flows.credits import AGES_AT, COLUMNS, OTHER, VALUE, Account, quantile_s, value_of
from flows.events import COMPLETE, IMPRESSION, MUTE, SKIP, START
from flows.frequency import CLASSES
from flows.kernel import I64
from flows.numbers import Delivered, Minutes, Windows
from flows.reach import EXACT_UP_TO
from flows.sketch import STANDARD_ERROR

ERRING: Final = 4
"""Standard errors by which an estimated reach may be off."""
DOUBLES_HOLD: Final = 1 << 53
"""Up to which every integer is a double."""
WINDOWS: Final = ("5m", "1h", "1d", "flight")
COUNTS: Final = BY_MINUTE[:CONSENTED_PLAYS]
UNLINKED_STARTS: Final = COUNTS.index("unlinked_starts")
UNLINKED_COMPLETES: Final = COUNTS.index("unlinked_completes")
MATURE: Final = ("5m", "1h")
UNLINKED_RATE: Final = ("1h", "1d", "flight")
LABELS: Final = ("campaign_id", *SCOPES[2:])
SPENDING: Final = tuple(
    f"{window}.{metric}" for window in WINDOWS for metric in ("cost_per_acquisition", "return_on_ad_spend")
)
DELIVERY: Final = (
    "delivery.booked",
    "delivery.delivered",
    "delivery.expected",
    "delivery.indicator",
    "delivery.state",
    "delivery.projected",
    "delivery.required_rate",
    "delivery.target_completion_rate",
    "delivery.currency",
    *SPENDING,
)
"""What `flows.pacing` says of a planned placement or its campaign; money in the plan's currency."""
NO_DELIVERY: Final = (None,) * len(DELIVERY)


CURRENCY: Final = "conversion_currency"
"""Of a row's `conversion_value`s; absent until it has one."""
CREDITS: Final = (
    *COLUMNS[:AGES_AT],
    "conversion_rate",
    "time_to_convert_p50_seconds",
    "time_to_convert_p90_seconds",
)
"""What a window says of conversions; a count by type or way that is 0 is absent. Times are upper bounds of
`flows.credits.AGES_S`.
"""
NEVER_NULL: Final = ("conversions", "conversion_value", "conversion_value_other_count")
NO_CREDITS: Final = [0 if name in NEVER_NULL else None for name in CREDITS]
RATE_AT: Final = CREDITS.index("conversion_rate")
ACCOUNT: Final = tuple(f"flight.conversions_{name}" for name in Account._fields)
"""Of a campaign: the conversions that name it, to whomever they are credited; accepted = attributed +
unattributed + pending.
"""
NO_ACCOUNT: Final = [None] * len(ACCOUNT)
FREQUENCY: Final = tuple(
    f"frequency.{name}.{metric}"
    for name in CLASSES
    for metric in ("listeners", "conversions", "conversion_rate")
)
"""Of a campaign, by impressions a listener: how many have had so many, what conversions came at so many, and
these by the listeners who ever had so many.
"""
NO_FREQUENCY: Final = [None] * len(FREQUENCY)


READ_FIRST: Final = tuple(map(WINDOWS.index, ("flight", "1h", "5m", "1d")))
"""The windows in the order in which a row has them: Redis looks for a field from the front of a row."""


TIMES: Final = ("as_of_ms", "final_through_ms", "reach_as_of_ms")
"""The first values of a row, which say as of when the others are."""


def _fields() -> tuple[str, ...]:
    fields = [*TIMES, *LABELS, *DELIVERY]
    fields += [f"flight.{name}" for name in (*BY_FLIGHT, "consent_coverage", "since_ms")]
    for place in READ_FIRST:
        name = WINDOWS[place]
        metrics = [*COUNTS, "completion_rate", "completions_per_impression", "reach", "frequency"]
        if name in MATURE:
            metrics.append("mature_completion_rate")
        if name in UNLINKED_RATE:
            metrics.append("unlinked_completion_rate")
        fields += [f"{name}.{metric}" for metric in (*metrics, *CREDITS)]
    return (*fields, CURRENCY, *FREQUENCY, *ACCOUNT)


FIELDS: Final = _fields()
"""The fields of a row, in the order of its packed values; a null is an absent field."""


ADDITIVE: Final = (
    *(f"flight.{name}" for name in BY_FLIGHT),
    *(f"{window}.{name}" for window in WINDOWS for name in (*COUNTS, "conversions")),
)
"""The fields that add up over rows: those of the names that count together in `other`."""
_ADDED: Final = tuple(map(FIELDS.index, ADDITIVE))


_HEAD, _LONG, _LONG_BYTES = 3, 0xCF, 9
_NUMBERS_AT: Final = _HEAD + len(TIMES) * _LONG_BYTES


def same_numbers(one: bytes, other: bytes) -> bool:
    """Whether packed rows differ in their `TIMES` at most: in MessagePack an array's head, then these as
    64-bit numbers, unless there are none yet.
    """
    if one[_NUMBERS_AT:] != other[_NUMBERS_AT:]:
        return False
    longs = range(_HEAD, _NUMBERS_AT, _LONG_BYTES)
    return all(packed[place] == _LONG for packed in (one, other) for place in longs)


def added_up(packed: Iterable[bytes]) -> list[int | str]:
    """The values of `ADDITIVE` over packed rows."""
    # Shares of a conversion are decimals, which binary sums would not add up.
    parts = [[Decimal(row[place] or 0) for place in _ADDED] for row in map(msgspec.msgpack.decode, packed)]
    sums = [sum(column, Decimal()) for column in zip(*parts, strict=True)]
    return [int(total) if total == int(total) else str(total) for total in sums]


class Row(NamedTuple):
    """One row as it is to be published: `packed` is a MessagePack array of the values of `FIELDS`, of which
    `flows.pacing` fills those of `DELIVERY`; by `delivered`, None without a plan.
    """

    scope: str
    name: str
    latest_ms: int
    packed: bytes
    delivered: Delivered | None = None


def decimal(value: float) -> str:
    """Up to six places, no trailing zeros."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def exact(number: int) -> int | str:
    """An integer as readers have it exactly: as text where a double, as Lua and JavaScript have it, does not
    hold it.
    """
    return number if abs(number) <= DOUBLES_HOLD else str(number)


def ratio(part: int, whole: int) -> str | None:
    """`part / whole`, None where there is no whole."""
    return decimal(part / whole) if whole else None


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


def pack(windows: Windows, as_of_ms: int, final_through_ms: int) -> list[Row]:
    """The rows of `windows`, at a watermark."""
    columns: list[list[list[Any]]] = []
    for place, name in enumerate(WINDOWS):
        sums = windows.sums[place]
        counts = _shown(sums, _held(windows, name)).tolist()
        reach, plays = windows.reach[place].tolist(), sums[:, CONSENTED_PLAYS].tolist()
        mature = windows.mature[place].tolist() if name in MATURE else []
        for row, values in enumerate(counts):
            values += [
                ratio(values[COMPLETE], values[START]),
                ratio(values[COMPLETE], values[IMPRESSION]),
                reach[row],
                _frequency_of(plays[row], reach[row]),
            ]
            if name in MATURE:
                values.append(ratio(mature[row][1], mature[row][0]))
            if name in UNLINKED_RATE:
                values.append(ratio(values[UNLINKED_COMPLETES], values[UNLINKED_STARTS]))
            credited = windows.credits[row][place]
            values += _credited(credited, reach[row])
        columns.append(counts)
    totals, latest, since = windows.totals.tolist(), windows.latest.tolist(), windows.since.tolist()
    encode = msgspec.msgpack.encode
    rows = []
    for row, (scope, name) in enumerate(windows.rows):
        values = [as_of_ms, final_through_ms, as_of_ms, *windows.labels[row], *NO_DELIVERY, *totals[row]]
        values += [ratio(totals[row][CONSENTED], totals[row][PIXELS]), since[row] or None]
        for place in READ_FIRST:
            values += columns[place][row]
        frequency, account = windows.frequency[row], windows.accounts[row]
        values.append(windows.currencies[row])
        values += NO_FREQUENCY if frequency is None else _frequency(frequency)
        values += NO_ACCOUNT if account is None else account
        rows.append(Row(scope, name, latest[row], encode(values), windows.delivered[row]))
    return rows


def _frequency_of(plays: int, reach: int) -> str | None:
    """Plays a listener. Who was reached was so by a play: where reach is an estimate that is greater than the
    plays by no more than it may err, it is 1.
    """
    erring = reach > EXACT_UP_TO and plays < reach <= plays * (1 + ERRING * STANDARD_ERROR)
    return "1" if erring else ratio(plays, reach)


def _credited(counts: I64 | None, reach: int) -> list[int | str | None]:
    """The values of `CREDITS`."""
    shown: list[int | str | None] = []
    if counts is None:
        return [*NO_CREDITS[:RATE_AT], "0" if reach else None, *NO_CREDITS[RATE_AT + 1 :]]
    for column, amount in enumerate(counts[:AGES_AT].tolist()):
        if column == VALUE:
            shown.append(exact(value_of(counts)))
        elif column == OTHER:
            shown.append(amount)
        else:
            shown.append(_whole(amount) if amount or column == 0 else None)
    rate = decimal(int(counts[0]) / WHOLE / reach) if reach else None
    return [*shown, rate, quantile_s(counts, 0.5), quantile_s(counts, 0.9)]


def _frequency(counts: I64) -> list[int | str | None]:
    """The values of `FREQUENCY`."""
    listeners, millionths = counts.tolist()
    shown: list[int | str | None] = []
    for place, amount in enumerate(millionths):
        reached = sum(listeners[place:])
        shown += (listeners[place], _whole(amount), decimal(amount / WHOLE / reached) if reached else None)
    return shown


def _number(millionths: int) -> int | float:
    return millionths // WHOLE if millionths % WHOLE == 0 else millionths / WHOLE


def _whole(millionths: int) -> int | str:
    return millionths // WHOLE if millionths % WHOLE == 0 else decimal(millionths / WHOLE)


def _held(windows: Windows, name: str) -> npt.NDArray[np.bool_]:
    """Where to show the skips and mutes of plays still without a start, whose start may take them to another
    minute, day or roll-up.

    In rolling windows, which may fall, and in a placement's flight, which a play never leaves; not where a
    count that must never fall would: in a day, and in a roll-up's flight. There they appear when their minute
    is final.
    """
    return np.array(
        [name in MATURE or (name == "flight" and scope == SCOPES[0]) for scope, _ in windows.rows]
    )


def _shown(sums: I64, held: npt.NDArray[np.bool_]) -> I64:
    """The published counts."""
    shown = sums[:, :CONSENTED_PLAYS].copy()
    for code in (SKIP, MUTE):
        shown[:, code] += sums[:, code + HELD] * held
    return shown


def minute_messages(minutes: Minutes, rev: int, as_of_ms: int) -> list[tuple[bytes, bytes]]:
    """(key, JSON) of each minute: key `<placement_id>|<minute_ms>`."""
    shown = _shown(minutes.counts, np.ones(len(minutes.counts), bool))
    state = "final" if minutes.final else "provisional"
    messages = []
    encode = msgspec.json.encode
    with np.errstate(invalid="ignore", divide="ignore"):
        completion = shown[:, COMPLETE] / shown[:, START]
        per_impression = shown[:, COMPLETE] / shown[:, IMPRESSION]
    rates = zip(np.round(completion, 6).tolist(), np.round(per_impression, 6).tolist(), strict=True)
    for placement, minute, counts, credited, (rate, per) in zip(
        minutes.placements, minutes.minutes, shown.tolist(), minutes.credits, rates, strict=True
    ):
        body = {
            "placement_id": placement,
            "minute_ms": minute * 60_000,
            "state": state,
            "rev": rev,
            "as_of_ms": as_of_ms,
            **dict(zip(COUNTS, counts, strict=True)),
            "completion_rate": rate if counts[START] else None,
            "completions_per_impression": per if counts[IMPRESSION] else None,
            "conversions": 0,
            "conversion_value": 0,
        }
        if credited is not None:
            amounts = zip(COLUMNS[:AGES_AT], credited[:AGES_AT].tolist(), strict=True)
            body |= {
                name: amount if name == COLUMNS[OTHER] else _number(amount)
                for name, amount in amounts
                if amount
            }
            body[COLUMNS[VALUE]] = exact(value_of(credited))
        messages.append((f"{placement}|{minute * 60_000}".encode(), encode(body)))
    return messages
