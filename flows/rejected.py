"""Dead letters for people: their number by group, those of a sender's own file, those that can be sent again.

Letters come at least once. A repeat is recognised by its position, reason, field and sender, and by event,
placement, play and playhead of its event. Callers chose the ids in them: every table here is bounded, and
every text goes to a terminal through `flows.shown`.
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
from flows.shown import LINE, cell

MAX_GROUPS: Final = 10_000
"""The greatest number of groups. Letters of others count under the placement `other`, and those of as many
reasons again under the reason `other`.
"""
MAX_KNOWN: Final = 1_000_000
"""The greatest number of letters that are stored, by which a repeat is recognised by its position or a line
by its id; the oldest are dropped first.
"""
LONGEST_SHOWN: Final = 40
"""The greatest length, in characters, of an unknown event's name in a group."""
UNKNOWN: Final = "unknown_event"
OTHER: Final = "other"
_BATCH: Final = 10_000


class Letter(NamedTuple):
    """A dead letter.

    Attributes:
        field: the wrong one; empty if none is named.
        sender: the caller of a collector, from its letter, else the source partition.
        event: the part of it that may be kept.
        digest: of a malformed message its SHA-256, else empty.
        withheld: fields that its event had and the letter does not have.
        taken_ms: the time at which Kafka took the letter; 0 if unknown.
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


class Wanted(NamedTuple):
    """Letters that are asked for; an empty text asks for all."""

    reason: str = ""
    sender: str = ""
    placement: str = ""

    def has(self, letter: Letter) -> bool:
        """True if a letter is asked for."""
        pairs = zip(self, (letter.reason, letter.sender, letter.placement), strict=True)
        return all(not wanted or wanted == is_ for wanted, is_ in pairs)


@dataclass
class Left:
    """Lines or messages that are no letters, and are left out.

    Attributes:
        letters: those that are.
        not_letters: those that are none.
    """

    letters: int = 0
    not_letters: int = 0


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def letter_of(raw: bytes, taken_ms: int = 0) -> Letter | None:
    """The letter of a message; None for any other message.

    Args:
        taken_ms: when Kafka took it; 0 if unknown.
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


def from_files(files: Sequence[str], left: Left | None = None) -> Iterator[Letter]:
    """The letters of files, as `audiopixel replay --out` writes them, each once.

    Args:
        left: counts what is no letter.

    Raises:
        ConnectError: a file cannot be read.
    """
    return _once(((raw, 0) for _, raw in _lines(files)), left or Left())


def from_topic(settings: Settings, hours: float, left: Left | None = None) -> Iterator[Letter]:
    """The letters of the topic that Kafka took in the last hours, each once.

    Args:
        left: counts what is no letter.

    Raises:
        ConnectError: the topic is missing, or the brokers do not answer.
    """
    return _once(_messages(settings, hours), left or Left())


def _messages(settings: Settings, hours: float) -> Iterator[tuple[bytes, int]]:
    from time import time

    since_ms = (time() - hours * 3600) * 1000  # no whole number: infinitely many hours have none
    options = kafka_options(settings)
    for change in whole(settings.kafka_brokers, settings.kafka_rejected_topic, options):
        if change.value is not None and change.timestamp_ms >= since_ms:
            yield change.value, change.timestamp_ms


_APART: Final = ("event", "placement_id", "play_id", "playhead_ms")
"""Fields of an event by which letters of one position differ: a collector's position ends with the event's
id, which another pixel may have, too.
"""


def _once(raws: Iterable[tuple[bytes, int]], left: Left) -> Iterator[Letter]:
    recent: dict[int, None] = {}
    for raw, taken_ms in raws:
        letter = letter_of(raw, taken_ms)
        if letter is None:
            left.not_letters += 1
            continue
        left.letters += 1
        place = hash((*letter[:4], *(repr(letter.event.get(name)) for name in _APART)))
        if place in recent:
            continue
        if len(recent) >= MAX_KNOWN:
            del recent[next(iter(recent))]
        recent[place] = None
        yield letter


def _lines(files: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Lines of files with their place, `FILE:LINE`."""
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
        examples: event ids that are kept of each group.
    """

    examples: int = 2
    letters: Counter[Group] = field(default_factory=Counter)
    examples_of: dict[Group, list[str]] = field(default_factory=dict)

    def take(self, letter: Letter) -> None:
        """Count one letter."""
        wrong = letter.field
        if letter.reason == UNKNOWN and (event := _text(letter.event.get("event"))):
            wrong = f"{wrong}={event[:LONGEST_SHOWN]}"
        group: Group = (letter.reason, wrong, letter.sender, letter.placement)
        if group not in self.letters and len(self.letters) >= MAX_GROUPS:
            group = (letter.reason, letter.field, OTHER, OTHER)
            if group not in self.letters and len(self.letters) >= 2 * MAX_GROUPS:
                group = (OTHER, OTHER, OTHER, OTHER)
        self.letters[group] += 1
        examples = self.examples_of.setdefault(group, [])
        if len(examples) < self.examples:
            examples.append(letter.event_id or letter.position)

    def table(self, most: int) -> Table:
        """The groups, the largest first."""
        table = Table(box=None, pad_edge=False)
        for head in ("reason", "field", "sender", "placement", "letters", "for example"):
            table.add_column(head, justify="right" if head == "letters" else "left", overflow="fold")
        for group, letters in sorted(self.letters.items(), key=lambda one: (-one[1], one[0]))[:most]:
            cells = [cell(text or "–") for text in group]
            table.add_row(*cells, f"{letters:,}", cell(", ".join(self.examples_of[group]), LINE))
        return table


@dataclass
class Compared:
    """A sender's own lines against the letters.

    Attributes:
        lines: their number.
        counts: lines with a letter, by reason and field; `first` is the first of them.
        unnamed: letters that were not compared, by reason: they name no event, as all of `too_late`.
    """

    lines: int = 0
    unnamed: Counter[str] = field(default_factory=Counter)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    first: dict[tuple[str, str], str] = field(default_factory=dict)

    def account(self) -> str:
        """The sum that must hold."""
        rejected = self.counts.total()
        return f"lines {self.lines:,} = with a dead letter {rejected:,} + without {self.lines - rejected:,}"

    def table(self) -> Table:
        """The lines with a letter, by reason and field, the most frequent first."""
        table = Table(box=None, pad_edge=False)
        for head in ("reason", "field", "lines", "first at"):
            table.add_column(head, justify="right" if head == "lines" else "left", overflow="fold")
        for (reason, name), lines in self.counts.most_common():
            table.add_row(cell(reason), cell(name or "–"), f"{lines:,}", cell(self.first[reason, name], LINE))
        return table


def compare(files: Sequence[str], letters: Iterable[Letter]) -> Compared:
    """Look up a sender's own file of pixels in the letters: a line by its event id, a malformed one by its
    SHA-256.

    Raises:
        ConnectError: a file cannot be read.
    """
    reason_by_event: dict[str, tuple[str, str]] = {}
    compared = Compared()
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
