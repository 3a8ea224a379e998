"""Accounts of the saves on a disk: the contents of each by step. Every file is read."""

from __future__ import annotations

import msgspec

from flows.state.saves import KEPT_SAVES, Manifest, SaveStore
from flows.state.sealed import Damaged


class StepAccount(msgspec.Struct, frozen=True):
    """The part of one step in a save: the numbers of pieces and segments, with their sizes in bytes."""

    step: str
    pieces: int
    size: int
    segments: int
    segments_size: int


class Account(msgspec.Struct, frozen=True):
    """The contents of one member's part of a save, by step. An account of a damaged part has the fault and
    its place instead.

    Attributes:
        member, members: the number of the member, and of all members.
    """

    cut: int
    damage: str = ""
    made_ms: int = 0
    watermark_ms: int = 0
    positions: dict[str, int] = {}
    steps: list[StepAccount] = []
    member: int = 0
    members: int = 0


def accounts(store: SaveStore) -> list[Account]:
    """Accounts of the newest saves, the newest first. A flow may be writing newer ones meanwhile.

    Raises:
        StateError: another version wrote one of the saves.
    """
    accounts_of_saves = []
    for cut in store.cuts()[:KEPT_SAVES]:
        for member in store.members_at(cut):
            try:
                accounts_of_saves.append(_account(store, store.manifest(cut, member)))
            except (Damaged, FileNotFoundError) as error:
                if cut in store.cuts():  # else the flow has removed this save meanwhile
                    accounts_of_saves.append(Account(cut, str(error), member=member))
    return accounts_of_saves


def _account(store: SaveStore, manifest: Manifest) -> Account:
    steps: dict[str, StepAccount] = {}
    heads = store.verify(manifest.cut, manifest.pieces)
    for piece, head in zip(manifest.pieces, heads, strict=True):
        sizes = [(store.root / segment.file).stat().st_size for segment in head.segments]
        earlier = steps.get(piece.step, StepAccount(piece.step, 0, 0, 0, 0))
        steps[piece.step] = StepAccount(
            piece.step,
            earlier.pieces + 1,
            earlier.size + piece.size,
            earlier.segments + len(sizes),
            earlier.segments_size + sum(sizes),
        )
    return Account(
        manifest.cut,
        "",
        manifest.made_ms,
        manifest.watermark_ms,
        manifest.positions,
        sorted(steps.values(), key=lambda step: step.step),
        manifest.member,
        manifest.members,
    )
