"""The engine's placement of keys, and a process's place as Bytewax's command reads it."""

from __future__ import annotations

from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import TestingSource, cluster_main

from flows.engine import ALONE, Place, place_of
from flows.engine.place import member_of
from flows.errors import SettingsError
from flows.model.messages import shard_key

KEYS = [shard_key(shard) for shard in range(64)] + ["book", "ledger", "all", "", "é"]


class Itself(StatefulBatchLogic[Any, Any, Any]):
    def on_batch(self, values: list[Any]) -> tuple[list[Any], bool]:
        return values[:1], False

    def snapshot(self) -> None: ...


class Here(StatelessSinkPartition[Any]):
    def __init__(self, index: int, found: dict[str, int]) -> None:
        self._index, self._found = index, found

    def write_batch(self, items: list[Any]) -> None:
        self._found.update((key, self._index) for key, _ in items)


class Workers(DynamicSink[Any]):
    """Notes which worker each key came to; nothing moves between the step and this sink."""

    def __init__(self) -> None:
        self.found: dict[str, int] = {}

    def build(self, step_id: str, worker_index: int, worker_count: int) -> Here:
        return Here(worker_index, self.found)


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_the_engine_routes_a_key_by_its_hash(workers: int) -> None:
    flow, sink = Dataflow("keys"), Workers()
    keys = op.input("keys", flow, TestingSource([(key, key) for key in KEYS]))
    op.output("out", op.stateful_batch("here", keys, lambda _: Itself()), sink)
    cluster_main(flow, [], 0, worker_count_per_proc=workers)
    assert sink.found == {key: member_of(key, workers) for key in KEYS}


def test_the_position_is_read_from_bytewaxs_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["bytewax.run", "flows.pixels:flow", "-i", "1", "-a", "a:1;b:2"]
    assert place_of(given) == Place(1, 2)
    assert place_of(given[:2]) == ALONE
    with pytest.raises(SettingsError, match="-w is for one process"):
        place_of([*given, "-w", "2"])
    monkeypatch.setenv("BYTEWAX_PROCESS_ID", "2")
    monkeypatch.setenv("BYTEWAX_ADDRESSES", "a:1;b:2;c:3")
    assert place_of(given[:2]) == Place(2, 3)
