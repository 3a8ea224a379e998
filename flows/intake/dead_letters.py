"""Dead letters: the reason why a message is no pixel, and its position, without data that identifies a
person.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import msgspec

from flows.errors import UNREADABLE
from flows.intake.schema import Invalid, _decode_any, decode, field_of, mark_of
from flows.model.catalogue.fields import IN_LETTERS
from flows.model.dimensions import NAMES
from flows.model.events import (
    CODES,
    INVALID,
    MALFORMED,
    MAX_ID,
    MAX_MESSAGE_BYTES,
    MAX_URL_BYTES,
    TOO_LATE,
    UNKNOWN_EVENT,
    absent,
    are_categories,
    cut_bytes,
)
from flows.model.messages import Late

_MAX_DIGITS: Final = 400
"""The greatest number of digits of an integer; Python refuses more than 4,300."""

_encode = msgspec.json.Encoder(order="deterministic").encode


class Rejection(msgspec.Struct, frozen=True):
    """The rejection of a message: the reason, and the part of the message that may be stored. For a malformed
    message this part is its length and digest.
    """

    reason: str
    field: str | None
    fields: dict[str, Any]


def _document(raw: bytes) -> Any:
    """A JSON document. A number that no machine type can hold is None; msgspec would reject the whole text.

    Raises:
        ValueError, msgspec.MsgspecError, RecursionError: it is no JSON.
    """
    try:
        return _decode_any(raw)
    except msgspec.DecodeError as error:
        if "out of range" not in str(error):
            raise
    document = json.loads(
        raw, parse_float=_float, parse_int=_integer, parse_constant=_refused, object_pairs_hook=_object
    )
    json.dumps(document, ensure_ascii=False).encode()  # json accepts lone surrogates, but no encoder does
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object. Lone surrogates are also refused in a value that a later value of the same name
    replaces.
    """
    members = dict(pairs)
    if len(members) < len(pairs):
        json.dumps(pairs, ensure_ascii=False).encode()
    return members


def _float(digits: str) -> float | None:
    value = float(digits)
    return value if isfinite(value) else None


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) <= _MAX_DIGITS else None


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def explain(
    raw: bytes, suspect: str = "?", verdict: Callable[[Mapping[str, Any]], str] = lambda event: ""
) -> Rejection:
    """The reason why the message `raw` is rejected; `suspect` is the field at which decoding failed, if any.

    The order of reasons is that of `flows.model.events`. `verdict` is the reason why a message is invalid
    traffic. The letter has that reason, but not the data that it was judged by, so the message cannot be sent
    again as valid.
    """
    malformed = Rejection(MALFORMED, None, {"length": len(raw), "sha256": hashlib.sha256(raw).hexdigest()})
    if len(raw) > MAX_MESSAGE_BYTES:
        return malformed
    try:
        raw.decode()
        document = _document(raw)
    except (ValueError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return malformed
    if not isinstance(document, dict):
        return malformed
    kept_fields: dict[str, Any] = {"event": keepable(document)}
    if names := withheld(document):
        kept_fields["withheld"] = names
    if reason := verdict(document):
        kept_fields["event"]["invalid_traffic"] = reason
    for field in ("event_id", "event"):
        value = document.get(field)
        if not isinstance(value, str) or absent(value) or (field == "event_id" and len(value) > MAX_ID):
            return Rejection(INVALID, field, kept_fields)
    if document["event"] not in CODES:
        return Rejection(UNKNOWN_EVENT, "event", kept_fields)
    return Rejection(INVALID, _wrong_field(raw) or suspect, kept_fields)


def is_malformed(raw: bytes) -> bool:
    """True if a message is rejected as malformed."""
    if len(raw) > MAX_MESSAGE_BYTES:
        return True
    try:
        raw.decode()
        return not isinstance(_decode_any(raw), dict)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    if mark_of(raw) is not None:
        return False
    try:
        raw.decode()
        decode(raw)  # a fault in an unread field leaves a pixel valid
    except (Invalid, *UNREADABLE):
        return explain(raw).reason == MALFORMED
    return False


def _wrong_field(raw: bytes) -> str | None:
    """The first field with the wrong type or form; None if all are right."""
    try:
        decode(raw)
    except Invalid as error:
        return error.field
    except msgspec.ValidationError as error:
        return field_of(str(error))
    except msgspec.MsgspecError:
        return None
    return None


_OF_A_CONVERSION: Final = ("type", "order_id", "value", "currency", "claimed")


def keepable(document: dict[str, Any]) -> dict[str, Any]:
    """The known fields that identify no person. Scalars are cut to 128 characters, and URLs lose the
    query.
    """
    scalars = (name for name in IN_LETTERS if _is_scalar(document.get(name)))
    fields: dict[str, Any] = {name: _short(document[name]) for name in scalars}
    if are_categories(categories := document.get("content_category")):
        fields["content_category"] = categories
    conversion = document.get("conversion")
    if isinstance(conversion, dict):
        fields["conversion"] = {
            name: _short(conversion[name]) for name in _OF_A_CONVERSION if _is_scalar(conversion.get(name))
        }
    url = document.get("landing_url")
    if isinstance(url, str):
        try:
            parts = urlsplit(cut_bytes(url, MAX_URL_BYTES))
            host = parts.hostname or ""
            fields["landing_url"] = _short(f"{parts.scheme}://{host}{parts.path}")
            query_fields = reversed(parse_qsl(parts.query))  # the flow uses the first value of a name
            fields |= {name: _short(text) for name, text in query_fields if name.startswith("utm_")}
        except ValueError:
            pass  # no URL, so no part of it is stored
    return fields


def withheld(document: dict[str, Any]) -> list[str]:
    """The names of the non-empty fields that `keepable` drops since they have the wrong type."""
    names = [name for name in IN_LETTERS if _is_lost(document.get(name))]
    conversion = document.get("conversion")
    if isinstance(conversion, dict):
        names += [f"conversion.{name}" for name in _OF_A_CONVERSION if _is_lost(conversion.get(name))]
    elif conversion is not None:
        names.append("conversion")
    categories = document.get("content_category")
    if categories is not None and not are_categories(categories):
        names.append("content_category")
    if not isinstance(document.get("landing_url") or "", str):
        names.append("landing_url")
    return names


def _is_lost(value: object) -> bool:
    return value is not None and not _is_scalar(value)


def _is_scalar(value: object) -> bool:
    return isinstance(value, (str, int, float))


def _short(value: Any) -> Any:
    return value[:MAX_ID] if isinstance(value, str) else value


def letter(partition: str, position: int, rejection: Rejection) -> tuple[bytes, bytes]:
    """A dead letter as (key, JSON). The key is its position, so compaction removes repeats."""
    where = f"{partition}/{position}"
    body: dict[str, Any] = {
        "reason": rejection.reason,
        "position": where,
        "partition": partition,
        "offset": position,
    }
    if rejection.field is not None:
        body["field"] = rejection.field
    return where.encode(), _encode(body | rejection.fields)


def late_letter(late: Late) -> tuple[bytes, bytes]:
    """The dead letter of a pixel that arrived after its minute was final."""
    names = {name: value for name, value in zip(NAMES, late.combo, strict=False) if value is not None}
    fields = {"event": {"event": late.event, "ts": late.ts_ms, **names}, "identity": f"{late.key:016x}"}
    return letter(late.sender, late.position, Rejection(TOO_LATE, None, fields))
