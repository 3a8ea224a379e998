"""A placement shard: the table of plays, the counts since the last tick, and the messages that carry them to
the rows.

A pure core: batches in, messages out, and a state that can be packed. It does not import the engine.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from secrets import randbits
from typing import Any, Final

import numpy as np

from flows.errors import StateError
from flows.model.client_counts import ClientBatch
from flows.model.counts import LAYOUT
from flows.model.decisions import PendingConversion, pending
from flows.model.dimensions import Dimensions
from flows.model.events import EVENTS
from flows.model.messages import Impressions, Late, PixelOutcomes, Pixels, RowBatch, TouchBatch
from flows.model.pixel import COMBO, HOUSEHOLD, INFO, KEY, LISTENER, MAX_REASONS, POSITION, TS
from flows.model.ticks import ENDED, MINUTE_MS, Cut, open_from, turned_hour
from flows.plays import cohort, slots
from flows.plays.conversion_loop import CONFIRMS, convert
from flows.plays.delay_counts import DelayCounts
from flows.plays.dimension_index import DimensionIndex
from flows.plays.expiry import expire, sweep
from flows.plays.feed import Sources
from flows.plays.increments import Increments
from flows.plays.outgoing import first_in_minute, row_batches, touch_batches
from flows.plays.sent import client_batches
from flows.plays.slots import (
    ACCEPTED,
    CELLS_USED,
    CHANGED,
    COMBO_SHIFT,
    FLAGS,
    INVALID_OUT,
    LATE_OUT,
    LOW,
    MAX_CELLS,
    MAX_SIDES,
    MINUTES,
    SECRET,
    SENT_USED,
    SIDES_USED,
    SLOT_KEY,
    SLOTS_USED,
    TIMES,
    TOUCHES,
)
from flows.state.arrays import I32, I64, doubled, longer
from flows.state.hash_table import MAX_LOAD, HashTable
from flows.state.homes import Homes
from flows.state.shard import Shard, Stored

_NO_NUMBERS: Final = np.zeros(0, np.int32)
_REMEMBERED: Final = 1 << 15
"""The greatest number of a sender's numbers that a shard caches, at four bytes each, even if a sender invents
names.
"""


@dataclass
class PlayShard(Shard):
    """The plays of one placement shard: once, start cohort, lateness.

    Args:
        index, shards: the number of this shard, and of all shards.
        lateness_ms, horizon_ms, conversion_horizon_ms: see `flows.settings`.
        touching: whether touches are sent.
        recovery: the directory that snapshots may put files in.
        secret: see `flows.state.homes`.
    """

    STEP = "plays"
    FORMAT = f"17-{LAYOUT}"
    PLAIN = ("index", "watermark_ms", "first_open", "swept")
    index: int
    shards: int
    lateness_ms: int
    horizon_ms: int
    conversion_horizon_ms: int
    touching: bool = True
    recovery: Path | None = None
    watermark_ms: int = 0
    outcomes: dict[str, I64] = field(default_factory=dict)
    secret: bytes = b""

    def __post_init__(self) -> None:
        self.used = np.zeros(6, np.int64)
        self.used[SECRET] = randbits(63)
        self._homes = Homes(self.secret, self.shards)
        self.names = DimensionIndex(self._homes, slots.MAX_COMBOS)
        self._ours = dict[str, tuple[int, I32]]()
        self.increments = Increments.new()
        # Cleared each minute, and after a restart: a row may have begun, or begun again, since.
        self.bases = np.zeros(len(self.increments.times), np.uint8)
        self.delays = DelayCounts()
        self.sources = Sources()
        self.conversions: list[PendingConversion] = []
        # Final minutes stay final when a restart increases the allowed lateness.
        self.first_open = 0
        self.swept = (0, 0)
        count = self.used[SLOTS_USED : SLOTS_USED + 1]
        self.table = HashTable(len(slots.WORDS), CHANGED, count=count)

    @property
    def plays(self) -> int:
        """The number of stored plays, events and held milestones."""
        return len(self.table)

    # Pixels in

    def apply(self, batch: Pixels) -> list[Late]:
        """Count a batch by the table of plays; returns the pixels that are too late.

        A pixel is repeated, too late or accepted. An accepted pixel adds to cells, which `cut` sends. A
        milestone counts in the minute of its play's start, or is held until the start comes.
        """
        combo_of = self._numbers_of(batch)
        sources = self.sources.numbers(batch.sender, batch.collectors)
        while len(self.sources) > len(self.increments.by_source):
            self.increments = self.increments.with_sources()
        pixels = batch.pixels
        outcomes = _no_outcomes()
        late = np.empty(len(pixels), np.int64)
        done = 0
        while done < len(pixels):
            done = cohort.apply(
                pixels,
                done,
                combo_of,
                batch.by,
                sources,
                self.table.slots,
                self.table.changes,
                self.increments,
                self.bases,
                self.delays.lanes,
                self.delays.counts,
                self.used,
                outcomes,
                late,
                self._final_ms,
                self.lateness_ms,
                self.horizon_ms,
            )
            if done < len(pixels):
                self._make_room()
        lates = [
            Late(
                batch.sender,
                int(pixels[i, POSITION]),
                EVENTS[int(pixels[i, INFO]) & 0xFF],
                int(pixels[i, TS]),
                int(pixels[i, KEY]),
                batch.combos[int(pixels[i, COMBO])],
            )
            for i in late[: outcomes[LATE_OUT]].tolist()
        ]
        if batch.conversions:
            self._convert(batch, outcomes, lates)
        total = self.outcomes.setdefault(batch.sender, _no_outcomes())
        total += outcomes
        return lates

    def _convert(self, batch: Pixels, outcomes: I64, lates: list[Late]) -> None:
        """Count conversions, each once by its own key and horizon."""
        pixels, conversions = batch.converted, batch.conversions
        numbers = self._numbers([conversion.combo for conversion in conversions])
        verdicts, claimed = np.zeros(len(pixels), np.uint8), np.zeros(len(pixels), np.int64)
        done = 0
        while done < len(pixels):
            done = convert(
                pixels,
                done,
                numbers,
                self.table.slots,
                self.table.changes,
                self.increments.totals,
                self.increments.times,
                self.used,
                outcomes,
                verdicts,
                claimed,
                self._final_ms,
                self.lateness_ms,
                self.conversion_horizon_ms,
            )
            if done < len(pixels):
                self._make_room()
        keys, listeners, homes, ts, positions = (
            pixels[:, column].tolist() for column in (KEY, LISTENER, HOUSEHOLD, TS, POSITION)
        )
        for n, verdict in enumerate(verdicts.tolist()):
            conversion = conversions[n]
            if verdict in (ACCEPTED, CONFIRMS):
                claimed_ms = int(claimed[n]) if verdict == CONFIRMS else None
                self.conversions += pending(conversion, ts[n], listeners[n], keys[n], homes[n], claimed_ms)
            elif verdict == LATE_OUT:
                lates.append(Late(batch.sender, positions[n], "conversion", ts[n], keys[n], conversion.combo))

    def _numbers_of(self, batch: Pixels) -> I32:
        """This shard's numbers of a batch's dimensions. Looking up the names costs more than counting a few
        pixels of each, so the sender's numbers are cached with the shard's.
        """
        if not len(batch.numbers):
            return self._numbers(batch.combos)
        numbering, ours = self._ours.get(batch.sender, (0, _NO_NUMBERS))
        if numbering != batch.numbering:
            ours = _NO_NUMBERS
        ours = longer(ours, min(int(batch.numbers.max()) + 1, _REMEMBERED), -1)
        combo_numbers, low = (
            np.full(len(batch.numbers), -1, np.int32),
            np.flatnonzero(batch.numbers < len(ours)),
        )
        combo_numbers[low] = ours[batch.numbers[low]]
        new = np.flatnonzero(combo_numbers < 0)
        if len(new):
            combo_numbers[new] = self._numbers([batch.combos[place] for place in new.tolist()])
            ours[batch.numbers[low]] = combo_numbers[low]
        self._ours[batch.sender] = batch.numbering, ours
        return combo_numbers

    def _numbers(self, combos: Sequence[Dimensions]) -> I32:
        first, numbers = len(self.names), self.names.combos.numbers(combos)
        if numbers.max(initial=0) >= self.names.combos.limit:
            raise StateError(
                f"one shard holds more than {self.names.combos.limit:,} combinations of names: recompute "
                "with more AUDIOPIXEL_SHARDS"
            )
        self._note_names(first)
        return numbers.astype(np.int32)

    def _note_names(self, first: int) -> None:
        """Make room for the increments of the dimensions from the number `first` on."""
        for number in range(first, len(self.names)):
            self.delays.note(number, self.names.combos[number])
        while len(self.names) > len(self.bases):
            self.increments, self.bases = self.increments.with_combos(), doubled(self.bases)

    def _make_room(self) -> None:
        if self.plays + 3 > len(self.table.slots) * 0.99 * MAX_LOAD:
            self.table.rebuild(spare=3)
        if self.used[TOUCHES] + 1 > len(self.increments.listeners):
            self.increments = self.increments.with_touches()
        if self.used[SIDES_USED] + MAX_SIDES > len(self.increments.sides):
            self.increments = self.increments.with_sides()
        if self.used[SENT_USED] + 1 > len(self.increments.sent):
            self.increments = self.increments.with_sent()
        if self.used[CELLS_USED] + MAX_CELLS > len(self.increments.cells) * 3 // 4:
            self.increments = self.increments.with_cells(self.used)
        if self.increments.parts_used[CELLS_USED] + MAX_CELLS > len(self.increments.parts) * 3 // 4:
            self.increments = self.increments.with_parts()
        if self.increments.shown_used[CELLS_USED] + 1 > len(self.increments.shown) * 3 // 4:
            self.increments = self.increments.with_shown()

    # Messages out

    def feed(self, due: bool) -> tuple[list[tuple[str, int]], Impressions | None]:
        """The accepted, valid pixels since the last cut by unit of the feed; and, if due, the impressions by
        source since they were last sent. Call it before `cut`.

        Snapshots hold neither: a restart reads the pixels again, and the impressions cover ten seconds.
        """
        units = [*self.sources.units(self.increments, self.names, self.delays)]
        self.increments.by_source[:] = 0
        if not due:
            return units, None
        impressions = self.sources.impressions(self.increments, self.names)
        self._begin_shown()
        return units, impressions

    def _begin_shown(self) -> None:
        self.sources, self.increments = Sources(), self.increments.without_shown()

    def cut(
        self, cut: Cut, forgotten: Collection[int] = ()
    ) -> tuple[list[RowBatch], list[TouchBatch], list[ClientBatch], list[PixelOutcomes]]:
        """Return all that was counted since the last cut: a message to every row shard, listener shard and
        client shard, empty or not, and outcomes by source partition.

        If a minute has ended or become final, the table is swept first, so that the orphans are in these
        messages.

        Args:
            forgotten: erased listeners and households, which no later pixel has.
        """
        before_ms, opened = self.watermark_ms, self.first_open
        turned = cut.watermark_ms // MINUTE_MS > before_ms // MINUTE_MS
        self.watermark_ms = max(self.watermark_ms, cut.watermark_ms)
        self.first_open = max(self.first_open, open_from(self.watermark_ms, self.lateness_ms))
        if cut.ended or turned or self.first_open > opened:
            self._sweep(cut.ended)
            self.bases[:] = 0
        to, used = (self.index, cut, self.shards, self.names, self.increments), int(self.used[TOUCHES])
        first = first_in_minute(self.increments, used)
        batches = row_batches(*to, first, int(self.used[SIDES_USED]), self.delays.current())
        touches = touch_batches(*to, used if self.touching else 0, self.conversions, forgotten)
        clients = client_batches(*to[:4], self.increments.sent[: int(self.used[SENT_USED])])
        outcomes = []
        for sender, counts in self.outcomes.items():
            accepted, repeated, too_late, *invalid = counts.tolist()
            outcomes.append(PixelOutcomes(sender, accepted, repeated, too_late, tuple(invalid)))
        self.outcomes.clear()
        self.increments = self.increments.begun_anew(self.used)
        self.delays.clear()
        self.conversions = []
        if self.names.combos.is_due(turned_hour(before_ms, self.watermark_ms, self.index)):
            self._drop_combos()
        return batches, touches, clients, outcomes

    @property
    def _final_ms(self) -> int:
        """The watermark at which every final minute is also final by the allowed lateness."""
        return max(self.watermark_ms, self.first_open * 60_000 + self.lateness_ms)

    def _sweep(self, ended: bool) -> None:
        self.swept = (ENDED, ENDED) if ended else (self.watermark_ms, self.first_open)
        if self.recovery is None:
            self.table.changed()
        done, before, table = 0, self.plays, self.table.slots
        while done < len(table):
            done = sweep(table, self.increments.cells, self.increments.counts, self.used, done, *self._ages())
            if done < len(table):
                self.increments = self.increments.with_cells(self.used)
        if self.plays < before:
            self.table.rebuild()

    def _ages(self) -> tuple[int, int, int, int]:
        """The watermarks and horizons of the latest sweep; after the end of the log no slot is dropped."""
        if self.swept[0] == ENDED:
            return *self.swept, ENDED, ENDED
        return *self.swept, self.horizon_ms, self.conversion_horizon_ms

    def _drop_combos(self) -> None:
        """Drop the dimensions that no play refers to if they are half or more, and renumber the rest."""
        table = self.table.slots
        used = table[:, SLOT_KEY] != 0
        flags, minutes, times = (table[used, word] for word in (FLAGS, MINUTES, TIMES))
        reached = slots.reached_combo(minutes, times)
        needed = np.zeros(len(self.names), bool)
        needed[flags >> COMBO_SHIFT] = needed[reached] = True
        renumbered = self.names.collect(np.flatnonzero(needed))
        if renumbered is None:
            return
        numbers = renumbered.astype(np.uint64)
        table[used, FLAGS] = (flags & LOW) | (numbers[flags >> COMBO_SHIFT] << COMBO_SHIFT)
        table[used, MINUTES], table[used, TIMES] = slots.with_combo(minutes, times, numbers[reached])
        self.table.begin_anew()
        self.bases[:] = 0
        self._begin_shown()  # they use the old numbers
        self._ours.clear()
        self.delays = DelayCounts()
        self._note_names(0)

    # State

    def stored(self) -> dict[str, Stored]:
        """See `Shard.stored`."""
        return {"pieces": self.table, "combos": self.names.combos}

    def gather(self) -> None:
        """See `Shard.gather`."""
        self.table.gather(self.files)

    def restore(self, state: tuple[Any, ...]) -> None:
        """See `Shard.restore`; the slots that were swept since are dropped."""
        super().restore(state)
        self.used[SLOTS_USED] = expire(self.table.slots, *self._ages())
        self.table.rebuild()
        self._note_names(0)


def _no_outcomes() -> I64:
    return np.zeros(INVALID_OUT + MAX_REASONS, np.int64)
