"""Counts the shares of the feed's units in the impressions of planned placements, and the placements' rates
before and since a unit has gone quiet.

A placement keeps its four largest units of each kind. Counts that are a day old weigh a third (e^-1) of new
ones, so one number a unit covers about the last day. A fifth unit is subtracted from the smallest of the
four, and replaces it once nothing is left (J. Misra and D. Gries, "Finding repeated elements", 1982). A new
unit therefore gets in, however much the others have had, and none is counted too high.

The usual rate is by event time: a batch covers the time by which the watermark moved since the last batch. By
the wall clock, a backlog of hours that is read in seconds would have a rate a thousand times too high.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from flows.model.messages import Impressions, SilentShare
from flows.model.ticks import DAY_MS, MINUTE_MS
from flows.silence.gaps import AT, MAX_UNITS, NEVER, Gaps
from flows.state.arrays import I64
from flows.state.kernel import kernel
from flows.state.snapshot import pack, unpack

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I16 = npt.NDArray[np.int16]
I32 = npt.NDArray[np.int32]

KINDS: Final = ("partition", "platform", "sender")
LARGEST: Final = 4
"""The number of units of each kind that a placement keeps."""
PLACES: Final = LARGEST * len(KINDS)
MINUTES: Final = 64
"""The length of a ring: an hour, and the minutes of a gap until it is noticed."""
RECENT: Final = 24
"""The number of batches that are stored for the count since a gap began."""
MOST_WAITING: Final = 2_000
"""The greatest number of messages that wait for the first watermark. With more no first batch is counted."""
LEAST_MIN: Final = 1 / 6
"""The least time of a placement, in the minutes of one batch, for which there is a rate."""


@kernel
def add(
    units: I16,
    counts: F32,
    whole: F32,
    new: F64,
    totals: F64,
    places: I32,
    unit_numbers: I32,
    impressions: I64,
) -> None:
    """Add impressions to the units of placements.

    Args:
        units, counts: (placements, `PLACES`) the units of each kind, `NEVER` for none, and their impressions.
        whole, new: (placements,) the impressions of all units, of about the last day and of this batch.
        totals: (`MAX_UNITS`,) the impressions of all placements, by unit.
        places: (n,) the numbers of placements; `NEVER` without a plan.
        unit_numbers: (n, kinds) the numbers of units; `NEVER` for none, or for an unwatched one.
        impressions: (n,) the impressions to add.
    """
    for i in range(len(places)):
        place, count = places[i], np.float32(impressions[i])
        if place >= 0:
            whole[place] += count
            new[place] += impressions[i]
        for kind in range(unit_numbers.shape[1]):
            unit = unit_numbers[i, kind]
            if unit < 0:
                continue
            totals[unit] += impressions[i]
            if place < 0:
                continue
            least = kind * LARGEST
            counted = False
            for slot in range(kind * LARGEST, (kind + 1) * LARGEST):
                if units[place, slot] == unit:
                    counts[place, slot] += count
                    counted = True
                    break
                if counts[place, slot] < counts[place, least]:
                    least = slot
            if counted:
                continue
            counts[place, least] -= count
            if counts[place, least] <= 0:
                units[place, least] = unit
                counts[place, least] = -counts[place, least]


@dataclass
class Quiet:
    """The placements of a unit since it has gone quiet.

    Attributes:
        since_ms: the time of the unit's last pixel, in epoch ms.
        places: the numbers of the placements.
        before: their impressions a minute in the hour before, by all units.
        since: their impressions in the batches that began after `since_ms`, from `begun_ms` to `until_ms`.
    """

    since_ms: int
    places: I64
    before: F64
    since: F64
    begun_ms: int = 0
    until_ms: int = 0

    def count(self, begin_ms: int, end_ms: int, new: F64) -> None:
        """Count a batch of impressions by placement, if it began after the unit's last pixel."""
        if begin_ms >= self.since_ms:
            self.begun_ms, self.until_ms = self.begun_ms or begin_ms, end_ms
            self.since += new[self.places]

    def without(self, place: int) -> Quiet:
        """The same unit without a placement."""
        others = self.places != place
        return replace(self, places=self.places[others], before=self.before[others], since=self.since[others])

    @property
    def rates(self) -> F64:
        """Impressions a minute since; infinite if no batch has ended."""
        minutes = (self.until_ms - self.begun_ms) / MINUTE_MS
        return self.since / minutes if minutes > 0 else np.full(len(self.since), math.inf)


class Shares:
    """The shares of all planned placements.

    Attributes:
        quiet: the quiet units, which have had no pixel for as long as the shortest silence, by number.
        at_ms: the watermark up to which impressions are counted, in epoch ms; 0 if none are counted yet.
    """

    def __init__(self, gaps: Gaps) -> None:
        self._gaps = gaps
        self.names: list[str | None] = []
        self._places: dict[str, int] = {}
        self._free: list[int] = []
        self.totals: F64 = np.zeros(MAX_UNITS)
        self.quiet: dict[int, Quiet] = {}
        self.at_ms = 0
        self._begun_ms = 0
        self._taken_ms = 0
        self._left_out = False
        self._waiting: list[Impressions] = []
        self._recent: deque[tuple[int, int, F64, int]] = deque(maxlen=RECENT)
        self.units: I16 = np.zeros((0, PLACES), np.int16)
        self.counts: F32 = np.zeros((0, PLACES), np.float32)
        self.whole: F32 = np.zeros(0, np.float32)
        self.born: I64 = np.zeros(0, np.int64)
        self.minutes: F32 = np.zeros((0, MINUTES), np.float32)

    def plan(self, names: Collection[str]) -> None:
        """Keep the shares of exactly these placements."""
        for name in [one for one in self._places if one not in names]:
            place = self._places.pop(name)
            watched = self.units[place] >= 0
            np.subtract.at(self.totals, self.units[place][watched], self.counts[place][watched])
            self.names[place] = None
            self._free.append(place)
            self._clear(place)
            for unit, quiet in list(self.quiet.items()):
                self.quiet[unit] = quiet.without(place)
        np.maximum(self.totals, 0, out=self.totals)
        for name in names:
            if name not in self._places:
                self._places[name] = self._free.pop() if self._free else self._grown()
                self.names[self._places[name]] = name
        self._recent.clear()  # its arrays are by the earlier numbers of placements

    def _grown(self) -> int:
        place = len(self.names)
        self.names.append(None)
        if place == len(self.whole):
            added = max(16, place // 4)
            for name in ("units", "counts", "whole", "born", "minutes"):
                old = getattr(self, name)
                fill = NEVER if name == "units" else 0
                new = np.full((added, *old.shape[1:]), fill, old.dtype)
                setattr(self, name, np.concatenate([old, new]))
        return place

    def _clear(self, place: int) -> None:
        self.units[place] = NEVER
        self.counts[place] = self.minutes[place] = 0
        self.whole[place] = self.born[place] = 0

    def forget(self, units: Iterable[int]) -> None:
        """Drop units whose numbers now belong to other units."""
        for unit in units:
            self.counts[self.units == unit] = 0
            self.units[self.units == unit] = NEVER
            self.totals[unit] = 0
            self.quiet.pop(unit, None)

    def take(self, batches: Sequence[Impressions], now_ms: int, watermark_ms: int, log_ms: int = 0) -> None:
        """Take the impressions since the last call, and note which units are quiet.

        Args:
            now_ms: the wall clock, in epoch ms.
            watermark_ms: the event time up to which the impressions are complete; 0 if unknown.
            log_ms: the epoch ms at which the log begins; 0 if unknown. The first batch covers the time since
                then. If it is unknown the first batch is left out, since its length is unknown.
        """
        taken_ms, self._taken_ms = self._taken_ms or now_ms, now_ms
        if not watermark_ms and not self.at_ms:
            self._left_out |= len(self._waiting) + len(batches) > MOST_WAITING
            self._waiting = [] if self._left_out else [*self._waiting, *batches]
            return
        batches, self._waiting = [*self._waiting, *batches], []
        begin_ms = self.at_ms or (0 if self._left_out else log_ms)
        if not begin_ms:
            self.at_ms = watermark_ms
            return
        end_ms = max(begin_ms, watermark_ms)
        self._age(begin_ms, end_ms)
        new = np.zeros(len(self.whole))
        for batch in batches:
            numbers = self._numbered(batch)
            add(self.units, self.counts, self.whole, new, self.totals, *numbers, batch.impressions)
        self.born[(self.born == 0) & (new > 0)] = begin_ms
        self._spread(new, begin_ms, end_ms)
        self._recent.append((taken_ms, now_ms, new, begin_ms))
        for quiet in self.quiet.values():
            quiet.count(taken_ms, now_ms, new)
        self._note()

    def _age(self, begin_ms: int, end_ms: int) -> None:
        """Decay the stored counts."""
        if self.at_ms:
            weight = math.exp((begin_ms - end_ms) / DAY_MS)
            self.counts *= np.float32(weight)
            self.whole *= np.float32(weight)
            self.totals *= weight
        before, minute = begin_ms // MINUTE_MS, end_ms // MINUTE_MS
        if minute != before:
            self.minutes[:, np.arange(max(before + 1, minute - MINUTES + 1), minute + 1) % MINUTES] = 0
        self.at_ms, self._begun_ms = end_ms, self._begun_ms or begin_ms

    def _spread(self, new: F64, begin_ms: int, end_ms: int) -> None:
        """Add a batch evenly to the minutes that it covers."""
        if not new.any():
            return
        last = end_ms // MINUTE_MS
        minutes = np.arange(max(begin_ms // MINUTE_MS, last - MINUTES + 1), last + 1)
        begins = np.maximum(begin_ms, minutes * MINUTE_MS)
        covered = np.minimum(end_ms, (minutes + 1) * MINUTE_MS) - begins
        parts = covered / (end_ms - begin_ms) if end_ms > begin_ms else np.ones(1)
        self.minutes[:, minutes % MINUTES] += np.outer(new, parts)

    def _numbered(self, batch: Impressions) -> tuple[I32, I32]:
        """The numbers of a message's placements and of its units."""
        places = [self._places.get(name, NEVER) for name in batch.placements]
        number = self._gaps.number
        platforms = [NEVER if name is None else number(f"platform:{name}") for name in batch.platforms]
        partitions = [number(f"partition:{partition}") for partition, _ in batch.sources]
        senders = [number(f"sender:{sender}") if sender else NEVER for _, sender in batch.sources]
        placed, platform, source = batch.places.T
        units_by_kind = [
            np.array(of, np.int32)[at]
            for of, at in ((partitions, source), (platforms, platform), (senders, source))
        ]
        return np.array(places, np.int32)[placed], np.stack(units_by_kind, axis=1)

    def _note(self) -> None:
        """Note the units that have gone quiet, and drop those that are back."""
        now = {*self._gaps.quiet, *self._gaps.silent}
        for unit in self.quiet.keys() - now:
            del self.quiet[unit]
        for unit in now - self.quiet.keys():
            self.note(unit)

    def note(self, unit: int) -> None:
        """Note a quiet unit's placements, with their rates before it went quiet."""
        if unit in self.quiet:
            return
        places = np.flatnonzero((self.units == unit).any(axis=1))
        since_ms, nothing = int(self._gaps.table[unit, AT]), np.zeros(len(places))
        self.quiet[unit] = quiet = Quiet(since_ms, places, nothing, nothing.copy())
        at_ms = self.at_ms
        for taken_ms, now_ms, new, begin_ms in self._recent:
            quiet.count(taken_ms, now_ms, new)
            if taken_ms >= since_ms:
                at_ms = min(at_ms, begin_ms)
        whole = bool(self._recent) and self._recent[0][0] < since_ms
        quiet.before = self._rate(places, at_ms, quiet.since, whole)

    def _rate(self, places: I64, since_ms: int, since: F64, whole: bool) -> F64:
        """Impressions a minute in the hour before a moment, or since the placement's first impression. For
        the unknown part of that hour the rate of the last day counts.

        Args:
            since_ms: the moment, by event time.
            since: (places,) impressions after it.
            whole: whether all later impressions are in `since`.
        """
        known_min = max(0, since_ms - self._begun_ms) / MINUTE_MS
        if not whole or self.at_ms - since_ms > (MINUTES - 60) * MINUTE_MS:
            known_min = 0.0
        ages = np.maximum(self.at_ms - self.born[places], MINUTE_MS)
        usual = self.whole[places] / (1 - np.exp(-ages / DAY_MS)) / (DAY_MS / MINUTE_MS)
        lived = np.clip((since_ms - self.born[places]) / MINUTE_MS, LEAST_MIN, 60)
        first, last = since_ms // MINUTE_MS - 60, self.at_ms // MINUTE_MS
        hour = self.minutes[places][:, np.arange(max(first, last - MINUTES + 1), last + 1) % MINUTES].sum(
            axis=1
        )
        counted = np.maximum(0, hour - since) * (known_min > 0)
        rates: F64 = (counted + usual * np.maximum(0, lived - known_min)) / lived
        return rates

    def concerned(self, unit: int) -> list[SilentShare]:
        """The placements of a silent unit."""
        self.note(unit)
        quiet = self.quiet[unit]
        own = np.where(self.units[quiet.places] == unit, self.counts[quiet.places], 0).sum(axis=1)
        columns = own, self.whole[quiet.places], quiet.before, quiet.rates
        numbers = zip(*(column.tolist() for column in columns), strict=True)
        return [
            SilentShare(name, *of)
            for place, of in zip(quiet.places.tolist(), numbers, strict=True)
            if (name := self.names[place]) is not None
        ]

    def snapshot(self) -> tuple[Any, ...]:
        """The state as plain values, without the last hour by minutes."""
        used = len(self.names)
        arrays = {name: getattr(self, name)[:used] for name in ("units", "counts", "whole", "born")}
        arrays["totals"] = self.totals[: len(self._gaps.names)]
        arrays["taken_ms"] = np.array([self._taken_ms])
        silent = {unit: _plain(self.quiet[unit]) for unit in self._gaps.silent if unit in self.quiet}
        return self.names, self.at_ms, pack(arrays), silent

    def restore(self, state: Sequence[Any]) -> None:
        """Load `snapshot`'s state."""
        names, self.at_ms, arrays, silent = state
        self.names = [*names]
        self._places = {name: place for place, name in enumerate(names) if name is not None}
        self._free = [place for place, name in enumerate(names) if name is None]
        columns = unpack(arrays)
        self.units, self.counts, self.whole = columns["units"], columns["counts"], columns["whole"]
        self.born, self.totals = columns["born"], np.zeros(MAX_UNITS)
        self.totals[: len(columns["totals"])] = columns["totals"]
        self.minutes = np.zeros((len(names), MINUTES), np.float32)
        self.quiet = {unit: _quiet(*of) for unit, of in silent.items()}
        self._begun_ms, self._waiting = 0, []
        self._left_out = not self.at_ms
        # Older saves lack `taken_ms`, and have an `at_ms` by the wall clock.
        self._taken_ms = int(columns["taken_ms"][0]) if "taken_ms" in columns else self.at_ms


def _plain(quiet: Quiet) -> tuple[dict[str, int], dict[str, Any]]:
    times = {"since_ms": quiet.since_ms, "begun_ms": quiet.begun_ms, "until_ms": quiet.until_ms}
    return times, pack({"places": quiet.places, "before": quiet.before, "since": quiet.since})


def _quiet(times: dict[str, int], arrays: dict[str, Any]) -> Quiet:
    columns = unpack(arrays)
    quiet = Quiet(times["since_ms"], columns["places"], columns["before"], columns["since"])
    return replace(quiet, begun_ms=times["begun_ms"], until_ms=times["until_ms"])
