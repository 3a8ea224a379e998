"""The publisher: once a tick it writes the changed rows to Redis, absolute, whole, and never older than
Redis's.

A flush is written in this order: the positions that it covers, the rows, the ledger and the index, `meta`,
the message to subscribers. So whoever takes over knows how far the log must have been replayed before its
numbers may be shown.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import islice, zip_longest
from typing import Any, Final

import msgspec
import structlog

from connectors.redis import (
    Client,
    Emptied,
    RedisUnavailable,
    RowStore,
    RowVersion,
    Superseded,
    WriteOutcome,
    append,
    connect,
    eviction_policies,
    put_fields,
    read_rows,
    trim_index,
)
from connectors.stream import ConnectError
from flows.delivery import DELIVERY_AT, Pacer
from flows.errors import AudiopixelError, SettingsError, StateError
from flows.instruments import instruments
from flows.model.dimensions import OTHER_NAME, SCOPES
from flows.model.events import REASONS
from flows.model.fields import DELIVERY, added_up, same_numbers
from flows.model.messages import ConversionAccount, Flush, PackedRow, PartitionAccount
from flows.model.redis_keys import row_key
from flows.model.ticks import Cut
from flows.publish import ledger
from flows.publish.covered import positions_key, positions_of
from flows.publish.fence import Kept, keep, kept
from flows.publish.judging import Judging
from flows.publish.layout import LAYOUTS, SCHEMA
from flows.publish.lines import LineWriter
from flows.settings import Settings, ms

LONGEST_PAUSE_S: Final = 15.0
PATIENCE_S: Final = 60.0
"""The time for which a finished log waits for Redis before the flow ends, in s."""
TRIM_EVERY_S: Final = 3600.0
"""Between two looks for ids in the indexes whose rows have expired."""


NEW_ROWS_A_FLUSH: Final = 4_000
"""So many rows that readers do not know yet are written with one flush, so that a flood of new names delays
nobody else's numbers; the rest wait for the next ones, and nothing of them is lost.
"""


ALERTS_KEPT: Final = 10_000
MOST_ARRIVALS: Final = 4096
"""Kept while Redis is away, of which a partition brings some ten a second."""
MOST_DECISIONS: Final = 100_000
"""Kept for Redis while it is away, by the ids that they are asked for by; older ones are in the topic alone.
"""
ANEW: Final = "say --recompute, with an empty recovery directory, to begin a new generation"
NO_CONVERSIONS: Final = ConversionAccount(0, 0, 0, 0)


class _Decoded(Mapping[tuple[str, str], list[Any]]):
    """Packed rows, unpacked when asked for."""

    def __init__(self, packed: dict[tuple[str, str], bytes]) -> None:
        self._packed = packed

    def __getitem__(self, key: tuple[str, str]) -> list[Any]:
        values: list[Any] = msgspec.msgpack.decode(self._packed[key])
        return values

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


def bounded(arrivals: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """Arrivals as (time, pixels), neighbours merged at their mean time where they are too many: how long all
    of the pixels took stays what it was.
    """
    while len(arrivals) > MOST_ARRIVALS:
        arrivals.sort()
        pairs = zip_longest(arrivals[::2], arrivals[1::2], fillvalue=(0.0, 0))
        arrivals = [((one * n + other * m) / (n + m), n + m) for (one, n), (other, m) in pairs]
    return arrivals


def refuse_foreign(held: Collection[str], partitions: Collection[str], namespace: str) -> None:
    """Refuse a Redis that holds numbers of a partition that is not among the flow's.

    Raises:
        SettingsError: they are not.
    """
    foreign = sorted(set(held) - set(partitions))
    if foreign:
        raise SettingsError(
            f"Redis ({namespace}) holds numbers of {', '.join(foreign[:3])}, which this flow does not read: "
            f"give it a Redis or a namespace of its own, or {ANEW}"
        )


@dataclass
class Publisher:
    """The writer of flushes; it holds back those that are behind the last flush of an earlier execution.

    Args:
        partitions: the flow's source partitions.
        resumed: whether the flow's state was restored.
        recompute: begin a new generation instead of following the one in Redis, once: who resumes, or starts
            again before the first snapshot, follows what was begun.
        process: this one's number in a cluster.
        pace_s: least time between two flushes before the log ends.
    """

    settings: Settings
    partitions: Sequence[str]
    resumed: bool
    recompute: bool = False
    pacer: Pacer | None = None
    alerts_to: LineWriter | None = None
    clock_s: Callable[[], float] = time.time
    monotonic_s: Callable[[], float] = time.monotonic
    pace_s: float = 0.0
    _flush_at_s: float = -math.inf
    process: int = 0
    _client: Client | None = None
    _store: RowStore | None = None
    _covered: dict[str, int] = field(default_factory=dict)
    _images: dict[str, RowVersion] = field(default_factory=dict)
    _pending: dict[str, RowVersion] = field(default_factory=dict)
    _waiting: dict[str, RowVersion] = field(default_factory=dict)
    _leaving: dict[str, RowVersion] = field(default_factory=dict)
    _others: dict[str, dict[int, bytes]] = field(default_factory=dict)
    _beyond: dict[int, int] = field(default_factory=dict)
    _written: bool = False
    _arrivals: list[tuple[float, int]] = field(default_factory=list)
    _conversions: ConversionAccount = NO_CONVERSIONS
    _decisions: dict[tuple[str, str], str] = field(default_factory=dict)
    _undecided: int = 0
    _retry_at_s: float = -math.inf
    _pause_s: float = 0.0
    _known: str = ""
    _trim_at_s: float = 0.0
    _values: dict[tuple[str, str], bytes] = field(default_factory=dict)
    _watermark_ms: int = 0
    _alerts: list[dict[str, str]] = field(default_factory=list)
    _judging: Judging = field(default_factory=Judging)

    def __post_init__(self) -> None:
        self._log = structlog.get_logger("publish")
        namespace = self.settings.namespace
        self._positions_key, self._fence_key = positions_key(namespace), f"{namespace}:fence"
        self._meta_key, self._marker_key = f"{namespace}:meta", f"{namespace}:marker"

    def open(self) -> None:
        """Connect, take a fence, and take over from whoever wrote before.

        Raises:
            ConnectError: Redis cannot be reached or refuses.
            SettingsError: it holds the numbers of another log.
            StateError: the recovery directory cannot be used, or is of an older generation.
            AudiopixelError: another execution has started at the same moment.
        """
        url, timeout = self.settings.redis_url.get_secret_value(), self.settings.redis_timeout
        try:
            self._client = connect(url, timeout=timeout)
            self._store = RowStore(self._client, LAYOUTS)
            held, meta = read_rows(self._client, [self._positions_key, self._meta_key])
            self._judging.recall(meta)
            last = kept(self.settings.recovery_dir)
            taken = self._taken(last, int(held.get("generation", 0)))
            if held.get("generation") == str(taken.generation):
                refuse_foreign(positions_of(held), self.partitions, self.settings.namespace)
            # A counter that was lost alone would give fences behind those of the rows.
            above = max(last.fence, int(held.get("fence", 0)), self._store.newest_run(self._marker_key))
            taken = taken._replace(fence=self._store.take_fence(self._fence_key, above))
            keep(self.settings.recovery_dir, self.process, taken)
            self._fence, self._generation, _ = taken
            held = self._store.claim(self._positions_key, self._generation, self._fence)
            self._store.watch(self._marker_key, self._fence)
            self._warn_of_eviction(self._client)
        except RedisUnavailable as error:
            raise ConnectError(f"Redis does not serve ({error.reason}): {error}") from None
        except Superseded:
            raise AudiopixelError(
                f"another execution on {self.settings.namespace} has started at the same moment: this one "
                "stops; two flows must not share a namespace"
            ) from None
        self._covered = positions_of(held)
        refuse_foreign(self._covered, self.partitions, self.settings.namespace)
        self._trim_at_s = self.monotonic_s() + TRIM_EVERY_S
        self._flush_at_s = self.monotonic_s() + self.pace_s
        told = {"behind": " ".join(f"{of}:{at}" for of, at in self._covered.items())} if self._covered else {}
        self._log.info("publishing", fence=self._fence, generation=self._generation, **told)

    def _warn_of_eviction(self, client: Client) -> None:
        for policy in sorted(eviction_policies(client)):
            if policy.startswith("allkeys-"):
                self._log.warning(
                    "redis may drop rows that readers need, and nobody notices: set its maxmemory-policy to "
                    "noeviction or volatile-ttl",
                    maxmemory_policy=policy,
                )

    def _taken(self, last: Kept, there: int) -> Kept:
        """The generation that this execution writes, where Redis has generation `there` (0: none).

        Raises:
            StateError: the state that it resumes is of an older one.
        """
        newest = max(there, last.generation)
        if self.recompute and not self.resumed and not last.begun:
            return Kept(0, newest + 1, begun=True)
        if self.recompute:
            self._log.info("--recompute has begun here: its generation goes on", generation=newest)
        if self.resumed and 0 < last.generation < there:
            raise StateError(
                f"Redis ({self.settings.namespace}) holds generation {there}, and the recovery directory "
                f"{self.settings.recovery_dir} is of generation {last.generation}: give the one that the "
                "newer was begun with, or --recompute with an empty one"
            )
        return Kept(0, max(newest, 1), begun=last.begun and last.generation == newest)

    def flush(self, cut: Cut, flushes: Sequence[Flush]) -> None:
        """Write all that the shards have for one cut.

        Raises:
            AudiopixelError: another execution took over, or the log ended before what Redis already holds.
        """
        rev = cut.number
        for flush in flushes:
            for scope, name in flush.ended:
                self._end(scope, name, rev)
            self._beyond[flush.shard] = flush.beyond
            for row in flush.rows:
                if row.scope == OTHER_NAME:
                    self._others.setdefault(row.name, {})[flush.shard] = row.packed
                    continue
                self._show(self._row(row, rev), cut.ended)
                if self.pacer is not None and row.scope in SCOPES[:2]:
                    self._values[row.scope, row.name] = row.packed
                    if row.delivered is not None:
                        self.pacer.counted[row.name] = row.delivered
            for account in flush.accounts:
                self._take(self._account(account, cut, rev))
                lost = sum(account.counts[f"rejected.{reason}"] for reason in REASONS)
                self._judging.count(account.partition, account.counts["received"], lost)
            self._arrivals = bounded(self._arrivals + list(flush.arrivals))
            if flush.conversions is not None:
                self._conversions = flush.conversions
            for decision in flush.decisions:
                for name in decision.names:
                    key = row_key(self.settings.namespace, "conversion", name)
                    self._decisions[key, decision.key] = decision.body.decode()
            for name, registers in flush.sketches:
                key = row_key(self.settings.namespace, "sketch", name)
                self._take(self._plain(key, "sketch", [registers], rev, ms(self.settings.row_ttl)))
        for scope in {row.name for flush in flushes for row in flush.rows if row.scope == OTHER_NAME}:
            values = [*added_up(self._others[scope].values()), cut.watermark_ms]
            key = row_key(self.settings.namespace, OTHER_NAME, scope)
            self._take(self._plain(key, "other", values, rev, ms(self.settings.row_ttl)))
        if self._pause_s:  # an outage must not take the memory
            self._undecided += self._drop_decisions()
        metrics = instruments()
        metrics.watermark.set(cut.watermark_ms / 1000)
        metrics.pending_rows.set(len(self._pending) + len(self._waiting))
        if self._behind(cut):
            if cut.ended:
                raise SettingsError(
                    "the log ended before the positions that Redis already holds: it is another or a shorter "
                    f"log; give it a Redis or a namespace of its own, or {ANEW}"
                )
            self._drop_decisions()  # an earlier execution has written them, or nearly all
            return
        self._covered = {}
        known = self.pacer is None or self._pace(self.pacer, cut, flushes)
        self._judging.look(int(self.clock_s() * 1000), cut.watermark_ms, cut.low_mark_ms, known)
        due = cut.ended or self.monotonic_s() >= self._flush_at_s
        if due and self.monotonic_s() >= self._retry_at_s:
            self._try(cut, rev)
        deadline_s = self.monotonic_s() + PATIENCE_S
        while cut.ended and (self._pending or self._waiting):
            if self.monotonic_s() > deadline_s:
                raise AudiopixelError(
                    f"Redis took no writes for {PATIENCE_S:.0f} s at the end of the log: "
                    f"{len(self._pending) + len(self._waiting)} rows are missing"
                )
            time.sleep(min(0.2, self._pause_s))
            self._try(cut, rev)

    def _pace(self, pacer: Pacer, cut: Cut, flushes: Sequence[Flush]) -> bool:
        """Put delivery into the rows of planned placements and their campaigns, which never expire; False
        where it is what readers had.
        """
        now_ms = int(self.clock_s() * 1000)
        pacer.refresh(int(self.monotonic_s() * 1000))
        self._watermark_ms = max(self._watermark_ms, cut.watermark_ms)
        at_ms = self._watermark_ms or (now_ms if cut.empty else None)
        images = _Decoded(self._values)
        changed = [(row.scope, row.name) for flush in flushes for row in flush.rows]
        # No alert on a guess, of the time or of what readers know.
        known = self._known == pacer.book.version or self._know(pacer)
        if at_ms is None or not known:
            paced = pacer.keep(images, changed)
        else:
            paced = pacer.pace(images, changed, at_ms)
        for scope, name, values in paced.rows:
            latest = self._images.get(row_key(self.settings.namespace, scope, name))
            row = PackedRow(scope, name, latest.score if latest else 0, LAYOUTS["row"].pack(values))
            whole = self._row(row, cut.number)
            self._take(whole if values[DELIVERY_AT] is None else whole._replace(ttl_ms=None))
        self._alerts += paced.alerts
        return known

    def _know(self, pacer: Pacer) -> bool:
        """Find out what readers were told of the plans that are new; whether Redis answered."""
        new = [(SCOPES[0], name) for name in pacer.book if name not in pacer.states]
        campaigns = {plan.campaign_id for plan in pacer.book.values() if plan.campaign_id} if new else set()
        new += [(SCOPES[1], name) for name in sorted(campaigns)]
        keys = [row_key(self.settings.namespace, *one) for one in new]
        assert self._client is not None
        if self.monotonic_s() < self._retry_at_s:
            return False
        try:
            held = read_rows(self._client, keys, DELIVERY) if keys else []
        except RedisUnavailable:
            return False
        for (scope, name), row in zip(new, held, strict=True):
            pacer.recall(scope, name, row)
        self._known = pacer.book.version
        return True

    def _behind(self, cut: Cut) -> bool:
        """True if an earlier execution has published more of the log than this one has read yet."""
        at = dict(cut.positions)
        return any(at.get(partition, 0) < position for partition, position in self._covered.items())

    def _take(self, row: RowVersion) -> None:
        new = row.key not in self._images or row.key in self._waiting
        self._images[row.key] = row
        self._leaving.pop(row.key, None)
        if new and row.layout in ("row", "sketch") and row.ttl_ms is not None:
            self._waiting[row.key] = row
        else:
            self._waiting.pop(row.key, None)
            self._pending[row.key] = row

    def _show(self, row: RowVersion, ended: bool) -> None:
        """Queue a row, unless readers have its numbers already: a minute that turns changes few rows of the
        last hour. At a log's end all say that they are final.
        """
        image = self._images.get(row.key)
        if ended or image is None or image.ttl_ms is None or not same_numbers(image.packed, row.packed):
            self._take(row)

    def _due(self, cut: Cut) -> list[RowVersion]:
        """The rows to write now: all that readers know or wait for by a plan, and a part of the new ones."""
        most = len(self._waiting) if cut.ended or not self._written else NEW_ROWS_A_FLUSH
        return [*self._pending.values(), *islice(self._waiting.values(), most)]

    def _end(self, scope: str, name: str, rev: int) -> None:
        """Drop a row that has ended, with its sketch, from the images and from Redis; a paced row stays."""
        image = self._images.get(row_key(self.settings.namespace, scope, name))
        if image is not None and image.ttl_ms is None:
            return
        self._values.pop((scope, name), None)
        if scope == SCOPES[0] and self.pacer is not None:
            self.pacer.counted.pop(name, None)
        sketch = row_key(self.settings.namespace, "sketch", name)
        leaving = [self._row(PackedRow(scope, name, 0, b""), rev)]
        if scope == SCOPES[0]:
            leaving.append(RowVersion(sketch, "sketch", b"", self._generation, self._fence, rev))
        for row in leaving:
            self._images.pop(row.key, None)
            self._pending.pop(row.key, None)
            self._waiting.pop(row.key, None)
            self._leaving[row.key] = row

    def _row(self, row: PackedRow, rev: int) -> RowVersion:
        namespace = self.settings.namespace
        return RowVersion(
            row_key(namespace, row.scope, row.name),
            "row",
            row.packed,
            self._generation,
            self._fence,
            rev,
            ms(self.settings.row_ttl),
            f"{namespace}:index:{row.scope}",
            row.name,
            row.latest_ms,
        )

    def _account(self, account: PartitionAccount, cut: Cut, rev: int) -> RowVersion:
        values = [account.counts[name] for name in ledger.COUNTS]
        values += [account.position, account.watermark_ms, cut.watermark_ms]
        key = row_key(self.settings.namespace, "partition", account.partition)
        return self._plain(key, "partition", values, rev)

    def _plain(
        self, key: str, layout: str, values: Sequence[int | str | None], rev: int, ttl_ms: int | None = None
    ) -> RowVersion:
        return RowVersion(
            key, layout, LAYOUTS[layout].pack(values), self._generation, self._fence, rev, ttl_ms
        )

    def _try(self, cut: Cut, rev: int) -> None:
        started_s = self.monotonic_s()
        metrics = instruments()
        try:
            try:
                self._write(cut, rev)
            except Emptied:
                self._write_again(cut, rev)
        except Emptied:  # once more: it is found out again at the next flush
            return
        except RedisUnavailable as error:
            metrics.redis_errors.labels(error.reason).inc()
            self._pause_s = min(LONGEST_PAUSE_S, max(0.1, 2 * self._pause_s))
            self._retry_at_s = self.monotonic_s() + self._pause_s
            self._log.warning(
                "redis does not take rows",
                reason=error.reason,
                pending=len(self._pending),
                again_in_s=self._pause_s,
            )
            return
        except Superseded as error:
            raise AudiopixelError(
                f"another execution took over {self.settings.namespace} (fence {self._fence} is no longer "
                f"the newest): "
                "this one stops; two flows must not share a namespace"
            ) from error
        if self._pause_s:
            self._log.info("redis takes rows again", decisions_left_out=self._undecided)
            self._undecided = 0
        self._pause_s, self._retry_at_s = 0.0, -math.inf
        self._flush_at_s = started_s + self.pace_s
        now_s, ended_s = self.clock_s(), self.monotonic_s()
        metrics.pending_rows.set(len(self._waiting))
        metrics.last_flush.set(now_s)
        metrics.flush_duration.observe(ended_s - started_s)
        for arrived_ms, pixels in self._arrivals:
            metrics.event_to_redis.observe(max(0.0, now_s - arrived_ms / 1000), pixels)
        self._arrivals = []
        if ended_s >= self._trim_at_s:
            self._trim_at_s = ended_s + TRIM_EVERY_S
            self._trim(int(now_s * 1000) - ms(self.settings.row_ttl))

    def _drop_decisions(self) -> int:
        """Drop the oldest decisions that wait, beyond `MOST_DECISIONS`; returns their number."""
        oldest = list(islice(self._decisions, max(0, len(self._decisions) - MOST_DECISIONS)))
        for one in oldest:
            del self._decisions[one]
        return len(oldest)

    def _trim(self, before_ms: int) -> None:
        """Take out of the indexes what had its last event before, and whose row has expired."""
        assert self._client is not None
        namespace, removed = self.settings.namespace, 0
        lasting = {(row.index_key, row.member) for row in self._images.values() if row.ttl_ms is None}
        try:
            for scope in SCOPES:
                index = f"{namespace}:index:{scope}"
                kept = {member for key, member in lasting if key == index}
                key_of = partial(row_key, namespace, scope)
                removed += trim_index(self._client, index, before_ms, key_of, kept)
        except ConnectError as error:  # the numbers are written: what is left is for the next time
            self._log.warning("indexes not trimmed", error=str(error))
        if removed:
            self._log.info("took expired rows out of the indexes", rows=removed)

    def _write(self, cut: Cut, rev: int) -> None:
        assert self._client is not None
        assert self._store is not None
        run = f"{self._fence}-{rev}"
        first = self._plain(
            self._positions_key,
            "positions",
            [msgspec.json.encode(dict(cut.positions)).decode(), cut.watermark_ms, run],
            rev,
        )
        now_ms = int(self.clock_s() * 1000)
        meta: list[int | str | None] = [
            SCHEMA,
            cut.watermark_ms,
            now_ms,
            version("audiopixel"),
            *self._conversions,
            sum(self._beyond.values()),
            int(self._judging.reason is None),
            self._judging.since_ms or None,
            self._judging.reason,
        ]
        self._tell()
        decisions: dict[str, dict[str, str]] = {}
        for (key, name), body in self._decisions.items():
            decisions.setdefault(key, {})[name] = body
        put_fields(self._client, decisions, self.settings.decisions_ttl)
        landing = self._due(cut)
        placements = [
            row.member for row in landing if row.index_key == f"{self.settings.namespace}:index:{SCOPES[0]}"
        ]
        message = msgspec.json.encode({"as_of_ms": cut.watermark_ms, "placements": placements})
        outcomes = self._store.write(
            landing,
            first=first,
            last=[self._plain(self._meta_key, "meta", meta, rev)],
            publish=(f"{self.settings.namespace}:updates", message),
        )
        if WriteOutcome.SUPERSEDED in outcomes:
            raise Superseded(self._positions_key)
        self._store.drop(list(self._leaving.values()))
        self._leaving = {}
        self._decisions = {}
        self._pending, self._written = {}, True
        for row in landing:
            self._waiting.pop(row.key, None)
        instruments().flushed_rows.inc(len(landing))

    def _write_again(self, cut: Cut, rev: int) -> None:
        """Write all rows again after Redis has lost them; whatever fails now, the rows stay pending."""
        assert self._store is not None
        self._log.warning("redis lost its data: writing every row again", rows=len(self._images))
        self._pending, self._waiting = dict(self._images), {}
        self._store.raise_fence(self._fence_key, self._fence)
        self._store.watch(self._marker_key, self._fence)
        self._write(cut, rev)

    def _tell(self) -> None:
        """Alerts go out before the rows that show the new state: at least once, each with its id."""
        assert self._client is not None
        key = f"{self.settings.namespace}:alerts"
        while self._alerts:
            alert = self._alerts[0]
            if self.alerts_to is not None:
                self.alerts_to.write([(alert["id"].encode(), msgspec.json.encode(alert))])
                self.alerts_to.flush()
            append(self._client, key, alert, ALERTS_KEPT)
            self._alerts.pop(0)

    def close(self) -> None:
        """Let go of Redis."""
        if self._client is not None:
            self._client.close()
