"""The processes of the flow: its own dataflow, on the simulated input, outputs, clocks and Redis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from flows.engine import LinesSink, PixelSource, Place, RedisSink, StopSignal
from flows.engine.save_threads import Defer
from flows.intake import DenyList
from flows.pixels import Sinks, build
from flows.publish import Covered, ShownRows
from flows.settings import Settings
from flows.settings.loading import load
from simulation.checker import NAMESPACE
from simulation.engine import Step, steps_of
from simulation.history import BOUND_MS, LATENESS_MS
from simulation.log import Log
from simulation.seams import SeamedLog
from simulation.topics import Topic, TopicWriter
from simulation.world import KEY, TIME, World


@dataclass
class Member:
    """A process of the flow. Its dataflow is wired once, because Bytewax's operators take 30 ms; each
    execution rebuilds its parts in place.
    """

    settings: Settings
    source: PixelSource
    sinks: Sinks
    covered: Covered
    shown: ShownRows
    steps: Mapping[str, Step] = field(default_factory=dict)

    @classmethod
    def wired(cls, shards: int) -> Member:
        """A member that waits for its first execution."""
        settings = base_settings().model_copy(update={"shards": shards})
        source = PixelSource.__new__(PixelSource)
        source.listener_key = KEY
        lines = [LinesSink(lambda _: None) for _ in range(3)]  # type: ignore[arg-type,return-value]  # rebuilt
        sinks = Sinks(RedisSink(settings, None), *lines)  # type: ignore[arg-type]  # rebuilt
        member = cls(settings, source, sinks, Covered.__new__(Covered), ShownRows(settings))
        member.steps = steps_of(build(source, sinks, settings, member.covered, member.shown))
        return member

    def begin(
        self, settings: Settings, outside: Outside, stop: StopSignal, place: Place, defer: Defer
    ) -> None:
        """Rebuild all parts for an execution, at its place among the processes."""
        log, recompute = outside.log, outside.recompute
        self.settings.__dict__.clear()
        self.settings.__dict__.update(settings.__dict__)
        denied = DenyList(self.settings, TIME.monotonic)
        more: Any = {"ahead": False, "defer": defer, "place": place}
        self.source.__init__(log, self.settings, KEY, stop, denied, **more)  # type: ignore[misc]
        self.covered.__init__(self.settings, recompute, TIME.monotonic)  # type: ignore[misc]
        self.shown.__init__(self.settings, recompute)  # type: ignore[misc]
        self.sinks.redis.__init__(  # type: ignore[misc]
            self.settings,
            log,
            recompute,
            process=place.member,
            pace=outside.pace,
            clock_s=TIME.time,
            monotonic_s=TIME.monotonic,
            stop=stop,
            in_line=True,
            store_descriptions=lambda *_: None,  # by a thread, which no seed would know of
        )
        for sink, topic in zip(
            (self.sinks.rejected, self.sinks.minutes, self.sinks.credits), outside.topics, strict=True
        ):
            assert sink is not None
            sink.open_writer = outside.opener(topic)


@dataclass
class Outside:
    """The common parts of a history's executions: the input, the outputs, and their start."""

    world: World
    log: Log | SeamedLog
    topics: tuple[Topic, ...]
    recompute: bool
    pace: timedelta

    def opener(self, topic: Topic) -> Callable[[int | None], Any]:
        return lambda _: TopicWriter(self.world, topic)


_members: dict[int, list[Member]] = {}
_settings: list[Settings] = []


def base_settings() -> Settings:
    """The settings of every execution, but for what a history says."""
    if not _settings:
        _settings.append(
            load(
                namespace=NAMESPACE,
                allowed_lateness=timedelta(milliseconds=LATENESS_MS),
                out_of_orderness=timedelta(milliseconds=BOUND_MS),
                linger=timedelta(0),
                minutes_interval=timedelta(seconds=1),
                save_interval=timedelta(seconds=2),
                batch_messages=16,
                metrics_port=0,
                recovery_dir=None,
            )
        )
    return _settings[0]


def members(number: int, shards: int) -> list[Member]:
    """The processes of a flow of so many shards."""
    found = _members.setdefault(shards, [])
    while len(found) < number:
        found.append(Member.wired(shards))
    return found[:number]
