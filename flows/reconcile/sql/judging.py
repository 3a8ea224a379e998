"""Statements that judge each pixel: accepted, repeated or too late (specification 1.3 and 1.4).

Whether a pixel counts depends on the earlier pixels that count, since a play is remembered from its last
accepted pixel on. If all pixels of a play came before its first minute was final, the first pixel of each
event counts (`plays`). For the few other plays (`hard`), `ROUND` is repeated until its result equals its
input. Each round settles at least one more pixel of each play.
"""

from __future__ import annotations

from typing import Final

from flows.reconcile.fields import CODES, SCOPES
from flows.reconcile.sql.terms import EVENT_NAME, IS, JOINS, NAMES

PIXELS: Final = f"""
CREATE TABLE pixels (
    src INTEGER, pos BIGINT, event UTINYINT, t BIGINT, greatest BIGINT, combo INTEGER, key HUGEINT,
    listener HUGEINT, household HUGEINT, linked BOOLEAN, consent BOOLEAN, bot BOOLEAN, denied BOOLEAN,
    denied_home BOOLEAN, basis UTINYINT, confirmed BOOLEAN, delay UTINYINT, claims BOOLEAN);
CREATE TABLE combos (
    combo INTEGER, {", ".join(f"{name} VARCHAR" for name in SCOPES)}, blocked BOOLEAN);
CREATE TABLE conversion_fields (
    src INTEGER, pos BIGINT, conversion_type VARCHAR, value HUGEINT, odd BOOLEAN, currency VARCHAR,
    utm VARCHAR, claimed BOOLEAN, apart BOOLEAN, before_listener HUGEINT, before_household HUGEINT,
    before_denied BOOLEAN, before_denied_home BOOLEAN);
CREATE TABLE client_keys (src INTEGER, pos BIGINT, sent_key VARCHAR, tie BIGINT, client_denied BOOLEAN);
CREATE TABLE letters (src INTEGER, pos BIGINT, event VARCHAR, t BIGINT);
CREATE TABLE plans (
    placement VARCHAR, currency VARCHAR, start_ms BIGINT, end_ms BIGINT, planned_in VARCHAR, until_ms BIGINT);
CREATE TABLE platform_bases (platform VARCHAR, usual UTINYINT);
CREATE TABLE utm_targets (utm VARCHAR, placement VARCHAR);
CREATE TABLE restarts (of_scope VARCHAR, of_id VARCHAR, restart_ms BIGINT);
"""

# Pixels of bots are plays of their own. A listener or household without consent is left out.
INSERT: Final = """
INSERT INTO pixels SELECT src, pos, event, t, greatest, combo,
    (key_1::HUGEINT << 64) + key_2 + if(bot, 1::HUGEINT << 124, 0::HUGEINT),
    if(consent AND (listener_1 <> 0 OR listener_2 <> 0), (listener_1::HUGEINT << 64) + listener_2, NULL),
    if(consent AND (household_1 <> 0 OR household_2 <> 0), (household_1::HUGEINT << 64) + household_2, NULL),
    linked, consent, bot, denied, denied_home, basis, confirmed, delay, claims AND NOT bot
FROM chunk
"""

# Partitions have no common order of arrival. The pixels of several files are ordered by watermark.
ARRIVED: Final = """
CREATE TABLE timed AS SELECT {n} AS n, *, t - t % 60000 AS minute,
    greatest - getvariable('out_of_orderness') AS watermark FROM pixels;
DROP TABLE pixels;
"""
ONE_FILE: Final = "pos"
FILES: Final = "row_number() OVER (ORDER BY greatest, src, pos)"

WRONG_LETTERS: Final = f"""
SELECT src, letters.pos FROM letters LEFT JOIN timed USING (src, pos)
WHERE timed.n IS NULL OR letters.t <> timed.t
    OR letters.event <> {EVENT_NAME.replace("event", "timed.event")}
ORDER BY ALL LIMIT 1
"""

# A play counts each event once. An event without a play, or an order, counts once. A conversion of a public
# tag and one of a server have different slots, since the second may confirm the first.
_OTHER, _CLAIMED = 255, 254
_SLOT: Final = f"if(linked, event, if(claims, {_CLAIMED}, {_OTHER}))"

PLAYS: Final = f"""
CREATE TABLE firsts AS
SELECT key, {_SLOT} AS slot, min(n) AS n, max(watermark) AS watermark, min(minute) AS minute,
    bool_or(event = {CODES["conversion"]}) AS converts
FROM timed GROUP BY ALL;
CREATE TABLE plays AS
SELECT key, min(n) FILTER (slot = {CODES["start"]}) AS start_n,
    NOT (max(watermark) < min(minute)
        + least(getvariable('final_after'), if(bool_or(converts), getvariable('conversion_horizon'),
            getvariable('horizon'))))
        OR count(*) FILTER (slot IN ({_OTHER}, {_CLAIMED})) = 2 AS hard
FROM firsts GROUP BY key;
UPDATE plays SET hard = true
WHERE key IN (SELECT key FROM timed JOIN letters USING (src, pos));

-- final_own: whether the pixel's own minute was final when the pixel came. guess: whether the pixel counts.
CREATE TABLE pending AS
SELECT n, key, timed.t, minute, watermark, timed.{IS["start"]} AND linked AS is_start,
    {_SLOT.replace("event", "timed.event")} AS slot, linked AND timed.{JOINS} AS joins,
    if(timed.{IS["conversion"]}, getvariable('conversion_horizon'), getvariable('horizon')) AS horizon,
    letters.pos IS NOT NULL AS lettered,
    CASE WHEN getvariable('judge') THEN watermark >= minute + getvariable('final_after')
        ELSE lettered END AS final_own,
    NOT final_own AS guess
FROM timed JOIN plays USING (key)
LEFT JOIN letters ON letters.src = timed.src AND letters.pos = timed.pos
WHERE hard;

CREATE TABLE verdicts (n BIGINT, life BIGINT, verdict VARCHAR, start_n BIGINT);
"""

ROUND: Final = f"""
CREATE OR REPLACE TEMP TABLE lives AS
SELECT *, count(*) FILTER (NOT known) OVER (PARTITION BY key ORDER BY n) AS life
FROM (
    SELECT *, coalesce(last_t >= watermark - horizon, false) AS known
    FROM (
        SELECT *, max(t) FILTER (guess) OVER (
            PARTITION BY key ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS last_t
        FROM pending));

CREATE OR REPLACE TEMP TABLE round AS
WITH starts AS (
    SELECT key, life, min(n) AS start_n, arg_min(minute, n) AS start_minute
    FROM lives WHERE is_start AND NOT final_own GROUP BY ALL
), judged AS (
    SELECT lives.*, start_n,
        CASE WHEN getvariable('judge') AND joins AND n > start_n
            THEN watermark >= start_minute + getvariable('final_after')
            ELSE final_own END AS final
    FROM lives LEFT JOIN starts USING (key, life)
), claims AS (
    SELECT key, life, min(n) AS claim_n, arg_min(t, n) AS claim_t FROM judged
    WHERE slot = {_CLAIMED} AND NOT final GROUP BY ALL
), asked AS (
    -- A server's conversion later than the horizon after a public tag's confirms nothing. It is a repeat.
    SELECT judged.*, slot = {_OTHER} AND coalesce(n > claim_n AND t > claim_t + horizon, false) AS beyond
    FROM judged LEFT JOIN claims USING (key, life)
), firsts AS (
    SELECT key, life, slot, min(n) AS first_n FROM asked WHERE NOT final AND NOT beyond GROUP BY ALL
), taken AS (
    SELECT key, life, first_n AS taken_n FROM firsts WHERE slot = {_OTHER}
)
SELECT asked.* EXCLUDE (beyond), slot = {_CLAIMED} AND coalesce(n > taken_n, false) AS behind, CASE
        WHEN n = first_n AND NOT behind THEN 'accepted'
        WHEN (n > first_n OR behind OR beyond) AND NOT lettered THEN 'repeated'
        ELSE 'too_late'
    END AS verdict
FROM asked LEFT JOIN firsts USING (key, life, slot) LEFT JOIN taken USING (key, life);

CREATE OR REPLACE TEMP TABLE unsettled AS
SELECT DISTINCT key FROM round WHERE guess <> (verdict = 'accepted');

INSERT INTO verdicts
SELECT n, life, verdict, start_n FROM round WHERE key NOT IN (FROM unsettled);

CREATE OR REPLACE TABLE pending AS
SELECT n, key, t, minute, watermark, is_start, slot, joins, horizon, lettered, final_own,
    verdict = 'accepted' AS guess
FROM round WHERE key IN (FROM unsettled);
"""

# joined: the pixel counts in its start's minute. A pixel whose own minute became final first never joins.
COUNTED: Final = f"""
CREATE TABLE counted AS
SELECT timed.n, src, pos, timed.key, 0 AS life, event, t, timed.minute, timed.watermark, combo, listener,
    household, linked, consent, bot, denied, denied_home, basis, confirmed, delay,
    if(firsts.n IS NULL, 'repeated', 'accepted') AS verdict,
    firsts.n IS NOT NULL AND NOT bot AND linked AND start_n IS NOT NULL AND {JOINS} AS joined
FROM timed JOIN plays ON plays.key = timed.key LEFT JOIN firsts ON firsts.n = timed.n
WHERE NOT hard
UNION ALL
SELECT timed.n, src, pos, timed.key, life, event, timed.t, timed.minute, timed.watermark, combo, listener,
    household, linked, consent, bot, denied, denied_home, basis, confirmed, delay, verdict,
    verdict = 'accepted' AND NOT bot AND linked AND verdicts.start_n IS NOT NULL AND {JOINS}
        AND (timed.n > verdicts.start_n
            OR NOT start.watermark >= timed.minute + getvariable('final_after')) AS joined
FROM timed JOIN verdicts USING (n)
LEFT JOIN (SELECT n AS start_n, watermark FROM timed WHERE n IN (SELECT start_n FROM verdicts)) AS start
    ON start.start_n = verdicts.start_n;
DROP TABLE timed; DROP TABLE plays; DROP TABLE firsts; DROP TABLE pending;

CREATE TABLE tallies AS
SELECT combo, minute, event, linked, verdict, bot, consent, joined, count(*) AS pixels, max(t) AS latest,
    min(t) AS first
FROM counted GROUP BY ALL;

CREATE TABLE delays AS
SELECT combo, delay, count(*) AS pixels FROM counted
WHERE verdict = 'accepted' AND NOT bot AND delay < 255 AND event < {CODES["conversion"]} GROUP BY ALL;

CREATE TABLE members AS
SELECT combo, unnest([{", ".join(f"'{scope}'" for scope in SCOPES)}]) AS scope, unnest([{NAMES}]) AS id
FROM combos;
DELETE FROM members WHERE id IS NULL;
"""

LEDGER: Final = "SELECT src, verdict, bot, count(*) FROM counted GROUP BY ALL"
