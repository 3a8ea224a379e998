"""A chaos run: its faults, the observation meanwhile, and the verdict."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from redis import RedisError

from benchmarks.chaos_archive import Archive, against_the_archive
from benchmarks.chaos_bugs import BUGS, OF_THE_SOURCE
from benchmarks.chaos_door import Door
from benchmarks.chaos_services import (
    OTHER_OUTPUTS,
    ROOT,
    SETTINGS,
    Broker,
    Flow,
    Store,
    WallClock,
    compile_kernels,
    until,
)
from benchmarks.chaos_source import (
    LETTERS,
    TOPIC,
    Ledger,
    Source,
    against_the_topic,
    pixels_in,
    rejected_in,
)
from benchmarks.chaos_source import (
    PARTITIONS as THEIR_PARTITIONS,
)
from benchmarks.chaos_stream import PARTITIONS, Stream, positions
from benchmarks.chaos_verdict import (
    against_the_answers,
    against_the_log,
    messages,
    through_the_door,
    undisturbed,
)
from benchmarks.chaos_watch import HELD_S, Watch
from flows.publish import latest_fence_record
from flows.settings.fields import Settings
from flows.settings.loading import load

WITHIN_S: Final = 120.0
"""For the flow to get to the end of the log after the last fault."""

RESCALES: Final = (2, 4, 1)

DOOR_SHARE: Final = 0.15
"""Of the rate, beside the stream's: calls of players."""
SOURCE_SHARE: Final = 0.1
"""Of the rate, beside these: messages of a topic of another shape."""

ARCHIVE_KILL_EVERY_S: Final = 8.0
"""The mean time between two kills of the archive's writer."""

LATENESS_CHANGED: Final = "lateness_changed"
"""A fault of runs of its own: which pixels are late is then known by the dead letters alone."""
INTERVALS: Final = ("PT0.5S", "PT2S", "PT1S")
LATENESSES: Final = ("PT1M", "PT30S", "PT45S")
STEPS_S: Final = (-3600.0, 3600.0, -86_400.0, 7200.0, 0.0)
MIN_START_S: Final = 0.5
"""No flow writes sooner after its start: what is seen sooner was written by the one before."""
SHOWN: Final = 60
"""Findings that are printed."""
FLUSHES: Final = 3
"""How often Redis is emptied by a command in a row."""


@dataclass(frozen=True)
class Plan:
    """The plan of a run.

    Attributes:
        seed: of traffic and faults.
        seconds: of traffic, which goes on until all faults are over.
        rate: pixels a second.
        faults: how often each, by its method's name in `Chaos`.
        door_faults: how often collectors are killed or stopped, beside, and as often the source.
        embedded: use the embedded broker although Apache Kafka is there.
        bug: one of `BUGS`, or `OF_THE_SOURCE`; None: none.
        keep: directory to make, for the log, the recovery stores and what the flow said; None: keep nothing.
    """

    seed: int
    seconds: float
    rate: float
    faults: dict[str, int]
    door_faults: int
    embedded: bool
    bug: str | None
    keep: Path | None


class Chaos:
    """A chaos run."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._faults = [name for name, times in plan.faults.items() for _ in range(times)]
        self._random = random.Random(plan.seed)
        self._rescales, self._intervals = cycle(RESCALES), cycle(INTERVALS)
        self._latenesses = cycle(LATENESSES)
        self._done: Counter[str] = Counter()
        self._killed = 0
        self._lasted_s = 0.0
        self._dead_fence = 0
        self._stops: list[float] = []
        self._refilling = False

    def run(self) -> bool:
        """Do it and print the report; returns True if nothing was lost, counted twice or seen to fall.

        Raises:
            AssertionError: the flow did not start, stop or catch up in time.
        """
        compile_kernels()
        with ExitStack() as stack:
            directory = self._plan.keep or Path(
                stack.enter_context(TemporaryDirectory(prefix="audiopixel-chaos-"))
            )
            directory.mkdir(parents=True, exist_ok=self._plan.keep is None)
            self._broker, self._store = Broker(directory, self._plan.embedded), Store(directory)
            stack.callback(self._broker.stop)
            stack.callback(self._store.stop)
            self._broker.start()
            self._store.start()
            self._client: Any = self._store.client()
            ours = SETTINGS | {
                "KAFKA_BROKERS": self._broker.brokers,
                "REDIS_URL": self._store.url,
                "RECOVERY_DIR": str(directory / "recovery"),
            }
            others = ours | OTHER_OUTPUTS | {"RECOVERY_DIR": str(directory / "undisturbed")}
            # As the flow has them.
            self._settings, other = (
                load(**{name.lower(): value for name, value in one.items()}) for one in (ours, others)
            )
            outputs = [topic for one in (self._settings, other) for topic in one.output_topics]
            theirs = {TOPIC: THEIR_PARTITIONS, LETTERS: 1}
            self._broker.create(
                {self._settings.kafka_topic: PARTITIONS, **dict.fromkeys(outputs, 1), **theirs}
            )
            plan = self._plan
            self._stream = Stream(self._settings, plan.seed, plan.rate)
            self._door = Door(
                ours, directory, plan.seed, plan.seconds, DOOR_SHARE * plan.rate, plan.door_faults
            )
            stack.callback(self._door.close)
            self._archive = Archive(ours, directory, plan.seed, ARCHIVE_KILL_EVERY_S)
            stack.callback(self._archive.close)
            self._source = Source(
                ours, directory, plan.seed, plan.seconds, SOURCE_SHARE * plan.rate, plan.door_faults
            )
            stack.callback(self._source.close)
            self._clock = WallClock(directory)
            self._flow = Flow(ours, directory / "flow.log", self._clock.environment)
            second = Flow(others, directory / "undisturbed.log")
            stack.callback(self._flow.close)
            stack.callback(second.close)
            self._watch = Watch(self._settings, self._stream, self._store.client(), self._healthy, self._say)
            try:
                return self._judge(directory, self._play(directory), second, other)
            except AssertionError:
                for log in directory.glob("*.log"):
                    print(log.name, *log.read_text(errors="replace").splitlines()[-25:], sep="\n  ")
                raise

    def _judge(self, directory: Path, seen: list[dict[str, Any]], second: Flow, other: Settings) -> bool:
        brokers, one_lateness = self._broker.brokers, LATENESS_CHANGED not in self._plan.faults
        events, differences = against_the_log(
            self._settings, self._client, brokers, directory, self._stream.closed_ms, one_lateness
        )
        stored, answered = through_the_door(directory), self._door.answered
        straight = events - stored.total()
        if straight != self._stream.sent:
            differences.append(f"the topic holds {straight} messages, {self._stream.sent} were sent")
        self._archive.end()
        differences += against_the_archive(self._archive.place, self._settings, self._client, brokers)
        row = f"{self._settings.namespace}:placement:{{%s}}"
        differences += against_the_answers(answered, stored, lambda name: self._client.hgetall(row % name))
        ledger, wrong = against_the_topic(
            self._source.foreign.sent,
            pixels_in(directory),
            rejected_in(brokers),
            sum(self._source.places().values()),
            lambda name: self._client.hgetall(row % name),
        )
        differences += wrong
        if self._watch.held_s > HELD_S:
            differences.append(f"the watermark was {self._watch.held_s:.0f} s behind, more than {HELD_S:.0f}")
        if one_lateness:
            second.start(1)
            self._wait_for_the_end(other)
            second.stop()
            differences += undisturbed(self._settings, other, self._client, brokers)
        summary, steps = seen.pop(), [one for one in seen if "what" in one]
        stored_again = stored.total() - len(stored) - ledger.stored_again
        self._report(events, len(answered), stored_again, ledger, summary, steps, differences)
        return not (differences or summary["findings"])

    def _report(
        self,
        events: int,
        answered: int,
        stored_again: int,
        ledger: Ledger,
        summary: Mapping[str, Any],
        steps: Sequence[Mapping[str, Any]],
        differences: Sequence[str],
    ) -> None:
        """Print the run.

        Args:
            events: of the topic.
            answered: events that the collectors answered as stored.
            stored_again: events that the log has once more each, for the flow to count once.
            ledger: of the source's topic.
            summary, steps: by the monitor.
        """
        watch, recovered_s = self._watch, self._watch.recovered_s
        faults = self._done + self._door.done + self._source.done + self._archive.done
        print(f"broker: {self._broker.name}")
        print(f"events: {events:,} on {PARTITIONS} partitions in {self._lasted_s:.0f} s")
        print(f"faults: {', '.join(f'{name} {times}' for name, times in sorted(faults.items()))}")
        print(f"kills: {self._killed} processes of the flow")
        print(
            f"collectors: {answered:,} events answered as stored, {self._door.again:,} calls sent again, "
            f"{stored_again:,} events stored again"
        )
        print(
            f"source: read {ledger.read:,} = pixels {ledger.pixels:,} + not ours {ledger.not_ours:,} "
            f"+ rejected {ledger.rejected:,}; {ledger.stored_again:,} pixels stored again"
        )
        if recovered_s:
            print(f"first flush: {sum(recovered_s) / len(recovered_s):.1f} s behind a kill, in the mean")
        stops = self._stops
        print(f"stops: {len(stops)} by SIGTERM, all with code 0, the longest {max(stops):.1f} s")
        print(f"longest time to catch up: {watch.longest_s:.1f} s")
        print(f"watermark: at most {watch.held_s:.1f} s behind, beside time without a flow or a broker")
        print("read meanwhile: {rows:,} rows in {polls:,} polls, {unanswered} not answered".format(**summary))
        print(
            "read through the client: {client_reads:,} rows, {client_usable:,} of them usable, "
            "at most {client_behind_s:.1f} s behind".format(**summary)
        )
        print(f"backward steps seen: {summary['findings']}")
        print(*(f"  {json.dumps(one)}" for one in steps[:SHOWN]), sep="\n", end="\n" if steps else "")
        print(f"differences: {len(differences)}")
        print(*(f"  {one}" for one in differences[:SHOWN]), sep="\n", end="\n" if differences else "")

    # The play

    def _play(self, directory: Path) -> list[dict[str, Any]]:
        """From the first event to the last stop; returns what the monitor said, its summary last."""
        with (directory / "monitor.ndjson").open("wb") as watched:
            self._monitor = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.chaos_monitor", self._store.url, self._settings.namespace],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=watched,
            )
        try:
            self._door.open()
            self._source.open()
            self._flow.start(1)
            until(lambda: bool(self._watch.meta()), WITHIN_S, "the flow did not start")
            self._stream.start()
            self._door.start()
            self._archive.start()
            self._source.foreign.start()
            self._source.start()
            self._watch.start()
            self._break_things()
            self._stream.end()
            self._door.end()
            self._source.end()
            self._stream.close()
            self._all()
            self._done["all after the last event"] += 1
            self._wait_for_the_end(self._settings)
            self._stop()  # while it is watched: that is how it is known to be well
        finally:
            self._watch.end()
            assert self._monitor.stdin is not None
            self._monitor.stdin.close()
            self._monitor.wait(30)
        return [json.loads(line) for line in (directory / "monitor.ndjson").read_text().splitlines()]

    def _break_things(self) -> None:
        """All faults, at random moments of the plan's time, or later where the machine is slow."""
        began_s = time.monotonic()
        self._random.shuffle(self._faults)
        moments = sorted(self._random.uniform(0.05, 0.95) * self._plan.seconds for _ in self._faults)
        if self._plan.bug is not None:
            # First of all: what it does to the log's end, on a slow machine, would be another bug.
            self._faults.insert(0, "doubted")
            moments.insert(0, moments[0] if moments else 0.0)
        for moment_s, fault in zip(moments, self._faults, strict=True):
            time.sleep(max(0.0, moment_s - (time.monotonic() - began_s)))
            if self._stream.failed is not None:
                return
            if fault in ("broker_killed", "broker_hangs", "partition_added") and not self._broker.durable:
                continue
            self._say(f"{fault} begins")
            getattr(self, f"_{fault}")()
            self._say(f"{fault} is over")
            self._done[fault.replace("_", " ")] += 1
        time.sleep(max(0.0, self._plan.seconds - (time.monotonic() - began_s)))
        self._lasted_s = time.monotonic() - began_s

    # Faults

    def _all(self) -> None:
        until(self._alive, WITHIN_S, "there was no flow to kill")
        self._about_to_die()
        with self._flow.dead() as killed:
            self._killed += killed
            self._watch.killed_s = time.monotonic()

    def _one(self) -> None:
        """Any process, the supervisor too."""
        until(self._alive, WITHIN_S, "there was no flow to kill")
        self._about_to_die()
        if family := self._flow.family():
            self._killed += self._flow.kill([self._random.choice(family)])
            self._watch.killed_s = time.monotonic()

    def _again_while_starting(self) -> None:
        self._all()
        time.sleep(self._random.uniform(0.3, 5.0))
        self._all()

    def _broker_killed(self) -> None:
        self._watch.unproven = True
        self._door.strike.set()
        self._broker.kill(self._random.uniform(0.0, 4.0))
        self._watch.unproven = False

    def _broker_hangs(self) -> None:
        self._watch.unproven = True
        self._door.strike.set()
        self._broker.hang(self._random.uniform(0.5, 4.0))
        self._watch.unproven = False

    def _redis_emptied(self) -> None:
        healthy = self._healthy()
        self._tell("emptied 1")
        with self._store.emptied():
            if not healthy:
                self._tell("forget")  # not before: the monitor would see the old rows again
            time.sleep(self._random.uniform(0.0, 3.0))
        self._refilling = healthy

    def _redis_refuses(self) -> None:
        self._store.refuse(self._random.uniform(0.5, 3.0))

    def _redis_hangs(self) -> None:
        self._store.hang(self._random.uniform(1.0, 5.0))

    def _redis_full(self) -> None:
        self._store.fill(self._random.uniform(1.0, 4.0))

    def _redis_read_only(self) -> None:
        self._store.demote(self._random.uniform(1.0, 4.0))

    def _rolled(self) -> None:
        """SIGTERM and start, as on an upgrade."""
        self._restart(self._flow.processes)

    def _rescaled(self) -> None:
        self._restart(next(self._rescales))

    def _clock_stepped(self) -> None:
        """The wall clock of all processes is set, and that of every second one by an hour more."""
        self._clock.set(self._random.choice(STEPS_S), self._random.choice((0.0, 3600.0)))

    def _redis_flushed(self) -> None:
        """Emptied by a command, in the midst of flushes."""
        until(self._healthy, WITHIN_S, "the flow did not come to itself")
        self._tell(f"emptied {FLUSHES}")
        self._store.flush_within_flushes(FLUSHES, f"{self._settings.namespace}:positions", self._random)
        self._refilling = True

    def _interval_changed(self) -> None:
        """Stopped, and started with ticks of another length."""
        self._flow.set({"FLUSH_INTERVAL": next(self._intervals)})
        self._restart(self._flow.processes)

    def _lateness_changed(self) -> None:
        """Stopped, and started with another allowed lateness."""
        self._flow.set({"ALLOWED_LATENESS": next(self._latenesses)})
        self._restart(self._flow.processes)

    def _partition_added(self) -> None:
        """Add a partition while no flow, collector or source runs. If an event is in two partitions, no log
        determines which one counts.
        """
        self._stop()
        with self._door.shut(), self._source.shut():
            number = self._broker.add_partition(self._settings.kafka_topic)
        self._flow.start(self._flow.processes)
        until(self._healthy, WITHIN_S, "the flow did not come to itself")
        self._stream.begin_partition(number)

    def _doubted(self) -> None:
        """A bug, to see this harness bark."""
        assert self._plan.bug is not None
        if self._plan.bug == OF_THE_SOURCE:
            self._source.store_early()
            return
        until(self._healthy, WITHIN_S, "the flow did not come to itself")
        time.sleep(3 * self._settings.save_interval.total_seconds())  # there are snapshots
        self._about_to_die()
        with self._flow.dead():
            BUGS[self._plan.bug](self._settings)

    def _restart(self, processes: int) -> None:
        self._stop()
        self._flow.start(processes)

    def _stop(self) -> None:
        until(self._healthy, WITHIN_S, "the flow did not come to itself")
        self._stops.append(self._flow.stop())
        self._dead_fence = latest_fence_record(self._settings.recovery_dir).fence

    def _about_to_die(self) -> None:
        """A flow that dies before it has filled Redis again takes with it what readers had seen."""
        if self._refilling and not self._watch.meta():
            self._tell("forget")
        self._refilling = False
        self._dead_fence = latest_fence_record(self._settings.recovery_dir).fence

    # What is so

    def _say(self, what: str) -> None:
        """Into the flow's own log, so that it can be read as one story."""
        self._flow.note(f"chaos: {what}")

    def _tell(self, order: str) -> None:
        assert self._monitor.stdin is not None
        self._say(f"the monitor is told: {order}")
        self._monitor.stdin.write(order.encode() + b"\n")
        self._monitor.stdin.flush()
        time.sleep(0.2)

    def _alive(self) -> bool:
        """Whether there is a flow: on a busy machine the one that was killed last may not be there again."""
        assert not self._flow.refused, "the flow refuses its recovery store"
        return bool(self._flow.family())

    def _healthy(self) -> bool:
        """Whether the present flow writes, by our clock: its own may be set. A dead one's last flush is not
        taken for one of its own, however late it is seen.
        """
        assert not self._flow.refused, "the flow refuses its recovery store"
        recent = 0 < time.monotonic() - self._watch.flushed_s < 3.0
        started = self._watch.flushed_s > self._flow.launched_s + MIN_START_S
        return recent and started and self._watch.fence > self._dead_fence

    def _wait_for_the_end(self, settings: Settings) -> None:
        """Until rows of the whole log are shown, at the closing pixels' watermark."""

        topic = self._settings.kafka_topic  # no process writes to it any more
        written = sum(1 for _ in messages(self._broker.brokers, topic))

        def ended() -> bool:
            assert not self._flow.refused, "the flow refuses its recovery store"
            with suppress(RedisError):
                shown = sum(positions(self._client, settings.namespace, self._stream.partitions).values())
                watermark_ms = int(self._client.hget(f"{settings.namespace}:meta", "watermark_ms") or 0)
                return shown >= written and watermark_ms >= self._stream.closed_ms
            return False

        until(ended, WITHIN_S, "the flow did not get to the end of the log")
