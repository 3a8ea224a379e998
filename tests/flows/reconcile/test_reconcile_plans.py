"""The oracle and the plans: when a planned flight starts, rows without pixels, blocked content."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from connectors.redis.client import Client
from flows.cli.commands import app
from flows.cli.reconcile_settings import rules
from flows.reconcile.comparison import differences
from flows.reconcile.fields import FLIGHT_METRICS
from flows.reconcile.pacing import Planned
from flows.reconcile.recomputation import recompute
from flows.reconcile.report import Difference
from flows.reconcile.rules import Rules
from flows.reconcile.truth import Recomputation
from flows.replay import replay
from flows.settings.fields import Settings
from flows.simulate.feed import run_log
from flows.simulate.scenario import Trouble
from flows.simulate.traffic import Traffic

T0 = 1_764_000_000_000  # a full minute
KEY = b"a key of sixteen bytes or more"
HEAD = "placement_id,booked,start,end,campaign_id,currency,blocked_categories"
LABELS = ("platform", "station", "podcast", "program", "creative_id")

DURATIONS = (
    *("out_of_orderness", "horizon", "click_window", "listen_window", "half_life"),
    *("mature_after", "quiet", "max_hold", "row_ttl", "conversion_horizon"),
)

Line = dict[str, Any]
Run = Callable[..., Recomputation]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def recomputed(*lines: Line, **planned: Planned) -> Recomputation:
        return recompute([written(tmp_path, *lines)], Rules(plans=planned))

    return recomputed


def written(directory: Path, *lines: Line) -> Path:
    """A log of lines, each with an event id of its own."""
    file = directory / "log.ndjson"
    file.write_text("".join(json.dumps({"event_id": f"e{n}"} | line) + "\n" for n, line in enumerate(lines)))
    return file


def pixel(event: str, after_s: float, play: str | None = "p", at: str | None = "a", **more: Any) -> Line:
    t = T0 + int(after_s * 1000)
    found = {"event": event, "ts": t, "received_at": t, "placement_id": at, "play_id": play, **more}
    return {name: value for name, value in found.items() if value is not None}


def numbers(truth: Recomputation, scope: str = "placement", name: str = "a") -> dict[str, float]:
    """The numbers of a flight that are not 0; all impressions are of one basis."""
    same = ("flight.pixels", "flight.impressions_vast_impression")
    row = {name: value for name, value in truth.flight[scope, name].items() if name not in same}
    return {metric.removeprefix("flight."): value for metric, value in row.items() if value}


HEARD = {"listener_id": "l", "consent": True, "campaign_id": "c"}
BEFORE_AND_AFTER = [
    pixel("impression", 58, "early", **HEARD),
    pixel("start", 59, "early", **HEARD),
    pixel("complete", 75, "early", **HEARD),
    pixel("click", 59.5, "early", **HEARD),
    pixel("midpoint", 59, "orphan"),
    pixel("mute", 59, "held"),
    pixel("impression", 60, "on time", **HEARD | {"listener_id": "m"}),
    pixel("start", 61, "on time", **HEARD | {"listener_id": "m"}),
    pixel("complete", 76, "on time", **HEARD | {"listener_id": "m"}),
    pixel("start", 62, "on time"),
    pixel("skip", 59.9, "late start"),
    pixel("start", 63, "late start"),
    pixel("start", 30, "bot", user_agent="Examplebot/2.1"),
    pixel("start", 59, "early"),
]


def test_a_planned_flight_counts_cohorts_from_its_plans_first_minute(run: Run) -> None:
    truth = run(*BEFORE_AND_AFTER, a=Planned(T0 + 90_000))
    cohort = dict.fromkeys(("first_quartiles", "midpoints", "third_quartiles", "completes"), 1)
    whole = {"consented": 7, "repeated": 2, "invalid_traffic": 1}  # of earlier minutes too
    counts = {"impressions": 1, "starts": 2, "skips": 1, "repaired": 3, "reach": 1}
    assert numbers(truth) == counts | cohort | whole
    assert truth.minutes["a", T0] == run(*BEFORE_AND_AFTER).minutes["a", T0]
    assert numbers(run(*BEFORE_AND_AFTER, a=Planned(T0 + 60_000))) == numbers(truth)
    assert numbers(run(*BEFORE_AND_AFTER, b=Planned(T0 + 90_000))) == numbers(run(*BEFORE_AND_AFTER))


def test_delivery_counts_minutes_beginning_before_the_flights_end(run: Run) -> None:
    lines = [pixel("impression", at, f"p{at}", **HEARD) for at in (59, 60, 119, 120, 150, 179, 180, 900)]
    for end_ms, delivered in ((T0 + 120_000, 2), (T0 + 120_001, 5), (T0 + 180_000, 5), (T0 + 3_600_000, 7)):
        row = run(*lines, a=Planned(T0 + 90_000, end_ms=end_ms)).flight["placement", "a"]
        assert (row["delivery.delivered"], row["flight.impressions"]) == (delivered, 7), end_ms
    assert run(quiet=Planned(T0, end_ms=2 * T0)).flight["placement", "quiet"]["delivery.delivered"] == 0


def test_a_roll_ups_flight_has_all_pixels_of_planned_placements_too(run: Run) -> None:
    truth = run(*BEFORE_AND_AFTER, a=Planned(T0 + 90_000))
    assert numbers(truth, "campaign", "c") == numbers(run(*BEFORE_AND_AFTER), "campaign", "c")
    assert numbers(truth, "campaign", "c")["impressions"] == 2


def test_conversions_of_minutes_before_the_start_are_not_in_the_flight(run: Run) -> None:
    def bought(after_s: float) -> Line:
        order = {"type": "purchase", "order_id": f"o{after_s}", "value": "2", "currency": "GBP"}
        return pixel("conversion", after_s, None, None, conversion=order, **HEARD)

    lines = [pixel("impression", 1, **HEARD), bought(30), bought(119), bought(120)]
    truth = run(*lines, a=Planned(T0 + 120_000))
    assert (numbers(truth)["conversions"], numbers(truth)["conversion_value"]) == (1, 2_000_000)
    assert numbers(truth, "campaign", "c")["conversions"] == 3
    assert truth.totals["unattributed"] == 0


def test_a_plan_has_a_row_of_zeros_before_any_pixel(run: Run) -> None:
    truth = run(pixel("impression", 0), quiet=Planned(T0, campaign="autumn"), later=Planned(2 * T0))
    for key in (("placement", "quiet"), ("placement", "later"), ("campaign", "autumn")):
        assert set(truth.flight[key]) >= {f"flight.{metric}" for metric in FLIGHT_METRICS}
        assert not any(truth.flight[key].values())
    assert "frequency.1.listeners" in truth.flight["campaign", "autumn"]


CATEGORIES: list[tuple[Any, int]] = [
    ("IAB26", 1),
    ("iab26-1", 1),
    (" IAB26-12 ", 1),
    (["IAB1", "Iab26-1"], 1),
    ("IAB7-39", 1),
    ("432", 1),
    ("IAB2", 0),
    ("IAB261", 0),
    ("IAB26-1-2", 0),
    ("IAB26-", 0),
    ("XIAB26", 0),
    ("IAB7", 0),
    ("IAB7-3", 0),
    ("432-1", 0),
    ("IAB26,IAB1", 0),
    ("", 0),
    ("[CONTENTCAT]", 0),
    ([], 0),
    (["", "IAB1"], 0),
    (None, 0),
]
"""What a pixel says of its content, and whether its impression is a blocked one."""


def test_an_id_or_its_parts_are_blocked_in_any_case(run: Run) -> None:
    blocked = Planned(blocked_categories=("432", "IAB26", "IAB7-39"))
    lines = [
        pixel("impression", 0, f"p{number}", f"a{number}", content_category=category)
        for number, (category, _) in enumerate(CATEGORIES)
    ]
    found = run(*lines, **{f"a{number}": blocked for number in range(len(CATEGORIES))})
    for number, (category, counts) in enumerate(CATEGORIES):
        expected = {"impressions": 1} | ({"blocked_impressions": 1} if counts else {})
        assert numbers(found, name=f"a{number}") == expected, category


def test_blocked_impressions_sum_by_the_pixels_own_fields(run: Run) -> None:
    def impression_of(after_s: float, play: str | None, at: str = "a", **more: Any) -> Line:
        return pixel("impression", after_s, play, at, **{"content_category": "IAB26-3", **more})

    lines = [
        impression_of(0, "1", station="s"),  # before the flight's start, counted all the same
        impression_of(1, "1", station="s"),  # a repeat
        impression_of(120, "2", station="t", campaign_id="c"),
        impression_of(121, None, station="s"),
        impression_of(122, "3", station="s", content_category="IAB1"),
        impression_of(123, "4", station="s", user_agent="Examplebot/2.1"),
        impression_of(124, "5", at="other", station="s"),  # blocks something else
        impression_of(125, "6", at="unplanned", station="s"),
        pixel("start", 126, "7", content_category="IAB26"),  # no impression
        pixel("click", 126, "7", content_category="IAB26"),
        impression_of(900, "8", at="clock"),
        impression_of(127, "9", station="s"),  # too late
    ]
    plans = {
        "a": Planned(T0 + 60_000, blocked_categories=("IAB26",)),
        "other": Planned(blocked_categories=("IAB25",)),
    }
    truth = run(*lines, **plans)
    found = {
        key: row["flight.blocked_impressions"]
        for key, row in truth.flight.items()
        if row["flight.blocked_impressions"]
    }
    assert found == {
        ("placement", "a"): 3,
        ("station", "s"): 2,
        ("station", "t"): 1,
        ("campaign", "c"): 1,
    }
    assert "blocked_impressions" not in truth.minutes["a", T0]
    assert not any(row["flight.blocked_impressions"] for row in run(*lines).flight.values())


# Against the flow


def iso(after_s: int) -> str:
    return datetime.fromtimestamp(T0 / 1000 + after_s, UTC).isoformat()


@pytest.fixture
def planned(settings_of: Callable[..., Settings], tmp_path: Path) -> Callable[..., Settings]:
    def settings(*plans: str, **values: Any) -> Settings:
        file = tmp_path / "plans.csv"
        file.write_text("\n".join([HEAD, *plans]) + "\n")
        return settings_of(plans=file, **values)

    return settings


def test_a_replay_with_plans_reconciles_and_without_knowing_them_does_not(
    planned: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    def bought(after_s: float) -> Line:
        order = {"type": "purchase", "order_id": f"o{after_s}", "value": "2", "currency": "GBP"}
        return pixel("conversion", after_s, None, None, conversion=order, **HEARD)

    settings = planned(
        f"a,1000,{iso(90)},{iso(86_400)},c,GBP,",
        f"quiet,1000,{iso(0)},{iso(86_400)},autumn,,",
        f"p-later,1000,{iso(3600)},{iso(86_400)},,,",
        f"wrong,none,{iso(0)},{iso(86_400)},,,",
    )
    lines = [*BEFORE_AND_AFTER, bought(59.9), bought(600), pixel("impression", 100, at="p-later", **HEARD)]
    log = written(tmp_path, *lines, pixel("pause", 1000, None, "clock"), pixel("error", 80))
    replay([str(log)], settings, KEY)

    known = rules(settings)
    assert differences(recompute([log], known), client, settings.namespace) == []
    assert sorted(known.plans) == ["a", "p-later", "quiet"]

    told = {
        (one.scope, one.id, one.metric)
        for one in differences(recompute([log], replace(known, plans={})), client, settings.namespace)
    }
    assert told >= {
        *(("placement", "a", f"flight.{metric}") for metric in ("impressions", "starts", "reach", "clicks")),
        *(("placement", "a", f"flight.{metric}") for metric in ("orphans", "mutes", "conversions")),
        ("placement", "p-later", "flight.impressions"),
        ("placement", "quiet", "row"),
        ("campaign", "autumn", "row"),
    }
    assert not {one for one in told if one[2] in ("flight.consented", "flight.repeated")}


def test_a_household_of_the_hour_alone_sets_no_reach_unit(
    planned: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    settings = planned(f"a,3,{iso(-120)},{iso(3600)},,,", timezone="Asia/Singapore")  # T0 is its midnight
    home = {"consent": True, "household_id": "h"}
    log = written(tmp_path, pixel("impression", -300, **home), pixel("click", 60, None))
    replay([str(log)], settings, KEY)
    assert "reach_unit" not in client.hgetall(f"{settings.namespace}:placement:{{a}}")
    assert differences(recompute([log], rules(settings)), client, settings.namespace) == []


def test_listeners_before_a_plans_start_count_in_recent_reach(
    planned: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    settings = planned(f"a,1000,{iso(3600)},{iso(86_400)},,,")
    log = written(tmp_path, pixel("impression", 100, **HEARD), pixel("pause", 1000, None, "clock"))
    replay([str(log)], settings, KEY)
    row = client.hgetall(f"{settings.namespace}:placement:{{a}}")
    windows = ("5m", "1h", "1d", "flight")
    assert [row.get(f"{window}.reach") for window in windows] == ["0", "1", "1", "0"]
    assert [row.get(f"{window}.frequency") for window in windows] == [None, "1", "1", None]
    assert (row["reach_unit"], row["1h.conversion_rate"]) == ("listener", "0")
    assert differences(recompute([log], rules(settings)), client, settings.namespace) == []


def test_a_campaigns_values_have_a_currency_of_its_plans(
    planned: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    def bought(after_s: float, value: str, currency: str) -> Line:
        order = {"type": "purchase", "value": value, "currency": currency}
        return pixel("conversion", after_s, None, "b", conversion=order, campaign_id="c")

    flight = f"1000,{iso(0)},{iso(86_400)}"
    settings = planned(f"a,{flight},c,GBP,", f"b,{flight},c,,")
    log = written(tmp_path, bought(60, "99", "EUR"), bought(61, "7", "GBP"))
    replay([str(log)], settings, KEY)
    for row in ("placement:{b}", "campaign:{c}"):
        found = client.hgetall(f"{settings.namespace}:{row}")
        names = ("conversion_currency", "flight.conversion_value", "flight.conversion_value_other_count")
        assert [found[name] for name in names] == ["GBP", "7000000", "1"]
    assert differences(recompute([log], rules(settings)), client, settings.namespace) == []


@pytest.mark.parametrize(
    ("conversion", "counts"),
    [
        ({"landing_url": "https://shop.example/?utm_content=a"}, {"placement:{a}": "1", "campaign:{c}": "1"}),
        ({"landing_url": "https://shop.example/?utm_content=a", "campaign_id": "other"}, {}),
        ({"placement_id": "a"}, {"placement:{a}": "1", "campaign:{c}": "1"}),
        ({"placement_id": "a", "campaign_id": "other"}, {"placement:{a}": "1", "campaign:{other}": "1"}),
    ],
)
def test_a_credit_without_a_touch_is_of_its_placements_campaign(
    conversion: Line, counts: dict[str, str], planned: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    settings = planned(f"a,1000,{iso(0)},{iso(86_400)},c,GBP,")
    order = {"type": "purchase", "value": "7", "currency": "GBP"}
    bought = {"event": "conversion", "ts": T0 + 60_000, "conversion": order, **conversion}
    log = written(tmp_path, pixel("impression", 1, **HEARD), bought)
    replay([str(log)], settings, KEY)
    found = {
        row: client.hget(f"{settings.namespace}:{row}", "flight.conversions")
        for row in ("placement:{a}", "campaign:{c}", "campaign:{other}")
    }
    assert {row: count for row, count in found.items() if count not in (None, "0")} == counts
    assert differences(recompute([log], rules(settings)), client, settings.namespace) == []


def test_a_row_without_a_value_in_its_plans_currency_has_none(
    planned: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    settings = planned(f"a,1000,{iso(0)},{iso(86_400)},c,EUR,")
    order = {"type": "purchase", "value": "7", "currency": "GBP"}
    log = written(tmp_path, pixel("conversion", 60, None, "a", conversion=order, campaign_id="c"))
    replay([str(log)], settings, KEY)
    for row in ("placement:{a}", "campaign:{c}"):
        found = client.hgetall(f"{settings.namespace}:{row}")
        assert (found["flight.conversion_value_other_count"], found.get("conversion_currency")) == ("1", None)
    assert differences(recompute([log], rules(settings)), client, settings.namespace) == []


def test_a_simulated_log_reconciles_with_plans_starting_within_it(
    planned: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    files = [tmp_path / f"{n}.ndjson" for n in range(3)]
    trouble = Trouble(conversions=0.1, clicks=0.3)
    traffic = Traffic(21, 12, 60, start_ms=T0, partitions=3, trouble=trouble, listeners=300)
    run_log(files, traffic, 20_000)  # of five and a half minutes
    starts = {f"pl-{n:04}": 31 * n for n in range(0, 12, 2)}
    settings = planned(*(f"{name},1000,{iso(at)},{iso(86_400)},,," for name, at in starts.items()))
    replay([str(file) for file in files], settings, KEY, workers=2)

    known = rules(settings)
    truth = recompute(files, known)
    assert differences(truth, client, settings.namespace) == []
    unplanned = recompute(files, replace(known, plans={}))
    for name in starts:
        flown, whole = truth.flight["placement", name], unplanned.flight["placement", name]
        for metric in ("impressions", "completes", "clicks", "reach"):
            few, many = flown[f"flight.{metric}"], whole[f"flight.{metric}"]
            assert few < many or starts[name] < 60, (name, metric)
        assert flown["flight.consented"] == whole["flight.consented"]


def test_a_simulated_log_reconciles_with_plans_ending_within_it(
    planned: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    files = [tmp_path / f"{n}.ndjson" for n in range(3)]
    run_log(files, Traffic(22, 12, 60, start_ms=T0, partitions=3, trouble=Trouble(), listeners=300), 24_000)
    ends = {f"pl-{n:04}": 31 * n + 40 for n in range(0, 12, 2)}
    settings = planned(*(f"{name},1000,{iso(30)},{iso(end)},,," for name, end in ends.items()))
    replay([str(file) for file in files], settings, KEY, workers=2)

    truth = recompute(files, rules(settings))
    assert differences(truth, client, settings.namespace) == []
    for name in ends:
        row = truth.flight["placement", name]
        assert 0 < row["delivery.delivered"] < row["flight.impressions"], name


def test_pixels_after_a_flights_end_do_not_complete_it(
    planned: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    settings = planned(f"a,100,{iso(0)},{iso(1800)},c,,")
    during = [pixel("impression", 10 * n, f"p{n}", **HEARD) for n in range(90)]
    after = [pixel("impression", 1800 + n, f"q{n}", **HEARD) for n in range(20)]
    replay([str(written(tmp_path, *during, *after))], settings, KEY)
    for row in ("placement:{a}", "campaign:{c}"):
        told = client.hgetall(f"{settings.namespace}:{row}")
        shown = [told[f"delivery.{name}"] for name in ("delivered", "indicator", "state")]
        assert shown == ["90", "0.9", "ended_short"], row
        assert told["flight.impressions"] == "110"


def test_an_old_log_without_receipts_ignores_the_wall_clock(
    planned: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    """Its only pixel is no more than a candidate for the time, until the log ends."""
    settings = planned(f"a,100,{iso(3600)},{iso(7200)},,,")
    heard = pixel("impression", 0, **HEARD)
    replay([str(written(tmp_path, heard | {"received_at": None}))], settings, KEY)
    assert client.hget(f"{settings.namespace}:placement:{{a}}", "delivery.state") == "not_started"
    assert client.xlen(f"{settings.namespace}:alerts") == 0


def test_the_oracle_takes_every_rule_from_the_settings(
    planned: Callable[..., Settings],
) -> None:
    settings = planned(
        f"a,1000,{iso(90)},{iso(86_400)},c,GBP,iab26;IAB7-39",
        **dict.fromkeys(DURATIONS, timedelta(days=5)),
        allowed_lateness=timedelta(hours=1),
        row_memory=timedelta(days=90),
        max_state=1_000_000,
        timezone="Europe/Berlin",
        consent="assumed",
        invalid_agents={"own": "ours/"},
        attribution="linear",
        household_listeners=5,
        touch_listens=5,
        touch_clicks=5,
        touch_listens_in_all=5,
        touch_clicks_in_all=5,
        under=0.5,
        utm_placements={"sale": "a"},
        platform_basis={"podcasts": "download"},
        app_rows=True,
        labels="planned",
        listener_key="a key of sixteen bytes or more",
        conversions_from="server",
    )
    kept = {name for name, value in asdict(rules(settings)).items() if value == asdict(Rules())[name]}
    assert kept == {"podcast_apps"}
    assert rules(settings).plans == {
        "a": Planned(
            *(T0 + 60_000, "GBP", "c", ("IAB26", "IAB7-39"), T0 + 86_400_000, 1000),
            labels=dict.fromkeys(LABELS, ()),
        )
    }


def test_flow_and_oracle_block_the_same_content(
    planned: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    settings = planned(
        f"a,1000,{iso(60)},{iso(86_400)},c,GBP,iab26;IAB7-39;432",
        f"b,1000,{iso(0)},{iso(86_400)},,,IAB1",
    )
    ids = [
        "IAB26",
        "iab26-1",
        " IAB26-2 ",
        "IAB261",
        "IAB7-39",
        "IAB7",
        "IAB7-39-1",
        "432",
        "432-1",
        "",
        "[X]",
    ]
    categories = [*ids, ["IAB2", "IAB26-9"], ["IAB2"], [], None, "IAB26\u00a0", "IAB1"]
    lines = [
        pixel(event, 2 * n, f"{n} {at}", at, content_category=category, station=f"s{n % 3}", **HEARD)
        for n, category in enumerate(3 * categories)
        for at in ("a", "b", "unplanned")
        for event in ("impression", "start")
    ]
    log = written(tmp_path, *lines, *lines[::7], pixel("pause", 1000, None, "clock"), *lines[:9])
    replay([str(log)], settings, KEY)

    truth = recompute([log], rules(settings))
    assert differences(truth, client, settings.namespace) == []
    assert numbers(truth)["blocked_impressions"] == 3 * 7
    assert numbers(truth, "placement", "b")["blocked_impressions"] == 3
    assert numbers(truth, "campaign", "c")["blocked_impressions"] == 3 * 8


def test_a_missing_planned_row_is_a_difference(
    planned: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    settings = planned(f"quiet,1000,{iso(0)},{iso(86_400)},autumn,,")
    log = written(tmp_path, pixel("impression", 0))
    replay([str(log)], settings, KEY)
    client.delete(f"{settings.namespace}:placement:{{quiet}}")
    client.zrem(f"{settings.namespace}:index:campaign", "autumn")

    assert differences(recompute([log], rules(settings)), client, settings.namespace) == [
        Difference("campaign", "autumn", "index", "present", ""),
        Difference("placement", "quiet", "row", "present", ""),
    ]


def test_the_command_reads_the_plans_of_the_settings(
    planned: Callable[..., Settings],
    client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = planned(f"a,1000,{iso(90)},{iso(86_400)},c,,", attribution="linear")
    log = written(tmp_path, *BEFORE_AND_AFTER)
    replay([str(log)], settings, KEY)
    known = {
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "NAMESPACE": settings.namespace,
        "PLANS": str(settings.plans),
        "ATTRIBUTION": "linear",
    }
    for name, value in known.items():
        monkeypatch.setenv(f"AUDIOPIXEL_{name}", value)

    told = CliRunner().invoke(app, ["reconcile", str(log)])
    assert (told.exit_code, told.output.split(" in ")[0]) == (0, "0 differences"), told.output

    monkeypatch.delenv("AUDIOPIXEL_PLANS")
    told = CliRunner().invoke(app, ["reconcile", str(log)])
    assert told.exit_code == 1
    assert "flight.impressions" in told.output


@pytest.mark.parametrize(
    ("first", "second", "currency"),
    [(None, "blue", "EUR"), ("blue", None, "GBP"), ("red", "blue", "EUR"), ("blue", "red", "GBP")],
)
def test_a_placement_of_two_campaigns_has_its_first_touchs_currency(
    first: str | None,
    second: str | None,
    currency: str,
    tmp_path: Path,
    settings_of: Callable[..., Settings],
    client: Client,
) -> None:
    plans = tmp_path / "plans.csv"
    plans.write_text(f"{HEAD}\na,5,2025-11-24T00:00Z,2025-11-28T00:00Z,blue,GBP,\n")
    settings = settings_of(plans=plans, attribution="linear")
    whom = {"listener_id": "l", "consent": True}
    lines: list[Line] = [
        {"event": "impression", "ts": T0 + 60_000 * n, "placement_id": "z", "campaign_id": campaign, **whom}
        for n, campaign in enumerate((first, second))
    ]
    for at_ms, of in ((200_000, "EUR"), (201_000, "GBP")):
        bought = {"type": "purchase", "value": "7", "currency": of}
        lines.append({"event": "conversion", "ts": T0 + at_ms, "conversion": bought, **whom})
    log = written(tmp_path, *lines)
    replay([str(log)], settings, KEY)
    assert client.hget(f"{settings.namespace}:placement:{{z}}", "conversion_currency") == currency
    assert differences(recompute([log], rules(settings)), client, settings.namespace) == []


def test_a_file_without_a_line_is_no_difference(
    tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    settings, empty = settings_of(), tmp_path / "empty.ndjson"
    empty.write_bytes(b"")
    files = [empty, written(tmp_path, pixel("impression", 0))]
    replay(list(map(str, files)), settings, KEY)
    assert differences(recompute(files, rules(settings)), client, settings.namespace) == []
