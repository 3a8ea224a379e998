"""Minutes, windows, flights, reach and finality of placements and their roll-ups.

Owns: cells, totals and sketches of a row shard. Receives: `RowBatch`, `CreditBatch`. Sends: packed rows,
minutes.
Must not import: another stage, the engine.
"""

from __future__ import annotations

from flows.rows.published import minute_messages, pack_rows
from flows.rows.row_index import Limits
from flows.rows.row_shard import RowShard

__all__ = ["Limits", "RowShard", "minute_messages", "pack_rows"]
