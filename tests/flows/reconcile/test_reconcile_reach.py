"""Reach of which no listener is known, in the flow, in the oracle and for AdCP."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from connectors.redis.client import Client
from flows.cli.reconcile_settings import rules
from flows.reconcile.comparison import differences
from flows.reconcile.recomputation import recompute
from flows.replay import replay
from flows.settings.fields import Settings
from flows.viewers.adcp_delivery import Buy

T0 = 1_764_000_000_000  # a full minute
KEY = b"a key of sixteen bytes or more"
WINDOWS = ("5m", "1h", "1d", "flight")
DENIED = {"consent": False, "listener_id": "anna"}
SILENT = {"listener_id": "anna"}
NAMELESS = {"consent": True}
KNOWN = {"consent": True, "listener_id": "anna"}
AT_HOME = {"consent": True, "household_id": "h"}
INVALID = KNOWN | {"user_agent": "a robot"}


@pytest.mark.parametrize(
    ("heard", "reach", "unit"),
    [
        ([DENIED], "0", None),
        ([SILENT], "0", None),
        ([NAMELESS], None, None),
        ([DENIED, AT_HOME], None, "household"),
        ([DENIED, SILENT, KNOWN], "1", "listener"),
        ([INVALID], "0", None),
    ],
)
def test_a_row_without_listeners_has_no_reach_instead_of_0(
    settings_of: Callable[..., Settings],
    client: Client,
    tmp_path: Path,
    heard: list[dict[str, Any]],
    reach: str | None,
    unit: str | None,
) -> None:
    lines = [
        {"event_id": f"{n}-{event}", "event": event, "ts": T0 + n, "placement_id": "a", "play_id": f"p{n}"}
        | one
        for n, one in enumerate(heard)
        for event in ("impression", "start")
    ]
    log = tmp_path / "log.ndjson"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = settings_of(invalid_agents={"robots": "robot"})
    replay([str(log)], settings, KEY)
    row = client.hgetall(f"{settings.namespace}:placement:{{a}}")
    assert ([row.get(f"{window}.reach") for window in WINDOWS], row.get("reach_unit")) == ([reach] * 4, unit)
    assert differences(recompute([log], rules(settings)), client, settings.namespace) == []
    told = Buy("a", row, 0, 0).metrics()
    assert told.get("reach_unit") == {"household": "households", "listener": "custom", None: None}[unit]
    assert ("reach" in told) == (unit is not None)
