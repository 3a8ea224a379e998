"""Avro: a schema of the registry, and the records that messages of it have.

fastavro decodes. A type that carries a unit becomes a value that has one: a timestamp is epoch ms, a date and
a time are text, a decimal has its digits. A field answers by its aliases as well, so that a mapping goes on
after a rename.
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
"""The greatest number of values of a record, apart from items of lists: a message of few bytes could hold as
many.
"""
MAX_WITHIN: Final = 8
"""The number of times that a record may contain itself; a message of more cannot be read."""
MAX_DECIMAL_BYTES: Final = 32
MAX_NUMBER_BYTES: Final = 10
"""The greatest number of bytes of a number in Avro: fastavro would read a number of a megabyte, byte
by byte.
"""
_SHORT: Final = 8_192
"""Up to so many bytes of a message, a search for endless numbers costs less than reading with care."""
_GOES_ON: Final = bytes(one & 0x80 for one in range(256))
"""For each byte, the bit that makes a number go on."""
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
_LONGEST_DAY: Final = 2_000_000
Touch = Callable[[Any], Any]


def days(value: int) -> str:
    """The date of a number of days since 1970."""
    if not 0 <= value < _LONGEST_DAY:
        return Unreadable()
    return (_EPOCH + timedelta(days=value)).isoformat()


def clock(milliseconds: int) -> str:
    """A time of day, or a length, as `HH:MM:SS.mmm`."""
    seconds, rest = divmod(milliseconds, 1000)
    minutes, second = divmod(seconds, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}.{rest:03d}"


def single(value: float) -> str:
    """The shortest digits of a float of 32 bits: as a double 19.9 would be 19.899999618530273."""
    return Number(np.float32(value))


_LOGICAL: Final[Mapping[tuple[str, str], Touch]] = {
    ("long", "timestamp-micros"): lambda value: value // 1000,
    ("long", "timestamp-nanos"): lambda value: value // 1_000_000,
    ("long", "local-timestamp-micros"): lambda value: value // 1000,
    ("long", "local-timestamp-nanos"): lambda value: value // 1_000_000,
    ("int", "date"): days,
    ("int", "time-millis"): clock,
    ("long", "time-micros"): lambda value: clock(value // 1000),
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
            self.shape, self._touch = types.shape(top, ()), types.touch(top) or _as_it_is
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
        careful = len(payload) > _SHORT or _ENDLESS in payload.translate(_GOES_ON)
        file = _Careful(payload) if careful and not self._has_single_bytes else io.BytesIO(payload)
        try:
            record: Any = self._read(file, self._schema, None)
            document: Mapping[str, Any] = self._touch(record)
        except Exception:  # for a damaged message fastavro raises whatever follows: EOFError, IndexError, ...
            return None
        return document if file.tell() == len(payload) else None


class _Careful(io.BytesIO):
    """The bytes of a message without any number of more than `MAX_NUMBER_BYTES` bytes. fastavro reads numbers
    byte by byte, and nothing else of several bytes in this way.
    """

    _going_on = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read the next bytes.

        Raises:
            ValueError: a number is too long.
        """
        data = super().read(size)
        if size == 1 and data >= b"\x80":
            self._going_on += 1
            if self._going_on == MAX_NUMBER_BYTES:
                raise ValueError("a number without end")
        else:
            self._going_on = 0
        return data


class _Types:
    """The types of a schema with full names and without units: values are converted here, in bounded time.

    Attributes:
        has_single_bytes: whether a value of some type has one byte, so that several in a row may look like a
            number.
    """

    def __init__(self) -> None:
        self.has_single_bytes = False
        self._by_name: dict[str, dict[str, Any]] = {}
        self._touches: dict[str, Touch | None] = {}

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
            if "." not in name and (own := schema.get("namespace", space)):
                name = f"{own}.{name}"
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
        """The least number of bytes that a value of a type takes, and its number of values apart from items
        of lists.

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
        """A type as fastavro reads it: a record within itself ends at `MAX_WITHIN`.

        fastavro's reader goes as deep as a message does, until the stack overflows, which ends the process.
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
            own = f"{name}__{level}" if level else name
            if level > MAX_WITHIN:
                own, kind, schema = _TOO_DEEP, "fixed", {"size": 1 << 30}  # no message has so many bytes
            if own in defined_names:
                return own
            defined_names.add(own)
            if kind == "enum":
                return {"type": kind, "name": own, "symbols": schema["symbols"]}
            if kind == "fixed":
                return {"type": kind, "name": own, "size": schema["size"]}
            fields = [
                {"name": one["name"], "type": self.bounded(one["type"], level, (*above, name), defined_names)}
                for one in schema["fields"]
            ]
            return {"type": "record", "name": own, "fields": fields}
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

    def touch(self, schema: Any) -> Touch | None:
        """The function that converts a decoded value; None if the value stays as decoded."""
        schema = self.resolved(schema)
        if isinstance(schema, list):
            return self._touch_of_one(schema)
        kind = _kind(schema)
        if kind == "array":
            return _each_item(self.touch(schema["items"]))
        if kind == "map":
            return _each_value(self.touch(schema["values"]))
        if kind in _RECORDS:
            return self._touch_of_record(schema)
        unit = schema.get("unit") if isinstance(schema, Mapping) else None
        if unit == "decimal" and kind in ("bytes", "fixed"):
            return _decimal(int(schema.get("scale", 0)))
        return single if kind == "float" else _LOGICAL.get((kind, str(unit)))

    def _touch_of_record(self, schema: Mapping[str, Any]) -> Touch | None:
        name = str(schema["name"])
        if name in self._touches:
            return self._touches[name]
        # A record within itself: the function is looked up later.
        self._touches[name] = lambda value: (
            later_touch(value) if (later_touch := touch_of_record[0]) is not None else value
        )
        fields = [
            (one["name"], touch) for one in schema["fields"] if (touch := self.touch(one["type"])) is not None
        ]
        names = {one["name"] for one in schema["fields"]}
        aliases = [
            (alias.rpartition(".")[2], one["name"])
            for one in schema["fields"]
            for alias in one.get("aliases", ())
            if alias not in names
        ]
        touch_of_record: list[Touch | None] = [_of_fields(fields, aliases) if fields or aliases else None]
        self._touches[name] = touch_of_record[0]
        return touch_of_record[0]

    def _touch_of_one(self, types: Sequence[Any]) -> Touch | None:
        """The conversion of a union, by the value's kind. If two types of one kind differ, the value cannot
        be read.
        """
        by_kind: dict[type, list[Any]] = {}
        for member in map(self.resolved, types):
            by_kind.setdefault(_KINDS[_kind(member)], []).append(member)
        touches_by_kind: dict[type, Touch] = {}
        for kind, members in by_kind.items():
            if kind is dict and len(members) > 1:
                touches_by_kind[kind] = self._touch_of_records(members)
                continue
            touches = [self.touch(one) for one in members]
            if touches == [None] * len(touches):
                continue
            touches_by_kind[kind] = (
                touches[0] if len(touches) == 1 and touches[0] is not None else _unreadable
            )
        if not touches_by_kind:
            return None

        def touch(value: Any) -> Any:
            own = touches_by_kind.get(value.__class__)
            return value if own is None else own(value)

        return touch

    def _touch_of_records(self, members: Sequence[Any]) -> Touch:
        """The conversion of a union of records, by the fields that the value has."""
        touches = {
            frozenset(field["name"] for field in one["fields"]): self.touch(one)
            for one in members
            if _kind(one) in _RECORDS
        }

        def touch(value: Any) -> Any:
            own = touches.get(frozenset(value))
            return value if own is None else own(value)

        return touch


def _kind(schema: Any) -> str:
    kind = schema if isinstance(schema, str) else schema["type"]
    if kind not in _KINDS:
        raise UnusableError(f"it has an unknown type: {str(kind)[:64]}")
    return str(kind)


def _of_fields(fields: Sequence[tuple[str, Touch]], aliases: Sequence[tuple[str, str]]) -> Touch:
    def touch(value: dict[str, Any]) -> dict[str, Any]:
        for name, own in fields:
            value[name] = own(value[name])
        for alias, name in aliases:
            value[alias] = value[name]
        return value

    return touch


def _each_item(touch: Touch | None) -> Touch | None:
    return None if touch is None else lambda value: [touch(one) for one in value]


def _each_value(touch: Touch | None) -> Touch | None:
    return None if touch is None else lambda value: {name: touch(one) for name, one in value.items()}


def _decimal(scale: int) -> Touch:
    def touch(value: bytes) -> str:
        if not value or len(value) > MAX_DECIMAL_BYTES or not 0 <= scale <= 38:
            return Unreadable()
        return Number(f"{Decimal(int.from_bytes(value, 'big', signed=True)).scaleb(-scale):f}")

    return touch


def _as_it_is(value: Any) -> Any:
    return value


def _unreadable(value: Any) -> str:
    return Unreadable()
