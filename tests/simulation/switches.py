"""Switches by seeds: two flows over one Redis and one log, and somebody who asks them to change places.

The flows are the publisher's own code, with rows made of the log by two rules. Everything of the three runs
from one command of Redis, or write to the disk, to the next; between any two of these another one runs, dies,
or starts again, Redis loses its data, or time passes. A reader polls behind each change.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from connectors.stream import ConnectError
from flows.errors import AudiopixelError
from flows.model.fields import FIELDS, empty
from flows.model.freshness import FLUSH_STALE_S
from flows.model.messages import Flush, PackedRow
from flows.model.redis_keys import recomputation_namespace
from flows.model.ticks import Cut
from flows.publish.fence import latest_fence_record
from flows.publish.layout import LAYOUTS
from flows.publish.publisher import Publisher
from flows.publish.switching import seated
from flows.recompute.switch import SwitchResult, turn
from flows.settings.fields import Settings
from simulation.actors import Actor, Actors
from simulation.disk import Disk
from simulation.play import MEMORY, playing, simulated
from simulation.redis_client import Client, Server
from simulation.redis_store import Store
from simulation.world import T0_MS, TIME, Fault, Wrong

NAMESPACE: Final = "live"
NAME: Final = "again"
BESIDE: Final = recomputation_namespace(NAMESPACE, NAME)
ROWS: Final = tuple(f"p{number}" for number in range(6))
PLACEMENT: Final = "placement"
MS_A_MESSAGE: Final = 100
STEPS: Final = 1_000
CALM_INTERVAL_MS: Final = 4_000
QUIET_MS: Final = 120_000
"""So long nothing goes wrong any more: a claim that nobody follows up is taken back within 30 s, and a flow
that Redis sends away comes back within 15 s.
"""
STALE_MS: Final = FLUSH_STALE_S * 1000
REDIS: Final = ("before", "part", "after", "stall", "emptied")
STARTS: Final = ("at the same moment", "took over", "holds generation")
FIGURES: Final = (
    "seeds",
    "failures",
    "steps",
    "polls",
    "crashes",
    "starts",
    "losses",
    "switches",
    "confirmed",
    "undecided",
)


class Rule:
    """One of two ways to count: the rows at any position of the log.

    Args:
        number: of the flow, in each of its rows.
        messages: of each the row's name, whether it ends the row, and which flows count it.
    """

    def __init__(self, number: int, messages: list[tuple[str, bool, tuple[int, ...]]]) -> None:
        self.number, self._messages = number, messages
        self._states: list[dict[str, int]] = [{}]
        self._counts: Counter[str] = Counter()

    def at(self, place: int) -> dict[str, int]:
        """Count by name."""
        while len(self._states) <= place:
            name, ends, of = self._messages[(len(self._states) - 1) % len(self._messages)]
            state = self._states[-1]
            if self.number in of:
                self._counts[name] += 1
                state = {**state, name: self._counts[name]}
                if ends:
                    del state[name]
            self._states.append(state)
        return self._states[place]

    def row(self, name: str, count: int, place: int) -> PackedRow:
        """A row whose fields agree."""
        values = empty(T0_MS)
        for of in ("flight.impressions", "flight.starts"):
            values[FIELDS.index(of)] = self.number * 1_000_000 + count
        return PackedRow(PLACEMENT, name, T0_MS + place, LAYOUTS["row"].pack(values))


@dataclass
class Flow:
    """One of two flows, over its processes.

    Attributes:
        saved: the place of the log with which the next process begins; None: no save.
        actor: its process; None: it is down.
    """

    play: Play
    number: int
    at: str | None
    rule: Rule
    interval_ms: int
    directory: Path
    disk: Disk
    saved: int | None = None
    actor: Actor | None = None
    publisher: Publisher | None = None
    last: int = 0

    def run(self) -> None:
        """A process, from its start on."""
        values: dict[str, Any] = {"namespace": NAMESPACE, "recovery_dir": self.directory, "row_ttl": "PT1H"}
        begun = False
        try:
            settings = seated(Settings(**values, rows_namespace=self.at))
            publisher = self.publisher = Publisher(
                settings,
                ["log"],
                self.saved is not None,
                switches=True,
                monotonic_s=TIME.monotonic,
                methodology=lambda _: str(self.number),
            )
            publisher.open()
            begun = True
            self.play.begun.add(self.actor)
            self._go_on(publisher)
        except ConnectError as error:
            if begun:
                raise
            self.play.world.tell(f"flow {self.number} does not start: {error}")

    def _go_on(self, publisher: Publisher) -> None:
        world, place = self.play.world, self.saved or 0
        shown = dict.fromkeys(ROWS, 0)  # a row may have ended since the save, or begun and ended
        while True:
            TIME.sleep((CALM_INTERVAL_MS if world.calm else self.interval_ms) / 1000)
            head = self.play.head()
            if place < head:
                place = head if world.calm else world.random.randint(place + 1, head)
                state = self.rule.at(place)
                changed = [name for name, count in state.items() if shown.get(name) != count]
                rows = [self.rule.row(name, state[name], place) for name in changed]
                ended = [(PLACEMENT, name) for name in shown if name not in state]
                cut = Cut(
                    place, T0_MS + place * MS_A_MESSAGE, False, (("log", place),), counted_since_ms=T0_MS
                )
                publisher.flush(cut, [Flush(0, cut, rows, ended=ended)])
                shown, self.last = state, place
                if not publisher.backlog.waits and publisher.takes and world.random.random() < 0.3:
                    self.saved = place


@dataclass
class Play:
    """The history of a seed while it is played."""

    seed: int
    wrong: str = ""
    figures: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.source = random.Random(f"switches of {self.seed}")
        self.world = TIME.world = Actors(self.source.getrandbits(32))
        self.store = Store(lambda: self.world.now_ms, self._changed)
        self.server = Server(self.world, self.store)
        self.client: Any = Client(self.server)
        self.directory = Path(tempfile.mkdtemp(prefix="switched-", dir=MEMORY))
        messages = [self._message() for _ in range(self.source.choice((10, 50, 300)))]
        self.flows = [self._flow(number, messages) for number in (1, 2)]
        self.turner: Actor | None = None
        self._readers_disk = Disk(self.world)
        self._losses = 0
        self._generation = 0
        self._of: dict[int, str] = {}
        self._shown: set[int] = set()
        self.begun: set[Actor | None] = set()
        self._counts: dict[tuple[int, str], int] = {}
        # Some histories are calm, others not.
        self._deadly = self.source.choice((0.0, 0.002, 0.01, 0.03))
        self._faulty = self.source.choice((0.0, 0.0, 0.005, 0.02))
        self._lossy = self.source.choice((0.0, 0.0, 0.002))
        self._eager = self.source.choice((0.005, 0.02, 0.1))
        self._asleep = self.source.choice((0.0, 0.002, 0.01))

    def _message(self) -> tuple[str, bool, tuple[int, ...]]:
        source = self.source
        return source.choice(ROWS), source.random() < 0.1, source.choice(((1, 2), (1, 2), (1,), (2,)))

    def _flow(self, number: int, messages: list[tuple[str, bool, tuple[int, ...]]]) -> Flow:
        directory = self.directory / str(number)
        interval_ms = self.source.choice((300, 500, 1000, 4000))
        at = None if number == 1 else BESIDE
        return Flow(self, number, at, Rule(number, messages), interval_ms, directory, Disk(self.world))

    @property
    def disk(self) -> Disk:
        """The disk of the flow that writes."""
        running = self.world.running
        return next((flow.disk for flow in self.flows if flow.actor is running), self._readers_disk)

    def close(self) -> None:
        """End what still runs."""
        for actor in (self.turner, *(flow.actor for flow in self.flows)):
            if actor is not None:
                actor.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def head(self) -> int:
        """The end of the log now."""
        return int(self.world.elapsed_ms) // MS_A_MESSAGE

    # Playing

    def run(self) -> None:
        """Play it; what is wrong is in `wrong`."""
        world = self.world
        try:
            for flow in self.flows:
                self._start(flow)
            for _ in range(STEPS):
                self._step()
            self._end_quietly()
        except Wrong as error:
            world.tell(f"Wrong: {error}")
            one, other = (latest_fence_record(flow.directory) for flow in self.flows)
            both = BESIDE not in (one.namespace, other.namespace) and one.generation == other.generation
            if self.server.losses and both:
                self.figures["undecided"] = 1  # docs/open.md: nothing shows any more which of both serves
                self.wrong = ""
            else:
                self.wrong = str(error)
        self.figures["crashes"] = world.crashes
        self.figures["losses"] = self.server.losses

    def _step(self) -> None:
        world = self.world
        chance = world.random.random
        if chance() < 0.03:
            world.elapsed_ms += world.random.choice((10, 100, 1_000))
        if chance() < self._asleep:
            lapse_ms = world.random.choice((5_000, 16_000, 31_000, 31_000, 61_000))
            world.tell(f"{lapse_ms / 1000:.0f} s pass")
            world.elapsed_ms += lapse_ms
        if chance() < self._lossy:
            world.tell("*** Redis loses its data")
            self.server.lose()
        for flow in self.flows:
            if flow.actor is None and chance() < 0.05:
                self._start(flow)
        if self.turner is None and chance() < self._eager:
            self._ask()
        if self.turner is not None and chance() < 0.3 * self._deadly:
            world.tell("*** who asks dies")
            self.turner.kill()
            self.turner = None
        able = self._able()
        if not able:
            self._wait()
            return
        actor = able[int(chance() * len(able))]
        if actor is not self.turner and chance() < self._deadly:
            self._spoil(actor, deadly=True)
        elif chance() < self._faulty:
            self._spoil(actor, deadly=False)
        self._run(actor)

    def _able(self) -> list[Actor]:
        actors = [self.turner, *(flow.actor for flow in self.flows)]
        return [one for one in actors if one is not None and one.due_ms <= self.world.elapsed_ms]

    def _wait(self) -> None:
        actors = [self.turner, *(flow.actor for flow in self.flows)]
        due_ms = [one.due_ms for one in actors if one is not None]
        self.world.elapsed_ms = min(due_ms, default=self.world.elapsed_ms + 100)

    def _spoil(self, actor: Actor, deadly: bool) -> None:
        """Let something happen at the moment at which a process stands."""
        of = self.world.random
        if deadly and of.random() < 0.3:
            self.world.tell(f"*** {actor.name} dies")
            actor.dead = True
            self.world.crashes += 1
            return
        how = of.choice(REDIS[:3] if deadly else REDIS if self._lossy else REDIS[:4])
        redis = Fault("redis", 0, f"crash_{how}" if deadly else how, of.randint(1, 12))
        actor.faults = [redis, Fault("disk", 0, "crash")] if deadly else [redis]

    def _run(self, actor: Actor) -> None:
        """Let a process go on to its next moment; who polls looks whenever rows change."""
        self.figures["steps"] += 1
        actor.resume()
        if self.wrong:
            raise Wrong(self.wrong)
        if actor.over:
            self._over(actor)

    def _over(self, actor: Actor) -> None:
        if actor is self.turner:
            self.turner = None
        for flow in self.flows:
            if flow.actor is actor:
                flow.actor = flow.publisher = None
                flow.disk.crash()
        if actor.error is not None:
            self.world.tell(f"{actor.name} ends: {actor.error!r}")
            if not self._may_end(actor):
                raise Wrong(f"{actor.name} ends by {type(actor.error).__name__}: {actor.error}")

    def _may_end(self, actor: Actor) -> bool:
        """True if an error is one that its process may have."""
        if actor.name == "switch":
            return isinstance(actor.error, (AudiopixelError, ConnectError))
        # The flow read its place before the other flow's claim, and finds it at its next start. If Redis has
        # lost the place, it is unknown until the other flow has written. The end must be right.
        said = str(actor.error) if isinstance(actor.error, AudiopixelError) else ""
        starts = actor not in self.begun
        return (starts or self.server.losses > 0) and any(text in said for text in STARTS)

    def _start(self, flow: Flow) -> None:
        self.figures["starts"] += 1
        self.world.tell(f"flow {flow.number} starts")
        flow.actor = Actor(self.world, f"flow {flow.number}", flow.run)

    # Who asks

    def _ask(self) -> None:
        self.figures["switches"] += 1
        self.world.tell("a switch is asked for")
        patience_s = self.source.choice((5.0, 20.0, 60.0))
        self.turner = Actor(self.world, "switch", lambda: self._turn(patience_s))

    def _turn(self, patience_s: float) -> None:
        found = turn(self.client, NAMESPACE, NAME, patience_s)
        self.world.tell(f"the switch ends: {found}")
        if found.done:
            self.figures["confirmed"] += 1
            self._confirm(found)

    def _confirm(self, found: SwitchResult) -> None:
        if found.generation not in self._shown:
            self._wrong(f"generation {found.generation} is confirmed, and readers never had it")

    # Who reads

    def _changed(self, keys: set[str]) -> None:
        if self._losses != self.server.losses or f"{NAMESPACE}:meta" not in self.store.keys:
            self._losses, self._counts = self.server.losses, {}
            # A flow that was down, or sees the loss first, serves what it knows until the other one writes.
            self._generation, self._of = 0, {}
        if not self.wrong and any(key.startswith(f"{NAMESPACE}:") for key in keys):
            self._poll()

    def _wrong(self, text: str) -> None:
        self.wrong = self.wrong or text

    def _rows(self, namespace: str) -> dict[str, dict[str, str]]:
        keys = {name: f"{namespace}:{PLACEMENT}:{{{name}}}" for name in ROWS}
        return {name: self.store.keys[key] for name, key in keys.items() if key in self.store.keys}

    def _poll(self) -> None:
        """Read as readers do, and judge what they may use."""
        meta = self.store.keys.get(f"{NAMESPACE}:meta")
        if not meta:
            return
        self.figures["polls"] += 1
        generation, of = int(meta["generation"]), meta["methodology"]
        if generation < self._generation:
            self._wrong(f"generation {generation} comes behind {self._generation}")
        self._generation = generation
        self._shown.add(generation)
        if self._of.setdefault(generation, of) != of:
            self._wrong(f"generation {generation} is of both flows")
        used = {}
        for name, row in self._rows(NAMESPACE).items():
            if row["generation"] == meta["generation"]:
                number, count = divmod(int(row["flight.impressions"]), 1_000_000)
                if row["flight.starts"] != row["flight.impressions"]:
                    self._wrong(f"row {name} is torn")
                if str(number) != of:
                    self._wrong(
                        f"row {name} of generation {generation} is of flow {number}, meta of flow {of}"
                    )
                if count < self._counts.get((generation, name), 0):
                    self._wrong(f"row {name} falls to {count}")
                self._counts[generation, name] = used[name] = count
        if meta["judged"] == "1" and self.world.now_ms - int(meta["flushed_ms"]) <= STALE_MS:
            state = self.flows[int(of) - 1].rule.at(int(meta["rev"]))
            if lacking := [name for name, count in state.items() if used.get(name, 0) < count]:
                self._wrong(f"meta of generation {generation} is judged, and rows lack: {', '.join(lacking)}")

    # The end

    def _end_quietly(self) -> None:
        world = self.world
        world.calm = True
        world.tell("nothing goes wrong any more")
        self._deadly = self._faulty = self._lossy = self._eager = self._asleep = 0.0
        until_ms = world.elapsed_ms + QUIET_MS
        while world.elapsed_ms < until_ms:
            self._step()
        serving = [one for one in self.flows if one.publisher is not None and one.publisher.writer.serves]
        if len(serving) != 1:
            raise Wrong(f"{len(serving)} flows serve in the end")
        for flow in self.flows:
            if flow.actor is not None:  # its flush ends
                while flow.actor.due_ms <= world.elapsed_ms:
                    self._run(flow.actor)
            self._judge(flow, NAMESPACE if flow is serving[0] else BESIDE)

    def _judge(self, flow: Flow, namespace: str) -> None:
        """Hold the rows of a namespace to a flow's state."""
        meta = self.store.keys.get(f"{namespace}:meta", {})
        if meta.get("methodology") != str(flow.number):
            raise Wrong(f"in the end {namespace} is of flow {meta.get('methodology')}, not {flow.number}")
        if "unjudged_reason" in meta:
            raise Wrong(f"in the end {namespace} is not judged: {meta['unjudged_reason']}")
        told = {
            name: (row["generation"], divmod(int(row["flight.impressions"]), 1_000_000))
            for name, row in self._rows(namespace).items()
        }
        state = {
            name: (meta["generation"], (flow.number, count))
            for name, count in flow.rule.at(int(meta["rev"])).items()
        }
        if told != state:
            raise Wrong(f"in the end the rows of {namespace} are {told}, and flow {flow.number} has {state}")


def played(seed: int) -> Play:
    """The history of a seed, played; in `simulated`."""
    play = Play(seed)
    with playing(play):
        play.run()
    return play


def some_seeds(seeds: Iterable[int]) -> tuple[dict[str, int], list[str]]:
    """Play seeds; returns figures, and the stories of those that failed."""
    figures, stories = Counter[str](dict.fromkeys(FIGURES, 0)), []
    with simulated():
        for seed in seeds:
            play = played(seed)
            figures += play.figures + Counter(seeds=1, failures=int(bool(play.wrong)))
            if play.wrong:
                stories.append(story(play))
    return dict(figures), stories


def story(play: Play) -> str:
    """The events of the history as text."""
    lines = [f"seed {play.seed}: {play.wrong}", ""]
    lines += [f"{at_ms / 1000:10.3f}  {text}" for at_ms, text in play.world.story]
    return "\n".join(lines)
