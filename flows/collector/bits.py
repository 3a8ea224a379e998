"""Strings of bits as consent strings write them: base64url, six bits a character, the highest bit first."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode

_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")
_MAX_ID = 1 << 16
"""The greatest id that Fibonacci coding may give."""


class Bits:
    """Reads numbers from a string of bits, in order. A string that was cut must not be read as a run of
    zeros, which would be invented answers.

    Raises:
        ValueError: a character that is not base64url, or a number that reaches past the end.
    """

    def __init__(self, text: str) -> None:
        if _BASE64URL.fullmatch(text) is None:
            raise ValueError("not base64url")
        self._packed = urlsafe_b64decode(text + "A" * (-len(text) % 4))
        self._end, self._position = 6 * len(text), 0

    def number(self, width: int) -> int:
        """The next `width` bits as an unsigned number."""
        end = self._position + width
        if end > self._end:
            raise ValueError("cut short")
        # Shift only the bytes that hold these bits: a shift of the whole string for each number takes
        # quadratic time.
        last = (end + 7) // 8
        packed = int.from_bytes(self._packed[self._position // 8 : last]) >> (8 * last - end)
        self._position = end
        return packed & ((1 << width) - 1)

    def flag(self) -> bool:
        """The next bit."""
        return self.number(1) == 1

    def fibonacci(self) -> int:
        """The next number of Fibonacci coding: its Zeckendorf digits, the least first, then a one."""
        total, a, b, previous_bit = 0, 1, 2, False
        while True:
            if a > _MAX_ID:
                raise ValueError("a number above the greatest id")
            bit = self.flag()
            if bit and previous_bit:
                return total
            total += a if bit else 0
            a, b, previous_bit = b, a + b, bit
