"""Plain Bytewax: its own operators as its documentation has them, with fast parts.

Typed msgspec decoding, `key_on` the placement, `fold_window` over event-time minutes with the built-in clock,
values in order (its default), 1,000 lines at once, repeats known by each play's pixels, listeners as cached
keyed hashes in the same sketch as ours (a set to 1,000, then 16,384 registers), recovery on, and each minute
written to Redis once, when it closes, in pipelines. `benchmarks.plain_tuned` goes further.

It counts impressions and starts as we do. Left out, in its favour: the start cohort (a milestone falls in
its own minute), provisional numbers, rolling windows, days, flights, roll-ups, lateness by partition, dead
letters, the ledger, and that a write repeated after a crash must not go backwards.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import bytewax.operators as op
import bytewax.operators.windowing as window
import numpy as np
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import run_main
from redis import Redis

from benchmarks.measure import Answers, Job, Meter, Result
from flows.intake.schema import Event, decode
from flows.model.events import CODES
from flows.rows.reach import EXACT_UP_TO
from flows.state.hyperloglog import REGISTERS, estimate, histogram

METRICS = ("impressions", "starts", "first_quartiles", "midpoints", "third_quartiles", "completes")

_KEY = b"sixteen secret b"
_listeners: dict[str, int] = {}


class Reach:
    """Distinct 64-bit hashes: a set, then registers."""

    __slots__ = ("registers", "some")

    def __init__(self) -> None:
        self.some: set[int] = set()
        self.registers: bytearray | None = None

    def add(self, who: int) -> None:
        """Add one."""
        if self.registers is None:
            self.some.add(who)
            if len(self.some) <= EXACT_UP_TO:
                return
            self.registers = bytearray(REGISTERS)
            for one in self.some:
                self._raise(self.registers, one)
            self.some.clear()
        else:
            self._raise(self.registers, who)

    @staticmethod
    def _raise(registers: bytearray, who: int) -> None:
        place, rank = who >> 50, 51 - (who & (1 << 50) - 1).bit_length()
        if rank > registers[place]:
            registers[place] = rank

    def count(self) -> int:
        """How many."""
        if self.registers is None:
            return len(self.some)
        return round(estimate(histogram(np.frombuffer(self.registers, np.uint8))))


class Minute:
    """One placement's minute."""

    __slots__ = ("counts", "reach", "seen")

    def __init__(self) -> None:
        self.counts = [0] * len(CODES)
        self.seen: dict[str | None, int] = {}
        self.reach = Reach()


def _fold(minute: Minute, event: Event) -> Minute:
    code = CODES[event.event]
    before = minute.seen.get(event.play_id, 0)
    if before >> code & 1:
        return minute
    minute.seen[event.play_id] = before | 1 << code
    minute.counts[code] += 1
    if code < 2 and event.consent and event.listener_id:
        who = event.listener_id
        minute.reach.add(_listeners.get(who) or _listener(who))
    return minute


def _listener(who: str) -> int:
    hashed = int.from_bytes(blake2b(who.encode(), digest_size=8, key=_KEY).digest(), "little")
    _listeners[who] = hashed
    return hashed


def _merge(one: Minute, other: Minute) -> Minute:
    raise AssertionError("tumbling windows do not merge")


class _Lines(StatefulSourcePartition[bytes, int]):
    def __init__(self, file: BinaryIO, position: int | None, batch_lines: int) -> None:
        self._file, self._batch_lines = file, batch_lines
        file.seek(position or 0)

    def next_batch(self) -> list[bytes]:
        lines = list(islice(self._file, self._batch_lines))
        if not lines:
            raise StopIteration
        return lines

    def snapshot(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


class _Log(FixedPartitionedSource[bytes, int]):
    def __init__(self, path: str, batch_lines: int) -> None:
        self._path, self._batch_lines = path, batch_lines

    def list_parts(self) -> list[str]:
        return [self._path]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _Lines:
        return _Lines(open(self._path, "rb", 1 << 20), resume_state, self._batch_lines)


_Closed = tuple[str, tuple[int, Minute]]


class _RedisPartition(StatelessSinkPartition[_Closed]):
    def __init__(self, url: str, namespace: str) -> None:
        self._client, self._namespace = Redis.from_url(url), namespace

    def write_batch(self, items: list[_Closed]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for placement, (number, minute) in items:
            fields: dict[Any, Any] = dict(zip(METRICS, minute.counts, strict=False))
            fields["reach"] = minute.reach.count()
            pipeline.hset(f"{self._namespace}:{placement}|{number * 60_000}", mapping=fields)
        pipeline.execute()

    def close(self) -> None:
        self._client.close()


class _RedisSink(DynamicSink[_Closed]):
    def __init__(self, url: str, namespace: str) -> None:
        self._url, self._namespace = url, namespace

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _RedisPartition:
        return _RedisPartition(self._url, self._namespace)


def _happened(event: Event) -> datetime:
    return datetime.fromtimestamp(event.ts / 1000, UTC)  # this log's are integers


def _flow(log: str, sink: _RedisSink, batch_lines: int, ordered: bool) -> Dataflow:
    flow = Dataflow("plain")
    lines = op.input("lines", flow, _Log(log, batch_lines))
    events = op.flat_map_batch("decode", lines, lambda batch: map(decode, batch))
    by_placement = op.key_on("placement", events, lambda event: event.placement_id or "")
    minutes = window.fold_window(
        "minutes",
        by_placement,
        window.EventClock(_happened, timedelta(seconds=10)),
        window.TumblingWindower(timedelta(minutes=1), datetime(1970, 1, 1, tzinfo=UTC)),
        Minute,
        _fold,
        _merge,
        ordered=ordered,
    )
    op.output("redis", minutes.down, sink)
    return flow


def run(job: Job, batch_lines: int = 1_000, ordered: bool = True) -> Result:
    """Run the flow over the log into Redis."""

    def once(log: str, name: str) -> None:
        store = Path(job.scratch, name)
        store.mkdir()
        init_db_dir(store, 8)
        run_main(
            _flow(log, _RedisSink(job.redis_url, f"{job.scratch}:{name}"), batch_lines, ordered),
            epoch_interval=timedelta(seconds=10),
            recovery_config=RecoveryConfig(str(store)),
        )

    once(job.warm, "warm")
    with Meter() as meter:
        once(job.log, "log")
    return meter.result(job.events, Answers({}, _minutes(job.redis_url, f"{job.scratch}:log")))


def _minutes(url: str, namespace: str) -> dict[str, dict[str, int]]:
    with Redis.from_url(url, decode_responses=True) as client:
        keys = list(client.scan_iter(f"{namespace}:*", count=1000))
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.hmget(key, ["impressions", "starts"])
        return {
            key.removeprefix(f"{namespace}:"): {"impressions": int(impressions), "starts": int(starts)}
            for key, (impressions, starts) in zip(keys, pipeline.execute(), strict=True)
        }
