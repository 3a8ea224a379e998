"""Attribution against the specification's words, listener by listener, over logs that are cut anyhow.

The model looks at all that happened, from end to end, for each conversion; the flow has seen it in some
order, some cuts, some restarts, and has dropped and merged on the way.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import pytest
from msgspec import structs
from msgspec.structs import astuple

from flows.attribution.credit_models import Rules, credit
from flows.attribution.listener_shard import ListenerShard
from flows.attribution.touches import Caps
from flows.model.conversion_columns import CLASSES, Model
from flows.model.decisions import PendingConversion
from flows.model.dimensions import Dimensions
from flows.model.messages import CLICK_TOUCH, IMPRESSION_TOUCH, START_TOUCH, Decided, TouchBatch
from flows.model.pixel import ConversionPixel
from flows.model.ticks import Cut

DAY, MINUTE = 86_400_000, 60_000
T0 = 1_764_000_000_000 // DAY * DAY
LATENESS, PLAY_MS = 10 * MINUTE, 30 * MINUTE
CLICK_MS, LISTEN_MS = 3 * DAY, 2 * DAY
LISTENERS = (5, 6, 7)
CAMPAIGNS = ("red", "blue", None)


@dataclass(frozen=True)
class Touch:
    """Something heard or clicked."""

    who: int
    at: int
    kind: int
    combo: Dimensions
    play: int


def shares(rules: Rules, touches: list[tuple[int, bool, str]]) -> list[int]:
    return credit(rules, [ts for ts, _, _ in touches], [click for _, click, _ in touches])


def order(one: Touch) -> tuple[int, bytes, bool, list[bytes]]:
    placement, *names = one.combo
    return (
        one.at,
        (placement or "").encode(),
        one.kind == CLICK_TOUCH,
        [(name or "").encode() for name in names],
    )


@dataclass
class Story:
    """Touches and conversions in the order of time."""

    touches: list[Touch]
    bought: list[PendingConversion]

    def eligible(self, of: PendingConversion, caps: Caps) -> list[Touch]:
        """By the specification: one listen a play, in its window, the newest of each campaign, of these the
        newest of all.
        """
        minute = of.ts_ms // MINUTE
        theirs = [one for one in self.touches if one.who == of.listener]
        heard = [one for one in theirs if one.kind == IMPRESSION_TOUCH and one.at // MINUTE <= minute]
        standing = []
        for one in theirs:
            age = of.ts_ms - one.at
            inside = 0 <= age <= (CLICK_MS if one.kind == CLICK_TOUCH else LISTEN_MS)
            instead = one.kind == START_TOUCH and any(other.play == one.play for other in heard)
            if inside and not instead:
                standing.append(one)
        standing.sort(key=order, reverse=True)
        found = []
        for click, most, in_all in ((True, *caps[1::2]), (False, *caps[0::2])):
            counts: Counter[str | None] = Counter()
            left = []
            for one in standing:
                if (one.kind == CLICK_TOUCH) == click and counts[one.combo[1]] < most:
                    counts[one.combo[1]] += 1
                    left.append(one)
            found += left[:in_all]
        campaign = of.pixel.combo[1]
        return sorted((one for one in found if campaign in (None, one.combo[1])), key=order)

    def heard(self, of: PendingConversion, campaign: str) -> int:
        return sum(
            one.who == of.listener
            and one.kind == IMPRESSION_TOUCH
            and one.combo[1] == campaign
            and one.at <= of.ts_ms
            for one in self.touches
        )


def combo(rng: random.Random) -> Dimensions:
    placement = rng.choice(["a", "é", "\uffff", "\U00010000", "zz"])
    creative = rng.choice([None, "k1", "k2"])
    return (placement, rng.choice(CAMPAIGNS), None, rng.choice(["s1", "s2"]), None, None, creative)


def story(rng: random.Random, plays: int, buyers: int, days: float, kept: bool = False) -> Story:
    """Many touches of few listeners, on a grid, so that moments coincide with the ends of windows. Some plays
    have hours between start and impression, if other pixels have `kept` them.
    """

    def moment() -> int:
        return (
            T0
            + rng.randrange(int(days * 24 * 6)) * 10 * MINUTE
            + rng.choice([0, 0, 1, rng.randrange(MINUTE)])
        )

    touches = []
    for play in range(plays):
        who, at, names = rng.choice(LISTENERS), moment(), combo(rng)
        apart = rng.choice([0, -1000, 1000, 70_000, -70_000, 5 * MINUTE, *[9 * PLAY_MS, -9 * PLAY_MS] * kept])
        dice = rng.random()
        if dice < 0.7:
            touches.append(Touch(who, at, IMPRESSION_TOUCH, names, play))
        if dice > 0.3:
            touches.append(
                Touch(who if rng.random() < 0.95 else LISTENERS[0], at + apart, START_TOUCH, names, play)
            )
        if rng.random() < 0.3:
            touches.append(Touch(who, at + rng.choice([0, 5000]), CLICK_TOUCH, names, play))
    bought = []
    for number in range(buyers):
        pixel = ConversionPixel(
            (None, rng.choice(CAMPAIGNS), None, None, None, None, None),
            "purchase",
            f"o{number}",
            "e",
            None,
            None,
            None,
        )
        bought.append(PendingConversion(moment(), rng.choice(LISTENERS), number, pixel))
    return Story(touches, bought)


def batch(cut: Cut, touches: list[Touch], bought: list[PendingConversion]) -> TouchBatch:
    return TouchBatch(
        0, 0, cut,
        [one.combo for one in touches],
        np.array([one.who for one in touches], np.uint64),
        np.array([one.at for one in touches], np.int64),
        np.array([one.kind for one in touches], np.uint8),
        np.arange(len(touches), dtype=np.uint32),
        np.array([one.play for one in touches], np.uint32),
        bought,
        np.zeros(0, np.uint64),
    )  # fmt: skip


def flown(rng: random.Random, of: Story, rules: Rules, caps: Caps, cuts: int) -> tuple[list[Decided], int]:
    """The decisions of a shard on a story that arrives out of order within the allowed lateness, in some
    cuts, with restarts between them; and the number of dropped touches.
    """
    shard = ListenerShard(0, 1, LATENESS, rules, None, caps, PLAY_MS)
    coming = [(one.at + rng.randrange(LATENESS - MINUTE), one) for one in of.touches]
    coming += [(one.ts_ms + rng.randrange(LATENESS - MINUTE), one) for one in of.bought]  # type: ignore[misc]
    coming.sort(key=lambda one: one[0])
    last = coming[-1][0]
    every = max(1, (last - T0) // cuts)
    decided = []
    for number, (_, some) in enumerate(groupby(coming, key=lambda one: one[0] // every)):
        here = list(some)
        inside = [one for _, one in here]
        # The cut is past everything that has arrived or may still arrive with a delay.
        cut = Cut(number, here[-1][0] - (LATENESS - MINUTE), False, ())
        touches = [one for one in inside if isinstance(one, Touch)]
        decided.append(
            shard.apply(
                cut, [batch(cut, touches, [one for one in inside if isinstance(one, PendingConversion)])]
            )
        )
        if rng.random() < 0.2:
            again = ListenerShard(0, 1, LATENESS, rules, None, caps, PLAY_MS)
            again.restore(shard.snapshot())
            shard = again
    end = Cut(10**6, last, True, ())
    decided.append(shard.apply(end, [batch(end, [], [])]))
    return decided, shard.store.dropped


CAPS = (
    Caps(),
    Caps(10**6, 10**6, 10**6, 10**6),
    Caps(4, 2, 10**6, 10**6),
    Caps(3, 2, 7, 3),
    Caps(1, 1, 1, 1),
)


@pytest.mark.parametrize("model", ["last_touch", "first_touch", "linear", "time_decay"])
@pytest.mark.parametrize("caps", CAPS)
@pytest.mark.parametrize("seed", range(2))
def test_credits_equal_the_specification_for_any_cuts(seed: int, caps: Caps, model: Model) -> None:
    rng = random.Random(seed)
    of = story(rng, plays=400, buyers=40, days=rng.choice([0.2, 4]), kept=caps.listens >= 64)
    rules = Rules(model, CLICK_MS, LISTEN_MS)
    dropped = 0
    for cuts in (1, 7, 150):
        decided, more = flown(rng, of, rules, caps, cuts)
        dropped += more
        decisions = [one for some in decided for one in some.decisions]
        assert sorted(one.conversion.key for one in decisions) == list(range(len(of.bought)))
        for decision in decisions:
            found = of.eligible(decision.conversion, caps)
            told = [(one.at, one.kind == CLICK_TOUCH, one.combo[0] or "") for one in found]
            right = [
                (
                    one.combo,
                    share,
                    "click" if one.kind == CLICK_TOUCH else "listen",
                    decision.conversion.ts_ms - one.at,
                )
                for one, share in zip(found, shares(rules, told) if told else [], strict=True)
            ]
            assert [astuple(one) for one in decision.all_credits] == right
            everything = of.eligible(decision.conversion, CAPS[1])
            left_out = len(everything) > len(found)
            asked = decision.conversion
            every = structs.replace(asked, pixel=structs.replace(asked.pixel, combo=(None,) * 7))
            of_all = caps.listens_in_all < 10**6 and len(of.eligible(every, CAPS[1])) > len(
                of.eligible(every, caps)
            )
            assert left_out or of_all or not decision.capped, "the caps left nothing out"
            assert not left_out or decision.capped or model == "last_touch"
            if not decision.capped:
                whole = [(one.at, one.kind == CLICK_TOUCH, one.combo[0] or "") for one in everything]
                parts = shares(rules, whole) if whole else []
                uncapped = [(one.combo, share) for one, share in zip(everything, parts, strict=True) if share]
                assert [(one.combo, one.millionths) for one in decision.credits] == uncapped
    assert dropped > 0 or caps.listens >= 64


@pytest.mark.parametrize("cuts", [1, 5, 300])
@pytest.mark.parametrize("seed", range(3))
def test_a_conversions_class_counts_only_listens_before_it(seed: int, cuts: int) -> None:
    """The story has more listens than a counter can store, most of them after the conversion."""
    rng = random.Random(seed)
    of = story(rng, plays=900, buyers=40, days=rng.choice([0.2, 2]))
    late = rng.choice(of.touches)
    many = [replace(late, at=T0 + 2 * DAY + n, kind=IMPRESSION_TOUCH, play=10_000 + n) for n in range(300)]
    of = Story([*of.touches, *many], of.bought)
    decided, _ = flown(rng, of, Rules("linear", CLICK_MS, LISTEN_MS), Caps(), cuts)
    got: Counter[tuple[str, int]] = Counter()
    right: Counter[tuple[str, int]] = Counter()
    listeners: Counter[tuple[str, int]] = Counter()
    for some in decided:
        for campaign, place, gained, millionths in some.frequency:
            got[campaign, place] += millionths
            listeners[campaign, place] += gained
        for decision in some.decisions:
            for one in decision.credits:
                if one.combo[1] is not None and (count := of.heard(decision.conversion, one.combo[1])):
                    right[one.combo[1], class_of(count)] += one.millionths
    assert +got == +right
    ever: Counter[tuple[str, int]] = Counter()
    for who in LISTENERS:
        for campaign in ("red", "blue"):
            forever = PendingConversion(1 << 60, who, 0, of.bought[0].pixel)
            if count := of.heard(forever, campaign):
                ever[campaign, class_of(count)] += 1
    assert +listeners == ever


def class_of(count: int) -> int:
    names = {1: "1", 2: "2", 3: "3", 4: "4-5", 5: "4-5", **dict.fromkeys(range(6, 11), "6-10")}
    return CLASSES.index(names.get(count, "11+"))
