"""Attribution: to which touches a conversion is credited. One listener shard: its touches, and its
conversions until they are decided.

A conversion is decided once, when its minute is final: then every touch that may still count has come, so
that arrival order does not matter. Credits are integer millionths that sum to exactly 1,000,000. Models:
https://support.google.com/analytics/answer/1662518 (last interaction, first interaction, linear, time decay),
with a click before any listen in `last_touch`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from flows.attribution.credit_models import Rules, credit
from flows.attribution.eligible import ANY, MET_CLICKS, MET_LISTENS, Asked, eligible, in_order, standing
from flows.attribution.frequency import CLASS_OF, Frequency
from flows.attribution.touches import DEFAULT_CAPS, Caps, Touches, TouchStore
from flows.model.conversions import WHOLE
from flows.model.dimensions import FORGET_AT, Dimensions
from flows.model.messages import (
    CLICK_TOUCH,
    IMPRESSION_TOUCH,
    KIND,
    KIND_BITS,
    Credit,
    Decided,
    Decision,
    PendingConversion,
    TouchBatch,
    frozen_pending,
    thawed_pending,
)
from flows.model.ticks import DAY_MS, MINUTE_MS, Cut
from flows.state.journal import Files
from flows.state.kernel import I64, U64
from flows.state.snapshot import check_format

FORMAT: Final = 6
STEP: Final = "touches"
"""Its files' place in the recovery directory."""
KEPT: Final = ("index", "watermark_ms", "decided_ms", "capped", "names")
"""The plain attributes of a shard that are in its snapshot."""

SPREAD: Final = 16
"""Cuts over which the shards settle their touches when a minute has ended."""
ENDED_MS: Final = 1 << 60
"""Later than any event: a log that has ended is decided up to here."""
UNKNOWN: Final = -2
"""Instead of the number of a campaign that no touch is of."""


@dataclass
class ListenerShard:
    """The touches and pending conversions of one listener shard.

    Args:
        lateness_ms: allowed lateness, after which a minute is final.
        recovery: the directory that snapshots may put files in.
        caps: how many of a listener's newest touches are looked at and kept.
        play_ms: how far apart the impression and the start of one play may be.
        decided_ms: conversions before it are decided, and impressions before it are in `frequency`.
        capped: how many decisions a cap may have changed.
    """

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
    names: list[Dimensions] = field(default_factory=list)
    pending: list[PendingConversion] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store, self.frequency = TouchStore(self.caps, self.play_ms), Frequency()
        self.numbers: dict[Dimensions, int] = {}
        self.campaigns: dict[str | None, int] = {}
        self._of_campaign = np.zeros(0, np.uint32)
        self._files = Files(None)
        self.forget_at = FORGET_AT
        self._cuts_left = 0

    def apply(self, cut: Cut, batches: Sequence[TouchBatch]) -> Decided:
        """Apply the messages of all placement shards for one cut, and decide the conversions whose minute has
        become final.
        """
        before = self.watermark_ms // MINUTE_MS
        self.watermark_ms = max(self.watermark_ms, cut.watermark_ms)
        self._take(batches)
        conversions = [one for batch in batches for one in batch.conversions]
        self.pending += conversions
        if len(forgotten := np.concatenate([batch.forgotten for batch in batches])):
            self.forget(forgotten)
        decisions: list[Decision] = []
        frequency: list[tuple[str, int, int, int]] = []
        if turned := cut.ended or self.watermark_ms // MINUTE_MS > before:
            decisions, frequency = self._decide(ENDED_MS if cut.ended else self._final_ms())
        self._settle(turned)
        if before // 1440 < self.watermark_ms // DAY_MS:
            self.frequency.sweep(self.decided_ms // DAY_MS)
        accepted = Counter(one.pixel.combo[1] or "" for one in conversions)
        return Decided(self.index, cut, decisions, dict(accepted), len(self.pending), frequency)

    def _settle(self, turned: bool) -> None:
        """Compact the touches once a minute, `1 + index % SPREAD` cuts after it turned. All shards at one cut
        would stop the flow for the sum of their times.
        """
        overdue = turned and self._cuts_left > 0
        if turned:
            self._cuts_left = 1 + self.index % SPREAD
        self._cuts_left -= 1
        if overdue or self._cuts_left == 0:
            self._cuts_left = 0
            settled_ms = min(self.decided_ms, self._final_ms())
            oldest_ms = settled_ms - max(self.rules.click_ms, self.rules.listen_ms)
            self.store.settle(oldest_ms, settled_ms, self._of_campaign)
            if len(self.names) > self.forget_at:
                self._forget_names()

    def _take(self, batches: Sequence[TouchBatch]) -> None:
        """Store a cut's touches at once, since each call costs as much as a hundred touches."""
        some = [batch for batch in batches if len(batch.who)]
        if not some:
            return
        numbers = [np.array([self._number(combo) for combo in batch.names], np.uint32) for batch in some]
        combos = np.concatenate([of[batch.combos] for of, batch in zip(numbers, some, strict=True)])
        columns = zip(*((batch.who, batch.ts, batch.kinds, batch.plays) for batch in some), strict=True)
        who, ts, kinds, plays = map(np.concatenate, columns)
        self.store.add(who, ts, kinds, combos, plays)
        self._number_campaigns()

    def _final_ms(self) -> int:
        """The time before which conversions can be decided: no touch before it can still come."""
        return (self.watermark_ms - self.lateness_ms) // MINUTE_MS * MINUTE_MS

    def _number(self, combo: Dimensions) -> int:
        number = self.numbers.get(combo)
        if number is None:
            number = self.numbers[combo] = len(self.names)
            self.names.append(combo)
        return number

    def _number_campaigns(self) -> None:
        of = self.campaigns
        more = [of.setdefault(combo[1], len(of)) for combo in self.names[len(self._of_campaign) :]]
        self._of_campaign = np.append(self._of_campaign, np.array(more, np.uint32))

    def _forget_names(self) -> None:
        """Drop the dimensions that no touch refers to, and number the rest anew."""
        kept = [self.names[number] for number in self.store.renumbered().tolist()]
        self.names, self.numbers = kept, {combo: number for number, combo in enumerate(kept)}
        self.campaigns, self._of_campaign = {}, np.zeros(0, np.uint32)
        self._number_campaigns()
        self.forget_at = max(FORGET_AT, 2 * len(kept))

    # Decisions

    def _decide(self, end_ms: int) -> tuple[list[Decision], list[tuple[str, int, int, int]]]:
        """Decide the conversions of a time before `end_ms`, and count the impressions before it; returns the
        decisions, and what `Decided.frequency` gains.
        """
        due = sorted((one for one in self.pending if one.ts_ms < end_ms), key=lambda one: one[:3])
        self.pending = [one for one in self.pending if one.ts_ms >= end_ms]
        decisions: list[Decision] = []
        frequency: list[tuple[str, int, int, int]] = []
        if due:
            who = np.unique(np.array([one.listener for one in due if one.listener], np.uint64))
            touches = self.store.of(who)
            decisions = self._credit(due, touches)
            self.capped += sum(decision.capped for decision in decisions)
            frequency += self._classes(decisions, touches, end_ms)
        new = self.store.impressions(self.decided_ms, end_ms)
        campaigns, of = self._campaigns_of(new)
        gained = self.frequency.count(new.who, new.ts >> KIND_BITS, campaigns, of)
        if end_ms == ENDED_MS:  # of a log that has ended all minutes are final that have a pixel
            heard_ms = int(new.ts.max()) >> KIND_BITS if len(new) else 0
            latest_ms = max(self.watermark_ms, heard_ms, due[-1].ts_ms if due else 0)
            end_ms = (latest_ms // MINUTE_MS + 1) * MINUTE_MS
        self.decided_ms = max(self.decided_ms, end_ms)
        return decisions, [*frequency, *((*one, 0) for one in gained)]

    def _campaigns_of(self, touches: Touches) -> tuple[list[str | None], I64]:
        """The campaigns of some touches, and which of them each is of."""
        numbers, of = np.unique(self._of_campaign[touches.combo], return_inverse=True)
        names = list(self.campaigns)
        return [names[number] for number in numbers.tolist()], of

    def _classes(
        self, decisions: Sequence[Decision], touches: Touches, end_ms: int
    ) -> list[tuple[str, int, int, int]]:
        """By how many impressions of the credited campaigns, up to the conversion, each of them came."""
        shares: dict[tuple[int, str], int] = {}
        for number, decision in enumerate(decisions):
            for one in decision.credits if decision.conversion.listener else ():
                if (campaign := one.combo[1]) is not None:
                    shares[number, campaign] = shares.get((number, campaign), 0) + one.millionths
        if not shares:
            return []
        open_ms = (touches.ts >= self.decided_ms << KIND_BITS) & (touches.ts < end_ms << KIND_BITS)
        heard = touches.at(open_ms & (touches.ts & KIND == IMPRESSION_TOUCH))
        conversions = [decisions[number].conversion for number, _ in shares]
        counts = self.frequency.up_to(
            np.array([one.listener for one in conversions], np.uint64),
            np.array([one.ts_ms for one in conversions], np.int64),
            [campaign for _, campaign in shares],
            (heard.who, heard.ts >> KIND_BITS, *self._campaigns_of(heard)),
        )
        return [
            (campaign, int(CLASS_OF[count]), 0, millionths)
            for ((_, campaign), millionths), count in zip(shares.items(), counts.tolist(), strict=True)
            if count
        ]

    def _credit(self, due: Sequence[PendingConversion], touches: Touches) -> list[Decision]:
        """Decide conversions; `touches` are those of all their listeners, sorted."""
        touches, until = standing(in_order(touches, self._rank), self.play_ms)
        own = [one.pixel.combo[1] for one in due]
        asked = Asked(
            np.array([one.ts_ms for one in due], np.int64),
            np.array([0 if one.pixel.combo[0] is not None else one.listener for one in due], np.uint64),
            np.array([ANY if name is None else self.campaigns.get(name, UNKNOWN) for name in own], np.int64),
        )
        windows = (self.rules.click_ms, self.rules.listen_ms)
        got = eligible(touches, until, self._of_campaign[touches.combo], asked, windows, self.caps)
        found, names = touches.at(got.found), self.names
        times_ms, clicks = (found.ts >> KIND_BITS).tolist(), (found.ts & KIND == CLICK_TOUCH).tolist()
        combos = [names[number] for number in found.combo.tolist()]
        parts = [slice(a, b) for a, b in pairwise(got.bounds.tolist())]
        return [
            self._decision(one, times_ms[part], clicks[part], combos[part], met)
            for one, part, met in zip(due, parts, got.met.tolist(), strict=True)
        ]

    def _decision(
        self,
        conversion: PendingConversion,
        times_ms: list[int],
        clicks: list[bool],
        combos: list[Dimensions],
        met: int,
    ) -> Decision:
        """Decide by the eligible touches, of each its time, whether it is a click, and its names; `met` is of
        `Eligible`.
        """
        pixel, ts_ms = conversion.pixel, conversion.ts_ms
        if pixel.combo[0] is not None:
            return Decision(conversion, "declared", [Credit(pixel.combo, WHOLE, "declared", None)])
        if met and self.rules.model == "last_touch":
            # The newest are what it sees: only older clicks, or listens where it sees none, are hidden.
            met &= 0 if True in clicks else MET_CLICKS if clicks else MET_CLICKS | MET_LISTENS
        if times_ms:
            shares = credit(self.rules, times_ms, clicks)
            credits = [
                Credit(combo, share, "click" if click else "listen", ts_ms - ts)
                for combo, share, click, ts in zip(combos, shares, clicks, times_ms, strict=True)
            ]
            return Decision(conversion, self.rules.model, credits, met != 0)
        target = self.rules.utm.get(pixel.utm_content) if pixel.utm_content else None
        if target is not None:
            found_by = [Credit((target, *pixel.combo[1:]), WHOLE, "utm", None)]
            return Decision(conversion, "utm", found_by, met != 0)
        return Decision(conversion, "none", [], met != 0)

    def _rank(self, number: int, click: bool) -> tuple[bytes, bool, list[bytes]]:
        """The order of touches at one moment: by all names, so that it is the same however they came in."""
        placement, *names = self.names[number]
        return (placement or "").encode(), click, [(name or "").encode() for name in names]

    def forget(self, who: U64) -> int:
        """Erase these listeners: remove their touches, and take the listener off their pending conversions;
        returns the number of touches.
        """
        gone = self.store.forget(who)
        self.frequency.forget(who)
        known = set(who.tolist())
        self.pending = [one._replace(listener=0) if one.listener in known else one for one in self.pending]
        return gone

    def snapshot(self) -> tuple[Any, ...]:
        """The state as plain values, with its format."""
        self._files = self._files if self._files.directory else Files.of(self.recovery, STEP, self.index)
        state = {name: getattr(self, name) for name in KEPT}
        state["pending"] = [frozen_pending(one) for one in self.pending]
        state["store"] = self.store.snapshot(self._files)
        state["frequency"] = self.frequency.snapshot(self._files)
        self._files.keep([*self.store.names(), *self.frequency.journal.names()])
        return FORMAT, self.shards, state

    def restore(self, state: tuple[Any, ...]) -> None:
        """Restore the state that `snapshot` gave.

        Raises:
            StateError: another format's, or made for another number of shards, or a file is missing.
        """
        check_format("attribution", state, FORMAT, self.shards)
        *_, of = state
        for name in KEPT:
            setattr(self, name, of[name])
        self.names = list(self.names)
        self.numbers = {combo: number for number, combo in enumerate(self.names)}
        self._number_campaigns()
        self.pending = [thawed_pending(one) for one in of["pending"]]
        self._files = Files.of(self.recovery, STEP, self.index)
        self.store.restore(of["store"], self._files)
        self.frequency.restore(of["frequency"], self._files)
