"""The disk's side of small files: a name is safe behind the sync of its directory, and perhaps before."""

from __future__ import annotations

import os
from pathlib import Path

from flows.state.saves import FOLDER, SaveStore
from simulation.world import World


class Disk:
    """Counts what becomes durable, and loses at a crash what is not."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._unsynced: dict[str, tuple[str, bytes | None]] = {}

    def put(self, path: Path, body: bytes) -> None:
        """In place of `connectors.durable.put`."""
        self._moment()
        name = str(path)
        if name not in self._unsynced:
            self._unsynced[name] = os.path.dirname(name), _content(name)
        _write(name, body)
        self._moment()

    def sync(self, directory: Path) -> None:
        """In place of `connectors.durable.sync_directory`."""
        here = str(directory)
        for name in [name for name, (of, _) in self._unsynced.items() if of == here]:
            del self._unsynced[name]

    def crash(self) -> None:
        """Keep or lose each name that was not synced."""
        for name, (_, before) in self._unsynced.items():
            if self._world.random.random() < 0.5:
                continue
            if before is None:
                Path(name).unlink(missing_ok=True)
            else:
                _write(name, before)
        self._unsynced.clear()

    def _moment(self) -> None:
        for _ in self._world.moment("disk"):
            self._world.crash()


def _content(name: str) -> bytes | None:
    try:
        with open(name, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _write(name: str, body: bytes) -> None:
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(file, body)
    finally:
        os.close(file)


def tear(world: World, store: SaveStore) -> None:
    """Spoil a file of the newest save; the one before must do."""
    cuts = store.cuts()
    if len(cuts) > 1:
        files = sorted((store.root / FOLDER / f"{cuts[0]:020d}").iterdir())
        torn = files[int(world.random.random() * len(files))]
        torn.write_bytes(torn.read_bytes()[: -world.random.randint(1, 30)])
        world.tell(f"the disk spoils {torn.name} of save {cuts[0]}")
