"""The cache that compiled loops probe: what it holds, how it grows, when it forgets."""

from __future__ import annotations

import numpy as np

from flows.intake.fingerprints import FingerprintCache, put, room
from flows.state.hash_table import find


def _value(memo: FingerprintCache, key: int) -> int | None:
    slot = find(memo.slots, np.uint64(key))
    return int(memo.slots[slot, 1]) if memo.slots[slot, 0] else None


def test_every_entry_is_found_after_every_growth() -> None:
    keys = np.random.default_rng(1).integers(1, 2**63, 20_000).tolist()
    memo = FingerprintCache(100_000)
    for done, key in enumerate(keys):
        memo.make_room()
        assert room(memo.slots, memo.used)
        put(memo.slots, memo.used, np.uint64(key), done)
    assert [_value(memo, key) for key in keys] == list(range(20_000))
    assert _value(memo, 2**63 + 1) is None
    assert int(memo.used[0]) == 20_000 <= len(memo.slots) // 2


def test_a_key_put_twice_has_the_last_value_and_one_slot() -> None:
    memo = FingerprintCache(10)
    for value in (3, 4):
        put(memo.slots, memo.used, np.uint64(9), value)
    assert _value(memo, 9) == 4
    assert int(memo.used[0]) == 1


def test_beyond_its_bound_it_forgets_and_is_small_again() -> None:
    memo = FingerprintCache(5_000)
    for key in range(1, 5_002):
        memo.make_room()
        put(memo.slots, memo.used, np.uint64(key << 40), key)
    memo.grow()
    assert _value(memo, 1 << 40) == 1
    memo.make_room()
    assert _value(memo, 1 << 40) is None
    assert int(memo.used[0]) == 0
    assert memo.slots.nbytes < 100_000
