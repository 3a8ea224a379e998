"""Attribution: the touches that a conversion is credited to. A listener shard has its touches, and its
conversions until they are decided.

A conversion is decided once, when its minute is final. By then every touch that may count has arrived, so the
order of arrival does not matter. Credits are integer millionths that sum to exactly 1,000,000. Models:
https://support.google.com/analytics/answer/1662518 (last interaction, first interaction, linear, time decay),
with a click before any listen in `last_touch`. A conversion without a touch of its listener is passed to its
household's shard (`flows.attribution.households`), which decides it at the same cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np
from msgspec.structs import replace

from flows.attribution.frequency import CLASS_OF, Frequency
from flows.attribution.touch_shard import TouchShard
from flows.attribution.touches import Touches, TouchStore
from flows.model.conversion_columns import BY_LISTENER, WHOLE
from flows.model.decisions import Credit, Decision, PendingConversion
from flows.model.messages import (
    ERASED,
    IMPRESSION_TOUCH,
    KIND,
    KIND_BITS,
    Decided,
    Erased,
    TouchBatch,
    Unjoined,
    UnjoinedBatch,
)
from flows.model.ticks import DAY_MS, MINUTE_MS, Cut
from flows.state.arrays import I64, U64
from flows.state.shard import Stored

LEAST: Final = -(1 << 63)
ENDED_MS: Final = 1 << 60
"""A time later than any event, up to which a log that has ended is decided."""


@dataclass
class ListenerShard(TouchShard):
    """The touches and pending conversions of one listener shard.

    Args:
        pending: conversions that are not decided yet. Impressions before `decided_ms` are in `frequency`.

    Attributes:
        unjoined: the latest cut's message to every household shard, empty or not.
    """

    STEP = "touches"
    FORMAT = 18
    pending: list[PendingConversion] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.begin(TouchStore(self.caps, self.play_ms))
        self.frequency = Frequency()
        self.unjoined: list[UnjoinedBatch] = []

    def apply(self, cut: Cut, batches: Sequence[TouchBatch]) -> Decided:
        """Apply the messages of all placement shards for one cut. Decide the conversions whose minute has
        become final, or leave them in `unjoined`.
        """
        before = self.watermark_ms // MINUTE_MS
        self.watermark_ms = max(self.watermark_ms, cut.watermark_ms)
        self.take(
            [
                (one.names, one.listener_hashes, one.ts, one.kinds, one.combos, one.plays)
                for one in batches
                if len(one.listener_hashes)
            ]
        )
        conversions = [one for batch in batches for one in batch.conversions]
        self.pending += conversions
        erased: list[Erased] = []
        if len(forgotten := np.unique(np.concatenate([batch.forgotten for batch in batches]))):
            erased = self.found_of(forgotten)
            self.erase(forgotten)
        decisions: list[Decision] = []
        unjoined: list[Unjoined] = []
        frequency: list[tuple[str, int, int, int]] = []
        end_ms = ENDED_MS if cut.ended else self.final_ms()
        turned = cut.ended or self.watermark_ms // MINUTE_MS > before
        if turned or end_ms > self.decided_ms:
            decisions, unjoined, frequency = self._decide(end_ms)
        # A start is dropped no later than its impression, or it would count as a separate listen for a
        # while.
        self.compact(turned, max(self.rules.click_ms, self.rules.listen_ms + self.store.apart_ms))
        if before // 1440 < self.watermark_ms // DAY_MS:
            self.frequency.sweep(self.decided_ms // DAY_MS)
        accepted = Counter(one.pixel.combo[1] or "" for one in conversions if one.accounted)
        self.unjoined = self._to_households(cut, batches, unjoined, forgotten)
        pending = sum(one.accounted for one in self.pending)
        return Decided(self.index, cut, decisions, dict(accepted), pending, frequency, erased)

    def _to_households(
        self, cut: Cut, batches: Sequence[TouchBatch], unjoined: Sequence[Unjoined], forgotten: U64
    ) -> list[UnjoinedBatch]:
        """The messages to the household shards. The message to the shard with the same number also has the
        new touches, which saves each cut as many messages.
        """
        due: list[list[Unjoined]] = [[] for _ in range(self.shards)]
        for undecided in unjoined:
            due[undecided.conversion.household % self.shards].append(undecided)
        homes = [batch.homes for batch in batches if len(batch.homes.listener_hashes)]
        forgotten = forgotten[forgotten % np.uint64(self.shards) == self.index]  # each by one shard
        return [
            UnjoinedBatch(
                self.index,
                shard,
                cut,
                due[shard],
                self.decided_ms,
                homes if shard == self.index else [],
                forgotten,
            )
            for shard in range(self.shards)
        ]

    # Decisions

    def _decide(self, end_ms: int) -> tuple[list[Decision], list[Unjoined], list[tuple[str, int, int, int]]]:
        """Decide the conversions before `end_ms`, and count the impressions before it. Returns the decisions,
        the conversions for the households, and the gains of `Decided.frequency`.
        """
        due = _in_order([one for one in self.pending if one.ts_ms < end_ms])
        self.pending = [one for one in self.pending if one.ts_ms >= end_ms]
        decisions: list[Decision] = []
        unjoined: list[Unjoined] = []
        frequency: list[tuple[str, int, int, int]] = []
        if due:
            listeners = np.unique(np.array([one.listener for one in due if one.listener], np.uint64))
            touches = self.store.touches_of(listeners)
            decisions, unjoined = self._credit(due, touches)
            self.capped += sum(decision.capped for decision in decisions)
            decisions, more = self._classes(decisions, touches, end_ms)
            frequency += more
        new = self.store.impressions(self.decided_ms, end_ms)
        campaigns, places = self._campaigns_of(new)
        gained = self.frequency.count(new.owners, new.ts >> KIND_BITS, campaigns, places)
        if end_ms == ENDED_MS:  # all minutes of an ended log that have a pixel are final
            latest_touch_ms = int(new.ts.max()) >> KIND_BITS if len(new) else 0
            latest_ms = max(self.watermark_ms, latest_touch_ms, due[-1].ts_ms if due else 0)
            end_ms = (latest_ms // MINUTE_MS + 1) * MINUTE_MS
        self.decided_ms = max(self.decided_ms, end_ms)
        return decisions, unjoined, [*frequency, *((*one, 0) for one in gained)]

    def _campaigns_of(self, touches: Touches) -> tuple[list[str | None], I64]:
        """The campaigns of some touches, and by touch the place of its campaign among them."""
        numbers, places = np.unique(self.of_campaign[touches.combo], return_inverse=True)
        names = list(self.campaigns)
        return [names[number] for number in numbers.tolist()], places

    def _classes(
        self, decisions: list[Decision], touches: Touches, end_ms: int
    ) -> tuple[list[Decision], list[tuple[str, int, int, int]]]:
        """Sum the credits of decisions by the number of impressions of the credited campaign that the
        listener had had up to the conversion. Conversions that another shard also decides are left out. A
        decision that may be a confirmation carries its part itself.
        """
        of_decisions, credited, shares = list[int](), list[str](), list[int]()
        for number, decision in enumerate(decisions):
            millionths_by_campaign: dict[str | None, int] = {}
            for part in decision.credits if decision.conversion.listener and _is_final(decision) else ():
                millionths_by_campaign[part.combo[1]] = (
                    millionths_by_campaign.get(part.combo[1], 0) + part.millionths
                )
            for campaign, millionths in millionths_by_campaign.items():
                if campaign is not None:
                    of_decisions.append(number)
                    credited.append(campaign)
                    shares.append(millionths)
        if not shares:
            return decisions, []
        conversions = [decisions[number].conversion for number in of_decisions]
        open_ms = (touches.ts >= self.decided_ms << KIND_BITS) & (touches.ts < end_ms << KIND_BITS)
        impressions = touches.select(open_ms & (touches.ts & KIND == IMPRESSION_TOUCH))
        counts = self.frequency.up_to(
            np.array([one.listener for one in conversions], np.uint64),
            np.array([one.ts_ms for one in conversions], np.int64),
            credited,
            (impressions.owners, impressions.ts >> KIND_BITS, *self._campaigns_of(impressions)),
        )
        sums, decisions = Counter[tuple[str, int]](), [*decisions]
        for number, campaign, place, count, millionths in zip(
            of_decisions, credited, CLASS_OF[counts].tolist(), counts.tolist(), shares, strict=True
        ):
            decision = decisions[number]
            if count and decision.conversion.claimed_ms is not None:
                classes = (*decision.classes, (campaign, place, 0, millionths))
                decisions[number] = replace(decision, classes=classes)
            elif count:
                sums[campaign, place] += millionths
        return decisions, [(*one, 0, millionths) for one, millionths in sums.items()]

    def _credit(
        self, due: Sequence[PendingConversion], touches: Touches
    ) -> tuple[list[Decision], list[Unjoined]]:
        """Decide conversions, or leave them to the households; `touches` are all touches of the listeners,
        sorted.
        """
        decisions: list[Decision] = []
        unjoined: list[Unjoined] = []
        declared = [one.pixel.combo[0] for one in due]
        listeners = [
            0 if named is not None else one.listener for one, named in zip(due, declared, strict=True)
        ]
        eligible_touches = self.eligible_touches(due, np.array(listeners, np.uint64), *self.standing(touches))
        for conversion, named, eligible in zip(due, declared, eligible_touches, strict=True):
            if named is not None:
                whole = [Credit(self.without_touch(named, conversion.pixel.combo), WHOLE, "declared", None)]
                decisions.append(Decision(conversion, "declared", whole))
            elif len(eligible):
                decisions.append(self.credited(conversion, eligible, BY_LISTENER))
            elif conversion.household and self.rules.model != "off":
                unjoined.append(Unjoined(conversion, self.may_be_capped(eligible)))
            else:
                decisions.append(self.by_utm(conversion, self.may_be_capped(eligible)))
        return decisions, unjoined

    def found_of(self, owners: U64) -> list[Erased]:
        """Count the state of sorted listeners and households. The shard's own are listed even with 0."""
        waiting = Counter(key for one in self.pending for key in {one.listener, one.household})
        counts_by_owner = zip(
            owners.tolist(),
            (owners % np.uint64(self.shards) == self.index).tolist(),
            self.store.counts(owners).tolist(),
            self.frequency.counts(owners).tolist(),
            strict=True,
        )
        return [
            (key, what, count)
            for key, own, touches, campaigns in counts_by_owner
            for what, count in zip(ERASED, (touches, campaigns, waiting[key]), strict=False)
            if own or count
        ]

    def erase(self, owners: U64) -> int:
        """Erase these listeners and households: remove their touches, and remove them from pending
        conversions. A conversion that loses its listener also loses its household. Returns the number of
        touches.
        """
        erased_count = self.store.erase(owners)
        self.frequency.erase(owners)
        erased_owners = set(owners.tolist())
        self.pending = [
            replace(
                one,
                listener=0 if one.listener in erased_owners else one.listener,
                household=0 if erased_owners & {one.listener, one.household} else one.household,
            )
            for one in self.pending
        ]
        return erased_count

    def stored(self) -> dict[str, Stored]:
        """See `Shard.stored`."""
        return super().stored() | {"frequency": self.frequency}

    def plain(self) -> dict[str, Any]:
        """See `Shard.plain`."""
        return super().plain() | {"pending": _packable(self.pending)}

    def gather(self) -> None:
        """See `Shard.gather`."""
        super().gather()
        self.frequency.table.gather(self.files)

    def restore(self, state: tuple[Any, ...]) -> None:
        """See `Shard.restore`."""
        super().restore(state)
        # Not strict, since a value may be text.
        self.pending = msgspec.convert(state[-1]["pending"], list[PendingConversion], strict=False)


def _is_final(decision: Decision) -> bool:
    """True for a decision that no decision by the edge's previous key can replace, that is not such a
    decision itself, and whose conversion does not count apart.
    """
    conversion = decision.conversion
    if conversion.pixel.apart:
        return False
    return not conversion.is_second and (decision.joined_by is not None or not conversion.has_second)


def _packable(conversions: Sequence[PendingConversion]) -> list[PendingConversion]:
    """Conversions that MessagePack can hold: values below its least integer, -2^63, become text."""
    return [
        replace(one, pixel=replace(one.pixel, value_micros=str(value)))
        if (value := one.pixel.value_micros) is not None and value < LEAST
        else one
        for one in conversions
    ]


def _in_order(conversions: Sequence[PendingConversion]) -> list[PendingConversion]:
    """Conversions by time, listener and key."""
    keys = (
        np.array([one.key for one in conversions], np.uint64),
        np.array([one.listener for one in conversions], np.uint64),
        np.array([one.ts_ms for one in conversions], np.int64),
    )
    return [conversions[place] for place in np.lexsort(keys).tolist()]
