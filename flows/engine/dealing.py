"""Dealing: distributes the shards of a stopped cluster's newest save for another number of members.

The engine sends a shard to a member by the number of members, so with another number most shards belong on
another disk. Dealing copies each shard's files to the directory of the member that will have it, and leaves
the old directories unchanged.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec

from connectors.durable import put, sync_directory
from flows.engine import foundation
from flows.engine.execution import recovery_lock
from flows.engine.place import member_of
from flows.errors import StateError
from flows.model.messages import shard_key
from flows.publish import final_before, latest_fence_record, store_final, write_fence_record
from flows.state.durable import private_directory
from flows.state.saves import PARTITIONS, Manifest, Piece, SaveStore, Unwritten, encode
from flows.state.sealed import Damaged, put_sealed


class Dealt(NamedTuple):
    """The save that was dealt, and the directories of the new members."""

    cut: int
    directories: list[Path]


class Part(NamedTuple):
    """The part of one old member in the save, and the disk that has it."""

    store: SaveStore
    manifest: Manifest


def deal(directories: Sequence[Path], members: int, to: Path) -> Dealt:
    """Deal the newest save that is whole in `directories` to `members`, each a directory `member-N` in `to`.

    Args:
        directories: the recovery directories of all old members, one for each disk.

    Raises:
        StateError: a member's part is missing or damaged, a flow is running on one of them, or `to` has
            saves.
    """
    with ExitStack() as stack:
        for directory in directories:
            for lock in directory.glob("lock-*"):
                # otherwise the directory is no member's
                if (member := lock.name.removeprefix("lock-")).isdecimal():
                    stack.enter_context(recovery_lock(directory, int(member)))
        stores = [SaveStore(directory) for directory in directories]
        cut, parts = _newest(stores)
        owners = [to / f"member-{member}" for member in range(members)]
        for owner in owners:
            if SaveStore(owner).cuts():
                raise StateError(f"{owner} has saves already: name a directory that is not there yet")
        try:
            _deal(cut, parts, owners, directories)
        except OSError as error:
            raise StateError(f"{error.filename or to} cannot be used: {error.strerror}") from None
    return Dealt(cut, owners)


def _newest(stores: Sequence[SaveStore]) -> tuple[int, list[Part]]:
    """The newest save with a whole part of every member."""
    why = ""
    for cut in sorted({cut for store in stores for cut in store.cuts()}, reverse=True):
        try:
            parts = list(_parts(cut, stores))
            for part in parts:
                part.store.verify(cut, part.manifest.pieces)
            return cut, parts
        except Damaged as error:
            why = why or str(error)
    why = why or "they have none"
    raise StateError(f"no save is whole in these directories ({why}): name those of all members")


def _parts(cut: int, stores: Sequence[SaveStore]) -> Iterator[Part]:
    """The parts of a save.

    Raises:
        Damaged: one is missing. StateError: there are two of one cut.
    """
    parts_by_member: dict[int, Part] = {}
    for store in stores:
        for manifest in store.save(cut).parts if store.members_at(cut) else ():
            parts_by_member.setdefault(manifest.member, Part(store, manifest))
            first = next(iter(parts_by_member.values())).manifest
            if (first.start, first.shards) != (manifest.start, manifest.shards):
                raise StateError(
                    f"save {cut} in {store.root} is of another start, and doubles shards: name the "
                    "directories of one cluster"
                )
    for member in range(first.members):
        if member not in parts_by_member:
            raise Damaged(f"save {cut} is of {first.members} members, and the shards of {member} are missing")
        yield parts_by_member[member]


def _deal(cut: int, parts: Sequence[Part], owners: Sequence[Path], directories: Sequence[Path]) -> None:
    first, members = parts[0], len(owners)
    piece_at = {
        (piece.step, piece.key): (part.store, piece) for part in parts for piece in part.manifest.pieces
    }
    states = first.store.piece(first.store.save(cut), PARTITIONS, shard_key(first.manifest.member))
    homes = [[where for where in piece_at if _owner(where, members) == member] for member in range(members)]
    shards = tuple(tuple(sorted("-".join(where) for where in home)) for home in homes)
    start, ground = secrets.randbits(62), foundation.merged(directories)
    for member, owner in enumerate(owners):
        with recovery_lock(owner, member):  # a start would take its segments for unlisted ones
            put_sealed(owner / foundation.FILE, ground)
            write_fence_record(
                owner, member, max(latest_fence_record(directory) for directory in directories)
            )
            store_final(owner, max(final_before(directory) for directory in directories))
            store = SaveStore(owner)
            pieces = [_copied(cut, *piece_at[where], store) for where in homes[member]]
            pieces.append(Unwritten(PARTITIONS, shard_key(member), encode(states), []))
            manifest = msgspec.structs.replace(
                first.manifest,
                pieces=store.put_pieces(cut, pieces),
                start=start,
                member=member,
                shards=shards,
            )
            store.commit(manifest)
            sync_directory(owner)


def _owner(where: tuple[str, str], members: int) -> int | None:
    """The member that will have a piece; None if each has a copy of its own."""
    step, key = where
    return None if step == PARTITIONS else member_of(key, members)


def _copied(cut: int, store: SaveStore, piece: Piece, to: SaveStore) -> Unwritten:
    """A piece of one disk for another one, after its segments are copied there."""
    unwritten = store.unwritten(cut, piece)
    files = [Path(file) for file in unwritten.segments]
    for file in files:
        if not (to.root / file).exists():
            private_directory((to.root / file).parent)
            put(to.root / file, (store.root / file).read_bytes())
    for parent in {file.parent for file in files}:
        sync_directory(to.root / parent)
    return unwritten
