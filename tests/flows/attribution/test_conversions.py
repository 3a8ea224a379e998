"""Conversions: credits to the millionth, touches that may count, and decisions that are made once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from rows_support import windows_of

from connectors.stream import Messages
from flows.attribution import credit_book
from flows.attribution.credit_book import CreditBook
from flows.attribution.credit_models import Rules, apportion, credit
from flows.attribution.decisions import decision_record
from flows.attribution.listener_shard import ListenerShard
from flows.attribution.touches import Caps
from flows.intake.decoder import Decoder
from flows.model.conversion_columns import (
    AGES_S,
    CLAIMED,
    CLASSES,
    COLUMNS,
    MONEY_NAMES,
    OTHER,
    VALUED,
    WHOLE,
    Model,
    value_of,
)
from flows.model.counts import FLIGHT_COUNTS, MINUTE_COUNTS
from flows.model.decisions import Credit, Decision, PendingConversion, pending
from flows.model.dimensions import Dimensions
from flows.model.fields import FIELDS
from flows.model.messages import (
    CLICK_TOUCH,
    IMPRESSION_TOUCH,
    START_TOUCH,
    Decided,
    Pixels,
    RowBatch,
    TouchBatch,
)
from flows.model.pixel import LISTENER, WATERMARK, ConversionPixel
from flows.model.plan import Plan, PlanBook
from flows.model.ticks import Cut
from flows.plays.play_shard import PlayShard
from flows.rows.packing import NIL
from flows.rows.published import minute_messages, pack_rows, quantiles_s
from flows.rows.row_shard import RowShard
from flows.state.saves import decode, encode

DAY = 86_400_000
MINUTE = 60_000
T0 = 1_764_000_000_000 // DAY * DAY
MODELS: tuple[Model, ...] = ("last_touch", "first_touch", "linear", "time_decay")
LATENESS = 10 * MINUTE
SOMEBODY = 0xA11CE

Touch = tuple[int, int, str, str | None]
"""Time, kind, placement, campaign."""


def combo(placement: str | None, campaign: str | None) -> Dimensions:
    return (placement, campaign, None, None, None, None, None)


def shard_of_listeners(**rules: Any) -> ListenerShard:
    caps = {name: rules.pop(name) for name in Caps._fields if name in rules}
    return ListenerShard(0, 1, LATENESS, Rules(**rules), None, Caps(**caps))


def conversion(
    at: int, placement: str | None = None, campaign: str | None = None, **more: Any
) -> PendingConversion:
    pixel = {
        "type": "purchase",
        "order_id": f"o{at}",
        "event_id": "e",
        "value_micros": None,
        "currency": None,
    }
    known = {name: value for name, value in more.items() if name not in ("listener", "key")}
    utm = {"utm_content": None}
    return PendingConversion(
        at,
        more.get("listener", SOMEBODY),
        more.get("key", at),
        ConversionPixel(combo=combo(placement, campaign), **{**pixel, **utm, **known}),
    )


def batch(
    cut: Cut,
    touches: Sequence[Touch] = (),
    conversions: Sequence[PendingConversion] = (),
    who: int = SOMEBODY,
) -> TouchBatch:
    return TouchBatch(
        0,
        0,
        cut,
        [combo(placement, campaign) for _, _, placement, campaign in touches],
        np.full(len(touches), who, np.uint64),
        np.array([touch[0] for touch in touches], np.int64),
        np.array([touch[1] for touch in touches], np.uint8),
        np.arange(len(touches), dtype=np.uint32),
        np.arange(len(touches), dtype=np.uint32) + 7,
        list(conversions),
        np.zeros(0, np.uint64),
    )


def moment(watermark_ms: int, ended: bool = False, number: int = 0) -> Cut:
    return Cut(number, watermark_ms, ended, ())


def decided(touches: Sequence[Touch], one: PendingConversion, **rules: Any) -> Decision:
    """The decision on one conversion, everything being there when the log ends."""
    cut = moment(one.ts_ms, ended=True)
    (decision,) = shard_of_listeners(**rules).apply(cut, [batch(cut, touches, [one])]).decisions
    return decision


def shares(decision: Decision) -> dict[str | None, int]:
    """Millionths by placement."""
    found: dict[str | None, int] = {}
    for one in decision.credits:
        found[one.combo[0]] = found.get(one.combo[0], 0) + one.millionths
    return found


# Millionths

SOME_TOUCHES = st.lists(
    st.tuples(
        st.integers(0, 13 * DAY), st.booleans(), st.sampled_from(["a", "b", "é", "\U00010000", "\uffff"])
    ),
    min_size=1,
    max_size=80,
)


def millionths_of(rules: Rules, touches: list[tuple[int, bool, str]]) -> list[int]:
    return credit(rules, [ts for ts, _, _ in touches], [click for _, click, _ in touches])


@given(SOME_TOUCHES, st.sampled_from(MODELS))
def test_the_credits_of_a_conversion_sum_to_a_million(
    touches: list[tuple[int, bool, str]], model: Model
) -> None:
    ordered = sorted(((T0 - age, click, name) for age, click, name in touches), key=lambda one: one[0])
    parts = millionths_of(Rules(model), ordered)
    assert sum(parts) == WHOLE
    assert min(parts) >= 0


@given(st.lists(st.integers(1, 1 << 60), min_size=1, max_size=50), st.integers(0, 10**9))
def test_parts_by_weight_are_off_by_less_than_one(weights: list[int], whole: int) -> None:
    parts = apportion(weights, whole)
    assert sum(parts) == whole
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part * sum(weights) - whole * weight) < sum(weights)


@given(st.integers(-(10**15), 10**15), SOME_TOUCHES, st.sampled_from(MODELS))
def test_a_value_of_either_sign_is_divided_without_a_rest(
    value: int, touches: list[tuple[int, bool, str]], model: Model
) -> None:
    millionths = millionths_of(Rules(model), sorted((T0 - age, click, name) for age, click, name in touches))
    parts = apportion(millionths, value)
    assert sum(parts) == value
    for part, share in zip(parts, millionths, strict=True):
        assert abs(part - value * share // WHOLE) <= 1


@pytest.mark.parametrize(
    ("placements", "first"),
    [(["a", "b"], "b"), (["z", "é"], "é"), (["\uffff", "\U00010000"], "\U00010000"), (["pl", "pl2"], "pl2")],
)
@pytest.mark.parametrize("model", ["last_touch", "first_touch"])
def test_the_greatest_placement_in_utf8_wins_among_simultaneous_touches(
    placements: list[str], first: str, model: Model
) -> None:
    for some in (placements, placements[::-1]):
        touches = [(T0, CLICK_TOUCH, name, None) for name in some]
        assert shares(decided(touches, conversion(T0 + 5), model=model)) == {first: WHOLE}


def test_the_remainder_of_a_million_goes_to_the_latest_greatest_touch() -> None:
    at_once = [(T0, IMPRESSION_TOUCH, name, None) for name in ("b", "c", "a")]
    assert shares(decided(at_once, conversion(T0), model="linear")) == {
        "a": 333_333,
        "b": 333_333,
        "c": 333_334,
    }
    later = [(T0 + (name == "a"), IMPRESSION_TOUCH, name, None) for name in ("b", "c", "a")]
    assert shares(decided(later, conversion(T0 + 1), model="linear"))["a"] == 333_334


@given(
    st.lists(st.integers(0, 60 * DAY), min_size=1, max_size=80),
    st.integers(1000, 60 * DAY),
)
def test_shares_sum_to_a_million_under_any_half_life(ages: list[int], half_life_ms: int) -> None:
    rules = Rules("time_decay", half_life_ms=half_life_ms)
    parts = millionths_of(rules, [(T0 - age, True, "a") for age in sorted(ages, reverse=True)])
    assert sum(parts) == WHOLE
    assert parts == sorted(parts), "an older touch never has more"


def test_shares_of_old_clicks_follow_a_half_life_of_a_second() -> None:
    touches = [(T0 - 30 * DAY, CLICK_TOUCH, "a", None), (T0 - 30 * DAY - 1000, CLICK_TOUCH, "b", None)]
    found = shares(decided(touches, conversion(T0), model="time_decay", half_life_ms=1000, click_ms=60 * DAY))
    assert found == {"a": 666_667, "b": 333_333}


def test_half_a_life_halves_the_weight() -> None:
    touches = [(T0 - 7 * DAY, IMPRESSION_TOUCH, "old", None), (T0, IMPRESSION_TOUCH, "new", None)]
    assert shares(decided(touches, conversion(T0), model="time_decay")) == {"old": 333_333, "new": 666_667}


def test_the_later_touch_gets_the_larger_share_of_equal_remainders() -> None:
    """Doubles gave 666,666 to the newest touch, whose share has the fewest decimal digits."""
    rules = Rules("time_decay")
    touches = [(T0 - 14 * DAY, False, "a"), (T0 - 14 * DAY, False, "b"), (T0, False, "c")]
    assert millionths_of(rules, touches) == [166_666, 166_667, 666_667]


# Eligible touches


@pytest.mark.parametrize(
    ("kind", "window"), [(CLICK_TOUCH, 30 * DAY), (IMPRESSION_TOUCH, 14 * DAY), (START_TOUCH, 14 * DAY)]
)
@pytest.mark.parametrize("model", MODELS)
def test_windows_hold_both_their_ends(kind: int, window: int, model: Model) -> None:
    for age, counts in ((0, True), (window, True), (window + 1, False), (-1, False)):
        decision = decided([(T0 - age, kind, "a", None)], conversion(T0), model=model)
        assert (shares(decision) == {"a": WHOLE}) is counts, age
        assert decision.eligible == counts


def test_windows_are_settings() -> None:
    touches = [(T0 - 2 * DAY, IMPRESSION_TOUCH, "listen", None), (T0 - 3 * DAY, CLICK_TOUCH, "click", None)]
    assert shares(decided(touches, conversion(T0), click_ms=2 * DAY)) == {"listen": WHOLE}
    assert shares(decided(touches, conversion(T0), click_ms=2 * DAY, listen_ms=DAY)) == {}


def test_the_last_click_goes_before_any_listen() -> None:
    touches = [
        (T0, CLICK_TOUCH, "a", None),
        (T0 + 1, CLICK_TOUCH, "b", None),
        (T0 + 2, IMPRESSION_TOUCH, "c", None),
    ]
    decision = decided(touches, conversion(T0 + 3))
    assert [(one.combo[0], one.way, one.age_ms) for one in decision.credits] == [("b", "click", 2)]
    assert decision.eligible == 3


def test_a_conversion_of_a_campaign_is_credited_to_its_touches_alone() -> None:
    touches = [
        (T0, CLICK_TOUCH, "a", "red"),
        (T0 + 1, CLICK_TOUCH, "b", "blue"),
        (T0 + 2, CLICK_TOUCH, "c", None),
    ]
    assert shares(decided(touches, conversion(T0 + 9, campaign="red"))) == {"a": WHOLE}
    assert shares(decided(touches, conversion(T0 + 9, campaign="green"))) == {}
    assert shares(decided(touches, conversion(T0 + 9))) == {"c": WHOLE}


def test_a_declared_placement_has_it_whatever_was_touched() -> None:
    decision = decided([(T0, CLICK_TOUCH, "a", "red")], conversion(T0 + 1, placement="promo", campaign="red"))
    assert [(one.combo[:2], one.way, one.age_ms) for one in decision.credits] == [
        (("promo", "red"), "declared", None)
    ]


@pytest.mark.parametrize(
    ("content", "credited"),
    [
        ("pl 1", {"pl 1": WHOLE}),
        ("spring", {"b": WHOLE}),
        ("Spring", {}),
    ],
)
def test_utm_content_counts_when_nothing_was_touched(content: str, credited: dict[str, int]) -> None:
    utm = {"pl 1": "pl 1", "spring": "b"}
    assert shares(decided([], conversion(T0, utm_content=content), utm=utm)) == credited
    touched = decided([(T0, IMPRESSION_TOUCH, "a", None)], conversion(T0, utm_content=content), utm=utm)
    assert shares(touched) == {"a": WHOLE}


@pytest.mark.parametrize(
    ("named", "planned_in", "credited"),
    [(None, "red", "red"), ("red", "red", "red"), ("blue", "red", "nobody"), ("blue", None, "blue")],
)
def test_utm_content_credits_only_the_planned_campaign(
    named: str | None, planned_in: str | None, credited: str
) -> None:
    campaigns = {"pl": planned_in} if planned_in else {}
    one = conversion(T0, utm_content="pl", campaign=named)
    decision = decided([], one, utm={"pl": "pl"}, campaigns=campaigns)
    found = [of.combo[1] for of in decision.credits] or ["nobody"]
    assert (found, decision.rule) == ([credited], "none" if credited == "nobody" else "utm")


@pytest.mark.parametrize(("named", "credited"), [(None, "red"), ("blue", "blue")])
def test_a_declared_placement_has_its_plans_campaign_by_default(named: str | None, credited: str) -> None:
    decision = decided([], conversion(T0, placement="pl", campaign=named), campaigns={"pl": "red"})
    assert [one.combo[:2] for one in decision.credits] == [("pl", credited)]


def test_a_conversion_of_an_unknown_listener_has_no_touch() -> None:
    cut = moment(T0, ended=True)
    nobody = conversion(T0, listener=0)
    found = shard_of_listeners().apply(cut, [batch(cut, [(T0, CLICK_TOUCH, "a", None)], [nobody])])
    assert [decision.credits for decision in found.decisions] == [[]]


def test_a_play_is_one_listen_at_its_impression_in_any_order() -> None:
    shard = shard_of_listeners(model="linear")
    early, late = moment(T0), moment(T0 + 2 * MINUTE, number=1)
    shard.apply(
        early, [batch(early, [(T0 - 500, START_TOUCH, "a", None), (T0 - 500, START_TOUCH, "b", None)])]
    )
    shard.apply(late, [batch(late, [(T0 - 900, IMPRESSION_TOUCH, "a", None)])])
    last = moment(T0 + 3 * MINUTE, ended=True, number=2)
    (decision,) = shard.apply(last, [batch(last, [], [conversion(T0)])]).decisions
    assert [(one.combo[0], one.millionths, one.age_ms) for one in decision.credits] == [
        ("a", 500_000, 900),
        ("b", 500_000, 500),
    ]


@pytest.mark.parametrize("start_first", [True, False])
@pytest.mark.parametrize(
    ("impression_after_ms", "credited"), [(-1, True), (0, True), (59_999, True), (MINUTE, False)]
)
def test_a_start_is_the_touch_until_its_impressions_minute(
    impression_after_ms: int, credited: bool, start_first: bool
) -> None:
    """`credited`: the conversion, made in the first minute, is the impression's, if it is not before it."""
    pixels = [("start", T0), ("impression", T0 + impression_after_ms)]
    plays = PlayShard(0, 1, LATENESS, 30 * MINUTE, 60 * DAY)
    shard = shard_of_listeners()
    bought_at = T0 + 30_000
    for number, (event, at) in enumerate(pixels if start_first else pixels[::-1]):
        plays.apply(pixels_of(event, at))
        (touches,) = plays.cut(moment(T0, number=number))[1]
        buyer = [conversion(bought_at)] if number == 0 else []
        shard.apply(touches.cut, [touches._replace(conversions=buyer)])
    end = moment(T0 + DAY, ended=True, number=9)
    (decision,) = shard.apply(end, [batch(end)]).decisions
    if credited:
        heard = T0 + impression_after_ms
        assert [one.age_ms for one in decision.all_credits] == (
            [bought_at - heard] if heard <= bought_at else []
        )
    else:
        assert [one.age_ms for one in decision.all_credits] == [bought_at - T0]


def test_a_start_stays_hidden_while_a_conversion_could_use_it() -> None:
    """Its impression, which is further back than the window, is there until the start is, too."""
    shard = shard_of_listeners(click_ms=DAY, listen_ms=DAY)
    bought_at = T0 + DAY + 60 * MINUTE
    others = [(bought_at, IMPRESSION_TOUCH, "z", None)]
    for number, (watermark_ms, touches, who) in enumerate(
        [
            (T0, [(T0, IMPRESSION_TOUCH, "a", None)], SOMEBODY),
            (T0 + 75 * MINUTE, [(T0 + 75 * MINUTE, START_TOUCH, "a", None)], SOMEBODY),
            (bought_at + LATENESS, others, SOMEBODY + 1),
            (bought_at + LATENESS + MINUTE - 1, others, SOMEBODY + 1),
        ]
    ):
        cut = moment(watermark_ms, number=number)
        shard.apply(cut, [batch(cut, touches, who=who)])
    end = moment(bought_at + DAY, ended=True, number=9)
    (decision,) = shard.apply(end, [batch(end, [], [conversion(bought_at)])]).decisions
    assert decision.all_credits == []


def pixels_of(event: str, at: int) -> Pixels:
    """A pixel of the play `p` of placement `a`, as the intake emits it."""
    decoder = Decoder(b"sixteen secret b", consent_default=True)
    line = {
        "event_id": event,
        "event": event,
        "ts": at,
        "placement_id": "a",
        "play_id": "p",
        "listener_id": "L",
    }
    values = [json.dumps(line).encode()]
    found = decoder.decode(Messages(values, [at], at + 1, [0]))
    found.pixels[:, WATERMARK] = T0
    found.pixels[:, LISTENER] = SOMEBODY
    return Pixels("f", 0, found.pixels, found.combos, [])


# Decisions


def test_a_conversion_is_decided_once_when_its_minute_is_final() -> None:
    shard = shard_of_listeners()
    at = T0 + 30_000
    first = moment(at)
    assert shard.apply(first, [batch(first, [(T0, IMPRESSION_TOUCH, "a", None)], [conversion(at)])])[2:5] == (
        [],
        {"": 1},
        1,
    )
    for number, watermark in enumerate((T0 + MINUTE, T0 + MINUTE + LATENESS - 1), 1):
        cut = moment(watermark, number=number)
        assert shard.apply(cut, [batch(cut)])[2:5] == ([], {}, 1)
    click = batch(moment(T0 + MINUTE + LATENESS, number=3), [(at, CLICK_TOUCH, "late", None)])
    found = shard.apply(click.cut, [click])
    assert [shares(decision) for decision in found.decisions] == [{"late": WHOLE}]
    assert (found.accepted, found.pending) == ({}, 0)
    end = moment(T0 + DAY, ended=True, number=4)
    assert shard.apply(end, [batch(end)]).decisions == []


@pytest.mark.parametrize("value", [None, 7, 10**19, -(10**19), -(2**63), -(2**63) - 1])
def test_a_pending_conversion_is_restored_with_its_touches(value: int | None) -> None:
    shard = shard_of_listeners()
    cut = moment(T0 + MINUTE)
    touches = [(T0, CLICK_TOUCH, "a", "red"), (T0 + 1, IMPRESSION_TOUCH, "b", "red")]
    waits = conversion(T0 + 2, value_micros=value, order_id="null", event_id="5", currency="EUR")
    shard.apply(cut, [batch(cut, touches, [waits])])
    again = shard_of_listeners()
    again.restore(decode(encode(shard.snapshot())))
    assert again.pending == [waits]
    end = moment(T0 + DAY, ended=True, number=1)
    left, right = shard.apply(end, [batch(end)]), again.apply(end, [batch(end)])
    assert left == right
    assert [shares(decision) for decision in left.decisions] == [{"a": WHOLE}]


def test_a_second_look_by_the_previous_key_survives_a_restart() -> None:
    shard, now = shard_of_listeners(), moment(T0 + MINUTE)
    waits = conversion(T0, before=(SOMEBODY, 0), listener=7)
    asked = replace(waits, listener=SOMEBODY, is_second=True)
    found = shard.apply(now, [batch(now, [(T0 - 1, IMPRESSION_TOUCH, "a", None)], [waits, asked])])
    assert (found.accepted, found.pending) == ({"": 1}, 1)
    again = shard_of_listeners()
    again.restore(decode(encode(shard.snapshot())))
    assert again.pending == [waits, asked]
    ended = moment(T0 + MINUTE, ended=True, number=1)
    decisions = again.apply(ended, [batch(ended)]).decisions
    assert [(one.conversion.is_second, one.joined_by) for one in decisions] == [
        (False, None),
        (True, "listener"),
    ]


def test_a_listener_forgotten_during_a_wait_leaves_every_state() -> None:
    shard, now, old = shard_of_listeners(), moment(T0 + MINUTE), 0xB0B
    pixel = conversion(T0, before=(old, 0)).pixel
    waits = pending(pixel, T0, SOMEBODY, 5, 0)
    assert [(one.listener, one.has_second, one.is_second) for one in waits] == [
        (SOMEBODY, True, False),
        (old, True, True),
    ]
    who = np.array(sorted((SOMEBODY, old)), np.uint64)
    shard.apply(now, [batch(now, [], waits)._replace(forgotten=who)])
    state = repr_bytes(decode(encode(shard.snapshot())))
    assert [one.to_bytes(8, "little") in state for one in (SOMEBODY, old)] == [False, False]
    declared = pending(conversion(T0, "a", before=(old, 0)).pixel, T0, SOMEBODY, 5, 0)
    assert [one.has_second for one in declared] == [False]


def test_a_watermark_jump_keeps_touches_of_pending_conversions() -> None:
    shard = shard_of_listeners()
    first = moment(T0 + MINUTE)
    shard.apply(first, [batch(first, [(T0, IMPRESSION_TOUCH, "a", None)], [conversion(T0 + 13 * DAY)])])
    leap = moment(T0 + 50 * DAY, number=1)
    many = [(T0 + 40 * DAY + second, IMPRESSION_TOUCH, "b", None) for second in range(60)]
    found = shard.apply(leap, [batch(leap, many)])
    assert [shares(decision) for decision in found.decisions] == [{"a": WHOLE}]


@pytest.mark.parametrize("step", [MINUTE, 7 * MINUTE, 1000 * MINUTE])
def test_the_newest_kept_touches_before_a_conversion_count(
    step: int,
) -> None:
    shard = shard_of_listeners(model="linear", listens=10, clicks=3)
    touches = [
        (T0 + second * 20_000, CLICK_TOUCH if second % 4 == 0 else IMPRESSION_TOUCH, f"p{second}", None)
        for second in range(200)
    ]
    buyer = conversion(T0 + 150 * 20_000)
    decisions: list[Decision] = []
    for number, start in enumerate(range(0, 250 * 20_000, step)):
        cut = moment(T0 + start + step, number=number)
        some = [touch for touch in touches if start <= touch[0] - T0 < start + step]
        due = [buyer] if start <= buyer.ts_ms - T0 < start + step else []
        decisions += shard.apply(cut, [batch(cut, some, due)]).decisions
    end = moment(T0 + DAY, ended=True, number=10**6)
    decisions += shard.apply(end, [batch(end)]).decisions
    (decision,) = decisions
    clicks = {f"p{second}" for second in (140, 144, 148)}
    listens = {f"p{second}" for second in range(138, 151) if second % 4}
    assert set(shares(decision)) == clicks | listens
    if step == MINUTE:
        assert shard.store.dropped > 80


def test_names_without_a_touch_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.state.interner.DROP_AT", 100)
    shard = shard_of_listeners()
    for number in range(300):
        cut = moment(T0 + number * DAY, number=number)
        some = [(cut.watermark_ms, IMPRESSION_TOUCH, f"p{number}-{i}", f"c{i}") for i in range(10)]
        shard.apply(cut, [batch(cut, some)])
    assert len(shard.names) < 1500
    end = moment(T0 + 299 * DAY + 1, ended=True, number=300)
    (decision,) = shard.apply(end, [batch(end, [], [conversion(T0 + 299 * DAY)])]).decisions
    assert shares(decision) == {"p299-9": WHOLE}


def test_names_of_a_flood_are_forgotten_once_their_touches_are_over() -> None:
    shard = shard_of_listeners()
    cut = moment(T0)
    shard.apply(cut, [batch(cut, [(T0, IMPRESSION_TOUCH, f"p{i}", "c") for i in range(2_000)])])
    for number in range(1, 40 * 24):
        cut = moment(T0 + number * DAY // 24, number=number)
        shard.apply(cut, [batch(cut, [(cut.watermark_ms, IMPRESSION_TOUCH, "p0", "c")])])
    assert len(shard.names) == 1


def test_a_forgotten_listener_leaves_touches_counters_and_pending_conversions() -> None:
    shard = shard_of_listeners()
    cut = moment(T0 + MINUTE)
    shard.apply(cut, [batch(cut, [(T0, CLICK_TOUCH, "a", "red")], [conversion(T0 + 1)])])
    shard.apply(moment(T0 + MINUTE, number=1), [batch(cut, [(T0, IMPRESSION_TOUCH, "a", "red")], who=77)])
    assert shard.erase(np.array([SOMEBODY], np.uint64)) == 1
    assert SOMEBODY.to_bytes(8, "little") not in repr_bytes(shard.snapshot())
    end = moment(T0 + DAY, ended=True, number=2)
    both = [conversion(T0 + 2), conversion(T0 + 3, listener=77)]
    found = shard.apply(end, [batch(end, [], both)]).decisions
    assert [shares(decision) for decision in found] == [{}, {}, {"a": WHOLE}]


def repr_bytes(state: Any) -> bytes:
    """All bytes and numbers of a snapshot, one after the other."""
    if isinstance(state, bytes):
        return state
    if isinstance(state, int):
        return state.to_bytes(16, "little", signed=True)
    if isinstance(state, dict):
        return repr_bytes(list(state.items()))
    if isinstance(state, (tuple, list)):
        return b"".join(map(repr_bytes, state))
    return str(state).encode()


# The book


def decision_of(at: int, kind: str, credits: Sequence[tuple[str, int]], **pixel: Any) -> Decision:
    one = conversion(at, type=kind, **pixel)
    return Decision(
        one, "linear", [Credit(combo(name, "red"), share, "click", 61_000) for name, share in credits]
    )


def sums(
    book: CreditBook, *decisions: Decision, accepted: int | None = None, pending: int = 0
) -> dict[tuple[str, str], dict[str, int]]:
    """The sums that cuts add, by row and column."""
    count = len(decisions) + pending if accepted is None else accepted
    own = [one.conversion.pixel.combo[1] or "" for one in decisions]
    assert set(own) <= {""}, "the account is of conversions without a campaign"
    sent = Decided(0, moment(T0), list(decisions), {"": count} if count else {}, pending, [])
    batches, account, _ = book.cut(sent.cut, [sent])
    assert account.accepted == account.attributed + account.unattributed + account.pending
    found: dict[tuple[str, str], dict[str, int]] = {}
    for some in batches:
        for at, column, amount in zip(
            some.row_places.tolist(), some.columns.tolist(), some.amounts.tolist(), strict=True
        ):
            row = found.setdefault(some.rows[at], {})
            if column != VALUED:
                row[COLUMNS[column]] = row.get(COLUMNS[column], 0) + amount
    return found


def test_a_decision_adds_to_every_row_of_its_credits() -> None:
    found = sums(
        CreditBook(4),
        decision_of(T0, "sign_up", [("a", 600_000), ("b", 400_000)], value_micros=5, currency="GBP"),
    )
    assert found["campaign", "red"] == {
        "conversions": WHOLE,
        "conversions_sign_up": WHOLE,
        "conversions_click": WHOLE,
        "conversion_value": 5,
        f"age_{AGES_S.index(120)}": WHOLE,
    }
    assert found["placement", "a"]["conversions"] == 600_000
    assert found["placement", "a"]["conversion_value"] + found["placement", "b"]["conversion_value"] == 5


def test_values_are_of_the_campaigns_first_currency_and_others_are_counted() -> None:
    book = CreditBook(2)
    euros = decision_of(T0, "purchase", [("a", WHOLE)], value_micros=7, currency="EUR")
    pounds = decision_of(T0 + 1, "purchase", [("a", WHOLE)], value_micros=11, currency="GBP")
    bare = decision_of(T0 + 2, "purchase", [("a", WHOLE)], value_micros=13)
    row = sums(book, pounds, bare, euros)["placement", "a"]
    assert (row["conversion_value"], row["conversion_value_other_count"]) == (20, 1)
    again = CreditBook(2)
    again.restore(book.snapshot())
    assert sums(again, pounds)["placement", "a"]["conversion_value_other_count"] == 1


def test_a_public_tags_value_adds_to_its_own_column_alone() -> None:
    book, parts = CreditBook(4), [("a", 600_000), ("b", 400_000)]
    claimed = decision_of(T0, "purchase", parts, value_micros=2**40 + 5, currency="GBP", claimed=True)
    other = decision_of(T0 + 1, "purchase", parts, value_micros=10, currency="GBP")
    euros = decision_of(T0 + 2, "purchase", parts, value_micros=7, currency="EUR", claimed=True)
    none = decision_of(T0 + 3, "purchase", parts, value_micros=None, claimed=True)
    row = sums(book, claimed, other, euros, none)["campaign", "red"]
    assert row == {
        "conversions": 4 * WHOLE,
        "conversions_purchase": 4 * WHOLE,
        "conversions_click": 4 * WHOLE,
        "conversions_claimed": 3 * WHOLE,
        "conversion_value": 10,
        "conversion_value_claimed": row["conversion_value_claimed"],
        "conversion_value_claimed_high": row["conversion_value_claimed_high"],
        "conversion_value_other_count": 1,
        f"age_{AGES_S.index(120)}": 4 * WHOLE,
    }
    assert (row["conversion_value_claimed_high"] << 32) + row["conversion_value_claimed"] == 2**40 + 5
    assert [decision_record(one).body.count(b'"claimed":true') for one in (claimed, other)] == [1, 0]


def test_each_value_carries_its_currency_to_the_row() -> None:
    book = CreditBook(2)
    for at in (T0, T0 + DAY):
        one = decision_of(at, "purchase", [("a", WHOLE)], value_micros=7, currency="EUR")
        batches, _, _ = book.cut(moment(at), [Decided(0, moment(at), [one], {"": 1}, 0, [])])
        told = dict(entry for some in batches for entry in some.currencies)
        assert told["placement", "a"] == told["campaign", "red"] == "EUR"


def test_every_accepted_conversion_is_attributed_unattributed_or_pending() -> None:
    book = CreditBook(2)
    sums(book, decision_of(T0, "purchase", [("a", WHOLE)]), pending=2)
    sums(book, decision_of(T0, "purchase", []), accepted=3, pending=4)
    assert book.decided == (6, 1, 1, 0)
    with pytest.raises(AssertionError):
        sums(book, accepted=1, pending=4)


def test_a_campaign_counts_the_conversions_that_name_it() -> None:
    book = CreditBook(2)
    red = decision_of(T0, "purchase", [("a", WHOLE)], campaign="red")
    blue = decision_of(T0, "purchase", [], campaign="blue")
    sent = Decided(0, moment(T0), [red, blue], {"red": 3, "blue": 1, "": 2}, 4, [])
    batches, total, _ = book.cut(sent.cut, [sent])
    found = dict(one for some in batches for one in some.accounts)
    assert found == {("campaign", "red"): (3, 1, 0, 2, 0), ("campaign", "blue"): (1, 0, 1, 0, 0)}
    assert total == (6, 1, 1, 4, 0)
    later = Decided(0, moment(T0), [red], {"blue": 2}, 5, [])
    batches, total, _ = book.cut(later.cut, [later])
    gained = dict(one for some in batches for one in some.accounts)
    assert gained == {("campaign", "red"): (0, 1, 0, -1, 0), ("campaign", "blue"): (2, 0, 0, 2, 0)}
    assert total == (8, 2, 1, 5, 0)


def test_past_campaigns_do_not_grow_a_book_and_its_cuts() -> None:
    book = CreditBook(2)
    names = [f"made-up-{number}" for number in range(3_000)]
    sent = Decided(0, moment(T0), [], dict.fromkeys(names, 1), len(names), [])
    batches, total, _ = book.cut(sent.cut, [sent])
    assert sum(len(some.accounts) for some in batches) == total.accepted == len(names)
    assert len(repr_bytes(book.snapshot())) < 200
    later = Decided(0, moment(T0), [], {"blue": 1}, len(names) + 1, [])
    batches, total, _ = book.cut(later.cut, [later])
    assert [one for some in batches for one in some.accounts] == [(("campaign", "blue"), (1, 0, 0, 1, 0))]
    assert total.accepted == len(names) + 1


def test_an_uncounted_value_is_reported_and_sets_no_currency() -> None:
    book = CreditBook(2)
    parts = [("a", WHOLE // 2), ("b", WHOLE // 2)]
    other = decision_of(T0, "purchase", parts, value_micros=None, currency="USD", other_value=True)
    none = decision_of(T0 + 1, "purchase", parts, value_micros=None, currency="USD")
    found = sums(book, other, none)
    for placement in "ab":
        row = found["placement", placement]
        assert (row["conversions"], row["conversion_value_other_count"]) == (WHOLE, 1)
        assert row.get("conversion_value", 0) == 0
    assert not book.currencies


def test_a_full_book_of_currencies_loses_and_mixes_no_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(credit_book, "MAX_CURRENCIES", 10)
    book, rows = CreditBook(1), RowShard(0, 1, LATENESS, 0, lambda minute: minute // 1440)
    sold = [
        *(("a", 5, "GBP"), *((f"made-up-{number}", 1, "USD") for number in range(40))),
        *(("honest", 7, "EUR"), ("honest", 7, "EUR"), ("a", 9, "USD"), ("a", 6, "GBP")),
        *(*((f"again-{number}", 1, "USD") for number in range(40)), ("a", 8, "GBP")),
    ]
    shown: dict[tuple[str, str], tuple[int, int, str | None]] = {}
    for number, (placement, value, currency) in enumerate(sold):
        cut = moment(T0 + number, number=number)
        made = bought(placement, f"of {placement}", value, currency, T0 + number)
        (batch,), _, _ = book.cut(cut, [Decided(0, cut, [made], {f"of {placement}": 1}, 0, [])])
        windows, _ = rows.apply(cut, [nothing_for_rows(cut)], batch)
        assert windows is not None
        assert len(book.currencies) <= 10
        for place, (name, known) in enumerate(zip(windows.rows, windows.currencies, strict=True)):
            flight = windows_of(windows.credits, place)[3]
            shown[name] = (0, 0, known) if flight is None else (value_of(flight), int(flight[OTHER]), known)
    for scope, of in (("placement", ""), ("campaign", "of ")):
        assert shown[scope, f"{of}honest"] == (14, 0, "EUR")
        # Values that arrived while the book had the row in dollars are counted and never added to pounds.
        assert shown[scope, f"{of}a"] == (5 + 8, 2, "GBP")


def test_conversions_in_another_currency_of_forgotten_rows_count_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(credit_book, "MAX_CURRENCIES", 10)
    book, rows = CreditBook(1), RowShard(0, 1, LATENESS, 0, lambda minute: minute // 1440)
    parts = [Credit((name, "of a", None, "s", None, None, None), share, "listen", 5) for name, share in
             (("a", 300_000), ("a", 300_000), ("b", 400_000))]  # fmt: skip
    shared = Decision(conversion(T0, value_micros=2**40, currency="USD"), "linear", parts)
    claimed = Decision(conversion(T0, value_micros=2**40, currency="USD", claimed=True), "linear", parts)
    cuts = [
        [bought("a", "of a", 5, "GBP")],
        *([bought(f"made-up-{number}", f"of {number}", 1, "USD")] for number in range(40)),
        [*(bought("a", "of a", value, "USD") for value in (9, 8, 7)), shared, claimed],
    ]
    for number, made in enumerate(cuts):
        cut = moment(T0 + number, number=number)
        accepted = Counter(one.conversion.pixel.combo[1] or "" for one in made)
        (batch,), _, _ = book.cut(cut, [Decided(0, cut, made, accepted, 0, [])])
        windows, _ = rows.apply(cut, [nothing_for_rows(cut)], batch)
    assert windows is not None
    flights = {name: windows_of(windows.credits, place)[3] for place, name in enumerate(windows.rows)}
    for scope, name in (("placement", "a"), ("campaign", "of a")):
        flight = flights[scope, name]
        assert flight is not None
        assert (value_of(flight), value_of(flight, CLAIMED), flight[OTHER]) == (5, 0, 5)


# Sums of money


def nothing_for_rows(cut: Cut) -> RowBatch:
    """The batch of a placement shard without pixels."""
    u32, i64, u64 = (np.zeros(0, kind) for kind in (np.uint32, np.int64, np.uint64))
    cells, totals = np.zeros((0, MINUTE_COUNTS), np.int64), np.zeros((0, FLIGHT_COUNTS), np.int64)
    return RowBatch(0, 0, cut, [], i64, u32, u32, cells, u32, totals, u32, u32, u64, [], i64, i64)


MOST = 10**13 * 10**6
"""Millionths of the largest value of a conversion."""


SOLD = st.tuples(st.integers(-MOST, MOST) | st.sampled_from([MOST, -MOST, 2**53, 1]), st.booleans())
"""A value, and whether it is claimed."""


@given(st.lists(SOLD, min_size=1, max_size=40))
def test_values_add_up_exactly_at_any_size_and_of_either_sign(sold: list[tuple[int, bool]]) -> None:
    """Through the credit book, a row shard that is restarted on the way, and what readers are given."""
    book, rows = CreditBook(1), RowShard(0, 1, LATENESS, 0, lambda minute: minute // 1440, minutes_every=1)
    given_out: dict[str, dict[str, object]] = {}
    for number, one in enumerate((*sold, None)):
        made = [] if one is None else [bought("a", "red", one[0], "GBP", T0 + number, claimed=one[1])]
        cut = moment(T0 + number, ended=one is None, number=number)
        sent = Decided(0, cut, made, {"red": len(made)} if made else {}, 0, [])
        (batch,), _, _ = book.cut(cut, [sent])
        windows, due = rows.apply(cut, [nothing_for_rows(cut)], batch)
        if windows is not None:
            for row in pack_rows(windows, T0, 0):
                named = dict(zip(FIELDS, msgspec.msgpack.decode(row.packed), strict=True))
                given_out[row.scope] = {name: named[f"flight.{name}"] for name in MONEY_NAMES}
        again = RowShard(0, 1, LATENESS, 0, lambda minute: minute // 1440, minutes_every=1)
        again.restore(decode(encode(rows.snapshot())))
        rows = again
    told = [json.loads(body) for some in due for _, body in minute_messages(some, 1, T0, str)]
    for name, claimed in (("conversion_value", False), ("conversion_value_claimed", True)):
        right = sum(value for value, is_claimed in sold if is_claimed == claimed)
        for shown in (given_out["placement"][name], given_out["station"][name], told[-1][name]):
            assert int(str(shown)) == right
            assert isinstance(shown, str) == (abs(right) > 2**53), "text where a double would round"


# One currency a row


def money(
    *decisions: Decision, plans: dict[str, Plan] | None = None
) -> dict[str, tuple[int, int, str | None]]:
    """`scope/id` to its value, how many conversions are in another currency, and its currency."""
    book = CreditBook(3, PlanBook((plans or {}).values()))
    found = sums(book, *decisions)
    again = CreditBook(3)
    again.restore(book.snapshot())
    return {
        f"{scope}/{name}": (
            row.get("conversion_value", 0),
            row.get("conversion_value_other_count", 0),
            again.currencies.get((scope, name)),
        )
        for (scope, name), row in found.items()
    }


def planned(name: str, campaign: str | None, currency: str | None, booked: int = 100) -> Plan:
    return Plan(name, booked, T0, T0 + DAY, campaign_id=campaign, currency=currency)


def bought(
    name: str, campaign: str, value: int, currency: str, at: int = T0, claimed: bool = False
) -> Decision:
    one = conversion(at, value_micros=value, currency=currency, key=abs(value), claimed=claimed)
    where = (name, campaign, None, "s", None, None, None)
    return Decision(one, "last_touch", [Credit(where, WHOLE, "click", 5)])


def test_money_of_two_currencies_is_never_added_up() -> None:
    plans = {"a": planned("a", "red", "GBP"), "b": planned("b", "red", "EUR")}
    found = money(bought("a", "red", 10, "GBP"), bought("b", "red", 7, "EUR", T0 + 1), plans=plans)
    assert found["placement/a"] == (10, 0, "GBP")
    assert found["placement/b"] == (7, 0, "EUR")
    assert found["campaign/red"] == found["station/s"] == (10, 1, "GBP")


def test_a_station_of_two_campaigns_has_the_first_currency() -> None:
    found = money(bought("a", "red", 10, "GBP", T0 + 1), bought("b", "blue", 7, "EUR"))
    assert found["station/s"] == (7, 1, "EUR")
    assert found["campaign/red"] == (10, 0, "GBP")


def test_a_campaigns_agreed_currency_precedes_the_first_credited_one() -> None:
    found = money(
        bought("c", "red", 10, "GBP"),
        bought("c", "red", 7, "EUR", T0 + 1),
        plans={"a": planned("a", "red", "EUR"), "b": planned("b", "red", "EUR")},
    )
    assert found["placement/c"] == found["campaign/red"] == (7, 1, "EUR")
    assert found["station/s"] == (10, 1, "GBP")


class Counted(PlanBook):
    looks = 0

    def values(self) -> Any:
        Counted.looks += 1
        return super().values()


def test_unplanned_campaigns_cost_no_scan_of_the_plans() -> None:
    book = CreditBook(3, Counted([planned("a", "red", "EUR")]))
    sums(book, *(bought("b", f"new-{number}", 10, "GBP", T0 + number) for number in range(50)))
    assert Counted.looks == 0


def test_a_plan_without_a_currency_uses_its_campaigns_currency() -> None:
    found = money(
        bought("b", "red", 10, "EUR"),
        bought("b", "red", 7, "GBP", T0 + 1),
        plans={"a": planned("a", "red", "GBP"), "b": planned("b", "red", None)},
    )
    assert found["placement/b"] == found["campaign/red"] == (7, 1, "GBP")
    assert found["station/s"] == (10, 1, "EUR")


def test_changed_plans_keep_the_campaign_of_a_placements_first_value() -> None:
    """The second value is of another campaign, which no plan names."""
    book = CreditBook(1)
    for number, campaign in enumerate(("red", "blue")):
        book.have_plans(PlanBook([planned("a", "red", "GBP", booked=100 + number)]))
        made = bought("b", campaign, 10 + number, "EUR", T0 + number)
        cut = moment(T0 + number, number=number)
        book.cut(cut, [Decided(0, cut, [made], {campaign: 1}, 0, [])])
        state, book = book.snapshot(), CreditBook(1)
        book.restore(state)
    assert book.currencies["placement", "b"] == "GBP"
    assert book.valueless["placement", "b"] == "red"


def test_a_full_book_stays_full_when_plans_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each placement has a value in another currency than its plans' alone, so no currency is settled."""
    monkeypatch.setattr(credit_book, "MAX_CURRENCIES", 10)
    book = CreditBook(1)
    for number in range(60):
        book.have_plans(PlanBook([planned("a", "red", "GBP", booked=100 + number // 7)]))
        made = bought(f"made-up-{number}", "red", 1 + number, "EUR", T0 + number)
        cut = moment(T0 + number, number=number)
        book.cut(cut, [Decided(0, cut, [made], {"red": 1}, 0, [])])
        assert book.valueless.keys() <= book.currencies.keys()
        assert len(book.currencies) <= 10


def test_a_currency_without_a_value_follows_changed_plans() -> None:
    wrong, right = (PlanBook([planned("a", "red", of), planned("b", "red", None)]) for of in ("EUR", "GBP"))
    book, rows = CreditBook(1), RowShard(0, 1, LATENESS, 0, lambda minute: minute // 1440)
    shown: dict[tuple[str, str], tuple[int, int, str | None]] = {}
    for number, plans in enumerate((wrong, wrong, right, right, wrong)):
        book.have_plans(plans)
        cut = moment(T0 + number, number=number)
        made = [bought(name, "red", value, "GBP", T0 + number) for name, value in (("a", 10), ("b", 1))]
        (batch,), _, _ = book.cut(cut, [Decided(0, cut, made, {"red": 2}, 0, [])])
        windows, _ = rows.apply(cut, [nothing_for_rows(cut)], batch)
        assert windows is not None
        for place, (name, known) in enumerate(zip(windows.rows, windows.currencies, strict=True)):
            flight = windows_of(windows.credits, place)[3]
            assert flight is not None
            shown[name] = value_of(flight), int(flight[OTHER]), known
        if number == 1:
            assert shown["placement", "a"] == shown["placement", "b"] == (0, 2, None)
            assert shown["campaign", "red"] == (0, 4, None)
            assert shown["station", "s"] == (22, 0, "GBP")
        state, book = book.snapshot(), CreditBook(1)
        book.restore(decode(encode(state)))
    assert shown["placement", "a"] == (30, 2, "GBP"), "what has a value keeps its currency"
    assert shown["placement", "b"] == (3, 2, "GBP")
    assert shown["campaign", "red"] == (33, 4, "GBP")


def test_unchanged_plans_leave_a_rows_currency() -> None:
    plans = [planned("b", "red", "EUR"), planned("c", "blue", None)]
    book = CreditBook(1, PlanBook())
    for number, campaign in enumerate(("red", "blue")):
        book.have_plans(PlanBook(plans))
        sums(book, bought("c", campaign, 10, "GBP", T0 + number))
        state, book = book.snapshot(), CreditBook(1)
        book.restore(state)
    assert book.currencies["placement", "c"] == "EUR"


def test_a_conversion_in_another_currency_counts_once_per_row() -> None:
    parts = [Credit((name, "red", None, "s", None, None, None), share, "listen", 5) for name, share in
             (("a", 300_000), ("a", 300_000), ("b", 400_000))]  # fmt: skip
    euros = Decision(conversion(T0 + 1, value_micros=9, currency="EUR"), "linear", parts)
    found = money(bought("a", "red", 10, "GBP"), bought("b", "red", 10, "GBP"), euros)
    assert found["placement/a"] == found["placement/b"] == (10, 1, "GBP")
    assert found["campaign/red"] == (20, 1, "GBP")


# What is told


def test_conversions_of_one_order_number_are_found_by_order_and_event() -> None:
    made = [
        decision_record(decision_of(T0, kind, [], order_id="o1", event_id=event, campaign=campaign))
        for kind, event, campaign in (
            ("purchase", "e1", "red"),
            ("purchase", "e2", "blue"),
            ("sign_up", "e3", "blue"),
        )
    ]
    assert len({one.key for one in made}) == 3
    assert [one.names for one in made] == [["o1", "e1"], ["o1", "e2"], ["o1", "e3"]]
    bare = decision_record(decision_of(T0, "purchase", [], order_id=None, event_id="e4"))
    assert (json.loads(bare.key), bare.names) == (["", "e4"], ["e4"])


@given(st.lists(st.text("ax", max_size=2), min_size=1, max_size=3), st.sampled_from(["|", '","', "\\"]))
def test_equal_conversion_keys_mean_equal_conversions(ids: list[str], separator: str) -> None:
    """Conversions whose ids are made of one text, cut at every place."""
    parts = [*(part for one in ids for part in (one, "purchase")), "z"]
    keys: dict[str, tuple[str, ...]] = {}
    for at in range(1, len(parts)):
        campaign, rest = separator.join(parts[:at]), separator.join(parts[at:])
        bare = conversion(T0, campaign=campaign, order_id=None, event_id=rest)
        identities = {(campaign, rest): bare}
        if parts[at] == "purchase":
            order = separator.join(parts[at + 1 :])
            identities[campaign, "purchase", order] = conversion(T0, campaign=campaign, order_id=order)
        for identity, one in identities.items():
            assert keys.setdefault(decision_record(Decision(one, "none", [])).key, identity) == identity


def test_a_decision_contains_its_model_and_the_touches_not_chosen() -> None:
    touches = [
        (T0, CLICK_TOUCH, "a", None),
        (T0 + 1, IMPRESSION_TOUCH, "b", None),
        (T0 + 2, CLICK_TOUCH, "c", None),
    ]
    body = json.loads(decision_record(decided(touches, conversion(T0 + 9))).body)
    assert (body["rule"], body["eligible"]) == ("last_touch", 3)
    shown = [
        (one["placement_id"], one["way"], one["millionths"], one["touched_at"]) for one in body["credits"]
    ]
    assert shown == [("a", "click", 0, T0), ("b", "listen", 0, T0 + 1), ("c", "click", WHOLE, T0 + 2)]
    assert json.loads(decision_record(decided([], conversion(T0))).body)["rule"] == "none"


@pytest.mark.parametrize(("share", "seconds"), [(0.1, 60), (0.5, 3_600), (0.9, 60 * 86_400)])
def test_quantiles_of_the_time_to_convert_are_upper_bounds(share: float, seconds: int) -> None:
    counts = np.zeros((2, len(COLUMNS)), np.int64)
    first = COLUMNS.index("age_0")
    for bound, amount in ((60, 2), (3_600, 5)):
        counts[1, first + AGES_S.index(bound)] = amount * WHOLE
    counts[1, first + AGES_S.index(60 * 86_400)] = 3 * WHOLE
    assert quantiles_s(counts, share).tolist() == [NIL, seconds]


# Frequency


def test_a_conversions_frequency_is_that_of_its_own_moment() -> None:
    for together in (True, False):
        shard = shard_of_listeners()
        heard = [(T0 + second * 1000, IMPRESSION_TOUCH, "a", "red") for second in range(8)]
        buyer = conversion(T0 + 3_500)
        first, end = moment(T0 + MINUTE), moment(T0 + DAY, ended=True, number=1)
        moved = shard.apply(first, [batch(first, heard if together else heard[:2], [buyer])]).frequency
        found = shard.apply(end, [batch(end, () if together else heard[2:])])
        listeners = dict.fromkeys(range(len(CLASSES)), 0)
        for campaign, place, gained, _ in (*moved, *found.frequency):
            assert campaign == "red"
            listeners[place] += gained
        assert {place: count for place, count in listeners.items() if count} == {CLASSES.index("6-10"): 1}
        assert [one[1:] for one in found.frequency if one[3]] == [(CLASSES.index("4-5"), 0, WHOLE)]
