"""The outcomes of pixels by specification 1.3, 1.4, 2.2 and 2.3, in plain Python, computed from the beginning
each time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

from flows.model.dimensions import Dimensions

MINUTE = 60_000
HORIZON_MS = 5 * MINUTE
KEY = b"sixteen bytes !!"
MILESTONES = ("firstQuartile", "midpoint", "thirdQuartile", "complete")
COHORT = (*MILESTONES, "skip", "mute")
PLAIN = {"impression": "impressions", "click": "clicks", "error": "errors"}
NAMES = {"start": "starts", "firstQuartile": "first_quartiles", "midpoint": "midpoints"} | {
    "thirdQuartile": "third_quartiles",
    "complete": "completes",
    "skip": "skips",
    "mute": "mutes",
}


STRENGTH = ("audible_2s", "streamed_full", "vast_impression", "ad_delivered", "download")


def basis_of(call: Call) -> str:
    return call.basis or "vast_impression"


class Call(NamedTuple):
    """A pixel `back` seconds behind its partition's time, which first advances by `forward` seconds."""

    partition: int
    placement: str
    play: str | None
    event: str
    forward: int
    back: int
    event_id: str
    campaign: str | None
    platform: str | None
    listener: str | None
    consent: bool | None
    bot: bool
    playhead: int | None
    creative: str | None
    basis: str | None
    confirmed: bool | None
    delay: int | None


@dataclass(eq=False)
class Life:
    """A play, or an event without one, as long as it is remembered."""

    last: int
    seen: set[str] = field(default_factory=set)
    begun: int | None = None
    start: tuple[Dimensions, int] | None = None
    own: dict[str, tuple[Dimensions, int]] = field(default_factory=dict)
    joined: set[str] = field(default_factory=set)
    orphans: set[str] = field(default_factory=set)
    heard: list[tuple[int, bool, Dimensions]] = field(default_factory=list)
    impressed: tuple[Dimensions, int] | None = None
    basis: str = ""
    called: tuple[Dimensions, int] | None = None
    confirmed: bool = False


class Model:
    """The outcome of each pixel, and all counts, computed again from the accepted pixels."""

    def __init__(self, lateness_ms: int) -> None:
        self.lateness_ms, self.flow_ms = lateness_ms, 0
        self.open_from = self.closed = 0
        self.lives: dict[tuple[Any, ...], Life] = {}
        self.all: list[Life] = []
        self.waiting: dict[tuple[tuple[Any, ...], str], Life] = {}
        self.plain: Counter[tuple[Dimensions, int, str]] = Counter()
        self.totals: Counter[tuple[Dimensions, str]] = Counter()
        self.touches: Counter[tuple[Dimensions, int, int]] = Counter()
        self.latest: dict[Dimensions, int] = {}
        self.first: dict[Dimensions, int] = {}
        self.deliveries: Counter[tuple[Dimensions, int, str]] = Counter()
        self.claims: set[tuple[Dimensions, str]] = set()
        self.delays: Counter[tuple[str, int]] = Counter()

    def final(self, minute: int, watermark_ms: int) -> bool:
        by_now = (minute + 1) * MINUTE + self.lateness_ms <= max(watermark_ms, self.flow_ms)
        return by_now or minute < self.open_from

    def take(self, call: Call, ts: int, watermark_ms: int) -> str:
        combo: Dimensions = (call.placement, call.campaign, call.platform, None, None, None, call.creative)
        event, minute, linked = call.event, ts // MINUTE, call.play is not None
        who = (call.partition, call.play) if linked else (call.partition, call.event_id)
        which = (
            ("progress", -1 if call.playhead is None else call.playhead)
            if linked and event == "progress"
            else ()
        )
        identity = (call.bot, linked, call.placement, who, which)
        life = self.lives.get(identity)
        if life is not None and life.last + HORIZON_MS < watermark_ms:
            life = None
        if life is not None and (not linked or event in life.seen):
            self.totals[combo, "repeated"] += 1
            if not call.bot:
                self.again(call, combo, life, watermark_ms)
            return "repeated"
        in_cohort = linked and event in COHORT
        home = life.begun if in_cohort and life is not None and life.begun is not None else minute
        if self.final(home, watermark_ms):
            self.totals[combo, "too_late"] += 1
            return "too_late"
        if life is None:
            life = self.lives[identity] = Life(ts)
            self.all.append(life)
        life.last = max(life.last, ts)
        life.seen.add(event)
        if linked and event == "start":
            life.begun = minute
        if call.bot:
            self.totals[combo, "invalid_traffic"] += 1
            return "invalid_traffic"
        self.latest[combo] = max(self.latest.get(combo, 0), ts)
        self.first[combo] = min(self.first.get(combo, ts), ts)
        self.totals[combo, "pixels"] += 1
        self.totals[combo, "consented"] += call.consent is True
        if call.platform and call.delay is not None and event != "delivered":
            bounds = [125 * 2**at for at in range(14)]
            self.delays[call.platform, sum(call.delay > bound for bound in bounds)] += 1
        if call.consent and call.listener and event in ("impression", "start"):
            self.touches[combo, minute, listener_hash(call.listener)] += 1
            if linked or event == "impression":
                life.heard.append((minute, event == "start", combo))
        if event == "impression":
            life.impressed, life.basis = (combo, minute), basis_of(call)
            self.claims.add((combo, life.basis))
        elif event == "start":
            life.called, life.confirmed = (combo, minute), bool(call.confirmed)
        elif event == "delivered":
            self.deliveries[combo, minute, "deliveries"] += 1
            self.deliveries[combo, minute, "deliveries_unkeyed"] += 1
        if event in PLAIN:
            self.plain[combo, minute, PLAIN[event]] += 1
        elif not linked and event in ("start", *MILESTONES):
            self.plain[combo, minute, f"unlinked_{NAMES[event]}"] += 1
        elif linked and event == "start":
            life.start = combo, minute
            for held in COHORT:
                if self.waiting.get((identity, held)) is life:
                    del self.waiting[identity, held]
                    late = self.final(life.own[held][1], watermark_ms)
                    (life.orphans if late else life.joined).add(held)
        elif in_cohort:
            life.own[event] = combo, minute
            if life.start:
                life.joined.add(event)
            else:
                if (identity, event) in self.waiting:  # of a play that is forgotten
                    self.waiting[identity, event].orphans.add(event)
                self.waiting[identity, event] = life
        return "accepted"

    def cut(self, watermark_ms: int, ended: bool) -> None:
        turned = ended or watermark_ms // MINUTE > self.flow_ms // MINUTE
        before, self.flow_ms = self.open_from, max(self.flow_ms, watermark_ms)
        self.open_from = max(self.open_from, (self.flow_ms - self.lateness_ms) // MINUTE)
        if not turned and self.open_from == before:
            return
        self.closed = self.open_from
        for (identity, event), life in list(self.waiting.items()):
            if ended or self.final(life.own[event][1], 0):
                life.orphans.add(event)
                del self.waiting[identity, event]

    def again(self, call: Call, combo: Dimensions, life: Life, watermark_ms: int) -> None:
        """A repeated pixel counts once more in nothing but what its play is known by."""
        if call.event == "impression":
            basis = basis_of(call)
            self.claims.add((combo, basis))
            open_one = life.impressed is not None and not self.final(life.impressed[1], watermark_ms)
            if open_one and STRENGTH.index(basis) < STRENGTH.index(life.basis):
                life.basis = basis
        elif call.event == "start" and call.confirmed and life.called is not None:
            life.confirmed |= not self.final(life.called[1], watermark_ms)

    def sides(self) -> Counter[tuple[Dimensions, int, str]]:
        """The rare counts, without impressions of the usual basis."""
        counted = Counter(self.deliveries)
        for life in self.all:
            if life.impressed is not None and life.basis != "vast_impression":
                counted[(*life.impressed, f"impressions_{life.basis}")] += 1
            if life.called is not None and life.confirmed:
                counted[(*life.called, "confirmed_plays")] += 1
        return counted

    def cells(self) -> dict[tuple[Dimensions, int], Counter[str]]:
        counted: Counter[tuple[Dimensions, int, str]] = Counter(self.plain)
        for life in self.all:
            if life.start:
                counted[*life.start, "starts"] += 1
                reached = [event for event in MILESTONES if event in life.joined]
                for event in MILESTONES[: MILESTONES.index(reached[-1]) + 1] if reached else ():
                    counted[*life.start, NAMES[event]] += 1
                    counted[*life.start, "repaired"] += event not in life.joined
            for event in ("skip", "mute"):
                if event in life.joined:
                    assert life.start
                    counted[*life.start, NAMES[event]] += 1
                elif event in life.own:
                    counted[*life.own[event], f"held_{NAMES[event]}"] += 1
            for event in life.orphans.intersection(MILESTONES):
                counted[*life.own[event], "orphans"] += 1
            if life.heard:
                minute, _, combo = min(life.heard, key=lambda heard: heard[:2])
                counted[combo, minute, "consented_plays"] += 1
        cells: dict[tuple[Dimensions, int], Counter[str]] = {}
        for (combo, minute, name), number in counted.items():
            cells.setdefault((combo, minute), Counter())[name] += number
        return cells


def listener_hash(name: str) -> int:
    key = blake2b(digest_size=32, key=KEY, person=b"listener").digest()
    return int.from_bytes(blake2b(name.encode(), digest_size=8, key=key).digest(), "little")
