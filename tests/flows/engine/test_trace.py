"""The trace: every call and every pause of a flow, as Chrome's viewer reads them."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.engine import trace as module
from flows.engine.trace import Trace
from flows.errors import UsageError

MS = 1_000_000


class Clock:
    now_ns = 1_000 * MS

    def __call__(self) -> int:
        return self.now_ns


class Step:
    """A step whose calls take so many ms."""

    def __init__(self, clock: Clock, inner: Step | None = None) -> None:
        self._clock, self._inner = clock, inner

    def on_batch(self, took_ms: int) -> int:
        self._clock.now_ns += took_ms * MS
        if self._inner is not None:
            self._inner.on_batch(took_ms)
        return took_ms

    def save(self) -> None:
        raise KeyError


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def trace(tmp_path: Path, clock: Clock) -> Iterator[Trace]:
    trace = Trace(tmp_path / "trace.json", clock_ns=clock)
    yield trace
    trace.close()


def spans(trace: Trace) -> list[tuple[str, float, float]]:
    """Name, begin and duration in ms of each span: what a viewer shows, which forgives the open end."""
    told: list[dict[str, Any]] = json.loads(trace.path.read_text().rstrip().rstrip(",") + "]")
    return [(one["name"], one["ts"] / 1000, one["dur"] / 1000) for one in told if one["ph"] == "X"]


def test_only_long_calls_are_traced_with_their_duration(trace: Trace, clock: Clock) -> None:
    step = trace.watch("plays", Step(clock))
    assert [step.on_batch(took_ms) for took_ms in (70, 4, 5)] == [70, 4, 5]
    assert spans(trace) == [("plays on_batch", 1000, 70), ("plays on_batch", 1074, 5)]


def test_a_raising_call_is_traced_and_raises(trace: Trace, clock: Clock) -> None:
    step = trace.watch("plays", Step(clock))
    with pytest.raises(KeyError):
        step.save()


def test_time_between_the_flows_calls_is_the_engines(trace: Trace, clock: Clock) -> None:
    outer = trace.watch("rows", Step(clock, trace.watch("plays", Step(clock))))
    outer.on_batch(60)
    clock.now_ns += 49 * MS
    outer.on_batch(10)
    clock.now_ns += 50 * MS
    outer.on_batch(0)
    assert spans(trace) == [
        ("plays on_batch", 1060, 60),
        ("rows on_batch", 1000, 120),
        ("plays on_batch", 1179, 10),
        ("rows on_batch", 1169, 20),
        ("engine", 1189, 50),
    ]


def test_an_idle_thread_makes_no_pause(trace: Trace, clock: Clock) -> None:
    publisher = trace.watch("publisher", Step(clock), rests=True)
    for _ in range(2):
        publisher.on_batch(5)
        clock.now_ns += 900 * MS
    assert [name for name, _, _ in spans(trace)] == ["publisher on_batch"] * 2


def test_threads_have_their_names_and_their_own_lines(trace: Trace, clock: Clock) -> None:
    step = trace.watch("plays", Step(clock))
    other = threading.Thread(target=step.on_batch, args=(5,), name="redis_0")
    other.start()
    other.join()
    step.on_batch(5)
    told = json.loads(trace.path.read_text().rstrip().rstrip(",") + "]")
    names = {one["tid"]: one["args"]["name"] for one in told if one["ph"] == "M"}
    assert [names[one["tid"]] for one in told if one["ph"] == "X"] == ["redis_0", "MainThread"]


def test_a_garbage_collection_is_traced(trace: Trace, clock: Clock) -> None:
    trace._collected("start", {})
    clock.now_ns += 30 * MS
    trace._collected("stop", {})
    assert spans(trace) == [("garbage collection", 1000, 30)]


def test_a_full_trace_ends_without_stopping_the_flow(
    trace: Trace, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    trace._left = 1000
    step = trace.watch("plays", Step(clock))
    for _ in range(100):
        assert step.on_batch(5) == 5
    assert trace.path.stat().st_size <= 1002
    assert spans(trace)
    assert "".join(capsys.readouterr()).count("the trace is full") == 1


def test_a_closed_trace_records_no_collection(trace: Trace) -> None:
    trace.close()
    assert trace._collected not in gc.callbacks


def test_each_process_has_a_trace_file_and_a_failed_write_is_reported(tmp_path: Path) -> None:
    second = Trace(tmp_path / "trace.json", process=1)
    assert second.path.name == "trace.json.1"
    second.close()
    with pytest.raises(UsageError, match="cannot be written: No such file"):
        Trace(tmp_path / "none" / "trace.json")


def test_partitions_of_a_source_are_watched_when_they_are_built(trace: Trace, clock: Clock) -> None:
    class Source:
        def build_part(self, step_id: str, for_part: str, resume_state: Any) -> Step:
            return Step(clock)

    trace.parts("intake", Source()).build_part("intake", "p", None).on_batch(module.MIN_NS // MS)
    assert [name for name, _, _ in spans(trace)] == ["intake on_batch"]
