"""The canonical pixel event: its form, strict decoding, and the closed set of reasons to reject a message.

`decode` reads valid messages. `explain` gives the reason for which any other one is invalid, in the order
that the specification of events sets: malformed, invalid id or event, unknown event, invalid others.
"""

from __future__ import annotations

import re
from typing import Final

from flows.model.catalogue import events as catalogue
from flows.model.catalogue.events import NAMES, Way
from flows.model.catalogue.metrics import CONVERSION_TYPES as CONVERSION_TYPES

MAX_MESSAGE_BYTES: Final = 64 * 1024
MAX_ID: Final = 128
"""Characters of an id or label."""
MAX_CATEGORIES: Final = 32
_ID: Final = "(?=[A-Z]*[0-9])[A-Z0-9]{1,8}(?:-[0-9]{1,3})?"
_CATEGORY: Final = re.compile(f"{_ID}(?:,{_ID}){{0,31}}", re.ASCII)
MAX_AGENT_BYTES: Final = 1024
MAX_URL_BYTES: Final = 4096
"""The lengths to which user agents and landing URLs are cut, in bytes of UTF-8."""
MAX_MS: Final = 4_102_444_800_000
"""Times lie in [0, year 2100), which a 32-bit minute and every calendar can hold."""

EVENTS: Final = NAMES
"""The names of events. An event's code is its place, which is part of the state's format."""
CODES: Final = {name: code for code, name in enumerate(EVENTS)}
IMPRESSION: Final = CODES["impression"]
START: Final = CODES["start"]
FIRST_QUARTILE: Final = CODES["firstQuartile"]
COMPLETE: Final = CODES["complete"]
CLICK: Final = CODES["click"]
ERROR: Final = CODES["error"]
PROGRESS: Final = CODES["progress"]
CONVERSION: Final = CODES["conversion"]
DELIVERED: Final = CODES["delivered"]
DOWNLOAD: Final = CODES["download"]
OF_PLAY: Final = tuple(CODES[event.name] for event in catalogue.EVENTS if event.way is Way.OF_PLAY)
"""The events that count once a play and are no milestones, such as `skip`."""
assert tuple(range(COMPLETE + 1, COMPLETE + 1 + len(OF_PLAY))) == OF_PLAY, "the codes behind the milestones"
LAST_JOINING: Final = OF_PLAY[-1]
"""The last event that counts in the minute of its play's start; the first is `FIRST_QUARTILE`."""
EVENTS_OF_PEOPLE: Final = frozenset({IMPRESSION, START, CLICK, CONVERSION})
"""Events whose listener and household count, for reach, touches and conversions."""

MALFORMED, INVALID, UNKNOWN_EVENT, TOO_LATE = REASONS = ("malformed", "invalid", "unknown_event", "too_late")

_MACRO = re.compile(
    r"\[[^\[\]]+\]|%5B(?:(?!%5B|%5D).)+%5D|\$\{[^{}]+\}|\{[^{}]+\}|@[^@]+@|-[12]", re.IGNORECASE | re.DOTALL
)


_SUSPECT = frozenset("[%${@-")


def absent(text: str | None) -> bool:
    """True if a string has no meaning: missing, empty, an ad server's unreplaced macro, or VAST's -1
    and -2.
    """
    return not text or (text[0] in _SUSPECT and _MACRO.fullmatch(text) is not None)


def present(text: str | None) -> str | None:
    """`text`, or None if it is `absent`."""
    if text and text[0] not in _SUSPECT:
        return text
    return None if absent(text) else text


def each_present(texts: tuple[str | None, ...]) -> tuple[str | None, ...]:
    """Each text, or None if it is `absent`."""
    for text in texts:
        if text is not None and (not text or text[0] in _SUSPECT):
            return tuple(map(present, texts))
    return texts  # most texts need no change


def cut_bytes(text: str, most_bytes: int) -> str:
    """`text` cut to `most_bytes` bytes of UTF-8, by whole characters."""
    if len(text) * 4 <= most_bytes:  # a character has at most four bytes
        return text
    return text.encode()[:most_bytes].decode(errors="ignore")


def are_categories(value: object) -> bool:
    """True for one or more ids of the form of IAB's content taxonomies, such as IAB7-39, 432 and JLBCU7. Any
    other text may identify a listener.
    """
    ids = value if isinstance(value, (list, tuple)) else [value]
    return len(ids) <= MAX_CATEGORIES and all(
        isinstance(id_, str) and _CATEGORY.fullmatch(id_) for id_ in ids
    )
