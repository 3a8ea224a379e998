"""A source's dead letters, read again: the messages at their offsets become pixels by the present mapping.

A pixel has the event id that the live source gives it, and the message's own time of receipt. The pixel
therefore counts once, however often its message is read. It belongs to no lane, because the source's low mark
has passed it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from connectors.kafka import KafkaTrouble, KafkaWriter
from connectors.kafka.read_once import Picker
from flows.collector.call import Outcome, Understood
from flows.collector.log import Line, line_of
from flows.collector.understand import Understanding
from flows.errors import UsageError
from flows.model.ticks import DAY_MS, MINUTE_MS
from flows.rejected import Letter
from flows.resend import FINAL, ResendResult
from flows.settings import Settings, kafka_options
from flows.sources.examples import failures
from flows.sources.messages import RecordDecoder, cluster_of
from flows.sources.pixels import Pixels, understanding_of
from flows.sources.source import NAME, Source, load_source

MAX_HELD: Final = 100_000
"""The greatest number of places that are collected before their messages are read."""
NOT_OURS: Final = "not ours by the present mapping"
UNCHANGED: Final = "of a source: correct its mapping; --set changes letters of doors alone"
_AT_ONCE: Final = 5_000
_POSITION: Final = re.compile(
    rf"source/({NAME.pattern})/([\w.-]{{1,249}})/(\d{{1,10}})/(\d{{1,19}})", re.ASCII
)


class MessagePlace(NamedTuple):
    """The source, topic, partition and offset of a message."""

    source: str
    topic: str
    partition: int
    offset: int


def place_of(letter: Letter) -> MessagePlace | None:
    """The place of the message of a source's letter; None for any other letter."""
    match = _POSITION.fullmatch(letter.position)
    if match is None:
        return None
    return MessagePlace(match[1], match[2], int(match[3]), int(match[4]))


class LetterRereader:
    """Reads the messages of letters again, and writes those that are pixels by now.

    Args:
        resent: counts the outcomes.
        watermark_ms, lateness_ms: of the flow; pixels of minutes that are final by these are not written.
        changed: whether `--set` changes fields. Letters of sources are then not sent.
    """

    def __init__(
        self, settings: Settings, resent: ResendResult, watermark_ms: int, lateness_ms: int, changed: bool
    ) -> None:
        self._settings, self._resent, self._changed = settings, resent, changed
        self._watermark_ms, self._lateness_ms = watermark_ms, lateness_ms
        self._places: dict[MessagePlace, None] = {}
        self._writer: KafkaWriter | None = None

    def apart(self, letters: Iterable[Letter]) -> Iterator[Letter]:
        """The letters that come from no source; `end` reads the messages of the others.

        Raises:
            AudiopixelError, ConnectError: as `end`.
        """
        for letter in letters:
            place = place_of(letter)
            if place is None:
                yield letter
            elif self._changed:
                self._resent.not_sent[UNCHANGED] += 1
            else:
                self._places[place] = None
                if len(self._places) >= MAX_HELD:
                    self.end()

    def end(self) -> None:
        """Read the messages, and write their pixels.

        Raises:
            UsageError: an example of the source fails.
            SettingsError: the source's file has a mistake, or a key is missing.
            ConnectError: Kafka is away.
        """
        places, self._places = self._places, {}
        topics: dict[tuple[str, str], list[MessagePlace]] = {}
        for place in places:
            topics.setdefault((place.source, place.topic), []).append(place)
        for (name, topic), topic_places in topics.items():
            self._read(name, topic, topic_places)

    def _read(self, name: str, topic: str, places: Sequence[MessagePlace]) -> None:
        if not (self._settings.sources / f"{name}.toml").exists():
            why = f"of the source {name}, which AUDIOPIXEL_SOURCES does not have"
            self._resent.not_sent[why] += len(places)
            return
        source = load_source(self._settings.sources, name)
        if source.topic != topic:
            why = f"of {topic}, which the source {name} does not read any more"
            self._resent.not_sent[why] += len(places)
            return
        understanding = understanding_of(self._settings)
        if failed := list(failures(Pixels(source, understanding))):
            raise UsageError(f"{name}: {'; '.join(failed)} (audiopixel sources check {name})")
        unread = {(one.partition, one.offset) for one in places}
        try:
            self._take(source, understanding, unread)
        except KafkaTrouble as error:
            if error.kind != "missing" or error.topic != topic:
                raise
        if unread:
            self._resent.expired[topic] += len(unread)

    def _take(self, source: Source, understanding: Understanding, unread: set[tuple[int, int]]) -> None:
        """Write the pixels of the messages at the partitions and offsets in `unread`, and remove from
        `unread` what the topic still has.
        """
        assert source.topic is not None
        brokers, options = cluster_of(source, self._settings)
        decoder, picker = RecordDecoder(source), Picker(brokers, source.topic, options)
        try:
            pixels = Pixels(source, understanding, picker.log_id)
            offsets: dict[int, list[int]] = {}
            for partition, offset in unread:
                offsets.setdefault(partition, []).append(offset)
            lines: list[Line] = []
            for record in picker.records(offsets, source.reads_headers):
                unread.discard((record.partition, record.offset))
                line = self._line(pixels.understand(decoder.message(record, patient=True), _now_ms()))
                if line is not None:
                    lines.append(line)
                if len(lines) >= _AT_ONCE:
                    self._write(lines)
                    lines = []
            if lines:
                self._write(lines)
        finally:
            picker.close()

    def _line(self, understood: Understood | None) -> Line | None:
        """The line of a pixel that still counts; None for any other message, whose reason is counted."""
        if understood is None or understood.outcome is Outcome.NOT_COUNTED:
            self._resent.not_sent[NOT_OURS] += 1
            return None
        if understood.outcome is not Outcome.STORED:
            self._resent.refused[": ".join(filter(None, (understood.reason, understood.wrong)))] += 1
            return None
        received_ms = understood.event["received_at"]
        at_ms = max(
            received_ms - DAY_MS, min(understood.event["ts"], received_ms + MINUTE_MS)
        )  # the flow's clamp
        if (at_ms // MINUTE_MS + 1) * MINUTE_MS + self._lateness_ms <= self._watermark_ms:
            self._resent.not_sent[FINAL] += 1
            return None
        return line_of(understood.event, understood.key)

    def _write(self, lines: Sequence[Line]) -> None:
        """Write pixels, and wait until Kafka has them."""
        if self._writer is None:
            options = kafka_options(self._settings) | {"partitioner": "murmur2_random"}
            self._writer = KafkaWriter(self._settings.kafka_brokers, self._settings.kafka_topic, options)
        self._writer.write([(one.key, one.body) for one in lines])
        self._writer.flush()
        self._resent.accepted += len(lines)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
