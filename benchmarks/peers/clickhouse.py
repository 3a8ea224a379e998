"""ClickHouse within the process (`chdb`) on one thread: one batch query.

By its documentation: low-cardinality types for names, a schema of the columns that are read, the others
skipped by the reader, and parallel parsing off, which on one thread only copies.
"""

from __future__ import annotations

import csv
import io

from benchmarks.measure import Job, Meter, Result
from benchmarks.peers.job import EVENTS, answers, installed

_COLUMNS = (
    "event LowCardinality(String), ts Int64, placement_id LowCardinality(String), play_id String, "
    "listener_id String, consent Bool"
)
_COUNTS = ", ".join(f"countIf(event = '{event}')" for event in EVENTS)


def version() -> str:
    """What is measured.

    Raises:
        Unavailable: it is not installed.
    """
    return f"ClickHouse, chdb {installed('chdb')}"


def run(job: Job) -> Result:
    """Query the log."""
    import chdb

    def query(log: str) -> list[list[str]]:
        return list(csv.reader(io.StringIO(str(chdb.query(_query(log), "CSV")))))

    query(job.warm)
    with Meter() as meter:
        rows = query(job.log)
    return meter.result(job.events, answers(rows))


def _query(log: str) -> str:
    path = log.replace("\\", "\\\\").replace("'", "\\'")
    return f"""
    SELECT placement_id, intDiv(ts, 60000) AS minute, {_COUNTS},
        uniqExactIf(listener_id, consent AND event IN ('impression', 'start'))
    FROM (
        SELECT placement_id, play_id, event, any(ts) AS ts, any(listener_id) AS listener_id,
            any(consent) AS consent
        FROM file('{path}', JSONEachRow, '{_COLUMNS}') GROUP BY placement_id, play_id, event
    ) GROUP BY placement_id, minute
    SETTINGS max_threads = 1, input_format_parallel_parsing = 0, input_format_skip_unknown_fields = 1
    """
