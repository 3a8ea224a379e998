"""Finds the causes of a row's state, the likeliest first. Each cause is a rule over published rows, and has
its evidence in words. A rule without evidence names no cause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, tzinfo
from math import sqrt
from typing import Final, NamedTuple

from flows.sentence.number_words import Row, clock, fell, name_of, number, percent, whole

NOTHING: Final[Row] = {}
PLAN_MS: Final = 2 * 3_600_000
"""The time before a placement's change of state in which a change of its plan may be the cause."""
RUNNING: Final = frozenset(("on_track", "over", "under", "at_risk"))
WHY: Final = {
    "starting": "the flow is starting",
    "collector": "a collector still holds pixels",
    "stalled": "the numbers stand still",
    "lagging": "the flow is catching up",
    "rejecting": "too many pixels are rejected",
    "down": "the flow writes nothing",
    "redis": "Redis does not answer",
}
_FEW: Final = 50
"""The number of plays or pixels below which a share proves little."""


class Tag(NamedTuple):
    """The tag of a placement with a fault.

    Args:
        fires: the number of its calls since it was built.
        unreplaced: the number of calls with an unreplaced macro.
    """

    fires: int
    unreplaced: int


class Context(NamedTuple):
    """The rows around a row, and facts about the reader.

    Args:
        now_ms: the wall clock, in epoch ms.
        zone: the reader's time zone.
        siblings: the rows of the campaign's other placements, by name.
        campaign: the campaign's row.
        station, platform: the rows of the placement's station and platform.
        tag: the placement's tag, if it has a fault.
        unjudged: the reason why the flow judges nothing, and since when (epoch ms); None if it judges.
    """

    now_ms: float = 0.0
    zone: tzinfo = UTC
    siblings: Mapping[str, Row] = {}
    campaign: Row = NOTHING
    station: Row = NOTHING
    platform: Row = NOTHING
    tag: Tag | None = None
    unjudged: tuple[str, float] | None = None


class Cause(NamedTuple):
    """A cause: its name, and the sentence with its evidence."""

    name: str
    evidence: str


Rule = Callable[[Row, Context], str | None]
"""The evidence of a cause, or None."""


def feed_silent(row: Row, context: Context) -> str | None:
    """A unit of the feed on which the placement depends is silent."""
    if row.get("delivery.judged") != "0" or row.get("delivery.unjudged_reason") != "feed_silent":
        return None
    kind, _, unit = row.get("delivery.unjudged_by", "").partition(":")
    unit_text = f"the {name_of(kind)} {name_of(unit)}" if unit else "its feed"
    since = clock(number(row, "delivery.unjudged_since_ms"), context.now_ms, context.zone)
    return f"No pixel of {unit_text} has arrived{f' since {since}' if since else ''}: leave bids as they are."


def not_judged(row: Row, context: Context) -> str | None:
    """The flow judges no delivery."""
    if context.unjudged is None:
        return None
    why, since_ms = context.unjudged
    since = clock(since_ms, context.now_ms, context.zone)
    reason = WHY.get(why, "the flow does not judge")
    return f"Do not act on it{f' since {since}' if since else ''}: {reason}."


def plan_changed(row: Row, context: Context) -> str | None:
    """The plan changed shortly before the state did."""
    changed_ms, since_ms = number(row, "delivery.plan_changed_ms"), number(row, "delivery.since_ms")
    if not since_ms - PLAN_MS <= changed_ms <= since_ms + 60_000:
        return None
    changed_at = clock(changed_ms, context.now_ms, context.zone)
    before, booked = number(row, "delivery.booked_before"), number(row, "delivery.booked")
    if before >= 0 and booked >= 0:
        return f"Its plan changed at {changed_at}: {whole(booked)} booked, before {whole(before)}."
    return f"Its flight was moved at {changed_at}."


def tag_wrong(row: Row, context: Context) -> str | None:
    """The tag has never fired, or its calls have unreplaced macros."""
    if context.tag is None:
        return None
    fires, unreplaced = context.tag
    if not fires:
        return "Its tag has never fired: look at the tag in the ad server."
    return f"{whole(unreplaced)} of {whole(fires)} calls of its tag have an unreplaced macro."


def consent_fell(row: Row, context: Context) -> str | None:
    """A far smaller share of its pixels has consent than of its campaign's."""
    share, usual = number(row, "flight.consent_coverage"), number(context.campaign, "flight.consent_coverage")
    if not (number(row, "flight.pixels") >= _FEW and usual >= 0.2 and share < usual / 2):
        return None
    return f"Only {percent(share)} of its pixels have consent, {percent(usual)} of its campaign's."


def invalid_traffic_rose(row: Row, context: Context) -> str | None:
    """A far greater share of its pixels is invalid traffic than of its campaign's."""
    share, usual = _invalid(row), _invalid(context.campaign)
    if not share > max(0.1, 2 * usual):
        return None
    return f"{percent(share)} of its pixels are invalid traffic, {percent(usual)} of its campaign's."


def completion_fell(row: Row, context: Context) -> str | None:
    """The completion rate of the last hour is below the flight's, by more than chance explains."""
    recent, usual = number(row, "1h.mature_completion_rate"), number(row, "flight.completion_rate")
    starts = number(row, "1h.starts")
    if not (starts >= _FEW and usual - recent > max(0.1, 5 * sqrt(0.25 / starts))):
        return None
    return f"{percent(recent)} are heard to the end in the last hour, {percent(usual)} in the flight."


def one_label_fell(row: Row, context: Context) -> str | None:
    """Its station or platform as a whole had under half of the last hour's rate in the last 5 minutes."""
    for scope, scope_row in (("station", context.station), ("platform", context.platform)):
        recent, hour = 12 * number(scope_row, "5m.impressions"), number(scope_row, "1h.impressions")
        if hour >= 12 * _FEW and recent < hour / 2:
            name = name_of(row.get(scope, ""))
            return (
                f"The {scope} {name} as a whole fell to {whole(recent)} an hour, "
                f"of {whole(hour)} in the last."
            )
    return None


def campaign_fell(row: Row, context: Context) -> str | None:
    """All running placements of the campaign fell."""
    running = _running(context)
    if not fell(row) or not running or not all(map(fell, running)):
        return None
    campaign = name_of(row.get("campaign_id", "its campaign"))
    return f"All {len(running) + 1} placements of {campaign} that run fell: look at the campaign's budget."


def only_this_fell(row: Row, context: Context) -> str | None:
    """This placement fell, and no other running placement of the campaign did."""
    running = _running(context)
    if not fell(row) or not running or any(map(fell, running)):
        return None
    campaign = name_of(row.get("campaign_id", "its campaign"))
    return f"Other placements of {campaign} run, so look at this ad's tag or budget."


RULES: Final[Mapping[str, Rule]] = {
    "feed_silent": feed_silent,
    "not_judged": not_judged,
    "plan_changed": plan_changed,
    "tag": tag_wrong,
    "consent": consent_fell,
    "invalid_traffic": invalid_traffic_rose,
    "completion": completion_fell,
    "label": one_label_fell,
    "campaign": campaign_fell,
    "only_this": only_this_fell,
}
"""The rules, in the order in which they are tried."""


def causes(row: Row, context: Context) -> Iterator[Cause]:
    """The causes for which there is evidence, the likeliest first."""
    for name, rule in RULES.items():
        if (evidence := rule(row, context)) is not None:
            yield Cause(name, evidence)


def cause(row: Row, context: Context) -> Cause | None:
    """The likeliest cause; None if no rule has evidence."""
    return next(causes(row, context), None)


def _running(context: Context) -> list[Row]:
    return [row for row in context.siblings.values() if row.get("delivery.state") in RUNNING]


def _invalid(row: Row) -> float:
    invalid, valid = number(row, "flight.invalid_traffic"), number(row, "flight.pixels")
    return invalid / (invalid + valid) if invalid + valid >= _FEW else 0.0
