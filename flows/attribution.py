"""Attribution: to which touches a conversion is credited. One listener shard: its touches, and its
conversions until they are decided.

A conversion is decided once, when its minute is final: then every touch that may still count has come, so
that arrival order does not matter. Credits are integer millionths that sum to exactly 1,000,000. Models:
https://support.google.com/analytics/answer/1662518 (last interaction, first interaction, linear, time decay),
with a click before any listen in `last_touch`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from flows.batches import Combo
from flows.clock import DAY_MS, MINUTE_MS, Cut
from flows.frequency import CLASS_OF, Frequency
from flows.journal import Files
from flows.kernel import U64
from flows.messages import Pending, TouchBatch, frozen_pending, thawed_pending
from flows.shards import FORGET_AT, check_format
from flows.touches import CLICK, EARLY_START, GONE, IMPRESSION, KIND_BITS, Touches, TouchStore

FORMAT: Final = 2
STEP: Final = "touches"
"""Its files' place in the recovery directory."""
WHOLE: Final = 1_000_000
SPREAD: Final = 16
"""Cuts over which the shards settle their touches when a minute has ended."""
Model = Literal["last_touch", "first_touch", "linear", "time_decay", "off"]
"""`off`: the placement shards send no touches, so that nothing is eligible."""
WAYS: Final = ("click", "listen", "utm", "declared")
OTHER_RULES: Final = ("declared", "utm", "none")
"""How a conversion is decided that no touch decides."""


@dataclass(frozen=True)
class Rules:
    """How conversions are credited.

    Attributes:
        click_ms, listen_ms: how old a touch may be, both ends inclusive.
        half_life_ms: of `time_decay`.
        utm: `utm_content` to a placement.
    """

    model: Model = "last_touch"
    click_ms: int = 30 * 86_400_000
    listen_ms: int = 14 * 86_400_000
    half_life_ms: int = 7 * 86_400_000
    utm: Mapping[str, str] = field(default_factory=dict)


class Credit(NamedTuple):
    """A part of a conversion: to whom, how much of it (0 for a touch that was eligible and not chosen), how,
    and how long after the touch (None without a touch).
    """

    combo: Combo
    millionths: int
    way: str
    age_ms: int | None


class Decision(NamedTuple):
    """A conversion that has been decided: by which rule, a model or one of `OTHER_RULES`, and what it found,
    in the order of time and placement.
    """

    conversion: Pending
    rule: str
    found: list[Credit]

    @property
    def eligible(self) -> int:
        """How many touches could have been credited."""
        return 0 if self.rule in OTHER_RULES else len(self.found)

    @property
    def credits(self) -> list[Credit]:
        """The parts of the whole; none: unattributed."""
        return [one for one in self.found if one.millionths]


class Decided(NamedTuple):
    """What one listener shard decided at a cut, how many conversions of each campaign ("": of none) came in
    with it, and how many wait.

    `frequency` are (campaign, class of `flows.frequency`, listeners that it gains, millionths of conversions
    from it).
    """

    shard: int
    cut: Cut
    decisions: list[Decision]
    accepted: dict[str, int]
    pending: int
    frequency: list[tuple[str, int, int, int]]


@dataclass
class ListenerShard:
    """Touches and waiting conversions of the listeners of one shard.

    Args:
        lateness_ms: allowed lateness, after which a minute is final.
        recovery: the directory that snapshots may put files in.
        listens, clicks: how many of a listener's newest are looked at and kept.
    """

    index: int
    shards: int
    lateness_ms: int
    rules: Rules
    recovery: Path | None
    listens: int = 64
    clicks: int = 16
    watermark_ms: int = 0
    names: list[Combo] = field(default_factory=list)
    pending: list[Pending] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store, self.frequency = TouchStore(self.listens, self.clicks), Frequency()
        self.numbers: dict[Combo, int] = {}
        self._files = Files(None)
        self._campaign_of = np.zeros(0, np.uint32)
        self.forget_at = FORGET_AT
        self._cuts_left = 0

    def apply(self, cut: Cut, batches: Sequence[TouchBatch]) -> Decided:
        """Take in what all placement shards sent for one cut, and decide what has become final by it."""
        before, undecided_ms = self.watermark_ms // 60_000, self._final_ms()
        self.watermark_ms = max(self.watermark_ms, cut.watermark_ms)
        frequency = self._take(batches)
        conversions = [one for batch in batches for one in batch.conversions]
        self.pending += conversions
        if len(forgotten := np.concatenate([batch.forgotten for batch in batches])):
            self.forget(forgotten)
        decisions: list[Decision] = []
        if turned := cut.ended or self.watermark_ms // 60_000 > before:
            for decision, touches in self._decide(self._final_ms(), cut.ended):
                decisions.append(decision)
                frequency += self._classes(decision, touches)
        self._settle(turned)
        if before // 1440 < self.watermark_ms // DAY_MS:
            # By the cut before, and last: what came with this one may be days older than its watermark.
            self.frequency.sweep(max(0, undecided_ms) // DAY_MS)
            self._campaign_of = self._campaign_of[:0]
        accepted = Counter(one.pixel.combo[1] or "" for one in conversions)
        return Decided(self.index, cut, decisions, dict(accepted), len(self.pending), frequency)

    def _settle(self, turned: bool) -> None:
        """Settle the touches once a minute, each shard at a cut of its own, or all would stop the flow for as
        long as it takes.
        """
        overdue = turned and self._cuts_left > 0
        if turned:
            self._cuts_left = 1 + self.index % SPREAD
        self._cuts_left -= 1
        if overdue or self._cuts_left == 0:
            self._cuts_left = 0
            final_ms = self._final_ms()
            self.store.settle(final_ms - max(self.rules.click_ms, self.rules.listen_ms), final_ms)
            if len(self.names) > self.forget_at:
                self._forget_names()

    def _take(self, batches: Sequence[TouchBatch]) -> list[tuple[str, int, int, int]]:
        """Store and count a cut's touches at once, since each call costs as much as a hundred touches."""
        some = [batch for batch in batches if len(batch.who)]
        if not some:
            return []
        numbers = [np.array([self._number(combo) for combo in batch.names], np.uint32) for batch in some]
        combos = np.concatenate([of[batch.combos] for of, batch in zip(numbers, some, strict=True)])
        columns = zip(*((batch.who, batch.ts, batch.kinds, batch.plays) for batch in some), strict=True)
        who, ts, kinds, plays = map(np.concatenate, columns)
        self.store.add(who, ts, kinds, combos, plays)
        more = [self.frequency.number(combo[1]) for combo in self.names[len(self._campaign_of) :]]
        self._campaign_of = np.append(self._campaign_of, np.array(more, np.uint32))
        return [(*one, 0) for one in self.frequency.count(who, ts, kinds, self._campaign_of[combos])]

    def _final_ms(self) -> int:
        """Conversions before it are decided, and no touch before it can still come."""
        return (self.watermark_ms - self.lateness_ms) // 60_000 * 60_000

    def _number(self, combo: Combo) -> int:
        number = self.numbers.get(combo)
        if number is None:
            number = self.numbers[combo] = len(self.names)
            self.names.append(combo)
        return number

    def _forget_names(self) -> None:
        """Keep only the combinations of names that a touch still refers to."""
        kept = [self.names[number] for number in self.store.renumbered().tolist()]
        self.names, self.numbers = kept, {combo: number for number, combo in enumerate(kept)}
        self._campaign_of = self._campaign_of[:0]
        self.forget_at = max(FORGET_AT, 2 * len(kept))

    def _decide(self, final_ms: int, ended: bool) -> list[tuple[Decision, Touches]]:
        due = sorted((one for one in self.pending if ended or one.ts_ms < final_ms), key=lambda one: one[:3])
        if not due:
            return []
        self.pending = [one for one in self.pending if not ended and one.ts_ms >= final_ms]
        touches = self.store.of(np.array([one.listener for one in due], np.uint64))
        return [(self._credit(one, some), some) for one, some in zip(due, touches, strict=True)]

    def _classes(self, decision: Decision, touches: Touches) -> list[tuple[str, int, int, int]]:
        """By how many impressions of the credited campaigns, up to the conversion, it came: those after it
        are counted by now, and taken off.
        """
        ts_ms, listener = decision.conversion[:2]
        later = touches.combo[(touches.ts & GONE == IMPRESSION) & (touches.ts >> KIND_BITS > ts_ms)].tolist()
        found = []
        for credit in decision.credits if listener else ():
            campaign = credit.combo[1]
            if campaign is not None:
                count = self.frequency.of(listener, campaign) - sum(
                    self.names[combo][1] == campaign for combo in later
                )
                if count > 0:
                    found.append((campaign, int(CLASS_OF[count]), 0, credit.millionths))
        return found

    def _credit(self, conversion: Pending, touches: Touches) -> Decision:
        pixel = conversion.pixel
        if pixel.combo[0] is not None:
            return Decision(conversion, "declared", [Credit(pixel.combo, WHOLE, "declared", None)])
        eligible = self._eligible(conversion, touches) if conversion.listener else []
        if eligible:
            shares = credit(
                self.rules, [(ts, click, combo[0] or "") for ts, click, combo in eligible], conversion.ts_ms
            )
            found = [
                Credit(combo, share, "click" if click else "listen", conversion.ts_ms - ts)
                for (ts, click, combo), share in zip(eligible, shares, strict=True)
            ]
            return Decision(conversion, self.rules.model, found)
        target = self.rules.utm.get(pixel.utm_content) if pixel.utm_content else None
        if target is not None:
            return Decision(conversion, "utm", [Credit((target, *pixel.combo[1:]), WHOLE, "utm", None)])
        return Decision(conversion, "none", [])

    def _eligible(self, conversion: Pending, touches: Touches) -> list[tuple[int, bool, Combo]]:
        """(time, whether a click, names) of the touches that may be credited, in the order of time and
        placement.

        Of the listener's newest listens and clicks up to the conversion alone, even if the store still has
        more: what it has dropped by now depends on when it last merged. A play's start is no listen where its
        impression is of the conversion's minute or earlier: all of those have come by now, in whatever order.
        """
        kinds, ts = touches.ts & GONE, touches.ts >> KIND_BITS
        minute_end_ms = (conversion.ts_ms // MINUTE_MS + 1) * MINUTE_MS
        heard = touches.play[(kinds == IMPRESSION) & (ts < minute_end_ms)]
        instead = (kinds == EARLY_START) & np.isin(touches.play, heard)
        age = conversion.ts_ms - ts
        window = np.where(kinds == CLICK, self.rules.click_ms, self.rules.listen_ms)
        chosen = (age >= 0) & (age <= window) & (kinds != GONE) & ~instead
        clicks = chosen & (kinds == CLICK)
        campaign = conversion.pixel.combo[1]
        found = []
        for click, some, most in ((True, clicks, self.clicks), (False, chosen & ~clicks, self.listens)):
            times = np.sort(ts[some])
            newest = np.nonzero(some & (ts >= times[-most]))[0] if len(times) > most else np.nonzero(some)[0]
            told = [(int(ts[at]), click, self.names[touches.combo[at]]) for at in newest.tolist()]
            found += sorted(told, key=_rank)[-most:]
        return sorted((one for one in found if campaign in (None, one[2][1])), key=_rank)

    def forget(self, who: U64) -> int:
        """Remove all touches of these listeners, and let their waiting conversions know of none; returns how
        many touches.
        """
        gone = self.store.forget(who)
        self.frequency.forget(who)
        known = set(who.tolist())
        self.pending = [one._replace(listener=0) if one.listener in known else one for one in self.pending]
        return gone

    def snapshot(self) -> tuple[Any, ...]:
        """Plain state with its format's version."""
        pending = [frozen_pending(one) for one in self.pending]
        self._files = self._files if self._files.directory else Files.of(self.recovery, STEP, self.index)
        store, frequency = self.store.snapshot(self._files), self.frequency.snapshot(self._files)
        self._files.keep([*self.store.names(), *self.frequency.journal.names()])
        return (
            FORMAT,
            self.shards,
            self.index,
            self.watermark_ms,
            self.names,
            pending,
            store,
            frequency,
        )

    def restore(self, state: tuple[Any, ...]) -> None:
        """Take `snapshot`'s state up again.

        Raises:
            StateError: another format's, or made for another number of shards, or a file is missing.
        """
        check_format("attribution", state, FORMAT, self.shards)
        _, _, self.index, self.watermark_ms, names, pending, store, frequency = state
        for combo in names:
            self._number(tuple(combo))
        self.pending = [thawed_pending(one) for one in pending]
        self._files = Files.of(self.recovery, STEP, self.index)
        self.store.restore(store, self._files)
        self.frequency.restore(frequency, self._files)


def _rank(touch: tuple[int, bool, Combo]) -> tuple[int, bytes, bool, list[bytes]]:
    """By more than time and placement, so that the order is the same whatever order they came in."""
    ts, click, (placement, *names) = touch
    return ts, (placement or "").encode(), click, [(name or "").encode() for name in names]


def credit(rules: Rules, touches: Sequence[tuple[int, bool, str]], at_ms: int) -> list[int]:
    """Millionths of one conversion at `at_ms` for each of its eligible touches (time, whether a click,
    placement); their sum is 1,000,000.

    `touches` are in order of time and placement (UTF-8): of two that are equal in what a model looks at, the
    later in this order is preferred.
    """
    n = len(touches)
    if rules.model == "last_touch":
        chosen = max(range(n), key=lambda i: (touches[i][1], i))
        return [WHOLE * (i == chosen) for i in range(n)]
    if rules.model == "first_touch":
        chosen = max(i for i in range(n) if touches[i][0] == touches[0][0])
        return [WHOLE * (i == chosen) for i in range(n)]
    if rules.model == "linear":
        return apportion([1.0] * n, WHOLE)
    # Against the newest touch, whose weight is 1: against the conversion all of them may be 0.0.
    newest = max(ts for ts, _, _ in touches)
    return apportion([0.5 ** ((newest - ts) / rules.half_life_ms) for ts, _, _ in touches], WHOLE)


def apportion(weights: Sequence[float], whole: int) -> list[int]:
    """`whole` in integer parts by weight, largest remainder first; of equal remainders the later one's."""
    total = sum(weights)
    exact = [whole * weight / total for weight in weights]
    parts = [int(share) for share in exact]
    order = sorted(range(len(parts)), key=lambda i: (exact[i] - parts[i], i), reverse=True)
    for i in order[: whole - sum(parts)]:
        parts[i] += 1
    return parts
