"""The texts of a pixel: their lengths, the empty ones, and the bounds of remembered ones."""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scanner_support import EVENT, LISTENER_KEY, Both

from connectors.stream import Messages
from flows.intake import dimension_numbers
from flows.intake.decoder import Batch, Decoder
from flows.intake.schema import micros, utm_content
from flows.model.dimensions import NAMES
from flows.model.events import absent, cut_bytes
from flows.model.pixel import COMBO, INFO, INVALID_SHIFT

MACRO = st.sampled_from([("[", "]"), ("%5B", "%5d"), ("%5b", "%5D"), ("${", "}"), ("{", "}"), ("@", "@")])


def lines_of(*changes: dict[str, Any]) -> list[bytes]:
    events = [{**EVENT, "event_id": f"e{n}", **change} for n, change in enumerate(changes)]
    return [json.dumps(event).encode() for event in events]


def read(decoder: Decoder, lines: list[bytes]) -> Batch:
    return decoder.decode(Messages(lines, range(len(lines)), len(lines), None))


# Macros


@given(MACRO, st.text(max_size=12))
@example(("{", "}"), "")
@example(("@", "@"), "@")
@example(("[", "]"), "a[b")
@example(("%5B", "%5D"), "a%5bb")
def test_a_macro_has_something_inside_and_none_of_its_brackets(ends: tuple[str, str], inside: str) -> None:
    brackets = [ends[0].lower().removeprefix("$"), ends[1].lower()]
    clean = not any(bracket in inside.lower() for bracket in brackets)
    assert absent(ends[0] + inside + ends[1]) == (inside != "" and clean)


@pytest.mark.parametrize(
    "text", ["[]", "%5B%5D", "%5b%5d", "${}", "{}", "@@", "[a[b]", "{a}b}", "@a@b@", "--1", "-3"]
)
def test_a_text_without_a_macro_is_an_id_to_both_decoders(text: str) -> None:
    both = Both()
    batch = both.decode(lines_of({"placement_id": text}) * 2)
    assert [batch.combos[combo][0] for combo in batch.pixels[:, COMBO].tolist()] == [text] * 2


# Lengths


@pytest.mark.parametrize("name", [name for name in NAMES if name != "placement_id"])
@pytest.mark.parametrize("letter", ["x", "é", "\U0001d518"])
def test_a_label_has_at_most_128_characters(name: str, letter: str) -> None:
    both = Both()
    both.decode(lines_of({}))
    right, wrong = lines_of({name: letter * 128}, {name: letter * 129})
    batch = both.decode([right, wrong, right, wrong])
    assert len(batch.pixels) == 2
    assert [(rejection.reason, rejection.field) for _, rejection in batch.rejected] == [("invalid", name)] * 2


@given(st.text(max_size=2_000), st.integers(1, 2_000))
@example("é" * 512 + "x", 1024)
def test_a_text_is_cut_to_whole_characters(text: str, most: int) -> None:
    short = cut_bytes(text, most)
    assert text.startswith(short)
    assert len(short.encode()) <= most
    assert short == text or len((short + text[len(short)]).encode()) > most


@pytest.mark.parametrize(
    ("agent", "reason"),
    [
        ("x" * 1024 + " Googlebot/2", 0),
        ("x" * 1013 + " Googlebot/2", 1),
        ("é" * 512 + "Googlebot/2", 0),
        ("é" * 500 + " Googlebot/2", 1),
        ("[" + "x" * 1100 + " bot]", 0),
        ("bot/" + "[" * 60_000, 1),
    ],
)
def test_a_user_agent_is_judged_by_its_first_1024_bytes(agent: str, reason: int) -> None:
    both = Both()
    batch = both.decode(lines_of({"user_agent": agent}, {"user_agent": agent}))
    assert (batch.pixels[:, INFO] >> np.uint64(INVALID_SHIFT)).tolist() == [reason] * 2


@pytest.mark.parametrize("letters", range(6))
def test_a_landing_url_is_read_in_its_first_4096_bytes(letters: int) -> None:
    before = "https://x.y/?utm_content="
    url = before.replace("?", "?" + "a" * (4_096 - letters - len(before) - 1) + "&") + "radio!"
    assert utm_content(url) == ("radio!"[:letters] or None)


# What is remembered


@pytest.mark.parametrize("scanning", [False, True])
def test_remembered_names_are_bounded_in_bytes(scanning: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dimension_numbers, "MAX_COMBO_BYTES", 1_000_000)
    decoder, most = Decoder(LISTENER_KEY, scanning=scanning), 0
    for first in range(0, 4_000, 100):
        names = [
            {name: f"{number:05}" + name[0] * 120 for name in NAMES} for number in range(first, first + 100)
        ]
        batch = read(decoder, lines_of(*names))
        assert len(batch.pixels) == 100
        most = max(most, sum(sys.getsizeof(name) for combo in decoder._dimensions.combos for name in combo))
    assert 500_000 < most < 1_000_000 + 100 * 7 * 200


def test_remembered_user_agents_are_short_and_few() -> None:
    for scanning in (False, True):
        decoder = Decoder(LISTENER_KEY, scanning=scanning)
        for first in range(0, 3_000, 100):
            changes = [{"user_agent": f"{number:05}" + "é" * 3_000} for number in range(first, first + 100)]
            read(decoder, lines_of(*changes))
        kept = [len(agent.encode()) for agent in decoder._verdicts._reasons]
        assert max(kept) <= 1_024
        assert len(kept) <= 2_000


def test_new_names_and_agents_are_looked_up_once_each() -> None:
    both = Both()
    both.decode(lines_of({}))
    before = both.scanning.asked
    changes = [{"placement_id": f"p{n % 3_000}", "user_agent": f"agent/{n % 5_000}"} for n in range(12_000)]
    both.decode([*lines_of(*changes), b"x"])
    names, agents = (after - earlier for after, earlier in zip(both.scanning.asked, before, strict=True))
    assert (names, agents) == (3_000, 5_000)
    assert both.scanning.plainly == 1


# Values and links, the quick way and the whole one


@given(st.decimals(allow_nan=False, allow_infinity=False) | st.decimals(-(10**14), 10**14, places=6))
@example(Decimal("10000000000000"))
@example(Decimal("-10000000000000.000001"))
@example(Decimal("1.0000000"))
def test_a_value_is_read_in_whole_millionths_within_bounds(
    value: Decimal,
) -> None:
    counts = abs(value) <= 10**13 and (not value or value.adjusted() >= -6) and value % Decimal("1e-6") == 0
    expected = (int(value * 1_000_000), False) if counts else (None, True)
    for text in (f"{value}", f'"{value}"', f'"{value:f}"'):
        if len(text) < 1_000 and text not in ('"-1"', '"-2"'):
            assert micros(msgspec.Raw(text.encode())) == expected


@given(st.text("utm_conent=&?#%+5F;/:[]@ \tAé", max_size=60), st.booleans())
@example("?utm_content=&utm%5Fcontent=a+b%20c&utm_content=d", False)
@example("?a=1#?utm_content=x", True)
@example("//[/?utm_content=x", True)
def test_utm_content_equals_that_of_the_url_library(text: str, whole: bool) -> None:
    url = f"https://shop.example/{text}" if whole else text
    try:
        found = dict(reversed(parse_qsl(urlsplit(url).query))).get("utm_content")
    except ValueError:
        found = None
    assert utm_content(url) == (None if absent(url) else found)
