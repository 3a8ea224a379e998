"""The limits of a call to the collector's doors, each with the answer beyond it."""

from __future__ import annotations

from typing import Final

MAX_LINE_BYTES: Final = 16 << 10
MAX_HEADERS: Final = 64
MAX_PARAMETERS: Final = 128
LONGEST_VALUE: Final = 16_384
LONGEST_ID: Final = 128
MAX_PIXEL_BYTES: Final = 64 << 10
"""Anybody may send a pixel. No browser's beacon, and no event of the flow, is longer."""
MAX_BODY_BYTES: Final = 1 << 20
MAX_EVENTS: Final = 1_000

LIMITS: Final = (
    ("a path with its query", MAX_LINE_BYTES, "bytes", "431"),
    ("headers", MAX_HEADERS, "", "431"),
    ("the body of a pixel, or of a form for tags", MAX_PIXEL_BYTES, "bytes", "413"),
    ("the body of an array or NDJSON", MAX_BODY_BYTES, "bytes", "413; send several calls"),
    ("events of an array or NDJSON", MAX_EVENTS, "", "400; none of them is stored"),
    ("parameters of a URL, a form or a JSON pixel", MAX_PARAMETERS, "", "`malformed`"),
    ("a value, still encoded", LONGEST_VALUE, "characters", "the rest is not read"),
    ("an id or a label", LONGEST_ID, "characters", "`invalid`"),
)
"""The limits: of a part of a call, the most of it, its unit, and the end of a call beyond it."""
