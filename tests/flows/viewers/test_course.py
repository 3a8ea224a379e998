"""The course of a flight: what a chart draws, from the row, the topic of minutes and the alerts."""

from __future__ import annotations

from typing import Any

from flows.viewers.course import MAX_MARKS, MAX_MINUTES, course

MINUTE = 60_000
T0 = 1_779_868_800_000
NOW = T0 + 120 * MINUTE + 42_000
ROW = {
    "as_of_ms": str(NOW),
    "delivery.start_ms": str(T0),
    "delivery.end_ms": str(T0 + 480 * MINUTE),
    "delivery.booked": "12000",
    "delivery.delivered": "1190",
    "delivery.expected": "3018",
    "delivery.projected": "1290",
    "delivery.required_rate": "1805",
    "delivery.remaining_seconds": str(360 * 60),
}


def minute(at: int, impressions: int, state: str = "final") -> dict[str, Any]:
    return {"minute_ms": T0 + at * MINUTE, "impressions": impressions, "state": state}


def test_rates_are_per_minute_and_0_without_pixels() -> None:
    found = course("p", ROW, [minute(117, 3), minute(119, 1, "provisional")], T0 + 116 * MINUTE, [])
    assert found["needed_per_minute"] == 30.083333
    assert (found["due_per_minute"], found["projected_per_minute"]) == (24.95, 0.277778)
    assert found["minutes"] == {
        "at_ms": [T0 + at * MINUTE for at in range(116, 121)],
        "impressions": [0, 3, 0, 1, 0],
        "final_through_ms": T0 + 118 * MINUTE,
    }
    assert found["flight"]["projected"] == 1290


def test_unknown_minutes_are_null_instead_of_0() -> None:
    found = course("p", {"as_of_ms": "5", "delivery.booked": "many"}, [], 0, [])
    assert found["minutes"]["at_ms"] == []
    assert [found[f"{of}_per_minute"] for of in ("needed", "due", "projected")] == [None] * 3
    assert found["flight"] == dict.fromkeys(
        ("start_ms", "end_ms", "booked", "delivered", "expected", "projected")
    )


def test_minutes_begin_with_the_flight_and_cover_at_most_a_day() -> None:
    young = course("p", ROW, [minute(-3, 5), minute(2, 5)], T0 - 60 * MINUTE, [])
    assert young["minutes"]["at_ms"][0] == T0
    long = {**ROW, "delivery.start_ms": "0"}
    assert len(course("p", long, [minute(0, 1)], 1, [])["minutes"]["at_ms"]) == MAX_MINUTES


def test_marks_show_states_outages_and_plan_changes_in_order() -> None:
    def minute_ms(minutes: int) -> str:
        return str(T0 + minutes * MINUTE)

    changes = [
        {
            "placement": "p",
            "from": "on_track",
            "to": "under",
            "since_ms": minute_ms(62),
            "as_of_ms": minute_ms(64),
        },
        {"placement": "another", "from": "on_track", "to": "under", "as_of_ms": minute_ms(63)},
        {
            "kind": "feed",
            "unit": "platform:a",
            "to": "silent",
            "since_ms": minute_ms(70),
            "as_of_ms": minute_ms(71),
        },
        {
            "kind": "feed",
            "unit": "platform:a",
            "to": "live",
            "since_ms": minute_ms(70),
            "as_of_ms": minute_ms(75),
        },
        {
            "kind": "feed",
            "unit": "sender:c",
            "to": "silent",
            "since_ms": minute_ms(80),
            "as_of_ms": minute_ms(81),
            "placement_ids": '["another","p"]',
        },
        {
            "kind": "feed",
            "unit": "platform:z",
            "to": "silent",
            "since_ms": minute_ms(81),
            "as_of_ms": minute_ms(82),
        },
        {
            "kind": "feed",
            "unit": "sender:d",
            "to": "silent",
            "since_ms": minute_ms(82),
            "as_of_ms": minute_ms(83),
            "placement_ids": '["another"]',
        },
        {"placement": "p", "from": "x", "to": "y", "as_of_ms": "noon"},
    ]
    row = {
        **ROW,
        "platform": "a",
        "delivery.plan_changed_ms": minute_ms(20),
        "delivery.booked_before": "10000",
    }
    assert course("p", row, [], 0, changes)["marks"] == [
        {"kind": "plan", "at_ms": T0 + 20 * MINUTE, "booked_before": 10_000},
        {"kind": "state", "at_ms": T0 + 62 * MINUTE, "from": "on_track", "to": "under"},
        {"kind": "feed", "at_ms": T0 + 70 * MINUTE, "until_ms": T0 + 75 * MINUTE, "unit": "platform:a"},
        {"kind": "feed", "at_ms": T0 + 80 * MINUTE, "until_ms": None, "unit": "sender:c"},
    ]
    many = [changes[0] | {"as_of_ms": minute_ms(one)} for one in range(2 * MAX_MARKS)]
    assert len(course("p", row, [], 0, many)["marks"]) == MAX_MARKS


def test_a_reader_of_one_placement_has_its_own_outage_by_its_row() -> None:
    silent = {
        **ROW,
        "delivery.judged": "0",
        "delivery.unjudged_since_ms": str(NOW),
        "delivery.unjudged_by": "platform:a",
    }
    (mark,) = course("p", silent, [], 0, [])["marks"]
    assert mark == {"kind": "feed", "at_ms": NOW, "until_ms": None, "unit": "platform:a"}
