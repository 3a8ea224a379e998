"""`audiopixel rejected --resend`: its options, its account, and a Redis that holds anything."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from redis import Redis
from resend_support import KEY
from typer.testing import CliRunner

from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from connectors.kafka import whole
from flows import resend
from flows.cli.commands import app

NOW_MS = int(time.time() * 1000)
PIXEL = {"event": "start", "placement_id": "breakfast-uk", "ts": NOW_MS}


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as server:
        server.create_topic("audio-pixels", 1)
        yield server


def sent_ids(broker: EmbeddedBroker) -> list[str]:
    """The ids of the events in the pixel topic."""
    return [json.loads(one.value or b"")["event_id"] for one in whole(broker.bootstrap, "audio-pixels", {})]


@pytest.fixture
def command(valkey: EmbeddedValkey, broker: EmbeddedBroker, tmp_path: Path) -> Callable[..., Result]:
    """Sends a file of letters again."""
    file = tmp_path / "rejected.ndjson"
    bodies = [
        {
            "reason": "unsigned",
            "position": f"collector/c/e{n}",
            "sender": "token/host",
            "event": {**PIXEL, "event_id": f"e{n}"},
        }
        for n in range(501)
    ]
    file.write_text("".join(json.dumps(body) + "\n" for body in bodies))

    Redis.from_url(valkey.url).hset("audiopixel:v1:meta", "watermark_ms", str(NOW_MS))

    def resent(
        *more: str, sender: str = "token/host", lines: bytes = b"", topic: str = "audio-pixels"
    ) -> Result:
        if lines:
            file.write_bytes(lines)
        settings = {
            "AUDIOPIXEL_REDIS_URL": valkey.url,
            "AUDIOPIXEL_KAFKA_BROKERS": broker.bootstrap,
            "AUDIOPIXEL_KAFKA_TOPIC": topic,
            "AUDIOPIXEL_COLLECT_KEY": KEY,
        }
        arguments = ["rejected", str(file), "--resend", "--sender", sender, *more]
        return CliRunner().invoke(app, arguments, env=settings)

    return resent


def test_pixels_that_kafka_has_are_in_the_account_of_a_failure(
    command: Callable[..., Result], broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resend, "_AT_ONCE", 500)

    class Writer(resend.KafkaWriter):
        def flush(self) -> None:
            super().flush()
            if len(sent_ids(broker)) > 500:
                raise resend.KafkaTrouble("no broker answers", "away", "")

    monkeypatch.setattr(resend, "KafkaWriter", Writer)
    failed = command()
    monkeypatch.undo()
    assert failed.exit_code == 1
    account, words = failed.output.split("\n", 1)
    assert account == "letters 500 = taken 500 + rejected again 0 + not sent 0"
    assert words.startswith("audiopixel: no broker answers")
    assert command().output == "letters 501 = taken 501 + rejected again 0 + not sent 0\n"
    sent = sent_ids(broker)
    assert (len(sent), len({*sent})) == (1_002, 501), "under the same ids"


def test_a_missing_pixel_topic_leaves_the_account(command: Callable[..., Result]) -> None:
    done = command(topic="another")
    assert done.exit_code == 1
    assert done.output.startswith("letters 0 = taken 0 + rejected again 0 + not sent 0\naudiopixel: ")


def test_letters_of_any_number_of_hours_are_asked_for() -> None:
    told = {"AUDIOPIXEL_KAFKA_BROKERS": "127.0.0.1:1"}
    done = CliRunner().invoke(app, ["rejected", "--hours", "inf"], env=told)
    assert (done.exit_code, done.output.startswith("audiopixel: Kafka at 127.0.0.1:1")) == (1, True)
    assert CliRunner().invoke(app, ["top", "--once", "--interval", "inf"]).exit_code == 2


@pytest.mark.parametrize("watermark", ["", "soon", "9" * 5_000])
def test_an_invalid_watermark_sends_nothing(
    command: Callable[..., Result], valkey: EmbeddedValkey, watermark: str
) -> None:
    client = Redis.from_url(valkey.url)
    client.hset("audiopixel:v1:meta", "watermark_ms", watermark)
    done = command()
    client.flushall()
    assert done.exit_code == 1
    assert done.output.startswith("audiopixel: a value of the flow in Redis (audiopixel:v1:meta) is damaged")


def test_unsigned_calls_are_sent_of_a_named_sender_alone(command: Callable[..., Result]) -> None:
    refused = command("--reason", "unsigned", sender="")
    kept = command(sender="")
    assert refused.exit_code == 2
    assert refused.output == (
        "audiopixel: unsigned calls may be forged: --sender NAME sends those of a sender that you know; "
        "audiopixel rejected --reason unsigned lists the senders\n"
    )
    assert (kept.exit_code, kept.output.splitlines()[1]) == (0, f"501 {resend.FORGED}")


LETTER = json.dumps(
    {"reason": "invalid", "position": "a/0/1", "field": "ip", "event": {**PIXEL, "event_id": "e-1"}}
).encode()


def test_only_a_file_without_any_letter_is_an_error(command: Callable[..., Result], tmp_path: Path) -> None:
    some = command(sender="", lines=b"{}\n" + LETTER + b"\nrubbish\n" + LETTER[:-5])
    none = command(sender="", lines=b"{}\nrubbish\n")
    assert some.exit_code == 0
    assert some.stderr == "audiopixel: 3 lines are no letters, and left out\n"
    assert none.exit_code == 1
    assert none.stderr == "audiopixel: none of 2 lines is a letter\n"
    listed = CliRunner().invoke(app, ["rejected", str(tmp_path / "rejected.ndjson")])
    assert (listed.exit_code, listed.output) == (1, "audiopixel: none of 2 lines is a letter\n")


def test_a_correction_without_a_value_is_refused(command: Callable[..., Result]) -> None:
    done = command("--set", "campaign_id")
    assert (done.exit_code, done.output[:51]) == (2, "audiopixel: --set campaign_id: takes FIELD=VALUE, F")
