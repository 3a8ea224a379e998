"""Saves: at some cuts every step copies what changed, and threads put it on the disk beside the flow.

P. Carbone et al., "Lightweight Asynchronous Snapshots for Distributed Dataflows", 2015, on the project's own
ticks; Bytewax's recovery is off. A cut says whether it is a save. There a step's snapshot is packed, which is
its copy; a thread writes and fsyncs it. When it is durable, the step says so down the flow; an output says so
when all before the cut is acknowledged. The committer renames the manifest into place when it has heard all.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Final, Protocol

import structlog
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from flows.engine import foundation
from flows.engine.cut_step import Step
from flows.errors import StateError
from flows.instruments import instruments
from flows.model.messages import Durable, Message, key_of
from flows.model.ticks import Cut
from flows.publish import kept
from flows.settings import Settings
from flows.state import saves as disk
from flows.state.journal import Listed, taking

MOST_UNDER_WAY: Final = 2
"""The number of saves that a step may have under way; at a further one it waits for the oldest."""


class Work(Protocol):
    """Work that is done beside the flow."""

    def done(self) -> bool: ...

    def result(self) -> Any:
        """Wait for it; raises what it raised."""


Defer = Callable[[Callable[[], Any]], Work]
"""Does work beside the flow."""
_THREADS: Final = ThreadPoolExecutor(4, "saves")
_STARTER: Final = ThreadPoolExecutor(1, "save")
_NEW: Final[list[tuple[Future[Any], Callable[[], Any]]]] = []
_NEW_LOCK: Final = Lock()
START_S: Final = 0.1
"""After so long the work of a save begins: each thread that wakes up while steps still copy takes the
interpreter's lock from them.
"""
_UNDER_WAY: Final[set[Future[Any]]] = set()
_OPEN: Final[list[Step[Any]]] = []
TOLD_FROM_S: Final = 0.1
"""A wait for the disk that is shorter is counted, and not told."""


def in_threads(work: Callable[[], Any]) -> Work:
    """Do it in a thread, `START_S` after the first that waits."""
    future = Future[Any]()
    _UNDER_WAY.add(future)
    future.add_done_callback(_UNDER_WAY.discard)
    with _NEW_LOCK:
        _NEW.append((future, work))
        first = len(_NEW) == 1
    if first:
        _STARTER.submit(_start)
    return future


def _start() -> None:
    time.sleep(START_S)
    with _NEW_LOCK:
        new = [*_NEW]
        _NEW.clear()
    for one in new:
        _THREADS.submit(_do, *one)


def _do(future: Future[Any], work: Callable[[], Any]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)


def drain() -> None:
    """Let go of what a flow that failed has left: steps with threads, and work that needs the recovery
    directory.
    """
    while _OPEN:
        _OPEN.pop().abandon()
    wait(list(_UNDER_WAY))


@dataclass
class Saves:
    """The saves of one process: the one that it resumes from, and those that it takes.

    Args:
        settings: `recovery_dir` None: there are no saves.
        secret: the listeners' key.
        defer: does the slow part of a save.
    """

    settings: Settings
    secret: bytes
    defer: Defer = in_threads
    _lock: Lock = field(default_factory=Lock)
    _begun: bool = False
    _resumed: disk.Manifest | None = None
    _partitions: dict[str, bytes] = field(default_factory=dict)
    _committed: tuple[int, dict[str, int]] = (-1, {})

    def __post_init__(self) -> None:
        directory = self.settings.recovery_dir
        self.store = None if directory is None else disk.SaveStore(directory)

    @property
    def wanted(self) -> bool:
        """True if there are saves."""
        return self.store is not None

    @property
    def resumed(self) -> disk.Manifest | None:
        """The save that this execution goes on from; None: there is none.

        It is chosen when first asked for. All members are there by then, each with its lock on the directory,
        so that nobody commits another save in between.

        Raises:
            StateError: none is whole, or it does not fit the settings.
        """
        with self._lock:
            if not self._begun and self.store is not None:
                found = self.store.newest()
                if found is not None:
                    self._take_up(self.store, found)
            self._begun = True
        return self._resumed

    def _take_up(self, store: disk.SaveStore, found: disk.Manifest) -> None:
        fixed = foundation.of(self.settings, self.secret).fixed
        if found.settings != fixed:
            raise StateError(
                "the newest save in the recovery directory was made with other settings than its file "
                "`foundation` says: restore all of it from one backup"
            )
        ledger = store.piece(found, "ledger", "ledger")
        if ledger is None:
            raise StateError("the newest save has no ledger: restore the recovery directory from a backup")
        self._resumed, self._partitions = found, ledger[2]
        self._committed = found.cut, found.positions
        structlog.get_logger("saves").info("going on from a save", cut=found.cut)

    def state(self, step: str, key: str) -> Any:
        """The saved state of a step's key; None: it begins.

        Raises:
            StateError: as `resumed`.
        """
        found = self.resumed
        if found is None or self.store is None:
            return None
        state = self.store.piece(found, step, key)
        if state is None and any(piece.step == step for piece in found.pieces):
            raise StateError(
                f"the newest save has no {step} of shard {key}, and has others: restore the recovery "
                "directory from a backup, or recompute from the log with --recompute and an empty one"
            )
        return state

    def partition(self, name: str) -> Any:
        """The saved state of a source partition; None: it begins."""
        packed = self._partitions.get(name) if self.resumed is not None else None
        return None if packed is None else disk.decode(packed)

    def committed(self) -> Mapping[str, int]:
        """The positions of the newest save, as far as its manifest can be read; empty: there is none."""
        if self.store is None:
            return {}
        with self._lock, suppress(disk.Damaged):
            newest = max(self.store.cuts(), default=-1)
            if newest > self._committed[0]:
                self._committed = newest, self.store.manifest(newest).positions
        return self._committed[1]

    def write(self, cut: Cut, step: str, key: str, state: bytes, listed: Sequence[Listed]) -> Durable:
        """Put one step's state on the disk, behind the files that it lists; remove files that no save lists.

        Raises:
            StateError: the disk does not take it.
        """
        store = self.store
        assert store is not None
        try:
            for one in listed:
                one.settle()
            segments = [
                str((one.files.directory / name).relative_to(store.root))
                for one in listed
                if one.files.directory is not None
                for name in sorted(one.names)
            ]
            piece = store.put_piece(cut.number, step, key, state, segments)
            oldest = store.oldest_kept
            for one in listed:
                one.files.collect(oldest)
        except OSError as error:
            raise self._unusable(error) from None
        return Durable(cut, step, key, piece.file, piece.size, piece.checksum)

    def commit(self, cut: Cut, pieces: Sequence[Durable]) -> None:
        """Rename the manifest of a cut into place.

        Raises:
            StateError: the disk does not take it.
        """
        assert self.store is not None
        manifest = disk.Manifest(
            disk.FORMAT,
            cut.number,
            cut.watermark_ms,
            dict(cut.positions),
            time.time_ns() // 1_000_000,
            kept(self.settings.recovery_dir).fence,
            foundation.of(self.settings, self.secret).fixed,
            [disk.Piece(*piece[1:]) for piece in pieces],
        )
        try:
            self.store.commit(manifest)
        except OSError as error:
            raise self._unusable(error) from None
        instruments().saves.inc()

    def _unusable(self, error: OSError) -> StateError:
        return StateError(
            f"the recovery directory {self.settings.recovery_dir} cannot be used: {error.strerror}"
        )


class Saved(StatefulBatchLogic[Any, Message, None]):
    """A step whose state is saved at cuts, and restored when its key's first message comes.

    Args:
        step: its name in saves.
        build: makes its logic from its state; None: it begins.
    """

    def __init__(self, saves: Saves, step: str, build: Callable[[Any], Step[Any]]) -> None:
        self._saves, self._step, self._build = saves, step, build
        self._key = ""
        self._logic: Step[Any] | None = None
        self._under_way: deque[Work] = deque()

    def on_batch(self, values: list[Any]) -> tuple[Iterable[Message], bool]:
        """The logic's, and what of its state has become durable."""
        if self._logic is None:
            self._key = key_of(values[0])
            self._logic = self._build(self._saves.state(self._step, self._key))
            self._logic.at_cut = self.save
            _OPEN.append(self._logic)
        out, gone = self._logic.on_batch(values)
        assert not gone, "a step keeps its state"
        if self._under_way:
            out = [*out, *self._durable()]
        return out, StatefulBatchLogic.RETAIN

    def on_eof(self) -> tuple[Iterable[Message], bool]:
        """Wait for what is under way, and let go."""
        out = self._durable(wait=True)
        if self._logic is not None:
            self._logic.close()
            if self._logic in _OPEN:
                _OPEN.remove(self._logic)
        return out, StatefulBatchLogic.RETAIN

    def snapshot(self) -> None:
        """Give Bytewax nothing at the end of its epoch."""

    def save(self, cut: Cut) -> None:
        """Copy the state at a cut that is a save, and let a thread write it."""
        logic, saves = self._logic, self._saves
        if not cut.save or not saves.wanted or logic is None:
            return
        if len(self._under_way) >= MOST_UNDER_WAY:
            self._wait_for(self._under_way[-MOST_UNDER_WAY])
        began_s = time.monotonic()
        with taking(cut.number) as listed:
            state = disk.encode(logic.snapshot())
        instruments().save_pause.inc(time.monotonic() - began_s)

        def write() -> Durable:
            logic.settle()
            return saves.write(cut, self._step, self._key, state, listed)

        self._under_way.append(saves.defer(write))

    def _wait_for(self, save: Work) -> None:
        if save.done():
            return
        began_s = time.monotonic()
        save.result()
        waited_s = time.monotonic() - began_s
        instruments().save_waits.inc(waited_s)
        if waited_s < TOLD_FROM_S:
            return
        structlog.get_logger("saves").warning(
            "the flow waited for the disk, which is two saves behind",
            step=self._step,
            key=self._key,
            seconds=round(waited_s, 3),
        )

    def _durable(self, wait: bool = False) -> list[Durable]:
        """Returns the signs of what has become durable, in the order of cuts."""
        found = []
        while self._under_way and (wait or self._under_way[0].done()):
            found.append(self._under_way.popleft().result())
        return found


class CommitPartition(StatefulSinkPartition[Durable, None]):
    """The committer: gathers what is durable of each cut, and commits the cuts of which all is."""

    def __init__(self, saves: Saves, expected: frozenset[tuple[str, str]]) -> None:
        self._saves, self._expected = saves, expected
        self._gathered: dict[int, dict[tuple[str, str], Durable]] = {}
        self._latest: Work | None = None

    def write_batch(self, values: list[Durable]) -> None:
        """Commit the cuts that are complete; they come in order, since each step's come in order."""
        for value in values:
            pieces = self._gathered.setdefault(value.cut.number, {})
            pieces[value.step, value.key] = value
            if pieces.keys() == self._expected:
                del self._gathered[value.cut.number]
                self._commit(value.cut, list(pieces.values()))

    def _commit(self, cut: Cut, pieces: list[Durable]) -> None:
        before = self._latest

        def commit() -> None:
            if before is not None:
                before.result()
            self._saves.commit(cut, pieces)

        if before is not None and before.done():
            before.result()
        self._latest = self._saves.defer(commit)

    def snapshot(self) -> None:
        """Give Bytewax nothing at the end of its epoch."""

    def close(self) -> None:
        """Wait for the last commit."""
        if self._latest is not None:
            self._latest.result()


@dataclass
class CommitSink(FixedPartitionedSink[Durable, None]):
    """One committer for the whole flow; `expected` are the (step, key) of all pieces of a save."""

    saves: Callable[[], Saves]
    expected: frozenset[tuple[str, str]]

    def list_parts(self) -> list[str]:
        """One."""
        return ["committer"]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> CommitPartition:
        """Make it."""
        return CommitPartition(self.saves(), self.expected)
