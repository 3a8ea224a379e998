"""The services that a chaos run breaks and restarts: a broker, a Redis and a flow. Linux only, since it reads
/proc.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from confluent_kafka.admin import AdminClient, NewPartitions
from redis import Redis

from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from connectors.kafka.reader import KafkaInput
from connectors.kafka.writer import ensure_topic
from flows.errors import StateError
from flows.settings.fields import OUTPUT_TOPICS, PREFIX

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "tests" / "apache"), str(ROOT / "tests" / "support")]

from kafka_server import ApacheKafka, KafkaUnavailable  # noqa: E402 (found by the line above)
from warm_kernels import warm  # noqa: E402

STOP_WITHIN_S: Final = 10.0
"""On a machine that has a core for each of its processes."""
RESTARTS: Final = 3
"""By the flow's own supervisor, before it is the harness that starts it again."""

SETTINGS: Final = {
    "LISTENER_KEY": "a key for chaos alone",
    "SHARDS": "8",
    "SAVE_INTERVAL": "PT2S",
    "ALLOWED_LATENESS": "PT30S",
    "HORIZON": "PT2M",
    "QUIET": "PT10S",
    "MINUTES_INTERVAL": "PT3S",
    "REJECT_SHARE": "0.9",
    "METRICS_PORT": "0",
}
OTHER_OUTPUTS: Final = {
    "NAMESPACE": "undisturbed:v1",
    **{name.upper(): f"undisturbed-{name}" for name in OUTPUT_TOPICS},
    "KAFKA_GROUP": "undisturbed",
}


def compile_kernels() -> None:
    """Compile all kernels first: a process that is killed meanwhile begins again."""
    warm()


class Broker:
    """Apache Kafka with its log on the disk, or the embedded broker, which loses all when it is killed.

    Attributes:
        name: for the report.
        durable: whether it may be killed.
    """

    def __init__(self, directory: Path, embedded: bool) -> None:
        self.durable, self.name = False, "the embedded broker, which has no log on disk: it is not killed"
        self._server: EmbeddedBroker | ApacheKafka
        if not embedded:
            try:
                self._server = ApacheKafka(directory / "kafka")
                self.durable, self.name = True, "Apache Kafka"
            except KafkaUnavailable as error:
                embedded = True
                self.name += f" ({error})"
        if embedded:
            self._server = EmbeddedBroker()

    @property
    def brokers(self) -> str:
        """For `bootstrap.servers`."""
        return self._server.bootstrap if isinstance(self._server, EmbeddedBroker) else self._server.brokers

    def start(self) -> None:
        """Start it."""
        self._server.start()

    def create(self, topics: Mapping[str, int]) -> None:
        """Make topics of so many partitions."""
        for topic, partitions in topics.items():
            if isinstance(self._server, EmbeddedBroker):
                self._server.create_topic(topic, partitions)
            else:
                ensure_topic(self.brokers, topic, partitions)

    def add_partition(self, topic: str) -> int:
        """Give a topic one partition more; returns its number."""
        assert self.durable
        number = len(KafkaInput(self.brokers, [topic]).partitions())
        client = AdminClient({"bootstrap.servers": self.brokers})  # which lives until it has its answer
        grown = client.create_partitions([NewPartitions(topic, number + 1)])
        grown[topic].result(10)
        return number

    def kill(self, away_s: float) -> None:
        """SIGKILL, and start on the same disk after `away_s`."""
        assert self.durable
        self._server.kill()
        time.sleep(away_s)
        self._server.start()

    def hang(self, for_s: float) -> None:
        """Connections stay, nothing answers."""
        self._server.pause()
        time.sleep(for_s)
        self._server.resume()

    def stop(self) -> None:
        """End it."""
        self._server.stop()


class Store:
    """A Valkey that writes every command to its disk, so that it can come back with its data or without."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "redis"
        self._directory.mkdir()
        # `appendfsync no`: a killed process loses nothing that it handed to the kernel.
        self._server = EmbeddedValkey({"dir": str(self._directory), "appendonly": "yes", "appendfsync": "no"})

    @property
    def url(self) -> str:
        """For `AUDIOPIXEL_REDIS_URL`."""
        return self._server.url

    def client(self) -> Redis:
        """A client of its own, which gives up after a second."""
        return Redis.from_url(self.url, decode_responses=True, socket_timeout=1.0)

    def start(self) -> None:
        """Start it."""
        self._server.start()

    def refuse(self, away_s: float) -> None:
        """Connections are refused for a while; the data stays."""
        self._server.kill()
        time.sleep(away_s)
        self._server.start()

    @contextmanager
    def emptied(self) -> Iterator[None]:
        """Killed, and started without its data after the block."""
        self._server.kill()
        shutil.rmtree(self._directory / "appendonlydir", ignore_errors=True)
        yield
        self._server.start()

    def flush_within_flushes(self, times: int, behind: str, rng: random.Random) -> None:
        """FLUSHALL so often, each a moment after a command that names the key `behind`."""
        with self.client() as client, client.monitor() as commands:
            for _ in range(times):
                for command in commands.listen():
                    if behind in command["command"]:
                        break
                time.sleep(rng.uniform(0.0, 0.05))
                with self.client() as other:
                    other.flushall()

    def hang(self, for_s: float) -> None:
        """Connections stay, nothing answers."""
        self._server.pause()
        time.sleep(for_s)
        self._server.resume()

    def fill(self, for_s: float) -> None:
        """Out of memory: writes are refused, reads are served."""
        self._during(
            for_s,
            lambda client: client.config_set("maxmemory", "1"),
            lambda client: client.config_set("maxmemory", "0"),
        )

    def demote(self, for_s: float) -> None:
        """A read-only replica, as after a failover that the clients have not noticed."""
        self._during(
            for_s,
            lambda client: client.replicaof("127.0.0.1", "1"),
            lambda client: client.replicaof("NO", "ONE"),
        )

    def _during(self, for_s: float, begin: Callable[[Redis], object], end: Callable[[Redis], object]) -> None:
        with self.client() as client:
            begin(client)
            time.sleep(for_s)
            end(client)

    def stop(self) -> None:
        """End it."""
        self._server.stop()


class WallClock:
    """The wall clock of the flow's processes, to be set; ours and the brokers' stay right."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock"
        self.set(0.0, 0.0)

    @property
    def environment(self) -> dict[str, str]:
        """For a process that is to have this clock."""
        return {"CHAOS_CLOCK": str(self._file), "PYTHONPATH": f"{ROOT / 'benchmarks' / 'stepping'}:{ROOT}"}

    def set(self, every_s: float, odd_s: float) -> None:
        """Let it be off by `every_s`, and by `odd_s` more in every second process."""
        partial = self._file.with_suffix(".part")
        partial.write_text(f"{every_s} {odd_s}")
        partial.rename(self._file)


class Flow:
    """`audiopixel run --processes N --restarts 3`, started again whenever it has ended and should not have.

    Args:
        settings: of the flow, without their prefix.
        log: file for what it says.
        environment: more of it.
    """

    def __init__(
        self, settings: dict[str, str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        self._environment |= environment or {}
        self.set(settings)
        self._log = log
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self.processes = 1
        self.launched_s = 0.0
        self.wanted = self.refused = False

    def start(self, processes: int) -> None:
        """Start it, and keep it running."""
        with self._lock:
            self.processes, self.wanted = processes, True
            self._launch()
        if not self._keeper.is_alive():
            self._keeper.start()

    def set(self, settings: Mapping[str, str]) -> None:
        """Have these settings from the next start on, besides those that there are."""
        self._environment |= {PREFIX + name: value for name, value in settings.items()}

    def note(self, what: str) -> None:
        """Write a line into the flow's log."""
        with self._log.open("a") as log:
            log.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {what}\n")

    def _launch(self) -> None:
        self.launched_s = time.monotonic()
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(
                [
                    *(sys.executable, "-m", "flows.cli", "run"),
                    *(
                        ("--processes", str(self.processes), "--restarts", str(RESTARTS))
                        if self.processes > 1
                        else ()
                    ),
                ],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _keep(self) -> None:
        while not self._closing.wait(0.2):
            with self._lock:
                if self.wanted and self._child is not None and (code := self._child.poll()) is not None:
                    self.note(f"ended with code {code}")
                    self.refused = code == StateError.exit_code
                    self.wanted = not self.refused
                    if self.wanted:
                        self._launch()

    def family(self) -> list[int]:
        """Process ids: the supervisor (or the one process), then its members."""
        with self._lock:
            if self._child is None or self._child.poll() is not None:
                return []
            return [self._child.pid, *_children(self._child.pid)]

    def kill(self, pids: Sequence[int]) -> int:
        """SIGKILL these; returns how many were there."""
        killed = 0
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
        return killed

    @contextmanager
    def dead(self) -> Iterator[int]:
        """SIGKILL everything at once, and start again after the block; gives how many there were."""
        with self._lock:
            family = self.family()
            killed = self.kill(family)
            if self._child is not None:
                self._child.wait()
            _gone(family, 5.0)
            yield killed

    def stop(self) -> float:
        """SIGTERM, and the seconds until it had ended with code 0.

        Raises:
            AssertionError: it took longer than `STOP_WITHIN_S`, or the code was another.
        """
        with self._lock:
            self.wanted = False
            child, family, began_s = self._child, self.family(), time.monotonic()
            assert child is not None, "not started"
            within_s = STOP_WITHIN_S * sharing()
            child.terminate()
            try:
                code = child.wait(within_s)
            except subprocess.TimeoutExpired:
                self.kill(family)
                raise AssertionError(f"the flow was there {within_s:.0f} s after SIGTERM") from None
            assert code == 0, f"the flow ended with code {code} on SIGTERM"
            _gone(family, 1.0)
            return time.monotonic() - began_s

    def close(self) -> None:
        """End it, however."""
        self._closing.set()
        self.wanted = False
        with self.dead():
            pass


def until(holds: Callable[[], bool], within_s: float, otherwise: str) -> None:
    """Wait until something holds, on a busy machine for longer.

    Raises:
        AssertionError: it did not in time.
    """
    began_s = time.monotonic()
    while not holds():
        waited_s = time.monotonic() - began_s
        assert waited_s < within_s * sharing(), f"{otherwise} within {waited_s:.0f} s"
        time.sleep(0.1)


def sharing() -> float:
    """How many processes share a core of this machine, at least 1: each waits its turn."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def _children(parent: int) -> list[int]:
    return [pid for pid, of in _processes() if of == parent]


def _processes() -> Iterator[tuple[int, int]]:
    """(process id, its parent's), without those that have ended and wait for their parent."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    yield int(entry.name), int(parent)


def _gone(pids: Sequence[int], within_s: float) -> None:
    deadline_s = time.monotonic() + within_s
    while left := {pid for pid, _ in _processes()}.intersection(pids):
        assert time.monotonic() < deadline_s, f"processes {sorted(left)} outlived the flow"
        time.sleep(0.02)
