"""DuckDB on one thread: the final numbers of a log, by one pass to a table of plays and two aggregates.

Exact: pixels once by (placement, play, event), start cohorts, every minute of every placement, and for every
placement, campaign, platform and station its flight, day, hour and five minutes at the log's end, each with
its reach, counted listener by listener. Left out, in its favour: conversions, lateness and clock bounds,
pixels without a play, skips, mutes and errors, bots, rejections, and that the numbers are wanted every
second, not once at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import duckdb

from benchmarks.measure import Answers, Job, Meter, Result

SCOPES: Final = ("placement", "campaign", "platform", "station")


def plays(kept: str = "", read: str = "", only: str = "true") -> str:
    """The statement for the plays of a log; the arguments are for more columns and fewer lines."""
    return f"""
CREATE OR REPLACE TEMP TABLE plays AS
SELECT placement_id AS placement, any_value(campaign_id) AS campaign, any_value(platform) AS platform,
    any_value(station) AS station,
    bit_or(CASE event WHEN 'impression' THEN 1 WHEN 'start' THEN 2 WHEN 'firstQuartile' THEN 4
        WHEN 'midpoint' THEN 8 WHEN 'thirdQuartile' THEN 16 WHEN 'complete' THEN 32
        WHEN 'click' THEN 64 ELSE 0 END) AS bits,
    min(ts) FILTER (event = 'impression') AS impression_ms,
    min(ts) FILTER (event = 'start') AS start_ms,
    min(ts) FILTER (event = 'click') AS click_ms,
    max(ts) AS last_ms,
    any_value(listener_id) FILTER (consent AND event IN ('impression', 'start')) AS listener,
    {kept} count(*) AS pixels
FROM read_json(?, format = 'newline_delimited', columns = {{
    {read}
    event: 'VARCHAR', ts: 'BIGINT', placement_id: 'VARCHAR', play_id: 'VARCHAR', campaign_id: 'VARCHAR',
    platform: 'VARCHAR', station: 'VARCHAR', listener_id: 'VARCHAR', consent: 'BOOLEAN'}})
WHERE {only} GROUP BY placement_id, play_id
"""


# A milestone implies those before it; without a start it is an orphan and counts nowhere.
_COHORT = """
    count(start_ms) AS starts,
    count(start_ms) FILTER (bits & 60 <> 0) AS first_quartiles,
    count(start_ms) FILTER (bits & 56 <> 0) AS midpoints,
    count(start_ms) FILTER (bits & 48 <> 0) AS third_quartiles,
    count(start_ms) FILTER (bits & 32 <> 0) AS completes
"""

_DELAY_MS = 10_000
"""How far the watermark is behind the log's last event."""


def _window(name: str, first: str) -> str:
    """The numbers of the minutes from `first` to `last`; columns `name.metric`."""
    start, impression, click = (
        f"{at}_ms // 60000 BETWEEN {first} AND last" for at in ("start", "impression", "click")
    )
    return f"""
    count(*) FILTER ({impression}) AS "{name}.impressions",
    count(*) FILTER ({start}) AS "{name}.starts",
    count(*) FILTER ({start} AND bits & 60 <> 0) AS "{name}.first_quartiles",
    count(*) FILTER ({start} AND bits & 56 <> 0) AS "{name}.midpoints",
    count(*) FILTER ({start} AND bits & 48 <> 0) AS "{name}.third_quartiles",
    count(*) FILTER ({start} AND bits & 32 <> 0) AS "{name}.completes",
    count(*) FILTER ({click}) AS "{name}.clicks",
    count(DISTINCT listener) FILTER ({impression} OR {start}) AS "{name}.reach"
"""


DAY: Final = "last - last % 1440"


def flights(sides: str = "", scopes: Sequence[str] = SCOPES) -> str:
    """The statement for the flights of those plays; `sides` are more columns."""
    names = ", ".join(f"'{scope}/' || {scope}" for scope in scopes)
    return f"""
WITH watermark AS (
    SELECT (max(last_ms) - {_DELAY_MS}) // 60000 AS last FROM plays
)
SELECT
    coalesce({names}),
    {_window("5m", "last - 4")}, {_window("1h", "last - 59")}, {_window("1d", DAY)}, {sides}
    count(impression_ms) AS "flight.impressions",
    {_COHORT.replace(" AS ", " AS flight_")}, count(click_ms) AS "flight.clicks",
    count(DISTINCT listener) AS "flight.reach", sum(pixels - bit_count(bits))::BIGINT AS "flight.repeated"
FROM plays, watermark GROUP BY GROUPING SETS ({", ".join(scopes)})
"""


_MINUTES = f"""
SELECT placement || '|' || minute * 60000,
    sum(impressions)::BIGINT AS impressions, sum(starts)::BIGINT AS starts,
    sum(first_quartiles)::BIGINT AS first_quartiles, sum(midpoints)::BIGINT AS midpoints,
    sum(third_quartiles)::BIGINT AS third_quartiles, sum(completes)::BIGINT AS completes,
    sum(clicks)::BIGINT AS clicks
FROM (
    SELECT placement, start_ms // 60000 AS minute, 0 AS impressions, {_COHORT}, 0 AS clicks
    FROM plays WHERE start_ms IS NOT NULL GROUP BY ALL
    UNION ALL
    SELECT placement, impression_ms // 60000, count(*), 0, 0, 0, 0, 0, 0
    FROM plays WHERE impression_ms IS NOT NULL GROUP BY ALL
    UNION ALL
    SELECT placement, click_ms // 60000, 0, 0, 0, 0, 0, 0, count(*)
    FROM plays WHERE click_ms IS NOT NULL GROUP BY ALL
) GROUP BY placement, minute
"""


def run(job: Job) -> Result:
    """Query the log."""
    return query(job, plays(), flights())


def query(job: Job, first: str, then: str) -> Result:
    """Query the log by a statement for its plays and one for its flights."""
    with duckdb.connect(config={"threads": 1}) as db:
        _answers(db, job.warm, first, then)
        with Meter() as meter:
            found = _answers(db, job.log, first, then)
        return meter.result(job.events, found)


def _answers(db: duckdb.DuckDBPyConnection, log: str, first: str, then: str) -> Answers:
    db.execute(first, [log])
    return Answers(*(_table(db.execute(statement)) for statement in (then, _MINUTES)))


def _table(found: duckdb.DuckDBPyConnection) -> dict[str, dict[str, int]]:
    names = [column[0].replace("flight_", "flight.") for column in found.description or ()][1:]
    return {key: dict(zip(names, counts, strict=True)) for key, *counts in found.fetchall()}
