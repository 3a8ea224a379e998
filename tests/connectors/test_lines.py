"""`Lines` is a sequence of payloads like a list of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.stream import Lines

values_of = st.lists(st.binary(max_size=12))


@given(values=values_of, start=st.integers(-12, 12), stop=st.integers(-12, 12))
def test_joined_payloads_are_had_back_by_index_slice_and_in_order(
    values: list[bytes], start: int, stop: int
) -> None:
    lines = Lines.join(values)
    assert list(lines) == values
    assert len(lines) == len(values)
    assert [lines[i - len(values)] for i in range(len(values))] == values
    part = lines[start:stop]
    assert list(part) == values[start:stop]
    assert list(part[1:]) == values[start:stop][1:]
    places = list(range(len(part)))[::-2]
    assert part.payloads_at(places) == [part[place] for place in places]


@given(values=values_of, rest=st.binary(max_size=5))
def test_a_block_is_split_behind_each_line_feed(values: list[bytes], rest: bytes) -> None:
    block = b"".join(value + b"\n" for value in values) + rest
    assert list(Lines.split(block)) == block.split(b"\n")[:-1]


def test_an_index_past_the_end_and_a_slice_with_gaps_raise() -> None:
    lines = Lines.join([b"a", b"b"])
    with pytest.raises(IndexError):
        lines[2]
    with pytest.raises(ValueError, match="without gaps"):
        lines[::2]
