"""Protobuf: a schema of the registry, and its messages, without generated code.

The registry sends descriptors, or the text of a `.proto`. protoc, from grpcio-tools, turns a text into
descriptors in its own process. Google's library decodes with them. A message's fields are read on demand.
"""

from __future__ import annotations

import base64
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

import grpc_tools  # noqa: F401  (protoc runs in a process of its own; if it is missing, the start must fail)
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError, Message

from flows.collector.body import Unreadable
from flows.sources.avro import float32_digits, time_text
from flows.sources.schemas import MAX_FIELDS, Text, UnusableError
from flows.sources.shapes import PLAIN, TEXT, ListOf, MapOf, Shape

COMPILE_S: Final = 30
"""The greatest time of protoc, in s. On a busy machine the schema is tried again."""
COMPILE_CPU_S: Final = 2
"""The greatest processor time of protoc with Python's start, in s. A schema that needs more is refused."""
MAX_INDEXES: Final = 16
"""The greatest depth of messages within messages."""
MAX_MEMBERS: Final = 10_000
"""The greatest number of items of a list or map. A longer one cannot be read."""
_TOP: Final = "audiopixel-schema.proto"
_OUT: Final = "audiopixel-descriptors"
_PROTOC: Final = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_CPU, ({COMPILE_CPU_S}, {COMPILE_CPU_S + 1}))
from grpc_tools import protoc
protoc.entrypoint()
"""
_WELL_KNOWN: Final = "google/protobuf/"
_GOOGLES: Final = frozenset(
    f"{_WELL_KNOWN}{name}.proto"
    for name in (
        *("any", "api", "descriptor", "duration", "empty", "field_mask"),
        *("source_context", "struct", "timestamp", "type", "wrappers"),
    )
)
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


class Kind(NamedTuple):
    """A type of message.

    Attributes:
        name: the full name.
        shape: the fields of its messages.
        getters: the function that reads each field.
        message_class: Google's class of its messages.
    """

    name: str
    shape: Shape
    getters: Mapping[str, Getter]
    message_class: type[Message]

    def document(self, payload: bytes) -> Mapping[str, Any] | None:
        """The fields of a message's bytes; None if the bytes do not fit this type."""
        try:
            return Fields(self.message_class.FromString(payload), self.getters)
        except DecodeError:
            return None


class ProtobufSchema:
    """A schema by which messages are read. Each type is read once, before the first message.

    Attributes:
        kinds: the types of messages, by their path of indexes.

    Raises:
        UnusableError: protoc refuses the text, or the text has no message or too many fields.
    """

    def __init__(self, text: Text) -> None:
        if text.kind != "PROTOBUF":
            raise UnusableError(f"it is of the kind {text.kind}, not PROTOBUF")
        files = _described(text) or _compiled(text)
        if sum(map(_field_count, files)) > MAX_FIELDS:
            raise UnusableError(f"it has over {MAX_FIELDS:,} fields")
        pool = descriptor_pool.DescriptorPool()
        for file in files:
            pool.AddSerializedFile(file.SerializeToString())
        top_types = list(pool.FindFileByName(_TOP).message_types_by_name.values())
        self._types: dict[str, tuple[dict[str, Getter], dict[str, Shape]]] = {}
        self._unread: list[Descriptor] = []
        self.kinds = {path: self._kind(descriptor) for path, descriptor in _paths(top_types, ())}
        while self._unread:
            self._read(self._unread.pop())
        if not self.kinds:
            raise UnusableError("it has no message")

    def message(self, payload: bytes) -> tuple[Kind, Mapping[str, Any] | None] | None:
        """The kind and the document of the bytes after a prefix; None if they name no type of this schema."""
        type_and_end = indexes(payload)
        kind = None if type_and_end is None else self.kinds.get(type_and_end[0])
        if type_and_end is None or kind is None:
            return None
        return kind, kind.document(payload[type_and_end[1] :])

    def _kind(self, descriptor: Descriptor) -> Kind:
        getters, shape = self._type(descriptor)
        return Kind(descriptor.full_name, shape, getters, message_factory.GetMessageClass(descriptor))

    def _type(self, descriptor: Descriptor) -> tuple[dict[str, Getter], dict[str, Shape]]:
        """The fields of a type, which `_read` fills in."""
        name = descriptor.full_name
        if name not in self._types:
            self._types[name] = {}, {}
            self._unread.append(descriptor)
        return self._types[name]

    def _read(self, descriptor: Descriptor) -> None:
        getters, shape = self._type(descriptor)
        for field in descriptor.fields:
            names = field.json_name, field.name
            getters |= dict.fromkeys(names, self._getter(field))
            shape |= dict.fromkeys(names, self._shape(field))

    def _shape(self, field: FieldDescriptor) -> Shape:
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            return MapOf(self._shape(kind.fields_by_name["value"]))
        shape: Shape = TEXT if field.type == FieldDescriptor.TYPE_STRING else PLAIN
        if kind is not None and _google_name(kind) in _WRAPPERS:
            shape = self._shape(kind.fields_by_name["value"])
        elif kind is not None and _google_name(kind) in _OF_JSON:
            shape = TEXT
        elif kind is not None and _google_name(kind) not in (_TIMESTAMP, _DURATION):
            shape = self._type(kind)[1]
        return ListOf(shape) if field.is_repeated else shape

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
        name = _google_name(kind)
        if name == _TIMESTAMP:
            return _milliseconds
        if name == _DURATION:
            return lambda value: time_text(value.seconds * 1000 + value.nanos // 1_000_000)
        if name in _WRAPPERS:
            inner = self._member(kind.fields_by_name["value"])
            return lambda value: inner(value.value)
        if name in _OF_JSON:
            return _json
        getters, _ = self._type(kind)
        return lambda value: Fields(value, getters)


def _paths(
    types: Iterable[Descriptor], above: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], Descriptor]]:
    """The path of each type of a file. Java's serializers count the text's messages, Python's also count the
    entries of maps, so types after such an entry have none.
    """
    for number, descriptor in enumerate(takewhile(lambda one: not one.GetOptions().map_entry, types)):
        path = (*above, number)
        yield path, descriptor
        if len(path) < MAX_INDEXES:
            yield from _paths(descriptor.nested_types, path)


def _field_count(file: FileDescriptorProto) -> int:
    """The number of fields, messages and enum values of a file."""
    count, messages, enums = 0, [*file.message_type], [*file.enum_type]
    while messages:
        message = messages.pop()
        count += 1 + len(message.field)
        messages += message.nested_type
        enums += message.enum_type
    return count + sum(len(one.value) for one in enums)


def _google_name(kind: Descriptor) -> str:
    """The full name of a type of Google's own files; empty for another one, whatever its name."""
    return kind.full_name if kind.file.name in _GOOGLES else ""


def _json(value: Message) -> Any:
    """A `Struct` as JSON. Infinity and NaN are not JSON."""
    try:
        return json_format.MessageToDict(value)
    except (ValueError, json_format.Error):
        return Unreadable()


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


def _described(text: Text) -> list[FileDescriptorProto]:
    """The files of a schema of descriptors; empty if the registry sent the text of a `.proto`."""
    files = []
    for name, schema_text in {**text.references, _TOP: text.text}.items():
        if name.startswith(_WELL_KNOWN):
            continue  # only Google's own are read by their meaning
        try:
            file = FileDescriptorProto.FromString(base64.b64decode(schema_text, validate=True))
        except (ValueError, DecodeError):  # a .proto has characters that base64 lacks
            return []
        file.name = name
        files.append(file)
    imported = {name for file in files for name in file.dependency} - {file.name for file in files}
    return [*_well_known(imported), *files]


def _well_known(names: Iterable[str]) -> list[FileDescriptorProto]:
    """Google's own files, each after those that it imports.

    Raises:
        UnusableError: one is not Google's.
    """
    files: dict[str, FileDescriptorProto] = {}
    for name in names:
        if name not in _GOOGLES:
            raise UnusableError(f"it imports {name[:64]!r}, to which it has no reference")
        module = import_module(f"{name.removesuffix('.proto').replace('/', '.')}_pb2")
        file = FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
        files |= {one.name: one for one in (*_well_known(file.dependency), file)}
    return list(files.values())


def _compiled(text: Text) -> Sequence[FileDescriptorProto]:
    """The files of a schema that the registry sent as the text of a `.proto`, by protoc."""
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
        command = [sys.executable, "-c", _PROTOC, f"-I{place}", "--include_imports"]
        process = subprocess.run(
            [*command, f"--descriptor_set_out={directory / _OUT}", _TOP],
            capture_output=True,
            timeout=COMPILE_S,
            cwd=place,
        )
        if process.returncode == -signal.SIGXCPU:
            raise UnusableError(f"protoc needs over {COMPILE_CPU_S} s of work")
        if process.returncode:
            reason = process.stderr.decode(errors="replace").strip().splitlines() or ["no reason"]
            raise UnusableError(f"protoc refuses its text: {reason[-1][:200]}")
        return FileDescriptorSet.FromString((directory / _OUT).read_bytes()).file


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
