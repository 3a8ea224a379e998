"""Statements that add up minutes and rows (specification 2.1 to 2.3)."""

from __future__ import annotations

from typing import Final

from flows.reconcile.fields import SCOPES
from flows.reconcile.sql.terms import EVENT_NAME, IS, MILESTONES, WHOLE, remembered

# `consented_plays`: a play with a listener counts once, in the earlier minute of impression and start.
FACTS: Final = f"""
CREATE OR REPLACE TABLE cohorts AS
SELECT any_value(combo) FILTER ({IS["start"]}) AS combo, any_value(minute) FILTER ({IS["start"]}) AS minute,
    bool_or({IS["complete"]}) AS d, d OR bool_or({IS["thirdQuartile"]}) AS c,
    c OR bool_or({IS["midpoint"]}) AS b, b OR bool_or({IS["firstQuartile"]}) AS a,
    a::INT + b::INT + c::INT + d::INT - count(*) FILTER ({MILESTONES}) AS missing,
    bool_or({IS["skip"]}) AS skips, bool_or({IS["mute"]}) AS mutes
FROM counted
WHERE verdict = 'accepted' AND NOT bot AND linked AND ({IS["start"]} OR joined) GROUP BY key, life
HAVING bool_or({IS["start"]});

CREATE OR REPLACE TABLE facts AS
WITH own AS (
    SELECT combo, minute, CASE {EVENT_NAME}
            WHEN 'impression' THEN 'impressions' WHEN 'click' THEN 'clicks' WHEN 'error' THEN 'errors'
            WHEN 'skip' THEN if(linked, 'skips', NULL) WHEN 'mute' THEN if(linked, 'mutes', NULL)
            WHEN 'start' THEN if(linked, NULL, 'unlinked_starts')
            WHEN 'firstQuartile' THEN if(linked, 'orphans', 'unlinked_first_quartiles')
            WHEN 'midpoint' THEN if(linked, 'orphans', 'unlinked_midpoints')
            WHEN 'thirdQuartile' THEN if(linked, 'orphans', 'unlinked_third_quartiles')
            WHEN 'complete' THEN if(linked, 'orphans', 'unlinked_completes')
        END AS metric, pixels AS amount
    FROM tallies WHERE verdict = 'accepted' AND NOT bot AND NOT joined
    UNION ALL
    SELECT combo, minute, unnest(CASE WHEN verdict <> 'accepted' THEN [verdict]
        WHEN bot THEN ['invalid_traffic'] WHEN consent THEN ['pixels', 'consented']
        ELSE ['pixels'] END), pixels
    FROM tallies
    UNION ALL
    FROM sides
    UNION ALL
    FROM by_client
    UNION ALL
    SELECT combo, minute, 'blocked_impressions', pixels FROM tallies JOIN combos USING (combo)
    WHERE verdict = 'accepted' AND NOT bot AND {IS["impression"]} AND blocked
    UNION ALL
    SELECT combo, minute, unnest(list_concat(['starts'], if(a, ['first_quartiles'], []),
        if(b, ['midpoints'], []), if(c, ['third_quartiles'], []), if(d, ['completes'], []),
        list_resize([]::VARCHAR[], missing, 'repaired'),
        if(skips, ['skips'], []), if(mutes, ['mutes'], []))), plays
    FROM (SELECT *, count(*) AS plays FROM cohorts GROUP BY ALL)
    UNION ALL
    SELECT combo, minute, 'consented_plays', count(*) FROM (
        SELECT arg_min(combo, (minute, event)) AS combo, min(minute) AS minute
        FROM touch_pixels WHERE listener IS NOT NULL AND linked AND NOT {IS["click"]} GROUP BY key, life
        UNION ALL
        SELECT combo, minute FROM touch_pixels
        WHERE listener IS NOT NULL AND NOT linked AND {IS["impression"]})
    GROUP BY ALL
)
SELECT scope, id, minute, metric, sum(amount)::HUGEINT AS amount
FROM (SELECT combo, minute, metric, sum(amount) AS amount FROM own WHERE metric IS NOT NULL GROUP BY ALL)
JOIN members USING (combo) GROUP BY ALL
UNION ALL
SELECT scope, id, minute, metric, sum(millionths) FROM (
    SELECT scope, id, minute, millionths, unnest(CASE counts_as
        WHEN 'confirms' THEN ['conversions_confirmed'] WHEN 'apart' THEN ['conversions_claimed']
        ELSE ['conversions', concat('conversions_', conversion_type), concat('conversions_', way),
            concat('conversions_by_', joined_by), if(claimed, 'conversions_claimed', NULL)]
        END) AS metric FROM credited_rows)
    WHERE metric <> 'conversions_by_'
GROUP BY ALL
UNION ALL
SELECT * FROM "values"
UNION ALL
SELECT scope, id, minute, concat('age_', class - 1), amount FROM ages;

CREATE OR REPLACE TABLE reached AS
SELECT DISTINCT combo, minute, listener AS person, 'reach' AS metric FROM touch_pixels
WHERE listener IS NOT NULL AND NOT {IS["click"]}
UNION ALL
SELECT DISTINCT combo, minute, household, 'household_reach' FROM touch_pixels
WHERE household IS NOT NULL AND NOT {IS["click"]};
"""

_OF_ROW: Final = remembered("scope", "id", "minute")

# The flight of a planned placement begins with the minute of the plan's start. Any other row's flight has all
# its pixels.
FLOWN: Final = "(scope <> 'placement' OR coalesce(minute >= start_ms - start_ms % 60000, true))"

# The counts of rows by window. `moment` is the minute of a row's `as_of_ms`, `day_from` to `day_to` its day.
WINDOWS: Final = f"""
SELECT scope, id, metric, sum(amount) FILTER (minute > moment - 300000 AND minute <= moment) AS "5m",
    sum(amount) FILTER (minute > moment - 3600000 AND minute <= moment) AS "1h",
    sum(amount) FILTER (minute >= day_from AND minute < day_to) AS "1d",
    sum(amount) FILTER (metric IN ({WHOLE}) OR {FLOWN}) AS flight,
    sum(amount) FILTER (minute > moment - 300000 AND minute <= moment AND minute < mature) AS mature_5m,
    sum(amount) FILTER (minute > moment - 3600000 AND minute <= moment AND minute < mature) AS mature_1h
FROM facts JOIN row_moments USING (scope, id) LEFT JOIN plans ON placement = id
WHERE {_OF_ROW} GROUP BY ALL
"""
REACHED: Final = f"""
WITH of_rows AS (
    SELECT scope, id, metric, person, bool_or(minute > moment_2 - 300000 AND minute <= moment_2) AS a,
        bool_or(minute > moment_2 - 3600000 AND minute <= moment_2) AS b,
        bool_or(minute >= day_from_2 AND minute < day_to_2) AS c,
        bool_or({FLOWN}) AS d
    FROM reached JOIN members USING (combo) JOIN row_moments USING (scope, id)
    LEFT JOIN plans ON placement = id
    WHERE {_OF_ROW} GROUP BY ALL
)
SELECT scope, id, metric, count(*) FILTER (a), count(*) FILTER (b), count(*) FILTER (c), count(*) FILTER (d),
    0, 0
FROM of_rows GROUP BY ALL
"""

DELAYS: Final = """
SELECT scope, id, concat('delay_', delay), 0, 0, 0, sum(pixels)::HUGEINT, 0, 0
FROM delays JOIN members USING (combo) JOIN row_moments USING (scope, id)
WHERE scope = 'platform' GROUP BY ALL
"""

# The first and the latest moment of each row.
ROWS: Final = f"""
SELECT scope, id, min(first) FILTER (verdict = 'accepted' AND NOT bot) AS since, max(latest) AS latest
FROM tallies JOIN members USING (combo) WHERE {_OF_ROW} GROUP BY ALL
UNION ALL
SELECT scope, id, NULL, max(t) FROM credited_rows GROUP BY ALL
"""
_LATEST: Final = ", ".join(
    f"arg_max({name}, (latest, {name})) FILTER ({name} IS NOT NULL)" for name in SCOPES[1:]
)
LABELS: Final = f"""
SELECT placement, {_LATEST}
FROM tallies JOIN combos USING (combo)
WHERE verdict = 'accepted' AND NOT bot AND placement IS NOT NULL
    AND {remembered("'placement'", "placement", "minute")}
GROUP BY placement
"""

# The minutes of the first pixel or credit of a row after a silence of at least $1 ms.
SILENCES: Final = """
WITH active AS (
    SELECT scope, id, minute FROM tallies JOIN members USING (combo)
    UNION
    SELECT scope, id, minute FROM credited_rows
)
SELECT scope, id, minute FROM active
QUALIFY minute - lag(minute) OVER (PARTITION BY scope, id ORDER BY minute) >= $1
ORDER BY ALL
"""
SPAN: Final = "SELECT max(minute) - min(minute) FROM tallies"

# The impressions of planned flights, in minutes that begin before the plan's end; and those after a balance.
DELIVERED: Final = f"""
SELECT placement, coalesce(sum(amount) FILTER (metric = 'impressions' AND {FLOWN} AND minute < end_ms), 0),
    coalesce(sum(amount) FILTER (
        metric = 'impressions' AND {FLOWN} AND minute < end_ms AND minute >= until_ms), 0)
FROM plans LEFT JOIN facts ON scope = 'placement' AND id = placement WHERE end_ms IS NOT NULL GROUP BY ALL
"""

DELIVERED_SINCE: Final = f"""
SELECT placement, coalesce(sum(amount), 0) FROM plans JOIN facts ON scope = 'placement' AND id = placement
WHERE end_ms IS NOT NULL AND metric = 'impressions' AND {FLOWN} AND minute < end_ms AND minute >= $1
GROUP BY ALL
"""
"""The impressions of planned flights from a minute on."""

MINUTES: Final = "SELECT id, minute, metric, amount FROM facts WHERE scope = 'placement'"
