"""A household shard, which decides conversions by the touches of households if their listeners have no touch.

A listener hears a podcast in an app and buys in a browser: no listener id joins the two, but the address
does. A household with more than a set number of listeners is an office or a carrier's gateway, and joins no
conversion. A decision belongs to the same cut as those of the listener shards: by then every touch that may
count has also arrived here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from flows.attribution.household_touches import HOME_SHIFT, HomeStore
from flows.attribution.touch_shard import TouchShard
from flows.model.conversion_columns import BY_HOUSEHOLD
from flows.model.decisions import Decision
from flows.model.messages import ERASED, Decided, Erased, Unjoined, UnjoinedBatch
from flows.model.ticks import MINUTE_MS, Cut
from flows.state.arrays import U64
from flows.state.home_tags import members_of


@dataclass
class HouseholdShard(TouchShard):
    """The touches of one household shard."""

    STEP = "households"
    FORMAT = 7

    def __post_init__(self) -> None:
        window_ms, most = self.rules.listen_ms, self.rules.household_listeners
        self.homes = HomeStore(self.caps, self.play_ms, window_ms=window_ms, most=most)
        self.begin(self.homes)

    def apply(self, cut: Cut, batches: Sequence[UnjoinedBatch]) -> Decided:
        """Apply the messages of all listener shards for one cut, and decide their conversions."""
        before = self.watermark_ms // MINUTE_MS
        self.watermark_ms = max(self.watermark_ms, cut.watermark_ms)
        homes = [one for batch in batches for one in batch.homes]
        self.take(
            [
                (one.names, one.listener_hashes >> HOME_SHIFT, one.ts, one.kinds, one.combos, one.tags)
                for one in homes
            ]
        )
        erased: list[Erased] = []
        if len(forgotten := np.unique(np.concatenate([batch.forgotten for batch in batches]))):
            erased = self.found_of(forgotten)
            self.erase(forgotten)
        unjoined = [one for batch in batches for one in batch.conversions]
        unjoined.sort(key=attrgetter("conversion.ts_ms", "conversion.listener", "conversion.key"))
        decisions = self._decide(unjoined) if unjoined else []
        self.capped += sum(decision.capped for decision in decisions)
        self.decided_ms = max(self.decided_ms, *(batch.decided_ms for batch in batches))
        turned = cut.ended or self.watermark_ms // MINUTE_MS > before
        # A moment within the listen window may be crowded because of touches before the window.
        self.compact(turned, max(self.rules.click_ms, 2 * self.rules.listen_ms + self.homes.apart_ms))
        return Decided(self.shards + self.index, cut, decisions, {}, 0, [], erased)

    def _decide(self, unjoined: Sequence[Unjoined]) -> list[Decision]:
        due = [one.conversion for one in unjoined]
        homes = np.array([one.household for one in due], np.uint64) >> HOME_SHIFT
        ts = np.array([one.ts_ms for one in due], np.int64)
        touches, until = self.standing(self.homes.touches_of(np.unique(homes)))
        crowded = self.homes.crowds(touches, until, homes, ts, ts // MINUTE_MS)
        noisy = (crowded >= 0) & (crowded >= ts - self.rules.listen_ms)
        eligible_touches = self.eligible_touches(due, np.where(noisy, np.uint64(0), homes), touches, until)
        decisions = []
        for undecided, eligible, many in zip(unjoined, eligible_touches, noisy.tolist(), strict=True):
            if eligible.times_ms:
                decisions.append(
                    self.credited(undecided.conversion, eligible, BY_HOUSEHOLD, undecided.capped)
                )
            else:
                capped = undecided.capped or self.may_be_capped(eligible)
                decisions.append(self.by_utm(undecided.conversion, capped, many))
        return decisions

    def found_of(self, owners: U64) -> list[Erased]:
        """The numbers of touches of households, and of listeners in any household; `owners` is sorted."""
        homes, home_of = np.unique(owners >> HOME_SHIFT, return_inverse=True)
        members, member_of = np.unique(members_of(owners), return_inverse=True)
        at_home = np.where(
            owners % np.uint64(self.shards) == self.index, self.homes.counts(homes)[home_of], 0
        )
        counts = at_home + self.homes.member_counts(members)[member_of]
        return [
            (key, ERASED[-1], count)
            for key, count in zip(owners.tolist(), counts.tolist(), strict=True)
            if count
        ]

    def erase(self, owners: U64) -> int:
        """Remove the touches of these listeners and households; returns the number of removed touches."""
        homes = owners[owners % np.uint64(self.shards) == self.index]
        return self.homes.erase(homes >> HOME_SHIFT) + self.homes.erase_members(members_of(owners))
