"""The watch over the feed: when a unit is silent, and which placements that concerns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.errors import StateError
from flows.model.messages import Impressions, SilentUnit
from flows.silence.gaps import HOURS, MAX_UNITS
from flows.silence.watch import Watch
from flows.state.saves import decode, encode

T0_MS = 1_789_999_200_000
"""The begin of an hour."""
HOUR_S = 3_600
UNIT = "platform:acast"


class Feed:
    """A watch, whose cuts are half a second apart or more."""

    def __init__(self, watch: Watch | None = None, at_s: float = 0.0) -> None:
        self.watch, self.at_s = watch or Watch(ZoneInfo("Europe/London")), at_s
        self.found: Sequence[SilentUnit] = ()

    def cut(self, after_s: float = 0.5, proven: bool = True, **pixels: int) -> list[str]:
        """A cut with pixels of platforms; the units that are silent."""
        self.at_s += after_s
        self.watch.take_pixels({f"platform:{name}": count for name, count in pixels.items()})
        now_ms = T0_MS + int(1000 * self.at_s)
        self.found = self.watch.cut(now_ms, proven, now_ms - 2_000)
        return [one.unit for one in self.found]

    def send(self, seconds: float, every_s: float = 5.0, count: int = 100, **others: int) -> None:
        """Pixels of one platform, and of others."""
        for _ in range(int(seconds / every_s)):
            self.cut(every_s, acast=count, **others)

    def rest(self, seconds: float, proven: bool = True, **others: int) -> list[str]:
        """Time without a pixel of the platform."""
        names: list[str] = []
        for _ in range(int(seconds / 5)):
            names = self.cut(5.0, proven, **others)
        return names


def test_a_unit_is_silent_after_a_minute_until_twenty_pixels() -> None:
    feed = Feed()
    feed.send(700)
    last_ms = T0_MS + int(1000 * feed.at_s)
    assert feed.rest(60) == []
    assert feed.rest(5) == [UNIT]
    (one,) = feed.found
    assert (one.since_ms, one.gap_ms, one.bound_ms) == (last_ms, 65_000, 60_000)
    assert feed.cut(acast=19) == [UNIT]
    assert feed.rest(300) == [UNIT]
    assert feed.found[0].since_ms == last_ms, "it is the same silence"
    assert feed.cut(acast=1) == []


@pytest.mark.parametrize(("seconds", "count"), [(590, 100), (700, 0)], ids=["ten minutes", "fifty pixels"])
def test_a_unit_with_little_history_is_never_silent(seconds: int, count: int) -> None:
    feed = Feed()
    feed.cut(acast=49)
    feed.send(seconds, count=count)
    assert feed.rest(2 * HOUR_S) == []


def test_silence_grows_only_while_the_flow_has_read_everything() -> None:
    feed = Feed()
    feed.send(700)
    assert feed.rest(HOUR_S, proven=False) == []
    assert feed.cut(HOUR_S) == [], "a proof stands for five seconds"
    assert feed.rest(50) == []
    assert feed.rest(15) == [UNIT]
    assert feed.rest(HOUR_S, proven=False) == [UNIT]


def test_a_gap_is_held_against_those_of_the_hour_before_it() -> None:
    feed = Feed()
    for _ in range(3):
        feed.send(180)
        assert feed.rest(1_620) == [], "it sends in two breaks an hour"
    feed.send(180)
    assert feed.rest(2 * 1_625) == []
    assert feed.rest(10) == [UNIT]


@pytest.mark.parametrize("days", [1, 7])
def test_a_gap_is_held_against_those_of_the_same_hour(days: int) -> None:
    feed = Feed()
    feed.send(1.5 * HOUR_S)
    feed.rest(600)
    feed.send(days * 24 * HOUR_S - 700)
    assert feed.rest(1_205) == []
    assert feed.rest(10) == [UNIT]
    feed.send(2 * HOUR_S)
    feed.rest(65)
    assert [one.bound_ms for one in feed.found] == [60_000], "another hour has other gaps"


def test_a_slow_unit_may_pause_as_long_as_a_hundred_pixels() -> None:
    feed = Feed()
    for _ in range(240):
        feed.rest(25)
        feed.cut(5.0, acast=6)  # the last hundred took 8 to 16 minutes
    assert feed.rest(480) == []
    assert feed.rest(540) == [UNIT]


def test_a_bye_ends_a_unit_until_its_next_pixel() -> None:
    feed = Feed()
    feed.send(700)
    feed.watch.end(UNIT)
    assert feed.rest(2 * HOUR_S) == []
    feed.send(60)
    assert feed.rest(65) == [UNIT], "the time behind its bye was no gap"
    feed.watch.end(UNIT)
    assert feed.cut() == []


def test_a_collector_ends_by_its_id_and_any_unit_by_its_key() -> None:
    watch = Watch()
    watch.end("edge-1")
    watch.end("partition:t/0")
    watch.end("a:b")
    assert watch._ended == ["sender:edge-1", "partition:t/0", "sender:a:b"]


def test_a_silence_ends_after_a_day_and_its_gap_at_the_return() -> None:
    feed = Feed()
    feed.send(700)
    assert feed.rest(24 * HOUR_S) == [UNIT]
    assert feed.rest(10) == []
    assert feed.rest(HOUR_S) == []
    feed.send(60)
    assert feed.rest(2 * HOUR_S) == [], "a gap of a day is known of this hour"


def test_invented_names_displace_no_sending_unit() -> None:
    feed = Feed()
    feed.send(700, one=100, two=100)
    for number in range(3 * MAX_UNITS // 100):
        feed.cut(acast=1, **{f"made-up-{number}-{n}": 3 for n in range(100)})
    assert len(feed.watch.gaps.names) == len(feed.watch.gaps.table) == MAX_UNITS
    assert feed.rest(65) == [UNIT, "platform:one", "platform:two"]
    feed.cut(late=1)
    assert feed.watch.gaps.number("platform:late") >= 0, "it takes the place of one that was made up"


def test_a_clock_jump_makes_no_unit_silent() -> None:
    feed = Feed()
    feed.send(700)
    for jump_s in (-2 * HOUR_S, 40 * 24 * HOUR_S, -HOURS * HOUR_S):
        assert feed.cut(jump_s) == []
        feed.send(60)
    assert feed.rest(65) == [UNIT]


def batch(*some: tuple[str, str, str, int]) -> Impressions:
    """Impressions of (placement, platform, collector), all by partition `t/0`."""
    placements, platforms = [one[0] for one in some], [one[1] for one in some]
    sources = [("t/0", one[2]) for one in some]
    at = np.repeat(np.arange(len(some)), 3).reshape(-1, 3)
    return Impressions(placements, platforms, sources, at, np.array([one[3] for one in some]))


def delivering(feed: Feed, seconds: int, *some: tuple[str, str, str, int]) -> None:
    """Ten seconds' impressions again and again, with the pixels of their units."""
    units = {f"platform:{one[1]}": 100 for one in some} | {f"sender:{one[2]}": 100 for one in some if one[2]}
    for _ in range(seconds // 10):
        feed.watch.take_pixels({**units, "partition:t/0": 100}, batch(*some))
        feed.cut(5.0)
        feed.watch.take_pixels({**units, "partition:t/0": 100})
        feed.cut(5.0)


def test_a_silent_platform_concerns_its_planned_placements() -> None:
    feed = Feed()
    feed.watch.follow(["p", "q", "r"])
    both = (
        ("p", "acast", "", 8),
        ("p", "other", "", 2),
        ("q", "other", "", 10),
        ("unplanned", "acast", "", 5),
    )
    delivering(feed, 2 * HOUR_S, *both)
    delivering(feed, 120, *both[1:3])
    (one,) = feed.found
    assert one.unit == UNIT
    (part,) = one.placements
    assert part.placement == "p"
    assert part.impressions / part.whole == pytest.approx(0.8, abs=0.01)
    assert part.before == pytest.approx(60, rel=0.03), "a minute"
    assert part.since == pytest.approx(12, rel=0.1)
    assert one.impressions == pytest.approx(13 / 8 * part.impressions, rel=0.01)


def test_traffic_moved_to_another_collector_counts_in_the_rate_since() -> None:
    feed = Feed()
    feed.watch.follow(["p"])
    delivering(feed, HOUR_S, ("p", "acast", "c-1", 5), ("p", "acast", "c-2", 5))
    delivering(feed, 600, ("p", "acast", "c-2", 10))
    (one,) = feed.found
    (part,) = one.placements
    assert one.unit == "sender:c-1"
    assert part.since == pytest.approx(part.before, rel=0.05)


def test_a_placement_keeps_its_largest_units_and_admits_new_ones() -> None:
    feed = Feed()
    feed.watch.follow(["p"])
    delivering(feed, 6 * HOUR_S, *(("p", f"s{n}", "", n) for n in range(1, 7)))

    def kept_units() -> list[str]:
        shares = feed.watch.shares
        return [feed.watch.gaps.names[unit] for unit in shares.units[0].tolist() if unit >= 0]

    assert {"platform:s6", "platform:s5", "platform:s4", "partition:t/0"} <= set(kept_units())
    assert len(kept_units()) == 5
    delivering(feed, HOUR_S, ("p", "new", "", 50))
    assert "platform:new" in kept_units()


def test_an_unplanned_placement_frees_its_place() -> None:
    feed = Feed()
    feed.watch.follow(["p", "q"])
    delivering(feed, HOUR_S, ("p", "acast", "", 5), ("q", "acast", "", 5))
    delivering(feed, 120, ("q", "other", "", 5))
    feed.watch.follow(["q", "new"])
    delivering(feed, 10, ("q", "other", "", 5))
    (one,) = feed.found
    assert [part.placement for part in one.placements] == ["q"]
    assert one.impressions == pytest.approx(one.placements[0].impressions, rel=0.01)
    assert feed.watch.shares.names == ["new", "q"]


def test_a_restart_fills_the_lost_hour_with_the_days_rate() -> None:
    feed = Feed()
    feed.watch.follow(["p"])
    delivering(feed, 5 * HOUR_S, ("p", "acast", "", 10))
    feed = Feed(restored(feed.watch), feed.at_s + 60)
    feed.watch.follow(["p"])
    delivering(feed, 60, ("p", "acast", "", 10))
    delivering(feed, 120, ("q", "other", "", 10))
    (part,) = feed.found[0].placements
    assert part.before == pytest.approx(60, rel=0.1)
    assert part.since == 0


@pytest.mark.parametrize("log_ms", [0, T0_MS - 6 * HOUR_S * 1000], ids=["unknown begin", "known begin"])
@pytest.mark.parametrize("batches", [1, 5])
def test_a_backlog_read_fast_is_not_a_fast_rate(log_ms: int, batches: int) -> None:
    watch, hours = Watch(ZoneInfo("Europe/London")), 6
    watch.follow(["p"])
    for n in range(1, batches + 1):
        now_ms = T0_MS - 1_000 * (batches - n)
        impressions = batch(("p", "acast", "", 60 * 60 * hours // batches))
        watch.take_pixels({UNIT: 1_000, "partition:t/0": 1_000}, impressions)
        watch.cut(now_ms, False, T0_MS - (batches - n) * hours * HOUR_S * 1000 // batches - 2_000, log_ms)
    feed = Feed(watch)
    delivering(feed, 660, ("p", "acast", "", 10))
    delivering(feed, 120, ("q", "other", "", 10))
    (part,) = next(one for one in feed.found if one.unit == UNIT).placements
    assert part.before == pytest.approx(60, rel=0.05), "a minute"


def test_a_backlog_before_the_watermark_is_measured_whole() -> None:
    watch = Watch(ZoneInfo("Europe/London"))
    watch.follow(["p"])
    for watermark_ms in (0, 0, T0_MS - 2_000):
        watch.take_pixels({UNIT: 1_000, "partition:t/0": 1_000}, batch(("p", "acast", "", 60 * 60 * 2)))
        watch.cut(T0_MS, False, watermark_ms, T0_MS - 6 * HOUR_S * 1000 if watermark_ms else 0)
    feed = Feed(watch)
    delivering(feed, 20, ("p", "acast", "", 10))
    watch.shares.note(watch.gaps.number(UNIT))
    (part,) = watch.shares.concerned(watch.gaps.number(UNIT))
    assert part.before == pytest.approx(60, rel=0.05), "a minute"


def test_a_new_placement_has_the_rate_of_its_half_minute() -> None:
    feed = Feed()
    feed.watch.follow(["p"])
    delivering(feed, 700, ("q", "acast", "", 10))
    delivering(feed, 30, ("p", "acast", "", 10), ("q", "acast", "", 10))
    delivering(feed, 120, ("q", "other", "", 10))
    (part,) = next(one for one in feed.found if one.unit == UNIT).placements
    assert 45 <= part.before <= 60, "a minute; its time is exact to a batch of ten seconds"


def test_a_backlog_behind_a_kill_is_no_rate_of_seconds() -> None:
    feed = Feed()
    feed.watch.follow(["p"])
    delivering(feed, 5 * HOUR_S, ("p", "acast", "", 10))
    feed = Feed(restored(feed.watch), feed.at_s + 3 * HOUR_S)
    feed.watch.follow(["p"])
    feed.watch.take_pixels({UNIT: 1_000, "partition:t/0": 1_000}, batch(("p", "acast", "", 3 * 60 * 60)))
    feed.cut(5.0)
    delivering(feed, 60, ("p", "acast", "", 10))
    delivering(feed, 120, ("q", "other", "", 10))
    (part,) = feed.found[0].placements
    assert part.before == pytest.approx(60, rel=0.05), "a minute"


def restored(watch: Watch) -> Watch:
    """A watch of the state of another, as a save has it."""
    again = Watch(ZoneInfo("Europe/London"))
    again.restore(decode(encode(watch.snapshot())))
    return again


@given(
    st.lists(st.tuples(st.sampled_from(["acast", "other"]), st.integers(0, 100)), max_size=30),
    st.integers(0, 29),
)
def test_a_watch_goes_on_from_its_state(some: list[tuple[str, int]], stop: int) -> None:
    one, other = Feed(), Feed()
    for feed in (one, other):
        feed.watch.follow(["p"])
        delivering(feed, 700, ("p", "acast", "", 5))
    for place, (name, count) in enumerate(some):
        if place == stop:
            other.watch = restored(other.watch)
            other.cut(0.0)
        told = [
            feed.cut(5.0 if place % 2 else 0.5, **({name: count} if count else {})) for feed in (one, other)
        ]
        assert told[0] == told[1]
    assert plain(one.watch.gaps.snapshot()) == plain(other.watch.gaps.snapshot())


def plain(state: Any) -> bytes:
    return encode(state)


def test_a_state_of_another_format_is_refused() -> None:
    with pytest.raises(StateError, match="a watch of format 0"):
        Watch().restore((0, (), ()))
