"""Plans from named values, as texts of a file or as JSON. Each value is checked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import lcm
from typing import Annotated, Any, Final, NoReturn
from zoneinfo import ZoneInfo

import msgspec
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    create_model,
)

from flows.errors import PlanError
from flows.model.events import MAX_MS, absent
from flows.model.flight import MINUTE_MS, Curve
from flows.model.plan import NAMED, From, Plan

BALANCE: Final = ("delivered_before", "delivered_before_until", "delivered_before_source")
"""Columns of the opening balance."""
COLUMNS: Final = (
    "placement_id",
    "booked",
    "start",
    "end",
    "timezone",
    "campaign_id",
    "advertiser",
    "cpm",
    "currency",
    "target_completion_rate",
    "tolerance",
    "curve",
    "pauses",
    "blocked_categories",
    "conversions_from",
    *NAMED,
    *BALANCE,
)
REQUIRED: Final = COLUMNS[:4]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MAX: Final = 10**12
MAX_ID: Final = 128
"""The greatest length of an id, in characters."""
MAX_SOURCE: Final = 128
"""The greatest length of the source of an opening balance, in characters."""
MAX_NAMES: Final = 10_000
"""The greatest number of names that one plan may list in one column."""
_WRITABLE: Final = re.compile("[^\ud800-\udfff]*")


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


def _exact(digits: str) -> Decimal | str:
    """An exact number; the text of a number that `Decimal` cannot hold, which no column takes."""
    try:
        return Decimal(digits)
    except ArithmeticError:
        return digits


JSON: Final = json.JSONDecoder(parse_float=_exact, parse_constant=_refuse_constant)
"""A decoder with exact numbers, which refuses NaN and infinities."""


def plan_from_json(data: bytes) -> Plan:
    """The plan of one JSON object; unknown names are ignored.

    Raises:
        PlanError: `data` is no plan.
    """
    return plan_of(columns_from_json(data))


def plan_to_json(plan: Plan) -> bytes:
    """A JSON object from which `plan_from_json` makes the same plan.

    Raises:
        PlanError: the curve's weights are too large as whole numbers.
    """

    def moment(ms: int) -> str:
        return (_EPOCH + timedelta(milliseconds=ms)).isoformat()

    cpm, until = plan.cpm_micros, plan.delivered_before_until
    columns = {
        "placement_id": plan.placement_id,
        "booked": plan.booked,
        "start": moment(plan.start_ms),
        "end": moment(plan.end_ms),
        "timezone": plan.timezone,
        "campaign_id": plan.campaign_id,
        "advertiser": plan.advertiser,
        "cpm": None if cpm is None else f"{cpm // 1_000_000}.{cpm % 1_000_000:06}",
        "currency": plan.currency,
        "target_completion_rate": plan.target_completion_rate,
        "curve": plan.curve,
        "pauses": [[moment(start), moment(end)] for start, end in plan.pauses] or None,
        "blocked_categories": plan.blocked_categories or None,
        "tolerance": plan.tolerance,
        "conversions_from": plan.conversions_from,
        **{name: names or None for name, names in zip(NAMED, plan.listed, strict=True)},
        "delivered_before": plan.delivered_before,
        "delivered_before_until": None if until is None else moment(until),
        "delivered_before_source": plan.delivered_before_source,
    }
    data = msgspec.json.encode({name: value for name, value in columns.items() if value is not None})
    assert plan_from_json(data) == plan, plan
    return data


def columns_from_json(data: bytes) -> dict[str, Any]:
    """The named values of one JSON object, for `plan_of`.

    Raises:
        PlanError: `data` is no JSON object.
    """
    try:
        columns = JSON.decode(data.decode())
    except (ValueError, RecursionError) as error:
        raise PlanError(f"not JSON: {error}") from None
    if not isinstance(columns, dict):
        raise PlanError("takes a JSON object")
    return columns


def plan_of(columns: Mapping[str, Any]) -> Plan:
    """The plan of named values, which are texts or the values of JSON (exact numbers, lists).

    Raises:
        PlanError: a column is wrong; it names each such column, and what the column takes.
    """
    stripped = {name: value.strip() if isinstance(value, str) else value for name, value in columns.items()}
    present = {name: stripped[name] for name in COLUMNS if stripped.get(name) not in (None, "")}
    try:
        row = _Columns.model_validate(present)
    except ValidationError as error:
        reasons = {
            str(fault["loc"][0]): "is missing" if fault["type"] == "missing" else str(fault["ctx"]["error"])
            for fault in error.errors(include_input=False, include_url=False)
        }
        (column, reason), *more = ((name, reasons[name]) for name in COLUMNS if name in reasons)
        raise PlanError(reason, column, more=more) from None
    values = {name: getattr(row, name) for name in _Columns.model_fields}
    listed = tuple(map(values.pop, NAMED))
    plan = Plan(**values | {"timezone": row.timezone and row.timezone.key, "listed": listed})
    _check(plan)
    return _in_minutes(plan)


def _in_minutes(plan: Plan) -> Plan:
    """The plan with a flight of whole minutes, since impressions are counted by the minute: all minutes that
    overlap the flight.
    """
    start_ms, end_ms = (minute * MINUTE_MS for minute in plan.minutes)
    if (start_ms, end_ms) == (plan.start_ms, plan.end_ms):
        return plan
    if end_ms >= MAX_MS:
        raise PlanError("takes the years 1970 to 2099", "end")
    return replace(plan, start_ms=start_ms, end_ms=end_ms, unrounded_ms=(plan.start_ms, plan.end_ms))


def _check(plan: Plan) -> None:
    """Check the columns that depend on each other."""
    if plan.end_ms <= plan.start_ms:
        raise PlanError("is not after the start", "end")
    if plan.cpm_micros is not None and plan.currency is None:
        raise PlanError("is missing, and a cpm needs one", "currency")
    if plan.conversions_from is not None and plan.campaign_id is None:
        raise PlanError("is missing, and conversions_from needs one", "campaign_id")
    if not isinstance(plan.curve, str) and plan.timezone is None:
        raise PlanError("is missing, and a curve of weights needs one for its hours of day", "timezone")
    if any(end <= plan.start_ms or start >= plan.end_ms for start, end in plan.pauses):
        raise PlanError("has a pause outside of the flight", "pauses")
    if not plan.flight.total_ms:
        raise PlanError("leaves no unpaused time of the flight", "pauses")
    if not isinstance(plan.curve, str) and not plan.flight.total_weight:
        raise PlanError("has no weight above 0 in the unpaused hours of the flight", "curve")
    _check_balance(plan)


def _check_balance(plan: Plan) -> None:
    """Check the columns of the opening balance."""
    before, until = plan.delivered_before, plan.delivered_before_until
    if before is None and (until is not None or plan.delivered_before_source is not None):
        raise PlanError("is missing, and a moment or source of a balance needs one", "delivered_before")
    if before and until is None:
        raise PlanError("is missing, and a delivered_before above 0 needs one", "delivered_before_until")
    if until is not None and not plan.start_ms <= until <= plan.end_ms:
        raise PlanError("is not within the flight", "delivered_before_until")
    if before and until == plan.start_ms:
        raise PlanError(
            "is the flight's start, before which nothing of it was delivered", "delivered_before_until"
        )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("takes a text")
    if not _WRITABLE.fullmatch(value):
        raise ValueError("takes a text, and has a lone surrogate (half a character)")
    return value.strip()


def _source(value: Any) -> str:
    text = _text(value)
    if len(text) > MAX_SOURCE or not text.isprintable():
        raise ValueError(f"takes a text of up to {MAX_SOURCE} printable characters")
    return text


def _id(value: Any) -> str:
    name = _text(value)
    if len(name) > MAX_ID or absent(name):
        raise ValueError(f"takes an id of 1 to {MAX_ID} characters")
    return name


def _ids(value: Any) -> tuple[str, ...]:
    names = value.split(";") if isinstance(value, str) else value
    if not isinstance(names, list) or len(names) > MAX_NAMES:
        raise ValueError(f"takes up to {MAX_NAMES} ids as id;id")
    return tuple(sorted(set(map(_id, names))))


def _booked(value: Any) -> int:
    return _impressions(value, 1)


def _delivered_before(value: Any) -> int:
    return _impressions(value, 0)


def _impressions(value: Any, least: int) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 13:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MAX:
        raise ValueError(f"takes impressions, a whole number from {least} to {_MAX}, in digits alone")
    return value


def _decimal(value: Any) -> Decimal:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,30}(\.[0-9]{1,30})?", value):
        value = Decimal(value)
    if isinstance(value, int) and not isinstance(value, bool):
        value = Decimal(value)
    if not isinstance(value, Decimal) or not 0 <= value <= _MAX or not -18 <= _exponent(value) <= 18:
        raise ValueError(f"takes a decimal number from 0 to {_MAX}, such as 12.50")
    return value


def _exponent(number: Decimal) -> int:
    """The exponent to which `as_integer_ratio` raises 10. A huge exponent would fill the memory."""
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int), number
    return exponent


def _micros(value: Any) -> int:
    numerator, denominator = _decimal(value).as_integer_ratio()
    micros, remainder = divmod(numerator * 1_000_000, denominator)
    if remainder:
        raise ValueError("takes no more than six decimal places")
    return micros


def _rate(value: Any) -> float:
    number = _decimal(value)
    if number > 1:
        raise ValueError("takes a ratio from 0 to 1")
    return float(number)


def _currency(value: Any) -> str:
    code = _text(value)
    if re.fullmatch("[A-Z]{3}", code) is None:
        raise ValueError("takes an ISO 4217 code of three upper-case letters, such as GBP")
    return code


def _from(value: Any) -> From:
    if value == "server":
        return "server"
    if value == "browser":
        return "browser"
    raise ValueError("takes server or browser")


def _zone(value: Any) -> ZoneInfo:
    name = _text(value)
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # OSError: the name of a folder of the zone database
        raise ValueError(f"no such time zone: {name!r}; takes an IANA name, such as Europe/London") from None


def _moment(value: Any, columns: ValidationInfo) -> int:
    # A wrong timezone is reported by its own column, so a time without an offset is then checked in UTC.
    return moment_of(_text(value), columns.data.get("timezone", ZoneInfo("UTC")))


def moment_of(text: str, zone: ZoneInfo | None) -> int:
    """The epoch ms of a moment in ISO 8601.

    Args:
        zone: the time zone of a time without an offset; None if an offset is required.

    Raises:
        ValueError: `text` is no moment, or one that clocks show twice or never.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"takes ISO 8601, such as 2026-11-01T00:00, not {text[:40]!r}") from None
    if len(text) <= len("2026-11-01"):
        raise ValueError(
            "needs a time of day after the date: a flight ends at the first moment that is not part of it"
        )
    if moment.tzinfo is None:
        if zone is None:
            raise ValueError("has no offset from UTC, and the plan has no timezone: write one of them")
        moment = moment.replace(tzinfo=zone)
        first, second = moment.utcoffset(), moment.replace(fold=1).utcoffset()
        assert first is not None
        assert second is not None
        if first != second:
            times = "twice" if first > second else "never"
            raise ValueError(f"the clocks of {zone.key} show {text} {times}: write its offset from UTC")
    ms = (moment - _EPOCH) // timedelta(milliseconds=1)
    if not 0 <= ms < MAX_MS:
        raise ValueError("takes the years 1970 to 2099")
    return ms


def _curve(value: Any) -> Curve:
    if value == "even":
        return "even"
    if value == "frontloaded":
        return "frontloaded"
    weights = value.split(";") if isinstance(value, str) else value
    if not isinstance(weights, list) or len(weights) != 24:
        raise ValueError("takes even, frontloaded, or 24 weights for the hours of day from 0 to 23")
    ratios = [
        _decimal(weight.strip() if isinstance(weight, str) else weight).as_integer_ratio()
        for weight in weights
    ]
    whole = lcm(*(denominator for _, denominator in ratios))
    numbers = tuple(numerator * whole // denominator for numerator, denominator in ratios)
    if not any(numbers):
        raise ValueError("takes weights that are not all 0")
    return numbers


def _pauses(value: Any, columns: ValidationInfo) -> tuple[tuple[int, int], ...]:
    items = value.split(";") if isinstance(value, str) else value
    pauses = []
    for item in items if isinstance(items, list) else [items]:
        pair = item.split("/") if isinstance(item, str) else item
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError("takes pauses as start/end;start/end")
        start, end = (_moment(moment, columns) for moment in pair)
        if end <= start:
            raise ValueError(f"has a pause that ends before it starts: {pair[0]}")
        pauses.append((start, end))
    return tuple(sorted(pauses))


def _categories(value: Any) -> tuple[str, ...]:
    names = value.split(";") if isinstance(value, str) else value
    if not isinstance(names, list):
        raise ValueError("takes IAB category ids as id;id")
    ids = {_text(name).upper() for name in names}
    if any(re.fullmatch(r"[A-Z0-9][A-Z0-9_-]*", name) is None for name in ids):
        raise ValueError("takes IAB category ids, such as IAB7-39 or 432")
    return tuple(sorted(ids))


class _PlanColumns(BaseModel):
    """The columns with a reader each. The time zone is the first, since times are read in it."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    timezone: Annotated[ZoneInfo | None, PlainValidator(_zone)] = None
    placement_id: Annotated[str, PlainValidator(_id)]
    booked: Annotated[int, PlainValidator(_booked)]
    start_ms: Annotated[int, PlainValidator(_moment)] = Field(alias="start")
    end_ms: Annotated[int, PlainValidator(_moment)] = Field(alias="end")
    campaign_id: Annotated[str | None, PlainValidator(_id)] = None
    advertiser: Annotated[str | None, PlainValidator(_id)] = None
    cpm_micros: Annotated[int | None, PlainValidator(_micros)] = Field(None, alias="cpm")
    currency: Annotated[str | None, PlainValidator(_currency)] = None
    target_completion_rate: Annotated[float | None, PlainValidator(_rate)] = None
    curve: Annotated[Curve, PlainValidator(_curve)] = "even"
    pauses: Annotated[tuple[tuple[int, int], ...], PlainValidator(_pauses)] = ()
    blocked_categories: Annotated[tuple[str, ...], PlainValidator(_categories)] = ()
    tolerance: Annotated[float | None, PlainValidator(_rate)] = None
    conversions_from: Annotated[From | None, PlainValidator(_from)] = None
    delivered_before: Annotated[int | None, PlainValidator(_delivered_before)] = None
    delivered_before_until: Annotated[int | None, PlainValidator(_moment)] = None
    delivered_before_source: Annotated[str | None, PlainValidator(_source)] = None


_LISTS: Final[Any] = {name: (Annotated[tuple[str, ...], PlainValidator(_ids)], ()) for name in NAMED}
_Columns: Final = create_model("_Columns", __base__=_PlanColumns, **_LISTS)
