"""The live page of the exporter: placements as a trading desk sees them, pushed to any number of browsers.

`/` is the page, `/events` its server-sent events, `/placement?id=…` one placement whole (in the query: an id
may be `..`, which no browser leaves in a path). Redis is read once a second while somebody looks, else every
ten seconds, for the curves. Everything that the page shows is text to it, never markup.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from array import array
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.resources import files
from itertools import pairwise
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from connectors.stream import ConnectError
from flows.viewers.reader import Rows, RowsReader, Snapshot

FIELDS: Final = (
    "delivery.state",
    "delivery.indicator",
    "delivery.booked",
    "delivery.delivered",
    "delivery.expected",
    "delivery.projected",
    "delivery.required_rate",
    "delivery.target_completion_rate",
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

MOST: Final = 10_000
"""Placements sent to a page: those under-delivering, then the busiest."""

POINTS: Final = 360
"""Points of a placement's curves: the last hour, about 4 KB a placement."""

SPARK: Final = 60
"""Points of a sparkline: ten minutes."""

TICK_S: Final = 1.0
POINT_S: Final = 10.0
UNSEEN_S: Final = 30.0
"""The greatest age of the curves while nobody looks, in s: Prometheus's reads serve, and cost nothing more.
"""
REST: Final = 9
"""Rest after a tick, in times of the processor time it took: with 10,000 placements it takes 0.25 s."""

_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
_FILES: Final = ("page.js", "page.css", "icon.svg", "vendor/uPlot.iife.min.js", "vendor/uPlot.min.css")
_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_ACCOUNTS: Final = ("received", "accepted", "repeated", "invalid_traffic")


class History:
    """Impressions and expected impressions of each placement, over the last `POINTS` samples.

    A placement that is missing from a sample begins anew, so that every curve ends at the latest sample.
    """

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=POINTS)
        self._curves: dict[str, tuple[array[float], array[float]]] = {}

    def add(self, at_s: float, rows: Rows) -> dict[str, int]:
        """Take a sample at wall clock `at_s`; what the impressions of each have grown by, where they have."""
        self._times.append(at_s)
        curves = {name: self._curves.get(name) or (array("d"), array("f")) for name in rows}
        grown = {}
        for name, (delivered, expected) in curves.items():
            row = rows[name]
            delivered.append(_number(row.get("delivery.delivered", row.get("flight.impressions", "0"))))
            expected.append(_number(rows[name].get("delivery.expected")))
            del delivered[:-POINTS], expected[:-POINTS]
            if steps := _steps(delivered[-2:]):
                grown[name] = steps[0]
        self._curves = curves
        return {name: step for name, step in grown.items() if step}

    def curve(self, name: str) -> dict[str, list[float]]:
        """`at_s`, `impressions` and `expected` (NaN where there is none) of a placement, the oldest first."""
        delivered, expected = self._curves.get(name) or (array("d"), array("f"))
        at_s = list(self._times)[len(self._times) - len(delivered) :]
        return {"at_s": at_s, "impressions": list(delivered), "expected": list(expected)}

    def spark(self, name: str) -> list[int]:
        """The growth of a placement's impressions, sample by sample, `SPARK` of them at most."""
        curve = self._curves.get(name)
        return _steps(curve[0][-SPARK - 1 :]) if curve else []


def _steps(counts: array[float]) -> list[int]:
    # A count falls only when a log is recomputed from scratch: not a rate to draw.
    return [int(after - before) if after > before else 0 for before, after in pairwise(counts)]


def _number(text: str | None) -> float:
    try:
        return math.nan if text is None else float(text)
    except ValueError:
        return math.nan


class Feed:
    """The feed of the browsers: the whole to a new one, then the changes from tick to tick. While there is
    none, only the curves are kept up.

    Args:
        board: reads at least `FIELDS` of the placements.
        closing: true once the process is to end, whereupon streams end too.
    """

    def __init__(self, board: RowsReader, closing: Callable[[], bool] = lambda: False) -> None:
        self._board = board
        self.closing = closing
        self._lock = threading.Lock()
        self._history = History()
        self._sampled_s = -math.inf
        self._rows: Rows = {}
        self._cells: dict[str, list[str | None]] | None = None
        self._status: dict[str, Any] = {}
        self._latest = (0, b"")
        self._viewers = 0
        self._ticked = asyncio.Event()

    def tick(self, watched: bool = True) -> None:
        """Read Redis and see what changed; blocks for as long as Redis does. Where nobody watches, what was
        read less than `UNSEEN_S` ago serves, and what changed is not put together.
        """
        snapshot = self._board.refresh(0.0 if watched else UNSEEN_S)
        rows = _most(snapshot.rows.get("placement", {}))
        with self._lock:
            before = self._shown() if watched else {}
            self._rows, self._cells, self._status = rows, None, _status(snapshot)
            grown = None
            if snapshot.up and snapshot.read_s - self._sampled_s >= POINT_S:
                self._sampled_s = snapshot.read_s
                grown = self._history.add(snapshot.read_s, rows)
            change = self._change(before, grown) if watched else b""
            self._latest = (self._latest[0] + 1, change)

    def _shown(self) -> dict[str, list[str | None]]:
        """The cells of the latest rows."""
        if self._cells is None:
            self._cells = {name: [*map(row.get, FIELDS)] for name, row in self._rows.items()}
        return self._cells

    def _change(self, before: Mapping[str, list[str | None]], grown: dict[str, int] | None) -> bytes:
        after = self._shown()
        change: dict[str, Any] = {
            "status": self._status,
            "rows": {
                name: cells for name, values in after.items() if (cells := _changed(before.get(name), values))
            },
            "gone": list(before.keys() - after.keys()),
        }
        return _event("change", change if grown is None else change | {"grown": grown})

    def whole(self) -> tuple[int, bytes]:
        """The version that is current, and the event that says all of it."""
        with self._lock:
            everything = {
                "fields": FIELDS,
                "spark": SPARK,
                "status": self._status,
                "rows": self._shown(),
                "grown": {name: self._history.spark(name) for name in self._rows},
            }
            return self._latest[0], _event("all", everything)

    def placement(self, name: str) -> dict[str, Any] | None:
        """All fields of a placement and its curves; None when there is no such row.

        Raises:
            ConnectError: Redis cannot be read.
        """
        row = self._board.row("placement", name)
        with self._lock:
            return {"id": name, "row": row, "curve": self._history.curve(name)} if row else None

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
        the whole again instead of a backlog.
        """
        self._viewers += 1
        try:
            version = -1
            while not self.closing():
                latest, change = self._latest
                if change and version == latest - 1 and version > 0:
                    version = latest
                    yield change
                elif version != latest:
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


def _most(rows: Rows) -> Rows:
    if len(rows) <= MOST:
        return rows
    worst = sorted(
        rows,
        key=lambda name: (
            rows[name].get("delivery.state") != "under",
            -_number(rows[name].get("flight.impressions", "0")),
            name,
        ),
    )
    return {name: rows[name] for name in worst[:MOST]}


def _changed(before: list[str | None] | None, after: list[str | None]) -> dict[int, str | None]:
    if before == after:
        return {}
    if before is None:
        return dict(enumerate(after))
    return {place: new for place, (old, new) in enumerate(zip(before, after, strict=True)) if old != new}


def _status(snapshot: Snapshot) -> dict[str, Any]:
    accounts = snapshot.accounts.values()
    total = {name: sum(_number(account.get(name, "0")) for account in accounts) for name in _ACCOUNTS}
    return {
        "up": snapshot.up,
        "error": snapshot.error,
        "now_s": time.time(),
        "flushed_s": snapshot.flushed_s,
        "watermark_s": snapshot.watermark_s,
        "placements": len(snapshot.rows.get("placement", {})),
        "pending": snapshot.meta.get("conversions_pending"),
        "rejected": total["received"] - total["accepted"] - total["repeated"],
        **total,
    }


def _event(name: str, data: Mapping[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))


def _file(name: str) -> Response:
    content = files("flows.viewers").joinpath("static", *name.split("/")).read_bytes()
    return Response(content, headers={**_HEADERS, "content-type": _TYPES[name.rpartition(".")[2]]})


def routes(feed: Feed) -> list[Route]:
    """The page, its files, its events and its placements; the files are read once, here."""
    page, parts = _file("index.html"), {name: _file(name) for name in _FILES}

    async def events(_: Request) -> Response:
        headers = {**_HEADERS, "content-type": "text/event-stream", "cache-control": "no-store"}
        return StreamingResponse(feed.events(), headers=headers)

    def placement(request: Request) -> Response:
        try:
            found, status = feed.placement(request.query_params.get("id", "")), 200
        except ConnectError as error:
            found, status = {"error": str(error)}, 503
        if found is None:
            found, status = {"error": "no such placement"}, 404
        headers = {**_HEADERS, "content-type": "application/json"}
        return Response(msgspec.json.encode(found), status, headers)

    return [
        Route("/", lambda _: page),
        *(Route(f"/page/{name}", lambda _, part=part: part) for name, part in parts.items()),
        Route("/events", events),
        Route("/placement", placement),
    ]


@asynccontextmanager
async def ticking(app: Starlette) -> AsyncIterator[None]:
    """An application's lifespan, in which the feed at `app.state.feed` ticks."""
    task = asyncio.create_task(app.state.feed.run())
    try:
        yield
    finally:
        task.cancel()
