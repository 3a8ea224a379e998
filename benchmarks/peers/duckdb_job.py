"""DuckDB on one thread: one batch query, whose answers are the rivals' truth."""

from __future__ import annotations

import duckdb

from benchmarks.measure import Job, Meter, Result
from benchmarks.peers.job import EVENTS, answers

_COUNTS = ", ".join(f"count(*) FILTER (event = '{event}')" for event in EVENTS)
_QUERY = f"""
SELECT placement_id, ts // 60000 AS minute, {_COUNTS},
    count(DISTINCT listener_id) FILTER (consent AND event IN ('impression', 'start'))
FROM (
    SELECT placement_id, play_id, event, any_value(ts) AS ts, any_value(listener_id) AS listener_id,
        any_value(consent) AS consent
    FROM read_json(?, format = 'newline_delimited', columns = {{
        event: 'VARCHAR', ts: 'BIGINT', placement_id: 'VARCHAR', play_id: 'VARCHAR', listener_id: 'VARCHAR',
        consent: 'BOOLEAN'}})
    GROUP BY placement_id, play_id, event
) GROUP BY placement_id, minute
"""


def version() -> str:
    """What is measured."""
    return f"DuckDB {duckdb.__version__}"


def run(job: Job) -> Result:
    """Query the log."""
    with duckdb.connect(config={"threads": 1}) as db:
        db.execute(_QUERY, [job.warm]).fetchall()
        with Meter() as meter:
            rows = db.execute(_QUERY, [job.log]).fetchall()
        return meter.result(job.events, answers(rows))
