"""`audiopixel forget` confirms what has happened, and nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from erasure_support import confirming, write_meta
from typer.testing import CliRunner

from connectors.redis.client import Client
from flows.cli.commands import app
from flows.collector.pseudonyms import Pseudonyms
from flows.erasures import ALIVE_MS, MEMORY_MS, Receipt
from flows.model.redis_keys import collector_keys_key, deny_key, erased_key
from flows.settings import Settings
from flows.state.keys import fingerprint
from flows.state.people import People

SECRET, OTHER = "a key of sixteen bytes or more", "another key, as the advice made"
EDGE, BEFORE = "the key of today, 16 b", "the key of before, 16 b"
EDGE_ID, BEFORE_ID = Pseudonyms(EDGE.encode(), [BEFORE.encode()]).key_ids
LONG_AGO = "the flow wrote long ago"


@pytest.fixture
def settings(settings_of: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> Settings:
    settings = settings_of(listener_key=SECRET)
    for name, value in {
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "NAMESPACE": settings.namespace,
        "LISTENER_KEY": SECRET,
        "KAFKA_BROKERS": "127.0.0.1:1",
    }.items():
        monkeypatch.setenv(f"AUDIOPIXEL_{name}", value)
    return settings


def run(*arguments: str, code: int) -> tuple[list[str], str]:
    done = CliRunner().invoke(app, ["forget", *arguments])
    assert done.exit_code == code, done.output
    return done.stdout.splitlines(), done.stderr


def listed(client: Client, settings: Settings) -> set[str]:
    return set(client.hkeys(deny_key(settings.namespace)))


def key_of(listener: str) -> str:
    return f"{People(SECRET.encode()).listener(listener.encode()):016x}"


def test_a_foreign_key_is_refused_without_advice_to_create_one(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The command once accepted any key of 16 bytes with "1 listeners will be forgotten within a minute"."""
    monkeypatch.setenv("AUDIOPIXEL_LISTENER_KEY", OTHER)
    with confirming(settings, SECRET):
        said, why = run("somebody-7", "--receipt", str(tmp_path / "r.json"), code=1)
        asked, _ = run("somebody-7", "--status", code=1)
    assert said == asked == ["refused: 1 listener not forgotten"]
    assert "AUDIOPIXEL_LISTENER_KEY is not the key of the flow" in why
    assert "as audiopixel run has it" in why
    assert "token_hex" not in why
    assert listed(client, settings) == set()
    receipt = json.loads((tmp_path / "r.json").read_text())
    assert (receipt["state"], receipt["names"]) == ("refused", [])
    monkeypatch.delenv("AUDIOPIXEL_LISTENER_KEY")
    _, why = run("somebody-7", code=2)
    assert "set it as audiopixel run has it" in why
    assert "A new key finds no listener" in why
    assert "token_hex" not in why


def test_forget_refuses_an_installation_without_a_flow(settings: Settings, client: Client) -> None:
    said, why = run("somebody-7", code=1)
    assert said == ["refused: 1 listener not forgotten"]
    assert "does not name the key with which its flow hashes listeners" in why
    assert listed(client, settings) == set()


def test_an_erasure_is_pending_until_a_flow_confirms_it(
    settings: Settings, client: Client, tmp_path: Path
) -> None:
    write_meta(client, settings, SECRET, age_s=ALIVE_MS / 1000 + 15)
    receipt = tmp_path / "receipt.json"
    began_s = time.monotonic()
    said, why = run("somebody-7", "somebody-8", "--receipt", str(receipt), code=1)
    assert time.monotonic() - began_s < 30, "there is nobody to wait for"
    assert said == ["pending: 2 listeners not forgotten everywhere"]
    assert "no flow is alive: the last write was 4" in why
    assert "will be forgotten" not in why + str(said)
    assert listed(client, settings) == {key_of("somebody-7"), key_of("somebody-8")}
    for known in ("somebody-7", str(receipt)):
        assert run("--status", known, code=1)[0][0].startswith("pending: ")
    assert json.loads(receipt.read_text())["state"] == "pending"
    with confirming(settings, SECRET):
        run("somebody-7", code=0)
        assert run("--status", "somebody-8", code=0)[0][0].startswith("done: 1 listener forgotten; ")
        run("--status", str(receipt), "--receipt", str(receipt), code=0)
    assert json.loads(receipt.read_text())["state"] == "done"


def test_forget_stops_waiting_for_a_flow_at_the_deadline(settings: Settings, client: Client) -> None:
    write_meta(client, settings, SECRET, forgotten_sum="0" * 16)
    said, why = run("somebody-7", "--wait", "0.5", code=1)
    assert said == ["pending: 1 listener not forgotten everywhere"]
    assert "the flow has not confirmed it within 0.5 s: ask again with --status" in why


def test_an_erasure_without_a_collectors_key_is_incomplete(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, now_ms = collector_keys_key(settings.namespace), int(time.time() * 1000)
    client.hset(
        keys, mapping={EDGE_ID: now_ms, BEFORE_ID: now_ms - 86_400_000, "0badc0de": now_ms - MEMORY_MS}
    )
    with confirming(settings, SECRET):
        said, why = run("somebody-7", code=1)
        assert said == ["pending: 1 listener not forgotten everywhere"]
        missing = ", ".join(sorted((EDGE_ID, BEFORE_ID)))
        assert f"collectors have made pseudonyms by 2 keys unknown here ({missing})" in why
        assert run("--household", "7f.home", code=0)[0][0].startswith("done: 1 household forgotten; ")
        monkeypatch.setenv("AUDIOPIXEL_COLLECT_KEY", EDGE)
        assert f"by 1 key unknown here ({BEFORE_ID})" in run("somebody-7", code=1)[1]
        monkeypatch.setenv("AUDIOPIXEL_COLLECT_PREVIOUS_KEYS", f'["{BEFORE}"]')
        assert run("somebody-7", code=0)[0][0].startswith("done: 1 listener forgotten; ")


def test_a_receipt_lists_findings_and_limits_without_a_name(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AUDIOPIXEL_COLLECT_KEY", EDGE)
    path = tmp_path / "receipt.json"
    with confirming(settings, SECRET):
        said, _ = run(
            "jane@example.com", "81.2.69.142", "--user-agent", "VLC/3", "--receipt", str(path), code=0
        )
    held = "the flow held touches 18, campaigns 6, waiting conversions 0, household touches 0"
    assert said == [f"done: 2 listeners forgotten; {held}"]
    text = path.read_text()
    receipt = json.loads(text)
    assert receipt.keys() == set(Receipt.__struct_fields__)
    assert (receipt["state"], receipt["not_complete"], receipt["listeners"]) == ("done", [], 2)
    assert receipt["listener_key"] == fingerprint(SECRET.encode())
    assert receipt["edge_keys"] == [Pseudonyms(EDGE.encode()).key_ids[0]]
    kinds = [one["name"]["kind"] for one in receipt["names"]]
    assert kinds == [*["listener_id"] * 4, "household_id", "client_id"]
    assert {one["name"]["key"] for one in receipt["names"]} == listed(client, settings)
    for one in receipt["names"]:
        assert one["state"] == "done"
        assert one["found"] == {"touches": 3, "campaigns": 1, "conversions": 0}
        assert receipt["cuts"][one["cut"]]["positions"].keys() == {"t/0"}
        assert one["erased_at"] == receipt["cuts"][one["cut"]]["at"]
        pseudonym = one["name"]["pseudonym"]
        assert pseudonym == "as given" or (len(pseudonym) == 7 and pseudonym.endswith("…"))
    made = Pseudonyms(EDGE.encode()).of_person("jane@example.com")[0][1]
    for secret in ("jane", "81.2.69", "VLC", SECRET, EDGE, made.partition(".")[2]):
        assert secret not in text
    reached = {one["where"]: one["until"] for one in receipt["not_reached"]}
    for place in ("topic audio-pixels", "reach", "Google", "copies of the topic", "saves"):
        assert any(place in where for where in reached), place


def test_a_receipt_asks_for_the_state_without_any_key(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "receipt.json"
    with confirming(settings, SECRET):
        run("somebody-7", "--receipt", str(path), code=0)
        monkeypatch.delenv("AUDIOPIXEL_LISTENER_KEY")
        assert run("--status", str(path), code=0)[0][0].startswith("done: 1 listener forgotten; ")
        client.hdel(deny_key(settings.namespace), key_of("somebody-7"))
        said, why = run("--status", str(path), code=1)
        assert said == ["refused: 1 listener not forgotten"]
        assert "1 of 1 names are not on the deny-list" in why
    with confirming(settings, OTHER):  # a flow with another key has begun
        assert "is not the key of the flow" in run("--status", str(path), code=1)[1]
    for text in (
        "{",
        "[]",
        '{"audiopixel_forget": 2}',
        path.read_text().replace(settings.namespace, "other"),
    ):
        path.write_text(text)
        assert str(path) in run("--status", str(path), code=1)[1]


def test_the_lists_checksum_replaces_lost_erasure_accounts(
    settings: Settings, client: Client, tmp_path: Path
) -> None:
    with confirming(settings, SECRET, accounts=False):
        said, _ = run("somebody-7", code=0)
        assert said[0] == "done: 1 listener forgotten; what the flow held is not known any more"
    client.hset(erased_key(settings.namespace), key_of("somebody-7"), "{damaged")
    assert run("--status", "somebody-7", code=0)[0][0].startswith("done: ")
    client.hset(deny_key(settings.namespace), "00000000000000ff", "1")
    assert run("--status", "somebody-7", code=1)[0][0].startswith("pending: "), "the sums differ"


def test_the_status_of_an_unrequested_erasure_is_refused(settings: Settings, client: Client) -> None:
    with confirming(settings, SECRET):
        said, why = run("--status", "somebody-7", code=1)
    assert said == ["refused: 1 listener not forgotten"]
    assert "1 of 1 names are not on the deny-list: run audiopixel forget" in why
    assert listed(client, settings) == set()


def test_a_repeated_erasure_keeps_its_first_time(settings: Settings, client: Client) -> None:
    client.hset(deny_key(settings.namespace), key_of("somebody-7"), "17")
    with confirming(settings, SECRET):
        run("somebody-7", code=0)
    assert client.hget(deny_key(settings.namespace), key_of("somebody-7")) == "17"


def test_one_receipt_is_of_one_case(settings: Settings, client: Client, tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    with confirming(settings, SECRET):
        run("somebody-7", "--receipt", str(path), code=0)
        arguments: list[Any] = ["--status", str(path), "somebody-7"]
        assert len(run(*arguments, code=0)[0]) == 4
        assert "--receipt holds one erasure" in run(*arguments, "--receipt", str(path), code=2)[1]
