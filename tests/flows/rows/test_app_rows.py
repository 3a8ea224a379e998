"""Rows of listening apps where they are switched on, whatever their names are; nothing of them where they are
not.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from connectors.redis.client import Client
from connectors.redis.commands import scan_index
from flows.cli.reconcile_settings import rules
from flows.model.redis_keys import row_key
from flows.reconcile.comparison import differences
from flows.reconcile.recomputation import recompute
from flows.replay import replay
from flows.settings.fields import Settings

KEY = b"a key of sixteen bytes or more"
T0 = 1_790_000_000_000
HOSTILE = (
    'an "app"',
    "a}{b",
    "a:b:{c}",
    "\\",
    "line\nfeed",
    "<script>alert(1)</script>",
    "=1+1",
    "é\u202e\U0001f3a7",
    "other",
    "index",
    "..",
    "x" * 128,
)
APPS = (*HOSTILE, None, "[APP]", *(f"app {number}" for number in range(28)))


def written(path: Path, apps: bool = True) -> list[str]:
    """A log of plays whose apps take turns, at one placement, and of conversions."""
    lines = []
    for number in range(400):
        play = {"placement_id": "p", "campaign_id": "c", "play_id": f"p{number}", "listener_id": f"l{number}"}
        play |= {"consent": True, "received_at": T0 + 1_000 * number, "ts": T0 + 1_000 * number}
        if apps and (app := APPS[number % len(APPS)]) is not None:
            play["app"] = app
        bought = {"conversion": {"type": "purchase", "order_id": f"o{number}"}} if number % 9 == 0 else {}
        for event in ("impression", "start", "conversion") if bought else ("impression", "complete", "start"):
            more = bought if event == "conversion" else {}
            lines.append(json.dumps({"event_id": f"{event}{number}", "event": event, **play, **more}))
    path.write_text("".join(f"{line}\n" for line in lines))
    return [str(path)]


def published_rows(client: Client, namespace: str) -> dict[str, dict[str, str]]:
    """Every row, as it is published, without its version."""
    keys = sorted(key for key in client.scan_iter(f"{namespace}:*:{{*}}") if client.type(key) == "hash")
    rows = {key.removeprefix(namespace): client.hgetall(key) for key in keys}
    return {key: {name: row[name] for name in row.keys() - set(VERSIONS)} for key, row in rows.items()}


VERSIONS = ("generation", "fence", "rev", "updated_ms", "flushed_ms", "methodology")


def test_switched_off_all_is_as_if_no_pixel_named_an_app(
    tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    published = []
    for apps in (True, False):
        settings = settings_of(namespace=f"off-{tmp_path.name}-{apps}:v1")
        replay(written(tmp_path / f"{apps}.ndjson", apps), settings, KEY)
        assert not [*client.scan_iter(f"{settings.namespace}:app:*")]
        assert not client.exists(f"{settings.namespace}:index:app")
        published.append(published_rows(client, settings.namespace))
    assert published[0].keys() > {":placement:{p}", ":campaign:{c}"}
    for key in (":placement:{p}", ":campaign:{c}"):
        assert published[0][key] == published[1][key]
        assert "app" not in published[0][key]


@pytest.mark.parametrize(("cap", "workers"), [(1_000, 1), (20, 3)])
def test_enabled_app_rows_add_up_to_the_cap(
    cap: int, workers: int, tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of(app_rows=True, row_cap=cap, shards=4)
    files = written(tmp_path / "log.ndjson")
    replay(files, settings, KEY, workers=workers)
    space = settings.namespace
    names = {name for name in APPS if name not in (None, "[APP]")}
    found = set(scan_index(client, f"{space}:index:app"))
    assert found == names if cap > len(names) else found < names
    assert len(found) <= max(cap, 4 * (cap // 4))
    rows = [client.hgetall(row_key(space, "app", name)) for name in found]
    other = client.hgetall(f"{space}:other:{{app}}")
    assert bool(other) == (cap < len(names))
    told = Counter(APPS[number % len(APPS)] for number in range(400))
    plays = sum(count for name, count in told.items() if name in names)
    for field, count in (("flight.impressions", plays), ("flight.starts", plays)):
        assert sum(int(row.get(field, 0)) for row in (*rows, other)) == count
    for name, row in zip(found, rows, strict=True):
        assert int(row["flight.impressions"]) == told[name]
    assert client.hget(f"{space}:placement:{{p}}", "app") in names
    assert client.hget(f"{space}:campaign:{{c}}", "app") is None
    assert differences(recompute([Path(file) for file in files], rules(settings)), client, space) == []
