"""The spool: what was taken rests through any kill, in order, and goes when it is acknowledged."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors import spool as module
from connectors.spool import Record, Spool, SpoolError, SpoolFullError

MIB = 1 << 20


def body(n: int, size: int = 0) -> bytes:
    return json.dumps({"n": n, "pad": "x" * size}, separators=(",", ":")).encode()


def bodies(spool: Spool, most: int = 1_000_000) -> list[int]:
    return [json.loads(record.body)["n"] for record in spool.take(most)]


def killed(spool: Spool) -> None:
    """As far as the disk knows: the directory is free, and nothing else was done."""
    os.close(spool._lock)


def failing(*_: object) -> None:
    raise OSError(28, "No space left on device")


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.ndjson"))


def test_waiting_records_come_in_order_also_after_a_restart(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", MIB)
    spool.append([body(1), body(2)])
    spool.append([body(3)])
    assert bodies(spool, 2) == [1, 2]
    assert bodies(spool) == [3]
    assert spool.resting == 3
    spool.close()
    again = Spool(tmp_path / "s", MIB)
    assert (again.resting, again.torn) == (3, 0)
    assert bodies(again) == [1, 2, 3]


def test_acknowledged_records_and_their_segments_are_deleted(tmp_path: Path) -> None:
    spool = Spool(tmp_path, MIB, segment_bytes=100)
    for n in range(10):
        spool.append([body(n, 50)])
    assert len(segments(tmp_path)) > 3
    records = spool.take(10)
    spool.acknowledge([record.number for record in reversed(records[3:])])
    assert spool.resting == 3
    spool.acknowledge([record.number for record in records[:3]])
    assert (spool.resting, spool.bytes, segments(tmp_path)) == (0, 0, [])
    spool.append([body(10)])
    assert bodies(spool) == [10]


def test_a_start_yields_only_records_after_the_cursor(tmp_path: Path) -> None:
    spool = Spool(tmp_path, MIB)
    spool.append([body(n) for n in range(10)])
    spool.acknowledge([record.number for record in spool.take(4)])
    spool.close()
    assert bodies(Spool(tmp_path, MIB)) == list(range(4, 10))


def test_a_returned_record_comes_before_all_others(tmp_path: Path) -> None:
    spool = Spool(tmp_path, MIB)
    spool.append([body(n) for n in range(5)])
    spool.give_back(spool.take(3))
    assert bodies(spool, 4) == [0, 1, 2, 3]
    assert bodies(spool) == [4]


def test_a_torn_tail_is_cut_counted_and_written_over(tmp_path: Path) -> None:
    spool = Spool(tmp_path, MIB)
    spool.append([body(1), body(2), body(3)])
    spool.close()
    (path,) = segments(tmp_path)
    path.write_bytes(path.read_bytes()[:-7])
    torn = Spool(tmp_path, MIB)
    assert (torn.torn, torn.resting) == (1, 2)
    torn.append([body(4)])
    torn.close()
    whole = Spool(tmp_path, MIB)
    assert whole.torn == 0
    assert bodies(whole) == [1, 2, 4]


def test_a_damaged_record_is_passed_over_and_the_others_are_not(tmp_path: Path) -> None:
    spool = Spool(tmp_path, MIB)
    spool.append([body(n) for n in range(5)])
    spool.close()
    (path,) = segments(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"n":2', b'"n":7'))
    damaged = Spool(tmp_path, MIB)
    assert (damaged.torn, damaged.resting) == (1, 4)
    records = damaged.take(10)
    assert [json.loads(record.body)["n"] for record in records] == [0, 1, 3, 4]
    damaged.acknowledge([record.number for record in records])
    assert (damaged.resting, segments(tmp_path)) == (0, [])


def test_a_truncated_older_segment_stops_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, MIB, segment_bytes=60)
    for n in range(9):
        spool.append([body(n, 30)])
    spool.close()
    path = segments(tmp_path)[1]
    path.write_bytes(path.read_bytes()[:-7])
    cut = Spool(tmp_path, MIB)
    records = cut.take(20)
    assert cut.torn == 1
    assert len(records) == cut.resting == 8
    cut.acknowledge([record.number for record in records])
    assert (cut.resting, segments(tmp_path)) == (0, [])


def test_a_full_spool_refuses_new_records_and_keeps_the_old(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 500)
    spool.append([body(1, 100), body(2, 100)])
    with pytest.raises(SpoolFullError):
        spool.append([body(3), body(4, 300)])
    assert bodies(spool) == [1, 2]


def test_a_disk_failure_within_a_record_leaves_no_half_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, MIB)
    spool.append([body(1)])

    def half(file: int, content: bytes) -> None:
        os.write(file, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write", half)
        with pytest.raises(OSError, match="No space"):
            spool.append([body(2)])
    spool.append([body(3)])
    assert bodies(spool) == [1, 3]
    spool.close()
    assert bodies(Spool(tmp_path, MIB)) == [1, 3]


def test_a_failed_first_write_does_not_fail_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, MIB)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing)
        with pytest.raises(OSError, match="No space"):
            spool.append([body(1)])
    spool.append([body(2), body(3)])
    first, second = spool.take(2)
    spool.acknowledge([first.number])
    assert json.loads(second.body)["n"] == 3
    assert len(segments(tmp_path)) == 1
    killed(spool)
    assert 3 in bodies(Spool(tmp_path, MIB))


def test_a_file_left_empty_by_a_kill_does_not_lose_the_next(tmp_path: Path) -> None:
    spool = Spool(tmp_path, MIB)
    spool.append([body(1), body(2)])
    killed(spool)
    (tmp_path / f"{3:020d}.ndjson").write_bytes(b'{"n":3,"pa')
    spool = Spool(tmp_path, MIB)
    spool.append([body(3)])
    spool.acknowledge([record.number for record in spool.take(2)])
    assert bodies(spool) == [3]
    killed(spool)
    assert bodies(Spool(tmp_path, MIB))[-1] == 3


def test_a_failed_write_left_on_disk_hides_no_later_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, MIB)
    spool.append([body(1)])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing)
        patch.setattr(os, "ftruncate", failing)
        with pytest.raises(OSError, match="No space"):
            spool.append([body(8), body(9)])
    spool.append([body(2)])
    assert bodies(spool) == [1, 2]
    killed(spool)
    again = Spool(tmp_path, MIB)
    assert bodies(again) == [1, 2]
    assert again.resting == 2


def test_the_next_write_creates_a_file_that_failed_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, MIB)
    with monkeypatch.context() as patch:
        patch.setattr(module, "sync_directory", failing)
        with pytest.raises(OSError, match="No space"):
            spool.append([body(1)])
    spool.append([body(2)])
    assert bodies(spool) == [2]


def test_a_full_disk_still_takes_the_cursor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, MIB, segment_bytes=100)
    for n in range(9):
        spool.append([body(n, 60)])
    monkeypatch.setattr(module, "replace_file", failing)  # no new file, and no longer one
    spool.acknowledge([record.number for record in spool.take(6)])
    assert len(segments(tmp_path)) < 9
    killed(spool)
    assert bodies(Spool(tmp_path, MIB))[-3:] == [6, 7, 8]


def test_a_record_damaged_on_disk_is_skipped_and_counted(tmp_path: Path) -> None:
    spool = Spool(tmp_path, MIB)
    spool.append([body(n) for n in range(5)])
    (path,) = segments(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"n":2', b'"n":7'))
    records = spool.take(5)
    spool.acknowledge([record.number for record in records])
    assert [json.loads(record.body)["n"] for record in records] == [0, 1, 3, 4]
    assert (spool.torn, spool.resting) == (1, 0)


@given(st.randoms(use_true_random=False))
def test_kills_with_torn_ends_lose_only_the_torn_records(
    tmp_path_factory: pytest.TempPathFactory, rng: random.Random
) -> None:
    directory = tmp_path_factory.mktemp("spool")
    spool = Spool(directory, MIB, segment_bytes=200)
    sent, resting = 0, set[int]()
    for _ in range(30):
        act = rng.random()
        if act < 0.5:
            count = rng.randint(1, 5)
            spool.append([body(n) for n in range(sent, sent + count)])
            resting |= set(range(sent, sent + count))
            sent += count
        elif act < 0.75:
            records = spool.take(rng.randint(1, 6))
            spool.acknowledge([record.number for record in records])
            resting -= {json.loads(record.body)["n"] for record in records}
        else:
            killed(spool)
            if segments(directory) and rng.random() < 0.5:
                path = segments(directory)[-1]
                lines = path.read_bytes().splitlines(keepends=True)
                whole = rng.randint(0, len(lines))
                path.write_bytes(b"".join(lines[:whole]) + b"".join(lines[whole:])[: rng.randint(0, 20)])
                resting -= {json.loads(line)["n"] for line in lines[whole:]}
            spool = Spool(directory, MIB, segment_bytes=200)
            assert spool.resting >= len(resting)
    records = spool.take(1_000)
    assert resting <= {json.loads(record.body)["n"] for record in records}
    spool.acknowledge([record.number for record in records])
    assert spool.resting == 0


def test_one_process_owns_a_directory(tmp_path: Path) -> None:
    spool = Spool(tmp_path, MIB)
    with pytest.raises(SpoolError, match="another process"):
        Spool(tmp_path, MIB)
    spool.close()
    Spool(tmp_path, MIB).close()


def test_any_line_reader_reads_a_segment(tmp_path: Path) -> None:
    spool = Spool(tmp_path, MIB)
    spool.append([body(1), b'{"_crc":"mine","n":2}'])
    lines = segments(tmp_path)[0].read_text().splitlines()
    assert [json.loads(line)["n"] for line in lines] == [1, 2]
    assert bodies(spool) == [1, 2]


def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir(mode=0o755)
    spool = Spool(tmp_path / "s", MIB)
    spool.append([body(1)])
    spool.close()
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "s").iterdir()} == {0o600}


@given(st.randoms(use_true_random=False))
def test_each_record_is_yielded_until_it_is_acknowledged(
    tmp_path_factory: pytest.TempPathFactory, rng: random.Random
) -> None:
    directory = tmp_path_factory.mktemp("spool")
    spool = Spool(directory, MIB, segment_bytes=rng.choice((60, 200, 5_000)))
    sent, taken, resting = 0, dict[int, int](), list[int]()
    for _ in range(40):
        act = rng.random()
        if act < 0.4:
            count = rng.randint(1, 5)
            spool.append([body(n) for n in range(sent, sent + count)])
            resting += range(sent, sent + count)
            sent += count
        elif act < 0.6:
            taken |= {record.number: json.loads(record.body)["n"] for record in spool.take(rng.randint(1, 6))}
        elif act < 0.9:
            some = rng.sample(sorted(taken), rng.randint(0, len(taken)))
            spool.acknowledge(some)
            for number in some:
                resting.remove(taken.pop(number))
        else:
            spool.close()
            spool = Spool(directory, MIB, segment_bytes=rng.choice((60, 200, 5_000)))
            taken = {}
            # Acknowledged out of order, before a start, may come again; nothing else may.
            again = [json.loads(record.body)["n"] for record in spool.take(1_000)]
            assert set(resting) <= set(again)
            assert again == sorted(again)
            spool.close()
            spool, resting = Spool(directory, MIB, segment_bytes=200), again
        assert spool.resting == len(resting)
    spool.close()


def test_the_next_start_restores_the_least_waiting_stamp(tmp_path: Path) -> None:
    def stamp(body: bytes) -> int:
        return int(json.loads(body)["n"])

    spool = Spool(tmp_path, MIB, stamp=stamp)
    assert spool.least is None
    spool.append([body(n) for n in (7, 5, 9)])
    assert spool.least == 5
    spool.close()
    again = Spool(tmp_path, MIB, stamp=stamp)
    assert again.least == 5
    again.acknowledge([record.number for record in again.take(3)])
    assert again.least is None
    again.append([body(11)])
    assert again.least == 11
    many = Spool(tmp_path / "many", MIB, stamp=stamp)
    many.append([body(n) for n in range(2_000)])
    many.acknowledge([record.number for record in many.take(1_500)])
    assert many.least is not None
    assert 1_500 - 256 <= many.least <= 1_500


@pytest.mark.parametrize(("per_ms", "jitter_ms"), [(0.05, 0), (0.9, 0), (2, 0), (5, 0), (5, 3), (20, 3)])
def test_the_least_stamp_follows_waiting_records_under_concurrent_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_ms: float, jitter_ms: int
) -> None:
    monkeypatch.setattr(os, "fdatasync", lambda _: None)
    spool = Spool(tmp_path, MIB << 4, stamp=lambda body: int(json.loads(body)["n"]))
    rng, taken, appended = random.Random(1), deque[tuple[int, int]](), 0
    for ms in range(20_000 if per_ms < 1 else 2_000):
        count = int((ms + 1) * per_ms) - appended
        appended += count
        if count:
            spool.append([body(ms - rng.randint(0, jitter_ms)) for _ in range(count)])
        taken += ((record.number, json.loads(record.body)["n"]) for record in spool.take(1_000))
        spool.acknowledge([taken.popleft()[0] for _ in range(len(taken) - 30)])
        if taken:
            truly = min(stamp for _, stamp in taken)
            assert spool.least is not None
            assert truly - max(256 / per_ms if per_ms > 1 else 0, 200) - jitter_ms <= spool.least <= truly


@given(st.randoms(use_true_random=False))
def test_each_queue_keeps_its_order_independent_of_the_others(
    tmp_path_factory: pytest.TempPathFactory, rng: random.Random
) -> None:
    def queue_of(body: bytes) -> int:
        return int(json.loads(body)["n"]) % 3

    directory = tmp_path_factory.mktemp("spool")
    spool = Spool(directory, MIB, segment_bytes=rng.choice((60, 300, 5_000)))
    due: list[list[int]] = [[], [], []]
    out = list[Record]()
    sent = 0
    for _ in range(60):
        act, queue = rng.random(), rng.randrange(3)
        if act < 0.4:
            some = [body(n) for n in range(sent, sent + rng.randint(1, 6))]
            spool.append(some, list(map(queue_of, some)))
            for one in some:
                due[queue_of(one)].append(json.loads(one)["n"])
            sent += len(some)
        elif act < 0.7:
            taken = spool.take(rng.randint(1, 5), queue)
            found = [json.loads(record.body)["n"] for record in taken]
            assert found == due[queue][: len(found)]
            del due[queue][: len(found)]
            out += taken
        elif act < 0.85:
            some_out = rng.sample(out, rng.randint(0, len(out)))
            spool.acknowledge([record.number for record in some_out])
            out = [record for record in out if record not in some_out]
        elif act < 0.95:
            spool.give_back(out)
            for record in out:
                due[record.queue].append(json.loads(record.body)["n"])
            for one_queue in due:
                one_queue.sort()
            out = []
        else:
            resting = sum(due, [json.loads(record.body)["n"] for record in out])
            spool.close()
            spool = Spool(directory, MIB, segment_bytes=300)
            assert spool.due[0] == spool.resting
            spool.sort(queue_of)
            for queue in range(3):
                due[queue] = bodies_of(spool, queue)
            assert set(resting) <= {one for some in due for one in some}
            spool.close()
            spool, out = Spool(directory, MIB, segment_bytes=300), []
            spool.sort(queue_of)
        assert [spool.due[one] for one in range(3)] == list(map(len, due))
        assert spool.resting == sum(map(len, due)) + len(out)
    spool.close()


def bodies_of(spool: Spool, queue: int) -> list[int]:
    return [json.loads(record.body)["n"] for record in spool.take(1_000, queue)]


def test_acknowledged_files_are_deleted_although_an_older_record_waits(tmp_path: Path) -> None:
    spool = Spool(tmp_path, MIB, segment_bytes=100)
    for n in range(40):
        spool.append([body(n, 30)], [int(n > 0)])
    spool.acknowledge([record.number for record in spool.take(100, 1)])
    assert len(segments(tmp_path)) <= 2
    killed(spool)
    again = Spool(tmp_path, MIB, segment_bytes=100)
    assert bodies(again)[0] == 0
    again.append([body(40)])
    assert bodies(again) == [40]


WRITER = """
import sys
from pathlib import Path
from connectors.spool import Spool
spool = Spool(Path(sys.argv[1]), 1 << 30, segment_bytes=20_000)
n = int(sys.argv[2])
while True:
    spool.append([b'{"n":%d}' % k for k in range(n, n + 7)])
    n += 7
    print(n, flush=True)
    if n % 5 == 0:
        spool.acknowledge([record.number for record in spool.take(11)])
"""


def test_a_kill_at_any_moment_loses_no_accepted_record(tmp_path: Path) -> None:
    rng, said = random.Random(5), 0
    for _ in range(5):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(said)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        for _ in range(rng.randint(20, 200)):
            said = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        told = child.stdout.read().split()
        said = int(told[-1]) if told else said
        child.wait()
        spool = Spool(tmp_path, 1 << 30)
        found = bodies(spool)
        assert found
        assert found == list(range(found[0], found[-1] + 1))
        assert found[-1] >= said - 1
        said = found[-1] + 1
        spool.close()


def test_memory_does_not_grow_with_waiting_records(tmp_path: Path) -> None:
    import tracemalloc

    spool = Spool(tmp_path, 64 * MIB)
    tracemalloc.start()
    for n in range(2_000):
        spool.append([body(n, 10_000)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert spool.bytes > 20_000_000
    assert peak < 1_000_000
