"""Flow and oracle forget a `progress` pixel at the same moment, which differs from the play's, and accept the
same jumps of time.
"""

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

START_MS = 1_764_000_000_000


def pixel(event: str, after_s: int, again: int = 0, **more: int) -> bytes:
    ts = START_MS + after_s * 1000
    known = {"event_id": f"{event}-{after_s}-{again}", "event": event, "ts": ts, "received_at": ts}
    return json.dumps({**known, "placement_id": "p", "play_id": "play", **more}).encode()


def other(after_s: int) -> bytes:
    return pixel("impression", after_s).replace(b'"play"', b'"play-%d"' % after_s)


def test_a_repeated_progress_is_identified_by_its_own_time(
    settings_of: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    settings = settings_of(allowed_lateness="PT30S", horizon="PT2M")
    log = tmp_path / "log.ndjson"
    lines = [
        pixel("start", 0),
        pixel("progress", 5, playhead_ms=5000),
        pixel("complete", 55),
        other(130),
        pixel("progress", 5, again=1, playhead_ms=5000),
        other(140),
        pixel("progress", 5, again=2, playhead_ms=5000),
        pixel("complete", 55, again=1),
    ]
    log.write_bytes(b"".join(line + b"\n" for line in lines))

    replay([str(log)], settings, b"a key of sixteen bytes or more")

    truth = recompute([log], rules(settings))
    assert differences(truth, client, settings.namespace) == []
    assert (truth.totals["repeated"], truth.totals["rejected.too_late"]) == (2, 1)


@pytest.mark.parametrize("received", [True, False])
@pytest.mark.parametrize("days", [(0, 2, 0, 0), (2, 0, 0), (0, 2, 2, 0), (0, 2, 0, 2, 2, 0)])
def test_a_jump_of_days_makes_the_same_pixels_late_in_both(
    days: tuple[int, ...],
    received: bool,
    settings_of: Callable[..., Settings],
    client: Client,
    tmp_path: Path,
) -> None:
    settings, log = settings_of(), tmp_path / "log.ndjson"
    lines = [json.loads(other(86_400 * day + second)) for second, day in enumerate(days)]
    if not received:
        lines = [{name: value for name, value in line.items() if name != "received_at"} for line in lines]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))

    replay([str(log)], settings, b"a key of sixteen bytes or more")

    assert differences(recompute([log], rules(settings)), client, settings.namespace) == []
