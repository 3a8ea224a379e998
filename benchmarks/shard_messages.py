"""How many messages a cut sends between steps, by shards: `python -m benchmarks.shard_messages`.

A replay of a small log runs once for each number of shards. Each message of each step is counted, with the
keys that sent and received it. The keys' members in a cluster follow from the engine's own rule, so that the
messages that would cross from one process to another are counted in one process. They are pickled, as the
engine does, and unpickled, and the time of that is a column of its own.
"""

from __future__ import annotations

import argparse
import logging
import pickle
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple
from unittest.mock import patch

import structlog

from benchmarks.bars import finish
from benchmarks.flow_file import KEY
from benchmarks.measure import UNPLANNED
from benchmarks.plain_log import write_log
from connectors.embedded import EmbeddedValkey
from flows.engine.pickled import pickle_once
from flows.engine.place import member_of
from flows.engine.saved_step import Saved
from flows.model.messages import Message, key_of
from flows.replay import replay
from flows.settings.loading import load

EVENTS: Final = 40_000
RATE: Final = 100
CLUSTERS: Final = {8: 4, 32: 8, 93: 12}
"""Shards, and the members of a cluster that shares them."""


class Counted(NamedTuple):
    """The counts of a replay.

    Attributes:
        cuts: how many.
        messages: all of them.
        between: those whose sender and receiver are on different members.
        bytes: of those, pickled.
        pickle_s: seconds of the processor to pickle and unpickle them.
        cpu_s: seconds of the processor of the replay, without that.
    """

    cuts: int
    messages: int
    between: int
    bytes: int
    pickle_s: float
    cpu_s: float


def count(shards: int, members: int, log: Path, redis_url: str, directory: Path) -> Counted:
    """Replay the log and count the messages of all steps behind `intake`."""
    cuts, tally = Counter[str](), Counter(messages=0, between=0, bytes=0)
    member, pickle_s = cache(lambda key: member_of(key, members)), 0.0
    on_batch, save = Saved.on_batch, Saved.save

    def counting(step: Any, values: list[Any]) -> tuple[Iterable[Message], bool]:
        nonlocal pickle_s
        messages, gone = on_batch(step, values)
        out = list(messages)
        between = [message for message in out if member(key_of(message)) != member(step._key)]
        began_s = time.thread_time()
        for message in between:
            pickle.dumps(message)  # as the engine does: once for its size
            pickled = pickle.dumps(message)
            pickle.loads(pickled)
            tally["bytes"] += len(pickled)
        pickle_s += time.thread_time() - began_s
        tally.update(messages=len(out), between=len(between))
        return out, gone

    def cutting(step: Any, cut: Any) -> None:
        cuts[step._step + step._key] += 1
        save(step, cut)

    pickle_once()
    settings = load(redis_url=redis_url, namespace=f"bench:{shards}", shards=shards, **UNPLANNED)
    with patch.object(Saved, "on_batch", counting), patch.object(Saved, "save", cutting):
        began_s = time.process_time()
        replay([str(log)], settings, KEY, recovery_dir=directory)
        cpu_s = time.process_time() - began_s
    return Counted(max(cuts.values()), **tally, pickle_s=pickle_s, cpu_s=cpu_s - pickle_s)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shard_messages", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="short: 8 shards alone")
    smoke = parser.parse_args().smoke
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    heads = ("members", "messages a cut", "4 S² + 8 S + 3", "between members", "KiB", "pickled in ms")
    table = [["shards", *heads, "all else, CPU ms a cut"]]
    figures = dict[str, float]()
    with EmbeddedValkey() as valkey, tempfile.TemporaryDirectory(prefix="audiopixel-shards-") as name:
        log = Path(name, "log.ndjson")
        write_log(log, EVENTS, 1, rate=RATE)
        count(8, 1, log, valkey.url, Path(name, "warm"))
        for shards, members in list(CLUSTERS.items())[: 1 if smoke else None]:
            counted = count(shards, members, log, valkey.url, Path(name, str(shards)))
            counts = (counted.messages, 0, counted.between, counted.bytes / 1024)
            cells = [f"{total / counted.cuts:,.0f}" for total in counts]
            cells[1] = f"{4 * shards**2 + 8 * shards + 3:,}"
            times = [f"{1e3 * seconds / counted.cuts:,.1f}" for seconds in (counted.pickle_s, counted.cpu_s)]
            table.append([str(shards), str(members), *cells, *times])
            figures[f"between.{shards}"] = counted.between / counted.cuts
    about = f"a replay of {EVENTS:,} events, {RATE} a second, in {counted.cuts} cuts"
    return finish("shard_messages", about, table, figures, not smoke)


if __name__ == "__main__":
    sys.exit(main())
