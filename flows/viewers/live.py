"""The last calls of all collectors, from Redis."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from connectors.redis import Client, read_rows
from connectors.stream import ConnectError
from flows.model.last_call import MAX_CALLS, LastCall, decoded
from flows.model.redis_keys import calls_key, collectors_key

MAX_COLLECTORS: Final = 100
"""The most collectors whose calls are read: those that wrote last."""
READ_EVERY_S: Final = 1.0


@dataclass
class LiveCalls:
    """Reads the last calls, at most once a second for any number of viewers."""

    client: Client
    namespace: str
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _read_s: float = float("-inf")
    _latest: dict[str, Any] = field(default_factory=lambda: {"calls": [], "events": 0, "collectors": 0})

    def read(self) -> dict[str, Any]:
        """The last `MAX_CALLS` calls as JSON, the latest first, a sample of as many calls as `events` says.
        While Redis is away the last answer stays, with `error`.
        """
        with self._lock:
            if time.monotonic() - self._read_s >= READ_EVERY_S:
                try:
                    self._latest = self._read() | {"error": None}
                except (ConnectError, ValueError) as error:
                    self._latest = self._latest | {"error": str(error)}
                self._read_s = time.monotonic()
            return self._latest

    def _read(self) -> dict[str, Any]:
        (listed,) = read_rows(self.client, [collectors_key(self.namespace)], None)
        ids = sorted(listed, key=lambda name: (-int(listed[name]) if listed[name].isdigit() else 0, name))
        rows = read_rows(self.client, [calls_key(self.namespace, name) for name in ids[:MAX_COLLECTORS]])
        calls: list[tuple[LastCall, str]] = []
        events = 0
        for name, row in zip(ids, rows, strict=False):
            calls += [(call, name) for call in decoded(row.get("calls", "[]"))]
            events += int(row.get("events", 0))
        calls.sort(key=lambda call_and_name: -call_and_name[0].at_ms)
        shown = [msgspec.to_builtins(call) | {"collector": name} for call, name in calls[:MAX_CALLS]]
        return {"calls": shown, "events": events, "collectors": sum(bool(row) for row in rows)}
