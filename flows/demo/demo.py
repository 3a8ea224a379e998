"""`audiopixel demo`: the whole system on loopback out of wheels, under traffic whose truth is known."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from connectors.ports import free_ports, free_run
from connectors.redis import Client, RedisUnavailable, connect
from flows.demo.alerts import News, Watch, lines, report, start
from flows.demo.produce import produce
from flows.demo.summary import compare, ledger_totals
from flows.errors import AudiopixelError, DifferencesError
from flows.settings import PREFIX, Settings, load
from flows.simulate import Traffic, now_ms, plans, write_plans
from flows.viewers.reader import RowsReader
from flows.viewers.top import FIELDS, PLAIN_WIDTH, render

DRAIN_S: Final = 30.0
"""The time for which the summary waits for the flow to take in all that was sent, in s."""

FLIGHT: Final = timedelta(hours=6)
GRACE: Final = timedelta(seconds=2)
"""Flights begin with the traffic and are judged after seconds, so that one sees the starved placement
under-deliver.
"""
OUT_OF_ORDERNESS: Final = timedelta(seconds=70)
"""Some players' clocks are ahead, and a minute of that is taken for true: with the usual 10 s the watermark
would run most of a minute ahead of us, and flights of seconds would be judged by impressions yet to come.
"""
OVER: Final = 100.0
"""Pixels ahead of the watermark count at once, and what is due goes by the watermark: in a flight of seconds
every placement would be over-delivering.
"""
LEAST_ROWS: Final = 10
"""Placements on the screen, though the addresses scroll up for them in a low terminal."""
TABLE_LINES: Final = 6
"""Of the live table in a low terminal, around its placements."""

FIRES_WITHIN: Final = timedelta(seconds=20)
"""Of traffic, after which the starved placement's alert fires or will in seconds."""

# Ends a child with us, even when we are killed: our end of the pipe closes. TERM first, so that it drains.
_GUARD: Final = 'read -r end; kill -TERM "$1" 2>/dev/null; sleep 3; kill -KILL "$1" 2>/dev/null'


@dataclass
class Demo:
    """One demonstration.

    Args:
        seconds: of traffic, then a summary; None: until Ctrl-C.
        rate: pixels a second.
        placements, partitions, processes, seed: see `audiopixel demo --help`.
    """

    seconds: float | None
    rate: float
    placements: int
    partitions: int
    processes: int
    seed: int
    _children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self) -> None:
        """Show it.

        Raises:
            DifferencesError: Redis differs from the truth at the end of a bounded run.
            AudiopixelError: a part did not start, or died.
        """
        plain = not sys.stderr.isatty() and "COLUMNS" not in os.environ
        console = Console(stderr=True, width=PLAIN_WIDTH if plain else None)
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="audiopixel-demo-")))
            use_own_settings(directory)
            console.print("audiopixel demo: with settings and a listeners' key of its own, not yours")
            with console.status("starting a Kafka-protocol broker and a Valkey"):
                broker, valkey = stack.enter_context(EmbeddedBroker()), stack.enter_context(EmbeddedValkey())
            metrics_port, (exporter_port,) = free_run(self.processes), free_ports(1)
            settings = load(
                kafka_brokers=broker.bootstrap,
                redis_url=valkey.url,
                listener_key=secrets.token_hex(16),
                recovery_dir=directory / "recovery",
                metrics_port=metrics_port,
                plans=directory / "plans.csv",
                delivery_grace=GRACE,
                out_of_orderness=OUT_OF_ORDERNESS,
                over=OVER,
            )
            (directory / "plans.csv").write_text("placement_id,booked,start,end\n")
            for topic in (
                settings.kafka_rejected_topic,
                settings.kafka_minutes_topic,
                settings.kafka_credits_topic,
                settings.kafka_alerts_topic,
            ):
                broker.create_topic(topic, 1)
            broker.create_topic(settings.kafka_topic, self.partitions)
            stack.callback(self._end_children)
            with console.status(
                "starting the flow and the exporter; the first time it compiles for half a minute"
            ):
                self._start("flow", settings, directory, "run", "--processes", str(self.processes))
                self._start("exporter", settings, directory, "exporter", "--port", str(exporter_port))
                client = connect(valkey.url, timeout=settings.redis_timeout)
                stack.callback(client.close)
                watch = start(stack, directory, client, settings.namespace, metrics_port, exporter_port)
                self._until(
                    lambda: bool(client.exists(f"{settings.namespace}:meta")),
                    stopping,
                    120,
                    "the flow",
                    directory,
                )
            if stopping.is_set():
                return
            head: list[RenderableType] = [
                f"[bold]{self.rate:,.0f} pixels/s[/bold], live page http://127.0.0.1:{exporter_port}/",
                _addresses(
                    metrics=f"http://127.0.0.1:{exporter_port}/metrics/placements, "
                    f"flow :{metrics_port}/metrics",
                    kafka=f"{broker.bootstrap}, {self.partitions} partitions; redis {valkey.url}",
                    alerts=watch.where,
                ),
            ]
            self._show(settings, client, watch, directory, console, head, stopping)

    def _show(
        self,
        settings: Settings,
        client: Client,
        watch: Watch,
        directory: Path,
        console: Console,
        head: list[RenderableType],
        stopping: threading.Event,
    ) -> None:
        traffic = Traffic(
            self.seed, self.placements, self.rate, start_ms=now_ms(), partitions=self.partitions
        )
        write_plans(directory / "plans.csv", plans(traffic, FLIGHT))
        starved = traffic.placements[-1].id if self.placements > 1 else None
        if starved:
            head.append(self.promise(starved))
        console.print(*head, sep="\n")
        head_lines = 2 + len(console.render_lines(Group(*head)))
        failed: list[BaseException] = []

        def send() -> None:
            try:
                produce(settings, traffic, self.seconds, stopping)
            except BaseException as error:
                failed.append(error)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        board = RowsReader(client, settings.namespace, FIELDS)
        news = News()
        with Live(console=console, auto_refresh=False, transient=self.seconds is not None) as live:
            while sender.is_alive():
                firing = watch.firing()
                if not console.is_terminal:
                    for line in lines(news.of(firing)):
                        console.print(line, soft_wrap=True)
                else:
                    alerts = lines(firing)
                    height = console.height - len(alerts)
                    height = max(height - head_lines, min(height - 1, LEAST_ROWS + TABLE_LINES))
                    rows = render(board.refresh(), time.time(), console.width, height)
                    live.update(Group(rows, *alerts), refresh=True)
                sender.join(0.5)
                self._alive(directory)
        if failed:
            raise failed[0]
        if self.seconds is not None and not stopping.is_set():
            due = starved if self.seconds >= FIRES_WITHIN.total_seconds() else None
            self._summarise(settings, client, traffic, watch, due)

    def promise(self, starved: str) -> str:
        """The delivery that a viewer will see, in words."""
        short = self.seconds is not None and self.seconds < FIRES_WITHIN.total_seconds()
        fires = (
            f"too few seconds for its alert, which takes {FIRES_WITHIN.total_seconds():.0f}"
            if short
            else "it will be `under`, and its alert fires"
        )
        return (
            f"{starved} is starved: {fires}. The others are `warming up` until chance alone cannot "
            "explain what they lack. Delivery reads high at first: what is due counts up to the watermark."
        )

    def _summarise(
        self, settings: Settings, client: Client, traffic: Traffic, watch: Watch, starved: str | None
    ) -> None:
        sent = traffic.ledger.totals["received"]
        deadline_s = time.monotonic() + DRAIN_S
        totals: dict[str, int] = {}
        while totals.get("received", 0) < sent and time.monotonic() < deadline_s:
            time.sleep(0.2)
            totals = ledger_totals(client, settings.namespace)
        time.sleep(2 * settings.flush_interval.total_seconds())
        totals = ledger_totals(client, settings.namespace)
        meta = client.hgetall(f"{settings.namespace}:meta")
        totals["conversions"] = int(meta.get("conversions_accepted", 0))
        watermark_ms = int(meta.get("watermark_ms", 0))
        expected = traffic.ledger.expected(finite=False, watermark_ms=watermark_ms)
        table, differences = compare(expected, totals, client, settings.namespace)
        Console().print(table, *report(watch, starved), sep="\n")
        if differences:
            raise DifferencesError(f"{differences} numbers in Redis differ from the simulator's ledger")

    def _start(self, name: str, settings: Settings, directory: Path, *arguments: str) -> None:
        shown = {
            "KAFKA_BROKERS": settings.kafka_brokers,
            "REDIS_URL": settings.redis_url.get_secret_value(),
            "LISTENER_KEY": settings.listener_key.get_secret_value() if settings.listener_key else "",
            "RECOVERY_DIR": str(settings.recovery_dir),
            "METRICS_PORT": str(settings.metrics_port),
            "PLANS": str(settings.plans),
            "DELIVERY_GRACE": f"PT{settings.delivery_grace.total_seconds():.0f}S",
            "OUT_OF_ORDERNESS": f"PT{settings.out_of_orderness.total_seconds():.0f}S",
            "OVER": str(settings.over),
        }
        with (directory / f"{name}.log").open("wb") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "flows.cli", *arguments],
                env={**os.environ, **{PREFIX + key: value for key, value in shown.items()}},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        guard = subprocess.Popen(
            ["sh", "-c", _GUARD, "guard", str(child.pid)], stdin=subprocess.PIPE, start_new_session=True
        )
        self._children += [child, guard]

    def _end_children(self) -> None:
        for child in self._children[::2]:
            child.terminate()
        for child, guard in zip(self._children[::2], self._children[1::2], strict=True):
            with suppress(subprocess.TimeoutExpired):
                child.wait(12)
            child.kill()
            child.wait()
            guard.kill()
            guard.wait()

    def _alive(self, directory: Path) -> None:
        for child, name in zip(self._children[::2], ("flow", "exporter"), strict=False):
            if child.poll() is not None:
                tail = (directory / f"{name}.log").read_text(errors="replace").strip().splitlines()[-5:]
                raise AudiopixelError(f"the {name} ended with code {child.returncode}: {' | '.join(tail)}")

    def _until(
        self,
        ready: Callable[[], bool],
        stopping: threading.Event,
        within_s: float,
        what: str,
        directory: Path,
    ) -> None:
        deadline_s = time.monotonic() + within_s
        while not stopping.is_set():
            self._alive(directory)
            with suppress(RedisUnavailable):
                if ready():
                    return
            if time.monotonic() > deadline_s:
                raise AudiopixelError(f"{what} was not ready within {within_s:.0f} s")
            time.sleep(0.1)


def use_own_settings(directory: Path) -> None:
    """Forget the user's settings, in this process and for its children: they are of another Kafka and Redis.

    Args:
        directory: for the empty file that stands for `audiopixel.toml`.
    """
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    empty = directory / "audiopixel.toml"
    empty.touch()
    os.environ[f"{PREFIX}CONFIG"] = str(empty)


def _addresses(**values: str) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in values.items():
        table.add_row(f"  {name}", value)
    return table
