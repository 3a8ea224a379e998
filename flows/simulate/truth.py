"""The ledger of simulated traffic: the numbers that a correct flow counts.

Every call has a `Truth`, which is fixed when its play is made. A `Tally` adds truths in order of arrival. It
parses no call and judges no lateness, since the simulation only makes calls whose outcome is certain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from flows.model.catalogue.events import EVENTS, Way
from flows.simulate.client_truth import COUNTS as BY_CLIENT
from flows.simulate.client_truth import KINDS, KeyedEvent, counted
from flows.simulate.scenario import USUAL

MINUTE_MS: Final = 60_000
DAY_MS: Final = 86_400_000

MILESTONES: Final = {"firstQuartile": 1, "midpoint": 2, "thirdQuartile": 3, "complete": 4}
_COUNTS: Final = {event.name: event.counts for event in EVENTS if event.counts}
_REACHED: Final = ("", *(_COUNTS[event] for event in MILESTONES))
_PLAIN: Final = {
    **{event.name: event.counts for event in EVENTS if event.way is Way.PLAIN},
    "delivered": "deliveries",
}
_OF_PLAY: Final = {event.name: event.counts for event in EVENTS if event.way is Way.OF_PLAY}

BASES: Final = ("audible_2s", "streamed_full", "vast_impression", "ad_delivered", "download")
"""The bases of an impression, the strongest first."""

FLIGHT: Final = (
    *_COUNTS.values(), "repaired", "orphans",
    "unlinked_starts", *(f"unlinked_{name}" for name in _REACHED[1:]),
    "reach", "consented", "repeated", "too_late", "invalid_traffic", "conversions_declared", "deliveries",
    "confirmed_plays", *(f"impressions_{name}" for name in BASES), "household_reach",
    "conversions_by_household", *BY_CLIENT,
)  # fmt: skip
"""The numbers of a placement, published as `flight.<name>`. `conversions_declared` are conversions that name
the placement.
"""

TOTALS: Final = (
    "received", "accepted", "repeated", "invalid_traffic", "conversions", "rejected.malformed",
    "rejected.invalid", "rejected.unknown_event", "rejected.too_late",
)  # fmt: skip


Beside = tuple[tuple[str, str], ...]
"""Scopes and names that count a call beside its placement: the creative and the app."""


class Truth(NamedTuple):
    """The effect of one call on the numbers, once it arrives.

    Attributes:
        outcome: `accepted`, `repeated` or `rejected.<reason>`.
        placement: the placement whose numbers change; None for calls that belong to no placement.
        counts: names of `FLIGHT` with the numbers to add.
        listener: the number of the consented listener that the call reaches, or None.
        held_minute: the minute of a milestone that waits for its start, epoch ms, or None.
        released_minutes: the minutes of the milestones that this start releases.
        declared_minute: the minute of a conversion that names its placement, or None.
        second_total: a further name of `TOTALS` that counts the call, or None.
        beside: the creative and the app of the call; their numbers change as the placement's do.
        keyed_event: a download or delivery that counts once a client, or None.
        household: the name of the consented household that the call reaches, or None.
        household_credit: for a conversion that its household joins to a play, the credited placement, its
            `beside`, and the minute of the conversion; or None.
    """

    outcome: str
    placement: str | None = None
    counts: tuple[tuple[str, int], ...] = ()
    listener: int | None = None
    held_minute: int | None = None
    released_minutes: tuple[int, ...] = ()
    declared_minute: int | None = None
    second_total: str | None = None
    beside: Beside = ()
    keyed_event: KeyedEvent | None = None
    household: str | None = None
    household_credit: tuple[str, Beside, int] | None = None


class PlayTruth:
    """The truths of one play's pixels, which are taken in order of arrival.

    Args:
        placement: its id.
        listener: the listener's number, which a pixel with consent adds to reach; None if the pixels name
            none.
        linked: whether the pixels have a `play_id`.
        bot: whether the pixels are invalid traffic.
        beside: the creative and the app that the pixels name.
        keys: events to the key by which the event counts once if it has consent.
    """

    __slots__ = (
        "_basis",
        "_beside",
        "_bits",
        "_bot",
        "_held_minutes",
        "_keys",
        "_linked",
        "_listener",
        "_placement",
        "_reached",
        "_seen_keys",
        "_started",
    )

    def __init__(
        self,
        placement: str,
        listener: int | None,
        linked: bool,
        bot: bool,
        beside: Beside = (),
        keys: Mapping[str, str | None] = MappingProxyType({}),
    ) -> None:
        self._keys = keys
        self._beside, self._basis = beside, ""
        self._placement, self._listener, self._linked, self._bot = placement, listener, linked, bot
        self._seen_keys: set[object] = set()
        self._held_minutes: list[int] = []
        self._started = False
        self._bits = self._reached = 0

    def pixel(
        self,
        event: str,
        event_id: str,
        playhead_ms: int | None,
        event_ms: int,
        consented: bool,
        basis: str = USUAL,
        confirmed: bool = False,
    ) -> Truth:
        """The truth of the next pixel that arrives.

        Args:
            event_ms: its event time, epoch ms.
            basis: the basis that an impression claims before its minute is final.
            confirmed: whether the device itself has sent it; the same for all starts of a play.
        """
        truth = self._pixel_truth(event, event_id, playhead_ms, event_ms, consented)
        counts = list(truth.counts)
        better = not self._basis or BASES.index(basis) < BASES.index(self._basis)
        if event == "impression" and better and not self._bot:
            counts += [(f"impressions_{self._basis}", -1)] if self._basis else []
            counts.append((f"impressions_{basis}", 1))
            self._basis = basis
        if event == "start" and confirmed and truth.outcome == "accepted" and not self._bot:
            counts.append(("confirmed_plays", 1))
        keyed_event = None
        if event in KINDS and truth.outcome == "accepted" and not self._bot:
            if consented and (key := self._keys.get(event)) is not None:
                kind = KINDS[event]
                keyed_event = KeyedEvent(key, event_ms, event_id, kind, self._placement, self._beside)
            else:
                counts.append((f"{KINDS[event]}_unkeyed", 1))
        return truth._replace(beside=self._beside, counts=tuple(counts), keyed_event=keyed_event)

    def _pixel_truth(
        self, event: str, event_id: str, playhead_ms: int | None, event_ms: int, consented: bool
    ) -> Truth:
        key: object = event_id if not self._linked else (event, playhead_ms) if event == "progress" else event
        if key in self._seen_keys:
            return Truth("repeated", self._placement, (("repeated", 1),))
        self._seen_keys.add(key)
        if self._bot:
            return Truth(
                "accepted", self._placement, (("invalid_traffic", 1),), second_total="invalid_traffic"
            )
        counts: list[tuple[str, int]] = [("consented", 1)] if consented else []
        held_minute: int | None = None
        released_minutes: tuple[int, ...] = ()
        level = MILESTONES.get(event, 0)
        if event in _PLAIN:
            counts.append((_PLAIN[event], 1))
        elif event in _OF_PLAY:
            counts += [(_OF_PLAY[event], 1)] if self._linked else []
        elif event == "start":
            if self._linked:
                self._started = True
                released_minutes = tuple(self._held_minutes)
                counts += [("starts", 1), *self._raise(0, self._reached)]
            else:
                counts.append(("unlinked_starts", 1))
        elif level and not self._linked:
            counts.append((f"unlinked_{_REACHED[level]}", 1))
        elif level:
            self._bits |= 1 << level
            if self._started:
                counts += self._raise(self._reached, level)
            else:
                held_minute = event_ms - event_ms % MINUTE_MS
                self._held_minutes.append(held_minute)
            self._reached = max(self._reached, level)
        listener = self._listener if consented and event in ("impression", "start") else None
        return Truth("accepted", self._placement, tuple(counts), listener, held_minute, released_minutes)

    def _raise(self, reached: int, level: int) -> list[tuple[str, int]]:
        """The changes of counts, by name, when a play that was counted up to milestone `reached` gets to
        `level`.
        """
        if level <= reached:
            return [("repaired", -1)] if reached else []
        implied = sum(not self._bits >> step & 1 for step in range(reached + 1, level))
        gains = [(_REACHED[step], 1) for step in range(reached + 1, level + 1)]
        return [*gains, ("repaired", implied)] if implied else gains


class PlacementTally(msgspec.Struct):
    """The tally of one placement, creative or app; minutes are in epoch ms.

    Attributes:
        counts: by name of `FLIGHT`.
        listeners, households: the consented ones that were reached.
        held_minutes: milestones without a start, by minute.
        declared_minutes, household_credits: such conversions, by minute.
    """

    counts: dict[str, int]
    listeners: set[int]
    held_minutes: dict[int, int] = msgspec.field(name="held")
    declared_minutes: dict[int, int] = msgspec.field(name="declared")
    households: set[str] = msgspec.field(name="homes", default_factory=set)
    household_credits: dict[int, int] = msgspec.field(name="joined", default_factory=dict)

    @classmethod
    def empty(cls) -> PlacementTally:
        """A tally without calls."""
        return cls(dict.fromkeys(FLIGHT, 0), set(), {}, {})

    def count(self, truth: Truth) -> None:
        """Add one call."""
        for name, more in truth.counts:
            self.counts[name] += more
        if truth.listener is not None:
            self.listeners.add(truth.listener)
        if truth.household is not None:
            self.households.add(truth.household)
        if truth.held_minute is not None:
            self.held_minutes[truth.held_minute] = self.held_minutes.get(truth.held_minute, 0) + 1
        for minute in truth.released_minutes:
            self.held_minutes[minute] -= 1
        if (declared := truth.declared_minute) is not None:
            self.declared_minutes[declared] = self.declared_minutes.get(declared, 0) + 1

    def add(self, more_plays: PlacementTally) -> None:
        """Add the calls of other plays."""
        self.listeners |= more_plays.listeners
        self.households |= more_plays.households
        for name in ("held_minutes", "declared_minutes", "household_credits"):
            by_minute: dict[int, int] = getattr(self, name)
            for minute, count in getattr(more_plays, name).items():
                by_minute[minute] = by_minute.get(minute, 0) + count
        for metric, more in more_plays.counts.items():
            self.counts[metric] += more


def _tally(tallies: dict[str, PlacementTally], name: str) -> PlacementTally:
    """The tally of a name; a new name begins with an empty one."""
    tally = tallies.get(name)
    if tally is None:
        tally = tallies[name] = PlacementTally.empty()
    return tally


class Expected(NamedTuple):
    """The numbers of a correct flow.

    Attributes:
        totals: by name of `TOTALS`.
        flight: by placement and name of `FLIGHT`.
        beside: by scope (`creative`, `app`), name and name of `FLIGHT`.
    """

    totals: dict[str, int]
    flight: dict[str, dict[str, int]]
    beside: dict[str, dict[str, dict[str, int]]]


class Tally(msgspec.Struct):
    """The truth of all calls counted so far, in their order of arrival.

    Attributes:
        totals: by name of `TOTALS`.
        placements: by id.
        beside: creatives and apps, by scope and name.
        heads_ms: the greatest event time of each partition's accepted and repeated calls, epoch ms.
        keyed_events: downloads and deliveries with a key.
    """

    totals: dict[str, int]
    placements: dict[str, PlacementTally]
    heads_ms: dict[int, int]
    beside: dict[str, dict[str, PlacementTally]] = {}
    keyed_events: list[KeyedEvent] = msgspec.field(name="sent", default_factory=list)

    @classmethod
    def empty(cls) -> Tally:
        """A ledger without calls."""
        return cls(dict.fromkeys(TOTALS, 0), {}, {})

    def count(self, partition: int, event_ms: int, truth: Truth) -> None:
        """Add one call, in order of arrival."""
        totals = self.totals
        totals["received"] += 1
        totals[truth.outcome] += 1
        if truth.second_total is not None:
            totals[truth.second_total] += 1
        if event_ms > self.heads_ms.get(partition, 0) and not truth.outcome.startswith("rejected"):
            self.heads_ms[partition] = event_ms
        if truth.keyed_event is not None:
            self.keyed_events.append(truth.keyed_event)
        for tally in self._tallies_of(truth.placement, truth.beside):
            tally.count(truth)
        if truth.household_credit is not None:
            placement, beside, minute = truth.household_credit
            for tally in self._tallies_of(placement, beside):
                tally.household_credits[minute] = tally.household_credits.get(minute, 0) + 1

    def _tallies_of(self, placement: str | None, beside: Beside) -> Iterator[PlacementTally]:
        """The tallies that count a call."""
        if placement is not None:
            yield _tally(self.placements, placement)
        for scope, name in beside:
            yield self.beside_of(scope, name)

    def beside_of(self, scope: str, name: str) -> PlacementTally:
        """The tally of a creative or an app; a new one begins empty."""
        return _tally(self.beside.setdefault(scope, {}), name)

    def expected(
        self,
        finite: bool = True,
        watermark_ms: int | None = None,
        lateness_ms: int = 600_000,
        timezone: str = "Europe/London",
        secret: bytes = b"",
    ) -> Expected:
        """The numbers of a flow that has read all calls counted so far.

        Orphans, conversions and clients' counts are known once their minute is final. At the end of a finite
        log all minutes are final. In a live flow, the minutes are final that ended `lateness_ms` or more
        before the watermark. The arguments change no other number.

        Args:
            finite: whether the log has ended.
            watermark_ms: the watermark of the live flow (`watermark_ms` of its meta row). None for the
                watermark of a flow that has read all calls, with a bound of 10 s of disorder.
            lateness_ms: allowed lateness.
            timezone: IANA name of the zone of calendar days.
            secret: see `flows.simulate.client_truth.counted`.
        """
        if watermark_ms is None:
            watermark_ms = min(self.heads_ms.values(), default=0) - 10_000
        final_ms = watermark_ms - lateness_ms - MINUTE_MS

        def settled(minutes: dict[int, int]) -> int:
            return sum(count for minute, count in minutes.items() if finite or minute <= final_ms)

        def shown(tallies: dict[str, PlacementTally]) -> dict[str, dict[str, int]]:
            return {
                name: {
                    **tally.counts,
                    "orphans": settled(tally.held_minutes),
                    "reach": len(tally.listeners),
                    "conversions_declared": settled(tally.declared_minutes),
                    "household_reach": len(tally.households),
                    "conversions_by_household": settled(tally.household_credits),
                }
                for name, tally in sorted(tallies.items())
            }

        flight = shown(self.placements)
        beside = {scope: shown(tallies) for scope, tallies in self.beside.items()}
        known_events = [
            each for each in self.keyed_events if finite or each.ms - each.ms % MINUTE_MS <= final_ms
        ]
        for event, name in counted(known_events, timezone, secret):
            flight[event.placement][name] += 1
            for scope, tally in event.beside:
                beside[scope][tally][name] += 1
        return Expected(dict(self.totals), flight, beside)

    def add(self, more_plays: Tally) -> None:
        """Add the truth of the calls of other plays."""
        for name, more in more_plays.totals.items():
            self.totals[name] += more
        for partition, head_ms in more_plays.heads_ms.items():
            self.heads_ms[partition] = max(head_ms, self.heads_ms.get(partition, 0))
        self.keyed_events += more_plays.keyed_events
        for name, tally in more_plays.placements.items():
            _tally(self.placements, name).add(tally)
        for scope, tallies in more_plays.beside.items():
            for name, tally in tallies.items():
                self.beside_of(scope, name).add(tally)

    def to_json(self) -> bytes:
        """The whole ledger as one JSON object, which msgspec decodes as a `Tally`."""
        return msgspec.json.encode(self)
