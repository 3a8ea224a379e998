"""Silences of the feed, as published: the named silent units, the rows that are not judged because of them,
and the cost.

The ledger's step finds silent units (`flows.silence`). This module adds which flights run. A placement whose
flight has ended, is paused or has delivered its booking sends no pixels, and its silence is no failure of a
feed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec

from flows.delivery import Unjudged
from flows.model.messages import SilentShare, SilentUnit
from flows.model.plan import Plan

FEED_SILENT: Final = "feed_silent"
MOST: Final = 50
"""The greatest number of units that `meta` names, those with the most money an hour."""
MOST_PLACEMENTS: Final = 200
"""The greatest number of placements that an alert names, those with the most impressions of the unit."""
HALF: Final = 0.5
MICROS: Final = 10**6
_CENT: Final = Decimal("0.01")
_units = msgspec.json.Decoder(dict[str, dict[str, Any]])

Runs = Callable[[str], Plan | None]
"""The plan of a placement, if it may deliver now."""


class Named(NamedTuple):
    """A silent unit that concerns a running placement.

    Attributes:
        concerned: the running planned placements, with their plans, for which the unit is one of the four
            largest of its kind.
        money: by currency, millionths an hour.
    """

    unit: SilentUnit
    concerned: Sequence[tuple[SilentShare, Plan]]
    money: Mapping[str, int]


def named(unit: SilentUnit, runs: Runs) -> Named | None:
    """A silent unit with the placements that it concerns; None if ended flights explain its silence.

    A unit with ended flights has fewer pixels and longer gaps, so its bound is longer by that share. Without
    a running flight the bound is never reached. A placement without a plan has no end.
    """
    plans = [(concern, runs(concern.placement)) for concern in unit.placements]
    over = sum(concern.impressions for concern, plan in plans if plan is None)
    left = 1.0 - over / unit.impressions if unit.impressions else 1.0
    if unit.gap_ms * left < unit.bound_ms:
        return None
    concerned = [(concern, plan) for concern, plan in plans if plan is not None]
    money: dict[str, int] = defaultdict(int)
    for concern, plan in concerned:
        if plan.cpm_micros is not None and plan.currency is not None and concern.whole:
            hourly = 60 * concern.before * concern.impressions / concern.whole
            money[plan.currency] += round(hourly * plan.cpm_micros / 1000)
    return Named(unit, concerned, money)


def unjudged(units: Sequence[Named]) -> dict[str, Unjudged]:
    """The placements that are not judged. Silent units of one kind had at least half of the placement's
    impressions, and the placement now has less than half as many impressions a minute as before.
    """
    parts: dict[tuple[str, str], list[tuple[SilentUnit, SilentShare]]] = defaultdict(list)
    for unit, concerned, _ in units:
        kind = unit.unit.partition(":")[0]
        for concern, _ in concerned:
            parts[concern.placement, kind].append((unit, concern))
    reasons: dict[str, tuple[float, Unjudged]] = {}
    for (name, _), concerns in parts.items():
        silent = sum(concern.impressions for _, concern in concerns)
        first, last = min(concerns, key=_since_when)[1], max(concerns, key=_since_when)[1]
        if silent < HALF * first.whole or last.since >= HALF * first.before:
            continue
        unit, largest = max(concerns, key=lambda part: (part[1].impressions, part[0].unit))
        why = largest.impressions, Unjudged(FEED_SILENT, unit.since_ms, unit.unit)
        reasons[name] = max(reasons.get(name, why), why)
    return {name: why for name, (_, why) in reasons.items()}


def _since_when(part: tuple[SilentUnit, SilentShare]) -> int:
    return part[0].since_ms


@dataclass
class Silences:
    """The silent units of one flow.

    Attributes:
        unjudged: the placements that are not judged because of them; a change replaces the object.
    """

    unjudged: Mapping[str, Unjudged] = field(default_factory=dict)
    _units: Sequence[SilentUnit] = ()
    _named: Sequence[Named] = ()
    _since_ms: dict[str, int] = field(default_factory=dict)
    _named_version: tuple[Any, ...] = ()

    def recall(self, meta: Mapping[str, str]) -> None:
        """Load the units that an earlier execution has named."""
        try:
            units = _units.decode(meta.get("silent", "{}"))
            self._since_ms = {unit: int(fields["since_ms"]) for unit, fields in units.items()}
        # a value of another program: all units are named again
        except (msgspec.DecodeError, KeyError, TypeError, ValueError):
            self._since_ms = {}

    def take(self, units: Sequence[SilentUnit]) -> None:
        """Replace the silent units."""
        self._units = units

    def look(self, runs: Runs, *version: object) -> None:
        """Name the units again if they, or the `version` of the running plans, have changed."""
        version_key = (self._units, *version)
        if version_key == self._named_version:
            return
        self._named_version = version_key
        silent = [named_unit for unit in self._units if (named_unit := named(unit, runs)) is not None]
        silent.sort(
            key=lambda named_unit: (
                -sum(named_unit.money.values()),
                -named_unit.unit.impressions,
                named_unit.unit.unit,
            )
        )
        self._named, rows = silent, unjudged(silent)
        if rows != self.unjudged:
            self.unjudged = rows

    @property
    def shown(self) -> Sequence[Named]:
        """The named units as published, the greatest first."""
        return self._named[:MOST]

    def meta(self) -> tuple[str | None, int | None]:
        """The values of `silent` and `silent_more`."""
        if not self._named:
            return None, None
        units = {
            silent.unit.unit: {
                "since_ms": silent.unit.since_ms,
                "placements": len(silent.concerned),
                "money_per_hour": _amounts(silent.money),
            }
            for silent in self.shown
        }
        return msgspec.json.encode(units).decode(), max(0, len(self._named) - MOST) or None

    def alerts(self, now_ms: int) -> list[dict[str, str]]:
        """An alert for each unit that has fallen silent since the last call, and for each silence that has
        ended. The same event always has the same `id`.
        """
        entries, still = [], {silent.unit.unit: silent for silent in self._named}
        for unit, since_ms in list(self._since_ms.items()):
            if unit not in still or still[unit].unit.since_ms != since_ms:
                del self._since_ms[unit]
                entries.append(_entry(unit, "live", since_ms, now_ms))
        for silent in self.shown:
            unit, since_ms = silent.unit.unit, silent.unit.since_ms
            if unit not in self._since_ms:
                self._since_ms[unit] = since_ms
                more = {"placements": str(len(silent.concerned)), "placement_ids": _placements(silent)}
                if silent.money:
                    more["money_per_hour"] = msgspec.json.encode(_amounts(silent.money)).decode()
                entries.append(_entry(unit, "silent", since_ms, now_ms) | more)
        return entries


def _placements(silent: Named) -> str:
    """The placements of a unit, the largest first, as JSON."""
    largest = sorted(
        (concern for concern, _ in silent.concerned),
        key=lambda concern: (-concern.impressions, concern.placement),
    )
    return msgspec.json.encode([concern.placement for concern in largest[:MOST_PLACEMENTS]]).decode()


def _entry(unit: str, state: str, since_ms: int, now_ms: int) -> dict[str, str]:
    return {
        "id": f"feed|{unit}|{state}|{since_ms}",
        "kind": "feed",
        "unit": unit,
        "from": "live" if state == "silent" else "silent",
        "to": state,
        "since_ms": str(since_ms),
        "as_of_ms": str(now_ms),
    }


def _amounts(money: Mapping[str, int]) -> dict[str, str]:
    """Amounts by currency, in units of the currency, rounded to a hundredth."""
    return {currency: str((Decimal(money[currency]) / MICROS).quantize(_CENT)) for currency in sorted(money)}
