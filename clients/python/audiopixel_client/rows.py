"""A placement's row as a bidder reads it, and the rules by which it is refused (docs/bidders.md)."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple, NoReturn, Union

STALE_S = 30.0
"""The age of the flow's last write, in s by Redis's clock, beyond which no row is usable."""
WATERMARK_S = 300.0
"""The age of the flow's watermark, in s by Redis's clock, beyond which no row is usable."""
STEERABLE = ("on_track", "under", "at_risk", "over")
"""The states of delivery in which a row has a factor."""
UNKNOWN = ("unknown_before", "ended_unknown")
"""The states of delivery whose delivered impressions are unknown."""
VERSION = ("generation", "fence", "rev")
SCHEMA = "1"
"""The schema of rows, in `meta.schema`, for which these rules are made."""
INTEGER = re.compile(r"\d{1,18}", re.ASCII)
DECIMAL = re.compile(r"\d{1,18}(\.\d{1,18})?", re.ASCII)
FLAG = re.compile("[01]")
TEXT = re.compile(r"\w{1,64}", re.ASCII)
RULE_FIELDS = {
    **dict.fromkeys(VERSION, INTEGER),
    "5m.impressions": INTEGER,
    "1h.impressions": INTEGER,
    "flight.blocked_impressions": INTEGER,
    "delivery.state": TEXT,
    "delivery.judged": FLAG,
    "delivery.booked": INTEGER,
    "delivery.delivered": INTEGER,
    "delivery.projected": DECIMAL,
    "delivery.unjudged_reason": TEXT,
}
"""The fields that the rules read, and the form of each. A row has them in this order; the caller's follow."""
EVERY_ROW = tuple(RULE_FIELDS)[:6]
"""The fields that every row has."""
PLANNED = tuple(RULE_FIELDS)[6:9]
"""The fields that every row with a plan has, and no other."""
TEXTS = frozenset(
    (
        *("campaign_id", "platform", "station", "podcast", "program", "creative_id", "app"),
        *("delivery.state", "delivery.alerted_state", "delivery.unjudged_reason", "delivery.unjudged_by"),
        *("delivery.currency", "delivery.delivered_before_source", "delivery.unknown_reason"),
        *("conversion_currency", "impression_basis", "reach_unit"),
    )
)
"""The fields that are texts; all others are numbers."""
Value = Union[int, float, str, None]
Version = tuple[int, ...]

_CLOCK = getattr(time, "CLOCK_BOOTTIME", None)


def clock_s() -> float:
    """A monotonic clock, in seconds. In Linux it also counts the time for which the machine is suspended."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


class Horizon(NamedTuple):
    """The part of a verdict that all rows share.

    Attributes:
        unjudged: the reason for which no row is judged; None if rows are judged.
        until_s: the time by `clock_s` at which all rows become stale.
        reviewed: by placement, impressions in blocked content that a person has reviewed.
        generation: the generation whose rows are used; None if unknown.
    """

    unjudged: str | None
    until_s: float
    reviewed: Mapping[str, int]
    generation: int | None = None


class Record(NamedTuple):
    """One version of a row: its texts, in which `places` locates each field, and the verdict of the rules."""

    version: Version
    places: Mapping[str, int]
    texts: list[str | None]
    unjudged: str | None
    refused: str | None
    blocked: int
    factor: float | None


def integer(text: str | None) -> int:
    """The integer of a text; no other form of a number is taken.

    Raises:
        ValueError: it is absent, or none.
    """
    if text is None or not INTEGER.fullmatch(text):
        raise ValueError(f"not an integer: {text}")
    return int(text)


def record_of(
    places: Mapping[str, int], texts: list[str | None], before: Record, least: float, most: float
) -> Record:
    """The record of a row: the rules applied to its texts, which begin with those of `RULE_FIELDS`.

    Args:
        before: the record shown before. A damaged row keeps its version and its blocked impressions.
    """
    row, whole = dict[str, str](), True
    for (name, form), text in zip(RULE_FIELDS.items(), texts):
        if text is not None and form.fullmatch(text):
            row[name] = text
        elif text is not None or name in EVERY_ROW:
            whole = False
    version, blocked = before.version, before.blocked
    if row.keys() >= {*VERSION}:
        version = tuple(int(row[name]) for name in VERSION)
    if "flight.blocked_impressions" in row:
        blocked = int(row["flight.blocked_impressions"])
    unjudged = row.get("delivery.unjudged_reason", "unjudged") if row.get("delivery.judged") == "0" else None
    refused = _refused(row) if whole else "incomplete"
    factor = None if refused else _factor(row, least, most)
    return Record(version, places, texts, unjudged, refused, blocked, factor)


def _refused(row: Mapping[str, str]) -> str | None:
    """The reason not to act on a row whose fields have the right form, and which has those of every row."""
    planned = sum(name in row for name in PLANNED)
    if planned < len(PLANNED):
        return "incomplete" if planned else "no_plan"
    if row["delivery.state"] in UNKNOWN:
        return "unknown_before"
    steered = row["delivery.state"] in STEERABLE
    return "incomplete" if steered and "delivery.delivered" not in row else None


def absent_record(version: Version, places: Mapping[str, int]) -> Record:
    """The record of a row that Redis does not have."""
    return Record(version, places, [None] * len(places), None, "gone", 0, None)


def _factor(row: Mapping[str, str], least: float, most: float) -> float | None:
    """The factor by which to multiply the present rate, by `delivery.projected`. That field leaves out the
    flight's pauses, and `1h.impressions` does not. A row without it has no known rate.
    """
    stopped = int(row["5m.impressions"]) == 0 and int(row["1h.impressions"]) != 0
    if row["delivery.state"] not in STEERABLE or stopped or "delivery.projected" not in row:
        return None
    booked, delivered = int(row["delivery.booked"]), int(row["delivery.delivered"])
    projected = float(row["delivery.projected"])
    if projected <= delivered:
        return None
    return min(max((booked - delivered) / (projected - delivered), least), most)


class Row(Mapping[str, Value]):
    """One version of a placement's row. `row["5m.impressions"]` is an int, a float, a text, or None if it is
    unknown (never 0). A row never changes, except that it becomes `stale` with time.

    Attributes:
        name: the placement.
    """

    __slots__ = ("_horizon", "_record", "name")
    name: str
    _record: Record
    _horizon: Horizon

    def __init__(self, name: str, record: Record, horizon: Horizon) -> None:
        _set_name(self, name)
        _set_record(self, record)
        _set_horizon(self, horizon)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a row does not change: {name}")

    __delattr__ = __setattr__  # type: ignore[assignment]  # both refuse any arguments

    @property
    def reason(self) -> str | None:
        """The reason not to act on this row; None if there is none.

        No row is judged: `catching_up`, `switching`, `starting`, `collector`, `stalled`, `lagging`,
        `rejecting`. This row is not judged: `feed_silent`, or `unjudged` if its reason is absent. A row whose
        generation is not the meta row's is `switching`, too. Other reasons: `unknown_schema`, `stale`,
        `gone`, `blocked`, `no_plan`, `unknown_before`, `incomplete`.
        """
        record, horizon = self._record, self._horizon
        unjudged = horizon.unjudged or record.unjudged
        if unjudged:
            return unjudged
        if record.version and horizon.generation not in (None, record.version[0]):
            return "switching"
        if clock_s() > horizon.until_s:
            return "stale"
        return "blocked" if self.blocked else record.refused

    @property
    def usable(self) -> bool:
        """True if there is no reason not to act on this row."""
        return self.reason is None

    @property
    def factor(self) -> float | None:
        """The factor by which to multiply the present rate; None to leave the bid as it is."""
        return None if self.reason else self._record.factor

    @property
    def blocked(self) -> int:
        """Impressions in blocked content without a review, of a stale row too. Stop if there are any."""
        blocked = self._record.blocked
        return max(0, blocked - self._horizon.reviewed.get(self.name, 0)) if blocked else 0

    @property
    def version(self) -> Version:
        """Generation, fence and rev."""
        return self._record.version

    def __getitem__(self, field: str) -> Value:
        text = self._record.texts[self._record.places[field]]
        if text is None or field in TEXTS:
            return text
        try:
            return float(text) if "." in text else int(text)
        except ValueError:
            return None

    def __iter__(self) -> Iterator[str]:
        return iter(self._record.places)

    def __len__(self) -> int:
        return len(self._record.places)

    def __repr__(self) -> str:
        return f"<Row {self.name!r} {self.version} {self.reason or 'usable'}>"


_set_name = Row.__dict__["name"].__set__
_set_record = Row.__dict__["_record"].__set__
_set_horizon = Row.__dict__["_horizon"].__set__
