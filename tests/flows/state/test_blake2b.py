"""BLAKE2b in a kernel against Python's, and the masks of a scanner against byte by byte."""

from __future__ import annotations

import os
from hashlib import blake2b

import numpy as np
import pytest

from flows.intake.text_masks import WIDTH, text_masks
from flows.state.arrays import I64, U8, U64
from flows.state.bits import lowest
from flows.state.blake2b import BLOCK_BYTES, BLOCK_WORDS, hash64, keyed
from flows.state.kernel import kernel


@kernel
def _masks(block: U8, place: int) -> U64:
    quotes, odd = text_masks(block, place)
    return np.array([quotes, odd], np.uint64)


@kernel
def _lowest(masks: U64) -> I64:
    found = np.empty(len(masks), np.int64)
    for i in range(len(masks)):
        found[i] = lowest(masks[i])
    return found


@pytest.mark.parametrize("key_bytes", [1, 31, 32, 64])
def test_every_length_hashes_as_python_does_whatever_lies_behind_the_text(key_bytes: int) -> None:
    key = os.urandom(key_bytes)
    state, scratch = keyed(key), np.empty(BLOCK_WORDS + 8, np.uint64)
    for length in range(1, BLOCK_BYTES + 1):
        said = os.urandom(3 + length + 7)
        told = blake2b(said[3 : 3 + length], digest_size=8, key=key).digest()
        found = hash64(state, np.frombuffer(said, np.uint8), 3, length, scratch)
        assert int(found) == int.from_bytes(told, "little"), length


def test_masks_mark_every_quote_and_unusual_byte() -> None:
    said = np.tile(np.arange(256, dtype=np.uint8), 2)
    for place in range(0, 256, 7):
        here = said[place : place + WIDTH]
        told = [here == ord('"'), (here < 0x20) | (here > 0x7F) | (here == ord("\\"))]
        masks = _masks(said, place)
        for mask, bits in zip(masks.tolist(), told, strict=True):
            assert [bool(mask >> bit & 1) for bit in range(WIDTH)] == bits.tolist()


def test_the_lowest_bit_is_found_at_any_position() -> None:
    masks = [1 << bit | 1 << 63 for bit in range(64)]
    assert _lowest(np.array([*masks, 0], np.uint64)).tolist() == [*range(64), WIDTH]
