"""Sub-keys of the listeners' key, one for each purpose: hashes of one purpose reveal nothing about another.

A sub-key is BLAKE2b of the empty text under the secret, personalised by its label. A person who learns a
sub-key, or chooses the texts that are hashed with it, learns neither the secret nor another sub-key.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

IDENTITY, LISTENER, CLIENT, HOUSEHOLD, NAMES, SHARD, TIES = LABELS = (
    "identity",  # plays, events and conversions
    "listener",
    "client",  # pseudonyms of listeners' devices
    "household",  # pseudonyms of listeners' addresses
    "names",  # rows on the disk, by their names
    "shard",  # the shards of names
    "ties",  # the order of events of one moment
)
"""The purposes of keys, part of the state's format."""

KEY_BYTES: Final = 32
_FINGERPRINT: Final = "fingerprint"
assert _FINGERPRINT not in LABELS


def sub_key(secret: bytes, label: str) -> bytes:
    """The key of `KEY_BYTES` for the purpose that one of `LABELS` names; `secret` has up to 64 bytes."""
    assert label in LABELS, label
    return _derived(secret, label, KEY_BYTES)


def fingerprint(secret: bytes) -> str:
    """16 hexadecimal digits by which a store recognises the secret, and that do not reveal it."""
    return _derived(secret, _FINGERPRINT, 8).hex()


def _derived(secret: bytes, label: str, size: int) -> bytes:
    return blake2b(digest_size=size, key=secret, person=label.encode()).digest()
