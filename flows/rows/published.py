"""Published values: the fields of a Redis row and of a `placement-minutes` message, from counts. Contract:
docs/contracts.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from flows.model.basis import CONFIRMED_PLAYS, DELIVERIES, SHOWN, SIDE_WINDOWS
from flows.model.client_counts import COLUMNS as BY_CLIENT
from flows.model.client_counts import FINAL_AT
from flows.model.conversion_columns import (
    AGES_AT,
    AGES_S,
    BY_HOUSEHOLD,
    BY_LISTENER,
    COLUMNS,
    OTHER,
    WHOLE,
    carry,
    value_of,
)
from flows.model.conversion_columns import MONEY as MONEY_COLUMNS
from flows.model.counts import CONSENTED, CONSENTED_PLAYS, FLIGHT_COUNTS, HELD_COLUMN, PIXELS
from flows.model.dimensions import SCOPES
from flows.model.events import COMPLETE, IMPRESSION, OF_PLAY, START
from flows.model.fields import (
    COUNTS,
    CREDITS,
    FIELDS,
    MATURE,
    NEVER_NULL,
    NO_ACCOUNT,
    NO_CONSISTENCY,
    NO_CREDITS,
    NO_DELIVERY,
    NO_FREQUENCY,
    RATE_AT,
    READ_FIRST,
    UNLINKED_COMPLETES,
    UNLINKED_RATE,
    UNLINKED_STARTS,
    WINDOWS,
    basis_of,
    exact,
    quotient,
    ratio,
)
from flows.model.messages import PackedRow
from flows.rows.consistency import shares
from flows.rows.packing import (
    INTEGER,
    MILLION,
    MONEY,
    NIL,
    RATE,
    REST,
    SHARE,
    fill_counts,
    packed,
    rates,
    shared_rates,
)
from flows.rows.row_columns import Frequency
from flows.rows.values import Minutes, Windows
from flows.state.arrays import I64, U8

AT_ONCE: Final = 512
"""The number of rows that are packed together: a table of about 1 MiB, which stays in the processor's
cache.
"""
_HEAD: Final = b"\xdc" + len(FIELDS).to_bytes(2, "big")
"""The head of a MessagePack array of over 15 values. The head of a shorter array, such as `ROW_HEAD`, is
one byte.
"""
_PLATFORM: Final = "platform"
_UNITS: Final = (None, BY_LISTENER, BY_HOUSEHOLD)
"""The unit of a row's reach, and of its conversion rates."""
_SIDE_PLACES: Final = tuple(map(WINDOWS.index, SIDE_WINDOWS))
_ONE_OF_EACH: Final = {"1d": 0, "flight": 1}
"""The place of a window in `Windows.homes`."""


class _Columns(NamedTuple):
    """The columns of a window in the table of numbers. The counts begin at `begin`, `CREDITS` at `credits`,
    and the rests of `MONEY` at `rests`. `SHOWN` and the households reached begin at `sides`, if the window
    has them.
    """

    begin: int
    mature: int | None
    unlinked: int | None
    credits: int
    rests: int
    sides: int
    end: int


def _columns() -> tuple[dict[int, _Columns], U8, I64, I64]:
    """The columns of each window in the table, the kinds of all columns, the places of the rests of `MONEY`,
    and the ends of a row's two parts.
    """
    totals_at = len(NO_DELIVERY)
    next_column = totals_at + FLIGHT_COUNTS + 1
    begin_at, windows = next_column, dict[int, _Columns]()
    kinds, rests = {next_column - 1: RATE}, dict[int, int]()
    for place in READ_FIRST:
        begin, name = next_column, WINDOWS[place]
        kinds |= dict.fromkeys(
            (next_column + len(COUNTS), next_column + len(COUNTS) + 1, next_column + len(COUNTS) + 3), RATE
        )
        next_column += len(COUNTS) + 4
        mature = next_column if name in MATURE else None
        next_column += name in MATURE
        unlinked = next_column if name in UNLINKED_RATE else None
        next_column += name in UNLINKED_RATE
        kinds |= dict.fromkeys(
            (rate_column for rate_column in (mature, unlinked) if rate_column is not None), RATE
        )
        kinds |= {next_column + column: SHARE for column in range(AGES_AT) if column != OTHER}
        kinds[next_column + RATE_AT] = RATE
        credits, rest = next_column, next_column + len(NO_CREDITS)
        next_column = sides = rest + len(MONEY_COLUMNS)
        for number, column in enumerate(MONEY_COLUMNS):
            kinds[credits + column], rests[credits + column] = MONEY, rest + number
            kinds[rest + number] = REST
        if name in SIDE_WINDOWS:
            kinds[sides + SHOWN.index("play_through")] = RATE
            next_column += len(SHOWN) + 1
        windows[place] = _Columns(begin, mature, unlinked, credits, rest, sides, next_column)
    columns = range(next_column)
    return (
        windows,
        np.array([kinds.get(column, INTEGER) for column in columns], np.uint8),
        np.array([rests.get(column, -1) for column in columns]),
        np.array([begin_at, next_column]),
    )


_WINDOWS, _KINDS, _RESTS, _ENDS = _columns()
_EMPTY: Final = np.full(len(_KINDS), NIL)
for _window in _WINDOWS.values():
    _EMPTY[_window.credits : _window.rests] = [NIL if value is None else value for value in NO_CREDITS]
    _EMPTY[_window.rests : _window.sides] = 0
_NEVER_NULL: Final = np.isin(CREDITS[:AGES_AT], NEVER_NULL)
_AGES: Final = np.array(AGES_S)
_NOTHING_BEHIND: Final = msgspec.msgpack.encode([None, *NO_FREQUENCY, *NO_ACCOUNT, *NO_CONSISTENCY])[3:]
"""The values after the windows of most rows, all null."""


def pack_rows(windows: Windows, as_of_ms: int, final_through_ms: int) -> list[PackedRow]:
    """Packed rows of `windows`, at a watermark."""
    rows = list[PackedRow]()
    for begin in range(0, len(windows.rows), AT_ONCE):
        rows += _packed_rows(windows.part(slice(begin, begin + AT_ONCE)), as_of_ms, final_through_ms)
    return rows


def _packed_rows(windows: Windows, as_of_ms: int, final_through_ms: int) -> Iterator[PackedRow]:
    latest, since, turned = windows.latest.tolist(), windows.since.tolist(), windows.turned.tolist()
    encode = msgspec.msgpack.encode
    for row, ((scope, name), numbers) in enumerate(zip(windows.rows, _numbers(windows), strict=True)):
        own = encode([as_of_ms, final_through_ms, as_of_ms, *windows.labels[row], since[row] or None])
        packed = _HEAD + own[1:] + numbers
        yield PackedRow(scope, name, latest[row], packed, windows.delivered[row], turned[row])


def _numbers(windows: Windows) -> list[bytes]:
    """The packed values of each row after `ROW_HEAD`.

    Plays per listener are at least 1, since every listener in the reach has had a play. The counts alone may
    give less: a start without a play id, a play that began in an earlier window, or an estimated reach. A row
    whose consented pixels have no listener, such as a podcast, has no reach; its conversion rates are per
    household. A row whose pixels are all from before its plan's start has listeners in its hour and day, but
    none in its flight.
    """
    has_listeners, has_households = (
        np.any(reach_of_windows, axis=0) for reach_of_windows in (windows.reach, windows.homes)
    )
    unknown = ~has_listeners & (windows.totals[:, CONSENTED] > 0)
    units = np.where(has_listeners, 1, np.where(has_households, 2, 0))
    by_home = units == _UNITS.index(BY_HOUSEHOLD)
    homes = [windows.homes[_ONE_OF_EACH[name]] if name in SIDE_WINDOWS else 0 for name in WINDOWS]
    people = [
        np.where(by_home, at_home, np.where(unknown, 0, reach))
        for at_home, reach in zip(homes, windows.reach, strict=True)
    ]
    table = _table(windows, unknown, people)
    buffer, places = packed(table, _KINDS, _RESTS, _ENDS)
    raw, packed_rows = buffer.tobytes(), []
    names = zip(windows.bases.tolist(), units.tolist(), strict=True)
    for row, ((basis, unit), bounds) in enumerate(zip(names, places.tolist(), strict=True)):
        totals, of_windows = raw[bounds[0] : bounds[1]], raw[bounds[1] : bounds[2]]
        packed_rows.append(totals + _named(basis, unit) + of_windows + _last(windows, row, table))
    return packed_rows


def _table(windows: Windows, unknown: npt.NDArray[np.bool_], people: Sequence[I64]) -> I64:
    """The table of numbers. `people` are the listeners or households that conversion rates divide by."""
    table = np.tile(_EMPTY, (len(windows.rows), 1))
    totals_at = len(NO_DELIVERY)
    table[:, totals_at : totals_at + FLIGHT_COUNTS] = windows.totals
    placements = np.array([scope == SCOPES[0] for scope, _ in windows.rows])
    counted = np.ascontiguousarray(windows.totals[:, [CONSENTED, PIXELS]].T)
    table[:, totals_at + FLIGHT_COUNTS] = rates(*counted)
    for place, columns in _WINDOWS.items():
        name = WINDOWS[place]
        counts = table[:, columns.begin : columns.credits]
        fill_counts(counts, windows.sums[place], _shows_held(name, placements), windows.reach[place], unknown)
        if columns.mature is not None:
            started, completed = windows.mature[place].T
            table[:, columns.mature] = rates(completed, started)
        if columns.unlinked is not None:
            table[:, columns.unlinked] = rates(counts[:, UNLINKED_COMPLETES], counts[:, UNLINKED_STARTS])
        table[:, columns.credits + RATE_AT] = np.where(people[place] > 0, 0, NIL)
        if len(credited := windows.credits.rows):
            of_rows = windows.credits.sums[name]
            table[credited, columns.credits : columns.sides] = _credited(of_rows, people[place][credited])
        if columns.sides < columns.end:
            impressions, homes = counts[:, IMPRESSION], windows.homes[_ONE_OF_EACH[name]]
            table[:, columns.sides] = np.where(impressions > 0, impressions, NIL)
            if len(sided_rows := windows.sides.rows):
                table[sided_rows, columns.sides : columns.end - 1] = side_values(
                    impressions[sided_rows], windows.sides.sums[name]
                )
            table[:, columns.end - 1] = np.where(homes > 0, homes, NIL)
    return table


def _packed(values: Sequence[Any]) -> bytes:
    """Values in MessagePack, one after another."""
    return msgspec.msgpack.encode(values)[1 if len(values) < 16 else 3 :]


@cache
def _named(basis: int, unit: int) -> bytes:
    """The packed names of the basis and the unit."""
    return _packed((basis_of(basis), _UNITS[unit]))


def _credited(counts: I64, people: I64) -> I64:
    """The columns of `CREDITS`, and the rests of the money columns, with carried overflow."""
    carry(counts)
    shown = counts[:, :AGES_AT]
    return np.column_stack(
        [
            np.where((shown == 0) & ~_NEVER_NULL, NIL, shown),
            shared_rates(counts[:, 0].copy(), people),
            quantiles_s(counts, 0.5),
            quantiles_s(counts, 0.9),
            counts[:, list(MONEY_COLUMNS.values())],
        ]
    )


def quantiles_s(counts: I64, share: float) -> I64:
    """The quantile `share` of the ages of conversions, for each row of counts by class: the upper bound of
    its class, in seconds; `NIL` without ages.
    """
    ages = np.cumsum(counts[:, AGES_AT : AGES_AT + len(AGES_S)], axis=1)
    total = ages[:, -1:]
    return np.where(total[:, 0] > 0, _AGES[(ages >= share * total).argmax(axis=1)], NIL)


def _last(windows: Windows, row: int, table: I64) -> bytes:
    """The packed values of a row after its windows."""
    platform = windows.rows[row][0] == _PLATFORM
    currency, frequency = windows.currencies[row], windows.frequency[row]
    account = windows.accounts[row]
    if currency is None and frequency is None and account is None and not platform:
        return _NOTHING_BEHIND
    values = [currency, *(NO_FREQUENCY if frequency is None else _frequency(frequency))]
    values += NO_ACCOUNT if account is None else account
    values += _consistency(windows, row, table[row]) if platform else NO_CONSISTENCY
    return _packed(values)


def _consistency(windows: Windows, row: int, numbers: I64) -> list[str | None]:
    """The values of `CONSISTENCY` of a platform."""
    shown: list[str | None] = []
    for place in _SIDE_PLACES:
        begin = _WINDOWS[place].begin
        counts = numbers[begin : begin + len(COUNTS)].tolist()
        shown += shares(counts, int(windows.sums[place][row, CONSENTED_PLAYS]))
    return [*shown, windows.delays[row]]


def side_values(impressions: I64, sides: I64) -> I64:
    """The values of `flows.model.basis.SHOWN` from each row's counts of `SIDES`. Impressions without another
    basis count in the first basis. The bases are bounded to add up to `impressions`: an impression whose
    basis a later pixel raised may have counted in `other`. A row with more confirmed plays than deliveries
    has plays whose deliveries count elsewhere, so its share is null.
    """
    shown, left = np.column_stack([impressions, sides, impressions]), impressions.copy()
    for basis in range(DELIVERIES):
        shown[:, 1 + basis] = np.clip(sides[:, basis], 0, left)
        left -= shown[:, 1 + basis]
    shown[:, 0] = left
    shown[shown == 0] = NIL
    deliveries, confirmed = sides[:, DELIVERIES].copy(), sides[:, CONFIRMED_PLAYS].copy()
    has_share = (confirmed > 0) & (confirmed <= deliveries)
    shown[:, -1] = np.where(has_share, rates(confirmed, deliveries), NIL)
    return shown


def _frequency(counts: Frequency) -> list[int | str | None]:
    """The values of `FREQUENCY`."""
    listeners, millionths = counts
    shown: list[int | str | None] = []
    for place, amount in enumerate(millionths):
        reached = sum(listeners[place:])
        shown += (listeners[place], _whole(amount), ratio(amount, WHOLE * reached))
    return shown


def _number(millionths: int) -> int | float:
    return millionths // WHOLE if millionths % WHOLE == 0 else millionths / WHOLE


def _whole(millionths: int) -> int | str:
    return millionths // WHOLE if millionths % WHOLE == 0 else quotient(millionths, WHOLE)


def _shows_held(window: str, placements: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The rows whose window shows held skips and mutes: a later start may move these to another minute, day
    or roll-up. Rolling windows show them, since rolling windows may fall. The flight of a placement shows
    them, since a play never leaves it. A day and the flight of a roll-up never fall, and show them once their
    minute is final.
    """
    return placements if window == "flight" else np.full(len(placements), window in MATURE)


def _shown(sums: I64, shows_held: npt.NDArray[np.bool_]) -> I64:
    """The counts as published."""
    shown = sums[:, :CONSENTED_PLAYS].copy()
    for code in OF_PLAY:
        shown[:, code] += sums[:, code + HELD_COLUMN] * shows_held
    return np.maximum(shown, 0)


def minute_messages(
    minutes: Minutes, rev: int, as_of_ms: int, methodology: Callable[[int], str]
) -> list[tuple[bytes, bytes]]:
    """(key, JSON) of each minute; the key is `<placement_id>|<minute_ms>`. A final minute names its
    methodology; `methodology` returns it for an epoch time in ms.
    """
    shown = _shown(minutes.counts, np.ones(len(minutes.counts), bool))
    state = "final" if minutes.final else "provisional"
    messages = []
    encode = msgspec.json.encode
    completes = shown[:, COMPLETE].copy()
    rated = (rates(completes, shown[:, whole].copy()) / MILLION for whole in (START, IMPRESSION))
    counted = zip(shown.tolist(), minutes.credits, minutes.clients, strict=True)
    for placement, minute, (counts, credited, clients), completion, per in zip(
        minutes.placements, minutes.minutes, counted, *rated, strict=True
    ):
        body = {
            "placement_id": placement,
            "minute_ms": minute * 60_000,
            "state": state,
            "rev": rev,
            "as_of_ms": as_of_ms,
            **dict(zip(COUNTS, counts, strict=True)),
            "completion_rate": float(completion) if counts[START] else None,
            "completions_per_impression": float(per) if counts[IMPRESSION] else None,
            "conversions": 0,
            "conversion_value": 0,
            "conversion_value_claimed": 0,
        }
        if minutes.final:
            body["methodology"] = methodology(minute * 60_000)
        if credited is not None:
            amounts = zip(COLUMNS[:AGES_AT], credited[:AGES_AT].tolist(), strict=True)
            body |= {
                name: amount if name == COLUMNS[OTHER] else _number(amount)
                for name, amount in amounts
                if amount
            }
            body |= {COLUMNS[column]: exact(value_of(credited, column)) for column in MONEY_COLUMNS}
        if clients is not None:
            body |= {
                BY_CLIENT[client]: count for client, count in zip(FINAL_AT, clients, strict=True) if count
            }
        messages.append((f"{placement}|{minute * 60_000}".encode(), encode(body)))
    return messages
