"""A letter that is sent again counts once, as what it was and with all that it had, or it is kept."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from collector_support import NOW_MS, call, understanding, usual
from resend_support import ALL, PIXEL, Kept, of_the_door, of_the_flow, sent

from connectors.embedded import EmbeddedBroker
from connectors.kafka import KafkaWriter
from flows import resend
from flows.collector.letters import letter
from flows.intake.decoder import Decoder
from flows.rejected import Letter, LetterCounts, from_files, from_topic, letter_of
from flows.resend import ExtraLetters, ResendResult
from flows.settings import load

HOUR = 3_600_000


@pytest.mark.parametrize("told", [{}, {"received_at": NOW_MS + 47 * HOUR}])
def test_a_letter_dated_ahead_always_counts_in_the_same_minute(
    url: str, kept: Kept, told: dict[str, Any]
) -> None:
    ahead = of_the_flow(ts=NOW_MS + 48 * HOUR, ip=5, **told)._replace(taken_ms=NOW_MS)
    for watermark_ms in (NOW_MS, NOW_MS + 300_000):
        assert sent([ahead], url, watermark_ms).accepted == 1
    assert [one.event["ts"] for one in kept.events] == [NOW_MS + 60_000] * 2
    assert sent([ahead], url, NOW_MS + HOUR).not_sent == {resend.FINAL: 1}


def test_a_letter_dated_ahead_of_the_flow_is_not_resent(url: str, kept: Kept) -> None:
    letters = [of_the_flow(ts=NOW_MS + ahead_ms, ip=5) for ahead_ms in (60_000, 60_001)]
    resent = sent(letters, url)
    assert (resent.accepted, resent.not_sent) == (1, {resend.AHEAD: 1})


def test_the_clock_dates_a_files_letters_without_a_watermark() -> None:
    letters = [of_the_flow(ts=NOW_MS + ahead_ms, ip=5) for ahead_ms in (60_000, 60_001)]
    resent = ResendResult()
    events = list(resend._events(letters, 0, 600_000, {}, resent, ALL, NOW_MS))
    assert (len(events), resent.not_sent) == (1, {resend.AHEAD: 1})


def test_an_unreadable_time_is_not_replaced_by_the_letters(url: str) -> None:
    assert sent([of_the_flow(ts="soon")._replace(taken_ms=NOW_MS)], url).not_sent == {resend.NO_TIME: 1}


def test_a_time_is_read_as_the_flow_reads_it(url: str, kept: Kept) -> None:
    minute_s = NOW_MS // 60_000 * 60
    text = datetime.fromtimestamp(minute_s - 60, UTC).strftime("%Y-%m-%dT%H:%M:60z")
    assert sent([of_the_flow(ts=text, ip=5)], url).accepted == 1
    assert kept.events[0].event["ts"] == minute_s * 1000


def test_a_letter_a_day_old_is_not_resent() -> None:
    letters = [of_the_flow(ts=NOW_MS - 24 * HOUR + ms, ip=5) for ms in (HOUR, 0)]
    resent = ResendResult()
    events = list(resend._events(letters, NOW_MS, 48 * HOUR, {}, resent, ALL, NOW_MS))
    assert (len(events), resent.not_sent) == (1, {resend.OLD: 1})


ORDER: dict[str, Any] = {"event": "conversion", "campaign_id": "spring"}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"play_id": ["play-1"]}, resend.LOST),
        ({"campaign_id": ["spring"]}, resend.LOST),
        ({"station": {"id": "heart"}}, resend.LOST),
        ({"episode": []}, resend.LOST),
        ({"content_category": {"IAB26": 1}}, resend.LOST),
        ({"playhead_ms": [1]}, resend.LOST),
        ({"received_at": {}}, resend.LOST),
        (ORDER | {"conversion": {"type": "purchase", "order_id": ["o-1"]}}, resend.LOST),
        (ORDER | {"conversion": ["purchase"]}, resend.LOST),
        (ORDER | {"conversion": {"type": "purchase"}, "landing_url": ["https://x"]}, resend.LOST),
        (ORDER | {"conversion": {"type": "purchase", "order_id": 12345.0}}, resend.CHANGED),
        ({"play_id": 7}, resend.CHANGED),
        ({"campaign_id": True}, resend.CHANGED),
    ],
)
def test_a_letter_without_its_wrong_field_is_not_resent(
    url: str, kept: Kept, wrong: dict[str, Any], why: str
) -> None:
    found = _by_the_decoder(PIXEL | wrong)
    marked, before = found, found._replace(withheld=())
    assert [sent([one], url).not_sent for one in (marked, before)] == [{why: 1}] * 2
    assert not kept.events


def _by_the_decoder(event: dict[str, Any]) -> Letter:
    """The letter that the flow itself makes of an event."""
    from connectors.stream import Messages
    from flows.intake.dead_letters import letter as flow_letter

    batch = Decoder(b"sixteen secret b").decode(Messages([json.dumps(event).encode()], [1], 2))
    made = letter_of(flow_letter("audio-pixels/0", *batch.rejected[0])[1])
    assert made is not None
    return made


def test_a_single_lost_field_may_be_corrected(url: str, kept: Kept) -> None:
    campaign, both = (
        of_the_flow(**wrong)
        for wrong in ({"campaign_id": ["spring"]}, {"campaign_id": ["spring"], "station": ["heart"]})
    )
    resent = sent([campaign, both], url, campaign_id="spring")
    assert (resent.accepted, resent.not_sent) == (1, {resend.LOST: 1})
    assert kept.events[0].event["campaign_id"] == "spring"


def test_a_letter_that_lost_only_listener_fields_is_resent(url: str) -> None:
    told = [{"ip": 5}, {"consent": ["yes"]}, {"listener_id": 5}, {"user_agent": []}]
    assert sent([of_the_flow(**one) for one in told], url).accepted == len(told)


@pytest.mark.parametrize("name", ["event_id", "play_id", "placement_id", "campaign_id"])
@pytest.mark.parametrize("value", [" p1", "$ADPLAY", "null", "#p#"])
def test_an_id_that_a_door_would_change_is_not_resent(url: str, kept: Kept, name: str, value: str) -> None:
    assert sent([of_the_flow(**{name: value, "ip": 5})], url).not_sent == {resend.CHANGED: 1}
    order = ORDER | {"conversion": {"type": "purchase", "order_id": value}, "ip": 5}
    assert sent([of_the_flow(**order)], url).not_sent == {resend.CHANGED: 1}
    assert not kept.events


def test_an_absent_id_is_resent_except_the_events(url: str, kept: Kept) -> None:
    assert sent([of_the_flow(play_id="[PLAY]", ip=5)], url).accepted == 1
    assert "play_id" not in kept.events[0].event
    assert sent([of_the_flow(event_id="[ID]")], url).not_sent == {resend.CHANGED: 1}


def test_a_play_naming_its_listener_is_marked_and_kept(url: str, kept: Kept) -> None:
    door = understanding(placements="signed")
    with_play, without_consent = (
        letter_of(letter("c1", door.pixel(call(usual(**told), "/p/triton"))).value)
        for told in ({"cb": "1"}, {"cb": "2", "gdpr_consent": ""})
    )
    assert with_play is not None
    assert without_consent is not None
    assert (with_play.withheld, without_consent.withheld) == (("play_id",), ())
    resent = sent([with_play, without_consent], url)
    assert (resent.accepted, resent.not_sent) == (1, {resend.LOST: 1})


def test_a_conversion_is_resent_only_on_request(url: str, kept: Kept) -> None:
    order = {"conversion": {"type": "purchase", "order_id": "o-1"}, "ip": 5, "campaign_id": "spring"}
    letters = [of_the_flow(**order, event=name) for name in ("conversion", "Conversion")]
    resent = sent(letters, url, allowed=ExtraLetters(unsigned=True))
    assert (resent.accepted, resent.not_sent) == (0, {resend.CONVERSION: 2})
    assert sent(letters, url, allowed=ExtraLetters(conversions=True)).accepted == 2


def test_an_unsigned_call_is_resent_only_on_request(url: str, kept: Kept) -> None:
    letters = [of_the_door(), of_the_flow(ip=5)]
    resent = sent(letters, url, allowed=ExtraLetters())
    assert (resent.accepted, resent.not_sent) == (1, {resend.FORGED: 1})
    assert [one.event["event_id"] for one in kept.events] == ["e1"]


def test_pixels_of_one_event_id_have_separate_letters(tmp_path: Path, url: str, kept: Kept) -> None:
    door = understanding(placements="signed")
    several = [usual(e=name, id="id-1", p=play) for play in ("a", "b") for name in ("impression", "start")]
    several += [usual(e="progress", id="id-1", pl=row, ph=at) for row in "xy" for at in ("1000", "2000")]
    raws = [letter("c1", door.pixel(call(one))).value for one in several]
    file = tmp_path / "rejected.ndjson"
    file.write_bytes(b"\n".join([*raws, *raws]) + b"\n")
    assert sent(list(from_files([str(file)])), url).accepted == len(several)


def test_an_oversized_event_is_kept_and_later_ones_are_sent(url: str, kept: Kept) -> None:
    letters = [of_the_flow(event_id=f"e{n}", ip=5) for n in range(3)]
    letters[1].event["zzz"] = "é" * 200_000
    resent = sent(letters, url)
    assert (resent.accepted, resent.not_sent) == (2, {resend.TOO_LARGE: 1})
    assert [one.event["event_id"] for one in kept.events] == ["e0", "e2"]


@pytest.mark.parametrize("categories", ["IAB26-1", ["IAB26-1", "IAB7"]])
def test_the_content_category_of_an_ad_is_resent(url: str, kept: Kept, categories: str | list[str]) -> None:
    of_flow = of_the_flow(content_category=categories, ip=5)
    assert sent([of_flow, of_the_door(cat="IAB26-1,IAB7")], url).accepted == 2
    assert kept.events[0].event["content_category"] == (
        categories if isinstance(categories, list) else [categories]
    )
    assert kept.events[1].event["content_category"] == ["IAB26-1", "IAB7"]
    assert sent([of_the_flow(content_category=["IAB1"] * 33, ip=5)], url).not_sent == {resend.LOST: 1}
    for said in ("jane@example.org", "81.2.69.142"):
        for one in (of_the_flow(content_category=said, ip=5), of_the_door(cat=said)):
            assert said not in str(one), "it may name a listener"
            assert sent([one], url).not_sent == {resend.LOST: 1}


def test_letters_arriving_during_the_read_are_not_read() -> None:
    with EmbeddedBroker() as broker:
        broker.create_topic("letters", 2)
        settings = load(kafka_brokers=broker.bootstrap, kafka_rejected_topic="letters")
        writer = KafkaWriter(broker.bootstrap, "letters", {})

        def put(prefix: str) -> None:
            bodies = [{"reason": "invalid", "position": f"{prefix}/{n}"} for n in range(1_200)]
            writer.write([(body["position"].encode(), json.dumps(body).encode()) for body in bodies])

        put("old")
        left, found = LetterCounts(), list[Letter]()
        for one in from_topic(settings, 1, left):
            if len(found) % 400 == 0 and len(found) < 2_400:
                put(f"new{len(found)}")
            found.append(one)
        writer.close()
    assert len(found) == left.letters == 1_200
    assert {one.position.partition("/")[0] for one in found} == {"old"}
    assert all(one.taken_ms for one in found)
