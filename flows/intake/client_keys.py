"""Client keys: the keyed hash by which two downloads, or two deliveries, count as one.

The IAB's Podcast Measurement Guidelines 2.3 (5.5.1, 6.3) count once by client and content. The content of a
download is its episode, else its podcast. The content of a delivery is its creative, else its placement, in
an episode.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec
import numpy as np

from flows.intake.schema import Event
from flows.model.dimensions import Dimensions
from flows.model.events import DOWNLOAD, present
from flows.model.pixel import TIE
from flows.state.arrays import U64
from flows.state.keys import CLIENT, TIES, sub_key


class Clients:
    """The keys of one store.

    Args: secret: the listeners' key.

    Attributes:
        denied: sorted keyed hashes of the clients that get no key.
    """

    def __init__(self, secret: bytes) -> None:
        self._keyed = blake2b(digest_size=8, key=sub_key(secret, CLIENT))
        self._ties = blake2b(digest_size=4, key=sub_key(secret, TIES))
        self.denied: U64 = np.zeros(0, np.uint64)

    def key(self, client: str, hashed: int, code: int, event: Event, combo: Dimensions) -> int:
        """The key of a `delivered` or `download`; 0 if its client is denied, or no field names the content.

        Args:
            hashed: the client's keyed hash, by which it is denied.
        """
        place = int(np.searchsorted(self.denied, np.uint64(hashed)))
        if place < len(self.denied) and int(self.denied[place]) == hashed:
            return 0
        content = _content(code, combo, present(event.episode))
        if content is None:
            return 0
        hasher = self._keyed.copy()
        hasher.update(msgspec.json.encode((client, *content)))
        return int.from_bytes(hasher.digest(), "little") or 1

    def tie(self, event_id: str) -> int:
        """The order of an event among the events of the same time: 31 bits of a keyed hash, so that no sender
        can choose it.
        """
        hasher = self._ties.copy()
        hasher.update(event_id.encode())
        return int.from_bytes(hasher.digest(), "big") & TIE


def _content(code: int, combo: Dimensions, episode: str | None) -> tuple[str | None, ...] | None:
    placement, _, _, _, podcast, _, creative, *_ = combo
    if code == DOWNLOAD:
        if episode is not None:
            return "download", "episode", episode
        return None if podcast is None else ("download", "podcast", podcast)
    if creative is not None:
        return "delivered", "creative", creative, episode
    return "delivered", "placement", placement, episode
