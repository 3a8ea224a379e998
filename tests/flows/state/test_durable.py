"""Durable files are durable by name too, in an order that no power cut can reverse, and private."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from connectors.durable import put
from flows.engine.execution import recovery_lock
from flows.errors import StateError
from flows.state import durable, journal
from flows.state.durable import private_directory
from flows.state.journal import Files, Journal
from flows.state.saves import FORMAT, Manifest, SaveStore, Unwritten


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path]]:
    """The calls to the disk in order: new names and fsyncs."""
    calls: list[tuple[str, Path]] = []
    fsync, rename, mkdir = os.fsync, os.rename, os.mkdir

    def synced(descriptor: int) -> None:
        calls.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def named(do: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any, **more: Any) -> None:
            do(*arguments, **more)
            calls.append(("name", Path(arguments[-1] if do is rename else arguments[0])))

        return call

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", named(rename))
    monkeypatch.setattr(os, "mkdir", named(mkdir))
    return calls


def modes(root: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in [root, *root.rglob("*")]}


def test_a_kept_snapshots_files_and_directories_are_durable(
    tmp_path: Path, disk: list[tuple[str, Path]]
) -> None:
    root = tmp_path / "var" / "recovery"
    files = Files.of(root, "plays", 3)
    names = [files.write(body * 100_000) for body in (b"a", b"b", b"c")]
    files.keep(names)

    made = [path for call, path in disk if call == "name"]
    assert {path.relative_to(tmp_path).as_posix() for path in made} == {
        "var",
        "var/recovery",
        "var/recovery/plays",
        "var/recovery/plays/0003",
        *(f"var/recovery/plays/0003/{name}" for name in names),
    }
    for path in made:
        assert ("fsync", path.parent) in disk[disk.index(("name", path)) :], f"{path} may be gone"
    for name in names:
        content = disk.index(("fsync", root / "plays" / "0003" / f"{name}.part"))
        assert content < disk.index(("name", root / "plays" / "0003" / name)), "named before it was whole"


def test_a_directory_is_fsynced_once_per_snapshot_with_files(
    tmp_path: Path, disk: list[tuple[str, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SPILL_BYTES", 1)
    files, one = Files(tmp_path / "rows" / "0000"), Journal(1)
    files.keep([files.write(bytes([n]) * 10) for n in range(9)])
    assert files.directory is not None
    assert [path for call, path in disk if call == "fsync"].count(files.directory) == 1
    disk.clear()
    files.keep(one.file_names())
    assert disk == []


def test_a_saves_pieces_are_durable_before_its_manifest(tmp_path: Path, disk: list[tuple[str, Path]]) -> None:
    store = SaveStore(tmp_path)
    pieces = [
        piece for key in range(3) for piece in store.put_pieces(1, [Unwritten("rows", f"{key:04}", b"", [])])
    ]
    store.commit(Manifest(FORMAT, 1, 0, {}, 0, 1, {}, pieces))
    store.begin()

    place = tmp_path / "saves" / f"{1:020d}"
    manifest = disk.index(("name", place / "manifest-0"))
    synced = [at for at, one in enumerate(disk) if one == ("fsync", place)]
    named = max(disk.index(("name", place / piece.file)) for piece in pieces)
    assert any(named < at < manifest for at in synced), "a manifest lists names that may be gone"
    assert any(at > manifest for at in synced), "a save that is committed may be gone"
    for path in (place, place.parent):
        assert ("fsync", path.parent) in disk[disk.index(("name", path)) : manifest], f"{path} may be gone"
    assert disk[-1] == ("fsync", place.parent), "where an execution began may be forgotten"


def test_all_files_of_a_flow_are_private_to_its_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    umask = os.umask(0)  # whoever starts it
    try:
        root = tmp_path / "recovery"
        root.mkdir(mode=0o755)
        (root / "rows").mkdir(mode=0o777)
        with recovery_lock(root):
            files, one = Files.of(root, "rows", 0), Journal(1)
            monkeypatch.setattr(journal, "SPILL_BYTES", 1)
            one.append(np.arange(5, dtype=np.uint64).reshape(-1, 1))
            one.spilled(files)
            files.keep(one.file_names())
            store = SaveStore(root)
            pieces = store.put_pieces(1, [Unwritten("rows", "0000", b"", [])])
            store.commit(Manifest(FORMAT, 1, 0, {}, 0, 1, {}, pieces))
        with recovery_lock(root):
            pass
    finally:
        os.umask(umask)
    found = modes(root)
    assert {"manifest-0", "rows-0000"} <= set(found)
    for name, mode in found.items():
        private = 0o700 if name in ("recovery", "rows", "0000", "saves", f"{1:020d}") else 0o600
        assert mode == private, f"{name} has mode {mode:o}"


def test_a_shared_directory_is_refused_and_stays_unchanged(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    with pytest.raises(StateError, match="give it mode 0700, or name a directory inside it"):
        private_directory(shared)
    assert stat.S_IMODE(shared.stat().st_mode) == 0o1777
    private_directory(shared / "ours")
    assert stat.S_IMODE((shared / "ours").stat().st_mode) == 0o700


def test_a_file_has_either_its_old_or_new_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fence"
    put(path, b"old")
    (tmp_path / "fence.part").write_bytes(b"torn, and open to all")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(durable.os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            put(path, b"new")
    assert path.read_bytes() == b"old"
    put(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert modes(tmp_path)["fence"] == 0o600


def test_a_file_instead_of_a_directory_stays_unchanged(tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o644)
    (tmp_path / "file").chmod(0o644)
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(NotADirectoryError):
            private_directory(path)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644
