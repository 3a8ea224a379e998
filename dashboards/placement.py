"""The dashboard *Placement*: one of them, from its plan to its integrity."""

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
    return q.per_second(definition, q.ONE)


_AHEAD: Final = [
    number(
        "Projected",
        "Impressions at the end of the flight at the last hour's rate.",
        "locale",
        Query(q.one(m.PLACEMENT_PROJECTED)),
    ),
    number(
        "Short by",
        "Impressions that are due by now and not delivered; 0 where it is ahead.",
        "locale",
        Query(q.one(m.PLACEMENT_SHORT)),
        alert="AudiopixelUnderDelivery",
    ),
    number(
        "Ends in",
        "Time until the flight of the plan ends, pauses included.",
        "dtdurations",
        Query(f"{q.one(m.PLACEMENT_END)} - time()"),
    ),
    number("Booked", "Impressions that the plan has booked.", "locale", Query(q.one(m.PLACEMENT_BOOKED))),
    number(
        "Cost per conversion",
        "Price of the delivered impressions by the flight's conversions, in the plan's currency; "
        "empty while there is none.",
        "locale",
        Query(f"{q.one(m.PLACEMENT_COST)} / ({q.one(m.PLACEMENT_CONVERSIONS)} > 0)"),
    ),
]
"""Panels of what is to come, and what it costs."""


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
                Query(f"max by (state) ({q.select(m.PLACEMENT_STATE, q.ONE)})", "{{state}}"),
                named=True,
                alert="AudiopixelUnderDelivery",
            ),
            number(
                "Delivery",
                "Delivered impressions by those due by now: 1 is on plan. Empty without a plan, before the "
                "flight, in its first minutes and while paused.",
                "percentunit",
                Query(q.one(m.PLACEMENT_INDICATOR)),
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
                "Impressions of the flight up to its plan's end, beside what its delivery curve wants by "
                "each moment; without a plan all impressions.",
                "locale",
                [
                    Query(q.delivered(), "delivered"),
                    Query(q.one(m.PLACEMENT_EXPECTED), "due"),
                    Query(q.one(m.PLACEMENT_BOOKED), "booked"),
                ],
                alert="AudiopixelUnderDelivery",
            ),
            12,
        ),
        lines(
            "Delivery",
            "Delivered by due impressions: 1 is on plan.",
            "percentunit",
            [Query(q.one(m.PLACEMENT_INDICATOR), "delivery")],
            steps=((None, RED), (0.9, GREEN), (1.1, AMBER)),
            alert="AudiopixelUnderDelivery",
        ),
        lines(
            "Impressions and clicks a second",
            "When they were counted, and the impressions that are needed from each moment on to have "
            "what is booked at the end.",
            "cps",
            [
                Query(_rate(m.PLACEMENT_IMPRESSIONS), "impressions"),
                Query(q.one(m.PLACEMENT_REQUIRED), "needed"),
                Query(_rate(m.PLACEMENT_CLICKS), "clicks"),
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
                Query(q.one(m.PLACEMENT_STARTS), "start"),
                Query(q.one(m.PLACEMENT_FIRST_QUARTILES), "first quartile"),
                Query(q.one(m.PLACEMENT_MIDPOINTS), "midpoint"),
                Query(q.one(m.PLACEMENT_THIRD_QUARTILES), "third quartile"),
                Query(q.one(m.PLACEMENT_COMPLETES), "complete"),
            ],
        ),
        wide(
            lines(
                "Completion rate",
                "Completes by starts of the same plays. The mature rates leave out the youngest, which "
                "cannot have completed yet: alerts use them.",
                "percentunit",
                [
                    Query(q.one(m.PLACEMENT_MATURE_5M), "mature, 5 min"),
                    Query(q.one(m.PLACEMENT_MATURE_1H), "mature, 1 h"),
                    Query(q.one(m.PLACEMENT_TARGET_COMPLETION), "target"),
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
                Query(q.one(m.PLACEMENT_REACH), "flight"),
                Query(q.one(m.PLACEMENT_REACH_1H), "1 h"),
                Query(q.one(m.PLACEMENT_HOUSEHOLDS), "households, flight"),
            ],
        ),
        lines(
            "Frequency",
            "Plays of the flight by listener reached.",
            "locale",
            [Query(q.one(m.PLACEMENT_FREQUENCY), "plays a listener")],
        ),
        wide(
            lines(
                "Conversions",
                "Of the flight, credited to this placement when their minute is final; those that a touch of "
                "their household joins, that public tags have sent, and that a server has confirmed.",
                "locale",
                [
                    Query(q.one(m.PLACEMENT_CONVERSIONS), "conversions"),
                    Query(q.one(m.PLACEMENT_BY_HOUSEHOLD), "by household"),
                    Query(q.one(m.PLACEMENT_CLAIMED), "claimed"),
                    Query(q.one(m.PLACEMENT_CONFIRMED), "confirmed"),
                ],
                alert="AudiopixelConversionsMissing",
            ),
            4,
        ),
        wide(
            lines(
                "Value of conversions",
                "Of the flight, in the plan's currency; a refund makes it fall. Claimed values are told by "
                "public tags: whoever reads the page can tell another one.",
                "locale",
                [
                    Query(q.one(m.PLACEMENT_CONVERSION_VALUE), "value"),
                    Query(q.one(m.PLACEMENT_CONVERSION_VALUE_CLAIMED), "claimed"),
                ],
                least=None,
            ),
            4,
        ),
    ],
)

_KNOWN: Final = 'basis!=""'
_IAB: Final = ("calendar day", "first touch", "last touch")
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
                Query(f"max by (basis) ({q.select(m.PLACEMENT_INFO, q.ONE, _KNOWN)})", "{{basis}}"),
                named=True,
            ),
            4,
        ),
        *(
            lines(
                f"{what}, by the windows of the IAB",
                f"{what} of the flight that count once a client, of final minutes.",
                "locale",
                [Query(q.one(one), name) for one, name in zip(definitions, _IAB, strict=True)],
            )
            for what, definitions in (
                ("Downloads", m.PLACEMENT_DOWNLOADS),
                ("Deliveries", m.PLACEMENT_DELIVERIES),
            )
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
                    Query(_rate(m.PLACEMENT_INVALID), "invalid traffic"),
                    Query(_rate(m.PLACEMENT_REPEATED), "repeated"),
                    Query(_rate(m.PLACEMENT_TOO_LATE), "too late"),
                    Query(_rate(m.PLACEMENT_ERRORS), "player errors"),
                ],
            ),
            12,
        ),
        number(
            "Consent",
            "Share of all the placement's pixels whose listener may be measured: reach is of them.",
            "percentunit",
            Query(q.one(m.PLACEMENT_CONSENT)),
            steps=_CONSENT,
        ),
        number(
            "In blocked content",
            "All its impressions in content categories that the plan blocked when they were read.",
            "locale",
            Query(q.one(m.PLACEMENT_BLOCKED)),
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
