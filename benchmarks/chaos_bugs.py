"""Bugs done to a flow, or to the source, behind its back while it is dead, to see the chaos harness bark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from flows.settings.fields import Settings
from flows.state.saves import PARTITIONS, SaveStore, decode, encode


def doctor(
    directory: Path, change: Callable[[str, str, Any], Any], left_out: tuple[str, str] | None = None
) -> int:
    """Change the state in all saves of a recovery directory that no flow has open; returns how many pieces.

    Args:
        change: gives a piece's new state by its step, key and state.
        left_out: the (step, key) that no manifest shall list any more.
    """
    store, changed = SaveStore(directory), 0
    for cut in store.cuts():
        save = store.save(cut)
        for manifest in save.parts:
            some = []
            for piece in manifest.pieces:
                where = piece.step, piece.key
                state = store.piece(save, *where)
                new = change(*where, state)
                changed += new is not state
                if where != left_out:
                    some.append(store.unwritten(cut, piece)._replace(state=encode(new)))
            store.commit(replace(manifest, pieces=store.put_pieces(cut, some)))
            changed += len(some) < len(manifest.pieces)
    assert changed, "there was no save yet"
    return changed


def forget(settings: Settings) -> None:
    """The plays of a shard are taken out of the saves."""
    assert settings.recovery_dir is not None
    doctor(settings.recovery_dir, lambda step, key, state: state, ("plays", "0001"))


def skip(settings: Settings) -> None:
    """The saved position of the topic's first partition is moved on by 50 messages."""
    assert settings.recovery_dir is not None
    first = f"{settings.kafka_topic}/0"

    def skipped(step: str, _: str, state: Any) -> Any:
        if step != PARTITIONS:
            return state
        version, position, *rest, log_id = decode(state[first])
        topic_id, _, _ = log_id.partition(":")  # without the mark, at which the reader would begin
        return {**state, first: encode((version, position + 50, *rest, topic_id))}

    doctor(settings.recovery_dir, skipped)


BUGS: Final[dict[str, Callable[[Settings], None]]] = {
    "forgotten": forget,
    "skipped": skip,
}

OF_THE_SOURCE: Final = "stored-early"
"""The source's place is stored before the pixels that it covers are acknowledged."""
