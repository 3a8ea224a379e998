"""Statements that count downloads and deliveries once a client, by the three windows of the IAB (7.2)."""

from __future__ import annotations

from typing import Final

from flows.reconcile.fields import CODES, SCOPES
from flows.reconcile.sql.terms import IS

_DAY_MS: Final = 86_400_000
_SENT: Final = f"verdict = 'accepted' AND NOT bot AND event IN ({CODES['delivered']}, {CODES['download']})"
_KIND: Final = f"if({IS['download']}, 'downloads', 'deliveries')"
_NAMES: Final = ", ".join(f"coalesce({name}, '')" for name in SCOPES)

SENDS: Final = f"""
CREATE OR REPLACE TABLE sends AS
SELECT sent_key, combo, minute, t, {_KIND} AS kind,
    row_number() OVER (PARTITION BY sent_key ORDER BY t, tie, {_NAMES}) AS place
FROM counted JOIN client_keys USING (src, pos) JOIN combos USING (combo)
WHERE {_SENT} AND NOT (client_denied AND getvariable('erased'));

CREATE OR REPLACE TABLE unkeyed AS
SELECT combo, minute, concat({_KIND}, '_unkeyed') AS metric, count(*) AS pixels
FROM counted LEFT JOIN client_keys USING (src, pos)
WHERE {_SENT} AND (sent_key IS NULL OR (client_denied AND getvariable('erased'))) GROUP BY ALL;

CREATE OR REPLACE TABLE days (minute BIGINT, day INTEGER);
"""

TIED: Final = """
SELECT count(*) FROM (
    SELECT sent_key, t FROM sends GROUP BY ALL HAVING count(DISTINCT combo) > 1)
"""
"""The number of a client's moments with events of several rows. A keyed hash orders such events."""

MINUTES: Final = "SELECT DISTINCT minute FROM sends"

# In a first-touch window only the first event counts. `chain` goes from each counted event to the first one
# after its window.
SIDES: Final = f"""
CREATE OR REPLACE TABLE by_client AS
WITH RECURSIVE steps AS (
    SELECT sends.*, day,
        min(place) OVER (PARTITION BY sent_key ORDER BY t
            RANGE BETWEEN {_DAY_MS} FOLLOWING AND UNBOUNDED FOLLOWING) AS next,
        place = min(place) OVER (PARTITION BY sent_key, day) AS by_day,
        coalesce(t - lag(t) OVER (PARTITION BY sent_key ORDER BY place) >= {_DAY_MS}, true) AS by_last
    FROM sends JOIN days USING (minute)
), chain AS (
    SELECT sent_key, place, next FROM steps WHERE place = 1
    UNION ALL
    SELECT steps.sent_key, steps.place, steps.next
    FROM chain JOIN steps ON steps.sent_key = chain.sent_key AND steps.place = chain.next
)
SELECT combo, minute, concat(kind, '_', client_window) AS metric, count(*) AS pixels
FROM (
    SELECT combo, minute, kind, unnest(list_concat(if(by_day, ['calendar'], []),
        if(chain.place IS NOT NULL, ['first_touch'], []), if(by_last, ['last_touch'], []))) AS client_window
    FROM steps LEFT JOIN chain USING (sent_key, place))
GROUP BY ALL
UNION ALL
FROM unkeyed;
"""
