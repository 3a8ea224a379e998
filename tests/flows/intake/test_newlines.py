"""Line ends in one pass are those that numpy finds, whatever the block."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors import stream
from flows.intake.newlines import line_ends
from flows.intake.text_masks import WIDTH, line_feeds, plain_line_feeds
from flows.state.arrays import U8
from flows.state.bits import leading_zeros, lowest, plain_leading_zeros, plain_lowest
from flows.state.kernel import lean


@lean
def _compiled(block: U8, place: int, word: np.uint64) -> tuple[np.uint64, int, int]:
    return line_feeds(block, place), lowest(word), leading_zeros(word)


@given(st.lists(st.sampled_from([b"", b"a", b"b" * 62, b"c" * 63, b"d" * 64, b"e" * 200]), max_size=40))
def test_line_ends_are_numpys(lines: list[bytes]) -> None:
    for block in (b"\n".join(lines), b"\n".join([*lines, b""])):
        assert line_ends(block).tolist() == stream.line_ends(block).tolist()


@pytest.mark.parametrize("length", [0, 1, WIDTH - 1, WIDTH, WIDTH + 1, 100_000])
def test_a_block_of_nothing_but_line_ends_has_room(length: int) -> None:
    assert line_ends(b"\n" * length).tolist() == list(range(length))


@given(st.binary(min_size=WIDTH + 3, max_size=WIDTH + 3), st.integers(0, 2**64 - 1))
def test_bits_are_those_of_plain_python(text: bytes, number: int) -> None:
    block, word = np.frombuffer(text.replace(b"m", b"\n"), np.uint8), np.uint64(number)
    plain = plain_line_feeds(block, 3), plain_lowest(word), plain_leading_zeros(word)
    assert _compiled(block, 3, word) == plain


def test_no_bit_is_the_64th() -> None:
    assert _compiled(np.zeros(WIDTH, np.uint8), 0, np.uint64(0)) == (0, 64, 64)
