"""Lines of an archive: malformed as the flow judges it, and without those who are forgotten."""

from __future__ import annotations

import json
from typing import Any

import pytest
from archive_support import CANARY
from events_support import decode
from hypothesis import given
from hypothesis import strategies as st

from flows.archive.message_lines import OF_A_PERSON, Forgetting, line_of, lines_of
from flows.intake import is_malformed
from flows.model.events import MALFORMED
from flows.state.people import People

SECRET = b"a key of sixteen bytes"
ODD = [
    b"",
    b"{",
    b"[]",
    b"7",
    b"\xff",
    b'{"a":1e999}',
    b'{"a":"\\ud800"}',
    b'{"event_id":"e","event":"start","ts":1764000000000,"placement_id":"p","x":"\\ud800"}',
    b'{"event_id":"e","event":"start","ts":1764000000000,"placement_id":"p","x":1e999}',
    b'{"event_id":1,"x":"\\ud800"}',
    b'{"collector":"c","low_ms":5}',
    b'{"collector":"c","low_ms":5,"x":"\\ud800"}',
    b'{"a":' + b"[" * 2_000 + b"]" * 2_000 + b"}",
    b'{"a":"' + b"x" * 70_000 + b'"}',
]


@pytest.mark.parametrize("raw", ODD)
def test_malformed_is_what_the_flow_rejects_as_malformed(raw: bytes) -> None:
    batch = decode(raw)
    assert is_malformed(raw) == ([why.reason for _, why in batch.rejected] == [MALFORMED])


@given(st.binary(max_size=40) | st.text(alphabet='{}[]":,\\u0dea1\n ', max_size=30).map(str.encode))
def test_malformed_is_so_of_whatever_comes(raw: bytes) -> None:
    batch = decode(raw)
    assert is_malformed(raw) == ([why.reason for _, why in batch.rejected] == [MALFORMED])


def test_a_message_of_several_lines_becomes_an_equal_line() -> None:
    raw = json.dumps({"event": "start", "listener_id": "a\nb"}, indent=2).encode()
    assert b"\n" not in line_of(raw)
    assert json.loads(line_of(raw)) == json.loads(raw)
    lines, malformed = lines_of([raw, b"{\n", b"{}"])
    assert (lines[1], lines[2]) == (b"", b"{}")
    assert [one[:2] for one in malformed] == [(1, 2)]


def forgetting(*listeners: str, homes: tuple[str, ...] = ()) -> Forgetting:
    people = People(SECRET)
    keys = [people.listener(one.encode()) for one in listeners]
    return Forgetting(SECRET, [*keys, *(people.household(one.encode()) for one in homes)])


@pytest.mark.parametrize(
    "named",
    [
        {"listener_id": CANARY},
        {"client_id": CANARY},
        {"household_id": "home-9"},
        {"previous": {"listener_id": CANARY}},
        {"previous": {"household_id": "home-9"}},
        {"listener_id": [CANARY]},
        {"previous": CANARY},
    ],
)
def test_a_forgotten_person_leaves_a_line_that_stays(named: dict[str, Any]) -> None:
    event = {
        "event": "start",
        "ip": "10.0.0.7",
        "user_agent": "radio",
        "ga_client_id": "g-1",
        "consent": True,
    }
    raw = json.dumps({**event, "value": 0, **named}).replace('"value": 0', '"value": 1.10').encode()
    line = forgetting(CANARY, homes=("home-9",)).redacted(raw)
    assert b"1.10" in line, "what is not of a person is as it was"
    found = json.loads(line)
    assert found["consent"] is False
    assert all(found.get(name) is None for name in OF_A_PERSON)
    assert found["event"] == "start"
    assert found.keys() == {"value", *event, *named}


def test_other_lines_stay_byte_for_byte() -> None:
    take = forgetting(CANARY)
    for raw in (
        b'{"listener_id": "else"}',
        b"",
        b'{"listener_id":null}',
        b'{"previous":null}',
        b'{"event":"a"}',
    ):
        assert take.redacted(raw) is raw
    assert forgetting().redacted(b'{"listener_id":"x"}') == b'{"listener_id":"x"}'


def test_a_name_in_escapes_is_the_same_name() -> None:
    line = forgetting(CANARY).redacted(
        b'{"listener_id":"\\u0063anary-7d1f","listener_id":"\\u0063anary-7d1f"}'
    )
    assert json.loads(line) == {"listener_id": None, "consent": False}
