"""Segments that no save lists: an execution wrote them and died before a save listed them. If executions die
before their second save, only this module removes them.
"""

from __future__ import annotations

from collections.abc import Container
from contextlib import suppress

from flows.state.saves import SEGMENT, SaveStore
from flows.state.sealed import Damaged


def remove_leftovers(store: SaveStore, shards: Container[int]) -> None:
    """Remove the segments of `shards` that no save on this disk lists, before anything is written there. The
    segments stay if one of the saves is damaged, or the disk refuses.
    """
    with suppress(Damaged, OSError):
        saves = [store.save(cut) for cut in store.cuts()]
        listed = {
            file
            for save in saves
            for piece in save.pieces.values()
            for file in store.segments(save.cut, piece)
        }
        for path in store.root.glob("*/*/*"):
            file = str(path.relative_to(store.root)).removesuffix(".part")
            if SEGMENT.fullmatch(file) and int(path.parent.name) in shards and file not in listed:
                path.unlink(missing_ok=True)
