"""A dialect's memory of queries is bounded, contains no personal ids, and changes no reading."""

from __future__ import annotations

import random

import pytest
from collector_support import call

from flows.collector import reading
from flows.collector.dialects import Dialect, load_dialects
from flows.collector.query import parameters
from flows.collector.reading import Reading, read

LETTERS = (
    "pl",
    "cm",
    "e",
    "gdpr",
    "ifa",
    "cat",
    "=",
    "=",
    "&",
    "&",
    ";",
    "%",
    "%41",
    "+",
    "a",
    "start",
    "1",
    "-1",
    "é",
)


@pytest.fixture
def dialect() -> Dialect:
    return load_dialects()["native"]


def shape(found: Reading) -> tuple[object, ...]:
    return found.words, found.word_texts, found.states, found.cleaned, found.wrong


def test_a_flood_of_placements_is_remembered_up_to_the_bound(
    dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_MAX_PARTS", 50)
    for number in range(500):
        read(call(f"e=start&pl=p{number}"), dialect)
        assert len(dialect.remembered_parts) <= 50
    assert dialect.remembered_parts


def test_neither_long_values_nor_ids_are_remembered(dialect: Dialect) -> None:
    ids = "p=play&id=event&l=listener&ifa=device&o=order&ga=client&cb=1x&ts=1764500000000&ip=9.9.9.9"
    read(call(f"{ids}&cm={'c' * 300}&pl=placement"), dialect)
    assert [*dialect.remembered_parts] == ["pl=placement"]


@pytest.mark.parametrize("name", ["native", "triton", "claritas", "appsflyer"])
def test_a_query_reads_the_same_whatever_came_before(name: str) -> None:
    rng = random.Random(5)
    warm = load_dialects()[name]
    for _ in range(2_000):
        query = "".join(rng.choices(LETTERS, k=rng.randrange(1, 24)))
        again: list[tuple[str, str]] = []
        parts = reading._parts(query, warm, again)
        expected_again: list[tuple[str, str]] = []
        expected = parameters(query, warm.separators, expected_again)
        assert {part_name: part[1] for part_name, part in parts.items()} == expected
        assert again == expected_again
        cold = warm.model_copy()
        cold.__dict__.pop("remembered_parts", None)
        assert shape(read(call(query), warm)) == shape(read(call(query), cold))
    assert warm.remembered_parts
