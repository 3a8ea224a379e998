"""The writer to Redis, which takes over from earlier executions, and writes each flush until Redis has it.

A flush is written in this order: decisions, the positions that it covers, alerts, the index of the rows, the
rows, `meta`, the message to subscribers. The next execution can therefore read how far it must replay the log
before it may publish numbers, and which rows readers may have.

The messages form a chain: each names the message before it, so a subscriber detects a lost message. A message
whose publication failed may still have arrived. It is published again under its number, with the changes
since. The first message of an execution, and the first after a loss of data, names no earlier message:
subscribers then read all rows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import msgspec
import structlog
from msgspec.structs import replace

from connectors.redis import (
    Client,
    Emptied,
    RedisUnavailable,
    RowStore,
    RowVersion,
    Superseded,
    WriteOutcome,
    connect,
    read_rows,
    scan_index,
    server_clock,
)
from connectors.stream import ConnectError
from flows.errors import AudiopixelError, SettingsError
from flows.instruments import instruments
from flows.model.dimensions import SCOPES
from flows.model.messages import PackedRow
from flows.model.redis_keys import recomputation_namespace, row_key
from flows.model.ticks import Cut
from flows.publish.alert_stream import send_alerts
from flows.publish.backlog import Backlog
from flows.publish.covered import (
    SHORTER,
    number_of,
    positions_key,
    positions_of,
    positions_text,
    refuse_foreign,
)
from flows.publish.decided import put_decisions
from flows.publish.erased import put_accounts
from flows.publish.fence import FenceRecord, following, latest_fence_record, write_fence_record
from flows.publish.housekeeping import trim, warn_of_eviction
from flows.publish.layout import LAYOUTS
from flows.publish.lines import LineWriter
from flows.publish.switching import Standing, note_taken, standing
from flows.settings import Settings, ms

_T = TypeVar("_T")
LONGEST_PAUSE_S: Final = 15.0
RETRY_S: Final = 0.2
"""The longest pause between two attempts at the end of a log, in s."""
PATIENCE_S: Final = 60.0
"""The time for which a finished log waits for Redis before the flow ends, in s."""
STOP_PATIENCE_S: Final = 3.0
"""The time for which a planned stop tries to write the backlog, in s. The next start publishes the rest
again.
"""
TURNED_SHARE: Final = 0.8
"""The share of the time between two flushes that is spent on writing turned rows, if they are many.
"""
TRIM_EVERY_S: Final = 3600.0
"""Seconds between two searches of the indexes for ids whose rows have expired."""
SWITCHING: Final = {"judged": "0", "unjudged_reason": "switching"}
"""Fields of `meta` while the rows that serve are of two generations."""
Meta = Callable[[int], Sequence[int | str | None]]
"""Returns the present values of `META_FIELDS` without the writer's own (`CHAIN`). The argument is the least
watermark of the rows, in epoch ms.
"""


@dataclass
class RedisWriter:
    """The connection of one execution to Redis, with its claim on the rows.

    Args:
        partitions, resumed, recompute, process, switches: see `flows.publish.publisher.Publisher`.
        alerts_to: a further output of alerts of the flow that serves, besides the stream.
        on_move: called with the namespace to which the rows have moved, and a function that renames keys.

    Attributes:
        namespace: of the rows.
        backlog: what `flush` writes.
        alerts: alerts to send with the next flush.
        decided: the number of the last cut whose decisions Redis has.
        rows_as_of_ms: every row that readers have is as of this watermark, or of a later one.
        flush_number: of the next message to subscribers, from 1 on.
        previous: generation, fence and number of the message before it; None makes subscribers read all rows.
        covered: the positions up to which readers have numbers of other executions: no cut before them is
            written; None while a claim has no answer.
    """

    settings: Settings
    partitions: Sequence[str]
    resumed: bool
    recompute: bool
    process: int
    alerts_to: LineWriter | None
    clock_s: Callable[[], float] = time.time
    monotonic_s: Callable[[], float] = time.monotonic
    switches: bool = False
    on_move: Callable[[str, Callable[[str], str]], None] = lambda _namespace, _rename: None
    namespace: str = ""
    backlog: Backlog = field(default_factory=Backlog)
    alerts: list[dict[str, str]] = field(default_factory=list)
    fence: int = 0
    generation: int = 0
    decided: int = -1
    rows_as_of_ms: int = 0
    flush_number: int = 1
    previous: tuple[int, int, int] | None = None
    covered: dict[str, int] | None = field(default_factory=dict)
    _last: tuple[Cut, Meta] | None = None
    _client: Client | None = None
    _store: RowStore | None = None
    _retry_at_s: float = -math.inf
    _pause_s: float = 0.0
    _trim_at_s: float = 0.0
    _left_out: int = 0
    _undecided: bool = False
    _leaving: set[str] = field(default_factory=set)
    _unnamed: dict[str, None] = field(default_factory=dict)
    _taking: int = 0
    _strangers: bool = False
    _left: str = ""

    def __post_init__(self) -> None:
        self._log = structlog.get_logger("publish")
        self._fence_key = f"{self.settings.namespace}:fence"
        self._ttl_ms = ms(self.settings.row_ttl)
        self._be_at(self.settings.rows_at)

    def _be_at(self, namespace: str) -> None:
        self.namespace = namespace
        self._positions_key, self._marker_key = positions_key(namespace), f"{namespace}:marker"
        self._index_keys = {scope: f"{namespace}:index:{scope}" for scope in SCOPES}

    @property
    def serves(self) -> bool:
        """True if readers use this flow's rows. A recomputation's rows are in a namespace of their own."""
        return self.namespace == self.settings.namespace

    def open(self) -> None:
        """Connect, take a fence, and take over from the last writer.

        Raises:
            ConnectError: Redis cannot be reached or refuses.
            SettingsError: it holds the numbers of another log.
            StateError: the recovery directory cannot be used, or is of an older generation.
            AudiopixelError: another execution has started at the same moment.
        """
        settings, url = self.settings, self.settings.redis_url.get_secret_value()
        try:
            self._client = connect(url, timeout=settings.redis_timeout)
            self._store = RowStore(self._client, LAYOUTS)
            (claim,) = read_rows(self._client, [self._positions_key])
            last = latest_fence_record(settings.recovery_dir)
            if self.namespace != (last.namespace or settings.namespace):
                # Rows of another flow were in this namespace: this flow's rows are a generation of their own.
                generation = number_of(claim, "generation")
                last = last._replace(generation=generation + 1, namespace=self.namespace)
            record = following(last, number_of(claim, "generation"), self.resumed, self.recompute, settings)
            if claim.get("generation") == str(record.generation):
                refuse_foreign(positions_of(claim), self.partitions, self.namespace)
            # If the counter alone was lost, its fences would be less than those of the rows.
            above = max(last.fence, number_of(claim, "fence"), self._store.newest_run(self._marker_key))
            record = record._replace(fence=self._store.take_fence(self._fence_key, above))
            write_fence_record(settings.recovery_dir, self.process, record)
            self.fence, self.generation = record.fence, record.generation
            if self.switches and last.namespace:
                self._left = last.left
            claim = self._claim(self._store, self.namespace, self.generation, self.fence)
            self._store.watch(self._marker_key, self.fence)
            warn_of_eviction(self._client)
        except RedisUnavailable as error:
            raise ConnectError(f"Redis does not serve ({error.reason}): {error}") from None
        except Superseded:
            raise AudiopixelError(
                f"another execution on {self.namespace} has started at the same moment: this one "
                "stops; two flows must not share a namespace"
            ) from None
        self.covered = positions_of(claim)
        refuse_foreign(self.covered, self.partitions, self.namespace)
        self._trim_at_s = self.monotonic_s() + TRIM_EVERY_S
        behind = {"behind": positions_text(self.covered)} if self.covered else {}
        namespace = {} if self.serves else {"namespace": self.namespace}
        self._log.info("publishing", fence=self.fence, generation=self.generation, **namespace, **behind)

    def look(self, now_ms: int, ready: bool) -> bool:
        """Follow a requested switch: the second flow takes the serving rows when it is due.

        Args:
            now_ms: Redis's clock.
            ready: whether this flow's numbers may serve.

        Returns:
            True if the rows serve and are about to be another flow's.
        """
        if not self.switches:
            return False
        namespace = self.settings.namespace
        state = self._answer_of(lambda client: standing(client, namespace))
        if state is None:
            return False
        if self.serves:
            if state.taken_generation < self.generation == state.generation:
                self._answer_of(lambda _: self._note_again(state))
            return state.generation == self.generation and state.fresh(now_ms)
        name = self.namespace.removeprefix(recomputation_namespace(namespace, ""))
        generation = state.due(name, now_ms, self._taking) if ready else 0
        if generation:
            try:
                self._take(state, name, generation, now_ms)
            except Superseded:
                self._log.warning("not switched: another flow was faster", generation=generation)
            except RedisUnavailable as error:
                self._away(error)
        return False

    def _take(self, state: Standing, name: str, generation: int, now_ms: int) -> None:
        """Claim the serving rows; raises as `RowStore.claim` does."""
        assert self._client is not None
        namespace = self.settings.namespace
        note_taken(self._client, namespace, name, generation, now_ms)
        self._move(namespace, generation, state.fence)

    def _displaced(self) -> bool:
        """Move to the second namespace if another flow has taken the serving rows; returns whether one
        has.
        """
        assert self._client is not None
        if not (self.switches and self.serves):
            return False
        state = standing(self._client, self.namespace)
        if state.generation <= self.generation or state.beside is None:
            return False
        namespace = recomputation_namespace(self.namespace, state.beside)
        (claim,) = read_rows(self._client, [positions_key(namespace)])
        self._move(namespace, number_of(claim, "generation") + 1, number_of(claim, "fence"))
        return True

    def _move(self, namespace: str, generation: int, above: int) -> None:
        """Claim the rows of another namespace, and queue all rows that readers need there."""
        assert self._client is not None
        directory, old = self.settings.recovery_dir, self.namespace
        store = RowStore(self._client, LAYOUTS)
        self._left = old
        if above == 0 or above != self._taking:  # otherwise the claim was written, and the answer was lost
            self._taking = store.take_fence(self._fence_key, max(self.fence, above))
        fence = self._taking
        write_fence_record(directory, self.process, FenceRecord(fence, generation, True, namespace, old))
        try:
            claim = self._claim(store, namespace, generation, fence)
        except Superseded:
            own = FenceRecord(self.fence, self.generation, True, old)
            write_fence_record(directory, self.process, own)
            raise
        store.watch(f"{namespace}:marker", fence)

        def rename(key: str) -> str:
            return namespace + key.removeprefix(old)

        self._store, self.fence, self.generation, self._taking = store, fence, generation, 0
        self._be_at(namespace)
        self.backlog.move(rename, generation, fence)
        self._leaving = {*map(rename, self._leaving)}
        self.previous, self.flush_number, self.rows_as_of_ms = None, 1, 0
        self.covered, self._strangers = positions_of(claim), True
        self.on_move(namespace, rename)
        self._log.warning("switched", namespace=namespace, generation=generation, fence=fence)

    def _claim(self, store: RowStore, namespace: str, generation: int, fence: int) -> dict[str, str]:
        """Claim the rows of a namespace; raises as `RowStore.claim` does.

        After a switch, this flow overwrites the rows of the other flow in that namespace; some older rows may
        stay.
        """
        assert self._client is not None
        if self._left and namespace == self.namespace:  # this flow has used the namespace before
            self._strangers = True
            self._note_again(standing(self._client, namespace))
        covered_fields = store.claim(positions_key(namespace), generation, fence)
        if self._left and namespace == self.settings.namespace:
            store.put_in_older(f"{namespace}:meta", generation, SWITCHING)
        return covered_fields

    def _note_again(self, state: Standing) -> None:
        """Write the name of the other flow's namespace again if Redis has lost it, and this flow serves after
        a switch.
        """
        assert self._client is not None
        if self._left and self.serves and state.taken_generation < self.generation:
            name = self._left.removeprefix(recomputation_namespace(self.namespace, ""))
            now_ms = int(self.clock_s() * 1000)
            note_taken(self._client, self.namespace, name, self.generation, now_ms)

    def _end_strangers(self, rev: int) -> None:
        """Queue the deletion of the rows in this namespace that another flow wrote and this flow does not
        have.
        """
        assert self._client is not None
        for scope, index_key in self._index_keys.items():
            names = scan_index(self._client, index_key)
            versions = read_rows(
                self._client, [row_key(self.namespace, scope, name) for name in names], ["generation"]
            )
            for name, version in zip(names, versions, strict=True):
                row = self.row(PackedRow(scope, name, 2**53, b""), rev)
                if row.key in self.backlog.images or version.get("generation") == str(self.generation):
                    continue
                self.backlog.leaving[row.key] = row
                if scope == SCOPES[0]:
                    sketch = row_key(self.namespace, "sketch", name)
                    self.backlog.leaving[sketch] = replace(row, key=sketch, layout="sketch", index_key=None)
        self._strangers = False

    def row(self, row: PackedRow, rev: int, *, lasting: bool = False) -> RowVersion:
        """This execution's version of a row; a `lasting` one has no time to live."""
        return RowVersion(
            key=row_key(self.namespace, row.scope, row.name),
            layout="row",
            packed=row.packed,
            generation=self.generation,
            fence=self.fence,
            rev=rev,
            ttl_ms=None if lasting else self._ttl_ms,
            index_key=self._index_keys[row.scope],
            member=row.name,
            score=row.latest_ms,
        )

    def plain(
        self, key: str, layout: str, values: Sequence[int | str | None], rev: int, ttl_ms: int | None = None
    ) -> RowVersion:
        """This execution's version of a hash that is in no index."""
        (row,) = self.alike([key], layout, values, rev, ttl_ms)
        return row

    def alike(
        self,
        keys: Sequence[str],
        layout: str,
        values: Sequence[int | str | None],
        rev: int,
        ttl_ms: int | None = None,
    ) -> list[RowVersion]:
        """This execution's versions of hashes that are in no index and have the same values."""
        packed = LAYOUTS[layout].pack(values)
        return [RowVersion(key, layout, packed, self.generation, self.fence, rev, ttl_ms) for key in keys]

    def read(self, keys: Sequence[str], fields: Sequence[str]) -> list[dict[str, str]] | None:
        """Fields of rows, as readers have them; None while Redis does not answer."""
        return self._answer_of(lambda client: read_rows(client, keys, fields))

    def indexed(self, scope: str) -> list[str] | None:
        """Names of the rows that readers may have; None while Redis does not answer."""
        return self._answer_of(lambda client: scan_index(client, self._index_keys[scope]))

    def server_ms(self) -> int | None:
        """Redis's clock, epoch ms; None while it does not answer."""
        return self._answer_of(lambda client: server_clock(client, self._positions_key, "rev")[0])

    def _answer_of(self, ask: Callable[[Client], _T]) -> _T | None:
        assert self._client is not None
        if self.monotonic_s() < self._retry_at_s:
            return None
        try:
            return ask(self._client)
        except RedisUnavailable as error:  # the caller then writes nothing that needs the answer
            self._away(error)
            return None

    def _away(self, error: RedisUnavailable) -> None:
        instruments().redis_errors.labels(error.reason).inc()
        self._pause_s = min(LONGEST_PAUSE_S, max(0.1, 2 * self._pause_s))
        self._retry_at_s = self.monotonic_s() + self._pause_s
        waits = {"pending": len(self.backlog.pending), "again_in_s": self._pause_s}
        self._log.warning("redis does not take rows", reason=error.reason, **waits)

    def behind(self, cut: Cut) -> bool:
        """True if readers have numbers of another execution that has read further than a cut."""
        return not cut.reaches(self.covered or {})

    def flush(self, cut: Cut, meta: Meta) -> None:
        """Write the due rows, unless Redis does not answer. At the end of the log, repeat until all are
        written.

        Raises:
            AudiopixelError: another execution took over, or Redis does not answer for `PATIENCE_S` at the end
                of the log.
        """
        self._last = cut, meta
        if self._pause_s:  # an outage must not fill the memory
            self._left_out += self.backlog.drop_decisions()
        if self.monotonic_s() >= self._retry_at_s:
            self._try(cut, meta)
        deadline_s = self.monotonic_s() + PATIENCE_S
        while cut.ended and len(self.backlog):
            if self.behind(cut):
                raise SettingsError(SHORTER)
            if self.monotonic_s() > deadline_s:
                raise AudiopixelError(
                    f"Redis took no writes for {PATIENCE_S:.0f} s at the end of the log: "
                    f"{len(self.backlog)} rows are missing"
                )
            time.sleep(min(RETRY_S, self._pause_s))
            self._try(cut, meta)

    def decide(self, cut: Cut) -> None:
        """Write the decisions up to a cut whose rows are not written. After a failure the next flush writes
        them.
        """
        if self.away:
            return
        self._undecided = not self._done(self._write_decisions)
        self._pause_s, self._retry_at_s = 0.0, -math.inf
        if not self._undecided:
            self.backlog.decisions, self.decided = [], cut.number

    @property
    def away(self) -> bool:
        """True if the last write failed, or the positions that Redis covers are unknown."""
        return self._pause_s > 0 or self._undecided or self.covered is None

    def finish(self) -> None:
        """Write the backlog, for `STOP_PATIENCE_S` at most: the flow stops, and does not call `flush` again.

        Raises:
            AudiopixelError: another execution took over.
        """
        deadline_s = self.monotonic_s() + STOP_PATIENCE_S
        while self._last is not None and self.backlog.waits and self.monotonic_s() < deadline_s:
            if self.behind(self._last[0]):
                return
            time.sleep(max(0.0, min(RETRY_S, self._retry_at_s - self.monotonic_s())))
            if self.monotonic_s() >= self._retry_at_s:
                self._try(*self._last)

    def release_images(self, keys: Collection[str]) -> None:
        """Drop the images of hashes that will not change again, once Redis has them."""
        assert self._store is not None
        self._leaving.update(keys)
        gone = {key for key in self._leaving if key not in self.backlog.pending}
        self._leaving -= gone
        for key in gone:
            self.backlog.images.pop(key, None)
        self._store.release(gone)

    def _try(self, cut: Cut, meta: Meta) -> None:
        started_s, metrics = self.monotonic_s(), instruments()
        if not self._done(lambda: self._write_all(cut, meta)):
            return
        if self._pause_s:
            self._log.info("redis takes rows again", decisions_left_out=self._left_out)
        self._left_out, self._pause_s, self._retry_at_s, self.decided = 0, 0.0, -math.inf, cut.number
        self._undecided = False
        now_s, ended_s = self.clock_s(), self.monotonic_s()
        metrics.pending_rows.set(len(self.backlog))
        metrics.last_flush.set(now_s)
        metrics.flush_duration.observe(ended_s - started_s)
        for arrived_ms, pixels in self.backlog.arrivals:
            metrics.event_to_redis.observe(max(0.0, now_s - arrived_ms / 1000), pixels)
        self.backlog.arrivals = []
        if ended_s >= self._trim_at_s:
            self._trim_at_s = ended_s + TRIM_EVERY_S
            assert self._client is not None
            images, before_ms = self.backlog.images.values(), int(now_s * 1000) - self._ttl_ms
            trim(self._client, self.namespace, images, before_ms)
        until_s = started_s + TURNED_SHARE * self.settings.flush_interval.total_seconds()
        self._done(lambda: self._write_turned(cut, until_s))

    def _done(self, write: Callable[[], None]) -> bool:
        """Call `write`. False if Redis does not take it now: the next flush writes the rest. Raises
        AudiopixelError if another execution took over.
        """
        try:
            write()
        except Emptied:  # the next flush finds this again
            self._pause_s = max(0.1, self._pause_s)
            self._retry_at_s = self.monotonic_s() + self._pause_s
            return False
        except RedisUnavailable as error:
            self._away(error)
            return False
        except Superseded as error:
            try:
                if self._displaced():
                    return False
            except RedisUnavailable as unavailable:
                self._away(unavailable)
                return False
            except Superseded:
                pass
            raise AudiopixelError(
                f"another execution took over {self.namespace} (fence {self.fence} is no longer "
                "the newest): this one stops; two flows must not share a namespace"
            ) from error
        return True

    def _write_decisions(self) -> None:
        assert self._client is not None
        if self.covered is None:
            raise Emptied
        own, ttl = (self.generation, self.fence), self.settings.decisions_ttl
        put_decisions(self._client, self._positions_key, *own, self.backlog.decisions, ttl)

    def _write_all(self, cut: Cut, meta: Meta) -> None:
        try:
            self._write(cut, meta)
        except Emptied:
            self._write_again(cut, meta)

    def _write(self, cut: Cut, meta: Meta) -> None:
        assert self._client is not None
        assert self._store is not None
        if self.behind(cut):
            raise Emptied
        namespace, rev, backlog = self.namespace, cut.number, self.backlog
        if self._strangers:
            self._end_strangers(rev)
        self._write_decisions()
        put_accounts(self._client, namespace, backlog.erased)
        if self.alerts:
            self._store.write([], first=self._covers(cut))  # raises after a takeover, before any alert
            # Before the rows that show the new state.
            send_alerts(self._client, namespace, self.alerts, self.alerts_to if self.serves else None)
        landing = backlog.due(cut)
        as_of_ms = (self if backlog.many_turned(cut) else backlog).rows_as_of_ms
        values = [*meta(as_of_ms), self.flush_number, msgspec.json.encode(self.previous).decode()]
        last = [self.plain(f"{namespace}:meta", "meta", values, rev)]
        self._write_rows(cut, landing, last, (f"{namespace}:updates", self._message(cut, landing)))
        self.previous = self.generation, self.fence, self.flush_number
        self.flush_number += 1
        self._unnamed = {}
        leaving = list(backlog.leaving.values())
        self._name_next(leaving)
        self._store.drop(leaving)
        backlog.landed(landing)
        self.rows_as_of_ms = as_of_ms

    def _write_turned(self, cut: Cut, until_s: float) -> None:
        """Write turned rows: one part, and further parts until `until_s`."""
        while part := self.backlog.some_turned():
            self._name_next(part)
            self._write_rows(cut, part)
            self.backlog.landed_some(part)
            if self.monotonic_s() >= until_s:
                break
        if not self.backlog.turned:
            self.rows_as_of_ms = self.backlog.rows_as_of_ms

    def _covers(self, cut: Cut) -> RowVersion:
        """The positions that a cut's rows cover."""
        positions = msgspec.json.encode(dict(cut.positions)).decode()
        covered: list[int | str | None] = [positions, cut.watermark_ms, f"{self.fence}-{cut.number}"]
        return self.plain(self._positions_key, "positions", covered, cut.number)

    def _placements(self, rows: Sequence[RowVersion]) -> dict[str, None]:
        return {row.member: None for row in rows if row.index_key == self._index_keys[SCOPES[0]]}

    def _name_next(self, rows: Sequence[RowVersion]) -> None:
        """Add rows to the placements that the next message names."""
        self._unnamed |= self._placements(rows)

    def _message(self, cut: Cut, rows: Sequence[RowVersion]) -> bytes:
        """The message to subscribers about a flush of `rows`."""
        return msgspec.json.encode(
            {
                "generation": self.generation,
                "fence": self.fence,
                "flush": self.flush_number,
                "previous": self.previous,
                "as_of_ms": cut.watermark_ms,
                "placements": [*(self._unnamed | self._placements(rows))],
            }
        )

    def _write_rows(
        self,
        cut: Cut,
        rows: Sequence[RowVersion],
        last: Sequence[RowVersion] = (),
        message: tuple[str, bytes] | None = None,
    ) -> None:
        assert self._store is not None
        outcomes = self._store.write(rows, first=self._covers(cut), last=last, publish=message)
        if WriteOutcome.SUPERSEDED in outcomes:
            raise Superseded(self._positions_key)
        instruments().flushed_rows.inc(len(rows))

    def _write_again(self, cut: Cut, meta: Meta) -> None:
        """Write all rows again after Redis has lost them. If this fails, the rows stay pending."""
        assert self._store is not None
        self._log.warning("redis lost its data: writing every row again", rows=len(self.backlog.images))
        self.backlog.lost()
        self.previous = None
        self._store.raise_fence(self._fence_key, self.fence)
        self.covered = None
        claim = self._claim(self._store, self.namespace, self.generation, self.fence)
        self.covered = positions_of(claim)
        refuse_foreign(self.covered, self.partitions, self.namespace)
        if self.behind(cut):
            self._log.warning("an older execution has shown more since", behind=positions_text(self.covered))
        self._store.watch(self._marker_key, self.fence)
        self._write(cut, meta)

    def close(self) -> None:
        """Close Redis."""
        if self._client is not None:
            self._client.close()
