"""`audiopixel rejected --resend` towards doors that answer anything, and with a Redis that holds anything."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import Result
from dribble_support import dribbling
from redis import Redis
from typer.testing import CliRunner

from connectors.embedded import EmbeddedValkey
from flows import resend
from flows.cli.commands import app
from flows.errors import AudiopixelError, UsageError
from flows.resend import Door

TOKEN = f"host.{'x' * 32}"
NOW_MS = int(time.time() * 1000)
PIXEL = {"event": "start", "placement_id": "breakfast-uk", "ts": NOW_MS}


def answer(body: bytes, status: str = "200 OK", more: bytes = b"") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n".encode()
    return head + more + b"\r\n" + body


ACCEPTED = answer(b'{"results":[{"outcome":"accepted"}]}')


@contextmanager
def door(*answers: bytes) -> Iterator[str]:
    """Doors with given answers; the last answer is repeated."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            left = list(answers)
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection, connection.makefile("rb") as asked:
                    length = 0
                    while (line := asked.readline()).strip():
                        name, _, value = line.partition(b":")
                        length = int(value) if name.lower() == b"content-length" else length
                    asked.read(length)
                    connection.sendall(left.pop(0) if len(left) > 1 else left[0])

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "said",
    [
        answer(b"[1]"),
        answer(b"3"),
        answer(b"null"),
        answer(b'{"results":null}'),
        answer(b'{"results":[3]}'),
        answer(b'{"results":[{"outcome":"\\u001b'),
        answer(b'{"results":[]}'),
        answer(b'{"results":[{"outcome":"accepted"},{"outcome":"accepted"}]}'),
        answer(b"[" * 60_000),
        answer(b"\xff"),
        answer(b"", "503 x", b"retry-after: \xb2\r\n"),
        answer(b"", "503 x", b"retry-after: " + b"9" * 5_000 + b"\r\n"),
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_only_events_confirmed_by_the_door_count_as_accepted(said: bytes) -> None:
    paused: list[float] = []
    with door(said) as url, pytest.raises(AudiopixelError, match="take no events"):
        Door(url, TOKEN, sleep=paused.append).send([PIXEL])
    assert len(paused) == resend.TRIES
    assert set(paused) <= {1.0, resend.LONGEST_PAUSE_S}


def test_a_door_answering_byte_by_byte_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resend, "ANSWER", resend.timedelta(seconds=0.3))
    monkeypatch.setattr(resend, "TRIES", 1)
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"
    with dribbling(head, b" " * 60, 0.1) as url:
        began = time.monotonic()
        with pytest.raises(AudiopixelError, match="timeout"):
            Door(url, TOKEN, sleep=lambda _: None).send([PIXEL])
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "url", ["", "ftp://px", "http://", "http://[", "http://px:x", "http://you:secret@px", "http://\x1b[2Jx"]
)
def test_an_invalid_address_is_refused_without_a_call(url: str) -> None:
    with pytest.raises(UsageError, match="the address of the doors takes"):
        Door(url, TOKEN)


@pytest.mark.parametrize("token", ["", "host.secret\n", "host.sec\r\nret", "host.sécret"])
def test_an_invalid_token_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(UsageError) as refused:
        Door("http://px", token)
    assert str(refused.value) == "AUDIOPIXEL_COLLECT_TOKEN takes NAME.SECRET, in ASCII and on one line"


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture
def again(valkey: EmbeddedValkey, tmp_path: Path) -> Callable[..., Result]:
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

    def command(url: str, *more: str, sender: str = "token/host", lines: bytes = b"") -> Result:
        if lines:
            file.write_bytes(lines)
        told = {"AUDIOPIXEL_REDIS_URL": valkey.url, "AUDIOPIXEL_COLLECT_TOKEN": TOKEN}
        asked = ["rejected", str(file), "--resend", "--to", url, "--sender", sender, *more]
        return CliRunner().invoke(app, asked, env=told)

    return command


def test_a_door_lost_midway_leaves_the_account_of_accepted_events(
    again: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resend, "TRIES", 1)
    many = answer(json.dumps({"results": [{"outcome": "accepted"}] * resend.MAX_EVENTS}).encode())
    with door(many, answer(b"", "502 Bad Gateway")) as url:
        done = again(url)
    assert done.exit_code == 1
    assert done.output == (
        "letters 500 = taken 500 + rejected again 0 + not sent 0\n"
        "audiopixel: the door answered with status 502: is this the address of a collector?\n"
    )


def test_letters_of_any_number_of_hours_are_asked_for() -> None:
    told = {"AUDIOPIXEL_KAFKA_BROKERS": "127.0.0.1:1"}
    done = CliRunner().invoke(app, ["rejected", "--hours", "inf"], env=told)
    assert (done.exit_code, done.output.startswith("audiopixel: Kafka at 127.0.0.1:1")) == (1, True)
    assert CliRunner().invoke(app, ["top", "--once", "--interval", "inf"]).exit_code == 2


@pytest.mark.parametrize("watermark", ["", "soon", "9" * 5_000])
def test_an_invalid_watermark_sends_nothing(
    again: Callable[..., Result], valkey: EmbeddedValkey, watermark: str
) -> None:
    client = Redis.from_url(valkey.url)
    client.hset("audiopixel:v1:meta", "watermark_ms", watermark)
    with door(ACCEPTED) as url:
        done = again(url)
    client.flushall()
    assert done.exit_code == 1
    assert done.output.startswith("audiopixel: a value of the flow in Redis (audiopixel:v1:meta) is damaged")


def test_unsigned_calls_are_sent_of_a_named_sender_alone(again: Callable[..., Result]) -> None:
    with door(answer(b"", "502 Bad Gateway")) as url:
        refused = again(url, "--reason", "unsigned", sender="")
        kept = again(url, sender="")
    assert refused.exit_code == 2
    assert refused.output == (
        "audiopixel: unsigned calls may be forged: --sender NAME sends those of a sender that you know; "
        "audiopixel rejected --reason unsigned lists the senders\n"
    )
    assert (kept.exit_code, kept.output.splitlines()[1]) == (0, f"501 {resend.FORGED}")


ORDER = {**PIXEL, "event": "conversion", "event_id": "o-1", "conversion": {"type": "purchase"}}
LETTER = json.dumps({"reason": "invalid", "position": "a/0/1", "field": "ip", "event": ORDER}).encode()


def test_conversions_are_sent_only_on_request(again: Callable[..., Result]) -> None:
    with door(ACCEPTED) as url:
        kept = again(url, sender="", lines=LETTER)
        sent = again(url, "--conversions", sender="", lines=LETTER)
    assert kept.output.splitlines()[1:] == [f"1 {resend.CONVERSION}"]
    assert sent.output == "letters 1 = taken 1 + rejected again 0 + not sent 0\n"
    assert CliRunner().invoke(app, ["rejected", "--conversions"]).exit_code == 2


def test_only_a_file_without_any_letter_is_an_error(again: Callable[..., Result], tmp_path: Path) -> None:
    with door(ACCEPTED) as url:
        some = again(url, "--conversions", sender="", lines=b"{}\n" + LETTER + b"\nrubbish\n" + LETTER[:-5])
        none = again(url, sender="", lines=b"{}\nrubbish\n")
    assert some.exit_code == 0
    assert some.stderr == "audiopixel: 3 lines are no letters, and left out\n"
    assert none.exit_code == 1
    assert none.stderr == "audiopixel: none of 2 lines is a letter\n"
    listed = CliRunner().invoke(app, ["rejected", str(tmp_path / "rejected.ndjson")])
    assert (listed.exit_code, listed.output) == (1, "audiopixel: none of 2 lines is a letter\n")


def test_a_correction_without_a_value_is_refused(again: Callable[..., Result]) -> None:
    with door(ACCEPTED) as url:
        done = again(url, "--set", "campaign_id")
    assert (done.exit_code, done.output[:51]) == (2, "audiopixel: --set campaign_id: takes FIELD=VALUE, F")
