"""Helpers for tests of Redis's readers: rows that the flow itself wrote, and viewers as processes."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reader_support import READ_ENVIRONMENT
from redis import Redis

from connectors.embedded import EmbeddedValkey
from flows.replay import replay
from flows.settings.fields import Settings
from flows.settings.loading import load

DATA = Path(__file__).parent.parent / "data"
LOG = str(DATA / "adversarial.ndjson.gz")
RECEIVED = json.loads((DATA / "adversarial.totals.json").read_text())["received"]
TRUTH = {row["placement_id"]: row for row in csv.DictReader((DATA / "adversarial.truth.csv").open())}


def replayed(valkey: EmbeddedValkey) -> Settings:
    """Have the flow write a log's numbers; the settings to read them by."""
    settings = load(redis_url=valkey.url)
    replay([LOG], settings, b"a key of a test!")
    return settings


def put_rows(
    url: str, namespace: str, rows: Mapping[str, Mapping[str, Any]], scope: str = "placement"
) -> None:
    """Write rows by hand, as the contract lays them out."""
    with Redis.from_url(url) as client, client.pipeline(transaction=False) as pipe:
        for name, row in rows.items():
            pipe.hset(f"{namespace}:{scope}:{{{name}}}", mapping=dict(row))
            pipe.zadd(f"{namespace}:index:{scope}", {name: 1})
        pipe.execute()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def eventually(holds: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.02)


@contextmanager
def python(code: str, **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process, killed at the end if it still runs."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("COLUMNS", "FORCE_COLOR")
    }
    environment |= {**READ_ENVIRONMENT, "TERM": "xterm"}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, **streams)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
