"""Makes opening balances of plans from a publisher's or an ad server's counts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from flows.errors import UsageError
from flows.model.plan import Plan
from flows.shown import shown
from flows.waterfall.publisher_counts import COUNTED, FLIGHT, Claim


class Balance(NamedTuple):
    """The opening balance of a placement's plan.

    Attributes:
        delivered: the impressions up to `until_ms`.
        until_ms: the end of the balance, in epoch ms.
        rows: the number of rows of the report that `delivered` sums.
        missing: the days of the flight before `until_ms` without a row in the report. They count 0.
    """

    placement_id: str
    delivered: int
    until_ms: int
    rows: int
    missing: tuple[date, ...] = ()


class Balances(NamedTuple):
    """The opening balances that a report gives.

    Attributes:
        balances: the balances by placement, of plans with rows in the report.
        without: the placements whose plans had begun, and that have no row in the report.
        unplanned: the placements of the report that have no plan.
        left_out: the number of rows that are in no balance, by reason.
    """

    balances: Mapping[str, Balance]
    without: Sequence[str]
    unplanned: Sequence[str]
    left_out: Mapping[str, int]


def balances(claims: Sequence[Claim], plans: Mapping[str, Plan], until_ms: int, zone: ZoneInfo) -> Balances:
    """The opening balances of plans that began before a moment, up to that moment or the flight's end.

    Args:
        until_ms: the moment at which the report ends, in epoch ms. Its row of that day covers the part of the
            day before the moment.
        zone: the time zone of the report's days.

    Raises:
        UsageError: a placement is counted twice or after the moment, or no row is of a plan that had begun.
    """
    left_out, unplanned = Counter[str](), set[str]()
    rows = defaultdict[str, list[Claim]](list)
    for claim in claims:
        plan = plans.get(claim.name)
        if why := _unfit(claim):
            left_out[why] += 1
        elif plan is None:
            unplanned.add(claim.name)
        elif claim.day is not None and not _inside(claim.day, plan.start_ms, _end(plan, until_ms), zone):
            left_out["of a day outside of the flight, or after the moment"] += 1
        elif plan.start_ms >= until_ms:
            left_out["of a flight that begins later"] += 1
        else:
            rows[claim.name].append(claim)
    _refuse_whole_day(claims, until_ms, zone)
    if not rows:
        raise UsageError("no row counts impressions of a placement whose plan had begun by then")
    begun = [name for name, plan in plans.items() if plan.start_ms < until_ms]
    return Balances(
        {name: _balance(plans[name], rows[name], until_ms, zone) for name in begun if name in rows},
        [name for name in begun if name not in rows],
        sorted(unplanned),
        left_out,
    )


def _unfit(claim: Claim) -> str | None:
    """The reason why a row is in no balance of any plan; empty or None if it may be in one."""
    if claim.scope != "placement":
        return "of a campaign: a balance is of a placement"
    if claim.counted != COUNTED[0]:
        return f"of {claim.counted}: a balance is of impressions"
    return claim.basis and "of one basis: a balance is of impressions of every basis"


def _balance(plan: Plan, rows: Sequence[Claim], until_ms: int, zone: ZoneInfo) -> Balance:
    name, end_ms = plan.placement_id, _end(plan, until_ms)
    days = {row.day for row in rows}
    if len(days) < len(rows):
        raise UsageError(f"{shown(name)}: the report counts a day twice: take one of the rows out")
    missing = list[date]()
    if None not in days:
        missing = [day for day in _days(plan.start_ms, end_ms, zone) if day not in days]
    elif len(rows) > 1:
        raise UsageError(f"{shown(name)}: the report counts both the {FLIGHT} and days: take one of them out")
    return Balance(name, sum(row.number for row in rows), end_ms, len(rows), tuple(missing))


def _refuse_whole_day(claims: Sequence[Claim], until_ms: int, zone: ZoneInfo) -> None:
    """Refuse a moment within a day that the report counts to its end, as later days of the report show."""
    last = _day_of(until_ms - 1, zone)
    days = {claim.day for claim in claims if claim.day is not None}
    if last in days and max(days) > last == _day_of(until_ms, zone):
        raise UsageError(
            f"the report has days after {last}, so its row of {last} counts beyond the moment: take the "
            "midnight before or after that day"
        )


def _end(plan: Plan, until_ms: int) -> int:
    return min(until_ms, plan.end_ms)


def _inside(day: date, start_ms: int, end_ms: int, zone: ZoneInfo) -> bool:
    return _day_of(start_ms, zone) <= day <= _day_of(end_ms - 1, zone)


def _days(start_ms: int, end_ms: int, zone: ZoneInfo) -> Iterator[date]:
    """The days that overlap a span of time."""
    day = _day_of(start_ms, zone)
    while _inside(day, start_ms, end_ms, zone):
        yield day
        day += timedelta(days=1)


def _day_of(ms: int, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone(zone).date()
