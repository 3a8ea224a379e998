"""The part of a stage's shard that saves need: plain attributes, and tables that may have files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from flows.state.journal import Files
from flows.state.snapshot import check_format


class Stored(Protocol):
    """A table that is a part of a shard's state."""

    def snapshot(self, files: Files) -> Any:
        """The state as plain values, of which large ones may be in `files`."""

    def file_names(self) -> list[str]:
        """The files that the latest snapshot lists."""

    def restore(self, state: Any, files: Files) -> None:
        """Restore the state of `snapshot`."""


class Shard(ABC):
    """The snapshots of one shard of a stage. A stage's own class declares the state and does the stage's
    work.

    Attributes:
        STEP: the name of the stage, which is the place of its files in the recovery directory.
        FORMAT: the format of its snapshots. A snapshot of another format is refused.
        PLAIN: the names of the plain attributes that are in a snapshot.
        index: the number of the shard, known from its first cut on.
        recovery: the directory that snapshots may put files in.
    """

    STEP: ClassVar[str]
    FORMAT: ClassVar[int | str]
    PLAIN: ClassVar[tuple[str, ...]]
    index: int
    shards: int
    recovery: Path | None
    _files: Files | None = None

    @abstractmethod
    def stored(self) -> Mapping[str, Stored]:
        """The tables that are in a snapshot, by name."""

    def plain(self) -> dict[str, Any]:
        """The plain values that are in a snapshot, by name."""
        return {name: getattr(self, name) for name in self.PLAIN}

    @property
    def files(self) -> Files:
        """The files of this shard."""
        if self._files is None:
            self._files = Files.of(self.recovery, self.STEP, self.index)
        return self._files

    def gather(self) -> None:  # noqa: B027  (a shard may have nothing to gather)
        """Copy the changes since the last cut, so that the next snapshot need not."""

    def snapshot(self) -> tuple[Any, ...]:
        """The state as plain values, with its format."""
        tables = self.stored()
        state = self.plain() | {name: table.snapshot(self.files) for name, table in tables.items()}
        self.files.keep([file for table in tables.values() for file in table.file_names()])
        return self.FORMAT, self.shards, state

    def restore(self, state: tuple[Any, ...]) -> None:
        """Restore the state of `snapshot`.

        Raises:
            StateError: the state has another format or number of shards, or a file is missing.
        """
        check_format(self.STEP, state, self.FORMAT, self.shards)
        *_, state_by_name = state
        for name in self.PLAIN:
            setattr(self, name, state_by_name[name])
        self._files = Files.of(self.recovery, self.STEP, self.index)
        for name, table in self.stored().items():
            table.restore(state_by_name[name], self._files)
