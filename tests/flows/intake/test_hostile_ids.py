"""Ids that are chosen by an enemy: none makes another's pixel a repeated one, nor a table slow."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from connectors.stream import Messages
from flows.engine.steps import CreditsLogic, PlaysLogic, RowsLogic
from flows.engine.tick_clock import TickClock
from flows.errors import StateError
from flows.intake.decoder import Batch, Decoder
from flows.intake.split import Splitter
from flows.intake.watermark import PartitionClock
from flows.model.counts import CONSENTED_PLAYS
from flows.model.dimensions import Dimensions
from flows.model.events import IMPRESSION, START
from flows.model.messages import PixelOutcomes
from flows.model.pixel import COMBO, INFO, INVALID_SHIFT, KEY
from flows.plays import cohort, slots
from flows.plays.increments import Increments
from flows.plays.play_shard import PlayShard
from flows.settings.fields import Settings
from flows.state.arrays import U64
from flows.state.hash_table import HashTable
from flows.state.homes import Homes

SECRET = b"sixteen bytes !!"
T0 = 1_790_000_040_000
MINUTE = 60_000

# Both have one XXH64 under nine of ten seeds: the second changed word of a lane cancels the first.
AGENT = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.5 Mobile/15E148 Safari/604.1"
)
BOT = AGENT.replace("Mozilla/", "xxbot-gK").replace("OS 18_5 ", "nTb40_ja")
PROGRAM = "The Rest Is Football: The full interview with the manager, extended edition"
TWIN = "UQ4 4T7l Is Football: The full iC=2o6xl( with the manager, extended edition"


def line(number: int, **more: Any) -> bytes:
    base = {"event_id": f"e{number}", "event": "impression", "ts": T0, "placement_id": "p"}
    return json.dumps({**base, "play_id": f"p{number}", **more}, separators=(",", ":")).encode()


def read(decoder: Decoder, lines: list[bytes]) -> Batch:
    return decoder.decode(Messages(lines, range(len(lines)), len(lines), [T0] * len(lines)))


def xxh64(text: str, seed: int) -> int:
    return int(xxhash.xxh64_intdigest(text.encode(), seed))


@pytest.mark.parametrize(("one", "other"), [(AGENT, BOT), (PROGRAM, TWIN)])
def test_the_test_twins_collide_in_a_seeded_fast_hash(one: str, other: str) -> None:
    seeds = np.random.default_rng(1).integers(0, 2**64 - 1, 1_000, np.uint64).tolist()
    same = [xxh64(one, seed) == xxh64(other, seed) for seed in seeds]
    assert one != other
    assert sum(same) > 800


def test_a_forged_twin_agent_is_judged_alone() -> None:
    for _ in range(10):  # each decoder has a secret of its own
        decoder = Decoder(SECRET)
        assert (read(decoder, [line(0, user_agent=BOT)]).pixels[:, INFO] >> INVALID_SHIFT).tolist() == [1]
        pixels = read(decoder, [line(number, user_agent=AGENT) for number in range(1, 50)]).pixels
        assert not (pixels[:, INFO] >> INVALID_SHIFT).any()


def test_a_forged_twin_name_is_a_different_name() -> None:
    for _ in range(10):
        decoder = Decoder(SECRET)
        lines = [line(number, program=program) for number, program in enumerate((TWIN, PROGRAM) * 2)]
        batch = read(decoder, lines)
        programs = [batch.combos[int(combo)][5] for combo in batch.pixels[:, COMBO]]
        assert programs == [TWIN, PROGRAM] * 2


# Tables


def crowded(count: int, seed: int, high: int) -> list[str]:
    """Ids of 16 letters whose XXH64 under `seed` has `high` in its upper half: the function turned back."""
    p = [0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5]
    p1, p2, p4 = (np.uint64(p[at]) for at in (0, 1, 3))
    i1, i2, i3 = (np.uint64(pow(one, -1, 2**64)) for one in p[:3])
    rng = np.random.default_rng(2)
    found: list[str] = []
    while len(found) < count:
        first = rng.integers(ord("0"), ord("z"), (1 << 17, 8), np.uint8).view(np.uint64).ravel()
        h = np.uint64(high << 32) | rng.integers(0, 2**32, len(first), np.uint64)
        h = (h ^ (h >> np.uint64(32))) * i3
        h = (h ^ (h >> np.uint64(29)) ^ (h >> np.uint64(58))) * i2
        h ^= h >> np.uint64(33)
        state = np.uint64((seed + p[4] + 16) % 2**64) ^ (turned(first * p2, 31) * p1)
        state = turned(state, 27) * p1 + p4
        second = turned((state ^ turned((h - p4) * i1, 64 - 27)) * i1, 64 - 31) * i2
        letters = np.stack([first, second], axis=1).view(np.uint8)
        right = ((letters >= 35) & (letters < 127) & (letters != ord("\\"))).all(axis=1)
        found += [bytes(one).decode() for one in letters[right]]
    return found[:count]


def turned(x: U64, left: int) -> U64:
    return (x << np.uint64(left)) | (x >> np.uint64(64 - left))


def displacement(ids: list[str]) -> float:
    """How far from their slots the plays of these ids lie, on the average."""
    decoder, splitter, clock = Decoder(SECRET), Splitter("t", 1, SECRET), PartitionClock(10_000, MINUTE)
    shard = PlayShard(0, 1, 10 * MINUTE, 30 * MINUTE, 60 * MINUTE, secret=SECRET)
    batch = read(decoder, [line(number, play_id=one) for number, one in enumerate(ids)])
    clock.judge(batch.pixels)
    for pixels in splitter.split(batch):
        shard.apply(pixels)
    table = shard.table.slots
    slots = np.flatnonzero(table[:, 0])
    assert len(slots) == len(ids)
    homes = ((table[slots, 0] >> np.uint64(32)) * np.uint64(len(table))) >> np.uint64(32)
    return float(((slots - homes.astype(np.int64)) % len(table)).mean())


def test_ids_forged_for_one_slot_are_spread_evenly() -> None:
    seed = xxh64("p", 0) >> 1
    made = crowded(1_000, seed, 0x12345678)
    halves = {xxh64(one, seed) >> 32 for one in made}
    assert halves == {0x12345678}
    assert displacement(made) < 5 * (1 + displacement([f"honest-play-{n:04}" for n in range(1_000)]))


def test_a_play_with_key_0_counts_once_in_one_slot() -> None:
    shard = PlayShard(0, 1, 10 * MINUTE, 30 * MINUTE, 60 * MINUTE)
    batch = read(Decoder(SECRET), [line(number) for number in range(1_000)])
    batch.pixels[:, KEY] = 0
    PartitionClock(10_000, MINUTE).judge(batch.pixels)
    (pixels,) = Splitter("t", 1).split(batch)
    shard.apply(pixels)
    outcome = PixelOutcomes("t", *shard.outcomes["t"][:3].tolist(), ())
    assert (outcome.accepted, outcome.repeated, shard.plays) == (1, 999, 1)


# Identities and homes


def keys_of(secret: bytes, *lines: bytes) -> list[int]:
    scanned, plain = read(Decoder(secret), [*lines]), read(Decoder(secret, scanning=False), [*lines])
    assert scanned.pixels[:, KEY].tolist() == plain.pixels[:, KEY].tolist()
    found: list[int] = scanned.pixels[:, KEY].tolist()
    return found


def test_identities_are_of_placement_kind_text_and_playhead_under_the_secret() -> None:
    lines = [line(1, placement_id=placement) for placement in ("p", "q", "p/q")]
    lines += [line(1, play_id=play) for play in ("e1", "p1\0", "\0" * 7, "\0" * 8)]
    lines += [line(1, play_id=None), line(2, play_id=None), line(1, play_id=None, event_id="p1")]
    lines += [
        line(1, event="progress", playhead_ms=at) for at in (None, 0, 1, 2**63 - 1, 2**63, 2**64 - 1, -3)
    ]
    lines += [line(1, event="progress", playhead_ms=10**30, placement_id=placement) for placement in "pq"]
    keys, again = keys_of(SECRET, *lines), keys_of(SECRET + b"!", *lines)
    assert len({*keys, *again}) == 2 * len(lines)
    assert keys == keys_of(SECRET, *lines)
    assert len({*keys_of(SECRET, line(1, event="progress"), line(1, event="progress", playhead_ms=-2))}) == 1
    assert keys[0] == keys_of(SECRET, line(7, event="start", play_id="p1"))[0]


def test_the_shards_of_names_depend_on_the_shared_secret_key(
    settings_of: Callable[..., Settings],
) -> None:
    names = [f"name-{number}" for number in range(300)]
    homes, others = Homes(SECRET, 16), Homes(b"another secret !", 16)
    shards = [homes.shard_of("placement", name) for name in names]
    assert shards == homes.shards_of("placement", names).tolist()
    assert max(np.bincount(shards)) < 50
    assert (
        sum(one == other for one, other in zip(shards, others.shards_of("placement", names), strict=True))
        < 60
    )
    settings = settings_of(shards=16)
    plays_step = PlaysLogic(settings, None, TickClock(1000), SECRET)
    book, rows = CreditsLogic(settings, None, SECRET), RowsLogic(settings, True, None, SECRET)
    for held in (plays_step._shard._homes, book._book._homes, rows._homes):
        assert held.shards_of("placement", names).tolist() == shards


def test_no_two_rows_share_a_text_in_the_shard_hash() -> None:
    homes, names = Homes(SECRET, 64), [f"{number}" for number in range(300)]
    campaigns = homes.shards_of("campaign", names).tolist()
    assert campaigns != homes.shards_of("placement", [f"campaign/{name}" for name in names]).tolist()
    assert campaigns != homes.shards_of("", [f"campaign/{name}" for name in names]).tolist()


# Many names


@given(
    st.integers(0, slots.MAX_COMBOS - 1),
    st.integers(0, 2**27 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**42 - 1),
)
def test_a_slot_contains_any_combination_with_minutes_and_time(
    combo: int, reached: int, started: int, ts: int
) -> None:
    minutes, times = np.uint64(reached << 32 | started), np.uint64(ts)
    for other in (slots.MAX_COMBOS - 1, combo):
        minutes, times = slots.with_combo(minutes, times, np.uint64(other))
        minutes, times = np.uint64(minutes), np.uint64(times)
    assert slots.reached_combo(minutes, times) == combo
    assert slots.reached_minute(minutes) == reached
    assert int(minutes) & 0xFFFFFFFF == started
    assert int(times) & (2**42 - 1) == ts


def test_a_play_moves_to_its_earlier_minute_beyond_4_194_304_combinations() -> None:
    table, used = HashTable(len(slots.WORDS), slots.CHANGED).slots, np.zeros(4, np.int64)
    cells, counts, *_ = Increments.new()
    for code, minute in ((START, 10), (IMPRESSION, 9)):
        cohort.reach(table, used, 3, code, 5_000_000, minute, cells, counts)
    found = {int(cells[at]) - 1: int(counts[at, CONSENTED_PLAYS]) for at in np.flatnonzero(cells)}
    assert found == {5_000_000 << 32 | 10: 0, 5_000_000 << 32 | 9: 1}


def test_more_combinations_than_a_slot_tells_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "MAX_COMBOS", 3)
    shard = PlayShard(0, 1, 10 * MINUTE, 30 * MINUTE, 60 * MINUTE)
    combos: list[Dimensions] = [(name, None, None, None, None, None, None) for name in "abcd"]
    assert shard._numbers(combos[:3] * 2).tolist() == [0, 1, 2] * 2
    with pytest.raises(StateError, match="3 combinations"):
        shard._numbers(combos[3:])
