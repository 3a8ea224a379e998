"""Saves on disks, as members of a cluster leave them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flows.engine.place import Place, member_of
from flows.model.messages import shard_key
from flows.state.saves import FORMAT, PARTITIONS, Manifest, SaveStore, Unwritten, encode

STEPS = (
    "intake",
    "plays",
    "attribution",
    "households",
    "clients",
    "credits",
    "rows",
    "ledger",
    "redis",
    "rejected",
    "minutes",
    "decisions",
    "saves",
)
"""The steps with state. Their names are part of saves, and never change."""
KEYS = [shard_key(shard) for shard in range(8)]


def part(store: SaveStore, cut: int, place: Place, start: int = 7) -> None:
    """Write one member's part of a save of eight shards."""
    member, members = place
    shards = tuple(
        tuple(f"plays-{key}" for key in KEYS if member_of(key, members) == one) for one in range(members)
    )
    some = [Unwritten("plays", name.removeprefix("plays-"), encode(cut), []) for name in shards[member]]
    some.append(Unwritten(PARTITIONS, shard_key(member), encode({}), []))
    pieces = store.put_pieces(cut, some)
    store.commit(Manifest(FORMAT, cut, 0, {}, 0, 0, {}, pieces, start, member, shards))


def on_disks(root: Path, cuts: Sequence[Sequence[int]]) -> list[SaveStore]:
    """A disk for each member, with its parts of some saves."""
    stores = [SaveStore(root / f"disk-{member}") for member in range(len(cuts))]
    for member, (store, some) in enumerate(zip(stores, cuts, strict=True)):
        for cut in some:
            part(store, cut, Place(member, len(cuts)))
    return stores
