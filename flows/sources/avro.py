"""Avro: reads a schema of the registry, and decodes messages by it.

fastavro decodes. A value is converted by its logical type: a timestamp becomes epoch ms, a date and a time of
day become ISO text, and a decimal keeps its digits. A record has a field under its aliases too, so a mapping
still works after a rename.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final

import numpy as np
from fastavro import schemaless_reader
from fastavro.schema import SchemaParseException, UnknownType, parse_schema

from flows.collector.body import Number, Unreadable
from flows.sources.schemas import Text, UnusableError
from flows.sources.shapes import PLAIN, TEXT, ListOf, MapOf, Shape, union_shape

MAX_DEPTH: Final = 32
"""The greatest depth of types within types."""
MAX_VALUES: Final = 10_000
"""The greatest number of values of a record, apart from items of lists. A null takes no byte, so a short
message could otherwise make billions of values.
"""
MAX_WITHIN: Final = 8
"""The number of times that a record may contain itself. A message with more levels cannot be read."""
MAX_DECIMAL_BYTES: Final = 32
MAX_NUMBER_BYTES: Final = 10
"""The greatest size of a number in Avro, in bytes. fastavro has no limit: it would read a number of a
megabyte, byte by byte.
"""
_SHORT: Final = 8_192
"""The greatest size, in bytes, of a message that is searched for endless numbers. Above it the search costs
more than `_LimitedNumbers`.
"""
_CONTINUATIONS: Final = bytes(byte & 0x80 for byte in range(256))
"""For each byte, its continuation bit: set if the number's next byte follows."""
_ENDLESS: Final = bytes((0x80,)) * MAX_NUMBER_BYTES
_TOO_DEEP: Final = "too_deep"
_RECORDS: Final = ("record", "error")
_NAMED: Final = (*_RECORDS, "enum", "fixed")
_KINDS: Final[Mapping[str, type]] = {
    **dict.fromkeys(("int", "long"), int),
    **dict.fromkeys(("float", "double"), float),
    **dict.fromkeys(("string", "enum"), str),
    **dict.fromkeys(("bytes", "fixed"), bytes),
    **dict.fromkeys(("map", *_RECORDS), dict),
    "array": list,
    "boolean": bool,
    "null": type(None),
}
"""The Python type of each type of Avro."""
_EPOCH: Final = date(1970, 1, 1)
_MAX_DAYS: Final = 2_000_000
Converter = Callable[[Any], Any]


def iso_date(value: int) -> str:
    """The ISO date of a number of days since 1970."""
    if not 0 <= value < _MAX_DAYS:
        return Unreadable()
    return (_EPOCH + timedelta(days=value)).isoformat()


def time_text(milliseconds: int) -> str:
    """A time of day, or a duration, as `HH:MM:SS.mmm`."""
    seconds, millisecond = divmod(milliseconds, 1000)
    minutes, second = divmod(seconds, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}.{millisecond:03d}"


def float32_digits(value: float) -> str:
    """The shortest digits of a float of 32 bits. As a double, 19.9 would be 19.899999618530273."""
    return Number(np.float32(value))


_LOGICAL: Final[Mapping[tuple[str, str], Converter]] = {
    ("long", "timestamp-micros"): lambda value: value // 1000,
    ("long", "timestamp-nanos"): lambda value: value // 1_000_000,
    ("long", "local-timestamp-micros"): lambda value: value // 1000,
    ("long", "local-timestamp-nanos"): lambda value: value // 1_000_000,
    ("int", "date"): iso_date,
    ("int", "time-millis"): time_text,
    ("long", "time-micros"): lambda value: time_text(value // 1000),
}


class AvroSchema:
    """A schema by which messages are read.

    Attributes:
        name: the record's full name.
        shape: the fields of its messages.

    Raises:
        UnusableError: the text is no schema of records, or a few bytes of its messages make many values.
    """

    def __init__(self, text: Text) -> None:
        if text.kind != "AVRO":
            raise UnusableError(f"it is of the kind {text.kind}, not AVRO")
        types, top = _Types(), None
        try:
            for schema_text in (*text.references.values(), text.text):
                top = types.take(json.loads(schema_text), "")
            top = types.resolved(top)
            if not isinstance(top, Mapping) or top.get("type") not in _RECORDS:
                raise UnusableError("it is no schema of records")
            self.name = str(top["name"])
            types.weigh(top, ())
            self._has_single_bytes = types.has_single_bytes
            self.shape, self._converter = types.shape(top, ()), types.converter(top) or unchanged
            self._schema = parse_schema(types.bounded(top, 0, (), set()))
        except (
            *(ValueError, KeyError, TypeError, AttributeError, RecursionError),
            *(SchemaParseException, UnknownType),
        ) as error:
            raise UnusableError(f"its text is no Avro schema: {error}") from None
        self._read = schemaless_reader

    def message(self, payload: bytes) -> tuple[AvroSchema, Mapping[str, Any] | None]:
        """The document of a message, and its kind. A schema of Avro has one kind."""
        return self, self.document(payload)

    def document(self, payload: bytes) -> Mapping[str, Any] | None:
        """The record of a message's bytes; None if the bytes do not fit this schema."""
        may_be_endless = len(payload) > _SHORT or _ENDLESS in payload.translate(_CONTINUATIONS)
        limited = may_be_endless and not self._has_single_bytes
        file = _LimitedNumbers(payload) if limited else io.BytesIO(payload)
        try:
            record: Any = self._read(file, self._schema, None)
            document: Mapping[str, Any] = self._converter(record)
        except Exception:  # for a damaged message fastavro raises whatever follows: EOFError, IndexError, ...
            return None
        return document if file.tell() == len(payload) else None


class _LimitedNumbers(io.BytesIO):
    """A message's bytes as a file that refuses a number of more than `MAX_NUMBER_BYTES` bytes.

    fastavro reads a number byte by byte, and reads no other value of several bytes in this way.
    """

    _continued = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read the next bytes.

        Raises:
            ValueError: a number is too long.
        """
        data = super().read(size)
        if size == 1 and data >= b"\x80":
            self._continued += 1
            if self._continued == MAX_NUMBER_BYTES:
                raise ValueError("a number without end")
        else:
            self._continued = 0
        return data


class _Types:
    """The types of a schema, with full names and without logical types. `converter` converts values, in
    bounded time.

    Attributes:
        has_single_bytes: whether a value of some type has one byte, so that several in a row may look like a
            number.
    """

    def __init__(self) -> None:
        self.has_single_bytes = False
        self._by_name: dict[str, dict[str, Any]] = {}
        self._converters: dict[str, Converter | None] = {}

    def take(self, schema: Any, space: str, depth: int = 0) -> Any:
        """A type with full names, and its logical type as `unit`."""
        if depth > MAX_DEPTH:
            raise UnusableError(f"its types lie over {MAX_DEPTH} deep")
        if isinstance(schema, list):
            return [self.take(one, space, depth + 1) for one in schema]
        if isinstance(schema, str):
            return schema if schema in _KINDS or "." in schema or not space else self._in(schema, space)
        full_type = {name: value for name, value in schema.items() if name != "logicalType"}
        if "logicalType" in schema:
            full_type["unit"] = schema["logicalType"]
        kind = schema["type"]
        if not isinstance(kind, str) or (kind not in _KINDS):
            return self.take(kind, space, depth + 1)  # the schema is {"type": {"type": ...}}, or a name
        if kind in _NAMED:
            name = str(schema["name"])
            if "." not in name and (namespace := schema.get("namespace", space)):
                name = f"{namespace}.{name}"
            full_type.pop("namespace", None)
            full_type["name"], space = name, name.rpartition(".")[0]
            self._by_name[name] = full_type
        if kind in _RECORDS:
            full_type["fields"] = [
                {**one, "type": self.take(one["type"], space, depth + 1)} for one in schema["fields"]
            ]
        for inner in ("items", "values"):
            if inner in schema:
                full_type[inner] = self.take(schema[inner], space, depth + 1)
        return full_type

    def _in(self, name: str, space: str) -> str:
        return full if (full := f"{space}.{name}") in self._by_name else name

    def resolved(self, schema: Any) -> Any:
        """A type; a name is replaced by the type that it names."""
        return self._by_name.get(schema, schema) if isinstance(schema, str) else schema

    def weigh(self, schema: Any, above: tuple[str, ...]) -> tuple[int, int]:
        """The least size of a value of a type, in bytes, and its number of values apart from items of lists.

        Raises:
            UnusableError: a few bytes could make any number of values.
        """
        schema = self.resolved(schema)
        if isinstance(schema, list):
            weights = [self.weigh(one, above) for one in schema]
            return 1 + min(least for least, _ in weights), 1 + max(values for _, values in weights)
        kind = _kind(schema)
        if kind in ("array", "map"):
            inner = schema["items" if kind == "array" else "values"]
            least, values = self.weigh(inner, above)
            if kind == "array" and not least:
                raise UnusableError(
                    "it has a list of items without a byte, of which a message may have any number"
                )
            return 1, 1 + values
        if kind not in _RECORDS:
            least = int(schema["size"]) if kind == "fixed" else 0 if kind == "null" else 1
            self.has_single_bytes |= kind == "fixed" and least == 1
            return least, 1
        name = str(schema["name"])
        if name in above:
            return 1, 1
        least, values = 0, 1
        for field in schema["fields"]:
            own_least, own_values = self.weigh(field["type"], (*above, name))
            least, values = least + own_least, values + own_values
            if values > MAX_VALUES:
                raise UnusableError(f"a record of it has over {MAX_VALUES:,} values")
        return least, values

    def bounded(self, schema: Any, level: int, above: tuple[str, ...], defined_names: set[str]) -> Any:
        """A type for fastavro, in which a record contains itself at most `MAX_WITHIN` times.

        fastavro's reader goes as deep as a message does. A stack overflow would end the process.
        """
        schema = self.resolved(schema)
        if isinstance(schema, list):
            return [self.bounded(one, level, above, defined_names) for one in schema]
        kind, name = _kind(schema), ""
        if kind in ("array", "map"):
            inner = "items" if kind == "array" else "values"
            return {"type": kind, inner: self.bounded(schema[inner], level, above, defined_names)}
        if kind in _NAMED:
            name = str(schema["name"])
            if name in above:
                level, above = level + 1, ()
            bounded_name = f"{name}__{level}" if level else name
            if level > MAX_WITHIN:
                bounded_name, kind, schema = (
                    _TOO_DEEP,
                    "fixed",
                    {"size": 1 << 30},
                )  # no message has so many bytes
            if bounded_name in defined_names:
                return bounded_name
            defined_names.add(bounded_name)
            if kind == "enum":
                return {"type": kind, "name": bounded_name, "symbols": schema["symbols"]}
            if kind == "fixed":
                return {"type": kind, "name": bounded_name, "size": schema["size"]}
            fields = [
                {"name": one["name"], "type": self.bounded(one["type"], level, (*above, name), defined_names)}
                for one in schema["fields"]
            ]
            return {"type": "record", "name": bounded_name, "fields": fields}
        return kind

    def shape(self, schema: Any, above: tuple[str, ...]) -> Shape:
        """The shape of a value of a type. A type within itself may have any shape."""
        schema = self.resolved(schema)
        if isinstance(schema, list):
            return union_shape(self.shape(one, above) for one in schema)
        kind = _kind(schema)
        if kind in _RECORDS:
            name = str(schema["name"])
            if name in above:
                return TEXT
            shapes: dict[str, Shape] = {}
            for field in schema["fields"]:
                shape = self.shape(field["type"], (*above, name))
                shapes |= dict.fromkeys((*field.get("aliases", ()), field["name"]), shape)
            return shapes
        if kind == "array":
            return ListOf(self.shape(schema["items"], above))
        if kind == "map":
            return MapOf(self.shape(schema["values"], above))
        return TEXT if kind == "string" else PLAIN

    def converter(self, schema: Any) -> Converter | None:
        """The function that converts a decoded value; None if the value stays as decoded."""
        schema = self.resolved(schema)
        if isinstance(schema, list):
            return self._union_converter(schema)
        kind = _kind(schema)
        if kind == "array":
            return _each_item(self.converter(schema["items"]))
        if kind == "map":
            return _each_value(self.converter(schema["values"]))
        if kind in _RECORDS:
            return self._record_converter(schema)
        unit = schema.get("unit") if isinstance(schema, Mapping) else None
        if unit == "decimal" and kind in ("bytes", "fixed"):
            return _decimal(int(schema.get("scale", 0)))
        return float32_digits if kind == "float" else _LOGICAL.get((kind, str(unit)))

    def _record_converter(self, schema: Mapping[str, Any]) -> Converter | None:
        name = str(schema["name"])
        if name in self._converters:
            return self._converters[name]
        # A record within itself: the function is looked up later.
        self._converters[name] = lambda value: (
            later_converter(value) if (later_converter := record_converter[0]) is not None else value
        )
        fields = [
            (one["name"], converter)
            for one in schema["fields"]
            if (converter := self.converter(one["type"])) is not None
        ]
        names = {one["name"] for one in schema["fields"]}
        aliases = [
            (alias.rpartition(".")[2], one["name"])
            for one in schema["fields"]
            for alias in one.get("aliases", ())
            if alias not in names
        ]
        record_converter: list[Converter | None] = [
            _of_fields(fields, aliases) if fields or aliases else None
        ]
        self._converters[name] = record_converter[0]
        return record_converter[0]

    def _union_converter(self, types: Sequence[Any]) -> Converter | None:
        """The converter of a union, by the value's Python type. If two members of one Python type need
        converters, the value cannot be read.
        """
        by_kind: dict[type, list[Any]] = {}
        for member in map(self.resolved, types):
            by_kind.setdefault(_KINDS[_kind(member)], []).append(member)
        converters_by_kind: dict[type, Converter] = {}
        for kind, members in by_kind.items():
            if kind is dict and len(members) > 1:
                converters_by_kind[kind] = self._records_converter(members)
                continue
            converters = [self.converter(one) for one in members]
            if converters == [None] * len(converters):
                continue
            converters_by_kind[kind] = (
                converters[0] if len(converters) == 1 and converters[0] is not None else _unreadable
            )
        if not converters_by_kind:
            return None

        def converter(value: Any) -> Any:
            member_converter = converters_by_kind.get(value.__class__)
            return value if member_converter is None else member_converter(value)

        return converter

    def _records_converter(self, members: Sequence[Any]) -> Converter:
        """The converter of a union of records, by the names of the value's fields."""
        converters = {
            frozenset(field["name"] for field in one["fields"]): self.converter(one)
            for one in members
            if _kind(one) in _RECORDS
        }

        def converter(value: Any) -> Any:
            member_converter = converters.get(frozenset(value))
            return value if member_converter is None else member_converter(value)

        return converter


def _kind(schema: Any) -> str:
    kind = schema if isinstance(schema, str) else schema["type"]
    if kind not in _KINDS:
        raise UnusableError(f"it has an unknown type: {str(kind)[:64]}")
    return str(kind)


def _of_fields(fields: Sequence[tuple[str, Converter]], aliases: Sequence[tuple[str, str]]) -> Converter:
    def converter(value: dict[str, Any]) -> dict[str, Any]:
        for name, field_converter in fields:
            value[name] = field_converter(value[name])
        for alias, name in aliases:
            value[alias] = value[name]
        return value

    return converter


def _each_item(converter: Converter | None) -> Converter | None:
    return None if converter is None else lambda value: [converter(one) for one in value]


def _each_value(converter: Converter | None) -> Converter | None:
    return None if converter is None else lambda value: {name: converter(one) for name, one in value.items()}


def _decimal(scale: int) -> Converter:
    def converter(value: bytes) -> str:
        if not value or len(value) > MAX_DECIMAL_BYTES or not 0 <= scale <= 38:
            return Unreadable()
        return Number(f"{Decimal(int.from_bytes(value, 'big', signed=True)).scaleb(-scale):f}")

    return converter


def unchanged(value: Any) -> Any:
    """The value itself: the converter of a type that needs none."""
    return value


def _unreadable(value: Any) -> str:
    return Unreadable()
