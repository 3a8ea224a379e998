"""The figures of a collector in Redis, for the live page. A task of its own writes them, never a call."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from functools import partial
from typing import Any, Final

import msgspec
import structlog

from connectors.redis import Client, connect, drop_fields, put_fields, read_rows
from connectors.stream import ConnectError
from flows.collector.instruments import Instruments
from flows.collector.lane import Lane
from flows.collector.last_calls import LastCalls
from flows.collector.ledger import Ledger
from flows.collector.refusals import TTL as REFUSED_TTL
from flows.collector.refusals import DueCounts, Refusals, by_day
from flows.model.last_call import encoded
from flows.model.redis_keys import calls_key, collector_keys_key, collectors_key, door_key, row_key, tags_key
from flows.model.release import VERSION
from flows.settings import Settings

EVERY_S: Final = 2.0
"""Seconds between two writes."""
RETRY_S: Final = 15.0
"""Seconds between two attempts to reach a Redis that does not answer."""
TTL: Final = timedelta(minutes=10)
"""The lifetime of a collector's figures after its last write, for which the page shows that it is gone."""
CALLS_AGAIN_S: Final = 60.0
"""Seconds after which the last calls are written even without a new one."""
NEVER: Final = -1, 0.0
"""The state of the last calls that Redis has (`LastCalls.changes`) and the time of that write, in s."""
LISTED: Final = timedelta(days=1)
"""The time for which Redis lists a collector after its last write."""
TIMEOUT: Final = timedelta(seconds=1)
MAX_PLACEMENTS: Final = 100
"""The greatest number of placements whose unreplaced macros are published, the worst first."""


class Figures:
    """Publishes the figures of one process, and the number of its rejections by placement.

    Args:
        key: the id of the key that makes its pseudonyms.
        last: its last calls.
    """

    def __init__(
        self,
        settings: Settings,
        instruments: Instruments,
        ledger: Ledger,
        lane: Lane,
        refusals: Refusals,
        key: str,
        last: LastCalls | None = None,
    ) -> None:
        self._settings, self._instruments, self._ledger, self._lane = settings, instruments, ledger, lane
        self._refusals, self._key, self._last = refusals, key, last or LastCalls()
        self._written_calls = NEVER
        self._started_ms = _now_ms()
        self._client: Client | None = None

    def now(self) -> dict[str, str]:
        """The figures as fields of a hash; always the same, so that no field of an earlier process stays."""
        instruments, lane = self._instruments, self._lane
        oldest_ms = lane.oldest_ms
        counts: dict[str, Any] = dict(self._ledger.counts(lane.resting)) | {
            "id": lane.id,
            "version": VERSION,
            "started_ms": self._started_ms,
            "updated_ms": _now_ms(),
            "ready": int(instruments.ready()),
            "spool_bytes": lane.spool.bytes,
            "spool_full_ratio": round(lane.spool.full, 6),
            "oldest_resting_ms": 0 if oldest_ms is None else oldest_ms,
            "low_ms": lane.published_ms,
        }
        worst = sorted(instruments.fires.items(), key=lambda item: (-item[1][1], item[0]))[:MAX_PLACEMENTS]
        maps: dict[str, Any] = {name: counts for name, (_, counts) in instruments.by_reason.items()} | {
            "unreplaced": instruments.unreplaced(),
            "placements_unreplaced": {name: fires for name, fires in worst if fires[1]},
            "platforms_unreplaced": instruments.platforms,
            "unverified_servers": instruments.unverified.worst(),
        }
        return {name: str(value) for name, value in counts.items()} | {
            name: msgspec.json.encode(value).decode() for name, value in maps.items()
        }

    async def keep(self) -> None:
        """Write the figures to Redis every two seconds until cancelled. Log one warning for each outage."""
        log, loop, away = structlog.get_logger("collector"), asyncio.get_running_loop(), False
        while True:
            fired = self._instruments.take_fired()
            refused, calls = self._refusals.take(), self._due_calls()
            try:
                await loop.run_in_executor(None, partial(self._write, self.now(), fired, calls))
                with_row = await loop.run_in_executor(None, partial(self._write_refused, refused))
                self._refusals.written(refused, with_row)
                away = False
            except ConnectError as error:
                self._instruments.put_back(fired)
                self._refusals.put_back(refused)
                self._written_calls = NEVER
                if not away:
                    log.warning("the figures for the live page cannot be written", error=str(error))
                away = True
            await asyncio.sleep(RETRY_S if away else EVERY_S)

    def _write(self, fields: dict[str, str], fired: set[str], calls: dict[str, str] | None) -> None:
        settings, id = self._settings, fields["id"]
        if self._client is None:
            self._client = connect(settings.redis_url.get_secret_value(), timeout=TIMEOUT)
        client, listed = self._client, collectors_key(settings.namespace)
        put_fields(client, {row_key(settings.namespace, "collector", id): fields}, TTL)
        if calls is not None:
            put_fields(client, {calls_key(settings.namespace, id): calls}, TTL)
        keys = collector_keys_key(settings.namespace)
        put_fields(client, {listed: {id: fields["updated_ms"]}, keys: {self._key: fields["updated_ms"]}})
        if self._lane.before:  # this process reports the figures of earlier ones
            drop_fields(client, listed, self._lane.before)
        silent, updated = read_rows(client, [tags_key(settings.namespace), listed])
        if fired_tags := silent.keys() & fired:
            drop_fields(client, tags_key(settings.namespace), fired_tags)
        since_ms = int(fields["updated_ms"]) - LISTED // timedelta(milliseconds=1)
        expired = [name for name, text in updated.items() if not text.isdigit() or int(text) < since_ms]
        if expired:
            drop_fields(client, listed, expired)

    def _due_calls(self) -> dict[str, str] | None:
        """The last calls, if there is a new one or the written ones would expire; None if no write is due."""
        last, (changes, at_s), now_s = self._last, self._written_calls, time.monotonic()
        if last.changes == changes and now_s - at_s < CALLS_AGAIN_S:
            return None
        self._written_calls = last.changes, now_s
        return {"calls": encoded(last.shown()), "events": str(last.events)}

    def _write_refused(self, refused: DueCounts) -> set[str]:
        """Write rejections to Redis, for the comparison with other parties' counts. Returns the placements
        that have a row.
        """
        client, namespace = self._client, self._settings.namespace
        assert client is not None
        names = list(refused.without_row)
        rows = read_rows(client, [row_key(namespace, "placement", name) for name in names], ["rev"])
        with_row = {name for name, row in zip(names, rows, strict=True) if row}
        counts = refused.with_row | {name: refused.without_row[name] for name in with_row}
        process = f"{self._lane.id}/{self._started_ms}"
        hashes = {
            door_key(namespace, name, day): {
                f"{reason}/{process}": str(count) for reason, count in by_reason.items()
            }
            for name, by_day_and_reason in counts.items()
            for day, by_reason in by_day(by_day_and_reason).items()
        }
        put_fields(client, hashes, REFUSED_TTL)
        return with_row


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
