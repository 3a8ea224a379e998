"""The past of a simulated flight, made in seconds: plain plays, evenly over time, with their truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np

from flows.simulate.traffic import Call, Traffic
from flows.simulate.truth import FLIGHT, MINUTE_MS, PlacementTally, Tally

_START_MS, _COMPLETE_MS = 200, 20_000
_CONSENT, _UNHEARD, _CONVERSIONS = 0.8, 0.03, 0.02
_MIN_DELAY_MS = 30_000
"""The least time between a play and its conversion."""


@dataclass
class History:
    """Plays of the placements of `traffic`, at its rate, between two moments.

    Each placement has as many plays as are due, so chance alone makes no placement under-deliver. A play has
    an impression, and mostly a start and a complete. Some listeners convert minutes later.

    Args:
        from_ms, to_ms: [from, to) in epoch ms.
        blocked: a placement that has one play in ten in content category 150.

    Attributes:
        tally: the truth of all calls, once the first has been taken.
    """

    traffic: Traffic
    from_ms: int
    to_ms: int
    blocked: str = ""

    def __post_init__(self) -> None:
        self.tally = Tally.empty()

    def __iter__(self) -> Iterator[Call]:
        """All calls, in order of time."""
        rng = np.random.default_rng(self.traffic.seed)
        span_ms = self.to_ms - self.from_ms
        rate = self.traffic.impressions_a_second / 1000
        counts = [max(1, round(rate * place.share * span_ms)) for place in self.traffic.placements]
        places = np.repeat(np.arange(len(counts)), counts)
        born = np.concatenate([(np.arange(n) + rng.random(n)) * span_ms / n for n in counts])
        born = self.from_ms + born.astype(np.int64)
        completing = np.array([place.completion_rate for place in self.traffic.placements])[places]
        plays = len(places)
        listeners = (rng.random(plays) ** 2 * self.traffic.listeners).astype(np.int64)
        consents, started = rng.random(plays) < _CONSENT, rng.random(plays) >= _UNHEARD
        started &= born + _START_MS < self.to_ms
        complete = started & (rng.random(plays) < completing) & (born + _COMPLETE_MS < self.to_ms)
        delay = _MIN_DELAY_MS + (rng.random(plays) * 9 * MINUTE_MS).astype(np.int64)
        bought = consents & started & (rng.random(plays) < _CONVERSIONS) & (born + delay < self.to_ms)
        self._count(places, listeners, consents, started, complete, int(bought.sum()))
        events = [(born, 0, np.ones(plays, bool)), (born + _START_MS, 1, started)]
        events += [(born + _COMPLETE_MS, 2, complete), (born + delay, 3, bought)]
        times_ms = np.concatenate([moments[mask] for moments, _, mask in events])
        kind = np.concatenate([np.full(int(mask.sum()), kind) for _, kind, mask in events])
        play = np.concatenate([np.flatnonzero(mask) for _, _, mask in events])
        order = np.argsort(times_ms, kind="stable")
        events_of_calls = times_ms[order].tolist(), kind[order].tolist(), play[order].tolist()
        yield from self._calls(*events_of_calls, places.tolist(), listeners.tolist(), consents.tolist())

    def _calls(
        self,
        times_ms: list[int],
        kind: list[int],
        play: list[int],
        places: list[int],
        listeners: list[int],
        consents: list[bool],
    ) -> Iterator[Call]:
        """The calls of sorted events.

        Args:
            times_ms, kind, play: of each event; `kind` is 3 for a conversion.
            places, listeners, consents: of each play.
        """
        labels = [msgspec.json.encode(place.labels)[1:-1] for place in self.traffic.placements]
        campaigns = [str(place.labels["campaign_id"]).encode() for place in self.traffic.placements]
        names = [place.id for place in self.traffic.placements]
        partitions, seed = self.traffic.partitions, self.traffic.seed
        kinds = (b"impression", b"start", b"complete")
        for ts, kind_number, number in zip(times_ms, kind, play, strict=True):
            place, partition = places[number], number % partitions
            key = b"h-%d-%d" % (seed, number)
            if kind_number == 3:
                body = (
                    b'{"event_id":"%b-c","event":"conversion","ts":%d,"received_at":%d,"campaign_id":"%b",'
                    b'"listener_id":"L%d","consent":true,"conversion":{"type":"purchase","order_id":"%b",'
                    b'"value":"%d.50","currency":"GBP"}}'
                ) % (key, ts, ts, campaigns[place], listeners[number], key, 5 + number % 60)
            else:
                category = b""
                if number % 10 == 0 and names[place] == self.blocked:
                    category = b',"content_category":"150"'
                body = (
                    b'{"event_id":"%b-%d","event":"%b","ts":%d,"received_at":%d,"play_id":"%b",'
                    b'"listener_id":"L%d","consent":%b,"duration_ms":20000,%b%b}'
                ) % (
                    key, kind_number, kinds[kind_number], ts, ts, key, listeners[number],
                    b"true" if consents[number] else b"false", labels[place], category,
                )  # fmt: skip
            yield Call(partition, ts, key, body)

    def _count(
        self,
        places: np.ndarray[tuple[int], np.dtype[np.int64]],
        listeners: np.ndarray[tuple[int], np.dtype[np.int64]],
        consents: np.ndarray[tuple[int], np.dtype[np.bool_]],
        started: np.ndarray[tuple[int], np.dtype[np.bool_]],
        complete: np.ndarray[tuple[int], np.dtype[np.bool_]],
        conversions: int,
    ) -> None:
        """Add all calls to `tally`; the columns are of plays."""
        totals = self.tally.totals
        pixels = len(places) + int(started.sum()) + int(complete.sum())
        totals.update(received=pixels + conversions, accepted=pixels + conversions, conversions=conversions)
        for number, place in enumerate(self.traffic.placements):
            own_plays = places == number
            completes = int((complete & own_plays).sum())
            counts = dict.fromkeys(FLIGHT, 0) | Counter(
                impressions=int(own_plays.sum()),
                impressions_vast_impression=int(own_plays.sum()),
                starts=int((started & own_plays).sum()),
                confirmed_plays=int((started & own_plays).sum()) if "device_confirmed" in place.labels else 0,
                first_quartiles=completes,
                midpoints=completes,
                third_quartiles=completes,
                completes=completes,
                repaired=3 * completes,
                consented=int(
                    sum((mask & own_plays & consents).sum() for mask in (own_plays, started, complete))
                ),
            )
            listener_set = set(listeners[own_plays & consents].tolist())
            self.tally.placements[place.id] = PlacementTally(counts, listener_set, {}, {})
            self.tally.beside_of("creative", place.labels["creative_id"]).add(self.tally.placements[place.id])
