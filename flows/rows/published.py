"""Published values: the fields of a Redis row and of a `placement-minutes` message, from counts. Contract:
docs/contracts.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from flows.model.basis import CONFIRMED_PLAYS, DELIVERIES, SHOWN, SIDE_WINDOWS
from flows.model.clients import COLUMNS as BY_CLIENT
from flows.model.clients import FINAL_AT
from flows.model.conversions import (
    AGES_AT,
    BY_HOUSEHOLD,
    BY_LISTENER,
    COLUMNS,
    OTHER,
    VALUE,
    WHOLE,
    value_of,
)
from flows.model.counts import CONSENTED, CONSENTED_PLAYS, HELD, PIXELS
from flows.model.dimensions import SCOPES
from flows.model.events import COMPLETE, IMPRESSION, MUTE, SKIP, START
from flows.model.fields import (
    COUNTS,
    FIELDS,
    MATURE,
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
    decimal,
    exact,
)
from flows.model.fields import ratio as uncached_ratio
from flows.model.messages import PackedRow
from flows.rows.consistency import shares
from flows.rows.credit_cells import quantile_s
from flows.rows.sparse_cells import NOTHING
from flows.rows.values import Minutes, Windows
from flows.state.kernel import I64

ratio: Final = lru_cache(1 << 14)(uncached_ratio)
"""Most rates are of few plays, and the same ones again and again."""
_HEAD: Final = b"\xdc" + len(FIELDS).to_bytes(2, "big")
"""MessagePack's beginning of an array of over 15 values; of fewer, as `OWN` has, it is one byte."""
_NO_SIDES: Final = (None,) * (len(SHOWN) - 1)
_PLATFORM: Final = "platform"
_SHOWN_APART: Final = {SCOPES[0]: 1, _PLATFORM: 2}
"""Scopes whose rows show other numbers than the rest, where their counts are the same."""
_SIDE_PLACES: Final = tuple(map(WINDOWS.index, SIDE_WINDOWS))
_ONE_OF_EACH: Final = {"1d": 0, "flight": 1}
"""The place of a window in `Windows.homes`."""
_REACHED: Final = [*NO_CREDITS[:RATE_AT], "0", *NO_CREDITS[RATE_AT + 1 :]]
"""The values of `CREDITS` where somebody was reached and nobody converted."""


def pack_rows(windows: Windows, as_of_ms: int, final_through_ms: int) -> list[PackedRow]:
    """The rows of `windows`, at a watermark; of those that are alike the numbers are packed once."""
    firsts, like = _alike(windows)
    numbers = _numbers(windows if len(firsts) == len(like) else _only(windows, firsts))
    latest, since = windows.latest.tolist(), windows.since.tolist()
    encode, rows = msgspec.msgpack.encode, []
    for row, (scope, name) in enumerate(windows.rows):
        own = encode([as_of_ms, final_through_ms, as_of_ms, *windows.labels[row], since[row] or None])
        packed = _HEAD + own[1:] + numbers[like[row]]
        rows.append(PackedRow(scope, name, latest[row], packed, windows.delivered[row]))
    return rows


def _alike(windows: Windows) -> tuple[list[int], list[int]]:
    """Places of rows whose numbers differ, and of each row the place among these of the one that has its."""
    scopes = np.array([_SHOWN_APART.get(scope, 0) for scope, _ in windows.rows], np.int64)
    columns = [*windows.sums, *windows.mature, windows.totals]
    columns += [one[:, None] for one in (*windows.reach, *windows.homes, windows.bases, scopes)]
    joined = np.hstack(columns)
    packed, size = joined.tobytes(), joined.itemsize * joined.shape[1]
    firsts, like, known = list[int](), list[int](), dict[object, int]()
    rare: Any = windows.currencies, windows.frequency, windows.accounts, windows.delays
    own = {row for of in rare for row, one in enumerate(of) if one is not None}
    sparse = windows.credits, windows.sides
    own |= {row for of in sparse for row, one in enumerate(of) if one is not NOTHING}
    for row in range(len(joined)):
        place = known.setdefault(row if row in own else packed[row * size : (row + 1) * size], len(firsts))
        if place == len(firsts):
            firsts.append(row)
        like.append(place)
    return firsts, like


def _only(windows: Windows, some: list[int]) -> Windows:
    def part(of: Any) -> Any:
        if isinstance(of, tuple):
            return tuple(map(part, of))
        return of[some] if isinstance(of, np.ndarray) else [of[row] for row in some]

    return Windows(*map(part, windows))


def _numbers(windows: Windows) -> list[bytes]:
    """The packed values of each row behind `OWN`.

    Plays a listener are at least 1: everybody in the reach has heard one. Fewer are counted where a start has
    no play id, a play began in an earlier window, or reach is an estimate. A row whose consented pixels have
    no listener, as a podcast's, has no reach at all; its conversions are rated by its households.
    """
    columns: list[list[list[Any]]] = []
    flown, flown_homes = windows.reach[-1], windows.homes[-1]
    unknown = ((flown == 0) & (windows.totals[:, CONSENTED] > 0)).tolist()
    units = np.where(flown > 0, BY_LISTENER, np.where(flown_homes > 0, BY_HOUSEHOLD, "")).tolist()
    for place, name in enumerate(WINDOWS):
        sums = windows.sums[place]
        counts = _shown(sums, _held(windows, name)).tolist()
        reach, plays = windows.reach[place].tolist(), sums[:, CONSENTED_PLAYS].tolist()
        mature = windows.mature[place].tolist() if name in MATURE else []
        homes = windows.homes[_ONE_OF_EACH[name]].tolist() if name in SIDE_WINDOWS else [0] * len(reach)
        for row, values in enumerate(counts):
            values += [
                ratio(values[COMPLETE], values[START]),
                ratio(values[COMPLETE], values[IMPRESSION]),
                None if unknown[row] else reach[row],
                ratio(max(plays[row], reach[row]), reach[row]),
            ]
            if name in MATURE:
                values.append(ratio(mature[row][1], mature[row][0]))
            if name in UNLINKED_RATE:
                values.append(ratio(values[UNLINKED_COMPLETES], values[UNLINKED_STARTS]))
            credited = windows.credits[row][place]
            people = homes[row] if units[row] == BY_HOUSEHOLD else reach[row] * (not unknown[row])
            if credited is None:
                values += _REACHED if people else NO_CREDITS
            else:
                values += _credited(credited, people)
            if name in SIDE_WINDOWS:
                sides = windows.sides[row][place]
                usual = values[IMPRESSION] or None
                values += (usual, *_NO_SIDES) if sides is None else _beside(values[IMPRESSION], sides)
                values.append(homes[row] or None)
        columns.append(counts)
    totals, bases = windows.totals.tolist(), windows.bases.tolist()
    encode, packed = msgspec.msgpack.encode, []
    for row in range(len(totals)):
        values = [*NO_DELIVERY, *totals[row], ratio(totals[row][CONSENTED], totals[row][PIXELS])]
        values += [basis_of(bases[row]), units[row] or None]
        for place in READ_FIRST:
            values += columns[place][row]
        frequency, account = windows.frequency[row], windows.accounts[row]
        values.append(windows.currencies[row])
        values += NO_FREQUENCY if frequency is None else _frequency(frequency)
        values += NO_ACCOUNT if account is None else account
        values += NO_CONSISTENCY if windows.rows[row][0] != _PLATFORM else _consistency(windows, columns, row)
        packed.append(encode(values)[len(_HEAD) :])
    return packed


def _consistency(windows: Windows, columns: list[list[list[Any]]], row: int) -> list[str | None]:
    """The values of `CONSISTENCY` of a platform."""
    shown: list[str | None] = []
    for place in _SIDE_PLACES:
        shown += shares(columns[place][row], int(windows.sums[place][row, CONSENTED_PLAYS]))
    return [*shown, windows.delays[row]]


def _beside(impressions: int, sides: I64) -> list[int | str | None]:
    """The values of `flows.model.basis.SHOWN`; impressions that no other basis claims are of the first."""
    counts = sides.tolist()
    deliveries, confirmed = counts[DELIVERIES], counts[CONFIRMED_PLAYS]
    shown = [impressions - sum(counts[:DELIVERIES]), *counts]
    through = ratio(confirmed, deliveries) if confirmed else None
    return [*(count or None for count in shown), through]


def _credited(counts: I64, reach: int) -> list[int | str | None]:
    """The values of `CREDITS`; `reach` is of whom the row's unit counts."""
    shown: list[int | str | None] = []
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
    """The windows that show held skips and mutes, whose start may take them to another minute, day or
    roll-up. They are rolling windows, which may fall, and a placement's flight, which a play never leaves. A
    day and a roll-up's flight never fall, and so do not show them. There they appear when their minute is
    final.
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


def minute_messages(
    minutes: Minutes, rev: int, as_of_ms: int, methodology: Callable[[int], str]
) -> list[tuple[bytes, bytes]]:
    """(key, JSON) of each minute: key `<placement_id>|<minute_ms>`; a final one says by which methodology,
    which is asked for by its time in ms.
    """
    shown = _shown(minutes.counts, np.ones(len(minutes.counts), bool))
    state = "final" if minutes.final else "provisional"
    messages = []
    encode = msgspec.json.encode
    with np.errstate(invalid="ignore", divide="ignore"):
        completion = shown[:, COMPLETE] / shown[:, START]
        per_impression = shown[:, COMPLETE] / shown[:, IMPRESSION]
    rates = zip(np.round(completion, 6).tolist(), np.round(per_impression, 6).tolist(), strict=True)
    counted = zip(shown.tolist(), minutes.credits, minutes.clients, strict=True)
    for placement, minute, (counts, credited, clients), (rate, per) in zip(
        minutes.placements, minutes.minutes, counted, rates, strict=True
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
        if minutes.final:
            body["methodology"] = methodology(minute * 60_000)
        if credited is not None:
            amounts = zip(COLUMNS[:AGES_AT], credited[:AGES_AT].tolist(), strict=True)
            body |= {
                name: amount if name == COLUMNS[OTHER] else _number(amount)
                for name, amount in amounts
                if amount
            }
            body[COLUMNS[VALUE]] = exact(value_of(credited))
        if clients is not None:
            body |= {BY_CLIENT[at]: count for at, count in zip(FINAL_AT, clients, strict=True) if count}
        messages.append((f"{placement}|{minute * 60_000}".encode(), encode(body)))
    return messages
