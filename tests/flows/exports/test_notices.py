"""Webhooks and Slack: signed, escaped, and a dead letter where a message is refused."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from types import ModuleType
from typing import Any, cast

import pytest
from command_support import Command
from dribble_support import dribbling
from export_support import Site, Topic, alert_of, letters_of, until

from connectors.http_client import CallFailed, HttpClient, retry_after
from connectors.kafka import Record
from flows.engine import publish_methodology
from flows.exports.calls import Caller, Notice
from flows.exports.handover import Busy, Refused
from flows.exports.notices import NoticeTarget, SignedWebhook, SlackMessage, alert
from flows.methodology import methodology
from flows.settings import Settings

SECRET = b"0123456789abcdef01234567"
WHSEC = f"whsec_{base64.b64encode(SECRET).decode()}"


def record_of(message: tuple[bytes, bytes]) -> Record:
    return Record("alerts", 0, 0, 0, *message)


def test_refused_and_malformed_messages_become_dead_letters(
    settings: Settings, topic: Topic, export: Callable[..., Command], site: Callable[..., Site]
) -> None:
    target = site(lambda number: (400, {}) if number == 1 else (200, {}))
    messages = (alert_of("a", 1), (b"x", b"{}"), alert_of("a", 2))
    topic.put(settings.kafka_alerts_topic, *messages, partition=0)
    process = export("slack", "--from", "earliest", "--once", AUDIOPIXEL_EXPORT_SLACK=target.url)
    assert process.wait(120) == 0
    refused, malformed = letters_of(settings)
    assert refused == {
        "export": "slack",
        "reason": "status_400",
        "detail": "",
        "topic": settings.kafka_alerts_topic,
        "partition": 0,
        "offset": 0,
    }
    assert (malformed["reason"], malformed["offset"]) == ("malformed", 1)
    assert len(target.taken) == 1


def hashes(target: Site) -> list[str]:
    """The hash of each methodology that a target received."""
    told = [json.loads(body) for _, body in target.taken]
    assert {one["type"] for one in told} <= {"methodology.changed"}
    return [one["data"]["hash"] for one in told]


def test_the_topic_of_methodology_is_the_settings(
    settings: Settings, export: Callable[..., Command], site: Callable[..., Site]
) -> None:
    assert settings.kafka_methodology_topic != "methodology"
    target = site(lambda _: (200, {}))
    publish_methodology(settings)
    more = {"AUDIOPIXEL_EXPORT_WEBHOOK": target.url, "AUDIOPIXEL_EXPORT_WEBHOOK_SECRETS": f'["{WHSEC}"]'}
    assert export("webhook", "--from", "earliest", "--once", **more).wait(120) == 0
    assert hashes(target) == [methodology(settings).hash]


def test_a_start_with_the_former_methodology_is_no_change(
    settings: Settings, export: Callable[..., Command], site: Callable[..., Site]
) -> None:
    first, second, third = (
        settings.model_copy(update={"attribution": rule}) for rule in ("last_touch", "linear", "time_decay")
    )
    away = False
    target = site(lambda _: (503, {}) if away else (200, {}))
    more = {"AUDIOPIXEL_EXPORT_WEBHOOK": target.url, "AUDIOPIXEL_EXPORT_WEBHOOK_SECRETS": f'["{WHSEC}"]'}

    def hashes_after(*starts: Settings) -> list[str]:
        target.taken.clear()
        for one in starts:
            publish_methodology(one)
        assert export("webhook", "--once", **more).wait(120) == 0
        return hashes(target)

    assert hashes_after(first) == []  # it begins at the newest
    assert hashes_after(first, second, second, first) == [methodology(second).hash]
    assert hashes_after(first, second) == []
    away = True
    publish_methodology(third)
    process = export("webhook", **more)
    until(lambda: [one for one in target.calls if one not in target.taken])
    process.kill()
    away = False
    assert hashes_after(third, first) == [methodology(third).hash]


@pytest.mark.parametrize("form", [SignedWebhook([SECRET]), SlackMessage()])
@pytest.mark.parametrize("name", ["delivered", "indicator", "short_by"])
@pytest.mark.parametrize("value", [10**400, "9" * 400, 10**30, 1e300], ids=["400", "text", "30", "real"])
def test_a_number_beyond_all_others_ends_no_export(
    form: SignedWebhook | SlackMessage, name: str, value: float | str
) -> None:
    key, body = alert_of("a", 1)
    changed = json.dumps({**json.loads(body), name: value}).encode()
    for topic in ("alerts", "methodology"):
        target = NoticeTarget(cast(Any, None), form, "alerts")
        found = target.sort([Record(topic, 0, 0, 0, key, changed)])
        for notice in found.parcels:
            assert isinstance(notice, Notice)
            form.call(notice.event)
        assert len(found.parcels) + len(found.letters) == 1


@pytest.mark.parametrize("form", [SignedWebhook([SECRET]), SlackMessage()])
def test_a_message_of_any_depth_ends_no_export(form: SignedWebhook | SlackMessage) -> None:
    outcomes = set()
    for deep in range(800, 1_010):
        value = b'{"x":' + b"[" * deep + b"]" * deep + b"}"
        caller = cast(Any, type("Taking", (), {"post": lambda *_: None})())
        parcels, letters, _ = NoticeTarget(caller, form, "alerts").sort([Record("m", 0, 0, 0, b"", value)])
        for parcel in parcels:
            try:
                parcel.hand_over()
                outcomes.add("sent")
            except Refused as error:
                outcomes.add(error.reason)
        outcomes |= {letter.reason for letter in letters}
    assert outcomes == {"sent", "malformed"}


def test_an_old_a_changed_and_a_forged_call_are_not_verified(example: ModuleType) -> None:
    body, headers = SignedWebhook([b"another secret of 24 byte", SECRET], lambda: 1000.0).call(
        alert(record_of(alert_of("a", 1)))
    )
    known = dict(headers)
    assert example.verified(SECRET, known, body, 1000.0 + 299)
    assert not example.verified(SECRET, known, body, 1000.0 + 301)
    assert not example.verified(SECRET, known, body + b" ", 1000.0)
    assert not example.verified(SECRET, {**known, "webhook-id": "msg_other"}, body, 1000.0)
    assert not example.verified(SECRET, {**known, "webhook-timestamp": "1001"}, body, 1000.0)
    assert not example.verified(b"x" * 24, known, body, 1000.0)
    assert not example.verified(SECRET, {}, body, 1000.0)


def test_an_id_says_nothing_to_slack() -> None:
    hostile = "<!channel> *b* & <https://x|y>\u202e\n"
    body, _ = SlackMessage().call(alert(record_of(alert_of(hostile, 1))))
    said = json.loads(body)
    assert "<" not in body.decode()
    assert said["blocks"][0]["text"]["type"] == "plain_text"
    assert said["text"].startswith("&lt;!channel&gt; *b* &amp; &lt;https://x|y&gt;\ufffd\ufffd: under")
    long = json.loads(SlackMessage().call(alert(record_of(alert_of("&" * 128, 1))))[0])
    assert len(long["blocks"][0]["text"]["text"]) <= 150


def feed_of(unit: str, to: str, **more: str) -> tuple[bytes, bytes]:
    """A message of a feed, as the flow writes it."""
    name = f"feed|{unit}|{to}|1780000000000"
    fields = {
        "id": name,
        "kind": "feed",
        "unit": unit,
        "from": "live" if to == "silent" else "silent",
        "to": to,
    }
    fields |= {"since_ms": "1780000000000", "as_of_ms": "1780000071000"} | more
    return name.encode(), json.dumps(fields).encode()


SILENT = {"placements": "12", "money_per_hour": '{"GBP":"45.10","EUR":"1.00"}'}


def test_a_silence_and_its_end_are_one_signed_call_each(
    settings: Settings, topic: Topic, export: Callable[..., Command], site: Callable[..., Site]
) -> None:
    target = site(lambda _: (200, {}))
    messages = feed_of("platform:x", "silent", **SILENT), alert_of("a", 1), feed_of("platform:x", "live")
    topic.put(settings.kafka_alerts_topic, *messages, partition=0)
    more = {"AUDIOPIXEL_EXPORT_WEBHOOK": target.url, "AUDIOPIXEL_EXPORT_WEBHOOK_SECRETS": f'["{WHSEC}"]'}
    assert export("webhook", "--from", "earliest", "--once", **more).wait(120) == 0
    assert letters_of(settings) == []
    fell, change, back = (json.loads(body) for _, body in target.taken)
    assert fell == {
        "type": "feed.state_changed",
        "timestamp": "2026-05-28T20:27:51.000Z",
        "data": {
            "id": "feed|platform:x|silent|1780000000000",
            "unit": "platform:x",
            "from": "live",
            "to": "silent",
            "since_ms": 1_780_000_000_000,
            "as_of_ms": 1_780_000_071_000,
            "placements": 12,
            "money_per_hour": {"GBP": 45.1, "EUR": 1.0},
        },
    }
    assert change["type"] == "delivery.state_changed"
    assert (back["type"], back["data"]["to"]) == ("feed.state_changed", "live")
    keys = [dict(headers)["webhook-id"] for headers, _ in target.taken]
    assert len(set(keys)) == 3


def test_slack_gets_a_silence_and_its_end() -> None:
    hostile = "platform:<!channel>\u202e" + "x" * 300
    body, _ = SlackMessage().call(alert(record_of(feed_of(hostile, "silent", **SILENT))))
    said = json.loads(body)
    headline = said["blocks"][0]["text"]["text"]
    assert "<" not in body.decode()
    assert headline.startswith("&lt;!channel&gt;\ufffdxxx")
    assert headline.endswith("… (platform) is silent")
    assert len(headline) <= 150
    facts = [one["text"] for one in said["blocks"][1]["fields"]]
    assert facts == [
        "Meaning: This is the feed, not delivery: what depends on it is not judged. Do not change its bids.",
        "Silent since: 2026-05-28T20:26:40.000Z",
        "Placements with pixels of it: 12",
        "It brings an hour: EUR 1.00, GBP 45.10",
        "As of: 2026-05-28T20:27:51.000Z",
    ]
    back = json.loads(SlackMessage().call(alert(record_of(feed_of("sender:edge-2", "live"))))[0])
    assert back["text"] == "edge-2 (sender) is back"


@pytest.mark.parametrize(
    ("more", "detail"),
    [
        ({"unit": ""}, "id or unit is empty"),
        ({"to": "sold"}, "to is no state of a feed"),
        ({"placements": "many"}, "placements is no number"),
        ({"money_per_hour": '{"GBP":"much"}'}, "money_per_hour is no number"),
        ({"as_of_ms": "-1"}, "as_of_ms is no time"),
    ],
)
def test_a_malformed_message_of_a_feed_is_a_dead_letter(more: dict[str, str], detail: str) -> None:
    key, body = feed_of("platform:x", "silent", **SILENT)
    changed = json.dumps({**json.loads(body), **more}).encode()
    target = NoticeTarget(cast(Any, None), SlackMessage(), "alerts")
    (letter,) = target.sort([Record("alerts", 0, 0, 0, key, changed)]).letters
    assert (letter.reason, letter.detail) == ("malformed", detail)


def test_a_secret_is_in_no_message(settings_of: Callable[..., Settings], site: Callable[..., Site]) -> None:
    settings = settings_of(export_webhook="https://x.example/t0ken", export_webhook_secrets=[WHSEC])
    assert "t0ken" not in repr(settings)
    assert WHSEC not in repr(settings)
    closed = site(lambda _: (200, {}))
    closed.close()
    with pytest.raises(CallFailed) as failed:
        HttpClient(closed.url, timedelta(seconds=1)).post(b"", {})
    assert "s3cret" not in str(failed.value)


def test_a_slowly_dribbling_target_is_disconnected() -> None:
    with dribbling(b"", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1000, 0.05) as url:
        began_s = time.monotonic()
        with pytest.raises(CallFailed, match="timeout"):
            HttpClient(url, timedelta(seconds=0.3)).post(b"", {})
        assert time.monotonic() - began_s < 20


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 503 x\r\nretry-after: %s\r\ncontent-length: 0\r\n\r\n" % (b"9" * 5_000), "status_503"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-5\r\nabc", "away"),
    ],
    ids=["retry-after-beyond-all-numbers", "chunk-of-less-than-nothing"],
)
def test_an_invalid_answer_ends_no_export(answer: bytes, reason: str) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:

        def answered() -> None:
            taken, _ = server.accept()
            with taken:
                taken.recv(1 << 16)
                taken.sendall(answer)

        threading.Thread(target=answered, daemon=True).start()
        caller = Caller(f"http://127.0.0.1:{server.getsockname()[1]}", timedelta(seconds=5))
        with pytest.raises(Busy) as raised:
            caller.post(b"{}", {})
    assert raised.value.reason == reason


@pytest.mark.parametrize(
    ("address", "called"),
    [
        ("http://[::1]/hook", ("::1", 80)),
        ("https://[2001:db8::25]/hook", ("2001:db8::25", 443)),
        ("http://[::1]:8080/hook", ("::1", 8080)),
        ("https://x.example/hook", ("x.example", 443)),
    ],
)
def test_an_address_is_called_at_its_own_port_and_host(
    address: str, called: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def refusing(to: tuple[str, int], *_: object, **__: object) -> None:
        asked.append(to)
        raise ConnectionRefusedError

    monkeypatch.setattr("socket.create_connection", refusing)
    with pytest.raises(CallFailed, match="away"):
        HttpClient(address, timedelta(seconds=1)).post(b"", {})
    assert asked == [called]


def test_retry_after_is_read_in_seconds_and_as_a_date() -> None:
    assert retry_after("7", 0) == timedelta(seconds=7)
    assert retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 10) == timedelta(seconds=50)
    assert retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 99) == timedelta(0)
    assert retry_after("soon", 0) is None
    assert retry_after("9" * 5_000, 0) == timedelta(days=1)
    assert retry_after(None, 0) is None


@pytest.mark.parametrize("moment", [1.5, "1.5", None, True])
def test_a_fractional_moment_is_malformed(moment: object) -> None:
    key, body = alert_of("a", 1)
    changed = json.dumps({**json.loads(body), "as_of_ms": moment}).encode()
    target = NoticeTarget(cast(Any, None), SlackMessage(), "alerts")
    letters = target.sort([Record("alerts", 0, 0, 0, key, changed)]).letters
    assert [letter.detail for letter in letters] == ["as_of_ms is no number"]


@pytest.mark.parametrize("name", ["booked", "indicator", "as_of_ms"])
def test_a_dead_letter_names_the_field_without_its_content(name: str) -> None:
    key, body = alert_of("a", 1)
    changed = json.dumps({**json.loads(body), name: "alice@example.com"}).encode()
    (letter,) = (
        NoticeTarget(cast(Any, None), SlackMessage(), "alerts")
        .sort([Record("alerts", 0, 0, 0, key, changed)])
        .letters
    )
    assert (letter.reason, letter.detail) == ("malformed", f"{name} is no number")


def test_a_changes_sentence_is_plain_text_to_slack() -> None:
    said = "Too slow: 15 an hour of 1,996 needed. Other placements of <!channel> run."
    key, value = alert_of("p", 1)
    more = {"sentence": said, "at_stake": "32.44", "currency": "GBP"}
    told = alert(record_of((key, json.dumps(json.loads(value) | more).encode())))
    assert told.data["sentence"] == said
    assert (told.data["at_stake"], told.data["currency"]) == (32.44, "GBP")
    body = json.loads(SlackMessage().call(told)[0])
    assert body["blocks"][1]["text"]["text"] == said.replace("<", "&lt;").replace(">", "&gt;")
    assert "&lt;!channel&gt; run." in body["text"]
    assert "At stake now: GBP 32.44" in [one["text"] for one in body["blocks"][2]["fields"]]
