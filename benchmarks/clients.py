"""The state of clients' keys: bytes a key, and memory, over two days of so many keys a day.

`python -m benchmarks.clients [--keys 10000000]`
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from benchmarks.bars import show
from benchmarks.touches import SHARDS, T0_MS, resident_mib
from flows.clients import ClientShard
from flows.model.client_counts import COMBO_SHIFT, ClientBatch
from flows.model.dimensions import Dimensions
from flows.model.ticks import DAY_MS, MINUTE_MS, Cut
from flows.state.arrays import U64

DAYS: Final = 2
LATENESS_MS: Final = 600_000
MAX_MB: Final = 250.0
_NAMES: Final[list[Dimensions]] = [
    (f"pl-{i}", f"c-{i % 20}", "acast", None, f"pod-{i % 60}", None, None) for i in range(500)
]


class Kept(NamedTuple):
    """Keys and bytes of all shards after the two days, their most at any time, the most memory that the
    process grew by, and the time that the cuts and a snapshot of all took.
    """

    keys: int
    most_mb: float
    grown_mib: float
    cuts_s: float
    snapshot_s: float


def kept(keys: int, directory: Path) -> Kept:
    """Client shards with so many new keys a day, evenly over its minutes, each sent twice within an hour."""
    before = resident_mib()
    shards = [
        ClientShard(index, SHARDS, LATENESS_MS, lambda minute: minute // 1440, directory)
        for index in range(SHARDS)
    ]
    rng, most, grown = np.random.default_rng(1), 0, 0.0
    began_s = time.perf_counter()
    for number, sent in enumerate(_minutes(keys // 1440, rng)):
        cut = Cut(number, T0_MS + (number + 1) * MINUTE_MS, False, ())
        homes = sent[:, 0] % np.uint64(SHARDS)
        for shard in shards:
            shard.apply(cut, [ClientBatch(0, shard.index, cut, _NAMES, sent[homes == shard.index])])
        most = max(most, sum(shard.store.runs.nbytes + shard.waiting.nbytes for shard in shards))
        if number % 60 == 0:
            grown = max(grown, resident_mib() - before)
    cuts_s = time.perf_counter() - began_s
    began_s = time.perf_counter()
    for shard in shards:
        shard.snapshot()
    snapshot_s = time.perf_counter() - began_s
    return Kept(sum(len(shard.store) for shard in shards), most / 1e6, grown, cuts_s, snapshot_s)


def _minutes(new: int, rng: np.random.Generator) -> Iterator[U64]:
    """The events of each minute: new keys, and those of an hour ago once more."""
    recent: list[U64] = []
    for minute in range(DAYS * DAY_MS // MINUTE_MS):
        keys = rng.integers(1, 1 << 63, new).astype(np.uint64)
        recent.append(keys)
        some = np.concatenate([keys, recent.pop(0)]) if len(recent) > 60 else keys
        ts = T0_MS + minute * MINUTE_MS + rng.integers(0, MINUTE_MS, len(some))
        combos = rng.integers(0, len(_NAMES), len(some)) << COMBO_SHIFT
        yield np.column_stack([some, ts.astype(np.uint64), combos.astype(np.uint64)])


def main(keys: int) -> int:
    """Measure and print; exit code 1 where the bar is missed."""
    with tempfile.TemporaryDirectory(prefix="audiopixel-clients-") as name:
        found = kept(keys, Path(name))
    sizes = f"{found.most_mb:.0f}", f"{found.grown_mib:.0f}"
    times = f"{found.cuts_s:.1f}", f"{found.snapshot_s:.2f}"
    heads = ["keys a day", "kept", "most MB", "memory grown MiB", "cuts s", "snapshot s"]
    show([heads, [f"{keys:,}", f"{found.keys:,}", *sizes, *times]])
    missed = found.most_mb > MAX_MB
    print(f"{'miss' if missed else 'pass'}: MB of clients' keys and waiting events, at most {MAX_MB:g}")
    return int(missed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clients", description=__doc__)
    parser.add_argument("--keys", type=int, default=10_000_000)
    sys.exit(main(parser.parse_args().keys))
