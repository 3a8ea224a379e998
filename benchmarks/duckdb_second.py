"""DuckDB on one thread over the log with the collector's fields: what `duckdb_batch` answers, and creatives,
impressions by basis and the plays that their device confirmed.

Left out, in its favour: that the strongest basis of a play counts, households, and conversions.
"""

from __future__ import annotations

from typing import Final

from benchmarks.duckdb_batch import DAY, SCOPES, flights, plays, query
from benchmarks.measure import Job, Result
from flows.model.basis import BASES

_KEPT: Final = """any_value(creative_id) AS creative, any_value(basis) FILTER (event = 'impression') AS basis,
    bool_or(device_confirmed) FILTER (event = 'start') AS confirmed,"""
_READ: Final = "creative_id: 'VARCHAR', basis: 'VARCHAR', device_confirmed: 'BOOLEAN',"


def _sides(window: str, within: str) -> str:
    counts = {f"impressions_{name}": f"impression_ms {within} AND basis = '{name}'" for name in BASES}
    counts["confirmed_plays"] = f"start_ms {within} AND confirmed"
    return "".join(f'count(*) FILTER ({rows}) AS "{window}.{name}", ' for name, rows in counts.items())


def run(job: Job) -> Result:
    """Query the log."""
    sides = _sides("1d", f"// 60000 BETWEEN {DAY} AND last") + _sides("flight", "IS NOT NULL")
    first = plays(_KEPT, _READ, "event <> 'conversion'")
    return query(job, first, flights(sides, (*SCOPES, "creative")))
