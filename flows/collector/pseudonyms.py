"""Pseudonyms of a listener: keyed hashes of a call's identities, made at the edge, and only with consent.

`listener_id` stands for the caller's id, else the device's advertising id; `client_id` for address and user
agent, the unit of the IAB; `household_id` for the address alone. Each is `KEY.HASH`: the key's own short id,
and 128 bits in hexadecimal. No later module receives an address, user agent or device id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

from flows.collector.callers import LONGEST_AGENT, Device, household_part, parsed
from flows.collector.cleaner import present

LISTENER, CLIENT, HOUSEHOLD = FIELDS = ("listener_id", "client_id", "household_id")
_LABELS: Final = {LISTENER: b"listener", CLIENT: b"client", HOUSEHOLD: b"household"}
_ID_BYTES: Final = 4
_HASH_BYTES: Final = 16
_SHOWN: Final = 6
MAX_DEVICES: Final = 32_768
"""The greatest number of devices whose pseudonyms are remembered by a key: about 16 MB."""
_LONGEST_REMEMBERED: Final = 256
"""The greatest length of a user agent that is remembered."""


@dataclass(frozen=True)
class _Key:
    """A key of the edge, with a hasher for each pseudonym."""

    secret: bytes = field(repr=False)
    id: str = field(init=False)
    hashers: dict[str, Any] = field(init=False, repr=False)
    _remembered: Callable[[bytes, str], tuple[str, str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        key_id = blake2b(digest_size=_ID_BYTES, key=self.secret, person=b"key").hexdigest()
        object.__setattr__(self, "id", key_id)
        hashers = {
            name: blake2b(digest_size=_HASH_BYTES, key=self.secret, person=label)
            for name, label in _LABELS.items()
        }
        object.__setattr__(self, "hashers", hashers)
        object.__setattr__(self, "_remembered", lru_cache(MAX_DEVICES)(self._of_device))

    def hash(self, field_name: str, *parts: bytes) -> str:
        hasher = self.hashers[field_name].copy()
        for part in parts:
            hasher.update(len(part).to_bytes(4, "big") + part)
        return f"{self.id}.{hasher.hexdigest()}"

    def of_device(self, address: bytes, agent: str) -> tuple[str, str]:
        """The pseudonyms of an address with a user agent, and of the address alone."""
        if len(agent) <= _LONGEST_REMEMBERED:  # all pixels of a play have the same device
            return self._remembered(address, agent)
        return self._of_device(address, agent)

    def _of_device(self, address: bytes, agent: str) -> tuple[str, str]:
        client = self.hash(CLIENT, address, _bytes(agent)) if agent else ""
        return client, self.hash(HOUSEHOLD, address)


class Pseudonyms:
    """Makes pseudonyms.

    Args:
        key: the key in force, the same for all collectors, 16 to 64 bytes.
        previous: keys that were in force within the longest attribution window, the latest first.
    """

    def __init__(self, key: bytes, previous: Sequence[bytes] = ()) -> None:
        self._key, self._previous = _Key(key), [*map(_Key, previous)]

    @property
    def key_ids(self) -> list[str]:
        """The ids of the keys, with which pseudonyms begin: the key in force, then the previous keys."""
        return [key.id for key in (self._key, *self._previous)]

    def of_listener(self, listener: str | None, device: Device) -> dict[str, str]:
        """The pseudonyms of a consenting listener, by field.

        A device that a caller has no right to name has none. A masked address has no household.
        """
        return _pseudonyms_by(self._key, listener, device)

    def previous(self, listener: str | None, device: Device) -> dict[str, str]:
        """The same by the latest previous key; empty if there is none."""
        return _pseudonyms_by(self._previous[0], listener, device) if self._previous else {}

    def of_person(self, identity: str, user_agent: str = "") -> list[tuple[str, str]]:
        """The pseudonyms of an id or address by each key, as (field, pseudonym), for erasure and access. A
        text that is an address may also have been an id, and has the pseudonyms of both.

        Args:
            identity: an id of the listener or the device, or an address, as callers send them.
            user_agent: the user agent at that address, for the pseudonym of both together.
        """
        keys, address = (self._key, *self._previous), parsed(identity)
        listener, _ = present(identity)  # also for a device's id
        pseudonyms = (
            [] if listener is None else [(LISTENER, key.hash(LISTENER, _bytes(listener))) for key in keys]
        )
        if address is None:
            return pseudonyms
        address_bytes = household_part(address)
        pseudonyms += [(HOUSEHOLD, key.hash(HOUSEHOLD, address_bytes)) for key in keys]
        if user_agent:
            pseudonyms += [
                (CLIENT, key.hash(CLIENT, address_bytes, _bytes(user_agent[:LONGEST_AGENT]))) for key in keys
            ]
        return pseudonyms


def _pseudonyms_by(key: _Key, listener: str | None, device: Device) -> dict[str, str]:
    if device.basis == "claimed":
        return {}
    pseudonyms = {}
    if listener is not None:
        pseudonyms[LISTENER] = key.hash(LISTENER, _bytes(listener))
    if device.address is not None and device.grade != "none":
        client, household = key.of_device(household_part(device.address), device.user_agent)
        if client:
            pseudonyms[CLIENT] = client
        if device.grade == "device":
            pseudonyms[HOUSEHOLD] = household
    return pseudonyms


def _bytes(text: str) -> bytes:
    return text.encode(errors="replace")  # a header may have bytes that are no UTF-8


def shortened(pseudonym: str) -> str:
    """The first characters of a pseudonym, for the checker; they are enough to compare two."""
    return f"{pseudonym.partition('.')[2][:_SHOWN]}…"
