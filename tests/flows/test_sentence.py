"""The sentence about a row: each cause by the rows that make it true, and never without its evidence."""

from __future__ import annotations

from datetime import UTC
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.model.fields import FIELDS
from flows.sentence import MOST, Context, Tag, cause, sentence
from flows.sentence.causes import RULES

NOW = 1_779_876_060_000  # 27 May 2026, 10:01 UTC
HOUR = 3_600_000
LONDON = ZoneInfo("Europe/London")
ROW = {
    "campaign_id": "c-4",
    "station": "st-1",
    "platform": "web",
    "delivery.state": "under",
    "delivery.judged": "1",
    "delivery.since_ms": str(NOW - 7 * HOUR - 41 * 60_000),
    "delivery.booked": "12000",
    "delivery.delivered": "119",
    "delivery.indicator": "0.04",
    "delivery.required_rate": "1996.4",
    "delivery.at_stake": "32.44",
    "delivery.at_stake_end": "135.6",
    "delivery.currency": "GBP",
    "delivery.end_ms": str(NOW + 54 * 60_000),
    "1h.impressions": "15",
}
RUNS = {"delivery.state": "on_track", "1h.impressions": "990", "delivery.required_rate": "1000"}
STOPPED = {"delivery.state": "under", "1h.impressions": "0", "delivery.required_rate": "1000"}
AT = Context(NOW, LONDON, {"other": RUNS})


def test_a_sentence_has_event_begin_cost_and_cause() -> None:
    assert sentence(ROW, AT) == (
        "Nearly stopped: 15 an hour of 1,996 needed, since 03:20. GBP 32 short now, GBP 136 by 11:55. "
        "Other placements of c-4 run, so look at this ad's tag or budget."
    )
    assert "since 02:20. " in sentence(ROW, AT._replace(zone=UTC)), "by the viewer's clock"


SINCE = NOW - 7 * HOUR - 41 * 60_000
STARTED = {
    "delivery.start_ms": str(SINCE - 20 * 60_000),
    "flight.counted_since_ms": str(SINCE - 20 * 60_000),
}


@pytest.mark.parametrize(
    ("row", "begins"),
    [
        ({}, "Has hardly run since its start (03:00): 15 an hour of 1,996 needed. GBP 32 short now"),
        (
            {"delivery.delivered": "0", "delivery.indicator": "0", "1h.impressions": "0"},
            "Has not run since its start (03:00): 0 an hour of 1,996 needed.",
        ),
        ({"delivery.indicator": "0.4"}, "Nearly stopped: 15 an hour of 1,996 needed, since 03:20."),
        ({"delivery.start_ms": str(SINCE - HOUR)}, "Nearly stopped: "),
        ({"flight.counted_since_ms": str(SINCE)}, "Nearly stopped: "),
        ({"delivery.state": "at_risk"}, "Nearly stopped: 15 an hour of 1,996 needed, at risk since 03:20."),
    ],
)
def test_an_ad_that_never_ran_has_not_stopped(row: dict[str, str], begins: str) -> None:
    assert sentence(ROW | STARTED | row, AT).startswith(begins)


@pytest.mark.parametrize(
    ("name", "row", "around", "said"),
    [
        (
            "feed_silent",
            {
                "delivery.judged": "0",
                "delivery.unjudged_reason": "feed_silent",
                "delivery.unjudged_by": "platform:acast",
                "delivery.unjudged_since_ms": str(NOW - HOUR),
            },
            {},
            "No pixel of the platform acast has arrived since 10:01: leave bids as they are.",
        ),
        (
            "not_judged",
            {},
            {"unjudged": ("lagging", NOW - HOUR)},
            "Do not act on it since 10:01: the flow is catching up.",
        ),
        (
            "plan_changed",
            {"delivery.plan_changed_ms": str(NOW - 8 * HOUR), "delivery.booked_before": "9000"},
            {},
            "Its plan changed at 03:01: 12,000 booked, before 9,000.",
        ),
        ("tag", {}, {"tag": Tag(0, 0)}, "Its tag has never fired: look at the tag in the ad server."),
        ("tag", {}, {"tag": Tag(40, 30)}, "30 of 40 calls of its tag have an unreplaced macro."),
        (
            "consent",
            {"flight.pixels": "900", "flight.consent_coverage": "0.03"},
            {"campaign": {"flight.consent_coverage": "0.71"}},
            "Only 3 % of its pixels have consent, 71 % of its campaign's.",
        ),
        (
            "invalid_traffic",
            {"flight.pixels": "100", "flight.invalid_traffic": "300"},
            {"campaign": {"flight.pixels": "9000", "flight.invalid_traffic": "1000"}},
            "75 % of its pixels are invalid traffic, 10 % of its campaign's.",
        ),
        (
            "completion",
            {"1h.mature_completion_rate": "0.31", "flight.completion_rate": "0.88", "1h.starts": "400"},
            {},
            "31 % are heard to the end in the last hour, 88 % in the flight.",
        ),
        (
            "label",
            {},
            {"station": {"5m.impressions": "3", "1h.impressions": "4000"}},
            "The station st-1 as a whole fell to 36 an hour, of 4,000 in the last.",
        ),
        (
            "label",
            {},
            {"platform": {"5m.impressions": "0", "1h.impressions": "4000"}},
            "The platform web as a whole fell to 0 an hour, of 4,000 in the last.",
        ),
        (
            "campaign",
            {},
            {"siblings": {"a": STOPPED, "b": STOPPED, "paused": {"delivery.state": "paused"}}},
            "All 3 placements of c-4 that run fell: look at the campaign's budget.",
        ),
        (
            "only_this",
            {},
            {"siblings": {"a": RUNS}},
            "Other placements of c-4 run, so look at this ad's tag or budget.",
        ),
    ],
)
def test_each_cause_is_said_with_its_evidence(
    name: str, row: dict[str, str], around: dict[str, object], said: str
) -> None:
    context = Context(NOW, LONDON)._replace(**around)
    found = cause(ROW | row, context)
    assert found is not None
    assert (found.name, found.evidence) == (name, said)
    told = sentence(ROW | row, context)
    assert told.endswith(said)
    assert told.startswith("Not judged, under until then. No pixel") == (name == "feed_silent")


def test_causes_are_ordered_by_their_explained_share() -> None:
    every = Context(
        NOW,
        LONDON,
        {"a": RUNS},
        {"flight.consent_coverage": "0.71"},
        {"5m.impressions": "3", "1h.impressions": "4000"},
        tag=Tag(0, 0),
        unjudged=("lagging", NOW),
    )
    row = ROW | {"flight.pixels": "900", "flight.consent_coverage": "0.03", "flight.invalid_traffic": "9000"}
    row |= {"1h.mature_completion_rate": "0", "flight.completion_rate": "0.9", "1h.starts": "99"}
    row |= {"delivery.plan_changed_ms": str(NOW - 8 * HOUR)}
    found = [name for name, rule in RULES.items() if rule(row, every) is not None]
    assert found == [name for name in RULES if name not in ("feed_silent", "campaign")]


def test_no_cause_is_named_without_evidence() -> None:
    assert cause(ROW, Context(NOW)) is None
    mixed = Context(NOW, UTC, {"a": RUNS, "b": STOPPED})
    assert cause(ROW, mixed) is None
    assert sentence(ROW, mixed).endswith("10:55.")
    few = ROW | {"flight.pixels": "9", "flight.consent_coverage": "0", "flight.invalid_traffic": "9"}
    assert cause(few, Context(NOW, UTC, campaign={"flight.consent_coverage": "0.7"})) is None


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"delivery.state": "on_track", "delivery.indicator": "1.02"}, "On track: 102 % of what is due."),
        (
            {"delivery.state": "over", "delivery.indicator": "1.2"},
            "Over its plan: 120 % of what is due. What goes beyond the booking is not paid for.",
        ),
        (
            {"delivery.state": "not_started", "delivery.start_ms": str(NOW + 24 * HOUR)},
            "Not started: it begins 28 May, 10:01.",
        ),
        (
            {"delivery.state": "complete", "delivery.delivered": "12000", "delivery.booked": "12000"},
            "Complete: 12,000 of 12,000 impressions.",
        ),
        (
            {
                "delivery.state": "on_track",
                "delivery.indicator": "1",
                "flight.blocked_impressions": "912",
                "delivery.blocked_at_stake": "10.488",
                "delivery.currency": "GBP",
            },
            "Stop it: 912 impressions ran in blocked content, GBP 10 that will not be paid. "
            "On track: 100 % of what is due.",
        ),
        ({"flight.impressions": "7"}, "7 impressions, without a plan."),
        ({}, "Without a plan."),
    ],
)
def test_a_healthy_row_has_a_short_sentence(row: dict[str, str], said: str) -> None:
    judged = row | {"delivery.judged": "1"} if "delivery.state" in row else row
    assert sentence(judged, Context(NOW, UTC)) == said


def test_a_row_that_does_not_say_that_it_is_judged_allows_no_action() -> None:
    unsaid = {field: text for field, text in ROW.items() if field != "delivery.judged"}
    assert sentence(unsaid, Context(NOW, UTC)) == "Not judged, under until then. Leave bids as they are."


def test_an_ad_at_its_required_rate_is_catching_up() -> None:
    assert sentence(ROW | {"1h.impressions": "2500"}, AT).startswith("Behind, and catching up: 2,500 an hour")
    assert sentence(ROW | {"1h.impressions": "0"}, AT).startswith("Stopped: 0 an hour of 1,996 needed")


TEXTS = st.one_of(st.none(), st.text(max_size=300), st.floats().map(str), st.integers().map(str))


@given(st.dictionaries(st.sampled_from(FIELDS), TEXTS), st.dictionaries(st.sampled_from(FIELDS), TEXTS))
def test_whatever_a_row_holds_it_is_one_short_line(
    row: dict[str, str | None], other: dict[str, str | None]
) -> None:
    known = {name: text for name, text in row.items() if text is not None}
    around = {name: text for name, text in other.items() if text is not None}
    context = Context(NOW, LONDON, {"x": around}, around, around, around, Tag(9, 7), ("down", float("nan")))
    for state in ("under", "on_track", known.get("delivery.state", "")):
        said = sentence(known | {"delivery.state": state}, context)
        assert len(said) <= MOST
        assert all(letter.isprintable() for letter in said)
