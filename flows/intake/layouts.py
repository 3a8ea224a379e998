"""Learned layouts. A sender writes the same keys in the same order, so the literal text of its next line is
predictable.

A layout is the common text of one sender's lines: `{"event_id":"`, `","event":"`, … `}`. A line is compared
with it piece by piece, 64 bytes at once, and only the values between the pieces are read. That takes half the
time of finding each key by its word (`flows.intake.scanner.read`). Layouts with the same beginning share
pieces: if the next piece differs, the line is compared with another layout that has the same beginning.

A layout is learned from a line that the scanner has read, at most one layout a batch, so that no sender can
make the flow spend its time on learning. Layouts do not change results. A line that fits no layout is read
word by word. A line that fits has the keys, separators and kinds of values of a line that the scanner
accepted, and its values obey the same rules (`tests/flows/intake/test_layouts.py`).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import numpy as np

from flows.intake import keywords as words
from flows.intake.text_masks import WIDTH, differing, text_masks
from flows.model.events import MAX_ID
from flows.state.arrays import I64, U8
from flows.state.bits import lowest
from flows.state.kernel import lean
from flows.state.siphash import load64

MAX_LAYOUTS: Final = 16
MAX_PIECES: Final = 64
MAX_TAG_BYTES: Final = 255
"""The greatest length of a tag in bytes: eight bits hold it."""
_MAX_TEXT: Final = 2048
"""The greatest length of all pieces of one layout, in bytes."""

TEXT, NUMBER, TRUTH, NULL, CLOSE = range(5)
"""Kinds of the value after a piece. A truth value may be null."""
FIELD, KIND, BEGIN, LENGTH, MOST = range(5)
"""Columns of a piece: field and kind of the value after it, place and length of its text, and the greatest
length of a text value after it.
"""
LAST, COUNT, MISSED = range(3)
"""Counters: the layout that fitted last, the number of layouts, and a line that fitted no layout (-1 without
one).
"""

TRUE, FALSE, NOTHING = (np.uint64(int.from_bytes(text, "little")) for text in (b"true", b"false", b"null"))
FOUR_BYTES, FIVE_BYTES = np.uint64(2**32 - 1), np.uint64(2**40 - 1)
_ZEROS, _HIGH_BITS = np.uint64(0x3030303030303030), np.uint64(0x8080808080808080)
_BEYOND_NINE: Final = np.uint64(0x7676767676767676)
_PAIRS, _FOURS = np.uint64(100 + (1_000_000 << 32)), np.uint64(1 + (10_000 << 32))
_ALTERNATE: Final = np.uint64(0x000000FF000000FF)
_TENS: Final = np.array([10**digits for digits in range(9)], np.int64)
_PAIR: Final = re.compile(rb'"([^"]*)": ?("[^"]*"|[0-9]+|[a-z]+)')


class Layouts(NamedTuple):
    """All learned layouts.

    Attributes:
        pieces: (layouts, pieces, 5) the columns of each piece.
        text: the bytes of all pieces; each layout has `_MAX_TEXT` bytes.
        alike: (layouts, layouts) the number of pieces that two layouts share from the beginning.
        counters: `LAST`, `COUNT` and `MISSED`.
    """

    pieces: I64
    text: U8
    alike: I64
    counters: I64

    @classmethod
    def none(cls) -> Layouts:
        """A table without a layout."""
        return cls(
            np.zeros((MAX_LAYOUTS, MAX_PIECES, MOST + 1), np.int64),
            np.zeros(MAX_LAYOUTS * _MAX_TEXT + WIDTH, np.uint8),
            np.zeros((MAX_LAYOUTS, MAX_LAYOUTS), np.int64),
            np.array([0, 0, -1], np.int64),
        )

    def learn(self, line: bytes) -> None:
        """Add the layout of a line that the scanner has read; a full table starts over."""
        pieces, texts = _pieces_of(line)
        if len(pieces) > MAX_PIECES or max(map(len, texts)) > WIDTH or sum(map(len, texts)) > _MAX_TEXT:
            return
        new = int(self.counters[COUNT]) % MAX_LAYOUTS
        count = new + 1
        begin = new * _MAX_TEXT
        for number, (piece, text) in enumerate(zip(pieces, texts, strict=True)):
            field, kind = piece
            self.pieces[new, number] = field, kind, begin, len(text), _most(field)
            self.text[begin : begin + len(text)] = np.frombuffer(text, np.uint8)
            begin += len(text)
        for other_layout in range(count):
            alike = 0
            while self._piece(new, alike) == self._piece(other_layout, alike) and alike < len(pieces) - 1:
                alike += 1
            self.alike[new, other_layout] = self.alike[other_layout, new] = alike
        self.counters[LAST], self.counters[COUNT] = new, count

    def _piece(self, layout: int, number: int) -> tuple[int, bytes]:
        _, kind, begin, length, _ = self.pieces[layout, number].tolist()
        return kind, self.text[begin : begin + length].tobytes()


def _pieces_of(line: bytes) -> tuple[list[tuple[int, int]], list[bytes]]:
    """The field and kind of the value after each piece, and the pieces' texts."""
    pieces, texts, end = list[tuple[int, int]](), list[bytes](), 0
    for pair in _PAIR.finditer(line):
        field = _NUMBERS.get(pair[1], words.UNKNOWN)
        quoted = pair[2].startswith(b'"')
        if quoted:
            kind = TEXT
        elif pair[2].isdigit():
            kind = NUMBER
        else:
            kind = TRUTH if words.TYPES[field] in (words.BOOLEAN, words.ANY) else NULL
        pieces.append((field, kind))
        texts.append(line[end : pair.start(2) + quoted])
        end = pair.end(2) - quoted
    return [*pieces, (words.UNKNOWN, CLOSE)], [*texts, line[end:]]


def _most(field: int) -> int:
    if words.TYPES[field] == words.ID:
        return MAX_ID
    return MAX_TAG_BYTES if field < words.TAGS else 2**40


_NUMBERS: Final = {name.encode(): number for number, name in enumerate(words.FIELDS)}


@lean
def _beyond_digits(eight: np.uint64) -> np.uint64:
    """A bit in each of eight bytes that is no digit. Bits above the lowest such byte may be wrong."""
    near = eight ^ _ZEROS
    return (near | (near + _BEYOND_NINE)) & _HIGH_BITS


@lean
def _number(eight: np.uint64) -> np.uint64:
    """The number of eight digits, the first in the lowest byte (after Johnny Lee and Daniel Lemire)."""
    pairs = eight - _ZEROS
    pairs = pairs * np.uint64(10) + (pairs >> np.uint64(8))
    high, low = pairs & _ALTERNATE, (pairs >> np.uint64(16)) & _ALTERNATE
    return (high * _PAIRS + low * _FOURS) >> np.uint64(32)


@lean
def fit(block: U8, place: int, end: int, layouts: Layouts, begins: I64, values: I64) -> int:
    """The fields of one line, as `flows.intake.scanner.read` returns them, or -1 if it fits no layout.

    `WIDTH` bytes must follow its end.
    """
    pieces, text, counters = layouts.pieces, layouts.text, layouts.counters
    layout = counters[LAST]
    if counters[COUNT] == 0:
        return -1
    field_bits = 0
    number = 0
    while place <= end:
        length = pieces[layout, number, LENGTH]
        differs = differing(block, place, text, pieces[layout, number, BEGIN])
        if differs << np.uint64(WIDTH - length) != np.uint64(0):
            layout = _agreeing_layout(block, place, layouts, layout, number)
            if layout < 0:
                return -1
            length = pieces[layout, number, LENGTH]
        field, kind = pieces[layout, number, FIELD], pieces[layout, number, KIND]
        place += length
        if kind == TEXT:
            begin = place
            place = _end_of_text(block, place, end)
            if place < 0 or place - begin > pieces[layout, number, MOST]:
                return -1
            begins[field] = begin
            values[field] = place - begin
            field_bits |= 1 << field
        elif kind == NUMBER:
            begin = place
            value = np.int64(0)
            eight = load64(block, place)
            beyond = _beyond_digits(eight)
            while beyond == np.uint64(0) and place - begin <= 16:
                value = value * 100_000_000 + np.int64(_number(eight))
                place += 8
                eight = load64(block, place)
                beyond = _beyond_digits(eight)
            digits = lowest(beyond) >> 3
            if digits:
                unused = np.uint64(64 - 8 * digits)
                value = value * _TENS[digits] + np.int64(
                    _number(eight << unused | _ZEROS >> np.uint64(8 * digits))
                )
                place += digits
            digits = place - begin
            if not 1 <= digits <= 18 or (block[begin] == 48 and digits > 1):
                return -1
            values[field] = value
            field_bits |= 1 << field
        elif kind == CLOSE:
            counters[LAST] = layout
            return field_bits if place == end else -1
        else:
            eight = load64(block, place)
            if eight & FOUR_BYTES == NOTHING:
                place += 4
            elif kind == NULL:
                return -1
            elif eight & FOUR_BYTES == TRUE:
                place += 4
                values[field] = 1
                field_bits |= 1 << field
            elif eight & FIVE_BYTES == FALSE:
                place += 5
                values[field] = 0
                field_bits |= 1 << field
            else:
                return -1
        number += 1
    return -1


@lean
def _agreeing_layout(block: U8, place: int, layouts: Layouts, layout: int, number: int) -> int:
    """The layout that agrees up to this piece, and has the piece that stands at `place`; or -1."""
    for candidate in range(layouts.counters[COUNT]):
        if candidate != layout and layouts.alike[layout, candidate] >= number:
            length = layouts.pieces[candidate, number, LENGTH]
            begin = layouts.pieces[candidate, number, BEGIN]
            differs = differing(block, place, layouts.text, begin)
            if differs << np.uint64(WIDTH - length) == np.uint64(0):
                return candidate
    return -1


@lean
def _end_of_text(block: U8, place: int, end: int) -> int:
    """The place of a text's closing quote, or -1 if the text is not plain."""
    while place <= end:
        quotes, odd = text_masks(block, place)
        if quotes == np.uint64(0):
            if odd != np.uint64(0):
                return -1
            place += WIDTH
        elif odd & (quotes ^ (quotes - np.uint64(1))) != np.uint64(0):
            return -1
        else:
            return place + lowest(quotes)
    return -1
