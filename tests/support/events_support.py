"""Events, right and wrong in every way, and what the plain way in makes of one."""

from __future__ import annotations

import json
from typing import Any

from connectors.stream import Messages
from flows.intake.decoder import Batch, Decoder
from flows.model.pixel import COMBO, KEY, ConversionPixel

MAX_MS = 4_102_444_800_000
EVENT: dict[str, Any] = {
    "event_id": "e-1",
    "event": "start",
    "ts": 1_764_000_000_000,
    "placement_id": "pl-1",
    "play_id": "play-1",
    "consent": True,
    "listener_id": "somebody",
}
CONVERSION: dict[str, Any] = {
    "event_id": "v-1",
    "event": "conversion",
    "ts": 1_764_000_000_000,
    "campaign_id": "c-1",
    "conversion": {"type": "purchase"},
}
DROP = object()
MACROS = ("[X]", "%5BX%5D", "%5bplay id%5d", "${X}", "{x}", "@X@", "-1", "-2")


def decode(*raws: bytes, stamps: list[int] | None = None, consent_default: bool = False) -> Batch:
    messages = Messages(raws, range(1, len(raws) + 1), len(raws) + 1, stamps)
    return Decoder(b"0123456789abcdef", consent_default, scanning=False).decode(messages)


def raw_of(base: dict[str, Any], **change: Any) -> bytes:
    return json.dumps(
        {name: value for name, value in {**base, **change}.items() if value is not DROP}
    ).encode()


def pixel_of(raw: bytes, **options: Any) -> list[int]:
    batch = decode(raw, **options)
    assert batch.rejected == []
    return [int(number) for number in batch.pixels[0]]


def key_of(base: dict[str, Any], **change: Any) -> int:
    return pixel_of(raw_of(base, **change))[KEY]


def conversion_of(**change: Any) -> ConversionPixel:
    batch = decode(raw_of(CONVERSION, conversion={"type": "purchase", **change}))
    assert batch.rejected == []
    return batch.conversions[int(batch.pixels[0, COMBO])]


def why(raw: bytes, **options: Any) -> tuple[str, str | None]:
    batch = decode(raw, **options)
    assert len(batch.pixels) == 0
    ((_, rejection),) = batch.rejected
    return rejection.reason, rejection.field


MALFORMED = {
    "blank": b"",
    "spaces": b"  ",
    "cut": raw_of(EVENT)[:-1],
    "trailing brace": raw_of(EVENT) + b"}",
    "two objects": raw_of(EVENT) + raw_of(EVENT),
    "array": b"[" + raw_of(EVENT) + b"]",
    "number": b"17",
    "string": b'"start"',
    "null": b"null",
    "single quotes": b"{'event_id':'x'}",
    "trailing comma": raw_of(EVENT)[:-1] + b",}",
    "leading zero": raw_of(EVENT).replace(b"1764000000000", b"01764000000000"),
    "NaN": raw_of(EVENT).replace(b"1764000000000", b"NaN"),
    "NaN in an unknown field": raw_of(EVENT)[:-1] + b',"x":NaN}',
    "infinity": raw_of(EVENT)[:-1] + b',"x":-Infinity}',
    "control character": raw_of(EVENT).replace(b"play-1", b"play\x01"),
    "bad UTF-8": raw_of(EVENT).replace(b"play-1", b"caf\xe9"),
    "bad UTF-8 in an unknown field": raw_of(EVENT)[:-1] + b',"x":"caf\xe9"}',
    "bad UTF-8 in an unknown name": raw_of(EVENT)[:-1] + b',"caf\xe9":1}',
    "bad UTF-8 within an unknown object": raw_of(EVENT)[:-1] + b',"x":{"y":["\xc3\x28"]}}',
    "surrogate in UTF-8": raw_of(EVENT).replace(b"play-1", b"\xed\xa0\x80"),
    "lone surrogate behind a number that no double holds": (
        b'{"x":1e999,' + raw_of(EVENT)[1:-1] + b',"station":"\\ud83d"}'
    ),
    "lone surrogate": raw_of(EVENT).replace(b"play-1", b"\\ud800"),
    "byte order mark": b"\xef\xbb\xbf" + raw_of(EVENT),
    "UTF-16": raw_of(EVENT).decode().encode("utf-16"),
    "over 64 KiB": raw_of(EVENT)[:-1] + b',"x":"' + b"." * (64 << 10) + b'"}',
    "over 64 KiB and bad": b"{" * ((64 << 10) + 1),
    "nested without end": raw_of(EVENT)[:-1] + b',"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
}

WRONG: dict[str, list[Any]] = {
    "ts": [DROP, None, True, 1.5, 1e12, [1], {}, "yesterday", "1764000000000", "2026-13-01", -1, MAX_MS],
    "received_at": [False, 2.5, "soon", [], "2026-01-01T00:00:00", -1, MAX_MS],
    "placement_id": [DROP, None, "", 12, False, ["pl"], "x" * 129, *MACROS],
    "play_id": [3, True, {}, "x" * 129],
    "campaign_id": [9, "x" * 129],
    "creative_id": [9, "x" * 129],
    "platform": [1, [], "x" * 129],
    "station": [1.5, "é" * 129],
    "podcast": [{"a": 1}, "x" * 129],
    "program": [False, "[" + "x" * 127 + "]"],
    "listener_id": [123, ["a"], "x" * 129],
    "household_id": [1.5, {}, "x" * 129],
    "consent": [0, 1, "yes", "true", []],
    "device_confirmed": [0, 1, "yes", []],
    "playhead_ms": ["1200", 1.5, True, [0]],
    "duration_ms": ["PT30S", 0.5, {}],
    "low_ms": ["1200", 0.5, True],
    "user_agent": [7, []],
    "ip": [2130706433],
    "content_category": [150, {"id": "150"}, ["a", 1]],
    "landing_url": [4, []],
    "conversion": ["purchase", 1, []],
}  # fmt: skip
