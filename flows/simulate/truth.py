"""The ledger of simulated traffic: what a right flow must count, known as each call was made to count so.

Every call comes with its `Truth`, fixed when its play was made up; the `Ledger` adds truths in order of
arrival. It parses no call and judges no lateness: the simulation makes only calls whose outcome is beyond
doubt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from flows.model.catalogue.events import EVENTS, Way
from flows.simulate.client_truth import COUNTS as BY_CLIENT
from flows.simulate.client_truth import KINDS, Sent, counted
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
"""The numbers of a placement, as in `flight.<name>`. `conversions_declared` are those that name the
placement.
"""

TOTALS: Final = (
    "received", "accepted", "repeated", "invalid_traffic", "conversions", "rejected.malformed",
    "rejected.invalid", "rejected.unknown_event", "rejected.too_late",
)  # fmt: skip


Beside = tuple[tuple[str, str], ...]


class Truth(NamedTuple):
    """The effect of one call on the numbers, on its arrival.

    Attributes:
        outcome: `accepted`, `repeated` or `rejected.<reason>`.
        placement: the placement whose numbers change; None for calls that belong to no placement.
        counts: names of `FLIGHT` with the added numbers.
        listener: number of a consented listener reached, or None.
        held_minute: minute of a milestone that waits for its start, or None.
        freed: minutes of the milestones whose wait this start ends.
        declared: minute of a conversion that names its placement, or None.
        also: a further name of `TOTALS`, or None.
        beside: scopes and names of the creative and the app that the call names; their numbers change like
            the placement's.
        sent: the download or delivery, of which each client's counts once, or None.
        home: name of a consented household reached, or None.
        joined: for a conversion that its household joins to a play, the credited placement, the scopes and
            names that count it too, and its minute; or None.
    """

    outcome: str
    placement: str | None = None
    counts: tuple[tuple[str, int], ...] = ()
    listener: int | None = None
    held_minute: int | None = None
    freed: tuple[int, ...] = ()
    declared: int | None = None
    also: str | None = None
    beside: Beside = ()
    sent: Sent | None = None
    home: str | None = None
    joined: tuple[str, Beside, int] | None = None


class PlayTruth:
    """The truths of one play's pixels, asked for in order of arrival.

    Args:
        placement: id.
        listener: the number, which is in reach if a pixel has consent; None if the pixels name none.
        linked: the pixels carry a `play_id`.
        bot: they are invalid traffic.
        beside: the creative and the app that the pixels name.
        keys: by event, the key by which the event counts once, with consent.
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
        """The truth of the play's next pixel to arrive; `event_ms` is its event time.

        `basis` is what it claims of an impression whose minute is not final, and `confirmed` whether the
        device has called itself; a play's starts agree on that.
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
        sent = None
        if event in KINDS and truth.outcome == "accepted" and not self._bot:
            if consented and (key := self._keys.get(event)) is not None:
                sent = Sent(key, event_ms, event_id, KINDS[event], self._placement, self._beside)
            else:
                counts.append((f"{KINDS[event]}_unkeyed", 1))
        return truth._replace(beside=self._beside, counts=tuple(counts), sent=sent)

    def _pixel_truth(
        self, event: str, event_id: str, playhead_ms: int | None, event_ms: int, consented: bool
    ) -> Truth:
        key: object = event_id if not self._linked else (event, playhead_ms) if event == "progress" else event
        if key in self._seen_keys:
            return Truth("repeated", self._placement, (("repeated", 1),))
        self._seen_keys.add(key)
        if self._bot:
            return Truth("accepted", self._placement, (("invalid_traffic", 1),), also="invalid_traffic")
        counts: list[tuple[str, int]] = [("consented", 1)] if consented else []
        held_minute: int | None = None
        freed: tuple[int, ...] = ()
        level = MILESTONES.get(event, 0)
        if event in _PLAIN:
            counts.append((_PLAIN[event], 1))
        elif event in _OF_PLAY:
            counts += [(_OF_PLAY[event], 1)] if self._linked else []
        elif event == "start":
            if self._linked:
                self._started = True
                freed = tuple(self._held_minutes)
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
        return Truth("accepted", self._placement, tuple(counts), listener, held_minute, freed)

    def _raise(self, reached: int, level: int) -> list[tuple[str, int]]:
        """The changes of counts, by name, once a play that had counted up to `reached` gets to `level`."""
        if level <= reached:
            return [("repaired", -1)] if reached else []
        implied = sum(not self._bits >> step & 1 for step in range(reached + 1, level))
        gains = [(_REACHED[step], 1) for step in range(reached + 1, level + 1)]
        return [*gains, ("repaired", implied)] if implied else gains


class PlacementTally(msgspec.Struct):
    """The tally of one placement, creative or app; minutes are in epoch ms."""

    counts: dict[str, int]
    listeners: set[int]
    held_minutes: dict[int, int] = msgspec.field(name="held")
    declared: dict[int, int]
    homes: set[str] = set()
    joined: dict[int, int] = {}

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
        if truth.home is not None:
            self.homes.add(truth.home)
        if truth.held_minute is not None:
            self.held_minutes[truth.held_minute] = self.held_minutes.get(truth.held_minute, 0) + 1
        for minute in truth.freed:
            self.held_minutes[minute] -= 1
        if truth.declared is not None:
            self.declared[truth.declared] = self.declared.get(truth.declared, 0) + 1

    def add(self, more_plays: PlacementTally) -> None:
        """Add the calls of other plays."""
        self.listeners |= more_plays.listeners
        self.homes |= more_plays.homes
        minutes = (
            (getattr(self, name), getattr(more_plays, name))
            for name in ("held_minutes", "declared", "joined")
        )
        for ours_by, theirs_by in minutes:
            for minute, count in theirs_by.items():
                ours_by[minute] = ours_by.get(minute, 0) + count
        for metric, more in more_plays.counts.items():
            self.counts[metric] += more


def _tally(tallies: dict[str, PlacementTally], name: str) -> PlacementTally:
    """The tally of a name; a new name begins one."""
    tally = tallies.get(name)
    if tally is None:
        tally = tallies[name] = PlacementTally.empty()
    return tally


class Expected(NamedTuple):
    """A right flow's numbers: `totals` by name of `TOTALS`, `flight` by placement and name of `FLIGHT`, and
    `beside` by scope (`creative`, `app`) and name, likewise.
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
        heads_ms: greatest event time of each partition's accepted and repeated calls.
        sent: downloads and deliveries with a key.
    """

    totals: dict[str, int]
    placements: dict[str, PlacementTally]
    heads_ms: dict[int, int]
    beside: dict[str, dict[str, PlacementTally]] = {}
    sent: list[Sent] = []

    @classmethod
    def empty(cls) -> Tally:
        """A ledger without calls."""
        return cls(dict.fromkeys(TOTALS, 0), {}, {})

    def count(self, partition: int, event_ms: int, truth: Truth) -> None:
        """Add one call, in order of arrival."""
        totals = self.totals
        totals["received"] += 1
        totals[truth.outcome] += 1
        if truth.also is not None:
            totals[truth.also] += 1
        if event_ms > self.heads_ms.get(partition, 0) and not truth.outcome.startswith("rejected"):
            self.heads_ms[partition] = event_ms
        if truth.sent is not None:
            self.sent.append(truth.sent)
        for tally in self._tallies_of(truth.placement, truth.beside):
            tally.count(truth)
        if truth.joined is not None:
            placement, beside, minute = truth.joined
            for tally in self._tallies_of(placement, beside):
                tally.joined[minute] = tally.joined.get(minute, 0) + 1

    def _tallies_of(self, placement: str | None, beside: Beside) -> Iterator[PlacementTally]:
        """The tallies to which a call adds."""
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
        """The numbers of a flow that has taken all calls counted so far.

        Orphans, conversions and clients' counts become known when their minute is final: in a finite log, at
        its end, all are; in a live flow, those of the minutes that end `lateness_ms` or more before the
        flow's watermark. The arguments touch no other number.

        Args:
            finite: whether the log has ended.
            watermark_ms: of the live flow (`watermark_ms` of its meta row); None for that of a flow that has
                read all, with an out-of-orderness bound of 10 s.
            lateness_ms: allowed lateness.
            timezone: of calendar days.
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
                    **of.counts,
                    "orphans": settled(of.held_minutes),
                    "reach": len(of.listeners),
                    "conversions_declared": settled(of.declared),
                    "household_reach": len(of.homes),
                    "conversions_by_household": settled(of.joined),
                }
                for name, of in sorted(tallies.items())
            }

        flight = shown(self.placements)
        beside = {scope: shown(tallies) for scope, tallies in self.beside.items()}
        known_sent = [one for one in self.sent if finite or one.ms - one.ms % MINUTE_MS <= final_ms]
        for event, name in counted(known_sent, timezone, secret):
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
        self.sent += more_plays.sent
        for name, tally in more_plays.placements.items():
            _tally(self.placements, name).add(tally)
        for scope, tallies in more_plays.beside.items():
            for name, tally in tallies.items():
                self.beside_of(scope, name).add(tally)

    def to_json(self) -> bytes:
        """The whole ledger as one JSON object, which msgspec decodes as a `Tally`."""
        return msgspec.json.encode(self)
