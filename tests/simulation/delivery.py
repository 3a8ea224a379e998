"""The right delivery fields of a planned placement, by chapter 2.5 of the specification. This module shares
no line with the flow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
UNDER, OVER = 0.9, 1.1
KEPT_MS = HOUR_MS
"""So far back a flight that comes, or moves, is counted anew."""
COVERED_MS, COVERED_PART = 15 * MINUTE_MS, 1000
"""A flight that began so long before all was counted, or such a part of its length, is counted whole."""
GAP = 0.01
"""The share of the elapsed flight of which nothing need be known."""
HOLD_MS = 5 * MINUTE_MS
"""So long a new condition must hold to become the state."""
LATELY_MS = HOLD_MS + 17 * MINUTE_MS
"""What is of so young minutes may have come within that time, late as pixels may be."""
STALE_MS = 120_000
"""So old delivery fields may be: all are made anew once a minute, and one flush may be missed."""


@dataclass(frozen=True)
class Planned:
    """A line of a plan's file."""

    placement: str
    booked: int
    begin_ms: int
    end_ms: int
    zone: str
    curve: str
    pauses: Sequence[tuple[int, int]]
    campaign: str | None
    before: int | None = None
    until_ms: int | None = None

    @property
    def flight(self) -> tuple[int, int]:
        """The first minute of the flight, and the one after its last, in ms."""
        return self.begin_ms // MINUTE_MS * MINUTE_MS, -(-self.end_ms // MINUTE_MS) * MINUTE_MS

    def delivers(self, minute_ms: int) -> bool:
        """Whether an impression of a minute is delivered."""
        return self.flight[0] <= minute_ms < self.flight[1]

    def forgotten(self, plans: Sequence[Planned], now_ms: int) -> bool:
        """Whether it may have come too late to be counted: its begin, or another end, is long ago."""
        ends = [plan.end_ms for plan in plans if plan.flight != self.flight]
        return min([self.begin_ms, *ends]) < now_ms - KEPT_MS

    def covered(self, since_ms: int) -> bool:
        """Whether all of it is counted where everything is since then."""
        late_ms = since_ms - self.begin_ms
        return late_ms <= max(COVERED_MS, (self.end_ms - self.begin_ms) / COVERED_PART)

    def balanced_to_ms(self, since_ms: int) -> int:
        """The moment up to which its balance is; without one nothing ran until counting began."""
        return max(self.begin_ms, since_ms) if self.until_ms is None else self.until_ms

    def gap(self, since_ms: int, now_ms: int) -> float:
        """The share of the elapsed flight of which nothing is known, where it has a balance."""
        missing = self._time(min(since_ms, now_ms)) - self._time(self.balanced_to_ms(since_ms))
        return max(0.0, missing) / max(1.0, self._time(now_ms))

    def _time(self, until_ms: int) -> float:
        """The unpaused time of the flight until then."""
        return self._sum([1.0], until_ms)

    def paused(self, now_ms: int) -> bool:
        return any(begin <= now_ms < end for begin, end in self.pauses)

    def expected(self, now_ms: int) -> float:
        """How much should be delivered by then."""
        weights = [float(part) for part in self.curve.split(";")] if ";" in self.curve else [1.0]
        share = self._sum(weights, now_ms) / self._sum(weights, self.end_ms)
        if self.curve == "frontloaded":
            share = 1.25 * share if share < 0.5 else 0.25 + 0.75 * share
        return self.booked * share

    def _sum(self, weights: Sequence[float], until_ms: int) -> float:
        """The weight of the unpaused time until then."""
        until_ms = max(self.begin_ms, min(until_ms, self.end_ms))
        hours = range(self.begin_ms // HOUR_MS * HOUR_MS, until_ms, HOUR_MS)
        edges = {self.begin_ms, until_ms, *hours, *(edge for pause in self.pauses for edge in pause)}
        some = sorted(edge for edge in edges if self.begin_ms <= edge <= until_ms)
        total = 0.0
        for begin, end in pairwise(some):
            hour = datetime.fromtimestamp(begin / 1000, ZoneInfo(self.zone)).hour
            total += 0 if self.paused(begin) else weights[hour % len(weights)] * (end - begin)
        return total


FOLLOWS = ("delivered", "indicator", "short_by", "projected", "required_rate", "at_stake", "at_stake_end")
"""What is absent where it is not known what was delivered."""
LATE = ("late_plan", "until")
"""Why it is not known, where the plan came when the minutes that would tell it were forgotten."""
At = tuple[int | None, str | None]
"""A line and a column of a file; no line: the whole file; no column: the whole line."""


class PlanFile(NamedTuple):
    """A version of the file of plans.

    Attributes:
        at_ms: when it is written, since the beginning of the history.
        text: None: the file is taken away.
        plans: by placement, that are in it.
        refused: of what the flow has to say that it is wrong.
        whole: it is read; else the version before stays in force.
        listed: by a pixel's field, the labels that its plans list.
    """

    at_ms: int
    text: bytes | None
    plans: Mapping[str, Planned]
    refused: frozenset[At] = frozenset()
    whole: bool = True
    listed: Mapping[str, frozenset[str]] = {}


def always_listed(versions: Sequence[PlanFile]) -> dict[str, frozenset[str]]:
    """By a pixel's field, the labels that are known whichever of some versions is in force."""
    some = [one.listed for one in versions if one.whole]
    return {name: frozenset.intersection(*(listed[name] for listed in some)) for name in some[0]}


def always_planned(versions: Sequence[PlanFile]) -> dict[str, str | None]:
    """The placements that have a plan whichever of some versions is in force, and its campaign."""
    some = [{name: plan.campaign for name, plan in one.plans.items()} for one in versions if one.whole]
    return dict(set.intersection(*(set(of.items()) for of in some))) if some else {}


def planned(line: Mapping[str, str]) -> Planned:
    """The plan of a line that is right."""
    return Planned(
        line["placement_id"],
        int(line["booked"]),
        _ms(line["start"]) // MINUTE_MS * MINUTE_MS,
        -(-_ms(line["end"]) // MINUTE_MS) * MINUTE_MS,
        line.get("timezone") or "UTC",
        line.get("curve") or "even",
        [(_ms(begin), _ms(end)) for begin, _, end in [line.get("pauses", "").partition("/")] if end],
        line.get("campaign_id") or None,
        int(line["delivered_before"]) if line.get("delivered_before") else None,
        _ms(line["delivered_before_until"]) if line.get("delivered_before_until") else None,
    )


def _ms(text: str) -> int:
    return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def wrong(
    row: Mapping[str, str],
    plans: Sequence[Planned],
    grace_ms: int,
    minutes_ms: Sequence[int],
    sure: bool,
    capped: bool,
    since_ms: int,
) -> Iterator[str]:
    """The wrong delivery fields of a row by one of the plans that may be in force.

    Args:
        minutes_ms: of each impression of the placement, its minute.
        sure: the row counts by the flight of its plan; else it keeps for a moment what it showed.
        capped: what counted in `other` before there was a plan may be unknown.
        since_ms: the receipt since which everything was counted.
    """
    booked = {plan.booked: plan for plan in plans}
    plan = booked.get(int(row.get("delivery.booked", -1)))
    if plan is None:
        yield f"booked {row.get('delivery.booked')}, right one of {sorted(booked)}"
        return
    if not sure:
        return
    now_ms, counted = int(row["as_of_ms"]), sum(map(plan.delivers, minutes_ms))
    from_ms = plan.begin_ms if plan.covered(since_ms) else since_ms
    if int(row["flight.counted_since_ms"]) != from_ms:
        yield f"counted since {row['flight.counted_since_ms']}, right {from_ms}"
    late = row.get("delivery.unknown_reason") in LATE and (capped or plan.forgotten(plans, now_ms))
    delivered = _delivered(plan, minutes_ms, now_ms, since_ms)
    if delivered is None or late:
        yield from _unknown(row, plan, counted, now_ms, late)
        return
    if int(row.get("delivery.delivered", -1)) != delivered:
        yield f"delivered {row.get('delivery.delivered')}, right {delivered}"
    said, state = float(row.get("delivery.expected", 0)), row["delivery.state"]
    if (
        now_ms >= plan.begin_ms
        and not plan.expected(now_ms - STALE_MS) - 1e-5 <= said <= plan.expected(now_ms) + 1e-5
    ):
        yield f"expected {said}, right {plan.expected(now_ms)}"
    yield from _money(row)
    judged = now_ms >= plan.end_ms or (from_ms + grace_ms <= now_ms and not plan.paused(now_ms))
    indicator = row.get("delivery.indicator")
    if (
        indicator is not None
        and judged
        and abs(float(indicator) - delivered / said) > 1e-4 * max(1, float(indicator))
    ):
        yield f"indicator {indicator}, right {delivered / said}"
    if (indicator is not None) != judged and not _edge(plan, now_ms, grace_ms, since_ms):
        yield f"indicator {indicator} at {now_ms}"
    moved = len({one.flight for one in plans} | {(one.booked, one.curve) for one in plans}) > 2
    changed_ms = int(row.get("delivery.plan_changed_ms", 0))
    lately = sum(1 for minute in minutes_ms if plan.delivers(minute) and minute >= now_ms - LATELY_MS)
    steady = not moved and changed_ms < now_ms - LATELY_MS
    right = _states(plan, delivered, now_ms, indicator, lately, steady)
    if state not in right and not _edge(plan, now_ms, grace_ms, since_ms):
        yield f"{state} with {delivered} of {said} expected"


def _money(row: Mapping[str, str]) -> Iterator[str]:
    """The wrong fields of the money at stake, by the row's own numbers."""
    price = float(row["delivery.cpm"]) if "delivery.currency" in row and "delivery.cpm" in row else None
    booked, projected = float(row["delivery.booked"]), row.get("delivery.projected")
    lacking = None if projected is None else max(0.0, booked - float(projected))
    short = row.get("delivery.short_by")
    for name, impressions in (("at_stake", short), ("at_stake_end", lacking)):
        known = price is not None and impressions is not None
        right = price * float(impressions or 0) / 1000 if known and price is not None else None
        said = row.get(f"delivery.{name}")
        wide = 1e-5 * max(1.0, right or 0.0)
        if (said is None) != (right is None) or abs(float(said or 0) - (right or 0)) > wide:
            yield f"{name} {said}, right {right}"


def _delivered(plan: Planned, minutes_ms: Sequence[int], now_ms: int, since_ms: int) -> int | None:
    """The delivered impressions of a flight; None if unknown."""
    counted = [minute for minute in minutes_ms if plan.delivers(minute)]
    if plan.before is None:
        return len(counted) if plan.covered(since_ms) else None
    until_ms = plan.balanced_to_ms(since_ms)
    if until_ms > max(plan.begin_ms, since_ms):
        if until_ms % MINUTE_MS or plan.begin_ms < now_ms < until_ms:
            return None
        counted = [minute for minute in counted if minute >= until_ms]
    return None if plan.gap(since_ms, now_ms) > GAP else plan.before + len(counted)


def _unknown(row: Mapping[str, str], plan: Planned, counted: int, now_ms: int, late: bool) -> Iterator[str]:
    """The wrong fields of a flight whose delivery before the count is unknown."""
    state = row["delivery.state"]
    told = [f"delivery.{name}" for name in FOLLOWS if f"delivery.{name}" in row]
    if told:
        yield f"{' '.join(told)} of a flight of which that is not known"
    right = "unknown_before"
    if now_ms < plan.begin_ms:
        right = "not_started"
    elif counted >= plan.booked and not late:
        right = "complete"
    elif now_ms >= plan.end_ms:
        right = "ended_unknown"
    elif plan.paused(now_ms):
        right = "paused"
    # The count of a late plan is unknown too, and the flight may be complete.
    perhaps = "complete" if late and counted >= plan.booked else right
    if state not in (right, perhaps) and not _edge(plan, now_ms, 0, 0):
        yield f"{state} with {counted} counted of {plan.booked}, right {right}"


def _edge(plan: Planned, now_ms: int, grace_ms: int, since_ms: int) -> bool:
    """Fields of a moment ago may be those of another phase."""
    edges = [
        plan.begin_ms,
        plan.end_ms,
        plan.begin_ms + grace_ms,
        since_ms,
        since_ms + grace_ms,
        *(edge for pause in plan.pauses for edge in pause),
    ]
    return any(edge <= now_ms < edge + STALE_MS for edge in edges)


def _states(
    plan: Planned, delivered: int, now_ms: int, indicator: str | None, lately: int, steady: bool
) -> tuple[str, ...]:
    """The states of which one is right: by each ratio that the indicator may have had for a while. The former
    state is right too if the ratio was within the band around a threshold.

    Args:
        steady: the plan was the same for all that while; else a state may be of the plan before.
    """
    if now_ms < plan.begin_ms:
        return ("not_started",)
    if delivered >= plan.booked:
        return ("complete",)
    if now_ms >= plan.end_ms:
        return ("ended_short",)
    if plan.paused(now_ms):
        return ("paused",)
    if indicator is None:
        return ("warming_up",)
    first = plan.expected(now_ms - HOLD_MS - STALE_MS)
    every = ("under", "over", "at_risk", "warming_up", "on_track")
    if first <= 0 or not steady:
        return every
    band, most, least = (
        delivered**0.5 / first,
        delivered / first,
        (delivered - lately) / plan.expected(now_ms),
    )
    if most < UNDER - band:
        return ("under", "warming_up")
    gone = {"under"} if least > UNDER + band else set()
    gone |= {"on_track"} if least > OVER + band else {"over"} if most < OVER - band else set()
    return tuple(state for state in every if state not in gone)
