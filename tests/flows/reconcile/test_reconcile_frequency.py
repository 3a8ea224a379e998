"""A conversion long after its listener's last impression has no frequency, in flow and oracle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from connectors.redis.client import Client
from flows.cli.reconcile_settings import rules
from flows.reconcile.comparison import differences
from flows.reconcile.recomputation import recompute
from flows.replay import replay
from flows.settings.fields import Settings

T0 = 1_764_000_000_000
DAY_MS = 86_400_000
KEY = b"a key of sixteen bytes or more"


@pytest.mark.parametrize(("days", "told"), [(1, "1"), (60, "1"), (61, "0")])
def test_a_listener_silent_for_sixty_days_has_no_class(
    settings_of: Callable[..., Settings], client: Client, tmp_path: Path, days: int, told: str
) -> None:
    who = {"listener_id": "anna", "consent": True, "campaign_id": "c", "placement_id": "a"}
    order = {"type": "purchase", "order_id": "o"}
    lines = [{"event_id": "i", "event": "impression", "ts": T0, "play_id": "p"} | who]
    lines += [
        {
            "event_id": f"{n}",
            "event": "impression",
            "ts": T0 + n * DAY_MS,
            "placement_id": "b",
            "play_id": f"{n}",
        }
        for n in range(1, days + 1)
    ]
    lines.append(
        {"event_id": "o", "event": "conversion", "ts": T0 + days * DAY_MS + 1_000, "conversion": order} | who
    )
    log = tmp_path / "log.ndjson"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = settings_of()
    replay([str(log)], settings, KEY)
    row = client.hgetall(f"{settings.namespace}:campaign:{{c}}")
    assert (row["flight.conversions"], row.get("frequency.1.conversions", "0")) == ("1", told)
    assert differences(recompute([log], rules(settings)), client, settings.namespace) == []
