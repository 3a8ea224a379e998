"""Texts as polynomials over the prime 2^61 - 1 at two secret points.

Two texts of n bytes collide with a probability below (n / 2^61)^2, even if an enemy chooses them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from secrets import randbelow
from typing import Any, Final, TypeVar

import numba
import numpy as np

_F = TypeVar("_F", bound=Callable[..., Any])

_PRIME: Final = 2**61 - 1
_ABSENT: Final = 2**32 + 1
"""The term of an absent text in a polynomial. Lengths and parts of texts are less than this."""


def compiled(function: _F) -> _F:
    """A loop of numbers, compiled on first use and cached on disk."""
    loop: _F = numba.njit(cache=True, nogil=True)(function)
    return loop


@compiled
def _times(a: Any, b: Any) -> Any:
    """a * b modulo 2^61 - 1."""
    low, half = np.uint64(0x7FFFFFFF), np.uint64(31)
    prime = np.uint64(0x1FFFFFFFFFFFFFFF)
    a_high, a_low, b_high, b_low = a >> half, a & low, b >> half, b & low
    middle = a_low * b_high + a_high * b_low
    sum_ = (
        a_high * b_high * np.uint64(2)
        + (middle >> np.uint64(30))
        + ((middle & np.uint64(0x3FFFFFFF)) << half)
        + a_low * b_low
    )
    sum_ = (sum_ >> np.uint64(61)) + (sum_ & prime)
    return sum_ - prime if sum_ >= prime else sum_


@compiled
def _step(value: Any, point: Any, piece: Any) -> Any:
    """value * point + piece modulo 2^61 - 1: the next value of a polynomial."""
    prime = np.uint64(0x1FFFFFFFFFFFFFFF)
    value = _times(value, point) + piece
    return value - prime if value >= prime else value


@compiled
def feed(pair: Any, points: Any, block: Any, begin: Any, length: Any) -> None:
    """Add a text of a block to a pair of polynomials: its length, then four bytes at a time. A negative
    length stands for an absent text.
    """
    a, b = pair[0], pair[1]
    if length < 0:
        pair[0] = _step(a, points[0], np.uint64(_ABSENT))
        pair[1] = _step(b, points[1], np.uint64(_ABSENT))
        return
    a, b = _step(a, points[0], np.uint64(length)), _step(b, points[1], np.uint64(length))
    for word_begin in range(begin, begin + length, 4):
        piece = np.uint64(0)
        for i in range(min(4, begin + length - word_begin)):
            piece |= np.uint64(block[word_begin + i]) << np.uint64(8 * i)
        a, b = _step(a, points[0], piece), _step(b, points[1], piece)
    pair[0], pair[1] = a, b


@compiled
def _feed_all(pair: Any, points: Any, block: Any, lengths: Any) -> None:
    begin = 0
    for length in lengths:
        feed(pair, points, block, begin, length)
        begin += max(length, 0)


class Hash:
    """A hash of texts: their polynomials at two secret points of this process."""

    def __init__(self) -> None:
        self.points = np.array([2**32 + randbelow(_PRIME - 2**32) for _ in range(2)], np.uint64)

    def __call__(self, first: int, texts: Sequence[str | None]) -> tuple[int, int]:
        """The polynomials of texts, one after another, both with the first term `first`."""
        data = b"".join(text.encode() for text in texts if text is not None)
        lengths = np.array([-1 if text is None else len(text.encode()) for text in texts], np.int64)
        pair = np.array([first, first], np.uint64)
        _feed_all(pair, self.points, np.frombuffer(data + b"\0", np.uint8), lengths)
        return int(pair[0]), int(pair[1])
