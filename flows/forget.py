"""Erasure: a deny-list of listeners' keys in Redis, which the flow follows within a minute.

`audiopixel forget` writes the keyed hash of an id, never the id. Every source partition looks at the list
every five seconds. It takes the listener off the pixels that it reads from then on, and says so in its next
tick; the listener shards drop touches, counters and the names on waiting conversions behind that tick, so
that no pixel that went before it can bring them back. The list is part of the source's snapshot and outlives
Redis; snapshots from before, and their files, are gone two epochs later. What is counted stays counted, and
reach keeps its sketches and its sets of keys, on the disk also those that told a sketch anything new, from
which no id can be had without the secret.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from connectors.redis import Client, RedisUnavailable, connect, put_fields, read_rows
from flows.batches import Decoder
from flows.errors import UsageError
from flows.kernel import U64
from flows.settings import Settings

LOOK_S: Final = 5.0
AGAIN_S: Final = 15.0
"""Between two looks at a Redis that does not serve: each may take a timeout."""
NOBODY: Final[U64] = np.zeros(0, np.uint64)


def nobody() -> U64:
    """An empty list."""
    return NOBODY


def deny_key(namespace: str) -> str:
    """A hash: the listener's key in hexadecimal to when it was denied, in epoch ms."""
    return f"{namespace}:forgotten"


def deny(settings: Settings, listener_ids: Sequence[str]) -> None:
    """Put listeners on the list, by their keys.

    Raises:
        SettingsError: the listeners' key is not set.
        ConnectError: Redis does not serve.
    """
    decoder = Decoder(settings.secret_listener_key())
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    now_ms = str(time.time_ns() // 1_000_000)
    keys = [f"{decoder.listener(one.encode()):016x}" for one in listener_ids]
    put_fields(client, {deny_key(settings.namespace): dict.fromkeys(keys, now_ms)})
    client.close()


def refuse_less(client: Client, namespace: str) -> None:
    """Refuse to count a log anew into numbers of it that were counted when nobody was forgotten.

    Who is on the list is left out of reach and conversions, which would fall below what readers have seen.

    Raises:
        UsageError: somebody is on the list.
        ConnectError: Redis does not serve.
    """
    if forgotten := client.hlen(deny_key(namespace)):
        raise UsageError(
            f"{forgotten} listeners are forgotten, and Redis ({namespace}) may hold numbers with them, which "
            "would fall if counted again; say --recompute to begin a new generation without them"
        )


@dataclass
class DenyList:
    """The list as a process knows it: what Redis held at the latest look that it answered."""

    settings: Settings
    _client: Client | None = None
    _keys: U64 = field(default_factory=lambda: NOBODY)
    _next_s: float = 0.0

    def __call__(self) -> U64:
        """The keys, sorted; the same array while they are the same.

        Raises:
            ConnectError: at the first call, when Redis does not serve.
        """
        if (now_s := time.monotonic()) < self._next_s:
            return self._keys
        self._next_s = now_s + LOOK_S
        if self._client is None:
            self._client = connect(
                self.settings.redis_url.get_secret_value(), timeout=self.settings.redis_timeout
            )
        try:
            (listed,) = read_rows(self._client, [deny_key(self.settings.namespace)])
        except RedisUnavailable:
            self._next_s = now_s + AGAIN_S
            return self._keys
        keys = np.sort(np.array([int(key, 16) for key in listed], np.uint64))
        if not np.array_equal(keys, self._keys):
            self._keys = keys
        return self._keys
