"""Erasure: a deny-list of listeners' keys in Redis, which the flow follows within a minute.

`audiopixel forget` writes the keyed hash of an id, never the id. Every source partition reads the list every
second. It removes the listener from the pixels that it reads from then on, and announces the listener in its
next tick. After that tick the listener shards drop touches, counters and the listener of waiting conversions,
so that no earlier pixel can restore them. The placement shards store the announcements of ticks. They remove
the listener from the pixels of a partition without this entry: a new partition, after Redis has lost the
list.

The list is part of the snapshots of source partitions and placement shards. It therefore outlives Redis,
where missing entries are restored. Earlier snapshots, and their files, are deleted two epochs later. Counts
stay. Reach keeps its sketches and its sets of keys, and on disk also the keys that changed a sketch. No id
can be derived from a key without the secret.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import structlog
from msgspec.structs import replace

from connectors.redis import Client, RedisUnavailable, connect, count_fields, put_fields, read_rows
from flows.errors import UsageError
from flows.model.messages import Pixels
from flows.model.pixel import HOUSEHOLD, LISTENER, ConversionPixel
from flows.model.redis_keys import deny_key, erased_field
from flows.settings import Settings
from flows.state.arrays import U64
from flows.state.people import People

POLL_S: Final = 1.0
WHOLE_S: Final = 30.0
"""Seconds between two reads of the whole list while its length is unchanged."""
RETRY_S: Final = 15.0
"""Seconds between two attempts to reach a Redis that does not answer; each attempt may last a timeout."""
NOBODY: Final[U64] = np.zeros(0, np.uint64)


def nobody(_: U64 = NOBODY) -> U64:
    """An empty list."""
    return NOBODY


def take_off(pixels: U64, denied: U64) -> None:
    """Remove listeners, with their households, and households (sorted) from pixels, in place."""
    for column, less in ((LISTENER, [LISTENER, HOUSEHOLD]), (HOUSEHOLD, [HOUSEHOLD])) if len(denied) else ():
        is_denied = _listed(pixels[:, column], denied)
        for column_number in less:
            pixels[is_denied, column_number] = 0


def conversions_without(conversions: list[ConversionPixel], denied: U64) -> list[ConversionPixel]:
    """Conversions without denied listeners and households by the edge's previous key."""
    if not len(denied) or not any(any(conversion.before) for conversion in conversions):
        return conversions
    before = np.array([conversion.before for conversion in conversions], np.uint64)
    is_denied = _listed(before, denied)
    before[is_denied[:, 0]] = 0
    before[is_denied[:, 1], 1] = 0
    pairs = map(tuple, before.tolist())
    return [replace(conversion, before=pair) for conversion, pair in zip(conversions, pairs, strict=True)]


def _listed(hashes: U64, denied: U64) -> npt.NDArray[np.bool_]:
    places = np.minimum(np.searchsorted(denied, hashes), len(denied) - 1)
    return np.equal(denied[places], hashes)


def without(item: Pixels, denied: U64) -> Pixels:
    """A shard's pixels and conversions, with listeners (sorted) removed."""
    if not len(denied):
        return item
    for pixels in (item.pixels, item.converted):
        take_off(pixels, denied)
    return item._replace(conversions=conversions_without(item.conversions, denied))


def keys_of(listed: Iterable[str]) -> U64:
    """The keys in the fields of the list, sorted. Other fields are ignored: another program has written them,
    and they must not stop the flow.
    """
    keys = []
    for key_field in listed:
        try:
            keys.append(np.uint64(int(key_field, 16)))
        except (ValueError, OverflowError):
            continue
    return np.unique(np.array(keys, np.uint64))


def deny(settings: Settings, listener_ids: Sequence[str], household_ids: Sequence[str] = ()) -> None:
    """Add listeners and households to the list, by their keys.

    Raises:
        SettingsError: the listeners' key is not set.
        ConnectError: Redis does not serve.
    """
    people = People(settings.secret_listener_key())
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    keys = [people.listener(person_id.encode()) for person_id in listener_ids]
    keys += [people.household(person_id.encode()) for person_id in household_ids]
    put_on_the_list(client, settings.namespace, keys)
    client.close()


def put_on_the_list(client: Client, namespace: str, keys: Iterable[int]) -> None:
    """Add keys to the list; an existing key keeps its time.

    Raises:
        ConnectError: Redis does not serve.
    """
    listed, now_ms = deny_key(namespace), str(time.time_ns() // 1_000_000)
    if not (fields := [*map(erased_field, keys)]):
        return
    (entries,) = read_rows(client, [listed], fields)
    put_fields(client, {listed: {key_field: now_ms for key_field in fields if key_field not in entries}})


def refuse_less(client: Client, namespace: str) -> None:
    """Refuse to count a log again after an erasure.

    Erased listeners are left out of reach and conversions, which would then fall below the published numbers.

    Raises:
        UsageError: the list has entries.
        ConnectError: Redis does not answer.
    """
    if forgotten := count_fields(client, deny_key(namespace)):
        raise UsageError(
            f"{forgotten} listeners are forgotten, and Redis ({namespace}) may hold numbers with them, which "
            "would fall if counted again; say --recompute to begin a new generation without them"
        )


@dataclass
class DenyList:
    """The list in one process: all entries that any read of Redis returned, and those in the snapshots of its
    partitions. The list only grows, so an entry that is missing in Redis was lost there, and is restored.
    """

    settings: Settings
    clock_s: Callable[[], float] = time.monotonic
    _client: Client | None = None
    _keys: U64 = field(default_factory=lambda: NOBODY)
    _next_s: float = -math.inf
    _whole_s: float = -math.inf
    _read: bool = False
    _strange: int = 0

    def __call__(self, already: U64 = NOBODY) -> U64:
        """The keys, sorted; the same array while they do not change.

        Args:
            already: the keys that a partition's snapshot denies.

        Raises:
            ConnectError: no read of Redis has succeeded yet.
        """
        now_s = self.clock_s()
        if len(already):
            self._learn(already)
            self._whole_s = -math.inf
        elif now_s < self._next_s:
            return self._keys
        self._next_s = now_s + POLL_S
        if self._client is None:
            self._client = connect(
                self.settings.redis_url.get_secret_value(), timeout=self.settings.redis_timeout
            )
        try:
            self._look(self._client, now_s)
        except RedisUnavailable:
            if not self._read:
                raise  # the list is unknown, so no pixel may be read
            self._next_s = now_s + RETRY_S
        return self._keys

    def _look(self, client: Client, now_s: float) -> None:
        key = deny_key(self.settings.namespace)
        if now_s < self._whole_s and count_fields(client, key) == len(self._keys) + self._strange:
            return
        (listed,) = read_rows(client, [key])
        present_keys = keys_of(listed)
        if len(listed) - len(present_keys) != self._strange:
            self._strange = len(listed) - len(present_keys)
            structlog.get_logger("forget").warning(
                "fields of the list of denied listeners are no keys", key=key, fields=self._strange
            )
        lost = np.setdiff1d(self._keys, present_keys)
        if len(lost):
            put_on_the_list(client, self.settings.namespace, lost.tolist())
            structlog.get_logger("forget").warning(
                "redis lost denied listeners: put back", listeners=len(lost)
            )
        self._learn(present_keys)
        self._read, self._whole_s = True, now_s + WHOLE_S

    def _learn(self, keys: U64) -> None:
        every = np.union1d(self._keys, keys)
        if len(every) > len(self._keys):
            self._keys = every
