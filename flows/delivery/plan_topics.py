"""Topics of plans: a compacted Kafka topic, placement_id → one plan as JSON, followed live.

A process has one consumer and one thread for all users: `plan_topic` gives each user its own view. No user
waits for Kafka, except the first one, before anything flows.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final, NamedTuple

from connectors.kafka import Change, KafkaTable
from connectors.stream import ConnectError
from flows.delivery.plan_columns import COLUMNS, columns_from_json, plan_of
from flows.errors import PlanError
from flows.model.plan import Plan, PlanBook

FIRST_WAIT_S: Final = 10.0
"""The time for which the first asker waits for the first book, in s."""
OUTAGE_S: Final = 5.0
"""Seconds after which an outage of Kafka is reported and the topic is read from its beginning; shorter faults
pass all the time.
"""
RETRY_S: Final = 2.0
POLL_S: Final = 60.0
"""Seconds between two checks whether the topic has more partitions."""
MAX_REFUSALS: Final = 1000
GATHERED: Final = 16_384
"""Messages that wait for later ones of their keys while the topic is not read to its end: only the latest
good one of each key is decoded, in a tenth of a millisecond. Compaction leaves a topic's newest segment,
which may cover days.
"""

_POLL: Final = timedelta(seconds=0.2)
_PLAN_COLUMNS: Final = frozenset(COLUMNS)


_Place = tuple[int, bytes | None]
"""A partition and a key in it."""


class Refusal(NamedTuple):
    """A refused message of a topic, with its reason. Without partition and offset it is the whole topic."""

    topic: str
    partition: int | None
    offset: int | None
    placement: str | None
    reason: str

    def __str__(self) -> str:
        place = "" if self.partition is None else f"/{self.partition}, offset {self.offset}"
        return ": ".join(filter(None, (self.topic + place, self.placement, self.reason)))


class _Latest(NamedTuple):
    """The order in which messages of different partitions count: by time, then by partition."""

    timestamp_ms: int
    partition: int
    plan: Plan | None


class Entries:
    """The plans that a topic's messages make, whatever the order of its partitions.

    A refused message changes nothing, so the last good plan stays. If a placement has messages in several
    partitions (writers that spread keys differently), the one with the latest timestamp counts.
    """

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._latest: dict[str, dict[int, _Latest]] = {}

    def take(self, *changes: Change) -> list[Refusal]:
        """Enter the latest good one of a key's messages in one partition; returns the fault of the last
        message.
        """
        remarks_of_entries: list[list[Refusal]] = []
        for change in reversed(changes):
            entered, remarks = self._enter(change)
            remarks_of_entries.append(remarks)
            if entered:
                break
        return remarks_of_entries[0]

    def _enter(self, change: Change) -> tuple[bool, list[Refusal]]:
        """Enter one message; returns whether it is taken, and its fault."""

        def refusal(reason: str) -> Refusal:
            return Refusal(self._topic, change.partition, change.offset, name, reason)

        name = None
        if change.key is None:
            return False, [refusal("has no key: takes the placement_id")]
        name = change.key.decode(errors="replace")
        remarks: list[Refusal] = []
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
            remarks = [refusal(f"{other}: no such name, ignored") for other in unknown]
        latest = self._latest.setdefault(name, {})
        latest[change.partition] = _Latest(change.timestamp_ms, change.partition, plan)
        return True, remarks

    def enter_known(self, plan: Plan) -> None:
        """Enter a plan from an earlier reading, of a placement that has no good message any more."""
        self._latest.setdefault(plan.placement_id, {-1: _Latest(-1, -1, plan)})

    def book(self) -> PlanBook:
        """The plans in force."""
        newest = (max(of.values(), key=lambda latest: latest[:2]) for of in self._latest.values())
        return PlanBook(latest.plan for latest in newest if latest.plan is not None)


class TopicFeed:
    """Follows a topic in a thread of its own; the first book comes when all partitions were read.

    While Kafka is away or the topic is missing the last book stays in force, and that is logged once.
    Afterwards the topic, which may be a new one, is read from its beginning, and counts once it has been
    read.

    Args:
        topic: the topic's name, for messages.
        open_table: called again after each outage.

    Raises:
        ConnectError: by `open_table`, the first time.
    """

    def __init__(self, topic: str, open_table: Callable[[], KafkaTable]) -> None:
        self.book = PlanBook()
        self.ready = threading.Event()
        self._count = 0
        self._refusals: deque[Refusal] = deque(maxlen=MAX_REFUSALS)
        self._topic = topic
        self._open_table = open_table
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._outage_reported = False
        self._thread = threading.Thread(target=self._run, args=(open_table(),), name="plans", daemon=True)
        self._thread.start()

    def since(self, count: int) -> tuple[int, list[Refusal]]:
        """The refusals after the first `count`, as far as they are stored, and the number of all."""
        with self._lock:
            new = self._count - count
            return self._count, list(self._refusals)[-new:] if new else []

    def report(self, reason: str) -> None:
        """Report a fault of the topic as a whole."""
        self._report([Refusal(self._topic, None, None, None, reason)])

    def close(self) -> None:
        """End the thread."""
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
        """Follow until closing, or until the topic has more partitions.

        Raises:
            ConnectError: by the table, or Kafka has been away for `OUTAGE_S`.
        """
        entries, waiting = Entries(self._topic), dict[_Place, list[Refusal]]()
        behind, gathered = defaultdict[_Place, list[Change]](list), 0
        partitions = table.partitions()
        seen_s = looked_s = time.monotonic()
        complete = False
        while not self._closing.is_set():
            changes = table.read(_POLL)
            for change in changes:
                behind[change.partition, change.key].append(change)
            gathered += len(changes)
            if complete or table.caught_up or gathered >= GATHERED:
                # A fault that a later message of the topic corrects needs no report.
                waiting |= {place: entries.take(*some) for place, some in behind.items()}
                behind.clear()
                gathered = 0
            now_s = time.monotonic()
            if table.caught_up or changes:
                seen_s = now_s
            elif now_s - seen_s > OUTAGE_S:
                raise ConnectError(table.trouble)
            if table.caught_up:
                self._outage_reported = False
            if table.caught_up and not complete:
                complete = True
                for refusal in (one for many in waiting.values() for one in many):
                    plan = self.book.get(refusal.placement or "")
                    if plan is not None:
                        entries.enter_known(plan)
                self._replace(entries.book())
                self.ready.set()
            elif complete and changes:
                self._replace(entries.book())
            if complete:
                self._report([one for many in waiting.values() for one in many])
                waiting.clear()
            if now_s - looked_s > POLL_S and table.caught_up:
                looked_s = now_s
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
            self._count += len(refusals)


class PlanTopic:
    """A view of a topic of plans, like a `PlanFile`; `book` is replaced, never changed, and `ready` once the
    topic has been read to its end.
    """

    def __init__(self, feed: TopicFeed) -> None:
        self._feed = feed
        self._reported = 0
        self._take_up()

    def _take_up(self) -> None:
        self.ready = self._feed.ready.is_set()
        self.book = self._feed.book

    def refresh(self, now_ms: int) -> list[Refusal]:
        """Take the topic's changes; never waits.

        Args:
            now_ms: not needed here.

        Returns:
                The refusals, once for each view; of very many the latest `MAX_REFUSALS`.
        """
        self._take_up()
        self._reported, refusals = self._feed.since(self._reported)
        return refusals


_feeds: dict[tuple[object, ...], TopicFeed] = {}
_making = threading.Lock()


def plan_topic(brokers: str, topic: str, options: Mapping[str, str], group: str) -> PlanTopic:
    """A view of a topic of plans. The first view of a process waits for the first book, at most
    `FIRST_WAIT_S`.

    Raises:
        ConnectError: the brokers do not answer, or the topic is missing; of the first view alone.
    """
    with _making:
        key = (brokers, topic, *sorted(options.items()))
        feed = _feeds.get(key)
        if feed is None:
            feed = TopicFeed(topic, lambda: KafkaTable(brokers, topic, options, group=group))
            _feeds[key] = feed
            if not feed.ready.wait(FIRST_WAIT_S):
                feed.report("is not read to its end yet: no plan is in force before that")
        return PlanTopic(feed)
