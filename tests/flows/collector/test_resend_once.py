"""A letter that is sent again counts once, as what it was and with all that it had, or it is kept."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from collector_support import NOW_MS, call, understanding, usual
from resend_support import KEY, PIXEL, Again, of_the_door, of_the_flow

from connectors.embedded import EmbeddedBroker
from connectors.kafka import KafkaWriter
from flows import resend
from flows.collector.letters import letter
from flows.intake.decoder import Decoder
from flows.rejected import Letter, LetterCounts, from_files, from_topic, letter_of
from flows.resend import Resender
from flows.settings import load

HOUR = 3_600_000


@pytest.mark.parametrize("told", [{}, {"received_at": NOW_MS + 47 * HOUR}])
def test_a_letter_dated_ahead_always_counts_in_the_same_minute(again: Again, told: dict[str, Any]) -> None:
    ahead = of_the_flow(ts=NOW_MS + 48 * HOUR, ip=5, **told)._replace(taken_ms=NOW_MS)
    for watermark_ms in (NOW_MS, NOW_MS + 300_000):
        assert again([ahead], watermark_ms).accepted == 1
    assert [one["ts"] for one in again.events] == [NOW_MS + 60_000] * 2
    assert again([ahead], NOW_MS + HOUR).not_sent == {resend.FINAL: 1}


def test_a_files_letter_dated_ahead_of_the_clock_is_not_resent(again: Again) -> None:
    letters = [of_the_flow(ts=NOW_MS + ahead_ms, ip=5) for ahead_ms in (0, 1)]
    resent = again(letters, 0)
    assert (resent.accepted, resent.not_sent) == (1, {resend.AHEAD: 1})


def test_letters_sent_again_after_a_failure_make_equal_pixels() -> None:
    letters, sent = [of_the_door(id=f"e{n}") for n in range(3)], list[list[bytes]]()
    for later_ms in (0, 3 * HOUR):
        sender = Resender(load(collect_key=KEY), NOW_MS, 600_000, NOW_MS + later_ms, unsigned=True)
        sent.append([line.body for line in sender.lines(letters)])
    assert sent[0] == sent[1]
    assert len({*sent[0]}) == 3


def test_an_unreadable_time_is_not_replaced_by_the_letters(again: Again) -> None:
    assert again([of_the_flow(ts="soon")._replace(taken_ms=NOW_MS)]).not_sent == {resend.NO_TIME: 1}


def test_a_time_is_read_as_the_flow_reads_it(again: Again) -> None:
    minute_s = NOW_MS // 60_000 * 60
    text = datetime.fromtimestamp(minute_s - 60, UTC).strftime("%Y-%m-%dT%H:%M:60z")
    assert again([of_the_flow(ts=text, ip=5)]).accepted == 1
    assert again.events[0]["ts"] == minute_s * 1000


def test_a_letter_a_day_old_keeps_its_date(again: Again) -> None:
    received_ms = NOW_MS - 30 * HOUR
    letter = of_the_flow(ts=received_ms - HOUR, received_at=received_ms, ip=5)
    assert again([letter], 0).accepted == 1
    assert (again.events[0]["ts"], again.events[0]["received_at"]) == (received_ms - HOUR, received_ms)


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
        ({"play_id": 7}, resend.CHANGED),
        ({"campaign_id": True}, resend.CHANGED),
    ],
)
def test_a_letter_without_its_wrong_field_is_not_resent(
    again: Again, wrong: dict[str, Any], why: str
) -> None:
    found = _by_the_decoder(PIXEL | wrong)
    marked, before = found, found._replace(withheld=())
    assert [again([one]).not_sent for one in (marked, before)] == [{why: 1}] * 2
    assert not again.events


def _by_the_decoder(event: dict[str, Any]) -> Letter:
    """The letter that the flow itself makes of an event."""
    from connectors.stream import Messages
    from flows.intake.dead_letters import letter as flow_letter

    batch = Decoder(b"sixteen secret b").decode(Messages([json.dumps(event).encode()], [1], 2))
    made = letter_of(flow_letter("audio-pixels/0", *batch.rejected[0])[1])
    assert made is not None
    return made


def test_a_single_lost_field_may_be_corrected(again: Again) -> None:
    campaign, both = (
        of_the_flow(**wrong)
        for wrong in ({"campaign_id": ["spring"]}, {"campaign_id": ["spring"], "station": ["heart"]})
    )
    resent = again([campaign, both], campaign_id="spring")
    assert (resent.accepted, resent.not_sent) == (1, {resend.LOST: 1})
    assert again.events[0]["campaign_id"] == "spring"


def test_a_letter_that_lost_only_listener_fields_is_resent(again: Again) -> None:
    told = [{"ip": 5}, {"consent": ["yes"]}, {"listener_id": 5}, {"user_agent": []}]
    assert again([of_the_flow(**one) for one in told]).accepted == len(told)


@pytest.mark.parametrize("name", ["event_id", "play_id", "placement_id", "campaign_id"])
@pytest.mark.parametrize("value", [" p1", "$ADPLAY", "null", "#p#"])
def test_an_id_that_is_read_as_another_is_not_resent(again: Again, name: str, value: str) -> None:
    resent = again([of_the_flow(**{name: value, "ip": 5})])
    assert (resent.accepted, resent.not_sent) == (0, {resend.CHANGED: 1})
    assert not again.events


def test_an_absent_id_is_resent_except_the_events(again: Again) -> None:
    assert again([of_the_flow(play_id="[PLAY]", ip=5)]).accepted == 1
    assert "play_id" not in again.events[0]
    assert again([of_the_flow(event_id="[ID]")]).not_sent == {resend.NO_ID: 1}


def test_a_play_naming_its_listener_is_marked_and_kept(again: Again) -> None:
    door = understanding(placements="signed")
    with_play, without_consent = (
        letter_of(letter("c1", door.pixel(call(usual(**told), "/p/triton"))).value)
        for told in ({"cb": "1"}, {"cb": "2", "gdpr_consent": ""})
    )
    assert with_play is not None
    assert without_consent is not None
    assert (with_play.withheld, without_consent.withheld) == (("play_id",), ())
    resent = again([with_play, without_consent])
    assert (resent.accepted, resent.not_sent) == (1, {resend.LOST: 1})


ORDER: dict[str, Any] = {"event": "conversion", "campaign_id": "spring", "ip": 5}


@pytest.mark.parametrize(
    "order",
    [
        {"conversion": {"type": "purchase", "order_id": "o-1"}},
        {"conversion": {"type": "purchase", "order_id": "o-1"}, "event": "Conversion"},
        {"conversion": {"type": "purchase"}, "landing_url": "https://shop.example/?utm_content=p"},
        {"conversion": {"type": "purchase"}, "landing_url": ["https://shop.example"]},
    ],
)
def test_a_conversion_without_its_listener_is_not_resent(again: Again, order: dict[str, Any]) -> None:
    resent = again([of_the_flow(**ORDER | order)])
    assert (resent.accepted, resent.not_sent) == (0, {resend.CONVERSION: 1})


def test_an_unsigned_call_is_resent_only_on_request(again: Again) -> None:
    letters = [of_the_door(), of_the_flow(ip=5)]
    resent = again(letters, unsigned=False)
    assert (resent.accepted, resent.not_sent) == (1, {resend.FORGED: 1})
    assert [one["event_id"] for one in again.events] == ["e1"]


def test_pixels_of_one_event_id_have_separate_letters(tmp_path: Path, again: Again) -> None:
    door = understanding(placements="signed")
    several = [usual(e=name, id="id-1", p=play) for play in ("a", "b") for name in ("impression", "start")]
    several += [usual(e="progress", id="id-1", pl=row, ph=at) for row in "xy" for at in ("1000", "2000")]
    raws = [letter("c1", door.pixel(call(one))).value for one in several]
    file = tmp_path / "rejected.ndjson"
    file.write_bytes(b"\n".join([*raws, *raws]) + b"\n")
    assert again(list(from_files([str(file)]))).accepted == len(several)


def test_no_unknown_field_and_no_landing_url_of_a_letter_reaches_the_pixel(again: Again) -> None:
    letter = of_the_flow(ip=5, event="click", landing_url="https://shop.example/a")
    letter.event.update(zzz="é" * 200_000, client_id="c", household_id="h")
    assert again([letter]).accepted == 1
    assert not {"zzz", "landing_url", "client_id", "household_id"} & again.events[0].keys()


@pytest.mark.parametrize("categories", ["IAB26-1", ["IAB26-1", "IAB7"]])
def test_the_content_category_of_an_ad_is_resent(again: Again, categories: str | list[str]) -> None:
    of_flow = of_the_flow(content_category=categories, ip=5)
    assert again([of_flow, of_the_door(cat="IAB26-1,IAB7")]).accepted == 2
    assert again.events[0]["content_category"] == (
        categories if isinstance(categories, list) else [categories]
    )
    assert again.events[1]["content_category"] == ["IAB26-1", "IAB7"]
    assert again([of_the_flow(content_category=["IAB1"] * 33, ip=5)]).not_sent == {resend.LOST: 1}
    for said in ("jane@example.org", "81.2.69.142"):
        for one in (of_the_flow(content_category=said, ip=5), of_the_door(cat=said)):
            assert said not in str(one), "it may name a listener"
            assert again([one]).not_sent == {resend.LOST: 1}


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
