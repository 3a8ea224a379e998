"""Impressions in content blocked by a plan: flagged at decoding, counted with the play and in every row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scanner_support import EVENT, Both

from flows.delivery.plan_columns import plan_of
from flows.intake.brand_safety import blocked
from flows.model.pixel import BLOCKED, INFO
from flows.model.plan import PlanBook
from flows.replay import replay
from flows.settings.fields import Settings

KEY = b"a key of sixteen bytes or more"
T0 = 1_764_000_000_000
BOT = "AdsBot/1.0"
PLAN = {"booked": 1000, "start": "2025-11-24T00:00Z", "end": "2025-11-26T00:00Z"}


def book(**categories: str) -> PlanBook:
    return PlanBook(
        plan_of({"placement_id": name, **PLAN, "blocked_categories": blocked})
        for name, blocked in categories.items()
    )


def line(number: int, **fields: Any) -> bytes:
    known = {**EVENT, "event": "impression", "event_id": f"e{number}", "play_id": f"play-{number}", "ts": T0}
    return json.dumps({**known, "received_at": T0 + number, **fields}, separators=(",", ":")).encode()


CATEGORIES = st.sampled_from(
    [None, "", "IAB26", "iab26", "IAB26-1", "IAB7", "150", ["IAB7", "150"], [], "x" * 99]
)


@settings(deadline=None)  # the first example compiles
@given(
    st.lists(st.tuples(st.sampled_from(["pl-1", "pl-2", "pl-3"]), CATEGORIES), min_size=1, max_size=40),
    st.integers(0, 40),
)
def test_both_decoders_flag_content_blocked_by_the_plan_in_force(
    pixels: list[tuple[str, Any]], change_at: int
) -> None:
    both = Both()
    books = [book(**{"pl-1": "IAB26;150"}), book(**{"pl-1": "150", "pl-2": "IAB7"})]
    both.follow(books[0])
    for number, (placement, category) in enumerate(pixels * 2):  # the scanner knows them the second time
        if number == change_at:
            both.follow(books[1])
        plan = books[number >= change_at].get(placement)
        batch = both.decode([line(number, placement_id=placement, content_category=category)])
        flagged = bool(int(batch.pixels[0, INFO]) & BLOCKED)
        assert flagged == (plan is not None and blocked(plan, category)), (placement, category)


def test_a_blocked_impression_counts_once_in_its_placement_and_roll_ups(
    tmp_path: Path,
    settings_of: Callable[..., Settings],
    rows_of: Callable[[Settings, str], dict[str, dict[str, str]]],
) -> None:
    plans = tmp_path / "plans.csv"
    plans.write_text(
        "placement_id,booked,start,end,blocked_categories\n"
        "pl-1,1000,2025-11-24T00:00Z,2025-11-26T00:00Z,IAB26;150\n"
        "pl-2,1000,2025-11-24T00:00Z,2025-11-26T00:00Z,\n"
    )
    bad = {"content_category": "IAB26-3"}
    lines = [
        line(1, **bad),
        line(2, content_category=["IAB1", "150"]),
        line(3, content_category="IAB1"),
        line(4),
        line(1, **bad, event_id="again"),  # repeated
        line(5, **bad, user_agent=BOT),  # invalid traffic
        line(6, **bad, event="start"),  # no impression
        line(7, **bad, placement_id="pl-2"),  # its plan blocks nothing
        line(8, **bad, placement_id="pl-3"),  # no plan
        b"{",
    ]
    log = tmp_path / "log.ndjson"
    log.write_bytes(b"\n".join(lines))
    settings = settings_of(plans=plans)
    replay([str(log)], settings, KEY)
    shown = {
        scope: {name: row["flight.blocked_impressions"] for name, row in rows_of(settings, scope).items()}
        for scope in ("placement", "campaign", "platform")
    }
    assert shown == {
        "placement": {"pl-1": "2", "pl-2": "0", "pl-3": "0"},
        "campaign": {"c-1": "2"},
        "platform": {"spotify": "2"},
    }


@pytest.mark.parametrize(("name", "other"), [("IAB26", "IAB260"), ("150", "1500")])
def test_an_id_with_only_a_blocked_prefix_is_not_blocked(name: str, other: str) -> None:
    (plan,) = book(**{"pl-1": name}).values()
    assert blocked(plan, name)
    assert not blocked(plan, other)
