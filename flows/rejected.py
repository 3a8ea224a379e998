"""Dead letters for people: counts by group, and the comparison with a sender's own file.

Letters come at least once. A repeat is recognised by its position, reason, field and sender, and by event,
placement, play and playhead of its event. The ids in letters are chosen by callers. Every table is therefore
bounded, and every text goes to a terminal through `flows.shown`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, NamedTuple

import msgspec
from rich.table import Table

from connectors.files import FileInput
from connectors.kafka import whole
from connectors.stream import EndOfInput
from flows.errors import UNREADABLE
from flows.settings import Settings, kafka_options
from flows.shown import LINE, cell, table_of_faults

MAX_GROUPS: Final = 10_000
"""The greatest number of groups. Letters of further groups count by reason and field, under the placement
`other`. Beyond twice as many groups, letters count under the reason `other`.
"""
MAX_KNOWN: Final = 1_000_000
"""The greatest number of letters that are remembered, to recognise a repeat or to look up a line. The oldest
are dropped first.
"""
LONGEST_SHOWN: Final = 40
"""The greatest length, in characters, of an unknown event's name in a group."""
UNKNOWN: Final = "unknown_event"
OTHER: Final = "other"
_BATCH: Final = 10_000


class Letter(NamedTuple):
    """A dead letter.

    Attributes:
        field: the wrong field; empty if none is named.
        sender: the caller of a collector if the letter names one, else the source partition.
        event: the fields of the event that a letter may have.
        digest: the SHA-256 of a malformed message, else empty.
        withheld: the names of fields that the event had and the letter does not have.
        taken_ms: the time at which Kafka took the letter, epoch ms; 0 if unknown.
    """

    position: str
    reason: str
    field: str
    sender: str
    event: dict[str, Any]
    digest: str
    withheld: tuple[str, ...] = ()
    taken_ms: int = 0

    @property
    def placement(self) -> str:
        """The placement of its event; empty without one."""
        return _text(self.event.get("placement_id"))

    @property
    def event_id(self) -> str:
        """The id of its event; empty without one."""
        return _text(self.event.get("event_id"))


class LetterFilter(NamedTuple):
    """The letters that a command selects. An empty text selects all."""

    reason: str = ""
    sender: str = ""
    placement: str = ""

    def has(self, letter: Letter) -> bool:
        """True if a letter is selected."""
        pairs = zip(self, (letter.reason, letter.sender, letter.placement), strict=True)
        return all(not selected or selected == text for selected, text in pairs)


@dataclass
class LetterCounts:
    """Counts of the lines or messages that were read.

    Attributes:
        letters: the number of letters, repeats included.
        not_letters: the number of others, which are left out.
    """

    letters: int = 0
    not_letters: int = 0


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def letter_of(raw: bytes, taken_ms: int = 0) -> Letter | None:
    """The letter of a message; None for any other message.

    Args:
        taken_ms: the time at which Kafka took it, epoch ms; 0 if unknown.
    """
    try:
        body = msgspec.json.decode(raw, type=dict[str, Any])
    except UNREADABLE:
        return None
    reason, position = body.get("reason"), body.get("position")
    if not (isinstance(reason, str) and isinstance(position, str)):
        return None
    event, withheld = body.get("event"), body.get("withheld")
    sender = _text(body.get("sender")) or _text(body.get("partition")) or position.rpartition("/")[0]
    return Letter(
        position,
        reason,
        _text(body.get("field")),
        sender,
        event if isinstance(event, dict) else {},
        _text(body.get("sha256")),
        tuple(map(str, withheld)) if isinstance(withheld, list) else (),
        taken_ms,
    )


def from_files(files: Sequence[str], counts: LetterCounts | None = None) -> Iterator[Letter]:
    """The letters of files, as `audiopixel replay --out` writes them, each once.

    Args:
        counts: the counts to which lines are added.

    Raises:
        ConnectError: a file cannot be read.
    """
    return _once(((raw, 0) for _, raw in _lines(files)), counts or LetterCounts())


def from_topic(settings: Settings, hours: float, counts: LetterCounts | None = None) -> Iterator[Letter]:
    """The letters that Kafka took in the last `hours`, each once.

    Args:
        counts: the counts to which messages are added.

    Raises:
        ConnectError: the topic is missing, or the brokers do not answer.
    """
    return _once(_messages(settings, hours), counts or LetterCounts())


def _messages(settings: Settings, hours: float) -> Iterator[tuple[bytes, int]]:
    from time import time

    since_ms = (time() - hours * 3600) * 1000  # a float, since `hours` may be infinite
    options = kafka_options(settings)
    for change in whole(settings.kafka_brokers, settings.kafka_rejected_topic, options):
        if change.value is not None and change.timestamp_ms >= since_ms:
            yield change.value, change.timestamp_ms


_APART: Final = ("event", "placement_id", "play_id", "playhead_ms")
"""Fields of an event by which letters of one position differ. A collector's position ends with the event's
id, which another pixel may have, too.
"""


def _once(raws: Iterable[tuple[bytes, int]], counts: LetterCounts) -> Iterator[Letter]:
    recent: dict[int, None] = {}
    for raw, taken_ms in raws:
        letter = letter_of(raw, taken_ms)
        if letter is None:
            counts.not_letters += 1
            continue
        counts.letters += 1
        identity = hash((*letter[:4], *(repr(letter.event.get(name)) for name in _APART)))
        if identity in recent:
            continue
        if len(recent) >= MAX_KNOWN:
            del recent[next(iter(recent))]
        recent[identity] = None
        yield letter


def _lines(files: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """The lines of files, each with its place, `FILE:LINE`."""
    source = FileInput(files)
    for file in source.partitions():
        reader = source.open(file, None)
        try:
            while True:
                messages = reader.read(_BATCH)
                for position, raw in zip(messages.positions, messages.values, strict=True):
                    yield f"{file}:{position}", raw
        except EndOfInput:
            continue
        finally:
            reader.close()


Group = tuple[str, str, str, str]
"""Reason, field, sender and placement of letters."""


@dataclass
class Groups:
    """Letters by reason, field, sender and placement.

    Args:
        examples: the number of event ids that are shown for each group.
    """

    examples: int = 2
    letters: Counter[Group] = field(default_factory=Counter)
    examples_of: dict[Group, list[str]] = field(default_factory=dict)

    def take(self, letter: Letter) -> None:
        """Count one letter."""
        field_words = letter.field
        if letter.reason == UNKNOWN and (event := _text(letter.event.get("event"))):
            field_words = f"{field_words}={event[:LONGEST_SHOWN]}"
        group: Group = (letter.reason, field_words, letter.sender, letter.placement)
        if group not in self.letters and len(self.letters) >= MAX_GROUPS:
            group = (letter.reason, letter.field, OTHER, OTHER)
            if group not in self.letters and len(self.letters) >= 2 * MAX_GROUPS:
                group = (OTHER, OTHER, OTHER, OTHER)
        self.letters[group] += 1
        examples = self.examples_of.setdefault(group, [])
        if len(examples) < self.examples:
            examples.append(letter.event_id or letter.position)

    def table(self, most: int) -> Table:
        """The `most` largest groups, the largest first."""
        table = Table(box=None, pad_edge=False)
        for head in ("reason", "field", "sender", "placement", "letters", "for example"):
            table.add_column(head, justify="right" if head == "letters" else "left", overflow="fold")
        for group, letters in sorted(self.letters.items(), key=lambda item: (-item[1], item[0]))[:most]:
            cells = [cell(text or "–") for text in group]
            table.add_row(*cells, f"{letters:,}", cell(", ".join(self.examples_of[group]), LINE))
        return table


@dataclass
class Comparison:
    """The comparison of a sender's own lines with the letters.

    Attributes:
        lines: the number of lines.
        counts: the number of lines with a letter, by reason and field.
        first: the place of the first such line, by reason and field.
        unnamed: the number of letters that name no event, by reason, such as `too_late`. They are not
            compared.
    """

    lines: int = 0
    unnamed: Counter[str] = field(default_factory=Counter)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    first: dict[tuple[str, str], str] = field(default_factory=dict)

    def account(self) -> str:
        """The account in words: every line has a dead letter, or has none."""
        rejected = self.counts.total()
        return f"lines {self.lines:,} = with a dead letter {rejected:,} + without {self.lines - rejected:,}"

    def table(self) -> Table:
        """The lines with a letter, by reason and field, the most frequent first."""
        return table_of_faults(self.counts, self.first)


def compare(files: Sequence[str], letters: Iterable[Letter]) -> Comparison:
    """Look up the lines of a sender's own files in the letters: a line by its event id, a malformed line by
    its SHA-256.

    Raises:
        ConnectError: a file cannot be read.
    """
    reason_by_event: dict[str, tuple[str, str]] = {}
    compared = Comparison()
    for letter in letters:
        if name := letter.digest or letter.event_id:
            if len(reason_by_event) >= MAX_KNOWN:
                del reason_by_event[next(iter(reason_by_event))]
            reason_by_event[name] = letter.reason, letter.field
        else:
            full = letter.reason not in compared.unnamed and len(compared.unnamed) >= MAX_GROUPS
            compared.unnamed[OTHER if full else letter.reason] += 1
    for place, raw in _lines(files):
        compared.lines += 1
        reason_and_field = reason_by_event.get(_id_in(raw)) or reason_by_event.get(sha256(raw).hexdigest())
        if reason_and_field is not None:
            compared.counts[reason_and_field] += 1
            compared.first.setdefault(reason_and_field, place)
    return compared


def _id_in(raw: bytes) -> str:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return ""
    return _text(document.get("event_id"))[:128] if isinstance(document, dict) else ""
