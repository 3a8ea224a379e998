"""The change `pause` is whole: a pause is decoded, counted, published, shown and documented."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from connectors.redis import read_rows
from connectors.redis.client import Client
from flows.cli.reconcile_settings import rules
from flows.methodology import methodology
from flows.reconcile.comparison import differences
from flows.reconcile.recomputation import recompute
from flows.replay import replay
from flows.settings import Settings, load
from flows.viewers.rows_json import row_json

MINUTE = 60_000
START_MS = 29_000_000 * MINUTE
DOCS = Path(__file__).parents[2] / "docs"


def line(number: int, pixel: tuple[str | None, str, int]) -> str:
    play, event, at_s = pixel
    at_ms = START_MS + 1_000 * at_s
    found = {
        "event_id": f"e-{number}",
        "event": event,
        "ts": at_ms,
        "received_at": at_ms,
        "placement_id": "p",
    }
    return json.dumps(found | ({"play_id": play} if play else {})) + "\n"


def test_a_pause_counts_once_a_play_in_the_minute_of_its_start(
    settings_of: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    settings = settings_of()
    pixels = [
        ("early", "pause", 0), ("early", "start", 30), ("early", "pause", 50),
        ("late", "start", 59), ("late", "pause", 61), ("alone", "pause", 70), (None, "pause", 80),
        ("last", "start", 3_600),
    ]  # fmt: skip
    log = tmp_path / "log.ndjson"
    log.write_text("".join(map(line, range(len(pixels)), pixels)))
    replay([str(log)], settings, b"a key of a test!", out=tmp_path / "out")
    (row,) = read_rows(client, [f"{settings.namespace}:placement:{{p}}"])
    assert row["flight.pauses"] == "3", "early once, late once, alone in its own minute"
    assert row_json("placement", "p", row)["fields"]["flight.pauses"] == 3
    minutes = [json.loads(line) for line in (tmp_path / "out" / "minutes.ndjson").read_text().splitlines()]
    counts = {(one["minute_ms"] - START_MS) // MINUTE: int(one["pauses"]) for one in minutes}
    assert counts == {0: 2, 1: 1, 60: 0}
    assert not differences(recompute([log], rules(settings)), client, settings.namespace)


def test_a_pause_is_documented() -> None:
    assert methodology(load()).metrics["pauses"]["counts"] == "Plays that were paused."
    assert "| `pause` | `pauses`" in (DOCS / "pixels.md").read_text()
    assert " pauses " in (DOCS / "contracts.md").read_text()
