"""A byte scanner for the common form of a line, several times as fast as a JSON parser that makes objects.

It reads what it is sure of and sets every other line aside for the plain way in (`flows.batches`), which alone decides
what is wrong and why. It reads

    line    = "{" pair *( "," pair ) "}"                         nothing before or behind
    pair    = [SP] string ":" [SP] ( string / integer / "true" / "false" / "null" )
    string  = DQUOTE *( ASCII from SP on, but DQUOTE and backslash ) DQUOTE
    integer = 1*18DIGIT                                          no leading zero, no sign

of at most 64 KiB, where a known field comes once, with a value of its type or null, ids have at most 128 characters, the
event is known and no `conversion`, times are numbers before 2100, and no id or name that is needed begins like a macro.
Names and user agents are known by fingerprint; a line with an unknown one is set aside too, and `learn` takes in what
became of it. Listeners are asked for instead, since far more of them are new.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from flows.columns import COMBO, CONSENTED, INFO, INVALID_SHIFT, KEY, LINKED, LISTENER, TS, WATERMARK
from flows.events import CONVERSION, EVENTS, MAX_MESSAGE_BYTES, MAX_MS, PROGRESS
from flows.kernel import I64, U8, U64, kernel
from flows.memo import put
from flows.table import find
from flows.xxh64 import load64, xxh64, xxh64_of_word

_SPARE_BYTES: Final = 8
"""Eight are read at a time, so that there must be as many where a line ends."""

_ANY, _TEXT, _ID, _INTEGER, _BOOLEAN, _NESTED = range(6)
_FIELDS: Final = {
    "placement_id": _ID, "campaign_id": _ID, "platform": _TEXT, "station": _TEXT, "podcast": _TEXT, "program": _TEXT,
    "event_id": _ID, "event": _TEXT, "ts": _INTEGER, "received_at": _INTEGER, "play_id": _ID, "listener_id": _ID,
    "consent": _BOOLEAN, "playhead_ms": _INTEGER, "user_agent": _TEXT, "duration_ms": _INTEGER, "creative_id": _ID,
    "ip": _TEXT, "content_category": _TEXT, "landing_url": _TEXT, "conversion": _NESTED,
}  # fmt: skip
"""The fields of `flows.events.Event`, the six names first, each with the type that is read here."""

_NAMES: Final = 6
_PLACEMENT: Final = 0
_EVENT_ID, _EVENT, _TS, _RECEIVED, _PLAY, _LISTENER, _CONSENT, _PLAYHEAD, _AGENT = range(6, 15)
_UNKNOWN: Final = len(_FIELDS)
_REQUIRED: Final = 1 << _PLACEMENT | 1 << _EVENT_ID | 1 << _EVENT | 1 << _TS
_TYPES: Final = np.array([*_FIELDS.values(), _ANY], np.int64)

# Every word is known by its length, its first eight bytes and its last eight; the multiplier puts each in a slot of its own.
_WORDS: Final = (*_FIELDS, *EVENTS[:CONVERSION])
_SPREAD: Final = np.uint64(0xEE071E1F2283BE23)
_SLOTS: Final = np.zeros((128, 2), np.uint64)
_LENGTHS: Final = np.full(128, -1, np.int64)
_NUMBERS: Final = np.zeros(128, np.int64)
_NO_WORD: Final = len(_WORDS)
for _number, _word in enumerate(_WORDS):
    _head, _tail = (int.from_bytes(part.encode(), "little") for part in (_word[:8], _word[8:] and _word[-8:]))
    _slot = _head * int(_SPREAD) % 2**64 >> 57
    assert _LENGTHS[_slot] == -1
    _SLOTS[_slot] = _head, _tail
    _LENGTHS[_slot], _NUMBERS[_slot] = len(_word), _number

_EACH: Final = 0x0101010101010101
_ONES: Final = np.uint64(_EACH)
_TOPS: Final = np.uint64(0x80 * _EACH)
_SPACES: Final = np.uint64(0x20 * _EACH)
_QUOTES: Final = np.uint64(ord('"') * _EACH)
_BACKSLASHES: Final = np.uint64(ord("\\") * _EACH)
_TRUE, _FALSE, _NULL = (np.uint64(int.from_bytes(text, "little")) for text in (b"true", b"false", b"null"))
_BRACE, _END, _QUOTE, _COLON, _COMMA, _SPACE, _ZERO, _NINE = b'{}":, 09'


@kernel
def _closing(block: U8, place: int) -> int:
    """The first byte from `place` on that is a quote, or cannot be in a plain string."""
    while True:
        word = load64(block, place)
        # A byte less than b borrows from its top bit in word - b (Mycroft); a wrong hit is always above a right one.
        odd = (word - _SPACES) | ((word ^ _QUOTES) - _ONES) | ((word ^ _BACKSLASHES) - _ONES)
        odd = ((odd & ~word) | word) & _TOPS
        if odd != np.uint64(0):
            below = (odd - np.uint64(1)) & ~odd & _ONES  # a bit a byte, up to the first hit
            return place + np.int64((below * _ONES) >> np.uint64(56)) - 1
        place += 8


@kernel
def _number_of(block: U8, begin: int, length: int) -> int:
    """A word's place in `_WORDS`, `_NO_WORD` for any other."""
    head = load64(block, begin)
    tail = np.uint64(0)
    if length > 8:
        tail = load64(block, begin + length - 8)
    elif length < 8:
        head &= (np.uint64(1) << np.uint64(8 * length)) - np.uint64(1)
    slot = np.int64((head * _SPREAD) >> np.uint64(57))
    if _SLOTS[slot, 0] == head and _SLOTS[slot, 1] == tail and _LENGTHS[slot] == length:
        return _NUMBERS[slot]
    return _NO_WORD


@kernel
def _suspect(block: U8, place: int) -> bool:
    """Whether a macro, or VAST's -1, may begin here: `flows.events.absent` is to judge."""
    first = block[place]
    return (
        first == 91 or first == 37 or first == 36 or first == 123 or first == 64 or first == 45
    )  # [ % $ { @ -


@kernel
def _read(block: U8, place: int, end: int, begins: I64, values: I64) -> int:
    """The fields of one line: a bit for each known one that has a value, or -1 where the line is to be set aside.

    `values` are a field's integer, truth value, or length of a string from `begins` on; by field, as in `_FIELDS`.
    """
    seen = 0
    given = 0
    if block[place] != _BRACE:
        return -1
    while True:
        place += 1
        if block[place] == _SPACE:
            place += 1
        if block[place] != _QUOTE:
            return -1
        begin = place + 1
        place = _closing(block, begin)
        if block[place] != _QUOTE or block[place + 1] != _COLON:
            return -1
        field = min(_number_of(block, begin, place - begin), _UNKNOWN)
        bit = 1 << field
        if field != _UNKNOWN and seen & bit:
            return -1
        seen |= bit
        kind = _TYPES[field]
        place += 2
        if block[place] == _SPACE:
            place += 1
        first = block[place]
        begin = place
        if first == _QUOTE:
            begin += 1
            place = _closing(block, begin)
            length = place - begin
            if block[place] != _QUOTE or kind > _ID or (kind == _ID and length > 128):
                return -1
            place += 1
            begins[field] = begin
            values[field] = length
            given |= bit
        elif _ZERO <= first <= _NINE:
            number = 0
            while _ZERO <= block[place] <= _NINE:
                number = number * 10 + np.int64(block[place]) - _ZERO
                place += 1
            if (
                (kind != _INTEGER and kind != _ANY)
                or place - begin > 18
                or (first == _ZERO and place - begin > 1)
            ):
                return -1
            values[field] = number
            given |= bit
        else:
            word = load64(block, place)
            if word & np.uint64(0xFFFFFFFF) == _NULL:
                place += 4
            elif kind != _BOOLEAN and kind != _ANY:
                return -1
            elif word & np.uint64(0xFFFFFFFF) == _TRUE:
                place += 4
                values[field] = 1
                given |= bit
            elif word & np.uint64(0xFFFFFFFFFF) == _FALSE:
                place += 5
                values[field] = 0
                given |= bit
            else:
                return -1
        if block[place] == _END:
            return given if place + 1 == end else -1
        if block[place] != _COMMA:
            return -1


@kernel
def scan(
    block: U8, ends: I64, begin: int, line: int, patience: int, stamps: I64, secret: int, consent_default: bool,
    names: U64, agents: U64, listeners: U64, listeners_used: I64, seeds: U64,
    pixels: U64, aside: U64, asked: I64, waiting: I64,
) -> tuple[int, int, int, int]:  # fmt: skip
    """Turn lines into pixels, until `patience` of them have unknown names or agents, so that these can be learnt.

    Args:
        block, ends, begin: the lines, as in `connectors.stream.Lines`.
        line: the first to do; `begin` is where it begins.
        stamps: the broker's timestamps, or none.
        secret: seed of the fingerprints.
        names, agents, listeners: slots of `flows.memo`: of six names to their index in `seeds`, of a user agent
            to its reason, of a listener to the keyed hash, or 0 where it is asked for; with room for all lines.
        seeds: of the hashes of plays, by combination of names.
        pixels: (lines, `COLUMNS`): filled in, but for the positions and for lines that are aside or waiting.
        aside: (lines, 3): a line set aside, and the fingerprints of its unknown names and user agent, or 0.
        asked: (lines, 3): begin and length of a new listener, and its slot.
        waiting: (lines, 2): a line that waits for its listener, and the listener's slot.

    Returns:
        The next line to do, and how many rows of `aside`, `asked` and `waiting` are filled.
    """
    begins = np.zeros(_UNKNOWN + 1, np.int64)
    values = np.zeros(_UNKNOWN + 1, np.int64)
    left = questions = waits = 0
    while line < len(ends) and patience > 0:
        this = line
        line += 1
        place = begin
        end = ends[this]
        begin = end + 1
        aside[left, 0] = this
        aside[left, 1] = aside[left, 2] = 0
        left += 1  # until the line is found to be plain
        if end - place > MAX_MESSAGE_BYTES or end + _SPARE_BYTES > len(block):
            continue
        given = _read(block, place, end, begins, values)
        if given < 0 or given & _REQUIRED != _REQUIRED:
            continue
        code = _number_of(block, begins[_EVENT], values[_EVENT]) - _UNKNOWN
        ts = values[_TS]
        if not 0 <= code < CONVERSION or ts >= MAX_MS:
            continue
        if values[_EVENT_ID] == 0 or _suspect(block, begins[_EVENT_ID]):
            continue
        if values[_PLACEMENT] == 0 or _suspect(block, begins[_PLACEMENT]):
            continue
        stamp = stamps[this] if len(stamps) else 0
        received = stamp
        if given >> _RECEIVED & 1:
            received = values[_RECEIVED]
            if received >= MAX_MS:
                continue
            if stamp and received - 60_000 > stamp:
                received = stamp + 60_000
        info = code
        linked = given >> _PLAY & 1 and values[_PLAY] > 0
        if linked:
            if _suspect(block, begins[_PLAY]):
                continue
            info |= LINKED
        consent = values[_CONSENT] == 1 if given >> _CONSENT & 1 else consent_default
        heard = consent and given >> _LISTENER & 1 and values[_LISTENER] > 0
        if consent:
            info |= CONSENTED
        if heard and _suspect(block, begins[_LISTENER]):
            continue

        fingerprint = secret
        for field in range(_NAMES):
            if given >> field & 1:
                fingerprint = xxh64(block, begins[field], values[field], fingerprint)
            else:
                fingerprint = ~fingerprint
        fingerprint |= np.uint64(1)
        slot = find(names, fingerprint)
        known = names[slot, 0] == fingerprint
        if not known:
            aside[left - 1, 1] = fingerprint
        combo = names[slot, 1]
        if given >> _AGENT & 1 and values[_AGENT] > 0:
            fingerprint = xxh64(block, begins[_AGENT], values[_AGENT], secret) | np.uint64(1)
            slot = find(agents, fingerprint)
            info |= np.int64(agents[slot, 1]) << INVALID_SHIFT
            if agents[slot, 0] != fingerprint:
                aside[left - 1, 2] = fingerprint
                known = False
        if not known:
            patience -= 1
            continue

        seed = seeds[combo]
        if not linked:
            key = xxh64(block, begins[_EVENT_ID], values[_EVENT_ID], seed + np.uint64(1))
        elif code != PROGRESS:
            key = xxh64(block, begins[_PLAY], values[_PLAY], seed)
        else:
            key = xxh64(block, begins[_PLAY], values[_PLAY], seed + np.uint64(2))
            key = xxh64_of_word(values[_PLAYHEAD] if given >> _PLAYHEAD & 1 else -1, key)
        who = np.uint64(0)
        if heard:
            fingerprint = xxh64(block, begins[_LISTENER], values[_LISTENER], secret) | np.uint64(1)
            slot = find(listeners, fingerprint)
            if listeners[slot, 0] != fingerprint:
                put(listeners, listeners_used, fingerprint, 0)
                asked[questions, 0] = begins[_LISTENER]
                asked[questions, 1] = values[_LISTENER]
                asked[questions, 2] = slot
                questions += 1
            who = listeners[slot, 1]
            if who == np.uint64(0):
                waiting[waits, 0] = this
                waiting[waits, 1] = slot
                waits += 1
        pixels[this, KEY] = key
        pixels[this, LISTENER] = who
        pixels[this, TS] = ts
        pixels[this, WATERMARK] = received
        pixels[this, INFO] = info
        pixels[this, COMBO] = combo
        left -= 1
    return line, left, questions, waits


@kernel
def learn(rows: U64, aside: U64, names: U64, names_used: I64, agents: U64, agents_used: I64) -> None:
    """Take in what the plain way made of lines that were set aside: one row of pixels for each row of `aside`."""
    for i in range(len(rows)):
        if aside[i, 1] != np.uint64(0):
            put(names, names_used, aside[i, 1], rows[i, COMBO])
        if aside[i, 2] != np.uint64(0):
            put(agents, agents_used, aside[i, 2], rows[i, INFO] >> np.uint64(INVALID_SHIFT))
