"""Collectors that are killed, and a Kafka that is away, hangs or is there: what was answered as stored is in
the topic.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from door_support import Caller, Collector, byes, calling, events, messages, new_topic, until
from redis import Redis

from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from connectors.ports import free_run


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


def in_the_log(broker: EmbeddedBroker, topic: str, wanted: set[str]) -> list[list[dict[str, Any]]]:
    """All messages, once all that are wanted are among them."""
    until(lambda: wanted <= events(messages(broker.bootstrap, topic)), 60.0)
    return messages(broker.bootstrap, topic)


def assert_low_marks_hold(part: list[dict[str, Any]]) -> None:
    """Low marks may fall after a kill, because acknowledged events may be sent again."""
    seen, low_ms = set[str](), 0
    for one in part:
        low_ms = max(low_ms, one["low_ms"])
        if "event_id" in one and one["event_id"] not in seen:
            seen.add(one["event_id"])
            assert one["received_at"] >= low_ms


def test_a_collector_says_bye_and_its_ledger_balances(broker: EmbeddedBroker, tmp_path: Path) -> None:
    topic = new_topic(broker)
    with Collector(tmp_path / "spool", broker.bootstrap, topic) as collector:
        collector.start()
        with calling(collector.port) as call:
            assert [call(f"e{n}") for n in range(20)] == [200] * 20
            assert call("none", e="no-such") == 200
        assert collector.end() == 0
    found = messages(broker.bootstrap, topic)
    assert events(found) == {f"e{n}" for n in range(20)}
    assert byes(found, collector.id()) == 2
    ledger = collector.ledger()
    assert (ledger["calls"], ledger["stored"], ledger["rejected"], ledger["resting"]) == (21, 20, 1, 0)
    assert ledger["acknowledged"] == 20


def test_kills_at_any_moment_lose_no_answered_call(broker: EmbeddedBroker, tmp_path: Path) -> None:
    topic, answered = new_topic(broker), set[str]()
    with Collector(tmp_path / "spool", broker.bootstrap, topic) as collector:
        for number, (hangs, seconds) in enumerate(((False, 0.3), (True, 0.9), (True, 0.4), (False, 0.1))):
            collector.start()
            callers = [Caller(collector.port, f"r{number}c{n}") for n in range(3)]
            for one in callers:
                one.start()
            if hangs:
                time.sleep(0.2)
                broker.pause()
            time.sleep(seconds)
            collector.kill()
            if hangs:
                broker.resume()
            answered.update(*(one.stop() for one in callers))
            assert all(one.slowest_s < 1.0 for one in callers)
        collector.start()
        found = in_the_log(broker, topic, answered)
        assert len(answered) > 100
        until(lambda: not list((tmp_path / "spool" / "0").glob("*.ndjson")))
        assert collector.end() == 0
    assert collector.ledger()["resting"] == 0
    names = {one["collector"] for part in messages(broker.bootstrap, topic) for one in part}
    assert {name.partition("~")[0] for name in names} == {collector.id().partition("~")[0]}
    assert len(names) == 5  # each process has its own
    for name in names:
        assert byes(messages(broker.bootstrap, topic), name) == 2
    for part in found:
        assert_low_marks_hold(part)


def test_pixels_spooled_without_kafka_are_sent_by_the_next_start(
    tmp_path: Path,
) -> None:
    with EmbeddedBroker() as broker:
        topic = new_topic(broker)
        with Collector(tmp_path / "spool", broker.bootstrap, topic) as collector:
            collector.start()
            broker.kill()  # with all that it had
            with calling(collector.port) as call:
                assert [call(f"away{n}") for n in range(30)] == [200] * 30
            assert collector.end() == 75
            ledger = collector.ledger()
            assert (ledger["stored"], ledger["resting"], ledger["acknowledged"]) == (30, 30, 0)
            collector.start()  # a known id begins on its spool alone
            with calling(collector.port) as call:
                assert call("behind") == 200
            broker.start()
            broker.create_topic(topic, 2)
            wanted = {f"away{n}" for n in range(30)} | {"behind"}
            found = in_the_log(broker, topic, wanted)
            assert collector.end() == 0
            ledger = collector.ledger()
            assert ledger["inherited"] + ledger["stored"] == ledger["acknowledged"] == 31
            assert byes(messages(broker.bootstrap, topic), collector.id()) == 2
    for part in found:
        order = [int(one["event_id"][4:]) for one in part if one.get("event_id", "").startswith("away")]
        assert order == sorted(order)


def test_a_new_id_accepts_nothing_before_its_marks_are_stored(tmp_path: Path) -> None:
    with Collector(tmp_path / "spool", "127.0.0.1:1", "away") as collector:
        for _ in range(2):
            collector.start(ready=False)
            with calling(collector.port) as call:
                assert call("refused") == 503
            assert collector.looks("/ready") == 503
            assert collector.end() == 75
            assert collector.ledger()["refused"] == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=1m", "small", str(disk)]
    if subprocess.run(mounting, capture_output=True).returncode:
        pytest.skip("only root may mount a disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("full", ["limit", "disk"])
def test_a_full_spool_refuses_until_kafka_returns(
    broker: EmbeddedBroker, small_disk: Path, full: str
) -> None:
    topic, most = new_topic(broker), 1 << 20 if full == "limit" else 1 << 30
    with Collector(small_disk / "spool", broker.bootstrap, topic, collect_spool_bytes=most) as collector:
        collector.start()
        broker.pause()
        pad = {"landing_url": f"https://shop.example/{'x' * 3_900}", "e": "click"}
        statuses = [200]
        with calling(collector.port) as call:
            while statuses[-1] == 200:
                statuses.append(call(f"e{len(statuses)}", **pad))
            assert statuses[-1] == 503
            assert collector.looks("/ready") == 503
            assert collector.looks("/live") == 200
            broker.resume()
            until(lambda: call("again") == 200, 30)
        stored = {f"e{n}" for n, status in enumerate(statuses) if status == 200 and n}
        in_the_log(broker, topic, stored | {"again"})
        assert collector.end() == 0
    ledger = collector.ledger()
    assert ledger["calls"] == ledger["stored"] + ledger["refused"]
    assert ledger["acknowledged"] == ledger["stored"] == len(stored) + 1


def test_fewer_processes_drain_the_spools_of_the_former_ones(broker: EmbeddedBroker, tmp_path: Path) -> None:
    topic = new_topic(broker)
    spool = tmp_path / "spool"
    answered, sent = set[str](), 0
    with Collector(spool, broker.bootstrap, topic, "--processes", "2", "--seat", "1") as second:
        second.start()
        broker.pause()
        with calling(second.port) as call:
            while len(answered) < 10:  # one whose sync takes long is refused by then, and stored all the same
                sent += 1
                assert sent < 100
                if call(f"e{sent}") == 200:
                    answered.add(f"e{sent}")
        second.kill()
        broker.resume()
    old = second.id(1)
    with Collector(spool, broker.bootstrap, topic) as first:
        first.start()
        found = in_the_log(broker, topic, answered)
        assert {one["collector"] for part in found for one in part if "event_id" in one} >= {old}
        until(lambda: byes(messages(broker.bootstrap, topic), old) == 2)
        until(lambda: not (spool / "1" / "id").exists())
        assert first.end() == 0
    ledger = first.ledger()
    assert ledger["inherited"] == ledger["acknowledged"] == sent


def test_sigterm_under_load_loses_no_answered_call(broker: EmbeddedBroker, tmp_path: Path) -> None:
    topic = new_topic(broker)
    with Collector(tmp_path / "spool", broker.bootstrap, topic, collect_drain="PT0.3S") as collector:
        collector.start()
        callers = [Caller(collector.port, f"c{n}") for n in range(3)]
        for one in callers:
            one.start()
        time.sleep(0.3)
        assert collector.end() == 0
        answered = set().union(*(one.stop() for one in callers))
    ledger = collector.ledger()
    assert ledger["calls"] == ledger["stored"] == ledger["acknowledged"] >= len(answered) > 50
    assert answered <= events(messages(broker.bootstrap, topic))


def test_two_processes_share_a_port_and_are_ended_together(broker: EmbeddedBroker, tmp_path: Path) -> None:
    topic = new_topic(broker)
    with Collector(tmp_path / "spool", broker.bootstrap, topic, "--processes", "2") as both:
        both.health = both.looked = free_run(2)
        both.environment["AUDIOPIXEL_COLLECT_HEALTH_PORT"] = str(both.health)
        both.start()
        both.looked += 1
        until(lambda: both.looks("/ready") == 200)
        for n in range(20):  # a connection each, which the kernel deals out
            with calling(both.port) as call:
                assert call(f"e{n}") == 200
        assert both.end() == 0
    found = messages(broker.bootstrap, topic)
    assert events(found) == {f"e{n}" for n in range(20)}
    for seat in (0, 1):
        assert byes(found, both.id(seat)) == 2


def test_processes_end_when_their_supervisor_is_killed(broker: EmbeddedBroker, tmp_path: Path) -> None:
    with Collector(tmp_path / "spool", broker.bootstrap, new_topic(broker), "--processes", "2") as both:
        both.health = both.looked = free_run(2)
        both.environment["AUDIOPIXEL_COLLECT_HEALTH_PORT"] = str(both.health)
        both.start()
        both.kill()
        with socket.socket() as one:
            until(lambda: one.connect_ex(("127.0.0.1", both.port)) != 0)
        both.start()  # the spools are free
        both.looked += 1
        until(lambda: both.looks("/ready") == 200)  # who has not reached the broker ends with a mark on disk
        assert both.end() == 0


def test_a_lost_collector_is_released_in_every_partition(broker: EmbeddedBroker) -> None:
    topic = new_topic(broker)
    settings = {"AUDIOPIXEL_KAFKA_BROKERS": broker.bootstrap, "AUDIOPIXEL_KAFKA_TOPIC": topic}
    with EmbeddedValkey() as valkey:
        settings["AUDIOPIXEL_REDIS_URL"] = valkey.url

        def released(*arguments: str) -> tuple[int, str, str]:
            command = [sys.executable, "-m", "flows.cli", "release", *arguments]
            done = subprocess.run(
                command, env=os.environ | settings, capture_output=True, text=True, timeout=60
            )
            return done.returncode, done.stdout, done.stderr

        with Redis.from_url(valkey.url) as client:
            client.hset("audiopixel:v1:collectors", "9f3c2ab1d4e5f607", int(time.time() * 1000) - 90_000)
            client.hset("audiopixel:v1:meta", "held_by", "the-holder")
        assert released("9f3c2ab1d4e5f607") == (0, "9f3c2ab1d4e5f607 ended in 2 partitions\n", "")
        assert released("the-holder") == (0, "the-holder ended in 2 partitions\n", "")
        code, out, said = released("9f3c2ab1-typo")
        assert (code, out) == (1, "")
        assert re.fullmatch(
            r"audiopixel: Redis \(audiopixel:v1\) lists no collector '9f3c2ab1-typo', and nothing is "
            r"released: "
            r"listed are 9f3c2ab1d4e5f607 \(wrote \d+ s ago\), the-holder \(holds the flow's time\). "
            r"--anyway releases an id that is not listed\n",
            said,
        )
        assert released("gone", "--anyway")[0] == 0
    assert [
        byes(messages(broker.bootstrap, topic), one) for one in ("9f3c2ab1d4e5f607", "9f3c2ab1-typo")
    ] == [
        2,
        0,
    ]


def test_a_taken_port_is_an_error_of_one_line(broker: EmbeddedBroker, tmp_path: Path) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        port = one.getsockname()[1]
        collector = Collector(tmp_path / "spool", broker.bootstrap, "t", collect_port=port)
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", "collect"],
            env=os.environ | collector.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 2
    assert f"127.0.0.1:{port} cannot be listened at" in done.stderr
    assert "Traceback" not in done.stderr


def test_collectors_of_a_copied_directory_have_distinct_ids(broker: EmbeddedBroker, tmp_path: Path) -> None:
    topic = new_topic(broker)
    with Collector(tmp_path / "spool", broker.bootstrap, topic) as collector:
        collector.start()
        before = collector.id()
        collector.kill()
        copytree(tmp_path / "spool", tmp_path / "copy")
        with Collector(tmp_path / "copy", broker.bootstrap, topic) as copy:
            collector.start()
            copy.start()
            assert len({before, collector.id(), copy.id()}) == 3
            with calling(collector.port) as one, calling(copy.port) as other:
                assert (one("one"), other("other")) == (200, 200)
            assert (collector.end(), copy.end()) == (0, 0)
    found = messages(broker.bootstrap, topic)
    assert [byes(found, name) for name in (before, collector.id(), copy.id())] == [2, 2, 2]
    by = {one["event_id"]: one["collector"] for part in found for one in part if "event_id" in one}
    assert by == {"one": collector.id(), "other": copy.id()}
