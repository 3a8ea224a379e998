"""Checks an archive: its checksums, gaps between its offsets, and its messages against the flow's ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np

from connectors.objects import Objects
from connectors.redis import Client, read_rows
from connectors.stream import ConnectError, Reader
from flows.archive.manifest import SEGMENTS, Part, part_paths, parts, topic_of
from flows.archive.segments import Segment, opened
from flows.errors import StateError
from flows.model.redis_keys import row_key

AT_ONCE: Final = 10_000
LATE_S: Final = 1_800.0
"""The age of a message, in s, from which an archive without it is at fault, as by the alert."""
WAIT_S: Final = 10.0
"""The longest wait for a next message that must exist."""


@dataclass
class Checked:
    """The result of a check.

    Attributes:
        partitions, segments, messages, malformed, bytes, raw_bytes: totals of the archive.
        through_ms: the epoch ms before which all partitions are whole.
        wrong: the faults, in sentences.
        behind: for each partition that ends before the flow's position, by how many messages, in sentences.
        compared: the number of partitions that were compared with the ledger.
        not_compared: the reasons why the other partitions were not, in sentences.
    """

    topic: str = ""
    partitions: int = 0
    segments: int = 0
    messages: int = 0
    malformed: int = 0
    bytes: int = 0
    raw_bytes: int = 0
    through_ms: int = 0
    wrong: list[str] = field(default_factory=list)
    behind: list[str] = field(default_factory=list)
    compared: int = 0
    not_compared: list[str] = field(default_factory=list)


@dataclass
class Ledgers:
    """Access to the flow's ledger, and to the topic.

    Attributes:
        partitions: the partitions that the ledger names.
        row: reads the ledger's row of a partition.
        begun: the flow's first offset, by partition. For a partition without one the archive's first counts.
        open_topic: opens a partition of the topic at an offset, to count messages that are not archived yet.
            None if the topic is not read.
    """

    partitions: Collection[str]
    row: Callable[[str], Mapping[str, str]]
    begun: Mapping[str, int]
    open_topic: Callable[[str, int], Reader] | None


def check(
    store: Objects, ledgers: Ledgers | None = None, report: Callable[[str], None] = lambda step: None
) -> Checked:
    """Read every segment, and compare the counts with the flow's ledger.

    Args:
        ledgers: the flow's ledger; None to compare nothing.
        report: receives a line before each step.

    Raises:
        StateError: there is no archive.
        ConnectError: the archive, Redis or Kafka cannot be read.
    """
    checked, paths = Checked(), part_paths(store)
    checked.topic, listed = topic_of(store, paths), set[str]()
    for partition, own in paths.items():
        report(f"reading {checked.topic}/{partition}")
        checked.partitions += 1
        newest, counted = _partition(store, own, checked, listed)
        if newest is None:
            continue
        through = newest.through_ms
        checked.through_ms = min(checked.through_ms, through) if checked.partitions > 1 else through
        if ledgers is not None:
            _compare_with_ledger(store, newest, counted, ledgers, checked)
    if ledgers is not None:
        archived = {f"{checked.topic}/{partition}" for partition in paths}
        for name in sorted(set(ledgers.partitions) - archived):
            row = ledgers.row(name)
            if name.rpartition("/")[0] == checked.topic and "position" in row:
                checked.wrong.append(
                    f"{name}: is not in the archive, and the ledger has {_ledger_count(row):,} messages of it"
                )
    checked.wrong += [
        f"{path}: is listed by no manifest; the next start of audiopixel archive --to deletes it"
        for path in store.names(SEGMENTS)
        if path not in listed
    ]
    return checked


def ledger_of(client: Client, namespace: str) -> tuple[list[str], Callable[[str], Mapping[str, str]]]:
    """The partitions of the ledger in Redis, and the reader of its rows.

    Raises:
        ConnectError: Redis does not answer.
    """
    (row,) = read_rows(client, [f"{namespace}:positions"], ["positions"])
    names = [*msgspec.json.decode(row.get("positions", "{}"), type=dict[str, int])]
    return names, lambda name: read_rows(client, [row_key(namespace, "partition", name)])[0]


@dataclass
class _Counted:
    """The counts of a partition: its first offset, and each segment with the number of messages before it."""

    first: int = 0
    messages: int = 0
    lost: int = 0
    segments: list[tuple[int, Segment]] = field(default_factory=list)


def _partition(
    store: Objects, paths: list[str], checked: Checked, listed: set[str]
) -> tuple[Part | None, _Counted]:
    counted, newest = _Counted(), None
    try:
        for part in parts(store, paths):
            if newest is None:
                counted.first = part.first
            newest = part
            for segment in part.segments:
                listed.add(segment.path)
                counted.segments.append((counted.messages, segment))
                counted.messages += segment.messages
                counted.lost += segment.lost
                checked.wrong += _segment(store, segment)
                checked.segments += 1
                checked.messages += segment.messages
                checked.malformed += segment.malformed
                checked.bytes += segment.bytes
                checked.raw_bytes += segment.raw_bytes
    except StateError as error:
        checked.wrong.append(str(error))
    return newest, counted


def _segment(store: Objects, segment: Segment) -> Iterator[str]:
    """The faults of a segment, in sentences."""
    if segment.lost:
        yield f"{segment.path}: {segment.lost:,} messages before offset {segment.first} are missing: a gap"
    try:
        content = opened(store.get(segment.path)[0], segment)
    except (ConnectError, StateError) as error:
        yield str(error)
        return
    offsets = content.offsets
    inside = not len(offsets) or (segment.first <= offsets[0] and offsets[-1] < segment.next)
    if not inside or (np.diff(offsets) <= 0).any():
        yield f"{segment.path}: its offsets are not in order between {segment.first} and {segment.next}"
    empty = sum(not len(one) for one in content.lines)
    if not len(content.malformed) == segment.malformed == empty:
        yield f"{segment.path}: {empty} lines are empty, and {segment.malformed} messages are malformed"


def _compare_with_ledger(
    store: Objects, newest: Part, counted: _Counted, ledgers: Ledgers, checked: Checked
) -> None:
    """Compare a partition's messages with the ledger, from the flow's first offset up to the ledger's
    position.
    """
    name, row = newest.name, ledgers.row(newest.name)
    begun = ledgers.begun.get(name, counted.first)
    if "position" not in row:
        checked.not_compared.append(f"{name}: the flow has no ledger of it yet")
        return
    if begun < counted.first:
        checked.not_compared.append(f"{name}: the flow began at {begun}, the archive at {counted.first}")
        return
    position, ledger_count = int(row["position"]), _ledger_count(row)
    try:
        messages = _before(store, counted, min(position, newest.next)) - _before(store, counted, begun)
    except (ConnectError, StateError):  # it stands among the faults already
        checked.not_compared.append(f"{name}: the segment at an end of the comparison cannot be read")
        return
    if position > newest.next:
        if ledgers.open_topic is None:
            checked.not_compared.append(f"{name}: the archive is behind the flow, and Kafka was not read")
            return
        between = _between(ledgers.open_topic(name, newest.next), position)
        if between is None:
            checked.wrong.append(
                f"{name}: the archive ends at offset {newest.next}, the flow is at {position}, and Kafka "
                "lacks messages between the two"
            )
            return
        count, oldest_ms = between
        messages += count
        behind = f"{name}: {count:,} messages before the flow's position {position} are not archived yet"
        if oldest_ms and time.time() - oldest_ms / 1000 > LATE_S:
            minutes = int(time.time() - oldest_ms / 1000) // 60
            checked.wrong.append(f"{behind}, the first for {minutes:,} minutes")
        else:
            checked.behind.append(behind)
    checked.compared += 1
    if messages != ledger_count:
        checked.wrong.append(
            f"{name}: {messages:,} messages from offset {begun} to {position}, and the ledger has "
            f"{ledger_count:,} marks and received"
        )


def _ledger_count(row: Mapping[str, str]) -> int:
    return int(row.get("marks") or 0) + int(row.get("received") or 0)


def _before(store: Objects, counted: _Counted, position: int) -> int:
    """The number of messages before an offset in an archive's partition."""
    for before, segment in counted.segments:
        if position < segment.next:
            offsets = opened(store.get(segment.path)[0], segment).offsets
            return before + int(np.searchsorted(offsets, position))
    return counted.messages


def _between(reader: Reader, position: int) -> tuple[int, int] | None:
    """The number of messages of a topic's partition from the position of `reader` up to an offset, and the
    timestamp of the first one, in epoch ms. None if they do not arrive within `WAIT_S`, or if Kafka has
    deleted them.
    """
    count, oldest_ms, deadline_s = 0, 0, time.monotonic() + WAIT_S
    try:
        while reader.position < position:
            messages = reader.read(AT_ONCE)
            if messages is None:
                if time.monotonic() > deadline_s:
                    return None
                time.sleep(0.01)
            else:
                if not count and messages.timestamps_ms:
                    oldest_ms = messages.timestamps_ms[0]
                count += int(np.searchsorted(np.array(messages.positions, np.int64), position))
                deadline_s = time.monotonic() + WAIT_S
        return count, oldest_ms
    except ConnectError:  # Kafka has deleted them
        return None
    finally:
        reader.close()
