"""Outlets of simulated traffic: logs, a producer in real time, and plans."""

from __future__ import annotations

import csv
import gzip
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Final, cast
from zoneinfo import ZoneInfo

import zstandard

from flows.simulate.traffic import Traffic
from flows.simulate.truth import Tally

_TICK_MS: Final = 25
_BURST_MS: Final = 50


def run_log(paths: Path | Sequence[Path], traffic: Traffic, events: int) -> Tally:
    """Write the next `events` calls of `traffic` as NDJSON; returns the ledger of all its calls so far.

    Args:
        paths: one file for each partition; `.gz` and `.zst` files are compressed.

    Raises:
        ValueError: the numbers of paths and partitions differ.
    """
    files = [paths] if isinstance(paths, Path) else list(paths)
    if len(files) != traffic.partitions:
        raise ValueError(
            f"{len(files)} paths for {traffic.partitions} partitions: name one file for each partition"
        )
    with ExitStack() as stack:
        writers = [stack.enter_context(open_log(path)) for path in files]
        for _, call in zip(range(events), traffic, strict=False):
            writers[call.partition].write(call.value + b"\n")
    return traffic.ledger


def write_lines(path: Path, lines: Iterable[bytes]) -> int:
    """Write a log of calls; returns their number. `.gz` and `.zst` files are compressed."""
    count = 0
    with open_log(path) as file:
        for line in lines:
            file.write(line + b"\n")
            count += 1
    return count


def open_log(path: Path) -> IO[bytes]:
    """A new file for writing; `.gz` and `.zst` files are compressed."""
    if path.suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path, "wb", compresslevel=1))
    if path.suffix == ".zst":
        return cast("IO[bytes]", zstandard.open(path, "wb"))
    return path.open("wb")


def now_ms() -> int:
    """The wall clock, in epoch ms."""
    return time.time_ns() // 1_000_000


def pump(
    traffic: Traffic,
    send: Callable[[int, bytes, bytes, int], None],
    seconds: float | None = None,
    stop: threading.Event | None = None,
    clock: Callable[[], int] = now_ms,
) -> int:
    """Send each call when the clock reaches its time of arrival; returns the number of sent calls.

    After a stall, sending catches up at twice the rate, with at most 50 ms of traffic at once. A call enters
    `traffic.ledger` just before it is sent.

    Args:
        traffic: begins at the clock's present (`start_ms`).
        send: takes partition, key, value, and arrival in epoch ms (the message's timestamp).
        seconds: the length of the traffic; None for endless traffic. Stalls do not change the calls.
        stop: ends the sending within 25 ms once it is set.
        clock: returns epoch ms.

    Raises:
        ValueError: the traffic begins a minute or more before the clock's present.
    """
    stop = stop or threading.Event()
    reached_ms = traffic.next_arrival_ms
    if clock() - reached_ms >= 60_000:
        raise ValueError("the traffic begins in the past: make it with start_ms at the clock's present")
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
    traffic: Traffic,
    flight: timedelta = timedelta(days=1),
    timezone: str = "Europe/London",
    began: timedelta = timedelta(0),
) -> list[dict[str, Any]]:
    """A plan for each placement. All deliver about 105 % of their booking, except the last placement, which
    is starved.

    Args:
        flight: the length of the flights.
        timezone: IANA name of the zone in which `start` and `end` are written, as ISO 8601.
        began: the time between the start of the flights and the start of the traffic.
    """
    start = datetime.fromtimestamp(traffic.start_ms / 1000, UTC).astimezone(ZoneInfo(timezone)) - began
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
            "target_completion_rate": round(place.completion_rate * 0.9, 2),
        }
        for rank, place in enumerate(traffic.placements)
    ]


def write_plans(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the rows of `plans`, or other rows that share a header, as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
