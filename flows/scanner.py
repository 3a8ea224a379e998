"""A byte scanner for the common form of a line, several times as fast as a JSON parser that makes objects.

It reads what it is sure of and sets every other line aside for the plain way in (`flows.batches`), which
decides alone what is wrong and why. It reads

    line    = "{" pair *( "," pair ) "}"                         nothing before or behind
    pair    = [SP] string ":" [SP] ( string / integer / "true" / "false" / "null" )
    string  = DQUOTE *( ASCII from SP on, but DQUOTE and backslash ) DQUOTE
    integer = 1*18DIGIT                                          no leading zero, no sign

of at most 64 KiB, where a known field comes once, with a value of its type or null, ids have at most 128
characters, the event is known and no `conversion`, times are numbers before 2100, and no id that counts
begins like a macro. Names and user agents are known by fingerprint; a line with an unknown one is set aside
too, and `learn` takes in what became of it, if it is a pixel. Listeners are asked for instead, since far more
of them are new.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from flows import columns
from flows import vocabulary as words
from flows.events import CONVERSION, MAX_MESSAGE_BYTES, MAX_MS, PROGRESS
from flows.kernel import I64, U8, U64, kernel
from flows.memo import put
from flows.table import find
from flows.xxh64 import load64, xxh64, xxh64_of_word

_SPARE_BYTES: Final = 8
"""To be there where a line ends, since eight are read at a time."""
_MOST_QUOTES: Final = 256
_ABSENT: Final = np.uint64(0x9E3779B97F4A7C15)

_REQUIRED: Final = 1 << words.PLACEMENT | 1 << words.EVENT_ID | 1 << words.EVENT | 1 << words.TS

_EACH: Final = 0x0101010101010101
_ONES: Final = np.uint64(_EACH)
_TOPS: Final = np.uint64(0x80 * _EACH)
_LOWS: Final = np.uint64(0x7F * _EACH)
_SPACES: Final = np.uint64(0x20 * _EACH)
_QUOTES: Final = np.uint64(ord('"') * _EACH)
_BACKSLASHES: Final = np.uint64(ord("\\") * _EACH)
_LOW: Final = np.uint64(0xFFFFFFFF)
_TRUE, _FALSE, _NULL = (np.uint64(int.from_bytes(text, "little")) for text in (b"true", b"false", b"null"))
_BRACE, _END, _QUOTE, _COLON, _COMMA, _SPACE, _ZERO, _NINE = b'{}":, 09'


@kernel
def _find_quotes(block: U8, begin: int, end: int, quotes: I64) -> int:
    """Write down where a line's quotes are; returns how many, or -1 where it is not plain text.

    Looking for the end of each string in turn takes longer: each search waits for the one before it.
    """
    count = 0
    odd = np.uint64(0)
    for place in range(begin, end, 8):
        word = load64(block, place)
        if place + 8 > end:
            inside = np.uint64(8 * (end - place))
            word = (word & ((np.uint64(1) << inside) - np.uint64(1))) | (_SPACES << inside)
        # The top bit of a byte tells: it is one, or taking away borrows it.
        odd |= word | (word - _SPACES) | ((word ^ _BACKSLASHES) - _ONES)
        others = word ^ _QUOTES
        hits = ~(((others & _LOWS) + _LOWS) | others) & _TOPS
        while hits != np.uint64(0):
            if count == len(quotes):
                return -1
            below = (hits - np.uint64(1)) & ~hits & _ONES  # one bit a byte, up to the first hit
            quotes[count] = place + np.int64((below * _ONES) >> np.uint64(56)) - 1
            count += 1
            hits &= hits - np.uint64(1)
    return count if odd & _TOPS == np.uint64(0) else -1


@kernel
def _suspect(block: U8, place: int) -> bool:
    """Whether one of [ % $ { @ - is here: a macro, or VAST's -1, if `flows.events.absent` says so."""
    first = block[place]
    return bool(first == 91 or first == 37 or first == 36 or first == 123 or first == 64 or first == 45)


@kernel
def _read(block: U8, place: int, end: int, quotes: I64, begins: I64, values: I64) -> int:
    """The fields of one line: a bit for each one that has a value, or -1 where the line is to be set aside.

    By field, `values` has an integer, a truth value, or the length of a string, which begins at `begins`.
    """
    count = _find_quotes(block, place, end, quotes)
    quote = 0
    seen = 0
    given = 0
    if block[place] != _BRACE:
        return -1
    while True:
        place += 1
        if block[place] == _SPACE:
            place += 1
        if quote + 2 > count or quotes[quote] != place:
            return -1
        begin = place + 1
        place = quotes[quote + 1]
        quote += 2
        if block[place + 1] != _COLON:
            return -1
        field = min(words.number_of(block, begin, place - begin), words.UNKNOWN)
        bit = 1 << field
        if field != words.UNKNOWN and seen & bit:
            return -1
        seen |= bit
        kind = words.TYPES[field]
        place += 2
        if block[place] == _SPACE:
            place += 1
        first = block[place]
        begin = place
        if first == _QUOTE:
            if quote + 2 > count or kind > words.ID:
                return -1
            begin += 1
            place = quotes[quote + 1]
            quote += 2
            length = place - begin
            if kind == words.ID and length > 128:
                return -1
            place += 1
            begins[field] = begin
            values[field] = length
            given |= bit
        elif _ZERO <= first <= _NINE:
            number = np.int64(0)
            while _ZERO <= block[place] <= _NINE:
                number = number * 10 + np.int64(block[place]) - _ZERO
                place += 1
            digits = place - begin
            if (
                (kind != words.INTEGER and kind != words.ANY)
                or digits > 18
                or (first == _ZERO and digits > 1)
            ):
                return -1
            values[field] = number
            given |= bit
        else:
            word = load64(block, place)
            if word & np.uint64(0xFFFFFFFF) == _NULL:
                place += 4
            elif kind != words.BOOLEAN and kind != words.ANY:
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
    block: U8, ends: I64, begin: int, line: int, patience: int, stamps: I64, secret: np.uint64,
    consent_default: bool, names: U64, agents: U64, listeners: U64, listeners_used: I64, seeds: U64,
    pixels: U64, aside: U64, asked: I64, waiting: I64,
) -> tuple[int, int, int, int]:  # fmt: skip
    """Turn lines into pixels, until `patience` of them have unknown names or agents, to be learnt first.

    Args:
        block, ends, begin: the lines, as in `connectors.stream.Lines`.
        line: the first to do; `begin` is where it begins.
        stamps: the broker's timestamps, or none.
        secret: seed of the fingerprints.
        names, agents, listeners: slots of `flows.memo`: tags to their names' index in `seeds`, with the flag
            `BLOCKED` 32 bits higher; a user agent to its reason; a listener to the keyed hash, or 0 while it
            is asked for; with room for all.
        seeds: of the hashes of plays, by combination of names.
        pixels: (lines, `COLUMNS`): filled in, but for the positions and for lines that are aside or waiting.
        aside: (lines, 3): a line set aside, and the fingerprints of its unknown names and user agent, or 0.
        asked: (lines, 3): begin and end of a new listener, and its slot.
        waiting: (lines, 2): a line that waits for its listener, and the listener's slot.

    Returns:
        The next line to do, and how many rows of `aside`, `asked` and `waiting` are filled.
    """
    quotes = np.zeros(_MOST_QUOTES, np.int64)
    begins = np.zeros(words.UNKNOWN + 1, np.int64)
    values = np.zeros(words.UNKNOWN + 1, np.int64)
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
        given = _read(block, place, end, quotes, begins, values)
        if given < 0 or given & _REQUIRED != _REQUIRED:
            continue
        code = words.number_of(block, begins[words.EVENT], values[words.EVENT]) - words.UNKNOWN
        ts = values[words.TS]
        if not 0 <= code < CONVERSION or ts >= MAX_MS:
            continue
        if values[words.EVENT_ID] == 0 or _suspect(block, begins[words.EVENT_ID]):
            continue
        stamp = stamps[this] if len(stamps) else 0
        received = stamp
        if given >> words.RECEIVED & 1:
            received = max(values[words.RECEIVED], 1)
            if received >= MAX_MS:
                continue
            if stamp and received - 60_000 > stamp:
                received = stamp + 60_000
        info = np.int64(code)
        linked = given >> words.PLAY & 1 and values[words.PLAY] > 0
        if linked:
            if _suspect(block, begins[words.PLAY]):
                continue
            info |= columns.LINKED
        consent = values[words.CONSENT] == 1 if given >> words.CONSENT & 1 else consent_default
        heard = consent and given >> words.LISTENER & 1 and values[words.LISTENER] > 0
        if consent:
            info |= columns.CONSENTED
        if heard and _suspect(block, begins[words.LISTENER]):
            continue

        fingerprint = secret
        for field in range(words.TAGS):
            if given >> field & 1:
                fingerprint = xxh64(block, begins[field], values[field], fingerprint)
            else:
                fingerprint += _ABSENT  # twice is more than once, before a name or behind it
        fingerprint |= np.uint64(1)
        slot = find(names, fingerprint)
        known = names[slot, 0] == fingerprint
        if not known:
            aside[left - 1, 1] = fingerprint
        combo = names[slot, 1] & _LOW
        info |= np.int64(names[slot, 1] >> np.uint64(32))
        if given >> words.AGENT & 1 and values[words.AGENT] > 0:
            fingerprint = xxh64(block, begins[words.AGENT], values[words.AGENT], secret) | np.uint64(1)
            slot = find(agents, fingerprint)
            info |= np.int64(agents[slot, 1]) << columns.INVALID_SHIFT
            if agents[slot, 0] != fingerprint:
                aside[left - 1, 2] = fingerprint
                known = False
        if not known:
            patience -= 1
            continue

        seed = seeds[combo]
        if not linked:
            key = xxh64(block, begins[words.EVENT_ID], values[words.EVENT_ID], seed + np.uint64(1))
        elif code != PROGRESS:
            key = xxh64(block, begins[words.PLAY], values[words.PLAY], seed)
        else:
            key = xxh64(block, begins[words.PLAY], values[words.PLAY], seed + np.uint64(2))
            key = xxh64_of_word(values[words.PLAYHEAD] if given >> words.PLAYHEAD & 1 else -1, key)
        who = np.uint64(0)
        if heard:
            fingerprint = xxh64(block, begins[words.LISTENER], values[words.LISTENER], secret) | np.uint64(1)
            slot = find(listeners, fingerprint)
            if listeners[slot, 0] != fingerprint:
                put(listeners, listeners_used, fingerprint, 0)
                asked[questions, 0] = begins[words.LISTENER]
                asked[questions, 1] = begins[words.LISTENER] + values[words.LISTENER]
                asked[questions, 2] = slot
                questions += 1
            who = listeners[slot, 1]
            if who == np.uint64(0):
                waiting[waits, 0] = this
                waiting[waits, 1] = slot
                waits += 1
        pixels[this, columns.KEY] = key
        pixels[this, columns.LISTENER] = who
        pixels[this, columns.TS] = ts
        pixels[this, columns.WATERMARK] = received
        pixels[this, columns.INFO] = info
        pixels[this, columns.COMBO] = combo
        left -= 1
    return line, left, questions, waits


@kernel
def learn(rows: U64, aside: U64, names: U64, names_used: I64, agents: U64, agents_used: I64) -> None:
    """Take in what the plain way made of lines set aside: a row of pixels for each row of `aside`."""
    for i in range(len(rows)):
        if aside[i, 1] != np.uint64(0):
            blocked = rows[i, columns.INFO] & np.uint64(columns.BLOCKED)
            put(names, names_used, aside[i, 1], rows[i, columns.COMBO] | (blocked << np.uint64(32)))
        if aside[i, 2] != np.uint64(0):
            put(agents, agents_used, aside[i, 2], rows[i, columns.INFO] >> np.uint64(columns.INVALID_SHIFT))
