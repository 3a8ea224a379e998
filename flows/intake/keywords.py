"""The words of a pixel (fields and events), for recognition in compiled loops."""

from __future__ import annotations

from typing import Final

import numpy as np

from flows.model.basis import CODES
from flows.model.catalogue import fields as catalogue
from flows.model.catalogue.fields import Kind
from flows.model.dimensions import NAMES
from flows.model.events import CONVERSION, EVENTS
from flows.state.arrays import U8
from flows.state.kernel import lean
from flows.state.siphash import load64

ANY, TEXT, ID, INTEGER, BOOLEAN, NESTED = range(6)
_KINDS: Final = {
    Kind.ID: ID,
    Kind.TEXT: TEXT,
    Kind.CATEGORIES: TEXT,
    Kind.MOMENT: INTEGER,
    Kind.WHOLE: INTEGER,
    Kind.TRUTH: BOOLEAN,
    Kind.OBJECT: NESTED,
}
_KNOWN: Final = {field.name: _KINDS[field.kind] for field in catalogue.FIELDS if field.scanned}
_TAGS: Final = ("content_category", *NAMES)
FIELDS: Final = {name: _KNOWN[name] for name in _TAGS} | _KNOWN
"""The fields of a pixel, the tags first, each with the type of its most common form."""

NAMED: Final = _TAGS.index(NAMES[0])
"""The first tag that is a name of `flows.model.dimensions.NAMES`; a flow may use only some of these names."""
TAGS: Final = len(_TAGS)
PLACEMENT: Final = NAMED
_NUMBER_OF: Final = {name: number for number, name in enumerate(FIELDS)}
EVENT_ID: Final = _NUMBER_OF["event_id"]
BASIS: Final = _NUMBER_OF["basis"]
EVENT: Final = _NUMBER_OF["event"]
TS: Final = _NUMBER_OF["ts"]
RECEIVED: Final = _NUMBER_OF["received_at"]
PLAY: Final = _NUMBER_OF["play_id"]
LISTENER: Final = _NUMBER_OF["listener_id"]
CONSENT: Final = _NUMBER_OF["consent"]
PLAYHEAD: Final = _NUMBER_OF["playhead_ms"]
AGENT: Final = _NUMBER_OF["user_agent"]
TRAFFIC: Final = _NUMBER_OF["invalid_traffic"]
COLLECTOR: Final = _NUMBER_OF["collector"]
LOW: Final = _NUMBER_OF["low_ms"]
CONFIRMED: Final = _NUMBER_OF["device_confirmed"]
CLIENT: Final = _NUMBER_OF["client_id"]
HOUSEHOLD: Final = _NUMBER_OF["household_id"]
UNKNOWN: Final = len(FIELDS)
"""The number of any other field. An event's code is the excess of its word's number over it."""
TYPES: Final = np.array([*FIELDS.values(), ANY], np.int64)

# A word is found by its length, its first eight and its last eight bytes; the factor gives each word its own
# slot. `conversion` is a field, and the scanner reads no such event. `download` is an event and a basis.
_FIRST_BASIS: Final = UNKNOWN + len(EVENTS)
_WORDS: Final = (
    {name: _FIRST_BASIS + code for name, code in CODES.items()}
    | {name: UNKNOWN + code for code, name in enumerate(EVENTS) if code != CONVERSION}
    | {name: number for number, name in enumerate(FIELDS)}
)
_NONE: Final = _FIRST_BASIS + len(CODES)
_BASIS_CODES: Final = np.full(_NONE + 1, -1, np.int64)
_BASIS_CODES[[_WORDS[name] for name in CODES]] = [*CODES.values()]
_FACTOR: Final = 0x8DC342B1DB3C2227
_SPREAD: Final = np.uint64(_FACTOR)
_SLOTS: Final = np.zeros((128, 2), np.uint64)
_LENGTHS: Final = np.full(128, -1, np.int64)
_NUMBERS: Final = np.zeros(128, np.int64)
for _word, _number in _WORDS.items():
    _head, _tail = (int.from_bytes(part.encode(), "little") for part in (_word[:8], _word[8:] and _word[-8:]))
    _slot = _head * _FACTOR % 2**64 >> 57
    assert _LENGTHS[_slot] == -1, "another factor is needed for these words"
    _SLOTS[_slot] = _head, _tail
    _LENGTHS[_slot], _NUMBERS[_slot] = len(_word), _number


@lean
def number_of(block: U8, begin: int, length: int) -> int:
    """The number of the word at `begin`: a field's number in `FIELDS`, a greater number for an event, or the
    greatest for another word.
    """
    head = load64(block, begin)
    tail = np.uint64(0)
    if length > 8:
        tail = load64(block, begin + length - 8)
    elif length < 8:
        head &= (np.uint64(1) << np.uint64(8 * length)) - np.uint64(1)
    slot = (head * _SPREAD) >> np.uint64(57)
    if _SLOTS[slot, 0] == head and _SLOTS[slot, 1] == tail and _LENGTHS[slot] == length:
        return _NUMBERS[slot]  # type: ignore[no-any-return]
    return _NONE


@lean
def basis_of(block: U8, begin: int, length: int) -> int:
    """The code of the basis at `begin`; -1 for any other word."""
    return _BASIS_CODES[number_of(block, begin, length)]  # type: ignore[no-any-return]
