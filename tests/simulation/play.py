"""Plays a history: executions of the whole flow, one after the other, until the log is read to its end."""

from __future__ import annotations

import gc
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import structlog

from connectors import durable
from connectors.redis.client import connect
from connectors.stream import ConnectError
from flows.engine import Place, StopSignal
from flows.engine.saved_step import _OPEN
from flows.engine.saves import Saves
from flows.errors import AudiopixelError
from flows.instruments import instruments
from flows.methodology import methodology
from flows.model.redis_keys import deny_key
from flows.settings.fields import ms
from flows.state.people import People
from flows.state.saves import Manifest, SaveStore
from simulation.checker import NAMESPACE, Checker
from simulation.credits import Attribution
from simulation.delivery import always_listed, always_planned
from simulation.disk import Directories, Disk, remove, tear
from simulation.ending import ending
from simulation.engine import Deferred, Engine, at_random
from simulation.history import BOUND_MS, LATENESS_MS, QUIET_MS, History
from simulation.log import Log
from simulation.member import Outside, base_settings, members
from simulation.model import Model, Rules
from simulation.quiet import Quiet
from simulation.redis_client import Client, Server
from simulation.redis_store import Store
from simulation.scenes import CAPS, DENIED
from simulation.seams import SeamedLog, whole_letter
from simulation.shortcuts import UNMEASURED, described
from simulation.sizes import small_sizes
from simulation.stage import PERHAPS
from simulation.topics import Topic
from simulation.world import KEY, T0_MS, TIME, Crash, World, Wrong, below, instead, virtual_time

MAX_STEPS: Final = 20_000
CALM_AFTER: Final = 30
"""So many steps behind the last message nothing goes wrong any more."""
MAX_EXECUTIONS: Final = 40
COLLECTED_AFTER: Final = 50_000
MAX_WORKERS: Final = 3
SHARDS: Final = (1, 2)
MEMORY: Final = Path("/dev/shm") if Path("/dev/shm").is_dir() else None


@dataclass
class Result:
    """The result of a history: its fault, if any, and the amount of work."""

    history: History
    wrong: str = ""
    steps: int = 0
    crashes: int = 0
    executions: int = 0
    flushes: int = 0
    commits: int = 0
    comparable: bool = True
    story: list[tuple[int, str]] = field(default_factory=list)
    end: dict[str, Any] = field(default_factory=dict)


@cache
def _exempt_from_collection() -> None:
    """Exempt what is loaded by now from garbage collection, which visits these 200,000 objects in vain."""
    gc.collect()
    gc.freeze()


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Collect garbage once in `COLLECTED_AFTER` objects: a history makes few cycles."""
    before = gc.get_threshold()
    gc.set_threshold(COLLECTED_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def simulated() -> Iterator[None]:
    """Put the simulation in the place of time, Redis and the disk, for all that is played within."""
    for shards in SHARDS:
        members(MAX_WORKERS, shards)
    _exempt_from_collection()
    with ExitStack() as stack:
        stack.enter_context(_rare_collections())
        stack.enter_context(virtual_time())
        stack.enter_context(instead(instruments, lambda: UNMEASURED))
        stack.enter_context(instead(methodology, described))
        stack.enter_context(instead(connect, lambda *_, **__: Client(_current().server)))
        put, sync = durable.put, durable.sync_directory
        stack.enter_context(instead(put, lambda path, *parts: _current().disk.put(path, b"".join(parts))))
        stack.enter_context(instead(sync, lambda path: _current().disk.sync(path)))
        commit = SaveStore.commit

        def counted(self: SaveStore, manifest: Manifest) -> None:
            commit(self, manifest)
            _current().committed()

        stack.enter_context(patch.object(SaveStore, "commit", counted))
        before = structlog.get_config()
        structlog.configure(processors=[_told], cache_logger_on_first_use=False)
        try:
            yield
        finally:
            structlog.configure(**before)


def _told(_: object, __: str, event: MutableMapping[str, Any]) -> Any:
    text = event.pop("event")
    if text == "plan not taken":
        _current().checker.planning.told(event["problem"])
    _current().world.tell(
        "   ".join([f"  flow: {text}", *(f"{name}={told}" for name, told in event.items())])
    )
    raise structlog.DropEvent


def meet(saves: Sequence[Saves]) -> None:
    """Let the members of an execution agree on a save, without Redis between them."""
    sides = [one.rounds() for one in saves if one.store is not None]
    said = [next(side) for side in sides]
    agreed: list[Any] = []
    while not agreed:
        heard, said = said, []
        for side in sides:
            try:
                said.append(side.send(heard))
            except StopIteration as end:
                agreed.append(end.value)
    for one, end_of in zip(saves, agreed, strict=True):
        one.resume(end_of)


def until_ms(ends: Mapping[str, int], model: Model, lows_ms: Iterable[int]) -> int:
    """The least watermark of a flow that has read partitions up to these offsets; 0 if unknown.

    A collector may hold it behind any low mark, also behind one that comes later.

    Args:
        lows_ms: of all messages.
    """
    heads = [
        max((one.pixel.get("own_ms", 0) for one in model.read[name][:end]), default=0)
        for name, end in ends.items()
    ]
    return max(0, min([*heads, *lows_ms]) - BOUND_MS)


_playing: list[Any] = []


def _current() -> Any:
    return _playing[-1]


def play(history: History) -> Result:
    """Play it, in `simulated`."""
    player = Player(history)
    with playing(player), small_sizes(history.small):
        return player.play()


@contextmanager
def playing(player: Any) -> Iterator[None]:
    """Let the flow find the Redis and the disk of a `Player`, or of what is like one."""
    _playing.append(player)
    try:
        yield
    finally:
        _playing.pop()
        _OPEN.clear()  # steps of processes that have died
        player.close()


class Player:
    """A history while it is played."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.world = TIME.world = World(history.order, history.faults)
        partitions = {
            name: [(T0_MS + one.at_ms, one.value) for one in some] for name, some in history.entries.items()
        }
        self.world.elapsed_ms = history.begin_ms
        closing_ms = (T0_MS + history.end_ms) // 60_000 * 60_000
        settings = base_settings().model_copy(update=history.settings)
        denied = DENIED if history.forgets else {}
        rules = Rules(
            LATENESS_MS,
            BOUND_MS,
            PERHAPS,
            denied,
            settings.platform_basis,
            settings.invalid_agents,
            settings.app_rows,
            settings.conversions_from == "server",
            always_listed(history.plans) if settings.labels == "planned" else {},
        )
        model = Model(partitions, rules)
        self.quiet = Quiet(self.world, history, model)
        self.checker = Checker(
            model,
            Attribution(
                settings.attribution,
                ms(settings.click_window),
                ms(settings.listen_window),
                ms(settings.half_life),
                settings.household_listeners,
                settings.utm_placements,
                denied,
                always_planned(history.plans),
            ),
            closing_ms,
            ms(settings.row_ttl),
            bool(history.settings.keys() & {*CAPS}),
            ms(settings.delivery_grace),
            max(history.lateness_ms),
        )
        store = Store(lambda: self.world.now_ms, self.checker.changed)
        self.server = Server(self.world, store)
        self.checker.store, self.checker.server = store, self.server
        store.flushed = self.checker.flushed
        hashed = People(KEY)
        hashes = {"listener": hashed.listener, "client": hashed.listener, "household": hashed.household}
        for what, who in denied.items():
            store.run("HSET", deny_key(NAMESPACE), f"{hashes[what](who.encode()):016x}", 0)
        self.log: Log | SeamedLog = (
            SeamedLog(self.world, history.entries, history.seams)
            if history.seams
            else Log(self.world, history.entries, history.added)
        )
        if isinstance(self.log, SeamedLog):
            self.checker.archived = self.log.ends
            values = [one.value for some in history.entries.values() for one in some]
            lows_ms = (int(low) for value in values for low in re.findall(rb'"low_ms": (\d+)', value))
            self.checker.history_until_ms = until_ms(self.log.ends, model, lows_ms)
        topics = (
            Topic(self.world, "rejected", self._letter),
            Topic(self.world, "minutes", self.checker.minute),
            Topic(self.world, "credits", self.checker.decision),
        )
        pace = timedelta(milliseconds=history.pace_ms)
        self.outside = Outside(self.world, self.log, topics, history.recompute, pace)
        self.disk = Disk(self.world)
        self.directory = Path(tempfile.mkdtemp(prefix="simulated-", dir=MEMORY))
        self.directories = Directories(self.world, self.directory, KEY, history.own_disks)
        form = ".json" if history.plans and (history.plans[0].text or b"").startswith(b"[") else ".csv"
        self.plans = self.directory.with_suffix(form)
        self.planning = self.checker.planning
        self.planning.begin(history.plans, self.plans)
        self.planning.write_due(self.world)
        self.commits = self._commits_here = self._remembered = 0
        self.engine: Engine | None = None
        self.stop = StopSignal()
        self.executions = self.stops = self.steps = 0
        self._working = self.world.random.choice((0.02, 0.1, 0.5))

    def close(self) -> None:
        remove(str(self.directory))
        self.plans.unlink(missing_ok=True)

    def play(self) -> Result:
        wrong = ""
        try:
            while not self._execution():
                if self.executions >= MAX_EXECUTIONS:
                    raise Wrong(f"the flow was started {self.executions} times and does not come to an end")
            self.checker.over()
        except Wrong as error:
            wrong = str(error)
        except AssertionError as error:
            wrong = f"an assertion of the flow failed: {error}"
        except Exception as error:
            wrong = f"the flow failed by {type(error).__name__}: {error}"
        world = self.world
        end = {} if wrong else ending(self.server.store.keys, self.checker, self.history)
        return Result(
            self.history,
            wrong,
            self.steps,
            world.crashes,
            self.executions,
            self.checker.flushes,
            self.commits,
            self.checker.knows_reach and not self.history.settings.keys() & {*CAPS},
            world.story,
            end,
        )

    def _execution(self) -> bool:
        """Run one execution; whether the log was read to its end."""
        history, world = self.history, self.world
        workers, interval_ms, lateness_ms = (
            some[min(number, len(some) - 1)]
            for number, some in (
                (self.executions, history.workers),
                (self.executions, history.intervals_ms),
                (self.stops, history.lateness_ms),
            )
        )
        settings = base_settings().model_copy(
            update=history.settings
            | {"shards": history.shards}
            | ({"plans": self.plans} if history.plans else {})
            | {
                "flush_interval": timedelta(milliseconds=interval_ms),
                # A save comes a cut before the interval is over.
                "save_interval": timedelta(
                    milliseconds=(self.history.saves_ms // interval_ms + 1) * interval_ms
                ),
                "allowed_lateness": timedelta(milliseconds=lateness_ms),
                "quiet": timedelta(milliseconds=QUIET_MS if history.quiet_from_ms else 60_000),
            }
        )
        self.planning.starts(world)
        self.executions, self._commits_here = self.executions + 1, 0
        self.stop, flushes = StopSignal(), self.checker.flushes
        faults = len([line for _, line in world.story if line.startswith("***")])
        try:
            directories = self.directories.of(workers, settings)
            saves = [store.cuts() for store in self.directories.stores]
            world.tell(
                f"execution {self.executions} starts with {len(directories)} worker(s), saves: {saves}"
            )
            some = members(len(directories), history.shards)
            for number, (member, directory) in enumerate(zip(some, directories, strict=True)):
                mine, place = (
                    settings.model_copy(update={"recovery_dir": directory}),
                    Place(number, len(some)),
                )
                member.begin(mine, self.outside, self.stop, place, self._defer)
            meet([member.source.saves for member in some])
            salt = int(world.random.random() * 1000)
            self.engine = Engine(world, [member.steps for member in some], salt)
            self._run(self.engine)
            self.engine.end()
            # A flow behind the published cut with another lateness is an open point.
            self.stops += self.checker.flushes > flushes
        except Crash:
            world.tell(f"execution {self.executions} dies")
            self.disk.crash()
        except (AudiopixelError, ConnectError) as error:
            world.tell(f"execution {self.executions} ends: {error}")
            if len([line for _, line in world.story if line.startswith("***")]) == faults:
                raise Wrong(f"the flow ended with nothing going wrong: {error}") from error
        else:
            return self._done()
        self.checker.crashed()
        self._forget(ended=True)
        return False

    def _letter(self, key: bytes, value: bytes) -> None:
        whole = whole_letter(value, self.history.entries) if self.history.seams else value
        self.checker.letter(key, whole)

    def _done(self) -> bool:
        return self._read_to_the_end()

    def _positions(self) -> dict[str, int]:
        """The positions of the last flush, once all of it has landed."""
        keys = self.server.store.keys
        told, meta = (keys.get(f"{NAMESPACE}:{name}", {}) for name in ("positions", "meta"))
        whole = all(told.get(name) == meta.get(name) for name in ("generation", "fence", "rev"))
        return json.loads(told["positions"]) if whole and "positions" in told else {}

    def _read_to_the_end(self) -> bool:
        """Everything that will ever be in the log has been published, by the plans that are there."""
        ends = {name: len(some) for name, some in self.history.entries.items()}
        whole = self._positions() == ends and self.checker._losses == self.server.losses
        return whole and not self.planning.unsettled(self.world.now_ms)

    def _run(self, engine: Engine) -> None:
        """Let things happen until the flow has been stopped."""
        world, calm_steps = self.world, 0
        while len(engine.over) < len(engine.partitions) or engine.waiting():
            for fault in world.moment("step"):
                self._step_fault(engine, fault.how, fault.detail)
            self.steps += 1
            if self.steps > MAX_STEPS:
                raise Wrong(
                    f"the flow does not come to an end in {MAX_STEPS} steps: {self._positions()} are "
                    f"published, plans are unsettled: {self.planning.unsettled(world.now_ms)}"
                )
            if (
                not world.calm
                and self.log.next_ms() is None
                and not any(partition._intake.reader.lag for partition in engine.partitions.values())
            ):
                calm_steps += 1
                world.calm = calm_steps > CALM_AFTER
            self._act(engine)
            self._forget()
            if not self.stop.requested and (self._grown(engine) or (world.calm and self._read_to_the_end())):
                self.stop.set()

    def _defer(self, work: Callable[[], Any]) -> Deferred:
        assert self.engine is not None
        return self.engine.defer(work)

    def _grown(self, engine: Engine) -> bool:
        """A partition was added; whoever looks after the flow starts it again."""
        return self.history.added is not None and len(engine.partitions) < len(self.log.partitions())

    def committed(self) -> None:
        """A save has become whole."""
        self.commits += 1
        self._commits_here += 1
        self._remembered += self._denied

    @property
    def _denied(self) -> bool:
        """Every partition of this execution knows the deny-list."""
        partitions = self.engine.partitions.values() if self.engine is not None else ()
        return all(len(partition._intake.denied) for partition in partitions)

    def _forget(self, ended: bool = False) -> None:
        """Stop checking fields that depend on the deny-list if Redis lost it before all partitions had read
        it, or before a save had it. The two saves under way do not have it.
        """
        lost = self.server.losses > (0 if ended else self.checker._losses)
        if self.history.forgets and lost and not (self._remembered > 2 if ended else self._denied):
            self.checker.knows_reach = False

    def _step_fault(self, engine: Engine, how: str, detail: int) -> None:
        match how:
            case "crash":
                self.world.crash()
            case "power":
                alone = len(engine.workers) == 1
                tear(self.world, self.directories.any_store(), alone and self._commits_here > 1)
                self.world.crash()
            case "stop":
                self.stop.set()
            case "sleep":
                self.world.elapsed_ms += 1000 * detail
            case "back":
                self.world.wall_ahead_ms -= 1000 * detail
            case "ahead":
                self.world.wall_ahead_ms += 1000 * detail

    def _act(self, engine: Engine) -> None:
        """Do one thing: a message or a partition's turn, else let time pass."""
        world = self.world
        world.elapsed_ms += below(world.random, 4)
        self.planning.write_due(world)
        waiting = engine.waiting()
        if engine.deferred and world.random.random() < self._working:
            engine.work()
            return
        over = len(engine.over) == len(engine.partitions)
        if waiting and (over or world.random.random() < 0.7):
            engine.deliver(*at_random(world.random, waiting))
            return
        if over:
            return
        open_ones = [one for one in engine.partitions if one not in engine.over]
        # A partition that was just added is seen before hours pass: its pixels would be late.
        if (
            not waiting
            and not self.stop.requested
            and not self._grown(engine)
            and self.quiet.may_pass(open_ones)
        ):
            self._pass_time()
        self.quiet.looked(where := at_random(world.random, open_ones))
        engine.read(where)

    def _pass_time(self) -> None:
        """Everything is quiet: wait for what comes next."""
        world = self.world
        coming = [self.log.next_ms(), self.planning.next_ms()]
        upcoming = min((at_ms for at_ms in coming if at_ms is not None), default=None)
        if self.quiet.now:
            meta = self.server.store.keys.get(f"{NAMESPACE}:meta", {})
            self.quiet.passed(self.executions, int(meta.get("watermark_ms", 0)))
            return
        if self.planning.unsettled(world.now_ms):
            world.elapsed_ms += 700  # else the end of the log would come before it
        elif world.random.random() < 0.3:
            step = world.random.choice((50, 300, 1100))
            if upcoming is None or world.calm or world.elapsed_ms + step <= upcoming:
                world.elapsed_ms += step
        elif upcoming is not None:
            world.elapsed_ms = max(world.elapsed_ms, upcoming)
        else:
            world.elapsed_ms += 700
