"""Dead letters sent again: a letter becomes a pixel, which is written to the pixel topic.

The letter of a source names the place of its message. The message is read again, by the present mapping. Any
other letter has the event itself, without its listener, app and landing URL. Both pass the collector's
stages, as an event of the operator's own.

A pixel has the event id and the time of receipt of its first sending. It therefore counts once, in the same
minute, however often it is sent. It belongs to no lane, because low marks have passed it. An event must not
count under another id or label, or without other fields that it had. An event of which the letter has only a
part is therefore not sent.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, Final, NamedTuple

from connectors.kafka import KafkaTrouble, KafkaWriter
from connectors.kafka.read_once import Picker
from flows.collector.call import Outcome, Understood
from flows.collector.callers import Caller
from flows.collector.log import Line, line_of
from flows.collector.reading import canonical
from flows.collector.understand import UNSIGNED, Understanding
from flows.errors import UsageError
from flows.model.catalogue.fields import SIGNED, UNSIGNED_FIELDS
from flows.model.dimensions import WITHOUT_APPS
from flows.model.events import INVALID, MALFORMED, MAX_ID, TOO_LATE, absent
from flows.model.ticks import DAY_MS, MINUTE_MS
from flows.model.times import rfc3339_ms
from flows.rejected import Letter
from flows.settings import Settings, kafka_options
from flows.sources.examples import failures
from flows.sources.messages import RecordDecoder, cluster_of
from flows.sources.pixels import Pixels, understanding_of
from flows.sources.source import NAME, Source, load_source

MAX_HELD: Final = 100_000
"""The greatest number of places that are collected before their messages are read."""
_AT_ONCE: Final = 5_000
# Reasons for which a letter is not sent.
MALFORMED_WORDS: Final = "malformed: its letter holds nothing of it"
FORGED: Final = "unsigned: it may be forged, --sender NAME sends those of a sender that you know"
CONVERSION: Final = "a conversion: its letter holds no listener to credit"
NO_ID: Final = "no event id: it could count twice"
NO_TIME: Final = "no time that can be read"
JUDGED: Final = "invalid traffic: its letter no longer holds why"
FINAL: Final = "too late: its minute is final"
CUT: Final = "an id that was too long: its letter holds its begin alone"
LOST: Final = "a field that its letter does not hold"
CHANGED: Final = "an id or a label that a door would read as another"
AHEAD: Final = "dated ahead of the clock: it could count at each sending"
NOT_OURS: Final = "not ours by the present mapping"
UNCHANGED: Final = "of a source: correct its mapping; --set changes letters of doors alone"
_IDS: Final = ("event_id", "play_id", "episode", *WITHOUT_APPS)
_HELD: Final = frozenset(_IDS) | {
    "event", "received_at", "playhead_ms", "duration_ms", "basis", "content_category",
}  # fmt: skip
"""Fields that letters have. Other fields identify the listener, and are never in a letter."""
_OF_NO_USE: Final = frozenset({"consent", "app", "landing_url"})
"""`consent` has no effect without a listener, an `app` is accepted from no caller, and a `landing_url` counts
only for conversions.
"""
SETTABLE: Final = ("event", *UNSIGNED_FIELDS, *SIGNED)
"""The fields that `--set` may correct when letters are sent again."""
_OPERATOR: Final = Caller("letters", frozenset(("write",)), trusted=True, device_from="query")
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


@dataclass
class ResendResult:
    """The outcome of sending letters again.

    Attributes:
        accepted: the number of pixels that Kafka has.
        refused: the number of events that are rejected again, by reason and field.
        not_sent: the number of letters that cannot be sent, by reason.
        expired: the number of sources' letters whose message is no longer in its topic, by topic.
    """

    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    not_sent: Counter[str] = field(default_factory=Counter)
    expired: Counter[str] = field(default_factory=Counter)

    def account(self) -> str:
        """The account in words: every letter was taken, rejected again, or not sent."""
        refused, not_sent = self.refused.total(), self.not_sent.total() + self.expired.total()
        letters = self.accepted + refused + not_sent
        parts = f"taken {self.accepted:,} + rejected again {refused:,} + not sent {not_sent:,}"
        return f"letters {letters:,} = {parts}"


@dataclass
class Resender:
    """Makes pixels of letters, and writes them to the pixel topic.

    Args:
        watermark_ms: the flow's watermark, epoch ms; 0 if unknown.
        lateness_ms: the flow's allowed lateness; a pixel of a minute that is final by both is not sent.
        now_ms: the time by the clock, epoch ms.
        changes: corrected values by field; letters of sources are not sent with them.
        unsigned: whether to send letters of calls without a signature, which may be forged.
        result: counts the outcomes, also if an error ends the call.
    """

    settings: Settings
    watermark_ms: int
    lateness_ms: int
    now_ms: int
    changes: Mapping[str, str] = field(default_factory=dict)
    unsigned: bool = False
    result: ResendResult = field(default_factory=ResendResult)

    def send(self, letters: Iterable[Letter]) -> None:
        """Send again the letters that can be sent, and wait until Kafka has their pixels.

        Raises:
            UsageError, SettingsError: as `lines`.
            ConnectError: Kafka is away. To send letters once more does no harm.
        """
        lines, writer = self.lines(letters), None
        while some := [*islice(lines, _AT_ONCE)]:
            if writer is None:
                options = kafka_options(self.settings) | {"partitioner": "murmur2_random"}
                writer = KafkaWriter(self.settings.kafka_brokers, self.settings.kafka_topic, options)
            writer.write([(one.key, one.body) for one in some])
            writer.flush()
            self.result.accepted += len(some)

    def lines(self, letters: Iterable[Letter]) -> Iterator[Line]:
        """The pixels of the letters that can be sent; the others are counted.

        Raises:
            UsageError: an example of a source fails.
            SettingsError: a source's file has a mistake, or a key is missing.
            ConnectError: Kafka is away.
        """
        places: dict[MessagePlace, None] = {}
        for letter in letters:
            place = place_of(letter)
            if place is None:
                if (line := self._line_of_event(letter)) is not None:
                    yield line
            elif self.changes:
                self.result.not_sent[UNCHANGED] += 1
            else:
                places[place] = None
                if len(places) >= MAX_HELD:
                    yield from self._lines_at(places)
                    places = {}
        yield from self._lines_at(places)

    @cached_property
    def _understanding(self) -> Understanding:
        return understanding_of(self.settings)

    def _line_of_event(self, letter: Letter) -> Line | None:
        """The pixel of the event that a letter has; None if it is not sent."""
        event, received_ms = event_of(letter, self.changes)
        reason = _unsendable(letter, event)
        if not reason and letter.reason == UNSIGNED and not self.unsigned:
            reason = FORGED
        if not reason and not received_ms:
            reason = NO_TIME
        if not reason and received_ms > self.now_ms:
            reason = AHEAD
        if not reason:
            dialect = self._understanding.dialects["native"]
            reading = canonical(event, dialect)
            understood = self._understanding.sourced("letters", _OPERATOR, dialect, reading, received_ms)
            if understood.event["event"] == "conversion":
                reason = CONVERSION
            elif any(_differs(understood.event.get(name), event[name]) for name in _IDS if name in event):
                reason = CHANGED
            else:
                return self._line(understood)
        self.result.not_sent[reason] += 1
        return None

    def _lines_at(self, places: Iterable[MessagePlace]) -> Iterator[Line]:
        """The pixels of the messages at places."""
        topics: dict[tuple[str, str], set[tuple[int, int]]] = {}
        for place in places:
            topics.setdefault(place[:2], set()).add(place[2:])
        for (name, topic), unread in topics.items():
            if not (self.settings.sources / f"{name}.toml").exists():
                why = f"of the source {name}, which AUDIOPIXEL_SOURCES does not have"
                self.result.not_sent[why] += len(unread)
                continue
            source = load_source(self.settings.sources, name)
            if source.topic != topic:
                why = f"of {topic}, which the source {name} does not read any more"
                self.result.not_sent[why] += len(unread)
                continue
            if failed := list(failures(Pixels(source, self._understanding))):
                raise UsageError(f"{name}: {'; '.join(failed)} (audiopixel sources check {name})")
            try:
                yield from self._lines_of(source, unread)
            except KafkaTrouble as error:
                if error.kind != "missing" or error.topic != topic:
                    raise
            if unread:
                self.result.expired[topic] += len(unread)

    def _lines_of(self, source: Source, unread: set[tuple[int, int]]) -> Iterator[Line]:
        """The pixels of the messages at the partitions and offsets in `unread`. What the topic still has is
        removed from `unread`.
        """
        assert source.topic is not None
        brokers, options = cluster_of(source, self.settings)
        decoder, picker = RecordDecoder(source), Picker(brokers, source.topic, options)
        try:
            pixels = Pixels(source, self._understanding, picker.log_id)
            offsets: dict[int, list[int]] = {}
            for partition, offset in unread:
                offsets.setdefault(partition, []).append(offset)
            for record in picker.records(offsets, source.reads_headers):
                unread.discard((record.partition, record.offset))
                line = self._line(pixels.understand(decoder.message(record, patient=True), self.now_ms))
                if line is not None:
                    yield line
        finally:
            picker.close()

    def _line(self, understood: Understood | None) -> Line | None:
        """The line of a pixel that still counts; None for any other event, whose reason is counted."""
        if understood is None or understood.outcome is Outcome.NOT_COUNTED:
            self.result.not_sent[NOT_OURS] += 1
            return None
        if understood.outcome is not Outcome.STORED:
            self.result.refused[": ".join(filter(None, (understood.reason, understood.wrong)))] += 1
            return None
        at_ms = _clamped(understood.event["ts"], understood.event["received_at"])
        if (at_ms // MINUTE_MS + 1) * MINUTE_MS + self.lateness_ms <= self.watermark_ms:
            self.result.not_sent[FINAL] += 1
            return None
        return line_of(understood.event, understood.key)


def event_of(letter: Letter, changes: Mapping[str, str]) -> tuple[dict[str, Any], int]:
    """The canonical event of a letter and its first time of receipt, epoch ms; 0 if the letter has no time
    that can be read.
    """
    event = {name: value for name, value in letter.event.items() if name != "landing_url"}  # may be cut
    at_ms, received_ms = _epoch_ms(event.pop("ts", None)), _epoch_ms(event.pop("received_at", None))
    if letter.taken_ms and (at_ms or received_ms):  # the event was received before its letter
        received_ms = min(received_ms or letter.taken_ms, letter.taken_ms)
    received_ms = received_ms or at_ms
    if received_ms:
        event["ts"] = _clamped(at_ms or received_ms, received_ms)
    return event | dict(changes), received_ms


def _clamped(at_ms: int, received_ms: int) -> int:
    """An event's time as the flow clamps it to its time of receipt."""
    return max(received_ms - DAY_MS, min(at_ms, received_ms + MINUTE_MS))


def _unsendable(letter: Letter, event: Mapping[str, Any]) -> str:
    """The reason why a letter's event cannot be sent; empty if it can."""
    if letter.reason == MALFORMED:
        return MALFORMED_WORDS
    if letter.reason == TOO_LATE:
        return FINAL
    if "invalid_traffic" in event:
        return JUDGED
    if absent(letter.event_id):
        return NO_ID
    wrong = letter.field if letter.reason == INVALID else ""
    lost = {*letter.withheld, *({wrong} & _HELD)} - _OF_NO_USE
    if any(event.get(name) is None for name in lost):
        return LOST
    # The letter may have cut a text of this length, and the cut text may be the id of another.
    if any(isinstance(event.get(name), str) and len(event[name]) >= MAX_ID for name in _IDS):
        return CUT
    return ""


def _differs(read_value: object, value: object) -> bool:
    """True if an id was read as another. The flow takes a macro as absent, too."""
    return read_value != value and not (isinstance(value, str) and absent(value))


def _epoch_ms(value: object) -> int:
    if isinstance(value, bool):
        return 0
    if isinstance(value, int | float):
        return int(value) if 0 < value < 1 << 53 else 0
    return max(0, rfc3339_ms(str(value)) or 0)
