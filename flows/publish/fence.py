"""The execution's fence and the generation that it writes, on the disk with its snapshots: both outlive
Redis.

A Redis that was emptied between two executions would begin at fence 1 again, and readers would take the older
execution's rows for the newer ones. Each member of a cluster has a file of its own, since any of them may be
the writer; the one with the greatest fence counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import structlog

from flows.errors import StateError
from flows.settings import Settings
from flows.state.durable import private_directory
from flows.state.sealed import Damaged, put_sealed, read_sealed

_PREFIX: Final = "fence-"


class FenceRecord(NamedTuple):
    """The fence and generation of the latest execution on a recovery directory.

    Attributes:
        begun: whether the generation was begun with this directory, by `--recompute` or a switch.
        namespace: of its rows; empty: the one that the settings name.
        left: the namespace that it was in before; empty: none.
    """

    fence: int = 0
    generation: int = 0
    begun: bool = False
    namespace: str = ""
    left: str = ""


_FORM: Final = msgspec.json.Decoder(FenceRecord)


def latest_fence_record(directory: Path | None) -> FenceRecord:
    """The latest of all members' records; zeros if there is none, or no directory.

    Raises:
        StateError: a file cannot be read.
    """
    if directory is None:
        return FenceRecord()
    records = [FenceRecord()]
    for path in sorted(directory.glob(f"{_PREFIX}*[0-9]")):
        try:
            records.append(read_sealed(path, _FORM))
        except Damaged as error:
            raise StateError(
                f"{error}: restore it, or put the greatest fence of the rows in Redis there, as a line "
                "[fence, generation, false]"
            ) from None
    return max(records)


def write_fence_record(directory: Path | None, process: int, record: FenceRecord) -> None:
    """Make a member's fence durable, before it is used.

    Raises:
        StateError: the disk does not take it.
    """
    if directory is None:
        return
    try:
        private_directory(directory)
        # The version before reads the file of a flow that never was in another namespace.
        put_sealed(directory / f"{_PREFIX}{process}", record if record.namespace else record[:3])
    except OSError as error:
        raise StateError(f"the recovery directory {directory} cannot be used: {error.strerror}") from None


def following(
    last: FenceRecord, there: int, resumed: bool, recompute: bool, settings: Settings
) -> FenceRecord:
    """The generation that an execution writes, before it has its fence.

    Args:
        last: the latest execution's on its recovery directory.
        there: generation in Redis; 0 without one.
        resumed: whether the flow's state was restored.
        recompute: whether it is to begin a new generation.

    Raises:
        StateError: the state that it resumes is of an older one.
    """
    newest = max(there, last.generation)
    if recompute and not resumed and not last.begun:
        return last._replace(fence=0, generation=newest + 1, begun=True)
    if recompute:
        log = structlog.get_logger("publish")
        log.info("--recompute has begun here: its generation goes on", generation=newest)
    if resumed and 0 < last.generation < there:
        raise StateError(
            f"Redis ({settings.rows_at}) holds generation {there}, and the recovery directory "
            f"{settings.recovery_dir} is of generation {last.generation}: give the one that the "
            "newer was begun with, or --recompute with an empty one"
        )
    return last._replace(fence=0, generation=max(newest, 1), begun=last.begun and last.generation == newest)
