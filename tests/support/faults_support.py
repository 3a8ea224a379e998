"""A flow as its own process on real services, and what tests of faults ask of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from command_support import ROOT, Command, errors_in
from redis import Redis

from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from connectors.kafka.writer import KafkaWriter, ensure_topic
from connectors.ports import free_run
from flows.settings.fields import OUTPUT_TOPICS


def eventually(holds: Callable[[], object], seconds: float = 20, otherwise: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"did not come true within {seconds:g} s\n{otherwise()}"
        time.sleep(0.05)


def children(parent: int) -> set[int]:
    """Process ids, without those that have ended."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            state, of = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if of == str(parent) and state != "Z":
            found.add(int(entry.name))
    return found


@dataclass
class Flow:
    """A run of `audiopixel run`."""

    process: Command
    log: Path
    port: int

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def last(self) -> str:
        """The single line that the user gets in the end."""
        lines = errors_in(self.said())
        assert len(lines) == 1, self.said()
        assert "Traceback" not in self.said()
        return lines[0]

    def ended(self, within_s: float = 30) -> int:
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {within_s:g} s\n{self.said()}") from None

    def stop(self) -> float:
        """SIGTERM; the seconds until it had ended with code 0."""
        began = time.monotonic()
        self.process.terminate()
        assert self.ended(10) == 0, self.said()
        return time.monotonic() - began

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over all series that have these labels; 0 where there is none."""
        text = urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5).read().decode()
        found = 0.0
        for line in text.splitlines():
            if re.match(rf"audiopixel_{name}(\{{|\s)", line) and all(
                f'{k}="{v}"' in line for k, v in labels.items()
            ):
                found += float(line.rsplit(" ", 1)[1])
        return found

    def memory_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]  # Linux has it


@dataclass
class World:
    """A topic of its own on a broker, a Redis, and the flows on them."""

    brokers: str
    redis: EmbeddedValkey
    directory: Path
    partitions: int = 2
    create: Callable[[str, int], None] | None = None
    sent: int = 0
    flows: list[Flow] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.topic = f"pixels-{uuid.uuid4().hex[:8]}"
        create = self.create or (lambda topic, partitions: ensure_topic(self.brokers, topic, partitions))
        create(self.topic, self.partitions)
        outputs = {name.upper(): f"{self.topic}-{name.split('_')[1]}" for name in OUTPUT_TOPICS}
        for topic in outputs.values():
            create(topic, 1)
        self.settings = {
            "KAFKA_BROKERS": self.brokers,
            "KAFKA_TOPIC": self.topic,
            "KAFKA_GROUP": f"{self.topic}-group",
            **outputs,
            "REDIS_URL": self.redis.url,
            "REDIS_TIMEOUT": "PT1S",
            "LISTENER_KEY": "a key for faults alone",
            "NAMESPACE": f"{self.topic}:v1",
            "RECOVERY_DIR": str(self.directory / "recovery"),
            "SAVE_INTERVAL": "PT1S",
            "FLUSH_INTERVAL": "PT0.5S",
            "SHARDS": "8",
        }

    def start(self, *arguments: str, ready: bool = True, **settings: str) -> Flow:
        """Start a flow, `settings` before the world's; waits until it has published unless `ready` is
        False.
        """
        port = free_run(4)  # of further processes, too
        known = {name: value for name, value in os.environ.items() if not name.startswith("AUDIOPIXEL_")}
        told = {**self.settings, "METRICS_PORT": str(port), **settings}
        log = self.directory / f"flow-{len(self.flows)}.log"
        process = Command(
            "run",
            *arguments,
            directory=ROOT,
            environment={**known, **{f"AUDIOPIXEL_{name}": value for name, value in told.items()}},
            out=log,
        )
        flow = Flow(process, log, port)
        self.flows.append(flow)
        if ready:
            began_ms = time.time() * 1000
            eventually(
                lambda: self.meta("flushed_ms") > began_ms or process.poll() is not None, 60, flow.said
            )
            assert process.poll() is None, flow.said()
        return flow

    def close(self) -> None:
        """End every flow that is left."""
        for flow in self.flows:
            flow.kill()

    # In

    def send(self, count: int, partition: int | None = None, ts_ms: int | None = None, **more: Any) -> None:
        """Impressions of as many plays and listeners, round the partitions, now or at a time."""
        values = []
        for n in range(self.sent, self.sent + count):
            ts = ts_ms or int(time.time() * 1000)
            pixel = {
                "event_id": f"e{n}",
                "event": "impression",
                "ts": ts,
                "received_at": ts,
                "placement_id": "p",
            }
            pixel |= {"play_id": f"play{n}", "listener_id": f"L{n}", "consent": True, **more}
            values.append(
                (n % self.partitions if partition is None else partition, json.dumps(pixel).encode(), ts)
            )
        self.send_raw(values)

    def send_raw(self, values: list[tuple[int, bytes, int]]) -> None:
        """Messages as (partition, value, timestamp in ms)."""
        writer = KafkaWriter(self.brokers, self.topic)
        for partition, value, ts in values:
            writer.send(partition, b"", value, ts)
        writer.close()
        self.sent += len(values)

    # Out

    def client(self) -> Redis:
        return Redis.from_url(self.redis.url, decode_responses=True, socket_timeout=2)

    def meta(self, name: str) -> int:
        with self.client() as client:
            return int(client.hget(f"{self.topic}:v1:meta", name) or 0)

    def row(self, placement: str = "p") -> dict[str, str]:
        with self.client() as client:
            return client.hgetall(f"{self.topic}:v1:placement:{{{placement}}}")

    def ledger(self, name: str = "received") -> int:
        """The sum of a count over the source partitions."""
        with self.client() as client:
            rows = [client.hgetall(key) for key in client.scan_iter(f"{self.topic}:v1:partition:*")]
        return sum(int(row.get(name, 0)) for row in rows)

    def shown(self, flow: Flow, count: int | None = None, seconds: float = 60) -> None:
        """Wait until readers see all that was sent."""
        want = self.sent if count is None else count
        eventually(
            lambda: self.ledger() == want, seconds, lambda: f"{self.ledger()} of {want}\n{flow.said()}"
        )


def in_memory(broker: EmbeddedBroker, redis: EmbeddedValkey, directory: Path, partitions: int = 2) -> World:
    return World(broker.bootstrap, redis, directory, partitions, broker.create_topic)
