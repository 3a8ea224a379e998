"""Two writers of one bucket: whichever is stopped at whichever call of the store, no message is lost."""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from archive_support import HOUR_MS, messages_of, pixel
from structlog.testing import capture_logs

from connectors.durable import Taken
from connectors.objects import Away, NotThere
from connectors.stream import Messages
from flows.archive import Ledgers, check
from flows.archive.writer import Writer
from flows.errors import StateError
from flows.settings import Settings
from flows.state.people import People

HISTORIES = int(os.environ.get("ARCHIVE_HISTORIES", "60"))
KEY = People(b"a key of the archive").listener(b"CANARY")
DAY_MS = 24 * HOUR_MS
TOPIC = "pixels"


class Killed(BaseException):
    """End a writer like a SIGKILL: no later code runs."""


class Bucket:
    """Objects in memory, with a new tag for each version, as S3 has them."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, str]] = {}
        self._tags = itertools.count()

    def alone(self) -> Any:
        return nullcontext()

    def put(self, path: str, body: bytes) -> None:
        self.objects[path] = body, f"t{next(self._tags)}"

    def swap(self, path: str, body: bytes, tag: str | None) -> str | None:
        if self.objects.get(path, (b"", None))[1] != tag:
            raise Taken
        self.put(path, body)
        return self.objects[path][1]

    def get(self, path: str) -> tuple[bytes, str | None]:
        if path not in self.objects:
            raise NotThere(f"{path}: is not there")
        return self.objects[path]

    def delete(self, path: str) -> None:
        self.objects.pop(path, None)

    def names(self, prefix: str) -> list[str]:
        return sorted(path for path in self.objects if path.startswith(f"{prefix}/"))


class Called:
    """A bucket that runs `before` with each call, and `after` behind it."""

    def __init__(self, bucket: Bucket, before: Callable[[str], None], after: Callable[[str], None]) -> None:
        self._bucket, self._before, self._after = bucket, before, after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._bucket, name)
        if name == "alone":
            return method

        def call(*args: Any) -> Any:
            self._before(name)
            answer = method(*args)
            self._after(name)
            return answer

        return call


class Log:
    """A topic of one partition, in place of Kafka's."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, int]] = []
        self.log_id = "T"

    def __call__(self, *_: Any, **__: Any) -> Log:
        return self

    def partitions(self) -> list[str]:
        return [f"{TOPIC}/0"]

    def open(self, name: str, position: int | None, log_id: str = "") -> LogReader:
        return LogReader(self, position or 0)


class LogReader:
    """The reader of a `Log`."""

    log_id, lag = "T", 0

    def __init__(self, log: Log, position: int) -> None:
        self._log, self.position = log, position

    def read(self, limit: int) -> Messages | None:
        some = self._log.messages[self.position : self.position + min(limit, 40)]
        if not some:
            return None
        positions = range(self.position, self.position + len(some))
        self.position = positions.stop
        return Messages([value for value, _ in some], positions, positions.stop, [at for _, at in some])

    def proven(self) -> bool:
        return self.position == len(self._log.messages)

    def close(self) -> None: ...


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()
    monkeypatch.setattr("flows.archive.writer.KafkaInput", log)
    monkeypatch.setattr("flows.archive.writer.REST_S", 0.0)
    monkeypatch.setattr("flows.archive.writer.AGAIN_S", 0.0)
    return log


def settings() -> Settings:
    return Settings(
        kafka_topic=TOPIC, listener_key="a key of the archive", archive_port=0, archive_forget_interval=0,
        archive_bytes=1 << 16,
    )  # fmt: skip


def grow(log: Log, count: int, day: int) -> None:
    """Add messages of a day; every thirtieth is of the listener who is forgotten."""
    for n in range(len(log.messages), len(log.messages) + count):
        value = pixel(n, listener_id="CANARY" if n % 30 == 0 else f"L{n}")
        log.messages.append((value, day * DAY_MS + n))


def write(store: Any, forgotten: bool = False) -> str:
    """Run a writer to the present end of the topic. Returns how it ended."""
    denied = np.array([KEY] if forgotten else [], np.uint64)
    try:
        Writer(settings(), store, threading.Event(), once=True, denied=lambda: denied).run()
    except StateError as error:
        return "ended" if "has claimed this archive" in str(error) else str(error)
    except Killed:
        return "killed"
    return "done"


class Turns:
    """Lets one of several writers run at a time; the seed decides at each call of the store who goes on."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.calls = 0
        self._condition, self._writers, self._turn = threading.Condition(), set[int](), -1

    def run(self, stores: Bucket, kills: float) -> list[str]:
        """Run two writers by turns, with one deny-list. Returns how they ended."""
        ends, forgotten = ["", ""], self.rng.random() < 0.5

        def at(writer: int) -> Callable[[str], None]:
            def pass_on(_: str) -> None:
                self.calls += 1
                with self._condition:
                    self._turn = self.rng.choice(sorted(self._writers))
                    self._condition.notify_all()
                    self._condition.wait_for(lambda: self._turn == writer)
                if self.rng.random() < kills:
                    raise Killed

            return pass_on

        def live(writer: int) -> None:
            with self._condition:
                self._condition.wait_for(lambda: self._turn == writer)
            try:
                store = Called(stores, at(writer), at(writer))
                ends[writer] = write(store, forgotten)
            finally:
                with self._condition:
                    self._writers.discard(writer)
                    self._turn = next(iter(self._writers), -1)
                    self._condition.notify_all()

        threads = [threading.Thread(target=live, args=(writer,)) for writer in (0, 1)]
        self._writers = {0, 1}
        for thread in threads:
            thread.start()
        with self._condition:
            self._turn = self.rng.choice((0, 1))
            self._condition.notify_all()
        for thread in threads:
            thread.join()
        return ends


def assert_whole(bucket: Bucket, log: Log) -> None:
    found = check(bucket)  # type: ignore[arg-type]
    assert found.wrong == []
    offsets = [offset for _, offset, _, _ in messages_of(bucket)]  # type: ignore[arg-type]
    assert offsets == list(range(len(log.messages)))


def test_two_writers_lose_nothing_in_any_order(log: Log) -> None:
    ends, calls = dict[str, int](), 0
    for seed in range(HISTORIES):
        bucket, turns = Bucket(), Turns(seed)
        log.messages = []
        grow(log, 60, 1)
        write(bucket)
        for day in range(1, 4):  # a day begins a new part
            grow(log, turns.rng.randrange(200), day)
            for end in turns.run(bucket, kills=turns.rng.choice((0.0, 0.02))):
                ends[end] = ends.get(end, 0) + 1
        calls += turns.calls
        assert write(bucket, forgotten=True) == "done", seed
        assert_whole(bucket, log)
        assert not any(b"CANARY" in line for *_, line in messages_of(bucket)), seed  # type: ignore[arg-type]
    print(f"{HISTORIES:,} histories, {calls:,} calls of the store, {ends}, 0 messages lost")
    assert min(ends.get(end, 0) for end in ("done", "ended", "killed")) > HISTORIES // 10


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_second_writer_at_each_call_of_the_first_loses_nothing(log: Log, forgotten: bool) -> None:
    def history(stop_at: int) -> bool:
        bucket, left = Bucket(), stop_at
        log.messages = []
        grow(log, 130, 1)
        write(bucket)
        grow(log, 130, 2)

        def other(_: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                assert write(bucket, forgotten) == "done"
                grow(log, 130, 3)

        end = write(Called(bucket, other, other), forgotten)
        assert end in ("done", "ended")
        assert write(bucket) == "done"
        assert_whole(bucket, log)
        return left > 0

    stops = next(stop_at for stop_at in range(1, 1_000) if history(stop_at))
    assert stops > 20


def damaged(bucket: Bucket, rng: random.Random) -> set[str]:
    """Flip a byte of one segment, delete another, and exchange two. Returns their paths."""
    flipped, gone, one, other = rng.sample(bucket.names("segments"), 4)
    body, tag = bucket.objects[flipped]
    bucket.objects[flipped] = body[:30] + bytes([body[30] ^ 64]) + body[31:], tag
    del bucket.objects[gone]
    bucket.objects[one], bucket.objects[other] = bucket.objects[other], bucket.objects[one]
    return {flipped, gone, one, other}


@pytest.mark.parametrize("seed", range(5))
def test_a_writer_goes_on_with_damaged_segments_and_an_ill_store(log: Log, seed: int) -> None:
    bucket, rng, calls = Bucket(), random.Random(seed), itertools.count(1)

    def fail(name: str) -> None:
        if next(calls) % 10 == 0:
            raise Away(f"{name}: answers 500")

    for day in range(1, 8):
        grow(log, 100, day)
        assert write(bucket) == "done"
    bad = damaged(bucket, rng)
    before, named_in_log = len(log.messages), list[str]()
    for day in range(8, 11):
        grow(log, 100, day)
        # An answer that is lost behind the call leaves the call done.
        with capture_logs() as logged:
            assert write(Called(bucket, fail, fail), forgotten=True) == "done"
        named_in_log += [str(line["path"]) for line in logged if "path" in line]
    found = check(bucket)  # type: ignore[arg-type]
    named = {line.partition(":")[0] for line in found.wrong}
    assert named == bad
    assert found.messages == before + 300
    assert sorted(named_in_log) == sorted(bad), "each is logged once"
    removed = bucket.objects["forgotten.json"][0]
    assert f"{KEY:016x}".encode() not in removed, "nobody is removed while a segment cannot be read"
    assert all(path.encode() in removed for path in bad)


def test_a_damaged_part_and_a_stray_object_do_not_stop_the_writer(log: Log) -> None:
    bucket = Bucket()
    for day in (1, 2, 3):
        grow(log, 100, day)
        assert write(bucket) == "done"
    first, *_ = bucket.names("manifest")
    bucket.put(first, b"{")
    bucket.put("manifest/notes.json", b"{}")
    bucket.put("segments/00000/stray.ndjson.zst", b"x")
    grow(log, 100, 4)
    assert write(bucket, forgotten=True) == "done"
    assert "segments/00000/stray.ndjson.zst" in bucket.objects
    assert first.encode() in bucket.objects["forgotten.json"][0]
    bucket.put(first, b"")
    found = check(bucket)  # type: ignore[arg-type]
    assert any(line.startswith(f"{first}: is no part") for line in found.wrong)


class Ledger:
    """A flow's ledger of two partitions, and the topic behind the archive."""

    def __init__(self, log: Log, **rows: dict[str, str]) -> None:
        self.rows = {name.replace("_", "/"): row for name, row in rows.items()}
        self.as_ledgers = Ledgers(
            [*self.rows],
            lambda name: self.rows[name],
            {},
            lambda name, position: log.open(name, position),  # type: ignore[arg-type, return-value]
        )


@pytest.mark.parametrize(
    ("age_s", "lost", "says"),
    [
        (10, False, ("behind", "100 messages before the flow's position 300 are not archived yet")),
        (3_600, False, ("wrong", "300 are not archived yet, the first for 60 minutes")),
        (10, True, ("wrong", "Kafka lacks messages")),
    ],
)  # fmt: skip
def test_check_counts_by_how_much_an_archive_is_behind_the_flow(
    log: Log, age_s: int, lost: bool, says: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.archive.checking.WAIT_S", 0.1)
    bucket, now_ms = Bucket(), int(time.time() * 1000)
    grow(log, 200, 1)
    write(bucket)
    log.messages += [(pixel(n), now_ms - age_s * 1000) for n in range(0 if lost else 100)]
    ledger = Ledger(log, pixels_0={"position": "300", "received": "300"})
    found = check(bucket, ledger.as_ledgers)  # type: ignore[arg-type]
    (line,) = getattr(found, says[0])
    assert says[1] in line
    assert len(found.wrong) + len(found.behind) == 1


def test_check_names_a_partition_that_the_archive_lacks_and_all_damage(log: Log) -> None:
    bucket = Bucket()
    for day in range(1, 6):
        grow(log, 100, day)
        write(bucket)
    bad = damaged(bucket, random.Random(1))
    ledger = Ledger(
        log,
        pixels_0={"position": "450", "received": "450"},
        pixels_1={"position": "77", "received": "70", "marks": "7"},
    )
    found = check(bucket, ledger.as_ledgers)  # type: ignore[arg-type]
    assert {line.partition(":")[0] for line in found.wrong} == bad | {"pixels/1"}
    assert "pixels/1: is not in the archive, and the ledger has 77 messages of it" in found.wrong
