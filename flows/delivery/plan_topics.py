"""Topics of plans: a compacted Kafka topic, placement_id → one plan as JSON, followed live.

A process has one consumer and one thread for all users, and `plan_topic` returns a view for each user. Only
the first user waits for Kafka, before the flow begins.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from datetime import timedelta
from itertools import chain
from typing import Final, NamedTuple

from connectors.kafka import Change, KafkaTable
from connectors.stream import ConnectError
from flows.delivery.plan_columns import COLUMNS, columns_from_json, plan_of
from flows.errors import PlanError
from flows.model.plan import Plan, PlanBook

FIRST_WAIT_S: Final = 10.0
"""Seconds for which the first user waits for the first book."""
OUTAGE_S: Final = 5.0
"""Seconds after which an outage of Kafka is reported, and the topic is read from its beginning. Shorter
faults are frequent.
"""
RETRY_S: Final = 2.0
POLL_S: Final = 60.0
"""Seconds between two checks whether the topic has more partitions."""
MAX_REFUSALS: Final = 1000
MAX_GATHERED: Final = 16_384
"""The number of messages that wait for later ones of their keys while the topic is not read to its end. Only
the latest good message of a key is decoded, in a tenth of a millisecond. Compaction leaves out the newest
segment of a topic, which may cover days.
"""

_POLL: Final = timedelta(seconds=0.2)
_PLAN_COLUMNS: Final = frozenset(COLUMNS)

_Place = tuple[int, bytes | None]
"""A partition and a key in it."""


class Refusal(NamedTuple):
    """The reason why a message of a topic is refused. Without partition and offset it is about the topic."""

    topic: str
    partition: int | None
    offset: int | None
    placement: str | None
    reason: str

    def __str__(self) -> str:
        place = "" if self.partition is None else f"/{self.partition}, offset {self.offset}"
        return ": ".join(filter(None, (self.topic + place, self.placement, self.reason)))


class _Latest(NamedTuple):
    """A placement's latest message of one partition; `plan` is None for a tombstone. The greatest message by
    time, then by partition, counts.
    """

    timestamp_ms: int
    partition: int
    plan: Plan | None


class Entries:
    """The plans of a topic's messages, which do not depend on the order of its partitions.

    A refused message changes nothing, so the last good plan stays. A placement may have messages in several
    partitions, if writers partition keys differently. The message with the latest timestamp then counts.
    """

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._latest: dict[str, dict[int, _Latest]] = {}

    def take(self, *changes: Change) -> list[Refusal]:
        """Enter the latest good message of a key in one partition; returns the faults of the last message.

        Args:
            changes: the key's messages in the order of the partition, at least one.
        """
        entered, faults = self._enter(changes[-1])
        for change in reversed(changes[:-1]):
            if entered:
                break
            entered, _ = self._enter(change)
        return faults

    def _enter(self, change: Change) -> tuple[bool, list[Refusal]]:
        """Enter one message; returns whether it is good, and its faults."""

        def refusal(reason: str) -> Refusal:
            return Refusal(self._topic, change.partition, change.offset, name, reason)

        name = None
        if change.key is None:
            return False, [refusal("has no key: takes the placement_id")]
        name = change.key.decode(errors="replace")
        faults: list[Refusal] = []
        plan = None
        if change.value is not None:
            try:
                if not change.value:
                    raise PlanError("is empty: takes a plan, or a tombstone (no value) to remove it")
                columns = columns_from_json(change.value)
                plan = plan_of(columns)
                if plan.placement_id != name:
                    raise PlanError(f"{plan.placement_id!r} is not the message's key", "placement_id")
            except PlanError as error:
                return False, [refusal(f"{error}; the plan read last stays in force")]
            unknown = sorted(columns.keys() - _PLAN_COLUMNS)
            faults = [refusal(f"{other}: no such name, ignored") for other in unknown]
        latest = self._latest.setdefault(name, {})
        latest[change.partition] = _Latest(change.timestamp_ms, change.partition, plan)
        return True, faults

    def enter_known(self, plan: Plan) -> None:
        """Enter a plan of an earlier reading, for a placement that has no good message any more."""
        self._latest.setdefault(plan.placement_id, {-1: _Latest(-1, -1, plan)})

    def book(self) -> PlanBook:
        """The plans in force."""
        by_placement = self._latest.values()
        newest = (max(latest.values(), key=lambda each: each[:2]) for latest in by_placement)
        return PlanBook(latest.plan for latest in newest if latest.plan is not None)


class TopicFeed:
    """A topic of plans that a thread of its own follows. The first book is there once all partitions are
    read.

    While Kafka is away or the topic is missing, the last book stays in force, and a refusal reports that
    once. Afterwards the topic, which may be a new one, is read from its beginning. Its book replaces the last
    one once all of it is read.

    Args:
        topic: the topic's name, for refusals.
        open_table: called at once, and again after each outage.

    Raises:
        ConnectError: `open_table` raised it at the first call.
    """

    def __init__(self, topic: str, open_table: Callable[[], KafkaTable]) -> None:
        self.book = PlanBook()
        self.ready = threading.Event()
        self._refusal_count = 0
        self._refusals: deque[Refusal] = deque(maxlen=MAX_REFUSALS)
        self._topic = topic
        self._open_table = open_table
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._outage_reported = False
        self._thread = threading.Thread(target=self._run, args=(open_table(),), name="plans", daemon=True)
        self._thread.start()

    def since(self, count: int) -> tuple[int, list[Refusal]]:
        """The number of all refusals, and the refusals after the first `count` that are still stored."""
        with self._lock:
            new = self._refusal_count - count
            return self._refusal_count, list(self._refusals)[-new:] if new else []

    def report(self, reason: str) -> None:
        """Report a fault of the topic as a whole."""
        self._report([Refusal(self._topic, None, None, None, reason)])

    def close(self) -> None:
        """End the thread; waits at most 5 s for it."""
        self._closing.set()
        self._thread.join(5)

    def _run(self, table: KafkaTable | None) -> None:
        while not self._closing.is_set():
            try:
                table = table or self._open_table()
                self._follow(table)
            except ConnectError as error:
                self._report_outage(str(error))
                self._closing.wait(RETRY_S)
            if table is not None:
                table.close()
            table = None

    def _follow(self, table: KafkaTable) -> None:
        """Follow the topic until `close`, or until it has more partitions.

        Raises:
            ConnectError: the table raised it, or Kafka has been away for `OUTAGE_S`.
        """
        entries, unreported = Entries(self._topic), dict[_Place, list[Refusal]]()
        gathered, gathered_count = defaultdict[_Place, list[Change]](list), 0
        partitions = table.partitions()
        answered_s = checked_s = time.monotonic()
        complete = False
        while not self._closing.is_set():
            changes = table.read(_POLL)
            for change in changes:
                gathered[change.partition, change.key].append(change)
            gathered_count += len(changes)
            if complete or table.caught_up or gathered_count >= MAX_GATHERED:
                # A fault that a later message of its key corrects is not reported.
                unreported |= {place: entries.take(*messages) for place, messages in gathered.items()}
                gathered.clear()
                gathered_count = 0
            now_s = time.monotonic()
            if table.caught_up or changes:
                answered_s = now_s
            elif now_s - answered_s > OUTAGE_S:
                raise ConnectError(table.trouble)
            if table.caught_up:
                self._outage_reported = False
            if table.caught_up and not complete:
                complete = True
                for refusal in chain.from_iterable(unreported.values()):
                    plan = self.book.get(refusal.placement or "")
                    if plan is not None:
                        entries.enter_known(plan)
                self._replace(entries.book())
                self.ready.set()
            elif complete and changes:
                self._replace(entries.book())
            if complete:
                self._report([*chain.from_iterable(unreported.values())])
                unreported.clear()
            if now_s - checked_s > POLL_S and table.caught_up:
                checked_s = now_s
                if table.partitions() != partitions:
                    return

    def _replace(self, book: PlanBook) -> None:
        if book.version != self.book.version:
            self.book = book

    def _report_outage(self, reason: str) -> None:
        if not self._outage_reported:
            self._outage_reported = True
            self.report(f"{reason}; the plans read last stay in force")

    def _report(self, refusals: list[Refusal]) -> None:
        with self._lock:
            self._refusals += refusals
            self._refusal_count += len(refusals)


class PlanTopic:
    """A view of a topic of plans, with the interface of a `PlanFile`.

    Attributes:
        book: the plans in force; replaced, never changed.
        ready: whether the topic has been read to its end.
    """

    def __init__(self, feed: TopicFeed) -> None:
        self._feed = feed
        self._reported = 0
        self._take_up()

    def _take_up(self) -> None:
        self.ready = self._feed.ready.is_set()
        self.book = self._feed.book

    def refresh(self, now_ms: int) -> list[Refusal]:
        """Take the topic's changes, without waiting for them.

        Args:
            now_ms: unused; a `PlanFile` needs it.

        Returns:
            The refusals since the last call; at most the latest `MAX_REFUSALS`.
        """
        self._take_up()
        self._reported, refusals = self._feed.since(self._reported)
        return refusals


_feeds: dict[tuple[object, ...], TopicFeed] = {}
_feeds_lock = threading.Lock()


def plan_topic(brokers: str, topic: str, options: Mapping[str, str], group: str) -> PlanTopic:
    """A view of a topic of plans. The first call of a process waits for the first book, at most
    `FIRST_WAIT_S`.

    Raises:
        ConnectError: the brokers do not answer, or the topic is missing; only the first call raises it.
    """
    with _feeds_lock:
        key = (brokers, topic, *sorted(options.items()))
        feed = _feeds.get(key)
        if feed is None:
            feed = TopicFeed(topic, lambda: KafkaTable(brokers, topic, options, group=group))
            _feeds[key] = feed
            if not feed.ready.wait(FIRST_WAIT_S):
                feed.report("is not read to its end yet: no plan is in force until then")
        return PlanTopic(feed)
