"""Hostile messages, each made of a time and a number, outside the scanner's fast path. `simulation.reading`
defines the right result.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

Message = Callable[[int, int], bytes]


def _pixel(at_ms: int, number: int, **more: Any) -> dict[str, Any]:
    pixel = {
        "event_id": f"x{number}",
        "event": "impression",
        "ts": at_ms,
        "placement_id": "s0",
        "consent": True,
    }
    return {name: value for name, value in (pixel | more).items() if value is not ...}


def _with(**more: Any) -> Message:
    return lambda at_ms, number: json.dumps(_pixel(at_ms, number, **more)).encode()


def _like(make: Callable[[dict[str, Any]], bytes]) -> Message:
    return lambda at_ms, number: make(_pixel(at_ms, number))


def _time(form: str, field: str = "ts") -> Message:
    def message(at_ms: int, number: int) -> bytes:
        text = datetime.fromtimestamp(at_ms / 1000, UTC).strftime(form)
        return json.dumps(_pixel(at_ms, number, **{field: text})).encode()

    return message


def _received(by_ms: int) -> Message:
    return lambda at_ms, number: json.dumps(_pixel(at_ms, number, received_at=at_ms + by_ms)).encode()


_BOUGHT: Final[tuple[Any, ...]] = (
    *(None, "x", {}, {"type": "gift"}, {"type": 5}),
    {"type": "purchase", "currency": "pounds"},
)
_WORTH: Final[tuple[tuple[Any, Any], ...]] = (
    *((None, "yes"), (12, True), ("3.25", False)),
    *(("x", True), ([], None), ("\u0663", None)),
)
"""Values of a conversion, and whether they are claimed."""

_BEFORE: Final[tuple[Any, ...]] = (
    *(7, [], {}, {"client_id": 7}),
    *({"listener_id": 7}, {"household_id": "h" * 129}),
)
LONG_AGO: Final = _with(ts=-5)
"""A pixel of 1970, which counts a day before it came. As the first of its partition it may be late or not:
the log does not say whether the flow's time was beyond it.
"""

MESSAGES: Final[tuple[Message, ...]] = (
    *(_with(**{name: 7}) for name in ("placement_id", "play_id", "campaign_id", "listener_id", "platform")),
    *(_with(**{name: "n" * 129}) for name in ("placement_id", "event_id", "station", "client_id")),
    *(
        _with(**{name: macro})
        for name in ("placement_id", "event_id")
        for macro in ("[X]", "%5BX%5D", "${X}", "{x}", "@X@", "", "-1")
    ),
    *(
        _with(**{name: macro})
        for name in ("play_id", "station", "listener_id", "campaign_id")
        for macro in ("[X]", "-2", "@X@", "[]", "a]")
    ),
    *(_with(**{name: ...}) for name in ("event_id", "event", "ts", "placement_id", "consent")),
    *(_with(event=event) for event in ("listen", "IMPRESSION", "", "[E]", 3, "unmute", "progress")),
    *(_with(ts=ts) for ts in ("now", "2026-02-30T00:00:00Z", 1.5, None, True)),
    LONG_AGO,
    *(_with(ts=ts) for ts in (10**14, 10**25)),
    *(_with(received_at=at) for at in ("now", -1, "[AT]", None)),
    *(_with(consent=consent) for consent in ("true", 1, None, False)),
    *(_with(user_agent=agent) for agent in ("Podcasts/1 bot", "SPIDER", "bots", "[UA]", "a" * 1100 + "bot/")),
    *(_with(event="conversion", conversion=of) for of in _BOUGHT),
    *(
        _with(
            event="conversion",
            conversion={
                "type": "phone_call",
                "order_id": None,
                "value": worth,
                "currency": "GBP",
                "claimed": claimed,
            },
        )
        for worth, claimed in _WORTH
    ),
    _with(event="start", ts="now", invalid_traffic="data_centre"),
    _with(event="listen", user_agent="crawler"),
    _time("%Y-%m-%dT%H:%M:%SZ", "received_at"),  # no other moment: time may have gone on without a pixel
    _with(event="start", received_at=7, playhead_ms=[]),
    _with(landing_url="https://shop.example/\u00e4?utm_content=x"),
    *(_with(event="conversion", conversion={"type": "purchase"}, previous=of) for of in _BEFORE),
    _with(previous=7),
    _with(conversion="x"),
    _with(conversion={"type": 5}),
    _with(conversion=None),
    _with(placement_id="s\u00f6"),
    _with(placement_id='s"q\\'),
    _with(placement_id="s\u2028"),
    lambda at_ms, number: json.dumps(_pixel(at_ms, number, playhead_ms=-2, play_id=f"x{number}")).encode(),
    _with(playhead_ms="5"),
    _with(duration_ms=10**30),
    _with(content_category=["IAB1", 5]),
    _with(landing_url="http://[::1?utm_content=x"),
    _with(
        event="listen",
        landing_url="https://shop.example/a?utm_source=x&b=1",
        conversion={"type": "gift", "order_id": "o"},
    ),
    _with(event="click", landing_url="http://[bad", placement_id=5),
    _with(unknown=1.5, deep=[[[]]]),
    _time("%Y-%m-%dT%H:%M:%SZ"),
    _time("%Y-%m-%dt%H:%M:%S.123456+00:00"),
    _time("%Y-%m-%d %H:%M:%Sz"),
    _time("%d.%m.%Y"),
    *(_received(by_ms) for by_ms in (-400, 5_000, 90_000)),
    _like(lambda of: json.dumps(of).encode()[:-1]),
    _like(lambda of: json.dumps(of).replace('"ts":', '"big": 1e999, "ts":').encode()),
    _like(lambda of: json.dumps(of).replace('"ts":', '"big": NaN, "ts":').encode()),
    _like(lambda of: json.dumps(of | {"ts": 0}).replace('"ts": 0', '"ts": ' + "9" * 30).encode()),
    _like(
        lambda of: (
            json.dumps(of | {"event": "x"}).replace('"ts":', '"big": ' + "9" * 500 + ', "ts":').encode()
        )
    ),
    _like(lambda of: json.dumps(of, indent=1).encode()),
    _like(lambda of: json.dumps(of).replace('"s0"', '"s\\u0030"').encode()),
    _like(lambda of: json.dumps(of).encode() + b" "),
    _like(lambda of: json.dumps(of).encode() + b" x"),
    _like(lambda of: b"\xef\xbb\xbf" + json.dumps(of).encode()),
    _like(lambda of: json.dumps(of).encode().replace(b"s0", b"s\xff")),
    _like(lambda of: json.dumps([of]).encode()),
    _like(lambda of: json.dumps(of | {"more": "x" * 70_000}).encode()),
    _like(lambda of: json.dumps(of | {f"f{n}": n for n in range(80)}).encode()),
    _like(lambda of: b"[" * 3000),
    _like(lambda of: b"null"),
)
