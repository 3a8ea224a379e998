"""Since when a deployment counts: by each partition's first message, whatever is read first."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from connectors.redis.client import Client
from connectors.stream import Messages
from flows.engine.source import StopSignal
from flows.intake.decoder import Decoder
from flows.intake.partition import FORMAT, Intake
from flows.intake.watermark import PartitionClock, first_receipt
from flows.model.counted_since import CountedSince
from flows.model.ticks import MAX_HOLES, Holes, Tick, cut_at, joined
from flows.replay import replay
from flows.settings.fields import Settings

T0_MS = 1_764_000_000_000
KEY = b"a key of sixteen bytes or more"


def tick(
    name: str, first_ms: int = 0, *, holding: bool = True, ended: bool = False, skipped: bool = False
) -> Tick:
    return Tick(name, ("a", "b"), 1, 0, holding, ended, 0, 0, first_ms=first_ms, skipped=skipped)


def looked(*ticks: Tick) -> int:
    """The moment at a first cut, which is the same in any order."""
    found = {CountedSince().update(some) for some in itertools.permutations(ticks)}
    (since_ms,) = found
    return since_ms


def test_it_is_the_least_of_the_first_receipts() -> None:
    assert looked(tick("a", 300), tick("b", 200), tick("c", 250)) == 200


def test_a_start_with_skipped_messages_uses_the_greatest_time() -> None:
    assert looked(tick("a", 300), tick("b", 200, skipped=True), tick("c", 250)) == 300


def test_the_start_waits_for_unread_but_not_for_empty_partitions() -> None:
    assert looked(tick("a", 300), tick("b")) == 0
    assert looked(tick("a", 300), tick("b", holding=False)) == 300
    assert looked(tick("a", 300), tick("b", ended=True)) == 300
    assert looked(tick("a", holding=False), tick("b", holding=False)) == 0


def test_a_formerly_empty_partition_moves_the_start_only_earlier() -> None:
    """Its collector had received the message before, and Kafka was away."""
    since = CountedSince()
    assert since.update([tick("a", 300), tick("b", holding=False)]) == 300
    assert since.update([tick("a", 300), tick("b", 900)]) == 300
    assert since.update([tick("a", 300), tick("b", 280)]) == 280


def test_an_idle_partition_does_not_reset_a_skipping_start() -> None:
    since = CountedSince()
    assert since.update([tick("a", 300, skipped=True), tick("b", holding=False, skipped=True)]) == 300
    assert since.update([tick("a", 300, skipped=True), tick("b", 9_000, skipped=True)]) == 300


def test_behind_a_save_it_may_become_earlier_and_never_later() -> None:
    since = CountedSince(300)
    assert since.update([tick("a", 400), tick("b", holding=False)]) == 300
    assert since.update([tick("a", 400), tick("b", 200)]) == 200
    assert CountedSince(0).update([tick("a", 300)]) == 300, "an unknown one is found"
    skipping = CountedSince(300)
    assert skipping.update([tick("a", 400, skipped=True), tick("b", 200, skipped=True)]) == 300


def event(number: int = 0, ts: int = T0_MS, **more: Any) -> bytes:
    told = {"event_id": f"e{number}", "event": "impression", "ts": ts, "placement_id": "p", **more}
    return json.dumps(told).encode()


def mark(low_ms: int) -> bytes:
    return json.dumps({"collector": "c", "low_ms": low_ms}).encode()


@pytest.mark.parametrize(
    ("lines", "stamps", "right"),
    [
        ([event(ts=5, received_at=T0_MS)], None, T0_MS),
        ([event(ts=T0_MS - 7)], None, T0_MS - 7),
        ([event(ts=5, received_at=T0_MS)], [T0_MS - 60_001], T0_MS - 1),
        ([event(ts=5, received_at=T0_MS)], [T0_MS + 90_000], T0_MS),
        ([event(ts=5)], [T0_MS], T0_MS),
        ([event(ts=5)], [0], 5),
        ([b"{", event(ts=5)], [T0_MS - 1, T0_MS], T0_MS - 1),
        ([b"{", event(ts=9)], None, 9),
        ([mark(77), event(ts=99)], None, 77),
        ([mark(77), event(ts=99)], [T0_MS, T0_MS], T0_MS),
        ([b"{", b"[]"], None, 0),
    ],
    ids=[
        *("received", "its own clock", "bounded", "below its stamp", "the stamp", "no stamp", "junk's stamp"),
        *("junk without", "a mark", "a mark's stamp", "nothing"),
    ],
)
@pytest.mark.parametrize("scanning", [True, False])
def test_the_receipt_of_a_first_message(
    lines: list[bytes], stamps: list[int] | None, right: int, scanning: bool
) -> None:
    messages = Messages(lines, range(1, len(lines) + 1), len(lines) + 1, stamps)
    batch = Decoder(KEY, scanning=scanning).decode(messages)
    assert first_receipt(batch.pixels, messages, batch.collector_marks) == right


@dataclass
class Topic:
    """A partition of a topic, of which the first messages were deleted, or not."""

    position: int
    messages: list[bytes]
    lost: int = 0
    log_id = ""
    lag = errors = skipped = 0
    caught_up = in_history = False

    def read(self, limit: int) -> Messages | None:
        if not self.messages:
            self.caught_up = True
            return None
        first, self.position = self.position, self.position + 1
        lost, self.lost = self.lost, 0
        return Messages([self.messages.pop(0)], [first], self.position, [T0_MS + first], lost)

    def proven(self) -> bool:
        return not self.messages

    def commit(self, position: int) -> None: ...

    def close(self) -> None: ...


def opened(reader: Topic) -> Intake:
    return Intake("t/0", ("t/0",), reader, Decoder(KEY), PartitionClock(0, 0), 1, 10, live=True, ahead=False)


@pytest.mark.parametrize("start", [0, 17])
def test_a_tick_has_the_first_receipt_and_whether_the_start_skips(start: int) -> None:
    intake = opened(Topic(start, [event(1), event(2)]))
    receipt = intake.step(5, 5_000).receipt
    assert receipt is not None
    assert (receipt.tick.first_ms, receipt.tick.skipped) == (T0_MS + start, start > 0)
    state = intake.snapshot()
    assert state[0] == FORMAT
    again = opened(Topic(start + 2, [event(3)]))
    again.restore(state)
    receipt = again.step(6, 6_000).receipt
    assert receipt is not None
    assert (receipt.tick.first_ms, receipt.tick.skipped) == (T0_MS + start, start > 0)


def test_the_time_of_lost_messages_is_a_hole() -> None:
    topic = Topic(0, [event(1), event(2)])
    intake = opened(topic)

    def holes(number: int) -> Holes:
        receipt = intake.step(number, 1_000 * number).receipt
        assert receipt is not None
        return receipt.tick.holes

    assert holes(5) == holes(6) == ()
    topic.position, topic.lost = 7_000, 6_998
    topic.messages = [event(3), event(4)]
    lost = ((T0_MS + 1, T0_MS + 7_000),)
    assert holes(7) == holes(8) == lost
    again = opened(Topic(9_000, [event(5)], lost=5))
    again.restore(intake.snapshot())
    receipt = again.step(9, 9_000).receipt
    assert receipt is not None
    assert receipt.tick.holes == (*lost, (T0_MS + 7_001, T0_MS + 9_000)), (
        "also where the start moves over some"
    )
    first = opened(Topic(50, [event(1)], lost=50)).step(1, 1_000).receipt
    assert first is not None
    assert first.tick.holes == (), "nothing was counted before"


def test_holes_are_joined_and_too_many_merge_the_nearest() -> None:
    assert joined([(5, 9), (1, 3), (8, 12), (3, 4)]) == ((1, 4), (5, 12))
    many = [(100 * n, 100 * n + 10 + n) for n in range(MAX_HOLES + 1)]
    assert joined(many) == (*many[:-2], (many[-2][0], many[-1][1]))
    ticks = {name: replace(tick(name, 5), holes=hole) for name, hole in (("a", ((1, 3),)), ("b", ((2, 7),)))}
    assert cut_at(ticks, 1).holes == ((1, 7),)


def written(directory: Path, parts: Sequence[Sequence[bytes]]) -> list[str]:
    paths = [directory / f"part-{number}.ndjson" for number in range(len(parts))]
    for path, lines in zip(paths, parts, strict=True):
        path.write_bytes(b"".join(line + b"\n" for line in lines))
    return list(map(str, paths))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("turned", [False, True])
def test_a_replay_reads_the_start_from_the_first_lines(
    workers: int, turned: bool, settings_of: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    parts = [
        [
            event(part * 1000 + n, T0_MS + n * 60_000, received_at=T0_MS + n * 60_000 + late)
            for n in range(300)
        ]
        for part, late in enumerate((5_000, 1_000, 90_000))
    ]
    parts[1][1:] = rng.permutation(parts[1][1:]).tolist()
    paths = written(tmp_path, [*parts, []])
    settings = settings_of(batch_messages=7)
    replay(paths[::-1] if turned else paths, settings, KEY, workers=workers)
    meta = client.hgetall(f"{settings.namespace}:meta")
    assert int(meta["counted_since_ms"]) == T0_MS + 1_000


def test_a_resumed_replay_reads_the_start_from_its_save(
    settings_of: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    paths = written(tmp_path, [[event(n, T0_MS + n, received_at=T0_MS + n) for n in range(40_000)]])
    settings, stop = settings_of(batch_messages=100), StopSignal()
    stop.set()
    more: dict[str, Any] = {"recovery_dir": tmp_path / "recovery"}
    replay(paths, settings, KEY, stop=stop, **more)
    replay(paths, settings, KEY, **more)
    meta = client.hgetall(f"{settings.namespace}:meta")
    assert int(meta["counted_since_ms"]) == T0_MS
