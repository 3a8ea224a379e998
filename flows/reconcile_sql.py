"""The oracle's statements: specification 1.3, 1.4, 2.2 to 2.4 and 2.6 over a table `pixels`, as they run.

Settings are DuckDB variables (`getvariable`). Which pixel counts depends on which pixels before it count (a
play is remembered from its last accepted pixel on), so `ROUND` is repeated until it confirms what it was
given: every round settles at least the next pixel of each play, in practice all but a handful at the first.
"""

from __future__ import annotations

from typing import Final

PIXELS: Final = """
CREATE TABLE pixels (
    src INTEGER, pos BIGINT, event VARCHAR, t BIGINT, greatest BIGINT, event_id VARCHAR, placement VARCHAR,
    play VARCHAR, campaign VARCHAR, platform VARCHAR, station VARCHAR, podcast VARCHAR, program VARCHAR,
    listener BIGINT, consent BOOLEAN, bot BOOLEAN, playhead BIGINT, conversion_type VARCHAR, order_id VARCHAR,
    value BIGINT, currency VARCHAR, utm VARCHAR, blocked BOOLEAN);
CREATE TABLE letters (src INTEGER, pos BIGINT);
CREATE TABLE plans (
    placement VARCHAR, currency VARCHAR, start_ms BIGINT, end_ms BIGINT, planned_in VARCHAR);
CREATE TABLE utm_targets (utm VARCHAR, placement VARCHAR);
"""

# Partitions have no common order of arrival; that of their watermarks is all that the log tells.
TIMED: Final = """
CREATE TABLE timed AS
SELECT row_number() OVER (ORDER BY greatest NULLS FIRST, src, pos) AS n, *,
    t - ((t % 60000) + 60000) % 60000 AS minute,
    greatest - getvariable('out_of_orderness') AS watermark,
    play IS NOT NULL AND event <> 'conversion' AS linked,
    CASE
        WHEN event <> 'conversion' THEN
            CASE WHEN play IS NULL THEN 'pixel' WHEN event = 'progress' THEN 'progress' ELSE 'play' END
        WHEN order_id IS NULL THEN 'conversion' ELSE 'order'
    END AS kind,
    CASE WHEN event = 'conversion' THEN coalesce(campaign, '') ELSE placement END AS id_1,
    CASE WHEN kind IN ('play', 'progress') THEN play WHEN kind = 'order' THEN conversion_type
        ELSE event_id END
        AS id_2,
    CASE kind WHEN 'order' THEN order_id WHEN 'progress' THEN coalesce(playhead::VARCHAR, '')
        ELSE '' END AS id_3
FROM pixels;

CREATE TABLE identities AS
SELECT row_number() OVER () AS identity, * FROM (SELECT DISTINCT bot, kind, id_1, id_2, id_3 FROM timed);

-- final_own: whether the pixel's own minute was final when it came.
CREATE TABLE pending AS
SELECT n, identity, t, minute, watermark, event = 'start' AND linked AS is_start,
    if(linked, event, '') AS slot,
    linked AND event IN ('firstQuartile', 'midpoint', 'thirdQuartile', 'complete', 'skip', 'mute') AS joins,
    if(event = 'conversion', getvariable('conversion_horizon'), getvariable('horizon')) AS horizon,
    letters.pos IS NOT NULL AS lettered,
    CASE WHEN getvariable('judge') THEN coalesce(watermark >= minute + getvariable('final_after'), false)
        ELSE lettered END AS final_own,
    NOT final_own AS guess
FROM timed
JOIN identities USING (bot, kind, id_1, id_2, id_3)
LEFT JOIN letters ON letters.src = timed.src AND letters.pos = timed.pos;

CREATE TABLE verdicts (n BIGINT, identity BIGINT, life BIGINT, verdict VARCHAR, start_n BIGINT);
"""

ROUND: Final = """
CREATE OR REPLACE TEMP TABLE lives AS
SELECT *, count(*) FILTER (NOT known) OVER (PARTITION BY identity ORDER BY n) AS life
FROM (
    SELECT *, coalesce(
        last_t >= watermark - horizon OR (last_t IS NOT NULL AND watermark IS NULL), false) AS known
    FROM (
        SELECT *, max(t) FILTER (guess) OVER (
            PARTITION BY identity ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS last_t
        FROM pending));

CREATE OR REPLACE TEMP TABLE round AS
WITH starts AS (
    SELECT identity, life, min(n) AS start_n, arg_min(minute, n) AS start_minute
    FROM lives WHERE is_start AND NOT final_own GROUP BY ALL
), judged AS (
    SELECT lives.*, start_n,
        CASE WHEN getvariable('judge') AND joins AND n > start_n
            THEN coalesce(watermark >= start_minute + getvariable('final_after'), false)
            ELSE final_own END AS final
    FROM lives LEFT JOIN starts USING (identity, life)
), firsts AS (
    SELECT identity, life, slot, min(n) AS first_n FROM judged WHERE NOT final GROUP BY ALL
)
SELECT judged.*, CASE
        WHEN n = first_n THEN 'accepted'
        WHEN n > first_n AND NOT lettered THEN 'repeated'
        ELSE 'too_late'
    END AS verdict
FROM judged LEFT JOIN firsts USING (identity, life, slot);

CREATE OR REPLACE TEMP TABLE unsettled AS
SELECT DISTINCT identity FROM round WHERE guess <> (verdict = 'accepted');

INSERT INTO verdicts
SELECT n, identity, life, verdict, start_n FROM round WHERE identity NOT IN (FROM unsettled);

CREATE OR REPLACE TABLE pending AS
SELECT n, identity, t, minute, watermark, is_start, slot, joins, horizon, lettered, final_own,
    verdict = 'accepted' AS guess
FROM round WHERE identity IN (FROM unsettled);
"""

# joined: the pixel counts in its start's minute; one that waited until its own minute was final never does.
COUNTED: Final = """
CREATE TABLE counted AS
SELECT timed.*, identity, life, verdict, verdicts.start_n, verdict = 'accepted' AND NOT timed.bot AS ok,
    ok AND linked AND verdicts.start_n IS NOT NULL
        AND timed.event IN ('firstQuartile', 'midpoint', 'thirdQuartile', 'complete', 'skip', 'mute')
        AND (n > verdicts.start_n
            OR NOT coalesce(start.watermark >= timed.minute + getvariable('final_after'), false)) AS joined
FROM timed JOIN verdicts USING (n)
LEFT JOIN (SELECT n AS start_n, watermark FROM timed) AS start ON start.start_n = verdicts.start_n;
"""

_DIMENSIONS = "placement, campaign, platform, station, podcast, program"
_SCOPES = "'placement', 'campaign', 'platform', 'station', 'podcast', 'program'"

TOUCHES: Final = """
CREATE TABLE touches AS
SELECT *, event = 'click' AS is_click,
    [coalesce(campaign, ''), coalesce(platform, ''), coalesce(station, ''), coalesce(podcast, ''),
        coalesce(program, '')] AS names,
    -- A start stands for its play until the minute of the play's impression.
    if(event = 'start', min(minute) FILTER (event = 'impression') OVER (PARTITION BY identity, life), NULL)
        AS stands_until
FROM counted
WHERE ok AND consent AND listener IS NOT NULL
    AND (event IN ('click', 'impression') OR (event = 'start' AND linked));

CREATE TABLE conversions AS SELECT * FROM counted WHERE ok AND event = 'conversion';

CREATE TABLE eligible AS
WITH candidates AS (
    SELECT c.n AS conversion_n, c.campaign AS wanted, touch.n AS touch_n, touch.t, touch.placement,
        touch.campaign, touch.is_click, touch.names, c.t - touch.t AS age,
        row_number() OVER (PARTITION BY c.n, touch.is_click
            ORDER BY touch.t DESC, touch.placement DESC, touch.names DESC) AS newest
    FROM conversions AS c
    JOIN touches AS touch ON touch.listener = c.listener AND touch.t <= c.t
        AND c.t - touch.t <= if(touch.is_click, getvariable('click_window'), getvariable('listen_window'))
    WHERE c.consent AND c.placement IS NULL AND coalesce(c.minute < touch.stands_until, true)
)
SELECT conversion_n, touch_n, t, placement, is_click, names, age,
    CASE getvariable('model')
        WHEN 'last_touch' THEN (row_number() OVER (PARTITION BY conversion_n
            ORDER BY is_click DESC, t DESC, placement DESC, names DESC) = 1)::DOUBLE
        WHEN 'first_touch' THEN (row_number() OVER (PARTITION BY conversion_n
            ORDER BY t, placement DESC, is_click DESC, names DESC) = 1)::DOUBLE
        WHEN 'linear' THEN 1.0
        WHEN 'time_decay' THEN pow(0.5, age / getvariable('half_life')::DOUBLE)
    END AS weight
FROM candidates
WHERE newest <= if(is_click, getvariable('touch_clicks'), getvariable('touch_listens'))
    AND (wanted IS NULL OR wanted = campaign);
"""

# Shares by largest remainder, of the millionths and of the value alike: the parts sum to the whole.
CREDITS: Final = f"""
CREATE TABLE shares AS
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
SELECT conversion_n, touch_n, millionths, low_value + (row_number() OVER (
        PARTITION BY conversion_n
        ORDER BY rest DESC, t DESC, placement DESC, is_click DESC, names DESC, touch_n)
    <= value - sum(low_value) OVER (PARTITION BY conversion_n))::INT AS value
FROM valued;

CREATE TABLE credits AS
WITH credited AS (
    SELECT conversion_n, touch_n, millionths, value, NULL AS target, NULL AS way
    FROM shares
    UNION ALL
    SELECT n, n, 1000000, value, placement, 'declared' FROM conversions WHERE placement IS NOT NULL
    UNION ALL
    SELECT n, n, 1000000, value, utm_targets.placement, 'utm'
    FROM conversions JOIN utm_targets USING (utm)
    WHERE conversions.placement IS NULL AND n NOT IN (SELECT conversion_n FROM shares)
), placed AS (
    SELECT coalesce(target, source.placement) AS placement,
        source.campaign, source.platform, source.station, source.podcast, source.program,
        c.minute, c.n AS conversion_n, c.t, c.currency, millionths, credited.value, c.conversion_type,
        coalesce(way, if(source.event = 'click', 'click', 'listen')) AS way,
        if(c.consent, c.listener, NULL) AS listener
    FROM credited JOIN conversions AS c ON c.n = conversion_n JOIN counted AS source ON source.n = touch_n
)
SELECT * FROM placed;

-- Values are of one currency a row, the others are counted.
CREATE TABLE valued AS
SELECT scope, id, conversion_n, t, minute, currency, campaign, value
FROM (
    SELECT *, unnest([{_SCOPES}]) AS scope, unnest([{_DIMENSIONS}]) AS id FROM credits WHERE value IS NOT
    NULL)
WHERE id IS NOT NULL;

CREATE TABLE currencies AS
WITH firsts AS (
    SELECT scope, id, arg_min(currency, (t, currency)) AS first, arg_min([campaign], (t, currency))[1] AS of
    FROM valued WHERE currency IS NOT NULL GROUP BY ALL
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

CREATE TABLE "values" AS
SELECT scope, id, minute, 'conversion_value' AS metric, sum(value) AS amount
FROM valued LEFT JOIN currencies USING (scope, id) WHERE coalesce(currency = known, true) GROUP BY ALL
UNION ALL
SELECT scope, id, minute, 'conversion_value_other_count', count(DISTINCT conversion_n)
FROM valued JOIN currencies USING (scope, id) WHERE currency <> known GROUP BY ALL;

CREATE TABLE facts AS
SELECT {_DIMENSIONS}, minute, CASE event
        WHEN 'impression' THEN 'impressions' WHEN 'click' THEN 'clicks' WHEN 'error' THEN 'errors'
        WHEN 'skip' THEN 'skips' WHEN 'mute' THEN 'mutes' WHEN 'start' THEN 'unlinked_starts'
        WHEN 'firstQuartile' THEN if(linked, 'orphans', 'unlinked_first_quartiles')
        WHEN 'midpoint' THEN if(linked, 'orphans', 'unlinked_midpoints')
        WHEN 'thirdQuartile' THEN if(linked, 'orphans', 'unlinked_third_quartiles')
        WHEN 'complete' THEN if(linked, 'orphans', 'unlinked_completes')
    END AS metric, 1::HUGEINT AS amount
FROM counted
WHERE ok AND NOT joined AND metric IS NOT NULL
    AND CASE event WHEN 'start' THEN NOT linked WHEN 'skip' THEN linked WHEN 'mute' THEN linked ELSE true END
UNION ALL
SELECT {_DIMENSIONS}, minute, CASE WHEN verdict <> 'accepted' THEN verdict WHEN bot THEN 'invalid_traffic'
    ELSE 'consented' END, 1
FROM counted WHERE verdict <> 'accepted' OR bot OR consent
UNION ALL
SELECT {_DIMENSIONS}, minute, 'blocked_impressions', 1 FROM counted
WHERE ok AND event = 'impression' AND blocked
UNION ALL
SELECT {_DIMENSIONS}, minute, unnest(reached), 1
FROM counted JOIN (
    SELECT start_n,
        bool_or(event = 'complete') AS d, d OR bool_or(event = 'thirdQuartile') AS c,
        c OR bool_or(event = 'midpoint') AS b, b OR bool_or(event = 'firstQuartile') AS a,
        a::INT + b::INT + c::INT + d::INT
            - count(*) FILTER (event NOT IN ('start', 'skip', 'mute')) AS missing,
        list_concat(['starts'], if(a, ['first_quartiles'], []), if(b, ['midpoints'], []),
            if(c, ['third_quartiles'], []), if(d, ['completes'], []),
            list_resize([]::VARCHAR[], missing, 'repaired'),
            if(bool_or(event = 'skip'), ['skips'], []), if(bool_or(event = 'mute'), ['mutes'], [])) AS reached
    FROM counted WHERE joined OR (ok AND linked AND event = 'start') GROUP BY start_n
) AS cohort ON cohort.start_n = n
UNION ALL
SELECT {_DIMENSIONS}, minute, unnest(['conversions', concat('conversions_', conversion_type),
    concat('conversions_', way)]), millionths
FROM credits;
"""

# A planned placement's flight starts with the minute of its plan's start; a roll-up's has all its pixels.
FLOWN: Final = "coalesce(minute >= start_ms - start_ms % 60000, true)"

FLIGHT: Final = """
SELECT {scope}, metric, sum(amount) FROM facts LEFT JOIN plans USING (placement)
WHERE {scope} IS NOT NULL AND (metric IN ({whole}) OR {flown}) GROUP BY ALL
UNION ALL
SELECT {scope}, 'reach', count(DISTINCT listener) FROM counted LEFT JOIN plans USING (placement)
WHERE ok AND consent AND event IN ('impression', 'start') AND {scope} IS NOT NULL AND {flown} GROUP BY ALL
UNION ALL
SELECT id, metric, sum(amount) FROM "values" LEFT JOIN plans ON placement = id
WHERE scope = '{scope}' AND {flown} GROUP BY ALL
UNION ALL
SELECT {scope}, NULL, count(*) FROM counted WHERE verdict = 'accepted' AND {scope} IS NOT NULL GROUP BY ALL
"""

# Minutes that begin before the end; a flight goes on after it.
DELIVERED: Final = f"""
SELECT placement, coalesce(sum(amount) FILTER (metric = 'impressions' AND {FLOWN} AND minute < end_ms), 0)
FROM plans LEFT JOIN facts USING (placement) WHERE end_ms IS NOT NULL GROUP BY ALL
"""

# Impressions a listener: of a flight, and up to each conversion that is credited to the campaign.
FREQUENCY: Final = """
WITH heard AS (
    SELECT campaign, listener, t FROM counted
    WHERE ok AND consent AND listener IS NOT NULL AND event = 'impression' AND campaign IS NOT NULL
        AND getvariable('model') <> 'off'
), counts AS (
    SELECT campaign, count(*) AS impressions, 'listeners' AS metric, 1::HUGEINT AS amount
    FROM heard GROUP BY campaign, listener
    UNION ALL
    SELECT campaign, count(*), 'conversions', any_value(millionths)
    FROM (SELECT row_number() OVER () AS credit, campaign, listener, t, millionths FROM credits) AS credited
    JOIN heard USING (campaign, listener) WHERE heard.t <= credited.t
    GROUP BY campaign, credit
)
SELECT campaign, concat('frequency.', CASE
        WHEN impressions <= 3 THEN impressions::VARCHAR WHEN impressions <= 5 THEN '4-5'
        WHEN impressions <= 10 THEN '6-10' ELSE '11+'
    END, '.', metric), sum(amount)
FROM counts GROUP BY ALL
"""

MINUTES: Final = """
SELECT placement, minute, metric, sum(amount) FROM facts WHERE placement IS NOT NULL GROUP BY ALL
UNION ALL
SELECT id, minute, metric, sum(amount) FROM "values" WHERE scope = 'placement' GROUP BY ALL
"""

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
