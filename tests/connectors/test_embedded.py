"""Embedded servers: real, on loopback, restartable, and gone with the process that started them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from redis_support import eventually

from connectors import embedded
from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from connectors.stream import ConnectError

ONCE = Retry(NoBackoff(), 0)
KINDS = [EmbeddedValkey, EmbeddedBroker]
Kind = type[EmbeddedValkey] | type[EmbeddedBroker]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place for temporary files, of this process and of those that it starts."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


def alive(pid: int) -> bool:
    """True if the process runs; False also for a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return not state.stdout.startswith("Z") and bool(state.stdout.strip())


def listens(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_ready_within_seconds_on_loopback_only_and_leaves_nothing(kind: Kind, scratch: Path) -> None:
    began = time.monotonic()
    with kind() as server:
        assert time.monotonic() - began < 5
        port, pid = server.port, server.pid
        assert listens(port)
        assert not listens(port, "127.0.0.2"), "it is bound to more than 127.0.0.1"
        assert list(scratch.iterdir())
    assert not alive(pid)
    assert not listens(port)
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_it_starts_again_on_its_port_after_a_kill(kind: Kind) -> None:
    with kind() as server:
        port, pid = server.port, server.pid
        server.kill()
        assert not alive(pid)
        assert not listens(port)
        server.start()
        assert server.port == port
        assert server.pid != pid
        assert listens(port)


@pytest.mark.parametrize("kind", KINDS)
def test_a_port_taken_by_another_process_is_not_ours(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    with kind() as other:
        free = embedded._free_port()
        ports = iter([other.port, free])
        monkeypatch.setattr(embedded, "_free_port", lambda: next(ports))
        with kind() as server:
            assert server.port == free


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, None])
def test_a_server_ends_with_its_parent_process(sent: signal.Signals | None, scratch: Path) -> None:
    program = (
        "import sys, threading\n"
        "from connectors.embedded import EmbeddedBroker, EmbeddedValkey\n"
        "servers = [EmbeddedValkey(), EmbeddedBroker()]\n"
        "starter = threading.Thread(target=lambda: [s.start() for s in servers])\n"
        "starter.start(); starter.join()\n"
        "print(*(s.pid for s in servers), flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert parent.stdout is not None
    assert parent.stdin is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert all(alive(pid) for pid in pids), "the end of the thread that started them ended them"
    if sent is not None:
        parent.send_signal(sent)
    parent.stdin.close()
    parent.wait(timeout=10)
    parent.stdout.close()
    try:
        eventually(lambda: not any(alive(pid) for pid in pids))
        eventually(lambda: not list(scratch.iterdir()))
    finally:
        for pid in filter(alive, pids):
            os.kill(pid, signal.SIGKILL)


def test_a_server_that_cannot_start_says_why_and_leaves_nothing(scratch: Path) -> None:
    with pytest.raises(ConnectError, match=r"embedded valkey did not start.*Bad directive"):
        EmbeddedValkey({"nonsense": "1"}).start()
    assert not list(scratch.iterdir())


def test_a_paused_valkey_hangs_and_a_resumed_one_answers() -> None:
    with EmbeddedValkey() as server, Redis(port=server.port, socket_timeout=0.2, retry=ONCE) as client:
        client.set("k", "v")
        server.pause()
        with pytest.raises(RedisTimeoutError):
            client.get("k")
        server.resume()
        assert client.get("k") == b"v"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc")
def test_a_pause_returns_when_every_thread_has_stopped() -> None:
    with EmbeddedValkey() as server:
        tasks = Path(f"/proc/{server.pid}/task")
        for _ in range(100):
            server.pause()
            states = {path.read_text().rpartition(")")[2].split()[0] for path in tasks.glob("*/stat")}
            server.resume()
            assert states == {"T"}


def test_a_killed_valkey_comes_back_empty() -> None:
    with EmbeddedValkey() as server, Redis(port=server.port) as client:
        client.set("k", "v")
        server.kill()
        server.start()
        assert client.dbsize() == 0


def test_a_topic_has_its_partitions_and_carries_messages(broker: EmbeddedBroker) -> None:
    broker.create_topic("carries", 3)
    topics = AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics(timeout=5).topics
    assert len(topics["carries"].partitions) == 3
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for i in range(100):
        producer.produce("carries", value=str(i).encode(), partition=i % 3)
    assert producer.flush(10) == 0
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "unused"})
    # Not subscribe(): this broker takes over 20 s to let a group's first member in.
    consumer.assign([TopicPartition("carries", partition, 0) for partition in range(3)])
    values: list[bytes | str | None] = []

    def all_came() -> bool:
        values.extend(message.value() for message in consumer.consume(100, 0.1))
        return len(values) >= 100

    eventually(all_came)
    consumer.close()
    assert sorted(values, key=str) == sorted((str(i).encode() for i in range(100)), key=str)


def test_a_topic_that_exists_is_not_created_twice(broker: EmbeddedBroker) -> None:
    broker.create_topic("twice", 1)
    with pytest.raises(ConnectError, match=re.escape(f"twice was not created at {broker.bootstrap}")):
        broker.create_topic("twice", 1)


def test_stop_is_harmless_when_repeated_and_from_another_thread(scratch: Path) -> None:
    server = EmbeddedValkey()
    server.stop()
    server.start()
    ender = threading.Thread(target=server.stop)
    ender.start()
    ender.join(timeout=10)
    server.stop()
    assert not list(scratch.iterdir())
