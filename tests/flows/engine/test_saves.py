"""Saves: whole or none, one before to fall back to, and from each the flow goes on to the same end."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
import tracemalloc
from collections.abc import Callable, Mapping
from datetime import timedelta
from itertools import count
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from structlog.testing import capture_logs

from flows.engine import StopSignal, source
from flows.engine.committer import CommitPartition
from flows.engine.copies import Copy
from flows.engine.cut_step import Step
from flows.engine.meeting import agree, run_alone
from flows.engine.place import ALONE
from flows.engine.save_threads import START_S, in_threads
from flows.engine.saved_step import Saved
from flows.engine.saves import Saves
from flows.engine.sinks import LinesLogic, LinesSink
from flows.errors import StateError
from flows.intake import Intake
from flows.model.messages import Durable, Lines, Message, PartitionStates, Receipt
from flows.model.ticks import ENDED, Cut, Tick
from flows.replay import replay
from flows.settings import UNWATCHED
from flows.settings.fields import Settings
from flows.state import saves as disk
from flows.state.durable import private_directory
from flows.state.journal import Files, settle, taking
from flows.state.leftovers import remove_leftovers
from flows.state.saves import FORMAT, Manifest, Piece, SaveStore, Unwritten, decode, encode
from flows.state.sealed import checksum

KEY = b"sixteen bytes !!"
T0 = 1_764_000_000_000

KEYS = st.integers(0, 9) | st.text(max_size=3) | st.tuples(st.text(max_size=3), st.integers(0, 9))
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats(allow_nan=False)
    | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4)
    | st.tuples(inner, inner)
    | st.dictionaries(KEYS, inner),
    max_leaves=20,
)  # fmt: skip


def as_tuples(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(map(as_tuples, value))
    return {key: as_tuples(one) for key, one in value.items()} if isinstance(value, dict) else value


@given(PLAIN)
def test_plain_state_comes_back_as_it_was_its_lists_as_tuples(state: Any) -> None:
    assert decode(encode(state)) == as_tuples(state)


# The store

SEGMENT = "rows/0000/"


def saved(store: SaveStore, cut: int) -> Manifest:
    """A save of two pieces, of which one has a segment."""
    files = Files.of(store.root, "rows", 0)
    with taking(cut) as listed:
        name = files.write(b"segment of %d" % cut)
        files.keep([name])
    settle(listed)
    rows = Unwritten("rows", "0000", encode({"cut": cut}), [SEGMENT + name])
    more = [Unwritten("ledger", "ledger", encode([cut]), []), Unwritten("rows", "0001", encode(cut), [])]
    pieces = [*store.put_pieces(cut, [rows]), *store.put_pieces(cut, more)]
    shards = (tuple(f"{piece.step}-{piece.key}" for piece in pieces),)
    manifest = Manifest(FORMAT, cut, 5, {"a": cut}, 0, 1, {"shards": "1"}, pieces, shards=shards)
    store.commit(manifest)
    return manifest


def newest(store: SaveStore) -> Manifest | None:
    """The save that a single process goes on from."""
    found = run_alone(agree(store, ALONE)).save
    return None if found is None else found.manifest


def test_the_newest_save_is_taken_and_the_older_ones_go(tmp_path: Path) -> None:
    store = SaveStore(tmp_path)
    assert newest(store) is None
    for cut in (3, 7, 20, 21):
        written = saved(store, cut)
        assert newest(store) == written
        assert store.piece(store.save(cut), "rows", "0000") == {"cut": cut}
    store.prune(20)
    assert store.cuts() == [21, 20]
    assert {path.name for path in (tmp_path / "saves").iterdir()} == {f"{20:020d}", f"{21:020d}"}


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def another_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def one_more_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"?")


@pytest.mark.parametrize("damage", [Path.unlink, cut_short, another_byte, one_more_byte])
@pytest.mark.parametrize("what", ["manifest-0", "rows-0000", "ledger-ledger", "segment"])
def test_a_damaged_save_falls_back_to_the_previous_with_a_report(
    tmp_path: Path, what: str, damage: Callable[[Path], None]
) -> None:
    store = SaveStore(tmp_path)
    before, spoilt = saved(store, 1), saved(store, 2)
    (segment,) = store.unwritten(2, spoilt.pieces[0]).segments
    damage(tmp_path / segment if what == "segment" else tmp_path / "saves" / f"{2:020d}" / what)
    with capture_logs() as told:
        assert newest(store) == before
    if not (what == "manifest-0" and damage is Path.unlink):  # without a manifest it never was one
        assert [(one["damaged"], one["taken"]) for one in told] == [(2, 1)]
    assert store.cuts() == [1], "the damaged one is not taken for the newest later"


def sealed(path: Path, body: bytes) -> None:
    """A manifest that somebody forged."""
    path.write_bytes(body + b"\n" + checksum(body).encode())


FORGED: dict[str, Callable[[Manifest], bytes]] = {
    "no JSON": lambda _: b"x",
    "no object": lambda _: b"[]",
    "no format": lambda _: b"{}",
    "nothing but a format": lambda _: b'{"format":%d}' % FORMAT,
    "deep": lambda _: b'{"format":%d,"a":%s' % (FORMAT, b"[" * 100_000),
    "of another cut": lambda of: json_of(replace(of, cut=1)),
    "of another member": lambda of: json_of(replace(of, member=1, shards=((), ()))),
    "of no member": lambda of: json_of(replace(of, shards=())),
    "pieces of another place": lambda of: json_of(with_piece(of, file="../../foundation")),
    "pieces of a strange name": lambda of: json_of(with_piece(of, file="rows-0000\0")),
    "pieces that overlap": lambda of: json_of(replace(of, pieces=of.pieces * 1000)),
    "pieces of no size": lambda of: json_of(with_piece(of, size=-1)),
    "two pieces exchanged": lambda of: json_of(exchanged(of)),
}
json_of = msgspec.json.encode


def with_piece(of: Manifest, **changed: Any) -> Manifest:
    return replace(of, pieces=[replace(of.pieces[0], **changed), *of.pieces[1:]])


def exchanged(of: Manifest) -> Manifest:
    """The two shards of rows have each other's names."""
    first, ledger, second = of.pieces
    return replace(of, pieces=[replace(first, key=second.key), ledger, replace(second, key=first.key)])


@pytest.mark.parametrize("forged", FORGED)
def test_a_manifest_of_no_version_is_damaged(tmp_path: Path, forged: str) -> None:
    store = SaveStore(tmp_path)
    before, newer = saved(store, 1), saved(store, 2)
    sealed(tmp_path / "saves" / f"{2:020d}" / "manifest-0", FORGED[forged](newer))
    assert newest(store) == before


def test_foreign_names_are_left_alone(tmp_path: Path) -> None:
    store = SaveStore(tmp_path)
    written = saved(store, 2)
    folder = tmp_path / "saves"
    strange = [folder / "²", folder / "1", folder / ("9" * 99), folder / f"{2:020d}" / "manifest-²"]
    for one in strange:
        one.mkdir()
        (one / "manifest-0").touch()
    assert newest(store) == written
    store.prune(2)
    assert all(one.exists() for one in strange)


@pytest.mark.parametrize("what", ["manifest-0", "rows-0000", "segment"])
def test_a_pipe_instead_of_a_file_is_damage(tmp_path: Path, what: str) -> None:
    store = SaveStore(tmp_path)
    before, spoilt = saved(store, 1), saved(store, 2)
    (segment,) = store.unwritten(2, spoilt.pieces[0]).segments
    path = tmp_path / segment if what == "segment" else tmp_path / "saves" / f"{2:020d}" / what
    path.unlink()
    os.mkfifo(path)
    assert newest(store) == before


def test_a_large_file_is_verified_in_little_memory(tmp_path: Path) -> None:
    store, large = SaveStore(tmp_path), bytes(64 << 20)
    files = Files.of(tmp_path, "rows", 0)
    with taking(1) as listed:
        files.keep([name := files.write(large)])
    settle(listed)
    pieces = store.put_pieces(1, [Unwritten("rows", "0000", encode(None), [SEGMENT + name])])
    tracemalloc.start()
    try:
        store.verify(1, pieces)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_store_without_a_whole_save_refuses_to_start(tmp_path: Path) -> None:
    store = SaveStore(tmp_path)
    for cut in (1, 2):
        saved(store, cut)
        another_byte(tmp_path / "saves" / f"{cut:020d}" / "manifest-0")
    with pytest.raises(StateError, match=r"has no whole save .*restore all of the directory from one backup"):
        newest(store)


def test_saves_of_another_version_are_refused_and_not_taken_for_damaged(tmp_path: Path) -> None:
    store = SaveStore(tmp_path)
    store.commit(
        Manifest(FORMAT + 1, 1, 0, {}, 0, 1, {}, store.put_pieces(1, [Unwritten("a", "b", b"", [])]))
    )
    with pytest.raises(StateError, match=f"saves of format {FORMAT + 1}, this version reads {FORMAT}"):
        newest(store)
    assert store.cuts() == [1]


class Stop(Exception):
    """The machine dies at a file operation."""


@pytest.mark.parametrize("at", range(20))
def test_a_crash_at_any_file_operation_leaves_a_whole_save(
    tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SaveStore(tmp_path)
    saved(store, 1)
    before = saved(store, 2)
    left = at

    def dies(right: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*of: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left == -1:
                raise Stop
            return right(*of, **more)

        return instead

    for module, name in ((os, "fsync"), (Path, "rename"), (Path, "mkdir"), (shutil, "rmtree"), (os, "open")):
        monkeypatch.setattr(module, name, dies(getattr(module, name)))
    try:
        saved(store, 3)
    except Stop:
        pass
    else:
        assert left >= 0 or at == 0
    monkeypatch.undo()
    found = newest(store)
    assert found is not None
    assert found == before or found.cut == 3
    assert store.piece(store.save(found.cut), "rows", "0000") == {"cut": found.cut}
    again = saved(store, 4)
    assert newest(store) == again


# Steps


class Counter(Step[Lines]):
    """Counts messages; each is a cut of its own. A save of it has `text`."""

    def __init__(self, state: Any) -> None:
        self.count = 0 if state is None else state

    def on_batch(self, values: list[Lines]) -> tuple[list[Message], bool]:
        for value in values:
            self.count += 1
            assert isinstance(value.mark, Cut)
            self.at_cut(value.mark)
        return [], False

    def snapshot(self) -> int:
        return self.count


def cut_lines(number: int, save: bool = True) -> Lines:
    return Lines([], 0, Cut(number, T0, False, (("a", number),), save=save))


def saves_of(directory: Path, defer: Any = in_threads) -> Saves:
    saves = Saves(Settings(recovery_dir=directory, shards=1), KEY, defer)
    assert saves.resumed is None
    return saves


class Slow:
    """A disk that does nothing until a test releases it."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Event, Callable[[], Any]]] = []

    def defer(self, work: Callable[[], Any]) -> Any:
        go = Event()
        self.waiting.append((go, work))

        def later() -> Any:
            assert go.wait(30)
            return work()

        return in_threads(later)


def test_the_flow_waits_only_at_a_third_concurrent_save(tmp_path: Path) -> None:
    disk_ = Slow()
    step = Saved(saves_of(tmp_path, disk_.defer), "plays", Counter)
    assert [*step.on_batch([cut_lines(1), cut_lines(2, save=False), cut_lines(3)])[0]] == []
    assert len(disk_.waiting) == 2
    Event().wait(0.05)
    timer = in_threads(lambda: (Event().wait(0.2), disk_.waiting[0][0].set()))
    with capture_logs() as told:
        sent = [*step.on_batch([cut_lines(4)])[0]]
    assert [one["event"] for one in told if "waited" in one["event"]], told
    assert [one.cut.number for one in sent if isinstance(one, Durable)] == [1]
    for go, _ in disk_.waiting:
        go.set()
    timer.result()
    assert [one.cut.number for one in step.on_eof()[0] if isinstance(one, Durable)] == [3, 4]


def test_a_failing_disk_ends_the_flow_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    step = Saved(saves_of(tmp_path), "plays", Counter)
    monkeypatch.setattr(disk, "put", full)
    step.on_batch([cut_lines(1)])
    with pytest.raises(StateError, match="cannot be used: No space left on device"):
        step.on_eof()


def test_a_save_neither_copies_nor_retains_state(tmp_path: Path) -> None:
    saves, cut = saves_of(tmp_path), Cut(1, T0, False, (("a", 1),))
    states = [bytes([n]) * (1 << 20) for n in range(32)]
    tracemalloc.start()
    try:
        works = [saves.put(cut, Copy("rows", f"{n:04d}", states[n], [], lambda: None)) for n in range(32)]
        written = [work.result() for work in works]
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
        assert sum(one.size for one in written) > 32 << 20
        assert len({one.file for one in written}) < 3
    finally:
        tracemalloc.stop()
    assert [one.batch.copies for one in works] == [[]] * 32


def test_a_forgotten_listeners_file_is_deleted_once_no_save_lists_it(tmp_path: Path) -> None:
    saves, files = saves_of(tmp_path), Files.of(tmp_path, "rows", 0)
    private_directory(tmp_path)

    def save(number: int, body: bytes) -> bool:
        """Save; returns whether the forgotten listener's file is still on the disk after it."""
        cut = Cut(number, T0, False, (("a", number),))
        with taking(number) as listed:
            files.keep([files.write(body)])
        piece = saves.put(cut, Copy("rows", "0000", encode(number), listed, lambda: None)).result()
        saves.commit(cut, [piece], PartitionStates(cut, {}, 0))
        assert files.directory is not None
        return any(b"listener" in path.read_bytes() for path in files.directory.iterdir())

    assert save(1, b"listener")
    held = [save(number, b"others") for number in range(2, 6)]
    assert held == [True, True, False, False]  # saves 1 and 2 are kept behind 2; 2 and 3 behind 3


@pytest.mark.parametrize("saves_each", [0, 1, 2])
def test_leftovers_of_crashed_executions_do_not_grow(tmp_path: Path, saves_each: int) -> None:
    private_directory(tmp_path)
    left, cuts = [], count(1)
    for _ in range(6):
        saves, files = Saves(Settings(recovery_dir=tmp_path, shards=1), KEY), Files.of(tmp_path, "rows", 0)
        assert (saves.resumed is None) == (not left or not saves_each)
        for number in range(saves_each + 1):  # the last one is not committed
            cut = Cut(next(cuts), T0, False, (("a", 1),))
            with taking(cut.number) as listed:
                files.keep([files.write(b"segment of %d" % cut.number)])
            piece = saves.put(cut, Copy("rows", "0000", encode(1), listed, lambda: None)).result()
            if number < saves_each:
                saves.commit(cut, [piece], PartitionStates(cut, {}, 0), (("rows-0000",),))
        assert files.directory is not None
        left.append(len(list(files.directory.iterdir())))
        store = SaveStore(tmp_path)
        for cut_number in store.cuts():
            store.verify(cut_number, store.manifest(cut_number).pieces)
    assert left[-1] == left[-2] == left[-3]
    assert left[-1] <= 2 + saves_each + 1


def test_files_of_other_members_and_beside_a_damaged_save_stay(tmp_path: Path) -> None:
    store = SaveStore(tmp_path)
    saved(store, 1)
    names = [f"rows/{shard:04d}/{'0' * 32}" for shard in (0, 1)]
    names += [f"{names[0]}.part", "rows/0000/a note", "plays/0000/" + "1" * 32]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    manifest = tmp_path / "saves" / f"{1:020d}" / "manifest-0"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:-1])
    remove_leftovers(store, {0})
    assert all((tmp_path / name).exists() for name in names)
    manifest.write_bytes(whole)
    remove_leftovers(store, {0})
    assert [name for name in names if (tmp_path / name).exists()] == [names[1], names[3]]
    store.verify(1, store.manifest(1).pieces)


class Written:
    """An output whose position is the number of its messages."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, bytes]] = []

    @property
    def position(self) -> int:
        return len(self.messages)

    def write(self, items: Any) -> None:
        self.messages += items

    def flush(self) -> None: ...

    def close(self) -> None: ...


def test_a_save_of_dead_letters_covers_all_partitions() -> None:
    tick = Tick("a", ("a",), 5, T0, True, False, 1, T0)
    refused, late = Lines([(b"", b"refused")], "a", tick), Lines([(b"", b"late")], 0)
    here = Lines([], 0, Cut(5, T0, False, (("a", 1),), save=True))
    for order in ([refused, late, here], [late, here, refused]):
        written = Written()
        logic = LinesLogic(LinesSink(lambda _, to=written: to), [0], True, None)  # type: ignore[misc]
        saved: list[Any] = []
        logic.at_cut = lambda cut, to=saved, of=logic: to.append((cut.number, of.snapshot()[1]))  # type: ignore[misc]
        for one in order:
            logic.on_batch([one])
        assert saved == [(5, 2)], order


def durable_of(cut: int, step: str) -> Durable:
    return Durable(Cut(cut, T0, False, (("a", cut),), save=True), step, "0000", f"{step}-0000", 0, 1, "")


@given(st.data())
def test_a_cut_is_committed_in_order_with_all_its_pieces(
    data: st.DataObject,
) -> None:
    steps, cuts = ["a", "b", "c"], [2, 5, 7]
    committed: list[int] = []

    class Noting(Saves):
        def commit(self, cut: Cut, pieces: Any, *_: Any) -> None:
            assert sorted(piece.step for piece in pieces) == steps
            committed.append(cut.number)

    saves = Noting(Settings(recovery_dir=Path("unused")), KEY)
    committer = CommitPartition(saves, [frozenset((step, "0000") for step in steps)])
    order = data.draw(st.permutations([step for step in [*steps, "partitions"] for _ in cuts]))
    came = dict.fromkeys([*steps, "partitions"], 0)
    for step in order:
        here = durable_of(cuts[came[step]], step)
        states = PartitionStates(here.cut, {}, 0)
        committer.write_batch([states if step == "partitions" else here])
        came[step] += 1
        committer.close()
        assert committed == cuts[: min(came.values())]


# The flow


def log(path: Path) -> list[str]:
    """Two partitions: plays, clicks, downloads, junk, repeats, late ones, conversions."""
    lines: dict[str, list[str]] = {"a": [], "b": []}
    for number in range(160):
        name, minute = "ab"[number % 2], number // 8
        who = {"placement_id": f"p{number % 3}", "campaign_id": "red", "listener_id": f"L{number % 7}"}
        for event in ("impression", "start", "complete", "click"):
            ts = T0 + 60_000 * minute + 1000 * (number % 8)
            pixel = {"event_id": f"{event}{number}", "event": event, "ts": ts, **who}
            lines[name].append(json.dumps({**pixel, "play_id": f"{number}", "consent": True}))
        heard = {"event": "download", "episode": f"e{number % 2}", "client_id": f"C{number % 7}"}
        lines[name].append(json.dumps({**pixel, **heard, "event_id": f"d{number}", "consent": True}))
        if number % 10 == 9:
            bought = {"event": "conversion", "conversion": {"type": "purchase", "order_id": f"{number}"}}
            lines[name].append(json.dumps({**pixel, **bought, "event_id": f"c{number}", "consent": True}))
        if number % 15 == 14:
            lines[name] += [lines[name][0], "no pixel"]
    found = []
    for name, some in lines.items():
        file = path / f"{name}.ndjson"
        file.write_text("".join(f"{line}\n" for line in some))
        found.append(str(file))
    return found


Rows = Callable[[Settings, str], Mapping[str, Mapping[str, str]]]
UNLIKE = {"generation", "fence", "rev", "updated_ms", "reach_as_of_ms"}


def end(settings: Settings, out: Path, rows_of: Rows) -> Any:
    """All that readers find in the end."""
    rows = {
        (scope, name, field): value
        for scope in ("placement", "campaign")
        for name, row in rows_of(settings, scope).items()
        for field, value in row.items()
        if field not in UNLIKE
    }
    lines = {
        path.name: [json.loads(line) for line in path.read_text().splitlines()] for path in out.iterdir()
    }
    # An open minute is published repeatedly: its last version counts.
    minutes = {
        (one["placement_id"], one["minute_ms"]): {
            name: value for name, value in one.items() if name not in ("rev", "as_of_ms")
        }
        for one in lines.pop("minutes.ndjson")
    }
    return rows, minutes, {name: sorted(map(json.dumps, some)) for name, some in lines.items()}


def copy(place: Path, to: Path) -> None:
    """Copy the files of a flow that runs: its threads remove some meanwhile."""
    while True:
        try:
            shutil.copytree(place, to, ignore=shutil.ignore_patterns("*.part"))
            return
        except shutil.Error:
            shutil.rmtree(to)


@pytest.mark.parametrize("workers", [1, 2])
def test_from_every_save_a_flow_ends_as_the_undisturbed_one(
    tmp_path: Path,
    workers: int,
    settings_of: Callable[..., Settings],
    rows_of: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = log(tmp_path)
    often = {"flush_interval": timedelta(milliseconds=2), "save_interval": timedelta(milliseconds=4)}

    def run(place: Path, stop: StopSignal | None = None) -> Any:
        settings = settings_of(shards=2, batch_messages=7, **often)
        out = place / "out"
        replay(files, settings, KEY, out=out, workers=workers, recovery_dir=place / "recovery", stop=stop)
        return end(settings, out, rows_of)

    copies: list[Path] = []
    commits = count()
    commit = Saves.commit

    def copied(self: Saves, cut: Cut, *of: Any) -> None:
        commit(self, cut, *of)
        whole = self.settings.recovery_dir == tmp_path / "whole" / "recovery"
        if whole and not cut.ended and next(commits) % 20 == 0:
            copies.append(tmp_path / f"copy-{len(copies)}")
            copy(tmp_path / "whole", copies[-1])

    monkeypatch.setattr(Saves, "commit", copied)
    monkeypatch.setattr("flows.state.runs.SPILL_ROWS", 4)
    expected = run(tmp_path / "whole")
    assert len(copies) >= 3, "so few saves were taken"
    once = expected[0]["campaign", "red", "flight.downloads_first_touch"]
    assert once == str(7 * 2), "each client downloads each episode within a day"
    for place in copies:
        assert run(place) == expected


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("last", [False, True])
def test_an_uncommittable_save_ends_the_flow_with_the_reason(
    tmp_path: Path,
    workers: int,
    last: bool,
    settings_of: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commits, commit = count(), Saves.commit

    def failing(self: Saves, cut: Cut, *of: Any) -> None:
        if cut.ended if last else next(commits) >= 3:
            raise StateError("the disk is full")
        commit(self, cut, *of)

    monkeypatch.setattr(Saves, "commit", failing)
    often = {"flush_interval": timedelta(milliseconds=2), "save_interval": timedelta(milliseconds=4)}
    settings = settings_of(shards=2, batch_messages=7, **often)
    with pytest.raises(StateError, match="the disk is full"):
        replay(log(tmp_path), settings, KEY, workers=workers, recovery_dir=tmp_path / "recovery")


def test_a_save_without_a_shard_refuses_the_start(
    tmp_path: Path, settings_of: Callable[..., Settings]
) -> None:
    stop = StopSignal()
    stop.set()
    settings = settings_of(shards=2)
    replay(log(tmp_path), settings, KEY, recovery_dir=tmp_path / "recovery", stop=stop)
    store = SaveStore(tmp_path / "recovery")
    whole = store.manifest(store.cuts()[0])
    fewer: list[Piece] = [one for one in whole.pieces if (one.step, one.key) != ("rows", "0001")]
    store.commit(replace(whole, pieces=fewer))
    with pytest.raises(StateError, match="has rows-0001 with another member"):
        replay(log(tmp_path), settings, KEY, recovery_dir=tmp_path / "recovery")


def test_the_work_of_a_save_begins_when_the_steps_have_copied() -> None:
    began = time.monotonic()
    works = [in_threads(lambda: time.monotonic() - began) for _ in range(100)]
    assert min(work.result() for work in works) >= START_S
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda: 1 // 0).result()


def test_the_disk_is_looked_at_once_a_save_for_lag_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    told: list[int] = []

    def committed() -> dict[str, int]:
        looks.append(source.awake_ms())
        return {"a": len(looks)}

    saves: Any = SimpleNamespace(settings=Settings(save_interval=timedelta(seconds=2)), committed=committed)
    intake: Any = SimpleNamespace(partition="a", reader=SimpleNamespace(commit=told.append))
    no: Any = None
    stop, rest = StopSignal(), source.Rest()
    partition = source.PixelPartition(intake, stop, timedelta(0), no, rest, no, no, saves)
    for now_ms in range(0, 6_000, 500):
        monkeypatch.setattr(source, "awake_ms", lambda now_ms=now_ms: now_ms)
        partition._report()
    assert (looks, told) == ([0, 2_000, 4_000], [1, 2, 3])


def test_an_ending_log_is_saved_as_often_as_a_live_one() -> None:
    flush = timedelta(milliseconds=300)
    for flushes in range(1, 200):
        interval = 0.9 * flushes * flush
        apart = Settings(flush_interval=flush, save_interval=interval).flushes_a_save
        every = min(UNWATCHED, apart)
        assert apart % every == 0, "each save of a live flow is at a cut of a replay"
        assert apart == 1 or apart * flush <= interval


def test_an_ending_log_has_few_cuts(
    tmp_path: Path, settings_of: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the same numbers in all partitions. Saves are no rarer for that, with one flush in hand."""
    numbers: list[tuple[str, int]] = []
    tick = Intake._tick

    def noted(intake: Intake, number: int, last: bool = False) -> Receipt:
        receipt = tick(intake, number, last)
        numbers.append((intake.partition, receipt.tick.number))
        return receipt

    monkeypatch.setattr(Intake, "_tick", noted)
    moment = timedelta(milliseconds=2)
    for flushes, every in ((500, UNWATCHED), (6, 4), (4, 3), (2, 1)):
        save_interval = flushes * moment
        settings = settings_of(
            namespace=f"{every}:v1", flush_interval=moment, save_interval=save_interval, batch_messages=16
        )
        numbers.clear()
        replay(log(tmp_path), settings, KEY)
        ticks = [number for _, number in numbers if number < ENDED]
        assert len(ticks) > 2
        assert math.gcd(*ticks) == every
