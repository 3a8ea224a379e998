"""Rows that restart after `row_memory`: the oracle reads the begin of a row's count from the row."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from connectors.redis.client import Client
from flows.cli.reconcile_settings import rules
from flows.reconcile.comparison import differences
from flows.reconcile.recomputation import recompute
from flows.replay import replay
from flows.settings.fields import Settings

HOUR, DAY = 3_600_000, 86_400_000
T0 = 1_790_000_000_000 // DAY * DAY
KEY = b"a key of sixteen bytes or more"
HEARD = {"consent": True, "listener_id": "anna", "household_id": "h"}
SMALL_CUTS: dict[str, Any] = {"flush_interval": timedelta(milliseconds=2), "batch_messages": 2}
COUNTED = ("flight.impressions", "flight.pixels", "flight.reach", "impression_basis", "flight.since_ms")


def pixel(event: str, ts: int, name: str, **more: Any) -> dict[str, Any]:
    play = {"play_id": f"p{ts}"} if event != "conversion" else {}
    return {"event": event, "ts": ts, "placement_id": name, "campaign_id": f"of-{name}", **play, **more}


def log_of(directory: Path, quiet_days: int) -> Path:
    """A placement silent for so long, with another label, basis and currency afterwards, and one that never
    is.
    """
    back = T0 + quiet_days * DAY + HOUR
    lines = [pixel("impression", T0 + hours * HOUR, "steady") for hours in range(1, 24 * (quiet_days + 1), 6)]
    bought: dict[str, Any] = {"type": "purchase", "value": "7", "currency": "EUR"}
    for at, more in (
        (T0, {"station": "one", "basis": "ad_delivered"}),
        (back, {"program": "two", "listener_id": "bea"}),
    ):
        lines += [pixel("impression", at, "a", **HEARD | more), pixel("start", at + 1, "a", **HEARD | more)]
        lines.append(pixel("conversion", at + 60_000, "a", **HEARD | more, conversion=bought))
    lines.append(pixel("impression", back + 2, "a"))
    file = directory / "log.ndjson"
    ordered = sorted(lines, key=lambda line: line["ts"])
    file.write_text(
        "".join(json.dumps({"event_id": f"e{n}"} | line) + "\n" for n, line in enumerate(ordered))
    )
    return file


@pytest.mark.parametrize(
    ("cuts", "begins_anew"), [(SMALL_CUTS, True), ({}, False)], ids=["small cuts", "one cut"]
)
def test_a_row_silent_beyond_its_memory_may_restart(
    settings_of: Callable[..., Settings],
    client: Client,
    tmp_path: Path,
    cuts: dict[str, Any],
    begins_anew: bool,
) -> None:
    settings, log = settings_of(**cuts), log_of(tmp_path, 63)
    replay([str(log)], settings, KEY)
    row = client.hgetall(f"{settings.namespace}:placement:{{a}}")
    told = [row.get(name) for name in COUNTED]
    back = str(T0 + 63 * DAY + HOUR)
    assert told == (
        ["2", "4", "1", "vast_impression", back] if begins_anew else ["3", "7", "2", "mixed", str(T0)]
    )
    assert differences(recompute([log], rules(settings)), client, settings.namespace) == []


def test_a_row_restarted_too_early_is_a_difference(
    settings_of: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    settings, log = settings_of(**SMALL_CUTS), log_of(tmp_path, 63)
    replay([str(log)], settings, KEY)
    longer = rules(settings_of(**SMALL_CUTS, row_memory=timedelta(days=64)))
    listed = differences(recompute([log], longer), client, settings.namespace)
    found = {(one.scope, one.id, one.metric) for one in listed}
    assert found >= {("placement", "a", "flight.impressions"), ("campaign", "of-a", "flight.since_ms")}
    assert not [one for one in found if "steady" in one[1]]
