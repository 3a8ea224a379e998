"""Events decoded the plain way: identity, conversions, consent, and the fields kept by a dead letter."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import pytest
from events_support import (
    CONVERSION,
    DROP,
    EVENT,
    MACROS,
    MALFORMED,
    WRONG,
    conversion_of,
    decode,
    key_of,
    pixel_of,
    raw_of,
    why,
)
from hypothesis import example, given
from hypothesis import strategies as st

from connectors.stream import Messages
from flows.intake.dead_letters import letter
from flows.intake.decoder import Decoder
from flows.model.events import EVENTS
from flows.model.pixel import CONSENTED, INFO, LISTENER, POSITION, traffic_reasons


def test_pixels_of_a_play_share_a_key_within_a_placement() -> None:
    key = key_of(EVENT)
    assert key == key_of(EVENT, event_id="e-2", event="complete", ts=1_764_000_009_000, campaign_id="c")
    others = [
        key_of(EVENT, placement_id="pl-2"),
        key_of(EVENT, play_id="play-2"),
        key_of(EVENT, play_id=None),
        key_of(EVENT, play_id=None, event_id="play-1"),
        key_of(EVENT, event="progress"),
        key_of(EVENT, event="progress", playhead_ms=0),
        key_of(EVENT, event="progress", playhead_ms=1),
        key_of(EVENT, event="progress", playhead_ms=10**25),
    ]
    assert len({key, *others}) == 1 + len(others)


def test_without_a_play_the_event_id_is_the_identity() -> None:
    bare = {**EVENT, "play_id": None}
    assert key_of(bare) == key_of(bare, event="complete", play_id="")
    assert key_of(bare) != key_of(bare, event_id="e-2")
    assert key_of(bare) != key_of(bare, placement_id="pl-2")


# Conversions


def test_a_conversion_needs_no_placement_but_a_known_type() -> None:
    for kind in ("site_visit", "sign_up", "purchase", "app_download", "phone_call", "form_submission"):
        assert conversion_of(type=kind).type == kind
    assert why(raw_of(CONVERSION, conversion=None)) == ("invalid", "conversion")
    assert why(raw_of(CONVERSION, conversion=DROP)) == ("invalid", "conversion")
    assert why(raw_of(CONVERSION, conversion={})) == ("invalid", "conversion")
    assert why(raw_of(CONVERSION, conversion={"type": "bought"})) == ("invalid", "conversion.type")
    euros = {"type": "purchase", "currency": "euros"}
    assert why(raw_of(CONVERSION, conversion=euros)) == ("invalid", "conversion.currency")


@pytest.mark.parametrize(
    ("value", "micros"),
    [
        ("9.99", 9_990_000),
        (9.99, 9_990_000),
        (12, 12_000_000),
        ("-3", -3_000_000),
        ("0.000001", 1),
        ("-.000001000", -1),
        ("9999999999999.999999", 10**19 - 1),
        ("-9223372036854.775809", -(2**63) - 1),
        (10**13, 10**19),
        ("-1e13", -(10**19)),
        ("0e999999999", 0),
        (None, None),
        ("", None),
        ("[PRICE]", None),
        (DROP, None),
    ],
)
def test_a_value_is_exact_to_a_millionth(value: Any, micros: int | None) -> None:
    change = {} if value is DROP else {"value": value}
    assert conversion_of(**change).value_micros == micros


@pytest.mark.parametrize(
    "value",
    [
        *("NaN", "sNaN", "Infinity", "1E30", "10000000000000.000001", "-10000000000001", 10**14, "a lot"),
        *("0.0000005", "1E-999999999", "1E-99999999999999999999", "1e9999999", True, [1], {}, "1_000", "0x1"),
    ],
)
def test_a_conversion_with_an_invalid_value_counts(value: Any) -> None:
    conversion = conversion_of(value=value)
    assert conversion.value_micros is None
    assert conversion.other_value


def test_a_conversion_object_of_another_event_is_ignored() -> None:
    for conversion in ({}, {"type": 5}, {"type": "bought", "value": []}, None):
        pixel_of(raw_of(EVENT, conversion=conversion))
    for conversion in (5, "x", [], True):
        assert why(raw_of(EVENT, conversion=conversion)) == ("invalid", "conversion")


def test_a_conversions_key_is_its_order_or_its_event() -> None:
    def key(campaign: str | None = "c-1", event_id: str = "v-1", **conversion: Any) -> int:
        return key_of(
            CONVERSION, campaign_id=campaign, event_id=event_id, conversion={"type": "purchase", **conversion}
        )

    assert key(order_id="o-1") == key(order_id="o-1", event_id="v-2", value="3", currency="EUR")
    assert key() == key(type="sign_up") == key(order_id="[ORDER]") == key(order_id="")
    distinct = [
        key(),
        key(event_id="v-2"),
        key(campaign=None),
        key(order_id="o-1"),
        key(order_id="o-2"),
        key(order_id="o-1", type="sign_up"),
        key(order_id="o-1", campaign="c-2"),
        key(order_id="v-1"),
    ]
    assert len(set(distinct)) == len(distinct)


def test_a_conversion_keeps_its_currency_and_the_content_of_its_campaign_link() -> None:
    url = "https://shop.example/x?a=1&utm_content=&utm%5Fcontent=spot+%37&utm_content=b#&utm_content=z"
    batch = decode(raw_of(CONVERSION, conversion={"type": "purchase", "currency": "EUR"}, landing_url=url))
    (conversion,) = batch.conversions
    assert (conversion.currency, conversion.utm_content, conversion.event_id) == ("EUR", "spot 7", "v-1")


# Invalid traffic and consent


@pytest.mark.parametrize(
    "agent",
    ["Mozilla/5.0 (compatible; Googlebot/2.1)", "some BOT", "MyCrawler 1.0", "baiduSPIDER", "robot/3"],
)
def test_a_declared_bot_is_accepted_as_invalid_traffic(agent: str) -> None:
    assert pixel_of(raw_of(EVENT, user_agent=agent))[INFO] >> 16 == 1


@pytest.mark.parametrize(
    "agent",
    [
        "Overcast/3.0 (+bot)",
        "Pocket Casts bot/1",
        "Podimo/2 crawler",
        "robots.txt",
        "Bottle/1",
        "[ROBOT]",
        "",
    ],
)
def test_podcast_apps_and_words_containing_bot_are_not_bots(agent: str) -> None:
    assert pixel_of(raw_of(EVENT, user_agent=agent))[INFO] >> 16 == 0


def test_agents_of_own_lists_have_their_own_invalid_reasons() -> None:
    lists = {
        "tool": re.compile("curl/|python-requests", re.IGNORECASE),
        "probe": re.compile("monitor", re.IGNORECASE),
    }
    bot, tool, probe = (traffic_reasons(lists).index(name) + 1 for name in ("declared_bot", "tool", "probe"))
    for scanning in (False, True):
        decoder = Decoder(b"0123456789abcdef", agents=lists, scanning=scanning)
        agents = ["Googlebot/2", "Python-Requests/2", "Uptime Monitor curl/8", "Monitor 1", "VLC/3"]
        lines = [raw_of(EVENT, event_id=f"{n}", user_agent=agent) for n, agent in enumerate(agents * 2)]
        batch = decoder.decode(Messages(lines, range(1, 11), 11, [0] * 10))
        assert (batch.pixels[:, INFO] >> 16).tolist() == [bot, tool, tool, probe, 0] * 2


@pytest.mark.parametrize(
    ("told", "agent", "reason"),
    [
        ("data_centre", "Googlebot/2", "data_centre"),
        ("volume", "VLC/3", "volume"),
        ("tool", "VLC/3", "tool"),
        ("Declared_Bot", "VLC/3", "other"),
        ("x" * 200, "VLC/3", "other"),
        ("", "Googlebot/2", "declared_bot"),
        ("[IVT]", "Googlebot/2", "declared_bot"),
        (None, "VLC/3", None),
    ],
)
def test_a_collectors_invalid_reason_is_the_only_one(
    told: str | None, agent: str, reason: str | None
) -> None:
    lists = {"tool": re.compile("curl/")}
    wanted = 0 if reason is None else traffic_reasons(lists).index(reason) + 1
    line = raw_of(EVENT, invalid_traffic=told, user_agent=agent)
    for scanning in (False, True):
        decoder = Decoder(b"0123456789abcdef", agents=lists, scanning=scanning)
        batch = decoder.decode(Messages([line] * 2, range(1, 3), 3, [0] * 2))
        assert (batch.pixels[:, INFO] >> 16).tolist() == [wanted] * 2


@pytest.mark.parametrize(
    ("consent", "default", "kept"),
    [(True, False, True), (False, True, False), (None, True, True), (None, False, False)],
)
def test_a_listener_has_a_key_only_with_consent(consent: bool | None, default: bool, kept: bool) -> None:
    pixel = pixel_of(raw_of(EVENT, consent=consent), consent_default=default)
    assert bool(pixel[LISTENER]) == bool(pixel[INFO] & CONSENTED) == kept


def test_a_listeners_key_is_a_keyed_hash_of_the_id_alone() -> None:
    key = hashlib.blake2b(digest_size=32, key=b"0123456789abcdef", person=b"listener").digest()
    keyed = hashlib.blake2b(b"somebody", digest_size=8, key=key).digest()
    assert pixel_of(raw_of(EVENT))[LISTENER] == int.from_bytes(keyed, "little")
    assert pixel_of(raw_of(EVENT, ip="10.0.0.1", user_agent="x", placement_id="y"))[
        LISTENER
    ] == int.from_bytes(keyed, "little")


# Dead letters

CANARY = "CANARY-8c1f"
IDENTITY = {
    "listener_id": CANARY,
    "user_agent": f"{CANARY}/1.0",
    "ip": CANARY,
    "content_category": [CANARY],
    "landing_url": f"https://{CANARY}:{CANARY}@shop.example/path?email={CANARY}&utm_source=radio#{CANARY}",
    "unknown": {"a": CANARY},
    "email": CANARY,
}


@pytest.mark.parametrize(
    "change",
    [
        {"ts": "x"},
        {"event": "nonsense"},
        {"event_id": ""},
        {"placement_id": None},
        {"listener_id": [CANARY]},
        {"ip": {"x": CANARY}},
        {"event": "conversion", "conversion": {"type": "x", "email": CANARY}},
    ],
)
def test_a_dead_letter_keeps_nothing_of_a_listener(change: dict[str, Any]) -> None:
    raw = raw_of(EVENT, **{**IDENTITY, **change})
    ((position, rejection),) = decode(raw).rejected
    _, body = letter("a", position, rejection)
    assert CANARY.encode() in raw
    assert CANARY.lower() not in body.decode().lower()
    event = json.loads(body)["event"]
    assert event["landing_url"] == "https://shop.example/path"
    assert event["utm_source"] == "radio"
    assert event["play_id"] == "play-1"


def test_a_dead_letter_keeps_short_texts() -> None:
    ((_, rejection),) = decode(raw_of(EVENT, ts="x" * 5_000, platform="y" * 5_000)).rejected
    assert rejection.fields["event"]["ts"] == "x" * 128
    assert rejection.fields["event"]["platform"] == "y" * 128


# Anything


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_messages = st.one_of(
    st.binary(max_size=60),
    st.builds(
        lambda base, change: json.dumps({**base, **change}).encode(),
        st.sampled_from([EVENT, CONVERSION]),
        st.dictionaries(
            st.sampled_from([*WRONG, "event_id", "event"]),
            _json | st.sampled_from([*EVENTS, *MACROS]),
            max_size=3,
        ),
    ),
)


@given(st.lists(_messages, max_size=8))
@example([*MALFORMED.values()])
def test_no_bytes_raise_and_every_message_is_accounted_for(raws: list[bytes]) -> None:
    batch = decode(*raws)
    positions = [*batch.pixels[:, POSITION].tolist(), *(position for position, _ in batch.rejected)]
    assert sorted(positions) == list(range(1, len(raws) + 1))
    assert batch.received == len(raws)
    for position, rejection in batch.rejected:
        body = json.loads(letter("a", position, rejection)[1])
        assert body["reason"] in ("malformed", "invalid", "unknown_event")
        assert (body["reason"] == "malformed") == ("field" not in body)
