"""Sizes that the flow changes its ways at, made so small that a short log reaches them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any, Final, Self
from unittest.mock import patch

SMALL: Final = {
    "flows.state.journal": {"SPILL_BYTES": 400, "COMPACTION_SLACK": 4},
    "flows.state.hash_table": {"MIN_SLOTS": 4},
    "flows.state.interner": {"DROP_AT": 20, "LOOK_AT": 4},
    "flows.state.runs": {"SPILL_ROWS": 16, "FEW_ROWS": 4},
    "flows.rows.ended": {"MERGE_AT": 4},
    "flows.plays.increments": {"_CELLS": 32, "_COMBOS": 2, "_TOUCHES": 4, "_SIDES": 8, "_SENT": 2},
    "flows.plays.delay_counts": {"_ROOM": 1},
    "flows.rows.row_columns": {"ROOM": 2},
    "flows.rows.row_index": {"TURNED_A_SECOND": 1},
    "flows.rows.cells": {"MIN_SLOTS": 4, "MANY": 1},
    "flows.rows.pairs": {"MIN_SLOTS": 4},
    "flows.intake.fingerprints": {"_SMALLEST": 8},
    "flows.intake.agents": {"_MAX_REASONS": 3},
    "flows.intake.dimension_numbers": {"MAX_COMBOS": 40},
    "flows.publish.backlog": {"MAX_ARRIVALS": 4, "TURNED_A_FLUSH": 1, "TURNED_AT_ONCE": 2},
    "connectors.redis.rows": {"_A_SCRIPT": 2, "_LEAST_BYTES": 512},
    "flows.publish.decided": {"AT_ONCE": 2},
}
"""By module. Of these the compiled loops know none."""


class _InPlace:
    """Writes and reads files when it is asked to: a thread of its own would change the order by chance."""

    def __init__(self, _: int = 1) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, work: Callable[[Any], Any], some: Iterable[Any]) -> Iterable[Any]:
        return [work(one) for one in some]

    def submit(self, work: Callable[..., Any], *args: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(work(*args))
        return done


@contextmanager
def small_sizes(wanted: bool) -> Iterator[None]:
    """Let the flow have them, where a history wants so."""
    with ExitStack() as stack:
        for module, sizes in SMALL.items() if wanted else ():
            for name, size in sizes.items():
                stack.enter_context(patch.object(import_module(module), name, size))
        stack.enter_context(patch.object(import_module("flows.state.journal"), "_WRITERS", _InPlace()))
        stack.enter_context(patch.object(import_module("flows.state.saves"), "ThreadPoolExecutor", _InPlace))
        yield
