"""`audiopixel verify` of a flow that began in an archive: which messages are from there, which from Kafka."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from connectors.kafka.log import Record
from connectors.kafka.read_once import Span
from flows.archive import store_of, write_from_messages
from flows.errors import StateError, UsageError
from flows.settings import load
from flows.verify import Past, refuse, write_messages

HOUR_MS = 3_600_000
NOW_MS = 500_000 * HOUR_MS
TOPIC = "pixels"


class Topic(Span):
    """A span of a topic of one partition, with the messages of some offsets."""

    def __init__(self, values: Mapping[int, bytes], end: int, cut: bool) -> None:
        self._values = values
        self.begins, self.ends = {0: min(values, default=end)}, {0: end}
        self.cut = {0} if cut else set()

    def __len__(self) -> int:
        return self.ends[0] - self.begins[0]

    def records(self) -> Iterator[Record]:
        for offset, value in self._values.items():
            yield Record(TOPIC, 0, offset, NOW_MS, b"", value)


def message(offset: int) -> bytes:
    return b'{"n":%d,"received_at":1}' % offset


def past(directory: Path, hours_back: Sequence[int], topic: str = TOPIC) -> Past:
    """An archive with one message in each of the hours before now, as a flow's settings name it."""
    made = [(0, NOW_MS - hours * HOUR_MS, message(at)) for at, hours in enumerate(hours_back)]
    write_from_messages(store_of(str(directory / "archive")), topic, made)
    settings = load(kafka_topic=TOPIC, kafka_start=f"archive:{directory / 'archive'}")
    return Past.of_settings(settings, NOW_MS - 2 * HOUR_MS)


def lines(span: Topic, archive: Past, directory: Path) -> list[bytes]:
    (path,), count = write_messages(span, archive, directory)
    found = path.read_bytes().splitlines()
    assert len(found) == count
    return found


def test_messages_deleted_from_kafka_are_read_from_the_archive(tmp_path: Path) -> None:
    archive = past(tmp_path, (9, 8, 2, 1, 0))
    span = Topic({4: b'{"n":"topic","received_at":1}', 5: message(5)}, 6, cut=True)
    found = lines(span, archive, tmp_path)
    assert found == [message(2), message(3), b'{"n":"topic","received_at":1}', message(5)], (
        "those of the span, each offset once, and Kafka's where it has the offset"
    )
    assert archive.messages == 2


def test_filler_messages_of_a_new_topic_are_read_from_the_archive(tmp_path: Path) -> None:
    archive = past(tmp_path, (9, 2, 1))
    span = Topic({0: b"", 1: b"", 2: b"", 3: message(3), 4: b"", 5: message(5)}, 6, cut=False)
    assert lines(span, archive, tmp_path) == [message(1), message(2), message(3), b"", message(5)]


def test_a_partition_empty_in_kafka_is_read_from_the_archive(tmp_path: Path) -> None:
    archive = past(tmp_path, (2, 1))
    assert lines(Topic({}, 2, cut=True), archive, tmp_path) == [message(0), message(1)]


def test_a_topic_with_the_whole_span_is_read_alone(tmp_path: Path) -> None:
    archive = past(tmp_path, (2, 1, 0))
    assert lines(Topic({1: message(1), 2: message(2)}, 3, cut=False), archive, tmp_path) == [
        message(1),
        message(2),
    ]
    assert archive.messages == 0


def test_a_gap_between_the_archive_and_the_topic_is_refused(tmp_path: Path) -> None:
    archive = past(tmp_path, (2, 1))
    settings = load(kafka_topic=TOPIC)
    refuse(Topic({2: message(2)}, 3, cut=True), archive, settings, 3)
    with pytest.raises(UsageError, match="3 messages are more than --most 2"):
        refuse(Topic({2: message(2)}, 3, cut=True), archive, settings, 2)
    with pytest.raises(UsageError, match="no longer have messages of so long ago"):
        refuse(Topic({3: message(3)}, 4, cut=True), archive, settings, 10)
    with pytest.raises(UsageError, match="no longer have messages of so long ago"):
        refuse(Topic({2: message(2)}, 3, cut=True), Past.of_settings(settings, 0), settings, 10)


def test_an_archive_of_another_topic_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="of the topic other, and the flow reads pixels"):
        past(tmp_path, (1,), "other")
