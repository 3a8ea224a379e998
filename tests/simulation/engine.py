"""Bytewax's part, in one thread: walks a `Dataflow`, and lets every order of messages happen that may.

What it keeps, and no more (each is a test against Bytewax in `test_fakes`):

- Between two steps, from one worker to another, messages come in order; else in any order, so many at once.
- A step with state gets what is there for a key in one call, keys in their order.
- A key, and a sink, is one worker's; its logic is made for its first message, or by its snapshot.
- An epoch: each partition of a source ends it for itself, with a snapshot. When all have, and all that they
  gave is through, the steps that were called have snapshots taken, and all of it is committed at once. No
  partition is read before that. A start is from the last commit, or from the one before (a power cut).
- A sink writes at once, not at the commit.
"""

from __future__ import annotations

import pickle
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from zlib import crc32

from bytewax.dataflow import Dataflow

from simulation.world import World

Mapper = Callable[[list[Any]], Iterable[Any]]
State = dict[tuple[str, str], bytes]
CORE: Final = ("input", "flat_map_batch", "merge", "stateful_batch", "output")
"""The operators that are understood; another one is an error."""


@dataclass
class Step:
    """One step with state, a source or a sink, and the ways from it to the next ones."""

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


@dataclass
class Saved:
    """The recovery store: what the last commit has, and the one before it."""

    state: State = field(default_factory=dict)
    before: State = field(default_factory=dict)
    commits: int = 0

    def commit(self, news: State) -> None:
        """Make an epoch's snapshots the last ones, at once."""
        self.before, self.state = self.state, {**self.state, **news}
        self.commits += 1


class Engine:
    """One execution of a flow.

    Args:
        flows: the same flow, once a worker, as each process has one.
        state: what to begin from.
        salt: which worker has which key.
    """

    def __init__(self, world: World, flows: Sequence[Dataflow], saved: Saved, salt: int) -> None:
        self.world, self.random, self.saved, self.salt = world, world.random, saved, salt
        self.workers = [steps_of(flow) for flow in flows]
        self.steps = self.workers[0]
        self.logics: dict[tuple[str, str], Any] = {}
        self.partitions: dict[tuple[str, str], Any] = {}
        self.channels: dict[tuple[str, str, int, int], deque[Any]] = {}
        self.called: set[tuple[str, str]] = set()
        self.news: State = {}
        self.closing = False
        self.closed: set[tuple[str, str]] = set()
        self.over: set[tuple[str, str]] = set()
        self._resume()

    # Beginning

    def _resume(self) -> None:
        state = {where: pickle.loads(packed) for where, packed in self.saved.state.items()}
        for name, step in self.steps.items():
            if step.kind != "input":
                continue
            lists = [worker[name].op.source.list_parts() for worker in self.workers]
            for part in lists[0]:
                source = self.workers[self.owner(part)][name].op.source
                self.partitions[name, part] = source.build_part(name, part, state.get((name, part)))
        where = [one for one in state if self.steps[one[0]].kind != "input"]
        self.random.shuffle(where)  # workers begin side by side
        for name, key in where:
            self._logic(name, key, state[name, key])

    def owner(self, key: str) -> int:
        """The worker of a key."""
        return crc32(f"{self.salt} {key}".encode()) % len(self.workers)

    def _logic(self, name: str, key: str, state: Any = None) -> Any:
        logic = self.logics.get((name, key))
        if logic is None:
            step = self.workers[self.owner(key if self.steps[name].kind != "output" else name)][name]
            if step.kind == "output":
                (part,) = step.op.sink.list_parts()
                logic = step.op.sink.build_part(name, part, state)
            else:
                logic = step.op.builder(state)
            self.logics[name, key] = logic
        return logic

    # Running

    def read(self, where: tuple[str, str]) -> None:
        """Let a partition of the source give what it has."""
        try:
            items = list(self.partitions[where].next_batch())
        except StopIteration:
            self.over.add(where)
            return
        self._emit(where[0], self.owner(where[1]), items)

    def _emit(self, name: str, worker: int, items: list[Any]) -> None:
        if not items:
            return
        for to, mappers in self.workers[worker][name].ways:
            sent = items
            for mapper in mappers:
                sent = list(mapper(sent))
            sink = self.steps[to].kind == "output"
            for item in sent:
                target = self.owner(to if sink else item[0])
                self.channels.setdefault((name, to, worker, target), deque()).append(item)

    def waiting(self) -> list[tuple[str, int]]:
        """Steps, each with a worker, for which messages wait."""
        return list(dict.fromkeys((to, target) for (_, to, _, target), some in self.channels.items() if some))

    def deliver(self, to: str, worker: int) -> None:
        """Let a step take some of what waits for it: all of it, or a part of some channels."""
        channels = [some for (_, step, _, at), some in self.channels.items() if (step, at) == (to, worker)]
        channels = [some for some in channels if some]
        total = sum(map(len, channels))
        number = total if self.random.random() < 0.5 else self.random.randint(1, total)
        taken: list[Any] = []
        while len(taken) < number:
            some = self.random.choice(channels)
            for _ in range(self.random.randint(1, len(some))):
                taken.append(some.popleft())
            channels = [one for one in channels if one]
        if self.steps[to].kind == "output":
            self.called.add((to, "writer"))
            self._logic(to, "writer").write_batch([value for _, value in taken])
            return
        by_key: dict[str, list[Any]] = {}
        for key, value in taken:
            by_key.setdefault(key, []).append(value)
        out: list[Any] = []
        for key in sorted(by_key):
            self.called.add((to, key))
            given, gone = self._logic(to, key).on_batch(by_key[key])
            assert not gone, "no step of the flow discards its state"
            out += [(key, one) for one in given]
        self._emit(to, worker, out)

    # Epochs

    def close(self, where: tuple[str, str]) -> None:
        """Let a partition end the epoch."""
        self.closed.add(where)
        self.news[where] = pickle.dumps(self.partitions[where].snapshot())

    def through(self) -> list[tuple[str, str]]:
        """What can be saved now: called, and with nothing to come in this epoch."""
        if len(self.closed) < len(self.partitions):
            return []
        busy = {to for (_, to, _, _), some in self.channels.items() if some}
        return [one for one in sorted(self.called) if not ({one[0], *self.steps[one[0]].above} & busy)]

    def save(self, where: tuple[str, str]) -> None:
        """Take a step's snapshot."""
        self.called.remove(where)
        self.news[where] = pickle.dumps(self.logics[where].snapshot())

    @property
    def whole(self) -> bool:
        """The epoch can be committed."""
        return len(self.closed) == len(self.partitions) and not self.called and not self.waiting()

    def commit(self) -> None:
        """End the epoch."""
        self.saved.commit(self.news)
        self.news, self.closed, self.closing = {}, set(), False

    def end(self) -> None:
        """Close all, behind the last commit."""
        for logic in [*self.partitions.values(), *self.logics.values()]:
            if hasattr(logic, "close"):
                logic.close()


def at_random(source: random.Random, some: Sequence[Any]) -> Any:
    """One of some."""
    return some[int(source.random() * len(some))]
