"""Names in snapshots: each packs what is new, and all of them together hold the list."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.errors import StateError
from flows.state import journal, names
from flows.state.journal import Files
from flows.state.names import NameJournal, Names
from flows.state.saves import decode, encode

SOME = st.lists(st.tuples(st.one_of(st.none(), st.text(max_size=8)), st.text(max_size=3)), max_size=4)


@pytest.mark.parametrize("in_files", [False, True])
@given(grown=st.lists(st.tuples(SOME, st.booleans()), max_size=12))
def test_snapshots_hold_the_list_as_it_grows(
    in_files: bool, grown: list[tuple[list[Names], bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    files, ours, known = (
        Files(tmp_path_factory.mktemp("names") if in_files else None),
        NameJournal(),
        list[Names](),
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(journal, "SPILL_BYTES", 30)
        for more, again in grown:
            known += more
            state = encode(ours.snapshot(known, files))
            files.keep(ours.names())
            restored = NameJournal()
            assert restored.restore(decode(state), files) == known
            ours = restored if again else ours
        assert bool(ours.names()) <= in_files


def test_a_snapshot_packs_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed, right = list[int](), names.chunk
    monkeypatch.setattr(names, "chunk", lambda some: (packed.append(len(some)), right(some))[1])
    monkeypatch.setattr(journal, "SPILL_BYTES", 3_000)
    ours, files, known = NameJournal(), Files(tmp_path), list[Names]()
    sizes = list[int]()
    for number in range(50):
        known += [(f"placement-{number}-{one}", None) for one in range(10)]
        sizes.append(len(encode(ours.snapshot(known, files))))
        files.keep(ours.names())
    ours.snapshot(known, files)
    assert packed == [10] * 50
    assert max(sizes) < 4_000, "the rest is in files"
    assert len({*ours.names()}) >= 2


def test_a_damaged_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SPILL_BYTES", 10)
    ours, files = NameJournal(), Files(tmp_path)
    state = ours.snapshot([("a-long-name", None)], files)
    files.keep(ours.names())
    (tmp_path / ours.names()[0]).write_bytes(b"else")
    with pytest.raises(StateError, match="damaged"):
        NameJournal().restore(state, Files(tmp_path))
