"""A real Apache Kafka for tests: a KRaft node on loopback from the jars that Maven resolves, its log on disk.

Needs Java 17 and `mvn`; the jars (45 MB) are fetched once to build/apache-kafka-<hash of pom.xml>.
"""

from __future__ import annotations

import fcntl
import hashlib
import random
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

HERE = Path(__file__).resolve().parent
HOW_TO = "install Java 17 and Maven (Debian: openjdk-17-jre-headless maven), and let mvn reach a repository"
USER, PASSWORD = "listener", "correct-horse"
_CLUSTER = "audiopixelTestClusterg"

# Waits for the end of our process, which closes the pipe even on SIGKILL.
_GUARD = 'read -r end; kill -9 "$1"'

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAIN://127.0.0.1:{plain},SASL://127.0.0.1:{sasl},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAIN://127.0.0.1:{plain},SASL://127.0.0.1:{sasl}
listener.security.protocol.map=PLAIN:PLAINTEXT,SASL:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAIN
sasl.enabled.mechanisms=PLAIN
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
  user_{user}="{password}";
log.dirs={data}
auto.create.topics.enable={auto_create}
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
log.retention.check.interval.ms=1000
log.initial.task.delay.ms=1000
"""


class KafkaUnavailable(Exception):
    """Apache Kafka cannot be had here; the message says why, and how to get it."""


class ApacheKafka:
    """A broker as a context manager; `stop`, `kill` and `start` keep its disk and ports.

    Args:
        directory: made where absent; holds the log, the settings and the broker's output.
        heap_mb: the JVM's.
        auto_create: make a topic that a producer asks for, as Kafka does by default.

    Raises:
        KafkaUnavailable: no Java, no Maven, or no repository.
        RuntimeError: the broker does not start; with its last output.
    """

    def __init__(self, directory: Path, heap_mb: int = 256, *, auto_create: bool = False) -> None:
        self._java = _java(heap_mb)
        self._output = directory / "kafka.out"
        self._settings = directory / "server.properties"
        self.data = directory / "data"
        plain, sasl, controller = _free_ports(3)
        self.brokers = f"127.0.0.1:{plain}"
        self.sasl_brokers = f"127.0.0.1:{sasl}"
        self.process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self._settings.write_text(
            _PROPERTIES.format(
                plain=plain,
                sasl=sasl,
                controller=controller,
                data=self.data,
                user=USER,
                password=PASSWORD,
                auto_create=str(auto_create).lower(),
            )
        )
        formatting = self._run(
            "kafka.tools.StorageTool",
            "format",
            "--ignore-formatted",
            "-t",
            _CLUSTER,
            "-c",
            str(self._settings),
        )
        if formatting.wait(60) != 0:
            raise RuntimeError(f"Apache Kafka's disk was not formatted:\n{self._tail()}")

    def start(self, timeout_s: float = 60) -> None:
        """Start, and wait until it answers."""
        assert self.process is None, "already running"
        self.process = self._run("kafka.Kafka", str(self._settings))
        self._guard = subprocess.Popen(
            ["sh", "-c", _GUARD, "guard", str(self.process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        client = AdminClient({"bootstrap.servers": self.brokers, "log_level": 0})
        deadline = time.monotonic() + timeout_s
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                if client.list_topics(timeout=1).brokers:
                    return
            except KafkaException:
                continue
        self.kill()
        raise RuntimeError(f"Apache Kafka did not start:\n{self._tail()}")

    def stop(self) -> None:
        """Shut down in order; kill what is left after 30 s."""
        if self.process is not None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(30)
        self.kill()

    def kill(self) -> None:
        """SIGKILL; harmless when it is not running."""
        # The guard first: once the broker is reaped, its id may be another's.
        for process in (self._guard, self.process):
            if process is not None:
                process.kill()
                process.communicate()
        self.process = self._guard = None

    def pause(self) -> None:
        """SIGSTOP: connections stay, nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _tail(self) -> str:
        return self._output.read_text()[-2000:]

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def _run(self, *command: str) -> subprocess.Popen[bytes]:
        with self._output.open("ab") as output:
            return subprocess.Popen(
                [*self._java, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )


def _java(heap_mb: int) -> list[str]:
    java = shutil.which("java")
    if java is None:
        raise KafkaUnavailable(f"no java found: {HOW_TO}")
    return [
        java,
        f"-Xmx{heap_mb}m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Dorg.apache.logging.log4j.level=WARN",
        "-cp",
        f"{_jars()}/*",
    ]


def _jars() -> Path:
    pom = HERE / "pom.xml"
    jars = HERE.parents[1] / "build" / f"apache-kafka-{hashlib.sha256(pom.read_bytes()).hexdigest()[:12]}"
    if jars.is_dir():
        return jars
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaUnavailable(f"no mvn found: {HOW_TO}")
    half = jars.with_suffix(".part")
    command = [maven, "-B", "-q", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={half}"]
    jars.parent.mkdir(exist_ok=True)
    with jars.with_suffix(".lock").open("w") as lock:  # two workers of the suite may come here at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if jars.is_dir():
            return jars
        try:
            subprocess.run([*command, "-DincludeScope=runtime"], check=True, capture_output=True, timeout=240)
        except subprocess.SubprocessError as error:
            raise KafkaUnavailable(f"mvn could not fetch Kafka's jars ({error}): {HOW_TO}") from error
        half.rename(jars)
    return jars


def _free_ports(count: int) -> list[int]:
    # Below the range of outgoing connections: while the broker is down, no client can take its port, nor
    # connect to itself on it.
    sockets: list[socket.socket] = []
    while len(sockets) < count:
        candidate = socket.socket()
        try:
            candidate.bind(("127.0.0.1", random.randint(15_000, 32_000)))
        except OSError:
            candidate.close()
        else:
            sockets.append(candidate)
    ports = [taken.getsockname()[1] for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports
