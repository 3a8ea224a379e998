"""Protobuf: messages by index, evolution, imports, and what is no message."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
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
    made = schema._file.message_types_by_name[kind]
    from google.protobuf.message_factory import GetMessageClass

    message: bytes = ParseDict(record, GetMessageClass(made)()).SerializeToString()
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


@pytest.mark.parametrize(("messages", "fields", "says"), [(24, 2, ""), (300, 2, ""), (101, 100, "fields")])
def test_a_schema_costs_what_its_size_says(messages: int, fields: int, says: str) -> None:
    lines = ['syntax = "proto3";', "message Ok { string id = 1; }", "message M0 { int32 x = 1; }"]
    for n in range(1, messages + 1):
        own = " ".join(f"M{n - 1} f{at} = {at};" for at in range(1, fields + 1))
        lines.append(f"message M{n} {{ {own} }}")
    began_s, wrong = time.process_time(), ""
    try:
        schema = ProtobufSchema(Text("PROTOBUF", "\n".join(lines), {}))
        last = (messages + 1) << 1  # a message names the last type of the file
        found = schema.message(bytes([2, *([last] if last < 128 else [last & 127 | 128, last >> 7])]))
        assert found is not None
    except UnusableError as error:
        wrong = str(error)
    assert time.process_time() - began_s < 1
    assert says in wrong
    assert bool(says) == bool(wrong)


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
