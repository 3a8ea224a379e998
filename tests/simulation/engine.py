"""Bytewax's part, in one thread: walks a `Dataflow`, and lets every order of messages happen that may.

What it keeps, and no more (each is a test against Bytewax in `test_fakes`):

- Between two steps, from one worker to another, messages come in order; else in any order, so many at once.
- A step with state gets what is there for a key in one call, keys in their order.
- A key, and a sink's partition, is one worker's; its logic is made for its first message. The key's hash
  says whose a key is.
- When all partitions are at their end and all is through, a step learns so, and may send something still,
  which those behind it get before they learn it.
- Bytewax keeps no state. What is deferred happens at any time, in any order, as threads do it.
"""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from zlib import crc32

from bytewax.dataflow import Dataflow

from flows.engine.place import member_of
from simulation.world import World, below

Mapper = Callable[[list[Any]], Iterable[Any]]
CORE: Final = ("input", "flat_map_batch", "merge", "stateful_batch", "output")
"""The operators that are understood; another one is an error."""


@dataclass
class Step:
    """A stateful step, a source or a sink, with its ways to the next steps."""

    name: str
    kind: str
    op: Any
    ways: list[tuple[str, list[Mapper]]] = field(default_factory=list)
    above: set[str] = field(default_factory=set)


def steps_of(flow: Dataflow) -> dict[str, Step]:
    """The steps of a flow by name, with stateless operators as ways between them."""
    operators = list(_core(flow.substeps))
    readers: dict[str, list[Any]] = {}
    for op in operators:
        ups = op.ups.stream_ids.values() if type(op).__name__ == "merge" else ()
        for stream in [*ups, *([op.up.stream_ids["stream"]] if hasattr(op, "up") else [])]:
            readers.setdefault(stream, []).append(op)
    found: dict[str, Step] = {}
    for op in operators:
        kind = type(op).__name__
        if kind in ("input", "stateful_batch", "output"):
            found[op.step_id] = Step(op.step_id, kind, op)
    for step in found.values():
        if step.kind != "output":
            step.ways = list(_ways(step.op.down.stream_ids["stream"], readers, []))
            ends = [to for to, _ in step.ways]
            assert len(ends) == len(set(ends)), f"two ways from {step.name} to one step: their order is open"
    changed = True
    while changed:
        changed = False
        for step in found.values():
            for to, _ in step.ways:
                more = {step.name, *step.above} - found[to].above
                found[to].above |= more
                changed |= bool(more)
    return found


def _core(operators: Sequence[Any]) -> Iterable[Any]:
    for op in operators:
        if getattr(type(op), "core", False):
            assert type(op).__name__ in CORE, f"{op.step_id}: {type(op).__name__} is not understood"
            yield op
        else:
            yield from _core(op.substeps)


def _ways(
    stream: str, readers: dict[str, list[Any]], before: list[Mapper]
) -> Iterable[tuple[str, list[Mapper]]]:
    for op in readers.get(stream, ()):
        match type(op).__name__:
            case "flat_map_batch":
                yield from _ways(op.down.stream_ids["stream"], readers, [*before, op.mapper])
            case "merge":
                yield from _ways(op.down.stream_ids["stream"], readers, before)
            case _:
                yield op.step_id, before


class Deferred:
    """Work that a thread does some time: when the scheduler says so, or when somebody waits for it."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work: Callable[[], Any] | None = work
        self._result: Any = None
        self._error: Exception | None = None

    def done(self) -> bool:
        return self._work is None

    def run(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            try:
                self._result = work()
            except Exception as error:
                self._error = error

    def result(self) -> Any:
        self.run()
        if self._error is not None:
            raise self._error
        return self._result


class Engine:
    """An execution of a flow.

    Args:
        workers: the steps of the same flow, once a worker, as each process has one.
        salt: which worker has which partition.
    """

    def __init__(self, world: World, workers: Sequence[Mapping[str, Step]], salt: int) -> None:
        self.world, self.random, self.salt = world, world.random, salt
        self.workers = workers
        self.steps = self.workers[0]
        self.logics: dict[tuple[str, str], Any] = {}
        self.partitions: dict[tuple[str, str], Any] = {}
        self.channels: dict[tuple[str, str, int, int], deque[Any]] = {}
        self._waiting: dict[tuple[str, int], None] = {}
        self._into = defaultdict[tuple[str, int], list[deque[Any]]](list)
        self._owners: dict[str, int] = {}
        self._sinks: dict[tuple[str, str], tuple[str, int]] = {}
        self.over: set[tuple[str, str]] = set()
        self.parts: dict[str, list[tuple[str, int]]] = {}
        self.deferred: list[Deferred] = []
        self._begin()

    # Beginning

    def _begin(self) -> None:
        for name, step in self.steps.items():
            if step.kind == "input":
                lists = [worker[name].op.source.list_parts() for worker in self.workers]
                for part in lists[0]:
                    source = self.workers[self._reader(part)][name].op.source
                    self.partitions[name, part] = source.build_part(name, part, None)
            elif step.kind == "output":
                lists = [worker[name].op.sink.list_parts() for worker in self.workers]
                parts = sorted({part for some in lists for part in some})
                listing = {part: [at for at, some in enumerate(lists) if part in some] for part in parts}
                self.parts[name] = [(part, at[self._reader(part) % len(at)]) for part, at in listing.items()]

    def _reader(self, part: str) -> int:
        """The worker of a partition that all list."""
        return crc32(f"{self.salt} {part}".encode()) % len(self.workers)

    def owner(self, key: str) -> int:
        """The worker of a key."""
        found = self._owners.get(key)
        if found is None:
            found = self._owners[key] = member_of(key, len(self.workers))
        return found

    def _part(self, name: str, key: str) -> tuple[str, int]:
        """The partition of a sink that a key goes to, and its worker."""
        if (name, key) not in self._sinks:
            parts = self.parts[name]
            number: int = self.steps[name].op.sink.part_fn(key)
            self._sinks[name, key] = parts[number % len(parts)]
        return self._sinks[name, key]

    def _logic(self, name: str, key: str) -> Any:
        logic = self.logics.get((name, key))
        if logic is None:
            if self.steps[name].kind == "output":
                step = self.workers[dict(self.parts[name])[key]][name]
                logic = step.op.sink.build_part(name, key, None)
            else:
                step = self.workers[self.owner(key)][name]
                logic = step.op.builder(None)
            self.logics[name, key] = logic
        return logic

    # Running

    def read(self, where: tuple[str, str]) -> None:
        """Emit the messages of a partition of the source."""
        try:
            items = list(self.partitions[where].next_batch())
        except StopIteration:
            self.over.add(where)
            return
        self._emit(where[0], self._reader(where[1]), items)

    def _emit(self, name: str, worker: int, items: list[Any]) -> None:
        if not items:
            return
        for to, mappers in self.workers[worker][name].ways:
            sent = items
            for mapper in mappers:
                sent = list(mapper(sent))
            sink = self.steps[to].kind == "output"
            channels = dict[int, deque[Any]]()
            for item in sent:
                target = self._part(to, item[0])[1] if sink else self.owner(item[0])
                channel = channels.get(target)
                if channel is None:
                    channel = channels[target] = self._channel(name, to, worker, target)
                    self._waiting[to, target] = None
                channel.append(item)

    def _channel(self, name: str, to: str, worker: int, target: int) -> deque[Any]:
        way = name, to, worker, target
        found = self.channels.get(way)
        if found is None:
            found = self.channels[way] = deque()
            self._into[to, target].append(found)
        return found

    def waiting(self) -> list[tuple[str, int]]:
        """Steps, each with a worker, for which messages wait."""
        return list(self._waiting)

    def deliver(self, to: str, worker: int) -> None:
        """Let a step take some of what waits for it: all of it, or a part of some channels."""
        channels = [some for some in self._into[to, worker] if some]
        total = sum(map(len, channels))
        number = total if self.random.random() < 0.5 else 1 + below(self.random, total)
        taken: list[Any] = []
        while len(taken) < number:
            some = channels[below(self.random, len(channels))]
            number_here = 1 + below(self.random, len(some))
            if number_here < len(some):
                taken += [some.popleft() for _ in range(number_here)]
            else:
                taken += some
                some.clear()
                channels = [one for one in channels if one]
        if not channels:
            del self._waiting[to, worker]
        if self.steps[to].kind == "output":
            for part in dict.fromkeys(self._part(to, key)[0] for key, _ in taken):
                here = [value for key, value in taken if self._part(to, key)[0] == part]
                self._logic(to, part).write_batch(here)
            return
        by_key: dict[str, list[Any]] = {}
        for key, value in taken:
            by_key.setdefault(key, []).append(value)
        out: list[Any] = []
        for key in sorted(by_key):
            given, gone = self._logic(to, key).on_batch(by_key[key])
            assert not gone, "no step of the flow discards its state"
            out += [(key, one) for one in given]
        self._emit(to, worker, out)

    # Beside it

    def defer(self, work: Callable[[], Any]) -> Deferred:
        """Let a thread do it."""
        self.deferred.append(Deferred(work))
        return self.deferred[-1]

    def work(self) -> None:
        """Let some thread get its work done."""
        at_random(self.random, self.deferred).run()
        self.deferred = [one for one in self.deferred if not one.done()]

    # The end

    def end(self) -> None:
        """Tell the steps that nothing more comes, those further down later; then close all."""
        for name in sorted(self.steps, key=lambda one: (len(self.steps[one].above), one)):
            while any(to == name for to, _ in self.waiting()):
                self.deliver(*at_random(self.random, [one for one in self.waiting() if one[0] == name]))
            if self.steps[name].kind == "stateful_batch":
                for (_, key), logic in [one for one in self.logics.items() if one[0][0] == name]:
                    out, _ = logic.on_eof()
                    self._emit(name, self.owner(key), [(key, one) for one in out])
        for logic in [*self.partitions.values(), *self.logics.values()]:
            if hasattr(logic, "close"):
                logic.close()


def at_random(source: random.Random, some: Sequence[Any]) -> Any:
    """An item chosen at random."""
    return some[int(source.random() * len(some))]
