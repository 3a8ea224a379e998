"""Keyed hashes of listeners and households: senders' pseudonyms, hashed again by a sub-key of each kind.

No code after the decode step has the pseudonym. Nobody without the key can find two pseudonyms of one hash.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from flows.state.blake2b import keyed
from flows.state.keys import HOUSEHOLD, LISTENER, sub_key
from flows.state.siphash import siphash24


class People:
    """The keyed hashes of listeners, by BLAKE2b, and of households, by SipHash-2-4.

    A household's hash costs less than a look-up in a cache.

    Args:
        secret: the listeners' key.

    Attributes:
        key: (8,) the listeners' sub-key as `flows.state.blake2b.hash64` takes it.
        home_key: (2,) the first words of the households' sub-key.
    """

    def __init__(self, secret: bytes) -> None:
        key = sub_key(secret, LISTENER)
        self._hasher = blake2b(digest_size=8, key=key)
        self.key = keyed(key)
        self.home_key = np.frombuffer(sub_key(secret, HOUSEHOLD)[:16], np.uint64)

    def listener(self, text: bytes) -> int:
        """The keyed hash of a listener; never 0, which stands for no listener."""
        hasher = self._hasher.copy()
        hasher.update(text)
        return int.from_bytes(hasher.digest(), "little") or 1

    def household(self, text: bytes) -> int:
        """The keyed hash of a household; never 0, which stands for no household."""
        low, high = self.home_key
        block = np.frombuffer(text + bytes(8), np.uint8)
        return int(siphash24(low, high, block, 0, len(text))) or 1
