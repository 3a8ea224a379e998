"""Threads for the slow part of saves, in parallel to the flow."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Lock
from typing import Any, Final, Protocol


class Work(Protocol):
    """Work that is done in parallel to the flow."""

    def done(self) -> bool: ...

    def result(self) -> Any:
        """Wait for the work; raises its error."""


Defer = Callable[[Callable[[], Any]], Work]
"""Runs work in parallel to the flow."""
_THREADS: Final = ThreadPoolExecutor(4, "saves")
_STARTER: Final = ThreadPoolExecutor(1, "save")
_NEW: Final[list[tuple[Future[Any], Callable[[], Any]]]] = []
_NEW_LOCK: Final = Lock()
START_S: Final = 0.1
"""Seconds after which the work of a save begins. A thread that runs while steps still copy would take the
interpreter's lock from them.
"""
_UNDER_WAY: Final[set[Future[Any]]] = set()


def in_threads(work: Callable[[], Any]) -> Work:
    """Run the work in a thread, `START_S` after the first waiting work."""
    future = Future[Any]()
    _UNDER_WAY.add(future)
    future.add_done_callback(_UNDER_WAY.discard)
    with _NEW_LOCK:
        _NEW.append((future, work))
        first = len(_NEW) == 1
    if first:
        _STARTER.submit(_start)
    return future


def _start() -> None:
    time.sleep(START_S)
    with _NEW_LOCK:
        new = [*_NEW]
        _NEW.clear()
    for work in new:
        _THREADS.submit(_do, *work)


def _do(future: Future[Any], work: Callable[[], Any]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)


def wait_for_all() -> None:
    """Wait until all begun work is done, with or without success."""
    wait(list(_UNDER_WAY))
