"""A byte scanner for the common form of a line, several times as fast as a JSON parser that makes objects.

The scanner reads only lines that are certainly valid. It leaves every other line to the slow path
(`flows.intake.decoder`), which alone decides whether and why a line is wrong. A line that fits a learned
layout is read piece by piece (`flows.intake.layouts`), any other word by word. The scanner reads

    line    = "{" pair *( "," pair ) "}"                         nothing before or behind
    pair    = [SP] string ":" [SP] ( string / integer / "true" / "false" / "null" )
    string  = DQUOTE *( ASCII from SP on, but DQUOTE and backslash ) DQUOTE
    integer = 1*18DIGIT                                          no leading zero, no sign

of at most 64 KiB, where a known field comes once, with a value of its type or null, ids and labels have at
most 128 characters, the event is known and no `conversion`, no `delivered` or `download` names a client,
nobody has judged it invalid, times are numbers before 2100, and no id that counts begins like a macro. Names,
user agents and listeners are cached by fingerprint. The scanner itself hashes new listeners, and every
household. It requests new names and user agents once; their lines wait, and are read again when the cache has
them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from connectors.stream import SPARE_BYTES
from flows.intake import keywords as words
from flows.intake.fingerprints import put, room
from flows.intake.holds import CollectorMarks
from flows.intake.identity import EVENT, NO_PLAYHEAD, PLAY, identity
from flows.intake.layouts import (
    FALSE,
    FIVE_BYTES,
    FOUR_BYTES,
    MAX_TAG_BYTES,
    MISSED,
    NOTHING,
    TRUE,
    Layouts,
    fit,
)
from flows.intake.text_masks import WIDTH, text_masks
from flows.model import pixel
from flows.model.events import (
    CLICK,
    DELIVERED,
    EVENTS,
    MAX_AGENT_BYTES,
    MAX_ID,
    MAX_MESSAGE_BYTES,
    MAX_MS,
    PROGRESS,
    START,
)
from flows.state.arrays import I64, U8, U64
from flows.state.bits import lowest
from flows.state.blake2b import BLOCK_BYTES, BLOCK_WORDS, hash64
from flows.state.hash_table import find
from flows.state.kernel import lean
from flows.state.siphash import begin, end, load64, siphash, siphash24, text, word

assert SPARE_BYTES >= WIDTH
assert BLOCK_BYTES >= MAX_ID
_MAX_QUOTES: Final = 256
_EVENTS: Final = len(EVENTS)

ASKED: Final = np.uint64(2**64 - 1)
"""The cached value of a key that has been requested."""
REFUSED: Final = np.uint64(2**64 - 2)
"""The cached value of names that no pixel may have. The line goes to the slow path, which determines the
reason.
"""
LEFT, AGAIN, NAMES, AGENTS = range(4)


class Desk(NamedTuple):
    """The output arrays of a scan; `filled` has the number of rows of each.

    Attributes:
        left: (lines,) lines for the slow path.
        again: (lines,) lines that wait for names or a user agent, to be read again.
        names: (lines, 1 + 2 * tags) slot of requested dimensions, and begin and end of each tag (-1 if
            absent).
        agents: (lines, 3) slot of a requested user agent, its begin and end.
        collector_marks: the collectors and low marks of the lines.
        quotes, begins, values, scratch: working memory for one line, so that the kernel allocates none.
    """

    left: I64
    again: I64
    names: I64
    agents: I64
    collector_marks: CollectorMarks
    filled: I64
    quotes: I64
    begins: I64
    values: I64
    scratch: U64

    @classmethod
    def of(cls, lines: int, tags: int, collector_marks: CollectorMarks) -> Desk:
        """A desk with room for `lines` lines, whose dimensions have `tags` tags."""
        left, again = np.empty(lines, np.int64), np.empty(lines, np.int64)
        names, agents = np.empty((lines, 1 + 2 * tags), np.int64), np.empty((lines, 3), np.int64)
        fields = words.UNKNOWN + 1
        return cls(
            left, again, names, agents, collector_marks, np.zeros(4, np.int64),
            quotes=np.zeros(_MAX_QUOTES, np.int64),
            begins=np.zeros(fields, np.int64),
            values=np.zeros(fields, np.int64),
            scratch=np.zeros(BLOCK_WORDS + 8, np.uint64),
        )  # fmt: skip


_REQUIRED: Final = 1 << words.PLACEMENT | 1 << words.EVENT_ID | 1 << words.EVENT | 1 << words.TS

_LOW: Final = np.uint64(0xFFFFFFFF)
_BRACE, _END, _QUOTE, _COLON, _COMMA, _SPACE, _ZERO, _NINE = b'{}":, 09'


@lean
def _find_quotes(block: U8, begin: int, end: int, quotes: I64) -> int:
    """Write the places of a line's quotes to `quotes`; returns their number, or -1 if the line is not plain
    text.

    Searching the end of each string in turn takes longer: each search waits for the one before.
    """
    count = 0
    for place in range(begin, end, WIDTH):
        hits, odd = text_masks(block, place)
        if place + WIDTH > end:
            inside = (np.uint64(1) << np.uint64(end - place)) - np.uint64(1)
            hits, odd = hits & inside, odd & inside
        if odd != np.uint64(0):
            return -1
        while hits != np.uint64(0):
            if count == len(quotes):
                return -1
            quotes[count] = place + lowest(hits)
            count += 1
            hits &= hits - np.uint64(1)
    return count


@lean
def _suspect(block: U8, place: int) -> bool:
    """True if one of [ % $ { @ - stands at `place`: `flows.model.events.absent` must then decide whether the
    text is a macro or VAST's -1.
    """
    first = block[place]
    return bool(first == 91 or first == 37 or first == 36 or first == 123 or first == 64 or first == 45)


@lean
def read(block: U8, place: int, end: int, quotes: I64, begins: I64, values: I64) -> int:
    """The fields of one line: a bit for each field with a value, or -1 if the line is for the slow path.

    By field, `values` has an integer, a truth value, or the length of a string that begins at `begins`.
    """
    count = _find_quotes(block, place, end, quotes)
    quote = 0
    named_bits = 0
    field_bits = 0
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
        if field != words.UNKNOWN and named_bits & bit:
            return -1
        named_bits |= bit
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
            if (kind == words.ID and length > MAX_ID) or (field < words.TAGS and length > MAX_TAG_BYTES):
                return -1
            place += 1
            begins[field] = begin
            values[field] = length
            field_bits |= bit
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
            field_bits |= bit
        else:
            word = load64(block, place)
            if word & FOUR_BYTES == NOTHING:
                place += 4
            elif kind != words.BOOLEAN and kind != words.ANY:
                return -1
            elif word & FOUR_BYTES == TRUE:
                place += 4
                values[field] = 1
                field_bits |= bit
            elif word & FIVE_BYTES == FALSE:
                place += 5
                values[field] = 0
                field_bits |= bit
            else:
                return -1
        if block[place] == _END:
            return field_bits if place + 1 == end else -1
        if block[place] != _COMMA:
            return -1


@lean
def _fingerprint(
    low: np.uint64, high: np.uint64, block: U8, tags: int, field_bits: int, begins: I64, values: I64
) -> np.uint64:
    """The fingerprint of a line's first tags: the bits of the present ones, and each with its length."""
    state = word(begin(low, high), np.uint64(field_bits & ((1 << tags) - 1)))
    for field in range(tags):
        if field_bits >> field & 1:
            state = text(state, block, begins[field], values[field], 0)
    return end(state) | np.uint64(1)


@lean
def collector_of(secret: U64, block: U8, begin: int, length: int) -> np.uint64:
    """The keyed hash of a collector's id; never 0, which means no collector."""
    hash_value = siphash(secret[2], secret[3], block, begin, length)
    return hash_value if hash_value != np.uint64(0) else np.uint64(1)


@lean
def scan(
    block: U8, ends: I64, first: int, lines: I64, done: int, stamps: I64, secret: U64, consent_default: bool,
    names: U64, names_used: I64, agents: U64, agents_used: I64, listeners: U64, listeners_used: I64,
    listener_key: U64, keys: U64, tags: int, pixels: U64, desk: Desk, layouts: Layouts,
) -> int:  # fmt: skip
    """Convert lines to pixels, to the end, or until a cache has no room.

    Args:
        block, ends, first: the lines, as in `connectors.stream.Lines`.
        lines, done: the numbers of the lines to read, and how many of them are read already.
        stamps: the broker's timestamps, or none.
        secret: the keys of fingerprints (two words), of collectors, and of households.
        names, agents, listeners: slots of `flows.intake.fingerprints`: tags to their names' index in `keys`,
            with their flags and their platform's basis 32 bits higher, or `REFUSED`; a user agent to its
            reason; a listener to the keyed hash. A requested key has the value `ASKED`.
        listener_key: of `flows.state.people`.
        keys: the keys of the identities of plays and events, by dimensions.
        tags: the number of tags that distinguish dimensions.
        pixels: (lines, `COLUMNS`): filled, except positions, and lines that are left or wait.
        desk: is emptied.
        layouts: the common text of lines; gets the number of a line that fitted no layout.

    Returns:
        How many of `lines` are done.
    """
    quotes, begins, values, scratch = desk.quotes, desk.begins, desk.values, desk.scratch
    low, high, home_low, home_high = secret[0], secret[1], secret[4], secret[5]
    filled = desk.filled
    filled[:] = 0
    while (
        done < len(lines)
        and room(names, names_used)
        and room(agents, agents_used)
        and room(listeners, listeners_used)
    ):
        this = lines[done]
        done += 1
        place = ends[this - 1] + 1 if this else first
        line_end = ends[this]
        desk.left[filled[LEFT]] = this
        filled[LEFT] += 1  # until the line is known to be plain
        if line_end - place > MAX_MESSAGE_BYTES or line_end + WIDTH > len(block):
            continue
        field_bits = fit(block, place, line_end, layouts, begins, values)
        if field_bits < 0:
            field_bits = read(block, place, line_end, quotes, begins, values)
            if field_bits >= 0:
                layouts.counters[MISSED] = this
        if field_bits < 0 or field_bits & _REQUIRED != _REQUIRED:
            continue
        code = words.number_of(block, begins[words.EVENT], values[words.EVENT]) - words.UNKNOWN
        ts = values[words.TS]
        if not 0 <= code < _EVENTS or ts >= MAX_MS:
            continue
        if values[words.EVENT_ID] == 0 or _suspect(block, begins[words.EVENT_ID]):
            continue
        if field_bits >> words.TRAFFIC & 1 and values[words.TRAFFIC] > 0:
            continue
        stamp = stamps[this] if len(stamps) else 0
        received = stamp
        if field_bits >> words.RECEIVED & 1:
            received = max(values[words.RECEIVED], 1)
            if stamp and received - 60_000 > stamp:
                received = stamp + 60_000
            if received >= MAX_MS:
                continue
        info = np.int64(code)
        linked = field_bits >> words.PLAY & 1 and values[words.PLAY] > 0
        if linked:
            if _suspect(block, begins[words.PLAY]):
                continue
            info |= pixel.LINKED
        consent = values[words.CONSENT] == 1 if field_bits >> words.CONSENT & 1 else consent_default
        if code >= DELIVERED and field_bits >> words.CLIENT & 1 and values[words.CLIENT] > 0:
            continue
        may_name_people = consent and (code <= START or code == CLICK)
        has_listener = may_name_people and field_bits >> words.LISTENER & 1 and values[words.LISTENER] > 0
        if consent:
            info |= pixel.CONSENTED
        if field_bits >> words.CONFIRMED & 1 and values[words.CONFIRMED] == 1:
            info |= pixel.CONFIRMED
        if has_listener and _suspect(block, begins[words.LISTENER]):
            continue
        has_household = may_name_people and field_bits >> words.HOUSEHOLD & 1 and values[words.HOUSEHOLD] > 0
        if has_household and _suspect(block, begins[words.HOUSEHOLD]):
            continue
        has_mark = field_bits >> words.LOW & field_bits >> words.COLLECTOR & 1 and values[words.COLLECTOR] > 0
        if has_mark and _suspect(block, begins[words.COLLECTOR]):
            continue

        fingerprint = _fingerprint(low, high, block, tags, field_bits, begins, values)
        slot = find(names, fingerprint)
        if names[slot, 0] != fingerprint:
            put(names, names_used, fingerprint, ASKED)
            request = desk.names[filled[NAMES]]
            filled[NAMES] += 1
            request[0] = slot
            for field in range(tags):
                request[1 + 2 * field] = begins[field] if field_bits >> field & 1 else -1
                request[2 + 2 * field] = begins[field] + values[field]
        combo = names[slot, 1]
        if combo == REFUSED:
            continue
        is_known = combo != ASKED
        info |= np.int64(combo >> np.uint64(32))
        combo &= _LOW
        if field_bits >> words.BASIS & 1:
            basis = words.basis_of(block, begins[words.BASIS], values[words.BASIS])
            if basis >= 0:
                info = info & ~(pixel.BASIS << pixel.BASIS_SHIFT) | basis << pixel.BASIS_SHIFT
        if field_bits >> words.AGENT & 1 and values[words.AGENT] > 0:
            begin_at, length = begins[words.AGENT], min(values[words.AGENT], MAX_AGENT_BYTES)
            fingerprint = siphash(low, high, block, begin_at, length) | np.uint64(1)
            slot = find(agents, fingerprint)
            if agents[slot, 0] != fingerprint:
                put(agents, agents_used, fingerprint, ASKED)
                request = desk.agents[filled[AGENTS]]
                request[0], request[1], request[2] = slot, begin_at, begin_at + length
                filled[AGENTS] += 1
            is_known = is_known and agents[slot, 1] != ASKED
            info |= np.int64(agents[slot, 1]) << pixel.INVALID_SHIFT
        listener = np.uint64(0)
        if has_listener:
            # Not a separate function: numba would count references to arrays at each call, 0.1 us a pixel.
            begin_at, length = begins[words.LISTENER], values[words.LISTENER]
            fingerprint = siphash(low, high, block, begin_at, length) | np.uint64(1)
            slot = find(listeners, fingerprint)
            if listeners[slot, 0] != fingerprint:
                listener = max(hash64(listener_key, block, begin_at, length, scratch), np.uint64(1))
                put(listeners, listeners_used, fingerprint, listener)
            listener = listeners[slot, 1]
        pixels[this, pixel.LISTENER] = listener
        home = np.uint64(0)
        if has_household:
            begin_at, length = begins[words.HOUSEHOLD], values[words.HOUSEHOLD]
            home = max(siphash24(home_low, home_high, block, begin_at, length), np.uint64(1))
        pixels[this, pixel.HOUSEHOLD] = home
        filled[LEFT] -= 1
        if not is_known:
            desk.again[filled[AGAIN]] = this
            filled[AGAIN] += 1
            continue

        field, kind, playhead = words.EVENT_ID, EVENT, np.uint64(NO_PLAYHEAD)
        if linked:
            field, kind = words.PLAY, PLAY
            if code == PROGRESS:
                kind = PROGRESS
                if field_bits >> words.PLAYHEAD & 1:
                    playhead = np.uint64(values[words.PLAYHEAD])
        pixels[this, pixel.KEY] = identity(
            keys[combo, 0], keys[combo, 1], kind, playhead, block, begins[field], values[field]
        )
        pixels[this, pixel.TS] = ts
        pixels[this, pixel.WATERMARK] = received
        pixels[this, pixel.INFO] = info
        pixels[this, pixel.COMBO] = combo
        if has_mark:
            begin_at, length = begins[words.COLLECTOR], values[words.COLLECTOR]
            desk.collector_marks.collectors[this] = collector_of(secret, block, begin_at, length)
            desk.collector_marks.lows[this] = min(values[words.LOW], MAX_MS)
    return done
