"""Partitions, without a call of Kafka: the partition of a key, and the partitions that wait for a lane."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Final

from connectors.durable import replace_file, sync_directory
from flows.errors import SettingsError

_SEED: Final = 0x9747B28C
_FACTOR: Final = 0x5BD1E995
_WORD: Final = 0xFFFFFFFF


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key among `partitions`, as Kafka's own producers choose it (murmur2)."""
    return (_murmur2(key) & 0x7FFFFFFF) % partitions


@lru_cache(4_096)
def _murmur2(key: bytes) -> int:
    """Kafka's `Utils.murmur2`: MurmurHash2 of 32 bits with its own seed."""
    whole = len(key) & ~3
    mixed = _SEED ^ len(key)
    for offset in range(0, whole, 4):
        word = int.from_bytes(key[offset : offset + 4], "little") * _FACTOR & _WORD
        word = (word ^ word >> 24) * _FACTOR & _WORD
        mixed = mixed * _FACTOR & _WORD ^ word
    if len(key) > whole:
        mixed = (mixed ^ int.from_bytes(key[whole:], "little")) * _FACTOR & _WORD
    mixed = (mixed ^ mixed >> 13) * _FACTOR & _WORD
    return mixed ^ mixed >> 15


class Standing:
    """The partitions that have a message of a lane, and therefore wait for events that the lane spools.

    The file has the number of the topic's partitions, then the numbers of these partitions. An empty file is
    of an earlier version, and means all partitions.

    Args:
        path: of the file.

    Raises:
        SettingsError: the file is damaged.
        OSError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.topic_partitions = 0
        self.partitions: frozenset[int] = frozenset()
        self._everywhere = False
        if path.exists():
            words = path.read_text().split()
            try:
                self.topic_partitions, *partitions = map(int, words or ("0",))
            except ValueError:
                raise SettingsError(f"{path}: holds no partitions: remove the file") from None
            self.partitions, self._everywhere = frozenset(partitions), not words

    def stands_in(self, partition: int) -> bool:
        """True if the log of a partition waits for this lane."""
        return self._everywhere or partition in self.partitions

    def whole(self, topic_partitions: int) -> bool:
        """True if all `topic_partitions` partitions wait for this lane; 0 means the last known number."""
        return self._everywhere or 0 < (topic_partitions or self.topic_partitions) <= len(self.partitions)

    def keep(self, topic_partitions: int, partitions: Collection[int]) -> None:
        """Write the partitions to disk before returning; without a partition there is no file.

        Raises:
            OSError: the file cannot be written.
        """
        if partitions:
            words = topic_partitions, *sorted(partitions)
            replace_file(self._path, " ".join(map(str, words)).encode())
        else:
            self._path.unlink(missing_ok=True)
            sync_directory(self._path.parent)
        self.topic_partitions, self.partitions = topic_partitions, frozenset(partitions)
        self._everywhere = False
