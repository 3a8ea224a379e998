"""Protobuf: messages by index, evolution, imports, and what is no message."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.json_format import ParseDict
from registry_support import NAMES, SmallRegistry, framed
from sources_support import T0_MS, Reader, seconds

from connectors.kafka import Record
from flows.sources import protobuf
from flows.sources.messages import MAX_MESSAGE_BYTES, RecordDecoder
from flows.sources.paths import Path
from flows.sources.protobuf import Fields, ProtobufSchema, indexes
from flows.sources.schemas import SchemaAwaitedError, Text, UnusableError

PROTO = """
syntax = "proto3";
package com.example.player;
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
enum Kind { IMPRESSION = 0; START = 1; COMPLETE = 2; }
message Other { string id = 1; }
message AdEvent {
  message Listener { optional string device = 1; bool consent = 2; AdEvent within = 9; }
  string id = 1;
  Kind kind = 2;
  string placement = 3;
  optional string play = 4;
  google.protobuf.Timestamp at = 5;
  Listener listener = 6;
  repeated int32 numbers = 7;
  map<string, float> prices = 8;
  google.protobuf.StringValue station = 10;
  int64 number = 11;
}
message Outer {
  message First { string id = 1; }
  message Inner { string id = 1; }
  map<string, float> prices = 1;
  message Behind { string id = 1; }
}
"""
MAPPING = f"""
topic = "t"
format = "protobuf"
skip = ["$schema!=com.example.player.AdEvent"]
{NAMES}station = "station"
[values.event]
IMPRESSION = "impression"
START = "start"
COMPLETE = "complete"
"""
AD_EVENT = bytes((2, 2))  # one index, the second message
RECORD: dict[str, Any] = {
    "id": "e-1",
    "kind": "START",
    "placement": "p",
    "play": "play-1",
    "at": "2026-11-25T10:00:00.123Z",
    "listener": {"device": "d", "consent": True},
}


@pytest.fixture(scope="module")
def registry() -> Iterator[SmallRegistry]:
    with SmallRegistry() as server:
        yield server


def payload(text: str, record: Any, kind: str = "AdEvent", **references: str) -> bytes:
    schema = ProtobufSchema(Text("PROTOBUF", text, references))
    kinds = {one.name.rpartition(".")[2]: one for one in schema.kinds.values()}
    message: bytes = ParseDict(record, kinds[kind].message_class()).SerializeToString()
    return message


GOOD = payload(PROTO, RECORD)


class OfProtobuf(Reader):
    def put(self, text: str, **more: Any) -> int:
        return self.registry.put("s", text, "PROTOBUF", **more)


@pytest.fixture(scope="module")
def reader(registry: SmallRegistry) -> OfProtobuf:
    return OfProtobuf(registry, MAPPING)


@pytest.fixture(scope="module")
def schema_id(reader: OfProtobuf) -> int:
    return reader.put(PROTO)


def test_a_message_becomes_a_pixel(reader: OfProtobuf, schema_id: int) -> None:
    pixel = reader.outcome(framed(schema_id, AD_EVENT + GOOD))
    assert (pixel["event"], pixel["event_id"], pixel["placement_id"]) == ("start", "e-1", "p")
    assert (pixel["play_id"], pixel["ts"], pixel["consent"]) == ("play-1", T0_MS + 123, True)
    assert "station" not in pixel


def test_the_first_value_of_an_enum_is_a_value(reader: OfProtobuf, schema_id: int) -> None:
    """proto3 does not write it."""
    value = framed(schema_id, AD_EVENT + payload(PROTO, RECORD | {"kind": "IMPRESSION"}))
    assert reader.outcome(value)["event"] == "impression"


def test_an_unwritten_time_field_is_a_dead_letter(
    reader: OfProtobuf,
) -> None:
    text = PROTO.replace("google.protobuf.Timestamp at", "int64 at").replace(
        'import "google/protobuf/timestamp.proto";', ""
    )
    record = {name: value for name, value in RECORD.items() if name != "at"}
    assert reader.outcome(framed(reader.put(text), AD_EVENT + payload(text, record))) == "invalid ts"


def test_values_of_each_type(reader: OfProtobuf, schema_id: int) -> None:
    record = RECORD | {"numbers": [1, 2], "prices": {"a": 0.1}, "station": "one", "number": "12345678901234"}
    message = reader.message(framed(schema_id, AD_EVENT + payload(PROTO, record)))
    assert isinstance(message.document, Fields)
    for path, wanted in (
        ("numbers[1]", 2),
        ("prices.a", "0.1"),
        ("station", "one"),
        ("number", 12345678901234),
        ("listener.device", "d"),
        ("listener.within", None),
        ("at", T0_MS + 123),
        ("nobody", None),
    ):
        assert Path(path).value_in(message) == wanted, path
    assert set(message.document) == {*record}


def test_types_are_found_by_their_indexes(reader: OfProtobuf, schema_id: int) -> None:
    other = payload(PROTO, {"id": "o"}, "Other")
    assert reader.message(framed(schema_id, b"\0" + other)).schema == "com.example.player.Other"
    assert reader.message(framed(schema_id, bytes((2, 0)) + other)).schema == "com.example.player.Other"
    assert reader.outcome(framed(schema_id, b"\0" + other)) == "not ours"
    inner = reader.message(framed(schema_id, bytes((4, 4, 2)) + other))
    assert inner.schema == "com.example.player.Outer.Inner"
    # Serializers differ in their count after a map.
    assert reader.outcome(framed(schema_id, bytes((4, 4, 4)) + other)) == "malformed schema"
    for wrong in (b"", b"\2", bytes((2, 20)), bytes((2, 1)), bytes((200, 1)), b"\xff" * 1_000, bytes((4, 2))):
        assert reader.outcome(framed(schema_id, wrong)) == "malformed schema"


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(b"\0", ((0,), 1)), (b"\2\4", ((2,), 2)), (b"\4\2\6", ((1, 3), 3)), (b"\1", None), (b"\x80", None)],
)
def test_indexes_are_zigzag_varints(value: bytes, wanted: Any) -> None:
    assert indexes(value) == wanted


def test_imports_are_read_by_reference(reader: OfProtobuf) -> None:
    common = (
        'syntax = "proto3"; package c; message Listener { optional string device = 1; bool consent = 2; }'
    )
    reader.registry.put("common", common, "PROTOBUF")
    text = PROTO.replace("Listener listener = 6", "c.Listener listener = 6").replace(
        "enum Kind", 'import "shared/common.proto";\nenum Kind'
    )
    schema_id = reader.put(text, references=[("shared/common.proto", "common", 1)])
    assert reader.outcome(framed(schema_id, AD_EVENT + GOOD))["consent"] is True


@pytest.mark.parametrize("name", ["../x.proto", "/tmp/x.proto", "a/../../x.proto"])
def test_a_reference_outside_its_directory_is_refused(name: str) -> None:
    with pytest.raises(UnusableError, match="leaves its directory"):
        ProtobufSchema(Text("PROTOBUF", PROTO, {name: 'syntax = "proto3";'}))


def test_descriptors_are_read_without_protoc(reader: OfProtobuf, monkeypatch: pytest.MonkeyPatch) -> None:
    common = 'syntax = "proto3"; package c; message Listener { string device = 1; bool consent = 2; }'
    text = PROTO.replace("Listener listener = 6", "c.Listener listener = 6").replace(
        "enum Kind", 'import "shared/common.proto";\nenum Kind'
    )
    common_id = reader.registry.put("described", common, "PROTOBUF")
    schema_id = reader.put(text, references=[("shared/common.proto", "described", 1)])
    for one in (common_id, schema_id):
        reader.registry.describe(one)
    value = framed(schema_id, AD_EVENT + payload(text, RECORD, **{"shared/common.proto": common}))
    monkeypatch.setattr(protobuf, "_compiled", None)
    pixel = reader.outcome(value)
    assert (pixel["event"], pixel["placement_id"], pixel["ts"]) == ("start", "p", T0_MS + 123)
    assert pixel["consent"] is True


@pytest.mark.parametrize("missing", ["shared/common.proto", "google/protobuf/nothing.proto"])
def test_a_descriptor_with_an_import_that_the_registry_lacks_is_refused(missing: str) -> None:
    file = FileDescriptorProto(name="x", dependency=[missing])
    with pytest.raises(UnusableError, match=f"imports '{missing}', to which it has no reference"):
        ProtobufSchema(Text("PROTOBUF", base64.b64encode(file.SerializeToString()).decode(), {}))


# What would cost more than a schema, or is no value.


def messages(count: int, fields: Callable[[int], str]) -> str:
    types = "".join(f"message M{number} {{ {fields(number)} }}" for number in range(1, count))
    return f'syntax = "proto3"; message M0 {{ string id = 1; }} {types}'


def test_a_schema_of_too_many_fields_is_refused_with_its_reason() -> None:
    for text in (
        messages(6_000, lambda _: "int32 v = 1;"),
        messages(2, lambda _: "".join(f"int32 v{number} = {number};" for number in range(1, 10_001))),
    ):
        with pytest.raises(UnusableError, match="over 10,000 fields"):
            ProtobufSchema(Text("PROTOBUF", text, {}))


def test_a_type_used_by_many_types_is_read_once() -> None:
    text = messages(30, lambda number: f"M{number - 1} a = 1; M{number - 1} b = 2;")
    made = ProtobufSchema(Text("PROTOBUF", text, {}))
    assert seconds(lambda: made.message(bytes((2, 58)))) < 0.1


def test_a_schema_that_is_too_much_work_for_protoc_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protobuf, "_PROTOC", protobuf._PROTOC.replace("protoc.entrypoint()", "while 1: pass"))
    with pytest.raises(UnusableError, match="protoc needs over 2 s of work"):
        ProtobufSchema(Text("PROTOBUF", PROTO, {}))


@pytest.mark.parametrize(
    ("text", "record"),
    [
        ("google.protobuf.Value id = 1;", {"id": {"number_value": float("nan")}}),
        ("google.protobuf.Timestamp id = 1;", {"id": {"seconds": -(1 << 62)}}),
        ("google.protobuf.Duration id = 1;", {"id": {"seconds": 1 << 62}}),
    ],
)
def test_a_value_that_google_cannot_convert_is_no_value_of_a_field(text: str, record: Any) -> None:
    imports = "".join(
        f'import "google/protobuf/{name}.proto";' for name in ("struct", "timestamp", "duration")
    )
    made = ProtobufSchema(Text("PROTOBUF", f'syntax = "proto3"; {imports} message A {{ {text} }}', {}))
    kind = made.kinds[0,]
    document = kind.document(kind.message_class(**record).SerializeToString())
    assert document is not None
    assert isinstance(document["id"], str)


def test_a_type_with_a_name_of_googles_is_read_by_its_own_fields() -> None:
    types = "message A { Timestamp at = 1; } message Timestamp { string seconds = 1; }"
    text = f'syntax = "proto3"; package google.protobuf; {types}'
    found = ProtobufSchema(Text("PROTOBUF", text, {})).message(b"\0\x0a\x03\x0a\x01x")
    assert found is not None
    assert found[1] is not None
    assert dict(found[1]["at"]) == {"seconds": "x"}


# 10.4.


def test_an_added_or_optional_field_changes_nothing(reader: OfProtobuf) -> None:
    text = PROTO.replace("string placement = 3", "optional string placement = 3").replace(
        "int64 number = 11;", "int64 number = 11; string later = 12;"
    )
    schema_id = reader.put(text)
    assert (
        reader.outcome(framed(schema_id, AD_EVENT + payload(text, RECORD | {"later": "x"})))["placement_id"]
        == "p"
    )
    record = {name: value for name, value in RECORD.items() if name != "placement"}
    assert reader.outcome(framed(schema_id, AD_EVENT + payload(text, record))) == "invalid placement_id"


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("string id = 1;\n  Kind", "malformed event_id"),
        ("google.protobuf.Timestamp at = 5;", "malformed ts"),
        ("bool consent = 2;", "malformed consent"),
        ("string placement = 3;", "invalid placement_id"),
    ],
)
def test_a_removed_or_renamed_field_is_named(reader: OfProtobuf, field: str, wrong: str) -> None:
    assert field in PROTO
    text = PROTO.replace(field, "Kind" if field.endswith("Kind") else "")
    record = RECORD | {"listener": {"device": "d"}}
    for one in ("id", "at", "placement"):
        if f" {one} =" in field:
            record = {name: value for name, value in record.items() if name != one}
    assert reader.outcome(framed(reader.put(text), AD_EVENT + payload(text, record))) == wrong


def test_a_schema_refused_by_protoc_makes_dead_letters(reader: OfProtobuf) -> None:
    for text in ("no proto", 'syntax = "proto3"; message A { Nobody n = 1; }', 'syntax = "proto3";'):
        assert reader.outcome(framed(reader.put(text), AD_EVENT + GOOD)) == "malformed schema"
    avro = reader.registry.put("a", '{"type":"record","name":"R","fields":[]}')
    assert reader.outcome(framed(avro, AD_EVENT + GOOD)) == "malformed schema"


def test_a_machine_too_busy_to_compile_makes_no_dead_letter(
    reader: OfProtobuf, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema_id = reader.put(PROTO.replace("com.example", "org.example"))
    decoder = RecordDecoder(reader.source)
    record = Record("t", 0, 7, T0_MS, b"", framed(schema_id, AD_EVENT + GOOD))
    monkeypatch.setattr(protobuf, "COMPILE_S", 0.001)
    with pytest.raises(SchemaAwaitedError, match="timed out"):
        decoder.message(record)
    monkeypatch.undo()
    assert decoder.message(record, patient=True).schema == "org.example.player.AdEvent"


def test_bad_messages_cost_at_most_five_times_a_good_one(reader: OfProtobuf, schema_id: int) -> None:
    good = framed(schema_id, AD_EVENT + GOOD)
    deep = b""
    for _ in range(3_000):
        inner = b"\x4a" + varint(len(deep)) + deep
        deep = b"\x32" + varint(len(inner)) + inner
    bad = {
        "nested": deep,
        "huge": bytes(4 * MAX_MESSAGE_BYTES),
        "a length beyond its end": b"\x0a\xff\xff\xff\x7f",
        "a number without end": b"\x58" + b"\xff" * 100_000,
        "no UTF-8": b"\x0a\x02\xff\xfe",
        "a group without end": b"\x0b" * 100_000,
    }
    bound = 5 * seconds(lambda: [reader.outcome(good) for _ in range(10)]) / 10
    for name, value in bad.items():
        message = framed(schema_id, AD_EVENT + value)
        assert reader.outcome(message) == "malformed", name
        cost = seconds(lambda message=message: [reader.outcome(message) for _ in range(10)]) / 10  # type: ignore[misc]
        assert cost <= bound, f"{name}: {cost * 1e6:.0f} us, and a good one {bound / 5 * 1e6:.0f} us"


def test_an_unmapped_list_of_a_million_numbers_is_not_read(reader: OfProtobuf, schema_id: int) -> None:
    numbers = b"\x3a" + varint(1_000_000) + bytes(1_000_000)
    message = framed(schema_id, AD_EVENT + GOOD + numbers)
    assert reader.outcome(message)["placement_id"] == "p"
    found = Path("numbers").value_in(reader.message(message))
    assert type(found).__name__ == "Unreadable", "nor where somebody does"


def test_random_bytes_raise_nothing(reader: OfProtobuf, schema_id: int) -> None:
    from random import Random

    random = Random(7)
    for _ in range(3_000):
        damaged = bytearray(AD_EVENT + GOOD)
        for _ in range(random.randint(1, 4)):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        reader.outcome(framed(schema_id, bytes(damaged[: random.randint(0, len(damaged))])))


def varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found += bytes([value & 127 | 128])
        value >>= 7
    return found + bytes([value])
