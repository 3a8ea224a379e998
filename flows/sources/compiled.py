"""A mapping compiled for batches: repeated parts of messages are decided once.

`Pixels.understand` alone decides the meaning of a message. This module remembers its results for a message's
labels, consent signals, device and listener, by their values, in bounded tables. A message of remembered
values takes a tenth of the time, and gives the same line. Any other message goes to `Pixels.understand`: a
message of an unusual type, with non-ASCII characters where they matter, of a conversion, or of a mapping that
no table can hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Annotated, Any, Final, Union

import msgspec
from msgspec import UNSET, Meta, UnsetType, defstruct

from connectors.kafka import Record
from flows.collector.call import Call, Outcome, Understood
from flows.collector.callers import Device, Reached, device
from flows.collector.cleaner import device_id
from flows.collector.invalid_traffic import is_double
from flows.collector.log import line_of
from flows.collector.pseudonyms import CLIENT, HOUSEHOLD, LISTENER
from flows.collector.signals import signals_of
from flows.errors import UNREADABLE
from flows.model.catalogue.fields import CALLER_FIELDS
from flows.model.events import MAX_MS
from flows.sources.messages import MAX_MESSAGE_BYTES, message_of
from flows.sources.paths import Condition, Message, Path, is_present, plain
from flows.sources.pixels import Pixels, mapped_reading, merged_reading
from flows.sources.source import Source, alternatives

MAX_REMEMBERED: Final = 32_768
"""The greatest number of entries of each table. A full table is emptied."""
LONGEST_REMEMBERED: Final = 4_096
"""The greatest length of an entry's values, in characters."""
_LABELS: Final = ("event", *CALLER_FIELDS, "episode", "basis", "content_category", "duration")
_OUTPUTS: Final = {"duration": "duration_ms"}
_FLAGS: Final = ("gdpr", "lmt", "coppa", "gpc", "consent")
_CONSENT: Final = (*_FLAGS, "gdpr_consent", "gpp", "gpp_sid", "us_privacy", "country", "regulations")
_DEVICE: Final = ("ip", "user_agent")
_LISTENER: Final = ("listener_id", "ifa")
_OF_A_MESSAGE: Final = ("event_id", "play_id", "ts", "playhead")
_OF_CONVERSIONS: Final = ("type", "order_id", "value", "currency", "landing_url")
"""Fields that count in conversions and in clicks alone: messages with them go to `Pixels.understand`."""
_LEARNT: Final = frozenset(_OUTPUTS.get(name, name) for name in _LABELS)
_OTHER_FIELDS: Final = frozenset(
    (
        *("event_id", "ts", "received_at", "play_id", "playhead_ms", "consent", "device_basis", "app"),
        *("invalid_traffic", LISTENER, CLIENT, HOUSEHOLD),
    )
)
"""Fields of an event that its labels do not settle."""
_KINDS: Final[Mapping[str, Any]] = {
    "str": str,
    "int": int,
    "bool": bool,
    "strs": tuple[str, ...],
    "ints": tuple[int, ...],
}
_LABEL: Final = frozenset(("str", "int", "strs"))
_SCALAR: Final = frozenset(("str", "int"))
_FLAG: Final = frozenset(("str", "int", "bool"))
_SWITCH: Final = frozenset(("str", "bool"))
"""Kinds of values. 1 and true are equal keys of a table, so a field for which they differ accepts only one of
them.
"""
_LIST: Final = frozenset(("str", "int", "ints"))
_TEXT: Final = frozenset(("str",))
_Never = Annotated[int, Meta(ge=1, le=0)] | UnsetType
"""The type of a field that must be absent: no value fits."""
_ID: Final = re.compile(r"(?!(?i:null|undefined|none)\Z|AUDIT\Z|00000000-0000)[A-Za-z0-9][!#-\[\]-~]{0,127}")
"""An id that the cleaner leaves unchanged, and that JSON writes without an escape."""
_AGENT: Final = re.compile(r"(?!(?i:null|undefined|none)\Z|AUDIT\Z)[A-Za-z0-9](?:[ -~]{0,1000}[!-~])?")
_ADDRESS: Final = re.compile(r"[0-9a-fA-F:.]{3,45}")
_ISO: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.(?:\d{3}|\d{6}))?Z", re.ASCII)
_CALL: Final = Call("POST", "", "", {}, b"", "", 0)
_LONGEST_NUMBER: Final = 4_299
"""The greatest number of digits that Python reads. A longer number anywhere makes the message malformed."""
_NUMBER: Final = re.compile(rb"[0-9]{%d}" % _LONGEST_NUMBER)
_NOWHERE: Final = Reached(None, "", False)
_NOBODY: Final = Device(None, "", "none", "trusted", "")


class _Unusual(Exception):
    """A message that `Pixels.understand` must decide."""


@dataclass
class MappedBatch:
    """The pixels of a batch.

    Attributes:
        lines: the record's partition, the pixel's key, and JSON without its closing brace.
        rejected: each rejected record with the reason.
    """

    lines: list[tuple[int, bytes, bytes]] = field(default_factory=list)
    rejected: list[tuple[Record, Understood]] = field(default_factory=list)
    not_ours: int = 0


class Compiled:
    """Makes the pixels of a topic's records in batches.

    Args:
        pixels: decides about single records; its results are binding.
        message: decodes one record.
    """

    def __init__(self, pixels: Pixels, message: Callable[[Record], Message] = message_of) -> None:
        self._pixels, self._message = pixels, message
        self._shape = _shape_of(pixels.source)
        self._ours: dict[Any, bool] = {}
        self._labels: list[dict[Any, str]] = [{} for _ in self._shape.names] if self._shape else []
        self._consents: dict[Any, bool] = {}
        self._devices: dict[Any, tuple[str, str]] = {}
        self._listeners: dict[str, str] = {}

    def batch(
        self, records: Sequence[Record], now_ms: int, messages: Sequence[Message] | None = None
    ) -> MappedBatch:
        """The pixels of records. No input makes this raise.

        Args:
            messages: the decoded records, for a format that is decoded one by one.
        """
        if messages is not None:
            return self._batch_of_messages(records, messages, now_ms)
        batch, quick = MappedBatch(), self._quick if self._shape is not None else None
        lines = batch.lines
        for record in records:
            if quick is not None:
                try:
                    line = quick(record, now_ms)
                except (_Unusual, KeyError, AttributeError, *UNREADABLE):
                    pass
                else:
                    if line is None:
                        batch.not_ours += 1
                    else:
                        lines.append(line)
                    continue
            self._take(record, self._message(record), now_ms, batch)
        return batch

    def _batch_of_messages(
        self, records: Sequence[Record], messages: Sequence[Message], now_ms: int
    ) -> MappedBatch:
        batch = MappedBatch()
        for record, message in zip(records, messages, strict=True):
            self._take(record, message, now_ms, batch)
        return batch

    def _quick(self, record: Record, now_ms: int) -> tuple[int, bytes, bytes] | None:
        """The line of a record whose values are remembered; None if the message is not ours."""
        shape, value = self._shape, record.value
        assert shape is not None
        if not value.isascii():
            value.decode()  # skipped bytes are not checked otherwise
        if len(value) >= _LONGEST_NUMBER and (len(value) > MAX_MESSAGE_BYTES or _NUMBER.search(value)):
            raise _Unusual
        message = shape.decode(value)
        if not self._ours[shape.ours(message)]:
            return None
        fields_json = ""
        for table, label in zip(self._labels, shape.labels(message), strict=True):
            fields_json += table[label]
        signals = shape.consent(message)
        consents = self._consents.get(signals)
        if consents is None:
            consents = self._consent(message, signals)
        received_ms = min(record.timestamp_ms or now_ms, now_ms)
        ts = shape.ts(message)
        ts_ms = received_ms if ts is None else shape.time(ts)
        if not 0 <= received_ms < MAX_MS:
            raise _Unusual
        event_id = _id(shape.event_id(message)) or self._id_of(record)
        play, playhead = _id(shape.play_id(message)), shape.playhead(message)
        if play:
            fields_json = f'{fields_json},"play_id":"{play}"'
        if playhead is not None:
            if playhead.__class__ is not int or not 0 <= playhead < 100_000_000:
                raise _Unusual
            fields_json = (
                f'{fields_json},"playhead_ms":{playhead * shape.unit if playhead < 1000 else playhead}'
            )
        verdict, device_ids = self._device(shape.device(message))
        key = play
        if consents:
            listener = _id(shape.listener(message)) or _ifa(shape.ifa(message))
            if listener:
                pseudonym = self._listeners.get(listener) or self._listener(listener)
                fields_json = f'{fields_json},"consent":true{verdict},"{LISTENER}":"{pseudonym}"{device_ids}'
                key = key or pseudonym
            else:
                fields_json = f'{fields_json},"consent":true{verdict}{device_ids}'
        else:
            fields_json = f'{fields_json},"consent":false{verdict}'
        body = f'{{"received_at":{received_ms},"event_id":"{event_id}","ts":{ts_ms}{fields_json}'
        return record.partition, (key or event_id).encode(), body.encode()

    def _id_of(self, record: Record) -> str:
        if self._pixels.source.identity:
            return self._pixels.id_of(self._message(record))
        return self._pixels.id_of_place(record.partition, record.offset)

    def _consent(self, message: Any, signals: Any) -> bool:
        """The decision on consent, from the fields that decide it."""
        assert self._shape is not None
        pixels, fields = self._pixels, dict[str, Any]()
        for name, read_first in self._shape.signals:
            value = read_first(message)
            if value is not None:
                value = list(value) if isinstance(value, tuple) else value
                fields[name] = pixels.source.values.get(name, {}).get(plain(value), value)
        for name, value in pixels.source.fixed.items():
            if name in _CONSENT:
                fields.setdefault(name, value)
        reading = mapped_reading(fields, pixels.source)
        choices = [one for one in self._shape.choices(message) if one is not UNSET and is_present(one)]
        for value in choices[1:]:
            listed_value = pixels.source.values.get("consent", {}).get(plain(value), value)
            reading = merged_reading(mapped_reading({"consent": listed_value}, pixels.source), reading)
        if reading.wrong:
            raise _Unusual
        consents = pixels.understanding.policy.decide(signals_of(_CALL, reading, pixels.caller)).is_given
        _keep(self._consents, signals, consents)
        return consents

    def _device(self, values: tuple[Any, Any]) -> tuple[str, str]:
        """Fragments of an event: the verdict on its device, and the device's pseudonyms."""
        remembered = self._devices.get(values)
        if remembered is not None:
            return remembered
        address, agent = ((one if one is not UNSET and one is not None else "") for one in values)
        if (address and _ADDRESS.fullmatch(address) is None) or (agent and _AGENT.fullmatch(agent) is None):
            raise _Unusual
        if is_double(agent):
            raise _Unusual
        understanding, caller = self._pixels.understanding, self._pixels.caller
        known_device = device(caller, _NOWHERE, {}, {"ip": address, "user_agent": agent})
        verdict = understanding.judge.verdict_on(known_device)
        device_fields: dict[str, Any] = {"device_basis": known_device.basis}
        if verdict.reason:
            device_fields["invalid_traffic"] = verdict.reason
        if verdict.app:
            device_fields["app"] = verdict.app[:128]
        fragments = (
            _fragment(device_fields),
            _fragment(understanding.pseudonyms.of_listener(None, known_device)),
        )
        _keep(self._devices, values, fragments)
        return fragments

    def _listener(self, listener: str) -> str:
        pseudonym = self._pixels.understanding.pseudonyms.of_listener(listener, _NOBODY)[LISTENER]
        _keep(self._listeners, listener, pseudonym)
        return pseudonym

    def _take(self, record: Record, message: Message, now_ms: int, batch: MappedBatch) -> None:
        """Let `Pixels.understand` decide a record, and remember its result."""
        understood = self._pixels.understand(message, now_ms)
        if understood is None or understood.outcome is Outcome.NOT_COUNTED:
            batch.not_ours += 1
        elif understood.outcome is Outcome.STORED:
            line = line_of(understood.event, understood.key)
            batch.lines.append((record.partition, line.key, line.body[:-1]))
        else:
            batch.rejected.append((record, understood))
            return
        if self._shape is None or (understood is not None and understood.outcome is not Outcome.STORED):
            return  # NOT_COUNTED: the user agent shows a second download, and no label does
        try:
            values = self._shape.decode(record.value)
            _keep(self._ours, self._shape.ours(values), understood is not None)
            if understood is None:
                return
            event = understood.event
            has_landing_url = event["event"] == "click" and "landing_url" in self._pixels.source.names
            if (
                has_landing_url or not event.keys() <= _LEARNT | _OTHER_FIELDS
            ):  # a conversion has further fields
                return
            labels = self._shape.labels(values)
            for name, table, label in zip(self._shape.names, self._labels, labels, strict=True):
                _keep(table, label, _fragment({name: event[name]} if name in event else {}))
        except (AttributeError, *UNREADABLE):
            return


def _keep(table: dict[Any, Any], values: Any, result: Any) -> None:
    """Remember the result for some values, in a bounded table."""
    if len(str(values)) > LONGEST_REMEMBERED:
        return
    if len(table) >= MAX_REMEMBERED:
        table.clear()
    table[values] = result


def _fragment(fields: Mapping[str, Any]) -> str:
    """Fields as written in an event's JSON, after other fields."""
    return "," + msgspec.json.encode(fields).decode()[1:-1] if fields else ""


def _id(value: Any) -> str:
    """An id as the cleaner leaves it; empty if there is none."""
    if value is None:
        return ""
    text: str = value if value.__class__ is str else str(value)
    if _ID.fullmatch(text) is None:
        raise _Unusual
    return text


def _ifa(value: Any) -> str:
    """A device's id. Empty if there is none, or if it is zeros, which a device sends that hides its id."""
    return device_id(_id(value))[0] or ""


@dataclass(frozen=True)
class _Shape:
    """The fields of a message that a mapping reads, grouped by what they settle.

    Attributes:
        names: the names of an event's labels.
        labels: the values that settle each label.
        ours: the values that settle whether a message is ours.
        choices: the values at the paths of `consent`.
    """

    decode: Callable[[bytes], Any]
    names: Sequence[str]
    labels: Callable[[Any], Sequence[Any]]
    ours: Callable[[Any], Any]
    consent: Callable[[Any], Any]
    choices: Callable[[Any], Any]
    signals: Sequence[tuple[str, Callable[[Any], Any]]]
    device: Callable[[Any], tuple[Any, Any]]
    listener: Callable[[Any], Any]
    ifa: Callable[[Any], Any]
    event_id: Callable[[Any], Any]
    play_id: Callable[[Any], Any]
    ts: Callable[[Any], Any]
    playhead: Callable[[Any], Any]
    time: Callable[[Any], int]
    unit: int


class _Tree:
    """The types of a message's fields, by their paths."""

    def __init__(self) -> None:
        self._nested: dict[str, _Tree] = {}
        self._leaves: dict[str, frozenset[str]] = {}
        self._absent: set[str] = set()
        self._names: dict[str, str] = {}

    def add(self, path: Path, kinds: frozenset[str]) -> str:
        """The attribute of a path's value. Its kinds are those that all readers of the path accept.

        Raises:
            ValueError: the path cannot be an attribute.
        """
        *through, last = path.names()
        if path.text != last or through:
            self._absent.add(path.text)  # a field named like the whole path comes first
        tree, attributes = self, list[str]()
        for name in through:
            attributes.append(tree._named(name))
            tree = tree._nested.setdefault(name, _Tree())
        tree._leaves[last] = tree._leaves.get(last, kinds) & kinds
        return ".".join([*attributes, tree._named(last)])

    def _named(self, name: str) -> str:
        return self._names.setdefault(name, f"f{len(self._names)}")

    def type(self) -> type[msgspec.Struct]:
        """The type of a message.

        Raises:
            ValueError: a path leads through another one's value.
        """
        if self._nested.keys() & self._leaves.keys():
            raise ValueError("a path leads through another one's value")
        fields: list[tuple[str, Any, Any]] = []
        for name, tree in self._nested.items():
            nested_type = tree.type()
            fields.append((self._named(name), nested_type, nested_type()))
        for name, kinds in self._leaves.items():
            types = [_KINDS[kind] for kind in sorted(kinds)]
            fields.append((self._named(name), Union[(*types, None, UnsetType)], UNSET))
        for name in self._absent - self._leaves.keys() - self._nested.keys():
            fields.append((self._named(name), _Never, UNSET))
        renamed = {attribute: name for name, attribute in self._names.items()}
        return defstruct("Fields", fields, rename=renamed, frozen=True, gc=False)


def _shape_of(source: Source) -> _Shape | None:
    """The shape of a source's messages; None if the mapping cannot be compiled."""
    try:
        return _compiled(source)
    except ValueError:
        return None


def _compiled(source: Source) -> _Shape:
    readable = {*_LABELS, *_CONSENT, *_DEVICE, *_LISTENER, *_OF_A_MESSAGE, *_OF_CONVERSIONS}
    settled = {*source.fixed, *(name for fields in source.when.values() for name in fields)}
    if (
        source.url
        or source.decimal != "."
        or source.format != "json"
        or source.files is not None
        or source.names.keys() - readable
    ):
        raise ValueError("reads more than fields")
    if (settled | source.values.keys()) - {*_LABELS, *_CONSENT, *_OF_CONVERSIONS}:
        raise ValueError("settles what no table holds")
    tree = _Tree()

    def read(
        names: Sequence[str], kinds: frozenset[str] = _LABEL, more_attributes: Sequence[str] = ()
    ) -> list[str]:
        attributes = [*more_attributes]
        for name in names:
            if name in _FLAGS:
                kinds = _SWITCH if name in source.values else _FLAG
            elif name in _CONSENT:
                kinds = _LIST if name == "gpp_sid" else _SCALAR
            attributes += [tree.add(Path(path), kinds) for path in alternatives(source.names.get(name, ()))]
        return list(dict.fromkeys(attributes))

    def deciding(conditions: Iterable[str]) -> list[str]:
        return [
            tree.add(path, _SWITCH if wanted & {"true", "false"} else _LABEL)
            for text in conditions
            for path, wanted in Condition(text).read()
        ]

    def of_field(name: str) -> list[str]:
        """The attributes that settle a field: its paths, and the conditions that set it."""
        cases = deciding(source.when) if any(name in fields for fields in source.when.values()) else ()
        return read((name,), more_attributes=cases)

    labels = {_OUTPUTS.get(name, name): of_field(name) for name in _LABELS}
    labels = {name: attributes for name, attributes in labels.items() if attributes or name in source.fixed}
    events = read(("event",)) if source.unlisted == "not_ours" else ()
    if any(name in _CONSENT for fields in source.when.values() for name in fields):
        raise ValueError("a condition settles consent")
    groups: dict[str, Any] = {
        "names": tuple(labels),
        "labels": _values_of_groups([*labels.values()]),
        "ours": _all(list(dict.fromkeys((*deciding(source.skip), *events)))),
        "consent": _all(read(_CONSENT)),
        "choices": _all(read(("consent",))),
        "signals": [(name, _first(read((name,)))) for name in _CONSENT if name in source.names],
        "device": _pair(read(("ip",), _TEXT), read(("user_agent",), _TEXT)),
        "listener": _first(read(("listener_id",), _SCALAR)),
        "ifa": _first(read(("ifa",), _SCALAR)),
    }
    groups |= {name: _first(read((name,), _SCALAR)) for name in _OF_A_MESSAGE}
    decode = msgspec.json.Decoder(tree.type()).decode
    return _Shape(
        decode=decode, **groups, time=_TIMES[source.time], unit=1000 if source.playhead == "s" else 1
    )


def _values_of_groups(groups: Sequence[Sequence[str]]) -> Callable[[Any], Sequence[Any]]:
    """The value of each group of attributes; a tuple for a group of several."""
    if len(groups) > 1 and all(len(one) == 1 for one in groups):
        return attrgetter(*(one[0] for one in groups))
    getters = [attrgetter(*one) if one else _all(one) for one in groups]
    return lambda message: [get(message) for get in getters]


def _all(attributes: Sequence[str]) -> Callable[[Any], Any]:
    """All values, as a tuple."""
    if not attributes:
        return lambda _: ()
    if len(attributes) == 1:
        only = attrgetter(attributes[0])
        return lambda message: (only(message),)
    return attrgetter(*attributes)


def _first(attributes: Sequence[str]) -> Callable[[Any], Any]:
    """The first value that exists; None if there is none."""
    if not attributes:
        return lambda _: None
    if len(attributes) == 1:
        only = attrgetter(attributes[0])

        def only_value(message: Any) -> Any:
            value = only(message)
            return None if value is UNSET or value == "" else value

        return only_value
    getters = [attrgetter(attribute) for attribute in attributes]

    def first(message: Any) -> Any:
        for get in getters:
            value = get(message)
            if value is not UNSET and value is not None and value != "":
                return value
        return None

    return first


def _pair(addresses: Sequence[str], agents: Sequence[str]) -> Callable[[Any], tuple[Any, Any]]:
    """An address and a user agent."""
    if len(addresses) == len(agents) == 1:
        return attrgetter(addresses[0], agents[0])
    address, agent = _first(addresses), _first(agents)
    return lambda message: (address(message), agent(message))


def _ms(value: Any) -> int:
    if value.__class__ is int and 100_000_000_000 < value < 100_000_000_000_000:
        return int(value)
    return _iso(value)


def _s(value: Any) -> int:
    if value.__class__ is int and 100_000_000 < value < 100_000_000_000:
        return int(value * 1000)
    return _iso(value)


def _us(value: Any) -> int:
    if value.__class__ is int and 100_000_000_000_000 < value < 100_000_000_000_000_000:
        return int(value * 0.001)
    return _iso(value)


def _by_magnitude(value: Any) -> int:
    if value.__class__ is not int:
        return _iso(value)
    return _s(value) if value < 100_000_000_000 else _ms(value) if value < 100_000_000_000_000 else _us(value)


def _iso(value: Any) -> int:
    """An ISO 8601 time in UTC, in the form that programs write."""
    if value.__class__ is not str or _ISO.fullmatch(value) is None:
        raise _Unusual
    try:
        return int(datetime.fromisoformat(value).timestamp() * 1000)
    except ValueError:
        raise _Unusual from None


_TIMES: Final[Mapping[str, Callable[[Any], int]]] = {
    "": _by_magnitude,
    "iso": _by_magnitude,
    "s": _s,
    "ms": _ms,
    "us": _us,
}
