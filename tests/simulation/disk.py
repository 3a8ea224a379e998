"""The simulated disk's small files and the directories of the members, on one disk or on one each. A name is
durable after the sync of its directory, and perhaps earlier.
"""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path

from flows.engine import foundation
from flows.engine.dealing import deal
from flows.errors import StateError
from flows.settings import Settings
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
        before = _written_over(name, body)
        self._unsynced.setdefault(name, (os.path.dirname(name), before))
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
            elif os.path.isdir(os.path.dirname(name)):  # else it has gone with its save
                _written_over(name, before)
        self._unsynced.clear()

    def _moment(self) -> None:
        for _ in self._world.moment("disk"):
            self._world.crash()


def _written_over(name: str, body: bytes) -> bytes | None:
    """Write a file; returns what it held before, None if it is new, as most are."""
    before = None
    try:
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        before = Path(name).read_bytes()
        file = os.open(name, os.O_WRONLY | os.O_TRUNC)
    try:
        os.write(file, body)
    finally:
        os.close(file)
    return before


def remove(directory: str) -> None:
    """Remove a directory with its content, without the checks of `shutil.rmtree`: it has no other user."""
    with os.scandir(directory) as entries:
        for entry in [*entries]:
            if entry.is_dir(follow_symlinks=False):
                remove(entry.path)
            else:
                os.unlink(entry.path)
    os.rmdir(directory)


def tear(world: World, store: SaveStore, several: bool) -> None:
    """Spoil a file of the newest save; the one before must do.

    Args:
        several: more than one must be there.
    """
    cuts = store.cuts()
    if several or len(cuts) > 1:
        files = sorted((store.root / FOLDER / f"{cuts[0]:020d}").iterdir())
        torn = files[int(world.random.random() * len(files))]
        torn.write_bytes(torn.read_bytes()[: -world.random.randint(1, 30)])
        world.tell(f"the disk spoils {torn.name} of save {cuts[0]}")


class Directories:
    """The recovery directories of the members, as whoever looks after the flow gives them.

    Args:
        root: of all.
        key: of listeners, for the foundation.
        own: each member has a directory of its own, and for another number of members the shards are dealt
            anew; else all share one.
    """

    def __init__(self, world: World, root: Path, key: bytes, own: bool) -> None:
        self._world, self._root, self._key, self._own = world, root, key, own
        self._numbers = count()
        self.all: list[Path] = [] if own else [root]

    @property
    def stores(self) -> list[SaveStore]:
        """The stores in use."""
        return [SaveStore(one) for one in self.all]

    def any_store(self) -> SaveStore:
        """A store chosen at random."""
        stores = self.stores
        return stores[int(self._world.random.random() * len(stores))] if self._own else stores[0]

    def of(self, members: int, settings: Settings) -> list[Path]:
        """A directory for each of so many members; of fewer or more, where the shards cannot be dealt.

        Raises:
            Crash: while they are dealt, which is then begun anew.
        """
        if not self._own:
            return self.all * members
        if self.all and len(self.all) != members:
            try:
                dealt = deal(self.all, members, self._root / f"dealt-{next(self._numbers)}")
            except StateError as error:  # there is no whole save yet
                self._world.tell(f"{members} workers cannot be: {error}")
            else:
                self.all = dealt.directories
                self._world.tell(f"save {dealt.cut} is dealt to {members} workers")
        elif not self.all:
            self.all = [self._root / f"member-{member}" for member in range(members)]
        for one in self.all:
            foundation.lay_foundation(settings.model_copy(update={"recovery_dir": one}), self._key)
        return self.all
