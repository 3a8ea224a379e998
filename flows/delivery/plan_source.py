"""The plans of the file or topic that the settings name, followed while they change."""

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


def open_plans(settings: Settings) -> PlanFile | PlanTopic | None:
    """The file or topic of plans that the settings name; None without one. `plan_topic` states when it waits.

    Raises:
        ConnectError: the brokers do not answer, or the topic is missing.
    """
    if not isinstance(settings.plans, Topic):
        return None if settings.plans is None else PlanFile(settings.plans)
    return plan_topic(
        settings.kafka_brokers, settings.plans.name, kafka_options(settings), settings.kafka_group
    )


class PlanFollower:
    """The plans of the settings, for a step that must react to their changes."""

    def __init__(self, settings: Settings) -> None:
        self._source = open_plans(settings)
        self._last_book: PlanBook | None = None
        self._needed = settings.labels == "planned"

    def changed(self, now_ms: int) -> PlanBook | None:
        """The plans in force, if they have been read and differ from the plans that were returned last.

        Without a source the first call returns an empty book, since a save may have plans.
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
        """True while no pixel may be read, since the labels that count are in plans that are not read yet."""
        return self._needed and self._source is not None and not self._source.ready


class PlanReader:
    """The plans of the settings, for a process that can begin before its plans can be read.

    Args:
        logs_problems: whether problems of the plans are logged.
    """

    def __init__(self, settings: Settings, logs_problems: bool = False) -> None:
        self._settings, self._logs_problems = settings, logs_problems
        self._source: PlanFile | PlanTopic | None = None
        self._last_book: PlanBook | None = None

    def changed(self) -> PlanBook | None:
        """The plans in force, if they have been read and differ from the plans that were returned last.

        Raises:
            ConnectError: Kafka does not answer, or there is no such topic.
        """
        if self._source is None:
            self._source = open_plans(self._settings)
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
    """The present plans by placement; none without a source of plans.

    Raises:
        PlanError, ConnectError: the plans cannot be read.
    """
    if isinstance(settings.plans, Path):
        return read_plans(settings.plans)[0]
    plans = open_plans(settings)
    if isinstance(plans, PlanTopic) and not plans.ready:
        raise PlanError(f"{settings.plans}: cannot be read to its end: does Kafka answer?")
    return {} if plans is None else plans.book


def require_label_plans(settings: Settings) -> None:
    """Refuse to begin a flow without the plans that list its labels. All labels of the pixels read meanwhile
    would be absent for good.

    Raises:
        SettingsError: the settings name no plans.
        PlanError, ConnectError: the plans cannot be read.
    """
    if settings.labels != "planned":
        return
    if settings.plans is None:
        raise SettingsError(
            f"{PREFIX}LABELS is planned, and {PREFIX}PLANS is not set: name the plans that list the labels"
        )
    read_book(settings)
