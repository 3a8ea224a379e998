"""Saves on the disk: of each cut a directory with the pieces of all shards, and a manifest that commits them.

A piece is one shard's state at a cut: plain values as msgpack, with the list of the segments that it needs
(`flows.state.journal`). The manifest lists all pieces with sizes and checksums, and is renamed into place
last. So a save is whole or is none. The two newest manifests are kept: where a file of the newest is damaged,
the one before is taken, and nothing is lost, only read again.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import structlog

from connectors.durable import put, replace_file, sync_directory
from flows.errors import StateError
from flows.state.durable import private_directory
from flows.state.journal import checksum

FORMAT: Final = 1
MANIFEST: Final = "manifest"
FOLDER: Final = "saves"
KEPT: Final = 2
"""The number of manifests that are kept; the disk holds what they list."""
_LENGTH: Final = 4
"""Bytes before a piece's head that say how long it is."""
_WHAT_TO_DO: Final = (
    "restore all of the directory from one backup, or count the log anew with --recompute and an empty one"
)


class Damaged(Exception):
    """A file of a save is missing or is not what was written."""


class Piece(msgspec.Struct, frozen=True):
    """One shard's file in a save."""

    step: str
    key: str
    file: str
    size: int
    checksum: str


class Manifest(msgspec.Struct, frozen=True):
    """The contents of a save.

    Attributes:
        format: of the manifest itself.
        cut, watermark_ms, positions: of its cut.
        made_ms: by the wall clock, epoch ms.
        fence: of the execution that wrote it.
        settings: those that state cannot follow (`flows.engine.foundation`).
    """

    format: int
    cut: int
    watermark_ms: int
    positions: dict[str, int]
    made_ms: int
    fence: int
    settings: dict[str, str]
    pieces: list[Piece]


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """A segment that a piece needs: its file's path below the recovery directory, named by its checksum."""

    file: str


class Head(msgspec.Struct, frozen=True, array_like=True):
    """The head of a piece's file."""

    format: int
    step: str
    key: str
    cut: int
    segments: list[Segment]


class StepAccount(msgspec.Struct, frozen=True):
    """One step's part of a save: how many pieces and segments, with their sizes in bytes."""

    step: str
    pieces: int
    size: int
    segments: int
    segments_size: int


class Account(msgspec.Struct, frozen=True):
    """The contents of a save, by step; of a damaged one the cut alone, and what is wrong."""

    cut: int
    damage: str = ""
    made_ms: int = 0
    watermark_ms: int = 0
    positions: dict[str, int] = {}
    steps: list[StepAccount] = []


def encode(state: Any) -> bytes:
    """Plain state as msgpack. It is a copy: what the state was made of may change behind it.

    Raises:
        TypeError: something in it is no plain value.
    """
    return msgspec.msgpack.encode(state, enc_hook=_number)


def _number(value: Any) -> Any:
    if isinstance(value, np.integer):
        return int(value)
    raise TypeError(f"state must be plain values, not {type(value)}")


def decode(body: bytes) -> Any:
    """`encode`'s counterpart; every list comes back as a tuple."""
    return _frozen(msgspec.msgpack.decode(body))


def _frozen(value: Any) -> Any:
    if isinstance(value, list):
        return tuple([_frozen(one) for one in value])
    if isinstance(value, dict):
        return {key: _frozen(one) for key, one in value.items()}
    return value


class SaveStore:
    """The saves in a recovery directory.

    Args:
        root: the recovery directory; made on first use.
    """

    def __init__(self, root: Path) -> None:
        self.root, self._folder = root, root / FOLDER

    def cuts(self) -> list[int]:
        """The cuts that have a manifest, whole or not, the newest first."""
        try:
            names = [path.name for path in self._folder.iterdir() if path.name.isdigit()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted((int(one) for one in names if (self._folder / one / MANIFEST).exists()), reverse=True)

    @property
    def oldest_kept(self) -> int:
        """The cut of the oldest manifest that is kept; -1: there is none."""
        return min(self.cuts()[:KEPT], default=-1)

    # Writing

    def put_piece(self, cut: int, step: str, key: str, state: bytes, segments: Sequence[str]) -> Piece:
        """Put one piece on the disk, where its name is durable once its cut is committed. Its segments must
        be durable.

        Raises:
            OSError: the disk does not take it.
        """
        head = msgspec.msgpack.encode(Head(FORMAT, step, key, cut, [Segment(one) for one in segments]))
        body = b"".join((len(head).to_bytes(_LENGTH, "little"), head, state))
        file = f"{step}-{key}"
        if not self._at(cut).exists():
            private_directory(self._at(cut))
        put(self._at(cut) / file, body)
        return Piece(step, key, file, len(body), checksum(body))

    def commit(self, manifest: Manifest) -> None:
        """Rename the manifest into place, which commits the save; then remove saves that are too old.

        Raises:
            OSError: the disk does not take it.
        """
        body = msgspec.json.encode(manifest)
        private_directory(self._at(manifest.cut))
        sync_directory(self._at(manifest.cut))
        replace_file(self._at(manifest.cut) / MANIFEST, body + b"\n" + checksum(body).encode())
        oldest = self.oldest_kept
        for path in self._folder.iterdir():
            if path.name.isdigit() and int(path.name) < oldest:
                shutil.rmtree(path, ignore_errors=True)

    def revoke(self, cut: int) -> None:
        """Take a manifest away whose save is damaged."""
        (self._at(cut) / MANIFEST).unlink(missing_ok=True)
        sync_directory(self._at(cut))

    # Reading

    def newest(self) -> Manifest | None:
        """The newest save that is whole, of which every file was read; None: there was never one. The
        manifests of newer ones that are damaged are taken away.

        Raises:
            StateError: there are saves, and none is whole; or another version wrote the newest.
        """
        damage = []
        for cut in self.cuts():
            try:
                manifest = self.manifest(cut)
                self.verify(manifest)
            except Damaged as error:
                damage.append((cut, str(error)))
                continue
            for newer, reason in damage:
                structlog.get_logger("saves").warning(
                    "a save is damaged: the one before is taken, and the log is read again from there",
                    damaged=newer,
                    taken=cut,
                    reason=reason,
                )
                self.revoke(newer)
            return manifest
        if damage:
            raise StateError(
                f"the recovery directory {self.root} has no whole save ({damage[0][1]}): {_WHAT_TO_DO}"
            )
        return None

    def manifest(self, cut: int) -> Manifest:
        """One manifest.

        Raises:
            Damaged: it is torn. StateError: another version wrote it.
        """
        path = self._at(cut) / MANIFEST
        body, _, written = _read(path).rpartition(b"\n")
        if checksum(body).encode() != written:
            raise Damaged(f"{path} is damaged")
        if (form := msgspec.json.decode(body)["format"]) != FORMAT:
            raise StateError(
                f"the recovery store holds saves of format {form}, this version reads {FORMAT}: run the "
                "version that wrote them, or recompute from the log with --recompute and an empty recovery "
                "directory"
            )
        return msgspec.json.decode(body, type=Manifest)

    def accounts(self) -> list[Account]:
        """Accounts of the saves that are kept, the newest first, of which every file was read. A flow may be
        taking others meanwhile.

        Raises:
            StateError: another version wrote one.
        """
        found = []
        for cut in self.cuts()[:KEPT]:
            try:
                found.append(self._account(self.manifest(cut)))
            except (Damaged, FileNotFoundError) as error:
                if cut in self.cuts():  # else it was too old by then
                    found.append(Account(cut, str(error)))
        return found

    def _account(self, manifest: Manifest) -> Account:
        steps: dict[str, StepAccount] = {}
        for piece, head in zip(manifest.pieces, self.verify(manifest), strict=True):
            sizes = [(self.root / one.file).stat().st_size for one in head.segments]
            had = steps.get(piece.step, StepAccount(piece.step, 0, 0, 0, 0))
            steps[piece.step] = StepAccount(
                piece.step,
                had.pieces + 1,
                had.size + piece.size,
                had.segments + len(sizes),
                had.segments_size + sum(sizes),
            )
        of = (manifest.made_ms, manifest.watermark_ms, manifest.positions)
        return Account(manifest.cut, "", *of, sorted(steps.values(), key=lambda one: one.step))

    def verify(self, manifest: Manifest) -> list[Head]:
        """Read every file of a save; returns the heads of its pieces.

        Raises:
            Damaged: one is missing, or is not what was written.
        """
        with ThreadPoolExecutor(4) as pool:
            heads = list(pool.map(lambda piece: self._verified(manifest.cut, piece), manifest.pieces))
            files = [segment.file for head in heads for segment in head.segments]
            list(pool.map(self._verify_segment, files))
        return heads

    def _verified(self, cut: int, piece: Piece) -> Head:
        path = self._at(cut) / piece.file
        body = _read(path)
        if len(body) != piece.size or checksum(body) != piece.checksum:
            raise Damaged(f"{path} is damaged")
        return _head(body)[0]

    def _verify_segment(self, file: str) -> None:
        path = self.root / file
        if checksum(_read(path)) != path.name:
            raise Damaged(f"{path} is damaged")

    def piece(self, manifest: Manifest, step: str, key: str) -> Any:
        """The state of a piece; None: the save has none of that name.

        Raises:
            StateError: its file cannot be read.
        """
        for piece in manifest.pieces:
            if (piece.step, piece.key) == (step, key):
                try:
                    body = _read(self._at(manifest.cut) / piece.file)
                except Damaged as error:
                    raise StateError(f"{error}: {_WHAT_TO_DO}") from None
                return decode(body[_head(body)[1] :])
        return None

    def segments(self, manifest: Manifest) -> dict[tuple[str, str], list[str]]:
        """The paths of each piece's segments.

        Raises:
            Damaged: a piece is.
        """
        return {
            (piece.step, piece.key): [one.file for one in self._verified(manifest.cut, piece).segments]
            for piece in manifest.pieces
        }

    def _at(self, cut: int) -> Path:
        return self._folder / f"{cut:020d}"


def _head(body: bytes) -> tuple[Head, int]:
    """The head of a piece's file, and where its state begins."""
    end = _LENGTH + int.from_bytes(body[:_LENGTH], "little")
    return msgspec.msgpack.decode(body[_LENGTH:end], type=Head), end


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error.strerror}") from None
