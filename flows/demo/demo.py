"""`audiopixel demo`: runs the whole system on loopback under traffic whose true counts are known."""

from __future__ import annotations

import math
import os
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from connectors.embedded import EmbeddedBroker, EmbeddedValkey, own_redis
from connectors.ports import free_ports, free_run
from connectors.redis import Client, connect
from flows.collector.dialects import load_dialects
from flows.collector.from_settings import signatures_of
from flows.collector.tag_answers import curl
from flows.compile import compiled
from flows.demo.alerts import News, Watch, lines, report, start
from flows.demo.door import Door
from flows.demo.feeds import Feeds
from flows.demo.past import AHEAD, ARCHIVE, BLOCKED, OVER, archived, past_of
from flows.demo.plays import HOSTS, Scene
from flows.demo.processes import Processes
from flows.demo.produce import ENDING, Simulator
from flows.demo.steps import Steps
from flows.demo.summary import collected, compare, compare_calls, ledger_totals, ready
from flows.errors import DifferencesError
from flows.settings import PREFIX, Settings, load
from flows.simulate import Traffic, now_ms, write_plans
from flows.viewers.access import LOCAL_TOKEN
from flows.viewers.columns import FIELDS
from flows.viewers.reader import RowsReader
from flows.viewers.top import PLAIN_WIDTH
from flows.viewers.top_lines import render

DRAIN_S: Final = 60.0
"""The longest time, in s, for which the summary waits until the flow has received all messages."""
READY: Final = timedelta(minutes=5)
"""The longest time, on a busy machine, for the flow to start and to count the past."""
OUT_OF_ORDERNESS: Final = timedelta(seconds=70)
"""The bound of disorder of the demo's flow. Some players' clocks are ahead, and the flow accepts up to a
minute. With the usual 10 s the watermark would be most of a minute ahead of the clock, and flights would be
judged by impressions yet to come.
"""
SILENT_HISTORY: Final = timedelta(seconds=15)
"""The history that a feed needs before it can be silent, short so that a demo shows a lost feed within
minutes.
"""
RESTARTS: Final = "1000"
"""The number of restarts, so high that the flow comes back whenever a viewer kills it or stops its Kafka."""
DOOR_RATE: Final = 50.0
"""The calls of the collector in one second. They are never more than half of all pixels."""
MIN_ROWS: Final = 10
"""The least number of placements on a low terminal, where the addresses above them scroll away."""
FIRST: Final = {"placement": "my-first-pixel", "campaign": "my-campaign"}
"""The placement of the pixel that a viewer may send by hand."""
TABLE_LINES: Final = 7
"""The lines of the live table that are not placements."""

CATCHES_UP_MS: Final = 50_000
"""The age up to which traffic from the past's end on is still sent, in ms. Older traffic begins anew."""
ENDING_S: Final = ENDING.total_seconds() + 5
"""The longest time, in s, for which producers end while Kafka is away."""

FIRES_WITHIN: Final = timedelta(seconds=20)
"""The time of traffic after which the starved placement's alert fires within seconds."""


@dataclass
class Demo:
    """A run of the demo.

    Args:
        seconds: the seconds of traffic before the summary; None for traffic until Ctrl-C.
        rate: pixels a second, including those through the collector.
        placements, partitions, processes, seed: see `audiopixel demo --help`.
        lose_feed: the seconds of traffic until the simulator's producer ends; None if it goes on.
    """

    seconds: float | None
    rate: float
    placements: int
    partitions: int
    processes: int
    seed: int
    lose_feed: float | None = None

    def run(self) -> None:
        """Run the demo.

        Raises:
            DifferencesError: Redis differs from the truth at the end of a bounded run.
            AudiopixelError: a part did not start, or ended.
        """
        plain = not sys.stderr.isatty() and "COLUMNS" not in os.environ
        console = Console(stderr=True, width=PLAIN_WIDTH if plain else None)
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="audiopixel-demo-")))
            use_own_settings(directory)
            console.print("audiopixel demo: on loopback, with settings and a key of its own, not yours")
            steps = Steps(console, 3 if compiled() else 4)
            with steps.step("start a Kafka-protocol broker and a Valkey"):
                broker = stack.enter_context(EmbeddedBroker())
                valkey = stack.enter_context(EmbeddedValkey(binary=own_redis()))
            token, reader = secrets.token_hex(16), f"{LOCAL_TOKEN}.{secrets.token_urlsafe(16)}"
            settings = self._settings(broker.bootstrap, valkey.url, directory, token, reader)
            processes = Processes(
                settings, directory, lambda text: console.print(Text(text, "bold"), soft_wrap=True)
            )
            stack.callback(processes.end)
            # The compiler gets the second core while the past is written.
            compiling = None if compiled() else processes.start("compiler", "compile", "--redis", valkey.url)
            also = settings.kafka_alerts_topic, settings.kafka_methodology_topic
            for topic in (*settings.output_topics, *also):
                broker.create_topic(topic, 1)
            broker.create_topic(settings.kafka_topic, self.partitions)
            (exporter_port,) = free_ports(1)
            page = f"http://127.0.0.1:{exporter_port}"
            # The exporter loads while the past is written. Viewers do not have its address yet.
            processes.start("exporter", "exporter", "--port", str(exporter_port), again=True)
            with steps.step("write an archive of the hours before"):
                booked, past = past_of(self._traffic(now_ms()))
                write_plans(directory / "plans.csv", booked)
                broker.begin_at(settings.kafka_topic, archived(past, directory, settings.kafka_topic))
            # A pause between the past and the present would be a silence of every feed.
            behind_ms = now_ms() - past.to_ms
            traffic = past.traffic if behind_ms < CATCHES_UP_MS else self._traffic(now_ms())
            traffic.ledger.add(past.tally)
            simulator = Simulator(settings, traffic)
            client = connect(valkey.url, timeout=settings.redis_timeout)
            stack.callback(client.close)
            if compiling is not None:
                with steps.step("compile kernels, 45 s of one core, this once"):
                    processes.finish(compiling, stopping, READY)
            with steps.step("start the flow from the archive, and the collector"):
                watching = partial(start, stack, directory, client, settings, exporter_port, reader)
                wanted = past.tally.totals["received"] + simulator.sent
                watch = self._go_live(processes, settings, client, stopping, wanted, watching)
            if stopping.is_set():
                return
            processes.start("archive", "archive", "--to", str(directory / ARCHIVE), again=True)
            scene = Scene(load_dialects(None), signatures_of(settings), f"adserver.{token}", self.seed)
            door = Door(settings.collect_port, scene, min(DOOR_RATE, self.rate / 2))
            # The flights of the door's placements begin with their first calls, which begin after the flow.
            write_plans(directory / "plans.csv", booked + door.plans(now_ms(), AHEAD))
            stage = Stage(settings, client, watch, processes, stopping, simulator, door)
            head: list[RenderableType] = [
                f"[bold]{self.rate:,.0f} pixels/s[/bold], live page {page}/login#token={reader}",
                _addresses(
                    terminal=f"export AUDIOPIXEL_REDIS_URL={valkey.url}\n{command()} top",
                    documents=f"{page}/docs/",
                    metrics=f"{page}/metrics/placements (Authorization: Bearer, with the token above), "
                    f"flow :{settings.metrics_port}/metrics",
                    collector=f"{settings.collect_url}/p, :{settings.collect_health_port}/metrics",
                    kafka=f"{broker.bootstrap}, {self.partitions} partitions; redis {valkey.url}",
                    alerts=watch.where,
                ),
            ]
            self._show(stage, console, head)

    def _go_live(
        self,
        processes: Processes,
        settings: Settings,
        client: Client,
        stopping: threading.Event,
        wanted: int,
        watching: Callable[[], Watch],
    ) -> Watch:
        """Start all other processes, and wait until the flow has received `wanted` messages."""
        processes.start("flow", "run", "--processes", str(self.processes), "--restarts", RESTARTS)
        # The collector's marks have the present time. The archive is before them, so none of it is late.
        processes.start("collector", "collect")
        watch = watching()
        processes.wait(
            lambda: ledger_totals(client, settings.namespace).get("received", 0) >= wanted,
            stopping, READY, "flow",
        )  # fmt: skip
        processes.wait(lambda: ready(settings), stopping, READY, "collector")
        return watch

    def _settings(self, brokers: str, redis_url: str, directory: Path, token: str, reader: str) -> Settings:
        ports = free_ports(2)
        return load(
            kafka_brokers=brokers,
            kafka_start=f"archive:{directory / ARCHIVE}",
            redis_url=redis_url,
            listener_key=secrets.token_hex(16),
            recovery_dir=directory / "recovery",
            metrics_port=free_run(self.processes),
            plans=directory / "plans.csv",
            out_of_orderness=OUT_OF_ORDERNESS,
            silent_history=SILENT_HISTORY,
            collect_key=secrets.token_hex(16),
            collect_signing_keys={"demo": secrets.token_hex(16)},
            collect_tokens={
                "adserver": {"sha256": _hash(token), "rights": ["write", "debug"]},
                "desk": {"sha256": _hash(token), "rights": ["tag"]},
            },
            collect_token=f"desk.{token}",
            read_tokens={
                LOCAL_TOKEN: {
                    "sha256": _hash(reader.partition(".")[2]),
                    "read_all": True,
                    "rights": ["metrics", "read", "tag"],
                }
            },
            read_session_key=secrets.token_hex(16),
            collect_proxies=["127.0.0.0/8"],
            collect_servers=HOSTS,
            collect_url=f"http://127.0.0.1:{ports[0]}",
            collect_port=ports[0],
            collect_health_port=ports[1],
            collect_spool=directory / "spool",
            collect_drain=timedelta(0),
            archive_port=0,
        )

    def _traffic(self, start_ms: int) -> Traffic:
        rate = max(self.rate - DOOR_RATE, self.rate / 2)
        return Traffic(self.seed, self.placements, rate, start_ms=start_ms, partitions=self.partitions)

    def _show(self, stage: Stage, console: Console, head: list[RenderableType]) -> None:
        traffic = stage.simulator.traffic
        starved = traffic.placements[-1].id if self.placements > 1 else None
        if starved:
            head.append(self.promise(starved))
        console.print(*head, sep="\n")
        head_lines = 2 + len(console.render_lines(Group(*head)))
        if self.seconds is None:  # a bounded run compares only the calls of its own callers
            first = Text(f"a pixel of your own, whose row comes within 2 s:\n{curl(stage.settings, FIRST)}")
            console.print(first, soft_wrap=True)
            head_lines += len(console.render_lines(first))
        failed: list[BaseException] = []
        stop = stage.stopping

        def call() -> None:
            try:
                stage.door.run(self.seconds, stop)
            except BaseException as error:
                failed.append(error)

        calls = threading.Thread(target=call, daemon=True)
        calls.start()
        board = RowsReader(stage.client, stage.settings.namespace, FIELDS)
        news, feeds = News(), Feeds(stage.simulator, console)
        began_s, ended_s = time.monotonic(), math.inf
        with Live(console=console, auto_refresh=False, transient=self.seconds is not None) as live:
            while stage.simulator.running or calls.is_alive():
                elapsed_s = time.monotonic() - began_s
                if self.lose_feed is not None and elapsed_s >= self.lose_feed:
                    feeds.lose()
                if stop.is_set() or elapsed_s >= (self.seconds or math.inf):
                    stage.simulator.end()
                    ended_s = min(ended_s, elapsed_s)
                if stop.is_set() and elapsed_s > ended_s + ENDING_S:
                    break
                if failed:
                    raise failed[0]
                firing, snapshot = stage.watch.firing(), board.refresh()
                feeds.look(snapshot)
                if not console.is_terminal:
                    for line in lines(news.unreported(firing)):
                        console.print(line, soft_wrap=True)
                else:
                    alerts = lines(firing)
                    height = console.height - len(alerts)
                    height = max(height - head_lines, min(height - 1, MIN_ROWS + TABLE_LINES))
                    live.update(
                        Group(render(snapshot, time.time(), console.width, height), *alerts), refresh=True
                    )
                calls.join(0.5)
                stage.processes.check()
        if self.seconds is not None and not stop.is_set():
            due = starved if self.seconds >= FIRES_WITHIN.total_seconds() else None
            self._summarise(stage, due)

    def promise(self, starved: str) -> str:
        """A line on the states and alerts that a viewer will see."""
        short = self.seconds is not None and self.seconds < FIRES_WITHIN.total_seconds()
        fires = (
            f"too few seconds for its alert, which takes {FIRES_WITHIN.total_seconds():.0f}"
            if short
            else "it is `under`, and its alert fires"
        )
        others = (
            f" pl-{OVER:04} delivers more than is booked, and pl-{BLOCKED:04} runs in content that its plan "
            "blocks. The others are on track."
            if self.placements > OVER + 1
            else ""
        )
        states = f"{starved} is starved: {fires}.{others} Those named door-… call the collector."
        if self.lose_feed is None:
            return states
        return (
            f"{states} After {self.lose_feed:,.0f} s the producer of all but the door-… placements ends. "
            "Within minutes a banner names their platforms as silent, their rows are not judged, and no "
            "alert of them begins."
        )

    def _summarise(self, stage: Stage, starved: str | None) -> None:
        settings, client, door = stage.settings, stage.client, stage.door
        truth = stage.simulator.traffic.ledger
        truth.add(door.tally)
        sent = truth.totals["received"]
        deadline_s = time.monotonic() + DRAIN_S
        while ledger_totals(client, settings.namespace).get("received", 0) < sent:
            if time.monotonic() > deadline_s:
                break
            time.sleep(0.2)
        # A message that timed out on the way to Kafka may be twice in the log. The last copies arrive now.
        time.sleep(2 + 2 * settings.flush_interval.total_seconds())
        totals = ledger_totals(client, settings.namespace)
        meta = client.hgetall(f"{settings.namespace}:meta")
        totals["conversions"] = int(meta.get("conversions_accepted", 0))
        watermark_ms = int(meta.get("watermark_ms", 0))
        expected = truth.expected(
            finite=False, watermark_ms=watermark_ms, secret=settings.secret_listener_key()
        )
        calls, wrong = compare_calls(door, collected(settings))
        doors = frozenset(door.scene.placements)
        table, differences = compare(expected, totals, client, settings.namespace, doors)
        Console().print(calls, table, *report(stage.watch, starved), sep="\n")
        if differences + wrong:
            raise DifferencesError(f"{differences + wrong} numbers differ from the simulator's ledger")


@dataclass(frozen=True)
class Stage:
    """The parts that run during the demo."""

    settings: Settings
    client: Client
    watch: Watch
    processes: Processes
    stopping: threading.Event
    simulator: Simulator
    door: Door


def _hash(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def use_own_settings(directory: Path) -> None:
    """Remove the user's settings from this process and its children: they name another Kafka and Redis.

    Args:
        directory: the directory for an empty file that replaces `audiopixel.toml`.
    """
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    empty = directory / "audiopixel.toml"
    empty.touch()
    os.environ[f"{PREFIX}CONFIG"] = str(empty)


def command() -> str:
    """The path of the command from this directory, since `audiopixel` is seldom on the PATH."""
    path = Path(sys.executable).with_name("audiopixel")
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _addresses(**values: str) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in values.items():
        table.add_row(f"  {name}", value)
    return table
