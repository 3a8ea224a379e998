"""Saves: at some cuts every step copies its changes, and threads write them to the disk.

P. Carbone et al., "Lightweight Asynchronous Snapshots for Distributed Dataflows", 2015, on the project's own
ticks; Bytewax's recovery is off. A cut states whether it is a save. There a step packs its snapshot, which
is its copy, and a thread writes and fsyncs it. Once it is durable, the step sends a sign down the flow. An
output sends one once everything before the cut is acknowledged. Each member's committer renames its manifest
into place when it has all signs of its member. The save is whole when every member's manifest is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock, RLock
from typing import Any, Final

import msgspec
import structlog

from connectors.redis import connect, put_fields, read_rows
from connectors.stream import ConnectError
from flows.engine import foundation
from flows.engine.copies import Batch, Copy, Written
from flows.engine.meeting import Agreed, Rounds, agree, in_redis, patiently, run_alone
from flows.engine.place import ALONE, Place, member_of
from flows.engine.save_threads import Defer, Work, in_threads
from flows.engine.tick_clock import NOTHING, Published
from flows.errors import StateError
from flows.model.messages import BOOK, Durable, PartitionStates, book_files, shard_key
from flows.model.redis_keys import saves_key
from flows.model.ticks import Cut
from flows.publish import latest_fence_record
from flows.settings import Settings, ms
from flows.state import saves as disk
from flows.state.journal import settle
from flows.state.leftovers import remove_leftovers

_REFUSED: Final[list[Exception]] = []


def refuse(error: Exception) -> None:
    """Store an error that the engine may lose."""
    _REFUSED[:] = [error]


def refusal() -> Exception | None:
    """The error by which this process could not continue from a save, or could not end with one; returned
    once. The engine loses it if several members refuse at the same time, since each may first detect the end
    of another.
    """
    return _REFUSED.pop() if _REFUSED else None


@dataclass
class Saves:
    """The saves of one process: the one that it resumes from, and those that it takes.

    Args:
        settings: without a `recovery_dir` there are no saves.
        secret: the listeners' key.
        defer: runs the slow part of a save.
        place: of this member in the cluster.
        ahead_ms: of the tick clock.
        find_published: returns the last published cut.
    """

    settings: Settings
    secret: bytes
    defer: Defer = in_threads
    place: Place = ALONE
    ahead_ms: Callable[[], int] = lambda: 0
    find_published: Callable[[], Published] = lambda: NOTHING
    _lock: Lock = field(default_factory=Lock)
    _settling: Lock = field(default_factory=Lock)
    _copying: RLock = field(default_factory=RLock)
    _copies: dict[int, Batch] = field(default_factory=dict)
    _agreed: Agreed | None = None
    partitions: dict[str, bytes] = field(default_factory=dict)
    _positions: dict[int, dict[str, int]] = field(default_factory=dict)
    _whole: tuple[int, ...] = ()
    _exchanging: Work | None = None

    def __post_init__(self) -> None:
        directory = self.settings.recovery_dir
        self.store = None if directory is None else disk.SaveStore(directory)

    @property
    def wanted(self) -> bool:
        """True if there are saves."""
        return self.store is not None

    @property
    def resumed(self) -> disk.Save | None:
        """The save that this execution continues from, or None.

        The first access makes the members agree on it. By then all of them hold the locks on their
        directories, so that no member commits another save in between.

        Raises:
            StateError: none is whole, or it does not fit the settings. ConnectError: of several members,
                Redis is away.
        """
        with self._lock:
            if self._agreed is None and self.store is not None:
                try:
                    rounds, single = patiently(self.rounds), self.place.members == 1
                    self.resume(run_alone(rounds) if single else in_redis(self.settings, self.place, rounds))
                except Exception as error:
                    refuse(error)
                    raise
        return None if self._agreed is None else self._agreed.save

    def rounds(self) -> Rounds[Agreed]:
        """This member's side of the meeting. A single member need not state the last published cut.

        Raises:
            ConnectError: of several members, Redis is away.
        """
        assert self.store is not None
        published = NOTHING if self.place.members == 1 else self.find_published()
        return agree(self.store, self.place, published)

    @property
    def published(self) -> Published:
        """The last cut that readers got, as several members have agreed."""
        return NOTHING if self._agreed is None else self._agreed.published

    def resume(self, agreed: Agreed) -> None:
        """Continue from the save that the members have agreed on.

        Raises:
            StateError: it does not fit the settings.
        """
        save = agreed.save
        if save is None or self.store is None:
            self._agreed = agreed
            self._remove_leftovers()
            return
        if save.manifest.settings != foundation.foundation_of(self.settings, self.secret).fixed:
            raise StateError(
                "the newest save in the recovery directory was made with other settings than its file "
                "`foundation` says: restore all of it from one backup"
            )
        key = next((key for step, key in save.pieces if step == disk.PARTITIONS), "")
        states = self.store.piece(save, disk.PARTITIONS, key)
        if states is None:
            raise StateError(
                "the newest save has no states of partitions: restore the recovery directory from a backup"
            )
        self._agreed, self.partitions, self._whole = agreed, states, agreed.whole
        self._positions[save.cut] = save.manifest.positions
        self._remove_leftovers()
        structlog.get_logger("saves").info("resumed from a save", cut=save.cut)

    def _remove_leftovers(self) -> None:
        """Remove files that dead executions of this member's shards left, before any step writes."""
        if self.store is not None:
            place, shards = self.place, range(self.settings.shards)
            mine = {one for one in shards if member_of(shard_key(one), place.members) == place.member}
            if member_of(BOOK, place.members) == place.member:
                mine.add(book_files(len(shards)))
            remove_leftovers(self.store, mine)

    def state(self, step: str, key: str) -> Any:
        """The saved state of a step's key, or None if it begins empty.

        Raises:
            StateError: as `resumed`.
        """
        save = self.resumed
        if save is None or self.store is None:
            return None
        state = self.store.piece(save, step, key)
        if state is None and any(
            file.startswith(f"{step}-") for files in save.manifest.shards for file in files
        ):
            raise StateError(
                f"the newest save has no {step} of shard {key} for this member, and has others: restore the "
                "recovery directory from a backup, or count the log anew with --recompute and an empty one"
            )
        return state

    def partition(self, name: str) -> Any:
        """The saved state of a source partition, or None if it begins empty."""
        packed = self.partitions.get(name) if self.resumed is not None else None
        return None if packed is None else disk.decode(packed)

    def committed(self) -> Mapping[str, int]:
        """The positions of the newest save that is whole everywhere, as far as this member knows; else no
        positions.
        """
        with self._settling:
            return self._positions[self._whole[0]] if self._whole else {}

    def put(self, cut: Cut, copy: Copy) -> Work:
        """Let a thread write one step's copy to disk, together with the other copies of its cut that come
        before the thread has begun. The work's result is a `Durable`, or a StateError if the disk does not
        take it.
        """
        with self._copying:
            batch = self._copies.setdefault(cut.number, Batch())
            number = len(batch.copies)
            batch.copies.append(copy)
            if not number:
                batch.work = self.defer(lambda: self._write(cut, batch))
            return Written(batch, number)

    def _write(self, cut: Cut, batch: Batch) -> list[Durable]:
        """Write a batch to the disk after the files that it lists, and remove files that no save lists.

        Raises:
            StateError: the disk does not take it.
        """
        with self._copying:
            del self._copies[cut.number]
        # The batch lives until each step has asked for its sign. Its copies are dropped before.
        store, copies, batch.copies = self.store, batch.copies, []
        assert store is not None
        listed = [one for copy in copies for one in copy.listed]
        try:
            settle(listed)
            for copy in copies:
                copy.settle()
            pieces = store.put_pieces(cut.number, [copy.unwritten(store.root) for copy in copies])
            for files in listed:
                files.files.collect(self._oldest)
        except OSError as error:
            raise self._unusable(error) from None
        member = self.place.member
        return [
            Durable(cut, one.step, one.key, one.file, one.offset, one.size, one.checksum, member)
            for one in pieces
        ]

    def commit(
        self,
        cut: Cut,
        pieces: Sequence[Durable],
        states: PartitionStates,
        shards: tuple[tuple[str, ...], ...] = ((),),
    ) -> None:
        """Rename this member's manifest of a cut into place, and remove saves that are too old.

        Args:
            states: of the partitions.
            shards: of each member the names of its pieces.

        Raises:
            StateError: the disk does not take it.
        """
        store, member = self.store, self.place.member
        assert store is not None
        assert self._agreed is not None
        try:
            packed = disk.encode(states.states)
            own = disk.Unwritten(disk.PARTITIONS, shard_key(member), packed, [])
            partitions = store.put_pieces(cut.number, [own])
        except OSError as error:
            raise self._unusable(error) from None
        manifest = disk.Manifest(
            format=disk.FORMAT,
            cut=cut.number,
            watermark_ms=cut.watermark_ms,
            positions=dict(cut.positions),
            made_ms=time.time_ns() // 1_000_000,
            fence=latest_fence_record(self.settings.recovery_dir).fence,
            settings=foundation.foundation_of(self.settings, self.secret).fixed,
            pieces=[*partitions, *(disk.Piece(*piece[1:-1]) for piece in pieces)],
            start=self._agreed.start,
            member=member,
            shards=shards,
            interval_ms=ms(self.settings.flush_interval),
            ahead_ms=self.ahead_ms(),
        )
        try:
            store.commit(manifest)
            with self._settling:
                self._positions[cut.number] = manifest.positions
            self._settle(store, {})
        except OSError as error:
            raise self._unusable(error) from None
        if self._whole[:1] != (cut.number,) and (self._exchanging is None or self._exchanging.done()):
            # In a thread of its own: no save waits for Redis.
            self._exchanging = self.defer(lambda: self._exchange_saves(store))

    def _settle(self, store: disk.SaveStore, cuts_by_member: Mapping[int, Collection[int]]) -> None:
        """Determine which saves are complete everywhere, and remove saves older than the kept ones.

        Args:
            cuts_by_member: the cuts that each other member has reported.

        A cut is complete when each member's manifest is on this disk or was reported. The newest cut that any
        member knows to be complete stays on every disk, since each member removes only cuts older than one
        that all have.
        """
        members = set(range(self.place.members))
        with self._settling:
            cuts, whole_before = [*self._positions], self._whole
        reporters = {cut: {one for one, theirs in cuts_by_member.items() if cut in theirs} for cut in cuts}
        # Without the lock, which the flow takes: the flow does not wait for the disk.
        whole = {
            cut
            for cut in cuts
            if cut in whole_before or members <= reporters[cut].union(store.members_at(cut))
        }
        with self._settling:
            self._whole = tuple(sorted(whole.union(self._whole), reverse=True)[: disk.KEPT_SAVES])
            self._positions = {cut: at for cut, at in self._positions.items() if cut >= self._oldest}
        if self._whole:
            store.prune(self._oldest)

    @property
    def _oldest(self) -> int:
        """The oldest save that is kept, or -1 if all are."""
        return min(self._whole, default=-1)

    def _exchange_saves(self, store: disk.SaveStore) -> None:
        """Write to Redis which saves this disk has, and read the other members' entries. While Redis does not
        answer, no save is removed.
        """
        assert self._agreed is not None
        with self._settling:
            cuts = msgspec.json.encode(sorted(self._positions)).decode()
        mine = {"start": str(self._agreed.start), "cuts": cuts}
        keys = [saves_key(self.settings.namespace, member) for member in range(self.place.members)]
        with suppress(ConnectError, OSError):
            client = connect(self.settings.redis_url.get_secret_value(), timeout=self.settings.redis_timeout)
            put_fields(client, {keys[self.place.member]: mine})
            rows = read_rows(client, keys, list(mine))
            client.close()
            cuts_by_member = {
                member: _cuts(row["cuts"])
                for member, row in enumerate(rows)
                if row.get("start") == mine["start"] and "cuts" in row
            }
            self._settle(store, cuts_by_member)

    def _unusable(self, error: OSError) -> StateError:
        return StateError(
            f"the recovery directory {self.settings.recovery_dir} cannot be used: {error.strerror}"
        )


def _cuts(entry: str) -> Collection[int]:
    """The cuts in a member's entry, empty if the entry is not a member's."""
    try:
        return msgspec.json.decode(entry, type=list[int])
    except msgspec.DecodeError:
        return ()
