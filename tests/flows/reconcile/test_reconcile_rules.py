"""The oracle's reading of the specification, rule by rule, and against a second one that goes forward."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import zstandard

from flows.errors import AudiopixelError
from flows.reconcile.pacing import Planned
from flows.reconcile.recomputation import recompute
from flows.reconcile.rules import Rules
from flows.reconcile.truth import Recomputation

T0 = 1_764_000_000_000
MINUTE = 60_000
Run = Callable[..., Recomputation]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def recomputed(*lines: dict[str, Any], **settings: Any) -> Recomputation:
        file = tmp_path / "log.ndjson"
        file.write_text("\n".join(map(json.dumps, lines)) + "\n")
        positions = settings.pop("too_late", None)
        if positions is None:
            return recompute([file], Rules(**settings))
        late = [(position, lines[position - 1]) for position in positions]
        letters = {(str(file), pos, line["event"], line["ts"]) for pos, line in late}
        return recompute([file], Rules(**settings), too_late=letters)

    return recomputed


_count = iter(range(10**9))


def pixel(event: str, after_s: float = 0, play: str | None = "p", **fields: Any) -> dict[str, Any]:
    """A pixel of placement `a` that was received when it happened, `after_s` behind T0."""
    t = T0 + int(after_s * 1000)
    base = {"event_id": f"e{next(_count)}", "event": event, "ts": t, "received_at": t, "placement_id": "a"}
    return {name: value for name, value in (base | {"play_id": play} | fields).items() if value is not None}


def clock(after_s: float) -> dict[str, Any]:
    """A pixel of another placement that moves the watermark."""
    return pixel("pause", after_s, None, placement_id="clock")


def placement(result: Recomputation, name: str = "a") -> dict[str, Any]:
    """The numbers of a placement that are not 0; all impressions are of one basis."""
    same = ("flight.pixels", "flight.impressions_vast_impression")
    row = {name: value for name, value in result.flight["placement", name].items() if name not in same}
    return {metric.removeprefix("flight."): value for metric, value in row.items() if value}


def test_an_unreplaced_macro_is_no_play_id(run: Run) -> None:
    macros = ["[X]", "%5BX%5D", "%5bX%5d", "${X}", "{x}", "@X@", "-1", "-2", ""]
    at = {f"a{number}": macro for number, macro in enumerate(macros)}
    lines = [
        pixel("start", s, play_id=macro, placement_id=name) for s in (0, 1) for name, macro in at.items()
    ]
    result = run(*lines)
    for name, macro in at.items():
        assert placement(result, name) == {"unlinked_starts": 2}, macro


def test_ids_differing_in_any_byte_are_two_plays(run: Run) -> None:
    plays = ["p", "P", "p ", "p\0", "é", "e\u0301"]
    assert placement(run(*(pixel("start", play=play) for play in plays)))["starts"] == len(plays)


def test_a_milestone_before_its_start_joins_the_cohort(run: Run) -> None:
    result = run(pixel("midpoint", 70), pixel("complete", 75), pixel("start", 50, received_at=T0 + 80_000))
    cohort = {"starts", "first_quartiles", "midpoints", "third_quartiles", "completes"}
    assert placement(result) == dict.fromkeys(cohort, 1) | {"repaired": 2}
    assert {minute for name, minute in result.minutes if name == "a"} == {T0}


def test_a_milestone_final_without_a_start_stays_an_orphan(run: Run) -> None:
    late_start = pixel("start", 600)
    waited = run(pixel("midpoint", 0), clock(669.999), late_start)
    assert placement(waited) == dict.fromkeys(("starts", "first_quartiles", "midpoints", "repaired"), 1)
    assert placement(run(pixel("midpoint", 0), clock(670), late_start)) == {"starts": 1, "orphans": 1}


def test_a_milestone_is_late_after_its_starts_final_minute(run: Run) -> None:
    result = run(pixel("start", 0), clock(670), pixel("complete", 61))
    assert placement(result) == {"starts": 1, "too_late": 1}
    assert placement(run(pixel("start", 0), clock(669), pixel("complete", 61)))["completes"] == 1


def test_a_pixel_finalising_its_starts_minute_is_late(run: Run) -> None:
    assert placement(run(pixel("start", 0), pixel("complete", 670))) == {"starts": 1, "too_late": 1}


def test_a_final_minute_knows_its_repeats_from_late_pixels(run: Run) -> None:
    start = pixel("start", 0)
    result = run(start, clock(700), start, pixel("start", 1, play="q"))
    assert placement(result) == {"starts": 1, "repeated": 1, "too_late": 1}


def test_a_play_is_remembered_while_its_last_pixel_is_within_the_horizon(run: Run) -> None:
    again = pixel("pause", 3000)
    known = run(pixel("pause", 0), pixel("resume", 1200), clock(3010), again)
    assert known.totals["repeated"] == 1
    forgotten = run(pixel("pause", 0), pixel("resume", 1200), clock(3010.001), again)
    assert forgotten.totals["repeated"] == 0


def test_a_late_pixel_does_not_keep_its_play_in_memory(run: Run) -> None:
    result = run(pixel("pause", 0), clock(1800), pixel("resume", 1100), clock(2000), pixel("pause", 1999))
    assert result.totals["repeated"] == 0
    assert result.totals["rejected.too_late"] == 1


def test_skips_move_to_a_timely_start(run: Run) -> None:
    skip, start = pixel("skip", 61, station="own"), pixel("start", 0, station="start")
    moved = run(skip, start)
    assert ("station", "own") in moved.flight
    assert moved.flight["station", "start"]["flight.skips"] == 1
    assert moved.flight["station", "own"]["flight.skips"] == 0
    assert moved.minutes["a", T0]["skips"] == 1
    alone = run(skip, clock(731), pixel("start", 200, station="start"))
    assert alone.flight["station", "own"]["flight.skips"] == 1
    assert alone.minutes["a", T0 + MINUTE]["skips"] == 1


def test_a_pixel_without_a_play_counts_once_by_event_id(run: Run) -> None:
    lines = [
        pixel(event, play=None) for event in ("impression", "start", "midpoint", "complete", "skip", "error")
    ]
    counted = {"impressions": 1, "unlinked_starts": 1, "unlinked_midpoints": 1, "unlinked_completes": 1}
    assert placement(run(*lines, *lines)) == counted | {"errors": 1, "repeated": len(lines)}


def test_progress_counts_once_a_playhead_and_pause_once_a_play(run: Run) -> None:
    heads = [pixel("progress", playhead_ms=head) for head in (None, 1, 2, 1, -1)]
    result = run(*heads, pixel("pause"), pixel("pause"))
    assert (result.totals["accepted"], result.totals["repeated"]) == (4, 3)


def test_bots_neither_repeat_a_human_nor_are_repeated_by_one(run: Run) -> None:
    bot = pixel("start", user_agent="Mozilla (compatible; Examplebot/2.1)", consent=True, listener_id="l")
    app = pixel("start", play="q", user_agent="Overcast/3.0 podcast crawler")
    result = run(bot, pixel("start"), bot, app)
    assert placement(result) == {"starts": 2, "invalid_traffic": 1, "repeated": 1}
    assert result.totals["accepted"] == 3


def test_reach_needs_consent_and_an_impression_or_a_start(run: Run) -> None:
    lines = [
        pixel("impression", play="1", listener_id="l1", consent=True),
        pixel("start", play="1", listener_id="l1", consent=True),
        pixel("start", play=None, listener_id="l2", consent=True),
        pixel("click", play="3", listener_id="l3", consent=True),
        pixel("start", play="4", listener_id="l4", consent=False),
        pixel("start", play="5", listener_id="l5"),
    ]
    assert placement(run(*lines))["reach"] == 2
    assert placement(run(*lines))["consented"] == 4
    assert placement(run(*lines, consent="assumed"))["reach"] == 3


def test_a_caller_years_ahead_is_clamped_and_makes_no_other_late(run: Run) -> None:
    mad = pixel("start", play="mad") | {"ts": T0 + 10 * 365 * 86_400_000}
    result = run(pixel("start"), mad, pixel("start", 1, play="q"))
    assert result.minutes["a", T0 + MINUTE]["starts"] == 1
    assert (placement(result)["starts"], result.totals["clock_skewed"]) == (3, 1)


def test_without_a_time_of_receipt_a_jump_waits_for_the_next_pixel(run: Run) -> None:
    def bare(after_s: float, play: str) -> dict[str, Any]:
        return pixel("start", after_s, play, received_at=None)

    days = 86_400
    lone = run(bare(0, "1"), bare(1, "2"), bare(3650 * days, "mad"), bare(2, "3"), bare(3, "4"))
    assert placement(lone) == {"starts": 5}
    real = run(bare(0, "1"), bare(1, "2"), bare(2 * days, "3"), bare(2 * days - 60, "4"), bare(2, "5"))
    assert placement(real) == {"starts": 4, "too_late": 1}


def test_only_given_dead_letters_are_late(run: Run) -> None:
    lines = [pixel("start", 0, "1"), clock(10_000), pixel("start", 0, "2"), pixel("start", 9999, "3")]
    assert placement(run(*lines)) == {"starts": 2, "too_late": 1}
    assert placement(run(*lines, too_late=[4])) == {"starts": 2, "too_late": 1}
    assert placement(run(*lines, too_late=[])) == {"starts": 3}


def touch(
    event: str, after_days: float, at: str | None, play: str | None = None, **fields: Any
) -> dict[str, Any]:
    """A consented pixel of one listener, at placement `at`."""
    who = {"listener_id": "l", "consent": True, "campaign_id": "c", "placement_id": at}
    return pixel(event, after_days * 86_400, play, **(who | fields))


def purchase(after_days: float, **fields: Any) -> dict[str, Any]:
    """A conversion of that listener, of order `o`."""
    bought = {"type": "purchase", "order_id": "o", "value": "10.000001", "currency": "GBP"}
    named = {"conversion": bought | fields.pop("conversion", {})}
    return touch("conversion", after_days, None, **(named | fields))


def credits(result: Recomputation) -> dict[str, tuple[float, float]]:
    """(conversions, their value in micros) of the placements that have any."""
    found = {
        name: (row["flight.conversions"], row["flight.conversion_value"])
        for (scope, name), row in result.flight.items()
        if scope == "placement"
    }
    return {name: of for name, of in found.items() if any(of)}


@pytest.mark.parametrize(
    ("age_days", "event", "placed"),
    [
        (30, "click", True),
        (30.0001, "click", False),
        (14, "impression", True),
        (14.0001, "impression", False),
    ],
)
def test_a_window_holds_both_its_ends(run: Run, age_days: float, event: str, placed: bool) -> None:
    result = run(touch(event, 0, "a"), purchase(age_days))
    assert credits(result) == ({"a": (1, 10_000_001)} if placed else {})
    assert result.totals["unattributed"] == (not placed)


def test_a_click_precedes_a_later_listen_and_ties_favour_greater_placements(run: Run) -> None:
    listens = [touch("impression", 2, name) for name in ("b", "é", "z")]
    assert credits(run(*listens, purchase(3))) == {"é": (1, 10_000_001)}
    assert credits(run(touch("click", 1, "a"), *listens, purchase(3))) == {"a": (1, 10_000_001)}


def test_a_listen_is_at_its_impression_if_any(run: Run) -> None:
    play = [touch("impression", 1, "a", "p"), touch("start", 1.0001, "a", "p"), touch("start", 1, "b", "q")]
    assert credits(run(*play, purchase(2), model="linear")) == {"a": (0.5, 5_000_000), "b": (0.5, 5_000_001)}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("last_touch", {"c": 1}),
        ("first_touch", {"a": 1}),
        ("linear", {"a": 0.333333, "b": 0.333333, "c": 0.333334}),
        ("time_decay", {"a": 0.142857, "b": 0.285714, "c": 0.571429}),
    ],
)
def test_every_model_gives_one_whole_conversion_away(
    run: Run, model: str, expected: dict[str, float]
) -> None:
    touches = [touch("click", days, name) for days, name in ((0, "a"), (7, "b"), (14, "c"))]
    result = credits(run(*touches, purchase(21), model=model))
    assert {name: count for name, (count, _) in result.items()} == expected
    assert sum(value for _, value in result.values()) == 10_000_001


def test_of_equal_remainders_of_weights_the_later_touch_has_more(run: Run) -> None:
    touches = [touch("click", days, name) for days, name in ((0, "a"), (0, "b"), (14, "c"))]
    found = {
        name: count for name, (count, _) in credits(run(*touches, purchase(21), model="time_decay")).items()
    }
    assert found == {"a": 0.166666, "b": 0.166667, "c": 0.666667}


def test_declared_then_touch_then_utm_and_nothing_else_is_credited(run: Run) -> None:
    stranger = {"listener_id": "stranger", "landing_url": "https://shop.example/?utm_content=pl%20u"}
    lines = [
        touch("click", 0, "a"),
        purchase(1, placement_id="named"),
        touch("click", 0, "u", campaign_id="other"),
    ]
    lines += [
        purchase(1, **stranger, conversion={"order_id": "2"}),
        purchase(1, conversion={"order_id": "3"}),
    ]
    lines += [purchase(1, consent=False, conversion={"order_id": "4"})]
    result = run(*lines, plans={"pl u": Planned()})
    assert {name: count for name, (count, _) in credits(result).items()} == {"named": 1, "pl u": 1, "a": 1}
    assert (result.totals["conversions"], result.totals["unattributed"]) == (4, 1)
    assert run(*lines).totals["unattributed"] == 2
    assert credits(run(*lines, utm_placements={"pl u": "mapped"}))["mapped"] == (1, 10_000_001)


def test_an_order_converts_once_and_other_currencies_are_counted_apart(run: Run) -> None:
    lines = [touch("click", 0, "a"), purchase(1), purchase(2)]
    lines.append(purchase(3, conversion={"order_id": "2", "currency": "EUR"}))
    row = run(*lines).flight["placement", "a"]
    assert (row["flight.conversions"], row["flight.conversion_value"]) == (2, 10_000_001)
    assert row["flight.conversion_value_other_count"] == 1
    planned = run(*lines, plans={"a": Planned(currency="EUR")}).flight["placement", "a"]
    assert planned["flight.conversion_value_other_count"] == 1


def test_public_tag_values_count_separately_in_the_same_minute(run: Run) -> None:
    claims = (None, True, False, True)
    lines = [touch("click", 0, "a")]
    lines += [
        purchase(1, conversion={"order_id": str(number), "value": 10**number, "claimed": claimed})
        for number, claimed in enumerate(claims)
    ]
    lines.append(purchase(1 + 1 / 86_400, conversion={"currency": "EUR", "claimed": True}))
    lines.append(purchase(1, conversion={"order_id": "p", "claimed": "yes"}))
    found = run(*lines)
    row = found.flight["placement", "a"]
    assert (row["flight.conversion_value"], row["flight.conversion_value_claimed"]) == (
        101_000_000,
        1_010_000_000,
    )
    assert (row["flight.conversions"], row["flight.conversion_value_other_count"]) == (5, 1)
    assert found.totals["rejected.invalid"] == 1


def bought_for(run: Run, values: list[Any]) -> list[tuple[float, float, int]]:
    """(conversions, their value in micros, those counted as another) of a purchase for each of the values."""
    who = [{"listener_id": f"l{number}", "campaign_id": f"c{number}"} for number in range(len(values))]
    clicks = [touch("click", 0, f"a{number}", **one) for number, one in enumerate(who)]
    bought = [
        purchase(1, conversion={"value": value, "order_id": f"o{number}"}, **who[number])
        for number, value in enumerate(values)
    ]
    found = run(*clicks, *bought)
    rows = [found.flight["placement", f"a{number}"] for number in range(len(values))]
    names = ("conversions", "conversion_value", "conversion_value_other_count")
    return [tuple(row[f"flight.{name}"] for name in names) for row in rows]


def test_an_out_of_range_value_counts_as_other(run: Run) -> None:
    values = [0.0000005, "1e-7", "0.0000015", "1,5", True, [], "9" * 14, 1e13 + 1]
    assert bought_for(run, values) == [(1, 0, 1)] * len(values)


def test_a_value_is_exact_however_it_is_written(run: Run) -> None:
    values = ["1.0000000", "1e0", 1, "10.0e-1"]
    assert bought_for(run, values) == [(1, 1_000_000, 0)] * len(values)


def test_files_are_read_by_content_and_damage_is_one_error(tmp_path: Path) -> None:
    log = tmp_path / "log.ndjson.zst"
    frame = zstandard.compress(json.dumps(pixel("start")).encode() + b"\n")
    log.write_bytes(frame + zstandard.compress(json.dumps(pixel("complete", 9)).encode()))
    assert placement(recompute([log]))["completes"] == 1
    damaged = tmp_path / "log.ndjson.gz"
    damaged.write_bytes(frame)
    assert placement(recompute([damaged]))["starts"] == 1
    damaged = damaged.rename(tmp_path / "cut.zst")
    damaged.write_bytes(frame[:-2])
    with pytest.raises(AudiopixelError, match=r"cut\.zst"):
        recompute([damaged])


MILESTONES = ("firstQuartile", "midpoint", "thirdQuartile", "complete")


def pixel_by_pixel(lines: list[dict[str, Any]], lateness: int, horizon: int) -> Counter[str]:
    """A second reading of specification 1.3, 1.4 and 2.2 for one placement: the log read once, forward."""
    count: Counter[str] = Counter()
    greatest = 0
    plays: dict[str, dict[str, Any]] = {}
    lives: list[dict[str, Any]] = []
    for line in lines:
        event, t = line["event"], line["ts"]
        greatest = max(greatest, t)
        open_from = greatest - 10_000 - lateness - MINUTE
        play = plays.get(line["play_id"])
        if play is None or play["last"] < greatest - 10_000 - horizon:
            play = {"last": -1, "seen": set(), "start": None, "held": {}, "joined": set()}
        joins = event in (*MILESTONES, "skip")
        minute = play["start"] if joins and play["start"] is not None else t // MINUTE * MINUTE
        if event in play["seen"]:
            count["repeated"] += 1
        elif minute <= open_from:
            count["too_late"] += 1
        else:
            if not play["seen"]:
                lives.append(play)
                plays[line["play_id"]] = play
            play["seen"].add(event)
            play["last"] = max(play["last"], t)
            if event == "start":
                play["start"] = minute
                play["joined"] |= {name for name, own in play["held"].items() if own > open_from}
            elif joins and play["start"] is not None:
                play["joined"].add(event)
            elif joins:
                play["held"][event] = minute
            else:
                count["impressions"] += event == "impression"
    for play in lives:
        milestones = play["joined"] & set(MILESTONES)
        deepest = max((MILESTONES.index(name) + 1 for name in milestones), default=0)
        count["starts"] += play["start"] is not None
        count["repaired"] += deepest - len(milestones)
        count["skips"] += "skip" in play["seen"]
        count["orphans"] += len(play["held"].keys() - play["joined"] - {"skip"})
        for place, name in enumerate(("first_quartiles", "midpoints", "third_quartiles", "completes")):
            count[name] += deepest > place
    return +count


@pytest.mark.parametrize("seed", range(6))
def test_the_whole_log_at_once_equals_a_forward_read(run: Run, seed: int) -> None:
    rng = random.Random(seed)
    events = ("impression", "start", *MILESTONES, "skip", "resume")
    lines = []
    for second in range(0, 12_000, 4):
        back = rng.choice((0, 3, 60, 300, 900, 2500)) * rng.random()
        now = T0 + second * 1000
        base = pixel(rng.choice(events), play=f"p{rng.randrange(25)}", ts=max(T0, now - int(back * 1000)))
        lines.append(base | {"received_at": now})
    lateness, horizon = rng.choice(((600, 1800), (120, 300), (300, 300))) if seed else (600, 60)
    result = run(*lines, allowed_lateness=timedelta(seconds=lateness), horizon=timedelta(seconds=horizon))
    expected = pixel_by_pixel(lines, lateness * 1000, horizon * 1000)
    assert placement(result) == expected
    assert min(expected[name] for name in ("repeated", "too_late", "orphans", "repaired")) > 0
