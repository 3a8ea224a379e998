"""The comparison of a live flow's final minutes with a recomputation of its topic, which proves that nothing
was lost.

The topic is read from some time before the compared minutes, so that earlier plays and repeats are known. The
oracle (`flows.reconcile`), which shares no code with the flow, recomputes these messages. If the flow began
in an archive, messages before the topic's first one are read from the archive, by the same offsets.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from connectors.kafka.read_once import Span
from connectors.redis import Client, read_rows
from flows.archive import ADDRESS, ArchiveInput, ArchiveReader, store_of
from flows.errors import UNREADABLE, AudiopixelError, StateError, UsageError
from flows.model.redis_keys import row_key
from flows.model.ticks import MINUTE_MS
from flows.reconcile import Denied, Difference, Recomputation, Rules, minute_differences, recompute
from flows.settings import Settings, kafka_options

UNWRITTEN_MS: Final = 2 * MINUTE_MS
"""The time, in ms, within which a final minute may still be missing in its topic."""
BEHIND_MS: Final = 10 * MINUTE_MS
"""The age of the watermark, in ms, above which minutes that should be compared are left out."""
NOT_COMPARED: Final = "reach, conversions and windows of minutes and days are not compared"
_RECEIVED: Final = b'"received_at"'
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])
_AT_ONCE: Final = 10_000
LEDGER: Final = ("received", "accepted", "repeated", "marks")


@dataclass
class Verification:
    """The outcome of a comparison.

    Attributes:
        messages: the number of the topic's messages that were read, those from the archive included.
        archived: the number of messages that were read from the archive.
        from_ms, before_ms: the span of the minutes that were compared, epoch ms.
        minutes, placements: the numbers of final minutes that were compared, and of their placements.
        differences: the differences between the recomputed and the published minutes.
        ledgers: sentences on partitions whose ledger does not add up, and on a flow that is behind.
    """

    messages: int
    from_ms: int
    before_ms: int
    archived: int = 0
    minutes: int = 0
    placements: int = 0
    differences: list[Difference] = field(default_factory=list)
    ledgers: list[str] = field(default_factory=list)


def verify(
    settings: Settings,
    rules: Rules,
    denied: Denied | None,
    client: Client,
    since_ms: int,
    now_ms: int,
    directory: Path,
    most: int,
    progress: Callable[[str], None],
) -> Verification:
    """Compare the minutes that became final since a moment.

    Args:
        since_ms: epoch ms. The minutes that became final after this moment are compared; they began earlier
            by the lateness.
        now_ms: the wall clock, epoch ms.
        directory: the directory for the messages, while they are compared.
        most: the greatest number of messages to read.
        progress: is called with the present step, for people who wait.

    Raises:
        ConnectError: Kafka does not answer.
        UsageError: no minute has become final since then, neither the topic nor its archive has the whole
            span, or the span has more than `most` messages.
        StateError: the archive is missing or damaged.
        AudiopixelError: the flow has written nothing.
    """
    (meta,) = read_rows(client, [f"{settings.namespace}:meta"])
    watermark_ms = int(meta.get("watermark_ms") or 0)
    if not watermark_ms:
        raise AudiopixelError(
            f"no flow has counted in {settings.namespace}: set AUDIOPIXEL_NAMESPACE as the flow has it"
        )
    lateness_ms = settings.allowed_lateness // timedelta(milliseconds=1)
    # By the watermark, not by the last minute in the topic: an unwritten minute is a difference.
    from_ms, before_ms = (final_before(at_ms, lateness_ms) for at_ms in (since_ms, watermark_ms))
    behind_ms = now_ms - watermark_ms
    if before_ms <= from_ms:
        raise UsageError(
            f"no minute has become final since then, the flow is {behind_ms // MINUTE_MS:,} minutes behind: "
            "name an earlier moment, such as --since 1h, or wait"
        )
    memory = settings.horizon + settings.allowed_lateness + timedelta(minutes=2)
    options = kafka_options(settings)
    progress("looking up the span")
    read_from_ms = from_ms - memory // timedelta(milliseconds=1)
    past = Past.of_settings(settings, read_from_ms)
    span = Span(settings.kafka_brokers, settings.kafka_topic, options, read_from_ms)
    try:
        refuse(span, past, settings, most)
        progress(f"reading {len(span):,} messages")
        files, count = write_messages(span, past, directory)
    finally:
        span.close()
    final = _final_minutes(settings, options, from_ms, progress)
    verified = Verification(count, from_ms, before_ms, past.messages)
    verified.ledgers = ledgers(settings, client, span)
    if behind_ms > BEHIND_MS:
        minutes = behind_ms // MINUTE_MS
        verified.ledgers.append(f"the flow is {minutes:,} minutes behind: what came since is not compared")
    truth = recompute(files, rules, denied=denied, guards_receipts=False, progress=progress)
    _compare(truth, final, verified, directory / "minutes.ndjson")
    return verified


def final_before(watermark_ms: int, lateness_ms: int) -> int:
    """The minute, epoch ms, before which all minutes are final and written at a watermark."""
    before_ms = watermark_ms - lateness_ms - UNWRITTEN_MS
    return before_ms - before_ms % MINUTE_MS


class Past:
    """The archive in which a flow began, for messages that its topic no longer has.

    Args:
        archive: None if the flow began in the topic.
        from_ms: epoch ms. Whole hours of messages before it, by Kafka's timestamps, are left out.

    Attributes:
        messages: the number of messages that were read.
    """

    def __init__(self, archive: ArchiveInput | None, from_ms: int) -> None:
        self._archive, self._from_ms = archive, from_ms
        names = [] if archive is None else archive.partitions()
        self._names = {int(name.rpartition("/")[2]): name for name in names}
        self._readers: dict[int, ArchiveReader] = {}
        self.messages = 0

    @classmethod
    def of_settings(cls, settings: Settings, from_ms: int) -> Past:
        """The archive of a flow's settings.

        Raises:
            StateError: there is no archive, or it is of another topic.
            ConnectError: the archive cannot be read.
        """
        if not settings.kafka_start.startswith(ADDRESS):
            return cls(None, from_ms)
        archive = ArchiveInput(store_of(settings.kafka_start))
        if archive.topic != settings.kafka_topic:
            raise StateError(
                f"the archive is of the topic {archive.topic}, and the flow reads {settings.kafka_topic}"
            )
        return cls(archive, from_ms)

    def _reader(self, partition: int) -> ArchiveReader | None:
        if partition not in self._readers and self._archive is not None and partition in self._names:
            reader = self._archive.open(self._names[partition], None)
            reader.position = reader.first_since(self._from_ms)
            self._readers[partition] = reader
        return self._readers.get(partition)

    def reaches(self, partition: int, offset: int) -> bool:
        """True if the archive has a partition up to an offset.

        Raises:
            StateError: the archive has a gap.
            ConnectError: the archive cannot be read.
        """
        reader = self._reader(partition)
        return reader is not None and offset <= reader.end

    def unread(self, partition: int, before: int) -> int:
        """The number of offsets of a partition, before an offset, that are still to be read."""
        reader = self._reader(partition)
        return 0 if reader is None else max(0, min(before, reader.end) - reader.position)

    def lines(self, partition: int, before: int) -> Iterator[bytes]:
        """The lines of a partition's messages before an offset.

        Raises:
            StateError: a segment is damaged.
            ConnectError: a segment cannot be read.
        """
        reader = self._reader(partition)
        while reader is not None and reader.position < min(before, reader.end):
            messages = reader.read(_AT_ONCE)
            stamps = messages.timestamps_ms or [0] * len(messages.values)
            for value, offset, stamp_ms in zip(messages.values, messages.positions, stamps, strict=True):
                if offset < before:
                    self.messages += 1
                    yield line_of(value, stamp_ms)


def refuse(span: Span, past: Past, settings: Settings, most: int) -> None:
    """Refuse a span that topic and archive together do not have whole, or that is too long.

    Raises:
        UsageError: the span is refused.
    """
    if cut := [number for number in span.cut if not past.reaches(number, span.begins[number])]:
        raise UsageError(
            f"{settings.kafka_topic}: {len(cut)} partitions no longer have messages of so long ago, and no "
            "archive of AUDIOPIXEL_KAFKA_START has them (AUDIOPIXEL_HORIZON and the lateness are read, too): "
            "name a later moment"
        )
    messages = len(span) + sum(past.unread(number, span.begins[number]) for number in span.cut)
    if messages > most:
        raise UsageError(f"{messages:,} messages are more than --most {most:,}: name a later moment")


def write_messages(span: Span, past: Past, directory: Path) -> tuple[list[Path], int]:
    """Write the messages of each partition as a file of lines.

    The messages before the topic's first one come from the archive. Empty messages at the topic's beginning
    are skipped if the archive has their offsets: they fill a new topic, so that its offsets follow the
    archive's. A message without a time of receipt gets Kafka's timestamp.

    Returns:
        The files, and the number of messages in them.
    """
    paths = {partition: directory / f"{partition}.ndjson" for partition in sorted(span.ends)}
    begun: set[int] = set()
    count = 0
    with ExitStack() as open_files:
        files: dict[int, BinaryIO] = {
            partition: open_files.enter_context(path.open("wb")) for partition, path in paths.items()
        }

        def begin(partition: int, first: int) -> None:
            begun.add(partition)
            if first > span.begins[partition] or partition in span.cut:
                files[partition].writelines(line + b"\n" for line in past.lines(partition, first))

        for record in span.records():
            partition = record.partition
            if partition not in begun:
                if not record.value and past.reaches(partition, record.offset + 1):
                    continue
                begin(partition, record.offset)
            files[partition].write(line_of(record.value, record.timestamp_ms) + b"\n")
            count += 1
        for partition in span.ends.keys() - begun:
            begin(partition, span.ends[partition])
    return list(paths.values()), count + past.messages


def line_of(value: bytes, timestamp_ms: int) -> bytes:
    """A message as a line of a log, with a time of receipt."""
    value = value.replace(b"\n", b" ")
    if _RECEIVED in value or not timestamp_ms:
        return value
    try:
        event = _OBJECT.decode(value)
    except UNREADABLE:
        return value
    return value if "collector" in event and "event" not in event else _stamped(value, timestamp_ms)


def _stamped(value: bytes, timestamp_ms: int) -> bytes:
    brace = value.rindex(b"}")
    comma = b"" if value[:brace].rstrip().endswith(b"{") else b","
    return b'%b%b"received_at":%d%b' % (value[:brace], comma, timestamp_ms, value[brace:])


def _final_minutes(
    settings: Settings, options: Mapping[str, str], from_ms: int, progress: Callable[[str], None]
) -> dict[tuple[str, int], dict[str, Any]]:
    """The final minutes of the topic from a moment on. If a minute has several, the last one counts."""
    span = Span(settings.kafka_brokers, settings.kafka_minutes_topic, options, from_ms)
    minutes: dict[tuple[str, int], dict[str, Any]] = {}
    progress(f"reading {len(span):,} minutes")
    try:
        for record in span.records():
            try:
                minute = json.loads(record.value)
                if minute["state"] == "final" and minute["minute_ms"] >= from_ms:
                    minutes[minute["placement_id"], minute["minute_ms"]] = minute
            except (ValueError, KeyError, TypeError):
                raise AudiopixelError(
                    f"{record.position} is no minute: AUDIOPIXEL_KAFKA_MINUTES_TOPIC names a topic other "
                    "than the flow's, or another program writes to it"
                ) from None
    finally:
        span.close()
    return minutes


def _compare(
    truth: Recomputation, final: Mapping[tuple[str, int], dict[str, Any]], verified: Verification, file: Path
) -> None:
    def inside(key: tuple[str, int]) -> bool:
        return verified.from_ms <= key[1] < verified.before_ms

    for key in [key for key in truth.minutes if not inside(key)]:
        del truth.minutes[key]
    compared = {key: minute for key, minute in final.items() if inside(key)}
    file.write_text("".join(json.dumps(minute) + "\n" for minute in compared.values()))
    verified.minutes = len(compared.keys() | truth.minutes.keys())
    verified.placements = len({placement for placement, _ in compared.keys() | truth.minutes.keys()})
    verified.differences = minute_differences(truth, file)


def ledgers(settings: Settings, client: Client, span: Span) -> list[str]:
    """Sentences on partitions whose account in Redis does not add up, or is missing."""
    names = [f"{settings.kafka_topic}/{partition}" for partition in span.ends]
    rows = read_rows(client, [row_key(settings.namespace, "partition", name) for name in names])
    faults = []
    for name, row in zip(names, rows, strict=True):
        if not row:
            if span.ends[int(name.rpartition("/")[2])]:
                faults.append(f"{name}: Redis has no ledger of it")
            continue
        counts = {
            field: int(value)
            for field, value in row.items()
            if field in LEDGER or field.startswith("rejected.")
        }
        received = counts.get("received", 0)
        parts = counts.get("accepted", 0) + counts.get("repeated", 0)
        parts += sum(value for field, value in counts.items() if field.startswith("rejected."))
        if received != parts:
            faults.append(f"{name}: received {received:,}, but accepted + repeated + rejected are {parts:,}")
    return faults
