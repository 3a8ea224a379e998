"""Avro: reads a schema of the registry, and decodes messages by it.

fastavro parses the schema and decodes. Its logical readers are replaced here for the whole process, and
convert values: a timestamp becomes epoch ms, a date and a time of day become ISO text, and a decimal keeps
its digits. A record has a field under its aliases too, so a mapping still works after a rename.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

import numpy as np
from fastavro import _read_py, schemaless_reader
from fastavro.read import LOGICAL_READERS
from fastavro.schema import parse_schema

from flows.collector.body import Number, Unreadable
from flows.sources.schemas import MAX_FIELDS, Text, UnusableError
from flows.sources.shapes import PLAIN, TEXT, AnyOf, ListOf, MapOf, Shape

MAX_DEPTH: Final = 64
"""The greatest depth of types within types, apart from types within themselves."""
MAX_VALUES: Final = 1 << 20
"""The greatest number of values that a message with lists may make. A null takes no byte, so a short message
could otherwise make billions of values.
"""
MAX_RECURSIVE_BYTES: Final = 1 << 15
"""The greatest size of a message whose types contain themselves. fastavro's Python reader, which reads these,
takes a time that grows with the square of an endless number's size: 0.1 s at this one.
"""
MAX_DECIMAL_BYTES: Final = 32
_RECORDS: Final = ("record", "error")
_ALIASES: Final = "audiopixel-aliases"
_DIGITS: Final = "audiopixel-digits"
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


def _decimal(value: bytes, schema: Any, _: Any) -> str:
    scale = schema.get("scale", 0)
    if not value or len(value) > MAX_DECIMAL_BYTES or not 0 <= scale <= 38:
        return Unreadable()
    return Number(f"{Decimal(int.from_bytes(value, 'big', signed=True)).scaleb(-scale):f}")


def _with_aliases(value: dict[str, Any], schema: Any, _: Any) -> dict[str, Any]:
    for alias, name in schema[_ALIASES]:
        value[alias] = value[name]
    return value


# fastavro's own readers would make datetimes, and would take seconds for a decimal of a megabyte.
LOGICAL_READERS.clear()
LOGICAL_READERS.update(
    {
        "long-timestamp-micros": lambda value, *_: value // 1000,
        "long-timestamp-nanos": lambda value, *_: value // 1_000_000,
        "long-local-timestamp-micros": lambda value, *_: value // 1000,
        "long-local-timestamp-nanos": lambda value, *_: value // 1_000_000,
        "int-date": lambda value, *_: iso_date(value),
        "int-time-millis": lambda value, *_: time_text(value),
        "long-time-micros": lambda value, *_: time_text(value // 1000),
        "bytes-decimal": _decimal,
        "fixed-decimal": _decimal,
        f"float-{_DIGITS}": lambda value, *_: float32_digits(value),
        **{f"{kind}-{_ALIASES}": _with_aliases for kind in _RECORDS},
    }
)


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
        by_name: dict[str, Any] = {}
        try:
            for schema_text in (*text.references.values(), text.text):
                top = parse_schema(json.loads(schema_text, object_hook=_own), by_name)
            if not isinstance(top, dict) or top["type"] not in _RECORDS:
                raise UnusableError("it is no schema of records")
            self.name = str(top["name"])
            types = _Types(by_name)
            weight = types.weigh({"type": self.name}, "type")
        except UnusableError:
            raise
        except RecursionError:
            raise UnusableError(f"its types lie over {MAX_DEPTH} deep") from None
        except Exception as error:  # for a wrong schema fastavro raises whatever follows
            raise UnusableError(f"its text is no Avro schema: {type(error).__name__}: {error}") from None
        if weight.depth > MAX_DEPTH:
            raise UnusableError(f"its types lie over {MAX_DEPTH} deep")
        self.shape = weight.shape
        self._schema = {**by_name[self.name], "__fastavro_parsed": True, "__named_schemas": by_name}
        self._most_bytes = MAX_VALUES / (1 + types.density)
        # A message decides how deep the compiled reader recurses: some kilobytes of it would end the process.
        self._read = schemaless_reader
        if types.recursive:
            self._read = _read_py.schemaless_reader
            self._most_bytes = min(self._most_bytes, MAX_RECURSIVE_BYTES)

    def message(self, payload: bytes) -> tuple[AvroSchema, Mapping[str, Any] | None]:
        """The document of a message, and its kind. A schema of Avro has one kind."""
        return self, self.document(payload)

    def document(self, payload: bytes) -> Mapping[str, Any] | None:
        """The record of a message's bytes; None if the bytes do not fit this schema, or could make over
        `MAX_VALUES` values.
        """
        if len(payload) > self._most_bytes:
            return None
        file = io.BytesIO(payload)
        try:
            document: Any = self._read(file, self._schema, None)
        except Exception:  # for a damaged message fastavro raises whatever follows: EOFError, IndexError, ...
            return None
        return document if file.tell() == len(payload) else None


def _own(schema: dict[str, Any]) -> dict[str, Any]:
    """An object of a schema without what is of no use here: a default, which fastavro would check against its
    type, and a mark with which fastavro would not parse the schema.
    """
    return {key: value for key, value in schema.items() if key not in ("default", "__fastavro_parsed")}


class _Weight(NamedTuple):
    """The cost of a value of a type.

    Attributes:
        least: its least size, in bytes.
        free: its greatest number of values without a byte of their own, apart from items of lists.
        density: the greatest number of such values per byte.
        depth: the types within it, one in another.
        shape: its fields.
    """

    least: int
    free: int
    density: float
    depth: int
    shape: Shape


class _Types:
    """The types of a schema. Each named type is weighed once, and marked for the logical readers.

    Attributes:
        density: the greatest number of values without a byte of their own per byte of a list or a recursion.

    Args:
        by_name: the named types, as fastavro parsed them.
    """

    def __init__(self, by_name: Mapping[str, Any]) -> None:
        self.density = 0.0
        self._by_name, self._fields = by_name, 0
        self._weights: dict[str, _Weight] = {}
        self._open: dict[str, Shape] = {}
        self._within: set[str] = set()

    @property
    def recursive(self) -> bool:
        """True if a type contains itself."""
        return bool(self._within)

    def weigh(self, place: Any, key: Any) -> _Weight:
        """The weight of the type at `place[key]`.

        Raises:
            UnusableError: a few bytes could make any number of values, or there are too many fields.
        """
        schema = place[key]
        if isinstance(schema, str):
            schema = self._by_name.get(schema, schema)
        if isinstance(schema, list):
            return self._union([self.weigh(schema, number) for number in range(len(schema))])
        kind = schema if isinstance(schema, str) else schema["type"]
        if kind in _RECORDS:
            return self._record(schema)
        if kind in ("array", "map"):
            return self._list(kind, self.weigh(schema, "items" if kind == "array" else "values"))
        if kind == "float":
            place[key] = {"type": kind, "logicalType": _DIGITS}
        least = int(schema["size"]) if kind == "fixed" else 0 if kind == "null" else 1
        free = 0 if least else 1
        return _Weight(least, free, free, 1, TEXT if kind == "string" else PLAIN)

    def _union(self, members: list[_Weight]) -> _Weight:
        return _Weight(
            1 + min(one.least for one in members),
            max(one.free for one in members),
            max(one.free / (1 + one.least) for one in members),
            1 + max(one.depth for one in members),
            AnyOf(tuple(one.shape for one in members)),
        )

    def _list(self, kind: str, inner: _Weight) -> _Weight:
        if kind == "array" and not inner.least:
            raise UnusableError(
                "it has a list of items without a byte, of which a message may have any number"
            )
        self.density = max(self.density, inner.density)
        shape = ListOf(inner.shape) if kind == "array" else MapOf(inner.shape)
        return _Weight(1, 0, 0, 1 + inner.depth, shape)

    def _record(self, schema: dict[str, Any]) -> _Weight:
        name = schema["name"]
        if name in self._weights:
            return self._weights[name]
        if name in self._open:  # a value of it within itself takes at least the byte of a list or a union
            self._within.add(name)
            return _Weight(1, 1, 1, 1, self._open[name])
        shapes: dict[str, Shape] = {}
        self._open[name] = shapes
        fields, least, free, depth = schema["fields"], 0, 1, 0
        own_names = {one["name"] for one in fields}
        aliases = [
            (alias, one["name"])
            for one in fields
            for alias in one.get("aliases", ())
            if alias not in own_names
        ]
        self._fields += len(fields) + len(aliases)
        if self._fields > MAX_FIELDS:
            raise UnusableError(f"it has over {MAX_FIELDS:,} fields")
        for field in fields:
            weight = self.weigh(field, "type")
            least, free, depth = least + weight.least, free + weight.free, max(depth, weight.depth)
            if free > MAX_FIELDS:
                raise UnusableError(f"a record of it has over {MAX_FIELDS:,} values without a byte")
            shapes[field["name"]] = weight.shape
        shapes |= {alias: shapes[name] for alias, name in aliases}
        free += len(aliases)
        if aliases:
            schema |= {"logicalType": _ALIASES, _ALIASES: aliases}
        weight = _Weight(least, free, free / max(least, 1), 1 + depth, shapes)
        if name in self._within:
            self.density = max(self.density, free)
        self._weights[name] = weight
        return weight
