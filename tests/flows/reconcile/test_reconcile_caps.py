"""Names beyond a cap have no row: the oracle compares their sums, and finds a wrong one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from connectors.redis.client import Client
from flows.cli.reconcile_settings import rules
from flows.reconcile import compare, recompute
from flows.replay import replay
from flows.settings.fields import Settings
from flows.simulate.feed import run_log
from flows.simulate.traffic import Traffic


@pytest.mark.parametrize("field", ["flight.impressions", "1h.starts", "1d.conversions", "flight.pixels"])
def test_a_flow_of_capped_rows_reconciles_and_a_wrong_other_is_found(
    field: str, settings_of: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    log, settings = tmp_path / "log.ndjson", settings_of(row_cap=5, shards=2)
    run_log(log, Traffic(5, placements=24), 6_000)
    replay([str(log)], settings, b"a key of sixteen bytes or more")
    truth, space = recompute([log], rules(settings)), settings.namespace

    assert int(client.hget(f"{space}:meta", "rows_beyond_cap") or 0) > 0
    assert compare(truth, client, space).found == []

    key = f"{space}:other:{{placement}}"
    client.hset(key, field, str(int(float(client.hget(key, field) or 0)) + 1))
    (one,) = compare(truth, client, space).found
    assert (one.scope, one.id, one.metric) == ("other", "placement", field)

    client.delete(key)
    assert {one.metric for one in compare(truth, client, space).found if one.scope == "placement"} == {"row"}


def test_a_wrong_number_of_names_beyond_the_cap_is_found(
    settings_of: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    log, settings = tmp_path / "log.ndjson", settings_of()
    run_log(log, Traffic(5, placements=4), 500)
    replay([str(log)], settings, b"a key of sixteen bytes or more")
    truth, space = recompute([log], rules(settings)), settings.namespace
    assert compare(truth, client, space).found == []
    client.hset(f"{space}:meta", "rows_beyond_cap", "1")
    assert [one.metric for one in compare(truth, client, space).found] == ["rows_beyond_cap"]
