"""Forgetting a listener: in a log, in a live flow, and after it was killed."""

from __future__ import annotations

import json
import os
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_support import Command, run_command
from erasure_support import confirming
from typer.testing import CliRunner

from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from connectors.files import FileInput
from connectors.kafka.writer import KafkaWriter
from connectors.ports import free_ports
from connectors.redis import read_rows
from connectors.redis.client import Client, RedisUnavailable, connect
from connectors.stream import Messages
from flows.attribution.credit_models import Rules
from flows.attribution.listener_shard import ListenerShard
from flows.cli.commands import app
from flows.cli.reconcile_settings import denied
from flows.engine.source import StopSignal
from flows.engine.steps import PlaysLogic
from flows.engine.tick_clock import TickClock
from flows.errors import UsageError
from flows.intake.decoder import Decoder
from flows.intake.erasure import POLL_S, DenyList, conversions_without, deny, take_off
from flows.intake.partition import Intake, position_of
from flows.intake.watermark import PartitionClock
from flows.model.messages import CLICK_TOUCH, RowBatch, ShardTick, TouchBatch
from flows.model.pixel import HOUSEHOLD, LISTENER
from flows.model.redis_keys import deny_key
from flows.model.ticks import Cut
from flows.reconcile import LISTENER as LISTENER_OF
from flows.replay import replay
from flows.settings.fields import Settings
from flows.state.people import People
from flows.state.saves import decode, encode

SECRET = "a key of sixteen bytes or more"
HASHED = People(SECRET.encode())
T0 = 1_764_000_000_000
MINUTE = 60_000
Line = dict[str, Any]


def key_of(listener: str) -> int:
    return HASHED.listener(listener.encode())


def pixel(event: str, ts: int, listener: str | None, **fields: Any) -> Line:
    known = {"event_id": f"{event}{ts}{listener}", "event": event, "ts": ts, "consent": True}
    who = {"listener_id": listener} if listener else {}
    where = {} if event == "conversion" else {"placement_id": "a", "campaign_id": "red"}
    return known | who | where | fields


def bought(ts: int, listener: str) -> Line:
    return pixel("conversion", ts, listener, conversion={"type": "purchase", "order_id": f"{listener}-{ts}"})


def written(path: Path, lines: list[Line]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def rule_of(client: Client, namespace: str, order: str) -> str:
    (decision,) = client.hvals(f"{namespace}:conversion:{{{order}}}") or ['{"rule": ""}']
    return str(json.loads(decision)["rule"])


def test_a_forgotten_listener_gets_no_credit_in_a_replay(
    tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of(listener_key=SECRET)
    lines = [
        pixel(event, T0 + n, who) for n, event in enumerate(("impression", "click")) for who in ("L1", "L2")
    ]
    log = written(tmp_path / "log.ndjson", [*lines, bought(T0 + MINUTE, "L1"), bought(T0 + MINUTE, "L2")])
    replay([log], settings, SECRET.encode())
    assert [rule_of(client, settings.namespace, f"{who}-{T0 + MINUTE}") for who in ("L1", "L2")] == [
        "last_touch"
    ] * 2
    deny(settings, ["L1"])
    replay([log], settings, SECRET.encode(), recompute=True)
    rules = [rule_of(client, settings.namespace, f"{who}-{T0 + MINUTE}") for who in ("L1", "L2")]
    assert rules == ["none", "last_touch"]
    row = client.hgetall(f"{settings.namespace}:placement:{{a}}")
    assert (row["flight.impressions"], row["flight.consented"], row["flight.reach"]) == ("2", "4", "1")
    assert client.hget(f"{settings.namespace}:campaign:{{red}}", "frequency.1.listeners") == "1"


@pytest.fixture
def commanded(settings_of: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings that commands have from their environment, and a flow that confirms."""
    settings = settings_of(listener_key=SECRET)
    monkeypatch.setenv("AUDIOPIXEL_REDIS_URL", settings.redis_url.get_secret_value())
    monkeypatch.setenv("AUDIOPIXEL_NAMESPACE", settings.namespace)
    monkeypatch.setenv("AUDIOPIXEL_LISTENER_KEY", SECRET)
    with confirming(settings, SECRET):
        yield settings


def test_the_list_holds_keys_and_no_id(
    commanded: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AUDIOPIXEL_LISTENER_KEY")
    refused = CliRunner().invoke(app, ["forget", "somebody-7"])
    assert refused.exit_code != 0
    assert "LISTENER_KEY" in refused.output
    monkeypatch.setenv("AUDIOPIXEL_LISTENER_KEY", SECRET)
    assert CliRunner().invoke(app, ["forget", "somebody-7"]).exit_code == 0
    assert CliRunner().invoke(app, ["forget"], input="somebody-8\nsomebody-9\n").exit_code == 0
    held = client.hgetall(deny_key(commanded.namespace))
    assert held.keys() == {f"{key_of(f'somebody-{n}'):016x}" for n in (7, 8, 9)}
    assert all(abs(int(ms) / 1000 - time.time()) < 60 for ms in held.values())
    assert "somebody" not in str(held)
    told = CliRunner().invoke(app, ["forget", "--household", "7f.home-1"])
    assert "done: 1 household forgotten" in told.output
    home = HASHED.household(b"7f.home-1")
    assert client.hgetall(deny_key(commanded.namespace)).keys() - held.keys() == {f"{home:016x}"}


def test_all_of_a_file_of_ids_are_forgotten_or_none(commanded: Settings, client: Client) -> None:

    def forget(*arguments: str, lines: bytes | None = None) -> tuple[int, str]:
        told = CliRunner().invoke(app, ["forget", *arguments], input=lines)
        return told.exit_code, told.stderr.strip()

    assert forget(lines=b"somebody-1\nsomebody-2\xe9\n") == (
        2,
        "audiopixel: standard input is not UTF-8, and nothing is forgotten: save it as UTF-8",
    )
    assert forget("somebody-3", os.fsdecode(b"\xe9")) == (
        2,
        "audiopixel: an argument is not UTF-8, so nothing has such a name",
    )
    assert forget("--household", "home-1", "--household", " ") == (
        2,
        "audiopixel: --household is empty: give the household's pseudonym",
    )
    assert client.hkeys(deny_key(commanded.namespace)) == []
    assert forget(lines=b"\xef\xbb\xbfsomebody-1\r\nsomebody-2\r\n")[0] == 0
    assert forget("--household", "home-1\r")[0] == 0
    homes = {HASHED.household(home) for home in (b"home-1", b"home-1\r")}
    held = {key_of("somebody-1"), key_of("somebody-2"), *homes}
    assert set(client.hkeys(deny_key(commanded.namespace))) == {f"{one:016x}" for one in held}


def test_an_erased_id_matches_its_pixels_with_any_blanks(commanded: Settings, client: Client) -> None:
    lines = " one\ntwo\u2028lines\r\nform\x0cfeed\x85\rold mac\n\n"
    done = CliRunner().invoke(app, ["forget"], input=lines.encode())
    assert done.stdout.startswith("done: 4 listeners forgotten; ")
    named = (" one", "one", "two\u2028lines", "form\x0cfeed\x85", "form\x0cfeed", "old mac")
    assert held(client, commanded) == {key_of(one) for one in named}


def test_a_listed_household_is_removed_and_its_listeners_stay() -> None:
    decoder = Decoder(SECRET.encode())
    line = json.dumps(pixel("impression", T0, "L1", household_id="home")).encode()
    pixels = decoder.decode(Messages([line], range(1), 1)).pixels
    take_off(pixels, np.array([HASHED.household(b"home")], np.uint64))
    assert pixels[0, [LISTENER, HOUSEHOLD]].tolist() == [key_of("L1"), 0]


def test_a_listed_listener_is_removed_from_pixels_with_the_household() -> None:
    decoder = Decoder(SECRET.encode())
    lines = [json.dumps(pixel("impression", T0, who, household_id="home")).encode() for who in ("L1", "L2")]
    pixels = decoder.decode(Messages(lines, range(2), 2)).pixels
    take_off(pixels, np.array([key_of("L1")], np.uint64))
    home = HASHED.household(b"home")
    assert pixels[:, [LISTENER, HOUSEHOLD]].tolist() == [[0, 0], [key_of("L2"), home]]


@pytest.mark.parametrize(
    ("denied", "left"),
    [([], ("L1", "home")), (["home"], ("L1", None)), (["L1"], (None, None)), (["L2"], ("L1", "home"))],
)
def test_a_listed_person_leaves_conversions_by_the_previous_key(
    denied: list[str], left: tuple[str | None, str | None]
) -> None:
    decoder, bought = Decoder(SECRET.encode()), {"type": "purchase"}
    before = {"listener_id": "L1", "household_id": "home"}
    line = json.dumps(pixel("conversion", T0, "L3", conversion=bought, previous=before)).encode()
    ((conversion,)) = decoder.decode(Messages([line], range(1), 1)).conversions
    home = HASHED.household(b"home")
    keys = np.array(sorted(home if who == "home" else key_of(who) for who in denied), np.uint64)
    (kept,) = conversions_without([conversion], keys)
    assert kept.before == (key_of("L1") if left[0] else 0, home if left[1] else 0)


def test_an_unconsented_conversion_has_no_previous_identity() -> None:
    before = {"listener_id": "L1", "household_id": "home"}
    line = pixel("conversion", T0, "L3", conversion={"type": "purchase"}, previous=before, consent=False)
    decoded = Decoder(SECRET.encode()).decode(Messages([json.dumps(line).encode()], range(1), 1))
    assert decoded.conversions[0].before == (0, 0)


def intake(
    path: Path, partitions: Sequence[str], state: tuple[Any, ...] | None = None, shards: int = 1
) -> Intake:
    """The intake of a file that is one partition among others."""
    path.touch()
    made = Intake(
        path.name,
        tuple(partitions),
        FileInput([str(path)]).open(str(path), None),
        Decoder(SECRET.encode()),
        PartitionClock(0, 0),
        shards,
        1000,
        False,
    )
    if state is not None:
        made.restore(state)
    return made


def held(client: Client, settings: Settings) -> set[int]:
    """The keys that are denied, by Redis."""
    return {int(key, 16) for key in client.hkeys(deny_key(settings.namespace))}


@pytest.mark.parametrize("known_by", ["a look", "a snapshot"])
def test_a_list_lost_by_redis_is_kept_and_restored(
    tmp_path: Path, settings_of: Callable[..., Settings], client: Client, known_by: str
) -> None:
    settings, now_s = settings_of(listener_key=SECRET), [0.0]
    deny(settings, ["L1", "L2"])
    known = DenyList(settings, lambda: now_s[0])
    both = known()
    assert set(both.tolist()) == {key_of("L1"), key_of("L2")}
    assert known() is both
    client.delete(deny_key(settings.namespace))
    if known_by == "a look":
        now_s[0] += POLL_S
        assert known() is both
    else:
        known = DenyList(settings, lambda: now_s[0])
        assert known(both).tolist() == both.tolist()
    assert held(client, settings) == set(both.tolist())

    first = intake(tmp_path / "log", ["log"])
    first.deny(both)
    receipt = first.stop(1).receipt
    assert receipt is not None
    assert set(receipt.tick.forgotten) == set(both.tolist())
    second = intake(tmp_path / "log", ["log"], first.snapshot())
    second.deny(known())
    assert second.stop(2).receipt.tick.forgotten == ()  # type: ignore[union-attr]  # a tick is always due
    third = intake(tmp_path / "log", ["log"], second.snapshot())
    third.deny(np.array(sorted([*both.tolist(), 7]), np.uint64))
    assert third.stop(3).receipt.tick.forgotten == (7,)  # type: ignore[union-attr]  # a tick is always due
    assert third.denied.tolist() == sorted([*both.tolist(), 7])
    assert position_of(third.snapshot()) == 0


def test_invalid_fields_of_the_list_end_no_flow(
    settings_of: Callable[..., Settings], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, now_s = settings_of(listener_key=SECRET), 0.0
    known, whole = DenyList(settings, lambda: now_s), 0
    deny(settings, ["L1"])
    for strange in ("a listener", "-1", "f" * 17, ""):
        client.hset(deny_key(settings.namespace), strange, "1")

    def counted(*asked: Any) -> list[dict[str, str]]:
        nonlocal whole
        whole += 1
        return read_rows(*asked)

    monkeypatch.setattr("flows.intake.erasure.read_rows", counted)
    while now_s <= 2 * POLL_S:
        assert known().tolist() == [key_of("L1")]
        now_s += POLL_S
    assert whole == 1, "the whole list each second is dear"
    deny(settings, ["L2"])
    assert known().tolist() == sorted([key_of("L1"), key_of("L2")])
    test = denied(settings, client)
    assert test is not None
    assert [test(LISTENER_OF, who) for who in (b"L1", b"L2", b"L3")] == [True, True, False]


def test_no_pixel_is_read_before_the_list_was(
    settings_of: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, now_s = settings_of(listener_key=SECRET), 0.0
    deny(settings, ["L1"])
    known = DenyList(settings, lambda: now_s)
    with monkeypatch.context() as patched:

        def fails(*_: object) -> list[dict[str, str]]:
            raise RedisUnavailable("connection", "the connection is lost")

        patched.setattr("flows.intake.erasure.read_rows", fails)
        with pytest.raises(RedisUnavailable):
            known()
        now_s += POLL_S
        with pytest.raises(RedisUnavailable):
            known()
    now_s += POLL_S
    assert known().tolist() == [key_of("L1")]
    with monkeypatch.context() as patched:
        patched.setattr("flows.intake.erasure.count_fields", fails)
        now_s += POLL_S
        assert known().tolist() == [key_of("L1")]  # from then on an outage is lived through


def test_a_lost_list_of_equal_length_is_restored_within_a_minute(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings, now_s = settings_of(listener_key=SECRET), 0.0
    known = DenyList(settings, lambda: now_s)
    deny(settings, ["L1", "L2"])
    known()
    client.delete(deny_key(settings.namespace))
    deny(settings, ["L3", "L4"])
    while now_s < 60:
        now_s += POLL_S
        known()
    every = {key_of(f"L{n}") for n in range(1, 5)}
    assert set(known().tolist()) == held(client, settings) == every


def test_a_late_partition_restores_nothing_of_a_forgotten_listener(
    tmp_path: Path, settings_of: Callable[..., Settings]
) -> None:
    settings, partitions = settings_of(listener_key=SECRET, shards=1), ["old", "new"]
    who = ("L1", "L2")
    lines = [pixel(event, T0 + n, one) for one in who for n, event in enumerate(("impression", "click"))]
    written(tmp_path / "new", [*lines, *(bought(T0 + 5, one) for one in who)])

    def plays(state: Any = None) -> PlaysLogic:
        thawed = decode(encode(state))  # as the engine does
        return PlaysLogic(settings, thawed, TickClock(1000, lambda: 0))

    old, shard = intake(tmp_path / "old", partitions[:1]), plays()
    old.deny(np.array([key_of("L1")], np.uint64))
    receipt = old.stop(1).receipt
    assert receipt is not None
    shard.on_batch([ShardTick(0, receipt.tick)])
    old, shard = intake(tmp_path / "old", partitions, old.snapshot()), plays(shard.snapshot())

    new = intake(tmp_path / "new", partitions).step(2, 0)
    again = old.stop(2).receipt
    assert new.receipt is not None
    assert again is not None
    shard.on_batch(new.pixels)
    out, _ = shard.on_batch([ShardTick(0, new.receipt.tick), ShardTick(0, again.tick)])
    touches = [one for one in out if isinstance(one, TouchBatch)]
    assert {int(who) for one in out if isinstance(one, RowBatch) for who in one.touch_listeners} == {
        key_of("L2")
    }
    assert {int(who) for batch in touches for who in batch.listener_hashes} == {key_of("L2")}
    waiting = [one.listener for batch in touches for one in batch.conversions]
    assert sorted(waiting) == [0, key_of("L2")]


def test_touches_arriving_with_an_erasure_are_dropped() -> None:
    shard = ListenerShard(0, 1, 10 * MINUTE, Rules(), None)

    def batch(number: int, sender: int, count: int, forgotten: tuple[int, ...] = ()) -> TouchBatch:
        columns = (
            np.full(count, 5, np.uint64),
            np.full(count, T0, np.int64),
            np.full(count, CLICK_TOUCH, np.uint8),
        )
        zeros = np.zeros(count, np.uint32)
        cut = Cut(number, T0 + number * MINUTE, False, ())
        names = [("a", None, None, None, None, None, None)]
        return TouchBatch(sender, 0, cut, names, *columns, zeros, zeros, [], np.array(forgotten, np.uint64))  # type: ignore[arg-type]  # names are a combo

    for number, batches in enumerate(([batch(0, 0, 3)], [batch(1, 0, 0, (5,)), batch(1, 1, 2)])):
        shard.apply(batches[0].cut, batches)
        assert len(shard.store) == (3, 0)[number]


def test_an_erased_household_leaves_pending_conversions_in_other_shards(
    tmp_path: Path, settings_of: Callable[..., Settings]
) -> None:
    """Only the shard of the household's own key erased it; a conversion waits in its listener's."""
    shards, home = 4, HASHED.household(b"home")
    settings = settings_of(listener_key=SECRET, shards=shards)
    who = [f"L{n}" for n in range(8)]
    lines = [bought(T0 + n, one) | {"household_id": "home"} for n, one in enumerate(who)]
    written(tmp_path / "log", lines)
    source = intake(tmp_path / "log", ["log"], shards=shards)
    read = source.step(1, 0)
    assert read.receipt is not None
    source.deny(np.array([home], np.uint64))
    receipt = source.stop(2).receipt
    assert receipt is not None
    places = [PlaysLogic(settings, None, TickClock(1000, lambda: 0)) for _ in range(shards)]
    listeners = [ListenerShard(n, shards, 10 * MINUTE, Rules(), None) for n in range(shards)]
    decided = []
    for tick, pixels in ((read.receipt.tick, read.pixels), (receipt.tick, [])):
        sent: list[TouchBatch] = []
        for number, place in enumerate(places):
            place.on_batch([one for one in pixels if one.to == number])
            out, _ = place.on_batch([ShardTick(number, tick)])
            sent += [one for one in out if isinstance(one, TouchBatch)]
        for shard in listeners:
            own = [one for one in sent if one.to == shard.index]
            decided.append(shard.apply(own[0].cut, own))
    waiting = [one for shard in listeners for one in shard.pending]
    assert len({one.listener % shards for one in waiting}) > 1
    assert [one.household for one in waiting] == [0] * len(who)
    found = Counter[str]()
    for one in decided:
        found.update({what: count for key, what, count in one.erased if key == home})
    assert found == {"touches": 0, "campaigns": 0, "conversions": len(who)}
    assert [one.forgotten.tolist() for shard in listeners for one in shard.unjoined if one.to == 0] == [
        [home] if n == home % shards else [] for n in range(shards)
    ]


# A live flow


@contextmanager
def running(environment: dict[str, str], log: Path) -> Iterator[Command]:
    flow = Command("run", directory=log.parent, environment={**os.environ, **environment}, out=log)
    try:
        yield flow
    finally:
        flow.kill()
        flow.wait()


def until(what: Callable[[], bool], within_s: float, flow: Command, log: Path) -> float:
    """Seconds until it was so."""
    began = time.monotonic()
    while not what():
        assert flow.poll() is None, log.read_text()
        assert time.monotonic() - began < within_s, log.read_text()
        time.sleep(0.1)
    return time.monotonic() - began


@pytest.mark.timeout(240)
def test_a_live_flow_erases_within_a_minute_also_after_a_kill(tmp_path: Path) -> None:
    with EmbeddedBroker() as broker, EmbeddedValkey() as valkey:
        (port,) = free_ports(1)
        environment = {
            "AUDIOPIXEL_KAFKA_BROKERS": broker.bootstrap,
            "AUDIOPIXEL_REDIS_URL": valkey.url,
            "AUDIOPIXEL_LISTENER_KEY": SECRET,
            "AUDIOPIXEL_RECOVERY_DIR": str(tmp_path / "recovery"),
            "AUDIOPIXEL_SAVE_INTERVAL": "1",
            "AUDIOPIXEL_FLUSH_INTERVAL": "0.2",
            "AUDIOPIXEL_SHARDS": "2",
            "AUDIOPIXEL_METRICS_PORT": str(port),
        }
        settings = Settings(kafka_brokers=broker.bootstrap)
        for topic in (*settings.output_topics, settings.kafka_alerts_topic):
            broker.create_topic(topic, 1)
        broker.create_topic(settings.kafka_topic, 2)
        client = connect(valkey.url, timeout=timedelta(seconds=5))
        writer = KafkaWriter(broker.bootstrap, settings.kafka_topic, {})
        now = time.time_ns() // 1_000_000
        log, receipt = tmp_path / "flow.log", tmp_path / "receipt.json"

        def forget(*arguments: str) -> Any:
            of = {**os.environ, **environment}
            return run_command("forget", *arguments, directory=tmp_path, environment=of, into=tmp_path)

        def send(partition: int, *lines: Line) -> None:
            for line in lines:
                writer.send(partition, b"k", json.dumps(line).encode(), time.time_ns() // 1_000_000)
            writer.flush()

        def touches() -> int:
            """In memory, by the flow's own account; -1 while it does not answer."""
            with suppress(OSError):
                text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
                found = re.findall(r"^audiopixel_state_touches\{.*\} (\S+)$", text, re.MULTILINE)
                return int(sum(map(float, found))) if found else -1
            return -1

        early = now - 40 * MINUTE
        for partition in range(2):
            times = range(early + partition, early + partition + 10, 2)
            send(partition, *(pixel("click", at, who) for at in times for who in ("L1", "L2")))
        send(0, bought(now - 12 * MINUTE, "L1"))
        with running(environment, log) as flow:
            until(lambda: touches() == 20, 90, flow, log)
            # A flow without a save starts from the beginning, which is refused after an erasure.
            until(lambda: any(tmp_path.glob("recovery/saves/*/manifest-0")), 90, flow, log)
            began_s = time.monotonic()
            told = forget("L1", "--receipt", str(receipt))
            assert told.returncode == 0, told.stderr
            assert time.monotonic() - began_s < 60
            assert touches() in (10, -1), "it is done when the command says so"
            until(lambda: touches() == 10, 5, flow, log)
            held = "the flow held touches 10, campaigns 0, waiting conversions "
            assert told.stdout.startswith(f"done: 1 listener forgotten; {held}")
            found = json.loads(receipt.read_text())
            ((cut, where),) = found["cuts"].items()
            assert where["positions"] == {"audio-pixels/0": 11, "audio-pixels/1": 10}
            assert [(one["state"], one["cut"], one["found"]["touches"]) for one in found["names"]] == [
                ("done", cut, 10)
            ]
            send(0, pixel("click", now - 12 * MINUTE + 1, "L1"), bought(now - 12 * MINUTE + 2, "L1"))
        assert forget("--status", str(receipt)).returncode == 0, "it was done"
        with running(environment, log) as flow:
            until(lambda: touches() == 10, 90, flow, log)
            send(1, pixel("click", now - 12 * MINUTE + 3, "L1"))
            send(0, bought(now - 12 * MINUTE + 4, "L1"), bought(now - 12 * MINUTE + 5, "L2"))
            for partition in range(2):
                send(partition, pixel("click", time.time_ns() // 1_000_000, None))
            account = f"{settings.namespace}:meta"
            decided = {"conversions_accepted": "4", "conversions_pending": "0", "unattributed": "3"}
            until(lambda: decided.items() <= client.hgetall(account).items(), 60, flow, log)
            assert touches() == 10
            for at in (0, 2, 4):
                order = f"L1-{now - 12 * MINUTE + at}"
                assert rule_of(client, settings.namespace, order) == "none"
            assert rule_of(client, settings.namespace, f"L2-{now - 12 * MINUTE + 5}") == "last_touch"
            client.delete(f"{settings.namespace}:erased")
            told = forget("--status", "L1")
            assert told.returncode == 0, told.stderr
            assert told.stdout.startswith("done: 1 listener forgotten; what the flow held is not known")
        writer.close()
        client.close()


def test_counts_do_not_fall_in_a_replay_after_an_erasure(
    tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of(listener_key=SECRET)
    lines = [pixel("impression", T0 + n, f"L{n}") for n in range(5)]
    log = written(tmp_path / "log.ndjson", [*lines, *(bought(T0 + MINUTE, f"L{n}") for n in range(5))])

    def seen() -> tuple[str, str, str]:
        row = client.hgetall(f"{settings.namespace}:placement:{{a}}")
        return row["generation"], row["flight.reach"], row["flight.conversions"]

    replay([log], settings, SECRET.encode())
    assert seen() == ("1", "5", "5")
    replay([log], settings, SECRET.encode())
    deny(settings, ["L1", "L2"])
    with pytest.raises(UsageError, match=r"2 listeners are forgotten, .* say --recompute"):
        replay([log], settings, SECRET.encode())
    assert seen() == ("1", "5", "5")
    replay([log], settings, SECRET.encode(), recompute=True)
    assert seen() == ("2", "3", "3")


def test_an_erasure_does_not_refuse_a_resumed_replay(
    tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    settings, recovery = settings_of(listener_key=SECRET), tmp_path / "recovery"
    log = written(tmp_path / "log.ndjson", [pixel("impression", T0 + n, f"L{n}") for n in range(5)])
    at_once = StopSignal()
    at_once.set()
    replay([log], settings, SECRET.encode(), recovery_dir=recovery, stop=at_once)
    assert client.exists(f"{settings.namespace}:positions")
    deny(settings, ["L1"])
    replay([log], settings, SECRET.encode(), recovery_dir=recovery)
    assert client.hget(f"{settings.namespace}:placement:{{a}}", "flight.reach") == "4"
