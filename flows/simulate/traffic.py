"""Adversarial traffic of audio-ad pixels from a seed, with a ledger of the truth.

```
 births (Poisson) ─► plays ─► pixels: lost, late, out of order, repeated, mis-clocked … ┐
                 ├─► conversions and their retries                                      ├─► by arrival ─► Call
                 └─► bad calls: malformed, invalid, unknown                             ┘        └─► Tally
```

The outcome of every call is certain, so the ledger needs no copy of the flow's rules. This holds for the
default settings of a flow (10 s of disorder, 10 min of allowed lateness, 30 min of horizon), since

- a late pixel arrives within 8 min of its play's start, or the whole play is at least 15 min old,
- a repeat arrives within 18 min of the first call,
- all pixels of a play, and a conversion with its retries, are in one partition.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from flows.simulate.bad_calls import invalid, malformed, unknown
from flows.simulate.client_truth import KINDS, add_client, key_of
from flows.simulate.households import household, members_of
from flows.simulate.scenario import (
    AGENTS,
    APPS,
    BOTS,
    DOWNLOADED,
    DURATIONS_MS,
    HOSTED,
    MACROS,
    Placement,
    Trouble,
    new_placements,
)
from flows.simulate.truth import DAY_MS, MILESTONES, MINUTE_MS, PlayTruth, Tally, Truth
from flows.simulate.wire import body_of, encoded, foreign

_TYPES: Final = ("site_visit", "sign_up", "purchase", "app_download", "phone_call", "form_submission")
_TRIAL_PLAYS: Final = 2000
REFIRED: Final = "audible_2s"
"""The basis that a player claims when it sends an impression again under another `event_id`."""
CREATIVES: Final = 3
"""The number of creatives of a placement, which plays use in turn. Placements may share a creative."""


class Call(NamedTuple):
    """A message. All calls of a play have the same `partition` and `key`, as have all retries of a
    conversion.
    """

    partition: int
    arrival_ms: int
    key: bytes
    value: bytes


class _Arrival(NamedTuple):
    arrival_ms: int
    number: int
    partition: int
    key: bytes
    value: bytes
    event_ms: int
    truth: Truth


class Traffic:
    """An endless iterator of `Call`, in order of arrival. It can be iterated once.

    The same arguments give the same calls, byte for byte.

    Args:
        seed: the seed of the random numbers.
        placements: the number of placements; the last one is starved.
        rate: calls a second. The traffic begins at half of this rate, and reaches it within a minute.
        start_ms: epoch ms of the first play.
        partitions: the number of partitions, which plays use in turn.
        trouble: the rates of faults; None for the default rates.
        listeners: the number of listeners.

    Attributes:
        ledger: the truth of exactly the calls that were taken.

    Raises:
        ValueError: `placements`, `rate`, `partitions` or `listeners` is not above 0.
    """

    def __init__(
        self,
        seed: int,
        placements: int = 120,
        rate: float = 2000.0,
        start_ms: int = 1_764_000_000_000,
        partitions: int = 1,
        trouble: Trouble | None = None,
        listeners: int = 20_000,
    ) -> None:
        if min(placements, rate, partitions, listeners) <= 0:
            raise ValueError("placements, rate, partitions and listeners must be above 0")
        self.seed, self.rate, self.start_ms, self.partitions = seed, rate, start_ms, partitions
        self.trouble = trouble or Trouble()
        self.placements = new_placements(placements)
        self._edges = list(accumulate(place.share for place in self.placements))[:-1]
        self.listeners = listeners
        self._calls_a_play = 6.0
        self._reset()
        for _ in range(_TRIAL_PLAYS):
            self._birth(start_ms)
        self._calls_a_play = len(self._ahead) / _TRIAL_PLAYS
        delivered = sum(("impressions", 1) in arrival.truth.counts for arrival in self._ahead)
        self._impressions_a_play = delivered / _TRIAL_PLAYS
        self._reset()

    def _reset(self) -> None:
        self.ledger = Tally.empty()
        self._ahead: list[_Arrival] = []
        self._sequence = self._plays = 0
        self._born = float(self.start_ms)
        rng = np.random.default_rng(self.seed)

        def uniform() -> Iterator[float]:
            while True:
                yield from rng.random(1 << 14).tolist()

        self._u: Callable[[], float] = uniform().__next__
        # Households have a generator of their own, so that their rate does not change other calls.
        self._home_dice = np.random.default_rng((self.seed, 1))

    def __iter__(self) -> Iterator[Call]:
        return self

    def __next__(self) -> Call:
        self._fill_ahead()
        arrival, _, partition, key, value, event_ms, truth = heapq.heappop(self._ahead)
        self.ledger.count(partition, event_ms, truth)
        return Call(partition, arrival, key, value)

    @property
    def next_arrival_ms(self) -> int:
        """The arrival of the next call, in epoch ms; the call is not taken."""
        self._fill_ahead()
        return self._ahead[0].arrival_ms

    @property
    def impressions_a_second(self) -> float:
        """Net impressions a second of all placements together, averaged over a long run."""
        return self.rate / self._calls_a_play * self._impressions_a_play

    def _fill_ahead(self) -> None:
        """Make plays until no future play can arrive before the first waiting call."""
        ahead, heads_ms = self._ahead, self.ledger.heads_ms
        while True:
            while ahead and ahead[0].arrival_ms <= self._born:
                first = ahead[0]
                if first.truth.outcome != "rejected.too_late":
                    return
                if heads_ms.get(first.partition, 0) > first.arrival_ms - MINUTE_MS:
                    return
                # The partition's watermark may be too low for the call to be too late, so the call is
                # dropped.
                heapq.heappop(ahead)
            # In the first seconds the later pixels of older plays are missing, so more plays begin.
            boost = 1 + 1.7 * math.exp((self.start_ms - self._born) / 7000)
            self._born -= math.log(1 - self._u()) * 1000 * self._calls_a_play / (self.rate * boost)
            self._birth(int(self._born))

    def _push(
        self, arrival: int, partition: int, key: bytes, value: bytes, event_ms: int, truth: Truth
    ) -> None:
        self._sequence += 1
        heapq.heappush(self._ahead, _Arrival(arrival, self._sequence, partition, key, value, event_ms, truth))

    def _chance(self, probability: float) -> bool:
        return self._u() < probability

    def _id(self) -> str:
        self._sequence += 1
        return f"{int(self._u() * 4294967296):08x}-{self.seed & 0xFFFF:04x}-{self._sequence:012x}"

    def _birth(self, born: int) -> None:
        """Make a play with all its pixels, and sometimes a conversion, a household or a bad call."""
        u, trouble = self._u, self.trouble
        self._plays += 1
        place = self.placements[bisect(self._edges, u())]
        partition = self._plays % self.partitions
        listener = int(u() ** 2 * self.listeners)
        play_id = f"play-{self.seed}-{self._plays}"
        self._play(born, place, partition, listener, play_id)
        if self._chance(trouble.conversions):
            self._conversion(born, place, partition, listener)
        if self._home_dice.random() < trouble.households:
            self._household(born, place, partition)
        if self._chance((trouble.malformed + trouble.invalid + trouble.unknown) * self._calls_a_play):
            self._bad_call(born, place, partition)

    def _play(self, born: int, place: Placement, partition: int, listener: int, play_id: str) -> None:
        u, trouble, chance = self._u, self.trouble, self._chance
        duration = DURATIONS_MS[int(u() * len(DURATIONS_MS))]
        bot, linked = chance(trouble.bots), not chance(trouble.no_play_id)
        creative = f"{place.labels['creative_id']}-{self._plays % CREATIVES}"
        labels = {
            **place.labels,
            "creative_id": creative,
            "duration_ms": duration,
            "ip": f"10.0.{listener >> 8}.{listener & 255}",
        }
        labels["user_agent"] = BOTS[int(u() * 4)] if bot else AGENTS[int(u() * 5)]
        if (app := APPS.get(labels["user_agent"])) is not None:
            labels["app"] = app
        if linked:
            labels["play_id"] = play_id
        elif chance(0.5):
            labels["play_id"] = MACROS[int(u() * 7)]
        if chance(trouble.macros):
            field = ("creative_id", "station", "podcast", "program", "ip", "duration_ms")[int(u() * 6)]
            labels[field] = -1 if field == "duration_ms" else MACROS[int(u() * 7)]
        dice = u() - trouble.no_consent
        consent = None if 0 <= dice < trouble.absent_consent else dice >= 0
        labels["listener_id"] = f"L{listener}"
        if place.basis in (HOSTED, DOWNLOADED):
            add_client(labels, listener, self._plays)
        consenting = body_of({**labels, "consent": True})
        refusing = body_of(labels if consent is None else {**labels, "consent": False})
        withdrawn = born + (u() * duration if chance(trouble.withdrawn) else DAY_MS)

        late, skew, too_late, known_clock = self._lateness(born)
        calls: list[tuple[int, int, str, int | None, str, str]] = []
        shared = play_id if linked and chance(trouble.shared_ids) else None
        for event, offset, playhead in self._script(place, duration, linked):
            if event == "start" and chance(trouble.lost_starts):
                continue
            if event in MILESTONES and chance(trouble.lost_milestones):
                continue
            happened = born + offset
            sent = (
                happened
                + 15
                + late
                + min(int(-math.log(1 - u()) * trouble.disorder_ms / 5), trouble.disorder_ms)
            )
            if late == skew == 0 and chance(trouble.late_pixels):
                sent += 20_000 + int(u() * 340_000)
            event_id = shared or self._id()
            calls.append((sent, happened, event, playhead, event_id, place.basis))
            # A repeat of a call that was too late may count as either, so there is none.
            if too_late:
                continue
            while chance(trouble.repeats):
                again = sent + (200 + int(u() * 8000) if chance(0.7) else int(u() * 1_080_000))
                calls.append((again, happened, event, playhead, event_id, place.basis))
            if linked and chance(trouble.refires):
                delay = 1 + int(u() * 1500)
                calls.append((sent + delay, happened + delay, event, playhead, self._id(), REFIRED))

        calls.sort()
        named = (("creative", labels["creative_id"]), ("app", labels.get("app", MACROS[0])))
        beside = tuple(pair for pair in named if pair[1] not in MACROS)
        keys = {event: key_of(event, labels) for event in KINDS}
        truths = PlayTruth(place.id, listener, linked, bot, beside, keys)
        key, is_foreign = play_id.encode(), chance(trouble.foreign)
        for sent, happened, event, playhead, event_id, claimed in calls:
            consented = consent is True and happened < withdrawn
            ts = happened + skew
            body = consenting if consented else refusing
            received = sent if known_clock or not chance(trouble.no_received_at) else None
            value = encoded(event_id, event, ts, body, playhead, claimed, place.id, received)
            if is_foreign:
                value = foreign(u, value)
            event_ms = max(min(ts, sent + 60_000), sent - DAY_MS)
            if too_late:
                truth = Truth("rejected.too_late", place.id, (("too_late", 1),), beside=beside)
            else:
                basis_and_device = claimed, "device_confirmed" in place.labels
                truth = truths.pixel(event, event_id, playhead, event_ms, consented, *basis_and_device)
            self._push(sent, partition, key, value, event_ms, truth)

    def _lateness(self, born: int) -> tuple[int, int, bool, bool]:
        """A play's lateness and the error of its clock, in ms; whether the play is too late; and whether all
        its calls have a `received_at`, by which the flow corrects the clock.
        """
        late = skew = 0
        too_late, known_clock = False, False
        u, trouble = self._u, self.trouble
        dice = u()
        if dice < (edge := trouble.late):
            late = 60_000 + int(u() * 300_000)
        elif dice < (edge := edge + trouble.too_late):
            skew, too_late = -int(900_000 + u() * 600_000), True
        elif dice < (edge := edge + trouble.clock_ahead):
            skew, known_clock = int((9 + 2 * u()) * 365 * DAY_MS), True
        elif dice < (edge := edge + trouble.clock_behind):
            skew, known_clock, too_late = -int((1 + 9 * u()) * 365 * DAY_MS), True, True
        elif dice < edge + trouble.clock_off:
            # Plans begin with the traffic, so no accepted pixel may be older.
            skew = max(int((2 * u() - 1) * 180_000), self.start_ms - born)
        return late, skew, too_late, known_clock

    def _script(self, place: Placement, duration: int, linked: bool) -> list[tuple[str, int, int | None]]:
        """The events of a play as (event, ms since the delivery, ms into the ad)."""
        u, trouble, chance = self._u, self.trouble, self._chance
        host_event = {HOSTED: "delivered", DOWNLOADED: "download"}.get(place.basis)
        script: list[tuple[str, int, int | None]] = [] if host_event is None else [(host_event, 0, None)]
        script.append(("impression", 0, None))
        dice = u()
        if dice < trouble.errors:
            return [*script, ("error", 400, None)]
        if dice < trouble.errors + trouble.unheard:
            return script
        start = 40 + int(u() * 1500)
        script.append(("start", start, 0))
        played_share = 1.0 if chance(place.completion_rate) else u()
        for quarter, event in enumerate(MILESTONES, 1):
            if quarter <= played_share * 4:
                playhead_ms = duration * quarter // 4
                script.append((event, start + playhead_ms, playhead_ms))

        def add_by_chance(probability: float, *events: str) -> None:
            if chance(probability):
                playhead_ms = int(u() * played_share * duration)
                script.extend(
                    (event, start + playhead_ms + i * 700, playhead_ms) for i, event in enumerate(events)
                )

        if linked:  # a skip or mute counts once a play, by the play's id
            if played_share < 1 and chance(trouble.skips):
                playhead_ms = int(played_share * duration)
                script.append(("skip", start + playhead_ms, playhead_ms))
            add_by_chance(trouble.mutes, "mute", "unmute", "mute")
        add_by_chance(trouble.pauses, "pause", "resume")
        add_by_chance(trouble.progress, "progress")
        add_by_chance(trouble.progress, "progress")
        if chance(trouble.clicks):
            script.append(("click", start + int(u() * 2 * duration), None))
        return script

    def _conversion(self, born: int, place: Placement, partition: int, listener: int) -> None:
        """Make a conversion and its retries: after a touch, with a placement, by a landing URL, or without a
        cause.
        """
        u, chance = self._u, self._chance
        happened = born + int(u() * 240_000)
        conversion: dict[str, Any] = {"type": _TYPES[int(u() * 6)]}
        has_order = chance(0.8)
        if has_order:
            conversion["order_id"] = f"o-{self.seed}-{self._plays}"
        if conversion["type"] == "purchase" and chance(0.9):
            price = round(u() * 200, 2)
            conversion |= {
                "value": f"{price:.2f}" if chance(0.7) else price,
                "currency": ("GBP", "GBP", "EUR")[int(u() * 3)],
            }
        call: dict[str, Any] = {"event_id": self._id(), "event": "conversion", "ts": happened}
        call["conversion"] = conversion
        if chance(0.8):
            call["campaign_id"] = place.labels["campaign_id"]
        counts: tuple[tuple[str, int], ...] = ()
        placement = declared_minute = None
        dice = u()
        if dice < 0.5:
            call |= {"listener_id": f"L{listener}", "consent": True}
        elif dice < 0.7:
            call["placement_id"] = placement = place.id
            declared_minute, counts = happened - happened % MINUTE_MS, (("repeated", 1),)
        elif dice < 0.85:
            call["landing_url"] = f"https://shop.example/thanks?utm_source=audio&utm_content={place.id}"
        else:
            call |= {"listener_id": f"stranger-{self._plays}", "consent": chance(0.5)}
        arrivals = [happened + 20 + int(u() * 2000)]
        while chance(0.15):  # a retry of the shop's server may come after the conversion's minute is final
            arrivals.append(arrivals[0] + int(u() * (10_000 if chance(0.5) else 2_400_000)))
        for index, sent in enumerate(sorted(arrivals)):
            if index and has_order:
                call["event_id"] = self._id()
            truth = (
                Truth("repeated", placement, counts)
                if index
                else Truth("accepted", placement, declared_minute=declared_minute, second_total="conversions")
            )
            value = msgspec.json.encode({**call, "received_at": sent})
            self._push(sent, partition, f"L{listener}".encode(), value, happened, truth)

    def _household(self, born: int, place: Placement, partition: int) -> None:
        """Make the calls of a household: its members listen to the placement's ad, a browser converts."""
        name, first = f"home-{self.seed}-{self._plays}", self.listeners + 100 * self._plays
        members, rekeyed = members_of(self._home_dice.random()), self._home_dice.random() < 0.3
        for sent_ms, event_ms, value, truth in household(name, place, born, members, first, rekeyed):
            self._push(sent_ms, partition, name.encode(), value, event_ms, truth)

    def _bad_call(self, born: int, place: Placement, partition: int) -> None:
        """Make a call that a correct flow rejects."""
        u, trouble = self._u, self.trouble
        good = {"event_id": self._id(), "event": "impression", "ts": born, **place.labels}
        good["received_at"] = born
        dice = u() * (trouble.malformed + trouble.invalid + trouble.unknown)
        if dice < trouble.malformed:
            reason, value = "malformed", malformed(u, good)
        elif dice < trouble.malformed + trouble.invalid:
            reason, value = "invalid", msgspec.json.encode(invalid(u, good))
        else:
            reason, value = "unknown_event", msgspec.json.encode(unknown(u, good))
        self._push(born, partition, b"rubbish", value, born, Truth(f"rejected.{reason}"))
