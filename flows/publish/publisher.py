"""The publisher decides at each cut which rows readers get: whole rows with absolute numbers, never older
than those in Redis. `flows.publish.redis_writer` writes them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from flows.delivery import ALERTED_STATE, DELIVERY_AT, DELIVERY_STATE, Counting, Pacer
from flows.errors import SettingsError
from flows.instruments import instruments
from flows.model.decisions import DecisionRecord
from flows.model.dimensions import OTHER_NAME, SCOPES
from flows.model.events import REASONS
from flows.model.fields import ADDITIVE, DELIVERY, FIELDS, LABELS, added_up
from flows.model.messages import ConversionAccount, Flush, PackedRow
from flows.model.pixel import traffic_reasons
from flows.model.redis_keys import row_key
from flows.model.release import VERSION
from flows.model.ticks import MINUTE_MS, Cut, Methods
from flows.publish import ledger
from flows.publish.covered import SHORTER
from flows.publish.days import TTL, Days
from flows.publish.erased import accounts_of
from flows.publish.judging import OLD_MS, Judging
from flows.publish.layout import LAYOUTS, META_FIELDS, SCHEMA
from flows.publish.lines import LineWriter
from flows.publish.redis_writer import PATIENCE_S, RETRY_S, RedisWriter
from flows.publish.server_clock import ServerClock
from flows.publish.silences import Silences
from flows.settings import Settings, ms

NO_CONVERSIONS: Final = ConversionAccount(0, 0, 0, 0)


class _UnpackedRows(Mapping[tuple[str, str], list[Any]]):
    """Packed rows, unpacked on access. Most rows without a plan are never unpacked."""

    def __init__(self, packed: dict[tuple[str, str], bytes]) -> None:
        self._packed = packed

    def __getitem__(self, key: tuple[str, str]) -> list[Any]:
        values: list[Any] = msgspec.msgpack.decode(self._packed[key])
        return values

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


@dataclass
class Publisher:
    """The publisher of flushes. Flushes are held back until they have passed the last flush of an earlier
    execution.

    Args:
        partitions: the flow's source partitions.
        resumed: whether the flow's state was restored.
        recompute: begin a new generation instead of continuing the one in Redis. It is begun once: a resumed
            flow, or one that starts again before the first snapshot, continues it.
        process: the number of this process in its cluster.
        methodology: returns the hash of the description of methodology, with the methods of a cut.
        listener_key: a fingerprint of the listeners' key; empty if unknown.
        switches: whether the flow may change places with another flow (`flows.publish.switching`).
        clock_s: returns epoch seconds; None takes Redis's clock.
    """

    settings: Settings
    partitions: Sequence[str]
    resumed: bool
    recompute: bool = False
    pacer: Pacer | None = None
    alerts_to: LineWriter | None = None
    clock_s: Callable[[], float] | None = None
    monotonic_s: Callable[[], float] = time.monotonic
    process: int = 0
    methodology: Callable[[Methods], str] = lambda _: ""
    listener_key: str = ""
    switches: bool = False
    _held_flushes: list[tuple[Cut, Flush]] = field(default_factory=list)
    _sketches: dict[str, tuple[int, str]] = field(default_factory=dict)
    _behind: bool = False
    _other_rows: dict[str, dict[int, bytes]] = field(default_factory=dict)
    _outdated: set[str] = field(default_factory=set)
    _beyond: dict[int, int] = field(default_factory=dict)
    _conversions: ConversionAccount = NO_CONVERSIONS
    _known_version: str = ""
    _cleared: bool = False
    _unread: bool | None = None
    _packed_rows: dict[tuple[str, str], bytes] = field(default_factory=dict)
    _watermark_ms: int = 0
    _judging: Judging = field(default_factory=Judging)
    _silences: Silences = field(default_factory=Silences)

    def __post_init__(self) -> None:
        self.writer = RedisWriter(
            self.settings,
            self.partitions,
            self.resumed,
            self.recompute,
            self.process,
            self.alerts_to,
            clock_s=self._now_s,
            monotonic_s=lambda: self.monotonic_s(),
            switches=self.switches,
            on_move=self._move,
        )
        self.backlog = self.writer.backlog
        self._server_s = ServerClock(self.writer.server_ms)
        self._days = Days(self.writer.namespace, traffic_reasons(self.settings.invalid_agents))

    def open(self) -> None:
        """Take over Redis; raises as `RedisWriter.open` does."""
        self.writer.open()
        namespace = self.writer.namespace
        (meta,) = self.writer.read([f"{namespace}:meta"], META_FIELDS) or [{}]
        self._judging.recall(meta)
        self._silences.recall(meta)
        self._look_for_others()

    def _look_for_others(self) -> None:
        keys = [row_key(self.writer.namespace, OTHER_NAME, scope) for scope in SCOPES]
        versions = self.writer.read(keys, ["rev"]) or []
        self._outdated = {scope for scope, other in zip(SCOPES, versions, strict=False) if other}

    def _move(self, namespace: str, rename: Callable[[str], str]) -> None:
        """Continue in another namespace. A flow that begins to serve takes over the states of delivery
        there.
        """
        self._days.move(namespace, rename)
        self._look_for_others()
        if self.pacer is None or not self.writer.serves:
            return
        names = list(self.pacer.book)
        self.pacer.take_over(self._read_rows(SCOPES[0], names, (ALERTED_STATE, DELIVERY_STATE)) or {})

    def flush(self, cut: Cut, flushes: Sequence[Flush]) -> None:
        """Write the flushes of all shards for one cut, if no earlier execution is ahead of it. Otherwise hold
        them, since the backlog is of one cut. Decisions do not wait: each is made once.

        Raises:
            AudiopixelError: another execution took over, or the log ended before what Redis already holds.
        """
        self._hold(cut, flushes)
        metrics = instruments()
        metrics.watermark.set(cut.watermark_ms / 1000)
        metrics.hold_since.clear()
        metrics.cloned.clear()
        if cut.cloned:
            metrics.cloned.labels(cut.cloned).set(1)
        if cut.held_by:
            metrics.hold_since.labels(cut.held_by, cut.held_why).set(cut.held_since_ms / 1000)
        self._behind = self.writer.behind(cut)
        if self._behind:  # an earlier execution has written nearly all decisions
            self.backlog.drop_decisions()
        if not cut.publish:
            if not self._behind:
                self.writer.decide(cut)
            return
        self._gather_held()
        as_of_ms = (flush.rows_as_of_ms for flush in flushes if flush.rows_as_of_ms is not None)
        self.backlog.rows_as_of_ms = min(as_of_ms, default=cut.watermark_ms)
        self._add_up_others(cut, flushes)
        metrics.pending_rows.set(len(self.backlog))
        if self._behind:
            if cut.ended:
                raise SettingsError(SHORTER)
            return
        delivery_known = self.pacer is None or self._look(self.pacer, cut)
        now_ms, is_held = int(self._now_s() * 1000), bool(cut.held_by)
        begun = delivery_known and cut.counted_since_ms > 0
        switching = self.writer.look(now_ms, begun and cut.watermark_ms > 0 and not cut.in_history)
        self._judging.look(
            now_ms, cut.watermark_ms, cut.low_mark_ms, begun, is_held, cut.in_history, switching
        )
        self._look_for_silence(cut, delivery_known, now_ms)
        if self.pacer is not None:
            self._pace(self.pacer, cut, flushes, delivery_known, now_ms)
        self.writer.flush(cut, partial(self._meta, cut))
        self.writer.release_images(self._days.over())

    @property
    def takes(self) -> bool:
        """True if decisions are written at once: Redis answers, and no earlier execution is ahead."""
        return not self._behind and not self.writer.away

    def _hold(self, cut: Cut, flushes: Sequence[Flush]) -> None:
        """Hold the parts of a flush until a cut is written. Sketches are large, so of each placement only the
        newest is held.
        """
        for flush in flushes:
            self.decide(flush.decisions)
            if flush.erased:
                at_ms = int(self._now_s() * 1000)
                self.backlog.erased = accounts_of(cut, flush.erased, at_ms) | self.backlog.erased
            for scope, name in flush.ended:
                if scope == SCOPES[0]:
                    self._sketches.pop(name, None)
            self._sketches |= {name: (cut.number, registers) for name, registers in flush.sketches}
            self._held_flushes.append((cut, flush._replace(decisions=(), sketches=(), erased=())))

    def _gather_held(self) -> None:
        """Queue the held parts."""
        for cut, flush in self._held_flushes:
            self._gather(cut, flush)
        for name, (rev, registers) in self._sketches.items():
            key = row_key(self.writer.namespace, "sketch", name)
            row = self.backlog.images.get(row_key(self.writer.namespace, SCOPES[0], name))
            ttl_ms = ms(self.settings.row_ttl) if row is None else row.ttl_ms
            self.backlog.take(self.writer.plain(key, "sketch", [registers], rev, ttl_ms))
        self._held_flushes, self._sketches = [], {}

    def _gather(self, cut: Cut, flush: Flush) -> None:
        """Queue one sender's part of a flush."""
        rev, namespace, take = cut.number, self.writer.namespace, self.backlog.take
        for scope, name in flush.ended:
            self._end(scope, name, rev)
        self._beyond[flush.shard] = flush.beyond
        for row in flush.rows:
            if row.scope == OTHER_NAME:
                self._other_rows.setdefault(row.name, {})[flush.shard] = row.packed
                continue
            self.backlog.show(self.writer.row(row, rev), cut.ended, row.turned)
            if self.pacer is not None and row.scope in SCOPES[:2]:
                self._packed_rows[row.scope, row.name] = row.packed
                if row.delivered is not None:
                    self.pacer.counted[row.name] = row.delivered
                elif row.scope == SCOPES[0]:  # no plan is in force
                    self.pacer.counted.pop(row.name, None)
        if self.pacer is not None and flush.minutes is not None:
            self.pacer.past.take(flush.minutes)
        for account in flush.accounts:
            key = row_key(namespace, "partition", account.partition)
            take(self.writer.plain(key, "partition", ledger.values_of(account, cut), rev))
            lost = sum(account.counts[f"rejected.{reason}"] for reason in REASONS)
            self._judging.count(account.partition, account.counts["received"], lost)
        self.backlog.arrive(flush.arrivals)
        if flush.silent is not None:
            self._silences.take(flush.silent)
        if flush.conversions is not None:
            self._conversions = flush.conversions
        for keys, values in self._days.rows(flush.days, cut.watermark_ms):
            for version in self.writer.alike(keys, "days", values, rev, ms(TTL)):
                take(version)

    def decide(self, decisions: Sequence[DecisionRecord]) -> None:
        """Queue decisions."""
        self.backlog.decisions += [
            (
                [row_key(self.writer.namespace, "conversion", name) for name in decision.names],
                decision.key,
                decision.body,
            )
            for decision in decisions
        ]

    def finish(self) -> None:
        """Try for the last time to write the backlog; raises as `flush` does."""
        self.writer.finish()

    def _add_up_others(self, cut: Cut, flushes: Sequence[Flush]) -> None:
        """Queue the `other` rows: the sums of all row shards over the names beyond a cap. The `other` rows of
        an earlier execution are queued once, since their names may have rows of their own now.
        """
        counted = {row.name for flush in flushes for row in flush.rows if row.scope == OTHER_NAME}
        for scope in counted | self._outdated:
            parts = self._other_rows.get(scope, {}).values()
            values = [*(added_up(parts) if parts else [0] * len(ADDITIVE)), cut.watermark_ms]
            key = row_key(self.writer.namespace, OTHER_NAME, scope)
            self.backlog.take(self.writer.plain(key, "other", values, cut.number, ms(self.settings.row_ttl)))
        self._outdated = set()

    def _meta(self, cut: Cut, rows_as_of_ms: int) -> list[int | str | None]:
        """The values of `META_FIELDS` without the writer's own, by the watermark that every row has
        at least.
        """
        now_ms, judging = int(self._now_s() * 1000), self._judging
        return [
            SCHEMA,
            cut.watermark_ms,
            now_ms,
            VERSION,
            *self._conversions,
            sum(self._beyond.values()),
            int(judging.reason is None),
            judging.since_ms or None,
            judging.reason,
            cut.held_since_ms or None,
            cut.held_by or None,
            cut.held_why,
            self.methodology(cut.methods),
            ms(self.settings.allowed_lateness),
            rows_as_of_ms if rows_as_of_ms < cut.watermark_ms else None,
            *self._silences.meta(),
            cut.counted_since_ms or None,
            self.listener_key or None,
            None if cut.denied is None else f"{cut.denied:016x}",
        ]

    def _look(self, pacer: Pacer, cut: Cut) -> bool:
        """Read the plans again; returns whether the delivery that readers have of them is known. The end of a
        log waits for this, but not for plans that were never read.
        """
        pacer.refresh(int(self.monotonic_s() * 1000))
        is_known, until_s = self._delivery_is_known(pacer), self.monotonic_s() + PATIENCE_S
        while cut.ended and pacer.source.ready and not is_known and self.monotonic_s() < until_s:
            time.sleep(RETRY_S)
            is_known = self._delivery_is_known(pacer)
        return is_known

    def _look_for_silence(self, cut: Cut, delivery_known: bool, now_ms: int) -> None:
        """Name the silent units by the placements that run now. While the plans are unknown, the names stay
        the same.
        """
        silences, pacer, at_ms = self._silences, self.pacer, max(self._watermark_ms, cut.watermark_ms)
        if not delivery_known or cut.in_history:
            return
        if pacer is None:
            silences.look(lambda _: None)
        else:
            silences.look(lambda name: pacer.runs(name, at_ms), pacer.book.version, at_ms // MINUTE_MS)
        self.writer.alerts += silences.alerts(now_ms)
        metric = instruments().feed_silent_since
        metric.clear()
        for silent in silences.shown:
            kind, _, name = silent.unit.unit.partition(":")
            metric.labels(kind, name).set(silent.unit.since_ms / 1000)

    def _pace(
        self, pacer: Pacer, cut: Cut, flushes: Sequence[Flush], delivery_known: bool, now_ms: int
    ) -> None:
        """Put delivery into the rows of planned placements and their campaigns, which never expire. Readers
        keep their delivery while one of these is unknown: the time, the moment since which pixels are
        counted, or the delivery that readers have. Readers also keep it while time waits for a collector. In
        a log without a message, counting begins now.
        """
        self._watermark_ms = max(self._watermark_ms, cut.watermark_ms)
        at_ms = self._watermark_ms or (now_ms if cut.empty else None)
        since_ms = cut.counted_since_ms or (at_ms if cut.empty else None)
        counted = _UnpackedRows(self._packed_rows)
        changed = [(row.scope, row.name) for flush in flushes for row in flush.rows]
        if at_ms is None or since_ms is None or not delivery_known or cut.held_by:
            paced = pacer.repeat(counted, changed)
        else:  # a log that has ended, and a topic without a pixel, have no watermark to be old
            judged = self._judging.reason is None or cut.ended or cut.empty
            unjudged = self._silences.unjudged
            counting = Counting(since_ms, cut.holes)
            paced = pacer.pace(counted, changed, at_ms, counting, judged, unjudged)
            if now_ms - at_ms < OLD_MS:  # a pacer on time sees each state begin
                pacer.past.clear()
        for scope, name, values in paced.rows:
            latest = self.backlog.images.get(row_key(self.writer.namespace, scope, name))
            packed = PackedRow(scope, name, latest.score if latest else 0, LAYOUTS["row"].pack(values))
            row = self.writer.row(packed, cut.number, lasting=values[DELIVERY_AT] is not None)
            self.backlog.take(row)
            if scope == SCOPES[0]:
                self.backlog.last_as(row, row_key(self.writer.namespace, "sketch", name))
        if paced.alerts:
            method = self.methodology(cut.methods)
            self.writer.alerts += [alert | {"methodology": method} for alert in paced.alerts]

    def _delivery_is_known(self, pacer: Pacer) -> bool:
        """True once the delivery that readers have is known for every current and withdrawn plan."""
        is_known = self._known_version == pacer.book.version or self._read_delivery(pacer)
        return is_known and (self._cleared or self._settle(pacer))

    def _read_delivery(self, pacer: Pacer) -> bool:
        """Read from Redis the delivery that readers have of new plans; returns whether Redis answered."""
        book = pacer.book
        new_names = [name for name in book if name not in pacer.states]
        placements = self._read_rows(SCOPES[0], new_names, (*DELIVERY, LABELS[0], "as_of_ms", "generation"))
        if placements is None:
            return False
        campaign_ids = {book[name].campaign_id or row.get(LABELS[0]) for name, row in placements.items()}
        campaigns = self._read_rows(SCOPES[1], sorted(filter(None, campaign_ids)), ("generation", *FIELDS))
        if campaigns is None:
            return False
        self._take_up(SCOPES[1], campaigns)
        self._recall(pacer, placements, campaigns)
        self._known_version = pacer.book.version
        return True

    def _settle(self, pacer: Pacer) -> bool:
        """Clear the delivery of withdrawn plans once the plans have been read; until then readers keep it.
        Returns False while a withdrawn plan has delivery, or Redis does not answer.
        """
        if pacer.source.ready:
            return self._clear(pacer)
        if self._unread is None:
            self._unread = self._recall_paced(pacer, with_shard_rows=True)
        return self._unread is False

    def _clear(self, pacer: Pacer) -> bool:
        """Clear the delivery of plans and campaigns that were withdrawn since an earlier execution and whose
        row no shard has. Returns whether Redis answered.
        """
        self._cleared = self._recall_paced(pacer, pacer.book) is not None
        return self._cleared

    def _recall_paced(
        self, pacer: Pacer, but: Container[str] = (), with_shard_rows: bool = False
    ) -> bool | None:
        """Load into the pacer the rows with delivery that readers have and no shard has, without the
        placements of `but`. `with_shard_rows` also loads the rows of shards. Returns whether there are any;
        None while Redis does not answer.
        """
        placements, campaigns = (
            self._paced(SCOPES[0], but, with_shard_rows),
            self._paced(SCOPES[1], (), with_shard_rows),
        )
        if placements is None or campaigns is None:
            return None
        self._take_up(SCOPES[0], placements)
        self._take_up(SCOPES[1], campaigns)
        self._recall(pacer, placements, campaigns)
        return bool(placements or campaigns)

    def _paced(
        self, scope: str, but: Container[str], with_shard_rows: bool
    ) -> dict[str, dict[str, str]] | None:
        """The rows of a scope that `_recall_paced` loads."""
        names = self.writer.indexed(scope)
        if names is None:
            return None
        paced_names = [
            name
            for name in names
            if name not in but and (with_shard_rows or (scope, name) not in self._packed_rows)
        ]
        rows = self._read_rows(scope, paced_names, DELIVERY[:1])
        if rows is None:
            return None
        return self._read_rows(scope, [name for name, row in rows.items() if row], ("generation", *FIELDS))

    def _take_up(self, scope: str, rows: Mapping[str, Mapping[str, str]]) -> None:
        """Load the counts of rows that readers still have, though they may have ended."""
        for name, row in rows.items():
            if self._is_own(row):
                values = [None if field_name in DELIVERY else row.get(field_name) for field_name in FIELDS]
                self._packed_rows.setdefault((scope, name), msgspec.msgpack.encode(values))

    def _recall(self, pacer: Pacer, *rows_of_scopes: Mapping[str, Mapping[str, str]]) -> None:
        """Load rows of placements, and of campaigns, into the pacer."""
        for scope, rows in zip(SCOPES, rows_of_scopes, strict=False):
            for name, row in rows.items():
                pacer.recall(scope, name, row, self._is_own(row))

    def _is_own(self, row: Mapping[str, str]) -> bool:
        """True if a row is of this generation."""
        return row.get("generation") == str(self.writer.generation)

    def _read_rows(
        self, scope: str, names: Sequence[str], fields: Sequence[str]
    ) -> dict[str, dict[str, str]] | None:
        rows = self.writer.read([row_key(self.writer.namespace, scope, name) for name in names], fields)
        return None if rows is None else dict(zip(names, rows, strict=True))

    def _end(self, scope: str, name: str, rev: int) -> None:
        """Drop a row that has ended, with its sketch; a paced row stays."""
        image = self.backlog.images.get(row_key(self.writer.namespace, scope, name))
        if image is not None and image.ttl_ms is None:
            return
        ended = self.writer.row(PackedRow(scope, name, image.score if image is not None else 2**53, b""), rev)
        self._packed_rows.pop((scope, name), None)
        leaving = [ended]
        if scope == SCOPES[0]:
            if self.pacer is not None:
                self.pacer.counted.pop(name, None)
            sketch = row_key(self.writer.namespace, "sketch", name)
            leaving.append(replace(ended, key=sketch, layout="sketch", index_key=None))
        self.backlog.end(leaving)

    def _now_s(self) -> float:
        return (self.clock_s or self._server_s)()

    def close(self) -> None:
        """Close Redis."""
        self.writer.close()
