"""A plain log of plays for benches: in order of time, without faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from flows.simulate.feed import open_log

_BLOCK_PLAYS: Final = 50_000
_PIXELS_A_PLAY: Final = 5.56
_EVENTS: Final = (b"impression", b"start", b"firstQuartile", b"midpoint", b"thirdQuartile", b"complete")
_Columns = tuple[npt.NDArray[Any], ...]


def write_log(
    path: Path,
    events: int,
    seed: int = 1,
    placements: int = 1000,
    rate: float = 2000.0,
    start_ms: int = 1_764_000_000_000,
    listeners: int = 200_000,
    skew: float = 1.0,
    ad_ms: int = 60_000,
) -> int:
    """Write a plain log fast; returns its size in bytes without compression.

    The log has whole plays of placements by Zipf's law, up to 5 s of disorder, and 1 % repeats within a
    minute. It has no invalid calls, and no late, skewed or unlinked pixels. A line has about 270 bytes.

    Args:
        path: `.gz` and `.zst` files are compressed.
        events: the number of lines.
        rate: pixels a second, by the log's time.
        skew: the exponent of Zipf's law; 0 for equally many plays of all placements.
        ad_ms: the length of the longest ad.
    """
    rng = np.random.default_rng(seed)
    share = np.arange(1, placements + 1) ** -skew
    edges = np.cumsum(share / share.sum())[:-1]
    labels = [
        b'"placement_id":"pl-%05d","campaign_id":"c-%d","platform":"%b","station":"st-%d"'
        % (i, i % 40, (b"spotify", b"acast", b"tunein", b"programmatic")[i % 4], i % 60)
        for i in range(placements)
    ]
    written = size = plays = 0
    born = float(start_ms)
    waiting: list[_Columns] = []
    with open_log(path) as file:
        while written < events:
            block, born = _plain_plays(rng, plays, born, rate, edges, listeners, ad_ms)
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
    ad_ms: int,
) -> tuple[_Columns, float]:
    """The pixels of a block of plays, as columns int64[pixels], and the birth of the last play in ms.

    The columns are received_at, ts, event, play, placement, listener, duration_ms and pixel number.
    """
    count = _BLOCK_PLAYS
    births = born + np.cumsum(rng.exponential(1000 * _PIXELS_A_PLAY / rate, count))
    duration = np.minimum(ad_ms, rng.choice(np.array([15_000, 20_000, 30_000, 60_000]), count))
    share = np.where(rng.random(count) < 0.8, 1.0, rng.random(count))
    begun = births + 40 + rng.random(count) * 1000
    quarters = begun[:, None] + duration[:, None] * np.array([0, 0.25, 0.5, 0.75, 1.0])
    times = np.column_stack([births, quarters]).astype(np.int64)
    happens = np.column_stack([np.ones((count, 2), bool), share[:, None] >= np.array([0.25, 0.5, 0.75, 1.0])])
    row, event = np.nonzero(happens)
    again = np.flatnonzero(rng.random(len(row)) < 0.01)
    source = np.concatenate([np.arange(len(row)), again])
    delay = 15 + rng.random(len(source)) * 5000
    delay[len(row) :] += rng.random(len(again)) * 60_000
    row, event = row[source], event[source]
    happened = times[row, event]
    play = first + row
    # An odd multiplier permutes the 64-bit numbers, so event ids are unique and look random.
    pixel = (play * 6 + event).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    place = np.searchsorted(edges, rng.random(count), side="right")
    listener_numbers = rng.integers(0, listeners, count)
    columns = (
        happened + delay.astype(np.int64),
        happened,
        event,
        play,
        place[row],
        listener_numbers[row],
        duration[row],
        pixel,
    )
    return columns, float(births[-1])
