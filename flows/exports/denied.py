"""The deny-list of `audiopixel forget` in an export: facts of its people are never sent."""

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

SERVES_S: Final = 1.0


@dataclass
class Denied:
    """The list as of at most a second ago. The list only grows here, whatever Redis loses.

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
        self._people, self._own = People(self.secret), fingerprint(self.secret)

    def look(self) -> None:
        """Read the list, if it was not just read; call it before sending anything.

        Raises:
            Busy: Redis does not answer.
            SettingsError: the flow has another key, by which its list cannot be read.
        """
        if self.clock_s() - self._looked_s < SERVES_S:
            return
        with reachable():
            listed, meta = read_rows(self.client, [deny_key(self.namespace), f"{self.namespace}:meta"])
        if meta.get("listener_key", self._own) != self._own:
            raise SettingsError(
                f"AUDIOPIXEL_LISTENER_KEY is not the key of the flow of {self.namespace}, by which "
                "people are forgotten: set it as audiopixel run has it"
            )
        self._keys.update(listed)
        self._looked_s = self.clock_s()

    def keys_of(self, pixel: Pixel) -> str:
        """The keyed hashes of a pixel's listener, device and household, as the list has them, separated by
        spaces.
        """
        hashed = self._people
        kinds = (
            (hashed.listener, pixel.listener_id),
            (hashed.listener, pixel.client_id),
            (hashed.household, pixel.household_id),
        )
        return " ".join(f"{of(who.encode()):016x}" for of, one in kinds if (who := present(one)) is not None)

    def bars(self, keys: str) -> bool:
        """True if any of these is on the list."""
        return not self._keys.isdisjoint(keys.split())
