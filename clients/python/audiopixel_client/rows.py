"""A placement's row as a bidder reads it, and the rules by which it is refused (docs/bidders.md)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple, NoReturn, Union

STALE_S = 30.0
"""Age of the flow's last write, by Redis's clock, beyond which no row is usable."""
WATERMARK_S = 300.0
"""The same of the event time up to which pixels are counted."""
STEERABLE = ("on_track", "under", "at_risk", "over")
UNKNOWN = ("unknown_before", "ended_unknown")
VERSION = ("generation", "fence", "rev")
OWN = (
    *VERSION,
    *("delivery.state", "delivery.judged", "delivery.unjudged_reason"),
    *("delivery.booked", "delivery.delivered", "delivery.projected"),
    *("5m.impressions", "1h.impressions", "flight.blocked_impressions"),
)
"""The fields that the rules need, in the order in which a row has them; those of the caller follow."""
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
    """Seconds that nobody sets, and in Linux those of a suspended machine too."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


class Horizon(NamedTuple):
    """The part of a verdict that all rows share.

    Attributes:
        unjudged: the reason for which none is judged.
        generation: the one whose rows are used; None: none is known.
        until_s: by `clock_s`, when they become stale.
        reviewed: the client's.
    """

    unjudged: str | None
    until_s: float
    reviewed: Mapping[str, int]
    generation: int | None = None


class Record(NamedTuple):
    """One version of a row: its texts by `places`, and what the rules say of it."""

    version: Version
    places: Mapping[str, int]
    texts: list[str | None]
    unjudged: str | None
    refused: str | None
    blocked: int
    factor: float | None


def record_of(places: Mapping[str, int], texts: list[str | None], least: float, most: float) -> Record:
    """What the rules say of a row; `texts` begin with those of `OWN`.

    Raises:
        ValueError: its version cannot be read.
    """
    version = tuple(int(text or "") for text in texts[:3])
    state, judged, why, *pacing = texts[3:9]
    last, hour, blocked = texts[9:12]
    unjudged = (why or "unjudged") if judged not in (None, "1") else None
    refused = "unknown_before" if state in UNKNOWN else None
    impressions, factor = 0, None
    try:
        impressions = int(blocked or 0)
        booked, delivered, projected = (None if text is None else _finite(text) for text in pacing)
        stopped = last is not None and int(last) == 0 and (hour is None or int(hour) != 0)
        if None not in (booked, delivered, projected) and state in STEERABLE and not stopped:
            factor = _factor(booked, delivered, projected, least, most)  # type: ignore[arg-type]  # none is None
    except ValueError:
        refused = "unreadable"
    return Record(version, places, texts, unjudged, refused, impressions, factor)


def gone(version: Version, places: Mapping[str, int]) -> Record:
    """The record of a row that is not there."""
    return Record(version, places, [None] * len(places), None, "gone", 0, None)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"not a number: {text}")
    return number


def _factor(booked: float, delivered: float, projected: float, least: float, most: float) -> float | None:
    """What the last hour's rate is to be multiplied by. `delivery.projected` goes by the flight alone, and
    knows its pauses; `1h.impressions` does not.
    """
    if projected <= delivered:
        return None
    return min(max((booked - delivered) / (projected - delivered), least), most)


class Row(Mapping[str, Value]):
    """One version of a placement's row: `row["5m.impressions"]` is an int, a float, a text, or None where it
    is not known (never 0). It does not change; with time it becomes `stale` by itself.

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

    __delattr__ = __setattr__  # type: ignore[assignment]  # it refuses whatever it is given

    @property
    def reason(self) -> str | None:
        """The reason not to act on it; None if there is none. `catching_up`, `switching`, `starting`,
        `collector`, `stalled`, `lagging`, `rejecting` (no row is judged), `feed_silent` (this one is not),
        `unjudged` (without a reason), `stale`, `gone`, `blocked`, `unknown_before`, `unreadable`. A row of
        another generation than the meta row's is `switching`, too.
        """
        record, horizon = self._record, self._horizon
        unjudged = horizon.unjudged or record.unjudged
        if unjudged:
            return unjudged
        if record.version and record.version[0] != (horizon.generation or record.version[0]):
            return "switching"
        if clock_s() > horizon.until_s:
            return "stale"
        return "blocked" if self.blocked else record.refused

    @property
    def usable(self) -> bool:
        """True if it may be acted on."""
        return self.reason is None

    @property
    def factor(self) -> float | None:
        """What the present rate is to be multiplied by; None: leave the bid as it is."""
        return None if self.reason else self._record.factor

    @property
    def blocked(self) -> int:
        """Impressions in blocked content that nobody has reviewed, also by old numbers: stop at once."""
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
        return float(text) if "." in text else int(text)

    def __iter__(self) -> Iterator[str]:
        return iter(self._record.places)

    def __len__(self) -> int:
        return len(self._record.places)

    def __repr__(self) -> str:
        return f"<Row {self.name!r} {self.version} {self.reason or 'usable'}>"


_set_name = Row.__dict__["name"].__set__
_set_record = Row.__dict__["_record"].__set__
_set_horizon = Row.__dict__["_horizon"].__set__
