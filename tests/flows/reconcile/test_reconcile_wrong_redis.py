"""The oracle and a Redis that holds what no flow writes: a difference, or one line that says where."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from connectors.redis.client import Client
from flows.cli.reconcile_settings import rules
from flows.errors import AudiopixelError
from flows.reconcile.comparison import differences
from flows.reconcile.recomputation import recompute
from flows.reconcile.truth import Recomputation
from flows.replay import replay
from flows.settings.fields import Settings

T0, KEY = 1_764_000_000_000, b"a key of sixteen bytes or more"
Replayed = tuple[str, Recomputation]


@pytest.fixture
def replayed(settings_of: Callable[..., Settings], tmp_path: Path) -> Replayed:
    log, settings = tmp_path / "log.ndjson", settings_of()
    pixel = {"event": "impression", "placement_id": "p"}
    lines = [pixel | {"event_id": f"e{n}", "ts": T0 + n} for n in range(5)]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    replay([str(log)], settings, KEY)
    return settings.namespace, recompute([log], rules(settings))


def differing_metrics(found: Replayed, client: Client) -> set[tuple[str, str]]:
    namespace, truth = found
    return {(one.scope, one.metric) for one in differences(truth, client, namespace)}


@pytest.mark.parametrize("time", ["1e400", "999999999999999", "-5", "abc", "1_764"])
def test_an_invalid_watermark_is_a_difference(replayed: Replayed, client: Client, time: str) -> None:
    client.hset(f"{replayed[0]}:meta", "watermark_ms", time)
    assert ("meta", "watermark_ms") in differing_metrics(replayed, client)


@pytest.mark.parametrize("positions", ["null", "5", "[]", "{", '"t"'])
def test_invalid_positions_are_a_difference(replayed: Replayed, client: Client, positions: str) -> None:
    client.hset(f"{replayed[0]}:positions", "positions", positions)
    assert differing_metrics(replayed, client) == {("positions", "row")}


@pytest.mark.parametrize("count", ["abc", "4", "NaN"])
def test_a_wrong_count_of_a_topics_ledger_is_a_difference(
    replayed: Replayed, client: Client, count: str
) -> None:
    (path,) = replayed[1].ledger
    client.hset(f"{replayed[0]}:positions", "positions", json.dumps({"t/0": 5}))
    client.rename(f"{replayed[0]}:partition:{{{path}}}", f"{replayed[0]}:partition:{{t/0}}")
    assert differing_metrics(replayed, client) == set()
    client.hset(f"{replayed[0]}:partition:{{t/0}}", "received", count)
    assert differing_metrics(replayed, client) == {("partition", "received")}


@pytest.mark.parametrize(
    ("key", "scope"),
    [("other:{placement}", "other"), ("placement:{p}", "placement"), ("meta", "meta")],
)
def test_a_key_of_another_type_is_a_difference(
    replayed: Replayed, client: Client, key: str, scope: str
) -> None:
    client.delete(f"{replayed[0]}:{key}")
    client.set(f"{replayed[0]}:{key}", "5")
    assert (scope, "(type)") in differing_metrics(replayed, client)


def test_an_index_of_another_type_is_a_difference(replayed: Replayed, client: Client) -> None:
    client.delete(f"{replayed[0]}:index:placement")
    client.set(f"{replayed[0]}:index:placement", "5")
    assert differing_metrics(replayed, client) == {("placement", "index")}


def test_an_id_outside_utf_8_is_an_error_with_its_place(replayed: Replayed, client: Client) -> None:
    client.zadd(f"{replayed[0]}:index:placement", {b"\xff": 1})
    with pytest.raises(AudiopixelError, match=r"index:placement in Redis has bytes that are no UTF-8"):
        differing_metrics(replayed, client)
