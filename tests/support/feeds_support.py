"""Weeks of a market's audio ads, and what is right of its silent feeds: seeded, and quick to play.

A market has platforms of several kinds, each with placements that have flights. Pixels come by source
partitions, and some by collectors behind a load balancer. Feeds die and come back. The oracle below has
chapter 2.7 of the specification again, by brute force over the times of all pixels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from flows.model.messages import Impressions
from flows.model.plan import Plan
from flows.publish.silences import Silences
from flows.silence import Watch

STEP_S = 5
DAY_STEPS, HOUR_STEPS = 86_400 // STEP_S, 3_600 // STEP_S
ZONE = ZoneInfo("Europe/London")
BEGIN = datetime(2026, 10, 12, tzinfo=ZONE)
"""A Monday; a fortnight later clocks are set back."""
TAIL = (0, 0, 1, 3, 4, 6)
"""Steps from a play's impression and start to its quartiles and complete."""
PARTITIONS = [f"t/{n}" for n in range(6)]
SHARED, OWN = PARTITIONS[:4], PARTITIONS[4:]
"""Those that all share by a key, and those that one producer writes alone."""
COLLECTORS = ["c-1", "c-2", "c-3"]
NAMES_OF_A_FLOOD = 3_000
WHOLLY_ENDED = ("stream-1", "radio-7", "office-14")
RATES = {"stream": 0.6, "radio": 1.5, "office": 1.0, "tail": 0.04}
"""Plays a second while it is on."""

Bools = npt.NDArray[np.bool_]


class Platform(NamedTuple):
    """A platform.

    Attributes:
        kind: `stream` (all day), `radio` (breaks at :20 and :50, off air at night), `office` (radio on
            weekdays by day alone), `tail` (few plays).
        rate: plays a second while it is on.
        by: its routes, as (source partition, collector or empty).
    """

    name: str
    kind: str
    rate: float
    by: list[tuple[str, str]]


@dataclass
class Market:
    """Everything that a seed decides."""

    seed: int
    days: int
    platforms: list[Platform] = field(default_factory=list)
    plans: dict[str, Plan] = field(default_factory=dict)
    of: dict[str, str] = field(default_factory=dict)
    deaths: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    restarts: list[tuple[int, int, str, bool]] = field(default_factory=list)
    floods: list[tuple[int, str]] = field(default_factory=list)
    begin_ms: int = int(BEGIN.timestamp() * 1000)

    def __post_init__(self) -> None:
        self.rng = rng = np.random.default_rng(self.seed)
        balanced = [(partition, one) for partition in SHARED for one in COLLECTORS]
        plain = [(partition, "") for partition in SHARED]
        kinds = ["stream"] * 5 + ["radio"] * 8 + ["office"] * 4 + ["tail"] * 5
        for n, kind in enumerate(kinds):
            by = [balanced, plain, [(OWN[n % len(OWN)], "")]][n % 3]
            rate = {"stream": 0.6, "radio": 1.5, "office": 1.0, "tail": 0.04}[kind] * float(
                rng.uniform(0.5, 2)
            )
            self.platforms.append(Platform(f"{kind}-{n}", kind, rate, by))
        steps = self.days * DAY_STEPS
        for platform in self.platforms:
            # All flights of some platforms end at once; of others, some do.
            whole = platform.name in WHOLLY_ENDED
            ends = int(rng.integers(9 * DAY_STEPS, steps)) if whole or rng.random() < 0.2 else 2 * steps
            for n in range(3):
                end = ends if whole or rng.random() < 0.6 else 2 * steps
                name = f"{platform.name}/{n}"
                self.of[name] = platform.name
                self.plans[name] = Plan(
                    name, 10**9, self.ms(-DAY_STEPS), self.ms(end), cpm_micros=10_000_000, currency="GBP"
                )
        self._go_wrong()

    def _go_wrong(self) -> None:
        rng = self.rng
        units = [f"platform:{one.name}" for one in self.platforms if one.kind != "tail"]
        units += [f"partition:{name}" for name in PARTITIONS] + [f"sender:{name}" for name in COLLECTORS]
        for day in range(9, self.days):
            for unit in rng.choice(units, 3, replace=False).tolist():
                begin = day * DAY_STEPS + int(rng.integers(0, DAY_STEPS))
                self.deaths[unit].append((begin, begin + int(rng.integers(HOUR_STEPS // 2, 5 * HOUR_STEPS))))
            platform = self.platforms[int(rng.integers(len(self.platforms)))]
            self.floods.append((day * DAY_STEPS + int(rng.integers(0, DAY_STEPS - 200)), platform.name))
        for day in range(self.days):  # the collectors, one after the other, with a bye or without
            at = day * DAY_STEPS + int(rng.integers(0, DAY_STEPS - 3 * HOUR_STEPS))
            for place, name in enumerate(COLLECTORS):
                begin = at + place * 60
                self.restarts.append((begin, begin + int(rng.integers(12, 40)), name, day % 3 != 0))

    def ms(self, step: int) -> int:
        """Epoch ms of a step."""
        return self.begin_ms + step * STEP_S * 1000

    def runs(self, at_ms: int) -> Callable[[str], Plan | None]:
        """The plan of a placement whose flight has not ended."""

        def plan_of(name: str) -> Plan | None:
            plan = self.plans[name]
            return plan if plan.end_ms > at_ms else None

        return plan_of

    def ends(self, unit: str) -> list[int]:
        """The steps at which flights end that a unit brings."""
        kind, _, name = unit.partition(":")
        place = ("partition", "sender").index(kind) if kind != "platform" else -1
        some = [
            one.name
            for one in self.platforms
            if (one.name == name if place < 0 else any(route[place] == name for route in one.by))
        ]
        ends = [plan.end_ms for placement, plan in self.plans.items() if self.of[placement] in some]
        last = self.ms(self.days * DAY_STEPS)
        return [(end - self.begin_ms) // (STEP_S * 1000) for end in ends if end < last]

    def day(self, day: int) -> Day:
        """The traffic of a day."""
        return Day(self, day)


def _on_air(kind: str, at: datetime) -> float:
    """A platform's rate in a minute, relative."""
    hour = at.hour + at.minute / 60
    if kind in ("stream", "tail"):
        return 0.35 + 0.65 * float(np.clip(np.sin((hour - 6) / 24 * 2 * np.pi) + 0.5, 0, 1))
    open_, close = (6, 20) if kind == "office" else (5, 24)
    if not open_ <= hour < close or (kind == "office" and at.weekday() >= 5):
        return 0.0
    return 1.0 if at.minute in (20, 21, 22, 50, 51, 52) else 0.0


class Day:
    """The plays of one day.

    Attributes:
        pixels, due: unit to its pixels by step, and to those that it would have if no feed were dead.
        shown: (placements, routes, minutes) impressions.
        routes: (source partition, collector).
    """

    def __init__(self, market: Market, day: int) -> None:
        rng, first = np.random.default_rng([market.seed, day]), day * DAY_STEPS
        begin = datetime.fromtimestamp(market.ms(first) / 1000, UTC)
        minutes = [(begin + timedelta(minutes=n)).astimezone(ZONE) for n in range(1440)]
        self.routes = sorted({route for one in market.platforms for route in one.by})
        self.placements = list(market.plans)
        plays = np.zeros((len(self.placements), len(self.routes), DAY_STEPS), np.uint16)
        steps = np.arange(first, first + DAY_STEPS)
        for one in market.platforms:
            rate = np.repeat([_on_air(one.kind, at) for at in minutes], 60 // STEP_S) * one.rate * STEP_S
            for at, name in market.floods:
                if name == one.name:
                    rate = rate * np.where((steps >= at) & (steps < at + 120), 20, 1)
            for place, placement in enumerate(self.placements):
                if market.of[placement] != one.name:
                    continue
                running = market.ms(0) + steps * STEP_S * 1000 < market.plans[placement].end_ms
                for route in one.by:
                    expected = rate * running / 3 / len(one.by)
                    plays[place, self.routes.index(route)] = rng.poisson(expected)
        self._restart(market, plays, steps)
        self.due = dict(self._by_unit(market, plays))
        self._lose(market, plays, steps)
        self.shown = plays.reshape(len(self.placements), len(self.routes), 1440, -1).sum(axis=3)
        self.pixels = dict(self._by_unit(market, plays))

    def _lose(self, market: Market, plays: npt.NDArray[Any], steps: npt.NDArray[Any]) -> None:
        """The pixels that a dead platform, partition or collector does not send."""
        for place, placement in enumerate(self.placements):
            plays[place, :, _dead(market, f"platform:{market.of[placement]}", steps)] = 0
        for n, (partition, collector) in enumerate(self.routes):
            plays[:, n, _dead(market, f"partition:{partition}", steps)] = 0
            plays[:, n, _dead(market, f"sender:{collector}", steps)] = 0

    def _restart(self, market: Market, plays: npt.NDArray[Any], steps: npt.NDArray[Any]) -> None:
        """The pixels that a restarting collector leaves to another."""
        for n, (partition, collector) in enumerate(self.routes):
            for begin, end, name, _ in market.restarts:
                if name == collector:
                    some = (steps >= begin) & (steps < end)
                    other = COLLECTORS[COLLECTORS.index(name) - 1]
                    plays[:, self.routes.index((partition, other)), some] += plays[:, n, some]
                    plays[:, n, some] = 0

    def _by_unit(self, market: Market, plays: npt.NDArray[Any]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        by_place, by_route = plays.sum(axis=1, dtype=np.int32), plays.sum(axis=0, dtype=np.int32)
        sums: dict[str, Any] = defaultdict(int)
        for place, placement in enumerate(self.placements):
            sums[f"platform:{market.of[placement]}"] += by_place[place]
        for n, (partition, collector) in enumerate(self.routes):
            sums[f"partition:{partition}"] += by_route[n]
            if collector:
                sums[f"sender:{collector}"] += by_route[n]
        for unit, begun in sums.items():
            pixels = np.zeros(DAY_STEPS, np.int32)
            for by in TAIL:
                pixels[by:] += begun[: DAY_STEPS - by]
            yield unit, pixels

    def impressions(self, minute: int) -> Impressions:
        """The counts of a minute, as a placement shard sends them."""
        shown = self.shown[:, :, minute]
        place, route = np.nonzero(shown)
        at = np.stack([place, place, route], axis=1)
        platforms = [name.partition("/")[0] for name in self.placements]
        return Impressions(self.placements, platforms, self.routes, at, shown[place, route].astype(np.int64))


def _dead(market: Market, unit: str, steps: npt.NDArray[Any]) -> Bools:
    found: Bools = np.zeros(len(steps), bool)
    for begin, end in market.deaths.get(unit, ()):
        found |= (steps >= begin) & (steps < end)
    return found


class Played(NamedTuple):
    """The units that were named in a market's weeks.

    Attributes:
        heard: unit to the steps at which it had pixels.
        pixels, due: unit to its pixels by step, and those if no feed were dead, added up.
        named: unit to its silences as (step of the last pixel, step at which it was named, step of its end).
        unproven: steps at which the flow had not read all.
    """

    heard: dict[str, npt.NDArray[Any]]
    pixels: dict[str, npt.NDArray[Any]]
    due: dict[str, npt.NDArray[Any]]
    named: dict[str, list[list[int]]]
    unproven: set[int]

    def lost(self, unit: str, since: int, until: int) -> int:
        """The pixels that a unit would have had within some steps, if no feed were dead."""
        due = self.due[unit]
        return int(due[min(until, len(due) - 1)] - due[since])


def played(market: Market) -> Played:
    """Play a market through the watch, saved and restored once a day. Returns the named silent units."""
    watch, silences = Watch(ZONE), Silences()
    watch.follow(market.plans)
    heard: dict[str, list[Any]] = defaultdict(list)
    came: dict[str, list[Any]] = defaultdict(list)
    due: dict[str, list[Any]] = defaultdict(list)
    named: dict[str, list[list[int]]] = defaultdict(list)
    open_: dict[str, list[int]] = {}
    unproven: set[int] = set()
    byes = {begin + len(TAIL): name for begin, _, name, bye in market.restarts if bye}
    held = [(begin, end) for begin, end, _, bye in market.restarts if not bye]
    for day in range(market.days):
        traffic = market.day(day)
        units, matrix = list(traffic.pixels), np.array([*traffic.pixels.values()])
        for unit, pixels in traffic.pixels.items():
            heard[unit].append(np.flatnonzero(pixels) + day * DAY_STEPS)
            came[unit].append(pixels)
            due[unit].append(traffic.due[unit])
        for step in range(DAY_STEPS):
            now, column = day * DAY_STEPS + step, matrix[:, step]
            some = np.flatnonzero(column).tolist()
            watch.take_pixels({units[n]: int(column[n]) for n in some})
            if step % 12 == 11:
                watch.take_pixels({}, traffic.impressions(step // 12))
            if now in byes:
                watch.end(byes[now])
            if day == 10 and step < 300:
                watch.take_pixels({f"platform:made-up-{step}-{n}": 3 for n in range(NAMES_OF_A_FLOOD // 300)})
            proven = not any(begin <= now < end for begin, end in held)
            if not proven:
                unproven.add(now)
            found = watch.cut(market.ms(now), proven, market.ms(now))
            at_ms = market.ms(now)
            silences.take(found)
            silences.look(market.runs(at_ms), at_ms // 60_000)
            shown = {one.unit.unit: one.unit.since_ms for one in silences.shown}
            for unit in shown.keys() - open_.keys():
                since = (shown[unit] - market.begin_ms) // (STEP_S * 1000)
                open_[unit] = [since, now, -1]
                named[unit].append(open_[unit])
            for unit in open_.keys() - shown.keys():
                open_.pop(unit)[2] = now
        state, watch = watch.snapshot(), Watch(ZONE)
        watch.restore(state)
    for one in open_.values():
        one[2] = market.days * DAY_STEPS
    return Played(
        {unit: np.concatenate(of) for unit, of in heard.items()},
        {unit: np.cumsum(np.concatenate(of)) for unit, of in came.items()},
        {unit: np.cumsum(np.concatenate(of)) for unit, of in due.items()},
        named,
        unproven,
    )


class Silent(NamedTuple):
    """A silence by the rule: the steps of its last pixel, and at which the gap exceeds the bound."""

    since: int
    at: int


def rightly(market: Market, found: Played, unit: str) -> list[Silent]:
    """Every silence of a unit by chapter 2.7, from the times of its pixels alone."""
    steps = market.days * DAY_STEPS
    proven = np.ones(steps + 1, np.int64)
    proven[sorted(found.unproven)] = 0
    clock = np.cumsum(proven) * STEP_S
    heard = np.append(found.heard[unit], steps - 1)
    begins, ends = heard[:-1], heard[1:]
    gaps = clock[ends] - clock[begins]
    byes = [begin + len(TAIL) for begin, _, name, bye in market.restarts if bye and unit == f"sender:{name}"]
    ended, counts = ends.copy(), found.pixels[unit]
    for bye in byes:
        ended[(begins <= bye) & (bye < ends)] = bye
    long = np.flatnonzero(gaps > 60).tolist()
    gaps[ended < ends] = 0  # the length of these is unknown
    silences = []
    for n in long:
        begin, end = int(begins[n]), int(ended[n])
        if clock[begin] - clock[heard[0]] < 600 or counts[begin] < 50:
            continue
        hundred = (counts[begin] // 100 - 1) * 100
        mark = int(np.searchsorted(counts, hundred)) if hundred > 0 else int(heard[0])
        known, before = gaps[:n], clock[ends[:n]] > clock[begin] - 3_600
        longest = int(known[before].max(initial=0))
        step = begin + 1
        while step < end and step - begin <= DAY_STEPS:
            now = datetime.fromtimestamp(market.ms(step) / 1000, UTC).replace(minute=0, second=0)
            days = (_longest(market, begins[:n], ends[:n], known, now, ago) for ago in (1, 7))
            bound = max(60, 2 * longest, *(2 * day for day in days), clock[begin] - clock[mark])
            until = min(end, (step // HOUR_STEPS + 1) * HOUR_STEPS)
            over = np.flatnonzero(clock[step:until] - clock[begin] > bound)
            if len(over):
                silences.append(Silent(begin, step + int(over[0])))
                break
            step = until
    return silences


def _longest(market: Market, begins: Any, ends: Any, gaps: Any, now: datetime, days: int) -> int:
    """The longest gap that overlaps the same hour so many days ago."""
    hour = (now.astimezone(ZONE) - timedelta(days=days)).timestamp()
    first = int((hour * 1000 - market.begin_ms) // (STEP_S * 1000))
    low, high = np.searchsorted(ends, first), np.searchsorted(begins, first + HOUR_STEPS)
    return int(gaps[low:high].max(initial=0))
