"""Judging: when the numbers of delivery are not fit to act on, since when, and why."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from connectors.redis.client import Client
from flows.model.ticks import Cut, HoldReason, Tick, cut_at, sum_of
from flows.publish.judging import OLD_MS, REJECTED_MS, SAMPLE_MS, STANDS_MS, Judging, Reason
from flows.publish.publisher import Publisher
from flows.publish.server_clock import ASK_MS, ServerClock
from flows.settings.fields import Settings

NOW_MS = 1_800_000_000_000
BEHIND_MS = 10_000
SINCE_MS = NOW_MS - 3_600_000


def looked(
    judging: Judging, after_ms: int, watermark_ms: int | None = None, low_ms: int = 0
) -> Reason | None:
    now_ms = NOW_MS + after_ms
    judging.look(now_ms, now_ms - BEHIND_MS if watermark_ms is None else watermark_ms, low_ms, True)
    return judging.reason


def test_numbers_of_the_last_minutes_are_judged() -> None:
    judging = Judging()
    assert looked(judging, 0) is None
    assert looked(judging, 1_000, NOW_MS + 1_000 - OLD_MS) is None
    assert judging.since_ms == 0


@pytest.mark.parametrize(("moves", "reason"), [(True, "lagging"), (False, "stalled")])
def test_old_numbers_are_not_judged_whether_they_move_or_stand(moves: bool, reason: Reason) -> None:
    judging = Judging()
    for after_ms in range(0, 10 * STANDS_MS, 1_000):
        looked(judging, after_ms, NOW_MS - OLD_MS - 1_000 + (after_ms // 2 if moves else 0))
    assert (judging.reason, judging.since_ms) == (reason, NOW_MS)


def test_a_holding_collector_is_the_reason() -> None:
    judging = Judging()
    stands_ms = NOW_MS - OLD_MS
    assert looked(judging, 0, stands_ms, stands_ms) is None
    assert looked(judging, 1_000, stands_ms, stands_ms) == "collector"
    assert looked(judging, 2_000, stands_ms, NOW_MS) == "lagging"  # its mark is fresh: it is not the reason
    assert looked(judging, 3_000, low_ms=NOW_MS) is None


def test_only_many_recent_rejections_are_a_reason() -> None:
    judging = Judging()
    for minute, (received, rejected) in enumerate([(10_000, 9_000), (11_000, 9_100), (12_000, 9_101)]):
        judging.count("t/0", received, rejected)
        assert looked(judging, minute * SAMPLE_MS) == (None if minute < 2 else "rejecting"), minute
    judging.count("t/0", 20_000, 9_101)
    assert looked(judging, 3 * SAMPLE_MS) is None
    assert looked(judging, 3 * SAMPLE_MS + REJECTED_MS) is None


def test_an_earlier_executions_unjudged_time_stays_unjudged() -> None:
    judging = Judging()
    judging.recall({"unjudged_since_ms": str(NOW_MS - 5_000), "unjudged_reason": "stalled"})
    judging.look(NOW_MS, 0, 0, True)
    assert (judging.reason, judging.since_ms) == ("starting", NOW_MS - 5_000)
    assert looked(judging, 1_000) is None
    assert judging.since_ms == 0
    assert looked(judging, 2_000, NOW_MS - OLD_MS) == "lagging"
    assert judging.since_ms == NOW_MS + 2_000


def test_meta_says_whether_delivery_is_judged(settings_of: Callable[..., Settings], client: Client) -> None:
    settings = settings_of()
    publisher = Publisher(settings, ["t/0"], True, clock_s=lambda: NOW_MS / 1000)
    publisher.open()

    def published_meta(number: int, watermark_ms: int, low_mark_ms: int = 0) -> dict[str, str]:
        publisher.flush(
            Cut(
                number,
                watermark_ms,
                False,
                (("t/0", number),),
                low_mark_ms=low_mark_ms,
                counted_since_ms=SINCE_MS,
            ),
            [],
        )
        meta = client.hgetall(f"{settings.namespace}:meta")
        return {name: meta[name] for name in meta if "judged" in name}

    assert published_meta(1, NOW_MS - BEHIND_MS) == {"judged": "1"}
    old = NOW_MS - 2 * OLD_MS
    why = {"judged": "0", "unjudged_since_ms": str(NOW_MS), "unjudged_reason": "collector"}
    assert published_meta(2, old, old) == why
    assert published_meta(3, NOW_MS - BEHIND_MS, NOW_MS) == {"judged": "1"}
    publisher.close()


@pytest.mark.parametrize("ahead_s", [-3600, 3600])
def test_a_wall_clock_off_by_an_hour_stops_judging(
    settings_of: Callable[..., Settings], client: Client, monkeypatch: pytest.MonkeyPatch, ahead_s: int
) -> None:
    settings, real_s = settings_of(), time.time
    now_ms = int(real_s() * 1000)
    monkeypatch.setattr(time, "time", lambda: real_s() + ahead_s)
    publisher = Publisher(settings, ["t/0"], True)
    publisher.open()
    publisher.flush(Cut(1, now_ms - BEHIND_MS, False, (("t/0", 1),), counted_since_ms=SINCE_MS), [])
    meta = client.hgetall(f"{settings.namespace}:meta")
    assert meta["judged"] == "1"
    assert abs(int(meta["flushed_ms"]) - now_ms) < 60_000
    publisher.close()


def test_the_servers_clock_is_read_once_a_minute() -> None:
    answers: list[int | None] = [NOW_MS, None, NOW_MS + 500_000]
    elapsed_ms = 7
    clock = ServerClock(lambda: answers.pop(0), lambda: elapsed_ms)
    assert clock() * 1000 == NOW_MS
    elapsed_ms += ASK_MS - 1
    assert clock() * 1000 == NOW_MS + ASK_MS - 1
    elapsed_ms += 1
    assert clock() * 1000 == NOW_MS + ASK_MS
    assert len(answers) == 1
    elapsed_ms += ASK_MS
    assert clock() * 1000 == NOW_MS + 500_000


def test_meta_contains_a_holds_begin_and_collector(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of()
    publisher = Publisher(settings, ["t/0"], True, clock_s=lambda: NOW_MS / 1000)
    publisher.open()

    def published_meta(number: int, by: str, since_ms: int) -> dict[str, str]:
        at_ms = NOW_MS - BEHIND_MS
        why: HoldReason | None = "clock" if by else None
        held = {"held_by": by, "held_since_ms": since_ms, "held_why": why, "counted_since_ms": SINCE_MS}
        publisher.flush(Cut(number, at_ms, False, (("t/0", number),), **held), [])
        meta = client.hgetall(f"{settings.namespace}:meta")
        return {name: meta[name] for name in meta if name.startswith("held") or name.endswith("_reason")}

    held = {"held_by": "c-1", "held_since_ms": "12345", "held_why": "clock", "unjudged_reason": "collector"}
    assert published_meta(1, "c-1", 12345) == held
    assert published_meta(2, "", 0) == {}
    publisher.close()


def test_the_least_holding_low_mark_is_the_flows_hold() -> None:
    def tick(name: str, low_ms: int, by: str, why: HoldReason | None) -> Tick:
        tick = Tick(name, ("a", "b", "c"), 1, 5, True, False, 0, 5, low_mark_ms=low_ms)
        return replace(tick, held_by=by, held_why=why)

    some = (tick("a", 70, "x", "drain"), tick("b", 60, "y", "clock"), tick("c", 50, "", None))
    ticks = {one.sender: one for one in some}
    cut = cut_at(ticks, 1)
    assert (cut.held_by, cut.held_since_ms, cut.held_why, cut.low_mark_ms) == ("y", 60, "clock", 50)


def test_a_cut_contains_the_denials_of_all_live_partitions() -> None:
    def cut(*denied: int, ended: str = "") -> Cut:
        names = tuple(f"p{n}" for n in range(len(denied)))
        ticks = {}
        for name, some in zip(names, denied, strict=True):
            tick = Tick(name, names, 1, 5, True, name in ended, 0, 5)
            ticks[name] = replace(tick, denied=some)
        return cut_at(ticks, 1)

    assert [cut(7, 7).denied, cut(7, 8).denied, cut(0, 0).denied] == [7, None, 0]
    assert [cut(7, 8, ended="p1").denied, cut(7, 8, ended="p0 p1").denied] == [7, None]
    assert sum_of([1 << 63, 1 << 63, 5]) == 5
