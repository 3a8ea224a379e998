"""A history of a seed: the log with its times, on how many workers the flow runs, and what goes wrong.

The log is made so that a model can say at every moment what is right: a pixel is of the last minute, or so
late that every allowed lateness finds it late. Time passes in bursts, up to some minutes apart.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from simulation.delivery import PlanFile
from simulation.log import Entry
from simulation.scenes import chosen, perform
from simulation.seams import Seam, seams
from simulation.stage import PERHAPS, Stage
from simulation.world import T0_MS, Fault

MINUTE_MS: Final = 60_000
LATENESS_MS: Final = 2 * MINUTE_MS
BOUND_MS: Final = 10_000
LONG_AGO_MS: Final = 20 * MINUTE_MS
LONG: Final = 0.07
"""Of the histories, that have many bursts and long scenes; a short one finds a bug in less time."""
CLOSING: Final = "closing"
"""The placement of the pixels that end a log, whose own minute never becomes final."""
FORGOTTEN: Final = "l4"
"""A listener who is on the deny-list from the beginning, where a history has one."""
INTERVALS_MS: Final = (500, 1000, 2000, 4000, 4000)
PACES_MS: Final = (0, 0, 0, 0, 5_000)
QUIET_MS: Final = 5_000
JUNK_MS: Final = 20_000
"""So long nothing but junk comes before the end, where a history is quiet."""
MILESTONES: Final = ("firstQuartile", "midpoint", "thirdQuartile", "complete")
REDIS: Final = ("before", "after", "part", "stall", "emptied", "older", "copied")
AGENTS: Final = ("Spotify/8.9 iOS/18", "Googlebot/2.1", None)


@dataclass(frozen=True)
class History:
    """All that is needed to play one.

    Attributes:
        order: seeds the scheduler's choices.
        workers: of each execution in turn, then the last one again.
        intervals_ms: flush intervals, likewise.
        recompute: whether the executions are told to, as a supervisor does that starts one again.
        added: a partition that is not there from the beginning.
        lateness_ms: allowed lateness, another one behind each planned stop: docs/open.md says why.
        begin_ms: when the first execution begins.
        forgets: whether a listener is on the deny-list.
        saves_ms: the interval of saves; a long one lets much be read again.
        pace_ms: between two cuts that readers get, as in a replay; 0: they get all.
        quiet_from_ms: from when on nothing but junk comes, until the end; 0: there is no such time.
        scenes: what happens in few histories; see `simulation.scenes`.
        settings: by scenes, beside those of every execution.
        plans: versions of the file of plans, in their order; the last one is read.
        small: tables and files begin, and go over, at sizes that so short a log reaches.
        own_disks: each worker has a disk of its own; for another number of them the shards are dealt anew.
        shards: of listeners, of rows and of all that is kept by shard.
        seams: what an archive has, and what the topic has deleted, from which moment on; the first execution
            begins at the first of them. None: the topic has everything.
    """

    seed: int
    order: int
    entries: dict[str, list[Entry]]
    workers: tuple[int, ...] = (1,)
    intervals_ms: tuple[int, ...] = (1000,)
    faults: tuple[Fault, ...] = ()
    recompute: bool = False
    added: str | None = None
    lateness_ms: tuple[int, ...] = (LATENESS_MS,)
    begin_ms: int = 0
    forgets: bool = False
    quiet_from_ms: int = 0
    saves_ms: int = 2_000
    pace_ms: int = 0
    scenes: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    plans: tuple[PlanFile, ...] = ()
    small: bool = False
    own_disks: bool = False
    shards: int = 2
    seams: tuple[Seam, ...] = ()

    @property
    def pixels(self) -> int:
        return sum(map(len, self.entries.values()))

    @property
    def end_ms(self) -> int:
        """When the last message comes."""
        return max(entry.at_ms for some in self.entries.values() for entry in some)

    def undisturbed(self) -> History:
        """The same log, read by one worker, in one shard, when all is there, with nothing going wrong."""
        alone = replace(self, order=0, workers=(1,), intervals_ms=(1000,), faults=(), recompute=False)
        alone = replace(alone, added=None, lateness_ms=(LATENESS_MS,), begin_ms=self.end_ms, own_disks=False)
        alone = replace(alone, shards=1, pace_ms=0, seams=())
        return replace(alone, plans=tuple(one._replace(at_ms=0) for one in self.plans[-1:]), small=False)


def make(seed: int, *, faults: bool = True) -> History:
    """The history of a seed."""
    source = random.Random(seed)
    traffic = Traffic(source, random.Random(f"scenes of {seed}"))
    entries = traffic.entries()
    stage = traffic.stage
    executions = 8
    return History(
        seed,
        source.getrandbits(32),
        entries,
        tuple(source.choice((1, 1, 2, 3)) for _ in range(executions)),
        # In a quiet time the flow's time has to be seen going on.
        tuple(source.choice(INTERVALS_MS[: 3 if traffic.quiet_from_ms else None]) for _ in range(executions)),
        tuple(
            fault
            for fault in (_faults(source, traffic.long) if faults else ())
            # Pixels of a partition unread for an hour are late, which the log alone does not show.
            if fault.how != "sleep" or traffic.added is None
        ),
        source.random() < 0.1,
        traffic.added,
        _latenesses(source, executions, traffic.scenes),
        0,
        source.random() < 0.3,
        traffic.quiet_from_ms,
        source.choice((2_000, 10_000, 60_000, 60_000)),
        0 if traffic.quiet_from_ms else traffic.of_scenes.choice(PACES_MS),
        traffic.scenes,
        stage.settings,
        tuple(sorted(stage.plans[:-1], key=lambda one: one.at_ms)) + tuple(stage.plans[-1:]),
        stage.small,
        source.random() < 0.5,
        source.choice((1, 1, 2)),
    )


def histories(seed: int) -> Iterator[History]:
    """The history of a seed; and the same log once more from an archive, where the seed has seams."""
    yield (history := make(seed))
    # Pixels of a partition unread for long may be late; a quiet time is by the clock.
    if history.added is None and not history.quiet_from_ms:
        found, around = seams(seed, history.entries)
        if found:
            faults = history.faults + around
            yield replace(history, seams=found, begin_ms=found[0].at_ms, faults=faults)


def _latenesses(source: random.Random, executions: int, scenes: Sequence[str]) -> tuple[int, ...]:
    """The lateness of each execution; one of them is no whole number of minutes. Hostile messages may be late
    by one lateness and timely by another, at any placement.
    """
    drawn = tuple(LATENESS_MS * source.choice((4, 4, 4, 5, 10)) // 4 for _ in range(executions))
    return (LATENESS_MS,) if "hostile" in scenes else drawn


def _faults(source: random.Random, long: bool) -> list[Fault]:
    """The faults of a history: none in some, many in others, at moments that most histories have."""
    found = []
    for _ in range(source.choice((0, 1, 2, 3, 4, 6))):
        match source.random():
            case low if low < 0.35:
                how = source.choice(("crash", "crash", "crash", "power", "stop", "sleep", "back", "ahead"))
                at = source.randint(1, 1_000 if long else 300)
                found.append(Fault("step", at, how, source.randint(1, 3600)))
            case low if low < 0.45:
                found.append(Fault("disk", source.randint(1, 600 if long else 200), "crash"))
            case low if low < 0.55:
                found.append(Fault("topic", source.randint(1, 30), "crash"))
            case _:
                how = source.choice(REDIS)
                if how != "copied" and source.random() < 0.4:
                    how = f"crash_{how}"
                at = source.randint(1, 200 if long else 100)
                if how.endswith("older"):
                    found.append(Fault("redis", source.randint(1, at), "copied"))
                found.append(Fault("redis", at, how, source.randint(1, 12)))
    return found


@dataclass
class Play:
    """A play that is going on: what is left of it, since when."""

    pixel: dict[str, Any]
    partition: str
    left: list[str]
    since_ms: int


@dataclass
class Traffic:
    """Makes a log, burst by burst; scenes are of a source of their own."""

    source: random.Random
    of_scenes: random.Random
    now_ms: int = 0
    plays: list[Play] = field(default_factory=list)
    greatest_ms: dict[str, int] = field(default_factory=dict)
    recent: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)
    log: dict[str, list[Entry]] = field(default_factory=dict)
    number: int = 0
    added: str | None = None
    quiet_from_ms: int = 0
    long: bool = False
    scenes: tuple[str, ...] = ()
    stage: Stage = field(init=False)

    def entries(self) -> dict[str, list[Entry]]:
        source = self.source
        names = [f"audio-pixels/{place}" for place in range(source.choice((1, 2, 2, 3)))]
        self.added = names[-1] if len(names) > 1 and source.random() < 0.3 else None
        self.log = {name: [] for name in names}
        self.long = source.random() < LONG
        send, known = (self._send, self._send_raw), (names, self.greatest_ms)
        self.stage = Stage(self.of_scenes, *send, self._pass, *known, self.long)
        quiet = source.random() < 0.07
        self.scenes = () if quiet else chosen(self.of_scenes)
        most = 12 if self.long else 2 if self.scenes else 5
        bursts = source.randint(-(-most // 3), most)
        for burst in range(bursts):
            self.now_ms += source.choice((200, 3_000, 20_000, 50_000, 150_000))
            some = names if self.added is None or burst > bursts // 2 else names[:-1]
            for _ in range(source.randint(1, 8)):
                self._something(source.choice(some))
        for entries in self.log.values():
            entries.sort(key=lambda entry: entry.at_ms)
        if not quiet:
            perform(self.stage, self.scenes)
        else:
            self.quiet_from_ms = self.now_ms
            for _ in range(JUNK_MS // 2_000):
                self.now_ms += 2_000
                for name in names:
                    self._junk(name)
        self.now_ms += LATENESS_MS + 8 * MINUTE_MS
        for name in names:
            self._send(name, self._pixel("impression", placement_id=CLOSING), self.now_ms)
        return self.log

    def _pass(self, by_ms: int) -> int:
        self.now_ms += by_ms
        return self.now_ms

    def _something(self, partition: str) -> None:
        source = self.source
        self.now_ms += source.randint(0, 900)
        going = [play for play in self.plays if play.left and self.now_ms - play.since_ms < MINUTE_MS]
        match source.random():
            case low if low < 0.35 and going:
                play = source.choice(going)
                self._send(play.partition, play.pixel | {"event": play.left.pop(0)}, self._moment(play))
            case low if low < 0.65:
                self._begin(partition)
            case low if low < 0.73:
                self._again(partition)
            case low if low < 0.80:
                self._junk(partition)
            case low if low < 0.84:
                self._late(partition)
            case low if low < 0.87:
                back_ms = source.randint(2, 9) * MINUTE_MS
                one = {"event": "impression", "placement_id": PERHAPS, "consent": False}
                self._send(partition, one, self.now_ms - back_ms)
            case low if low < 0.93:
                self._convert(partition)
            case _:
                ahead = self._pixel("impression", play_id=None)
                self._send(partition, ahead, self.now_ms + 10 * MINUTE_MS)

    def _junk(self, partition: str) -> None:
        self._send_raw(partition, self.source.choice((b"", b"{", b'{"event":"start"}', b"\xff", b"[]")))

    def _moment(self, play: Play | None = None) -> int:
        since = play.since_ms if play is not None else 0
        return max(since, self.now_ms - self.source.randint(0, 3_000))

    def _begin(self, partition: str) -> None:
        source = self.source
        pixel = self._pixel("impression")
        events = [
            "impression",
            "start",
            *(event for event in MILESTONES if source.random() < 0.8),
            *(event for event in ("skip", "click") if source.random() < 0.25),
        ]
        if source.random() < 0.2:
            events.remove("start")
            if source.random() < 0.7:
                events.insert(source.randint(1, len(events)), "start")
        play = Play(pixel, partition, events, self.now_ms)
        if pixel["play_id"] is None:
            play.left = events[:1]
        self.plays.append(play)
        for _ in range(source.randint(1, 3)):
            if play.left:
                self._send(partition, pixel | {"event": play.left.pop(0)}, self._moment(play))

    def _pixel(self, event: str, **more: Any) -> dict[str, Any]:
        source = self.source
        placement = source.randrange(3)
        self.number += 1
        pixel = {
            "event": event,
            "placement_id": f"p{placement}",
            "campaign_id": f"c{placement % 2}",
            "platform": source.choice(("web", "app")),
            "station": source.choice(("one", "two", None)),
            "play_id": f"play-{self.number}" if source.random() < 0.85 else None,
            "listener_id": f"l{source.randrange(5)}",
            "consent": source.choice((True, True, True, False, None)),
            "user_agent": source.choices(AGENTS, (6, 1, 3))[0],
        }
        return pixel | more

    def _late(self, partition: str) -> None:
        """A pixel that is late by any lateness, if the partition's time is known well enough."""
        ts_ms = self.now_ms - LONG_AGO_MS
        if self.greatest_ms.get(partition, -LONG_AGO_MS) - BOUND_MS >= ts_ms + 10 * MINUTE_MS:
            self._send(partition, self._pixel("impression", play_id=None), ts_ms)

    def _again(self, partition: str) -> None:
        some = [raw for at_ms, raw in self.recent.get(partition, ()) if self.now_ms - at_ms < MINUTE_MS]
        if some:
            self._send_raw(partition, self.source.choice(some))

    def _convert(self, partition: str) -> None:
        source = self.source
        kind, number = source.choice(("purchase", "sign_up")), source.randrange(4)
        # Few orders, so that many are sent by a page's tag and by the shop's server, too.
        bought: dict[str, Any] = {"type": kind, "order_id": f"{partition[-1]}-{number % 2}"}
        claimed = number > 1
        if source.random() < 0.6:
            pounds = source.randrange(9000)
            bought |= {"value": f"{pounds}.{source.randrange(100):02}", "currency": "GBP"}
            claimed = pounds % 2 == 0
        if claimed:
            bought["claimed"] = True
        pixel = self._pixel("conversion", play_id=None, conversion=bought, consent=True)
        if source.random() < 0.8:
            pixel["placement_id"] = None
        self._send(partition, pixel, self.now_ms)

    def _send(self, partition: str, pixel: dict[str, Any], ts_ms: int) -> None:
        self.number += 1
        known = {name: value for name, value in pixel.items() if value is not None}
        raw = json.dumps({"event_id": f"e{self.number}", "ts": T0_MS + ts_ms, **known}).encode()
        self._send_raw(partition, raw)
        at_ms = min(ts_ms, self.now_ms + MINUTE_MS)
        self.greatest_ms[partition] = max(self.greatest_ms.get(partition, -LONG_AGO_MS), at_ms)
        if ts_ms > self.now_ms - MINUTE_MS and pixel["event"] != "conversion":
            self.recent.setdefault(partition, []).append((self.now_ms, raw))

    def _send_raw(self, partition: str, raw: bytes) -> None:
        self.log[partition].append(Entry(self.now_ms, raw))
