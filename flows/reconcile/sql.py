"""The oracle's statements: specification 1.3, 1.4, 2.1 to 2.4 and 2.6 over a table `pixels`, as they run.

Settings are DuckDB variables (`getvariable`). Pixels are counted by `combo`, a number for six names, and only
sums are unfolded into the rows of the six scopes (`members`). Which pixel counts depends on which pixels
before it count (a play is remembered from its last accepted pixel on). Where all of a play came before its
first minute was final, the first of each event counts (`plays`); for the few others `ROUND` is repeated until
it confirms what it was given: every round settles at least the next pixel of each play.
"""

from __future__ import annotations

from typing import Final

from flows.reconcile.fields import SCOPES, WHOLE_METRICS
from flows.reconcile.scan import CODES, EVENTS

_IS: Final = {name: f"event = {code}" for name, code in CODES.items()}
_MILESTONES: Final = f"event BETWEEN {CODES['firstQuartile']} AND {CODES['complete']}"
_JOINS: Final = f"event BETWEEN {CODES['firstQuartile']} AND {CODES['mute']}"
"""What belongs to the minute of its play's start."""
_EVENT_NAME: Final = "[" + ", ".join(f"'{name}'" for name in EVENTS) + "][event + 1]"
_NAMES: Final = ", ".join(SCOPES)
_WHOLE: Final = ", ".join(f"'{metric}'" for metric in WHOLE_METRICS)

PIXELS: Final = f"""
CREATE TABLE pixels (
    src INTEGER, pos BIGINT, event UTINYINT, t BIGINT, greatest BIGINT, combo INTEGER, key HUGEINT,
    listener HUGEINT, linked BOOLEAN, consent BOOLEAN, bot BOOLEAN, denied BOOLEAN);
CREATE TABLE combos (
    combo INTEGER, {", ".join(f"{name} VARCHAR" for name in SCOPES)}, blocked BOOLEAN);
CREATE TABLE told (
    src INTEGER, pos BIGINT, conversion_type VARCHAR, value HUGEINT, odd BOOLEAN, currency VARCHAR,
    utm VARCHAR);
CREATE TABLE letters (src INTEGER, pos BIGINT, event VARCHAR, t BIGINT);
CREATE TABLE plans (
    placement VARCHAR, currency VARCHAR, start_ms BIGINT, end_ms BIGINT, planned_in VARCHAR);
CREATE TABLE utm_targets (utm VARCHAR, placement VARCHAR);
"""

# Bots are plays apart. A listener of whom nothing may be known is none.
INSERT: Final = """
INSERT INTO pixels SELECT src, pos, event, t, greatest, combo,
    (key_1::HUGEINT << 61) + key_2 + if(bot, 1::HUGEINT << 124, 0::HUGEINT),
    if(consent AND (listener_1 <> 0 OR listener_2 <> 0), (listener_1::HUGEINT << 61) + listener_2, NULL),
    linked, consent, bot, denied
FROM chunk
"""

# Partitions have no common order of arrival; that of their watermarks is all that the log tells.
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
    OR letters.event <> {_EVENT_NAME.replace("event", "timed.event")}
ORDER BY ALL LIMIT 1
"""

PLAYS: Final = f"""
CREATE TABLE firsts AS
SELECT key, if(linked, event, 255) AS slot, min(n) AS n, max(watermark) AS watermark, min(minute) AS minute,
    bool_or(event = {CODES["conversion"]}) AS converts
FROM timed GROUP BY ALL;
CREATE TABLE plays AS
SELECT key, min(n) FILTER (slot = {CODES["start"]}) AS start_n,
    NOT (max(watermark) < min(minute)
        + least(getvariable('final_after'), if(bool_or(converts), getvariable('conversion_horizon'),
            getvariable('horizon')))) AS hard
FROM firsts GROUP BY key;
UPDATE plays SET hard = true
WHERE key IN (SELECT key FROM timed JOIN letters USING (src, pos));

-- final_own: whether the pixel's own minute was final when it came.
CREATE TABLE pending AS
SELECT n, key, timed.t, minute, watermark, timed.{_IS["start"]} AND linked AS is_start,
    if(linked, timed.event, 255) AS slot, linked AND timed.{_JOINS} AS joins,
    if(timed.{_IS["conversion"]}, getvariable('conversion_horizon'), getvariable('horizon')) AS horizon,
    letters.pos IS NOT NULL AS lettered,
    CASE WHEN getvariable('judge') THEN watermark >= minute + getvariable('final_after')
        ELSE lettered END AS final_own,
    NOT final_own AS guess
FROM timed JOIN plays USING (key)
LEFT JOIN letters ON letters.src = timed.src AND letters.pos = timed.pos
WHERE hard;

CREATE TABLE verdicts (n BIGINT, life BIGINT, verdict VARCHAR, start_n BIGINT);
"""

ROUND: Final = """
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
), firsts AS (
    SELECT key, life, slot, min(n) AS first_n FROM judged WHERE NOT final GROUP BY ALL
)
SELECT judged.*, CASE
        WHEN n = first_n THEN 'accepted'
        WHEN n > first_n AND NOT lettered THEN 'repeated'
        ELSE 'too_late'
    END AS verdict
FROM judged LEFT JOIN firsts USING (key, life, slot);

CREATE OR REPLACE TEMP TABLE unsettled AS
SELECT DISTINCT key FROM round WHERE guess <> (verdict = 'accepted');

INSERT INTO verdicts
SELECT n, life, verdict, start_n FROM round WHERE key NOT IN (FROM unsettled);

CREATE OR REPLACE TABLE pending AS
SELECT n, key, t, minute, watermark, is_start, slot, joins, horizon, lettered, final_own,
    verdict = 'accepted' AS guess
FROM round WHERE key IN (FROM unsettled);
"""

# joined: the pixel counts in its start's minute; one that waited until its own minute was final never does.
COUNTED: Final = f"""
CREATE TABLE counted AS
SELECT timed.n, src, pos, timed.key, 0 AS life, event, t, timed.minute, timed.watermark, combo, listener,
    linked, consent, bot, denied, if(firsts.n IS NULL, 'repeated', 'accepted') AS verdict,
    firsts.n IS NOT NULL AND NOT bot AND linked AND start_n IS NOT NULL AND {_JOINS} AS joined
FROM timed JOIN plays ON plays.key = timed.key LEFT JOIN firsts ON firsts.n = timed.n
WHERE NOT hard
UNION ALL
SELECT timed.n, src, pos, timed.key, life, event, timed.t, timed.minute, timed.watermark, combo, listener,
    linked, consent, bot, denied, verdict,
    verdict = 'accepted' AND NOT bot AND linked AND verdicts.start_n IS NOT NULL AND {_JOINS}
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

CREATE TABLE members AS
SELECT combo, unnest([{", ".join(f"'{scope}'" for scope in SCOPES)}]) AS scope, unnest([{_NAMES}]) AS id
FROM combos;
DELETE FROM members WHERE id IS NULL;
"""

TOUCHES: Final = f"""
CREATE OR REPLACE TABLE heard AS
SELECT n, key, life, event, t, minute, combo, listener, linked
FROM counted
WHERE verdict = 'accepted' AND NOT bot AND listener IS NOT NULL AND NOT (denied AND getvariable('erased'))
    AND event IN ({CODES["impression"]}, {CODES["start"]}, {CODES["click"]});

CREATE OR REPLACE TABLE conversions AS
SELECT counted.* EXCLUDE (listener), {_NAMES}, conversion_type, value, odd, currency, utm,
    if(denied AND getvariable('erased'), NULL, listener) AS listener
FROM counted JOIN told USING (src, pos) JOIN combos USING (combo)
WHERE verdict = 'accepted' AND NOT bot AND {_IS["conversion"]};

CREATE OR REPLACE TABLE touches AS
SELECT heard.*, {_NAMES}, {_IS["click"]} AS is_click,
    [coalesce(campaign, ''), coalesce(platform, ''), coalesce(station, ''), coalesce(podcast, ''),
        coalesce(program, '')] AS names,
    -- A start stands for its play until the minute of the play's impression.
    if({_IS["start"]}, min(minute) FILTER ({_IS["impression"]}) OVER (PARTITION BY key, life, listener), NULL)
        AS stands_until
FROM heard JOIN combos USING (combo)
WHERE (NOT {_IS["start"]} OR linked) AND listener IN (SELECT listener FROM conversions);

CREATE OR REPLACE TABLE eligible AS
WITH candidates AS (
    SELECT c.n AS conversion_n, touch.n AS touch_n, touch.t, touch.placement, touch.is_click, touch.names,
        c.t - touch.t AS age
    FROM conversions AS c
    JOIN touches AS touch ON touch.listener = c.listener AND touch.t <= c.t
        AND c.t - touch.t <= if(touch.is_click, getvariable('click_window'), getvariable('listen_window'))
    WHERE c.placement IS NULL AND coalesce(c.minute < touch.stands_until, true)
        AND (c.campaign IS NULL OR c.campaign = touch.campaign) AND getvariable('model') <> 'off'
)
SELECT conversion_n, touch_n, t, placement, is_click, names, age,
    CASE getvariable('model')
        WHEN 'last_touch' THEN (row_number() OVER (PARTITION BY conversion_n
            ORDER BY is_click DESC, t DESC, placement DESC, names DESC) = 1)::DOUBLE
        WHEN 'first_touch' THEN (row_number() OVER (PARTITION BY conversion_n
            ORDER BY t, placement DESC, is_click DESC, names DESC) = 1)::DOUBLE
        WHEN 'linear' THEN 1.0
        WHEN 'time_decay' THEN pow(0.5,
            (max(t) OVER (PARTITION BY conversion_n) - t) / getvariable('half_life')::DOUBLE)
    END AS weight
FROM candidates;
"""

# Shares by largest remainder, of the millionths and of the value alike: the parts sum to the whole.
CREDITS: Final = f"""
CREATE OR REPLACE TABLE shares AS
WITH floored AS (
    SELECT *, 1e6 * weight / sum(weight) OVER (PARTITION BY conversion_n) AS exact,
        floor(exact)::BIGINT AS low
    FROM eligible WHERE weight > 0
), credited AS (
    SELECT floored.*, low + (row_number() OVER (
            PARTITION BY conversion_n
            ORDER BY exact - low DESC, t DESC, placement DESC, is_click DESC, names DESC, touch_n)
        <= 1000000 - sum(low) OVER (PARTITION BY conversion_n))::INT AS millionths
    FROM floored
), valued AS (
    SELECT credited.*, value, value::HUGEINT * millionths AS product,
        ((product % 1000000) + 1000000) % 1000000 AS rest, (product - rest) // 1000000 AS low_value
    FROM credited JOIN (SELECT n AS conversion_n, value FROM conversions) USING (conversion_n)
)
SELECT conversion_n, touch_n, millionths, age, low_value + (row_number() OVER (
        PARTITION BY conversion_n
        ORDER BY rest DESC, t DESC, placement DESC, is_click DESC, names DESC, touch_n)
    <= value - sum(low_value) OVER (PARTITION BY conversion_n))::INT AS value
FROM valued;

CREATE OR REPLACE TABLE credits AS
WITH credited AS (
    SELECT conversion_n, touch_n, millionths, value, age, NULL AS target, NULL AS way
    FROM shares WHERE millionths > 0
    UNION ALL
    SELECT n, NULL, 1000000, value, NULL, placement, 'declared' FROM conversions WHERE placement IS NOT NULL
    UNION ALL
    SELECT n, NULL, 1000000, value, NULL, utm_targets.placement, 'utm'
    FROM conversions JOIN utm_targets USING (utm)
    WHERE conversions.placement IS NULL AND n NOT IN (SELECT conversion_n FROM shares)
)
SELECT coalesce(target, touch.placement) AS placement,
    {", ".join(f"if(touch_n IS NULL, c.{name}, touch.{name}) AS {name}" for name in SCOPES[1:])},
    c.minute, c.n AS conversion_n, c.t, c.currency, c.odd, millionths, credited.value, age,
    c.conversion_type, coalesce(way, if(touch.is_click, 'click', 'listen')) AS way, c.listener, c.watermark
FROM credited JOIN conversions AS c ON c.n = conversion_n
LEFT JOIN touches AS touch ON touch.n = touch_n;

CREATE OR REPLACE TABLE credited_rows AS
SELECT * FROM (
    SELECT *, unnest([{", ".join(f"'{scope}'" for scope in SCOPES)}]) AS scope, unnest([{_NAMES}]) AS id
    FROM credits)
WHERE id IS NOT NULL;

-- Values are of one currency a row, the others are counted.
CREATE OR REPLACE TABLE valued AS
SELECT scope, id, conversion_n, t, minute, currency, campaign, value, odd FROM credited_rows
WHERE value IS NOT NULL OR odd;

CREATE OR REPLACE TABLE currencies AS
WITH firsts AS (
    SELECT scope, id, arg_min(currency, (t, currency)) AS first, arg_min([campaign], (t, currency))[1] AS of
    FROM valued WHERE currency IS NOT NULL AND NOT odd GROUP BY ALL
), agreed AS (
    SELECT planned_in AS campaign, any_value(currency) AS currency FROM plans WHERE planned_in IS NOT NULL
    GROUP BY planned_in HAVING count(DISTINCT currency) = 1 AND count(currency) = count(*)
), campaigns AS (
    SELECT id, coalesce(agreed.currency, first) AS currency
    FROM firsts LEFT JOIN agreed ON agreed.campaign = id WHERE scope = 'campaign'
)
SELECT scope, firsts.id, CASE scope
        WHEN 'placement' THEN coalesce(plans.currency, of_placement.currency, first)
        WHEN 'campaign' THEN own.currency
        ELSE first END AS known
FROM firsts
LEFT JOIN plans ON plans.placement = firsts.id
LEFT JOIN campaigns AS of_placement ON of_placement.id = firsts.of
LEFT JOIN campaigns AS own ON own.id = firsts.id;


CREATE OR REPLACE TABLE "values" AS
SELECT scope, id, minute, 'conversion_value' AS metric, sum(value) AS amount
FROM valued LEFT JOIN currencies USING (scope, id)
WHERE NOT odd AND coalesce(currency = known, true) GROUP BY ALL
UNION ALL
SELECT scope, id, minute, 'conversion_value_other_count', count(DISTINCT conversion_n)
FROM valued LEFT JOIN currencies USING (scope, id) WHERE odd OR currency <> known GROUP BY ALL;

CREATE OR REPLACE TABLE ages AS
SELECT scope, id, minute,
    list_position(list_transform(getvariable('ages'), lambda x: age <= 1000::BIGINT * x), true) AS class,
    sum(millionths)::HUGEINT AS amount
FROM credited_rows WHERE age IS NOT NULL GROUP BY ALL;
"""

# A play that somebody was heard in is one, in the earlier minute of its impression and start.
FACTS: Final = f"""
CREATE OR REPLACE TABLE cohorts AS
SELECT any_value(combo) FILTER ({_IS["start"]}) AS combo, any_value(minute) FILTER ({_IS["start"]}) AS minute,
    bool_or({_IS["complete"]}) AS d, d OR bool_or({_IS["thirdQuartile"]}) AS c,
    c OR bool_or({_IS["midpoint"]}) AS b, b OR bool_or({_IS["firstQuartile"]}) AS a,
    a::INT + b::INT + c::INT + d::INT - count(*) FILTER ({_MILESTONES}) AS missing,
    bool_or({_IS["skip"]}) AS skips, bool_or({_IS["mute"]}) AS mutes
FROM counted
WHERE verdict = 'accepted' AND NOT bot AND linked AND ({_IS["start"]} OR joined) GROUP BY key, life
HAVING bool_or({_IS["start"]});

CREATE OR REPLACE TABLE facts AS
WITH own AS (
    SELECT combo, minute, CASE {_EVENT_NAME}
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
    SELECT combo, minute, 'blocked_impressions', pixels FROM tallies JOIN combos USING (combo)
    WHERE verdict = 'accepted' AND NOT bot AND {_IS["impression"]} AND blocked
    UNION ALL
    SELECT combo, minute, unnest(list_concat(['starts'], if(a, ['first_quartiles'], []),
        if(b, ['midpoints'], []), if(c, ['third_quartiles'], []), if(d, ['completes'], []),
        list_resize([]::VARCHAR[], missing, 'repaired'),
        if(skips, ['skips'], []), if(mutes, ['mutes'], []))), plays
    FROM (SELECT *, count(*) AS plays FROM cohorts GROUP BY ALL)
    UNION ALL
    SELECT combo, minute, 'consented_plays', count(*) FROM (
        SELECT arg_min(combo, (minute, event)) AS combo, min(minute) AS minute
        FROM heard WHERE linked AND NOT {_IS["click"]} GROUP BY key, life
        UNION ALL
        SELECT combo, minute FROM heard WHERE NOT linked AND {_IS["impression"]})
    GROUP BY ALL
)
SELECT scope, id, minute, metric, sum(amount)::HUGEINT AS amount
FROM (SELECT combo, minute, metric, sum(amount) AS amount FROM own WHERE metric IS NOT NULL GROUP BY ALL)
JOIN members USING (combo) GROUP BY ALL
UNION ALL
SELECT scope, id, minute, metric, sum(millionths) FROM (
    SELECT scope, id, minute, millionths, unnest(['conversions', concat('conversions_', conversion_type),
        concat('conversions_', way)]) AS metric FROM credited_rows)
GROUP BY ALL
UNION ALL
SELECT * FROM "values"
UNION ALL
SELECT scope, id, minute, concat('age_', class - 1), amount FROM ages;

CREATE OR REPLACE TABLE reached AS
SELECT DISTINCT combo, minute, listener FROM heard WHERE NOT {_IS["click"]};
"""

# A planned placement's flight starts with the minute of its plan's start; a roll-up's has all its pixels.
FLOWN: Final = "(scope <> 'placement' OR coalesce(minute >= start_ms - start_ms % 60000, true))"

# What rows have in a window: `moment` is the minute of a row's `as_of_ms`, `day_from` to `day_to` its day.
WINDOWS: Final = f"""
SELECT scope, id, metric, sum(amount) FILTER (minute > moment - 300000 AND minute <= moment) AS "5m",
    sum(amount) FILTER (minute > moment - 3600000 AND minute <= moment) AS "1h",
    sum(amount) FILTER (minute >= day_from AND minute < day_to) AS "1d",
    sum(amount) FILTER (metric IN ({_WHOLE}) OR {FLOWN}) AS flight,
    sum(amount) FILTER (minute > moment - 300000 AND minute <= moment AND minute < mature) AS mature_5m,
    sum(amount) FILTER (minute > moment - 3600000 AND minute <= moment AND minute < mature) AS mature_1h
FROM facts JOIN seen USING (scope, id) LEFT JOIN plans ON placement = id
GROUP BY ALL
"""
REACHED: Final = f"""
WITH of_rows AS (
    SELECT scope, id, listener, bool_or(minute > moment_2 - 300000 AND minute <= moment_2) AS a,
        bool_or(minute > moment_2 - 3600000 AND minute <= moment_2) AS b,
        bool_or(minute >= day_from_2 AND minute < day_to_2) AS c,
        bool_or({FLOWN}) AS d
    FROM reached JOIN members USING (combo) JOIN seen USING (scope, id) LEFT JOIN plans ON placement = id
    GROUP BY ALL
)
SELECT scope, id, 'reach', count(*) FILTER (a), count(*) FILTER (b), count(*) FILTER (c), count(*) FILTER (d),
    0, 0
FROM of_rows GROUP BY ALL
"""

# What a row is beside its counts: since when, how long it was heard of, and its labels.
ROWS: Final = """
SELECT scope, id, min(first) FILTER (verdict = 'accepted' AND NOT bot) AS since, max(latest) AS latest
FROM tallies JOIN members USING (combo) GROUP BY ALL
UNION ALL
SELECT scope, id, NULL, max(t) FROM credited_rows GROUP BY ALL
"""
_LATEST: Final = ", ".join(
    f"arg_max({name}, (latest, {name})) FILTER ({name} IS NOT NULL)" for name in SCOPES[1:]
)
LABELS: Final = f"""
SELECT placement, {_LATEST}
FROM (SELECT combo, max(latest) AS latest FROM tallies WHERE verdict = 'accepted' AND NOT bot GROUP BY combo)
JOIN combos USING (combo) WHERE placement IS NOT NULL GROUP BY placement
"""

# Minutes that begin before the end; a flight goes on after it.
DELIVERED: Final = f"""
SELECT placement, coalesce(sum(amount) FILTER (metric = 'impressions' AND {FLOWN} AND minute < end_ms), 0)
FROM plans LEFT JOIN facts ON scope = 'placement' AND id = placement WHERE end_ms IS NOT NULL GROUP BY ALL
"""

# Impressions a listener: since ever, and up to each conversion that is credited to the campaign. Who has had
# none for more than 60 days begins anew, as another listener (`spell`).
FREQUENCY: Final = f"""
WITH days AS (
    SELECT campaign, listener, t, t // 86400000 - lag(t // 86400000) OVER alone > 60 AS anew
    FROM heard JOIN combos USING (combo)
    WHERE {_IS["impression"]} AND campaign IS NOT NULL AND getvariable('model') <> 'off'
    WINDOW alone AS (PARTITION BY campaign, listener ORDER BY t)
), listened AS (
    SELECT *, count(*) FILTER (anew) OVER (PARTITION BY campaign, listener ORDER BY t) AS spell FROM days
), converted AS (
    SELECT campaign, credit, any_value(millionths) AS millionths, spell, count(*) AS impressions
    FROM (SELECT row_number() OVER () AS credit, campaign, listener, t, millionths FROM credits) AS credited
    JOIN listened USING (campaign, listener) WHERE listened.t <= credited.t
    GROUP BY campaign, credit, spell
), counts AS (
    SELECT campaign, count(*) AS impressions, 'listeners' AS metric, 1::HUGEINT AS amount
    FROM listened GROUP BY campaign, listener, spell
    UNION ALL
    SELECT campaign, arg_max(impressions, spell), 'conversions', any_value(millionths)
    FROM converted GROUP BY campaign, credit
)
SELECT campaign, concat('frequency.', CASE
        WHEN impressions <= 3 THEN impressions::VARCHAR WHEN impressions <= 5 THEN '4-5'
        WHEN impressions <= 10 THEN '6-10' ELSE '11+'
    END, '.', metric), sum(amount)
FROM counts GROUP BY ALL
"""

MINUTES: Final = "SELECT id, minute, metric, amount FROM facts WHERE scope = 'placement'"

# The conversions that name a campaign, to whomever they are credited.
ACCOUNTS: Final = """
SELECT campaign, unnest(['accepted', if(attributed, 'attributed', 'unattributed')]) AS name, count(*)
FROM (SELECT campaign, n IN (SELECT conversion_n FROM credits) AS attributed FROM conversions)
WHERE campaign IS NOT NULL GROUP BY campaign, name
"""

LEDGER: Final = "SELECT src, verdict, bot, count(*) FROM counted GROUP BY ALL"

CONVERSIONS: Final = """
SELECT count(*), count(*) FILTER (n NOT IN (SELECT conversion_n FROM credits)) FROM conversions
"""
