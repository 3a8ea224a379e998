"""What audiopixel left in Redis and in its files, as answers."""

from __future__ import annotations

from pathlib import Path

import msgspec

from benchmarks.measure import Counts
from connectors.redis.client import connect
from connectors.redis.commands import read_rows, scan_index
from flows.instruments import instruments
from flows.metrics import STATE_BYTES, STATE_PLAYS
from flows.model.basis import SHOWN, SIDE_WINDOWS
from flows.model.dimensions import SCOPES
from flows.model.events import CLICK, COMPLETE
from flows.model.fields import COUNTS, WINDOWS
from flows.model.redis_keys import row_key
from flows.settings.fields import Settings

MINUTE_METRICS = (*COUNTS[: COMPLETE + 1], COUNTS[CLICK])
WINDOW_METRICS = (
    *(f"{window}.{metric}" for window in WINDOWS for metric in (*MINUTE_METRICS, "reach")),
    *(f"{window}.{metric}" for window in SIDE_WINDOWS for metric in SHOWN[:-1]),
    "flight.repeated",
)


def flights(settings: Settings) -> dict[str, Counts]:
    """Every row's windows, by `scope/id`."""
    client = connect(settings.redis_url.get_secret_value())
    found = {}
    for scope in SCOPES:
        names = scan_index(client, f"{settings.namespace}:index:{scope}")
        keys = [row_key(settings.namespace, scope, name) for name in names]
        rows = read_rows(client, keys, list(WINDOW_METRICS))
        for name, row in zip(names, rows, strict=True):
            found[f"{scope}/{name}"] = {metric: int(row.get(metric, 0)) for metric in WINDOW_METRICS}
    client.close()
    return found


def minutes(path: Path) -> dict[str, Counts]:
    """Every final minute of a `minutes.ndjson`, by `placement|epoch ms`."""
    found = {}
    with path.open("rb") as lines:
        for line in lines:
            minute = msgspec.json.decode(line)
            if minute["state"] == "final":
                key = f"{minute['placement_id']}|{minute['minute_ms']}"
                found[key] = {metric: minute[metric] for metric in MINUTE_METRICS}
    return found


def bytes_a_play() -> float:
    """Memory by remembered play, as this process's gauges say."""
    sums = dict.fromkeys((STATE_PLAYS.name, STATE_BYTES.name), 0.0)
    for family in instruments().registry.collect():
        if family.name in sums:
            sums[family.name] = sum(sample.value for sample in family.samples)
    return sums[STATE_BYTES.name] / max(1.0, sums[STATE_PLAYS.name])
