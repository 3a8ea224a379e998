"""The rows of live sources in Redis, for the page and the doctor."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import msgspec
import structlog

from connectors.redis import Client, connect, drop_fields, put_fields, read_rows
from connectors.stream import ConnectError
from flows.model.redis_keys import row_key, sources_key
from flows.model.release import VERSION
from flows.settings import Settings
from flows.sources.live import Live

EVERY_S: Final = 2.0
RETRY_S: Final = 15.0
"""The time between two attempts to reach a Redis that is away."""
TTL: Final = timedelta(minutes=10)
"""The time for which the row of a source stays after its last write. Meanwhile the page shows that the
process has stopped.
"""
TIMEOUT: Final = timedelta(seconds=1)


class SourceRows:
    """Writes a row of each source of this process every two seconds, in a thread, until `close`.

    Args:
        settings: of Redis and the namespace.
        lives: the sources.
    """

    def __init__(self, settings: Settings, lives: Sequence[Live]) -> None:
        self._settings, self._lives = settings, lives
        self._process = f"{socket.gethostname()}-{os.getpid()}"
        self._started_ms = _now_ms()
        self._client: Client | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="source-rows", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop writing, and remove the rows of a process that ends in order."""
        self._ended.set()
        self._thread.join(5)
        if self._client is None:
            return
        try:
            listed = sources_key(self._settings.namespace)
            drop_fields(self._client, listed, [self._id(live) for live in self._lives])
        except ConnectError:
            return  # the rows expire

    def _run(self) -> None:
        log, away = structlog.get_logger("source"), False
        while True:
            try:
                self._write()
                away = False
            except ConnectError as error:
                if not away:
                    log.warning(
                        "redis does not answer: the page lacks this process's sources", error=str(error)
                    )
                away = True
            if self._ended.wait(RETRY_S if away else EVERY_S):
                return

    def _id(self, live: Live) -> str:
        return f"{live.id}@{self._process}"

    def _write(self) -> None:
        if self._client is None:
            self._client = connect(self._settings.redis_url.get_secret_value(), timeout=TIMEOUT)
        namespace, now_ms = self._settings.namespace, _now_ms()
        rows = {}
        for live in self._lives:
            outcomes, rejected = live.ledger.counts()
            counts = {
                "id": self._id(live),
                "source": live.name,
                "version": VERSION,
                "started_ms": self._started_ms,
                "updated_ms": now_ms,
                "read": live.ledger.read,
                **outcomes,
                "rejected_by": msgspec.json.encode(rejected).decode(),
                "behind": live.behind,
                "waiting": live.waiting,
                "low_ms": live.low_ms,
            }
            rows[self._id(live)] = {name: str(value) for name, value in counts.items()}
        put_fields(self._client, {row_key(namespace, "source", name): row for name, row in rows.items()}, TTL)
        listed = sources_key(namespace)
        put_fields(self._client, {listed: dict.fromkeys(rows, str(now_ms))})
        (listed_ids,) = read_rows(self._client, [listed])
        before_ms = now_ms - TTL // timedelta(milliseconds=1)
        if ended := [name for name, at in listed_ids.items() if not at.isdigit() or int(at) < before_ms]:
            drop_fields(self._client, listed, ended)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
