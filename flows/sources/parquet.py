"""Parquet: reads the rows of a file, with only those columns that a mapping reads.

pyarrow decodes. Values are converted by their types, as for Avro.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from flows.collector.body import Number
from flows.sources.avro import Converter, float32_digits, iso_date, time_text
from flows.sources.shapes import PLAIN, TEXT, ListOf, MapOf, Shape

ROWS: Final = 1_000
"""The number of rows that are decoded at once."""
ERRORS: Final = (pa.ArrowException, OSError, ValueError, OverflowError)
"""Errors of reading a damaged or truncated file."""
_PER_MS: Final = {"ms": 1, "us": 1000, "ns": 1_000_000}


class Table(NamedTuple):
    """The rows of a file, and the shape of each."""

    shape: Shape
    rows: Iterator[dict[str, Any]]


def table(file: BinaryIO, wanted: frozenset[str] | None) -> Table:
    """The rows of a file.

    Args:
        wanted: names of columns; missing ones are left out. None for all.

    Raises:
        ERRORS: the file is not Parquet, or is damaged; `rows` raises them too.
    """
    opened = pq.ParquetFile(file)
    schema = opened.schema_arrow
    names = [one.name for one in schema if wanted is None or one.name in wanted]
    if len(set(names)) < len(names):
        raise ValueError("two columns have one name")
    return Table({one.name: _shape(one.type) for one in schema}, _rows(opened, schema, names))


def _rows(opened: Any, schema: Any, names: list[str]) -> Iterator[dict[str, Any]]:
    columns = [(name, _plain(schema.field(name).type), _converter(schema.field(name).type)) for name in names]
    for batch in opened.iter_batches(ROWS, columns=names):
        columns_of_values = []
        for name, plain, converter in columns:
            column = batch.column(name)
            values = (column if column.type == plain else column.cast(plain)).to_pylist()
            columns_of_values.append(
                values if converter is None else [one if one is None else converter(one) for one in values]
            )
        if not columns:
            yield from ({} for _ in range(batch.num_rows))
        for row in zip(*columns_of_values, strict=True):
            yield dict(zip(names, row, strict=True))


def _shape(kind: Any) -> Shape:
    if pa.types.is_dictionary(kind):
        return _shape(kind.value_type)
    if pa.types.is_struct(kind):
        return {one.name: _shape(one.type) for one in kind}
    if pa.types.is_map(kind):
        return MapOf(_shape(kind.item_type))
    if _is_list(kind):
        return ListOf(_shape(kind.value_type))
    return TEXT if pa.types.is_string(kind) or pa.types.is_large_string(kind) else PLAIN


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _plain(kind: Any) -> Any:
    """The type that a column is cast to: times become numbers, decimals text."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(one.name, _plain(one.type), one.nullable) for one in kind])
    if pa.types.is_map(kind):
        return pa.map_(kind.key_type, _plain(kind.item_type))
    if _is_list(kind):
        make = pa.large_list if pa.types.is_large_list(kind) else pa.list_
        return make(_plain(kind.value_type))
    if pa.types.is_timestamp(kind) or pa.types.is_time64(kind) or pa.types.is_date64(kind):
        return pa.int64()
    if pa.types.is_date32(kind) or pa.types.is_time32(kind):
        return pa.int32()
    return pa.string() if pa.types.is_decimal(kind) else kind


def _converter(kind: Any) -> Converter | None:
    """The function that converts a value of a column; None if the value stays as decoded."""
    if pa.types.is_dictionary(kind):
        return _converter(kind.value_type)
    if pa.types.is_struct(kind):
        converters = [
            (one.name, converter) for one in kind if (converter := _converter(one.type)) is not None
        ]
        return _fields(converters) if converters else None
    if pa.types.is_map(kind):
        inner = _converter(kind.item_type)
        return lambda pairs: {str(name): _converted(inner, value) for name, value in pairs}
    if _is_list(kind):
        inner = _converter(kind.value_type)
        return None if inner is None else lambda values: [_converted(inner, value) for value in values]
    if pa.types.is_timestamp(kind):
        if kind.unit == "s":
            return lambda value: value * 1000
        per_ms = _PER_MS[kind.unit]
        return None if per_ms == 1 else lambda value: value // per_ms
    if pa.types.is_time(kind):
        return lambda value: time_text(value * 1000 if kind.unit == "s" else value // _PER_MS[kind.unit])
    if pa.types.is_date32(kind):
        return iso_date
    if pa.types.is_decimal(kind):
        return Number
    return float32_digits if pa.types.is_float32(kind) or pa.types.is_float16(kind) else None


def _converted(converter: Converter | None, value: Any) -> Any:
    return value if converter is None or value is None else converter(value)


def _fields(converters: list[tuple[str, Converter]]) -> Converter:
    def converter(value: Mapping[str, Any]) -> dict[str, Any]:
        return dict(value) | {
            name: _converted(field_converter, value[name]) for name, field_converter in converters
        }

    return converter
