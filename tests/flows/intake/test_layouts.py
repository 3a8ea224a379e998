"""Lines that fit a learned layout are read as the scanner reads them; other lines are left to it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scanner_support import EVENT, LINE, Both, log, parts

from flows.intake import keywords as words
from flows.intake.layouts import COUNT, LAST, MAX_LAYOUTS, Layouts, fit
from flows.intake.scanner import read
from flows.intake.text_masks import WIDTH, differing, plain_differing
from flows.state.arrays import U8
from flows.state.kernel import lean

_FIELDS = [*words.FIELDS, "unknown", "another"]
_TEXTS = st.one_of(
    st.text("abc-%[{:, ", max_size=6),
    st.sampled_from(["x" * 63, "x" * 64, "x" * 65, "x" * 128, "x" * 129, "x" * 255, "x" * 256]),
    st.sampled_from(['quote"', "back\\", "é", "\x01", "\n"]),
)
_VALUES: st.SearchStrategy[Any] = st.one_of(
    _TEXTS,
    st.sampled_from([0, 1, 9, 10, 12345678, 123456789, 10**17, 10**18, 10**23, -1, 1.5]),
    st.booleans(),
    st.none(),
)
_OBJECTS = st.lists(st.tuples(st.sampled_from(_FIELDS), _VALUES), min_size=1, max_size=12)


def _text(pairs: list[tuple[str, Any]], spaces: bool = False) -> bytes:
    colon, comma = (": ", ", ") if spaces else (":", ",")
    inside = comma.join(
        json.dumps(name) + colon + json.dumps(value, ensure_ascii=False) for name, value in pairs
    )
    return b"{%b}" % inside.encode()


def _block(line: bytes, behind: bytes = b"\n") -> U8:
    return np.frombuffer(line + behind + bytes(2 * WIDTH), np.uint8)


def _both(line: bytes, layouts: Layouts, behind: bytes = b"\n") -> tuple[Any, Any]:
    """The fields that `read` and `fit` find in a line, with their values."""
    made = []
    for begins, values, seen in (_read(line, behind), _fit(line, layouts, behind)):
        fields = [field for field in range(words.UNKNOWN + 1) if seen >= 0 and seen >> field & 1]
        texts = [begins[field] if _is_text(line, field, begins) else -1 for field in fields]
        made.append((seen, [(field, int(values[field])) for field in fields], texts))
    return made[0], made[1]


def _is_text(line: bytes, field: int, begins: Any) -> bool:
    return bool(begins[field] and line[begins[field] - 1 : begins[field]] == b'"')


def _read(line: bytes, behind: bytes) -> tuple[Any, Any, int]:
    begins, values = np.zeros((2, words.UNKNOWN + 1), np.int64)
    seen = read(_block(line, behind), 0, len(line), np.zeros(256, np.int64), begins, values)
    return begins, values, int(seen)


def _fit(line: bytes, layouts: Layouts, behind: bytes) -> tuple[Any, Any, int]:
    begins, values = np.zeros((2, words.UNKNOWN + 1), np.int64)
    return begins, values, int(fit(_block(line, behind), 0, len(line), layouts, begins, values))


def _taught(*lines: bytes) -> Layouts:
    layouts = Layouts.none()
    for line in lines:
        if _read(line, b"\n")[2] >= 0:
            layouts.learn(line)
    return layouts


@given(st.lists(_OBJECTS, min_size=1, max_size=4), _OBJECTS, st.booleans(), st.data())
def test_a_fitting_line_is_read_like_the_scanner(
    known: list[list[tuple[str, Any]]], other: list[tuple[str, Any]], spaces: bool, data: st.DataObject
) -> None:
    layouts = _taught(*(_text(pairs, spaces) for pairs in known))
    for pairs in (*known, other):
        line = _text([(name, data.draw(_VALUES)) for name, _ in pairs], spaces)
        place = data.draw(st.integers(0, len(line)))
        damaged = (
            line[:place] + data.draw(st.binary(max_size=3)) + line[place + data.draw(st.integers(0, 3)) :]
        )
        for one in (line, damaged, _text(pairs, spaces)):
            by_word, by_layout = _both(one, layouts, data.draw(st.sampled_from([b"\n", b'"', b"}", b"9"])))
            assert by_layout[0] == -1 or by_layout == by_word


@given(_OBJECTS, st.booleans())
def test_a_learned_line_fits(pairs: list[tuple[str, Any]], spaces: bool) -> None:
    line = _text(pairs, spaces)
    layouts = _taught(line)
    if layouts.counters[COUNT]:
        by_word, by_layout = _both(line, layouts)
        assert by_layout == by_word


def test_layouts_of_equal_beginnings_differ_by_their_first_difference() -> None:
    heads = [dict(EVENT, creative_id="c"), dict(EVENT, basis="tag"), EVENT, {"ts": 1}]
    lines = [json.dumps(head, separators=(",", ":")).encode() for head in heads]
    layouts = _taught(*lines)
    for line in [*lines, *reversed(lines)]:
        by_word, by_layout = _both(line, layouts)
        assert by_layout == by_word
        assert by_word[0] > 0


def test_a_full_table_is_emptied_and_refilled() -> None:
    lines = [b'{"k%d":1,"ts":5}' % number for number in range(3 * MAX_LAYOUTS + 2)]
    layouts = Layouts.none()
    for number, line in enumerate(lines):
        layouts.learn(line)
        assert 1 <= layouts.counters[COUNT] <= MAX_LAYOUTS
        assert layouts.counters[LAST] == number % MAX_LAYOUTS
        assert _both(line, layouts)[1][0] > 0
    assert layouts.counters[COUNT] == 2
    assert _both(lines[0], layouts)[1][0] == -1


def test_overlong_layouts_are_not_learned() -> None:
    layouts = Layouts.none()
    layouts.learn(b'{"%b":1}' % (b"k" * WIDTH))
    layouts.learn(b"{" + b",".join(b'"k%d":1' % number for number in range(100)) + b"}")
    assert layouts.counters[COUNT] == 0


def test_layouts_are_used_for_whole_logs_with_equal_batches() -> None:
    for name in ("adversarial", "mta", "obd"):
        both, lines = Both(), log(name)
        for part in parts(lines, 500):
            both.decode(part)
        assert both.scanning._layouts.counters[COUNT] >= 1


def test_an_integer_is_read_up_to_eighteen_digits() -> None:
    layouts = _taught(b'{"ts":1,"event_id":"e"}')
    for digits in range(1, 30):
        line = b'{"ts":%b,"event_id":"e"}' % (b"1234567890" * 3)[:digits]
        by_word, by_layout = _both(line, layouts)
        assert by_layout == by_word
        assert (by_word[0] >= 0) == (digits <= 18)


def test_compiled_and_plain_comparisons_agree() -> None:
    block, text = _block(LINE), _block(LINE[1:])
    for place in range(len(LINE) - 1):
        assert _compiled(block, place, text, 3) == plain_differing(block, place, text, 3)


@lean
def _compiled(block: U8, place: int, text: U8, begin: int) -> Any:
    return differing(block, place, text, begin)
