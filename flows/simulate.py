"""Simulated traffic to where it is wanted: to logs, in real time to a producer, or plain and fast for benches; and its plans."""

from __future__ import annotations

import csv
import gzip
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Final, cast

import numpy as np
import zstandard

from flows.traffic import Call, Placement, Traffic, Trouble
from flows.truth import FLIGHT, TOTALS, Expected, Ledger

__all__ = [
    "FLIGHT", "TOTALS", "Call", "Expected", "Ledger", "Placement", "Traffic", "Trouble",
    "plans", "pump", "run_log", "write_log", "write_plans",
]  # fmt: skip

_TICK_MS: Final = 25
_BURST_MS: Final = 50
_BLOCK_PLAYS: Final = 50_000
_EVENTS: Final = np.array(["impression", "start", "firstQuartile", "midpoint", "thirdQuartile", "complete"])


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

    Make `traffic` with `start_ms` at the clock's present. After a stall it catches up at twice the rate, never with more
    than 50 ms of traffic at once. `traffic.ledger` holds what was sent and at most one call more, which the pump keeps back
    while it waits and sends before it returns, unless `send` raises.

    Args:
        send: partition, key, value, arrival in epoch ms (the message's timestamp).
        seconds: of traffic; None for ever. The same seconds are the same calls, whatever stalled.
        stop: ends it within 25 ms.
        clock: epoch ms.
    """
    stop = stop or threading.Event()
    end_ms = None if seconds is None else traffic.start_ms + int(seconds * 1000)
    reached_ms = traffic.start_ms
    sent = 0
    for call in traffic:
        if end_ms is not None and call.arrival_ms >= end_ms:
            stop.set()
        while call.arrival_ms > reached_ms and not stop.is_set():
            stop.wait(_TICK_MS / 1000)
            reached_ms = min(clock(), reached_ms + _BURST_MS)
        send(call.partition, call.key, call.value, call.arrival_ms)
        sent += 1
        if stop.is_set():
            break
    return sent
