"""Pseudonyms that senders give to listeners and households, hashed again by a sub-key of each kind.

Nothing behind the decode step knows the text. Without the key nobody has two texts of one hash.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from flows.intake.fingerprints import FingerprintCache
from flows.state.blake2b import keyed
from flows.state.keys import sub_key

_MOST: Final = 200_000
"""Hashes that are remembered, of 16 bytes each: one that is not costs half a microsecond."""


class Pseudonyms:
    """The pseudonyms of one kind.

    Args:
        secret: the listeners' key.
        label: one of `flows.state.keys.LABELS`.

    Attributes:
        key: the sub-key as `flows.state.blake2b.hash64` takes it.
        memo: hashes by a fingerprint of their text, which the scanner fills.
    """

    def __init__(self, secret: bytes, label: str) -> None:
        key = sub_key(secret, label)
        self._hasher, self.key = blake2b(digest_size=8, key=key), keyed(key)
        self.memo = FingerprintCache(_MOST)

    def of(self, text: bytes) -> int:
        """The keyed hash of a pseudonym; not 0, which is nobody."""
        hasher = self._hasher.copy()
        hasher.update(text)
        return int.from_bytes(hasher.digest(), "little") or 1
