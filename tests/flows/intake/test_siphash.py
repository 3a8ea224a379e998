"""SipHash-1-3 and 2-4 in kernels against a plain one, held to its published vector, and against Python."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from flows.state.arrays import U8, U64
from flows.state.kernel import kernel
from flows.state.siphash import begin, end, load64, siphash, siphash24, text, word

NOISE = os.urandom(2_000)
BLOCK = np.frombuffer(NOISE, np.uint8)
ALL = 2**64 - 1
KEYS = [(0, 0), (ALL, ALL), (0x0706050403020100, 0x0F0E0D0C0B0A0908), (1, 2**63)]


def turned(x: int, left: int) -> int:
    return (x << left | x >> (64 - left)) & ALL


def plainly(message: bytes, key: tuple[int, int], by_word: int = 1, at_the_end: int = 3) -> int:
    """SipHash as its paper writes it down."""
    v = [key[i % 2] ^ c for i, c in enumerate(_BEGINNING)]

    def add_turn_mix(a: int, b: int, left: int) -> None:
        v[a] = (v[a] + v[b]) & ALL
        v[b] = turned(v[b], left) ^ v[a]

    def rounds(count: int) -> None:
        for _ in range(count):
            add_turn_mix(0, 1, 13)
            add_turn_mix(2, 3, 16)
            v[0] = turned(v[0], 32)
            add_turn_mix(2, 1, 17)
            add_turn_mix(0, 3, 21)
            v[2] = turned(v[2], 32)

    padded = message + bytes(7 - len(message) % 8) + bytes([len(message) % 256])
    for place in range(0, len(padded), 8):
        m = int.from_bytes(padded[place : place + 8], "little")
        v[3] ^= m
        rounds(by_word)
        v[0] ^= m
    v[2] ^= 0xFF
    rounds(at_the_end)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


_BEGINNING = [int.from_bytes(part, "big") for part in (b"somepseu", b"dorandom", b"lygenera", b"tedbytes")]


def key_of(words: tuple[int, int]) -> U64:
    return np.array(words, np.uint64)


def test_the_plain_one_has_the_papers_vector() -> None:
    assert plainly(bytes(range(15)), KEYS[2], 2, 4) == 0xA129CA6149BE45E5


@pytest.mark.parametrize("words", KEYS)
def test_a_hash_equals_the_plain_one_for_any_input(words: tuple[int, int]) -> None:
    for length in (*range(300), 1_000):
        for place in (0, 1, 3, 8, 700):
            message = NOISE[place : place + length]
            assert int(siphash(*key_of(words), BLOCK, place, length)) == plainly(message, words)
            assert int(siphash24(*key_of(words), BLOCK, place, length)) == plainly(message, words, 2, 4)


def test_under_the_key_of_noughts_it_is_pythons_own() -> None:
    # hash() of the empty string is 0 whatever the key.
    told = "import sys; b = bytes.fromhex(sys.argv[1]); print(*(hash(b[:n]) % 2**64 for n in range(1, 100)))"
    out = subprocess.run(
        [sys.executable, "-c", told, NOISE[:100].hex()],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert sys.hash_info.algorithm == "siphash13"
    assert [int(siphash(*key_of((0, 0)), BLOCK, 0, n)) for n in range(1, 100)] == [*map(int, out.split())]


@kernel
def behind_three_words(key: U64, block: U8, length: int) -> np.uint64:
    state = begin(key[0], key[1])
    for place in (0, 8, 16):
        state = word(state, load64(block, place))
    return end(text(state, block, 24, length, 24))


def test_words_before_a_text_hash_like_its_first_bytes() -> None:
    for length in range(300):
        found = behind_three_words(key_of(KEYS[3]), BLOCK, length)
        assert int(found) == plainly(NOISE[: 24 + length], KEYS[3])


def test_bytes_behind_the_text_do_not_count() -> None:
    for length in range(40):
        a, b = (np.frombuffer(b"x" * length + tail, np.uint8) for tail in (bytes(8), b"\xff" * 8))
        for function in (siphash, siphash24):
            assert function(*key_of(KEYS[0]), a, 0, length) == function(*key_of(KEYS[0]), b, 0, length)
