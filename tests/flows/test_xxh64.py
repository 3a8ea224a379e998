"""XXH64 in a kernel against the `xxhash` package."""

from __future__ import annotations

import os

import numpy as np
import pytest
import xxhash

from flows.xxh64 import xxh64, xxh64_of_word

NOISE = os.urandom(5_000)
BLOCK = np.frombuffer(NOISE, np.uint8)


@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1, 0x1234_5678_9ABC_DEF0])
def test_a_hash_is_the_packages_for_every_length_place_and_seed(seed: int) -> None:
    for length in (*range(300), 1_000, 4_096):
        for begin in (0, 1, 3, 8, 700):
            expected = xxhash.xxh64_intdigest(NOISE[begin : begin + length], seed)
            assert int(xxh64(BLOCK, begin, length, np.uint64(seed))) == expected


@pytest.mark.parametrize("word", [0, 1, -1, 12_345, 2**62])
def test_a_word_is_hashed_as_its_eight_bytes(word: int) -> None:
    told = (word & (2**64 - 1)).to_bytes(8, "little")
    assert int(xxh64_of_word(word, np.uint64(77))) == xxhash.xxh64_intdigest(told, 77)


def test_bytes_behind_the_string_do_not_count() -> None:
    for length in range(40):
        a, b = (np.frombuffer(b"x" * length + tail, np.uint8) for tail in (bytes(8), b"\xff" * 8))
        assert xxh64(a, 0, length, np.uint64(5)) == xxh64(b, 0, length, np.uint64(5))
