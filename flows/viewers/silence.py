"""Feeds that have fallen silent, in words, for page, `top`, Slack and demo.

A unit is a source partition, a platform or a sender, as `kind:name`. Its name comes from a sender, so it is
bounded and escaped wherever it is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from flows.shown import shown
from flows.viewers.words import amount, integer, number, since

if TYPE_CHECKING:
    from flows.viewers.access import Sight
    from flows.viewers.reader import Rows, Snapshot

FEED_SILENT: Final = "feed_silent"
"""The reason in `delivery.unjudged_reason`."""
FEED: Final = "feed"
"""The `kind` of an entry of the stream of alerts about a unit instead of a placement."""
NAMED: Final = 3
"""The number of units that a sentence names; it counts the others."""
SENT: Final = 50
"""The most units that are sent to a page, those with the most placements first."""
_MAX_NAME_LENGTH: Final = 40
_CURRENCY: Final = 8


class Unit(NamedTuple):
    """A silent unit.

    Attributes:
        key: `kind:name`, the name in its sender's words.
        since_ms: epoch ms of its last pixel; NaN if the field is no number.
        placements: the number of placements with its pixels.
        money: the hourly value of its impressions, by currency.
    """

    key: str
    since_ms: float
    placements: int = 0
    money: Mapping[str, Decimal] = {}

    @property
    def kind(self) -> str:
        """`partition`, `platform` or `sender`."""
        return self.key.partition(":")[0]

    @property
    def name(self) -> str:
        """Its name, bounded, without characters that control a terminal."""
        return shown(self.key.partition(":")[2] or self.key, _MAX_NAME_LENGTH)


@dataclass(frozen=True)
class Silence:
    """The silent units, those with the most placements first.

    Attributes:
        placements: the number of placements that are not judged.
        unnamed: the number of units that `meta` does not name.
    """

    units: Sequence[Unit] = ()
    placements: int = 0
    unnamed: int = 0

    @property
    def count(self) -> int:
        """The number of all silent units."""
        return len(self.units) + self.unnamed

    @property
    def money(self) -> str:
        """The hourly value of all units, such as `GBP 12.34`; empty if none is known.

        A pixel has a partition, a platform and a sender, so the kind with the greatest value counts.
        """
        greatest: dict[str, Decimal] = {}
        for kind in {unit.kind for unit in self.units}:
            sums: dict[str, Decimal] = {}
            for unit in self.units:
                for currency, value in unit.money.items() if unit.kind == kind else ():
                    sums[currency] = sums.get(currency, Decimal()) + value
            greatest |= {
                currency: max(value, greatest.get(currency, value)) for currency, value in sums.items()
            }
        return " and ".join(
            f"{shown(currency, _CURRENCY)} {amount(float(value))}"
            for currency, value in sorted(greatest.items())
        )


class _Silence(msgspec.Struct):
    """A unit in `meta.silent`."""

    since_ms: int
    placements: int = 0
    money_per_hour: dict[str, str] = {}


_decoder: Final = msgspec.json.Decoder(dict[str, _Silence])


def silence_of(snapshot: Snapshot, sight: Sight | None = None) -> Silence:
    """The silence in a reader's sight. Unless the reader sees everything, it follows from the seen
    placements.

    Args:
        snapshot: a reading with the fields of `delivery.unjudged_…`.
        sight: None for everything.
    """
    if not (silent_json := snapshot.meta.get("silent")):
        return Silence()
    rows = snapshot.rows.get("placement", {})
    everything = sight is None or sight.everything
    rows = rows if sight is None else sight.rows("placement", rows)
    concerned = {name: row for name, row in rows.items() if _waits(row)}
    units = of_meta(silent_json) if everything else _of_rows(concerned)
    unnamed = integer(snapshot.meta.get("silent_more")) if everything else 0
    units.sort(key=lambda unit: (-unit.placements, unit.since_ms, unit.key))
    return Silence(units, len(concerned), unnamed)


def of_meta(silent_json: str) -> list[Unit]:
    """The units of `meta.silent`.

    Raises:
        msgspec.MsgspecError, ArithmeticError: the text is damaged.
    """
    return [
        Unit(
            key,
            entry.since_ms,
            entry.placements,
            {currency: Decimal(value) for currency, value in entry.money_per_hour.items()},
        )
        for key, entry in _decoder.decode(silent_json).items()
    ]


def _waits(row: Mapping[str, str]) -> bool:
    return row.get("delivery.judged") == "0" and row.get("delivery.unjudged_reason") == FEED_SILENT


def _of_rows(rows: Rows) -> list[Unit]:
    unit_by_key: dict[str, Unit] = {}
    for row in rows.values():
        key, since_ms = row.get("delivery.unjudged_by", ""), number(row.get("delivery.unjudged_since_ms"))
        unit = unit_by_key.get(key, Unit(key, since_ms))
        unit_by_key[key] = Unit(key, min(unit.since_ms, since_ms), unit.placements + 1)
    return list(unit_by_key.values())


def named(units: Sequence[Unit], count: int) -> str:
    """Units in words: `programmatic (platform)`, `a, b, c and 2 more (platform)`.

    Args:
        units: the first units.
        count: the number of all units.
    """
    first = units[:NAMED]
    kinds = {unit.kind for unit in first}
    names = [unit.name if len(kinds) == 1 else f"{unit.name} ({unit.kind})" for unit in first]
    names += [f"{count - len(first):,} more"] if count > len(first) else []
    list_words = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
    return f"{list_words} ({kinds.pop()})" if len(kinds) == 1 else list_words


def unit_words(key: str) -> str:
    """A unit in words: `programmatic (platform)`."""
    return named([Unit(key, 0.0)], 1)


def sentences(silence: Silence, now_ms: float, zone: tzinfo | None = None) -> tuple[str, str] | None:
    """Two sentences: the silent units with the time since when, and the waiting placements. None without
    silent units.
    """
    units = silence.units
    if not units:
        return None
    began = since(min(unit.since_ms for unit in units), now_ms, zone)
    has, brings = ("has", "It brings") if silence.count == 1 else ("have", "They bring")
    silence_words = (
        f"{named(units, silence.count)} {has} been silent since {began}: this is the feed, not delivery."
    )
    worth = f" {brings} {silence.money} an hour." if silence.money else ""
    return silence_words, f"{waiting(silence.placements)}{worth}"


def waiting(placements: int) -> str:
    """The consequence for placements, in words."""
    if not placements:
        return "No placement waits for it."
    are, them = ("placement is", "it") if placements == 1 else ("placements are", "them")
    return f"{placements:,} {are} not judged; do not change bids by {them}."
