"""The oracle's pacing: the impressions that are due by a plan at a moment, and the cost and return of the
delivered impressions.

The arithmetic is exact, in fractions. It does not use cumulative sums as the flow does: a curve by hours is
added up hour by hour.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from math import sqrt
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

_HOUR_MS: Final = 3_600_000
_QUARTER_MS: Final = 900_000
"""A quarter of an hour, the unit of all offsets from UTC."""
_WINDOWS: Final = 4
_PROJECTED: Final = Decimal("0.00001")
"""The greatest change of an amount by the rounding of projections, as a part of the amount and of a unit."""
STILL: Final = ("not_started", "complete", "ended_unknown", "ended_short", "paused")
UNKNOWN: Final = "unknown_before"
JUDGED: Final = ("under", "warming_up", "at_risk", "over", "on_track")
QUIET: Final = ("ended_unknown", UNKNOWN)
"""The states without an alert."""


@dataclass(frozen=True)
class Planned:
    """The fields of a plan that a recomputation needs.

    Attributes:
        start_ms: the placement's flight starts with the minute of this moment.
        currency: the currency of the placement's conversion values. If all plans of a campaign have the same
            one, it is the campaign's, too.
        campaign: the campaign, which has a row from its first plan on.
        blocked_categories: content categories in which the placement's ad must not run. `IAB26` also stands
            for `IAB26-1`.
        end_ms: impressions of minutes that begin before it are delivered; None for a plan without delivery.
        booked: impressions.
        pauses: [start, end) of each pause, epoch ms.
        curve: `even`, `frontloaded`, or 24 weights of the hours of `timezone`.
        cpm: the price of 1,000 impressions, in whole units of the currency.
        target: the target completion rate.
        labels: fields of a pixel, such as `station`, to the names that the plan lists.
        balance: impressions that were delivered before the flow counted them.
        until_ms: the moment up to which `balance` is; None for the beginning of counting.
        source: the party that states the balance.
        conversions_from: the conversions of the campaign that count; None for those of the rules.
    """

    start_ms: int = 0
    currency: str | None = None
    campaign: str | None = None
    blocked_categories: tuple[str, ...] = ()
    end_ms: int | None = None
    booked: int = 0
    pauses: tuple[tuple[int, int], ...] = ()
    curve: str | tuple[int, ...] = "even"
    timezone: str = "UTC"
    cpm: Decimal | None = None
    target: float | None = None
    labels: Mapping[str, Collection[str]] = field(default_factory=dict)
    balance: int | None = None
    until_ms: int | None = None
    source: str | None = None
    conversions_from: str | None = None


class Thresholds(NamedTuple):
    """The thresholds by which delivery is judged.

    Attributes:
        under, over: the least and the greatest indicator of a flight on track.
        grace_ms: unpaused time after the counting of a flight began in which it is not judged.
        gap: the share of the elapsed flight that may be unknown.
        hold_ms: the time for which a new condition must hold before it is the state.
    """

    under: float = 0.90
    over: float = 1.10
    grace_ms: int = _QUARTER_MS
    gap: float = 0.01
    hold_ms: int = 300_000


class IndicatorBounds(NamedTuple):
    """Bounds of delivery at the borders of the minutes for which a state must have held.

    Attributes:
        most: the greatest number of impressions that were delivered at the first border.
        due_first: impressions that were due at the first border.
        least: the least number of impressions that were delivered at the last border.
        due_last: impressions that were due at the last border.
    """

    most: int
    due_first: Fraction
    least: int
    due_last: Fraction


class RowFacts(NamedTuple):
    """Further facts on a row.

    Attributes:
        projected: impressions at the flight's end, as the row shows them.
        blocked: impressions in blocked content.
        since_hold: impressions of the flight that may have come since its state must have held; None if all
            may have.
    """

    projected: Fraction | None = None
    blocked: int = 0
    since_hold: int | None = None


class Money(NamedTuple):
    """The money of one window.

    Attributes:
        cost: the cost of the impressions; None if their number is unknown.
        counted: the cost of the impressions that the flow counted; None if their number is unknown.
        conversions: their number.
        value: the value of the conversions; None in another currency.
    """

    cost: Fraction | None
    counted: Fraction | None
    conversions: Fraction
    value: Fraction | None


class Counts(NamedTuple):
    """Impressions of a flight, and impressions after the end of its balance; None if the flow lacks them."""

    whole: int | None
    after_balance: int | None


class Stake(NamedTuple):
    """The price of the shortfall, of the shortfall projected at the end, and of blocked impressions. None is
    null.
    """

    now: Fraction | None = None
    at_end: Fraction | None = None
    blocked: Fraction | None = None


class Opening(NamedTuple):
    """The published opening balance of a flight, the time without counts (`gap_ms`), and the reason why the
    delivery is unknown.
    """

    balance: int | None = None
    until_ms: int | None = None
    source: str | None = None
    gap_ms: int | None = None
    unknown: str | None = None


class Figures(NamedTuple):
    """The delivery of a planned placement or a campaign at a moment; None is null.

    Attributes:
        states: the states that may be published.
        judged: whether a projection may be published.
        money: the money of each window; None without a price.
        least: impressions that are certainly delivered.
        counted_since_ms: the moment from which on the flight was counted.
        stake: None without a price.
    """

    booked: int
    delivered: int | None
    expected: Fraction | None
    indicator: Fraction | None
    required_rate: Fraction | None
    states: tuple[str, ...]
    judged: bool
    target: float | None
    start_ms: int
    end_ms: int
    remaining_ms: int
    cpm: Decimal | None
    currency: str | None
    money: tuple[Money, ...] | None
    least: int
    counted_since_ms: int
    opening: Opening
    short_by: Fraction | None = None
    stake: Stake | None = None
    bounds: IndicatorBounds | None = None

    @property
    def began_ms(self) -> int:
        """The earliest moment at which one of the states can have begun, epoch ms."""
        return 0 if self.states == STILL[:1] else self.start_ms


def counted_from(plan: Planned, since_ms: int) -> int:
    """The moment from which on a flight was counted (specification 11.1): its start, if counting began
    at most 15 minutes or a thousandth of the flight's length after that.
    """
    assert plan.end_ms is not None
    before = max(Fraction(_QUARTER_MS), Fraction(plan.end_ms - plan.start_ms, 1000))
    return plan.start_ms if plan.start_ms + before >= since_ms else since_ms


def balance_end_ms(plan: Planned, since_ms: int) -> int:
    """The moment at which a plan's balance ends. A balance without a moment ends where counting began."""
    return max(plan.start_ms, since_ms) if plan.until_ms is None else plan.until_ms


def opening_of(
    plan: Planned, counts: Counts, at_ms: int, since_ms: int, most_gap: float, published_gap_ms: int
) -> tuple[int | None, Opening]:
    """The delivered impressions, None if unknown, and the flight's opening.

    Args:
        most_gap: the share of the elapsed flight that may be unknown.
        published_gap_ms: the gap that the flow has published, since only the flow detects lost messages; 0
            for none.
    """
    assert plan.end_ms is not None
    unpaused = _unpaused(plan.start_ms, plan.end_ms, plan.pauses)
    gap, shown = 0, Opening(plan.balance, source=plan.source)
    if plan.balance is None:
        if counts.whole is None:
            return None, shown._replace(unknown="late_plan")
        if counted_from(plan, since_ms) != plan.start_ms:
            return None, shown._replace(unknown="no_balance")
        delivered = counts.whole
    else:
        until = balance_end_ms(plan, since_ms)
        shown = shown._replace(until_ms=until)
        counted = counts.whole
        if until > max(plan.start_ms, since_ms):
            counted = None if until % 60_000 or plan.start_ms < at_ms < until else counts.after_balance
        if counted is None:
            return None, shown._replace(unknown="until")
        delivered = plan.balance + counted
        missing = _length(_before(unpaused, min(since_ms, at_ms))) - _length(_before(unpaused, until))
        gap = max(0, missing)
    gap = max(gap, published_gap_ms)
    if gap and gap > most_gap * _length(_before(unpaused, at_ms)):
        return None, shown._replace(gap_ms=gap, unknown="gap")
    return delivered, shown._replace(gap_ms=gap)


def placement_figures(
    plan: Planned,
    counts: Counts,
    at_ms: int,
    thresholds: Thresholds,
    windows: Sequence[tuple[int, Fraction, Fraction]],
    currency: str | None,
    since_ms: int = 0,
    published_gap_ms: int = 0,
    facts: RowFacts | None = None,
) -> Figures:
    """The delivery of one placement.

    Args:
        windows: impressions, conversions and value of each window of the row.
        currency: the currency of the value.
        since_ms: the receipt from which on everything was counted.
        published_gap_ms: see `opening_of`.
        facts: further facts on the row.
    """
    assert plan.end_ms is not None
    from_ms, counted = counted_from(plan, since_ms), counts.whole
    delivered, opening = opening_of(plan, counts, at_ms, since_ms, thresholds.gap, published_gap_ms)
    money = _money(plan, windows, currency, delivered, counted)
    unpaused = _unpaused(plan.start_ms, plan.end_ms, plan.pauses)
    total_ms, elapsed_ms = _length(unpaused), _length(_before(unpaused, at_ms))
    times = (plan.start_ms, plan.end_ms, total_ms - elapsed_ms)
    least = (counted if delivered is None else delivered) or 0
    common = (plan.target, *times, plan.cpm, plan.currency, money, least, from_ms, opening)
    projected, blocked, since_hold = facts or RowFacts()
    priced = money is not None and plan.cpm is not None
    price = Fraction(plan.cpm or 0) / 1000
    stake = Stake(blocked=blocked * price if blocked else None) if priced else None
    if at_ms < plan.start_ms:
        return Figures(plan.booked, delivered, None, None, None, STILL[:1], False, *common, stake=stake)
    due = _due(plan, unpaused, at_ms)
    expected = plan.booked * due
    ended = at_ms >= plan.end_ms
    paused = not ended and not any(begin <= at_ms < end for begin, end in unpaused)
    # The rate of a plan that came late is only known since its balance.
    rated_ms = balance_end_ms(plan, since_ms) if counted is None and delivered is not None else from_ms
    young = elapsed_ms - _length(_before(unpaused, rated_ms)) < thresholds.grace_ms
    judged = delivered is not None and (ended or not (paused or young))
    indicator = Fraction(delivered) / expected if delivered is not None and judged and expected else None
    missing, left_ms = 0 if delivered is None else plan.booked - delivered, total_ms - elapsed_ms
    rate = Fraction(missing * _HOUR_MS, left_ms) if missing > 0 and left_ms > 0 else None
    first_ms = at_ms // 60_000 * 60_000 - thresholds.hold_ms
    bounds = None
    if delivered is not None and since_hold is not None:
        bounds = IndicatorBounds(
            delivered, plan.booked * _due(plan, unpaused, first_ms), delivered - since_hold, expected
        )
    is_known = delivered is not None
    states = _states(least >= plan.booked, ended, paused, is_known, indicator, thresholds, bounds)
    short = None
    if indicator is not None and delivered is not None:
        short = max(Fraction(0), expected - delivered)
    if stake is not None:
        lacking = None if projected is None or not judged else max(Fraction(0), plan.booked - projected)
        now, at_end = (None if count is None else count * price for count in (short, lacking))
        stake = stake._replace(now=now, at_end=at_end)
    return Figures(
        plan.booked,
        delivered,
        expected,
        indicator,
        rate,
        states,
        judged,
        *common,
        short_by=short,
        stake=stake,
    )


def _money(
    plan: Planned,
    windows: Sequence[tuple[int, Fraction, Fraction]],
    currency: str | None,
    delivered: int | None,
    counted: int | None,
) -> tuple[Money, ...] | None:
    """The money of each window; None without a price. A flight costs its delivered impressions."""
    if plan.cpm is None or plan.currency is None:
        return None
    price, same = Fraction(plan.cpm) / 1000, currency in (None, plan.currency)
    bought = [(impressions, impressions) for impressions, _, _ in windows[:-1]]

    def cost(impressions: int | None) -> Fraction | None:
        return None if impressions is None else impressions * price

    return tuple(
        Money(cost(whole), cost(part), conversions, value if same else None)
        for (whole, part), (_, conversions, value) in zip(
            [*bought, (delivered, counted)], windows, strict=True
        )
    )


def campaign_figures(parts: Sequence[Figures], thresholds: Thresholds) -> Figures:
    """The delivery of a campaign by its planned placements, at least one. It is unknown if the delivery of a
    placement is unknown.
    """
    booked, counts = sum(each.booked for each in parts), [each.delivered for each in parts]
    delivered = None if None in counts else sum(count or 0 for count in counts)
    priced = [part for part in parts if part.money is not None]
    currencies = {part.currency for part in priced}
    money = currency = None
    if len(currencies) == 1:
        currency = currencies.pop()
        money = tuple(
            _added(part.money[window] for part in priced if part.money is not None)
            for window in range(_WINDOWS)
        )
    times = (
        min(part.start_ms for part in parts),
        max(part.end_ms for part in parts),
        max(part.remaining_ms for part in parts),
    )
    least, since_ms = sum(part.least for part in parts), max(part.counted_since_ms for part in parts)
    balances = [part.opening.balance for part in parts if part.opening.balance is not None]
    gaps = [part.opening.gap_ms for part in parts if part.opening.gap_ms]
    opening = Opening(sum(balances) if balances else None, gap_ms=max(gaps, default=None))
    common = (None, *times, None, currency, money, least, since_ms, opening)
    short = _sum_of_known(part.short_by for part in parts)
    at_stake = [part.stake for part in priced if part.stake is not None]
    stake = Stake(*map(_sum_of_known, zip(*at_stake, strict=True))) if currency is not None else None
    if all(part.states == ("not_started",) for part in parts):
        return Figures(
            booked, delivered, None, None, None, ("not_started",), False, *common, short_by=short, stake=stake
        )
    states = {state for part in parts for state in part.states}
    ended = states <= {"complete", "ended_unknown", "ended_short"}
    paused = "paused" in states and states <= set(STILL)
    expected = sum((part.expected or Fraction(0) for part in parts), Fraction(0))
    judged = delivered is not None and not paused and any(part.indicator is not None for part in parts)
    indicator = Fraction(delivered) / expected if delivered is not None and judged and expected else None
    rates = [part.required_rate for part in parts if part.required_rate is not None]
    is_short = delivered is not None and delivered < booked
    rate = sum(rates, Fraction(0)) if rates and is_short else None
    bounds_of_parts = [part.bounds for part in parts if part.expected is not None]
    known_bounds = [each for each in bounds_of_parts if each is not None]
    bounds = None
    if len(known_bounds) == len(bounds_of_parts):
        bounds = IndicatorBounds(
            sum(each.most for each in known_bounds),
            sum((each.due_first for each in known_bounds), Fraction(0)),
            sum(each.least for each in known_bounds),
            sum((each.due_last for each in known_bounds), Fraction(0)),
        )
    possible = _states(least >= booked, ended, paused, delivered is not None, indicator, thresholds, bounds)
    return Figures(
        booked, delivered, expected, indicator, rate, possible, judged, *common, short_by=short, stake=stake
    )


def _states(
    complete: bool,
    ended: bool,
    paused: bool,
    is_known: bool,
    indicator: Fraction | None,
    thresholds: Thresholds,
    bounds: IndicatorBounds | None,
) -> tuple[str, ...]:
    """The possible states of a flight that has begun. The projection decides among them, which the oracle
    does not compute. The earlier state is possible, too, unless the indicator was on one side of a
    threshold's band all the time.
    """
    if complete:
        return ("complete",)
    if ended:
        return ("ended_short",) if is_known else ("ended_unknown",)
    if paused:
        return ("paused",)
    if not is_known:
        return (UNKNOWN,)
    if indicator is None:
        return ("warming_up",)
    if bounds is None or not bounds.due_first:
        return JUDGED
    band = sqrt(bounds.most) / float(bounds.due_first)
    least, most = float(bounds.least / bounds.due_last), float(bounds.most / bounds.due_first)
    if most < thresholds.under - band:
        return ("under",)
    impossible = {"under"} if least > thresholds.under + band else set()
    if least > thresholds.over + band:
        impossible.add("on_track")
    elif most < thresholds.over - band:
        impossible.add("over")
    return tuple(state for state in JUDGED if state not in impossible)


def _sum_of_known(amounts: Iterable[Fraction | None]) -> Fraction | None:
    """The sum of the known amounts; None without any."""
    known_amounts = [amount for amount in amounts if amount is not None]
    return sum(known_amounts, Fraction(0)) if known_amounts else None


def _added(moneys: Iterable[Money]) -> Money:
    """The sum of moneys; an amount that one of them lacks is None."""
    parts = list(moneys)
    cost, counted, value = (
        None if None in column else sum((amount or Fraction(0) for amount in column), Fraction(0))
        for column in zip(*((each.cost, each.counted, each.value) for each in parts), strict=True)
    )
    return Money(cost, counted, sum((each.conversions for each in parts), Fraction(0)), value)


def _unpaused(start_ms: int, end_ms: int, pauses: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The spans [begin, end) of a flight without its pauses, epoch ms."""
    spans = [(start_ms, end_ms)]
    for begin, end in pauses:
        spans = [
            piece
            for first, last in spans
            for piece in ((first, min(last, begin)), (max(first, end), last))
            if piece[0] < piece[1]
        ]
    return spans


def _before(spans: Iterable[tuple[int, int]], at_ms: int) -> list[tuple[int, int]]:
    """The parts of spans before a moment."""
    return [(begin, min(end, at_ms)) for begin, end in spans if begin < at_ms]


def _length(spans: Iterable[tuple[int, int]]) -> int:
    return sum(end - begin for begin, end in spans)


def _due(plan: Planned, unpaused: list[tuple[int, int]], at_ms: int) -> Fraction:
    """f(x): the part of the booking that is due at a moment."""
    if not isinstance(plan.curve, str):
        return Fraction(
            _weight(_before(unpaused, at_ms), plan.curve, plan.timezone),
            _weight(unpaused, plan.curve, plan.timezone),
        )
    x = Fraction(_length(_before(unpaused, at_ms)), _length(unpaused))
    if plan.curve == "even":
        return x
    return x * 5 / 4 if 2 * x <= 1 else (1 + 3 * x) / 4


def _weight(spans: Iterable[tuple[int, int]], weights: Sequence[int], timezone: str) -> int:
    """The ms of spans, each times the weight of its hour of day."""
    zone, weight = ZoneInfo(timezone), 0
    for begin, end in spans:
        while begin < end:
            border = min(end, (begin // _QUARTER_MS + 1) * _QUARTER_MS)
            weight += (border - begin) * weights[datetime.fromtimestamp(begin // 1000, zone).hour]
            begin = border
    return weight


def _about(amount: Fraction | None) -> tuple[Decimal, Decimal] | None:
    """Bounds of an amount that follows from published projections, which are rounded."""
    if amount is None:
        return None
    value = Decimal(amount.numerator) / amount.denominator
    return value - _PROJECTED - abs(value) * _PROJECTED, value + _PROJECTED + abs(value) * _PROJECTED


def delivery_fields(figures: Figures, windows: Sequence[str]) -> Mapping[str, Any]:
    """The expected delivery fields of a row, each a value that `flows.reconcile.values.wrong_of` takes."""
    values: dict[str, Any] = {
        "booked": figures.booked,
        "delivered": figures.delivered,
        "expected": figures.expected,
        "short_by": figures.short_by,
        "indicator": figures.indicator,
        "required_rate": figures.required_rate,
        "state": frozenset(figures.states),
        "target_completion_rate": None if figures.target is None else Fraction(str(figures.target)),
        "start_ms": figures.start_ms,
        "end_ms": figures.end_ms,
        "remaining_seconds": Fraction(figures.remaining_ms, 1000),
        "cpm": None if figures.cpm is None else Fraction(figures.cpm),
        "currency": figures.currency,
    }
    stake = Stake() if figures.stake is None else figures.stake
    values |= {"at_stake": stake.now, "at_stake_end": _about(stake.at_end), "blocked_at_stake": stake.blocked}
    balance, until_ms, source, gap_ms, unknown = figures.opening
    values |= {"delivered_before": balance, "delivered_before_until_ms": until_ms}
    values |= {"delivered_before_source": source, "gap_ms": gap_ms, "unknown_reason": unknown}
    values = {f"delivery.{name}": value for name, value in values.items()}
    values["flight.counted_since_ms"] = figures.counted_since_ms
    for place, window in enumerate(windows):
        cost = acquisition = return_on_spend = None
        if figures.money is not None:
            cost, counted, conversions, value = figures.money[place]
            acquisition = counted / conversions if counted is not None and conversions else None
            return_on_spend = value / counted if counted and value is not None else None
        values[f"{window}.cost"] = cost
        values[f"{window}.cost_per_acquisition"] = acquisition
        values[f"{window}.return_on_ad_spend"] = return_on_spend
    return values
