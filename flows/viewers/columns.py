"""Columns of `audiopixel top`: those of the live page (`static/columns.js`) except its curve, which needs a
history.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from flows.shown import shown
from flows.viewers.desk import CURRENCY, Desk, Row
from flows.viewers.feed import FIELDS as SHOWN
from flows.viewers.words import (
    NULL,
    STATES,
    amount,
    fixed,
    left,
    percent,
    shares,
    span,
    whole,
)

_LONGEST_NAME: Final = 28


class Column(NamedTuple):
    """A column of the table.

    Attributes:
        key: a short name.
        title: its heading.
        unit: below it; `money` stands for the plans' currency.
        means: for people, in a sentence.
        rank: where the terminal is narrow, the greatest goes first.
        value: what it sorts by, a number or a text.
        text: its cell.
        left: whether it is set flush left.
        down: whether its order begins with the greatest.
    """

    key: str
    title: str
    unit: str
    means: str
    rank: float
    value: Callable[[Row], float | str]
    text: Callable[[Row, Desk], str]
    left: bool = False
    down: bool = True

    def heading(self, desk: Desk) -> tuple[str, str]:
        """The two lines of its heading."""
        return self.title, (desk.currency or "") if self.unit == "money" else self.unit


def name_of(text: str) -> str:
    """A name of at most 28 cells, without characters that a terminal obeys."""
    if len(text) <= _LONGEST_NAME and text.isascii() and text.isprintable():
        return text  # nearly all are, and ten thousand are shown at once
    return shown(text, _LONGEST_NAME)


def _count(key: str, title: str, unit: str, means: str, rank: float, value: Callable[[Row], float]) -> Column:
    return Column(key, title, unit, means, rank, value, lambda row, _: whole(value(row)))


def _share(key: str, title: str, means: str, rank: float, name: str, down: bool = True) -> Column:
    return Column(
        key,
        title,
        "%",
        means,
        rank,
        lambda row: row.get(name),
        lambda row, _: percent(row.get(name)),
        down=down,
    )


def _money(key: str, title: str, means: str, rank: float, value: Callable[[Row], float]) -> Column:
    def text(row: Row, desk: Desk) -> str:
        own = row.fields.get("delivery.currency")
        said = amount(value(row))
        return said if desk.currency or not own or said == NULL else f"{shown(own, CURRENCY)} {said}"

    return Column(key, title, "money", means, rank, value, text)


def _lack(column: Column) -> Column:
    """A column of what is missing or wrong; its cell is empty if nothing is."""

    def text(row: Row, desk: Desk) -> str:
        return "" if column.value(row) == 0 else column.text(row, desk)

    return column._replace(text=text)


def _label(key: str, title: str, means: str, rank: float, name: str) -> Column:
    return Column(
        key, title, "", means, rank,
        lambda row: row.fields.get(name, ""), lambda row, _: name_of(row.fields.get(name, NULL)),
        left=True, down=False,
    )  # fmt: skip


def _field(name: str) -> Callable[[Row], float]:
    return lambda row: row.get(name)


def _state(row: Row, _: Desk) -> str:
    return f"⊘ blocked {whole(row.blocked)}, {row.words}" if row.blocked else row.words


def ends(row: Row, desk: Desk) -> str:
    """Time until the flight's end, by the clock: `2 d 8 h`, `begins 3 h 5 min`, `5 h ago`."""
    start, end = row.get("delivery.start_ms"), row.get("delivery.end_ms")
    if math.isnan(end):
        return NULL
    if desk.now_ms < start:
        return f"begins {left((start - desk.now_ms) / 1000)}"
    return (
        left((end - desk.now_ms) / 1000) if end > desk.now_ms else f"{span((desk.now_ms - end) / 1000)} ago"
    )


def _booked(row: Row) -> float:
    booked = row.get("delivery.booked")
    return row.get("delivery.delivered") / booked if booked > 0 else math.nan


def _by_client() -> Iterable[tuple[str, str, str, str]]:
    """Counts of clients by the windows of the IAB: what, the window, a word for it, and what it means."""
    for what, key in (("downloads", "client and episode"), ("deliveries", "client and ad")):
        of, end = f"{what.capitalize()} of the flight", "final minutes alone."
        yield what, "calendar", "day", f"{of}, one a {key} a calendar day; {end}"
        yield what, "first_touch", "first", f"{of}, one a {key} in the 24 h from the first on; {end}"
        means = f"{of} that none of the same {key} comes before within 24 h; {end}"
        yield what, "last_touch", "last", means


_BY_CLIENT: Final = tuple(_by_client())
SEVERITY: Final = {state: rank for rank, state in enumerate(STATES)}
COLUMNS: Final = (
    Column(
        "state",
        "state",
        "",
        "The delivery state (below), behind the impressions in content that the plan blocks.",
        0,
        lambda row: SEVERITY[row.state],
        _state,
        left=True,
        down=False,
    ),
    Column(
        "id",
        "placement",
        "",
        "The placement's, campaign's, creative's or app's id.",
        0,
        lambda row: row.id,
        lambda row, _: name_of(row.id),
        left=True,
        down=False,
    ),
    _label("campaign", "campaign", "The campaign that the placement belongs to.", 3.5, "campaign_id"),
    _lack(
        _money(
            "stake",
            "at stake",
            "Short by, at the plan's price per thousand impressions (CPM); of a campaign its placements' "
            "sum.",
            1,
            lambda row: row.stake,
        )
    ),
    _lack(
        _money(
            "stake_end",
            "by the end",
            "What is projected to lack of the booking at the flight's end, at the plan's price (CPM).",
            2,
            lambda row: row.stake_end,
        )
    ),
    _share(
        "pacing",
        "pacing",
        "Delivered impressions as a share of those due by now: 100 % is on plan.",
        1.5,
        "delivery.indicator",
        down=False,
    ),
    _lack(
        _count(
            "short",
            "short by",
            "impressions",
            "Impressions that are due and not delivered. Sums add what is short; what is "
            "ahead elsewhere does not offset it.",
            4,
            lambda row: row.short,
        )
    ),
    Column(
        "ends",
        "ends in",
        "",
        "Time until the flight's end, by the clock.",
        3,
        _field("delivery.end_ms"),
        ends,
        down=False,
    ),
    _count(
        "delivered",
        "delivered",
        "impressions",
        "Impressions of the flight up to its end; without a plan, all.",
        5,
        lambda row: row.delivered,
    ),
    _count(
        "booked", "booked", "impressions", "Impressions that the plan books.", 6, _field("delivery.booked")
    ),
    Column(
        "progress",
        "of booked",
        "%",
        "Delivered, of what is booked.",
        9,
        _booked,
        lambda row, _: percent(_booked(row)),
    ),
    _count(
        "hour", "last hour", "impressions/hour", "Impressions of the last hour.", 8, _field("1h.impressions")
    ),
    _count(
        "needed",
        "needed",
        "impressions/hour",
        "Impressions needed in each remaining hour that is not paused.",
        7,
        _field("delivery.required_rate"),
    ),
    _count(
        "projected",
        "projected",
        "impressions",
        "Impressions at the flight's end if delivery goes on as in the last hour.",
        17,
        _field("delivery.projected"),
    ),
    _money(
        "cost",
        "cost",
        "Delivered, at the plan's price per thousand impressions (CPM).",
        11,
        _field("flight.cost"),
    ),
    _share(
        "completion",
        "completed",
        "Share of the plays started in the last hour that were completed, once they have had time to end.",
        12,
        "1h.mature_completion_rate",
    ),
    _count(
        "reach",
        "reach",
        "listeners",
        "Listeners with consent, each counted once in the flight.",
        13,
        _field("flight.reach"),
    ),
    Column(
        "frequency",
        "frequency",
        "plays/listener",
        "Plays by each of these listeners, on average.",
        14,
        _field("flight.frequency"),
        lambda row, _: fixed(row.get("flight.frequency")),
    ),
    Column(
        "conversions",
        "conversions",
        "",
        "Conversions credited in the flight.",
        15,
        _field("flight.conversions"),
        lambda row, _: shares(row.get("flight.conversions")),
    ),
    _money(
        "cpa",
        "cost per conversion",
        "Cost divided by conversions.",
        16,
        _field("flight.cost_per_acquisition"),
    ),
    _lack(
        _count(
            "blocked",
            "blocked",
            "impressions",
            "Impressions in content that the plan blocks.",
            20,
            _field("flight.blocked_impressions"),
        )
    ),
    _money(
        "unpaid",
        "blocked, money",
        "Impressions in blocked content, at the plan's price per thousand (CPM). They will not be paid.",
        20.5,
        _field("delivery.blocked_at_stake"),
    ),
    _label("platform", "platform", "The platform of the latest pixel.", 18, "platform"),
    _label("station", "station", "The station of the latest pixel.", 19, "station"),
    _label("basis", "basis", "What kind of impressions these are.", 21, "impression_basis"),
    _count(
        "deliveries",
        "deliveries",
        "",
        "Deliveries that a host reports, in the flight. They are no impressions.",
        22,
        _field("flight.deliveries"),
    ),
    _share(
        "through",
        "play-through",
        "Plays that a device itself has begun, as a share of the deliveries of the flight.",
        23,
        "flight.play_through",
    ),
    _count(
        "households",
        "households",
        "households",
        "Households with consent, each counted once in the flight.",
        24,
        _field("flight.household_reach"),
    ),
    Column(
        "by_household",
        "by household",
        "conversions",
        "Conversions of the flight that a touch of their household joins, for their own listener has none.",
        25,
        _field("flight.conversions_by_household"),
        lambda row, _: shares(row.get("flight.conversions_by_household")),
    ),
    *(
        _count(
            f"{what}_{window}", f"{what}, {short}", what, means, 26 + rank, _field(f"flight.{what}_{window}")
        )
        for rank, (what, window, short, means) in enumerate(_BY_CLIENT)
    ),
)
BY_KEY: Final = {column.key: column for column in COLUMNS}
FIELDS: Final = (*SHOWN, "final_through_ms")
"""The fields of a row that the table shows."""
