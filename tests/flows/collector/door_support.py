"""A collector as a process of its own, calls to it, and what it put into Kafka."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from command_support import Command
from confluent_kafka import Consumer, TopicPartition

from connectors.embedded import EmbeddedBroker
from connectors.ports import free_run

PARTITIONS = 2
KEY = "a key of the edge, 32 bytes long"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def until(true: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.02)


class Collector:
    """`audiopixel collect`, which may be killed and started again over the same spool.

    Attributes:
        forked: from a process that has imported all of it; False: by an interpreter of its own, which
            also runs what the environment has for its start, such as another clock.
    """

    def __init__(self, spool: Path, brokers: str, topic: str, *arguments: str, **settings: Any) -> None:
        seat = int(arguments[-1]) if "--seat" in arguments else 0
        self.spool, self.port, self.health = spool, free_port(), free_run(seat + 1)
        self.looked = self.health + seat
        self.arguments = arguments
        known = {
            "kafka_brokers": brokers,
            "kafka_topic": topic,
            "kafka_rejected_topic": f"{topic}-rejected",
            "collect_port": self.port,
            "collect_health_port": self.health,
            "collect_spool": spool,
            "collect_key": KEY,
            "collect_placements": "any",
            "collect_drain": "PT0S",
            "collect_figures": "false",
        } | settings
        self.environment = {f"AUDIOPIXEL_{name.upper()}": str(value) for name, value in known.items()}
        self.log = spool.parent / f"{spool.name}-{self.port}.log"
        self.forked = True
        self.process: Command | subprocess.Popen[bytes] | None = None
        self.said, self._before = "", 0

    def start(self, ready: bool = True) -> Self:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AUDIOPIXEL_")}
        self._before = len(self.log.read_text()) if self.log.exists() else 0
        environment, directory = clean | self.environment, self.spool.parent
        if self.forked:
            self.process = Command(
                "collect", *self.arguments, directory=directory, environment=environment, out=self.log
            )
        else:
            command = [sys.executable, "-m", "flows.cli", "collect", *self.arguments]
            with self.log.open("ab") as out:
                self.process = subprocess.Popen(
                    command, env=environment, cwd=directory, stdout=out, stderr=subprocess.STDOUT
                )
        until(lambda: self.looks("/ready" if ready else "/live") == 200, 60)
        with socket.socket() as one:
            until(lambda: one.connect_ex(("127.0.0.1", self.port)) == 0)
        return self

    def looks(self, path: str) -> int:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        with suppress(OSError, HTTPException):
            connection = HTTPConnection("127.0.0.1", self.looked, timeout=5)
            connection.request("GET", path)
            return connection.getresponse().status
        return 0

    def reads(self, path: str) -> bytes:
        connection = HTTPConnection("127.0.0.1", self.looked, timeout=5)
        connection.request("GET", path)
        return connection.getresponse().read()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        self.said = self.log.read_text()[self._before :]
        return code

    def ledger(self) -> dict[str, int]:
        """The output of the collector at its end."""
        (line,) = [line for line in self.said.splitlines() if "calls=" in line]
        words = line[line.index("calls=") :].strip("'\" ").split()
        return {name: int(value.strip("'\"")) for name, _, value in (word.partition("=") for word in words)}

    def id(self, seat: int = 0) -> str:
        return (self.spool / str(seat) / "id").read_text().split()[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()


@contextmanager
def calling(port: int, agent: str = "") -> Iterator[Callable[..., int]]:
    """Send calls over one connection. Returns their statuses, 0 for no answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)

    def call(event_id: str, **parameters: Any) -> int:
        known = {"e": "start", "pl": "breakfast-uk", "id": event_id} | parameters
        try:
            connection.request("GET", f"/p?{urlencode(known)}", headers={"User-Agent": agent})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, HTTPException):
            connection.close()
            return 0

    yield call
    connection.close()


class Caller(threading.Thread):
    """Calls one after the other until it is stopped; `answered` has the ids that were answered as stored."""

    def __init__(self, port: int, name: str, agent: str = "", **parameters: Any) -> None:
        super().__init__(daemon=True)
        self.answered, self.sent, self._port, self._over = set[str](), 0, port, threading.Event()
        self.statuses: list[int] = []
        self.slowest_s, self._name, self._agent, self._parameters = 0.0, name, agent, parameters

    def run(self) -> None:
        with calling(self._port, self._agent) as call:
            while not self._over.is_set():
                self.sent += 1
                began = time.monotonic()
                name = f"{self._name}-{self.sent}"
                status = call(name, p=name, **self._parameters)
                if status == 200:
                    self.answered.add(name)
                    self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                elif status == 0:
                    time.sleep(0.01)
                self.statuses.append(status)

    def stop(self) -> set[str]:
        self._over.set()
        self.join(20)
        return self.answered


def new_topic(broker: EmbeddedBroker, partitions: int = PARTITIONS) -> str:
    topic = f"t{uuid.uuid4().hex[:8]}"
    broker.create_topic(topic, partitions)
    return topic


def messages(brokers: str, topic: str, partitions: int = PARTITIONS) -> list[list[dict[str, Any]]]:
    """All messages of a topic by partition, in their order."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": uuid.uuid4().hex, "log_level": 0})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
    found: list[list[dict[str, Any]]] = [[] for _ in range(partitions)]
    # Not to the end that the embedded broker tells: of a batch that is the first message's.
    while message := consumer.poll(5.0 if not any(found) else 0.5):
        assert message.error() is None, message.error()
        found[message.partition()].append(json.loads(message.value() or b"{}"))
    consumer.close()
    return found


def events(found: list[list[dict[str, Any]]]) -> set[str]:
    """The ids of the events among messages."""
    return {one["event_id"] for partition in found for one in partition if "event_id" in one}


def byes(found: list[list[dict[str, Any]]], collector: str) -> int:
    """The partitions whose last message of a collector says bye."""
    last = [[one for one in partition if one.get("collector") == collector][-1:] for partition in found]
    return sum(bool(one and one[0].get("bye")) for one in last)
