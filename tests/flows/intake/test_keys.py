"""Sub-keys: one for each purpose, the same in every process, and no way back to the secret."""

from __future__ import annotations

from hashlib import blake2b

import pytest

from flows.state.keys import KEY_BYTES, LABELS, fingerprint, sub_key

SECRET = b"a key of sixteen bytes or more"


def test_every_purpose_has_a_key_of_its_own() -> None:
    keys = [sub_key(SECRET, label) for label in LABELS]
    assert LABELS == ("identity", "listener", "client", "household", "names", "shard", "ties")
    assert len({SECRET, *keys}) == 1 + len(LABELS)
    assert all(len(key) == KEY_BYTES for key in keys)


def test_a_sub_key_is_the_blake2b_of_secret_and_label() -> None:
    expected = blake2b(b"", digest_size=32, key=SECRET, person=b"identity").digest()
    assert sub_key(SECRET, "identity") == expected
    assert sub_key(SECRET + b"!", "identity") != expected


def test_an_unknown_purpose_has_no_key() -> None:
    with pytest.raises(AssertionError):
        sub_key(SECRET, "listeners")


def test_a_fingerprint_distinguishes_secrets_outside_every_sub_key() -> None:
    assert fingerprint(SECRET) == fingerprint(bytes(SECRET)) != fingerprint(SECRET + b"!")
    assert len(fingerprint(SECRET)) == 16
    assert all(fingerprint(SECRET) not in sub_key(SECRET, label).hex() for label in LABELS)
