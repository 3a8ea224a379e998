"""Statements that count bases of impressions, deliveries and confirmed plays (specification 7.1)."""

from __future__ import annotations

from typing import Final

from flows.reconcile.fields import BASES, NO_BASIS
from flows.reconcile.sql.terms import IS, remembered

_NAMES: Final = "[" + ", ".join(f"'{name}'" for name in BASES) + "]"
_USUAL: Final = BASES.index("vast_impression")
_AGAIN: Final = (
    "again.verdict = 'repeated' AND again.watermark < own.minute + getvariable('final_after')"
    " AND again.key = own.key AND again.life = own.life"
)

# Bases are numbered, the strongest first. Until the minute is final, a repeat may strengthen the basis.
SIDES: Final = f"""
CREATE TABLE claims AS
SELECT n, key, life, verdict, minute, watermark, combo,
    CASE WHEN basis = {NO_BASIS} THEN coalesce(platform_bases.usual, {_USUAL}) ELSE basis END AS claimed
FROM counted JOIN combos USING (combo) LEFT JOIN platform_bases USING (platform)
WHERE {IS["impression"]} AND NOT bot AND verdict <> 'too_late';

CREATE TABLE calls AS
SELECT n, key, life, verdict, minute, watermark, combo, confirmed FROM counted
WHERE {IS["start"]} AND NOT bot AND verdict <> 'too_late';

CREATE TABLE sides AS
WITH strongest AS (
    SELECT own.n, any_value(own.combo) AS combo, any_value(own.minute) AS minute,
        least(any_value(own.claimed), min(again.claimed)) AS basis
    FROM claims AS own LEFT JOIN claims AS again ON {_AGAIN}
    WHERE own.verdict = 'accepted' GROUP BY own.n
), confirmed AS (
    SELECT own.n, any_value(own.combo) AS combo, any_value(own.minute) AS minute
    FROM calls AS own LEFT JOIN calls AS again ON {_AGAIN}
    WHERE own.verdict = 'accepted' GROUP BY own.n
    HAVING bool_or(own.confirmed OR coalesce(again.confirmed, false))
)
SELECT combo, minute, concat('impressions_', {_NAMES}[basis + 1]) AS metric, count(*) AS pixels
FROM strongest GROUP BY ALL
UNION ALL
SELECT combo, minute, 'confirmed_plays', count(*) FROM confirmed GROUP BY ALL
UNION ALL
SELECT combo, minute, 'deliveries', pixels FROM tallies
WHERE verdict = 'accepted' AND NOT bot AND {IS["delivered"]};
"""

# The basis of each row's impressions; `mixed` for several bases.
ROW_BASES: Final = f"""
SELECT scope, id, if(count(DISTINCT claimed) = 1, {_NAMES}[any_value(claimed) + 1], 'mixed')
FROM (SELECT DISTINCT combo, minute, claimed FROM claims) JOIN members USING (combo)
WHERE {remembered("scope", "id", "minute")} GROUP BY ALL
"""
