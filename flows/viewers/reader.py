"""The reader's side of the Redis contract: one read serves every viewer, and no viewer gets an exception.

Keys and fields: docs/contracts.md. This module imports neither the flow nor its compiler (0.4 s, 90 MB), and
the tests read the flow's output through it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final, NamedTuple

import msgspec

from connectors.redis import Client, entries_after, read_fields, read_rows, scan_index
from connectors.stream import ConnectError
from flows.model.delivery_fields import DELIVERY
from flows.model.freshness import FLUSH_STALE_S
from flows.model.redis_keys import methodology_key, row_key, sources_key
from flows.viewers.silence import of_meta


class Unjudged(NamedTuple):
    """The reason why delivery is not judged, and since when.

    Attributes:
        since_s: epoch s; the flow's last write if `meta` does not say since when.
        reason: the flow's own (`unjudged_reason`), `unjudged` if it gives none, `down` if the flow writes
            nothing, or `redis` if Redis does not answer.
    """

    since_s: float
    reason: str


Rows = Mapping[str, Mapping[str, str]]
"""Fields by id; a null is an absent field."""

MAX_SOURCES: Final = 1_000
"""The most processes of sources that are read."""
DAMAGED: Final = "the content of Redis is damaged"

STATE: Final = "delivery.state"
"""The field that every row with a plan has."""

VERSION: Final = ("generation", "fence", "rev", "updated_ms")
"""Fields that the flow sets whenever it writes a row. They come first in a row, where Redis finds them at
once. The time is one of them since a flow begins at the same three numbers again after Redis was emptied.
"""

_Held = dict[str, tuple[dict[str, str], list[str | None]]]
"""Rows with their values of `VERSION`, by id."""


class _FieldRequest(NamedTuple):
    """The request for the versions of a scope's rows, reused until the rows change.

    Attributes:
        rows: the rows by name, with their version.
        names: the names in the index.
        versioned: the names whose rows have a version.
        keys, versions: the keys and the versions of the rows of `versioned`.
    """

    rows: _Held
    names: list[str]
    versioned: list[str]
    keys: list[str]
    versions: list[list[str | None]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The content of Redis at the last successful read, as text.

    Attributes:
        up: true if the latest read succeeded.
        error: the reason why the latest read failed; empty while `up`.
        read_s: wall clock of the last successful read, epoch s; 0 before the first.
        meta: fields of `meta`; empty while no flow has written.
        rows: the rows by scope.
        accounts: the accounts of the ledger, by source partition.
        beyond_cap: the counts of all names beyond a scope's cap together, by scope.
        sources: the figures of the processes of live sources, by id.
    """

    up: bool = False
    error: str = "not read yet"
    read_s: float = 0.0
    meta: Mapping[str, str] = field(default_factory=dict)
    rows: Mapping[str, Rows] = field(default_factory=dict)
    accounts: Rows = field(default_factory=dict)
    beyond_cap: Rows = field(default_factory=dict)
    sources: Rows = field(default_factory=dict)

    @property
    def flushed_s(self) -> float | None:
        """The time of the flow's last write, epoch s; None before the first."""
        return _seconds(self.meta.get("flushed_ms"))

    def unjudged_at(self, now_s: float) -> Unjudged | None:
        """The reason for which delivery is not judged at a moment; None if it is judged, or no flow has
        written yet.
        """
        flushed_s = self.flushed_s
        if not self.up and self.read_s:
            return Unjudged(self.read_s, "redis")
        if flushed_s is not None and now_s - flushed_s > FLUSH_STALE_S:
            return Unjudged(flushed_s, "down")
        if self.judged:
            return None
        since_s = _seconds(self.meta.get("unjudged_since_ms")) or flushed_s or self.read_s
        return Unjudged(since_s, self.meta.get("unjudged_reason") or "unjudged")

    @property
    def judged(self) -> bool:
        """True if the flow's last write says that delivery is judged, or no flow has written yet. An absent
        `judged` is not known, never judged.
        """
        return not self.meta or self.meta.get("judged") == "1"

    @property
    def watermark_s(self) -> float | None:
        """Event time that the flow has reached, epoch s; None while unknown."""
        return _seconds(self.meta.get("watermark_ms"))


def _seconds(text: str | None) -> float | None:
    # The flow writes 0 for an unknown time, which would show as a lag of half a century.
    number = int(text or 0)
    return number / 1000 if number > 0 else None


class RowsReader:
    """Reads the rows of a namespace, at most once an interval for any number of viewers in any threads.

    Args:
        client: the client of `connectors.redis.connect`.
        namespace: the prefix of the keys.
        fields: the fields to read of a row.
        scopes: the scopes whose rows to read.
        interval: the time for which a read serves.
        clock_s: wall clock, epoch s.
    """

    def __init__(
        self,
        client: Client,
        namespace: str,
        fields: Sequence[str],
        *,
        scopes: Sequence[str] = ("placement",),
        interval: timedelta = timedelta(seconds=1),
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._fields = tuple(fields)
        plain = tuple(field for field in fields if field == STATE or field not in DELIVERY)
        self._unplanned = plain if STATE in fields else self._fields
        self._scopes = tuple(scopes)
        self._interval_s = interval.total_seconds()
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._tried_s = float("-inf")
        self._snapshot = Snapshot()
        self._held: Mapping[str, _Held] = {}
        self._requests: dict[str, _FieldRequest] = {}

    def refresh(self, age_s: float = 0.0) -> Snapshot:
        """The snapshot, read again if the last attempt is an interval ago and more than `age_s`. Raises
        nothing, whatever Redis does.
        """
        with self._lock:
            if time.monotonic() - self._tried_s >= max(age_s, self._interval_s):
                # Set before a read: set after it, every second tick of a viewer's timer of the same interval
                # would come too early.
                self._tried_s = time.monotonic()
                try:
                    self._snapshot, self._held = self._read()
                    return self._snapshot
                except ConnectError as error:
                    self._snapshot = replace(self._snapshot, up=False, error=str(error))
                except (msgspec.MsgspecError, ValueError, ArithmeticError) as error:
                    self._snapshot = replace(self._snapshot, up=False, error=f"{DAMAGED}: {error}")
                # Set after a failed read: a timeout must not be followed by another at once.
                self._tried_s = time.monotonic()
            return self._snapshot

    def row(self, scope: str, name: str) -> Mapping[str, str]:
        """A row with all its fields, read now; empty without a row of the generation of `meta`.

        Raises:
            ConnectError: Redis cannot be read.
        """
        return self._hashes(scope, [name]).get(name, {})

    def rows(self, scope: str, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """Rows with all their fields, read now, without those that are missing or of another generation than
        `meta`.

        Raises:
            ConnectError: Redis cannot be read.
        """
        return self._hashes(scope, names)

    def methodology(self, hash_text: str = "") -> str | None:
        """The description of methodology of a hash, by default that of the flow's numbers, as JSON; None if
        Redis has none.

        Raises:
            ConnectError: Redis cannot be read.
        """
        wanted = hash_text or self.refresh().meta.get("methodology", "")
        (row,) = read_rows(self._client, [methodology_key(self._namespace, wanted)], ["text"])
        return row.get("text")

    def alerts_after(self, last: str) -> list[tuple[str, dict[str, str]]]:
        """Ids and fields of the alerts after the id `last`, the oldest first; all of them if it is empty.

        Raises:
            ConnectError: Redis cannot be read.
        """
        return entries_after(self._client, f"{self._namespace}:alerts", last)

    def _read(self) -> tuple[Snapshot, Mapping[str, _Held]]:
        # `meta` first: the flow writes it last, so the rows are never older than `meta`.
        keys = [f"{self._namespace}:meta", f"{self._namespace}:positions", sources_key(self._namespace)]
        meta, positions, sources = read_rows(self._client, keys)
        partitions = list(msgspec.json.decode(positions.get("positions", "{}"), type=dict[str, int]))
        generation = meta.get("generation")
        held_rows = {scope: self._serving(generation, scope, self._rows(scope)) for scope in self._scopes}
        shown = {
            # The same object where nothing has changed: viewers then skip the scope.
            scope: self._snapshot.rows[scope]
            if rows is self._held.get(scope)
            else {name: row for name, (row, _) in rows.items()}
            for scope, rows in held_rows.items()
        }
        snapshot = Snapshot(
            up=True,
            error="",
            read_s=self._clock_s(),
            meta=meta,
            rows=shown,
            accounts=self._hashes("partition", partitions),
            beyond_cap=self._hashes("other", self._scopes),
            sources=self._hashes("source", sorted(sources)[:MAX_SOURCES]),
        )
        # Converted here, where an invalid number can still be refused.
        _ = snapshot.unjudged_at(0.0), snapshot.watermark_s, of_meta(meta.get("silent") or "{}")
        return snapshot, held_rows

    def _serving(self, generation: str | None, scope: str, rows: _Held) -> _Held:
        """The rows of the generation of `meta`. While another flow takes over, a row stays as it was read
        before.
        """
        before = self._held.get(scope, {})
        if rows is before and generation == self._snapshot.meta.get("generation"):
            return before
        current = {name: row for name, row in rows.items() if row[1][0] in (generation, None)}
        for name in rows.keys() - current.keys() if generation else ():
            if name in before and before[name][1][0] == generation:
                current[name] = before[name]
        return current if generation else rows

    def _rows(self, scope: str) -> _Held:
        """The rows of a scope; the dict of the last reading if no row has changed, begun or ended."""
        names = scan_index(self._client, f"{self._namespace}:index:{scope}")
        held_rows = self._held.get(scope, {})
        request = self._requests.get(scope)
        if request is None or request.rows is not held_rows or request.names != names:
            # Only other programs' rows have no version: they are read each time.
            versioned_names = [name for name in names if name in held_rows and None not in held_rows[name][1]]
            keys, versions = (
                [self._key(scope, name) for name in versioned_names],
                [held_rows[name][1] for name in versioned_names],
            )
            request = self._requests[scope] = _FieldRequest(held_rows, names, versioned_names, keys, versions)
        now = [*read_fields(self._client, request.keys, VERSION)]
        if len(request.versioned) == len(names) == len(held_rows) and now == request.versions:
            return held_rows
        pairs = zip(request.versioned, now, request.versions, strict=True)
        same = {name: held_rows[name] for name, version, before in pairs if version == before}
        changed_names = [name for name in names if name not in same]
        # Redis looks through a whole row for an absent field. A row without a plan is therefore read without
        # the plan's fields, and read again once it has a plan. At the first read any row may have a plan.
        planned = {
            name
            for name in changed_names
            if not held_rows or (name in held_rows and STATE in held_rows[name][0])
        }
        unplanned = [name for name in changed_names if name not in planned]
        fresh = self._versioned(scope, unplanned, self._unplanned)
        planned |= {name for name, (row, _) in fresh.items() if STATE in row}
        return same | fresh | self._versioned(scope, [*planned], self._fields)

    def _versioned(self, scope: str, names: Sequence[str], fields: Sequence[str]) -> _Held:
        """Rows with their version, which may be younger than a version that was read before."""
        rows: _Held = {}
        keys, begin = [self._key(scope, name) for name in names], len(VERSION)
        for name, values in zip(names, read_fields(self._client, keys, (*VERSION, *fields)), strict=True):
            pairs = zip(fields, values[begin:], strict=True)
            if row := {field: value for field, value in pairs if value is not None}:
                rows[name] = row, values[:begin]
        return rows

    def _hashes(self, scope: str, names: Sequence[str]) -> dict[str, dict[str, str]]:
        *rows, meta = read_rows(
            self._client, [*(self._key(scope, name) for name in names), f"{self._namespace}:meta"]
        )
        generation = meta.get("generation")
        # An index outlives its rows, and a switch leaves rows of the generation before.
        return {
            name: row
            for name, row in zip(names, rows, strict=True)
            if row and (generation is None or row.get("generation", generation) == generation)
        }

    def _key(self, scope: str, name: str) -> str:
        return row_key(self._namespace, scope, name)

    def close(self) -> None:
        """Close Redis."""
        self._client.close()
