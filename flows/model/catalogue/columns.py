"""The columns of tables of rows, each declared once, for the live page, its CSV, and `audiopixel top`."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple


class Form(StrEnum):
    """The forms of cells. The page and `top` each have one function for a form."""

    COUNT = "count"
    """A whole number."""
    PARTS = "parts"
    """A count that may hold shares of a conversion."""
    NUMBER = "number"
    """A number with two places."""
    SHARE = "share"
    """A ratio, shown in percent."""
    MONEY = "money"
    """An amount of the plan's currency."""
    LABEL = "label"
    """A text."""
    STATE = "state"
    NAME = "name"
    """The id of the row."""
    TIME = "time"
    """A moment, shown as the time until then."""
    BAR = "bar"
    """A quotient of the first two fields, which the page draws with the third."""
    CURVE = "curve"
    """The growth of a field, which the page alone draws."""


WORDS: Final = (Form.STATE, Form.NAME, Form.LABEL)
"""Forms of words."""
_UNITS: Final = {Form.SHARE: "%", Form.BAR: "%", Form.MONEY: "money"}


class Column(NamedTuple):
    """A column.

    Attributes:
        key: a short name, which links to the page have.
        title: its heading.
        form: the form of its cells.
        fields: its fields of a row. The first is the value that it shows; its cells use the others, too.
        rank: if there is little room, the columns of the greatest rank are left out first; 0 stays.
        px: its width on the page, in pixels.
        means: its meaning in a sentence, for people.
        group: its group in the choice of columns.
        counted: the unit below its title, if its form has none.
        lack: whether it shows what is missing or wrong; a cell without either is empty.
        adds: whether a sum of rows shows the sum of its values.
        least_first: whether its order begins with the least.
        csv_title: its heading in CSV, if that differs.
    """

    key: str
    title: str
    form: Form
    fields: tuple[str, ...]
    rank: float
    px: int
    means: str
    group: str = ""
    counted: str = ""
    lack: bool = False
    adds: bool = False
    least_first: bool = False
    csv_title: str = ""

    @property
    def unit(self) -> str:
        """The unit below its title; `money` stands for the plans' currency."""
        return _UNITS.get(self.form, self.counted)

    @property
    def down(self) -> bool:
        """True if its order begins with the greatest."""
        return not self.least_first and self.form not in (*WORDS, Form.TIME)


def _by_client(kind: str, key: str, rank: float) -> tuple[Column, ...]:
    """The counts of a kind once a client, by the windows of the IAB."""
    title, end = f"{kind.capitalize()} of the flight", "final minutes alone."
    means = {
        ("calendar", "day"): f"{title}, one a {key} a calendar day; {end}",
        ("first_touch", "first"): f"{title}, one a {key} in the 24 h from the first on; {end}",
        ("last_touch", "last"): f"{title} that none of the same {key} comes before within 24 h; {end}",
    }
    return tuple(
        Column(
            f"{kind}_{window}",
            f"{kind}, {word}",
            Form.COUNT,
            (f"flight.{kind}_{window}",),
            rank + place,
            112,
            meaning,
            group="Podcast",
            counted=kind,
            adds=True,
        )
        for place, ((window, word), meaning) in enumerate(means.items())
    )


_STATE: Final = tuple(
    f"delivery.{name}"
    for name in ("state", "judged", "unjudged_reason", "unjudged_since_ms", "unjudged_by", "since_ms")
)
COLUMNS: Final = (
    Column("state", "state", Form.STATE, _STATE, 0, 164,
        "The delivery state (below), behind the impressions in content that the plan blocks."),
    Column("id", "placement", Form.NAME, (), 0, 150,
        "The placement's, campaign's, creative's or app's id; opens it."),
    Column("campaign", "campaign", Form.LABEL, ("campaign_id",), 3.5, 92,
        "The campaign that the placement belongs to.", group="Labels"),
    Column("stake", "at stake", Form.MONEY, ("delivery.at_stake",), 1, 84,
        "Short by, at the plan's price per thousand impressions (CPM); of a campaign its placements' sum.",
        group="Money", lack=True),
    Column("stake_end", "by the end", Form.MONEY, ("delivery.at_stake_end",), 2, 92,
        "What is projected to lack of the booking at the flight's end, at the plan's price (CPM).",
        group="Money", lack=True),
    Column("pacing", "pacing", Form.SHARE, ("delivery.indicator",), 1.5, 76,
        "Delivered impressions as a share of those due by now: 100 % is on plan.",
        group="Pacing", least_first=True),
    Column("short", "short by", Form.COUNT, ("delivery.short_by",), 4, 92,
        "Impressions that are due and not delivered. Sums add what is short; what is ahead elsewhere does "
        "not offset it.",
        group="Pacing", counted="impressions", lack=True),
    Column("ends", "ends in", Form.TIME, ("delivery.end_ms", "delivery.start_ms"), 3, 100,
        "Time until the flight's end, by the clock.", group="Pacing", csv_title="ends at (UTC)"),
    Column("delivered", "delivered", Form.COUNT, ("delivery.delivered", "flight.impressions"), 5, 102,
        "Impressions of the flight up to its end; without a plan, all.",
        group="Pacing", counted="impressions", adds=True),
    Column("booked", "booked", Form.COUNT, ("delivery.booked",), 6, 102,
        "Impressions that the plan books.", group="Pacing", counted="impressions", adds=True),
    Column("progress", "of booked", Form.BAR, ("delivery.delivered", "delivery.booked", "delivery.expected"),
        9, 110,
        "Bar: delivered as a share of booked. Line: what is due by now.",
        group="Pacing"),
    Column("hour", "last hour", Form.COUNT, ("1h.impressions",), 8, 106,
        "Impressions of the last hour.", group="Pacing", counted="impressions/hour", adds=True),
    Column("needed", "needed", Form.COUNT, ("delivery.required_rate",), 7, 106,
        "Impressions needed in each remaining hour that is not paused.",
        group="Pacing", counted="impressions/hour", adds=True),
    Column("projected", "projected", Form.COUNT, ("delivery.projected",), 17, 92,
        "Impressions at the flight's end if delivery goes on as in the last hour.",
        group="Pacing", counted="impressions"),
    Column("cost", "cost", Form.MONEY, ("flight.cost", "delivery.cpm"), 11, 88,
        "Delivered, at the plan's price per thousand impressions (CPM).", group="Money", adds=True),
    Column("spark", "last 10 min", Form.CURVE, ("flight.impressions",), 10, 110,
        "Impressions every ten seconds. Sorts by the latest minute.",
        group="Pacing", counted="impressions"),
    Column("completion", "completed", Form.SHARE, ("1h.mature_completion_rate",), 12, 88,
        "Share of the plays started in the last hour that were completed, once they have had time to end.",
        group="Pacing"),
    Column("reach", "reach", Form.COUNT, ("flight.reach",), 13, 84,
        "Listeners with consent, each counted once in the flight.", group="People", counted="listeners"),
    Column("frequency", "frequency", Form.NUMBER, ("flight.frequency",), 14, 92,
        "Plays by each of these listeners, on average.", group="People", counted="plays/listener"),
    Column("conversions", "conversions", Form.PARTS, ("flight.conversions",), 15, 92,
        "Conversions credited in the flight.", group="People", adds=True),
    Column("cpa", "cost per conversion", Form.MONEY, ("flight.cost_per_acquisition",), 16, 96,
        "Cost divided by conversions.", group="Money"),
    Column("blocked", "blocked", Form.COUNT, ("flight.blocked_impressions",), 20, 92,
        "Impressions in content that the plan blocks.",
        group="Money", counted="impressions", lack=True, adds=True),
    Column("unpaid", "blocked, money", Form.MONEY, ("delivery.blocked_at_stake",), 20.5, 92,
        "Impressions in blocked content, at the plan's price per thousand (CPM). They will not be paid.",
        group="Money"),
    Column("platform", "platform", Form.LABEL, ("platform",), 18, 110,
        "The platform of the latest pixel.", group="Labels"),
    Column("station", "station", Form.LABEL, ("station",), 19, 100,
        "The station of the latest pixel.", group="Labels"),
    Column("basis", "basis", Form.LABEL, ("impression_basis",), 21, 120,
        "What kind of impressions these are.", group="Labels"),
    Column("deliveries", "deliveries", Form.COUNT, ("flight.deliveries",), 22, 92,
        "Deliveries that a host reports, in the flight. They are no impressions.",
        group="Podcast", adds=True),
    Column("through", "play-through", Form.SHARE, ("flight.play_through",), 23, 92,
        "Plays that a device itself has begun, as a share of the deliveries of the flight.",
        group="Podcast"),
    Column("households", "households", Form.COUNT, ("flight.household_reach",), 24, 92,
        "Households with consent, each counted once in the flight.", group="People", counted="households"),
    Column("by_household", "by household", Form.PARTS, ("flight.conversions_by_household",), 25, 106,
        "Conversions of the flight that a touch of their household joins, for their own listener has none.",
        group="People", counted="conversions", adds=True),
    *_by_client("downloads", "client and episode", 26),
    *_by_client("deliveries", "client and ad", 29),
)  # fmt: skip
"""All columns, in their order."""
GROUPS: Final = ("Pacing", "Money", "People", "Podcast", "Labels")
"""The groups of columns, in the order in which the choice of columns has them."""
FIELDS: Final = tuple(
    dict.fromkeys((*(field for column in COLUMNS for field in column.fields), "delivery.currency"))
)
"""The fields of a row that the columns show; the last is the currency of their money."""
ORDERS: Final = {
    "": "needs attention first",
    "-delivered": "most delivered first",
    "pacing": "least pacing first",
    "-stake": "most at stake first",
    "-stake_end": "most at stake by the end first",
    "ends": "next to end first",
    "id": "by name",
}
"""Orders of the rows in words: a column, with `-` before it for the greatest first."""
