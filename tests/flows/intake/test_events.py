"""The rules of an event, the plain way in: which messages are pixels, and which are rejected for what."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from events_support import (
    DROP,
    EVENT,
    MACROS,
    MALFORMED,
    MAX_MS,
    WRONG,
    decode,
    key_of,
    pixel_of,
    raw_of,
    why,
)

from flows.intake.dead_letters import letter
from flows.model.dimensions import WITHOUT_APPS
from flows.model.events import CODES, EVENTS
from flows.model.pixel import HOUSEHOLD, INFO, LINKED, LISTENER, TS, WATERMARK


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_message_keeps_only_length_and_digest(raw: bytes) -> None:
    batch = decode(raw)
    assert batch.received == 1
    ((position, rejection),) = batch.rejected
    key, body = letter("logs/a", position, rejection)
    assert key == b"logs/a/1"
    assert json.loads(body) == {
        "reason": "malformed",
        "position": "logs/a/1",
        "partition": "logs/a",
        "offset": 1,
        "length": len(raw),
        "sha256": hashlib.sha256(raw).hexdigest(),
    }


def test_a_message_of_just_64_kib_is_read() -> None:
    raw = raw_of(EVENT)[:-1] + b',"x":"' + b"." * ((64 << 10) - len(raw_of(EVENT)) - 7) + b'"}'
    assert len(raw) == 64 << 10
    pixel_of(raw)
    assert why(raw + b" ") == ("malformed", None)


# The order of reasons


def test_malformed_comes_before_everything() -> None:
    assert why(b'{"event":"nonsense"') == ("malformed", None)


@pytest.mark.parametrize("field", ["event_id", "event"])
@pytest.mark.parametrize("value", [DROP, None, "", 5, True, ["start"], {}, "[X]", "-1"])
def test_wrong_ids_are_reported_before_other_faults(field: str, value: Any) -> None:
    wrong = {"placement_id": 12, "ts": "yesterday", "event": "nonsense", field: value}
    assert why(raw_of(EVENT, **wrong)) == ("invalid", field)


@pytest.mark.parametrize("event", ["rewind", "Start", "start ", "COMPLETE", "first_quartile", "démarrage"])
def test_an_unknown_event_comes_before_other_fields(event: str) -> None:
    assert why(raw_of(EVENT, event=event, placement_id=12, ts="yesterday")) == ("unknown_event", "event")


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (b'{"event_id":"a","event":2.0,"ts":1e999,"placement_id":"p"}', "event"),
        (b'{"event_id":"a","event":1e999,"ts":1,"placement_id":"p"}', "event"),
        (b'{"event_id":"a","event":"start","ts":1e999,"placement_id":"p"}', "ts"),
        (b'{"event_id":"a","event":"start","ts":1' + b"0" * 5000 + b',"placement_id":"p"}', "ts"),
    ],
)
def test_an_overflowing_number_is_invalid_in_its_field(line: bytes, field: str) -> None:
    assert why(line) == ("invalid", field)


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_of_the_specification_is_known(event: str) -> None:
    batch = decode(raw_of(EVENT, event=event, conversion={"type": "sign_up"}))
    assert batch.rejected == []
    assert int(batch.pixels[0, INFO]) & 0xFF == CODES[event]


# Other fields


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in WRONG for value in WRONG[field]])
def test_a_wrong_type_or_format_is_invalid_and_named(field: str, value: Any) -> None:
    assert why(raw_of(EVENT, **{field: value})) == ("invalid", field)


def test_an_event_id_over_128_characters_is_invalid() -> None:
    assert why(raw_of(EVENT, event_id="x" * 129)) == ("invalid", "event_id")


@pytest.mark.parametrize(
    "field",
    ["event_id", "placement_id", "play_id", "campaign_id", "creative_id", "listener_id", "household_id"],
)
@pytest.mark.parametrize("character", ["x", "é", "🎧"])
def test_an_id_of_128_characters_is_right_whatever_its_bytes(field: str, character: str) -> None:
    pixel_of(json.dumps({**EVENT, field: character * 128}, ensure_ascii=False).encode())


def test_null_is_absent_in_every_optional_field() -> None:
    optional = set(WRONG) - {"ts", "placement_id", "play_id", "consent", "listener_id"}
    assert pixel_of(raw_of(EVENT, **dict.fromkeys(optional))) == pixel_of(raw_of(EVENT))
    bare = {name: EVENT[name] for name in ("event_id", "event", "ts", "placement_id")}
    assert pixel_of(raw_of(EVENT, play_id=None, consent=None, listener_id=None)) == pixel_of(raw_of(bare))


def test_unknown_fields_are_ignored_whatever_they_hold() -> None:
    extra = {"x": {"event_id": 1, "y": [None, 1.5, "é", {"z": []}]}, "Event": 3, "": "", "ts2": True}
    assert pixel_of(raw_of(EVENT, **extra)) == pixel_of(raw_of(EVENT))


@pytest.mark.parametrize(
    ("previous", "field"),
    [
        (7, "previous"),
        ([], "previous"),
        ("x", "previous"),
        ({"listener_id": 7}, "previous.listener_id"),
        ({"household_id": "h" * 129}, "previous.household_id"),
    ],
)
def test_a_previous_identity_of_another_format_is_invalid(previous: Any, field: str) -> None:
    bought = raw_of(EVENT, event="conversion", conversion={"type": "sign_up"}, previous=previous)
    assert why(bought) == ("invalid", field)
    assert pixel_of(raw_of(EVENT, previous=previous)) == pixel_of(raw_of(EVENT)), "not looked at elsewhere"


@pytest.mark.parametrize("previous", [None, {}, {"listener_id": None}, {"listener_id": "[ID]"}, {"x": 7}])
def test_an_empty_previous_identity_names_no_person(previous: Any) -> None:
    raw = raw_of(EVENT, event="conversion", conversion={"type": "sign_up"}, previous=previous)
    assert decode(raw).conversions[0].before == (0, 0)


def test_a_content_category_is_a_string_or_a_list() -> None:
    for value in ("IAB1", ["IAB1", "IAB2"], []):
        pixel_of(raw_of(EVENT, content_category=value))


def test_a_household_is_absent_without_consent() -> None:
    for consent, there in ((True, True), (False, False), (None, False)):
        assert (pixel_of(raw_of(EVENT, household_id="home", consent=consent))[HOUSEHOLD] != 0) is there


# Macros


@pytest.mark.parametrize("macro", MACROS)
def test_an_unreplaced_macro_counts_as_absent(macro: str) -> None:
    assert why(raw_of(EVENT, event_id=macro)) == ("invalid", "event_id")
    assert why(raw_of(EVENT, placement_id=macro)) == ("invalid", "placement_id")
    assert key_of(EVENT, play_id=macro) == key_of(EVENT, play_id=None)
    assert not pixel_of(raw_of(EVENT, play_id=macro))[INFO] & LINKED
    assert pixel_of(raw_of(EVENT, listener_id=macro))[LISTENER] == 0
    assert pixel_of(raw_of(EVENT, household_id=macro))[HOUSEHOLD] == 0
    names = dict.fromkeys(WITHOUT_APPS[1:], macro)
    assert decode(raw_of(EVENT, **names)).combos == [("pl-1", *(None,) * len(names))]


@pytest.mark.parametrize(
    "text",
    ["a[X]", "[X]b", "-3", "-10", "--1", "@X", "{x", "$x", "%41", "[a][b]", "%5BA%5D-%5BB%5D", "1"],
)
def test_a_text_only_similar_to_a_macro_is_a_name(text: str) -> None:
    assert decode(raw_of(EVENT, platform=text)).combos[0][2] == text
    assert pixel_of(raw_of(EVENT, play_id=text))[INFO] & LINKED


@pytest.mark.parametrize("field", ["consent", "device_confirmed", "playhead_ms", "duration_ms", "low_ms"])
@pytest.mark.parametrize("macro", ["", "-1", "-2", *MACROS])
def test_an_empty_text_or_macro_is_absent_in_non_text_fields(field: str, macro: str) -> None:
    without = {name: value for name, value in EVENT.items() if name != field}
    assert pixel_of(raw_of(EVENT, **{field: macro})) == pixel_of(raw_of(without))


@pytest.mark.parametrize("playhead_ms", [-1, -2, None])
def test_a_playhead_of_minus_one_or_two_is_absent(playhead_ms: int | None) -> None:
    progress = {**EVENT, "event": "progress"}
    assert key_of(progress, playhead_ms=playhead_ms) == key_of(progress) != key_of(progress, playhead_ms=0)


def test_other_negative_playheads_are_positions_of_their_own() -> None:
    progress = {**EVENT, "event": "progress"}
    assert len({key_of(progress, playhead_ms=playhead_ms) for playhead_ms in (-5, -7, None)}) == 3


# Time


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2025-11-24T16:00:00Z", 1_764_000_000_000),
        ("2025-11-24T17:30:00.123+01:30", 1_764_000_000_123),
        ("2025-11-24T11:00:00.9999-05:00", 1_764_000_000_999),
        ("2025-11-24T16:00:00.000001z", 1_764_000_000_000),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000),
    ],
)
def test_a_time_may_be_an_rfc_3339_string_with_its_offset(text: str, ms: int) -> None:
    pixel = pixel_of(raw_of(EVENT, ts=text, received_at=text))
    assert (pixel[TS], pixel[WATERMARK]) == (ms, max(ms, 1))  # 0 is no receipt at all


@pytest.mark.parametrize(
    "text",
    [
        "2025-11-24T16:00:00",
        "2025-11-24",
        "2025-11-24T16:00:00+05:60",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
    ],
)
def test_a_time_without_offset_or_out_of_range_is_invalid(text: str) -> None:
    assert why(raw_of(EVENT, ts=text)) == ("invalid", "ts")
    assert why(raw_of(EVENT, received_at=text)) == ("invalid", "received_at")


@pytest.mark.parametrize(("ts", "held"), [(-(10**15), 0), (-1, 0), (MAX_MS, MAX_MS), (10**30, MAX_MS)])
def test_a_clock_out_of_range_is_bounded_where_the_receipt_is_known(ts: int, held: int) -> None:
    assert pixel_of(raw_of(EVENT, ts=ts, received_at=1_764_000_000_000))[TS] == held
    assert pixel_of(raw_of(EVENT, ts=ts), stamps=[1_764_000_000_000])[TS] == held
    assert why(raw_of(EVENT, ts=ts), stamps=[0]) == ("invalid", "ts")


def test_the_receipt_is_the_collectors_bounded_by_the_brokers() -> None:
    stamp = 1_764_000_000_000
    for received_at, expected in (
        (stamp - 5, stamp - 5),
        (stamp + 60_000, stamp + 60_000),
        (0, 1),  # a clock that was never set: a receipt of 1970, and no absent one
        (None, stamp),
        (stamp + 60_001, stamp + 60_000),
    ):
        assert pixel_of(raw_of(EVENT, received_at=received_at), stamps=[stamp])[WATERMARK] == expected
    assert pixel_of(raw_of(EVENT, received_at=stamp + 10**9), stamps=[0])[WATERMARK] == stamp + 10**9
    assert pixel_of(raw_of(EVENT))[WATERMARK] == 0


def test_a_rejected_impression_far_ahead_leaves_no_memory() -> None:
    now, day_ms = EVENT["ts"], 86_400_000
    wrong = EVENT | {"event": "impression", "ip": 5}
    ahead = (0, day_ms, day_ms + 1, 70 * 365 * day_ms)
    raws = [raw_of(wrong, ts=now + ms) for ms in ahead]
    assert [row[2] for row in decode(*raws, stamps=[now] * 4).refused] == [now, now + day_ms]
    assert len(decode(*raws).refused) == 4, "no broker bounds it"
