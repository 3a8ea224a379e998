"""Makes an archive from messages without a topic, such as simulated ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from connectors.objects import Objects
from connectors.stream import Messages
from flows.archive.manifest import Part
from flows.archive.message_lines import Forgetting
from flows.archive.series import Series

_AT_ONCE: Final = 10_000
_SEGMENT_BYTES: Final = 16 << 20


def write_from_messages(
    store: Objects, topic: str, messages: Iterable[tuple[int, int, bytes]]
) -> dict[int, int]:
    """Write messages as an archive of a topic; each partition begins at the offset 0.

    Args:
        store: an empty store, which no other process uses.
        messages: partition, the broker's timestamp in epoch ms, and value, in order of time.

    Returns:
        The next offset after the last message of each partition.

    Raises:
        Away: the store cannot be written.
    """
    written = dict[int, Series]()
    waiting = dict[int, tuple[list[int], list[bytes]]]()
    nobody = Forgetting(bytes(16), ())

    def take(partition: int) -> None:
        stamps, values = waiting.pop(partition)
        series = written.get(partition)
        if series is None:
            part = Part(topic=topic, partition=partition, first=0)
            series = written[partition] = Series(store, part, None, _SEGMENT_BYTES)
            series.begin()
        first = series.reached
        reached = first + len(values)
        series.take(Messages(values, range(first, reached), reached, stamps), "", max(stamps), 0.0, nobody)

    for partition, stamp_ms, value in messages:
        stamps, values = waiting.setdefault(partition, ([], []))
        stamps.append(stamp_ms)
        values.append(value)
        if len(values) == _AT_ONCE:
            take(partition)
    for partition in [*waiting]:
        take(partition)
    for series in written.values():
        series.seal()
    return {partition: series.part.next for partition, series in written.items()}
