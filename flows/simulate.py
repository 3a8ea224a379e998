"""Simulated traffic where it is wanted: in logs, to a producer in real time, plain for benches; its plans."""

from __future__ import annotations

import csv
import gzip
import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Final, cast
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import zstandard

from flows.scene import Placement, Trouble
from flows.traffic import Call, Traffic
from flows.truth import FLIGHT, TOTALS, Expected, Ledger

__all__ = [
    "FLIGHT", "TOTALS", "Call", "Expected", "Ledger", "Placement", "Traffic", "Trouble",
    "now_ms", "plans", "pump", "run_log", "write_log", "write_plans",
]  # fmt: skip

_TICK_MS: Final = 25
_BURST_MS: Final = 50
_BLOCK_PLAYS: Final = 50_000
_PIXELS_A_PLAY: Final = 5.56
_EVENTS: Final = (b"impression", b"start", b"firstQuartile", b"midpoint", b"thirdQuartile", b"complete")

_Columns = tuple[npt.NDArray[Any], ...]


def run_log(paths: Path | Sequence[Path], traffic: Traffic, events: int) -> Ledger:
    """Write the next `events` calls of `traffic` as NDJSON and return the ledger of all its calls.

    Args:
        paths: one file a partition; `.gz` and `.zst` are compressed.

    Raises:
        ValueError: not as many paths as partitions.
    """
    files = [paths] if isinstance(paths, Path) else list(paths)
    if len(files) != traffic.partitions:
        raise ValueError(f"{len(files)} paths for {traffic.partitions} partitions: give one a partition")
    with ExitStack() as stack:
        writers = [stack.enter_context(_open(path)) for path in files]
        for _, call in zip(range(events), traffic, strict=False):
            writers[call.partition].write(call.value + b"\n")
    return traffic.ledger


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path, "wb", compresslevel=1))
    if path.suffix == ".zst":
        return cast("IO[bytes]", zstandard.open(path, "wb"))
    return path.open("wb")


def now_ms() -> int:
    """The wall clock, epoch ms."""
    return time.time_ns() // 1_000_000


def pump(
    traffic: Traffic,
    send: Callable[[int, bytes, bytes, int], None],
    seconds: float | None = None,
    stop: threading.Event | None = None,
    clock: Callable[[], int] = now_ms,
) -> int:
    """Send each call when the clock reaches its time of arrival; returns how many were sent.

    Make `traffic` with `start_ms` at the clock's present. After a stall it catches up at twice the rate,
    never with more than 50 ms of traffic at once. A call is in `traffic.ledger` from just before it is sent.

    Args:
        send: partition, key, value, arrival in epoch ms (the message's timestamp).
        seconds: of traffic; None for ever. The same seconds are the same calls, whatever stalled.
        stop: ends it within 25 ms.
        clock: epoch ms.

    Raises:
        ValueError: the traffic begins a minute or more before the clock's present.
    """
    stop = stop or threading.Event()
    reached_ms = traffic.next_arrival_ms
    if clock() - reached_ms >= 60_000:
        raise ValueError("the traffic is of the past: make it with start_ms at the clock's present")
    end_ms = math.inf if seconds is None else traffic.next_arrival_ms + seconds * 1000
    sent = 0
    while (arrival_ms := traffic.next_arrival_ms) < end_ms:
        while arrival_ms > reached_ms and not stop.is_set():
            stop.wait(_TICK_MS / 1000)
            reached_ms = min(clock(), reached_ms + _BURST_MS)
        if stop.is_set():
            break
        partition, arrival_ms, key, value = next(traffic)
        send(partition, key, value, arrival_ms)
        sent += 1
    return sent


def plans(
    traffic: Traffic, flight: timedelta = timedelta(days=1), timezone: str = "Europe/London"
) -> list[dict[str, Any]]:
    """A plan a placement: all deliver about 105 % of what is booked but the last, which is starved.

    Args:
        flight: from the start of the traffic on.
        timezone: IANA name; `start` and `end` are ISO 8601 in it.
    """
    start = datetime.fromtimestamp(traffic.start_ms / 1000, UTC).astimezone(ZoneInfo(timezone))
    total = traffic.impressions_a_second * flight.total_seconds()
    starved = traffic.placements[-1]
    return [
        {
            "placement_id": place.id,
            "campaign_id": place.labels["campaign_id"],
            "booked": max(
                1, round(total / len(traffic.placements) if place is starved else total * place.share * 0.95)
            ),
            "start": start.isoformat(timespec="milliseconds"),
            "end": (start + flight).isoformat(timespec="milliseconds"),
            "timezone": timezone,
            "cpm": f"{8 + rank % 9}.50",
            "currency": "GBP",
            "target_completion_rate": round(place.liking * 0.9, 2),
        }
        for rank, place in enumerate(traffic.placements)
    ]


def write_plans(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write `plans` as CSV with a header line."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_log(
    path: Path,
    events: int,
    seed: int = 1,
    placements: int = 1000,
    rate: float = 2000.0,
    start_ms: int = 1_764_000_000_000,
    listeners: int = 200_000,
) -> int:
    """Write a plain log fast, for benches, and return its bytes.

    Whole plays on Zipf placements, up to 5 s of disorder, 1 % repeats within a minute; no rubbish,
    nothing late, skewed or unlinked; about 270 bytes a line.

    Args:
        events: lines.
        rate: pixels a second of the log's time.
        path: `.gz` and `.zst` are compressed.
    """
    rng = np.random.default_rng(seed)
    share = np.arange(1, placements + 1) ** -1.0
    edges = np.cumsum(share / share.sum())[:-1]
    labels = [
        b'"placement_id":"pl-%05d","campaign_id":"c-%d","platform":"%b","station":"st-%d"'
        % (i, i % 40, (b"spotify", b"acast", b"tunein", b"programmatic")[i % 4], i % 60)
        for i in range(placements)
    ]
    written = size = plays = 0
    born = float(start_ms)
    waiting: list[_Columns] = []
    with _open(path) as file:
        while written < events:
            block, born = _plain_plays(rng, plays, born, rate, edges, listeners)
            plays += _BLOCK_PLAYS
            columns = [np.concatenate(parts) for parts in zip(*waiting, block, strict=True)]
            order = np.argsort(columns[0], kind="stable")
            due = int(np.searchsorted(columns[0][order], born))
            waiting = [tuple(column[order[due:]] for column in columns)]
            chosen = order[: min(due, events - written)]
            received, happened, event, play, place, listener, duration, pixel = (
                column[chosen].tolist() for column in columns
            )
            lines = [
                b'{"event_id":"%016x","event":"%b","ts":%d,%b,"play_id":"play-%09d","listener_id":"L%06d","consent":true,'
                b'"duration_ms":%d,"received_at":%d}\n' % (i, _EVENTS[e], t, labels[p], n, who, d, r)
                for r, t, e, n, p, who, d, i in zip(
                    received, happened, event, play, place, listener, duration, pixel, strict=True
                )
            ]  # fmt: skip
            size += file.write(b"".join(lines))
            written += len(lines)
    return size


def _plain_plays(
    rng: np.random.Generator,
    first: int,
    born: float,
    rate: float,
    edges: npt.NDArray[np.float64],
    listeners: int,
) -> tuple[_Columns, float]:
    """The pixels of a block of plays, as columns, and when the last was born.

    Columns: received_at, ts, event, play, placement, listener, duration_ms, pixel number; int64[pixels].
    """
    count = _BLOCK_PLAYS
    births = born + np.cumsum(rng.exponential(1000 * _PIXELS_A_PLAY / rate, count))
    duration = rng.choice(np.array([15_000, 20_000, 30_000, 60_000]), count)
    heard = np.where(rng.random(count) < 0.8, 1.0, rng.random(count))
    begun = births + 40 + rng.random(count) * 1000
    quarters = begun[:, None] + duration[:, None] * np.array([0, 0.25, 0.5, 0.75, 1.0])
    times = np.column_stack([births, quarters]).astype(np.int64)
    happens = np.column_stack([np.ones((count, 2), bool), heard[:, None] >= np.array([0.25, 0.5, 0.75, 1.0])])
    row, event = np.nonzero(happens)
    again = np.flatnonzero(rng.random(len(row)) < 0.01)
    source = np.concatenate([np.arange(len(row)), again])
    delay = 15 + rng.random(len(source)) * 5000
    delay[len(row) :] += rng.random(len(again)) * 60_000
    row, event = row[source], event[source]
    happened = times[row, event]
    play = first + row
    # Event ids look random and are unique: an odd multiplier permutes the 64-bit numbers.
    pixel = (play * 6 + event).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    place = np.searchsorted(edges, rng.random(count), side="right")
    who = rng.integers(0, listeners, count)
    columns = (
        happened + delay.astype(np.int64),
        happened,
        event,
        play,
        place[row],
        who[row],
        duration[row],
        pixel,
    )
    return columns, float(births[-1])
