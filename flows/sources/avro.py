"""Avro: reads a schema of the registry, and decodes messages by it.

fastavro parses schemas and decodes. Our readers of logical types convert a value as it is decoded: a
timestamp becomes epoch ms, a date and a time of day become ISO text, and a decimal keeps its digits. A record
has a field under its aliases too, so a mapping still works after a rename.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

import numpy as np
from fastavro import schemaless_reader
from fastavro.read import LOGICAL_READERS
from fastavro.schema import SchemaParseException, UnknownType, parse_schema

from flows.collector.body import Number, Unreadable
from flows.sources.schemas import Text, UnusableError
from flows.sources.shapes import PLAIN, TEXT, ListOf, MapOf, Shape, union_shape

MAX_DEPTH: Final = 64
"""The greatest depth of types within types."""
MAX_FIELDS: Final = 10_000
"""The greatest number of fields of a schema's records."""
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
_EPOCH: Final = date(1970, 1, 1)
_MAX_DAYS: Final = 2_000_000
_OURS: Final = "audiopixel-"
"""The prefix of our logical types, so that fastavro's own readers stay as they are."""
_ALIASES: Final = "audiopixel_aliases"
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


def _decimal(value: bytes, schema: Mapping[str, Any]) -> str:
    scale = int(schema.get("scale", 0))
    if not value or len(value) > MAX_DECIMAL_BYTES or not 0 <= scale <= 38:
        return Unreadable()
    return Number(f"{Decimal(int.from_bytes(value, 'big', signed=True)).scaleb(-scale):f}")


def _with_aliases(record: dict[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    for alias, name in schema[_ALIASES]:
        record[alias] = record[name]
    return record


_LOGICAL: Final[Mapping[tuple[str, str], Converter]] = {
    ("long", "timestamp-micros"): lambda value: value // 1000,
    ("long", "timestamp-nanos"): lambda value: value // 1_000_000,
    ("long", "local-timestamp-micros"): lambda value: value // 1000,
    ("long", "local-timestamp-nanos"): lambda value: value // 1_000_000,
    ("int", "date"): iso_date,
    ("int", "time-millis"): time_text,
    ("long", "time-micros"): lambda value: time_text(value // 1000),
    ("float", "digits"): float32_digits,
}
_LOGICAL_BY_SCHEMA: Final = {
    ("bytes", "decimal"): _decimal,
    ("fixed", "decimal"): _decimal,
    ("record", "aliases"): _with_aliases,
}
LOGICAL_READERS.update(
    {
        f"{kind}-{_OURS}{unit}": lambda value, *_, convert=convert: convert(value)
        for (kind, unit), convert in _LOGICAL.items()
    }
)
LOGICAL_READERS.update(
    {
        f"{kind}-{_OURS}{unit}": lambda value, schema, *_, convert=convert: convert(value, schema)
        for (kind, unit), convert in _LOGICAL_BY_SCHEMA.items()
    }
)


class AvroSchema:
    """A schema by which messages are read.

    Attributes:
        name: the record's full name.
        shape: the fields of its messages.

    Raises:
        UnusableError: the text is no schema of records, is too large, or a few bytes of its messages make
            many values.
    """

    def __init__(self, text: Text) -> None:
        if text.kind != "AVRO":
            raise UnusableError(f"it is of the kind {text.kind}, not AVRO")
        named: dict[str, Any] = {}
        top: Any = None
        try:
            for schema_text in (*text.references.values(), text.text):
                # Defaults fill in for a writer's missing fields; here the writer's schema is the only one.
                top = parse_schema(json.loads(schema_text, object_hook=_without_default), named)
            types = _Types(named)
            if not isinstance(top, Mapping) or top.get("type") not in _RECORDS:
                raise UnusableError("it is no schema of records")
            self.name = str(top["name"])
            types.weigh(self.name)
            self._has_single_bytes = types.has_single_bytes
            self.shape = types.shape(self.name)
            self._schema = parse_schema(types.bounded(self.name, 0, (), set()))
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
            document: Any = self._read(file, self._schema, None)
        except Exception:  # for a damaged message fastavro raises whatever follows: EOFError, IndexError, ...
            return None
        return document if file.tell() == len(payload) else None


def _without_default(schema: dict[str, Any]) -> dict[str, Any]:
    schema.pop("default", None)
    return schema


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


class _Weight(NamedTuple):
    """The weight of a type.

    Attributes:
        least: the least size of a value, in bytes.
        values: the greatest number of values in it, apart from items of lists.
        depth: the number of types within types.
    """

    least: int
    values: int
    depth: int


class _Types:
    """The types of a parsed schema. Each named type is looked at once: types refer to each other as a graph,
    of which a short text may make a tree of any size.

    Attributes:
        has_single_bytes: whether a value of some type has one byte, so that several in a row may look like a
            number.
    """

    def __init__(self, named: Mapping[str, Any]) -> None:
        self.has_single_bytes = False
        self._named = named
        self._weights: dict[str, _Weight] = {}
        self._shapes: dict[str, Shape] = {}
        self._fields = 0

    def _resolved(self, schema: Any) -> Any:
        """A type; a name is replaced by the type that it names."""
        return self._named.get(schema, schema) if isinstance(schema, str) else schema

    def weigh(self, schema: Any) -> _Weight:
        """The weight of a type; a record within itself weighs one value.

        Raises:
            UnusableError: the schema is too large, or a few bytes could make any number of values.
        """
        schema = self._resolved(schema)
        if isinstance(schema, list):
            weights = [self.weigh(one) for one in schema]
            least = 1 + min(one.least for one in weights)
            weight = _Weight(least, 1 + max(one.values for one in weights), _above(weights))
        elif (kind := _kind(schema)) in ("array", "map"):
            inner = self.weigh(schema["items" if kind == "array" else "values"])
            if kind == "array" and not inner.least:
                raise UnusableError(
                    "it has a list of items without a byte, of which a message may have any number"
                )
            weight = _Weight(1, 1 + inner.values, 1 + inner.depth)
        elif kind in _RECORDS:
            weight = self._weigh_record(schema)
        else:
            least = int(schema["size"]) if kind == "fixed" else 0 if kind == "null" else 1
            self.has_single_bytes |= kind == "fixed" and least == 1
            weight = _Weight(least, 1, 1)
        if weight.depth > MAX_DEPTH:
            raise UnusableError(f"its types lie over {MAX_DEPTH} deep")
        return weight

    def _weigh_record(self, schema: Mapping[str, Any]) -> _Weight:
        name = schema["name"]
        if name not in self._weights:
            self._weights[name] = _Weight(1, 1, 1)  # for the record within itself
            self._fields += len(schema["fields"])
            if self._fields > MAX_FIELDS:
                raise UnusableError(f"it has over {MAX_FIELDS:,} fields")
            weights = [self.weigh(field["type"]) for field in schema["fields"]]
            values = 1 + sum(one.values for one in weights)
            if values > MAX_VALUES:
                raise UnusableError(f"a record of it has over {MAX_VALUES:,} values")
            self._weights[name] = _Weight(sum(one.least for one in weights), values, _above(weights))
        return self._weights[name]

    def shape(self, schema: Any) -> Shape:
        """The shape of a value of a type. A type within itself may have any shape."""
        schema = self._resolved(schema)
        if isinstance(schema, list):
            return union_shape(self.shape(one) for one in schema)
        kind = _kind(schema)
        if kind in _RECORDS:
            name = schema["name"]
            if name not in self._shapes:
                self._shapes[name] = TEXT
                shapes: dict[str, Shape] = {}
                for field in schema["fields"]:
                    shape = self.shape(field["type"])
                    shapes |= dict.fromkeys((*field.get("aliases", ()), field["name"]), shape)
                self._shapes[name] = shapes
            return self._shapes[name]
        if kind == "array":
            return ListOf(self.shape(schema["items"]))
        if kind == "map":
            return MapOf(self.shape(schema["values"]))
        return TEXT if kind == "string" else PLAIN

    def bounded(self, schema: Any, level: int, above: tuple[str, ...], defined_names: set[str]) -> Any:
        """A type for fastavro with our logical types, in which a record contains itself at most `MAX_WITHIN`
        times.

        fastavro's reader goes as deep as a message does. A stack overflow would end the process.
        """
        schema = self._resolved(schema)
        if isinstance(schema, list):
            return [self.bounded(one, level, above, defined_names) for one in schema]
        kind = _kind(schema)
        if kind in ("array", "map"):
            inner = "items" if kind == "array" else "values"
            return {"type": kind, inner: self.bounded(schema[inner], level, above, defined_names)}
        if kind not in _NAMED:
            return _logical(kind, schema)
        name = str(schema["name"])
        if name in above:
            level, above = level + 1, ()
        bounded_name = f"{name}__{level}" if level else name
        if level > MAX_WITHIN:  # no message has so many bytes
            bounded_name, kind, schema = _TOO_DEEP, "fixed", {"size": 1 << 30}
        if bounded_name in defined_names:
            return bounded_name
        defined_names.add(bounded_name)
        if kind == "enum":
            return {"type": kind, "name": bounded_name, "symbols": schema["symbols"]}
        if kind == "fixed":
            return {**_logical(kind, schema), "name": bounded_name, "size": schema["size"]}
        fields = [
            {"name": one["name"], "type": self.bounded(one["type"], level, (*above, name), defined_names)}
            for one in schema["fields"]
        ]
        names = {one["name"] for one in schema["fields"]}
        aliases = [
            (alias.rpartition(".")[2], one["name"])
            for one in schema["fields"]
            for alias in one.get("aliases", ())
            if alias not in names
        ]
        unit = {"logicalType": f"{_OURS}aliases", _ALIASES: aliases} if aliases else {}
        return {"type": "record", "name": bounded_name, "fields": fields, **unit}


def _above(weights: list[_Weight]) -> int:
    return 1 + max((one.depth for one in weights), default=0)


def _kind(schema: Any) -> str:
    return str(schema if isinstance(schema, str) else schema["type"])


def _logical(kind: str, schema: Any) -> dict[str, Any]:
    """A type without fields, with its logical type if we convert that one."""
    unit = "digits" if kind == "float" else schema.get("logicalType") if isinstance(schema, Mapping) else None
    if (kind, unit) in _LOGICAL:
        return {"type": kind, "logicalType": f"{_OURS}{unit}"}
    if (kind, unit) in _LOGICAL_BY_SCHEMA:
        return {"type": kind, "logicalType": f"{_OURS}{unit}", "scale": schema.get("scale", 0)}
    return {"type": kind}
