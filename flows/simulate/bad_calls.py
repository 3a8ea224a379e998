"""Calls that a correct flow rejects, each for the only reason that the specification allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

_LONG: Final = "x" * 129
_DROP: Final = object()

_INVALID: Final[tuple[tuple[str, Any], ...]] = (
    ("event_id", _DROP), ("event_id", ""), ("event_id", 17), ("event_id", _LONG),
    ("event_id", "${EVENT_ID}"), ("event_id", "-1"), ("event", _DROP), ("event", 5), ("event", "[EVENT]"),
    ("event", ["start"]), ("ts", _DROP), ("ts", "yesterday"), ("ts", True), ("ts", [1]),
    ("ts", "2026-13-45T99:00:00Z"), ("ts", {}), ("received_at", "soon"), ("received_at", False),
    ("placement_id", _DROP), ("placement_id", ""), ("placement_id", 12), ("placement_id", _LONG),
    ("placement_id", "[PLACEMENTID]"), ("placement_id", "%5BPID%5D"), ("placement_id", "{placement}"),
    ("placement_id", "@PID@"), ("placement_id", "-2"), ("play_id", 3), ("play_id", _LONG),
    ("campaign_id", 9), ("campaign_id", _LONG), ("creative_id", _LONG), ("app", _LONG), ("app", 7),
    ("platform", 1), ("station", ["a"]),
    ("podcast", {"a": 1}), ("program", False), ("listener_id", 123456), ("listener_id", _LONG),
    ("consent", "yes"), ("consent", 1), ("playhead_ms", "1200"), ("playhead_ms", [0]),
    ("duration_ms", "PT30S"), ("user_agent", 7), ("ip", 2130706433), ("content_category", 150),
    ("content_category", {"id": "150"}), ("landing_url", 4),
)  # fmt: skip

_INVALID_CONVERSIONS: Final[tuple[Any, ...]] = (
    _DROP, "purchase", 1, {}, {"type": "bought"}, {"type": 3}, {"type": "purchase", "order_id": 77},
    {"type": "purchase", "order_id": _LONG}, {"type": "purchase", "value": "9.99", "currency": 826},
)  # fmt: skip

_UNKNOWN: Final = (
    "rewind", "creativeView", "Start", "first_quartile", "COMPLETE", "close", "start ", "démarrage",
)  # fmt: skip

_NOT_JSON: Final = (
    b"", b"{", b"not json", b"[]", b"[1,2]", b"17", b'"start"', b"true", b"null", b"\xff\xfe\x00",
    b"\x00\x01\x02", b"<VAST/>", b'{"event_id":"x"', b"{'event_id':'x'}", b'{"event_id":"\xc3\x28"}',
    b'{"event_id":"x","ts":01}', b'{"event_id":"x","ts":NaN}', b'{"event_id":"x",}',
)  # fmt: skip


def malformed(u: Callable[[], float], good: dict[str, Any]) -> bytes:
    """A message that is no UTF-8 JSON object of at most 64 KiB: the call `good` with damage, or text that was
    never a call.

    Args:
        u: returns a uniform random number in [0, 1).
    """
    dice = u()
    text = msgspec.json.encode(good)
    if dice < 0.35:
        return text[: 1 + int(u() * (len(text) - 1))]
    if dice < 0.5:  # Latin-1 in a field that the flow reads, and in a field that the flow does not know
        field = b"platform" if dice < 0.42 else b"vendor_note"
        return text[:-1] + b',"' + field + b'":"caf\xe9"}'
    if dice < 0.6:
        return text + b"}"
    if dice < 0.62:
        return text[:-1] + b',"padding":"' + b"." * (64 * 1024) + b'"}'
    return _NOT_JSON[int(u() * len(_NOT_JSON))]


def invalid(u: Callable[[], float], good: dict[str, Any]) -> dict[str, Any]:
    """The call `good` with one known field that has the wrong type, is too long, or is missing."""
    if u() < 0.15:
        good = {key: value for key, value in good.items() if key != "placement_id"} | {"event": "conversion"}
        field, wrong = "conversion", _INVALID_CONVERSIONS[int(u() * len(_INVALID_CONVERSIONS))]
    else:
        field, wrong = _INVALID[int(u() * len(_INVALID))]
    return {key: value for key, value in {**good, field: wrong}.items() if value is not _DROP}


def unknown(u: Callable[[], float], good: dict[str, Any]) -> dict[str, Any]:
    """The call `good` with an unknown event. A third of these calls have further wrong fields, which must not
    be the reason of rejection.
    """
    broken: dict[str, Any] = {"placement_id": 12, "ts": "yesterday"} if u() < 0.33 else {}
    return {**good, "event": _UNKNOWN[int(u() * len(_UNKNOWN))], **broken}
