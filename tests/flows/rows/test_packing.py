"""The compiled packing of numbers against msgspec and exact quotients."""

from __future__ import annotations

import json
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flows.model.conversion_columns import LOW, VALUE_BITS, WHOLE
from flows.model.counts import MINUTE_COUNTS
from flows.model.events import COMPLETE, IMPRESSION, START
from flows.model.fields import DOUBLES_HOLD, exact, quotient, ratio
from flows.rows.packing import INTEGER, MONEY, NIL, RATE, REST, SHARE, packed, rates, shared_rates
from flows.rows.published import minute_messages
from flows.rows.values import Minutes

WHOLES = st.one_of(
    st.integers(0, 1 << 40),
    st.sampled_from([2**two * 5**five for two in range(15) for five in range(11)]),  # ties
)


def pack(values: list[int], kind: int) -> list[bytes]:
    of_kind = np.array([kind], np.uint8)
    buffer, bounds = packed(np.array(values, np.int64)[:, None], of_kind, np.array([-1]), np.array([1]))
    raw = buffer.tobytes()
    return [raw[begin:end] for begin, end in bounds.tolist()]


@given(st.lists(st.tuples(st.integers(0, 1 << 42), WHOLES), min_size=1))
@example([(1, 128), (1, 640), (3, 640), (1, 3), (2, 3), (0, 7), (7, 0), (10**12, 1), (144_115_188_072, 5)])
@example([(2**42 - by, whole) for by in range(40) for whole in (3, 7, 9, 64, 320, 640, 1280)])
def test_a_rate_is_packed_as_its_quotient(some: list[tuple[int, int]]) -> None:
    found = rates(*np.array(some, np.int64).T)
    told = [ratio(part, whole) for part, whole in some]
    assert pack(found.tolist(), RATE) == [msgspec.msgpack.encode(text) for text in told]


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (1, 640, "0.001562"),
        (3, 640, "0.004688"),
        (1, 128, "0.007812"),
        (13, 640, "0.020312"),
        (2, 3, "0.666667"),
    ],
)
def test_rates_round_half_to_even_in_rows_and_minutes(part: int, whole: int, text: str) -> None:
    """Doubles of these are above or below the half, so that they rounded either way."""
    counts = np.zeros((1, MINUTE_COUNTS), np.int64)
    counts[0, [IMPRESSION, START]], counts[0, COMPLETE] = whole, part
    ((_, body),) = minute_messages(Minutes(["p"], [0], counts, [None], True, [None]), 1, 0, str)
    minute = json.loads(body)
    assert quotient(part, whole) == ratio(part, whole) == text
    assert pack(rates(np.array([part]), np.array([whole])).tolist(), RATE) == [msgspec.msgpack.encode(text)]
    assert minute["completion_rate"] == minute["completions_per_impression"] == float(text)


@given(
    st.lists(
        st.one_of(
            st.integers(-(1 << 63) + 1, (1 << 63) - 1), st.integers(-(1 << 17), 1 << 17), st.integers(0, 300)
        ),
        min_size=1,
    )
)
@example([sign * (1 << bits) + by for bits in range(63) for sign in (1, -1) for by in (-1, 0, 1)])
def test_an_integer_is_packed_as_msgspec_does(some: list[int]) -> None:
    assert pack(some, INTEGER) == [msgspec.msgpack.encode(one) for one in some]


@given(st.lists(st.one_of(st.integers(0, 1 << 50), st.integers(0, 1000).map(WHOLE.__mul__)), min_size=1))
@example([0, 1, WHOLE // 2, WHOLE, 3 * WHOLE + 250_000])
def test_a_share_is_an_integer_where_it_is_whole(some: list[int]) -> None:
    told = [of // WHOLE if of % WHOLE == 0 else quotient(of, WHOLE) for of in some]
    assert pack(some, SHARE) == [msgspec.msgpack.encode(one) for one in told]


@given(
    st.lists(st.tuples(st.integers(0, 1 << 53), st.integers(0, 1 << 40)), min_size=1),
)
def test_a_rate_of_shares_is_that_of_conversions(some: list[tuple[int, int]]) -> None:
    told = [ratio(of, WHOLE * whole) for of, whole in some]
    found = shared_rates(*np.array(some, np.int64).T.copy())
    assert pack(found.tolist(), RATE) == [msgspec.msgpack.encode(one) for one in told]


@given(st.lists(st.one_of(st.integers(-(10**26), 10**26), st.integers(-1000, 1000)), min_size=1))
@example([sign * (DOUBLES_HOLD + by) for sign in (1, -1) for by in (-1, 0, 1)])
@example([sign * 10**power * by for power in range(27) for sign in (1, -1) for by in (1, 9)])
@example([sign * (1 << bits) + by for bits in range(88) for sign in (1, -1) for by in (-1, 0, 1)])
def test_money_is_exact_at_any_size(some: list[int]) -> None:
    table = np.array([[one & LOW, 7, one >> VALUE_BITS] for one in some], np.int64)
    kinds, rests = np.array([MONEY, INTEGER, REST], np.uint8), np.array([2, -1, -1])
    buffer, _ = packed(table, kinds, rests, np.array([3]))
    told = [[exact(one), 7] for one in some]
    assert buffer.tobytes() == b"".join(msgspec.msgpack.encode(one)[1:] for one in told)


@given(st.integers(1, 4), st.integers(1, 6), st.data())
def test_the_parts_of_a_table_are_its_columns_behind_each_other(
    rows: int, columns: int, data: st.DataObject
) -> None:
    cells = st.one_of(st.just(NIL), st.integers(-1000, 10**6))
    table = [[data.draw(cells) for _ in range(columns)] for _ in range(rows)]
    kinds = [data.draw(st.sampled_from([INTEGER, RATE])) for _ in range(columns)]
    ends = sorted({columns, *data.draw(st.lists(st.integers(1, columns)))})
    buffer, bounds = packed(
        np.array(table, np.int64), np.array(kinds, np.uint8), np.full(columns, -1), np.array(ends)
    )
    raw = buffer.tobytes()
    for values, places in zip(table, bounds.tolist(), strict=True):
        each = [
            None if value == NIL else (ratio(value, 10**6) if of == RATE else value)
            for value, of in zip(values, kinds, strict=True)
        ]
        want = [b"".join(map(msgspec.msgpack.encode, each[begin:end])) for begin, end in pairwise([0, *ends])]
        assert [raw[begin:end] for begin, end in pairwise(places)] == want
