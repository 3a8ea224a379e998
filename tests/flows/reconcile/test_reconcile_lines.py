"""Awkward lines: flow and oracle, which share no code, read each as the same pixel or reject it for the same
reason.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lines_support import by_the_flow, by_the_oracle

from flows.model.events import EVENTS

T0 = 1_764_000_000_000
MACROS = (
    "[X]",
    "[]",
    "%5BX%5D",
    "%5B%5D",
    "%5bx%5D",
    "${X}",
    "${}",
    "{x}",
    "{}",
    "@X@",
    "@@",
    "-1",
    "-2",
    "[[x]]",
)
texts = st.one_of(
    st.sampled_from(
        ["a", "b", "é", "", "x" * 128, "x" * 129, "é" * 128, "\U0001f600" * 128, "a\0b", *MACROS]
    ),
    st.text(max_size=6),
)
wrong = st.sampled_from([None, True, 5, 1.5, [], {}, ["a"], {"type": "x"}])
times = st.one_of(
    st.integers(T0 - 10**6, T0 + 10**6),
    st.sampled_from(
        [-5, -1, 1, 2**63, 2**70, -(2**63), 4_102_444_799_999, 4_102_444_800_000, 253_402_300_800_000]
    ),
    st.sampled_from(
        ["2025-11-24T16:00:00Z", "2025-11-24t16:00:00.5+01:00", "2025-11-24T23:59:60Z", "-1", "x"]
    ),
    st.sampled_from(["0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59Z", "2025-02-30T00:00:00Z", "[TS]"]),
)
whole = st.one_of(st.integers(-3, 10**6), st.sampled_from([2**63, 2**64, 10**30, 5.0, "5"]))
values = st.one_of(
    st.sampled_from(
        [1, "1.5", 1e-7, "1e-6", "1.0000000", 10**13, 10**13 + 1, -(10**13), "abc", True, [], {}]
    ),
    st.sampled_from(["NaN", "+5", " 5", "0x1", "1e999999999999", "9" * 30, "[VALUE]", "", None, ".5", "5."]),
)
conversions = st.fixed_dictionaries(
    {"type": st.sampled_from(["purchase", "sign_up", "theft", 5, "[T]"])},
    optional={"order_id": texts, "value": values, "currency": st.sampled_from(["GBP", "gbp", "", 7, "[C]"])},
)
agents = st.sampled_from(
    ["Examplebot/2.1", "Overcast/3 bot", "x" * 1_020 + "bot/", "x" * 1_019 + "é bot/", "[UA]"]
)
FIELDS: dict[str, Any] = {
    "event_id": texts, "event": st.sampled_from([*EVENTS, "Start", "", "[E]", "-1"]), "ts": times,
    "placement_id": texts,
}  # fmt: skip
OPTIONAL: dict[str, Any] = {
    **dict.fromkeys(("play_id", "campaign_id", "creative_id", "listener_id", "station", "podcast"), texts),
    "received_at": times, "consent": st.booleans(), "playhead_ms": whole, "duration_ms": whole,
    "user_agent": st.one_of(agents, texts), "ip": texts, "landing_url": texts, "content_category": texts,
    "invalid_traffic": st.one_of(st.sampled_from(["volume", "theft"]), texts), "collector": texts,
    "low_ms": st.one_of(whole, times),
    "basis": st.one_of(st.sampled_from(["audible_2s", "download", "heard"]), texts),
    "device_confirmed": st.booleans(),
    **dict.fromkeys(("client_id", "episode", "app"), texts),
    "conversion": conversions, "unknown": st.sampled_from([[{}], 1e300, "x", {"a": [1]}]),
}  # fmt: skip
HONEST_LINE = '"event_id":"e","event":"start","ts":0,"placement_id":"p",'
awkward = st.lists(
    st.sampled_from(sorted({**FIELDS, **OPTIONAL})).flatmap(
        lambda name: st.tuples(st.just(name), st.one_of({**FIELDS, **OPTIONAL}[name], wrong))
    ),
    max_size=3,
).map(dict)
HONEST = {
    "event_id": st.integers(0, 10**6).map(str),
    "event": st.sampled_from(["conversion", *EVENTS]),
    "ts": st.integers(T0, T0 + 10**6),
    "placement_id": st.just("p"),
    "play_id": st.sampled_from(["one", "two"]),
    "listener_id": st.just("l"),
    "consent": st.booleans(),
    "user_agent": agents,
    "conversion": st.just({"type": "purchase", "value": "1"}),
}
"""Of an honest line a few fields are awkward: else hardly one would come through."""
documents = st.tuples(st.fixed_dictionaries(HONEST), awkward).map(lambda of: of[0] | of[1])
plain = documents.map(
    lambda document: json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")
)
marks = st.fixed_dictionaries(
    {"collector": st.one_of(st.just("c"), texts, wrong), "low_ms": st.one_of(st.just(T0), times, whole)},
    optional={
        "bye": st.one_of(st.booleans(), wrong), "event": st.sampled_from([None, "start", 5]),
        "method": st.one_of(texts, wrong), "more": texts,
    },
)  # fmt: skip
lines = st.one_of(
    plain,
    marks.map(lambda mark: json.dumps(mark, ensure_ascii=False).encode("utf-8", "surrogatepass")),
    documents.map(lambda document: json.dumps(document).encode()),
    st.tuples(plain, st.sampled_from([b"x", b" ", b"\xff", b"}", b"\r"])).map(b"".join),
    st.tuples(plain, st.integers(0, 60)).map(lambda of: of[0][: of[1]] + of[0][of[1] + 1 :]),
    plain.map(lambda line: line[:-1] + b',"unknown":' + b"9" * 5_000 + b"}"),
    plain.map(lambda line: line[:-1] + b',"unknown":NaN}'),
)


@given(st.lists(lines.filter(lambda line: b"\n" not in line), min_size=1, max_size=12))
def test_the_flow_and_the_oracle_read_the_same_in_awkward_lines(log: list[bytes]) -> None:
    ours, reasons = by_the_oracle(log)
    theirs, told = by_the_flow(log)
    assert reasons == told
    assert ours == theirs


def test_a_receipt_at_the_epoch_bounds_a_pixel_alike() -> None:
    line = f'{{{HONEST_LINE}"received_at":0}}'.replace('"ts":0', '"ts":76400').encode()
    ours, theirs = by_the_oracle([line]), by_the_flow([line])
    assert ours == theirs
    assert ours[0][0][:3] == (1, "start", 60_001)


@pytest.mark.parametrize("good", ["", HONEST_LINE])
@pytest.mark.parametrize(
    "twice", ['"u":["\\ude39"],"u":1', '"play_id":"\\ude39","play_id":"x"', '"u":1e999,"v":"\\ude39","v":1']
)
def test_half_a_character_in_a_repeated_value_is_malformed(good: str, twice: str) -> None:
    line = f"{{{good}{twice}}}".encode()
    assert by_the_oracle([line]) == by_the_flow([line]) == ([], {"marks": 0, "malformed": 1})


@pytest.mark.parametrize(
    ("twice", "accepted"),
    [
        ('"playhead_ms":1.5,"playhead_ms":5', 0),
        ('"playhead_ms":5,"playhead_ms":1.5', 0),
        ('"play_id":7,"play_id":"x"', 0),
        ('"event_id":null,"event_id":"x"', 0),
        ('"play_id":"[X]","play_id":"x"', 1),
        ('"conversion":[],"conversion":{}', 1),
        ('"unknown":1,"unknown":[]', 1),
    ],
)
def test_each_value_of_a_repeated_field_has_its_type(twice: str, accepted: int) -> None:
    line = f"{{{HONEST_LINE}{twice}}}".encode()
    ours, reasons = by_the_oracle([line])
    assert (ours, reasons) == by_the_flow([line])
    assert len(ours) == accepted == 1 - reasons.get("invalid", 0)
