"""Disputed counts: a log, and for each placement a publisher's own count of one day. The count differs from
the flow's for known reasons.

The publisher counts every call by the caller's clock, and rejects none. For each case, chance decides which
calls the publisher omits, and how many calls it counts that were never sent. The true size of every part is
therefore the drawn number. Of the flow's rules, this module repeats only the limits of time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from flows.simulate.scenario import AGENTS, BOTS, USUAL
from flows.simulate.truth import BASES, DAY_MS, MINUTE_MS

_S: Final = 1000
_AHEAD_MS: Final = 60 * _S
"""The greatest time by which a clock may be ahead of the receipt. If it is ahead by more, the receipt counts.
"""
_PULSE_MS: Final = 20 * _S
_LATE_MS: Final = (16 * 60 * _S, 20 * 3600 * _S)
_REASONS: Final = {
    "data_centre": "data_centre",
    "crawler_list": "crawler_list",
    "unverified_server": "unverified_server",
    "unheard_of": "other",
}
"""A collector's reasons of invalid traffic, to the parts that they count as."""
_WRONG: Final = (("duration_ms", "x"), ("consent", "yes"), ("ip", 5), ("station", ["a"]), ("platform", 1))
_OTHER_BASES: Final = tuple(name for name in BASES if name != USUAL)
EXCLUDABLE: Final = (
    "repeated",
    "invalid_traffic",
    "too_late",
    "unsigned",
    "rejected",
    "orphans",
    "clock_moved",
    "unkeyed",
    "same_client",
)


class RefusedEvent(NamedTuple):
    """An event that a collector rejected, so no log has it."""

    event: str
    placement: str
    reason: str
    ts_ms: int
    received_ms: int


@dataclass
class Dispute:
    """A case: one day of a placement.

    Attributes:
        flow_count, publisher_count: the counts of both sides.
        parts: signed parts of the difference by name; invalid traffic is `invalid_traffic.REASON`.
        unexplained: the drawn difference without a reason.
        excludes: parts that the publisher does not count either, so that they explain nothing.
        plan: [start, end) of a flight in epoch ms; None without a plan.
        basis: the only basis of impressions that the publisher counts; None for all.
        metric: `impressions` or `deliveries`.
        window: the window in which a client's deliveries count once; None if each of them counts.
        clients: the client and the day of each delivery to a client.
    """

    placement: str
    flow_count: int = 0
    publisher_count: int = 0
    parts: Counter[str] = field(default_factory=Counter)
    unexplained: int = 0
    excludes: frozenset[str] = frozenset()
    plan: tuple[int, int] | None = None
    basis: str | None = None
    metric: str = "impressions"
    window: str | None = None
    clients: list[tuple[str, date]] = field(default_factory=list)

    @property
    def event(self) -> str:
        """The event that the publisher counts."""
        return "impression" if self.metric == "impressions" else "delivered"

    def is_excluded(self, name: str) -> bool:
        """True if the publisher does not count a part either."""
        return name in self.excludes or name.partition(".")[0] in self.excludes


class Disputes:
    """Cases with their log; the same arguments give the same cases.

    Args:
        seed: the seed of the random numbers.
        cases: the number of placements.
        day: the disputed day, in the calendar of `zone`.

    Attributes:
        cases: a case for each placement.
        lines: the log as NDJSON, in order of arrival.
        refused: events that collectors rejected.
    """

    def __init__(self, seed: int, cases: int, day: date, zone: ZoneInfo) -> None:
        self._random, self._zone, self.day = Random(seed), zone, day
        self._begin, self._end = (self._midnight(day + timedelta(days=n)) for n in (0, 1))
        self._calls: list[tuple[int, int, dict[str, Any]]] = []
        self.refused: list[RefusedEvent] = []
        self._play_count = 0
        self.cases = [self._case(number) for number in range(cases)]
        # The regular pixels of one placement advance the watermark, so that late calls are surely too late.
        for at_ms in range(self._begin - 3 * 3600 * _S, self._end + 4 * 3600 * _S, _PULSE_MS):
            self._call(at_ms, {"event": "start", "placement_id": "pulse", "ts": at_ms})
        self._calls.sort(key=lambda call: call[:2])
        self.lines = [json.dumps(body).encode() for _, _, body in self._calls]

    def _midnight(self, day: date) -> int:
        return int(datetime(day.year, day.month, day.day, tzinfo=self._zone).timestamp() * 1000)

    def _day(self, ms: int) -> date:
        return datetime.fromtimestamp(ms / 1000, UTC).astimezone(self._zone).date()

    def _call(self, received: int, body: dict[str, Any]) -> None:
        self._play_count += 1
        self._calls.append(
            (received, self._play_count, {"event_id": f"e{self._play_count}", "received_at": received} | body)
        )

    def _case(self, number: int) -> Dispute:
        case, random = Dispute(f"place-{number}"), self._random
        if random.random() < 0.3:
            ends = sorted(random.randrange(self._begin, self._end) for _ in range(2))
            case.plan = ends[0], ends[1] + 2 * MINUTE_MS
        case.excludes = frozenset(name for name in EXCLUDABLE if random.random() < 0.08)
        fates: list[Callable[[Dispute, int], None]] = [
            self._plain, self._plain, self._plain, self._repeated, self._bot, self._marked_invalid,
            self._late, self._rejected, self._orphan, self._refused_by_door, self._ahead, self._far_ahead,
            self._behind, self._started_late, self._rejected_start, self._started_invalid, self._other_basis,
        ]  # fmt: skip
        if number % 5 == 4:
            case.metric, case.window = "deliveries", random.choice((None, "calendar"))
            fates = [
                self._plain, self._repeated, self._bot, self._marked_invalid, self._late,
                self._refused_by_door, self._same_client, self._unkeyed,
            ]  # fmt: skip
        elif random.random() < 0.5:
            case.basis = "vast_impression"
        self._plain(case, self._begin + 12 * 3600 * _S)  # so that every placement has a row
        hour = 3600 * _S
        for _ in range(random.randrange(12, 30)):
            at_ms = random.randrange(self._begin - hour, self._end + hour)
            if random.random() < 0.3:  # many calls are at the borders of the day
                at_ms = random.choice((self._begin, self._end)) + random.randrange(-300, 300) * _S
            random.choice(fates)(case, at_ms)
        if number % 2:
            case.unexplained = random.choice((-3, -2, -1, 1, 2, 3))
            case.publisher_count += case.unexplained
        for name in list(case.parts):
            if name != "outside_flight" and case.is_excluded(name):
                case.publisher_count -= case.parts[name]
        if case.publisher_count < 0:
            case.unexplained -= case.publisher_count
            case.publisher_count = 0
        return case

    # The fates of one call at the true time `at_ms`

    def _impression(self, received: int, case: Dispute, ts: int, **more: Any) -> dict[str, Any]:
        self._play_count += 1
        body = {"event": case.event, "placement_id": case.placement, "ts": ts}
        if case.event == "delivered":
            client = f"client-{self._play_count}"
            body |= {"client_id": client, "creative_id": case.placement, "consent": True}
        body |= more
        body.setdefault("play_id", f"play-{self._play_count}")
        body.setdefault("user_agent", self._random.choice(AGENTS))
        self._call(received, body)
        return body

    def _soon(self, at_ms: int) -> int:
        return at_ms + self._random.randrange(50, 20_000)

    def _count_for_publisher(self, case: Dispute, part: str, ts: int, door: bool = False) -> None:
        """Count a call for the publisher alone, on the day of its `ts`, within its flight. The flight does
        not limit calls that the collector rejects (`door`). Invalid traffic of deliveries has no reason.
        """
        if case.event == "delivered":
            part = part.partition(".")[0]
        if self._day(ts) == self.day and (door or not self._outside(case, ts)):
            case.publisher_count += 1
            case.parts[part] += 1

    def _outside(self, case: Dispute, ms: int) -> bool:
        """True if a moment is outside of the flight of whole minutes."""
        if case.plan is None:
            return False
        return not case.plan[0] // MINUTE_MS <= ms // MINUTE_MS < -(-case.plan[1] // MINUTE_MS)

    def _count_for_both(self, case: Dispute, ts: int, received: int, window_part: str = "") -> None:
        """Count a call for both sides, each on its own day. If `window_part` names a part, a window of
        clients keeps the flow from counting the call.
        """
        event = max(min(ts, received + _AHEAD_MS), received - DAY_MS)
        is_followed = abs(ts // MINUTE_MS - event // MINUTE_MS) <= DAY_MS // MINUTE_MS
        by_flow, outside = self._day(event) == self.day, self._outside(case, event)
        by_publisher = self._day(ts) == self.day and not self._outside(case, ts)
        if case.window and window_part:
            case.parts[window_part] += by_flow
        else:
            case.flow_count += by_flow
        case.publisher_count += by_publisher
        assert is_followed or not by_publisher, "a clock off by more than a day must not be on this day"
        case.parts["outside_flight"] -= by_flow and outside
        case.parts["clock_moved"] += by_publisher - (by_flow and not outside)

    def _plain(self, case: Dispute, at_ms: int) -> None:
        received = self._soon(at_ms)
        body = self._impression(received, case, at_ms)
        if client := body.get("client_id"):
            case.clients.append((client, self._day(at_ms)))
        self._count_for_both(case, at_ms, received)

    def _same_client(self, case: Dispute, at_ms: int) -> None:
        """A second delivery to a client on the same day."""
        clients = [client for client, day in case.clients if day == self._day(at_ms)]
        if clients:
            received = self._soon(at_ms)
            self._impression(received, case, at_ms, client_id=self._random.choice(clients))
            self._count_for_both(case, at_ms, received, "same_client")

    def _unkeyed(self, case: Dispute, at_ms: int) -> None:
        """A delivery to an unknown client."""
        received = self._soon(at_ms)
        self._impression(received, case, at_ms, client_id=None)
        self._count_for_both(case, at_ms, received, "unkeyed")

    def _other_basis(self, case: Dispute, at_ms: int) -> None:
        """An impression of another basis. A publisher that counts a single basis omits it."""
        received = self._soon(at_ms)
        self._impression(received, case, at_ms, basis=self._random.choice(_OTHER_BASES))
        self._count_for_both(case, at_ms, received)
        if case.basis and self._day(at_ms) == self.day and not self._outside(case, at_ms):
            case.publisher_count -= 1
            case.parts["other_basis"] -= 1

    def _repeated(self, case: Dispute, at_ms: int) -> None:
        received = self._soon(at_ms)
        body = self._impression(received, case, at_ms)
        self._count_for_both(case, at_ms, received)
        for _ in range(self._random.randrange(1, 4)):
            self._call(received + self._random.randrange(1_000, 900_000), {**body})
            self._count_for_publisher(case, "repeated", at_ms)

    def _bot(self, case: Dispute, at_ms: int) -> None:
        self._impression(self._soon(at_ms), case, at_ms, user_agent=self._random.choice(BOTS))
        self._count_for_publisher(case, "invalid_traffic.declared_bot", at_ms)

    def _marked_invalid(self, case: Dispute, at_ms: int) -> None:
        reason = self._random.choice(list(_REASONS))
        self._impression(self._soon(at_ms), case, at_ms, invalid_traffic=reason)
        self._count_for_publisher(case, f"invalid_traffic.{_REASONS[reason]}", at_ms)

    def _late(self, case: Dispute, at_ms: int) -> None:
        received = at_ms + self._random.randrange(*_LATE_MS)
        if received < self._end + 3 * 3600 * _S:  # later regular pixels must have advanced the watermark
            self._impression(received, case, at_ms)
            self._count_for_publisher(case, "too_late", at_ms)

    def _started_late(self, case: Dispute, at_ms: int) -> None:
        """A play whose start comes in time, but whose impression is too late. The part is `too_late`."""
        received = at_ms + self._random.randrange(16, 25) * MINUTE_MS
        if received < self._end + 3 * 3600 * _S:
            body = self._impression(received, case, at_ms)
            self._call(self._soon(at_ms), {**body, "event": "start"})
            self._count_for_publisher(case, "too_late", at_ms)

    def _rejected(self, case: Dispute, at_ms: int) -> None:
        field_name, wrong = self._random.choice(_WRONG)
        self._impression(self._soon(at_ms), case, at_ms, **{field_name: wrong})
        self._count_for_publisher(case, "rejected", at_ms)

    def _rejected_start(self, case: Dispute, at_ms: int) -> None:
        """A play whose impression is rejected, before or after its start. The part is `rejected`."""
        received = self._soon(at_ms)
        body = self._impression(received, case, at_ms, duration_ms="x")
        around = max(at_ms, received + self._random.randrange(-15_000, 15_000))
        self._call(around, {**body, "event": "start", "duration_ms": 30_000})
        self._count_for_publisher(case, "rejected", at_ms)

    def _started_invalid(self, case: Dispute, at_ms: int) -> None:
        """A play whose impression alone is invalid traffic, before or after its start: a stitcher in a data
        centre sent it. The impression may also be too late. The play is no orphan.
        """
        received, part = self._soon(at_ms), "invalid_traffic.data_centre"
        around = max(at_ms, received + self._random.randrange(-15_000, 15_000))
        if self._random.random() < 0.3:
            received, part = at_ms + self._random.randrange(16, 25) * MINUTE_MS, "too_late"
        if received < self._end + 3 * 3600 * _S:
            body = self._impression(received, case, at_ms, invalid_traffic="data_centre")
            self._call(around, {**body, "event": "start", "invalid_traffic": None})
            self._count_for_publisher(case, part, at_ms)

    def _orphan(self, case: Dispute, at_ms: int) -> None:
        self._play_count += 1
        body = {"placement_id": case.placement, "ts": at_ms, "play_id": f"play-{self._play_count}"}
        self._call(self._soon(at_ms), {**body, "event": "start"})
        if self._random.random() < 0.5:
            self._call(self._soon(at_ms) + 5_000, {**body, "event": "firstQuartile", "ts": at_ms + 5_000})
        self._count_for_publisher(case, "orphans", at_ms)

    def _refused_by_door(self, case: Dispute, at_ms: int) -> None:
        reason, part = self._random.choice((("unsigned", "unsigned"), ("invalid", "rejected")))
        self.refused.append(RefusedEvent(case.event, case.placement, reason, at_ms, self._soon(at_ms)))
        self._count_for_publisher(case, part, at_ms, door=True)

    def _ahead(self, case: Dispute, at_ms: int) -> None:
        """A call by a clock that is ahead by up to 20 h, and so maybe on the next day."""
        received = self._soon(at_ms)
        ts = at_ms + self._random.choice((90, 900, 7_200, 72_000)) * _S
        self._impression(received, case, ts)
        self._count_for_both(case, ts, received)

    def _far_ahead(self, case: Dispute, at_ms: int) -> None:
        received = self._soon(at_ms)
        ts = at_ms + self._random.randrange(1, 9) * 365 * DAY_MS
        self._impression(received, case, ts)
        self._count_for_both(case, ts, received)

    def _behind(self, case: Dispute, at_ms: int) -> None:
        """A call by a clock that is behind by more than a day. The call is too late; the publisher counts it
        on the day of the clock.
        """
        received = self._soon(at_ms)
        ts = at_ms - self._random.randrange(25 * 60, 45 * 60) * MINUTE_MS
        self._impression(received, case, ts)
        self._count_for_publisher(case, "too_late", ts)
