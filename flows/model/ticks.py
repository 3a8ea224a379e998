"""Ticks and cuts: one exact prefix of every partition's log, and the time that it proves."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 86_400_000

STEP_MS: Final = 1_000
"""The greatest elapsed time, in ms, that one proof of a partition's end covers."""
PROOF_INTERVAL_MS: Final = 250
"""Milliseconds between two proofs. Proofs at this interval cover all time, though each takes a while itself.
"""
RECENT_MS: Final = 5_000
"""Milliseconds for which a proved end counts as the present end."""

Methods = tuple[tuple[int, str], ...]
"""Collectors' methods in order: each is the low mark, in ms, of the first mark that named the method, and its
hash.
"""
MAX_METHODS: Final = 64
MAX_METHOD: Final = 32


HoldReason = Literal["drain", "clock"]
"""The reason why a collector holds time: its pixels are not in the log yet, or its clock is wrong."""
Holes = tuple[tuple[int, int], ...]
"""Spans of time with lost messages, in order; no two overlap or adjoin. Each is [begin, end) in epoch ms."""
MAX_HOLES: Final = 16


@dataclass(frozen=True, slots=True)
class Tick:
    """A partition's mark in every channel, after the data that it covers.

    Attributes:
        sender: the source partition.
        senders: all source partitions, for whose ticks a step waits.
        number: the number of the flush interval, by one clock for all senders (`flows.engine.tick_clock`); it
            grows.
        watermark_ms: 0 while unknown.
        holding: whether an unknown watermark holds the other partitions back. It does if there is data to
            read, and does not if the partition is empty.
        ended: whether the partition is finite and at its end.
        position: the position at which the partition would continue.
        greatest_ms: the greatest event time so far.
        forgotten: listeners that the partition has removed from its pixels since the last tick.
        candidate_ms: event time of the last pixel if only a next pixel could make it the greatest; else 0.
        first: whether it is the first tick of the partition, ever.
        low_mark_ms: the least low mark that the partition's time waits for; 0 for none.
        held_by: the collector of that mark, if it holds time far behind the log's; else empty.
        held_why: the reason of the hold, or None.
        cloned: the spool directory that was copied, so that two collectors have it; empty if there is none.
        methods: the methods of the partition's collectors.
        last: whether the flow must stop, so that the partition sends no other tick.
        first_ms: receipt of the first message at or after the partition's start; 0 without one.
        skipped: whether that start left messages out.
        holes: the spans of time of which the log has lost messages.
        denied: the sum of the keys that the partition removes from its pixels (`sum_of`).
        in_history: whether the partition reads an archive, or has not reached its topic's end since.
    """

    sender: str
    senders: tuple[str, ...]
    number: int
    watermark_ms: int
    holding: bool
    ended: bool
    position: int
    greatest_ms: int
    forgotten: tuple[int, ...] = ()
    candidate_ms: int = 0
    first: bool = False
    low_mark_ms: int = 0
    held_by: str = ""
    held_why: HoldReason | None = None
    cloned: str = ""
    methods: Methods = ()
    last: bool = False
    first_ms: int = 0
    skipped: bool = False
    holes: Holes = ()
    denied: int = 0
    in_history: bool = False


ENDED: Final = 1 << 62
"""The tick number of a partition that has ended: later than any other's."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A cut: one exact prefix of every partition's log, with the time that the prefix proves.

    Attributes:
        number: the number of its ticks.
        watermark_ms: the least watermark of the partitions, 0 while one of them is unknown.
        ended: whether every partition has ended, so that everything is final.
        positions: (source partition, position) of each.
        first: whether it is the first cut, ever.
        empty: whether no partition has had a pixel or has a message to read. Only the wall clock then gives a
            time.
        low_mark_ms: the least low mark of the partitions; 0 if none waits for a collector.
        held_by: the collector of the least low mark that holds a partition's time; empty without a hold.
        held_since_ms: that mark: the oldest event that this collector has not put into the log.
        held_why: the reason of this hold, or None.
        cloned: a spool directory that was copied, so that two collectors have it; empty if there is none.
        methods: the methods of the collectors of all partitions.
        save: whether every step saves its state here.
        publish: whether the numbers are published here. If not, rows keep their changes until the next cut
            that is published.
        last: whether no cut follows: the logs have ended, or the flow must stop.
        counted_since_ms: the receipt since which the deployment counts, epoch ms; 0 if unknown.
        holes: the spans of time of which any partition has lost messages.
        denied: the sum of the keys that every partition removes from its pixels; None if they differ.
        in_history: whether a partition is in history, so that no reader may act on the numbers yet.
    """

    number: int
    watermark_ms: int
    ended: bool
    positions: tuple[tuple[str, int], ...]
    first: bool = False
    empty: bool = False
    low_mark_ms: int = 0
    held_by: str = ""
    held_since_ms: int = 0
    held_why: HoldReason | None = None
    cloned: str = ""
    methods: Methods = ()
    save: bool = False
    publish: bool = True
    last: bool = False
    counted_since_ms: int = 0
    holes: Holes = ()
    denied: int | None = None
    in_history: bool = False

    def reaches(self, positions: Mapping[str, int]) -> bool:
        """True if every partition of `positions` has been read to its position or beyond."""
        read_to = dict(self.positions)
        return all(read_to.get(partition, 0) >= position for partition, position in positions.items())


def cut_at(ticks: dict[str, Tick], number: int) -> Cut:
    """The cut of every partition's latest tick up to `number`, or of its first tick if that has a greater
    number. In that case the partition's time is unknown until the cut of its first tick.
    """
    live = [tick for tick in ticks.values() if not tick.ended and tick.holding]
    ended = all(tick.ended for tick in ticks.values())
    if live:
        watermark = min(0 if tick.first and tick.number > number else tick.watermark_ms for tick in live)
    elif ended:
        # Collectors' marks may have advanced time beyond all pixels.
        watermark = max(max(tick.greatest_ms, tick.watermark_ms) for tick in ticks.values())
        # In logs of one pixel each no next pixel will confirm the time, or make the pixel late.
        watermark = watermark or max(tick.candidate_ms for tick in ticks.values())
    else:  # only empty and ended partitions: time stays where the ended ones were
        watermark = max((tick.watermark_ms for tick in ticks.values() if tick.ended), default=0)
    empty = not live and not any(tick.greatest_ms or tick.candidate_ms for tick in ticks.values())
    positions = tuple(sorted((tick.sender, tick.position) for tick in ticks.values()))
    low_mark = min((tick.low_mark_ms for tick in live if tick.low_mark_ms), default=0)
    since_ms, held_by, held_why = min(
        ((tick.low_mark_ms, tick.held_by, tick.held_why) for tick in live if tick.held_by),
        key=lambda hold: hold[:2],
        default=(0, "", None),
    )
    methods = first_of(method for tick in ticks.values() for method in tick.methods)
    denied = {tick.denied for tick in ticks.values() if ended or not tick.ended}
    return Cut(
        number=number,
        watermark_ms=watermark,
        ended=ended,
        positions=positions,
        first=False,
        empty=empty,
        low_mark_ms=low_mark,
        held_by=held_by,
        held_since_ms=since_ms,
        held_why=held_why,
        cloned=min((tick.cloned for tick in live if tick.cloned), default=""),
        methods=methods,
        holes=joined(hole for tick in ticks.values() for hole in tick.holes),
        denied=denied.pop() if len(denied) == 1 else None,
        in_history=any(tick.in_history for tick in ticks.values()),
    )


def joined(holes: Iterable[tuple[int, int]]) -> Holes:
    """Holes in order, with those that overlap or adjoin joined. Beyond `MAX_HOLES` holes those that are least
    apart are joined, too.
    """
    joined_holes: list[tuple[int, int]] = []
    for begin, end in sorted(holes):
        if joined_holes and begin <= joined_holes[-1][1]:
            joined_holes[-1] = joined_holes[-1][0], max(end, joined_holes[-1][1])
        else:
            joined_holes.append((begin, end))
    while len(joined_holes) > MAX_HOLES:
        gaps_ms = [later[0] - earlier[1] for earlier, later in pairwise(joined_holes)]
        place = gaps_ms.index(min(gaps_ms))
        joined_holes[place : place + 2] = [(joined_holes[place][0], joined_holes[place + 1][1])]
    return tuple(joined_holes)


def sum_of(keys: Iterable[int]) -> int:
    """The sum of keyed hashes modulo 2^64, by which two lists of them are compared; 0 for an empty list."""
    return sum(keys) & (1 << 64) - 1


def is_method(text: str) -> bool:
    """True if a method in a collector's mark has the form of a hash."""
    return 0 < len(text) <= MAX_METHOD and text.isascii() and text.isalnum()


def first_of(methods: Iterable[tuple[int, str]]) -> Methods:
    """Each method once, with its first low mark. Only the newest `MAX_METHODS` remain."""
    since: dict[str, int] = {}
    for ms, method in methods:
        since[method] = min(ms, since.get(method, ms))
    return tuple(sorted((ms, method) for method, ms in since.items())[-MAX_METHODS:])


def methods_of(methods: Methods, minute_ms: int) -> Methods:
    """The methods by which the minute that begins at `minute_ms` may have been counted."""
    return tuple(method for method in methods if method[0] < minute_ms + MINUTE_MS)


def open_from(watermark_ms: int, lateness_ms: int) -> int:
    """The first minute since the epoch that is not final at a watermark. Earlier minutes ended at least the
    allowed lateness ago.
    """
    return (watermark_ms - lateness_ms) // MINUTE_MS


def turned_hour(before_ms: int, now_ms: int, shard: int) -> bool:
    """True if an hour of a shard ended between two watermarks. The hours of shards end in different minutes,
    so that the shards do not all work at one cut.
    """
    late_ms = shard * MINUTE_MS
    return (now_ms + late_ms) // HOUR_MS > (before_ms + late_ms) // HOUR_MS


_BOOT: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_ms() -> int:
    """Milliseconds that have elapsed, including suspension of the machine if the system counts it. A member
    that was suspended therefore agrees with the others.
    """
    return time.clock_gettime_ns(_BOOT) // 1_000_000


def awake_ms() -> int:
    """Milliseconds that have elapsed while the machine was awake."""
    return time.monotonic_ns() // 1_000_000
