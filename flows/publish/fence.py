"""The fence and the generation of an execution, stored on disk with its snapshots, so that both outlive
Redis.

A Redis that was emptied between two executions would begin at fence 1 again, and readers would take the rows
of the older execution for newer. Any member of a cluster may be the writer, so each has a file of its own.
The file with the greatest fence counts.
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
        namespace: of its rows; empty for the namespace of the settings.
        left: the namespace of its rows before a switch; empty without a switch.
    """

    fence: int = 0
    generation: int = 0
    begun: bool = False
    namespace: str = ""
    left: str = ""


_FORM: Final = msgspec.json.Decoder(FenceRecord)


def latest_fence_record(directory: Path | None) -> FenceRecord:
    """The record with the greatest fence of all members; zeros without a record or a directory.

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
    """Make a member's fence durable; call it before the fence is used.

    Raises:
        StateError: the disk does not take it.
    """
    if directory is None:
        return
    try:
        private_directory(directory)
        # Earlier versions can read the file of a flow that was never switched.
        put_sealed(directory / f"{_PREFIX}{process}", record if record.namespace else record[:3])
    except OSError as error:
        raise StateError(f"the recovery directory {directory} cannot be used: {error.strerror}") from None


def following(
    last: FenceRecord, there: int, resumed: bool, recompute: bool, settings: Settings
) -> FenceRecord:
    """The generation that an execution writes; its fence is not yet taken, and 0.

    Args:
        last: the record of the latest execution on the recovery directory.
        there: the generation in Redis; 0 without one.
        resumed: whether the flow's state was restored.
        recompute: whether the execution begins a new generation.

    Raises:
        StateError: the resumed state is of an older generation than Redis.
    """
    newest = max(there, last.generation)
    if recompute and not resumed and not last.begun:
        return last._replace(fence=0, generation=newest + 1, begun=True)
    if recompute:
        log = structlog.get_logger("publish")
        log.info(
            "this recovery directory was begun with --recompute: its generation continues", generation=newest
        )
    if resumed and 0 < last.generation < there:
        raise StateError(
            f"Redis ({settings.rows_at}) holds generation {there}, and the recovery directory "
            f"{settings.recovery_dir} is of generation {last.generation}: start with the "
            "recovery directory of the newer generation, or with --recompute and an empty one"
        )
    return last._replace(fence=0, generation=max(newest, 1), begun=last.begun and last.generation == newest)
