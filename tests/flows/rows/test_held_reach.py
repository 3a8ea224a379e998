"""Reach of the last minutes while a collector holds time: who is heard ahead of it waits, and costs once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.rows import rolling_reach
from flows.rows.crowds import AHEAD
from flows.rows.rolling_reach import Rolling
from flows.state.journal import Files
from flows.state.saves import decode, encode

NOW = 29_400_000
CUTS = 8
"""Of a minute."""
EACH = 5
"""Pixels of a cut."""


def add_listeners(rolling: Rolling, minute: int, who: npt.NDArray[np.uint64]) -> None:
    rolling.add(np.zeros(len(who), np.uint32), np.full(len(who), minute), who, 1)


def held(minutes: int) -> Rolling:
    """The rolling reach after pixels of so many minutes past `NOW`, while time stands at `NOW`."""
    rolling, rng = Rolling(), np.random.default_rng(1)
    rolling.advance(NOW)
    for cut in range(minutes * CUTS):
        add_listeners(rolling, NOW + 1 + cut // CUTS, rng.integers(1, 1 << 62, EACH).astype(np.uint64))
    return rolling


@pytest.mark.parametrize("minutes", [30, 240])
def test_a_gradually_ending_hold_adds_each_pixel_once(minutes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rolling, rows, calls, add = held(minutes), 0, 0, Rolling.add

    def counting(self: Rolling, of: Any, *rest: Any) -> None:
        nonlocal rows, calls
        rows, calls = rows + len(of), calls + 1
        add(self, of, *rest)

    monkeypatch.setattr(Rolling, "add", counting)
    for minute in range(1, minutes + 1):
        rolling.advance(NOW + minute)
    assert rows == (minutes - AHEAD) * CUTS * EACH
    assert calls == minutes - AHEAD
    assert int(rolling.reach(np.zeros(1, np.int64))[1][0]) == min(minutes, 60) * CUTS * EACH


def test_a_save_in_a_hold_copies_only_changed_minutes() -> None:
    rolling = held(120)
    before = {id(body): body for packed in rolling.snapshot(Files(None))[-1] for body in packed}
    add_listeners(rolling, NOW + 120, np.array([7], np.uint64))
    saved = rolling.snapshot(Files(None))[-1]
    copied = sum(len(packed[-1]) // 8 for packed in saved if id(packed[-1]) not in before)
    assert copied == CUTS * EACH + 1
    assert sum(len(packed[-1]) // 8 for packed in saved) == 120 * CUTS * EACH - AHEAD * CUTS * EACH + 1


class OneList:
    """All that waits in the order of arrival, and all of it is looked at each minute."""

    def __init__(self) -> None:
        self.parts: list[tuple[Any, ...]] = []

    def add(self, minutes: Any, *columns: Any) -> None:
        self.parts.append(columns)

    def take(self, end: int) -> list[tuple[Any, ...]]:
        parts, self.parts = self.parts, []
        return parts

    def packed(self) -> list[tuple[bytes, ...]]:
        return [tuple(column.tobytes() for column in columns) for columns in self.parts]

    def __iter__(self) -> Any:
        return iter(self.parts)


Cut = tuple[list[tuple[int, int, int]], int, bool]
"""Pixels of (row, minutes ahead, listener), minutes that time moves on by, and whether the flow restarts."""
cuts = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 90), st.integers(1, 12)), max_size=30),
        st.sampled_from([0, 0, 0, 1, 1, 2, 7, 61, 100]),
        st.booleans(),
    ),
    max_size=20,
)


@given(cuts, st.sampled_from([3, 1_000]))
def test_held_reach_equals_a_count_of_all_waiting_pixels(history: list[Cut], limit: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rolling_reach, "MINUTE_EXACT_UP_TO", limit)
        minute, both = NOW, [Rolling(), Rolling()]
        both[1].waiting = OneList()  # type: ignore[assignment]  # its tiny stand-in
        for one in both:
            one.advance(minute)
        for pixels, on, restarts in history:
            rows, ahead, who = np.array(pixels, np.int64).reshape(-1, 3).T
            whom = who.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
            for one in both:
                one.add(rows.astype(np.uint32), minute + ahead, whom, 2)
            if restarts:  # a save of before has a part a cut, and of several minutes
                states = [decode(encode(one.snapshot(Files(None)))) for one in both]
                both = [Rolling(), Rolling()]
                for one, state in zip(both, states, strict=True):
                    one.restore(state, Files(None))
                list_ = OneList()
                for columns in both[1].waiting:
                    list_.add(columns[1], *columns)
                both[1].waiting = list_  # type: ignore[assignment]
            minute += on
            for one in both:
                one.advance(minute)
            found, wanted = ([x.tolist() for x in one.reach(np.arange(2))] for one in both)
            assert found == wanted
            for row in range(2):
                new, old = (set(one.since(row, one.known_from)[0].tolist()) for one in both)
                assert new == old


def test_an_older_save_with_mixed_minutes_is_resumed(tmp_path: Path) -> None:
    rolling = held(10)
    *state, packed = rolling.snapshot(Files(None))
    mixed = tuple(b"".join(column) for column in zip(*packed, strict=True))
    again = Rolling()
    again.restore((*state, [mixed]), Files(tmp_path))
    for minute in range(NOW + 1, NOW + 12):
        rolling.advance(minute)
        again.advance(minute)
        found, wanted = ([x.tolist() for x in one.reach(np.arange(1))] for one in (again, rolling))
        assert found == wanted
