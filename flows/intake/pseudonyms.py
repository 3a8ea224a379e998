"""Pseudonyms that senders give to listeners and households, hashed again by a sub-key of each kind.

Nothing behind the decode step knows the text. Without the key nobody has two texts of one hash.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

import numpy as np

from flows.intake.fingerprints import FingerprintCache
from flows.state.blake2b import keyed
from flows.state.keys import HOUSEHOLD, LISTENER, sub_key

KINDS: Final = (LISTENER, HOUSEHOLD)
"""Kinds of people, by the labels of their sub-keys."""
_MOST: Final = 400_000
"""Hashes that are remembered, of 16 bytes each: one that is not costs a seventh of a microsecond."""


class Pseudonyms:
    """The pseudonyms of listeners and households.

    Args:
        secret: the listeners' key.

    Attributes:
        keys: (kinds, 8) the sub-keys as `flows.state.blake2b.hash64` takes them.
        memo: hashes by a fingerprint of their kind and text, which the scanner fills.
    """

    def __init__(self, secret: bytes) -> None:
        keys = {kind: sub_key(secret, kind) for kind in KINDS}
        self._hashers = {kind: blake2b(digest_size=8, key=key) for kind, key in keys.items()}
        self.keys = np.array([keyed(key) for key in keys.values()])
        self.memo = FingerprintCache(_MOST)

    def of(self, kind: str, text: bytes) -> int:
        """The keyed hash of a pseudonym; not 0, which is nobody."""
        hasher = self._hashers[kind].copy()
        hasher.update(text)
        return int.from_bytes(hasher.digest(), "little") or 1
