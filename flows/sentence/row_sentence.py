"""Writes the sentence: what happens, since when, what it costs by the end, and the likeliest cause."""

from __future__ import annotations

from typing import Final

from flows.sentence.causes import Context, cause
from flows.sentence.number_words import Row, clock, money, name_of, number, percent, whole

MOST: Final = 280
"""The greatest length of a sentence, in characters."""
TROUBLED: Final = frozenset(("under", "at_risk"))
ALWAYS: Final = frozenset(("feed_silent", "not_judged"))
"""Causes that are named in any state."""
_HARDLY: Final = 0.1
"""The share of the needed impressions below which a placement hardly runs."""
_YOUNG_MS: Final = 30 * 60_000
"""The longest time from a flight's start to its first state: 15 minutes of grace, the time for which states
hold still, and a margin.
"""
_CALM: Final = {
    "on_track": "On track",
    "over": "Over its plan",
    "warming_up": "Too young to judge",
    "paused": "Paused by its plan",
    "not_started": "Not started",
    "complete": "Complete",
    "ended_short": "Ended short",
    "ended_unknown": "Ended, and what ran before counting began is unknown",
    "unknown_before": "What ran before counting began is unknown",
}


def sentence(row: Row, context: Context) -> str:
    """The sentence about a row. Without a plan it has the counts alone.

    Args:
        row: the row of a placement or campaign.

    Returns:
        Plain text of at most `MOST` characters. Money comes before the cause. A part that does not fit is
        left out.
    """
    # As `shown_state` of the viewers: what does not say that it is judged is not.
    if "delivery.state" in row and row.get("delivery.judged") != "1":
        parts = [_blocked_part(row), _unjudged_part(row, context)]
    else:
        parts = [
            _blocked_part(row),
            *(part(row, context) for part in (_state_part, _money_part, _cause_part)),
        ]
    text = ""
    for part in filter(None, parts):
        longer = f"{text} {part}".strip()
        text = longer if len(longer) <= MOST else text
    return text[:MOST]


def _blocked_part(row: Row) -> str:
    hits, lost = number(row, "flight.blocked_impressions"), number(row, "delivery.blocked_at_stake")
    if not hits > 0:
        return ""
    paid = f", {money(row, lost)} that will not be paid" if lost > 0 else ""
    return f"Stop it: {whole(hits)} impressions ran in blocked content{paid}."


def _state_part(row: Row, context: Context) -> str:
    state, delivered = row.get("delivery.state"), number(row, "delivery.delivered")
    if state is None:
        impressions = number(row, "flight.impressions")
        return f"{whole(impressions)} impressions, without a plan." if impressions >= 0 else "Without a plan."
    since = clock(number(row, "delivery.since_ms"), context.now_ms, context.zone)
    if state in TROUBLED:
        return _slow_part(row, state, since, context)
    booked, pacing = number(row, "delivery.booked"), number(row, "delivery.indicator")
    words = _CALM.get(state, name_of(state).replace("_", " "))
    if state == "not_started":
        start = clock(number(row, "delivery.start_ms"), context.now_ms, context.zone)
        return f"{words}: it begins {start}." if start else f"{words}."
    if state in ("on_track", "over") and pacing >= 0:
        beyond = " What goes beyond the booking is not paid for." if state == "over" else ""
        return f"{words}: {percent(pacing)} of what is due.{beyond}"
    if delivered >= 0 and booked > 0:
        return f"{words}: {whole(delivered)} of {whole(booked)} impressions."
    return f"{words}."


def _unjudged_part(row: Row, context: Context) -> str:
    """The reason why a row is not judged. It replaces rates and money, which allow no action then."""
    first_cause, evidence = cause(row, context), "Leave bids as they are."
    if first_cause is not None and first_cause.name in ALWAYS:
        evidence = first_cause.evidence
    state = name_of(row.get("delivery.state", "")).replace("_", " ")
    return f"Not judged{f', {state} until then' if state else ''}. {evidence}"


def _since_its_start(row: Row) -> float:
    """The flight's start in epoch ms, if the row shows that it has hardly run since then; else 0.

    Three facts show it: delivered is a small share of due, the state began as soon as the flight was old
    enough to be judged, and the flow counts since the start. A later flow lacks earlier impressions.
    """
    start, counted = number(row, "delivery.start_ms"), number(row, "flight.counted_since_ms")
    judged_after_ms = number(row, "delivery.since_ms") - start
    shown = number(row, "delivery.indicator") < _HARDLY and counted <= start and judged_after_ms <= _YOUNG_MS
    return start if shown else 0.0


def _slow_part(row: Row, state: str, since: str, context: Context) -> str:
    came, needed = number(row, "1h.impressions"), number(row, "delivery.required_rate")
    begun = f", {'since' if state == 'under' else 'at risk since'} {since}" if since else ""
    if came >= 0 and needed >= 1:
        share = came / needed
        words = "Stopped" if not came else "Nearly stopped" if share < _HARDLY else "Too slow"
        if state == "under" and share < _HARDLY and (start := _since_its_start(row)):
            ran = "Has hardly run" if number(row, "delivery.delivered") > 0 else "Has not run"
            start_text = clock(start, context.now_ms, context.zone)
            return f"{ran} since its start ({start_text}): {whole(came)} an hour of {whole(needed)} needed."
        if share < 1:
            return f"{words}: {whole(came)} an hour of {whole(needed)} needed{begun}."
        return f"Behind, and catching up: {whole(came)} an hour of {whole(needed)} needed{begun}."
    pacing = number(row, "delivery.indicator")
    return f"Behind: {percent(pacing)} of what is due{begun}." if pacing >= 0 else "Behind."


def _money_part(row: Row, context: Context) -> str:
    now, end = number(row, "delivery.at_stake"), number(row, "delivery.at_stake_end")
    if row.get("delivery.state") == "ended_short":
        return f"{money(row, now)} of the booking were not delivered." if now > 0 else ""
    by = clock(number(row, "delivery.end_ms"), context.now_ms, context.zone)
    amounts = [f"{money(row, now)} short now"] if now >= 0.005 else []
    amounts += [f"{money(row, end)} by {by}"] if end >= 0.005 and by else []
    return f"{', '.join(amounts)}." if amounts else ""


def _cause_part(row: Row, context: Context) -> str:
    first_cause = cause(row, context)
    if first_cause is None:
        return ""
    troubled = row.get("delivery.state") in TROUBLED
    return first_cause.evidence if troubled or first_cause.name in ALWAYS else ""
