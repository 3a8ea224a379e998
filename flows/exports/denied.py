"""The deny-list of `audiopixel forget` in an export, which sends no fact of the people on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from connectors.redis import Client, read_rows
from flows.errors import SettingsError
from flows.exports.facts import Pixel
from flows.exports.handover import reachable
from flows.model.events import present
from flows.model.redis_keys import deny_key
from flows.state.keys import fingerprint
from flows.state.people import People

MAX_AGE_S: Final = 1.0
"""The age at which the list is read again."""


@dataclass
class ExportDenyList:
    """The list as of at most a second ago. In a process it only grows, even if Redis loses entries.

    Args:
        secret: the listeners' key.
    """

    client: Client
    namespace: str
    secret: bytes
    clock_s: Callable[[], float] = time.monotonic
    _keys: set[str] = field(default_factory=set)
    _looked_s: float = float("-inf")

    def __post_init__(self) -> None:
        self._people, self._key_fingerprint = People(self.secret), fingerprint(self.secret)

    def look(self) -> None:
        """Read the list if it is older than `MAX_AGE_S`. Every send is preceded by a call.

        Raises:
            Busy: Redis does not answer.
            SettingsError: the flow has another listener key, so the list cannot be read.
        """
        if self.clock_s() - self._looked_s < MAX_AGE_S:
            return
        with reachable():
            listed, meta = read_rows(self.client, [deny_key(self.namespace), f"{self.namespace}:meta"])
        if meta.get("listener_key", self._key_fingerprint) != self._key_fingerprint:
            raise SettingsError(
                f"AUDIOPIXEL_LISTENER_KEY is not the key of the flow of {self.namespace}, whose deny-list "
                "has hashes by its own key: set the key that audiopixel run has"
            )
        self._keys.update(listed)
        self._looked_s = self.clock_s()

    def keys_of(self, pixel: Pixel) -> str:
        """The keyed hashes of a pixel's listener, device and household, as the list has them, separated by
        spaces.
        """
        hashes = (
            (self._people.listener, pixel.listener_id),
            (self._people.listener, pixel.client_id),
            (self._people.household, pixel.household_id),
        )
        return " ".join(
            f"{of(name.encode()):016x}" for of, one in hashes if (name := present(one)) is not None
        )

    def bars(self, keys: str) -> bool:
        """True if any of these hashes is on the list."""
        return not self._keys.isdisjoint(keys.split())
