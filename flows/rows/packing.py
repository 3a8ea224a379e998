"""Packs the numbers of all rows at once as MessagePack, for `flows.rows.published`.

The table has a line for each row and a column for each value. Each column is of one of `KINDS`; `NIL` is
null.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from flows.model.counts import CONSENTED_PLAYS, HELD_COLUMN
from flows.model.events import COMPLETE, IMPRESSION, OF_PLAY, START
from flows.model.fields import DOUBLES_HOLD
from flows.state.arrays import I64, U8, Int
from flows.state.kernel import kernel, lean

NIL: Final = -(1 << 63)
INTEGER, RATE, SHARE, MONEY, REST = KINDS = range(5)
"""`RATE`: millionths, packed as text. `SHARE`: millionths, packed as text unless it is an integer. `MONEY`:
the lower 32 bits of an amount, packed as text if a double cannot hold the amount. `REST`: the upper bits, in
the column that `rests` names; packed with its money.
"""
MILLION: Final = 1_000_000
LONGEST: Final = 32
"""The greatest length of a packed value: 30 digits of money and a sign, after the length."""
LONG: Final = 9
"""The greatest length of a packed integer, in bytes."""
_BILLION: Final = 10**9


@lean
def rate(part: Int, whole: Int) -> Int:
    """`flows.model.fields.quotient` in millionths, for a `whole` below 2^43; `NIL` if `whole` is 0."""
    if whole == 0:
        return NIL
    return part // whole * MILLION + _half_even(part % whole * MILLION, whole)


@lean
def _half_even(part: Int, whole: Int) -> Int:
    """`part / whole`, rounded half to even."""
    rounded, twice_the_rest = part // whole, part % whole * 2
    if twice_the_rest > whole or (twice_the_rest == whole and rounded & 1):
        rounded += 1
    return rounded


@kernel
def rates(parts: I64, wholes: I64) -> I64:
    """`rate` of each pair."""
    millionths = np.empty(len(parts), np.int64)
    for i in range(len(parts)):
        millionths[i] = rate(parts[i], wholes[i])
    return millionths


@kernel
def shared_rates(millionths: I64, wholes: I64) -> I64:
    """`rate` of each pair, with parts in millionths."""
    shares = np.empty(len(millionths), np.int64)
    for i in range(len(millionths)):
        shares[i] = NIL if wholes[i] == 0 else _half_even(millionths[i], wholes[i])
    return shares


@lean
def fill_counts(
    out: I64, sums: I64, shows_held: npt.NDArray[np.bool_], reach: I64, unknown: npt.NDArray[np.bool_]
) -> None:
    """Fill in the values that every window has: the counts, `completion_rate`, `completions_per_impression`,
    `reach` and `frequency`. A row that has left `other` may have corrections of pixels that it never counted,
    so counts below 0 become 0.

    Args:
        shows_held: the rows that show held skips and mutes.
        unknown: the rows whose reach is unknown.
    """
    for row in range(len(out)):
        shown = out[row]
        for code in range(CONSENTED_PLAYS):
            shown[code] = max(sums[row, code], 0)
        if shows_held[row]:
            for code in OF_PLAY:
                shown[code] = max(sums[row, code] + sums[row, code + HELD_COLUMN], 0)
        reached = reach[row]
        shown[CONSENTED_PLAYS] = rate(shown[COMPLETE], shown[START])
        shown[CONSENTED_PLAYS + 1] = rate(shown[COMPLETE], shown[IMPRESSION])
        shown[CONSENTED_PLAYS + 2] = NIL if unknown[row] else reached
        shown[CONSENTED_PLAYS + 3] = rate(max(sums[row, CONSENTED_PLAYS], reached), reached)


@lean
def _put(to: U8, offset: Int, number: Int, width: Int) -> Int:
    for place in range(width):
        to[offset + place] = (number >> np.uint64(8 * (width - 1 - place))) & np.uint64(0xFF)
    return offset + width


@lean
def _put_integer(to: U8, offset: Int, number: Int) -> Int:
    """Pack an integer in its shortest form."""
    bits = np.uint64(number)
    if -32 <= number < 128:
        to[offset] = bits & np.uint64(0xFF)
        return offset + 1
    low = -number - 1 if number < 0 else number >> 1  # the form is too short for `low`
    form = 0
    while form < 3 and low >> ((8 << form) - 1):
        form += 1
    to[offset] = (0xD0 if number < 0 else 0xCC) + form
    return _put(to, offset + 1, bits, 1 << form)


@lean
def _put_rate(to: U8, offset: Int, millionths: Int) -> Int:
    """Pack a rate as a text of up to six decimals, without trailing zeros."""
    begin = offset
    offset += 1
    rest = millionths
    if rest < 0:
        to[offset] = ord("-")
        rest, offset = -rest, offset + 1
    whole, part = rest // MILLION, rest % MILLION
    digits = 1
    while whole // 10**digits:
        digits += 1
    for place in range(digits - 1, -1, -1):
        to[offset] = ord("0") + whole // 10**place % 10
        offset += 1
    if part:
        to[offset] = ord(".")
        offset += 1
        power = MILLION
        while part:
            power //= 10
            to[offset] = ord("0") + part // power
            part %= power
            offset += 1
    to[begin] = 0xA0 + offset - begin - 1
    return offset


@kernel
def _put_money(to: U8, offset: Int, low: Int, rest: Int) -> Int:
    """Pack an amount from its lower 32 bits and its rest."""
    if -(DOUBLES_HOLD >> 32) <= rest < DOUBLES_HOLD >> 32 or (rest == DOUBLES_HOLD >> 32 and low == 0):
        return _put_integer(to, offset, (rest << 32) + low)
    begin = offset
    offset += 1
    if rest < 0:
        to[offset] = ord("-")
        offset += 1
        rest, low = (-rest, low) if low == 0 else (-rest - 1, (1 << 32) - low)
    digits, end = np.empty(40, np.uint8), 40
    while rest or low:
        part = (rest % _BILLION) << 32 | low
        rest, low, part = rest // _BILLION, part // _BILLION, part % _BILLION
        for _ in range(9):
            end -= 1
            digits[end] = ord("0") + part % 10
            part //= 10
    while digits[end] == ord("0"):
        end += 1
    to[offset : offset + 40 - end] = digits[end:]
    offset += 40 - end
    to[begin] = 0xA0 + offset - begin - 1
    return offset


@kernel
def packed(table: I64, kinds: U8, rests: I64, ends: I64) -> tuple[U8, I64]:
    """Pack a table. Returns the bytes, and for each row the offsets of the columns in `ends`.

    Args:
        kinds: of `KINDS`, by column.
        rests: by column, the column with the rest of `MONEY`.
        ends: ascending column numbers; the last is one after the last column.
    """
    out = np.empty(len(table) * np.where(kinds == INTEGER, LONG, LONGEST).sum(), np.uint8)
    bounds, offset = np.zeros((len(table), len(ends) + 1), np.int64), 0
    for row in range(len(table)):
        bounds[row, 0], end = offset, 0
        for column in range(table.shape[1]):
            value, kind = table[row, column], kinds[column]
            if kind == REST:
                pass
            elif value == NIL:
                out[offset] = 0xC0
                offset += 1
            elif kind == MONEY:
                offset = _put_money(out, offset, value, table[row, rests[column]])
            elif kind == RATE or (kind == SHARE and value % MILLION):
                offset = _put_rate(out, offset, value)
            else:
                offset = _put_integer(out, offset, value // MILLION if kind == SHARE else value)
            if ends[end] == column + 1:
                end += 1
                bounds[row, end] = offset
    return out[:offset], bounds
