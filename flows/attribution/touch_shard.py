"""A shard of touches: the base class of listener shards and household shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from flows.attribution.credit_models import Rules, credit
from flows.attribution.eligible import ANY, MET_CLICKS, MET_LISTENS, Lookups, eligible, in_order, standing
from flows.attribution.touches import DEFAULT_CAPS, Caps, Touches, TouchStore
from flows.model.conversion_columns import WHOLE
from flows.model.decisions import Credit, Decision, PendingConversion
from flows.model.dimensions import Dimensions
from flows.model.messages import CLICK_TOUCH, KIND, KIND_BITS
from flows.model.ticks import HOUR_MS, MINUTE_MS, open_from
from flows.state.arrays import I64, U8, U32, U64
from flows.state.interner import Interner
from flows.state.shard import Shard, Stored

SPREAD: Final = 16
"""The number of cuts over which the shards compact touches after the end of a minute."""
UNKNOWN: Final = -2
"""The number of a campaign without touches."""


class EligibleTouches(msgspec.Struct, frozen=True, gc=False):
    """The eligible touches of one conversion, in the order of time and placement, as a slice of the touches
    of many. Each touch has its time, whether it is a click, and its names.
    `flows.attribution.eligible.Eligible` describes `met`.
    """

    every_time: list[int]
    every_click: list[bool]
    every_combo: list[Dimensions]
    begin: int
    end: int
    met: int

    def __len__(self) -> int:
        return self.end - self.begin

    @property
    def times_ms(self) -> list[int]:
        """The times of the touches, epoch ms."""
        return self.every_time[self.begin : self.end]

    @property
    def clicks(self) -> list[bool]:
        """For each touch, whether it is a click."""
        return self.every_click[self.begin : self.end]

    @property
    def combos(self) -> list[Dimensions]:
        """The names of the touches."""
        return self.every_combo[self.begin : self.end]


@dataclass
class TouchShard(Shard):
    """Touches by listener or household, with the names of the touches.

    Args:
        lateness_ms: allowed lateness, after which a minute is final.
        recovery: the directory that snapshots may put files in.
        caps: the number of a listener's or household's newest touches that are considered and stored.
        play_ms: see `flows.attribution.touches.TouchStore`.
        decided_ms: conversions before it are decided.
        capped: the number of decisions that a cap may have changed.

    Attributes:
        names: dimensions by the number that touches refer to them by.
        campaigns: campaigns by their number.
        of_campaign: by the number of dimensions, the number of their campaign.
    """

    PLAIN = ("index", "watermark_ms", "decided_ms", "capped")
    index: int
    shards: int
    lateness_ms: int
    rules: Rules
    recovery: Path | None
    caps: Caps = DEFAULT_CAPS
    play_ms: int = 30 * 60_000
    watermark_ms: int = 0
    decided_ms: int = 0
    capped: int = 0

    def begin(self, store: TouchStore) -> None:
        """Begin without a touch."""
        self.store = store
        self.names = Interner[Dimensions](limit=store.most_names)
        self._renumber_campaigns()
        self._cuts_left = 0
        self._hour = 0

    def _renumber_campaigns(self) -> None:
        self.campaigns: dict[str | None, int] = {}
        self.of_campaign = np.zeros(0, np.uint32)
        self._number_campaigns()

    def take(self, batches: Sequence[tuple[Sequence[Dimensions], U64, I64, U8, U32, U32 | U64]]) -> None:
        """Store a cut's touches at once, since each call costs as much as a hundred touches. If no number is
        left for its names, a touch is dropped, and counted as dropped.

        Args:
            batches: names, and for each touch: listener or household, time, kind, place of its names, and
                play.
        """
        if not batches:
            return
        begins = accumulate((len(one[0]) for one in batches), initial=0)
        numbers = self.names.numbers([*chain.from_iterable(one[0] for one in batches)])
        combos = numbers.astype(np.uint32)[
            np.concatenate([one[4] + begin for one, begin in zip(batches, begins, strict=False)])
        ]
        columns = zip(*((one[1], one[2], one[3], one[5]) for one in batches), strict=True)
        owners, ts, kinds, plays = map(np.concatenate, columns)
        self._number_campaigns()
        if combos.max(initial=0) >= self.store.most_names:
            numbered = combos < self.store.most_names
            self.store.dropped += len(numbered) - int(numbered.sum())
            owners, ts, kinds, combos, plays = (one[numbered] for one in (owners, ts, kinds, combos, plays))
        self.store.add(owners, ts, kinds, combos, plays)

    def stored(self) -> dict[str, Stored]:
        """See `Shard.stored`."""
        return {"names": self.names, "store": self.store}

    def gather(self) -> None:
        """See `Shard.gather`."""
        self.store.gather(self.files)

    def restore(self, state: tuple[Any, ...]) -> None:
        """See `Shard.restore`."""
        super().restore(state)
        self._renumber_campaigns()

    def final_ms(self) -> int:
        """The time before which conversions can be decided: no earlier touch can still arrive."""
        return open_from(self.watermark_ms, self.lateness_ms) * MINUTE_MS

    def compact(self, turned: bool, kept_ms: int) -> None:
        """Compact the touches once a minute, `1 + index % SPREAD` cuts after the minute has ended. If all
        shards did so at one cut, the flow would stop for the sum of the times.

        Args:
            turned: whether a minute has just ended.
            kept_ms: the time before the latest decision for which touches are kept.
        """
        overdue = turned and self._cuts_left > 0
        if turned:
            self._cuts_left = 1 + self.index % SPREAD
        self._cuts_left -= 1
        if overdue or self._cuts_left == 0:
            self._cuts_left = 0
            settled_ms = min(self.decided_ms, self.final_ms())
            self.store.compact(settled_ms - kept_ms, settled_ms, self.of_campaign)
            before, self._hour = self._hour, self.watermark_ms // HOUR_MS
            if self.names.is_due(turned=self._hour > before):
                self._drop_names()

    def _number_campaigns(self) -> None:
        numbers = self.campaigns
        more = [
            numbers.setdefault(combo[1], len(numbers)) for combo in self.names.names[len(self.of_campaign) :]
        ]
        self.of_campaign = np.append(self.of_campaign, np.array(more, np.uint32))

    def _drop_names(self) -> None:
        """Drop the dimensions that no touch refers to, once they are as many as the others."""
        renumbered = self.names.collect(self.store.used_names(len(self.names)))
        if renumbered is not None:
            self.store.renumber(renumbered)
            self._renumber_campaigns()

    def standing(self, touches: Touches) -> tuple[Touches, I64]:
        """Sorted touches in the order of credit, without the starts that no conversion can take; and the
        minute until which each start stands for its play.
        """
        return standing(in_order(touches, self._rank), self.store.apart_ms)

    def eligible_touches(
        self, due: Sequence[PendingConversion], owners: U64, touches: Touches, until: I64
    ) -> list[EligibleTouches]:
        """Find the eligible touches of conversions.

        Args:
            owners: for each conversion, the listener or household whose touches may get credit; 0 without
                one.
            touches, until: the touches of all owners, from `standing`.
        """
        own = [one.pixel.combo[1] for one in due]
        lookups = Lookups(
            np.array([one.ts_ms for one in due], np.int64),
            owners,
            np.array([ANY if name is None else self.campaigns.get(name, UNKNOWN) for name in own], np.int64),
        )
        windows = (self.rules.click_ms, self.rules.listen_ms)
        result = eligible(touches, until, self.of_campaign[touches.combo], lookups, windows, self.store.caps)
        chosen, names = touches.select(result.touch_rows), self.names.names
        times_ms, clicks = (chosen.ts >> KIND_BITS).tolist(), (chosen.ts & KIND == CLICK_TOUCH).tolist()
        combos = [names[number] for number in chosen.combo.tolist()]
        return [
            EligibleTouches(times_ms, clicks, combos, begin, end, met)
            for begin, end, met in zip(
                result.begins.tolist(), result.ends.tolist(), result.met.tolist(), strict=True
            )
        ]

    def may_be_capped(self, touches: EligibleTouches) -> bool:
        """True if a cap may have changed the credits of these touches."""
        met = touches.met
        if met and self.rules.model == "last_touch":
            # This model uses the newest touch: only older clicks can be hidden, or listens if there is no
            # click.
            clicks = touches.clicks
            met &= 0 if True in clicks else MET_CLICKS if clicks else MET_CLICKS | MET_LISTENS
        return met != 0

    def credited(
        self, conversion: PendingConversion, touches: EligibleTouches, by: str, capped: bool = False
    ) -> Decision:
        """Credit a conversion to its eligible touches, at least one.

        Args:
            by: the entry of `flows.model.conversion_columns.JOINED` that has these touches.
            capped: whether a cap may have hidden touches that take precedence.
        """
        at_ms = conversion.ts_ms
        if len(touches) == 1:  # mostly
            begin = touches.begin
            way = "click" if touches.every_click[begin] else "listen"
            credits = [Credit(touches.every_combo[begin], WHOLE, way, at_ms - touches.every_time[begin])]
        else:
            times_ms, clicks = touches.times_ms, touches.clicks
            credits = [
                Credit(combo, share, "click" if click else "listen", at_ms - ts)
                for combo, share, click, ts in zip(
                    touches.combos, credit(self.rules, times_ms, clicks), clicks, times_ms, strict=True
                )
            ]
        return Decision(conversion, self.rules.model, credits, capped or self.may_be_capped(touches), by)

    def by_utm(self, conversion: PendingConversion, capped: bool, noisy: bool = False) -> Decision:
        """Credit a conversion without an eligible touch to the placement that its landing URL names. A
        placement of another campaign than the conversion's gets no credit.
        """
        pixel = conversion.pixel
        target = self.rules.utm.get(pixel.utm_content) if pixel.utm_content else None
        if target is None or pixel.combo[1] not in (None, self.rules.campaigns.get(target, pixel.combo[1])):
            return Decision(conversion, "none", [], capped, None, noisy)
        credits = [Credit(self.without_touch(target, pixel.combo), WHOLE, "utm", None)]
        return Decision(conversion, "utm", credits, capped, None, noisy)

    def without_touch(self, placement: str, combo: Dimensions) -> Dimensions:
        """The dimensions of a placement's credit without a touch, from the conversion. If the conversion
        names no campaign, the campaign is that of the placement's plan, which also has the placement's cost.
        """
        return placement, combo[1] or self.rules.campaigns.get(placement), *combo[2:]

    def _rank(self, number: int, click: bool) -> tuple[bytes, bool, list[bytes]]:
        """The order of touches at one time: by all names, so that it does not depend on arrival."""
        placement, *names = self.names.names[number]
        return (placement or "").encode(), click, [(name or "").encode() for name in names]
