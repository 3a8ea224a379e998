"""Calls as JSON, in the usual form and in the form of another JSON writer."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

import msgspec

from flows.simulate.scenario import USUAL

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def body_of(labels: dict[str, Any]) -> bytes:
    """The JSON of fields that all pixels of a play share, without the braces."""
    return msgspec.json.encode(labels)[1:-1]


def encoded(
    event_id: str,
    event: str,
    ts: int,
    body: bytes,
    playhead: int | None,
    basis: str,
    placement: str,
    received: int | None,
) -> bytes:
    """A pixel of a play as JSON.

    Args:
        body: see `body_of`.
        playhead: ms into the ad, or None.
        basis: the basis that an impression claims.
        received: `received_at` in epoch ms, or None.
    """
    value = b'{"event_id":"%b","event":"%b","ts":%d,%b' % (event_id.encode(), event.encode(), ts, body)
    if playhead is not None:
        value += b',"playhead_ms":%d' % playhead
    if event == "impression" and basis != USUAL:
        value += b',"basis":"%b"' % basis.encode()
    if event == "click":
        url = b"https://shop.example/?utm_source=audio&utm_content=%b" % placement.encode()
        value += b',"landing_url":"%b"' % url
    return value + (b"}" if received is None else b',"received_at":%d}' % received)


def foreign(u: Callable[[], float], value: bytes) -> bytes:
    """A call in the form of another JSON writer: spaces, escapes, sorted names, RFC 3339 times, more fields.

    Args:
        u: returns a uniform random number in [0, 1).
    """
    call = json.loads(value)
    zone = timezone(timedelta(hours=int(u() * 4)))
    moment = (_EPOCH + timedelta(milliseconds=call["ts"])).astimezone(zone)
    call["ts"] = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    call["vendor"] = {"sdk": [1, None, "π"], "event": "start", "nested": {"ts": 0}}
    call["content_category"] = "150" if u() < 0.5 else ["150", "JLBCU7"]
    return json.dumps(call, sort_keys=True).encode()
