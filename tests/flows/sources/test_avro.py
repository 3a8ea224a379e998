"""Avro: records, evolution, what a message may cost, and what is no message."""

from __future__ import annotations

import copy
import gzip
import json
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from registry_support import AD_EVENT, MAPPING, SmallRegistry, avro, event, framed
from sources_support import T0_MS, Reader, seconds

from connectors.kafka import Record
from connectors.stream import ConnectError
from flows.errors import SettingsError, UsageError
from flows.sources.avro import AvroSchema
from flows.sources.messages import MAX_MESSAGE_BYTES, RecordDecoder
from flows.sources.schemas import Text, UnusableError
from flows.sources.source import Source, parse_source


@pytest.fixture(scope="module")
def registry() -> Iterator[SmallRegistry]:
    with SmallRegistry() as server:
        yield server


class AvroReader(Reader):
    def of(self, schema: Any, record: Any) -> Any:
        return self.outcome(framed(self.registry.put("s", schema), avro(schema, record)))


@pytest.fixture
def reader(registry: SmallRegistry) -> AvroReader:
    return AvroReader(registry, MAPPING)


def changed(change: Callable[[list[Any]], object]) -> Any:
    schema = copy.deepcopy(AD_EVENT)
    change(schema["fields"])
    return schema


def test_a_record_becomes_a_pixel(reader: AvroReader) -> None:
    pixel = reader.of(AD_EVENT, event(1, T0_MS))
    assert (pixel["event"], pixel["event_id"], pixel["placement_id"]) == ("impression", "e-1", "p")
    assert (pixel["play_id"], pixel["ts"], pixel["consent"]) == ("play-1", T0_MS, True)
    assert "listener_id" in pixel


def value_of(kind: Any, value: Any) -> Any:
    schema = {"type": "record", "name": "R", "fields": [{"name": "v", "type": kind}]}
    found = AvroSchema(Text("AVRO", json.dumps(schema), {})).document(avro(schema, {"v": value}))
    return found and found["v"]


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        ({"type": "long", "logicalType": "timestamp-millis"}, T0_MS, T0_MS),
        ({"type": "long", "logicalType": "timestamp-micros"}, T0_MS * 1000 + 7, T0_MS),
        (["null", {"type": "long", "logicalType": "timestamp-micros"}], T0_MS * 1000, T0_MS),
        (["null", {"type": "long", "logicalType": "timestamp-micros"}], None, None),
        ({"type": "int", "logicalType": "date"}, 20_000, "2024-10-04"),
        ({"type": "int", "logicalType": "time-millis"}, 61_001, "00:01:01.001"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, Decimal("19.90"), "19.90"),
        ("float", 19.9, "19.9"),
        ("double", 19.9, 19.9),
        ({"type": "array", "items": {"type": "int", "logicalType": "date"}}, [0], ["1970-01-01"]),
        ({"type": "map", "values": "float"}, {"a": 0.1}, {"a": "0.1"}),
    ],
)
def test_types_with_units_become_values_with_units(kind: Any, value: Any, wanted: Any) -> None:
    assert value_of(kind, value) == wanted


@pytest.mark.parametrize(("payload", "wanted"), [(b"\x02\x00", "1970-01-01"), (b"\x04\xf0\x2e", 3)])
def test_a_union_of_two_units_is_read_by_its_branch(payload: bytes, wanted: Any) -> None:
    kinds = [
        "null",
        {"type": "int", "logicalType": "date"},
        {"type": "long", "logicalType": "timestamp-micros"},
    ]
    schema = {"type": "record", "name": "R", "fields": [{"name": "v", "type": kinds}]}
    assert AvroSchema(Text("AVRO", json.dumps(schema), {})).document(payload) == {"v": wanted}


# 10.4: right, or a dead letter that names the field.


def test_an_added_field_changes_nothing(reader: AvroReader) -> None:
    schema = changed(lambda fields: fields.insert(0, {"name": "new", "type": "long"}))
    assert reader.of(schema, event(2, T0_MS) | {"new": 5})["placement_id"] == "p"


@pytest.mark.parametrize(("name", "at"), [("placement", 2), ("at", 4)])
def test_a_field_renamed_with_an_alias_is_read(reader: AvroReader, name: str, at: int) -> None:
    schema = changed(lambda fields: fields[at].update({"name": "other", "aliases": [name]}))
    record = event(3, T0_MS)
    record["other"] = record.pop(name)
    pixel = reader.of(schema, record)
    assert (pixel["placement_id"], pixel["ts"]) == ("p", T0_MS)


def test_an_alias_within_an_optional_record_is_read(reader: AvroReader) -> None:
    def change(fields: list[Any]) -> None:
        fields[5]["type"]["fields"][1].update({"name": "agreed", "aliases": ["consent"]})
        fields[5]["type"] = ["null", fields[5]["type"]]

    record = event(3, T0_MS) | {"listener": {"device": "d", "agreed": True}}
    assert reader.of(changed(change), record)["consent"] is True
    assert reader.of(changed(change), event(3, T0_MS) | {"listener": None}).get("consent") is not True


def test_a_field_made_optional_is_read_and_its_absence_named(reader: AvroReader) -> None:
    schema = changed(lambda fields: fields[2].update({"type": ["null", "string"]}))
    assert reader.of(schema, event(4, T0_MS))["placement_id"] == "p"
    assert reader.of(schema, event(4, T0_MS) | {"placement": None}) == "invalid placement_id"


def test_a_removed_field_is_named_if_its_absence_means_another_value(reader: AvroReader) -> None:
    for at, field in ((0, "event_id"), (2, "placement_id"), (4, "ts")):
        schema = changed(lambda fields, at=at: fields.pop(at))
        word = "invalid" if field == "placement_id" else "malformed"
        assert reader.of(schema, event(5, T0_MS)) == f"{word} {field}"
    schema = changed(lambda fields: fields[5]["type"]["fields"].pop(1))
    assert reader.of(schema, event(5, T0_MS)) == "malformed consent"
    schema = changed(lambda fields: fields.pop(3))
    assert "play_id" not in reader.of(schema, event(5, T0_MS))


def test_messages_of_old_and_new_schemas_are_read_side_by_side(reader: AvroReader) -> None:
    old = reader.registry.put("s", AD_EVENT)
    schema = changed(lambda fields: fields[2].update({"name": "slot", "aliases": ["placement"]}))
    new = reader.registry.put("any-other-strategy", schema)
    for number in range(10):
        assert reader.outcome(framed(old, avro(AD_EVENT, event(number, T0_MS))))["placement_id"] == "p"
        record = event(number, T0_MS)
        record["slot"] = record.pop("placement")
        assert reader.outcome(framed(new, avro(schema, record)))["placement_id"] == "p"
    assert reader.registry.asked.count(f"/schemas/ids/{old}") == 1, "a schema is asked for once"


def test_types_of_another_schema_are_read_by_reference(reader: AvroReader) -> None:
    listener = copy.deepcopy(AD_EVENT["fields"][5]["type"]) | {"namespace": "com.example.player"}
    reader.registry.put("listener", listener)
    schema = changed(lambda fields: fields[5].update({"type": "com.example.player.Listener"}))
    schema_id = reader.registry.put(
        "event", schema, references=[("com.example.player.Listener", "listener", 1)]
    )
    assert reader.outcome(framed(schema_id, avro(AD_EVENT, event(1, T0_MS))))["consent"] is True


def test_other_records_of_one_topic_are_skipped_by_their_schema(registry: SmallRegistry) -> None:
    mapping = MAPPING.replace("[registry]", 'skip = ["$schema!=com.example.player.AdEvent"]\n[registry]')
    reader = AvroReader(registry, mapping)
    other = {"type": "record", "name": "Order", "fields": [{"name": "id", "type": "string"}]}
    assert reader.of(other, {"id": "o"}) == "not ours"
    assert reader.of(AD_EVENT, event(1, T0_MS))["placement_id"] == "p"


# 10.4: what is no message, or would cost more than one.

GOOD = avro(AD_EVENT, event(1, T0_MS))
NULLS = [f"n{number}" for number in range(9_000)]
NODE = {"type": "record", "name": "N", "fields": [{"name": "n", "type": ["null", "N"]}]}


@pytest.mark.parametrize(
    "value",
    [b"", b"\0", b"\0\0\0\0", b"{}", b"\1\0\0\0\1" + GOOD, gzip.compress(GOOD * 1000), b"\0" * 9],
)
def test_a_value_outside_the_registrys_format_is_a_dead_letter(reader: AvroReader, value: bytes) -> None:
    reader.registry.put("s", AD_EVENT)
    assert reader.outcome(value).startswith("malformed")


def test_a_truncated_or_overlong_message_is_a_dead_letter(reader: AvroReader) -> None:
    schema_id = reader.registry.put("s", AD_EVENT)
    for length in range(len(GOOD)):
        assert reader.outcome(framed(schema_id, GOOD[:length])) == "malformed"
    assert reader.outcome(framed(schema_id, GOOD + b"\0")) == "malformed"


def test_a_missing_schema_is_named_and_requested_once_a_minute(reader: AvroReader) -> None:
    for _ in range(20):
        assert reader.outcome(framed(9_999_999, GOOD)) == "malformed schema"
    assert reader.registry.asked.count("/schemas/ids/9999999") == 1


@pytest.mark.parametrize(
    "schema",
    [
        "no json",
        '"string"',
        '{"type": "record", "name": "R", "fields": [{"name": "v", "type": "Nobody"}]}',
        "[" * 5_000 + "]" * 5_000,
        {
            "type": "record",
            "name": "R",
            "fields": [{"name": "v", "type": {"type": "array", "items": "null"}}],
        },
    ],
)
def test_an_unusable_schema_makes_dead_letters(reader: AvroReader, schema: Any) -> None:
    assert reader.outcome(framed(reader.registry.put("s", schema), GOOD)) == "malformed schema"


def record(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "type": "record",
        "name": name,
        "fields": [{"name": key, "type": kind} for key, kind in fields.items()],
    }


def chain(count: int, kind: Callable[[str], Any]) -> dict[str, Any]:
    """A record of `count` records, each with a type made of the one before."""
    records = {"f0": record("R0", v="int")}
    records |= {f"f{number}": record(f"R{number}", v=kind(f"R{number - 1}")) for number in range(1, count)}
    return record("Top", **records)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (record("R", **{f"f{number}": "int" for number in range(10_001)}), "over 10,000 fields"),
        (record("R", **{f"f{number}": "null" for number in range(10_000)}), "over 10,000 values without"),
        (chain(70, lambda name: ["null", name]), "its types lie over 64 deep"),
        (chain(2_000, lambda name: ["null", name]), "over 10,000 values without"),
        (record("R", v={"type": "array", "items": record("E")}), "a list of items without a byte"),
        (
            {**record("R", v="Nobody"), "__fastavro_parsed": True, "__named_schemas": {}},
            "UnknownType: Nobody",
        ),
    ],
)
def test_a_schema_whose_messages_cost_too_much_is_refused_with_its_reason(schema: Any, reason: str) -> None:
    with pytest.raises(UnusableError, match=reason):
        AvroSchema(Text("AVRO", json.dumps(schema), {}))


def test_a_default_of_another_type_refuses_no_schema() -> None:
    fields = [{"name": "v", "type": {"type": "float"}, "default": None}]
    text = json.dumps({"type": "record", "name": "R", "fields": fields})
    assert AvroSchema(Text("AVRO", text, {})).document(bytes(4)) == {"v": "0.0"}


def test_a_type_used_by_many_types_is_weighed_once() -> None:
    text = json.dumps(
        chain(20, lambda name: [{"type": "array", "items": name}, {"type": "map", "values": name}])
    )
    assert seconds(lambda: AvroSchema(Text("AVRO", text, {})), 3) < 1


@pytest.mark.parametrize(
    ("schema", "payload"),
    [
        # 512 KiB of items of one byte, and 60,000 items of 9,000 nulls
        (record("R", v={"type": "array", "items": record("X", v="int")}), b"\xfe\xff\x7f" + bytes(1 << 20)),
        (
            record("R", v={"type": "array", "items": ["int", record("X", **dict.fromkeys(NULLS, "null"))]}),
            b"\xc0\xa9\x07" + b"\x02" * 60_000 + b"\0",
        ),
        (record("N", v="N"), b""),
        (NODE, b"\x02" * 20_000 + b"\0"),
        (NODE, b"\xff" * 1_000_000),
        (record("R", v={"type": "array", "items": "int"}), b"\xff" * 9 + b"\1"),
    ],
)
def test_a_message_of_too_many_values_is_refused_at_once(schema: Any, payload: bytes) -> None:
    made = AvroSchema(Text("AVRO", json.dumps(schema), {}))
    assert made.document(payload) is None
    assert seconds(lambda: made.document(payload), 3) < 0.1


def test_bad_messages_cost_at_most_five_times_a_good_one(reader: AvroReader) -> None:
    good_id, node_id = reader.registry.put("s", AD_EVENT), reader.registry.put("s", NODE)
    numbers = {"type": "array", "items": "int"}
    big = changed(lambda fields: fields.append({"name": "numbers", "type": numbers}))
    big_id = reader.registry.put("s", big)
    good = framed(good_id, GOOD)
    bad = {
        "nested": framed(node_id, b"\x02" * 500_000 + b"\0"),
        "huge": framed(good_id, GOOD + bytes(4 * MAX_MESSAGE_BYTES)),
        "a length beyond its end": framed(good_id, b"\xfe\xff\xff\xff\x0f" + GOOD),
        "a number without end": framed(good_id, b"\xff" * 1_000),
        "compressed": gzip.compress(GOOD * 10_000),
        "a list beyond its end": framed(big_id, GOOD + b"\xfe\xff\xff\xff\x0f"),
    }
    for value in (good, *bad.values()):
        reader.outcome(value)  # the schemas are there now
    bound = 5 * seconds(lambda: [reader.outcome(good) for _ in range(10)]) / 10
    for name, value in bad.items():
        assert reader.outcome(value) == "malformed", name
        cost = seconds(lambda value=value: [reader.outcome(value) for _ in range(10)]) / 10  # type: ignore[misc]
        assert cost <= bound, f"{name}: {cost * 1e6:.0f} us, and a good one {bound / 5 * 1e6:.0f} us"


def test_a_broken_megabyte_costs_less_per_byte_than_a_valid_one(reader: AvroReader) -> None:
    good = framed(reader.registry.put("s", AD_EVENT), GOOD)
    broken = good[:5] + b"\xff" * (MAX_MESSAGE_BYTES - 5)
    assert reader.outcome(broken) == "malformed"
    bound = seconds(lambda: [reader.outcome(good) for _ in range(10)]) / 10 / len(good)
    assert seconds(lambda: reader.outcome(broken), 3) / len(broken) < bound


def test_non_ascii_text_is_not_an_endless_number() -> None:
    fixed = {"type": "array", "items": {"type": "fixed", "name": "F", "size": 1}}
    kinds: dict[str, Any] = {"text": "string", "raw": "bytes", "list": {"type": "array", "items": "bytes"}}
    every: dict[str, Any] = {**kinds, "fixed": fixed}
    for names in (kinds, every):
        fields = [{"name": name, "type": every[name]} for name in names]
        schema = {"type": "record", "name": "R", "fields": fields}
        record = {"text": "朝食" * 50, "raw": b"\xff" * 50, "list": [b"\xff"] * 50, "fixed": [b"\xff"] * 50}
        made = AvroSchema(Text("AVRO", json.dumps(schema), {}))
        wanted = {name: record[name] for name in names}
        assert made.document(avro(schema, wanted)) == wanted


def test_a_record_within_itself_is_read_a_hundred_deep(reader: AvroReader) -> None:
    made = AvroSchema(Text("AVRO", json.dumps(NODE), {}))
    found: Any = made.document(b"\x02" * 100 + b"\0")
    for _ in range(100):
        found = found["n"]
    assert found == {"n": None}
    assert made.document(b"\x02" * 20_000 + b"\0") is None


def test_a_decimal_of_a_megabyte_is_not_converted() -> None:
    kind = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
    schema = {"type": "record", "name": "R", "fields": [{"name": "v", "type": kind}]}
    plain = {"type": "record", "name": "R", "fields": [{"name": "v", "type": "bytes"}]}
    payload = avro(plain, {"v": b"\x7f" * 1_000_000})
    made = AvroSchema(Text("AVRO", json.dumps(schema), {}))
    assert seconds(lambda: made.document(payload), 3) < 0.1


def test_random_bytes_raise_nothing(reader: AvroReader) -> None:
    from random import Random

    random, schema_id = Random(7), reader.registry.put("s", AD_EVENT)
    for _ in range(3_000):
        damaged = bytearray(GOOD)
        for _ in range(random.randint(1, 4)):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        reader.outcome(framed(schema_id, bytes(damaged[: random.randint(0, len(damaged))])))


def test_secrets_of_a_registry_are_in_no_text(
    registry: SmallRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SR_AUTH", "user:correct-horse")
    text = MAPPING.format(topic="t", url=registry.url).replace(
        "[names]", '"basic.auth.user.info" = "env:SR_AUTH"\n[names]'
    )
    source = parse_source(text, "x.toml", "x")
    assert "correct-horse" not in repr(source)
    assert source.registry_options()["basic.auth.user.info"] == "user:correct-horse"
    registry.credentials = "user:correct-horse"
    try:
        schema_id = registry.put("s", AD_EVENT)
        record = Record("t", 0, 7, T0_MS, b"", framed(schema_id, GOOD))
        assert RecordDecoder(source).message(record).document
        monkeypatch.setenv("SR_AUTH", "user:battery-staple")
        with pytest.raises(ConnectError, match="has not answered: Unauthorized") as refused:
            RecordDecoder(source).message(record)
        assert "battery-staple" not in str(refused.value)
    finally:
        registry.credentials = ""
    monkeypatch.setenv("SR_AUTH", "no-colon-but-secret")
    with pytest.raises(SettingsError, match=r"x\.toml: registry: ") as raised:
        RecordDecoder(source)
    assert "no-colon-but-secret" not in str(raised.value)


def test_an_unknown_option_of_the_registrys_client_is_refused(registry: SmallRegistry) -> None:
    text = MAPPING.format(topic="t", url=registry.url).replace("[names]", '"ssl.ca" = "x"\n[names]')
    with pytest.raises(SettingsError, match=r"Unrecognized properties: ssl\.ca"):
        RecordDecoder(parse_source(text, "x.toml", "x"))
    with pytest.raises(SettingsError, match="registry: avro needs the address of a schema registry"):
        parse_source(MAPPING.format(topic="t", url=""), "x.toml", "x")
    assert Source(format="avro").registry == {}


def test_a_registry_behind_tls_is_read_by_its_own_authority(tmp_path: Path) -> None:
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=registry",
    ]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "ca.pem"]
    subprocess.run([*command, *names], cwd=tmp_path, check=True, capture_output=True)
    with SmallRegistry() as registry:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "ca.pem", tmp_path / "key.pem")
        assert registry.server is not None
        registry.server.socket = context.wrap_socket(registry.server.socket, server_side=True)
        schema_id = registry.put("s", AD_EVENT)
        plain = MAPPING.format(topic="t", url=registry.url.replace("http:", "https:"))
        known = plain.replace("[names]", f'"ssl.ca.location" = "{tmp_path / "ca.pem"}"\n[names]')
        record = Record("t", 0, 7, T0_MS, b"", framed(schema_id, GOOD))
        assert RecordDecoder(parse_source(known, "x.toml", "x")).message(record).document
        with pytest.raises(ConnectError, match=r"certificate verify failed|CERTIFICATE_VERIFY_FAILED"):
            RecordDecoder(parse_source(plain, "x.toml", "x")).message(record)
    missing = plain.replace("[names]", '"ssl.ca.location" = "/nowhere/ca.pem"\n[names]')
    with pytest.raises(SettingsError, match=r"x\.toml: registry: "):
        RecordDecoder(parse_source(missing, "x.toml", "x"))


@pytest.mark.parametrize(
    ("format_", "library"),
    [("avro", "fastavro"), ("protobuf", "google.protobuf"), ("protobuf", "grpc_tools")],
)
def test_a_format_without_its_library_names_the_package(
    registry: SmallRegistry, monkeypatch: pytest.MonkeyPatch, format_: str, library: str
) -> None:
    for name in (library, f"flows.sources.{format_}"):
        monkeypatch.setitem(sys.modules, name, None)
    text = MAPPING.format(topic="t", url=registry.url).replace('"avro"', f'"{format_}"')
    with pytest.raises(UsageError, match=r"pip install 'audiopixel\[sources\]'"):
        RecordDecoder(parse_source(text, "x.toml", "x"))
