"""The dashboard *Trading desk*: what needs me now."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards import queries as q
from dashboards.delivery_rules import LEAST_STARTS
from dashboards.layout import Row, board, variable
from dashboards.panels import AMBER, GREEN, RED, Column, Query, Steps, lines, number, rows
from flows import metrics as m

UID: Final = "audiopixel-trading-desk"

PACE: Final[Steps] = ((None, RED), (0.9, AMBER), (0.95, GREEN), (1.1, AMBER), (1.25, RED))
"""Of a delivery indicator: 1 is on plan."""
_ANY: Final[Steps] = ((None, GREEN), (1, RED))
_SOME: Final[Steps] = ((None, GREEN), (1, AMBER))
_FRESH: Final[Steps] = ((None, GREEN), (90, AMBER), (300, RED))
_OPEN: Final = (
    "/d/audiopixel-placement?var-placement=${__data.fields.Placement:percentencode}"
    "&${datasource:queryparam}&${job:queryparam}&${instance:queryparam}&${__url_time_range}"
)

_IMPRESSIONS: Final = q.of_campaign(q.per_second(m.PLACEMENT_IMPRESSIONS, by="placement"))

_WORST: Final = rows(
    "Placements, worst delivery first",
    "Each placement of the chosen campaigns. Delivery is delivered impressions by those due by now: empty "
    "without a plan, before the flight, in its first minutes and while paused. Delivered counts up to the "
    "plan's end, without a plan all impressions. Behind is the part of what is due that is missing, below 0 "
    "what is too much, while the flight runs. Money is in the plan's currency. A click opens the placement.",
    [
        Query(q.names()),
        Query(q.states()),
        Query(q.by_placement(m.PLACEMENT_INDICATOR)),
        Query(q.delivered_by_placement()),
        Query(q.by_placement(m.PLACEMENT_EXPECTED)),
        Query(q.by_placement(m.PLACEMENT_PROJECTED)),
        Query(q.by_placement(m.PLACEMENT_BOOKED)),
        Query(q.by_placement(m.PLACEMENT_MATURE_1H)),
        Query(q.by_placement(m.PLACEMENT_REACH)),
        Query(q.by_placement(m.PLACEMENT_CONVERSIONS)),
        Query(q.by_placement(m.PLACEMENT_CPA)),
        Query(q.by_placement(m.PLACEMENT_CONVERSION_VALUE)),
        Query(q.behind()),
    ],
    [
        Column("Placement", "placement", link=_OPEN),
        Column("Campaign", "campaign"),
        Column("Station", "station"),
        Column("State", "state"),
        Column("Delivery", "Value #C", "percentunit", PACE, decimals=1),
        Column("Behind", "Value #M", "percentunit", decimals=1),
        Column("Delivered", "Value #D", "short"),
        Column("Due", "Value #E", "short"),
        Column("Projected", "Value #F", "short"),
        Column("Booked", "Value #G", "short"),
        Column("Completion, 1 h", "Value #H", "percentunit", decimals=1),
        Column("Reach", "Value #I", "short"),
        Column("Conversions", "Value #J", "short"),
        Column("Cost per conversion", "Value #K", "short", decimals=2),
        Column("Value", "Value #L", "short", decimals=2),
    ],
    join="placement",
    sort="Behind",
    descending=True,
    alert="AudiopixelUnderDelivery",
)

_CAMPAIGNS: Final = rows(
    "Campaigns, worst delivery first",
    "Each chosen campaign with a planned placement, by the sums of these. Needed a second is what they must "
    "bring together from now on to have what is booked by their ends.",
    [
        Query(q.by_campaign(m.CAMPAIGN_STATE, "campaign, state")),
        Query(q.by_campaign(m.CAMPAIGN_INDICATOR)),
        Query(q.by_campaign(m.CAMPAIGN_DELIVERED)),
        Query(q.by_campaign(m.CAMPAIGN_EXPECTED)),
        Query(q.by_campaign(m.CAMPAIGN_PROJECTED)),
        Query(q.by_campaign(m.CAMPAIGN_BOOKED)),
        Query(q.by_campaign(m.CAMPAIGN_REQUIRED)),
        Query(q.campaigns_behind()),
    ],
    [
        Column("Campaign", "campaign"),
        Column("State", "state"),
        Column("Delivery", "Value #B", "percentunit", PACE, decimals=1),
        Column("Behind", "Value #H", "percentunit", decimals=1),
        Column("Delivered", "Value #C", "short"),
        Column("Due", "Value #D", "short"),
        Column("Projected", "Value #E", "short"),
        Column("Booked", "Value #F", "short"),
        Column("Needed a second", "Value #G", "cps", decimals=2),
    ],
    join="campaign",
    sort="Behind",
    descending=True,
    alert="AudiopixelUnderDelivery",
)

_ALERTS: Final = rows(
    "Alerts that fire",
    "Of placements and campaigns; and of the pipeline, when the numbers are old or short and delivery is not "
    "judged.",
    [Query(q.firing())],
    [
        Column("Alert", "alertname"),
        Column("Severity", "severity"),
        Column("Campaign", "campaign"),
        Column("Placement", "placement", link=_OPEN),
    ],
    sort="Severity",
)


def trading_desk() -> Dashboard:
    """The dashboard."""
    return board(
        UID,
        "Trading desk",
        "What needs me now: the placements and campaigns that are not as they were sold.",
        [
            Row(
                "Now",
                4,
                [
                    (
                        number(
                            "Numbers are of",
                            "How far what is shown is behind the clock. Below 90 s all is well; above "
                            "five minutes delivery is not judged.",
                            "s",
                            Query(q.age(m.EXPORTER_WATERMARK)),
                            steps=_FRESH,
                            alert="AudiopixelPipelineStalled",
                        ),
                        4,
                    ),
                    (
                        number(
                            "Under plan",
                            "Placements that have delivered too little of what is due by now.",
                            "short",
                            Query(q.count_in("under")),
                            steps=_ANY,
                            alert="AudiopixelUnderDelivery",
                        ),
                        4,
                    ),
                    (
                        number(
                            "At risk",
                            "Placements that would end below what is booked, going on as in the last hour.",
                            "short",
                            Query(q.count_in("at_risk")),
                            steps=_SOME,
                            alert="AudiopixelUnderDelivery",
                        ),
                        4,
                    ),
                    (
                        number(
                            "Over plan",
                            "Placements that have delivered too much of what is due by now.",
                            "short",
                            Query(q.count_in("over")),
                            steps=_SOME,
                            alert="AudiopixelOverDelivery",
                        ),
                        4,
                    ),
                    (
                        number(
                            "Completion, 1 h",
                            "Completes by starts of the last hour, without the youngest, which cannot "
                            "have completed yet; placements weighed by their starts.",
                            "percentunit",
                            Query(q.completion()),
                            alert="AudiopixelCompletionRateDropped",
                        ),
                        4,
                    ),
                    (
                        number(
                            "Impressions a second",
                            "Of the chosen campaigns.",
                            "cps",
                            Query(f"sum({_IMPRESSIONS})"),
                        ),
                        4,
                    ),
                ],
            ),
            Row("Placements", 14, [(_WORST, 24)]),
            Row("Campaigns", 8, [(_CAMPAIGNS, 24)]),
            Row(
                "How it came",
                9,
                [
                    (_ALERTS, 8),
                    (
                        lines(
                            "Delivery of the ten worst",
                            "Delivered impressions by those due by now, of flights that run: 1 is on plan.",
                            "percentunit",
                            [Query(f"bottomk(10, {q.running(m.PLACEMENT_INDICATOR)})", "{{placement}}")],
                            steps=((None, RED), (0.9, GREEN), (1.1, AMBER)),
                            alert="AudiopixelUnderDelivery",
                        ),
                        8,
                    ),
                    (
                        lines(
                            "Completion of the ten worst",
                            "Completes by starts of the last hour, without the youngest starts; of "
                            f"placements with at least {LEAST_STARTS}.",
                            "percentunit",
                            [Query(f"bottomk(10, {q.well_heard(LEAST_STARTS)})", "{{placement}}")],
                            alert="AudiopixelCompletionRateDropped",
                        ),
                        8,
                    ),
                ],
            ),
        ],
        job_metric=m.PLACEMENT_INFO.name,
        variables=[
            variable(
                "campaign",
                f"label_values({q.select(m.PLACEMENT_INFO)}, campaign)",
                all_value=".*",
            )
        ],
    )
