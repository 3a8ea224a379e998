"""Saves on the disk: for each cut a directory with the pieces of shards, and for each member a manifest that
commits the member's pieces.

A piece is one shard's state at a cut: plain values as msgpack, with the list of the segments that it needs
(`flows.state.journal`). Pieces that are written together share a file, which has the name of the first. A
member's manifest lists its pieces with places, sizes and checksums, and is renamed into place last. A
member's part of a save is therefore complete or absent, and a save is complete when every member's part is.
If several members share a disk, the directory of a cut has the manifests of all of them.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import defaultdict
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from connectors.durable import put, sync_directory
from flows.errors import UNREADABLE, StateError
from flows.state.durable import private_directory
from flows.state.sealed import Damaged, checksum, checksum_of, put_sealed, read, read_sealed

FORMAT: Final = 3
MANIFEST: Final = "manifest-"
"""The name of a manifest, before its member's number."""
FOLDER: Final = "saves"
BEGINNING: Final = "beginning"
"""The file that exists while an execution may go back to the beginning."""
KEPT_SAVES: Final = 2
"""The number of complete saves that are kept. The disk has all files that they list, and newer files."""
PARTITIONS: Final = "partitions"
"""The step whose piece has the states of all source partitions, the same in each member's part."""
_LENGTH: Final = 4
"""The bytes of the length before a piece's head."""
_CUT: Final = re.compile("[0-9]{20}")
_MANIFEST: Final = re.compile(f"{MANIFEST}(0|[1-9][0-9]{{0,5}})")
_PIECE: Final = re.compile("[a-z_]{1,40}-[a-z0-9]{1,40}")
SEGMENT: Final = re.compile("[a-z_]{1,40}/[0-9]{1,10}/[0-9a-f]{32}")
"""The forms of our files' and directories' names. Files with other names are not read."""
REMEDY: Final = (
    "restore all of the directory from one backup, or count the log anew with --recompute and an empty one"
)


class Piece(msgspec.Struct, frozen=True):
    """The part of one shard in a file of a save."""

    step: str
    key: str
    file: str
    offset: int
    size: int
    checksum: str


class Unwritten(NamedTuple):
    """A piece that is not on the disk yet: its packed state, and the names of the segments that it needs,
    which are on the disk.
    """

    step: str
    key: str
    state: bytes
    segments: Sequence[str]


class Manifest(msgspec.Struct, frozen=True):
    """The contents of one member's part of a save.

    Attributes:
        format: the format of saves.
        cut, watermark_ms, positions: the number, watermark and positions of the cut.
        made_ms: the time by the wall clock, epoch ms.
        fence: the fence of the execution that wrote it, as far as this member knows.
        settings: the settings that must not change while there is state (`flows.engine.foundation`).
        pieces: the pieces of this member.
        start: the number of the start after which it was written. Manifests of one cut and of two starts
            belong to two saves.
        member: the member whose part it is.
        shards: the names of each member's pieces, so that one part lists the whole.
        interval_ms, ahead_ms: the values of the tick clock that numbered the cut; 0 if unknown.
    """

    format: int
    cut: int
    watermark_ms: int
    positions: dict[str, int]
    made_ms: int
    fence: int
    settings: dict[str, str]
    pieces: list[Piece]
    start: int = 0
    member: int = 0
    shards: tuple[tuple[str, ...], ...] = ((),)
    interval_ms: int = 0
    ahead_ms: int = 0

    @property
    def members(self) -> int:
        """The number of members that have a part of the save."""
        return len(self.shards)


class Save:
    """The parts of a save that are on one disk: one member's, or several members'."""

    def __init__(self, parts: Sequence[Manifest]) -> None:
        self.parts = parts
        self.pieces = {(piece.step, piece.key): piece for part in parts for piece in part.pieces}

    @property
    def manifest(self) -> Manifest:
        """The manifest of one member, for what is the same in all of them."""
        return self.parts[0]

    @property
    def cut(self) -> int:
        return self.manifest.cut

    @property
    def members_here(self) -> list[int]:
        """The members whose parts are on this disk."""
        return [part.member for part in self.parts]


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """A segment that a piece needs: its file's path below the recovery directory, named by its checksum."""

    file: str


class Head(msgspec.Struct, frozen=True, array_like=True):
    """The head of a piece."""

    format: int
    step: str
    key: str
    cut: int
    segments: list[Segment]


class Form(msgspec.Struct, frozen=True):
    """The field of a manifest that every version has."""

    format: int


_HEADS: Final = msgspec.msgpack.Decoder(Head)
_FORMS: Final = msgspec.json.Decoder(Form)
_MANIFESTS: Final = msgspec.json.Decoder(Manifest)
"""Built at import, in one thread: with msgspec 0.22 two threads that decode a class for the first time at
once may crash.
"""


def encode(state: Any) -> bytes:
    """Plain state as msgpack. The bytes are a copy, so the state's sources may change afterwards.

    Raises:
        TypeError: a value in it is not plain.
    """
    return msgspec.msgpack.encode(state, enc_hook=_number)


def _number(value: Any) -> Any:
    if isinstance(value, np.integer):
        return int(value)
    raise TypeError(f"state must be plain values, not {type(value)}")


def decode(body: bytes) -> Any:
    """The state of `encode`; every list comes back as a tuple."""
    return _frozen(msgspec.msgpack.decode(body))


def _frozen(value: Any) -> Any:
    if isinstance(value, list):
        return tuple([_frozen(item) for item in value])
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return value


class SaveStore:
    """The saves in a recovery directory.

    Args:
        root: the recovery directory; made on first use.
    """

    def __init__(self, root: Path) -> None:
        self.root, self._folder = root, root / FOLDER

    def cuts(self) -> list[int]:
        """The cuts of which this disk has a manifest, whole or not, the newest first."""
        return sorted((cut for cut in self._directories() if self.members_at(cut)), reverse=True)

    def _directories(self) -> list[int]:
        """The cuts that have a directory."""
        return [int(name) for name in _names(self._folder) if _CUT.fullmatch(name)]

    def members_at(self, cut: int) -> list[int]:
        """The members whose manifests of a cut are on this disk."""
        names = filter(_MANIFEST.fullmatch, _names(self._cut_directory(cut)))
        return sorted(int(name.removeprefix(MANIFEST)) for name in names)

    # Writing

    def put_pieces(self, cut: int, unwritten: Sequence[Unwritten]) -> list[Piece]:
        """Write pieces to one file, whose name is durable once the cut is committed. Their segments must be
        durable.

        Raises:
            OSError: the disk does not take them.
        """
        file, directory = f"{unwritten[0].step}-{unwritten[0].key}", self._cut_directory(cut)
        bodies, pieces, offset = list[bytes](), list[Piece](), 0
        for step, key, state, segments in unwritten:
            head = msgspec.msgpack.encode(Head(FORMAT, step, key, cut, [Segment(name) for name in segments]))
            body = (len(head).to_bytes(_LENGTH, "little"), head, state)
            size = sum(map(len, body))
            pieces.append(Piece(step, key, file, offset, size, checksum(*body)))
            bodies += body
            offset += size
        if not directory.exists():
            private_directory(directory)
        put(directory / file, *bodies)
        return pieces

    def unwritten(self, cut: int, piece: Piece) -> Unwritten:
        """A piece of this disk, to be written to another disk after its segments.

        Raises:
            Damaged: the piece is damaged.
        """
        head, state = self._parts(cut, piece)
        return Unwritten(piece.step, piece.key, state, [segment.file for segment in head.segments])

    def segments(self, cut: int, piece: Piece) -> list[str]:
        """The names of the segments that a piece lists, from its head alone. No checksum is checked.

        Raises:
            Damaged: the head cannot be read.
        """
        path = self._cut_directory(cut) / piece.file
        length = int.from_bytes(read(path, piece.offset, _LENGTH), "little")
        head = _decoded(path, read(path, piece.offset + _LENGTH, min(length, piece.size)))
        return [segment.file for segment in head.segments]

    @property
    def begun(self) -> bool:
        """True from `begin` until the first `prune`."""
        return (self._folder / BEGINNING).exists()

    def begin(self) -> None:
        """Record that an execution has begun without a save. Members that share a disk may do so at once.

        Raises:
            OSError: the disk does not take it.
        """
        private_directory(self._folder)
        (self._folder / BEGINNING).touch(0o600)
        sync_directory(self._folder)

    def commit(self, manifest: Manifest) -> None:
        """Rename a member's manifest into place, which commits its part of the save.

        Raises:
            OSError: the disk does not take it.
        """
        directory = self._cut_directory(manifest.cut)
        private_directory(directory)
        sync_directory(directory)
        put_sealed(directory / f"{MANIFEST}{manifest.member}", manifest)

    def prune(self, oldest: int) -> None:
        """Remove the saves before the cut `oldest`, and the record of `begin`."""
        (self._folder / BEGINNING).unlink(missing_ok=True)
        for cut in self._directories():
            if cut < oldest:
                shutil.rmtree(self._cut_directory(cut), ignore_errors=True)

    def revoke_after(self, cut: int) -> None:
        """Remove the manifests of all cuts after `cut`, from which an execution continues."""
        for newer in self.cuts():
            if newer > cut:
                for member in self.members_at(newer):
                    (self._cut_directory(newer) / f"{MANIFEST}{member}").unlink(missing_ok=True)
                sync_directory(self._cut_directory(newer))

    # Reading

    def save(self, cut: int) -> Save:
        """The parts of a save that this disk has; their pieces are not read.

        Raises:
            Damaged: a manifest is damaged, or the manifests are of two saves.
            StateError: another version wrote the save.
        """
        parts = [self.manifest(cut, member) for member in self.members_at(cut)]
        if len({(part.start, part.shards) for part in parts}) != 1:
            raise Damaged(f"{self._cut_directory(cut)} has no manifest, or has manifests of two saves")
        return Save(parts)

    def manifest(self, cut: int, member: int = 0) -> Manifest:
        """The manifest of one member.

        Raises:
            Damaged: the manifest is damaged.
            StateError: another version wrote it.
        """
        path = self._cut_directory(cut) / f"{MANIFEST}{member}"
        if (form := read_sealed(path, _FORMS, bare_line=False).format) != FORMAT:
            raise StateError(
                f"the recovery store holds saves of format {form}, this version reads {FORMAT}: run the "
                "version that wrote them, or recompute from the log with --recompute and an empty recovery "
                "directory"
            )
        manifest = read_sealed(path, _MANIFESTS, bare_line=False)
        if (
            (manifest.cut, manifest.member) != (cut, member)
            or member >= manifest.members
            or not _are_disjoint(manifest.pieces)
        ):
            raise Damaged(f"{path} names another cut or member, or its pieces overlap")
        return manifest

    def verify(self, cut: int, pieces: Collection[Piece], all_pieces: Collection[Piece] = ()) -> list[Head]:
        """Read every file of some pieces of a save, each once; returns the pieces' heads.

        Args:
            all_pieces: all pieces that the files of `pieces` have; empty if these are `pieces`.

        Raises:
            Damaged: a file is missing, or is not as it was written.
        """
        ends = dict[str, int]()
        for piece in all_pieces or pieces:
            ends[piece.file] = max(ends.get(piece.file, 0), piece.offset + piece.size)
        for file in {piece.file for piece in pieces}:
            if read(path := self._cut_directory(cut) / file, ends[file], 1):
                raise Damaged(f"{path} is damaged")
        with ThreadPoolExecutor(4) as pool:
            heads = list(pool.map(lambda piece: self._parts(cut, piece)[0], pieces))
            files = {segment.file for head in heads for segment in head.segments}
            list(pool.map(self._verify_segment, files))
        return heads

    def _parts(self, cut: int, piece: Piece) -> tuple[Head, bytes]:
        """The head of a piece, and its state."""
        path = self._cut_directory(cut) / piece.file
        body = read(path, piece.offset, piece.size)
        if checksum(body) != piece.checksum:
            raise Damaged(f"{path} is damaged")
        end = _LENGTH + int.from_bytes(body[:_LENGTH], "little")
        head = _decoded(path, body[_LENGTH:end])
        if (head.format, head.step, head.key, head.cut) != (FORMAT, piece.step, piece.key, cut):
            raise Damaged(f"{path} does not have the piece {piece.step}-{piece.key} of save {cut}")
        return head, body[end:]

    def _verify_segment(self, file: str) -> None:
        path = self.root / file
        if not SEGMENT.fullmatch(file) or checksum_of(path) != path.name:
            raise Damaged(f"{path} is damaged")

    def piece(self, save: Save, step: str, key: str) -> Any:
        """The state of a piece; None if this disk does not have the piece.

        Raises:
            StateError: its file cannot be read.
        """
        piece = save.pieces.get((step, key))
        if piece is None:
            return None
        try:
            return decode(self.unwritten(save.cut, piece).state)
        except Damaged as error:
            raise StateError(f"{error}: {REMEDY}") from None

    def _cut_directory(self, cut: int) -> Path:
        return self._folder / f"{cut:020d}"


def _decoded(path: Path, head: bytes) -> Head:
    try:
        return _HEADS.decode(head)
    except UNREADABLE as error:
        raise Damaged(f"{path} is damaged: {error}") from None


def _are_disjoint(pieces: Sequence[Piece]) -> bool:
    """True if no two pieces overlap, and each is in a file of its own save, so that no byte is read twice."""
    ends = defaultdict[str, int](int)
    for piece in sorted(pieces, key=lambda piece: piece.offset):
        if not _PIECE.fullmatch(piece.file) or piece.offset < ends[piece.file] or piece.size < 1:
            return False
        ends[piece.file] = piece.offset + piece.size
    return True


def _names(directory: Path) -> list[str]:
    """The names in a directory; empty if there is none."""
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
