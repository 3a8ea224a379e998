"""Whole flows over logs of touches and conversions across sixty days, held to what DuckDB finds in them."""

from __future__ import annotations

import json
import random
import time
import zlib
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest
from prometheus_client import Gauge
from typer.testing import CliRunner

from connectors.redis.client import Client
from flows.cli.commands import app
from flows.cli.reconcile_settings import rules
from flows.engine.source import StopSignal
from flows.instruments import instruments
from flows.methodology import methodology
from flows.model.basis import BASES
from flows.model.conversion_columns import Model
from flows.model.messages import shard_key
from flows.reconcile.comparison import differences
from flows.reconcile.recomputation import recompute
from flows.reconcile.replay_files import minute_differences
from flows.replay import replay
from flows.settings.fields import Settings

KEY = b"a key of sixteen bytes or more"
DAY = 86_400_000
T0 = 1_764_000_000_000 // DAY * DAY
PLACEMENTS = {"a": "red", "b": "red", "é": "red", "z": "blue", "\U00010000": "blue", "\uffff": None}
Line = dict[str, Any]


def log(seed: int, plays: int = 600, buyers: int = 300, homes: int = 0) -> list[Line]:
    """Lines in the order of their times, on a grid of half days, so that windows end exactly at a touch.

    With `homes` listeners live in so many households, go to see others, and buy in browsers that know no
    listener; the first household is an office, where everybody is at times. Of some who buy the edge has had
    another key before.
    """
    rng = random.Random(seed)
    lines: list[Line] = []

    def moment() -> int:
        return T0 + rng.randrange(120) * DAY // 2 + rng.choice([0, 0, 0, 1, -1, rng.randrange(DAY // 2)])

    def line(event: str, ts: int, **fields: Any) -> None:
        lines.append({"event_id": f"e{len(lines)}", "event": event, "ts": ts, **fields})

    def listener() -> Line:
        number, consent = rng.randrange(25), rng.random() < 0.9
        who: Line = {"listener_id": f"L{number}", "consent": consent}
        if homes:
            home = number % homes if rng.random() < 0.8 else rng.choice([0, rng.randrange(homes)])
            who["household_id"] = rng.choice([f"H{home}"] * 8 + ["[HOME]", None])
            if rng.random() < 0.3:
                del who["listener_id"]
        return who

    for number in range(plays):
        placement, campaign = rng.choice(list(PLACEMENTS.items()))
        fields = {
            "placement_id": placement,
            "campaign_id": campaign,
            "station": f"s{number % 3}",
            "creative_id": ("k0", "k1", "é", "[CREATIVE]")[number % 4],
            "app": ("a", 'an "app"', None, "é", "[APP]")[number % 5],
            **listener(),
        }
        at = moment()
        if rng.random() < 0.8:
            fields["play_id"] = f"p{number}"
        if rng.random() < 0.1:
            fields["user_agent"] = "a bot/1.0"
        for again in range(rng.choice((0, 1, 1, 1, 2, 3)) if "play_id" in fields else 1):
            basis = rng.choice((*BASES, "vast_impression", "heard", None))
            line("impression", at + again * rng.randrange(80_000), **fields | {"basis": basis})
        if rng.random() < 0.3:
            line("delivered", at, **fields)
        if rng.random() < 0.8:
            other: Line = {"creative_id": "k1"} if number % 5 == 0 else {}
            line(
                "start",
                at + rng.randrange(-2000, 2000),
                **fields | other | {"device_confirmed": rng.random() < 0.4},
            )
            if rng.random() < 0.1:
                line("start", at + rng.randrange(3000), **fields, device_confirmed=True)
        if rng.random() < 0.2:
            line("click", at + rng.choice([0, 5000]), **fields)
    for number in range(buyers):
        bought = {
            "type": rng.choice(["purchase", "sign_up", "site_visit"]),
            "order_id": f"o{number}" if rng.random() < 0.7 else None,
            "value": rng.choice([None, "19.99", "-3.3333335", 7, "0.0000015"]),
            "currency": rng.choice(["GBP", "EUR", None]),
        }
        fields = {
            "conversion": bought,
            "campaign_id": rng.choice(["red", "blue", "green", None]),
            "creative_id": "k0" if number % 3 == 0 else None,
            **listener(),
        }
        dice = rng.random()
        if dice < 0.1:
            fields["placement_id"] = rng.choice(list(PLACEMENTS))
        elif dice < 0.5:
            told = rng.choice(["a", "%C3%A9", "spring+sale", "spring%20sale", "nobody", "A"])
            fields["landing_url"] = f"https://shop.example/?utm_source=x&utm_content={told}&b=1"
        if dice > 0.9:
            fields.pop("listener_id", None)
        if homes and rng.random() < 0.3:
            names = ("listener_id", "household_id")
            fields["previous"] = {name: fields.pop(name) for name in names if name in fields}
            others = ({"listener_id": f"L{number}-anew"}, {"household_id": f"H{rng.randrange(homes)}"})
            for other in others:
                fields |= other if rng.random() < 0.5 else {}
        at = moment()
        line("conversion", at, **fields)
        if rng.random() < 0.1:
            lines.append({**lines[-1], "ts": at + rng.randrange(5000)})
    present = [{name: value for name, value in one.items() if value is not None} for one in lines]
    return sorted(present, key=lambda one: one["ts"])


def files_of(lines: list[Line], seed: int, parts: int, directory: Path) -> list[str]:
    """The lines out of order by up to nine seconds, a listener's (or an order's) all in one file."""
    rng = random.Random(seed)
    moved = sorted(((one["ts"] + rng.random() * 9_000 * (seed > 0), n) for n, one in enumerate(lines)))
    out: list[list[bytes]] = [[] for _ in range(parts)]
    for _, n in moved:
        one = lines[n]
        owner = one.get("listener_id") or one.get("conversion", {}).get("order_id")
        owner = owner or one.get("play_id") or one["event_id"]
        out[zlib.crc32(owner.encode()) % parts].append(json.dumps(one).encode() + b"\n")
    names = [str(directory / f"{seed}-{part}.ndjson") for part in range(parts)]
    for name, part in zip(names, out, strict=True):
        Path(name).write_bytes(b"".join(part))
    return names


UTM = {"spring sale": "a", "é": "é", "a": "z"}


@pytest.mark.parametrize("model", get_args(Model))
@pytest.mark.parametrize(("order", "parts", "workers"), [(0, 1, 1), (1, 1, 2), (2, 3, 2), (3, 4, 4)])
def test_conversions_of_sixty_days_match_the_oracle_in_any_order(
    model: Model,
    order: int,
    parts: int,
    workers: int,
    tmp_path: Path,
    settings_of: Callable[..., Settings],
    client: Client,
) -> None:
    settings = settings_of(
        attribution=model,
        utm_placements=UTM,
        # Many small cuts, so that decisions fall in the middle of the log, between merges of the touches.
        flush_interval=timedelta(milliseconds=20),
        batch_messages=23,
        touch_listens=10_000,
        touch_clicks=10_000,
        row_ttl=timedelta(days=62),  # no row ends
        app_rows=order % 2 == 1,
    )
    lines = log(zlib.crc32(model.encode()))
    files = files_of(lines, order, parts, tmp_path)
    replay(files, settings, KEY, out=tmp_path / "out", workers=workers)
    truth = recompute([Path(name) for name in files], rules(settings))
    assert differences(truth, client, settings.namespace) == []
    assert minute_differences(truth, tmp_path / "out" / "minutes.ndjson") == []
    meta = client.hgetall(f"{settings.namespace}:meta")
    accepted, attributed, unattributed, pending = (
        int(meta[name])
        for name in ("conversions_accepted", "conversions_attributed", "unattributed", "conversions_pending")
    )
    assert accepted == truth.totals["conversions"] == attributed + unattributed
    assert min(attributed, unattributed) > 20
    assert ("frequency.1.listeners" in client.hgetall(f"{settings.namespace}:campaign:{{red}}")) == (
        model != "off"
    )
    assert pending == 0


@pytest.mark.parametrize("model", ["last_touch", "linear", "off"])
@pytest.mark.parametrize(("order", "parts", "workers"), [(0, 1, 1), (1, 3, 2), (2, 4, 4)])
def test_households_match_the_oracle_in_any_order_on_any_workers(
    model: Model,
    order: int,
    parts: int,
    workers: int,
    tmp_path: Path,
    settings_of: Callable[..., Settings],
    client: Client,
) -> None:
    settings = settings_of(
        attribution=model,
        utm_placements=UTM,
        household_listeners=4,
        flush_interval=timedelta(milliseconds=20),
        batch_messages=23,
        touch_listens=10_000,
        touch_clicks=10_000,
        row_ttl=timedelta(days=62),
    )
    files = files_of(log(zlib.crc32(model.encode()) + 1, homes=9), order, parts, tmp_path)
    replay(files, settings, KEY, out=tmp_path / "out", workers=workers)
    truth = recompute([Path(name) for name in files], rules(settings))
    assert differences(truth, client, settings.namespace) == []
    assert minute_differences(truth, tmp_path / "out" / "minutes.ndjson") == []
    meta = client.hgetall(f"{settings.namespace}:meta")
    assert (int(meta["conversions_noisy_household"]) > 5) == (model != "off")
    ways = ("by_listener", "by_household", "utm", "declared")
    for key in client.scan_iter(f"{settings.namespace}:campaign:*"):
        row = client.hgetall(key)
        for window in ("5m", "1h", "1d", "flight"):
            parts_of = [Decimal(row.get(f"{window}.conversions_{way}", 0)) for way in ways]
            assert sum(parts_of) == Decimal(row[f"{window}.conversions"])
    red = client.hgetall(f"{settings.namespace}:campaign:{{red}}")
    joined = [Decimal(red.get(f"flight.conversions_{way}", 0)) > 3 for way in ways[:2]]
    assert joined == [model != "off"] * 2
    assert int(red["flight.household_reach"]) > 5
    decided = [json.loads(line) for line in (tmp_path / "out" / "credits.ndjson").read_text().splitlines()]
    assert {one["methodology"] for one in decided} == {methodology(settings).hash}
    assert sum(one["noisy_household"] for one in decided) == int(meta["conversions_noisy_household"])
    assert {one["joined_by"] for one in decided} >= ({None} if model == "off" else {"listener", "household"})


def test_a_conversion_falls_back_to_the_edges_previous_key(
    tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    """On Monday everybody listens, on Tuesday the edge has a new key, on Wednesday they buy."""
    lines: list[Line] = []

    def line(event: str, at: int, **more: Any) -> None:
        number = len(lines)
        lines.append({"event_id": f"e{number}", "event": event, "ts": T0 + at, "consent": True, **more})

    def buys(order: str, by_old: Line, **by_new: Any) -> None:
        bought = {"type": "purchase", "order_id": order}
        line("conversion", 2 * DAY, campaign_id="red", conversion=bought, previous=by_old, **by_new)

    for who in ("ann", "bob", "cat"):
        heard = {"placement_id": f"for {who}", "campaign_id": "red"}
        line("impression", 0, **heard, listener_id=f"1.{who}", household_id=f"1.home of {who}")
    line("impression", DAY, placement_id="for ann again", campaign_id="red", listener_id="2.ann")
    for n in range(5):
        line("impression", n, placement_id="at work", listener_id=f"1.{n}", household_id="1.office")
    buys("ann's", {"listener_id": "1.ann"}, listener_id="2.ann")
    buys("bob's", {"listener_id": "1.bob"}, listener_id="2.bob")
    buys("cat's browser's", {"household_id": "1.home of cat"}, household_id="2.home of cat")
    buys("somebody's", {"listener_id": "1.dan", "household_id": "1.office"}, listener_id="2.dan")
    buys("without consent", {"listener_id": "1.bob"}, listener_id="2.bob", consent=False)
    buys("declared", {"listener_id": "1.bob"}, placement_id="for cat")
    buys("wrong", {"listener_id": 7}, listener_id="2.bob")
    settings = settings_of(household_listeners=4)
    files = files_of(lines, 0, 1, tmp_path)
    replay(files, settings, KEY, out=tmp_path / "out")
    decided = [json.loads(one) for one in (tmp_path / "out" / "credits.ndjson").read_text().splitlines()]
    found = {
        one["order_id"]: (one["joined_by"], *(credit["placement_id"] for credit in one["credits"]))
        for one in decided
    }
    assert found == {
        "ann's": ("listener", "for ann again"),
        "bob's": ("listener", "for bob"),
        "cat's browser's": ("household", "for cat"),
        "somebody's": (None,),
        "without consent": (None,),
        "declared": (None, "for cat"),
    }
    assert [one["order_id"] for one in decided if one["noisy_household"]] == ["somebody's"]
    (letter,) = map(json.loads, (tmp_path / "out" / "rejected.ndjson").read_text().splitlines())
    assert (letter["reason"], letter["field"]) == ("invalid", "previous.listener_id")
    row = client.hgetall(f"{settings.namespace}:campaign:{{red}}")
    accounts = [row[f"flight.conversions_{name}"] for name in ("accepted", "attributed", "unattributed")]
    assert accounts == ["6", "4", "2"]
    assert row["frequency.1.conversions"] == "1", "ann's; nobody knows how often the others have heard"
    assert (
        differences(recompute([Path(name) for name in files], rules(settings)), client, settings.namespace)
        == []
    )


def test_every_decision_is_written_once_with_credits_of_a_million_or_zero(
    tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of(attribution="linear", utm_placements=UTM, row_ttl=timedelta(days=62))
    files = files_of(log(5), 1, 2, tmp_path)
    replay(files, settings, KEY, out=tmp_path / "out", workers=2)
    decisions = [json.loads(line) for line in (tmp_path / "out" / "credits.ndjson").read_text().splitlines()]
    totals = recompute([Path(name) for name in files], rules(settings)).totals
    assert len(decisions) == totals["conversions"]
    assert sum(not one["credits"] for one in decisions) == totals["unattributed"]
    for one in decisions:
        assert sum(credit["millionths"] for credit in one["credits"]) in (0, 1_000_000)
        for credit in one["credits"]:
            assert (credit["touched_at"] is None) == (credit["way"] in ("utm", "declared"))
    assert any(len(one["credits"]) > 3 for one in decisions)


@pytest.mark.parametrize("steps", [1, 50])
def test_capped_touches_get_equal_credits_for_any_cuts(
    steps: int, tmp_path: Path, settings_of: Callable[..., Settings]
) -> None:
    # The order of arrival decides between a pixel's two times, so each pixel is sent once.
    once = {(one["event"], one.get("play_id", one["event_id"])): one for one in log(6, plays=2000, buyers=60)}
    lines = [*once.values()]
    flows = []
    for number, batch in enumerate((10_000, 11)):
        settings = settings_of(
            attribution="linear",
            touch_listens=7,
            touch_clicks=2,
            batch_messages=batch,
            row_ttl=timedelta(days=62),
            flush_interval=timedelta(milliseconds=1000 // steps),
        )
        out = tmp_path / f"out-{number}"
        files = files_of(lines, number, 1, tmp_path)
        replay(files, settings, KEY, out=out, recompute=number > 0)
        decided = [json.loads(line) for line in (out / "credits.ndjson").read_text().splitlines()]
        flows.append(sorted((one["conversion"], one["credits"]) for one in decided))
    assert flows[0] == flows[1]
    assert 9 < max(len(credits) for _, credits in flows[0]) <= 3 * 9, "of red, of blue and of no campaign"
    assert sum(one["capped"] for one in decided) > 20


def test_other_campaigns_touches_do_not_displace_a_touch(
    tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    """Five days of a commuter's radio, and clicks in a flood, with the caps that are usual."""
    lines: list[Line] = []

    def line(event: str, at: int, campaign: str, **more: Any) -> None:
        fields = {"listener_id": "L", "consent": True, "campaign_id": campaign, **more}
        lines.append({"event_id": f"e{len(lines)}", "event": event, "ts": T0 + at, **fields})

    line("impression", 0, "heard", placement_id="a")
    for number in range(200):
        line("impression", 60_000 + number * DAY // 40, f"other-{number % 30}", placement_id=f"p{number}")
    line("click", 5 * DAY, "clicked", placement_id="b")
    for number in range(100):
        line("click", 5 * DAY + 100 * number, "flood", placement_id="c")
    for campaign in ("heard", "clicked"):
        line("conversion", 5 * DAY + 60_000, campaign, conversion={"type": "purchase", "order_id": campaign})
    settings = settings_of()
    files = files_of(lines, 0, 1, tmp_path)
    replay(files, settings, KEY, out=tmp_path / "out")
    for placement in ("a", "b"):
        row = client.hgetall(f"{settings.namespace}:placement:{{{placement}}}")
        assert row["flight.conversions"] == "1"
    decided = [json.loads(one) for one in (tmp_path / "out" / "credits.ndjson").read_text().splitlines()]
    assert [one["capped"] for one in decided] == [False, False]


def test_a_stopped_flow_resumes_with_the_touches_in_its_files(
    tmp_path: Path, settings_of: Callable[..., Settings], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.state.runs.SPILL_ROWS", 20)
    settings = settings_of(
        attribution="linear",
        flush_interval=timedelta(milliseconds=10),
        save_interval=timedelta(milliseconds=50),
        batch_messages=5,
        touch_listens=10_000,
        touch_clicks=10_000,
        household_listeners=4,
    )
    lines = log(9, plays=4000, buyers=500, homes=9)
    files = files_of(lines, 1, 2, tmp_path)
    recovery = tmp_path / "recovery"

    def written() -> set[str]:
        return {path.name for path in (recovery / "touches").rglob("*") if path.is_file()}

    class OnItsWay(StopSignal):
        """Stops the flow once its sources have looked often, and files of touches are written."""

        looks = 0

        @property
        def requested(self) -> bool:  # type: ignore[override]  # a field, which the flow only reads
            OnItsWay.looks += 1
            time.sleep(0.001)  # a fast machine would read the log within one save
            return OnItsWay.looks > 400 and bool(written())

        @requested.setter
        def requested(self, value: bool) -> None:
            pass

    replay(files, settings, KEY, recovery_dir=recovery, stop=OnItsWay())
    truth = recompute([Path(name) for name in files], rules(settings))
    half = int(client.hget(f"{settings.namespace}:meta", "conversions_accepted") or 0)
    assert 20 < half < truth.totals["conversions"] - 20, "it was stopped on the way"
    assert written()
    faster = settings.model_copy(update={"batch_messages": 100})  # no kill has to meet the flow on its way
    replay(files, faster, KEY, recovery_dir=recovery)
    assert differences(truth, client, settings.namespace) == []


def test_any_amount_of_money_is_exact_in_redis_and_minutes(
    tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    sold = {
        "largest": ["9000000000000", "9000000000000", "-0.000001"],
        "refunded": ["-9000000000000", "-9000000000000"],
        "rupiah": ["12000000000.000001", "0.000002"],
    }
    lines: list[Line] = []
    for placement, values in sold.items():
        for value in values:
            event = {"event_id": f"e{len(lines)}", "event": "conversion", "ts": T0, "placement_id": placement}
            lines.append({**event, "conversion": {"type": "purchase", "value": value, "currency": "IDR"}})
    settings = settings_of()
    files = files_of(lines, 0, 1, tmp_path)
    replay(files, settings, KEY, out=tmp_path / "out")
    right = {"largest": 18 * 10**18 - 1, "refunded": -18 * 10**18, "rupiah": 12_000_000_000_000_003}
    minutes = [json.loads(line) for line in (tmp_path / "out" / "minutes.ndjson").read_text().splitlines()]
    for placement, micros in right.items():
        row = client.hgetall(f"{settings.namespace}:placement:{{{placement}}}")
        assert row["flight.conversion_value"] == row["1d.conversion_value"] == str(micros)
        told = [one["conversion_value"] for one in minutes if one["placement_id"] == placement]
        assert told == [micros if abs(micros) <= 2**53 else str(micros)]
    truth = recompute([Path(name) for name in files], rules(settings))
    assert differences(truth, client, settings.namespace) == []


def test_values_of_public_tags_are_separate_in_rows_minutes_and_decisions(
    tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    sold: list[dict[str, Any]] = [
        *({"value": "1.5", "claimed": True}, {"value": "20", "claimed": False}, {"value": "300"}),
        *({"value": "4000", "claimed": True, "currency": "EUR"}, {"claimed": True}),
        {"value": "50000", "claimed": None, "type": "sign_up"},
    ]
    lines: list[Line] = [
        {
            "event_id": f"e{number}",
            "event": "conversion",
            "ts": T0 + number,
            "placement_id": "a",
            "campaign_id": "red",
            "conversion": {"type": "purchase", "currency": "GBP"} | bought,
        }
        for number, bought in enumerate([*sold, {"value": "1", "claimed": 1}])
    ]
    settings = settings_of()
    files = files_of(lines, 0, 1, tmp_path)
    replay(files, settings, KEY, out=tmp_path / "out")
    right = {"conversion_value": 50_320_000_000, "conversion_value_claimed": 1_500_000}
    right |= {"conversion_value_other_count": 1, "conversions": 6, "conversions_sign_up": 1}
    for key in ("placement:{a}", "campaign:{red}"):
        row = client.hgetall(f"{settings.namespace}:{key}")
        for window in ("1d", "flight"):
            assert {name: row[f"{window}.{name}"] for name in right} == {
                name: str(number) for name, number in right.items()
            }
    (minute,) = map(json.loads, (tmp_path / "out" / "minutes.ndjson").read_text().splitlines())
    assert {name: minute[name] for name in right} == right
    decided = map(json.loads, (tmp_path / "out" / "credits.ndjson").read_text().splitlines())
    assert {one["event_id"]: one["claimed"] for one in decided} == {
        f"e{number}": bought.get("claimed") is True for number, bought in enumerate(sold)
    }
    (letter,) = map(json.loads, (tmp_path / "out" / "rejected.ndjson").read_text().splitlines())
    assert (letter["reason"], letter["field"]) == ("invalid", "conversion.claimed")
    truth = recompute([Path(name) for name in files], rules(settings))
    assert differences(truth, client, settings.namespace) == []
    assert minute_differences(truth, tmp_path / "out" / "minutes.ndjson") == []


def test_explain_shows_touches_rule_and_credit_without_a_listener(
    tmp_path: Path, settings_of: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(attribution="linear")
    bought = {"type": "purchase", "order_id": "o-7", "value": "19.99", "currency": "GBP"}
    lines: list[Line] = [
        {"event": "click", "ts": T0, "placement_id": "spot [1]", "campaign_id": "red"},
        {"event": "impression", "ts": T0 + DAY, "placement_id": "b", "campaign_id": "red"},
        {"event": "conversion", "ts": T0 + 2 * DAY, "conversion": bought},
    ]
    known = [
        {"event_id": f"e{n}", "listener_id": "L-secret", "consent": True} | line
        for n, line in enumerate(lines)
    ]
    replay(files_of(known, 0, 1, tmp_path), settings, KEY)
    monkeypatch.setenv("AUDIOPIXEL_REDIS_URL", settings.redis_url.get_secret_value())
    monkeypatch.setenv("AUDIOPIXEL_NAMESPACE", settings.namespace)
    monkeypatch.setenv("COLUMNS", "200")
    shown = CliRunner().invoke(app, ["explain", "o-7"])
    assert shown.exit_code == 0
    assert "2 eligible" in shown.output
    assert "19.99 GBP" in shown.output
    for placement, way in (("spot [1]", "click"), ("b", "listen")):
        (line,) = (line for line in shown.output.splitlines() if line.startswith(placement))
        assert way in line
        assert "0.5" in line
    assert "secret" not in shown.output
    missing = CliRunner().invoke(app, ["explain", "o-8"])
    assert missing.exit_code == 1
    assert len(missing.output.strip().splitlines()) == 1
    assert "no decision on 'o-8'" in missing.output


def test_touches_given_up_by_the_cap_are_a_metric(
    tmp_path: Path, settings_of: Callable[..., Settings]
) -> None:
    flow = settings_of(
        touch_listens=2,
        touch_clicks=1,
        attribution="linear",
        flush_interval=timedelta(milliseconds=10),
        batch_messages=20,
    )
    replay(files_of(log(3), 0, 1, tmp_path), flow, KEY)
    # The process's metrics also contain the shards of earlier flows, so only this flow's shards count.
    shards = {shard_key(shard) for shard in range(flow.shards)}

    def total(gauge: Gauge) -> float:
        return sum(one.value for one in gauge.collect()[0].samples if one.labels["shard"] in shards)

    assert total(instruments().dropped_touches) > 100
    assert 10 < total(instruments().capped_decisions) < 300
    assert 0 < total(instruments().state_touches) < 400
