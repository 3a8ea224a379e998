"""The members' meeting: all take the greatest save that each can go on from, whatever lies in Redis."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from save_support import KEYS, on_disks, part
from structlog.testing import capture_logs

from connectors.redis import Client, put_fields
from connectors.stream import ConnectError
from flows.engine import meeting as meetings
from flows.engine.copies import Copy
from flows.engine.meeting import Agreed, HeldSave, Word, agree, common_cut, in_redis
from flows.engine.place import Place, member_of
from flows.engine.saves import Saves
from flows.engine.tick_clock import Published
from flows.errors import AudiopixelError, StateError
from flows.model.messages import PartitionStates
from flows.model.redis_keys import saves_key
from flows.model.ticks import Cut
from flows.publish.fence import FenceRecord, latest_fence_record, write_fence_record
from flows.settings.fields import Settings
from flows.state.saves import FORMAT, PARTITIONS, Manifest, SaveStore, encode


def together(stores: Sequence[SaveStore]) -> list[Agreed]:
    """The members' meeting, each hearing all of every round."""
    sides = [agree(store, Place(member, len(stores))) for member, store in enumerate(stores)]
    said, ends = [next(side) for side in sides], list[Agreed]()
    while not ends:
        heard, said = said, []
        for side in sides:
            try:
                said.append(side.send(heard))
            except StopIteration as end:
                ends.append(end.value)
    assert len(ends) == len(stores), "all come to their end in the same round"
    assert len({one.start for one in ends}) == 1
    return ends


def taken(stores: Sequence[SaveStore]) -> int | None:
    """The cut that all take."""
    cuts = [None if one.save is None else one.save.cut for one in together(stores)]
    assert len(set(cuts)) == 1
    return cuts[0]


def test_all_members_use_the_greatest_common_save(tmp_path: Path) -> None:
    stores = on_disks(tmp_path, [(3, 5, 9), (5, 9, 12), (3, 5, 9)])
    assert taken(stores) == 9
    assert [store.cuts() for store in stores] == [[9, 5, 3], [9, 5], [9, 5, 3]]


@given(st.lists(st.sets(st.integers(0, 6)), min_size=1, max_size=4))
def test_the_common_cut_is_the_greatest_on_every_disk(cuts: list[set[int]]) -> None:
    held = [[HeldSave(cut, 7, len(cuts), (member,)) for cut in some] for member, some in enumerate(cuts)]
    assert common_cut(held, {}) == max(set.intersection(*cuts), default=None)
    everything = [[HeldSave(cut, 7, 2, (0, 1)) for cut in some] for some in cuts]
    assert common_cut(everything, {}) == max(set.intersection(*cuts), default=None)


def test_one_damaged_file_sends_all_members_to_the_previous_save(tmp_path: Path) -> None:
    stores = on_disks(tmp_path, [(5, 9), (5, 9)])
    file = next((stores[1].root / "saves" / f"{9:020d}").glob("plays-*"))
    file.write_bytes(file.read_bytes()[:-1])
    with capture_logs() as told:
        assert taken(stores) == 5
    assert [(one["damaged"], one["taken"]) for one in told] == [(9, 5), (9, 5)]


def test_members_of_a_shared_directory_may_begin_at_once(tmp_path: Path) -> None:
    members = 4
    with ThreadPoolExecutor(members) as pool:
        for number in range(100):
            store, together = SaveStore(tmp_path / str(number)), threading.Barrier(members)

            def begin(store: SaveStore = store, together: threading.Barrier = together) -> bool:
                together.wait()
                store.begin()
                return store.begun

            assert all(one.result() for one in [pool.submit(begin) for _ in range(members)])


def test_members_of_a_shared_directory_may_start_in_any_number(tmp_path: Path) -> None:
    store = SaveStore(tmp_path)
    for member in (0, 1):
        part(store, 5, Place(member, 2))
    part(store, 9, Place(0, 2))  # and member 1 died before its own
    for members in (1, 2, 3):
        assert taken([store] * members) == 5


def test_a_crash_between_first_manifests_restarts_from_the_beginning(
    tmp_path: Path,
) -> None:
    stores = on_disks(tmp_path, [(), ()])
    assert taken(stores) is None
    part(stores[0], 4, Place(0, 2))
    assert taken(stores) is None
    assert stores[0].cuts() == []
    for member, store in enumerate(stores):
        part(store, 4, Place(member, 2))
        store.prune(4)
    (tmp_path / "disk-1").rename(tmp_path / "lost")
    with pytest.raises(StateError, match="the disk of member 1 has no save, and those of others have"):
        together(stores)


@pytest.mark.parametrize("cuts", [(), (3,)])
def test_all_members_learn_the_generation_with_or_without_a_save(tmp_path: Path, cuts: Sequence[int]) -> None:
    stores = on_disks(tmp_path, [cuts, cuts])
    written = FenceRecord(3, 2, begun=True)  # by `--recompute`
    write_fence_record(stores[1].root, 1, written)
    together(stores)
    assert [latest_fence_record(store.root) for store in stores] == [written] * 2


def test_of_one_cut_the_parts_of_two_starts_are_two_saves(tmp_path: Path) -> None:
    stores = on_disks(tmp_path, [(3, 5), (3,)])
    part(stores[1], 5, Place(1, 2), start=8)
    assert taken(stores) == 3


def test_shards_routed_elsewhere_by_the_engine_are_refused(tmp_path: Path) -> None:
    stores = on_disks(tmp_path, [(3,), (3,)])
    for member, store in enumerate(stores):
        manifest = store.manifest(3, member)
        fewer = [piece for piece in manifest.pieces if piece.step == PARTITIONS]
        store.commit(Manifest(FORMAT, 3, 0, {}, 0, 0, {}, fewer, 7, member, manifest.shards))
    with pytest.raises(StateError, match=r"more shards: deal them .* with `audiopixel state deal`"):
        together(stores)


# In Redis


def meeting(settings: Settings, stores: Sequence[SaveStore]) -> list[Agreed]:
    def result_of(member: int) -> Agreed:
        place = Place(member, len(stores))
        return in_redis(settings, place, agree(stores[member], place))

    with ThreadPoolExecutor(len(stores)) as pool:
        return list(pool.map(result_of, range(len(stores))))


def test_members_meet_despite_leftovers_of_earlier_starts(
    tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of()
    stores = on_disks(tmp_path, [(3, 5), (3, 5), (3,)])
    gone = [Word(f"gone-{member}", ["gone-0", "gone-1", "gone-2"], b"nonsense") for member in range(3)]
    for member, word in enumerate(gone):
        old = {"round-0": msgspec.json.encode(word).decode(), "start": "7", "cuts": "[3, 5]"}
        put_fields(client, {saves_key(settings.namespace, member): old})
    found = meeting(settings, stores)
    assert [one.save and one.save.cut for one in found] == [3, 3, 3]
    assert len({one.start for one in found}) == 1
    again = meeting(settings, stores)
    assert {one.start for one in again} & {one.start for one in found} == set()


def test_members_meet_despite_keys_of_another_program(
    tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of()
    for member in range(2):
        put_fields(client, {saves_key(settings.namespace, member): {"round-0": "{no word"}})
    found = meeting(settings, on_disks(tmp_path, [(3, 5), (3,)]))
    assert [one.save and one.save.cut for one in found] == [3, 3]


def test_all_members_use_the_greatest_published_cut_found(
    tmp_path: Path, settings_of: Callable[..., Settings]
) -> None:
    """Else the ticks of one with another flush interval would wait for years for the others'."""
    settings, stores = settings_of(), on_disks(tmp_path, [(), (), ()])
    found = [Published(7, {}, 0), Published(7, {"t/0": 3}, 5), Published(6, {"t/0": 2}, 4)]
    away = [ConnectError("away"), ConnectError("still away")]

    def find(member: int) -> Published:
        if member == 1 and away:
            raise away.pop()
        return found[member]

    def result_of(member: int) -> Published:
        place = Place(member, len(stores))
        saves = Saves(settings.model_copy(update={"recovery_dir": stores[member].root}), b"", Now, place)
        saves.find_published = lambda: find(member)
        assert saves.resumed is None
        assert saves.published is not None
        return saves.published

    with ThreadPoolExecutor(len(stores)) as pool:
        assert list(pool.map(result_of, range(len(stores)))) == [found[1]] * 3


def test_a_member_of_another_version_is_refused_with_advice(tmp_path: Path) -> None:
    side = agree(on_disks(tmp_path, [(3,)])[0], Place(0, 2))
    with pytest.raises(StateError, match="run the same version on all members"):
        side.send([next(side), b'{"has": "another form"}'])


def test_a_missing_member_error_names_the_writer_of_its_key(
    settings_of: Callable[..., Settings],
    client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(meetings, "MEET_WITHIN_S", 0.2)
    settings = settings_of()
    key = saves_key(settings.namespace, 1)
    put_fields(client, {key: {"round-0": "{no word"}})
    with pytest.raises(AudiopixelError, match=re.escape(f"{key} is written by another program")):
        in_redis(settings, Place(0, 2), agree(SaveStore(tmp_path), Place(0, 2)))


def test_members_meet_while_redis_loses_their_messages(
    tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    settings, over = settings_of(), threading.Event()
    keys = [saves_key(settings.namespace, member) for member in range(3)]

    def lose() -> None:
        while not over.wait(0.01):
            client.delete(*keys)

    stores = on_disks(tmp_path, [(3, 5)] * 3)
    loser = threading.Thread(target=lose)
    loser.start()
    timer = threading.Timer(0.5, over.set)
    timer.start()
    try:
        assert [one.save and one.save.cut for one in meeting(settings, stores)] == [5, 5, 5]
    finally:
        over.set()
        loser.join()


def test_a_member_repeats_its_messages_after_redis_lost_them(
    tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of()
    meeting(settings, on_disks(tmp_path, [(3, 5)] * 2))
    keys = [saves_key(settings.namespace, member) for member in range(2)]
    client.delete(*keys)
    deadline_s = time.monotonic() + 5.0
    while not all(client.hgetall(key) for key in keys):
        assert time.monotonic() < deadline_s, "what they said is gone for who has not heard it yet"
        time.sleep(0.01)


# The commit


class Now:
    """Work that is done at once."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._result = work()

    def done(self) -> bool:
        return True

    def result(self) -> Any:
        return self._result


def test_committed_positions_are_requested_during_the_disk_scan(
    tmp_path: Path, settings_of: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    saves = Saves(settings_of(recovery_dir=tmp_path / "recovery", shards=1), b"", Now)
    assert saves.store is not None
    saves.resume(*together([saves.store]))
    looked = []

    def members_at(_: int) -> list[int]:
        with ThreadPoolExecutor(1) as flow:
            looked.append(flow.submit(saves.committed).result(timeout=5))
        return [0]

    monkeypatch.setattr(saves.store, "members_at", members_at)
    cut = Cut(1, 0, False, (("a", 1),), save=True)
    piece = saves.put(cut, Copy("plays", KEYS[0], encode(1), [], lambda: None)).result()
    saves.commit(cut, [piece], PartitionStates(cut, {}, 0))
    assert looked == [{}]
    assert saves.committed() == {"a": 1}


class Committing:
    """Two members with disks of their own, which learn of each other through the disks alone."""

    def __init__(self, root: Path, settings_of: Callable[..., Settings]) -> None:
        self.members = [
            Saves(settings_of(recovery_dir=root / f"disk-{member}", shards=1), b"", Now, Place(member, 2))
            for member in (0, 1)
        ]
        self.stores = [one.store for one in self.members if one.store is not None]
        for one, agreed in zip(self.members, together(self.stores), strict=True):
            one.resume(agreed)

    def commit(self, member: int, number: int) -> None:
        cut = Cut(number, 0, False, (("a", number),), save=True)
        saves = self.members[member]
        keys = [next(key for key in KEYS if member_of(key, 2) == one) for one in (0, 1)]
        piece = saves.put(cut, Copy("plays", keys[member], encode(number), [], lambda: None)).result()
        shards = tuple((f"plays-{key}",) for key in keys)
        saves.commit(cut, [piece], PartitionStates(cut, {}, member), shards)


def test_a_member_removes_only_files_older_than_a_common_save(
    tmp_path: Path, settings_of: Callable[..., Settings]
) -> None:
    both = Committing(tmp_path, settings_of)
    members, stores, commit = both.members, both.stores, both.commit
    for number in (1, 2, 3, 4):
        commit(0, number)
    assert stores[0].cuts() == [4, 3, 2, 1], "member 1 has none of them"
    assert members[0].committed() == {}
    for number in (1, 2, 3):
        commit(1, number)
    assert stores[1].cuts() == [3, 2]
    assert members[1].committed() == {"a": 3}
    assert stores[0].cuts() == [4, 3, 2, 1], "member 0 has not heard of it"
    commit(0, 5)
    assert stores[0].cuts() == [5, 4, 3, 2]
    assert members[0].committed() == {"a": 3}
    assert taken(stores) == 3


def test_the_save_before_the_common_one_stays_until_the_next(
    tmp_path: Path, settings_of: Callable[..., Settings]
) -> None:
    """Seed 118565: a member removed it at its own next save, and the one that was left was damaged."""
    both = Committing(tmp_path, settings_of)
    for number, member in ((1, 0), (1, 1), (2, 0), (2, 1)):
        both.commit(member, number)
    both = Committing(tmp_path, settings_of)
    both.commit(1, 3)
    assert both.stores[1].cuts() == [3, 2, 1], "that member 0 has 3, too, is not known"
    (file,) = (tmp_path / "disk-0").glob(f"saves/*2/plays-{KEYS[0]}*")
    file.write_bytes(file.read_bytes()[:-1])
    assert taken(both.stores) == 1
