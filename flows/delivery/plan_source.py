"""Plans of the settings' file or topic, followed while they change."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import structlog

from flows.delivery.plan_files import PlanFile, read_plans
from flows.delivery.plan_topics import PlanTopic, plan_topic
from flows.errors import PlanError, SettingsError
from flows.model.plan import Plan, PlanBook
from flows.settings import PREFIX, Settings, Topic, kafka_options


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


class PlanFollower:
    """The settings' plans, for a step that must notice their changes."""

    def __init__(self, settings: Settings) -> None:
        self._source = plan_file(settings)
        self._last_book: PlanBook | None = None
        self._needed = settings.labels == "planned"

    def changed(self, now_ms: int) -> PlanBook | None:
        """The plans in force, if they have been read and differ from those that were last returned. Without a
        source there are none, which is returned once: a save may have some.
        """
        if self._source is None:
            if self._last_book is not None:
                return None
            self._last_book = PlanBook()
            return self._last_book
        self._source.refresh(now_ms)
        if not self._source.ready or self._source.book is self._last_book:
            return None
        self._last_book = self._source.book
        return self._last_book

    @property
    def awaited(self) -> bool:
        """True while no pixel may be read: the plans list the labels that count, and have not been
        read yet.
        """
        return self._needed and self._source is not None and not self._source.ready


class PlanReader:
    """The settings' plans, for a process that can begin before they can be read.

    Args:
        logs_problems: whether problems are logged.
    """

    def __init__(self, settings: Settings, logs_problems: bool = False) -> None:
        self._settings, self._logs_problems = settings, logs_problems
        self._source: PlanFile | PlanTopic | None = None
        self._last_book: PlanBook | None = None

    def changed(self) -> PlanBook | None:
        """The plans in force, if they have been read and differ from those that were last returned.

        Raises:
            ConnectError: Kafka does not answer, or there is no such topic.
        """
        if self._source is None:
            self._source = plan_file(self._settings)
        if (source := self._source) is None:
            return None
        problems = source.refresh(time.monotonic_ns() // 1_000_000)
        for problem in problems if self._logs_problems else ():
            structlog.get_logger("plans").warning("plan not taken", problem=str(problem))
        if not source.ready or source.book is self._last_book:
            return None
        self._last_book = source.book
        return self._last_book


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


def hold_labels(settings: Settings) -> None:
    """Refuse to begin a flow without the plans that list its labels: all labels would be absent, and those of
    the pixels read meanwhile would stay so.

    Raises:
        SettingsError: there are none.
        PlanError, ConnectError: they cannot be read.
    """
    if settings.labels != "planned":
        return
    if settings.plans is None:
        raise SettingsError(
            f"{PREFIX}LABELS is planned, and {PREFIX}PLANS is not set: name the plans that list the labels"
        )
    read_book(settings)
