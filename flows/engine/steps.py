"""The cores as stateful Bytewax steps. A step only passes messages on; its core processes them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from datetime import timedelta
from functools import partial
from operator import attrgetter
from typing import Any, Final, TypeVar

import numpy as np
from bytewax.operators import StatefulBatchLogic

from flows.attribution import Caps, CreditBook, HouseholdShard, ListenerShard, Rules, decision_record
from flows.clients import ClientShard
from flows.delivery import PlanFollower
from flows.engine.aligner import Aligner
from flows.engine.calendar import days_of
from flows.engine.cut_step import CutStep, Step
from flows.engine.tick_clock import TickClock
from flows.errors import StateError
from flows.instruments import instruments
from flows.intake import NOBODY, late_letter, without
from flows.methodology import Hashes
from flows.model.client_counts import ClientBatch, ClientCounts, sender_of
from flows.model.counted_since import CountedSince
from flows.model.decisions import VALUES
from flows.model.dimensions import LABELS
from flows.model.messages import (
    CREDITS_SHARD,
    CreditBatch,
    Decided,
    Flush,
    Lines,
    Message,
    Pixels,
    RowBatch,
    Settled,
    ShardTick,
    TouchBatch,
    UnjoinedBatch,
    shard_key,
)
from flows.model.pixel import traffic_reasons
from flows.model.plan import PlanBook
from flows.model.ticks import ENDED, Cut, Tick, awake_ms, cut_at
from flows.plays import PlayShard
from flows.publish import Covered, ShownRows
from flows.rows import Limits, RowShard, minute_messages, pack_rows
from flows.settings import Settings, ms
from flows.state.homes import Homes
from flows.state.hyperloglog import pack_registers

S = TypeVar("S", ListenerShard, HouseholdShard)
FEED_EVERY: Final = timedelta(seconds=10)
"""The time between two messages of impressions by unit of the feed."""
_PLAIN: Final = attrgetter(*(one.name for one in fields(Tick)))
"""A tick as plain values: `astuple` copies each of them, which is half of a small shard's snapshot."""


class PlaysLogic(Step[Pixels | ShardTick]):
    """A placement shard after an aligner of the source partitions, which sets its process's ticks and time.

    `secret` is the listeners' key, `pace` the least time between two cuts that readers get.
    """

    def __init__(
        self,
        settings: Settings,
        state: tuple[Any, ...] | None,
        clock: TickClock,
        secret: bytes = b"",
        pace: timedelta = timedelta(0),
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
        self._counted_since = CountedSince()
        self._forgotten: set[int] = set()
        self._denied = NOBODY
        self._cut = self._published = -1
        self._save_every, self._pace = settings.flushes_a_save, math.ceil(pace / settings.flush_interval)
        self._feed_every = math.ceil(FEED_EVERY / settings.flush_interval)
        if state is not None:
            self._shard.restore(state[0])
            _, aligner, ticks, self._cut, forgotten, since_ms = state
            self._counted_since = CountedSince(since_ms)
            self._published = self._cut - self._pace  # the first cut of a start is published
            self._aligner.restore(aligner)
            self._forgotten.update(forgotten[0])
            self._denied = np.frombuffer(forgotten[1], np.uint64)
            # A partition that was empty then may have got messages since: it holds time until it has ticked.
            self._ticks = {tick[0]: replace(Tick(*tick), holding=True) for tick in ticks}
            clock.raise_to(self._cut + 1)
            clock.note_watermarks(self._shard.watermark_ms)
            if self._aligner.released == ENDED:
                raise StateError(
                    "this recovery store is of logs that were replayed to their end, and nothing final "
                    "changes: give another recovery directory, and --recompute to count the logs anew"
                )

    def on_batch(self, values: list[Pixels | ShardTick]) -> tuple[Iterable[Message], bool]:
        """Put pixels into the shard, and take a cut from it when every partition has ticked."""
        out: list[Message] = []
        for value in values:
            self._shard.index = value.to
            for item, number in self._push(value):
                if isinstance(item, Tick):
                    self._ticks[item.sender] = item
                    self._forget(item.forgotten)
                elif isinstance(item, Pixels):
                    if late := self._shard.apply(without(item, self._denied)):
                        out.append(Lines([late_letter(one) for one in late], value.to))
                elif number is not None:
                    here, sent = self._cut_at(number)
                    out += sent
                    self.at_cut(here)
        return out, StatefulBatchLogic.RETAIN

    def _push(self, value: Pixels | ShardTick) -> Iterator[tuple[Pixels | Tick | None, int | None]]:
        if isinstance(value, Pixels):
            return self._aligner.push(value.sender, value)
        tick = value.tick
        self._clock.raise_to(tick.number)
        self._aligner.expect(frozenset(tick.senders))
        return self._aligner.push(tick.sender, tick, tick.number, tick.first)

    def _forget(self, listeners: Sequence[int]) -> None:
        """From now on erase listeners, whichever partition names them: a new partition may lack them."""
        if listeners:
            self._forgotten.update(listeners)
            self._denied = np.union1d(self._denied, np.array(listeners, np.uint64))

    def _cut_at(self, number: int) -> tuple[Cut, list[Message]]:
        before, self._cut = self._cut, self._cut + 1 if number == ENDED else number
        self._ticks = {name: tick for name, tick in self._ticks.items() if name in self._aligner.expected}
        here = self._clock.at_least_published(cut_at(self._ticks, self._cut))
        # By numbers and ticks alone, so that all shards decide alike.
        last = here.ended or any(tick.last for tick in self._ticks.values())
        save = last or self._cut // self._save_every > before // self._save_every
        since = self._cut - 1 if before < 0 else self._published
        publish = last or self._cut - since >= self._pace
        self._published = self._cut if publish else since
        # A new partition's first pixel would hold back a time that the others have moved on, so the time
        # stays.
        at_ms = max(here.watermark_ms, self._shard.watermark_ms)
        here = replace(here, watermark_ms=at_ms, first=before < 0, save=save, publish=publish, last=last)
        here = replace(here, counted_since_ms=self._counted_since.update(self._ticks.values()))
        fed = last or self._cut // self._feed_every > before // self._feed_every
        units, impressions = self._shard.feed(fed)
        batches, touches, clients, outcomes = self._shard.cut(here, self._forgotten)
        head_ms = max((tick.watermark_ms for tick in self._ticks.values() if not tick.ended), default=0)
        self._clock.note_watermarks(here.watermark_ms, head_ms)
        self._forgotten.clear()
        metrics, index, label = instruments(), self._shard.index, shard_key(self._shard.index)
        metrics.state_plays.labels(label).set(self._shard.plays)
        metrics.state_bytes.labels(label).set(self._shard.table.nbytes)
        for outcome in outcomes:
            metrics.accepted.labels(outcome.sender).inc(outcome.accepted)
            metrics.repeated.labels(outcome.sender).inc(outcome.repeated)
            metrics.rejected.labels(outcome.sender, "too_late").inc(outcome.too_late)
            for reason, pixels in zip(self._reasons, outcome.invalid, strict=False):
                metrics.invalid_traffic.labels(outcome.sender, reason).inc(pixels)
        settled = Settled(index, here, outcomes, units, impressions)
        return here, [*batches, *touches, *clients, settled, Lines([], index, here)]

    def gather(self) -> None:
        """Gather the shard's changes."""
        self._shard.gather()

    def snapshot(self) -> tuple[Any, ...]:
        """The shard's, the aligner's, and the ticks, at a cut."""
        return (
            self._shard.snapshot(),
            self._aligner.snapshot(),
            [*map(_PLAIN, self._ticks.values())],
            self._cut,
            (sorted(self._forgotten), self._denied.tobytes()),
            self._counted_since.ms,
        )


class AttributionLogic(CutStep[TouchBatch]):
    """A listener shard after an aligner of the placement shards."""

    def __init__(self, settings: Settings, state: tuple[Any, ...] | None) -> None:
        self._shard = _touch_shard(ListenerShard, settings)
        super().__init__(self._shard, range(settings.shards), state)
        self._utm = PlannedUtm(settings)

    def cut(self, messages: list[TouchBatch]) -> Iterable[Message]:
        """The conversions that are decided at the cut, and those that the households must decide."""
        self._shard.index = messages[0].to
        self._utm.follow(self._shard)
        decided = self._shard.apply(messages[0].cut, messages)
        metrics, label = instruments(), shard_key(self._shard.index)
        metrics.state_touches.labels(label).set(len(self._shard.store))
        metrics.dropped_touches.labels(label).set(self._shard.store.dropped)
        metrics.capped_decisions.labels(label).set(self._shard.capped)
        return [decided, *self._shard.unjoined]


class HouseholdsLogic(CutStep[UnjoinedBatch]):
    """A household shard after an aligner of the listener shards."""

    def __init__(self, settings: Settings, state: tuple[Any, ...] | None) -> None:
        self._shard = _touch_shard(HouseholdShard, settings)
        super().__init__(self._shard, range(settings.shards), state)
        self._utm = PlannedUtm(settings)

    def cut(self, messages: list[UnjoinedBatch]) -> Iterable[Message]:
        """The conversions that the households decide at the cut."""
        shard = self._shard
        shard.index = messages[0].to
        self._utm.follow(shard)
        decided = shard.apply(messages[0].cut, messages)
        metrics, label = instruments(), shard_key(decided.sender)  # after the listener shards
        metrics.state_home_touches.labels(shard_key(shard.index)).set(len(shard.homes))
        metrics.dropped_touches.labels(label).set(shard.homes.dropped)
        metrics.capped_decisions.labels(label).set(shard.capped)
        return [decided]


class ClientsLogic(CutStep[ClientBatch]):
    """A client shard after an aligner of the placement shards."""

    def __init__(self, settings: Settings, state: tuple[Any, ...] | None) -> None:
        self._shard = ClientShard(
            -1, settings.shards, ms(settings.allowed_lateness), days_of(settings), settings.recovery_dir
        )
        super().__init__(self._shard, range(settings.shards), state)

    def cut(self, messages: list[ClientBatch]) -> Iterable[Message]:
        """The increments of rows by the cut."""
        self._shard.index = messages[0].to
        counts = self._shard.apply(messages[0].cut, messages)
        instruments().state_clients.labels(shard_key(self._shard.index)).set(len(self._shard.store))
        return [counts]


class PlannedUtm:
    """The placements that a landing URL may name, and those that have a plan, with their campaigns."""

    def __init__(self, settings: Settings) -> None:
        self._named, self._plans = settings.utm_placements, PlanFollower(settings)

    def follow(self, shard: ListenerShard | HouseholdShard) -> None:
        """Give a shard the placements of the present plans."""
        if (book := self._plans.changed(awake_ms())) is not None:
            campaign_ids = {name: plan.campaign_id for name, plan in book.items() if plan.campaign_id}
            utm = {name: name for name in book} | self._named
            shard.rules = replace(shard.rules, utm=utm, campaigns=campaign_ids)


def _touch_shard(kind: type[S], settings: Settings) -> S:
    """A shard of touches as the settings define it."""
    rules = Rules(
        settings.attribution,
        ms(settings.click_window),
        ms(settings.listen_window),
        ms(settings.half_life),
        settings.utm_placements,
        settings.household_listeners,
    )
    caps = Caps(
        settings.touch_listens,
        settings.touch_clicks,
        settings.touch_listens_in_all,
        settings.touch_clicks_in_all,
    )
    lateness_ms, play_ms = ms(settings.allowed_lateness), ms(settings.horizon + settings.out_of_orderness)
    return kind(-1, settings.shards, lateness_ms, rules, settings.recovery_dir, caps, play_ms)


class CreditsLogic(CutStep[Decided | ClientCounts]):
    """The credit book after an aligner of the listener, household and client shards. `secret` is the
    listeners' key.
    """

    def __init__(self, settings: Settings, state: tuple[Any, ...] | None, secret: bytes = b"") -> None:
        # A claim stays a day longer: each of its confirmations is decided by then, at any cut's watermark.
        claims_kept = settings.conversion_horizon + settings.allowed_lateness + timedelta(days=1)
        self._book, self._plans = (
            CreditBook(
                settings.shards, secret=secret, claims_kept_ms=ms(claims_kept), recovery=settings.recovery_dir
            ),
            PlanFollower(settings),
        )
        self._hashes, shards = Hashes(settings), settings.shards
        for value in VALUES:  # otherwise the first orders of a process would not appear as an increase
            instruments().confirmed.labels(value)
        senders: list[int | str] = [*range(2 * shards), *map(sender_of, range(shards))]
        super().__init__(self._book, senders, state)

    def cut(self, messages: list[Decided | ClientCounts]) -> Iterable[Message]:
        """The credits of a cut's decisions with the counts of clients, and the decisions themselves."""
        here = messages[0].cut
        if (book := self._plans.changed(awake_ms())) is not None:
            self._book.have_plans(book)
        decided = [one for one in messages if isinstance(one, Decided)]
        counted = [one for one in messages if isinstance(one, ClientCounts)]
        batches, account, decisions = self._book.cut(here, decided, counted)
        metrics = instruments()
        metrics.state_claims.set(len(self._book.claims))
        for decision in decisions:
            if decision.claimed_value is not None:
                metrics.confirmed.labels(decision.claimed_comparison).inc()
        method = partial(self._hashes.of_minute, here.methods)
        records = [decision_record(one, method(one.conversion.ts_ms)) for one in decisions]
        erased = [found for one in decided for found in one.erased]
        flush = Flush(CREDITS_SHARD, here, conversions=account, decisions=records, erased=erased)
        return [*batches, flush, Lines([(one.key, one.body) for one in records], CREDITS_SHARD, here)]


class RowsLogic(CutStep[RowBatch | CreditBatch]):
    """A row shard after an aligner of the placement shards and the credit book.

    Args:
        secret: the listeners' key.
        covered: minutes that earlier executions have published, or None if none of them stays.
        shown: rows that readers have of earlier executions, or None.
    """

    def __init__(
        self,
        settings: Settings,
        minutes: bool,
        state: tuple[Any, ...] | None,
        secret: bytes = b"",
        covered: Covered | None = None,
        shown: ShownRows | None = None,
    ) -> None:
        self._covered, self._shown_rows, self._begun, self._plans = (
            covered,
            shown,
            False,
            PlanFollower(settings),
        )
        self._homes, self._hashes = Homes(secret, settings.shards), Hashes(settings)
        every = max(1, settings.minutes_interval // settings.flush_interval) if minutes else 0
        self._shard = RowShard(
            -1,
            settings.shards,
            ms(settings.allowed_lateness),
            ms(settings.mature_after),
            days_of(settings),
            every,
            settings.recovery_dir,
            Limits.of(settings),
        )
        super().__init__(self._shard, (CREDITS_SHARD, *range(settings.shards)), state)

    def cut(self, messages: list[RowBatch | CreditBatch]) -> Iterable[Message]:
        """The rows that a cut changes, and the minutes that are due."""
        shard, covered, here = self._shard, self._covered, messages[0].cut
        shard.index = messages[0].to
        if (book := self._plans.changed(awake_ms())) is not None:
            self._follow(book)
        batches = [one for one in messages if isinstance(one, RowBatch)]
        (credits,) = (one for one in messages if isinstance(one, CreditBatch))
        told_from = 0 if covered is None else covered.provisional_from(here)
        if self._shown_rows is not None and not self._begun:
            there = self._shown_rows.rows(shard.index, self._homes, shard.row_index.numbers)
            shard.row_index.expect(there)
            for row in there:  # the row's last change and its end may have been saved, and not published
                shard.bring_back(row)
        self._begun = True
        shard.in_parts = self._shown_rows is None
        windows, due = shard.apply(here, batches, credits, told_from)
        if self._shown_rows is not None and self._shown_rows.passed(here):
            shard.row_index.expect(())
            self._shown_rows = None
        if covered is not None and any(some.final for some in due):
            covered.record_final(shard.first_open)
        instruments().state_rows.labels(shard_key(shard.index)).set(len(shard.row_index))
        flush = Flush(
            shard.index,
            here,
            pack_rows(windows, shard.watermark_ms, shard.final_through_ms) if windows else [],
            sketches=[(name, pack_registers(some)) for name, some in shard.sketches(here.ended)],
            ended=shard.ended_rows,
            beyond=shard.row_index.beyond(),
            days=shard.due_days,
            rows_as_of_ms=shard.turning.whole_ms,
            minutes=shard.ended_minutes,
        )
        as_of = here.number, shard.watermark_ms, partial(self._hashes.of_minute, here.methods)
        minutes = [line for some in due for line in minute_messages(some, *as_of)]
        return [flush, Lines(minutes, shard.index, here)]

    def _follow(self, book: PlanBook) -> None:
        rows = {("placement", name) for name in book}
        rows |= {("campaign", plan.campaign_id) for plan in book.values() if plan.campaign_id}
        labels = {(scope, name) for scope, names in zip(LABELS, book.labels, strict=True) for name in names}
        shard = self._shard
        shard.have_plans(
            *({row for row in of if self._homes.shard_of(*row) == shard.index} for of in (rows, labels))
        )
        for scope, name in sorted(shard.row_index.planned):
            if scope == "placement":
                shard.plan(name, *book[name].minutes, book[name].parted_from)
            else:
                shard.bring_back((scope, name))
