"""Drafts of sources: whatever a message has, the draft can be read, on one line a name."""

from __future__ import annotations

import tomllib

import pytest

from flows.sources.draft import draft
from flows.sources.paths import Message, Path
from flows.sources.source import parse_source

ODD = ["a\nevent = 1", "\x1b]0;owned\x07", "\x7f", "\u2028x", "\U000e0001", "\u202eabc", "back\\slash"]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("as_event", [False, True])
def test_an_odd_name_or_event_is_escaped(odd: str, as_event: bool) -> None:
    document = {"event": odd} if as_event else {"event": "begin", odd: {"placement": "a", "other": 1}}
    text = draft([Message(document)], {"topic": "t"}, "json")
    assert all(one.isprintable() for one in text.replace("\n", ""))
    found = parse_source(text, "drafted", "drafted")
    assert found.names["event"] == "event"
    if not as_event:
        placement = found.names["placement_id"]
        assert isinstance(placement, str)
        assert Path(placement).value_in(Message(document)) == "a"


def test_a_file_with_quotes_in_its_name_is_named_right() -> None:
    name = 'a "quoted" \\ name.ndjson'
    assert tomllib.loads(draft([], {"files": name}, "json"))["files"] == name


def test_a_long_text_is_no_event() -> None:
    messages = [Message({"event": "started " * 2_000})] * 3
    assert len(draft(messages, {"topic": "t"}, "json")) < 2_000


def test_a_draft_uses_the_commonest_schema_and_names_the_others() -> None:
    events = [Message({"event": "start", "placement_id": "p"}, schema="a.Event") for _ in range(3)]
    text = draft([Message({"order_id": "o"}, schema="a.Order"), *events], {"topic": "t"}, "avro", "env:URL")
    assert "# Messages by schema: a.Event 3, a.Order 1" in text
    assert "order_id" not in text
    source = parse_source(text, "t.toml", "t")
    assert source.skip == ("$schema!=a.Event",)
    assert source.registry == {"url": "env:URL"}


def test_a_name_is_found_in_the_last_two_steps_of_a_path() -> None:
    ad = {"event": "ad_start", "placement": {"id": "p"}, "play": "x"}
    whole = {"id": "1", "at": 1, "ad": ad, "listener": {"id": "l"}, "device": {"agent": "a", "ip": "b"}}
    text = draft([Message(whole), Message({"id": "2", "track": "song"})], {"topic": "t"}, "json")
    assert parse_source(text, "t.toml", "t").names == {
        "event_id": "id",
        "event": "ad.event",
        "ts": "at",
        "placement_id": "ad.placement.id",
        "play_id": "ad.play",
        "listener_id": "listener.id",
        "ip": "device.ip",
        "user_agent": "device.agent",
    }
    skip = '# skip = ["!ad.event"]  # 1 of 2 messages have no event: not ours?\n'
    assert text.index(skip) < text.index("[names]")
    assert parse_source(text.replace(skip, skip[2:]), "t.toml", "t").skip == ("!ad.event",)


def test_an_id_of_something_else_is_no_id_of_an_event() -> None:
    text = draft(
        [Message({"event": "start", "show": {"id": "s"}, "track": {"id": "t"}})], {"topic": "t"}, "json"
    )
    assert "event_id" not in parse_source(text, "t.toml", "t").names
