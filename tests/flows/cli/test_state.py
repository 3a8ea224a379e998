"""`audiopixel state`: what saves hold, and whether they are whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from msgspec.structs import replace
from typer.testing import CliRunner

from flows.cli.commands import app
from flows.state.journal import Files, settle, taking
from flows.state.saves import FORMAT, Manifest, SaveStore, Unwritten, encode

BODY = b"rows that changed"


@pytest.fixture
def store(tmp_path: Path) -> SaveStore:
    """Two saves, each of three pieces; one has a segment."""
    store = SaveStore(tmp_path / "recovery")
    files = Files.of(store.root, "plays", 0)
    for cut in (7, 9):
        with taking(cut) as listed:
            segment = f"plays/0000/{files.write(BODY)}"
            files.keep([Path(segment).name])
        settle(listed)
        some = [
            Unwritten("plays", "0000", encode([cut]), [segment]),
            Unwritten("plays", "0001", encode([cut]), []),
            Unwritten("ledger", "ledger", encode({}), []),
        ]
        pieces = [*store.put_pieces(cut, some[:1]), *store.put_pieces(cut, some[1:])]
        told = FORMAT, cut, 60_000, {"a/0": 5}, 1000 * cut, 1
        store.commit(Manifest(*told, {}, pieces, member=1, shards=((), ())))
    return store


def state(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["state", *map(str, arguments)])


def test_state_lists_each_saves_content_by_step(store: SaveStore) -> None:
    told = state(store.root)
    assert told.exit_code == 0, told.output
    lines = told.stdout.splitlines()
    assert lines[0].startswith("save 9 of member 1 of 2: whole, ")
    assert lines[0].endswith("watermark 1970-01-01T00:01:00+00:00, 1 partitions")
    assert [line.split()[:2] for line in lines[2:4]] == [["ledger", "1"], ["plays", "2"]]
    assert lines[4].startswith("save 7 of member 1 of 2: whole, ")


def test_as_json_it_has_sizes_and_counts(store: SaveStore) -> None:
    newest, before = map(json.loads, state(store.root, "--json").stdout.splitlines())
    assert (newest["cut"], before["cut"], newest["damage"]) == (9, 7, "")
    assert (newest["made_ms"], newest["watermark_ms"], newest["positions"]) == (9000, 60_000, {"a/0": 5})
    manifest = store.manifest(9, 1)
    (plays,) = [one for one in newest["steps"] if one["step"] == "plays"]
    size = sum(piece.size for piece in manifest.pieces if piece.step == "plays")
    assert plays == {
        "step": "plays",
        "pieces": 2,
        "size": size,
        "segments": 1,
        "segments_size": len(BODY),
    }


def flip(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize("damage", [flip, Path.unlink])
@pytest.mark.parametrize("what", ["manifest-1", "plays-0001"])
def test_a_damaged_save_is_said_and_the_exit_code_is_1(
    store: SaveStore, what: str, damage: Callable[[Path], None]
) -> None:
    damage(store.root / "saves" / f"{9:020d}" / what)
    told = state(store.root)
    if what == "manifest-1" and damage is Path.unlink:  # without a manifest it never was one
        assert (told.exit_code, told.stdout.count("whole")) == (0, 1)
        return
    assert told.exit_code == 1
    assert told.stdout.startswith("save 9 of member 1: damaged: ")
    assert "save 7 of member 1 of 2: whole" in told.stdout
    assert store.cuts() == [9, 7], "it looks, and takes nothing away"


@pytest.mark.parametrize("watermark_ms", [-(1 << 62), 1 << 62, -62_135_596_800_001])
def test_a_watermark_beyond_all_years_is_shown_in_milliseconds(store: SaveStore, watermark_ms: int) -> None:
    store.commit(replace(store.manifest(9, 1), watermark_ms=watermark_ms))
    told = state(store.root)
    assert told.exit_code == 0, told.output
    assert f"watermark {watermark_ms} ms" in told.stdout


def test_names_out_of_a_directory_reach_the_terminal_as_letters(store: SaveStore) -> None:
    hostile = "\x1b[31m[b]\u202e"
    pieces = store.put_pieces(9, [Unwritten(hostile, "0000", b"", [])])
    (store.root / "saves" / f"{9:020d}" / pieces[0].file).rename(
        store.root / "saves" / f"{9:020d}" / "ledger-ledger"
    )
    store.commit(replace(store.manifest(9, 1), pieces=[replace(pieces[0], file="ledger-ledger")]))
    assert hostile in json.loads(state(store.root, "--json").stdout.splitlines()[0])["steps"][0]["step"]
    there = store.root.rename(store.root.with_name(hostile))
    (there / "saves" / f"{7:020d}" / "manifest-1").write_bytes(b"")
    told = state(there)
    assert told.exit_code == 1
    assert told.stdout.count("31m[b]") == 2, "a step, and where the damage is"
    assert not {"\x1b", "\u202e"} & {*told.output}


def test_a_damaged_segment_is_reported_for_both_saves(store: SaveStore) -> None:
    (segment,) = (store.root / "plays" / "0000").iterdir()
    flip(segment)
    told = state(store.root, "--json")
    assert told.exit_code == 1
    assert all(segment.name in json.loads(line)["damage"] for line in told.stdout.splitlines())


def test_a_store_without_saves_is_one_line(tmp_path: Path) -> None:
    for where, said in (
        (tmp_path, "there is no save in"),
        (tmp_path / "no", "there is no recovery directory"),
    ):
        told = state(where)
        assert told.exit_code == 2
        assert said in told.stderr
