"""The feed of the live page: pushes one reading of Redis to any number of browsers.

Redis is read once a second while a browser watches, else every ten seconds, for the curves.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, tzinfo
from typing import Any, Final

import msgspec

from connectors.stream import ConnectError
from flows.model.catalogue.columns import FIELDS as COLUMN_FIELDS
from flows.model.catalogue.fields import LABELS, SHOWN
from flows.model.delivery_fields import shown_state
from flows.model.freshness import FLUSH_STALE_S
from flows.viewers.access import EVERYTHING, Owners, Sight
from flows.viewers.curves import POINT_S, RANGES_S, SPARK_S, History
from flows.viewers.reader import Rows, RowsReader, Snapshot, Unjudged
from flows.viewers.row_sentence import Tags, sentence_of
from flows.viewers.silence import FEED, SENT, Silence, silence_of
from flows.viewers.words import ATTENTION, number

FIELDS: Final = tuple(dict.fromkeys((*COLUMN_FIELDS, *LABELS)))
"""The fields of a row that the table shows, in the order in which they are sent."""
SCOPES: Final = SHOWN
MAX_ROWS: Final = 10_000
"""The most rows of a scope sent to a page: those under-delivering or in blocked content, then the busiest."""
MAX_ALERTS: Final = 10_000
"""Changes of state that are stored for the histories: as many as the stream holds."""
ALERTS_SENT: Final = 200
"""The most changes of state that a new browser gets."""
ALERTS_OF_ROW: Final = 30
"""The most changes of state in the answer about a row."""
MAX_STREAMS: Final = 200
"""The most streams of one sight: each holds a descriptor, and each new stream gets everything."""
MAX_ALL_STREAMS: Final = 500
"""The most streams of all sights together."""
TICK_S: Final = 1.0
UNSEEN_S: Final = 30.0
"""The greatest age of a reading while no browser watches, in s. The reads for Prometheus suffice, and cost
nothing more.
"""
REST: Final = 9
"""The rest after a tick, as a multiple of the tick's processor time: 0.1 s with 10,000 unchanged placements,
0.3 s if all of them change.
"""
_ACCOUNTS: Final = ("received", "accepted", "repeated", "invalid_traffic")

Cells = dict[str, list[str | None]]
"""The values of `FIELDS`, by id."""
Rank = tuple[bool, float, str]
"""The values of `urgency`."""


class View:
    """The rows of one sight as of the latest tick, and the event with their changes."""

    def __init__(self, sight: Sight) -> None:
        self.sight = sight
        self.viewers = 0
        self.rows: dict[str, Rows] = {scope: {} for scope in SCOPES}
        self.status: dict[str, Any] = {}
        self.latest = (0, b"")
        self.whole: tuple[int, bytes] | None = None
        self._sampled_s = 0.0
        self._read: Mapping[str, Rows] = {}
        self._cells: dict[str, Cells] | None = None
        self._ranks: dict[str, dict[str, Rank]] = {}

    def shown(self) -> dict[str, Cells]:
        """The cells of the latest rows, by scope."""
        if self._cells is None:
            self._cells = {
                scope: {name: [*map(row.get, FIELDS)] for name, row in rows.items()}
                for scope, rows in self.rows.items()
            }
        return self._cells

    def take(self, snapshot: Snapshot, watched: bool) -> dict[str, Cells] | None:
        """Take a reading; returns the earlier cells if a browser watches."""
        before = self.shown() if watched else None
        rows: dict[str, Rows] = {}
        shown: dict[str, Cells] = {}
        for scope, held_rows in self.rows.items():
            read = snapshot.rows.get(scope, {})
            # An unchanged scope or row is the same dict as before, so its cells are reused.
            same = self.sight.everything and read is self._read.get(scope)
            rows[scope] = held_rows if same else self._rows_to_send(scope, read)
            if before is not None:
                cells = before[scope]
                shown[scope] = (
                    cells
                    if same
                    else {
                        name: cells[name] if held_rows.get(name) is row else [*map(row.get, FIELDS)]
                        for name, row in rows[scope].items()
                    }
                )
        self._read, self._cells = snapshot.rows, shown or None
        self.rows, self.status, self._sampled_s = rows, _status(snapshot, self.sight), snapshot.read_s
        return before

    def _rows_to_send(self, scope: str, rows: Rows) -> Rows:
        """`most_urgent` for the rows in sight; an unchanged row keeps its rank."""
        seen_rows, held_rows, known_ranks = (
            self.sight.rows(scope, rows),
            self.rows[scope],
            self._ranks.pop(scope, {}),
        )
        if len(seen_rows) <= MAX_ROWS:
            return seen_rows
        self._ranks[scope] = ranks = {
            name: known_ranks[name]
            if name in known_ranks and held_rows.get(name) is row
            else urgency(name, row)
            for name, row in seen_rows.items()
        }
        return most_urgent(seen_rows, ranks)

    def build_event(
        self,
        before: Mapping[str, Cells] | None,
        grown: dict[str, dict[str, int]],
        alerts: list[dict[str, str]],
    ) -> None:
        """Build the event with the changes since `before`.

        Args:
            before: the earlier cells, by scope; None: the event is empty, and readers get everything.
            grown: the growth of impressions, by scope and id; empty between two samples.
            alerts: the changes of state since the last tick.
        """
        change = b""
        if before is not None:
            after = self.shown()
            event_fields: dict[str, Any] = {
                "status": self.status,
                "rows": {scope: changes(before[scope], cells) for scope, cells in after.items()},
                "gone": {scope: removed(before[scope], cells) for scope, cells in after.items()},
                "alerts": [alert for alert in alerts if self.sight.alert(alert)],
            }
            grown_in_sight = {
                scope: {name: step for name, step in steps.items() if name in self.rows[scope]}
                for scope, steps in grown.items()
            }
            sampled = {"grown": grown_in_sight, "sampled_s": self._sampled_s} if grown else {}
            change = _event("change", event_fields | sampled)
        self.latest, self.whole = (self.latest[0] + 1, change), None


class Feed:
    """The feed of the browsers: a new browser gets everything, then the changes of each tick. Without a
    browser, only the curves are updated.

    Readers of one sight share a view. The view of everything always exists.

    Args:
        reader: reads at least `FIELDS` of placements, and of campaigns, creatives and apps if these are to be
            shown.
        closing: returns true once the process is to end; streams then end, too.
        owners: the owners of the planned placements, by which these are labelled with their campaigns.
        tags: returns the fault of a placement's tag.
    """

    def __init__(
        self,
        reader: RowsReader,
        closing: Callable[[], bool] = lambda: False,
        owners: Owners | None = None,
        tags: Tags = lambda _: None,
    ) -> None:
        self._reader, self.tags = reader, tags
        self.zone: tzinfo = UTC
        self._owners = owners or Owners()
        self.closing = closing
        self._lock = threading.Lock()
        self._histories = {scope: History() for scope in SCOPES}
        self.everything = View(EVERYTHING)
        self._views = {EVERYTHING: self.everything}
        self._alerts: deque[dict[str, str]] = deque(maxlen=MAX_ALERTS)
        self._last_alert = ""
        self._read_s = 0.0
        self._ticked = asyncio.Event()

    def tick(self, watched: bool | None = None) -> None:
        """Read Redis and find the changes; blocks for as long as Redis does. While no browser watches, a
        reading of less than `UNSEEN_S` ago suffices, and no event of changes is built.

        Args:
            watched: true if a browser watches the view of everything; None: by its open streams.
        """
        with self._lock:
            views = list(self._views.values())
        watching = {view: view.viewers > 0 for view in views}
        if watched is not None:
            watching[self.everything] = watched
        snapshot = self._owners.relabelled(self._reader.refresh(0.0 if any(watching.values()) else UNSEEN_S))
        alerts = self._new_alerts() if snapshot.up else []
        with self._lock:
            before = {view: view.take(snapshot, is_watched) for view, is_watched in watching.items()}
            self._alerts.extend(alerts)
            grown = {
                scope: grown
                for scope, history in self._histories.items()
                if snapshot.up
                and (grown := history.add(snapshot.read_s, self.everything.rows[scope])) is not None
            }
            # The clock was set back, and later samples were dropped: everything is sent again.
            set_back, self._read_s = snapshot.read_s < self._read_s, snapshot.read_s
            for view, cells in before.items():
                view.build_event(None if set_back else cells, grown, alerts)

    def _new_alerts(self) -> list[dict[str, str]]:
        """Changes of state since the last tick, each once, even if the flow wrote it twice."""
        try:
            entries = self._reader.alerts_after(self._last_alert)
        except ConnectError:
            return []
        known_ids = {alert["id"] for alert in self._alerts}
        fresh = []
        for entry, alert in entries:
            self._last_alert = entry
            known_form = "placement" in alert or alert.get("kind") == FEED
            if known_form and (alert_id := alert.setdefault("id", entry)) not in known_ids:
                known_ids.add(alert_id)
                fresh.append(alert)
        return fresh

    def whole(self, view: View | None = None) -> tuple[int, bytes]:
        """The current version, and the event with all of a view.

        The event is megabytes, and takes a tenth of a second to encode, so all readers of a version share it.
        """
        view = view or self.everything
        with self._lock:
            if view.whole is not None:
                return view.whole
            alerts = [alert for alert in self._alerts if view.sight.alert(alert)]
            sparks = {scope: history.sparks(view.rows[scope]) for scope, history in self._histories.items()}
            everything = {
                "fields": FIELDS,
                "attention": ATTENTION,
                "labels": LABELS,
                "spark_s": SPARK_S,
                "sampled_s": sparks[SCOPES[0]][0],
                "status": view.status,
                "rows": view.shown(),
                "grown": {scope: steps for scope, (_, steps) in sparks.items()},
                "alerts": alerts[-ALERTS_SENT:],
            }
            view.whole = view.latest[0], _event("all", everything)
            return view.whole

    def row(
        self, scope: str, name: str, length: str, sight: Sight = EVERYTHING, zone: tzinfo = UTC
    ) -> dict[str, Any] | None:
        """All fields of a row, its sentence, its curve and its changes of state, the latest first; None if no
        such row is in sight.

        Args:
            length: the length of the curve, one of `RANGES_S`.
            zone: the reader's zone.

        Raises:
            ConnectError: Redis cannot be read.
        """
        if scope not in SCOPES:
            return None
        row = self._reader.row(scope, name)
        if scope == "placement":
            row = self._owners.labelled({name: row})[name]
        if not row or not sight.row(scope, name, row):
            return None
        with self._lock:
            alerts = [
                alert for alert in reversed(self._alerts) if alert.get(scope) == name and sight.alert(alert)
            ]
            curve = self._histories[scope].curve(name, RANGES_S.get(length, RANGES_S["1h"]))
        sentence = self.sentence(scope, name, row, sight, zone)
        return {
            "id": name,
            "row": row,
            "sentence": sentence,
            "curve": curve,
            "alerts": alerts[:ALERTS_OF_ROW],
        }

    def sentence(
        self, scope: str, name: str, row: Mapping[str, str], sight: Sight, zone: tzinfo
    ) -> str | None:
        """The sentence of a row that was read, in a reader's zone; None for a scope without sentences."""
        around = self._owners.relabelled(self._reader.refresh(UNSEEN_S))
        return sentence_of(self._reader, around, scope, name, row, sight=sight, zone=zone, tags=self.tags)

    def changes(self, name: str, sight: Sight = EVERYTHING) -> list[dict[str, str]]:
        """The changes of a placement's states, and of feeds, in sight, the oldest first."""
        with self._lock:
            alerts = [*self._alerts]
        return [
            alert
            for alert in alerts
            if (alert.get("placement") == name or alert.get("kind") == FEED) and sight.alert(alert)
        ]

    def placements(self, sight: Sight = EVERYTHING) -> tuple[Rows, dict[str, Any], Unjudged | None, Silence]:
        """The placements in sight, the status, the reason why delivery is not judged (None if it is), and the
        silent feeds. Reads Redis first if the last reading is a second old.
        """
        snapshot = self._owners.relabelled(self._reader.refresh())
        rows = most_urgent(sight.rows("placement", snapshot.rows.get("placement", {})))
        unjudged = snapshot.unjudged_at(time.time())
        return rows, _status(snapshot, sight), unjudged, silence_of(snapshot, sight)

    def _timed_tick(self) -> float:
        # Processor time: wall time would include a Redis that hangs, and the page would rest when it is back.
        began_s = time.thread_time()
        self.tick()
        return time.thread_time() - began_s

    async def run(self) -> None:
        """Tick until cancelled."""
        ticked_s, rest_s = -math.inf, 0.0
        while True:
            watched = any(view.viewers for view in self._views.values())
            due_s = ticked_s + (max(TICK_S, rest_s) if watched else POINT_S)
            if time.monotonic() >= due_s:
                rest_s = REST * await asyncio.to_thread(self._timed_tick)
                ticked_s = time.monotonic()
                self._ticked.set()
                self._ticked = asyncio.Event()
            await asyncio.sleep(TICK_S / 10)

    def full(self, sight: Sight) -> bool:
        """True if a sight, or the process, has as many streams as it may."""
        # Without the lock: another thread holds it while it encodes, and this is the event loop.
        view, views = self._views.get(sight), list(self._views.values())
        if view is not None and view.viewers >= MAX_STREAMS:
            return True
        return sum(each.viewers for each in views) >= MAX_ALL_STREAMS

    async def events(self, sight: Sight = EVERYTHING) -> AsyncIterator[bytes]:
        """The stream of one browser. A browser that cannot keep up, or came during an unwatched tick, gets
        everything again instead of a backlog. Nothing is sent before the first tick, or if the sight is
        `full`.
        """
        if self.full(sight):
            return
        view = self._views.setdefault(sight, View(sight))  # in one step, without the lock: see `full`
        view.viewers += 1
        try:
            version = -1
            while not self.closing():
                latest, change = view.latest
                if change and version == latest - 1 and version > 0:
                    version = latest
                    yield change
                elif latest and version != latest:
                    version, everything = await asyncio.to_thread(self.whole, view)
                    yield everything
                else:
                    await _wait_at_most(self._ticked.wait(), TICK_S)
        finally:
            view.viewers -= 1
            if not view.viewers and view is not self.everything:
                self._views.pop(sight, None)


async def _wait_at_most(awaited: Awaitable[Any], most_s: float) -> None:
    try:
        await asyncio.wait_for(awaited, most_s)
    except TimeoutError:
        return


def urgency(name: str, row: Mapping[str, str]) -> Rank:
    """A key that sorts rows as a trader must see them: under-delivering or in blocked content, then the
    busiest.
    """
    urgent = shown_state(row) == "under" or number(row.get("flight.blocked_impressions")) > 0
    return not urgent, -number(row.get("flight.impressions", "0")), name


def most_urgent(rows: Rows, ranks: Mapping[str, Rank] | None = None) -> Rows:
    """At most `MAX_ROWS` rows, the most urgent of them, by `urgency` or by known ranks."""
    if len(rows) <= MAX_ROWS:
        return rows
    ranks = ranks or {name: urgency(name, row) for name, row in rows.items()}
    return {name: rows[name] for name in sorted(ranks, key=ranks.__getitem__)[:MAX_ROWS]}


def changes(before: Cells, after: Cells) -> dict[str, dict[int, str | None]]:
    """The cells that differ, by row and place, without unchanged rows."""
    if after is before:
        return {}
    differ = {
        name: changed(old, cells) for name, cells in after.items() if cells is not (old := before.get(name))
    }
    return {name: cells for name, cells in differ.items() if cells}


def removed(before: Cells, after: Cells) -> list[str]:
    """The ids of the rows that `after` lacks."""
    return [] if after is before else [*(before.keys() - after.keys())]


def changed(before: list[str | None] | None, after: list[str | None]) -> dict[int, str | None]:
    """The cells that differ, by place; all cells of a new row."""
    if before == after:
        return {}
    if before is None:
        return dict(enumerate(after))
    return {place: new for place, (old, new) in enumerate(zip(before, after, strict=True)) if old != new}


def _status(snapshot: Snapshot, sight: Sight = EVERYTHING) -> dict[str, Any]:
    """The status of the reading; totals are for readers who see everything."""
    meta = snapshot.meta
    fields = {
        "up": snapshot.up,
        "error": snapshot.error if sight.everything or snapshot.up else "numbers cannot be read",
        "now_s": time.time(),
        "read_s": snapshot.read_s,
        "flushed_s": snapshot.flushed_s,
        "stale_s": FLUSH_STALE_S,
        "watermark_s": snapshot.watermark_s,
        "judged": snapshot.judged,
        "unjudged_since_ms": number(meta.get("unjudged_since_ms")),
        "unjudged_reason": meta.get("unjudged_reason"),
        "silence": _silence(silence_of(snapshot, sight)),
    }
    fields |= {f"{scope}s": len(sight.rows(scope, snapshot.rows.get(scope, {}))) for scope in SCOPES}
    if not sight.everything:
        return fields | dict.fromkeys((*_ACCOUNTS, "rejected", "pending"))
    accounts = snapshot.accounts.values()
    total = {name: sum(number(account.get(name, "0")) for account in accounts) for name in _ACCOUNTS}
    rejected = total["received"] - total["accepted"] - total["repeated"]
    return fields | {"pending": meta.get("conversions_pending"), "rejected": rejected, **total}


def _silence(silence: Silence) -> dict[str, Any] | None:
    """The silence for the page, as JSON has it; None if no feed is silent."""
    if not silence.units:
        return None
    return {
        "units": [[unit.kind, unit.name, unit.since_ms] for unit in silence.units[:SENT]],
        "count": silence.count,
        "since_ms": min(unit.since_ms for unit in silence.units),
        "placements": silence.placements,
        "money": silence.money,
    }


def _event(name: str, data: Mapping[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))
