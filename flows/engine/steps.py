"""The cores as stateful Bytewax steps that only pass on. What a step means is in the core that it wraps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, replace
from datetime import datetime
from typing import Any

import numpy as np
from bytewax.operators import StatefulBatchLogic

from flows.attribution import Caps, CreditBook, ListenerShard, Rules, decision_record
from flows.delivery import PlanFollower
from flows.engine.aligner import Aligner
from flows.engine.tick_clock import TickClock
from flows.errors import StateError
from flows.instruments import instruments
from flows.intake import NOBODY, without
from flows.model.messages import (
    CREDITS_SHARD,
    LEDGER_SHARD,
    CreditBatch,
    CreditsOut,
    Decided,
    Flush,
    ForShard,
    Pixels,
    PlaysOut,
    Receipt,
    RowBatch,
    RowsOut,
    Settled,
    TouchBatch,
    _frozen,
    _plain,
    _receipt,
    _thawed,
    shard_key,
)
from flows.model.pixel import traffic_reasons
from flows.model.ticks import ENDED, Cut, Tick, awake_ms, cut_at
from flows.plays import PlayShard
from flows.publish import Covered, Ledger
from flows.rows import Limits, RowShard, minute_messages, pack_rows
from flows.settings import Settings, ms
from flows.state.homes import Homes
from flows.state.hyperloglog import pack_registers


class PlaysLogic(StatefulBatchLogic[ForShard, PlaysOut, tuple[Any, ...]]):
    """A placement shard behind an aligner of the source partitions; tells its process of ticks and time.

    `secret` is the listeners' key.
    """

    def __init__(
        self, settings: Settings, state: tuple[Any, ...] | None, clock: TickClock, secret: bytes = b""
    ) -> None:
        self._clock = clock
        self._shard = PlayShard(
            -1,
            settings.shards,
            ms(settings.allowed_lateness),
            ms(settings.horizon),
            ms(settings.conversion_horizon),
            settings.attribution != "off",
            settings.recovery_dir,
            secret=secret,
        )
        self._aligner: Aligner[str, Pixels | Tick] = Aligner()
        self._reasons = traffic_reasons(settings.invalid_agents)
        self._ticks: dict[str, Tick] = {}
        self._forgotten: set[int] = set()
        self._denied = NOBODY
        self._cut = -1
        if state is not None:
            shard, at, held, ticks, self._cut, forgotten = state
            self._shard.restore(shard)
            self._forgotten.update(forgotten[0])
            self._denied = np.frombuffer(forgotten[1], np.uint64)
            self._aligner.restore(
                (*at, {sender: [_thawed(one) for one in queue] for sender, queue in held.items()})
            )
            self._ticks = {tick[0]: Tick(*tick) for tick in ticks}
            clock.hear(self._cut + 1)
            clock.learn(self._shard.watermark_ms)
            if self._aligner.released == ENDED:
                raise StateError(
                    "this recovery store is of logs that were replayed to their end, and nothing final "
                    "changes: "
                    "give another recovery directory, and --recompute to count the logs anew"
                )

    def on_batch(self, values: list[ForShard]) -> tuple[Iterable[PlaysOut], bool]:
        """Pixels into the shard; a cut out of it when every partition has ticked."""
        out: list[PlaysOut] = []
        for self._shard.index, value in values:
            mark, first = None, True
            if isinstance(value, Tick):
                mark, first = value.number, value.first
                self._clock.hear(value.number)
                self._aligner.expect(frozenset(value.senders))
            for item, number in self._aligner.push(value.sender, value, mark, first):
                if isinstance(item, Tick):
                    self._ticks[item.sender] = item
                    self._forget(item.forgotten)
                elif isinstance(item, Pixels):
                    if late := self._shard.apply(without(item, self._denied)):
                        out.append(PlaysOut(late))
                elif number is not None:
                    out.append(self._cut_at(number))
        return out, StatefulBatchLogic.RETAIN

    def _forget(self, listeners: Sequence[int]) -> None:
        """From now on, whatever partition names them: one that is new need not know of them."""
        if listeners:
            self._forgotten.update(listeners)
            self._denied = np.union1d(self._denied, np.array(listeners, np.uint64))

    def _cut_at(self, number: int) -> PlaysOut:
        first, self._cut = self._cut < 0, self._cut + 1 if number == ENDED else number
        self._ticks = {name: tick for name, tick in self._ticks.items() if name in self._aligner.expected}
        here = replace(cut_at(self._ticks, self._cut), first=first)
        batches, touches, outcomes = self._shard.cut(here, self._forgotten)
        self._clock.learn(here.watermark_ms)
        self._forgotten.clear()
        metrics, label = instruments(), shard_key(self._shard.index)
        metrics.state_plays.labels(label).set(self._shard.plays)
        metrics.state_bytes.labels(label).set(self._shard.table.nbytes)
        for outcome in outcomes:
            metrics.accepted.labels(outcome.sender).inc(outcome.accepted)
            metrics.repeated.labels(outcome.sender).inc(outcome.repeated)
            metrics.rejected.labels(outcome.sender, "too_late").inc(outcome.too_late)
            for reason, pixels in zip(self._reasons, outcome.invalid, strict=False):
                metrics.invalid_traffic.labels(outcome.sender, reason).inc(pixels)
        return PlaysOut([], self._shard.index, here, batches, touches, outcomes)

    def snapshot(self) -> tuple[Any, ...]:
        """The shard's, the aligner's, and the ticks."""
        *at, held = self._aligner.snapshot()
        frozen = {sender: [(_frozen(item), mark) for item, mark in queue] for sender, queue in held.items()}
        return (
            self._shard.snapshot(),
            tuple(at),
            frozen,
            [astuple(tick) for tick in self._ticks.values()],
            self._cut,
            (sorted(self._forgotten), self._denied.tobytes()),
        )


class AttributionLogic(StatefulBatchLogic[TouchBatch, Decided, tuple[Any, ...]]):
    """A listener shard behind an aligner of the placement shards."""

    def __init__(self, settings: Settings, state: tuple[Any, ...] | None) -> None:
        self._shard = ListenerShard(
            -1,
            settings.shards,
            ms(settings.allowed_lateness),
            Rules(
                settings.attribution,
                ms(settings.click_window),
                ms(settings.listen_window),
                ms(settings.half_life),
                settings.utm_placements,
            ),
            settings.recovery_dir,
            Caps(
                settings.touch_listens,
                settings.touch_clicks,
                settings.touch_listens_in_all,
                settings.touch_clicks_in_all,
            ),
            ms(settings.horizon),
        )
        self._aligner: Aligner[int, TouchBatch] = Aligner(frozenset(range(settings.shards)))
        self._batches: list[TouchBatch] = []
        self._utm, self._plans = settings.utm_placements, PlanFollower(settings)
        if state is not None:
            shard, released = state
            self._shard.restore(shard)
            self._aligner.resume(released)

    def on_batch(self, values: list[TouchBatch]) -> tuple[Iterable[Decided], bool]:
        """Gather a cut's batches; what they decide out when all have come."""
        out: list[Decided] = []
        for value in values:
            self._shard.index = value.to
            for batch, number in self._aligner.push(value.sender, value, value.cut.number, value.cut.first):
                if batch is not None:
                    self._batches.append(batch)
                elif number is not None:
                    batches, self._batches = self._batches, []
                    self._follow_plans()
                    out.append(self._shard.apply(batches[0].cut, batches))
                    metrics, label = instruments(), shard_key(self._shard.index)
                    metrics.state_touches.labels(label).set(len(self._shard.store))
                    metrics.dropped_touches.labels(label).set(self._shard.store.dropped)
                    metrics.capped_decisions.labels(label).set(self._shard.capped)
        return out, StatefulBatchLogic.RETAIN

    def _follow_plans(self) -> None:
        if (book := self._plans.news(awake_ms())) is not None:
            utm = {name: name for name in book} | self._utm
            self._shard.rules = replace(self._shard.rules, utm=utm)

    def snapshot(self) -> tuple[Any, ...]:
        """The shard's; nothing waits between cuts, since an epoch holds a cut whole."""
        assert not self._batches
        assert not self._aligner.held
        return self._shard.snapshot(), self._aligner.released


class CreditsLogic(StatefulBatchLogic[Decided, CreditsOut, tuple[Any, ...]]):
    """The credit book behind an aligner of the listener shards; `secret` is the listeners' key."""

    def __init__(self, settings: Settings, state: tuple[Any, ...] | None, secret: bytes = b"") -> None:
        self._book, self._plans = CreditBook(settings.shards, secret=secret), PlanFollower(settings)
        self._aligner: Aligner[int, Decided] = Aligner(frozenset(range(settings.shards)))
        self._decided: list[Decided] = []
        if state is not None:
            book, released = state
            self._book.restore(book)
            self._aligner.resume(released)

    def on_batch(self, values: list[Decided]) -> tuple[Iterable[CreditsOut], bool]:
        """Gather a cut's decisions; their credits out when all have come."""
        out: list[CreditsOut] = []
        for value in values:
            for decided, number in self._aligner.push(value.shard, value, value.cut.number, value.cut.first):
                if decided is not None:
                    self._decided.append(decided)
                elif number is not None:
                    decisions, self._decided = self._decided, []
                    here = decisions[0].cut
                    if (book := self._plans.news(awake_ms())) is not None:
                        self._book.plans = book
                    batches, account, made = self._book.cut(here, decisions)
                    all_told = [decision_record(decision) for decision in made]
                    flush = Flush(CREDITS_SHARD, here, [], [], [], account, all_told)
                    messages = [(one.key.encode(), one.body) for one in all_told]
                    out.append(CreditsOut(batches, flush, messages))
        return out, StatefulBatchLogic.RETAIN

    def snapshot(self) -> tuple[Any, ...]:
        """The book's."""
        assert not self._decided
        assert not self._aligner.held
        return self._book.snapshot(), self._aligner.released


class RowsLogic(StatefulBatchLogic[RowBatch | CreditBatch, RowsOut, tuple[Any, ...]]):
    """A row shard behind an aligner of the placement shards and the credit book; `secret` is the listeners'
    key, `covered` what earlier executions have told of minutes (None: nothing that stays).
    """

    def __init__(
        self,
        settings: Settings,
        minutes: bool,
        state: tuple[Any, ...] | None,
        secret: bytes = b"",
        covered: Covered | None = None,
    ) -> None:
        self._covered = covered
        self._homes = Homes(secret, settings.shards)
        every = max(1, settings.minutes_interval // settings.flush_interval) if minutes else 0
        self._shard = RowShard(
            -1,
            settings.shards,
            ms(settings.allowed_lateness),
            ms(settings.mature_after),
            _days(settings),
            every,
            settings.recovery_dir,
            Limits.of(settings),
        )
        self._aligner: Aligner[int, RowBatch | CreditBatch] = Aligner(
            frozenset((CREDITS_SHARD, *range(settings.shards)))
        )
        self._batches: list[RowBatch] = []
        self._credits: CreditBatch | None = None
        self._plans = PlanFollower(settings)
        if state is not None:
            shard, released = state
            self._shard.restore(shard)
            self._aligner.resume(released)

    def on_batch(self, values: list[RowBatch | CreditBatch]) -> tuple[Iterable[RowsOut], bool]:
        """Gather a cut's batches; rows and minutes out when all have come."""
        out: list[RowsOut] = []
        for value in values:
            sender = value.sender if isinstance(value, RowBatch) else CREDITS_SHARD
            for batch, number in self._aligner.push(sender, value, value.cut.number, value.cut.first):
                if isinstance(batch, RowBatch):
                    self._batches.append(batch)
                elif batch is not None:
                    self._credits = batch
                elif number is not None:
                    out.append(self._cut())
        return out, StatefulBatchLogic.RETAIN

    def _cut(self) -> RowsOut:
        here, self._shard.index = self._batches[0].cut, self._batches[0].to
        self._follow_plans()
        covered = self._covered
        told_from = 0 if covered is None else covered.provisional_from(here)
        windows, due = self._shard.apply(here, self._batches, self._credits, told_from)
        if covered is not None and any(some.final for some in due):
            covered.tell_final(self._shard.first_open)
        self._batches, self._credits = [], None
        as_of_ms = self._shard.watermark_ms
        changed = pack_rows(windows, as_of_ms, self._shard.final_through_ms) if windows else []
        minutes = [message for some in due for message in minute_messages(some, here.number, as_of_ms)]
        instruments().state_rows.labels(shard_key(self._shard.index)).set(len(self._shard.row_index))
        sketches = [(name, pack_registers(some)) for name, some in self._shard.sketches(here.ended)]
        left, beyond = self._shard.left, self._shard.row_index.beyond()
        flush = Flush(self._shard.index, here, changed, sketches=sketches, ended=left, beyond=beyond)
        return RowsOut(flush, minutes)

    def _follow_plans(self) -> None:
        if (book := self._plans.news(awake_ms())) is None:
            return
        rows = {("placement", name) for name in book}
        rows |= {("campaign", plan.campaign_id) for plan in book.values() if plan.campaign_id}
        shard = self._shard
        shard.row_index.planned = frozenset(row for row in rows if self._homes.of(*row) == shard.index)
        for scope, name in sorted(shard.row_index.planned):
            if scope == "placement":
                shard.plan(name, *book[name].minutes)

    def snapshot(self) -> tuple[Any, ...]:
        """The shard's; nothing waits between cuts, since an epoch holds a cut whole."""
        assert not self._batches
        assert not self._aligner.held
        return self._shard.snapshot(), self._aligner.released


def _days(settings: Settings) -> Callable[[int], int]:
    """Calendar day of a minute in the configured zone, remembered."""
    zone, known = settings.zone, dict[int, int]()

    def day_of(minute: int) -> int:
        day = known.get(minute)
        if day is None:
            if len(known) > 100_000:
                known.clear()
            day = known[minute] = datetime.fromtimestamp(minute * 60, zone).toordinal()
        return day

    return day_of


class LedgerLogic(StatefulBatchLogic[Receipt | Settled, Flush, tuple[Any, ...]]):
    """The ledger behind an aligner of the source partitions and the placement shards."""

    def __init__(self, settings: Settings, state: tuple[Any, ...] | None) -> None:
        self._ledger = Ledger(settings.reject_share, settings.reject_least)
        self._shards = range(settings.shards)
        self._aligner: Aligner[str | int, Receipt | Settled] = Aligner()
        self._inside: list[Receipt | Settled] = []
        if state is not None:
            ledger, at, inside = state
            self._ledger.restore(ledger)
            held = {name: [(_receipt(one), mark) for one, mark in queue] for name, queue in at[2].items()}
            self._aligner.restore((at[0], at[1], held))
            self._inside = [_receipt(one) for one in inside]

    def on_batch(self, values: list[Receipt | Settled]) -> tuple[Iterable[Flush], bool]:
        """Both sides in; the accounts out when both have come to a cut."""
        out: list[Flush] = []
        for value in values:
            if isinstance(value, Receipt):
                self._aligner.expect(frozenset((*value.tick.senders, *self._shards)))
                tick = value.tick
                pushed = self._aligner.push(tick.sender, value, tick.number, tick.first)
            else:
                pushed = self._aligner.push(value.shard, value, value.cut.number, value.cut.first)
            for item, number in pushed:
                if item is not None:
                    self._inside.append(item)
                elif number is not None:
                    out.append(self._settle())
        return out, StatefulBatchLogic.RETAIN

    def _settle(self) -> Flush:
        here: Cut | None = None
        inside, self._inside = self._inside, []
        for one in inside:
            if isinstance(one, Receipt):
                self._ledger.receive(one)
            else:
                here = one.cut
                for outcome in one.outcomes:
                    self._ledger.settle(outcome)
        assert here is not None, "a cut without the placement shards"
        accounts, arrivals = self._ledger.cut(here)
        return Flush(LEDGER_SHARD, here, [], accounts, arrivals)

    def snapshot(self) -> tuple[Any, ...]:
        """The ledger's, and the receipts that no cut has covered yet."""
        at, released, held = self._aligner.snapshot()
        waiting = {name: [(_plain(one), mark) for one, mark in queue] for name, queue in held.items()}
        return self._ledger.snapshot(), (at, released, waiting), [_plain(one) for one in self._inside]
