"""The dashboard *Trading desk*: placements and campaigns that need action now."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from dashboards import queries as q
from dashboards.delivery_rules import MIN_STARTS
from dashboards.layout import Row, board, variable
from dashboards.panels import (
    AMBER,
    GREEN,
    RED,
    SEVERITY_COLORS,
    STATE_COLORS,
    Column,
    Query,
    Steps,
    lines,
    number,
    rows,
)
from dashboards.rules import RUNBOOK, USUAL, Limits
from flows import metrics as m

UID: Final = "audiopixel-trading-desk"


def pace(limits: Limits) -> Steps:
    """Colours of a delivery indicator: 1 is on plan."""
    return ((None, RED), (limits.under, GREEN), (limits.over, AMBER))


_ANY: Final[Steps] = ((None, GREEN), (1, RED))
_SOME: Final[Steps] = ((None, GREEN), (1, AMBER))
_FRESH: Final[Steps] = ((None, GREEN), (90, AMBER), (300, RED))
_OPEN: Final = (
    "/d/audiopixel-placement?var-placement=${__data.fields.Placement:percentencode}"
    "&${datasource:queryparam}&${job:queryparam}&${instance:queryparam}&${__url_time_range}"
)

_IMPRESSIONS: Final = q.of_campaign(q.per_second(m.PLACEMENT["flight.impressions"], by="placement"))


def _worst(limits: Limits) -> Panel:
    return rows(
        "Placements, most short first",
        "Each chosen placement. Short by are impressions due by now and not delivered, of flights that run; "
        "Worth is their price. Delivery is delivered by due impressions: empty without a plan, before the "
        "flight, in its first minutes and while paused. Delivered counts up to the plan's end, without a "
        "plan all impressions. Money is in the currency of the row. A click opens the placement.",
        [
            Query(q.names()),
            Query(q.states()),
            Query(q.by_placement(m.PLACEMENT["delivery.indicator"])),
            Query(q.delivered_by_placement()),
            Query(q.by_placement(m.PLACEMENT["delivery.expected"])),
            Query(q.by_placement(m.PLACEMENT["delivery.projected"])),
            Query(q.by_placement(m.PLACEMENT["delivery.booked"])),
            Query(q.ends_in(m.PLACEMENT["delivery.end_ms"], "placement")),
            Query(q.an_hour(q.by_placement(m.PLACEMENT["delivery.required_rate"]))),
            Query(q.by_placement(m.PLACEMENT["flight.cost"])),
            Query(q.by_placement(m.PLACEMENT["flight.conversions"])),
            Query(q.short_cost()),
            Query(q.short()),
        ],
        [
            Column("Placement", "placement", link=_OPEN),
            Column("State", "state", colors=STATE_COLORS),
            Column("Short by", "Value #M", "locale", decimals=0),
            Column("Worth", "Value #L", "locale", decimals=2),
            Column("Currency", "currency"),
            Column("Ends in", "Value #H", "dtdurations"),
            Column("Needed an hour", "Value #I", "locale", decimals=0),
            Column("Delivery", "Value #C", "percentunit", pace(limits), decimals=1),
            Column("Delivered", "Value #D", "locale"),
            Column("Due", "Value #E", "locale", decimals=0),
            Column("Projected", "Value #F", "locale", decimals=0),
            Column("Booked", "Value #G", "locale"),
            Column("Cost", "Value #J", "locale", decimals=2),
            Column("Conversions", "Value #K", "locale"),
            Column("Campaign", "campaign"),
            Column("Platform", "platform"),
            Column("Station", "station"),
        ],
        join="placement",
        sort="Short by",
        descending=True,
        alert="AudiopixelUnderDelivery",
    )


def _campaigns(limits: Limits) -> Panel:
    return rows(
        "Campaigns, most short first",
        "Each chosen campaign with a planned placement, by the sums of its placements. Needed an hour is the "
        "rate at which they reach their bookings together.",
        [
            Query(q.by_campaign(m.CAMPAIGN_STATE, "campaign, state")),
            Query(q.by_campaign(m.CAMPAIGN["delivery.indicator"])),
            Query(q.by_campaign(m.CAMPAIGN["delivery.delivered"])),
            Query(q.by_campaign(m.CAMPAIGN["delivery.expected"])),
            Query(q.by_campaign(m.CAMPAIGN["delivery.projected"])),
            Query(q.by_campaign(m.CAMPAIGN["delivery.booked"])),
            Query(q.an_hour(q.by_campaign(m.CAMPAIGN["delivery.required_rate"]))),
            Query(q.ends_in(m.CAMPAIGN["delivery.end_ms"], "campaign")),
            Query(q.campaigns_short()),
        ],
        [
            Column("Campaign", "campaign"),
            Column("State", "state", colors=STATE_COLORS),
            Column("Short by", "Value #I", "locale", decimals=0),
            Column("Ends in", "Value #H", "dtdurations"),
            Column("Needed an hour", "Value #G", "locale", decimals=0),
            Column("Delivery", "Value #B", "percentunit", pace(limits), decimals=1),
            Column("Delivered", "Value #C", "locale"),
            Column("Due", "Value #D", "locale", decimals=0),
            Column("Projected", "Value #E", "locale", decimals=0),
            Column("Booked", "Value #F", "locale"),
        ],
        join="campaign",
        sort="Short by",
        descending=True,
        alert="AudiopixelUnderDelivery",
    )


_ALERTS: Final = rows(
    "Alerts that fire",
    "Each with its beginning. Its text, with numbers and advice, is in Alertmanager's message and in the "
    "runbook, to which a click on an alert leads if AUDIOPIXEL_DOCS_URL is set.",
    [Query(f"1000 * {q.firing_since()}")],
    [
        Column("Since", "Value", "dateTimeFromNow"),
        Column("Alert", "alertname", link=RUNBOOK),
        Column("Severity", "severity", colors=SEVERITY_COLORS),
        Column("Placement", "placement", link=_OPEN),
        Column("Campaign", "campaign"),
    ],
    sort="Since",
    descending=True,
    alert="AudiopixelDeliveryNotJudged",
)


_NOW: Final = Row(
    "Now",
    4,
    4,
    [
        number(
            "Numbers are of",
            "Age of the numbers. Below 90 s all is well; above five minutes delivery is not judged.",
            "s",
            Query(q.age(m.EXPORTER_WATERMARK)),
            steps=_FRESH,
            alert="AudiopixelPipelineStalled",
        ),
        number(
            "Under plan",
            "Placements that have delivered too little of what is due by now.",
            "short",
            Query(q.count_in("under")),
            steps=_ANY,
            alert="AudiopixelUnderDelivery",
        ),
        number(
            "At risk",
            "Placements that would end below their booking at the last hour's rate.",
            "short",
            Query(q.count_in("at_risk")),
            steps=_SOME,
            alert="AudiopixelUnderDelivery",
        ),
        number(
            "Over plan",
            "Placements that have delivered too much of what is due by now.",
            "short",
            Query(q.count_in("over")),
            steps=_SOME,
            alert="AudiopixelOverDelivery",
        ),
        number(
            "Completion, 1 h",
            "Completes by starts of the last hour, without the youngest, which cannot have completed yet; "
            "placements weighed by their starts.",
            "percentunit",
            Query(q.completion()),
            alert="AudiopixelCompletionRateDropped",
        ),
        number("Impressions a second", "Of the chosen campaigns.", "cps", Query(f"sum({_IMPRESSIONS})")),
    ],
)


def _history(limits: Limits) -> Row:
    return Row(
        "History",
        9,
        8,
        [
            lines(
                "Impressions a second, today and yesterday by now",
                "Of the chosen placements.",
                "cps",
                [
                    Query(f"sum({_IMPRESSIONS})", "today"),
                    Query(q.yesterday(m.PLACEMENT["flight.impressions"]), "yesterday"),
                ],
            ),
            _ALERTS,
            lines(
                "Delivery of the ten worst",
                "Delivered impressions by those due by now, of flights that run: 1 is on plan.",
                "percentunit",
                [Query(f"bottomk(10, {q.running(m.PLACEMENT['delivery.indicator'])})", "{{placement}}")],
                steps=pace(limits),
                alert="AudiopixelUnderDelivery",
            ),
            lines(
                "Completion of the ten worst",
                "Completes by starts of the last hour, without the youngest starts; of placements with at "
                f"least {MIN_STARTS} starts.",
                "percentunit",
                [Query(f"bottomk(10, {q.completion_by_placement(MIN_STARTS)})", "{{placement}}")],
                alert="AudiopixelCompletionRateDropped",
            ),
        ],
    )


def trading_desk(limits: Limits = USUAL) -> Dashboard:
    """The dashboard; `limits` colour its deliveries."""
    return board(
        UID,
        "Trading desk",
        "What needs action now: placements and campaigns that do not deliver what was sold.",
        [
            _NOW,
            Row("Placements", 14, 24, [_worst(limits)]),
            Row("Campaigns", 8, 24, [_campaigns(limits)]),
            _history(limits),
        ],
        job_metric=m.PLACEMENT_INFO.name,
        variables=[
            variable(name, f"label_values({q.select(m.PLACEMENT_INFO)}, {name})", all_value=".*")
            for name in ("platform", "station", "campaign")
        ],
    )
