"""Calls the collector for the demo, and counts what the calls must give."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from flows.demo.caller import Caller
from flows.demo.plays import CAMPAIGN, Called, Scene
from flows.simulate import Tally

PATIENCE_S: Final = 20.0
"""The time, in s, for which a refused call is sent again."""
RETRY_S: Final = 0.5
STORED: Final = (200, 302)
CALLS_A_PLAY: Final = 5.0


@dataclass
class Door:
    """Calls the collector in real time.

    Args:
        rate: calls a second.

    Attributes:
        tally: the counts that the flow must reach.
        sent: events by their right outcome: `stored`, `rejected.<reason>`, `not_counted.<reason>`.
        again: the number of calls sent again, since they were refused or had no answer.
        lost: the number of calls that never had an answer.
        unanswered: events of attempts without an answer, by outcome as in `sent`. The collector may have
            taken them, and may take them once more.
    """

    port: int
    scene: Scene
    rate: float
    tally: Tally = field(default_factory=Tally.empty)
    sent: Counter[str] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    again: int = 0
    lost: int = 0

    def run(self, seconds: float | None, stop: threading.Event) -> None:
        """Call for `seconds`, or until `stop`, and return once all calls have their answers."""
        asyncio.run(self._run(seconds, stop))

    def plans(self, start_ms: int, flight: timedelta) -> list[dict[str, Any]]:
        """A plan for each placement, from the first call on. Each delivers about 105 % of its booking."""
        start = datetime.fromtimestamp(start_ms / 1000, UTC)
        plays = self.rate / CALLS_A_PLAY * flight.total_seconds()
        return [
            {
                "placement_id": name,
                "campaign_id": CAMPAIGN,
                "booked": max(1, round(0.95 * plays * share)),
                "start": start.isoformat(timespec="milliseconds"),
                "end": (start + flight).isoformat(timespec="milliseconds"),
                "timezone": "Europe/London",
                "cpm": "12.50",
                "currency": "GBP",
                "target_completion_rate": 0.7,
                "blocked_categories": "",
            }
            for name, share in self.scene.impressions_a_play().items()
        ]

    async def _run(self, seconds: float | None, stop: threading.Event) -> None:
        self._caller = Caller(self.port)
        self._over = False
        began_s, born, plays = time.monotonic(), 0, set[asyncio.Task[None]]()
        while not stop.is_set() and (seconds is None or time.monotonic() - began_s < seconds):
            due = int((time.monotonic() - began_s) * self.rate / CALLS_A_PLAY)
            for _ in range(min(due - born, 20)):
                task = asyncio.create_task(self._play())
                plays.add(task)
                task.add_done_callback(plays.discard)
            born = due
            await asyncio.sleep(0.05)
        self._over = True
        if plays:
            await asyncio.gather(*plays)
        self._caller.close()

    async def _play(self) -> None:
        for wait_s, called in self.scene.play():
            await asyncio.sleep(wait_s)
            if self._over:
                return
            if not await self._call(called):
                self.lost += 1
                return

    async def _call(self, called: Called) -> bool:
        """Call until there is an answer, and add the counts that the call must give. False if none came."""
        until_s = time.monotonic() + PATIENCE_S
        kinds = ["stored"] * len(called.truths) + [f"rejected.{reason}" for reason in called.rejected]
        kinds += [f"not_counted.{called.not_counted}"] if called.not_counted else []
        while (status := await self._caller.call(called.fire)) not in STORED:
            self.again += 1
            if not status:
                self.unanswered.update(kinds)
            if time.monotonic() > until_s:
                return False
            await asyncio.sleep(RETRY_S)
        for truth in called.truths:
            self.tally.count(-1, called.event_ms, truth)
        self.sent.update(kinds)
        return True
