"""Statements that credit conversions and count impressions a listener (specification 2.4 and 2.6)."""

from __future__ import annotations

from typing import Final

from flows.reconcile.fields import CODES, SCOPES
from flows.reconcile.sql.terms import IS, NAMES, remembered

TOUCHES: Final = f"""
CREATE OR REPLACE TABLE touch_pixels AS
SELECT n, key, life, event, t, minute, combo, linked,
    if(denied AND getvariable('erased'), NULL, listener) AS listener,
    -- A pixel of an erased listener is no pixel of its household either.
    if((denied OR denied_home) AND getvariable('erased'), NULL, household) AS household
FROM counted
WHERE verdict = 'accepted' AND NOT bot AND (listener IS NOT NULL OR household IS NOT NULL)
    AND event IN ({CODES["impression"]}, {CODES["start"]}, {CODES["click"]});

CREATE OR REPLACE TABLE conversions AS
WITH bought AS (
SELECT counted.* EXCLUDE (listener, household), {NAMES}, conversion_type, value, odd, currency, utm, claimed,
    apart,
    if(denied AND getvariable('erased'), NULL, listener) AS listener,
    if((denied OR denied_home) AND getvariable('erased'), NULL, household) AS household,
    if(NOT consent OR (before_denied AND getvariable('erased')), NULL, before_listener) AS before_listener,
    if(NOT consent OR ((before_denied OR before_denied_home) AND getvariable('erased')), NULL,
        before_household) AS before_household
FROM counted JOIN conversion_fields USING (src, pos) JOIN combos USING (combo)
WHERE verdict = 'accepted' AND NOT bot AND {IS["conversion"]}
)
-- `behind`: the public tag's conversion that a server's conversion confirms, if the tag's is credited. The
-- confirmation is not earlier than that.
SELECT bought.* REPLACE (greatest(bought.t, tag.t) AS t, greatest(bought.minute, tag.minute) AS minute),
    tag.n AS behind
FROM bought LEFT JOIN bought AS tag
    ON tag.key = bought.key AND tag.life = bought.life AND tag.claimed AND NOT tag.apart
        AND NOT bought.claimed;

-- The values by which the credits of a conversion are valued: its own, and that of its confirmation.
CREATE OR REPLACE TABLE conversion_values AS
SELECT n AS conversion_n, n AS of_n, value FROM conversions
UNION ALL
SELECT behind, n, value FROM conversions WHERE behind IS NOT NULL;

-- A conversion looks for touches by the edge's key, and if that finds none by the previous key.
CREATE OR REPLACE TABLE lookups AS
SELECT 2 * n AS lookup, n, t, minute, campaign, listener, household FROM conversions
WHERE placement IS NULL AND getvariable('model') <> 'off'
UNION ALL
SELECT 2 * n + 1, n, t, minute, campaign, before_listener, before_household FROM conversions
WHERE placement IS NULL AND getvariable('model') <> 'off'
    AND (before_listener IS NOT NULL OR before_household IS NOT NULL);

CREATE OR REPLACE TABLE touches AS
SELECT touch_pixels.*, {NAMES}, {IS["click"]} AS is_click,
    [{", ".join(f"coalesce({name}, '')" for name in SCOPES[1:])}] AS names,
    -- A start is the touch of its play until the minute of the play's impression.
    if({IS["start"]}, min(minute) FILTER ({IS["impression"]})
        OVER (PARTITION BY key, life, listener), NULL) AS stands_until,
    if({IS["start"]}, min(minute) FILTER ({IS["impression"]})
        OVER (PARTITION BY key, life, listener, household), NULL) AS stands_at_home
FROM touch_pixels JOIN combos USING (combo)
WHERE (NOT {IS["start"]} OR linked) AND (listener IN (SELECT listener FROM lookups)
    OR household IN (SELECT household FROM lookups));

CREATE OR REPLACE TABLE own_touches AS
SELECT lookup, c.n AS conversion_n, touch.n AS touch_n, touch.t, touch.placement, touch.is_click, touch.names,
    c.t - touch.t AS age, 'listener' AS joined_by
FROM lookups AS c
JOIN touches AS touch ON touch.listener = c.listener AND touch.t <= c.t
    AND c.t - touch.t <= if(touch.is_click, getvariable('click_window'), getvariable('listen_window'))
WHERE coalesce(c.minute < touch.stands_until, true) AND (c.campaign IS NULL OR c.campaign = touch.campaign);

-- The lookups that found no touch of their own listener, with all touches of their households.
CREATE OR REPLACE TABLE at_home AS
SELECT lookup, c.n AS conversion_n, c.t AS converted_t, c.campaign AS converted_campaign, touch.n AS touch_n,
    touch.t, touch.placement, touch.campaign, touch.is_click, touch.names, touch.listener
FROM lookups AS c JOIN touches AS touch ON touch.household = c.household AND touch.t <= c.t
WHERE coalesce(c.minute < touch.stands_at_home, true) AND lookup NOT IN (SELECT lookup FROM own_touches);

-- The lookups of crowded households, which join nothing. At one of the household's touches in the listen
-- window before the conversion, too many of its listeners had a touch in the listen window before that touch.
CREATE OR REPLACE TABLE crowded AS
WITH listened AS (
    SELECT DISTINCT lookup, converted_t, t, listener FROM at_home
    WHERE listener IS NOT NULL AND converted_t - t <= 2::BIGINT * getvariable('listen_window')
), many AS (
    SELECT lookup FROM listened GROUP BY lookup
    HAVING count(DISTINCT listener) > getvariable('household_listeners')
), crowd AS (
    SELECT * FROM listened WHERE lookup IN (FROM many)
)
SELECT DISTINCT lookup FROM (
    SELECT moment.lookup FROM (SELECT DISTINCT lookup, converted_t, t FROM crowd) AS moment
    JOIN crowd ON crowd.lookup = moment.lookup AND crowd.t <= moment.t
        AND moment.t - crowd.t <= getvariable('listen_window')
    WHERE moment.converted_t - moment.t <= getvariable('listen_window')
    GROUP BY moment.lookup, moment.t
    HAVING count(DISTINCT crowd.listener) > getvariable('household_listeners'));

CREATE OR REPLACE TABLE candidates AS
FROM own_touches
UNION ALL
SELECT lookup, conversion_n, touch_n, t, placement, is_click, names, converted_t - t AS age, 'household'
FROM at_home
WHERE converted_t - t <= if(is_click, getvariable('click_window'), getvariable('listen_window'))
    AND (converted_campaign IS NULL OR converted_campaign = campaign) AND lookup NOT IN (FROM crowded);

-- The conversions of which a cap left out a touch, so that the flow may have credited other touches. The caps
-- of a campaign never leave out its newest touch, which is enough for `last_touch`. The caps of all campaigns
-- may.
CREATE OR REPLACE TABLE capped AS
WITH aged AS (
    SELECT lookup, 'listener' AS person, touch.is_click, c.t - touch.t AS age
    FROM lookups AS c JOIN touches AS touch ON touch.listener = c.listener AND touch.t <= c.t
    WHERE c.listener IN (SELECT listener FROM touches GROUP BY listener
        HAVING count(*) > least(getvariable('clicks_in_all'), getvariable('listens_in_all')))
    UNION ALL
    SELECT lookup, 'household', touch.is_click, c.t - touch.t
    FROM lookups AS c JOIN touches AS touch ON touch.household = c.household AND touch.t <= c.t
    WHERE c.household IN (SELECT household FROM touches GROUP BY household
        HAVING count(*) > least(getvariable('clicks_in_all'), getvariable('listens_in_all')))
), met AS (
    SELECT lookup FROM aged
    WHERE age <= if(is_click, getvariable('click_window'), getvariable('listen_window'))
    GROUP BY lookup, person, is_click
    HAVING count(*) > if(is_click, getvariable('clicks_in_all'), getvariable('listens_in_all'))
    UNION
    SELECT lookup FROM candidates WHERE getvariable('model') <> 'last_touch'
    GROUP BY lookup, names[1], is_click
    HAVING count(*) > if(is_click, getvariable('touch_clicks'), getvariable('touch_listens'))
)
SELECT DISTINCT n AS conversion_n FROM lookups SEMI JOIN met USING (lookup);

CREATE OR REPLACE TABLE answered AS
SELECT conversion_n, min(lookup) AS lookup FROM candidates GROUP BY conversion_n;

CREATE OR REPLACE TABLE noisy AS
SELECT DISTINCT n AS conversion_n FROM lookups LEFT JOIN answered ON conversion_n = n
WHERE lookups.lookup IN (FROM crowded) AND coalesce(lookups.lookup < answered.lookup, true);

CREATE OR REPLACE TABLE eligible AS
SELECT lookup, conversion_n, touch_n, t, placement, is_click, names, age, joined_by,
    CASE getvariable('model')
        WHEN 'last_touch' THEN (row_number() OVER (PARTITION BY conversion_n
            ORDER BY is_click DESC, t DESC, placement DESC, names DESC) = 1)::HUGEINT
        WHEN 'first_touch' THEN (row_number() OVER (PARTITION BY conversion_n
            ORDER BY t, placement DESC, is_click DESC, names DESC) = 1)::HUGEINT
        WHEN 'linear' THEN 1
        -- Whole numbers, so that equal remainders are exactly equal.
        WHEN 'time_decay' THEN floor(pow(2::DOUBLE, 60) * pow(0.5,
            (max(t) OVER (PARTITION BY conversion_n) - t) / getvariable('half_life')::DOUBLE))::HUGEINT
    END AS weight
FROM candidates SEMI JOIN answered USING (lookup);
"""

# The shares of the millionths and of the value, by largest remainder, so that the parts add up to the whole.
CREDITS: Final = f"""
CREATE OR REPLACE TABLE shares AS
WITH floored AS (
    SELECT *, sum(weight) OVER (PARTITION BY conversion_n) AS total, 1000000::HUGEINT * weight AS scaled,
        (scaled // total)::BIGINT AS low, scaled % total AS surplus
    FROM eligible WHERE weight > 0
), credited AS (
    SELECT floored.*, low + (row_number() OVER (
            PARTITION BY conversion_n
            ORDER BY surplus DESC, t DESC, placement DESC, is_click DESC, names DESC, touch_n)
        <= 1000000 - sum(low) OVER (PARTITION BY conversion_n))::INT AS millionths
    FROM floored
), valued AS (
    SELECT credited.*, of_n, value, value::HUGEINT * millionths AS product,
        ((product % 1000000) + 1000000) % 1000000 AS rest, (product - rest) // 1000000 AS low_value
    FROM credited JOIN conversion_values USING (conversion_n)
)
SELECT lookup, conversion_n, of_n, touch_n, millionths, age, joined_by, low_value + (row_number() OVER (
        PARTITION BY of_n, conversion_n
        ORDER BY rest DESC, t DESC, placement DESC, is_click DESC, names DESC, touch_n)
    <= value - sum(low_value) OVER (PARTITION BY of_n, conversion_n))::INT AS value
FROM valued;

CREATE OR REPLACE TABLE credits AS
WITH credited AS (
    SELECT lookup, conversion_n, of_n, touch_n, millionths, value, age, NULL AS target, NULL AS way, joined_by
    FROM shares WHERE millionths > 0
    UNION ALL
    SELECT NULL, n, of_n, NULL, 1000000, conversion_values.value, NULL, placement, 'declared', NULL
    FROM conversions JOIN conversion_values ON conversion_n = n WHERE placement IS NOT NULL
    UNION ALL
    SELECT NULL, n, of_n, NULL, 1000000, conversion_values.value, NULL, utm_targets.placement, 'utm', NULL
    FROM conversions JOIN conversion_values ON conversion_n = n JOIN utm_targets USING (utm)
    LEFT JOIN plans ON plans.placement = utm_targets.placement
    WHERE conversions.placement IS NULL AND n NOT IN (SELECT conversion_n FROM shares)
        AND coalesce(campaign = planned_in, true)
), settled AS (
    -- A server's conversion that confirms a credited one has no credits of its own.
    SELECT credited.*, if(of_n <> conversion_n, 'confirms', if(apart, 'apart', 'counts')) AS counts_as
    FROM credited JOIN conversions ON n = of_n
    WHERE of_n <> conversion_n OR coalesce(behind NOT IN (SELECT conversion_n FROM credited), true)
)
SELECT coalesce(target, touch.placement) AS placement,
    if(touch_n IS NULL, coalesce(own.campaign, of_target.planned_in), touch.campaign) AS campaign,
    {", ".join(f"if(touch_n IS NULL, own.{name}, touch.{name}) AS {name}" for name in SCOPES[2:])},
    c.minute, c.n AS conversion_n, c.behind, c.t, c.currency, c.odd, c.claimed, millionths, credited.value,
    age, counts_as, c.conversion_type, coalesce(way, if(touch.is_click, 'click', 'listen')) AS way, joined_by,
    -- A credit by the household or the previous key does not count for the listener's frequency.
    if(touch_n IS NULL, way = 'utm' AND getvariable('model') <> 'off'
            AND coalesce(c.household, c.before_listener, c.before_household) IS NOT NULL,
        joined_by = 'household' OR lookup <> 2 * c.n) AS of_home,
    if(of_home, NULL, c.listener) AS listener, c.watermark, touch.t AS touched, touch.names AS named
FROM settled AS credited JOIN conversions AS c ON c.n = of_n
JOIN conversions AS own ON own.n = credited.conversion_n
LEFT JOIN touches AS touch ON touch.n = touch_n LEFT JOIN plans AS of_target ON of_target.placement = target;

CREATE OR REPLACE TABLE credited_rows AS
SELECT * FROM (
    SELECT *, unnest([{", ".join(f"'{scope}'" for scope in SCOPES)}]) AS scope, unnest([{NAMES}]) AS id
    FROM credits)
WHERE id IS NOT NULL;

-- The values of a row are of one currency. Values in other currencies are only counted.
CREATE OR REPLACE TABLE valued AS
SELECT scope, id, conversion_n, behind, t, minute, currency, campaign, value, odd, claimed, touched, named,
    counts_as
FROM credited_rows
WHERE (value IS NOT NULL OR odd) AND counts_as <> 'apart';

CREATE OR REPLACE TABLE currencies AS
WITH firsts AS (
    SELECT scope, id, arg_min(currency, (t, behind IS NOT NULL, currency)) AS first,
        arg_min([campaign], (t, behind IS NOT NULL, currency, touched, named))[1] AS of
    FROM valued WHERE currency IS NOT NULL AND NOT odd GROUP BY ALL
), agreed AS (
    SELECT planned_in AS campaign, any_value(currency) AS currency FROM plans WHERE planned_in IS NOT NULL
    GROUP BY planned_in HAVING count(DISTINCT currency) = 1
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
WITH priced AS (
    SELECT valued.*, odd OR coalesce(currency <> known, false) AS other
    FROM valued LEFT JOIN currencies USING (scope, id)
), confirmed AS (
    SELECT DISTINCT conversion_n, behind, minute FROM credits WHERE counts_as = 'confirms'
), changes AS (
    SELECT scope, id, minute, if(claimed, 'conversion_value_claimed', 'conversion_value') AS metric, value
    FROM priced WHERE NOT other
    UNION ALL
    -- A confirmation subtracts, in its own minute, the value that the tag had claimed.
    SELECT scope, id, confirmed.minute, 'conversion_value_claimed', -value
    FROM priced JOIN confirmed ON confirmed.behind = priced.conversion_n WHERE NOT other
)
SELECT scope, id, minute, metric, sum(value) AS amount FROM changes GROUP BY ALL
UNION ALL
-- A confirmation is not counted again if the conversion that it confirms was.
SELECT scope, id, minute, 'conversion_value_other_count', count(DISTINCT conversion_n)
FROM priced WHERE other AND NOT (counts_as = 'confirms' AND EXISTS (
    FROM priced AS tag WHERE tag.other AND tag.scope = priced.scope AND tag.id = priced.id
        AND tag.conversion_n = priced.behind))
GROUP BY ALL;

CREATE OR REPLACE TABLE ages AS
SELECT scope, id, minute,
    list_position(list_transform(getvariable('ages'), lambda x: age <= 1000::BIGINT * x), true) AS class,
    sum(millionths)::HUGEINT AS amount
FROM credited_rows WHERE age IS NOT NULL AND counts_as = 'counts' GROUP BY ALL;
"""

_OF_CAMPAIGN: Final = remembered("'campaign'", "campaign", "t")

# The impressions of each listener, of the whole log, and up to each conversion that is credited to the
# campaign. After more than 60 days without an impression a listener counts as new (`spell`).
FREQUENCY: Final = f"""
WITH days AS (
    SELECT campaign, listener, t, t // 86400000 - lag(t // 86400000) OVER alone > 60 AS is_new
    FROM touch_pixels JOIN combos USING (combo)
    WHERE {IS["impression"]} AND campaign IS NOT NULL AND listener IS NOT NULL
        AND getvariable('model') <> 'off'
    WINDOW alone AS (PARTITION BY campaign, listener ORDER BY t)
), listened AS (
    SELECT *, count(*) FILTER (is_new) OVER (PARTITION BY campaign, listener ORDER BY t) AS spell FROM days
), converted AS (
    SELECT campaign, credit, any_value(millionths) AS millionths, spell, count(*) AS impressions,
        any_value(credited.t) // 86400000 - max(listened.t) // 86400000 AS since
    FROM (SELECT row_number() OVER () AS credit, campaign, listener, t, millionths FROM credits
        WHERE counts_as = 'counts' AND {_OF_CAMPAIGN}) AS credited
    JOIN listened USING (campaign, listener) WHERE listened.t <= credited.t
    GROUP BY campaign, credit, spell
), counts AS (
    SELECT campaign, count(*) AS impressions, 'listeners' AS metric, 1::HUGEINT AS amount
    FROM listened WHERE {_OF_CAMPAIGN} GROUP BY campaign, listener, spell
    UNION ALL
    SELECT campaign, arg_max(impressions, spell), 'conversions', any_value(millionths)
    FROM converted GROUP BY campaign, credit HAVING min(since) <= 60
)
SELECT campaign, concat('frequency.', CASE
        WHEN impressions <= 3 THEN impressions::VARCHAR WHEN impressions <= 5 THEN '4-5'
        WHEN impressions <= 10 THEN '6-10' ELSE '11+'
    END, '.', metric), sum(amount)
FROM counts GROUP BY ALL
"""

# Conversions that count apart or confirm others are not in the account.
_ACCOUNTED: Final = "NOT apart AND n NOT IN (SELECT conversion_n FROM credits WHERE counts_as = 'confirms')"

# The account of the conversions that name a campaign, whichever placements they are credited to.
ACCOUNTS: Final = f"""
WITH named AS (FROM conversions WHERE campaign IS NOT NULL AND {_ACCOUNTED} AND {_OF_CAMPAIGN})
SELECT campaign, unnest(['accepted', if(attributed, 'attributed', 'unattributed')]) AS name, count(*)
FROM (SELECT campaign, n IN (SELECT conversion_n FROM credits) AS attributed FROM named)
GROUP BY campaign, name
UNION ALL
SELECT campaign, 'noisy_household', count(*) FROM named WHERE n IN (FROM noisy) GROUP BY campaign
"""

CONVERSIONS: Final = f"""
SELECT count(*), count(*) FILTER (n NOT IN (SELECT conversion_n FROM credits)),
    count(*) FILTER (n IN (FROM noisy))
FROM conversions WHERE {_ACCOUNTED}
"""

# The rows of the touches of capped conversions, with the number of these conversions.
CAPPED: Final = f"""
SELECT scope, id, count(DISTINCT conversion_n) FROM (
    SELECT conversion_n, unnest([{", ".join(f"'{scope}'" for scope in SCOPES)}]) AS scope,
        unnest(list_prepend(placement, names)) AS id
    FROM eligible SEMI JOIN capped USING (conversion_n))
WHERE coalesce(id, '') <> '' GROUP BY ALL
"""
