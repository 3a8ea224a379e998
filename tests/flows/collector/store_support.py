"""A store and its lane over a log that answers when the test says so."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from connectors.kafka_reports import Produced, Report, ReportingProducer
from connectors.spool import Spool
from flows.collector.call import Outcome, Understood
from flows.collector.lane import Lane
from flows.collector.ledger import Ledger
from flows.collector.log import Log, received_ms
from flows.collector.store import Store


class Producer:
    """Keeps sent messages until a test reports their outcome."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, Produced]] = []
        self.batches, self.answers = 0, True

    def produce(self, messages: Sequence[tuple[Any, Produced]]) -> list[Any]:
        self.batches += 1
        if self.answers:
            asyncio.get_running_loop().call_soon(self._tell, list(messages), "")
        self.sent += messages
        return []

    def _tell(self, messages: Sequence[tuple[Any, Produced]], error: str) -> None:
        for (sending, place), message in messages:
            sending.note(place, Report((sending, place), message.partition or 0, error))

    def tell(self, number: int, error: str = "") -> None:
        self._tell([self.sent[number]], error)

    def said(self, number: int = -1) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.sent[number][1].value)
        return found


class World:
    """A lane and its store."""

    def __init__(
        self, directory: Path, proven: bool = True, producer: Producer | None = None, **values: Any
    ) -> None:
        self.producer, self.ledger = producer or Producer(), Ledger()
        spool = Spool(directory, 1 << 20, stamp=received_ms)
        if proven:
            (directory / "marked").touch()
        log = Log(asyncio.get_running_loop())
        log.producer = cast(ReportingProducer, self.producer)
        self.lane = Lane(directory, spool, log, lambda: [0, 1], self.ledger)
        known = {"deadline": timedelta(milliseconds=30), "answer": timedelta(milliseconds=150)}
        self.store = Store(self.lane, **known | values)

    def keep(self, *ids: str, key: bytes = b"k", keys: Sequence[bytes] = ()) -> asyncio.Task[bool]:
        now = self.lane.clock.now_ms()
        events = [{"event_id": one, "event": "start", "received_at": now} for one in ids]
        understood = [
            Understood(Outcome.STORED, event=one, key=its)
            for one, its in zip(events, keys or [key] * len(ids), strict=True)
        ]
        return asyncio.create_task(self.store.keep(understood, now))


def run(directory: Path, test: Callable[[World], Awaitable[None]], **values: Any) -> World:
    """Run a test in an event loop of its own; returns its world."""

    async def whole() -> World:
        world = World(directory, **values)
        await test(world)
        return world

    gc.collect()  # of all that tests have imported it takes longer than a call may
    return asyncio.run(whole())
