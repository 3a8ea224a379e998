"""Copies of steps' states at a cut, which threads write to disk together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from flows.engine.save_threads import Work
from flows.model.messages import Durable
from flows.state.journal import FileList
from flows.state.saves import Unwritten


class Copy(NamedTuple):
    """The state of one step at a cut.

    Attributes:
        listed: the files of segments that the copy names.
        settle: waits until all output of the step is safe.
    """

    step: str
    key: str
    state: bytes
    listed: Sequence[FileList]
    settle: Callable[[], None]

    def unwritten(self, root: Path) -> Unwritten:
        """The copy as a piece, whose segments are below `root`."""
        segments = [
            str((one.files.directory / name).relative_to(root))
            for one in self.listed
            if one.files.directory is not None
            for name in sorted(one.names)
        ]
        return Unwritten(self.step, self.key, self.state, segments)


@dataclass
class Batch:
    """The copies of a cut that `work` writes to disk together."""

    copies: list[Copy] = field(default_factory=list)
    work: Work = field(init=False)


class Written(NamedTuple):
    """The work for one copy of a batch."""

    batch: Batch
    number: int

    def done(self) -> bool:
        """True if the batch is on the disk, or failed."""
        return self.batch.work.done()

    def result(self) -> Durable:
        """Wait for the work; raises its error."""
        durable: Durable = self.batch.work.result()[self.number]
        return durable
