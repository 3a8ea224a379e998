"""Helpers for tests of Redis: layouts, rows, and running servers."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from connectors.redis.client import Client
from connectors.redis.commands import read_rows
from connectors.redis.fenced_hash import FencedHash, RowVersion

TIMEOUT = timedelta(seconds=2)
ROW = FencedHash(["5m.impressions", "1h.rate", "station"])
WIDE = FencedHash([f"f{i}" for i in range(100)])
LAYOUTS = {"row": ROW, "wide": WIDE}
DEBIAN = shutil.which("redis-server")


def eventually(holds: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.02)


def row(key: str, version: tuple[int, int, int], impressions: int | None = 1, **more: Any) -> RowVersion:
    return RowVersion(key, "row", ROW.pack([impressions, "0.100000", "radio \u00e9"]), *version, **more)


def held(client: Client, key: str) -> dict[str, str]:
    return read_rows(client, [key])[0]
