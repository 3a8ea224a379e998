"""Plans from columns: what is taken, and what is said of the rest."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from command_support import run_command
from hypothesis import given
from hypothesis import strategies as st

from flows.delivery.plan_columns import COLUMNS, plan_from_json, plan_of, plan_to_json
from flows.errors import PlanError
from flows.intake.brand_safety import blocked
from flows.model.plan import NAMED, PlanBook

NEEDED = {"placement_id": "p", "booked": "1000", "start": "2026-11-02T00:00Z", "end": "2026-11-03T00:00Z"}
WEIGHTS = ";".join(["0"] * 8 + ["1.5", "0.5", "1"] + ["0"] * 13)


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def test_a_flight_is_of_whole_minutes() -> None:
    plan = plan_of({**NEEDED, "start": "2026-11-01T22:00:30.500Z", "end": "2026-11-01T22:10:00.001Z"})
    assert (plan.start_ms, plan.end_ms) == (ms("2026-11-01T22:00+00:00"), ms("2026-11-01T22:11+00:00"))
    assert plan.flight.total_ms == 11 * 60_000, "pacing goes by what is counted"
    assert plan.unrounded_ms == (ms("2026-11-01T22:00:30.500+00:00"), ms("2026-11-01T22:10:00.001+00:00"))
    assert plan_from_json(plan_to_json(plan)) == plan
    whole = plan_of({**NEEDED, "start": "2026-11-01T22:00Z", "end": "2026-11-01T22:11Z"})
    assert whole.unrounded_ms is None
    assert PlanBook([whole]).version == PlanBook([plan]).version


def test_a_plan_of_the_needed_columns_has_the_defaults() -> None:
    plan = plan_of({**NEEDED, "cpm": "", "curve": " ", "pauses": None})
    assert (plan.placement_id, plan.booked) == ("p", 1000)
    assert (plan.start_ms, plan.end_ms) == (ms("2026-11-02T00:00Z"), ms("2026-11-03T00:00Z"))
    assert (plan.curve, plan.pauses, plan.blocked_categories) == ("even", (), ())
    assert (plan.timezone, plan.campaign_id, plan.cpm_micros, plan.currency) == (None, None, None, None)
    assert plan.target_completion_rate is None
    assert plan_from_json(plan_to_json(plan)) == plan


def test_every_column_is_taken() -> None:
    plan = plan_of(
        {
            "placement_id": " p ",
            "booked": "1000",
            "start": "2026-07-01T00:00",
            "end": "2026-12-01T00:00",
            "timezone": "Europe/London",
            "campaign_id": "c",
            "cpm": "12.345678",
            "currency": "GBP",
            "target_completion_rate": "0.92",
            "curve": WEIGHTS,
            "pauses": "2026-11-25T00:00/2026-11-26T00:00;2026-07-02T00:00/2026-07-03T00:00+01:00",
            "blocked_categories": "iab7-39; IAB26",
            "platforms": "spotify; acast;spotify",
            "stations": "Héart 106.2",
            "podcasts": "a",
            "programs": "b",
            "creatives": "x" * 128,
            "delivered_before": " 640 ",
            "delivered_before_until": "2026-11-20T09:00",
            "delivered_before_source": "Héart, report of 20 November",
            "conversions_from": "server",
        }
    )
    balance = plan.delivered_before, plan.delivered_before_until, plan.delivered_before_source
    assert balance == (640, ms("2026-11-20T09:00Z"), "Héart, report of 20 November")
    assert plan.parted_from == ms("2026-11-20T09:00Z") // 60_000
    assert plan.conversions_from == "server"
    assert plan.start_ms == ms("2026-07-01T00:00+01:00")
    assert plan.end_ms == ms("2026-12-01T00:00+00:00")
    assert plan.cpm_micros == 12_345_678
    assert plan.target_completion_rate == 0.92
    assert plan.curve == (0,) * 8 + (3, 1, 2) + (0,) * 13
    assert plan.pauses == (
        (ms("2026-07-02T00:00+01:00"), ms("2026-07-03T00:00+01:00")),
        (ms("2026-11-25T00:00Z"), ms("2026-11-26T00:00Z")),
    )
    assert plan.blocked_categories == ("IAB26", "IAB7-39")
    assert (plan.campaign_id, plan.currency, plan.timezone) == ("c", "GBP", "Europe/London")
    listed = {name: names for name, names in zip(NAMED, plan.listed, strict=True) if names}
    assert (listed["platforms"], listed["stations"]) == (("acast", "spotify"), ("Héart 106.2",))
    assert (listed["podcasts"], listed["programs"], listed["creatives"]) == (("a",), ("b",), ("x" * 128,))
    assert plan_from_json(plan_to_json(plan)) == plan


def test_json_and_text_make_the_same_plan() -> None:
    text = {
        **NEEDED,
        "timezone": "Europe/London",
        "cpm": "0.1",
        "currency": "GBP",
        "curve": WEIGHTS,
        "pauses": "2026-11-02T01:00/2026-11-02T02:00",
        "blocked_categories": "IAB26;432",
        "stations": "two;one",
        "delivered_before": "0",
    }
    lists = {
        **text,
        "booked": 1000,
        "cpm": 0.1,
        "curve": [float(weight) for weight in WEIGHTS.split(";")],
        "pauses": [["2026-11-02T01:00", "2026-11-02T02:00"]],
        "blocked_categories": ["IAB26", "432"],
        "stations": ["one", "two"],
        "delivered_before": 0,
        "a name that plans do not have": 1,
    }
    assert plan_from_json(json.dumps(lists).encode()) == plan_of(text)
    assert plan_from_json(plan_to_json(plan_of(text))) == plan_of(text)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("placement_id", "", "is missing"),
        ("placement_id", "[PLACEMENTID]", "1 to 128"),
        ("placement_id", "x" * 129, "1 to 128"),
        ("placement_id", 7, "takes a text"),
        ("placement_id", "half \ud83d", "half a character"),
        ("booked", None, "is missing"),
        ("booked", "0", "whole number"),
        ("booked", "-5", "whole number"),
        ("booked", "1,000", "whole number"),
        ("booked", "1e3", "whole number"),
        ("booked", "9" * 5000, "whole number"),
        ("booked", True, "whole number"),
        ("start", "2026-11-02", "time of day"),
        ("start", "02/11/2026 00:00", "ISO 8601"),
        ("start", "2026-11-02T00:00", "no offset"),
        ("start", "1969-12-31T23:00Z", "1970 to 2099"),
        ("start", "0001-01-01T00:00+14:00", "1970 to 2099"),
        ("end", "9999-12-31T23:59-14:00", "1970 to 2099"),
        ("end", "2026-11-02T00:00Z", "not after the start"),
        ("timezone", "Europe/Londn", "no such time zone"),
        ("timezone", "Europe", "no such time zone"),
        ("timezone", "../../etc/passwd", "no such time zone"),
        ("campaign_id", "${CAMPAIGN}", "1 to 128"),
        ("cpm", "12,50", "decimal number"),
        ("cpm", "NaN", "decimal number"),
        ("cpm", "-1", "decimal number"),
        ("cpm", "1.2345678", "six decimal places"),
        ("currency", "gbp", "upper-case"),
        ("currency", "POUND", "upper-case"),
        ("target_completion_rate", "92%", "decimal number"),
        ("target_completion_rate", "1.01", "ratio"),
        ("curve", "Even", "24 weights"),
        ("curve", "1;2;3", "24 weights"),
        ("curve", ";".join(["-1"] * 24), "decimal number"),
        ("curve", ";".join(["0"] * 24), "not all 0"),
        ("pauses", "2026-11-02T01:00Z", "start/end"),
        ("pauses", 5, "start/end"),
        ("pauses", [["2026-11-02T01:00Z"]], "start/end"),
        ("pauses", "2026-11-02T01:00/2026-11-02T02:00", "no offset"),
        ("pauses", "2026-11-02T02:00Z/2026-11-02T01:00Z", "ends before"),
        ("pauses", "2025-11-02T01:00Z/2025-11-02T02:00Z", "outside of the flight"),
        ("pauses", "2026-11-01T00:00Z/2026-11-02T00:00Z", "outside of the flight"),
        ("pauses", "2026-11-03T00:00Z/2026-11-04T00:00Z", "outside of the flight"),
        ("pauses", "2026-11-01T00:00Z/2026-11-04T00:00Z", "no unpaused time of the flight"),
        ("blocked_categories", "IAB26,IAB7", "category ids"),
        ("conversions_from", "Server", "takes server or browser"),
        ("conversions_from", ["server"], "takes server or browser"),
        ("blocked_categories", {"IAB26": 1}, "category ids"),
        ("platforms", "spotify;;acast", "1 to 128"),
        ("platforms", "spotify;[PLATFORM]", "1 to 128"),
        ("stations", "x" * 129, "1 to 128"),
        ("stations", ["one", 2], "takes a text"),
        ("podcasts", ["half \ud83d"], "half a character"),
        ("programs", {"one": 1}, "up to 10000 ids"),
        ("creatives", [f"c{n}" for n in range(10_001)], "up to 10000 ids"),
        ("delivered_before", "-1", "whole number from 0"),
        ("delivered_before", 1.5, "whole number from 0"),
        ("delivered_before", False, "whole number from 0"),
        ("delivered_before_until", "2026-11-02T00:30", "no offset"),
        ("delivered_before_source", "x" * 129, "up to 128"),
        ("delivered_before_source", "two\nlines", "printable"),
        ("delivered_before_source", 7, "takes a text"),
    ],
)
def test_a_wrong_value_is_reported_with_its_column(column: str, value: Any, reason: str) -> None:
    with pytest.raises(PlanError, match=reason) as caught:
        plan_of({**NEEDED, column: value})
    assert caught.value.column == column
    assert str(caught.value).startswith(f"{column}: ")


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({"cpm": "12"}, "currency"),
        ({"conversions_from": "server"}, "campaign_id"),
        ({"curve": WEIGHTS}, "timezone"),
        ({"curve": WEIGHTS, "timezone": "UTC", "end": "2026-11-02T05:00Z"}, "curve"),
        ({"delivered_before": "5"}, "delivered_before_until"),
        ({"delivered_before_until": "2026-11-02T05:00Z"}, "delivered_before"),
        ({"delivered_before_source": "theirs"}, "delivered_before"),
        ({"delivered_before": "5", "delivered_before_until": "2026-11-01T23:59Z"}, "delivered_before_until"),
        ({"delivered_before": "5", "delivered_before_until": "2026-11-03T00:01Z"}, "delivered_before_until"),
        ({"delivered_before": "5", "delivered_before_until": "2026-11-02T00:00Z"}, "delivered_before_until"),
    ],
)
def test_contradicting_columns_are_reported(row: dict[str, str], column: str) -> None:
    with pytest.raises(PlanError) as caught:
        plan_of({**NEEDED, **row})
    assert caught.value.column == column


def test_a_balance_of_zero_or_within_a_minute_splits_no_counts() -> None:
    plan = plan_of({**NEEDED, "delivered_before": "0"})
    assert (plan.delivered_before, plan.delivered_before_until, plan.parted_from) == (0, None, 0)
    until = {"delivered_before": "5", "delivered_before_until": "2026-11-02T05:00:00.001Z"}
    assert plan_of({**NEEDED, **until}).parted_from == 0
    assert plan_of({**NEEDED, "delivered_before": "0", "delivered_before_until": NEEDED["start"]})


@pytest.mark.parametrize(("local", "times"), [("2026-03-29T01:30", "never"), ("2026-10-25T01:30", "twice")])
def test_a_skipped_or_repeated_local_time_needs_an_offset(local: str, times: str) -> None:
    row = {**NEEDED, "start": local, "timezone": "Europe/London"}
    with pytest.raises(PlanError, match=f"{times}: write its offset") as caught:
        plan_of(row)
    assert caught.value.column == "start"
    assert plan_of({**row, "start": f"{local}+00:00"}).start_ms == ms(f"{local}+00:00")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"\xff", b'"p"', b"null", b'{"booked": NaN}', b"[" * 100_000,
        json.dumps({**NEEDED, "booked": 10.5}).encode(),
        json.dumps(NEEDED).replace('"1000"', "1" * 5000).encode(),
        json.dumps({**NEEDED, "currency": "GBP", "cpm": 0}).replace(": 0", ": 0E-999999999").encode(),
        json.dumps({**NEEDED, "currency": "GBP", "cpm": 0}).replace(": 0", ": 1E-999999999").encode(),
    ],
)  # fmt: skip
def test_any_invalid_plan_raises_only_a_plan_error(data: bytes) -> None:
    with pytest.raises(PlanError):
        plan_from_json(data)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)


@given(st.sampled_from(COLUMNS), json_values)
def test_any_cell_makes_a_plan_or_an_error_naming_its_column(column: str, value: Any) -> None:
    row = {**NEEDED, "timezone": "UTC", "currency": "EUR", column: value}
    try:
        plan = plan_from_json(json.dumps(row).encode())
    except PlanError as error:
        told = error.column
        if column == "delivered_before" and told == "delivered_before_until":
            told = column  # a balance needs its moment, which is missing
    else:
        due, of = plan.flight.reached(plan.end_ms - 1)
        assert 0 <= due <= of > 0
        told = column
    assert told == column


@given(st.decimals(0, 10**6, places=6))
def test_a_price_is_kept_exactly(cpm: Any) -> None:
    plan = plan_from_json(
        json.dumps({**NEEDED, "currency": "EUR", "cpm": "@"}).replace('"@"', f"{cpm:f}").encode()
    )
    assert plan.cpm_micros == int(cpm * 1_000_000)


def test_the_version_of_a_book_is_that_of_its_content() -> None:
    one, two = plan_of(NEEDED), plan_of({**NEEDED, "placement_id": "q"})
    assert PlanBook([one, two]).version == PlanBook([two, one]).version
    others = [plan_of({**NEEDED, name: "IAB26"}) for name in ("blocked_categories", "stations", "creatives")]
    books = ([], [one], [two], [one, two], *([other] for other in others))
    assert len({PlanBook(plans).version for plans in books}) == 7
    book = PlanBook([one, two])
    assert (book["q"], book.get("r"), list(book), len(book)) == (two, None, ["p", "q"], 2)


@pytest.mark.parametrize(
    ("categories", "is_blocked"),
    [
        (None, False), ("", False), ([], False), ("IAB1", False), ("IAB260", False), ("IAB7", False),
        ("IAB7-3", False), (["IAB1", "IAB2"], False), ("432-1", False),
        ("IAB26", True), ("iab26", True), ("IAB26-1", True), ("IAB7-39", True), ("432", True),
        (["IAB1", "IAB26-4"], True),
    ],
)  # fmt: skip
def test_content_is_blocked_by_its_category_or_the_one_above(categories: Any, is_blocked: bool) -> None:
    plan = plan_of({**NEEDED, "blocked_categories": "IAB26;IAB7-39;432"})
    assert blocked(plan, categories) is is_blocked
    assert not blocked(plan_of(NEEDED), categories)


def test_a_book_contains_the_labels_of_all_its_plans() -> None:
    lists = {"platforms": ["web"], "stations": ["a;b", "c"], "creatives": ["spot"]}
    one, two = plan_of({**NEEDED, **lists}), plan_of({**NEEDED, "placement_id": "q", "stations": "c;d"})
    known = {name: names for name, names in zip(NAMED, PlanBook([one, two]).labels, strict=True) if names}
    assert known == {"platforms": {"web"}, "stations": {"a;b", "c", "d"}, "creatives": {"spot"}}
    assert not any(PlanBook().labels)


def test_the_command_warns_about_a_rounded_flight(tmp_path: Path) -> None:
    file = tmp_path / "plans.csv"
    file.write_text(
        "placement_id,booked,start,end\n"
        "odd,9,2026-11-01T22:00:30Z,2026-11-01T23:00Z\nwhole,9,2026-11-01T22:00Z,2026-11-01T23:00Z\n"
    )
    done = run_command("plans", str(file), directory=tmp_path, environment={**os.environ}, into=tmp_path)
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        f"{file}: odd: start 2026-11-01T22:00:30Z is taken as 2026-11-01T22:00:00Z, "
        "since flights count whole minutes",
        "2 plans",
    ]
