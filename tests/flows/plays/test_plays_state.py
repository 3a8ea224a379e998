"""The memory of plays: how large, for how long, and in which form."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from flows.errors import StateError
from flows.model.counts import BY_MINUTE
from flows.model.dimensions import Dimensions
from flows.model.events import CODES, COMPLETE, IMPRESSION, START
from flows.model.messages import IMPRESSION_TOUCH, START_TOUCH, Pixels
from flows.model.pixel import COLUMNS, HOUSEHOLD, LINKED, TS
from flows.model.ticks import Cut
from flows.plays import play_shard as shards
from flows.plays import slots
from flows.plays.play_shard import PlayShard
from flows.state import interner
from flows.state.homes import Homes
from flows.state.saves import decode, encode

MINUTE = 60_000
YEAR_MS = 365 * 86_400_000
BOUND_MS = 10_000
BEGIN_MS = 29_000_000 * MINUTE
SHARDS = 2
HOMES = Homes(b"", SHARDS)


def bulk(
    keys: npt.NDArray[np.uint64], ts: Any, watermark: Any, events: tuple[str, ...], combos: int
) -> npt.NDArray[np.uint64]:
    """`events` of every play in `keys`, one after the other, as packed pixels with a listener each."""
    pixels = np.zeros((len(keys), len(events), COLUMNS), np.uint64)
    pixels[:, :, 0] = pixels[:, :, 1] = keys[:, None]
    pixels[:, :, 2], pixels[:, :, 3] = np.asarray(ts)[..., None], np.asarray(watermark)[..., None]
    pixels[:, :, 5] = np.array([CODES[event] | LINKED for event in events], np.uint64)
    pixels[:, :, 6] = (keys % np.uint64(combos))[:, None]
    return pixels.reshape(-1, COLUMNS)


def any_keys(rng: np.random.Generator, number: int) -> npt.NDArray[np.uint64]:
    return rng.integers(1, (1 << 64) - 1, number, np.uint64)


def placements(number: int, shard: int = 0) -> list[Dimensions]:
    names = (f"placement-{i}" for i in range(20 * SHARDS * number))
    combos: list[Dimensions] = [
        (name, "c", None, None, None, None, None)
        for name in names
        if HOMES.shard_of("placement", name) == shard
    ]
    return combos[:number]


def test_a_remembered_play_takes_at_most_64_bytes_at_every_size() -> None:
    rng = np.random.default_rng(1)
    shard = PlayShard(0, SHARDS, 10 * MINUTE, 30 * MINUTE, YEAR_MS)
    combos = placements(50)
    worst: dict[int, float] = {}
    while shard.plays < 1_200_000:
        keys = any_keys(rng, 2_000)
        shard.apply(Pixels("p", 0, bulk(keys, BEGIN_MS, BEGIN_MS, ("start", "complete"), 50), combos, []))
        decade = 10 ** (len(str(shard.plays)) - 1)
        worst[decade] = max(worst.get(decade, 0), shard.table.slots.nbytes / shard.plays)
    print(
        "bytes a play, at worst, from each size on:", {size: round(most, 1) for size, most in worst.items()}
    )
    ((_, packed, *_),) = shard.snapshot()[2]["pieces"]
    assert all(worst[size] <= 64 for size in (10_000, 100_000, 1_000_000))
    assert len(packed) == 8 * len(slots.WORDS) * shard.plays
    batches, *_, (outcome,) = shard.cut(Cut(0, BEGIN_MS, False, ()))
    assert outcome.accepted == 2 * shard.plays
    assert (
        sum(int(b.cell_counts[:, START].sum()) for b in batches) == 2 * shard.plays
    )  # placement and campaign


def test_one_batch_of_many_minutes_names_and_listeners_is_counted_whole() -> None:
    rng = np.random.default_rng(2)
    shard = PlayShard(0, SHARDS, 10 * MINUTE, 30 * MINUTE, YEAR_MS)
    keys = any_keys(rng, 60_000)
    ts = BEGIN_MS + rng.integers(0, 300, len(keys)) * MINUTE
    pixels = bulk(keys, ts, BEGIN_MS, ("impression", "complete", "start"), 97)
    pixels[:, 6] = np.repeat(np.arange(len(keys), dtype=np.uint64) % np.uint64(97), 3)
    assert not shard.apply(Pixels("p", 0, pixels, placements(97), []))
    batches, *_ = shard.cut(Cut(0, BEGIN_MS, False, ()))
    batch = batches[0]
    chosen = [i for i, (scope, _) in enumerate(batch.rows) if scope == "placement"]
    here = np.isin(batch.cell_rows, chosen)
    minutes = np.bincount(ts // MINUTE - BEGIN_MS // MINUTE)
    for column in (IMPRESSION, START, COMPLETE, BY_MINUTE.index("consented_plays")):
        got = np.bincount(batch.cell_minutes[here] - BEGIN_MS // MINUTE, batch.cell_counts[here, column])
        assert (got == minutes).all(), BY_MINUTE[column]
    assert np.isin(batch.touch_rows, chosen).sum() == len(keys)  # once a play, by impression and start
    assert sorted(set(batch.touch_listeners.tolist())) == sorted(keys.tolist())


@pytest.mark.parametrize("events", [("impression", "start"), ("start", "impression")])
@pytest.mark.parametrize(
    ("later_ms", "kept"), [(0, [IMPRESSION_TOUCH]), (MINUTE, [IMPRESSION_TOUCH, START_TOUCH])]
)
def test_a_start_is_a_touch_if_its_impression_is_in_another_minute(
    events: tuple[str, str], later_ms: int, kept: list[int]
) -> None:
    shard = PlayShard(0, SHARDS, 10 * MINUTE, 30 * MINUTE, YEAR_MS)
    keys = np.arange(2, 40, dtype=np.uint64)
    ts = np.full((len(keys), 2), BEGIN_MS) + [later_ms * (event == "start") for event in events]
    pixels = bulk(keys, 0, BEGIN_MS, events, 3)
    pixels[:, TS], pixels[:, HOUSEHOLD] = ts.ravel(), 7
    shard.apply(Pixels("p", 0, pixels, placements(3), []))
    _, touches, *_ = shard.cut(Cut(0, BEGIN_MS, False, ()))
    for some in (touches, [one.homes for one in touches]):
        assert sorted(kind for one in some for kind in one.kinds) == sorted(kept * len(keys))


def test_a_start_is_a_touch_if_its_impression_has_no_household() -> None:
    shard = PlayShard(0, SHARDS, 10 * MINUTE, 30 * MINUTE, YEAR_MS)
    pixels = bulk(np.array([2], np.uint64), BEGIN_MS, BEGIN_MS, ("impression", "start"), 1)
    pixels[1, HOUSEHOLD] = 7
    shard.apply(Pixels("p", 0, pixels, placements(1), []))
    _, touches, *_ = shard.cut(Cut(0, BEGIN_MS, False, ()))
    assert [kind for one in touches for kind in one.homes.kinds] == [START_TOUCH]


def test_memory_is_flat_when_the_log_goes_on_for_ten_horizons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interner, "DROP_AT", 100)
    rng = np.random.default_rng(3)
    shard = PlayShard(0, SHARDS, 10 * MINUTE, 30 * MINUTE, YEAR_MS)
    bytes_, names, state = [], [], []
    for minute in range(300):
        keys = any_keys(rng, 3_000)
        now_ms = BEGIN_MS + minute * MINUTE
        combos: list[Dimensions] = [(f"{minute}-{i}", None, None, None, None, None, None) for i in range(10)]
        events = ("complete", "midpoint", "start") if minute % 2 else ("midpoint", "skip")
        shard.apply(Pixels("p", 0, bulk(keys, now_ms, now_ms - BOUND_MS, events, 10), combos, []))
        shard.cut(Cut(minute, now_ms - BOUND_MS, False, ()))
        bytes_.append(shard.table.slots.nbytes)
        names.append(len(shard.names))
        state.append(len(encode(shard.snapshot())))
    for series in (bytes_, names, state):
        assert max(series[60:]) <= 1.3 * max(series[:60])
        assert max(series[270:]) <= 1.05 * max(series[60:120])
    assert names[-1] < 30 * 10 * 2 + 100


def test_flood_names_leave_the_snapshot_with_their_plays() -> None:
    shard = PlayShard(0, SHARDS, 10 * MINUTE, 30 * MINUTE, YEAR_MS)
    lasting = any_keys(np.random.default_rng(4), 5_000)
    shard.apply(Pixels("p", 0, bulk(lasting, BEGIN_MS, 0, ("start",), 10), placements(10), []))
    flood = np.arange(1, 20_001, dtype=np.uint64)
    combos: list[Dimensions] = [(f"{i}", None, None, None, None, None, None) for i in range(len(flood))]
    shard.apply(Pixels("p", 0, bulk(flood, BEGIN_MS, 0, ("start",), len(flood)), combos, []))
    shard.cut(Cut(0, BEGIN_MS, False, ()))
    assert len(encode(shard.snapshot())) > 20_000
    for number in range(1, 200):
        now_ms = BEGIN_MS + number * MINUTE
        keys = lasting + np.uint64(number)  # the known placements go on
        shard.apply(Pixels("p", 0, bulk(keys, now_ms, now_ms - BOUND_MS, ("start",), 10), placements(10), []))
        shard.cut(Cut(number, now_ms - BOUND_MS, False, ()))
    assert len(shard.names) == 10
    assert len(encode(shard.snapshot()[2]["combos"])) < 1_000, "a journal begins anew"
    again = PlayShard(0, SHARDS, 10 * MINUTE, 30 * MINUTE, YEAR_MS)
    again.restore(decode(encode(shard.snapshot())))
    assert again.names.combos.names == shard.names.combos.names
    assert again.plays == shard.plays


def test_a_final_minute_stays_final_under_a_lateness_lengthened_later() -> None:
    shard = PlayShard(0, SHARDS, MINUTE, 30 * MINUTE, YEAR_MS)
    shard.cut(Cut(0, BEGIN_MS, False, ()))
    longer = PlayShard(0, SHARDS, 30 * MINUTE, 60 * MINUTE, YEAR_MS)
    longer.restore(decode(encode(shard.snapshot())))
    longer.cut(Cut(1, BEGIN_MS + MINUTE, False, ()))
    assert longer.first_open == shard.first_open > (BEGIN_MS - 29 * MINUTE) // MINUTE


def test_state_of_another_format_or_ring_is_refused() -> None:
    shard = PlayShard(0, SHARDS, MINUTE, 30 * MINUTE, YEAR_MS)
    state = shard.snapshot()
    with pytest.raises(StateError, match="format 99"):
        shard.restore((99, *state[1:]))
    with pytest.raises(StateError, match="shards=2"):
        PlayShard(0, 3, MINUTE, 30 * MINUTE, YEAR_MS).restore(state)


@pytest.mark.parametrize("remembered", [0, 20, 1 << 15])
def test_a_senders_numbers_mean_its_names(monkeypatch: pytest.MonkeyPatch, remembered: int) -> None:
    """The rule holds for any renumbering by the sender and any eviction by the shard."""
    monkeypatch.setattr(shards, "_REMEMBERED", remembered)
    monkeypatch.setattr(interner, "DROP_AT", 60)
    rng, names = np.random.default_rng(4), placements(400)
    by_number, by_name = (PlayShard(0, SHARDS, MINUTE, MINUTE, MINUTE) for _ in range(2))
    numbered: dict[str, tuple[int, list[Dimensions]]] = {}
    for step in range(40):
        for sender in "pq":
            numbering, combos = numbered.get(sender, (0, []))
            if not combos or rng.random() < 0.2:  # this sender renumbers its names
                first = 10 * step % 300
                numbering, combos = numbering + 1, [names[n] for n in first + rng.permutation(80)]
                numbered[sender] = numbering, combos
            own = rng.permutation(80)[: rng.integers(1, 40)].astype(np.int32)
            now_ms = BEGIN_MS + step * MINUTE
            pixels = bulk(any_keys(rng, 60), now_ms, now_ms, ("impression", "start"), len(own))
            some = [combos[number] for number in own.tolist()]
            by_number.apply(Pixels(sender, 0, pixels, some, [], numbers=own, numbering=numbering))
            by_name.apply(Pixels(sender, 0, pixels, some, []))
        assert counted(by_number, step) == counted(by_name, step)
    assert len(by_number.names) < 400  # it has forgotten some


def counted(shard: PlayShard, number: int) -> dict[Any, int]:
    """The accepted pixels of a cut, by row and minute."""
    batches, *_ = shard.cut(Cut(number, BEGIN_MS + number * MINUTE, False, ()))
    found = dict[Any, int]()
    for batch in batches:
        cells = zip(batch.cell_rows.tolist(), batch.cell_minutes.tolist(), batch.cell_counts, strict=True)
        for row, minute, counts in cells:
            place = batch.rows[row], minute
            found[place] = found.get(place, 0) + int(counts.sum())
    return found
