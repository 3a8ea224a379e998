"""A trace of the flow's calls, in Chrome's trace format, which shows the cause of every pause."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import structlog

from flows.errors import UsageError

MIN_NS: Final = 5_000_000
"""The shortest call that is written: a waiting flow rests for 2 ms a call, hundreds of times a second."""
PAUSE_NS: Final = 50_000_000
"""The shortest time between two calls of one thread that is written as the engine's."""
MAX_BYTES: Final = 256 << 20
"""The size at which a trace ends: some hours of a busy flow."""
METHODS: Final = ("next_batch", "on_batch", "write_batch", "save", "flush", "finish", "close")
"""The methods of steps, sources, sinks and the publisher that are timed."""

P = TypeVar("P")


class Trace:
    """The trace of one process, in a file that is overwritten. Perfetto (ui.perfetto.dev) and
    chrome://tracing open it, also while the flow runs.

    Args:
        process: number of the process in a cluster; one above 0 stands at the end of the file's name.

    Raises:
        UsageError: the file cannot be written.
    """

    def __init__(self, path: Path, process: int = 0, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.path = path.with_name(f"{path.name}.{process}") if process else path
        self._process, self._clock_ns = process, clock_ns
        self._lock, self._depth = threading.RLock(), threading.local()
        self._ended: dict[int, int] = {}
        try:
            self._file: Any = self.path.open("wb", buffering=0)
        except OSError as error:
            raise UsageError(f"--trace {self.path}: cannot be written: {error.strerror}") from None
        self._left = MAX_BYTES - self._file.write(b"[\n")
        self._collecting_ns = 0
        gc.callbacks.append(self._collected)

    def watch(self, name: str, part: P, rests: bool = False) -> P:
        """Time the methods of a part under a name; returns the part.

        Args:
            rests: whether its thread is idle between two calls, so that the time between is no pause.
        """
        for method in METHODS:
            timed = getattr(part, method, None)
            if timed is not None:
                setattr(part, method, self._timed(f"{name} {method}", timed, rests))
        return part

    def parts(self, name: str, whole: P) -> P:
        """Time the partitions that a source or a sink will build; returns the source or sink."""
        if whole is not None:
            build: Any = whole.build_part  # type: ignore[attr-defined]  # a source or a sink
            whole.build_part = lambda *about: self.watch(name, build(*about))  # type: ignore[attr-defined]
        return whole

    def close(self) -> None:
        """End the trace."""
        with self._lock:
            if self._collected in gc.callbacks:
                gc.callbacks.remove(self._collected)
            self._file.close()
            self._left = 0

    def _timed(self, name: str, call: Callable[..., Any], rests: bool) -> Callable[..., Any]:
        def timed(*arguments: Any, **keywords: Any) -> Any:
            thread, begun_ns = threading.get_native_id(), self._clock_ns()
            outermost = not getattr(self._depth, "deep", False)
            if outermost:
                self._depth.deep = True
                before_ns = self._ended.get(thread, 0)
                if not before_ns:
                    self._name(thread)
                    before_ns = begun_ns
                if begun_ns - before_ns >= PAUSE_NS and not rests:
                    self._write("engine", before_ns, begun_ns, thread)
            try:
                return call(*arguments, **keywords)
            finally:
                ended_ns = self._clock_ns()
                if outermost:
                    self._depth.deep = False
                    self._ended[thread] = ended_ns
                if ended_ns - begun_ns >= MIN_NS:
                    self._write(name, begun_ns, ended_ns, thread)

        return timed

    def _collected(self, phase: str, _: dict[str, int]) -> None:
        now_ns = self._clock_ns()
        if phase == "stop" and now_ns - self._collecting_ns >= MIN_NS:
            self._write("garbage collection", self._collecting_ns, now_ns, threading.get_native_id())
        self._collecting_ns = now_ns

    def _write(self, name: str, begun_ns: int, ended_ns: int, thread: int) -> None:
        took = {"ts": begun_ns / 1000, "dur": (ended_ns - begun_ns) / 1000}
        self._append({"name": name, "ph": "X", **took, "pid": self._process, "tid": thread})

    def _name(self, thread: int) -> None:
        thread_name = {"name": threading.current_thread().name}
        where = {"pid": self._process, "tid": thread}
        self._append({"name": "thread_name", "ph": "M", "args": thread_name, **where})

    def _append(self, event: dict[str, Any]) -> None:
        line = msgspec.json.encode(event)
        with self._lock:
            if len(line) + 2 > self._left:
                if self._left:
                    self._left = 0
                    structlog.get_logger("trace").warning("the trace is full and ends", file=str(self.path))
                return
            try:
                self._left -= self._file.write(line + b",\n")
            except OSError as error:  # a full disk is no reason to stop the flow
                self._left = 0
                structlog.get_logger("trace").warning("the trace ends", error=str(error))
