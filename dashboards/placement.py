"""The dashboard *Placement*: one placement, from its plan to its integrity."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards import queries as q
from dashboards.layout import Row, board, variable, wide
from dashboards.panels import AMBER, GREEN, RED, Query, Steps, bars, lines, number
from dashboards.rules import USUAL, Limits
from dashboards.trading_desk import pace
from flows import metrics as m

UID: Final = "audiopixel-placement"

_NONE: Final[Steps] = ((None, GREEN), (1, RED))
_CONSENT: Final[Steps] = ((None, RED), (0.5, AMBER), (0.7, GREEN))


def _rate(definition: m.Definition) -> str:
    return q.per_second(definition, q.ONE_PLACEMENT)


_AHEAD: Final = [
    number(
        "Projected",
        "Impressions at the end of the flight at the last hour's rate.",
        "locale",
        Query(q.chosen(m.PLACEMENT["delivery.projected"])),
    ),
    number(
        "Short by",
        "Impressions that are due by now and not delivered; 0 if it is ahead.",
        "locale",
        Query(q.chosen(m.PLACEMENT["delivery.short_by"])),
        alert="AudiopixelUnderDelivery",
    ),
    number(
        "Ends in",
        "Time until the flight of the plan ends, pauses included.",
        "dtdurations",
        Query(f"{q.chosen(m.PLACEMENT['delivery.end_ms'])} - time()"),
    ),
    number(
        "Booked",
        "Impressions that the plan has booked.",
        "locale",
        Query(q.chosen(m.PLACEMENT["delivery.booked"])),
    ),
    number(
        "Cost per conversion",
        "Price of the delivered impressions by the flight's conversions, in the plan's currency; "
        "empty while there is none.",
        "locale",
        Query(
            f"{q.chosen(m.PLACEMENT['flight.cost'])} / ({q.chosen(m.PLACEMENT['flight.conversions'])} > 0)"
        ),
    ),
]
"""Panels about the rest of the flight, and its cost."""


def _plan(limits: Limits) -> Row:
    return Row(
        "Plan",
        4,
        4,
        [
            number(
                "State",
                "on_track, at_risk, warming_up, under, over, paused, complete, not_started, ended_short, "
                "unknown_before or ended_unknown.",
                "string",
                Query(f"max by (state) ({q.select(m.PLACEMENT_STATE, q.ONE_PLACEMENT)})", "{{state}}"),
                named=True,
                alert="AudiopixelUnderDelivery",
            ),
            number(
                "Delivery",
                "Delivered impressions by those due by now: 1 is on plan. Empty without a plan, before the "
                "flight, in its first minutes and while paused.",
                "percentunit",
                Query(q.chosen(m.PLACEMENT["delivery.indicator"])),
                steps=pace(limits),
                alert="AudiopixelUnderDelivery",
            ),
            number(
                "Delivered",
                "Impressions of the flight up to its plan's end, without a plan all of them; invalid "
                "traffic is not among them.",
                "locale",
                Query(q.delivered()),
            ),
            *_AHEAD,
        ],
    )


_CURVE: Final = Row(
    "Delivery",
    9,
    6,
    [
        wide(
            lines(
                "Delivered against the plan",
                "Impressions of the flight up to its plan's end, next to what its delivery curve wants by "
                "each moment; without a plan all impressions.",
                "locale",
                [
                    Query(q.delivered(), "delivered"),
                    Query(q.chosen(m.PLACEMENT["delivery.expected"]), "due"),
                    Query(q.chosen(m.PLACEMENT["delivery.booked"]), "booked"),
                ],
                alert="AudiopixelUnderDelivery",
            ),
            12,
        ),
        lines(
            "Delivery",
            "Delivered by due impressions: 1 is on plan.",
            "percentunit",
            [Query(q.chosen(m.PLACEMENT["delivery.indicator"]), "delivery")],
            steps=((None, RED), (0.9, GREEN), (1.1, AMBER)),
            alert="AudiopixelUnderDelivery",
        ),
        lines(
            "Impressions and clicks a second",
            "When they were counted, and the impressions that the booking needs from each moment on.",
            "cps",
            [
                Query(_rate(m.PLACEMENT["flight.impressions"]), "impressions"),
                Query(q.chosen(m.PLACEMENT["delivery.required_rate"]), "needed"),
                Query(_rate(m.PLACEMENT["flight.clicks"]), "clicks"),
            ],
            alert="AudiopixelNotDelivering",
        ),
    ],
)

_LISTENING: Final = Row(
    "Listening",
    9,
    8,
    [
        bars(
            "Quartile funnel",
            "Plays of the flight that started, and how far they got: each is a part of the one above it.",
            "locale",
            [
                Query(q.chosen(m.PLACEMENT["flight.starts"]), "start"),
                Query(q.chosen(m.PLACEMENT["flight.first_quartiles"]), "first quartile"),
                Query(q.chosen(m.PLACEMENT["flight.midpoints"]), "midpoint"),
                Query(q.chosen(m.PLACEMENT["flight.third_quartiles"]), "third quartile"),
                Query(q.chosen(m.PLACEMENT["flight.completes"]), "complete"),
            ],
        ),
        wide(
            lines(
                "Completion rate",
                "Completes by starts of the same plays. The mature rates leave out the youngest, which "
                "cannot have completed yet: alerts use them.",
                "percentunit",
                [
                    Query(q.chosen(m.PLACEMENT["5m.mature_completion_rate"]), "mature, 5 min"),
                    Query(q.chosen(m.PLACEMENT["1h.mature_completion_rate"]), "mature, 1 h"),
                    Query(q.chosen(m.PLACEMENT["delivery.target_completion_rate"]), "target"),
                ],
                alert="AudiopixelCompletionRateDropped",
            ),
            16,
        ),
    ],
)

_PEOPLE: Final = Row(
    "People",
    8,
    8,
    [
        lines(
            "Reach",
            "Distinct listeners and households who consented; above 1,000 within 1 %.",
            "locale",
            [
                Query(q.chosen(m.PLACEMENT["flight.reach"]), "flight"),
                Query(q.chosen(m.PLACEMENT["1h.reach"]), "1 h"),
                Query(q.chosen(m.PLACEMENT["flight.household_reach"]), "households, flight"),
            ],
        ),
        lines(
            "Frequency",
            "Plays of the flight by listener reached.",
            "locale",
            [Query(q.chosen(m.PLACEMENT["flight.frequency"]), "plays a listener")],
        ),
        wide(
            lines(
                "Conversions",
                "Of the flight, credited to this placement when their minute is final; those that a touch of "
                "their household joins, that public tags have sent, and that a server has confirmed.",
                "locale",
                [
                    Query(q.chosen(m.PLACEMENT["flight.conversions"]), "conversions"),
                    Query(q.chosen(m.PLACEMENT["flight.conversions_by_household"]), "by household"),
                    Query(q.chosen(m.PLACEMENT["flight.conversions_claimed"]), "claimed"),
                    Query(q.chosen(m.PLACEMENT["flight.conversions_confirmed"]), "confirmed"),
                ],
                alert="AudiopixelConversionsMissing",
            ),
            4,
        ),
        wide(
            lines(
                "Value of conversions",
                "Of the flight, in the plan's currency; a refund makes it fall. Claimed values come from "
                "public tags: any visitor of the page can send another value.",
                "locale",
                [
                    Query(q.chosen(m.PLACEMENT["flight.conversion_value"]), "value"),
                    Query(q.chosen(m.PLACEMENT["flight.conversion_value_claimed"]), "claimed"),
                ],
                least=None,
            ),
            4,
        ),
    ],
)

_KNOWN: Final = 'basis!=""'
_IAB: Final = {"calendar": "calendar day", "first_touch": "first touch", "last_touch": "last touch"}
"""Titles of the windows of the IAB."""
_SENT: Final = Row(
    "Downloads and deliveries",
    8,
    10,
    [
        wide(
            number(
                "Basis",
                "What kind of impressions these are; mixed: there are several.",
                "string",
                Query(f"max by (basis) ({q.select(m.PLACEMENT_INFO, q.ONE_PLACEMENT, _KNOWN)})", "{{basis}}"),
                named=True,
            ),
            4,
        ),
        *(
            lines(
                f"{kind.capitalize()}, by the windows of the IAB",
                f"{kind.capitalize()} of the flight that count once a client, of final minutes.",
                "locale",
                [
                    Query(q.chosen(m.PLACEMENT[f"flight.{kind}_{window}"]), title)
                    for window, title in _IAB.items()
                ],
            )
            for kind in ("downloads", "deliveries")
        ),
    ],
)

_INTEGRITY: Final = Row(
    "Integrity",
    7,
    6,
    [
        wide(
            lines(
                "Kept out of the numbers",
                "Pixels a second that were invalid traffic, had counted before, or came after their minute "
                "was final; and the players' errors.",
                "cps",
                [
                    Query(_rate(m.PLACEMENT["flight.invalid_traffic"]), "invalid traffic"),
                    Query(_rate(m.PLACEMENT["flight.repeated"]), "repeated"),
                    Query(_rate(m.PLACEMENT["flight.too_late"]), "too late"),
                    Query(_rate(m.PLACEMENT["flight.errors"]), "player errors"),
                ],
            ),
            12,
        ),
        number(
            "Consent",
            "Share of all the placement's pixels whose listener may be measured: reach is of them.",
            "percentunit",
            Query(q.chosen(m.PLACEMENT["flight.consent_coverage"])),
            steps=_CONSENT,
        ),
        number(
            "In blocked content",
            "All its impressions in content categories that the plan blocked when they were read.",
            "locale",
            Query(q.chosen(m.PLACEMENT["flight.blocked_impressions"])),
            steps=_NONE,
            alert="AudiopixelBrandSafetyBreach",
        ),
    ],
)


def placement(limits: Limits = USUAL) -> Dashboard:
    """The dashboard; `limits` colour its delivery."""
    return board(
        UID,
        "Placement",
        "One placement: its plan, how it is heard and by how many, what it sells, and what was kept out.",
        [_plan(limits), _CURVE, _LISTENING, _PEOPLE, _SENT, _INTEGRITY],
        job_metric=m.PLACEMENT_INFO.name,
        variables=[
            variable("placement", f"label_values({q.select(m.PLACEMENT_INFO)}, placement)", many=False)
        ],
        since="now-24h",
    )
