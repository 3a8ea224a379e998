"""The feed of the live page: what any number of browsers are pushed, from one reading of Redis.

Redis is read once a second while somebody looks, else every ten seconds, for the curves.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import msgspec

from connectors.stream import ConnectError
from flows.viewers.history import POINT_S, RANGES_S, SPARK, History, number
from flows.viewers.reader import Rows, RowsReader, Snapshot

FIELDS: Final = (
    "delivery.state",
    "delivery.since_ms",
    "delivery.indicator",
    "delivery.short_by",
    "delivery.booked",
    "delivery.delivered",
    "delivery.expected",
    "delivery.projected",
    "delivery.required_rate",
    "delivery.start_ms",
    "delivery.end_ms",
    "delivery.cpm",
    "delivery.currency",
    "flight.cost",
    "flight.impressions",
    "1h.impressions",
    "1h.mature_completion_rate",
    "flight.reach",
    "flight.frequency",
    "flight.conversions",
    "flight.cost_per_acquisition",
    "flight.blocked_impressions",
    "campaign_id",
    "platform",
    "station",
    "podcast",
    "program",
)
"""The fields of a row that the table shows, in the order in which they are sent."""
SCOPES: Final = ("placement", "campaign")
MOST: Final = 10_000
"""Rows of a scope sent to a page: those under-delivering or in blocked content, then the busiest."""
MOST_ALERTS: Final = 10_000
"""Changes of state kept for the histories: as many as the stream keeps."""
ALERTS_SENT: Final = 200
ALERTS_OF_ROW: Final = 30
TICK_S: Final = 1.0
UNSEEN_S: Final = 30.0
"""The greatest age of the curves while nobody looks, in s: Prometheus's reads serve, and cost nothing more.
"""
REST: Final = 9
"""Rest after a tick, in times of the processor time it took: with 10,000 placements it takes 0.25 s."""
_ACCOUNTS: Final = ("received", "accepted", "repeated", "invalid_traffic")

Cells = dict[str, list[str | None]]
"""The values of `FIELDS`, by id."""


class Feed:
    """The feed of the browsers: the whole to a new one, then the changes from tick to tick. While there is
    none, only the curves are kept up.

    Args:
        board: reads at least `FIELDS` of the placements, and of the campaigns where those are to be shown.
        closing: true once the process is to end, whereupon streams end too.
    """

    def __init__(self, board: RowsReader, closing: Callable[[], bool] = lambda: False) -> None:
        self._board = board
        self.closing = closing
        self._lock = threading.Lock()
        self._histories = {scope: History() for scope in SCOPES}
        self._rows: dict[str, Rows] = {scope: {} for scope in SCOPES}
        self._cells: dict[str, Cells] | None = None
        self._status: dict[str, Any] = {}
        self._alerts: deque[dict[str, str]] = deque(maxlen=MOST_ALERTS)
        self._last_alert = ""
        self._latest = (0, b"")
        self._viewers = 0
        self._ticked = asyncio.Event()

    def tick(self, watched: bool = True) -> None:
        """Read Redis and see what changed; blocks for as long as Redis does. Where nobody watches, what was
        read less than `UNSEEN_S` ago serves, and what changed is not put together.
        """
        snapshot = self._board.refresh(0.0 if watched else UNSEEN_S)
        alerts = self._new_alerts() if snapshot.up else []
        rows = {scope: most(snapshot.rows.get(scope, {})) for scope in SCOPES}
        with self._lock:
            before = self._shown() if watched else {}
            self._rows, self._cells, self._status = rows, None, _status(snapshot)
            self._alerts.extend(alerts)
            grown = {
                scope: grown
                for scope, history in self._histories.items()
                if snapshot.up and (grown := history.add(snapshot.read_s, rows[scope])) is not None
            }
            change = self._change(before, grown, alerts) if watched else b""
            self._latest = (self._latest[0] + 1, change)

    def _new_alerts(self) -> list[dict[str, str]]:
        """Changes of state since the last tick; one that was written twice comes once."""
        try:
            found = self._board.alerts_after(self._last_alert)
        except ConnectError:
            return []
        known = {alert["id"] for alert in self._alerts}
        fresh = []
        for entry, told in found:
            self._last_alert = entry
            if "placement" in told and (id := told.setdefault("id", entry)) not in known:
                known.add(id)
                fresh.append(told)
        return fresh

    def _shown(self) -> dict[str, Cells]:
        """The cells of the latest rows, by scope."""
        if self._cells is None:
            self._cells = {
                scope: {name: [*map(row.get, FIELDS)] for name, row in rows.items()}
                for scope, rows in self._rows.items()
            }
        return self._cells

    def _change(
        self, before: Mapping[str, Cells], grown: dict[str, dict[str, int]], alerts: list[dict[str, str]]
    ) -> bytes:
        after = self._shown()
        change: dict[str, Any] = {
            "status": self._status,
            "rows": {
                scope: {
                    name: cells
                    for name, values in rows.items()
                    if (cells := changed(before[scope].get(name), values))
                }
                for scope, rows in after.items()
            },
            "gone": {scope: list(before[scope].keys() - rows.keys()) for scope, rows in after.items()},
            "alerts": alerts,
        }
        return _event("change", change | {"grown": grown} if grown else change)

    def whole(self) -> tuple[int, bytes]:
        """The version that is current, and the event that says all of it."""
        with self._lock:
            everything = {
                "fields": FIELDS,
                "spark": SPARK,
                "status": self._status,
                "rows": self._shown(),
                "grown": {
                    scope: {name: history.spark(name) for name in self._rows[scope]}
                    for scope, history in self._histories.items()
                },
                "alerts": list(self._alerts)[-ALERTS_SENT:],
            }
            return self._latest[0], _event("all", everything)

    def row(self, scope: str, name: str, length: str) -> dict[str, Any] | None:
        """All fields of a row, its curve and its changes of state, the latest first; None when there is no
        such row.

        Args:
            length: of the curve, one of `RANGES_S`.

        Raises:
            ConnectError: Redis cannot be read.
        """
        if scope not in SCOPES:
            return None
        if not (row := self._board.row(scope, name)):
            return None
        by = "placement" if scope == "placement" else "campaign"
        with self._lock:
            alerts = [alert for alert in reversed(self._alerts) if alert.get(by) == name]
            curve = self._histories[scope].curve(name, RANGES_S.get(length, RANGES_S["1h"]))
        return {"id": name, "row": row, "curve": curve, "alerts": alerts[:ALERTS_OF_ROW]}

    def placements(self) -> tuple[Rows, dict[str, Any]]:
        """The placements and the status, read now if the last read is a second old."""
        snapshot = self._board.refresh()
        return most(snapshot.rows.get("placement", {})), _status(snapshot)

    def _timed_tick(self) -> float:
        # Of the processor, not of the clock: a Redis that hangs must not make the page slow to see it return.
        began_s = time.thread_time()
        self.tick(watched=self._viewers > 0)
        return time.thread_time() - began_s

    async def run(self) -> None:
        """Tick until cancelled."""
        ticked_s, rest_s = -math.inf, 0.0
        while True:
            due_s = ticked_s + (max(TICK_S, rest_s) if self._viewers else POINT_S)
            if time.monotonic() >= due_s:
                rest_s = REST * await asyncio.to_thread(self._timed_tick)
                ticked_s = time.monotonic()
                self._ticked.set()
                self._ticked = asyncio.Event()
            await asyncio.sleep(TICK_S / 10)

    async def events(self) -> AsyncIterator[bytes]:
        """The stream of one browser; one that cannot keep up, or came amid a tick that nobody watched, gets
        the whole again instead of a backlog. Nothing is sent before the first tick.
        """
        self._viewers += 1
        try:
            version = -1
            while not self.closing():
                latest, change = self._latest
                if change and version == latest - 1 and version > 0:
                    version = latest
                    yield change
                elif latest and version != latest:
                    version, everything = await asyncio.to_thread(self.whole)
                    yield everything
                else:
                    await _either(self._ticked.wait(), TICK_S)
        finally:
            self._viewers -= 1


async def _either(something: Any, most_s: float) -> None:
    try:
        await asyncio.wait_for(something, most_s)
    except TimeoutError:
        return


def urgency(name: str, row: Mapping[str, str]) -> tuple[bool, float, str]:
    """Sorts what a trader must see first: under-delivering or in blocked content, then the busiest."""
    urgent = row.get("delivery.state") == "under" or number(row.get("flight.blocked_impressions")) > 0
    return not urgent, -number(row.get("flight.impressions", "0")), name


def most(rows: Rows) -> Rows:
    """At most `MOST` rows, the most urgent of them."""
    if len(rows) <= MOST:
        return rows
    return {name: rows[name] for name in sorted(rows, key=lambda name: urgency(name, rows[name]))[:MOST]}


def changed(before: list[str | None] | None, after: list[str | None]) -> dict[int, str | None]:
    """The cells that differ, by place; of a row that is new, all."""
    if before == after:
        return {}
    if before is None:
        return dict(enumerate(after))
    return {place: new for place, (old, new) in enumerate(zip(before, after, strict=True)) if old != new}


def _status(snapshot: Snapshot) -> dict[str, Any]:
    accounts = snapshot.accounts.values()
    total = {name: sum(number(account.get(name, "0")) for account in accounts) for name in _ACCOUNTS}
    meta = snapshot.meta
    return {
        "up": snapshot.up,
        "error": snapshot.error,
        "now_s": time.time(),
        "flushed_s": snapshot.flushed_s,
        "watermark_s": snapshot.watermark_s,
        "judged": meta.get("judged") != "0",
        "unjudged_since_ms": number(meta.get("unjudged_since_ms")),
        "unjudged_reason": meta.get("unjudged_reason"),
        "placements": len(snapshot.rows.get("placement", {})),
        "campaigns": len(snapshot.rows.get("campaign", {})),
        "pending": meta.get("conversions_pending"),
        "rejected": total["received"] - total["accepted"] - total["repeated"],
        **total,
    }


def _event(name: str, data: Mapping[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))
