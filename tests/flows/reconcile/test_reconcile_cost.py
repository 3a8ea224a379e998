"""The oracle's cost: no part of it goes by rows times plans."""

from __future__ import annotations

import json
from collections.abc import Callable, ValuesView
from dataclasses import replace
from pathlib import Path

from connectors.redis.client import Client
from flows.cli.reconcile_settings import rules
from flows.reconcile.comparison import differences
from flows.reconcile.pacing import Planned
from flows.reconcile.recomputation import recompute
from flows.replay import replay
from flows.settings.fields import Settings

T0 = 1_764_000_000_000
KEY = b"a key of sixteen bytes or more"


class Looked(dict[str, Planned]):
    """Plans that count how often all of them are looked through."""

    looks = 0

    def values(self) -> ValuesView[Planned]:
        self.looks += 1
        return super().values()


def test_no_row_costs_a_look_at_each_plan(
    settings_of: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    """A day has as many rows as plans: their product would be hours."""
    looks = []
    for many in (2, 40):
        log, settings = tmp_path / f"{many}.ndjson", settings_of(namespace=f"looked:{many}")
        heard = {"event": "impression", "ts": T0, "campaign_id": "c"}
        lines = [heard | {"event_id": f"{n}", "placement_id": f"p{n}"} for n in range(many)]
        log.write_text("".join(json.dumps(line) + "\n" for line in lines))
        replay([str(log)], settings, KEY)
        plans = Looked()
        assert (
            differences(recompute([log], replace(rules(settings), plans=plans)), client, settings.namespace)
            == []
        )
        looks.append(plans.looks)
    assert looks[0] == looks[1] > 0
