"""The disk's side of small files: a name is safe behind the sync of its directory, and perhaps before."""

from __future__ import annotations

import os
from pathlib import Path

from connectors.durable import put
from flows.state.saves import FOLDER, SaveStore
from simulation.world import World


class Disk:
    """Counts what becomes durable, and loses at a crash what is not."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._unsynced: dict[Path, bytes | None] = {}

    def put(self, path: Path, body: bytes) -> None:
        """In place of `connectors.durable.put`."""
        self._moment()
        before = path.read_bytes() if path.exists() else None
        put(path, body)
        self._unsynced.setdefault(path, before)
        self._moment()

    def sync(self, directory: Path) -> None:
        """In place of `connectors.durable.sync_directory`."""
        for path in [path for path in self._unsynced if path.parent == directory]:
            del self._unsynced[path]

    def crash(self) -> None:
        """Keep or lose each name that was not synced."""
        for path, before in self._unsynced.items():
            if self._world.random.random() < 0.5:
                continue
            if before is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(before)
                os.chmod(path, 0o600)
        self._unsynced.clear()

    def _moment(self) -> None:
        for _ in self._world.moment("disk"):
            self._world.crash()


def tear(world: World, store: SaveStore) -> None:
    """Spoil a file of the newest save; the one before must do."""
    cuts = store.cuts()
    if len(cuts) > 1:
        files = sorted((store.root / FOLDER / f"{cuts[0]:020d}").iterdir())
        torn = files[int(world.random.random() * len(files))]
        torn.write_bytes(torn.read_bytes()[: -world.random.randint(1, 30)])
        world.tell(f"the disk spoils {torn.name} of save {cuts[0]}")
