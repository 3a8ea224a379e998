"""The snapshots that the shards of all stages share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.errors import StateError
from flows.state import runs
from flows.state.interner import Interner
from flows.state.journal import Files
from flows.state.runs import Runs, all_rows
from flows.state.saves import decode, encode
from flows.state.shard import Shard, Stored


class Numbers:
    """Numbers in runs."""

    def __init__(self) -> None:
        self.runs = Runs(np.uint64)

    def snapshot(self, files: Files) -> Any:
        return self.runs.snapshot(files)

    def file_names(self) -> list[str]:
        return self.runs.file_names()

    def restore(self, state: Any, files: Files) -> None:
        self.runs.restore(state, files)


class Stage(Shard):
    STEP = "stage"
    FORMAT = 7
    PLAIN = ("index", "watermark_ms")

    def __init__(self, recovery: Path | None, shards: int = 4) -> None:
        self.index, self.shards, self.recovery, self.watermark_ms = 0, shards, recovery, 0
        self.numbers, self.names = Numbers(), Interner[str]()

    def stored(self) -> dict[str, Stored]:
        return {"numbers": self.numbers, "names": self.names}


@pytest.mark.parametrize("on_disk", [False, True])
def test_plain_attributes_and_tables_are_restored_with_all_files(
    on_disk: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "SPILL_ROWS", 8)
    recovery = tmp_path if on_disk else None
    shard = Stage(recovery)
    shard.index, shard.watermark_ms = 3, 1_790_000_000_000
    shard.names.number("a name")
    shard.numbers.runs.add((np.arange(9, dtype=np.uint64),), all_rows)
    state = decode(encode(shard.snapshot()))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.parent for path in files] == [tmp_path / "stage" / "0003"] * on_disk
    for _ in range(3):  # a snapshot keeps the files of the one before
        again = Stage(recovery)
        again.restore(state)
        assert (again.index, again.watermark_ms, again.names.names) == (3, 1_790_000_000_000, ["a name"])
        (numbers,) = again.numbers.runs.take_all(all_rows)
        assert numbers.tolist() == list(range(9))
        again.restore(state)
        state = decode(encode(again.snapshot()))


@pytest.mark.parametrize(("shards", "form"), [(5, 7), (4, 8)])
def test_the_state_of_another_format_or_number_of_shards_is_refused(shards: int, form: int) -> None:
    _, *rest = Stage(None).snapshot()
    with pytest.raises(StateError, match=r"the recovery store (holds stage state of format|was made with)"):
        Stage(None, shards).restore((form, *rest))
