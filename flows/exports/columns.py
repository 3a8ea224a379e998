"""Columns of the warehouse: final minutes and decisions, without values that differ between repeats.

A message becomes a tuple of plain values in the order of the columns, after its key. Amounts of money are
exact: millionths in a decimal of 38 digits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple

import msgspec
import pyarrow as pa

from flows.exports.handover import Malformed
from flows.model.conversion_columns import AGES_AT, COLUMNS, MONEY_NAMES, VALUE
from flows.model.decisions import Body
from flows.model.fields import COUNTS

Kind = Literal["minutes", "decisions"]
DAY_MS: Final = 86_400_000
_MOMENT: Final = pa.timestamp("ms", tz="UTC")
_MONEY: Final = pa.decimal128(38, 0)
_CREDITED: Final = COLUMNS[:AGES_AT]
_REPEATED_FIELDS: Final = frozenset(("rev", "as_of_ms", "state"))
_MAX_MONEY: Final = 10**38 - 1
_MAX_COUNT: Final = 2**63 - 1

Row = tuple[Any, ...]
"""The key as bytes, then a value for each column, of a type of MessagePack."""


class Table(NamedTuple):
    """A kind of file: its schema, and the function that turns a message's key and value into (day since the
    epoch, row). The function returns None for a message that the warehouse does not need.
    """

    schema: pa.Schema
    row: Callable[[bytes, bytes], tuple[int, Row] | None]


def _amount(name: str) -> pa.DataType:
    return _MONEY if name in MONEY_NAMES else pa.float64() if name in _PARTS else pa.int64()


_PARTS: Final = frozenset(_CREDITED[:VALUE])
"""Columns of conversions by credit, which a minute may have in parts, such as 0.5."""
_MINUTE_FIELDS: Final = (
    pa.field("key", pa.string(), nullable=False),
    pa.field("placement_id", pa.string(), nullable=False),
    pa.field("minute", _MOMENT, nullable=False),
    *(pa.field(name, pa.int64(), nullable=False) for name in COUNTS),
    pa.field("completion_rate", pa.float64()),
    pa.field("completions_per_impression", pa.float64()),
    *(pa.field(name, _amount(name), nullable=False) for name in _CREDITED),
    pa.field("methodology", pa.string()),
    pa.field("more", pa.string()),
)
_KNOWN: Final = frozenset(one.name for one in _MINUTE_FIELDS) | {"minute_ms"}


class _Minute(msgspec.Struct):
    placement_id: str
    minute_ms: int
    state: str


_credit = pa.struct(
    [
        pa.field("placement_id", pa.string()),
        pa.field("campaign_id", pa.string()),
        pa.field("way", pa.string(), nullable=False),
        pa.field("millionths", pa.int64(), nullable=False),
        pa.field("touched_at", _MOMENT),
    ]
)
_DECISION_FIELDS: Final = (
    pa.field("key", pa.string(), nullable=False),
    pa.field("conversion", pa.string(), nullable=False),
    pa.field("order_id", pa.string()),
    pa.field("event_id", pa.string(), nullable=False),
    pa.field("type", pa.string(), nullable=False),
    pa.field("ts", _MOMENT, nullable=False),
    pa.field("campaign_id", pa.string()),
    pa.field("value_micros", _MONEY),
    pa.field("currency", pa.string()),
    pa.field("rule", pa.string(), nullable=False),
    pa.field("eligible", pa.int64(), nullable=False),
    pa.field("capped", pa.bool_(), nullable=False),
    pa.field("credits", pa.list_(pa.field("element", _credit, nullable=False)), nullable=False),
    pa.field("claimed", pa.bool_(), nullable=False),
    pa.field("joined_by", pa.string()),
    pa.field("noisy_household", pa.bool_(), nullable=False),
    pa.field("methodology", pa.string()),
    pa.field("claimed_value_micros", _MONEY),
    pa.field("claimed_currency", pa.string()),
)

_minute = msgspec.json.Decoder(_Minute)
_any = msgspec.json.Decoder(dict[str, Any])
_body = msgspec.json.Decoder(Body)


def minute_row(key: bytes, value: bytes) -> tuple[int, Row] | None:
    """A final minute's row; None for a provisional one.

    Raises:
        ValueError: the message is no minute.
    """
    head = _minute.decode(value)
    if head.state != "final":
        return None
    body = _any.decode(value)
    more = {name: body[name] for name in sorted(body.keys() - _KNOWN - _REPEATED_FIELDS)}
    values = [key.decode(), head.placement_id, _moment(head.minute_ms)]
    values += [_whole(body[name]) for name in COUNTS]
    values += [_part(body.get(name)) for name in ("completion_rate", "completions_per_impression")]
    for name in _CREDITED:
        amount = body.get(name, 0)
        money, parts = name in MONEY_NAMES, name in _PARTS
        values.append(_money(amount) if money else _part(amount) if parts else _whole(amount))
    method = body.get("methodology")
    if not isinstance(method, str | None):
        raise Malformed("methodology is no text")
    values += [method, msgspec.json.encode(more).decode() if more else None]
    return head.minute_ms // DAY_MS, (key, *values)


def decision_row(key: bytes, value: bytes) -> tuple[int, Row] | None:
    """A decision's row.

    Raises:
        ValueError: the message is no decision.
    """
    body = _body.decode(value)
    credits = [
        (
            credit.placement_id,
            credit.campaign_id,
            credit.way,
            _whole(credit.millionths),
            None if credit.touched_at is None else _moment(credit.touched_at),
        )
        for credit in body.credits
    ]
    return body.ts // DAY_MS, (
        key,
        *(key.decode(), body.conversion, body.order_id, body.event_id, body.type, _moment(body.ts)),
        *(body.campaign_id, None if body.value_micros is None else _money(body.value_micros), body.currency),
        *(body.rule, _whole(body.eligible), body.capped, credits, body.claimed),
        *(body.joined_by, body.noisy_household, body.methodology),
        None if body.claimed_value_micros is None else _money(body.claimed_value_micros),
        body.claimed_currency,
    )


TABLES: Final[Mapping[Kind, Table]] = {
    "minutes": Table(pa.schema(_MINUTE_FIELDS), minute_row),
    "decisions": Table(pa.schema(_DECISION_FIELDS), decision_row),
}


def batch(kind: Kind, rows: Sequence[Row]) -> pa.RecordBatch:
    """Rows as columns, without the keys as bytes with which they begin."""
    schema = TABLES[kind].schema
    columns = [
        pa.array([_value(field.type, value) for value in values], field.type)
        for field, values in zip(schema, list(zip(*rows, strict=True))[1:], strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _value(kind: pa.DataType, value: Any) -> Any:
    if value is None:
        return None
    if pa.types.is_decimal(kind):
        return Decimal(value)
    if pa.types.is_list(kind):
        names = [field.name for field in _credit]
        return [dict(zip(names, one, strict=True)) for one in value]
    return value


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _MAX_COUNT:
        raise Malformed("a count is no whole number")
    return value


def _moment(value: int) -> int:
    # A day's path has its date, so the time must have one.
    if not 0 <= value < 4_102_444_800_000:
        raise Malformed("a time is not in 1970 to 2099")
    return value


def _part(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Malformed("a rate is no number")
    return float(value)


def _money(value: object) -> str:
    """Millionths as text, since integers of MessagePack have 64 bits."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise Malformed("a value is no whole number")
    number = int(value)
    if abs(number) > _MAX_MONEY:
        raise Malformed("a value has more than 38 digits")
    return str(number)
