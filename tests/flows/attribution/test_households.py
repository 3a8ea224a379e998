"""Conversions by household against the specification's words: joined by the listener before the household,
and by no household of too many people, over logs that are cut anyhow, restored anywhere, and capped.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.attribution.credit_models import Rules
from flows.attribution.eligible import NEVER
from flows.attribution.household_touches import MAX_NAMES, HomeStore, latest_crowd
from flows.attribution.households import HouseholdShard
from flows.attribution.listener_shard import ListenerShard
from flows.attribution.touches import Caps, Touches
from flows.engine.steps import HouseholdsLogic
from flows.instruments import instruments
from flows.model.decisions import Decision, PendingConversion
from flows.model.dimensions import Dimensions
from flows.model.home_touches import HomeTouches
from flows.model.messages import (
    CLICK_TOUCH,
    IMPRESSION_TOUCH,
    KIND_BITS,
    START_TOUCH,
    Decided,
    TouchBatch,
    Unjoined,
    UnjoinedBatch,
    shard_key,
)
from flows.model.pixel import ConversionPixel
from flows.model.ticks import Cut
from flows.settings import Settings
from flows.state.home_tags import tags_of
from flows.state.journal import Files
from flows.state.runs import all_rows
from flows.state.saves import decode, encode

DAY, MINUTE = 86_400_000, 60_000
T0 = 1_764_000_000_000 // DAY * DAY
LATENESS, PLAY_MS = 10 * MINUTE, 30 * MINUTE
RULES = Rules(click_ms=3 * DAY, listen_ms=2 * DAY, utm={"u": "by-utm"}, household_listeners=3)
MANY = Caps(10_000, 10_000, 100_000, 100_000)
SHARDS = 2
CAMPAIGNS = ("red", "blue", None)


def spread(number: int) -> int:
    """A hash, as ids have."""
    return number and (number * 0x9E3779B97F4A7C15 ^ number << 60) % 2**64


@dataclass(frozen=True)
class Touch:
    who: int
    home: int
    at: int
    kind: int
    combo: Dimensions
    play: int


def bought(number: int, at: int, who: int, home: int, campaign: str | None, utm: str | None = None) -> Any:
    combo: Dimensions = (None, campaign, None, None, None, None, None)
    pixel = ConversionPixel(combo, "purchase", None, f"v{number}", None, None, utm)
    return PendingConversion(at, who, number + 1, pixel, home)


def standing(touches: Sequence[Touch], minute: int) -> list[Touch]:
    """Without the starts whose play's impression is of this minute or an earlier one."""
    heard = {
        (one.play, one.who, one.home)
        for one in touches
        if one.kind == IMPRESSION_TOUCH and one.at // MINUTE <= minute
    }
    return [one for one in touches if one.kind != START_TOUCH or (one.play, one.who, one.home) not in heard]


def eligible(touches: Sequence[Touch], of: PendingConversion) -> list[Touch]:
    campaign, found = of.pixel.combo[1], []
    for one in touches:
        window = RULES.click_ms if one.kind == CLICK_TOUCH else RULES.listen_ms
        if 0 <= of.ts_ms - one.at <= window and campaign in (None, one.combo[1]):
            found.append(one)
    return found


def noisy(touches: Sequence[Touch], at: int, most: int) -> bool:
    """True if a touch of the window up to `at` had more than so many listeners in the window up to it."""
    before = [one for one in touches if one.who and one.at <= at]
    return any(
        len({other.who for other in before if 0 <= one.at - other.at <= RULES.listen_ms}) > most
        for one in before
        if one.at >= at - RULES.listen_ms
    )


def last(touches: Sequence[Touch]) -> Touch:
    clicks = [one for one in touches if one.kind == CLICK_TOUCH]
    return max(clicks or touches, key=lambda one: (one.at, (one.combo[0] or "").encode()))


def wanted(touches: Sequence[Touch], of: PendingConversion) -> tuple[str | None, str, str | None, bool]:
    """The identity that joins a conversion, the rule, the placement, and whether the household is noisy."""
    there = standing(touches, of.ts_ms // MINUTE)
    own = eligible([one for one in there if one.who == of.listener and one.who], of)
    if own:
        return "listener", "last_touch", last(own).combo[0], False
    home = [one for one in there if one.home == of.household and one.home]
    many = bool(home) and noisy(home, of.ts_ms, RULES.household_listeners)
    if not many and (theirs := eligible(home, of)):
        return "household", "last_touch", last(theirs).combo[0], False
    by_utm = of.pixel.utm_content == "u"
    return None, "utm" if by_utm else "none", "by-utm" if by_utm else None, many


class Flow:
    """Listener and household shards, fed cut by cut as placement shards would."""

    def __init__(self, caps: Caps, recovery: Path | None = None) -> None:
        self.caps, self.recovery = caps, recovery
        self.listeners = [self._new(ListenerShard, index) for index in range(SHARDS)]
        self.homes = [self._new(HouseholdShard, index) for index in range(SHARDS)]
        self.number = 0
        self.decisions: list[Decision] = []
        self.erased: dict[int, dict[str, int]] = {}

    def _new(self, kind: Callable[..., Any], index: int) -> Any:
        return kind(index, SHARDS, LATENESS, RULES, self.recovery, self.caps, PLAY_MS)

    def restart(self) -> None:
        for shards in (self.listeners, self.homes):
            for index, shard in enumerate(shards):
                again = self._new(type(shard), index)
                again.restore(decode(encode(shard.snapshot())))
                shards[index] = again

    def cut(
        self,
        touches: Sequence[Touch],
        conversions: Sequence[PendingConversion],
        watermark_ms: int,
        ended: bool = False,
        forgotten: Sequence[int] = (),
    ) -> None:
        here = Cut(self.number, watermark_ms, ended, ())
        self.number += 1
        sent = []
        for index, shard in enumerate(self.listeners):
            own = [one for one in touches if one.who and one.who % SHARDS == index]
            home = [one for one in touches if one.home and one.home % SHARDS == index]
            who, ts, kinds, plays = columns(own, "who")
            homes, home_ts, home_kinds, home_plays = columns(home, "home")
            tags = tags_of(np.array([one.who for one in home], np.uint64), home_plays)
            names, home_names = [one.combo for one in own], [one.combo for one in home]
            at_home = HomeTouches(home_names, homes, home_ts, home_kinds, numbers(home), tags)
            due = [one for one in conversions if (one.listener or one.key) % SHARDS == index]
            gone = np.array(sorted(forgotten), np.uint64)
            batch = TouchBatch(0, index, here, names, who, ts, kinds, numbers(own), plays, due, gone, at_home)
            self._take(shard.apply(here, [batch]))
            sent.append(shard.unjoined)
        for index, shard in enumerate(self.homes):
            self._take(shard.apply(here, [batches[index] for batches in sent]))
        if self.number % 2:
            for one in (*self.listeners, *self.homes):
                one.gather()

    def _take(self, decided: Decided) -> None:
        self.decisions += decided.decisions
        for key, what, count in decided.erased:
            of = self.erased.setdefault(key, {})
            of[what] = of.get(what, 0) + count


def numbers(touches: Sequence[Touch]) -> Any:
    return np.arange(len(touches), dtype=np.uint32)


def columns(touches: Sequence[Touch], of: str) -> tuple[Any, Any, Any, Any]:
    return (
        np.array([getattr(one, of) for one in touches], np.uint64),
        np.array([one.at for one in touches], np.int64),
        np.array([one.kind for one in touches], np.uint8),
        np.array([one.play for one in touches], np.uint32),
    )


def story(rng: random.Random) -> tuple[list[Touch], list[PendingConversion]]:
    """Days of a few households: of families, of offices, of listeners without a household and the reverse."""
    touches, conversions = [], []
    homes = [spread(n) for n in (0, 1, 2, 3, 4)]
    size = {home: rng.choice([1, 2, 3, 4, 6, 9]) for home in homes}
    combos: list[Dimensions] = [(f"pl-{n}", CAMPAIGNS[n % 3], None, None, None, None, None) for n in range(6)]
    days = rng.choice([1, 6])
    for play in range(rng.randrange(20, 160)):
        home = rng.choice(homes)
        number = rng.randrange(size[home] + 1)
        who = spread(100 * (homes.index(home) + 1) + number) if number else 0
        at = T0 + rng.choice([rng.randrange(days * DAY), rng.randrange(40 * MINUTE)])
        combo = rng.choice(combos)
        if rng.random() < 0.15:
            touches.append(Touch(who, home, at, CLICK_TOUCH, combo, play))
        if rng.random() < 0.7:
            touches.append(Touch(who, home, at, IMPRESSION_TOUCH, combo, play))
        if rng.random() < 0.7:
            begun = at + rng.choice([0, 400, MINUTE, 9 * MINUTE, -20 * MINUTE])
            touches.append(Touch(who, home, begun, START_TOUCH, combo, play))
    touches = [one for one in touches if one.who or one.home]
    for number in range(rng.randrange(5, 40)):
        home = rng.choice(homes)
        who = spread(100 * (homes.index(home) + 1) + rng.randrange(1, 12)) if rng.random() < 0.6 else 0
        at = T0 + rng.choice(
            [
                rng.randrange(days * DAY),
                rng.randrange(40 * MINUTE),
                *(
                    max(0, one.at - T0) + rng.choice([0, 1, -1, RULES.listen_ms, RULES.listen_ms + 1])
                    for one in rng.sample(touches, min(3, len(touches)))
                ),
            ]
        )
        utm = rng.choice([None, None, "u"])
        conversions.append(bought(number, at, who, home, rng.choice([None, *CAMPAIGNS]), utm))
    return touches, conversions


def play_story(
    rng: random.Random, flow: Flow, touches: list[Touch], conversions: list[PendingConversion]
) -> None:
    """Let a flow have a story in cuts, each event up to the allowed lateness after its time."""
    late = (0, 0, MINUTE, 8 * MINUTE)
    arrivals = [(one.at + rng.choice(late), number, one) for number, one in enumerate(touches)]
    bought_at = [(one.ts_ms + rng.choice(late), number, one) for number, one in enumerate(conversions)]
    watermark = T0 - DAY
    ends = sorted({0, *(at for at, *_ in arrivals + bought_at)})  # type: ignore[operator]  # of both kinds
    step = rng.choice([1, 3, 20])
    for end in ends[step - 1 :: step]:
        some = [one for at, _, one in arrivals if watermark < at <= end]
        due = [one for at, _, one in bought_at if watermark < at <= end]
        rng.shuffle(some)
        watermark = max(watermark, end)
        flow.cut(some, due, watermark)
        if rng.random() < 0.1:
            flow.restart()
    some = [one for at, _, one in arrivals if at > watermark]
    due = [one for at, _, one in bought_at if at > watermark]
    flow.cut(some, due, max([watermark, *ends]), ended=True)


@pytest.mark.parametrize("seed", range(60))
def test_every_conversion_is_joined_as_the_words_say(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    touches, conversions = story(rng)
    flow = Flow(MANY, tmp_path if rng.random() < 0.3 else None)
    play_story(rng, flow, touches, conversions)
    assert len(flow.decisions) == len(conversions)
    for one in flow.decisions:
        got = one.joined_by, one.rule, one.credits[0].combo[0] if one.credits else None, one.noisy
        assert got == wanted(touches, one.conversion), one.conversion
        assert not one.capped


@pytest.mark.parametrize("seed", range(60))
def test_a_household_of_many_is_known_whatever_caps_have_dropped(seed: int, tmp_path: Path) -> None:
    rng = random.Random(1_000 + seed)
    touches, conversions = story(rng)
    touches += [  # a listener with so many touches that caps drop all others
        Touch(
            spread(100 * (1 + n) + 1), spread(n), at, IMPRESSION_TOUCH, touches[0].combo, 10_000 + at % 9_973
        )
        for n in (1, 2, 3, 4)
        for at in range(T0, T0 + rng.randrange(1, 3 * DAY), 97 * MINUTE)
    ]
    flow = Flow(Caps(2, 1, 3, 2), tmp_path if rng.random() < 0.3 else None)
    play_story(rng, flow, touches, conversions)
    unsure = 0
    for one in flow.decisions:
        joined, _, _, many = wanted(touches, one.conversion)
        if one.capped:
            unsure += 1
        else:
            assert (one.joined_by, one.noisy) == (joined, many), one.conversion
        if one.noisy:
            assert many
    assert len(flow.decisions) == len(conversions)
    assert unsure < len(conversions)


def test_stories_have_conversions_of_every_kind() -> None:
    kinds: Counter[tuple[str | None, str, bool]] = Counter()
    for seed in range(60):
        touches, conversions = story(random.Random(seed))
        for one in conversions:
            joined, rule, _, many = wanted(touches, one)
            kinds[joined, rule, many] += 1
    assert min(kinds[kind] for kind in [("listener", "last_touch", False), (None, "none", True)]) > 20
    assert min(kinds[kind] for kind in [("household", "last_touch", False), (None, "utm", True)]) > 20


def named(placement: str, campaign: str | None = "red") -> Dimensions:
    return (placement, campaign, None, None, None, None, None)


def listen(who: int, home: int, at: int, combo: Dimensions) -> Touch:
    return Touch(who, home, at, IMPRESSION_TOUCH, combo, at % 1_000_003)


def test_a_household_credited_after_a_listener_cap_is_marked_capped() -> None:
    flow, who, home = Flow(Caps(100, 100, 3, 3)), spread(7), spread(1)
    touches = [listen(who, 0, T0, named("own")), listen(spread(8), home, T0, named("at-home"))]
    touches += [listen(who, 0, T0 + n * MINUTE, named("other", "blue")) for n in range(1, 5)]
    flow.cut(touches, [bought(1, T0 + 20 * MINUTE, who, home, "red")], T0 + 20 * MINUTE, ended=True)
    (one,) = flow.decisions
    assert (one.joined_by, one.capped) == ("household", True)


def test_a_forgotten_household_leaves_nothing_not_even_its_noise_flag() -> None:
    flow, home = Flow(Caps(1, 1, 1, 1)), spread(1)
    at = [T0 + (n // 9) * 2 * 60 * MINUTE + n for n in range(40)]
    touches = [listen(spread(10 + n % 9), home, when, named("a")) for n, when in enumerate(at)]
    flow.cut(touches, [], T0 + 28 * 60 * MINUTE)
    flow.cut([], [], T0 + 29 * 60 * MINUTE)
    marked = [shard for shard in flow.homes if shard.homes.marks]
    assert marked
    flow.cut([], [bought(1, T0 + 29 * 60 * MINUTE, 0, home, "red")], T0 + 30 * 60 * MINUTE, forgotten=[home])
    assert not any(len(shard.homes) or shard.homes.marks for shard in flow.homes)
    flow.cut([], [], T0 + 31 * 60 * MINUTE, ended=True)
    assert [(one.rule, one.noisy) for one in flow.decisions] == [("none", False)]


def test_dropped_data_of_a_forgotten_person_is_counted() -> None:
    """A listener with touches at two households, and a household with another listener's."""
    flow, who, other = Flow(MANY), spread(7), spread(8)
    homes = [spread(1), spread(2)]
    touches = [listen(who, home, T0 + n, named("a", "red")) for n, home in enumerate(homes)]
    touches += [
        listen(other, homes[0], T0 + 5, named("b", "blue")),
        listen(who, 0, T0 + 9, named("b", "blue")),
    ]
    flow.cut(touches, [bought(1, T0 + DAY, who, homes[0], "red")], T0 + 20 * MINUTE)
    assert flow.erased == {}
    stored = [
        sum(len(shard.store) for shard in flow.listeners),
        sum(len(shard.homes) for shard in flow.homes),
    ]
    flow.cut([], [], T0 + 21 * MINUTE, forgotten=[who, homes[0]])
    left = [sum(len(shard.store) for shard in flow.listeners), sum(len(shard.homes) for shard in flow.homes)]
    nothing = {"touches": 0, "campaigns": 0, "conversions": 0}
    assert flow.erased[who] == {"touches": 3, "campaigns": 2, "conversions": 1, "household_touches": 2}
    assert flow.erased[homes[0]] == {**nothing, "conversions": 1, "household_touches": 2}
    assert (stored, left) == ([4, 3], [1, 0])
    flow.cut([], [], T0 + 22 * MINUTE, forgotten=[spread(9)])
    assert flow.erased[spread(9)] == nothing, "who is unknown has an account, too"


def test_a_pending_conversion_of_a_forgotten_listener_has_no_household() -> None:
    flow, who, home, other = Flow(MANY), spread(7), spread(1), spread(8)
    touches = [listen(one, home, T0, named("a")) for one in (who, other)]
    bought_by = [bought(n, T0 + MINUTE, one, home, "red") for n, one in enumerate((who, other, 0))]
    flow.cut(touches, bought_by, T0)
    flow.cut([], [], T0 + MINUTE, forgotten=[who])
    flow.cut([], [], T0 + DAY, ended=True)
    found = {one.conversion.pixel.event_id: one.joined_by for one in flow.decisions}
    assert found == {"v0": None, "v1": "listener", "v2": "household"}


def test_touches_of_names_beyond_the_limit_are_dropped() -> None:
    shard = HouseholdShard(0, 1, LATENESS, RULES, None, MANY, PLAY_MS)
    shard.names.numbers([named(f"p{n}") for n in range(MAX_NAMES)])
    home, new = spread(1), named("new")
    touches = [listen(0, home, T0, named("p1")), listen(0, home, T0 + 1, new)]
    who, ts, kinds, plays = columns(touches, "home")
    tags = tags_of(np.zeros(2, np.uint64), plays)
    shard.take([([one.combo for one in touches], who >> np.uint64(12), ts, kinds, numbers(touches), tags)])
    assert (len(shard.homes), shard.homes.dropped) == (1, 1)
    assert len(shard.names) == MAX_NAMES
    shard.watermark_ms = shard.decided_ms = T0 + DAY
    shard.compact(True, 3 * DAY)
    shard.compact(False, 3 * DAY)
    assert shard.names.names == [named("p1")], "those of no touch have gone"
    shard.take([([new], who[1:] >> np.uint64(12), ts[1:], kinds[1:], np.zeros(1, np.uint32), tags[1:])])
    assert (len(shard.homes), shard.homes.dropped) == (2, 1)


class Reads:
    """A column that counts how often it is read."""

    def __init__(self, column: Any) -> None:
        self.column, self.reads = column, 0

    def __getitem__(self, row: int) -> Any:
        self.reads += 1
        return self.column[row]


def test_many_conversions_of_a_crowd_read_its_touches_once() -> None:
    n, asked = 2_000, 300
    at = T0 + np.arange(n) * 10
    tags = Reads(tags_of(np.arange(1, n + 1).astype(np.uint64) << np.uint64(40), np.zeros(n, np.uint32)))
    out, of = np.empty(asked, np.int64), np.ones(asked, np.uint64)
    until, when = np.full(n, NEVER), np.full(asked, T0 + MINUTE)
    loop: Any = getattr(latest_crowd, "py_func", latest_crowd)
    loop(np.ones(n, np.uint64), at << KIND_BITS, tags, until, of, when, when // MINUTE, DAY, 3, out)
    assert set(out.tolist()) == {at[-1]}
    assert tags.reads == n


def test_touches_dropped_by_household_caps_are_counted_separately() -> None:
    settings = Settings(recovery_dir=None, touch_listens_in_all=1, shards=1, attribution="linear")
    logic, home = HouseholdsLogic(settings, None), spread(1)
    touches = [listen(0, home, T0 + n * 60 * MINUTE, named("a")) for n in range(5)]
    who, ts, kinds, plays = columns(touches, "home")
    combos, tags = [one.combo for one in touches], tags_of(np.zeros(5, np.uint64), plays)
    homes = [HomeTouches(combos, who, ts, kinds, numbers(touches), tags)]
    due, later = Unjoined(bought(1, T0 + DAY // 2, 0, home, None), False), T0 + DAY
    for number, watermark_ms in enumerate((T0, later, later + MINUTE)):
        cut, now = Cut(number, watermark_ms, False, ()), number == 1
        unjoined = [due] if now else []
        forgotten = np.zeros(0, np.uint64)
        decided_ms = watermark_ms - LATENESS
        logic.cut([UnjoinedBatch(0, 0, cut, unjoined, decided_ms, homes if now else [], forgotten)])
    metrics, label = instruments(), shard_key(settings.shards)
    assert metrics.dropped_touches.labels(label)._value.get() == 3
    assert metrics.capped_decisions.labels(label)._value.get() == 1


@given(st.lists(st.tuples(st.integers(0, 2**47), st.integers(0, 4_102_444_800_000)), min_size=1, max_size=30))
def test_a_packed_touch_is_restored_and_a_run_has_its_latest_time(some: list[tuple[int, int]]) -> None:
    who, ts = (np.array(column) for column in zip(*some, strict=True))
    nothing = np.zeros(len(some), np.uint32), np.zeros(len(some), np.uint64)
    touches = Touches(who.astype(np.uint64), ts.astype(np.int64) << KIND_BITS, *nothing).sorted()
    store, files = HomeStore(), Files(None)
    for of, after in zip(touches.columns, store.unpacked(store.packed(touches)).columns, strict=True):
        assert (of == after).all()
    store.old_runs.add(store.packed(touches), all_rows)
    again = HomeStore()
    again.restore(decode(encode(store.snapshot(files))), files)
    assert [run.mark for of in (store, again) for run in of.old_runs] == [max(ts)] * 2
    for of, after in zip(touches.columns, again.touches_of(np.unique(touches.owners)).columns, strict=True):
        assert (of == after).all()
