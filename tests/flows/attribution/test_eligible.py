"""Eligible touches of conversions against the specification's words, and what finding them costs: lines of
the loops that are run, whatever ids, times and campaigns somebody chooses.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.attribution import eligible as finding
from flows.attribution.eligible import ANY, MET_CAMPAIGN, MET_CLICKS, MET_LISTENS, Lookups, standing
from flows.attribution.touches import Caps, Touches
from flows.model.messages import CLICK_TOUCH, IMPRESSION_TOUCH, KIND, KIND_BITS, START_TOUCH

MINUTE, DAY = 60_000, 86_400_000
T0 = 1_764_000_000_000 // DAY * DAY
Touch = tuple[int, int, int, int, int]
"""Listener, time, kind, campaign, play."""
Bought = tuple[int, int, int]
"""Listener, time, campaign or `ANY`."""


def found_touches(
    touches: Sequence[Touch], bought: Sequence[Bought], windows_ms: tuple[int, int], caps: Caps
) -> tuple[list[list[Touch]], list[int]]:
    """The touches found for each conversion, in its order, and the caps that omitted some."""
    who, ts, kinds, campaigns, plays = np.array(touches, np.int64).reshape(-1, 5).T
    some = Touches(
        who.astype(np.uint64), ts << KIND_BITS | kinds, campaigns.astype(np.uint32), plays.astype(np.uint32)
    )
    kept, until = standing(some.sorted(), DAY)
    whom, at, wanted = np.array(bought, np.int64).reshape(-1, 3).T
    asked = Lookups(at.copy(), whom.astype(np.uint64), wanted.copy())
    got = finding.eligible(kept, until, kept.combo, asked, windows_ms, caps)
    rows = list(
        zip(
            kept.owners.tolist(), (kept.ts >> KIND_BITS).tolist(), (kept.ts & KIND).tolist(),
            kept.combo.tolist(), kept.play.tolist(), strict=True,
        )
    )  # fmt: skip
    spans = zip(got.begins.tolist(), got.ends.tolist(), strict=True)
    return [
        [rows[place] for place in got.touch_rows[begin:end].tolist()] for begin, end in spans
    ], got.met.tolist()


def wanted(
    touches: Sequence[Touch], of: Bought, windows_ms: tuple[int, int], caps: Caps
) -> tuple[list[Touch], int]:
    """The touches by the specification, and the caps that omit some. A play is one listen within its window;
    the newest of each campaign count, and of these the newest of all.
    """
    who, at, campaign = of
    theirs = sorted((one for one in touches if one[0] == who), key=lambda one: one[1:3])
    heard = [one for one in theirs if one[2] == IMPRESSION_TOUCH and one[1] // MINUTE <= at // MINUTE]

    def listened(one: Touch) -> bool:
        return not any(other[4] == one[4] and abs(other[1] - one[1]) <= DAY for other in heard)

    there = [one for one in theirs if one[1] <= at and (one[2] != START_TOUCH or listened(one))]
    left, met = list[tuple[int, Touch]](), 0
    for click, window, most, in_all, bit in (
        (True, windows_ms[0], caps.clicks, caps.clicks_in_all, MET_CLICKS),
        (False, windows_ms[1], caps.listens, caps.listens_in_all, MET_LISTENS),
    ):
        counts: Counter[int] = Counter()
        taken = []
        for place in range(len(there) - 1, -1, -1):
            one = there[place]
            if (one[2] == CLICK_TOUCH) == click and at - one[1] <= window:
                counts[one[3]] += 1
                if counts[one[3]] <= most:
                    taken.append((place, one))
        met |= bit * (len(taken) > in_all)
        taken = taken[:in_all]
        of_each = Counter(one[3] for _, one in taken)
        over = [name for name, count in of_each.items() if count == most < counts[name]]
        met |= MET_CAMPAIGN * any(campaign in (ANY, name) for name in over)
        left += [(place, one) for place, one in taken if campaign in (ANY, one[3])]
    return [one for _, one in sorted(left)], met


few = st.integers(1, 4)
spans = st.integers(0, 6 * MINUTE // 7_000).map(lambda n: n * 7_000)
times = spans.map(lambda span: T0 + span)
kinds = st.sampled_from([IMPRESSION_TOUCH, START_TOUCH, START_TOUCH, CLICK_TOUCH])
stories = st.lists(
    st.tuples(st.integers(1, 2), times, kinds, st.integers(0, 3), st.integers(1, 12)), max_size=60
)
buyers = st.lists(
    st.tuples(st.integers(0, 3), times, st.sampled_from([ANY, 0, 1, 9])), min_size=1, max_size=20
)
caps_of = st.builds(Caps, few, few, st.integers(1, 9), st.integers(1, 9))


@given(stories, buyers, st.tuples(spans, spans), caps_of)
def test_eligible_touches_and_met_caps_match_the_specification(
    touches: list[Touch], bought: list[Bought], windows_ms: tuple[int, int], caps: Caps
) -> None:
    """Also of starts that count until the minute of their impression, which may be another campaign's."""
    got, met = found_touches(touches, bought, windows_ms, caps)
    right = [wanted(touches, one, windows_ms, caps) for one in bought]
    assert got == [one for one, _ in right]
    assert met == [one for _, one in right]


def impressions_of_one_campaign(n: int) -> tuple[list[Touch], list[Bought]]:
    return [(1, T0 + i, IMPRESSION_TOUCH, 1, i) for i in range(n)], [(1, T0 + n + i, 1) for i in range(n)]


def clicks_and_few_listens(n: int) -> tuple[list[Touch], list[Bought]]:
    """Two conversions in three name a campaign, one of these one that nothing is of."""
    touches = [(1, T0 + i, IMPRESSION_TOUCH if i < 3 else CLICK_TOUCH, i % 2, i) for i in range(n)]
    return touches, [(1, T0 + n, (ANY, 1, 7)[i % 3]) for i in range(n)]


def campaigns_of_one_click_each(n: int) -> tuple[list[Touch], list[Bought]]:
    return [(1, T0 + i, CLICK_TOUCH, i, i) for i in range(n)], [(1, T0 + n + i, ANY) for i in range(n)]


def a_campaign_in_front_of_many(n: int) -> tuple[list[Touch], list[Bought]]:
    """Conversions of each moment, the latest first."""
    touches = [(1, T0 + i, IMPRESSION_TOUCH, i if i < n // 4 else 0, i) for i in range(n)]
    return touches, [(1, T0 + n - i, ANY) for i in range(n)]


def listens_that_are_too_old(n: int) -> tuple[list[Touch], list[Bought]]:
    """Listens, all older than the window of listens."""
    touches = [(1, T0 + i, IMPRESSION_TOUCH, i, i) for i in range(n)]
    return touches, [(1, T0 + 20 * DAY + i, ANY) for i in range(n)]


def starts_that_their_impressions_stand_for(n: int) -> tuple[list[Touch], list[Bought]]:
    """Starts whose impressions are a minute later and of another campaign."""
    starts = [(1, T0 + i, START_TOUCH, 1, i) for i in range(n // 2)]
    heard = [(1, T0 + MINUTE + i, IMPRESSION_TOUCH, 2, i) for i in range(n // 2)]
    return starts + heard, [(1, T0 + 2 * MINUTE + i, (ANY, 1)[i % 2]) for i in range(n)]


def starts_that_go_minute_by_minute(n: int) -> tuple[list[Touch], list[Bought]]:
    """The newest goes first, so that those before it count again."""
    starts = [(1, T0 + i, START_TOUCH, 1, i) for i in range(n // 2)]
    heard = [(1, T0 + (n - i) * MINUTE, IMPRESSION_TOUCH, 2, i) for i in range(n // 2)]
    return starts + heard, [(1, T0 + i * MINUTE + 1, ANY) for i in range(n)]


def starts_of_one_play(n: int) -> tuple[list[Touch], list[Bought]]:
    return [(1, T0 + i, START_TOUCH, i % 3, 5) for i in range(n)], [(1, T0 + n, ANY)]


def listeners_of_many_touches(n: int) -> tuple[list[Touch], list[Bought]]:
    """Conversions alternate between them."""
    touches = [(1 + i % 4, T0 + i, IMPRESSION_TOUCH, 1, i) for i in range(n)]
    return touches, [(1 + i % 4, T0 + n // 2 + i, ANY) for i in range(n)]


HOSTILE = (
    impressions_of_one_campaign,
    clicks_and_few_listens,
    campaigns_of_one_click_each,
    a_campaign_in_front_of_many,
    listens_that_are_too_old,
    starts_that_their_impressions_stand_for,
    starts_that_go_minute_by_minute,
    starts_of_one_play,
    listeners_of_many_touches,
)
WINDOWS = (30 * DAY, 14 * DAY)
SMALL = Caps(4, 2, 12, 6)


def modules() -> list[ModuleType]:
    """The module and those of this package whose loops it calls."""
    names = {getattr(one, "__module__", "") for one in vars(finding).values() if hasattr(one, "py_func")}
    return [sys.modules[name] for name in sorted(names | {finding.__name__})]


@contextmanager
def lines_run() -> Iterator[list[int]]:
    """The lines that the loops run: kernels as they are written, not compiled."""
    ran, files = [0], {one.__file__ for one in modules()}

    def trace(frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        ran[0] += event == "line"
        return trace if frame.f_code.co_filename in files else None

    before = sys.gettrace()
    with pytest.MonkeyPatch.context() as patch:
        for module in modules():
            for name, one in list(vars(module).items()):
                if hasattr(one, "py_func"):
                    patch.setattr(module, name, one.py_func)
        sys.settrace(trace)
        try:
            yield ran
        finally:
            sys.settrace(before)


def cost(story: Callable[[int], tuple[list[Touch], list[Bought]]], n: int) -> int:
    touches, bought = story(n)
    with lines_run() as ran:
        found_touches(touches, bought, WINDOWS, SMALL)
    return ran[0]


@pytest.mark.parametrize("story", HOSTILE)
def test_the_cost_grows_linearly_with_touches_and_conversions(
    story: Callable[[int], tuple[list[Touch], list[Bought]]],
) -> None:
    some, twice = cost(story, 150), cost(story, 300)
    assert twice < 2.4 * some
    # A touch makes its way through a tree; a conversion looks at as many as the caps of all campaigns leave.
    assert twice < 300 * (150 + 25 * (SMALL.listens_in_all + SMALL.clicks_in_all))


@pytest.mark.parametrize("story", HOSTILE)
def test_chosen_touches_match_the_specification(
    story: Callable[[int], tuple[list[Touch], list[Bought]]],
) -> None:
    touches, bought = story(60)
    got = found_touches(touches, bought, WINDOWS, SMALL)
    right = [wanted(touches, one, WINDOWS, SMALL) for one in bought]
    assert got == ([one for one, _ in right], [one for _, one in right])
