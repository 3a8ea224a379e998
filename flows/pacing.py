"""Pacing of what is published: the delivery fields of planned placements and their campaigns, and the alerts
when a state changes.

It works where all rows of a flush come together, so that a campaign's pacing is of the same cut as its
placements'. The plans are a file or a topic, looked at once a flush; while it is gone or broken the last good
version stays in force.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import structlog

from flows.delivery import Delivery, Thresholds, pace, pace_campaign, state_change
from flows.errors import PlanError
from flows.outputs import kafka_options
from flows.planfiles import PlanFile, read_plans
from flows.plans import Plan, PlanBook, PlanSource
from flows.plantopics import PlanTopic, plan_topic
from flows.rows import DELIVERY, FIELDS, LABELS, decimal, empty
from flows.settings import Settings, Topic

IMPRESSIONS: Final = FIELDS.index("flight.impressions")
LAST_HOUR: Final = FIELDS.index("1h.impressions")
CONVERSIONS: Final = FIELDS.index("flight.conversions")
VALUE: Final = FIELDS.index("flight.conversion_value")
DELIVERY_AT: Final = FIELDS.index(DELIVERY[0])
CAMPAIGN: Final = FIELDS.index(LABELS[0])
AS_OF: Final = FIELDS.index("as_of_ms")

Values = list[Any]


class Paced(NamedTuple):
    """Rows with new delivery fields (none where the plan was withdrawn), as (scope, name, values), and the
    alerts of changed states.
    """

    rows: list[tuple[str, str, Values]]
    alerts: list[dict[str, str]]


def plan_file(settings: Settings) -> PlanFile | PlanTopic | None:
    """The file or topic of plans that the settings name; see `plan_topic` on when it waits.

    Raises:
        ConnectError: there is no such topic.
    """
    if not isinstance(settings.plans, Topic):
        return None if settings.plans is None else PlanFile(settings.plans)
    return plan_topic(
        settings.kafka_brokers, settings.plans.name, kafka_options(settings), settings.kafka_group
    )


class Followed:
    """The settings' plans, for a step that has to know when they have changed."""

    def __init__(self, settings: Settings) -> None:
        self._source = plan_file(settings)
        self._told = PlanBook()

    def news(self, now_ms: int) -> PlanBook | None:
        """The plans in force, if they are not those that were told last."""
        if self._source is None:
            return None
        self._source.refresh(now_ms)
        if self._source.book is self._told:
            return None
        self._told = self._source.book
        return self._told


def read_book(settings: Settings) -> Mapping[str, Plan]:
    """The plans as they are now.

    Raises:
        PlanError, ConnectError: they cannot be read.
    """
    if isinstance(settings.plans, Path):
        return read_plans(settings.plans)[0]
    plans = plan_file(settings)
    if isinstance(plans, PlanTopic) and not plans.ready:
        raise PlanError(f"{settings.plans}: cannot be read to its end: does Kafka answer?")
    return {} if plans is None else plans.book


@dataclass
class Pacer:
    """Delivery of every planned placement.

    Args:
        source: of the plans.
        states: the state of each placement that readers know of.
    """

    source: PlanSource
    thresholds: Thresholds
    states: dict[str, str] = field(default_factory=dict)
    _deliveries: dict[str, Delivery] = field(default_factory=dict)
    _campaigns: dict[str, str] = field(default_factory=dict)
    _minute: int = -1
    _version: str = ""

    @property
    def book(self) -> PlanBook:
        """The plans in force."""
        return self.source.book

    def refresh(self, now_ms: int) -> None:
        """Look at the source; what is wrong with it is logged, once."""
        for problem in self.source.refresh(now_ms):
            structlog.get_logger("plans").warning("plan not taken", problem=str(problem))

    def pace(
        self, images: Mapping[tuple[str, str], Values], changed: Iterable[tuple[str, str]], now_ms: int
    ) -> Paced:
        """Pace the placements that changed, or all of them when a minute or the plans have turned.

        Args:
            images: values of the latest rows, by scope and name.
            changed: rows that changed since the last call, by scope and name.
            now_ms: watermark of the rows; the wall clock while there is none.
        """
        version = str(self.book.version)
        every = now_ms // 60_000 != self._minute or version != self._version
        self._minute, self._version = now_ms // 60_000, version
        changed = set(changed)
        names = [name for name in self.book if every or ("placement", name) in changed]
        rows, alerts = [], []
        # Also a campaign that changed by a placement without a plan.
        campaigns = {
            campaign
            for name, campaign in self._campaigns.items()
            if name in self._deliveries and ("campaign", campaign) in changed
        }
        withdrawn = sorted(self._deliveries.keys() - self.book.keys()) if every else []
        for name in withdrawn:
            del self._deliveries[name]
            self.states.pop(name, None)
            if name in self._campaigns:
                campaigns.add(self._campaigns.pop(name))
            values = list(images.get(("placement", name)) or empty(now_ms))
            values[AS_OF] = now_ms
            rows.append(("placement", name, values))
        for name in names:
            plan = self.book[name]
            values = list(images.get(("placement", name)) or empty(now_ms))
            delivery = pace(plan, values[IMPRESSIONS] or 0, values[LAST_HOUR] or 0, now_ms, self.thresholds)
            campaign = plan.campaign_id or values[CAMPAIGN]
            values[CAMPAIGN] = values[CAMPAIGN] or campaign
            alert = state_change(name, campaign, self.states.get(name), delivery, now_ms)  # type: ignore[arg-type]  # a state by its contract
            if alert is not None:
                alerts.append(alert)
            self.states[name] = delivery.state
            self._deliveries[name] = delivery
            if campaign:
                self._campaigns[name] = campaign
                campaigns.add(campaign)
            values[DELIVERY_AT : DELIVERY_AT + len(DELIVERY)] = _shown(delivery, plan, values)
            values[AS_OF] = now_ms
            rows.append(("placement", name, values))
        for campaign in sorted(campaigns):
            parts = [of for name, of in self._deliveries.items() if self._campaigns.get(name) == campaign]
            values = list(images.get(("campaign", campaign)) or empty(now_ms))
            if parts:
                delivery = pace_campaign(parts, self.thresholds)
                values[DELIVERY_AT : DELIVERY_AT + len(DELIVERY)] = _shown(delivery, None, values)
            rows.append(("campaign", campaign, values))
        return Paced(rows, alerts)


def _shown(delivery: Delivery, plan: Plan | None, values: Values) -> Values:
    """The values of `DELIVERY`."""

    def number(value: float | None) -> str | None:
        return None if value is None else decimal(value)

    target = cost = per_acquisition = return_on_spend = None
    if plan is not None:
        target = number(plan.target_completion_rate)
        if plan.cpm_micros is not None:
            cost = (values[IMPRESSIONS] or 0) * plan.cpm_micros / 1e9
            conversions = float(values[CONVERSIONS] or 0)
            per_acquisition = number(cost / conversions) if conversions else None
            return_on_spend = number((values[VALUE] or 0) / 1e6 / cost) if cost else None
    return [
        delivery.booked,
        number(delivery.expected),
        number(delivery.indicator),
        delivery.state,
        number(delivery.projected),
        number(delivery.required_rate),
        target,
        per_acquisition,
        return_on_spend,
        None if plan is None else plan.currency,
    ]
