"""Aligned barriers: the cuts and what lies between them depend on the senders' streams alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.engine.aligner import Aligner
from flows.errors import StateError
from flows.model.ticks import ENDED
from flows.state.saves import decode, encode

SENDERS = ("a", "b", "c")


class Item(NamedTuple):
    """The `place`-th of a sender; a mark if it has a number."""

    sender: str
    place: int
    mark: int | None


Saved = tuple[bytes, dict[str, int]]
Between = tuple[int | None, dict[str, list[int]]]
"""A cut, and the places of each sender's items since the cut before; None: since the last."""


@st.composite
def streams(draw: st.DrawFn, senders: Iterable[str] = SENDERS, ended: bool = True) -> dict[str, list[Item]]:
    """Marks grow, with gaps, and some send more of them than others; a finite sender ends with `ENDED`."""
    all_: dict[str, list[Item]] = {}
    for sender in senders:
        gaps = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), max_size=6))
        marks: list[int | None] = []
        number = draw(st.integers(-1, 2))
        for items, gap in gaps:
            number += gap
            marks += [None] * items + [number]
        marks += [None] * draw(st.integers(0, 2)) + ([ENDED] if ended else [])
        all_[sender] = [Item(sender, place, mark) for place, mark in enumerate(marks)]
    return all_


def interleaved(draw: st.DrawFn, of: dict[str, list[Item]]) -> list[Item]:
    order = draw(st.permutations([sender for sender, items in of.items() for _ in items]))
    left = {sender: iter(items) for sender, items in of.items()}
    return [next(left[sender]) for sender in order]


class Step:
    """An aligner, and what came out of it.

    Attributes:
        saved: its state at each cut, with the number of items that each sender had before it.
    """

    def __init__(self, expected: Iterable[str], state: Saved | None = None) -> None:
        self.aligner: Aligner[str, Item] = Aligner()
        self.let_in: dict[str, int] = {}
        if state is not None:
            self.aligner.restore(decode(state[0]))
            self.let_in = dict(state[1])
        self.aligner.expect(frozenset(expected))
        self.cuts: list[Between] = []
        self.saved: list[Saved] = []
        self.since: dict[str, list[int]] = {}

    def push(self, item: Item) -> None:
        for out, number in self.aligner.push(item.sender, item, item.mark):
            if out is not None:
                self.since.setdefault(out.sender, []).append(out.place)
                self.let_in[out.sender] = self.let_in.get(out.sender, 0) + 1
            else:
                self.cuts.append((number, self.since))
                self.saved.append((encode(self.aligner.snapshot()), dict(self.let_in)))
                self.since = {}


def resent_messages(of: dict[str, list[Item]], state: Saved) -> dict[str, list[Item]]:
    """The messages that senders of a saved cut send again."""
    return {sender: items[state[1].get(sender, 0) :] for sender, items in of.items()}


def expected(of: dict[str, list[Item]]) -> list[Between]:
    """The cuts by the definition: cut n covers each prefix up to its first mark from n on, and exists once
    all have that mark.
    """
    marks = {sender: [item.mark for item in items if item.mark is not None] for sender, items in of.items()}
    reached = min(max(numbers, default=-1) for numbers in marks.values())
    numbers = sorted({number for numbers in marks.values() for number in numbers if number <= reached})
    cuts: list[Between] = []
    before = dict.fromkeys(of, 0)
    for number in numbers:
        between = {}
        for sender, items in of.items():
            here = next(i.place for i in items if i.mark is not None and i.mark >= number) + 1
            if places := list(range(before[sender], here)):
                between[sender] = places
            before[sender] = max(before[sender], here)
        cuts.append((number, between))
    return cuts


@given(st.data())
def test_every_interleaving_gives_the_same_cuts_and_the_same_between_them(data: st.DataObject) -> None:
    of = data.draw(streams())
    step = Step(of)
    for item in data.draw(st.composite(interleaved)(of)):
        step.push(item)
    assert step.cuts == expected(of)
    assert step.cuts[-1][0] == ENDED
    assert not step.since
    assert not step.aligner.waiting


@given(st.data())
def test_from_every_saved_cut_the_same_cuts_follow(data: st.DataObject) -> None:
    of = data.draw(streams())
    step = Step(of)
    for item in data.draw(st.composite(interleaved)(of)):
        step.push(item)
    place = data.draw(st.integers(0, len(step.saved) - 1))
    resumed = Step(of, step.saved[place])
    for item in data.draw(st.composite(interleaved)(resent_messages(of, step.saved[place]))):
        resumed.push(item)
    assert resumed.cuts == step.cuts[place + 1 :]
    assert not resumed.since
    assert not resumed.aligner.waiting


@given(st.data())
def test_messages_beyond_a_cut_are_kept_for_the_next(data: st.DataObject) -> None:
    of = data.draw(streams(ended=False))
    step = Step(of)
    for item in data.draw(st.composite(interleaved)(of)):
        step.push(item)
    assert step.cuts == expected(of)
    for sender, items in of.items():
        let_in = [place for _, between in step.cuts for place in between.get(sender, ())] + step.since.get(
            sender, []
        )
        held = [item.place for item, _ in step.aligner.waiting.get(sender, ())]
        assert let_in + held == [item.place for item in items]


@given(st.data(), st.sets(st.sampled_from(SENDERS), min_size=1), st.sets(st.sampled_from(("d", "e"))))
def test_senders_may_change_at_a_restart(data: st.DataObject, staying: set[str], new: set[str]) -> None:
    before = data.draw(streams(ended=False))
    step = Step(before)
    for item in data.draw(st.composite(interleaved)(before)):
        step.push(item)
    nothing: Saved = encode(Aligner[str, Item]().snapshot()), {}
    state = step.saved[-1] if step.saved else nothing
    resumed, read_again = Step(staying | new, state), resent_messages(before, state)
    after = {
        sender: [
            *read_again.get(sender, ()),
            *(
                Item(sender, len(before.get(sender, ())) + place, mark)
                for place, mark in enumerate((None, 100, None, 101))
            ),
        ]
        for sender in staying | new
    }
    for item in data.draw(st.composite(interleaved)(after)):
        resumed.push(item)
    cuts = [*step.cuts, *resumed.cuts]
    numbers = [number for number, _ in cuts if number is not None]
    assert numbers == sorted(set(numbers))
    assert [number for number, _ in resumed.cuts if number is not None and number >= 100] == [100, 101]
    for sender in sorted({*before, *after}):
        sent = before.get(sender, [])[: state[1].get(sender, 0)] + after.get(sender, [])
        let_in = [place for _, between in cuts for place in between.get(sender, ())]
        assert let_in == [item.place for item in sent]
    assert not resumed.aligner.waiting


def test_without_knowing_the_senders_nothing_is_cut_and_nothing_held() -> None:
    step = Step(())
    step.push(Item("a", 0, None))
    step.push(Item("b", 0, None))
    assert step.since == {"a": [0], "b": [0]}
    assert step.cuts == []


def test_a_step_without_its_state_refuses_a_continuing_sender() -> None:
    with pytest.raises(StateError, match=r"behind a, which does not.*lost its state"):
        list(Aligner[str, str](frozenset("a")).push("a", "tick", 7, first=False))
    kept = Aligner[str, str](frozenset("a"))
    assert list(kept.push("a", "tick", 7, first=True)) == [("tick", None), (None, 7)]
    assert list(kept.push("a", "tick", 8, first=False)) == [("tick", None), (None, 8)]
    resumed = Aligner[str, str](frozenset("a"))
    resumed.restore(decode(encode(kept.snapshot())))
    assert list(resumed.push("a", "tick", 9, first=False)) == [("tick", None), (None, 9)]


def test_an_added_sender_is_waited_for() -> None:
    aligner = Aligner[str, str](frozenset("a"))
    assert list(aligner.push("a", "tick", 1)) == [("tick", None), (None, 1)]
    aligner.expect(frozenset("ab"))
    assert list(aligner.push("a", "tick", 2)) == [("tick", None)]
    assert list(aligner.push("b", "tick", 2)) == [("tick", None), (None, 2)]
