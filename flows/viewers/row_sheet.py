"""A whole row, for a terminal, in the sections in which the live page shows it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import tzinfo
from typing import Final

from rich.console import Group
from rich.text import Text

from flows.model.catalogue.fields import LABELS
from flows.shown import LINE, shown
from flows.viewers.columns import ends
from flows.viewers.desk import Desk, Row
from flows.viewers.silence import unit_words
from flows.viewers.words import (
    NULL,
    STATES,
    UNKNOWN_BEFORE,
    amount,
    fixed,
    left,
    moment,
    number,
    percent,
    shares,
    since,
    whole,
)

_WINDOWS: Final = ("5m", "1h", "1d", "flight")
_WINDOW_HEADS: Final = ("impressions", "starts", "completed", "reach", "frequency", "households")
_PAUSED_S: Final = 600
"""Seconds by which a flight must be paused before the sheet shows it: the plan's clock is the watermark, some
seconds behind.
"""
_FUNNEL: Final = (
    ("starts", "starts"), ("first_quartiles", "first quartile"), ("midpoints", "midpoint"),
    ("third_quartiles", "third quartile"), ("completes", "complete"),
)  # fmt: skip
_CLIENTS: Final = (("downloads", "downloads"), ("deliveries", "deliveries"))
_IAB: Final = (
    ("calendar", "day"),
    ("first_touch", "first touch"),
    ("last_touch", "last touch"),
    ("unkeyed", "no client"),
)
_INTEGRITY: Final = (
    ("repeated", "repeated"), ("too_late", "too late"), ("invalid_traffic", "invalid traffic"),
    ("orphans", "orphans"), ("repaired", "repaired"), ("blocked_impressions", "in blocked content"),
)  # fmt: skip


def sheet(row: Row, desk: Desk, zone: tzinfo | None = None, sentence: str | None = None) -> Group:
    """All sections, one text each.

    Args:
        row: the row with all its fields.
        desk: the reading, for the currency and the clock.
        zone: the zone of the reader's clock; None: this machine's.
        sentence: the sentence about the row, or None.
    """
    fields, now_ms = row.fields, desk.now_ms
    labels = " · ".join(shown(fields[label]) for label in LABELS if label in fields)
    delivery_words = _since(row.delivery_state, row.get("delivery.since_ms"), now_ms, zone)
    state_words = delivery_words
    if row.state == "unjudged":
        began = since(row.get("delivery.unjudged_since_ms"), now_ms, zone)
        state_words = row.words if began == NULL else f"{row.words} since {began}"
    lines = [Text.assemble((shown(row.id), "bold"), f"  {state_words}")]
    lines += [Text(shown(sentence, LINE))] if sentence else []
    lines += [Text(labels, "dim")] if labels else []
    if row.state == "unjudged":
        unit = fields.get("delivery.unjudged_by")
        silent = f"{unit_words(unit)} is silent. " if unit else ""
        lines.append(Text(f"{silent}Its delivery state stands still: {delivery_words}"))
    lines += [
        Text(STATES[row.state][1], "dim"),
        *_section("Pacing", _pacing(row, desk, zone)),
        Text("\nWindows", "bold"),
    ]
    lines += [Text(_table("", _WINDOW_HEADS), "dim"), *(Text(_window(row, window)) for window in _WINDOWS)]
    lines += _section("Basis and deliveries of the flight", _sent(row))
    if by_client := _by_client(row):
        lines += [Text("\nBy client, by the windows of the IAB; final minutes alone", "bold")]
        lines += [Text(_table("", [title for _, title in _IAB]), "dim"), *by_client]
    lines += _section("Quartiles of the flight", _funnel(row))
    lines += _section("Conversions of the flight", _conversions(row))
    counts = ((title, whole(row.get(f"flight.{name}"))) for name, title in _INTEGRITY)
    finals = moment(row.get("final_through_ms"), now_ms, zone), since(row.get("as_of_ms"), now_ms, zone)
    lines += _section("Integrity", [*counts, ("final through", finals[0]), ("as of", finals[1])])
    return Group(*lines)


def _since(state: str, since_ms: float, now_ms: float, zone: tzinfo | None) -> str:
    began = since(since_ms, now_ms, zone)
    return STATES[state][0] if began == NULL else f"{STATES[state][0]} since {began}"


def _section(title: str, facts: Iterable[tuple[str, str]]) -> list[Text]:
    return [Text(f"\n{title}", "bold"), *(Text(f"  {name:<22}{value}") for name, value in facts)]


def _pacing(row: Row, desk: Desk, zone: tzinfo | None) -> list[tuple[str, str]]:
    if "delivery.booked" not in row.fields:
        return [("no plan", "no plan has a booking for it")]
    currency = shown(row.fields.get("delivery.currency", ""))
    booked, needed = row.get("delivery.booked"), row.get("delivery.required_rate")
    end, unpaused_left = row.get("delivery.end_ms"), row.get("delivery.remaining_seconds")
    when = f"{moment(end, desk.now_ms, zone)}, {ends(row, desk)}" if math.isfinite(end) else NULL
    if math.isfinite(end) and end > desk.now_ms:
        paused = (end - desk.now_ms) / 1000 - unpaused_left
        when += f" left, {left(unpaused_left)} of it not paused" if paused > _PAUSED_S else " left"

    def money(value: float) -> str:
        amount_text = amount(value)
        return amount_text if amount_text == NULL else f"{currency} {amount_text}".strip()

    return [
        ("pacing", f"{percent(row.get('delivery.indicator'))} of what is due"),
        (
            "delivered",
            f"{whole(row.delivered)} of {whole(booked)} booked, {whole(row.get('delivery.expected'))} due",
        ),
        ("short by", f"{whole(row.short)} impressions, {money(row.stake)} at stake"),
        ("last hour", f"{whole(row.get('1h.impressions'))} impressions, {whole(needed)} an hour needed"),
        (
            "projected",
            f"{whole(row.get('delivery.projected'))} impressions at the end, {money(row.stake_end)} at "
            "stake then",
        ),
        ("ends", when),
        ("cost", f"{money(row.get('flight.cost'))}, at {money(row.get('delivery.cpm'))} a thousand"),
        ("completion target", percent(row.get("delivery.target_completion_rate"))),
        *_coverage(row, desk, zone),
    ]


def _coverage(row: Row, desk: Desk, zone: tzinfo | None) -> list[tuple[str, str]]:
    """The facts of a flight that is counted in part: since when, its opening balance, the gap, and the reason
    why the delivery is unknown. None of a flight that is counted whole.
    """
    counted, balance = row.get("flight.counted_since_ms"), row.get("delivery.delivered_before")
    reason, gap = row.fields.get("delivery.unknown_reason"), row.get("delivery.gap_ms")
    if not counted > row.get("delivery.start_ms") and reason is None and not math.isfinite(balance):
        return []
    facts = [("counted since", since(counted, desk.now_ms, zone))]
    if math.isfinite(balance):
        until = moment(row.get("delivery.delivered_before_until_ms"), desk.now_ms, zone)
        source = shown(row.fields.get("delivery.delivered_before_source", ""))
        words = [
            f"{whole(balance)} impressions",
            f"before {until}" if until != NULL else "",
            source and f"by {source}",
        ]
        facts.append(("delivered before", ", ".join(filter(None, words))))
    if gap > 0:
        facts.append(("not counted", f"{left(gap / 1000)} of the flight"))
    if reason is not None:
        facts.append(("unknown", UNKNOWN_BEFORE.get(reason, shown(reason))))
    return facts


def _table(name: str, texts: Iterable[str]) -> str:
    """A line of a table: a name, and cells flush right."""
    return f"  {name:<20}" + "".join(f"{text:>14}" for text in texts)


def _window(row: Row, window: str) -> str:
    rate = "mature_completion_rate" if window in ("5m", "1h") else "completion_rate"
    texts = [whole(row.get(f"{window}.impressions")), whole(row.get(f"{window}.starts"))]
    texts += [percent(row.get(f"{window}.{rate}")), whole(row.get(f"{window}.reach"))]
    texts += [fixed(row.get(f"{window}.frequency")), whole(row.get(f"{window}.household_reach"))]
    return _table(window, texts)


def _sent(row: Row) -> list[tuple[str, str]]:
    prefix = "flight.impressions_"
    by_basis = sorted((name, row.get(name)) for name in row.fields if name.startswith(prefix))
    return [
        ("basis", shown(row.fields.get("impression_basis", NULL))),
        *((shown(name.removeprefix(prefix)), whole(count)) for name, count in by_basis if count > 0),
        ("deliveries", whole(row.get("flight.deliveries"))),
        ("play-through", percent(row.get("flight.play_through"))),
    ]


def _by_client(row: Row) -> list[Text]:
    """Lines of the counts once a client, of today and of the flight; none for a row without such counts."""
    lines = []
    for kind, title in _CLIENTS:
        for window, when in (("1d", "today"), ("flight", "flight")):
            counts = [row.get(f"{window}.{kind}_{name}") for name, _ in _IAB]
            if any(count > 0 for count in counts):
                lines.append(Text(_table(f"{title}, {when}", map(whole, counts))))
    return lines


def _funnel(row: Row) -> list[tuple[str, str]]:
    starts = row.get("flight.starts")
    milestones = ((title, row.get(f"flight.{name}")) for name, title in _FUNNEL)
    return [
        (title, f"{whole(value)}  {percent(value / starts if starts else math.nan)}")
        for title, value in milestones
    ]


def _conversions(row: Row) -> list[tuple[str, str]]:
    fields = row.fields
    currency = shown(fields.get("conversion_currency", fields.get("delivery.currency", "")))
    values = [number(fields.get(f"flight.conversion_{name}")) / 1e6 for name in ("value", "value_claimed")]
    value, claimed = (
        f"{currency} {amount(money)}".strip() if math.isfinite(money) else NULL for money in values
    )
    return [
        ("conversions", shares(row.get("flight.conversions"))),
        ("of them by household", shares(row.get("flight.conversions_by_household"))),
        ("claimed by tags", shares(row.get("flight.conversions_claimed"))),
        ("confirmed by servers", shares(row.get("flight.conversions_confirmed"))),
        ("value", value),
        ("claimed value", claimed),
        ("cost per conversion", amount(row.get("flight.cost_per_acquisition"))),
        ("return on ad spend", fixed(row.get("flight.return_on_ad_spend"))),
        ("conversions by reach", percent(row.get("flight.conversion_rate"))),
    ]
