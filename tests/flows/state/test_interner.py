"""Names by number: their numbers stay through snapshots, and unused names go by one rule."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from flows.errors import StateError
from flows.state import interner, journal
from flows.state.interner import Interner
from flows.state.journal import Files
from flows.state.saves import decode, encode

Combo = tuple[str | None, ...]


def combo(number: int) -> Combo:
    return f"placement-{number}", None, f"c{number % 7}"


@pytest.mark.parametrize("in_files", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_the_rows_of_a_name_name_it_through_drops_and_restarts(
    seed: int, in_files: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SPILL_BYTES", 300)
    monkeypatch.setattr(interner, "DROP_AT", 60)
    monkeypatch.setattr(interner, "LOOK_AT", 10)
    rng, files = random.Random(seed), Files(tmp_path if in_files else None)
    of, rows, dropped, restarted, filed = Interner[Combo](), dict[int, Combo](), 0, 0, False
    for step in range(300):
        new = [combo(rng.randrange(step // 2, step + 20)) for _ in range(rng.randrange(9))]
        numbers = of.numbers(new) if rng.random() < 0.5 else np.array([*map(of.number, new)], np.int64)
        for number, name in zip(numbers.tolist(), new, strict=True):
            rows[number] = name
        for number in rng.sample([*rows], min(len(rows), rng.randrange(12))):
            del rows[number]
        if of.is_due(turned := rng.random() < 0.1):
            former, used = len(of), np.array(sorted(rows), np.int64)
            renumbered = of.collect(used)
            assert (renumbered is not None) == (2 * len(used) <= former)
            if renumbered is not None:
                assert np.flatnonzero(renumbered >= 0).tolist() == used.tolist()
                rows = {int(renumbered[number]): name for number, name in rows.items()}
                dropped += former - len(of)
        assert len(of) <= max(10 if turned else 60, 2 * len(rows) + 60)
        assert {number: of.names[number] for number in rows} == rows
        assert of.find([*rows.values(), ("nowhere",), None]).tolist() == [*rows, -1, -1]
        if rng.random() < 0.3:
            state = encode(of.snapshot(files))
            files.keep(of.file_names())
            filed |= bool(of.file_names())
            if rng.random() < 0.5:
                before, of = of.names, Interner()
                of.restore(decode(state), files)
                restarted += 1
                assert of.names == before
    assert dropped
    assert restarted
    assert filed == in_files


def test_texts_come_back_as_texts() -> None:
    of, again, files = Interner(["red", "blue"]), Interner[str](), Files(None)
    again.restore(decode(encode(of.snapshot(files))), files)
    assert again.names == ["red", "blue"]
    assert again.number("green") == 2


def test_a_name_beyond_the_limit_has_no_number() -> None:
    of = Interner[str](limit=3)
    assert of.numbers(["a", "b", "c", "d", "b", "e"]).tolist() == [0, 1, 2, 3, 1, 3]
    assert of.names == ["a", "b", "c"]
    assert of.is_due()
    assert of.collect(np.arange(3)) is None
    renumbered = of.collect(np.array([0, 2]))
    assert renumbered is not None, "one unused name is enough at the limit"
    assert renumbered.tolist() == [0, -1, 1]
    assert of.number("d") == 2
    assert not Interner[str](limit=3).is_due()


def test_a_sweep_that_drops_nothing_is_not_repeated_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interner, "DROP_AT", 10)
    of = Interner(range(11))
    assert of.is_due()
    assert of.collect(np.arange(8)) is None
    assert not of.is_due()
    of.numbers([*range(17)])
    assert of.is_due()


def test_a_snapshot_packs_the_new_names_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed, right = list[int](), interner.chunk
    monkeypatch.setattr(interner, "chunk", lambda some: (packed.append(len(some)), right(some))[1])
    monkeypatch.setattr(journal, "SPILL_BYTES", 3_000)
    of, files, sizes = Interner[Combo](), Files(tmp_path), list[int]()
    for number in range(50):
        of.numbers([combo(10 * number + one) for one in range(10)])
        sizes.append(len(encode(of.snapshot(files))))
        files.keep(of.file_names())
    of.snapshot(files)
    assert packed == [10] * 50
    assert max(sizes) < 4_000, "the rest is in files"
    assert len({*of.file_names()}) >= 2


def test_a_damaged_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SPILL_BYTES", 10)
    of, files = Interner([("a-long-name", None)]), Files(tmp_path)
    state = of.snapshot(files)
    files.keep(of.file_names())
    (tmp_path / of.file_names()[0]).write_bytes(b"else")
    with pytest.raises(StateError, match="damaged"):
        Interner[Combo]().restore(state, Files(tmp_path))
