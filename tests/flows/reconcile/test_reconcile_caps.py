"""Names beyond a cap have no row: the oracle compares their sums, and finds a wrong one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from connectors.redis.client import Client
from flows.cli.reconcile_settings import rules
from flows.reconcile import compare, minute_differences, recompute
from flows.replay import replay
from flows.settings.fields import Settings
from flows.simulate.feed import run_log
from flows.simulate.traffic import Traffic

T0 = 1_790_000_000_000


@pytest.mark.parametrize("field", ["flight.impressions", "1h.starts", "1d.conversions", "flight.pixels"])
def test_capped_rows_reconcile_and_a_wrong_other_is_found(
    field: str, settings_of: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    log, settings = tmp_path / "log.ndjson", settings_of(row_cap=5, shards=2)
    run_log(log, Traffic(5, placements=24), 6_000)
    replay([str(log)], settings, b"a key of sixteen bytes or more")
    truth, space = recompute([log], rules(settings)), settings.namespace

    assert int(client.hget(f"{space}:meta", "rows_beyond_cap") or 0) > 0
    assert compare(truth, client, space).differences == []

    key = f"{space}:other:{{placement}}"
    client.hset(key, field, str(int(float(client.hget(key, field) or 0)) + 1))
    (one,) = compare(truth, client, space).differences
    assert (one.scope, one.id, one.metric) == ("other", "placement", field)

    client.delete(key)
    assert {one.metric for one in compare(truth, client, space).differences if one.scope == "placement"} == {
        "row"
    }


def test_a_wrong_number_of_names_beyond_the_cap_is_found(
    settings_of: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    log, settings = tmp_path / "log.ndjson", settings_of()
    run_log(log, Traffic(5, placements=4), 500)
    replay([str(log)], settings, b"a key of sixteen bytes or more")
    truth, space = recompute([log], rules(settings)), settings.namespace
    assert compare(truth, client, space).differences == []
    client.hset(f"{space}:meta", "rows_beyond_cap", "1")
    assert [one.metric for one in compare(truth, client, space).differences] == ["rows_beyond_cap"]


def listens(number: int, placements: int) -> list[dict[str, Any]]:
    """So many listens of a listener within an hour, then two purchases, and some of another listener."""
    usual = {"campaign_id": "c", "listener_id": "l", "household_id": "h", "consent": True}
    lines = [
        {
            "event": "impression",
            "placement_id": f"p{n % placements}",
            "play_id": f"x{n}",
            "ts": T0 + 50_000 * n,
        }
        for n in range(number)
    ]
    for n, who in enumerate("lmll"):
        lines.append(
            {
                "event": "impression" if n == 1 else "conversion",
                "listener_id": who,
                "ts": T0 + 50_000 * number + n,
                **({"placement_id": "p0"} if n == 1 else {}),
                "conversion": {"type": "purchase", "order_id": f"o{n}", "value": "9.99", "currency": "GBP"},
            }
        )
    lines.append(lines[-1] | {"listener_id": "m", "conversion": {"type": "purchase", "order_id": "m"}})
    return [usual | {"event_id": f"e{n}"} | line for n, line in enumerate(lines)]


@pytest.mark.parametrize("model", ["first_touch", "linear", "time_decay", "last_touch"])
def test_decisions_near_a_touch_cap_differ_by_at_most_their_number(
    model: str, settings_of: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    """A listener with 70 listens: the flow reads the newest 64 of them, the oracle all."""
    log, settings = tmp_path / "log.ndjson", settings_of(attribution=model)
    log.write_text("".join(json.dumps(line) + "\n" for line in listens(70, 7)))
    replay([str(log)], settings, b"a key of sixteen bytes or more", out=tmp_path / "out")
    truth, space = recompute([log], rules(settings)), settings.namespace
    comparison = compare(truth, client, space)
    assert comparison.differences == []
    assert bool(comparison.capped_fields) == (model != "last_touch")
    assert minute_differences(truth, tmp_path / "out" / "minutes.ndjson") == []

    key = f"{space}:placement:{{p6}}"
    had = client.hget(key, "flight.conversions") or "0"
    for field, wrong in (("flight.conversions", float(had) + 3.25), ("flight.impressions", 11)):
        before = client.hget(key, field) or "0"
        client.hset(key, field, f"{wrong:g}")
        found = {(one.scope, one.id, one.metric) for one in compare(truth, client, space).differences}
        assert ("placement", "p6", field) in found
        client.hset(key, field, before)


@pytest.mark.parametrize("model", ["first_touch", "linear"])
def test_a_listener_at_a_touch_cap_is_compared_exactly(
    model: str, settings_of: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    log, settings = tmp_path / "log.ndjson", settings_of(attribution=model)
    log.write_text("".join(json.dumps(line) + "\n" for line in listens(64, 8)))
    replay([str(log)], settings, b"a key of sixteen bytes or more", out=tmp_path / "out")
    decided = [json.loads(line) for line in (tmp_path / "out" / "credits.ndjson").read_text().splitlines()]
    assert {one["capped"] for one in decided} == {False}
    truth = recompute([log], rules(settings))
    assert truth.capped == {}
    comparison = compare(truth, client, settings.namespace)
    assert (comparison.differences, comparison.capped_fields) == ([], 0)
