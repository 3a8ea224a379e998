"""Google Analytics and Adobe: each event arrives with its key, and nothing without consent leaves."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs
from xml.etree import ElementTree

import pytest
from command_support import Command
from export_support import NOW_MS, Site, Topic, decision, fill, letters_of, pixel
from pydantic import SecretStr

from connectors.embedded import EmbeddedValkey
from connectors.http_client import Answer
from connectors.kafka import Record
from connectors.redis import connect
from connectors.redis.client import Client
from flows.errors import SettingsError, StateError
from flows.exports.adobe import Adobe
from flows.exports.analytics import DecisionsTarget, PixelsTarget
from flows.exports.calls import Caller
from flows.exports.denied import ExportDenyList
from flows.exports.facts import (
    COMPLETE,
    CONVERSION,
    START,
    Fact,
    KnownConversion,
    conversion_key,
    conversions,
    moment,
    play,
    read_pixel,
)
from flows.exports.facts import decision as decision_in
from flows.exports.ga4 import MAX_BYTES, Ga4, body_of, client_of
from flows.exports.handover import Busy, Handover, Parcel, Refused, Sorted
from flows.exports.known_conversions import KnownConversions
from flows.exports.notices import NoticeTarget, SlackMessage
from flows.intake import deny
from flows.intake.schema import Invalid, decode, epoch_ms, times
from flows.settings import Settings
from flows.state.keys import fingerprint

RESERVED = ("session_start", "first_visit", "user_engagement", "ad_click", "error", "app_remove")
PREFIXES = ("google_", "firebase_", "ga_", "_")


def validate(query: str, body: bytes) -> list[dict[str, str]]:
    """The findings of Google's validation address, by its documented rules: field path and code."""
    found: list[dict[str, str]] = []

    def bad(path: str, code: str) -> None:
        found.append({"fieldPath": path, "description": "", "validationCode": code})

    asked = parse_qs(query)
    for name in ("measurement_id", "api_secret"):
        if name not in asked:
            bad(name, "VALUE_REQUIRED")
    said = json.loads(body)
    if not said.get("client_id"):
        bad("client_id", "VALUE_REQUIRED")
    if len(body) > 130_000:
        bad("", "VALUE_OUT_OF_BOUNDS")
    if not 1 <= len(said["events"]) <= 25:
        bad("events", "EXCEEDED_MAX_ENTITIES")
    for event in said["events"]:
        name = event["name"]
        if re.fullmatch("[A-Za-z][A-Za-z0-9_]{0,39}", name) is None:
            bad("events", "NAME_INVALID")
        if name in RESERVED or name.startswith(PREFIXES):
            bad("events", "NAME_RESERVED")
        if not NOW_MS - 72 * 3_600_000 <= event["timestamp_micros"] // 1000 <= NOW_MS + 900_000:
            bad("events.timestamp_micros", "VALUE_OUT_OF_BOUNDS")
        if len(event["params"]) > 25:
            bad("events.params", "EXCEEDED_MAX_ENTITIES")
        for key, value in event["params"].items():
            if re.fullmatch("[A-Za-z][A-Za-z0-9_]{0,39}", key) is None or key.startswith(PREFIXES):
                bad(f"events.params.{key}", "NAME_INVALID")
            if isinstance(value, str) and not 1 <= len(value) <= 100:
                bad(f"events.params.{key}", "VALUE_OUT_OF_BOUNDS")
        if ("value" in event["params"]) != ("currency" in event["params"]):
            bad("events.params.currency", "VALUE_REQUIRED")
    return found


def test_each_event_reaches_google_as_it_documents_and_none_without_consent(
    settings: Settings,
    topic: Topic,
    export: Callable[..., Command],
    site: Callable[..., Site],
    tmp_path: Path,
) -> None:
    findings: list[dict[str, str]] = []

    def judge(number: int, query: str, body: bytes) -> bytes:
        findings.extend(validate(query, body))
        return json.dumps({"validationMessages": validate(query, body)}).encode()

    target = site(lambda _: (200, {}), judge)
    fill(topic, settings)
    told = {
        "AUDIOPIXEL_EXPORT_GA4_URL": f"{target.url.partition('?')[0]}",
        "AUDIOPIXEL_EXPORT_GA4_MEASUREMENT_ID": "G-12345",
        "AUDIOPIXEL_EXPORT_GA4_SECRET": "s3cret",
        "AUDIOPIXEL_EXPORT_CONNECTIONS": "2",
        "AUDIOPIXEL_LISTENER_KEY": "sixteen bytes ok",
    }
    assert export("ga4", "--from", "earliest", "--once", **told).wait(200) == 0
    assert findings == []
    events: list[dict[str, Any]] = []
    for _, body in target.taken:
        said = json.loads(body)
        assert said["consent"] == {"ad_user_data": "DENIED", "ad_personalization": "DENIED"}
        events += said["events"]
    assert len({event["params"]["event_key"] for event in events}) == len(events)
    names = [event["name"] for event in events]
    assert {name: names.count(name) for name in set(names)} == {START: 12, COMPLETE: 12, CONVERSION: 5}
    assert b"secret" not in b"".join(body for _, body in target.calls)
    bought = [event["params"] for event in events if event["name"] == CONVERSION]
    assert sum(one["value"] for one in bought) == 80
    assert sorted(one["credit"] for one in bought) == [0.25, 0.75, 1, 1, 1]
    assert {(one["campaign"], one["medium"], one["utm_source"]) for one in bought} == {
        ("spring", "audio", "pod")
    }
    assert letters_of(settings) == []


def test_a_hit_reaches_adobe_hashed_and_a_failure_is_a_letter(
    settings: Settings, topic: Topic, export: Callable[..., Command], site: Callable[..., Site]
) -> None:
    def judge(number: int, query: str, body: bytes) -> bytes:
        return (
            b"<status>FAILURE</status><reason>NO pagename</reason>"
            if number == 1
            else b"<status>SUCCESS</status>"
        )

    target = site(lambda _: (200, {}), judge)
    fill(topic, settings)
    told = {"AUDIOPIXEL_EXPORT_ADOBE_URL": target.url, "AUDIOPIXEL_EXPORT_ADOBE_SUITE": "suite"}
    told |= {"AUDIOPIXEL_LISTENER_KEY": "sixteen bytes ok", "AUDIOPIXEL_EXPORT_CONNECTIONS": "1"}
    assert export("adobe", "--from", "earliest", "--once", **told).wait(200) == 0
    hits = [ElementTree.fromstring(body) for _, body in target.taken]
    assert len(hits) == 12 + 12 + 5
    for hit in hits:
        assert hit.findtext("reportSuiteID") == "suite"
        assert re.fullmatch("[0-9a-f]{32}", hit.findtext("visitorID") or "")
        assert int(hit.findtext("timestamp") or 0) > NOW_MS / 1000 - 100
    everything = b"".join(body for _, body in target.calls)
    assert b"listener-" not in everything
    assert b"secret" not in everything
    bought = [hit for hit in hits if hit.findtext("linkName") == CONVERSION]
    assert len({hit.findtext("purchaseID") for hit in bought}) == 5
    assert [letter["reason"] for letter in letters_of(settings)] == ["failure"]


def test_a_forgotten_persons_waiting_conversion_is_not_exported(
    settings: Settings, client: Client, tmp_path: Path
) -> None:
    secret = b"sixteen bytes ok"
    known_to_the_flow = settings.model_copy(update={"listener_key": SecretStr(secret.decode())})
    clock = [0.0]
    denied = ExportDenyList(client, settings.namespace, secret, lambda: clock[0])
    kept = KnownConversions(tmp_path, "ga4")
    made: list[Fact] = []

    def make(facts: Sequence[Fact]) -> list[Parcel]:
        made.extend(facts)
        return []

    def records(*messages: tuple[bytes, bytes]) -> list[Record]:
        return [Record("t", 0, at, NOW_MS, key, value) for at, (key, value) in enumerate(messages)]

    pixels = PixelsTarget(client_of, make, kept, denied, 1)
    decisions = DecisionsTarget(make, kept, denied, cast(Handover, Caught()), 1)
    bought = records(pixel("conversion", 1), pixel("conversion", 2), pixel("conversion", 3, client_id="dev"))
    for parcel in pixels.sort(bought).parcels:
        parcel.hand_over()
    deny(known_to_the_flow, ["listener-1", "dev"], ["home"])
    clock[0] = 2.0
    found = decisions.sort(records(decision(1), decision(2), decision(3)))
    assert sorted(found.left_out) == ["forgotten", "forgotten"]
    assert [one.values["transaction_id"] for one in made] == ["o-2"]
    made.clear()
    starts = records(pixel("start", 1), pixel("start", 2), pixel("complete", 5, household_id="home"))
    assert sorted(pixels.sort(starts).left_out) == ["forgotten", "forgotten"]
    assert [one.values["placement_id"] for one in made] == ["breakfast-uk"]
    kept.close()


def test_an_export_with_another_key_than_the_flows_sends_nothing(settings: Settings, client: Client) -> None:
    """The export once found no person on the list and sent all."""
    denied = ExportDenyList(client, settings.namespace, b"another key of an export")
    denied.look()
    client.hset(f"{settings.namespace}:meta", "listener_key", fingerprint(b"sixteen bytes ok"))
    try:
        ExportDenyList(client, settings.namespace, b"sixteen bytes ok").look()
        with pytest.raises(SettingsError, match="is not the key of the flow"):
            ExportDenyList(client, settings.namespace, b"another key of an export").look()
    finally:
        client.hdel(f"{settings.namespace}:meta", "listener_key")


@pytest.mark.parametrize("target", ["ga4", "adobe"])
def test_a_retried_call_omits_people_forgotten_meanwhile(
    settings: Settings, client: Client, tmp_path: Path, target: str
) -> None:
    secret = b"sixteen bytes ok"
    known_to_the_flow = settings.model_copy(update={"listener_key": SecretStr(secret.decode())})
    clock = [0.0]
    denied = ExportDenyList(client, settings.namespace, secret, lambda: clock[0])
    bodies: list[bytes] = []
    away = [True]

    class Calls:
        def post(self, body: bytes, headers: object, query: str = "") -> Answer:
            if away[0]:
                raise Busy("status_503")
            bodies.append(body)
            return Answer(200, {}, b"")

    caller = cast(Caller, Calls())
    ga4, adobe = Ga4(caller, "G-1", "s", lambda: NOW_MS / 1000), Adobe(caller, "suite", secret)
    who, make = (client_of, ga4.parcels) if target == "ga4" else (adobe.visitor_id, adobe.parcels)
    kept = KnownConversions(tmp_path, target)
    pixels = PixelsTarget(who, make, kept, denied, 1)
    decisions = DecisionsTarget(make, kept, denied, cast(Handover, Caught()), 1)

    def records_of_both(make: Callable[[int], tuple[bytes, bytes]]) -> list[Record]:
        return [Record("t", 0, number, NOW_MS, *make(number)) for number in (1, 2)]

    for parcel in pixels.sort(records_of_both(lambda number: pixel("conversion", number))).parcels:
        parcel.hand_over()
    # A client of two listeners, one of them forgotten: the call is about the other alone.
    starts = records_of_both(lambda number: pixel("start", number, ga_client_id="1.1"))
    parcels = [*pixels.sort(starts).parcels, *decisions.sort(records_of_both(decision)).parcels]
    for parcel in parcels:
        with pytest.raises(Busy):
            parcel.hand_over()
    deny(known_to_the_flow, ["listener-1"], [])
    away[0], clock[0] = False, 2.0
    for parcel in parcels:
        parcel.hand_over()
    assert [record.offset for parcel in parcels for record in parcel.records] == [2, 2]
    assert len(bodies) == 2
    assert (b"o-1" in b"".join(bodies), b"o-2" in b"".join(bodies)) == (False, True)
    kept.close()


def test_conversions_of_one_event_id_are_both_exported(tmp_path: Path) -> None:
    kept = KnownConversions(tmp_path, "ga4")
    denied = ExportDenyList(cast(Client, None), "t", b"sixteen bytes ok", lambda: 0.0, _looked_s=0.0)
    made: list[Fact] = []

    def make(facts: Sequence[Fact]) -> list[Parcel]:
        made.extend(facts)
        return []

    def record(key: bytes, value: bytes) -> Record:
        return Record("t", 0, 0, NOW_MS, key, value)

    pixels = PixelsTarget(client_of, make, kept, denied, 1)
    decisions = DecisionsTarget(make, kept, denied, cast(Handover, Caught()), 1)
    mine, again = pixel("conversion", 1), pixel("conversion", 1, ga_client_id="forged.1")
    others = pixel("conversion", 1, campaign_id="autumn", ga_client_id="another.1")
    anothers_order = pixel(
        "conversion", 1, conversion={"type": "purchase", "order_id": "o-9"}, ga_client_id="a.2"
    )
    for parcel in pixels.sort([record(*one) for one in (mine, others, anothers_order, again)]).parcels:
        parcel.hand_over()
    key, of_mine = decision(1)
    of_others = of_mine.replace(b'"campaign_id": "spring"', b'"campaign_id": "autumn"')
    left = decisions.sort([record(key, of_mine), record(key, of_others), record(key, of_mine)]).left_out
    assert [(one.client_id, one.values["campaign"]) for one in made] == [
        ("1.1700000000", "spring"), ("another.1", "autumn"),
    ]  # fmt: skip
    assert left == ["repeated"]
    kept.close()


@pytest.mark.parametrize("timestamp_ms", [0, NOW_MS], ids=["by none", "now"])
def test_a_time_beyond_all_others_ends_no_export(tmp_path: Path, timestamp_ms: int) -> None:
    kept = KnownConversions(tmp_path, "ga4")
    denied = ExportDenyList(cast(Client, None), "t", b"sixteen bytes ok", lambda: 0.0, _looked_s=0.0)
    ga4 = Ga4(Caller("http://127.0.0.1:9", timedelta(seconds=1)), "G-1", "s")
    pixels = PixelsTarget(client_of, ga4.parcels, kept, denied, 1)
    pair = [pixel(event, 1, ts=10**30) for event in ("start", "conversion")]
    for parcel in pixels.sort([Record("t", 0, 0, timestamp_ms, *one) for one in pair]).parcels:
        try:
            parcel.hand_over()
        except Busy:
            continue
    kept.close()


def flow_accepts(raw: bytes) -> bool:
    event = decode(raw)
    times(event, NOW_MS)
    return event.event == "start"


@pytest.mark.parametrize(
    "text",
    [
        "2026-09-21T14:13:20Z",
        "2026-09-21T14:13:20z",
        "2026-09-21t14:13:20Z",
        "2026-09-21 16:13:20+02:00",
        "2026-06-30T23:59:60Z",
        "2026-06-30T23:59:60.5z",
        "2026-09-21T14:13:20.0019999Z",
        "0001-01-01T00:00:00+14:00",
    ],
)
def test_a_time_is_read_as_the_flow_reads_it(text: str) -> None:
    record = Record("t", 0, 0, NOW_MS + 6 * 3_600_000, *pixel("start", 1, ts=text))
    assert flow_accepts(record.value)
    found = read_pixel(record)
    assert found is not None
    assert moment(record, found) == max(0, epoch_ms(text, "ts"))


@pytest.mark.parametrize("text", ["2026-09-21T14:13:20", "2026-09-21", "20260921T141320Z", "soon"])
def test_an_invalid_time_is_replaced_by_the_brokers(text: str) -> None:
    record = Record("t", 0, 0, NOW_MS, *pixel("start", 1, ts=text))
    with pytest.raises(Invalid):
        flow_accepts(record.value)
    found = read_pixel(record)
    assert found is not None
    assert moment(record, found) == NOW_MS


NO_CLIENTS = (123.45, ["a"], {"b": 1}, True, None, "-1", "")
NO_WORDS = ("[CONSENT]", "", "${CONSENT}")


@pytest.mark.parametrize(
    ("told", "left_out"),
    [
        *(({"ga_client_id": one}, ("no_client", None)) for one in NO_CLIENTS),
        *(({"consent": one}, ("no_consent", "no_consent")) for one in NO_WORDS),
    ],
    ids=str,
)
def test_an_accepted_pixel_is_sent_or_counted_as_omitted(
    told: dict[str, Any], left_out: tuple[str | None, str | None], tmp_path: Path
) -> None:
    denied = ExportDenyList(cast(Client, None), "t", b"sixteen bytes ok", lambda: 0.0, _looked_s=0.0)
    record = Record("t", 0, 0, NOW_MS, *pixel("start", 1, **told))
    assert flow_accepts(record.value)
    adobe = Adobe(cast(Caller, None), "suite", b"sixteen bytes ok")
    for name, who, why in (("ga4", client_of, left_out[0]), ("adobe", adobe.visitor_id, left_out[1])):
        made: list[Fact] = []

        def make(facts: Sequence[Fact], made: list[Fact] = made) -> list[Parcel]:
            made.extend(facts)
            return []

        kept = KnownConversions(tmp_path, name)
        found = PixelsTarget(who, make, kept, denied, 1).sort([record])
        assert (found.left_out, len(made)) == (([why], 0) if why else ([], 1))
        kept.close()


class Caught:
    """A loop over pixels that has read them all."""

    class reader:  # an attribute
        @staticmethod
        def ends() -> dict[str, int]:
            return {}

        @staticmethod
        def passed(_: object) -> bool:
            return True


def test_the_export_waits_for_the_deny_list_of_redis(tmp_path: Path) -> None:
    with EmbeddedValkey() as server:
        away = connect(server.url, timeout=timedelta(milliseconds=100))
    kept = KnownConversions(tmp_path, "ga4")
    pixels = PixelsTarget(client_of, lambda _: [], kept, ExportDenyList(away, "t", b"sixteen bytes ok"), 1)
    with pytest.raises(Busy):
        pixels.sort([Record("t", 0, 0, NOW_MS, *pixel("start", 1))])
    kept.close()


def test_a_confirmation_is_no_second_conversion() -> None:
    key, said = decision(1, (1_000_000,))
    value = json.dumps(json.loads(said) | {"rule": "confirmed"}).encode()
    record = Record("credits", 0, 0, NOW_MS, key, value)
    assert conversions(record, decision_in(record), KnownConversion("k", "who", {})) == []


def test_a_public_tags_value_is_exported_as_claimed() -> None:
    key, said = decision(1, (250_000, 750_000))
    for value, claimed in ((said, None), (said[:-1] + b',"claimed":true}', "yes")):
        record = Record("credits", 0, 0, NOW_MS, key, value)
        facts = conversions(record, decision_in(record), KnownConversion("k", "who", {}))
        assert [(one.values["value"], one.values.get("value_claimed")) for one in facts] == [
            (5.0, claimed),
            (15.0, claimed),
        ]


def test_a_conversion_contains_its_rule_and_an_older_one_none() -> None:
    key, said = decision(1, (250_000, 750_000))
    for value, method in ((said, None), (said[:-1] + b',"methodology":"ab"}', "ab")):
        record = Record("credits", 0, 0, NOW_MS, key, value)
        facts = conversions(record, decision_in(record), KnownConversion("k", "who", {}))
        assert [one.values.get("methodology") for one in facts] == [method] * 2


@pytest.mark.parametrize("value", [b'{"a":' * 2_000, b'{"event":"\xff"}', b"{"])
def test_an_unreadable_message_ends_no_export(tmp_path: Path, value: bytes) -> None:
    kept = KnownConversions(tmp_path, "ga4")
    denied = ExportDenyList(cast(Client, None), "t", b"sixteen bytes ok", lambda: 0.0, _looked_s=0.0)
    pixels = PixelsTarget(client_of, lambda _: [], kept, denied, 1)
    decisions = DecisionsTarget(lambda _: [], kept, denied, cast(Handover, Caught()), 1)
    record = Record("t", 0, 0, NOW_MS, b"k", value)
    assert pixels.sort([record]) == Sorted([], (), [])
    assert [one.reason for one in decisions.sort([record]).letters] == ["malformed"]
    alerts = NoticeTarget(cast(Caller, None), SlackMessage(), "t")
    assert [one.reason for one in alerts.sort([record]).letters] == ["malformed"]
    kept.close()


def test_a_table_of_an_older_format_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "ga4.sqlite") as old:
        old.execute("CREATE TABLE known (event_id TEXT)")
    with pytest.raises(StateError, match="format 0"):
        KnownConversions(tmp_path, "ga4")


def fact(number: int, at_ms: int = NOW_MS, text: str = "x") -> Fact:
    record = Record("pixels", 0, number, NOW_MS, b"", b"")
    return Fact(f"key-{number}", START, at_ms, "1.2", {f"p{at}": text for at in range(12)}, record)


def test_calls_keep_to_the_limits_of_google() -> None:
    ga4 = Ga4(Caller("http://127.0.0.1:9", timedelta(seconds=1)), "G-1", "s")
    facts = [fact(number, text="\N{PILE OF POO}" * 100) for number in range(120)]
    calls: list[Any] = ga4.parcels(facts)
    assert sorted(one.key for call in calls for one in call.facts) == sorted(one.key for one in facts)
    for call in calls:
        body = body_of(call.client, call.facts)
        assert len(call.facts) <= 25
        assert len(body) <= MAX_BYTES + 1_000
        assert validate(ga4.query, body) == []


@pytest.mark.parametrize(
    ("letters", "sent"),
    [
        ("\N{HIRAGANA LETTER A}" * 100, "\N{HIRAGANA LETTER A}" * 100),
        ("\N{HIRAGANA LETTER A}" * 101, "\N{HIRAGANA LETTER A}" * 99 + "\N{HORIZONTAL ELLIPSIS}"),
        ("\u0e01\u0e47" * 60, "\u0e01\u0e47" * 49 + "\u0e01\N{HORIZONTAL ELLIPSIS}"),
        ("x\x00\u2028" * 30, "x\ufffd\ufffd" * 30),
    ],
    ids=["wide, whole", "wide", "combining", "unseen"],
)
def test_a_text_is_truncated_by_characters(letters: str, sent: str) -> None:
    record = Record("pixels", 0, 0, NOW_MS, *pixel("start", 1, placement_id=letters))
    found = read_pixel(record)
    assert found is not None
    started = play(record, found, "a.1")
    assert started is not None
    assert started.values["placement_id"] == sent


def test_an_event_over_three_days_old_is_refused() -> None:
    ga4 = Ga4(Caller("http://127.0.0.1:9", timedelta(seconds=1)), "G-1", "s")
    (call,) = ga4.parcels([fact(1, NOW_MS - 73 * 3_600_000)])
    with pytest.raises(Refused, match="too_old"):
        call.hand_over()


@pytest.mark.parametrize(
    ("findings", "refused"),
    [
        (b"1", ""),
        (b"null", ""),
        (b"[null]", ""),
        (b"[[1]]", ""),
        (b'{"a":1}', ""),
        (b'"x"', ""),
        (b"[" * 30_000 + b"]" * 30_000, ""),
        (b"[]", ""),
        (b"[{}]", "validation"),
        (b'[{"fieldPath":"a\\u001b[2J","validationCode":"VALUE"}]', "validation: a\ufffd[2J VALUE"),
    ],
)
def test_whatever_google_answers_ends_no_export(findings: bytes, refused: str) -> None:
    answer = Answer(200, {}, b'{"validationMessages":' + findings + b"}")
    caller = cast(Caller, type("Answering", (), {"post": lambda *_: answer})())
    (call,) = Ga4(caller, "G-1", "s", lambda: NOW_MS / 1000).parcels([fact(1)])
    said = ""
    try:
        call.hand_over()
    except Refused as error:
        said = str(error)
    assert said == refused


def test_the_validation_of_the_test_finds_what_google_documents() -> None:
    event = {"name": "_bad", "timestamp_micros": NOW_MS * 1000, "params": {"ga_x": "y" * 101, "value": 1}}
    found = validate("", json.dumps({"client_id": "", "events": [event] * 26}).encode())
    assert {(one["fieldPath"], one["validationCode"]) for one in found} >= {
        ("api_secret", "VALUE_REQUIRED"),
        ("client_id", "VALUE_REQUIRED"),
        ("events", "EXCEEDED_MAX_ENTITIES"),
        ("events", "NAME_INVALID"),
        ("events.params.ga_x", "VALUE_OUT_OF_BOUNDS"),
        ("events.params.currency", "VALUE_REQUIRED"),
    }


def test_a_clock_once_ahead_makes_no_conversion_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take(number: int) -> None:
        """Take a conversion in a process of its own, because each process cleans up at its first put."""
        kept = KnownConversions(tmp_path, "ga4")
        target = PixelsTarget(client_of, lambda _: [], kept, denied, 1)
        (parcel,) = target.sort([Record("t", 0, 0, NOW_MS, *pixel("conversion", number))]).parcels
        parcel.hand_over()
        kept.close()

    denied = ExportDenyList(cast(Client, None), "t", b"sixteen bytes ok", lambda: 0.0, _looked_s=0.0)
    take(1)
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s + 5 * 86_400)
    take(2)
    monkeypatch.undo()
    take(3)
    kept = KnownConversions(tmp_path, "ga4")
    keys = [conversion_key("spring", f"conversion-{number}", f"o-{number}") for number in (1, 2, 3)]
    assert all(kept.find(key) is not None for key in keys)
    kept.close()


def test_known_conversions_outlive_restarts_within_one_process(tmp_path: Path) -> None:
    ran_s = [0.0]
    first = KnownConversions(tmp_path, "ga4", lambda: ran_s[0])
    one = KnownConversion("c-1", "1.2", {"utm_source": "pod"})
    first.add([KnownConversion("c-0", "1.2", {})])
    ran_s[0] = 5 * 86_400
    first.add([one, one._replace(client_id="another")])
    with pytest.raises(StateError, match="another process has it"):
        KnownConversions(tmp_path, "ga4")
    first.close()
    again = KnownConversions(tmp_path, "ga4")
    again.add([])
    assert again.find("c-1") == one
    assert again.find("c-0") is None
    again.close()
