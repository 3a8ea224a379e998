"""Protobuf: a schema of the registry, and its messages, without generated code.

The registry holds the text of a `.proto`. protoc, from grpcio-tools, turns it into descriptors in its own
process; Google's library decodes with them. A message's fields are read on demand.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

import grpc_tools  # noqa: F401  (protoc runs in a process of its own; if it is missing, the start must fail)
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from flows.collector.body import Unreadable
from flows.sources.avro import float32_digits, time_text
from flows.sources.schemas import Text, UnusableError
from flows.sources.shapes import PLAIN, TEXT, ListOf, MapOf, Shape

COMPILE_S: Final = 30
MAX_INDEXES: Final = 16
"""The greatest depth of messages within messages."""
MAX_FIELDS: Final = 10_000
"""The greatest number of fields of a schema's messages, with those of the files that it imports."""
MAX_MEMBERS: Final = 10_000
"""The greatest number of items of a list or map. A longer one cannot be read."""
_TOP: Final = "audiopixel-schema.proto"
_OUT: Final = "audiopixel-descriptors"
_WELL_KNOWN: Final = "google/protobuf/"
_TIMESTAMP: Final = "google.protobuf.Timestamp"
_DURATION: Final = "google.protobuf.Duration"
_OF_JSON: Final = ("google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue")
_WRAPPERS: Final = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
_MAX_SECONDS: Final = 253_402_300_800


class Fields(Mapping[str, Any]):
    """The fields of a message that have a value, by their names in the `.proto` and in JSON."""

    __slots__ = ("_getters", "_message")

    def __init__(self, message: Message, getters: Mapping[str, Getter]) -> None:
        self._message, self._getters = message, getters

    def get(self, key: str, default: Any = None) -> Any:
        getter = self._getters.get(key)
        value = None if getter is None else getter(self._message)
        return default if value is None else value

    def __getitem__(self, key: str) -> Any:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.get(key) is not None

    def __iter__(self) -> Iterator[str]:
        return (one.name for one in self._message.DESCRIPTOR.fields if self.get(one.name) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


Getter = Callable[[Message], Any]


class Kind:
    """A type of message.

    Attributes:
        name: the full name.
        shape: the fields of its messages.
    """

    def __init__(self, descriptor: Descriptor, getters: Mapping[str, Getter], shape: Shape) -> None:
        self.name, self.shape, self._getters = descriptor.full_name, shape, getters
        self._class = message_factory.GetMessageClass(descriptor)

    def document(self, payload: bytes) -> Mapping[str, Any] | None:
        """The fields of a message's bytes; None if the bytes do not fit this type."""
        try:
            return Fields(self._class.FromString(payload), self._getters)
        except DecodeError:
            return None


class ProtobufSchema:
    """A schema by which messages are read.

    Raises:
        UnusableError: protoc refuses the text, or the text has no message.
    """

    def __init__(self, text: Text) -> None:
        if text.kind != "PROTOBUF":
            raise UnusableError(f"it is of the kind {text.kind}, not PROTOBUF")
        pool = descriptor_pool.DescriptorPool()
        files = _compiled(text).file
        if sum(map(_field_count, (one for file in files for one in file.message_type))) > MAX_FIELDS:
            raise UnusableError(f"it has over {MAX_FIELDS:,} fields")
        for file in files:
            pool.AddSerializedFile(file.SerializeToString())
        self._file = pool.FindFileByName(_TOP)
        self._getters: dict[str, dict[str, Getter]] = {}
        self._shapes: dict[str, Shape] = {}
        self._kinds: dict[tuple[int, ...], Kind | None] = {}
        if self._kind((0,)) is None:
            raise UnusableError("it has no message")

    def message(self, payload: bytes) -> tuple[Kind, Mapping[str, Any] | None] | None:
        """The kind and the document of the bytes after a prefix; None if they name no type of this schema."""
        type_and_end = indexes(payload)
        kind = None if type_and_end is None else self._kind(type_and_end[0])
        if type_and_end is None or kind is None:
            return None
        return kind, kind.document(payload[type_and_end[1] :])

    def _kind(self, path: tuple[int, ...]) -> Kind | None:
        if path not in self._kinds:
            kind = self._new_kind(path)
            if kind is None:
                return None  # not remembered: a sender may name any number of types that do not exist
            self._kinds[path] = kind
        return self._kinds[path]

    def _new_kind(self, path: tuple[int, ...]) -> Kind | None:
        types: Sequence[Descriptor] = list(self._file.message_types_by_name.values())
        descriptor = None
        for number in path:
            # Java's serializers count the text's messages, Python's also count the entries of maps.
            messages = [one for one in types if not one.GetOptions().map_entry]
            if number >= len(messages) or messages[number] is not types[number]:
                return None
            descriptor = messages[number]
            types = descriptor.nested_types
        if descriptor is None:
            return None
        return Kind(descriptor, self._getters_of(descriptor), self._shape(descriptor))

    def _getters_of(self, descriptor: Descriptor) -> dict[str, Getter]:
        name = descriptor.full_name
        if name not in self._getters:
            getters = self._getters[name] = {}
            for field in descriptor.fields:
                getter = self._getter(field)
                getters[field.json_name] = getters[field.name] = getter
        return self._getters[name]

    def _getter(self, field: FieldDescriptor) -> Getter:
        name = field.name
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            inner = self._member(field.message_type.fields_by_name["value"])
            return lambda message: _map(getattr(message, name), inner)
        member = self._member(field)
        if field.is_repeated:
            return lambda message: _list(getattr(message, name), member)
        if field.has_presence:
            return lambda message: member(getattr(message, name)) if message.HasField(name) else None
        return lambda message: member(getattr(message, name))

    def _member(self, field: FieldDescriptor) -> Callable[[Any], Any]:
        """The function that converts a single value of a field."""
        if field.enum_type is not None:
            names = {number: one.name for number, one in field.enum_type.values_by_number.items()}
            return lambda value: names.get(value, value)
        if field.message_type is None:
            return float32_digits if field.type == FieldDescriptor.TYPE_FLOAT else _unchanged
        kind = field.message_type
        if kind.full_name == _TIMESTAMP:
            return _milliseconds
        if kind.full_name == _DURATION:
            return lambda value: time_text(value.seconds * 1000 + value.nanos // 1_000_000)
        if kind.full_name in _WRAPPERS:
            inner = self._member(kind.fields_by_name["value"])
            return lambda value: inner(value.value)
        if kind.full_name in _OF_JSON:
            return json_format.MessageToDict
        getters = self._getters_of(kind)
        return lambda value: Fields(value, getters)

    def _shape(self, descriptor: Descriptor) -> Shape:
        """The shape of a type's messages. Each type is looked at once, since types refer to each other as a
        graph. A type within itself may have any shape.
        """
        name = descriptor.full_name
        if name not in self._shapes:
            self._shapes[name] = TEXT
            fields: dict[str, Shape] = {}
            for field in descriptor.fields:
                if field.message_type is not None and field.message_type.GetOptions().map_entry:
                    shape: Shape = MapOf(self._shape_of(field.message_type.fields_by_name["value"]))
                else:
                    shape = self._shape_of(field)
                    if field.is_repeated:
                        shape = ListOf(shape)
                fields |= dict.fromkeys((field.json_name, field.name), shape)
            self._shapes[name] = fields
        return self._shapes[name]

    def _shape_of(self, field: FieldDescriptor) -> Shape:
        kind = field.message_type
        if kind is None:
            return TEXT if field.type == FieldDescriptor.TYPE_STRING else PLAIN
        if kind.full_name in _WRAPPERS:
            return self._shape_of(kind.fields_by_name["value"])
        if kind.full_name in (_TIMESTAMP, _DURATION):
            return PLAIN
        return TEXT if kind.full_name in _OF_JSON else self._shape(kind)


def _unchanged(value: Any) -> Any:
    return value


def _field_count(message: descriptor_pb2.DescriptorProto) -> int:
    return len(message.field) + sum(map(_field_count, message.nested_type))


def _unchanged(value: Any) -> Any:
    return value


def _milliseconds(value: Any) -> Any:
    if not 0 <= value.seconds < _MAX_SECONDS or not 0 <= value.nanos < 1_000_000_000:
        return Unreadable()
    return value.seconds * 1000 + value.nanos // 1_000_000


def _list(values: Any, member: Callable[[Any], Any]) -> Any:
    if len(values) > MAX_MEMBERS:
        return Unreadable()
    return [member(one) for one in values] or None


def _map(values: Any, member: Callable[[Any], Any]) -> Any:
    if len(values) > MAX_MEMBERS:
        return Unreadable()
    return {str(name): member(one) for name, one in values.items()} or None


def _compiled(text: Text) -> descriptor_pb2.FileDescriptorSet:
    with tempfile.TemporaryDirectory(prefix="audiopixel-") as place:
        directory = Path(place)
        for name, schema_text in {**text.references, _TOP: text.text}.items():
            if name.startswith(_WELL_KNOWN):
                continue  # protoc brings these files
            parts = PurePosixPath(name)
            if parts.is_absolute() or ".." in parts.parts or not parts.parts or "\0" in name:
                raise UnusableError(f"it imports {name[:64]!r}, which leaves its directory")
            (directory / parts.parent).mkdir(parents=True, exist_ok=True)
            (directory / parts).write_text(schema_text)
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{place}", "--include_imports"]
        process = subprocess.run(
            [*command, f"--descriptor_set_out={directory / _OUT}", _TOP],
            capture_output=True,
            timeout=COMPILE_S,
            cwd=place,
        )
        if process.returncode:
            reason = process.stderr.decode(errors="replace").strip().splitlines() or ["no reason"]
            raise UnusableError(f"protoc refuses its text: {reason[-1][:200]}")
        return descriptor_pb2.FileDescriptorSet.FromString((directory / _OUT).read_bytes())


def indexes(payload: bytes) -> tuple[tuple[int, ...], int] | None:
    """The path of a message's type in its file, and the index of the byte after it; None if the bytes begin
    with no such path.

    A single zero stands for the first type. Otherwise the number of indexes comes first, then each index, all
    as zigzag varints. Source:
    https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html
    """
    count_and_end = _varint(payload, 0)
    if count_and_end is None:
        return None
    count, start = count_and_end
    if count == 0:
        return (0,), start
    if not 0 < count <= MAX_INDEXES:
        return None
    path = []
    for _ in range(count):
        index_and_end = _varint(payload, start)
        if index_and_end is None or index_and_end[0] < 0:
            return None
        path.append(index_and_end[0])
        start = index_and_end[1]
    return tuple(path), start


def _varint(payload: bytes, start: int) -> tuple[int, int] | None:
    value = shift = 0
    for place in range(start, min(start + 5, len(payload))):
        value |= (payload[place] & 0x7F) << shift
        shift += 7
        if payload[place] < 0x80:
            return (value >> 1) ^ -(value & 1), place + 1
    return None
