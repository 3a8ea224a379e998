"""The pixels of a source: a mapping reads a message, and the collector's own stages decide what it means.

Address, user agent and consent strings are mapped for these stages alone. No pixel has them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from hashlib import blake2b
from typing import Any, Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import msgspec

from flows.collector import cleaner
from flows.collector.body import Unreadable
from flows.collector.call import Call, Outcome, Understood
from flows.collector.callers import Caller
from flows.collector.dialects import CONSENT, Dialect
from flows.collector.reading import Reading, canonical, is_cut, read
from flows.collector.understand import Understanding
from flows.model.events import MAX_MS
from flows.settings import Settings
from flows.sources.paths import Condition, Message, Path, is_present, plain
from flows.sources.source import Source, alternatives

LONGEST_URL: Final = 16_384
_DOORS: Final = ("/p", "/b", "/c")
_MALFORMED: Final = "malformed"
OF_ONE_BEACON: Final = frozenset(("play_id", "cachebuster"))
"""Words of a tag's URL that identify one beacon. `ts` does not: several listeners' beacons share a second,
and the message's own time is no part of the URL.
"""
_TIMES: Final = frozenset(("ts", "received_at"))
_DECIMALS: Final = frozenset(("duration", "playhead", "value"))
_STRINGS: Final = ("gdpr_consent", "gpp")


def understanding_of(settings: Settings) -> Understanding:
    """The collector's understanding; a source's events need no signature and no plan.

    Raises:
        SettingsError: a key is missing, or a list cannot be read.
    """
    from flows.collector.from_settings import understanding_of as of_calls

    return of_calls(settings.model_copy(update={"collect_placements": "any"}))


@dataclass
class Pixels:
    """Makes pixels of a source's messages.

    Args:
        source: the mapping, compiled once.
        understanding: of the collector.
        log_id: the id of the topic, or the name of the file, in which offsets or lines are numbered.
    """

    source: Source
    understanding: Understanding
    log_id: str = ""

    def __post_init__(self) -> None:
        source = self.source
        self._names = [
            (field, [Path(one) for one in alternatives(paths)], source.values.get(field, {}))
            for field, paths in source.names.items()
        ]
        self._skip = [Condition(one) for one in source.skip]
        self._when = [(Condition(one), fields) for one, fields in source.when.items()]
        self._unlisted = source.values.get("event") if source.unlisted == "not_ours" else None
        self._url = Path(source.url) if source.url else None
        self._hosts = frozenset(host.lower() for host in source.url_hosts)
        self._zone = ZoneInfo(source.timezone) if source.timezone else None
        self._identity = [Path(one) for one in source.identity]
        self.caller = Caller(
            f"source {source.name}",
            frozenset(("write",)),
            trusted=True,
            device_from="query",
            masked=source.masked,
        )
        self._hasher = blake2b(digest_size=16, key=self.understanding.key, person=b"source")
        self._hasher.update(source.name.encode())

    def understand(self, message: Message, now_ms: int | None = None) -> Understood | None:
        """The pixel of a message, or its rejection; None if the message is not ours. No input makes this
        raise.

        Args:
            now_ms: the wall clock in epoch ms, for a live source. A later receipt counts as this time.
        """
        if message.tombstone:
            return None
        if message.document is None:
            return self._malformed(message.wrong)
        skips = [one.holds(message) for one in self._skip]
        if True in skips:
            return None
        if None in skips:
            return self._malformed("skip")
        if message.wrong:
            return self._malformed(message.wrong)
        if self._unlisted is not None and self._is_unlisted(message):
            return None
        fields, dialect, reading, names_beacon = self._fields(message), self.source.dialect, None, False
        if self._url is not None:
            tag = self._tag(message)
            if tag is None or isinstance(tag, Understood):
                return tag
            dialect, reading = tag
            names_beacon = not OF_ONE_BEACON.isdisjoint(reading.words)
        received_at = fields.pop("received_at", None)
        received_ms = self._received_ms(received_at, message, now_ms)
        mapped = mapped_reading(fields, self.source)
        for value in self._other_values(message, "consent"):
            mapped = merged_reading(mapped_reading({"consent": value}, self.source), mapped)
        if "unreadable" in mapped.cleaned.get("ts", ()):
            # otherwise the time of receipt would count, perhaps in another minute
            mapped.wrong = mapped.wrong or "ts"
        reading = mapped if reading is None else merged_reading(reading, mapped)
        if received_ms is None and received_at is not None and self.source.files is not None:
            reading.wrong = reading.wrong or "received_at"
        if received_ms is None:
            received_ms = reading.words.get("ts")
        if received_ms is None or not 0 <= received_ms < MAX_MS:  # only for files: a live source has a clock
            reading.wrong, received_ms = reading.wrong or "ts", 0
        if not isinstance(reading.words.get("event_id"), str) and (
            id_ := self._own_id(message, names_beacon)
        ):
            reading.words["event_id"] = id_
        understood = self.understanding.sourced(self.source.name, self.caller, dialect, reading, received_ms)
        understood.unreplaced = any("unreplaced" in done for done in mapped.cleaned.values())
        understood.unreadable = {
            word: fields.get(word, "") for word, done in mapped.cleaned.items() if "unreadable" in done
        }
        return understood

    def _is_unlisted(self, message: Message) -> bool:
        """True if the table of events does not list a message's event."""
        for field, paths, values in self._names:
            if field == "event":
                values_at_paths = (path.value_in(message) for path in paths)
                event = next((value for value in values_at_paths if is_present(value)), None)
                if event is None:
                    return "event" not in self.source.fixed
                return event.__class__ is not Unreadable and plain(event) not in values
        return False

    def _other_values(self, message: Message, field: str) -> Sequence[Any]:
        """The values at a field's paths, without the first one, which counts."""
        for name, paths, values in self._names:
            if name == field and len(paths) > 1:
                return [*_values(message, paths, values)][1:]
        return ()

    def _fields(self, message: Message) -> dict[str, Any]:
        """The mapped fields that a message has: each by its first path that has a value."""
        fields: dict[str, Any] = {}
        for field, paths, values in self._names:
            if (first := next(_values(message, paths, values), None)) is not None:
                fields[field] = first
        for condition, set_fields in self._when:
            holds = condition.holds(message)
            if holds:
                fields |= set_fields
            elif holds is None:  # the condition may set a refusal
                fields |= dict.fromkeys(CONSENT & set_fields.keys(), Unreadable())
        for field, value in self.source.fixed.items():
            fields.setdefault(field, value)
        if self._zone is not None:
            for name in _TIMES & fields.keys():
                fields[name] = _with_offset(fields[name], self._zone)
        if self.source.decimal == ",":
            for name in _DECIMALS & fields.keys():
                if fields[name].__class__ is str:
                    fields[name] = fields[name].replace(".", "").replace(",", ".")
        return fields

    def _tag(self, message: Message) -> tuple[Dialect, Reading] | Understood | None:
        """The reading of a tag's URL, by its dialect; None if there is no URL, or none of ours."""
        assert self._url is not None
        text = self._url.value_in(message)
        if not is_present(text):
            return None
        if not isinstance(text, str) or isinstance(text, Unreadable) or len(text) > LONGEST_URL:
            return self._malformed("url")
        try:
            parts = urlsplit(text)
            host = (parts.hostname or "").lower()
        except ValueError:
            return self._malformed("url")
        path = parts.path.partition(";")[0]
        door = path.startswith(_DOORS) and path[2:3] in ("", "/")
        if not door or (self._hosts and host not in self._hosts):
            return None
        call = Call("GET", parts.path, parts.query, {}, b"", "", 0)
        _, dialect = self.understanding.dialect_of(call)
        if is_cut(call, dialect):
            return self._malformed("url")
        reading = read(call, dialect)
        if path.startswith("/c"):
            reading.words.setdefault("event", "click")
        return dialect, reading

    def _malformed(self, field: str = "") -> Understood:
        return Understood(Outcome.REJECTED, _MALFORMED, field, sender=f"source/{self.source.name}")

    def _received_ms(self, mapped: Any, message: Message, now_ms: int | None) -> int | None:
        """The time of receipt: for a topic the record's, for a file the mapped one. None if there is none:
        the event's time then counts.
        """
        if self.source.files is None:
            stamp_ms = message.timestamp_ms or None
            return stamp_ms if now_ms is None else min(stamp_ms or now_ms, now_ms)
        if mapped is None:
            return None
        unit = "" if self.source.time == "iso" else self.source.time
        mapped_ms: int | None = cleaner.epoch_ms(str(mapped), unit)[0]
        return mapped_ms

    def _own_id(self, message: Message, names_beacon: bool) -> str:
        """An id for an event without one. If the tag's URL identifies one beacon, only the fields of
        `identity` make the id. Empty if they have no value, since the URL then makes it.
        """
        return self._id_of_identity(message) if names_beacon else self.id_of(message)

    def id_of(self, message: Message) -> str:
        """A keyed hash of the fields that identify a message, or else of its place in the log."""
        return self._id_of_identity(message) or self.id_of_place(message.partition, message.offset)

    def _id_of_identity(self, message: Message) -> str:
        """A keyed hash of the fields that identify a message. Empty if there are none, or if one of them
        cannot be read.
        """
        identity_values = [path.value_in(message) for path in self._identity]
        if not any(map(is_present, identity_values)) or any(
            one.__class__ is Unreadable for one in identity_values
        ):
            return ""
        return self._hashed([plain(one) if is_present(one) else None for one in identity_values])

    def id_of_place(self, partition: int, offset: int) -> str:
        """A keyed hash of a message's place in the log."""
        return self._hashed([self.log_id, partition, offset])

    def _hashed(self, identity_values: list[Any]) -> str:
        hasher = self._hasher.copy()
        hasher.update(msgspec.json.encode(identity_values))
        return hasher.hexdigest()


def _values(message: Message, paths: Sequence[Path], values: Mapping[str, Any]) -> Iterator[Any]:
    """The values at a field's paths, each as the field's table of values has it."""
    for path in paths:
        value = path.value_in(message)
        if is_present(value):
            listed = values and value.__class__ is not Unreadable
            yield values.get(plain(value), value) if listed else value


def _with_offset(value: Any, zone: ZoneInfo) -> Any:
    """A time without an offset, in UTC. A time that clocks skip has the offset before the change. A time that
    occurs twice is the first of the two.
    """
    moment = cleaner.wall_time(value) if value.__class__ is str else None
    if moment is None:
        return value
    try:
        return moment.replace(tzinfo=zone).astimezone(UTC).isoformat()
    except OverflowError:
        return value


def mapped_reading(fields: Mapping[str, Any], source: Source) -> Reading:
    """The reading of a message's mapped fields. A `consent` that is neither yes nor no counts as no consent,
    and does not make the message wrong: many messages have an object with the listener's choices there.
    """
    reading = canonical(fields, source.dialect)
    if reading.wrong == "consent":
        reading.wrong = ""
    return reading


def merged_reading(tag: Reading, mapped: Reading) -> Reading:
    """Two readings of a message, such as that of a tag's URL and that of the mapped fields.

    The second one wins. If both carry consent, the refusal counts.
    """
    differing = []
    for word in CONSENT & mapped.words.keys() & tag.words.keys():
        tag_value, mapped_value = tag.words[word], mapped.words[word]
        if word in _STRINGS and tag_value != mapped_value:
            differing.append(word)  # either string may be another listener's
        else:
            mapped.words[word] = _stricter(word, mapped_value, tag_value)
    tag.words |= mapped.words
    tag.states |= mapped.states
    for word, done in mapped.cleaned.items():
        for how in done:
            tag.clean(word, how)
    tag.wrong = tag.wrong or mapped.wrong
    for word in differing:
        tag.leave_out(word, word)
    return tag


def _stricter(word: str, first: Any, second: Any) -> Any:
    """The value on consent that refuses; the first if neither refuses. Section ids are joined."""
    if word == "gpp_sid":
        return tuple(dict.fromkeys((*first, *second)))
    if word == "us_privacy":
        return first if second[2:3].upper() in ("N", "-") else second
    if word == "consent":
        return first and second
    return first or second
