"""A switch: the flow that begins to serve continues from the states that the other flow published."""

from __future__ import annotations

from typing import Any

import pytest
from test_paced_rows import AT_MS, FLIGHT, PLAN, SINCE_MS, Held

from flows.delivery.opening import Counting
from flows.delivery.pacer import Pacer
from flows.model.fields import FIELDS, empty
from flows.model.messages import Delivered
from flows.model.plan import PlanBook


def paced(pacer: Pacer, impressions: int, minute: int) -> list[tuple[str, str]]:
    """Changes of states that are alerted a minute later."""
    values: list[Any] = empty(AT_MS)
    values[FIELDS.index("flight.impressions")] = impressions
    pacer.counted["p"] = Delivered(*PLAN.minutes, impressions)
    images = {("placement", "p"): values}
    alerts = pacer.pace(images, images.keys(), AT_MS + minute * 60_000, Counting(SINCE_MS), True).alerts
    return [(one["from"], one["to"]) for one in alerts]


def test_without_a_switch_a_state_is_alerted_from_the_one_before() -> None:
    pacer = Pacer(Held(PlanBook([PLAN])), FLIGHT)
    assert paced(pacer, 1_000, 0) == [("not_started", "complete")]


@pytest.mark.parametrize(
    ("told", "alerts"),
    [
        ({"delivery.state": "complete"}, []),
        ({"delivery.state": "under", "delivery.alerted_state": "complete"}, []),
        ({"delivery.state": "under"}, [("under", "complete")]),
        ({}, [("not_started", "complete")]),
    ],
)
def test_a_takeover_repeats_no_alert(told: dict[str, str], alerts: list[tuple[str, str]]) -> None:
    pacer = Pacer(Held(PlanBook([PLAN])), FLIGHT)
    pacer.take_over({"p": told})
    assert paced(pacer, 1_000, 0) == alerts


def test_all_is_paced_behind_a_switch_in_the_same_minute() -> None:
    pacer = Pacer(Held(PlanBook([PLAN])), FLIGHT)
    assert paced(pacer, 1_000, 0) == [("not_started", "complete")]
    pacer.take_over({"p": {"delivery.state": "under"}})
    assert pacer.pace({}, [], AT_MS, Counting(SINCE_MS), True).rows != []
