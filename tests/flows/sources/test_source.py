"""Sources as their files declare them: what is refused, what a preset brings, and what a mapping gives."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from collector_support import CONSENT, understanding

from flows.collector.call import Outcome, Understood
from flows.errors import SettingsError
from flows.sources import Pixels, Source, load_source
from flows.sources.examples import failures
from flows.sources.messages import document_of
from flows.sources.paths import Message
from flows.sources.source import parse_source, presets

AT_MS = 1_795_600_000_000
PLAIN = """
topic = "theirs"
[names]
event = "e"
placement_id = "p"
play_id = "play"
listener_id = "who"
ip = "ip"
user_agent = "agent"
gdpr = "gdpr"
gdpr_consent = "tcf"
consent = "yes"
lmt = "lmt"
ts = "at"
"""


def source_of(text: str) -> Source:
    return parse_source(text, "theirs.toml", "theirs")


def pixel(
    text: str, document: dict[str, Any] | None, now_ms: int | None = AT_MS, **record: Any
) -> Understood | None:
    message = Message(document, **({"timestamp_ms": AT_MS - 1000, "offset": 7} | record))
    return Pixels(source_of(text), understanding(), "log").understand(message, now_ms)


def event_of(text: str, document: dict[str, Any], **record: Any) -> dict[str, Any]:
    found = pixel(text, document, **record)
    assert found is not None
    assert found.outcome is Outcome.STORED, (found.reason, found.wrong)
    return found.event


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            'topic = "t"\n[names]\ncollector = "c"',
            "names: collector: only the collector sets it: leave it out of the mapping",
        ),
        ('topic = "t"\n[names]\nbye = "c"', "bye: only the collector"),
        ('topic = "t"\n[fixed]\ninvalid_traffic = "x"', "invalid_traffic: only the collector"),
        ('topic = "t"\n[when."a=1"]\ndevice_basis = "x"', "device_basis: only the collector"),
        (
            'topic = "t"\n[names]\nplacment_id = "p"',
            r"placment_id: is no field of a pixel \(did you mean placement_id",
        ),
        ('topic = "t"\nfiles = "f"', "topic and files: a source has one of them"),
        ('files = "f"\nmode = "live"', "files are read as a whole"),
        ('topic = "t"\nformat = "csv"', "a topic has json"),
        ('topic = "t"\n[names]\nevent = "a..b"', "is no path"),
        ('topic = "t"\nskip = ["a..b=1"]', "is no path"),
        ('topic = "t"\npreset = "rudder"', "preset: there are gam-data-transfer, mediatailor-beacon, "),
        ('topic = "t"\nunlisted = "not_ours"', "needs values.event"),
        ('topic = "t"\n[[example]]\nmessage = "{}"', "an example has one of pixel, rejected, not_ours"),
        ('topic = "t"\ntimezone = "Europe/Atlantis"', "timezone: is no IANA time zone"),
        ('topic = "t"\ntimezone = "../etc/passwd"', "timezone: is no IANA time zone"),
        ('files = "f"\nformat = "csv"\nseparator = "||"', "separator: is one character"),
        ('files = "f"\nseparator = ";"', 'separator: belongs to format = "csv" alone'),
        ('topic = "t"\n[value.event]\na = "start"', r"value: Extra .* \(did you mean values\?\)"),
        (
            'topic = "t"\n[names]\nskip = ["a=1"]',
            "skip: is a key of the source: it stands above the first table",
        ),
        ('topic = "t"\nevent = "x"', "event: Extra inputs"),
        ("topic = ", "cannot be read as TOML"),
    ],
)
def test_a_mistake_in_a_file_is_named(text: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        source_of(text)


def test_a_source_is_found_by_its_name_alone(tmp_path: Path) -> None:
    (tmp_path / "ads.toml").write_text('topic = "t"')
    assert load_source(tmp_path, "ads").topic == "t"
    with pytest.raises(SettingsError, match=r"ad\.toml: there is no such source \(did you mean ads"):
        load_source(tmp_path, "ad")
    for name in ("../ads", "a/b", "", "ADS"):
        with pytest.raises(SettingsError, match="a source's name has"):
            load_source(tmp_path, name)
    (tmp_path / "no.toml").write_text("")
    with pytest.raises(SettingsError, match="names neither topic nor files"):
        load_source(tmp_path, "no")


def test_a_secret_of_another_cluster_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of('topic = "t"\n[kafka]\n"bootstrap.servers" = "b:9092"\n"sasl.password" = "env:THEIRS"')
    with pytest.raises(SettingsError, match=r"kafka\.sasl\.password: THEIRS is not set"):
        source.kafka_options()
    monkeypatch.setenv("THEIRS", "secret")
    assert source.kafka_options() == {"bootstrap.servers": "b:9092", "sasl.password": "secret"}
    assert "THEIRS" not in repr(source)


@pytest.mark.parametrize("name", presets())
def test_the_examples_of_a_preset_pass(name: str) -> None:
    source = source_of(presets()[name])
    assert len(source.example) >= 3
    assert source.source.startswith("https://")
    assert (source.status, bool(source.about), bool(source.recognise)) == ("documented", True, True)
    assert list(failures(Pixels(source, understanding()))) == []


def test_a_failing_example_is_reported() -> None:
    text = (
        PLAIN
        + '[[example]]\nmessage = \'{"e":"start","p":"a"}\'\npixel = {event = "start", placement_id = "b"}\n'
    )
    (failed,) = failures(Pixels(source_of(text), understanding()))
    assert failed == 'example 1: placement_id is "a", not "b"'


def test_address_agent_and_consent_decide_and_are_in_no_pixel() -> None:
    said = {
        "e": "start",
        "p": "a",
        "play": 5,
        "who": "joe",
        "ip": "9.9.9.9",
        "agent": "VLC/3.0",
        "gdpr": 1,
    }
    event = event_of(PLAIN, said | {"tcf": CONSENT})
    assert (event["consent"], event["device_basis"], event["play_id"]) == (True, "trusted", "5")
    assert {"listener_id", "household_id"} <= event.keys()
    text = msgspec.json.encode(event).decode()
    assert not any(one in text for one in ("joe", "9.9.9.9", "VLC", CONSENT))
    refused = event_of(PLAIN, said | {"tcf": CONSENT, "lmt": True})
    assert refused["consent"] is False
    assert not {"listener_id", "household_id"} & refused.keys()


def test_a_boolean_consent_overrides_no_refusing_string() -> None:
    said = {"e": "start", "p": "a", "who": "joe", "yes": True}
    assert event_of(PLAIN, said)["consent"] is True
    no = "CQtDjkAQtDjkAAfAAAENCWFgAAAAAAAAAAwIAAAAAAAA.IAAA.YAAAAAAAAAAA"
    assert event_of(PLAIN, said | {"gdpr": True, "tcf": no})["consent"] is False
    assert event_of(PLAIN, said | {"gdpr": True, "tcf": "rubbish"})["consent"] is False


@pytest.mark.parametrize(
    ("field", "path", "said", "record"),
    [
        ("us_privacy", "nested.usp", {"nested": '{"usp": "1YY'}, {}),
        ("gdpr_consent", "nested.tcf", {"nested": "no JSON"}, {}),
        ("gdpr_consent", "nested.tcf", {"nested": False}, {}),
        ("us_privacy", "nested.usp", {"nested": ["1YYN"]}, {}),
        ("us_privacy", "$headers.usp", {}, {"headers": {"usp": b"\xff1YYN"}}),
        ("lmt", "nested.lmt", {"nested": '{"lmt": "' + "x" * 70_000 + '"}'}, {}),
    ],
)
def test_an_unreadable_consent_signal_is_not_absent(
    field: str, path: str, said: dict[str, Any], record: dict[str, Any]
) -> None:
    text = f'topic = "t"\n[names]\nevent = "e"\nplacement_id = "p"\nlistener_id = "who"\n{field} = "{path}"\n'
    said |= {"e": "start", "p": "a", "who": "joe"}
    event = event_of(text + '[fixed]\nconsent = "true"\n', said, **record)
    assert event["consent"] is False
    assert "listener_id" not in event


def test_an_unreadable_field_gets_no_fixed_value() -> None:
    names = '[names]\nevent = "nested.e"\nplacement_id = "p"\nconsent = "nested.yes"\n'
    broken = {"nested": '{"e": "start"', "p": "a"}
    for text, wrong in [
        (f'topic = "t"\n{names}[fixed]\nevent = "start"\nconsent = "true"\n', "event"),
        (f'topic = "t"\nskip = ["nested.kind!=ad"]\n{names}', "skip"),
        (f'topic = "t"\nunlisted = "not_ours"\n{names}[values.event]\nstart = "start"\n', "event"),
    ]:
        found = pixel(text, broken)
        assert found is not None, "not ours"
        assert (found.outcome, found.wrong) == (Outcome.REJECTED, wrong)


def test_a_bot_is_invalid_traffic_and_no_agent_is_none() -> None:
    said = {"e": "start", "p": "a"}
    assert event_of(PLAIN, said | {"agent": "Googlebot/2.1"})["invalid_traffic"]
    assert "invalid_traffic" not in event_of(PLAIN, said)


def test_a_message_written_twice_has_one_id() -> None:
    said = {"e": "start", "p": "a"}
    mapped = PLAIN + 'event_id = "id"\n'
    assert event_of(mapped, said | {"id": "x"})["event_id"] == "x"
    by_place = [event_of(PLAIN, said, offset=offset)["event_id"] for offset in (7, 7, 8)]
    assert by_place[0] == by_place[1] != by_place[2]
    identity = 'identity = ["row"]\n' + PLAIN
    by_row = [event_of(identity, said | {"row": row}, offset=n)["event_id"] for n, row in enumerate("aab")]
    assert by_row[0] == by_row[1] != by_row[2]
    assert len({*by_place, *by_row}) == 4


@pytest.mark.parametrize("row", ["", None, '{"id": '])
def test_messages_without_an_identity_differ_by_their_position(row: Any) -> None:
    identity = 'identity = ["row.id"]\n' if row else 'identity = ["row"]\n'
    said = {"e": "start", "p": "a", "row": row}
    assert len({event_of(identity + PLAIN, said, offset=offset)["event_id"] for offset in (7, 8)}) == 2


def test_a_messages_receipt_is_its_records_time_up_to_now() -> None:
    said = {"e": "start", "p": "a", "at": AT_MS - 5000}
    assert event_of(PLAIN, said)["received_at"] == AT_MS - 1000
    assert event_of(PLAIN, said, timestamp_ms=AT_MS + 9000)["received_at"] == AT_MS
    assert event_of(PLAIN, said, timestamp_ms=0)["received_at"] == AT_MS
    files = PLAIN.replace('topic = "theirs"', 'files = "theirs.csv"')
    assert event_of(files, said, now_ms=None)["received_at"] == AT_MS - 5000
    mapped = files + 'received_at = "got"\n'
    assert event_of(mapped, said | {"got": AT_MS - 2000}, now_ms=None)["received_at"] == AT_MS - 2000
    found = pixel(files, {"e": "start", "p": "a"}, now_ms=None)
    assert found is not None
    assert (found.reason, found.wrong) == ("invalid", "ts")


@pytest.mark.parametrize("at", ["25/11/2026 10:00", "yesterday", {"seconds": 1}, -5, "2026-13-45T00:00:00Z"])
def test_an_unreadable_time_is_not_replaced_by_the_receipt(at: Any) -> None:
    found = pixel(PLAIN, {"e": "start", "p": "a", "at": at})
    assert found is not None
    assert (found.outcome, found.reason, found.wrong) == (Outcome.REJECTED, "invalid", "ts")
    files = PLAIN.replace('topic = "theirs"', 'files = "theirs.csv"') + 'received_at = "got"\n'
    found = pixel(files, {"e": "start", "p": "a", "at": AT_MS, "got": at}, now_ms=None)
    assert found is not None
    assert (found.outcome, found.reason, found.wrong) == (Outcome.REJECTED, "invalid", "received_at")
    assert event_of(PLAIN, {"e": "start", "p": "a"})["ts"] == AT_MS - 1000, "a message without a time"


@pytest.mark.parametrize(
    ("at", "ts"),
    [
        ("2026-11-25 11:00:00", "2026-11-25T10:00:00+00:00"),
        ("2026-07-01T12:00:00.250", "2026-07-01T10:00:00.250+00:00"),
        ("2026-11-25 11:00:00Z", "2026-11-25T11:00:00+00:00"),
        ("2026-11-25 11:00:00+03:00", "2026-11-25T08:00:00+00:00"),
        ("2026-10-25 02:30:00", "2026-10-25T00:30:00+00:00"),
        ("2026-03-29 02:30:00", "2026-03-29T01:30:00+00:00"),
        ("1764583200", "2025-12-01T10:00:00+00:00"),
    ],
)
def test_a_time_without_an_offset_is_of_the_sources_zone(at: str, ts: str) -> None:
    files = PLAIN.replace('topic = "theirs"', 'files = "theirs.csv"\ntimezone = "Europe/Stockholm"')
    event = event_of(
        files + 'received_at = "got"\n', {"e": "start", "p": "a", "at": at, "got": at}, now_ms=None
    )
    assert event["ts"] == event["received_at"] == datetime.fromisoformat(ts).timestamp() * 1000


def test_values_conditions_and_fixed_fields_in_their_order() -> None:
    text = (
        'topic = "t"\nskip = ["kind!=ad"]\n[names]\nevent = "e"\nplacement_id = ["p", "q"]\n[values.event]\n'
        'begin = "start"\n[when."e=sale"]\nevent = "conversion"\ntype = "purchase"\n'
        '[fixed]\nplatform = "acast"\n'
    )
    event = event_of(text, {"kind": "ad", "e": "begin", "p": "", "q": "second"})
    assert (event["event"], event["placement_id"], event["platform"]) == ("start", "second", "acast")
    sale = event_of(text, {"kind": "ad", "e": "sale"})
    assert (sale["event"], sale["conversion"]) == ("conversion", {"type": "purchase"})
    assert pixel(text, {"kind": "music", "e": "begin"}) is None
    unknown = pixel(text, {"kind": "ad", "e": "bogus", "p": "a"})
    assert unknown is not None
    assert (unknown.outcome, unknown.reason) == (Outcome.REJECTED, "unknown_event")


def test_a_tags_url_is_read_as_the_door_reads_it() -> None:
    text = 'topic = "t"\nurl = "u"\nurl_hosts = ["pixels.example.com"]\n[names]\nip = "ip"\n'
    tag = "https://pixels.example.com/p?e=start&pl=a&p=x&cb=1"
    event = event_of(text, {"u": tag, "ip": "9.9.9.9"})
    assert (event["event"], event["placement_id"], event["play_id"]) == ("start", "a", "x")
    assert event["event_id"] == event_of(text, {"u": tag}, offset=9)["event_id"], "as the door would give it"
    assert pixel(text, {"u": "https://other.example/p?e=start&pl=a"}) is None
    assert pixel(text, {"u": "https://pixels.example.com/pixel?e=start&pl=a"}) is None
    assert pixel(text, {"other": 1}) is None
    wrong = pixel(text, {"u": "https://[pixels/p"})
    assert wrong is not None
    assert (wrong.reason, wrong.wrong) == ("malformed", "url")
    forged = pixel(text, {"u": tag + "&k=a1.forgedforgedforg"})
    assert forged is not None
    assert forged.reason in ("", "unsigned")


@pytest.mark.parametrize(
    ("keys", "query", "events"),
    [
        ("", "", 3),
        ("", "&cb=1", 1),
        ("", "&p=play-1", 1),
        ("", "&ts=1795600800", 3),
        ('identity = ["request"]\n', "", 2),
        ('identity = ["request"]\n', "&cb=1", 2),
        ('identity = ["gone"]\n', "", 3),
        ('identity = ["gone"]\n', "&cb=1", 1),
    ],
)
def test_messages_of_one_url_are_one_event_only_for_beacons(keys: str, query: str, events: int) -> None:
    text = f'topic = "t"\nurl = "u"\n{keys}[names]\nts = "at"\n'
    tag = "https://pixels.example.com/p?e=start&pl=a" + query
    said = [{"u": tag, "at": AT_MS - 5000 + request, "request": request} for request in (1, 2, 2)]
    ids = [event_of(text, one, offset=offset)["event_id"] for offset, one in enumerate(said)]
    assert len(set(ids)) == events
    if "request" in keys:
        assert ids[1] == ids[2]


def test_each_session_of_mediatailor_counts_though_all_have_one_url() -> None:
    text = 'topic = "t"\npreset = "mediatailor-beacon"\n'
    tag = "https://pixels.example.com/p?e=start&pl=breakfast-uk&cm=spring"
    beacon = {"eventType": "BEACON_FIRED", "beaconInfo": {"beaconUri": tag}}
    ids = {
        event_of(
            text,
            beacon
            | {
                "requestId": f"r-{session}",
                "sessionId": f"s-{session}",
                "eventTimestamp": f"2026-11-25T10:00:{session:02}.000Z",
            },
        )["event_id"]
        for session in (*range(50), *range(50))
    }
    assert len(ids) == 50, "a record that is delivered twice counts once"


NO_TO_ALL = "CQtDjkAQtDjkAAfAAAENCWFgAAAAAAAAAAwIAAAAAAAA.IAAA.YAAAAAAAAAAA"


@pytest.mark.parametrize(
    ("in_url", "said", "consent"),
    [
        ("consent=1", {"yes": True}, True),
        ("consent=0", {"yes": True}, False),
        ("us_privacy=1YYN", {"yes": True, "usp": "1YNN"}, False),
        ("us_privacy=1YNN", {"yes": True, "usp": "1YYN"}, False),
        ("us_privacy=1YNN", {"yes": True, "usp": "1YNN"}, True),
        ("us_privacy=1---", {"yes": True, "usp": "1YNN"}, True),
        ("lmt=1", {"yes": True, "lmt": False}, False),
        ("gpc=1", {"yes": True, "gpc": False}, False),
        (f"gdpr=1&gdpr_consent={CONSENT}", {"gdpr": 1, "tcf": CONSENT}, True),
        (f"gdpr=1&gdpr_consent={NO_TO_ALL}", {"gdpr": 1, "tcf": CONSENT}, False),
        (f"gdpr=1&gdpr_consent={CONSENT}", {"gdpr": 1, "tcf": NO_TO_ALL}, False),
    ],
)
def test_a_mapped_field_cannot_override_a_refusal_in_the_url(
    in_url: str, said: dict[str, Any], consent: bool
) -> None:
    text = (
        'topic = "t"\nurl = "u"\n[names]\nconsent = "yes"\nus_privacy = "usp"\nlmt = "lmt"\ngpc = "gpc"\n'
        'gdpr = "gdpr"\ngdpr_consent = "tcf"\n'
    )
    event = event_of(text, said | {"u": f"https://x.example/p?e=start&pl=a&cb=1&{in_url}"})
    assert event["consent"] is consent


@pytest.mark.parametrize("value", [False, "False", "false", 0, "0", "no", "denied", {}])
def test_a_devices_tracking_refusal_counts_in_any_spelling(value: Any) -> None:
    said = {"type": "track", "event": "Audio Ad Started", "messageId": "m", "anonymousId": "a"}
    said |= {"properties": {"placement_id": "a", "consent": True}}
    text = 'topic = "t"\npreset = "rudderstack-track"\n'
    assert event_of(text, said)["consent"] is True
    event = event_of(text, said | {"context": {"device": {"adTrackingEnabled": value}}})
    assert event["consent"] is False


TRACK = {"type": "track", "event": "Audio Ad Started", "messageId": "m", "anonymousId": "a"}
ADVERTISING = '[names]\nconsent = "context.consent.categoryPreferences.Advertising"\n'
ALLOWED = '[when."context.consentManagement.allowedConsentIds contains C0004|C0005"]\nconsent = "true"\n'


@pytest.mark.parametrize("preset", ["segment-track", "rudderstack-track"])
@pytest.mark.parametrize(
    ("more", "context", "consent"),
    [
        ("", {"consent": {"categoryPreferences": {"Advertising": True}}}, False),
        ("", {"consent": {}}, False),
        ("", {"consent": True}, True),
        ("", {"consent": False}, False),
        (ADVERTISING, {"consent": {"categoryPreferences": {"Advertising": True}}}, True),
        (ADVERTISING, {"consent": {"categoryPreferences": {"Advertising": False}}}, False),
        (ADVERTISING, {"consent": {"categoryPreferences": {"Advertising": "on request"}}}, False),
        ("", {"consentManagement": {"allowedConsentIds": ["C0004"]}}, False),
        (ALLOWED, {"consentManagement": {"allowedConsentIds": ["C0001", "C0004"]}}, True),
        (ALLOWED, {"consentManagement": {"allowedConsentIds": [], "deniedConsentIds": ["C0004"]}}, False),
        (ALLOWED, {"consentManagement": {"allowedConsentIds": "C0004"}}, False),
        (ALLOWED, {"consentManagement": {}}, False),
    ],
)
def test_categories_of_consent_are_no_consent_until_one_is_named(
    preset: str, more: str, context: dict[str, Any], consent: bool
) -> None:
    """The listener is in the United States and has not opted out, so that only a refusal ends the consent."""
    text = f'topic = "t"\npreset = "{preset}"\n[fixed]\nus_privacy = "1YNN"\n{more}'
    said = TRACK | {"properties": {"placement_id": "a"}, "context": context}
    assert event_of(text, said)["consent"] is consent


@pytest.mark.parametrize(
    ("here", "there", "consent"),
    [
        (True, None, True),
        (None, True, True),
        (True, True, True),
        (True, False, False),
        (False, True, False),
        (True, {"categoryPreferences": {"Advertising": False}}, False),
        (True, "on request", False),
        ("on request", True, False),
    ],
)
def test_a_refusal_on_any_path_of_consent_counts(here: Any, there: Any, consent: bool) -> None:
    text = 'topic = "t"\npreset = "segment-track"\n[fixed]\nus_privacy = "1YNN"\n'
    said = TRACK | {"properties": {"placement_id": "a", "consent": here}, "context": {"consent": there}}
    assert event_of(text, said)["consent"] is consent


def test_an_undecidable_consent_condition_refuses_consent() -> None:
    text = 'topic = "t"\n[names]\nevent = "e"\nplacement_id = "p"\nlistener_id = "who"\nconsent = "yes"\n'
    text += '[when."choices.ads=no"]\nconsent = "false"\n[when."choices.list contains ads"]\ngpc = "true"\n'
    said = {"e": "start", "p": "a", "who": "joe", "yes": True}
    assert event_of(text, said)["consent"] is True
    assert event_of(text, said | {"choices": {"list": ["music"]}})["consent"] is True
    assert event_of(text, said | {"choices": {"list": ["ads"]}})["consent"] is False
    assert event_of(text, said | {"choices": {"list": "ads"}})["consent"] is False
    assert event_of(text, said | {"choices": '{"ads": "no"'})["consent"] is False


@pytest.mark.parametrize(
    "value",
    [b"", b"null", b"[]", b"7", b"{", b"\xff", b'{"e":"start"}' + b" " * (1 << 20), b'{"e":' * 2000],
)
def test_a_message_without_an_object_is_malformed(value: bytes) -> None:
    found = Pixels(source_of(PLAIN), understanding()).understand(Message(document_of(value)))
    assert found is not None
    assert (found.outcome, found.reason, found.event) == (Outcome.REJECTED, "malformed", {})


@pytest.mark.parametrize("odd", [{"a": 1}, [{}], [[1]], 1e400, -1, True, "x" * 200_000, "\ud800"])
@pytest.mark.parametrize("path", ["e", "p", "play", "who", "ip", "agent", "gdpr", "tcf", "yes", "lmt", "at"])
def test_an_odd_value_gives_a_pixel_or_a_rejection(path: str, odd: Any) -> None:
    found = pixel(PLAIN, {"e": "start", "p": "a", "who": "joe", "yes": True} | {path: odd})
    assert found is not None
    assert found.outcome in (Outcome.STORED, Outcome.REJECTED)
    if path in ("gdpr", "tcf", "lmt") and not isinstance(odd, bool | int | float):
        assert found.event["consent"] is False, "what cannot be read is no consent"
