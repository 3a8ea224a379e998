"""The outputs of the flow: fenced rows, the ledger, dead letters, minutes.

Owns: the last image of each row, the partitions' accounts. Receives: `Flush`, `Receipt`, `Settled`.
Sends: writes to Redis, lines to topics and files.
Must not import: a stage but delivery, the engine.
"""

from __future__ import annotations

from flows.publish.covered import (
    Covered,
    final_before,
    number_of,
    positions_key,
    positions_of,
    refuse_foreign,
    store_final,
)
from flows.publish.fence import FenceRecord, latest_fence_record, write_fence_record
from flows.publish.handover import Handover
from flows.publish.ledger import Ledger
from flows.publish.lines import STOP_TIMEOUT, FileLines, LineWriter, TopicLines
from flows.publish.publisher import Publisher
from flows.publish.shown_rows import ShownRows
from flows.publish.switching import FRESH_MS, Standing, ask, seated, standing

__all__ = [
    "FRESH_MS",
    "STOP_TIMEOUT",
    "Covered",
    "FenceRecord",
    "FileLines",
    "Handover",
    "Ledger",
    "LineWriter",
    "Publisher",
    "ShownRows",
    "Standing",
    "TopicLines",
    "ask",
    "final_before",
    "latest_fence_record",
    "number_of",
    "positions_key",
    "positions_of",
    "refuse_foreign",
    "seated",
    "standing",
    "store_final",
    "write_fence_record",
]
