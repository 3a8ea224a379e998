"""The oracle's fast reading of a log: a compiled loop finds the plain lines, and hashes their texts.

A plain line has only one possible reading. It is a flat object of strings without escapes, whole numbers,
true, false and null. Each known field of it is there at most once, with its common type.
`flows.reconcile.line` reads all other lines, and all lines that may be rejected. Texts become pairs of
polynomials (`flows.reconcile.polynomials`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from flows.model.catalogue.events import NAMES as EVENT_NAMES
from flows.model.catalogue.fields import LISTED_FIELDS, SCOPE_FIELDS
from flows.reconcile.fields import BASES, DELAYS_S
from flows.reconcile.polynomials import compiled, feed

Array = npt.NDArray[Any]

EVENTS: Final = EVENT_NAMES
"""The events; the code of an event is its place."""
CODES: Final = {name: code for code, name in enumerate(EVENTS)}
NAMES: Final = SCOPE_FIELDS
"""The fields with the names that pixels are counted by."""
LABELS: Final = LISTED_FIELDS
"""The fields of which plans may list names."""
SPANS: Final = (*NAMES, "content_category", "listener_id", "user_agent", "collector", "household_id")
"""The fields whose places in a plain line are recorded."""
_TEXTS: Final = (
    *(*SPANS, "event_id", "play_id", "event", "ip", "landing_url", "invalid_traffic", "basis", "client_id"),
    "episode",
)
_WHOLE: Final = ("ts", "received_at", "playhead_ms", "duration_ms", "low_ms")
FIELDS: Final = (*_TEXTS, *_WHOLE, "consent", "conversion", "device_confirmed")
_LISTENER, _AGENT, _COLLECTOR, _HOUSEHOLD, _EVENT_ID, _PLAY, _EVENT = range(len(NAMES) + 1, len(NAMES) + 8)
_APP: Final = NAMES.index("app")
_TRAFFIC, _BASIS, _CLIENT = map(_TEXTS.index, ("invalid_traffic", "basis", "client_id"))
_TS, _RECEIVED, _PLAYHEAD, _DURATION, _LOW = range(len(_TEXTS), len(FIELDS) - 3)
_CONSENT: Final = _LOW + 1
_LIMITED: Final = np.array(
    [name.endswith("_id") or name in (*NAMES, "collector", "episode") for name in FIELDS]
)
_FREE: Final = ("content_category", "user_agent")
_MACROS: Final = np.array(
    [name in (*SPANS, "event_id", "play_id", "event") and name not in _FREE for name in FIELDS]
)
"""A flag for each field whose text is checked for a macro in each line. A user agent is checked once, when it
is new.
"""

NO_BASIS: Final = len(BASES)
"""The number that stands for the basis of a pixel that names none."""
NO_TIME: Final = -(2**62)
"""The number that stands for an absent time."""
NEVER: Final = 4_102_444_800_000
"""The year 2100, before which all times are."""
MAX_BYTES: Final = 65_536
_PROGRESS: Final = CODES["progress"]
_CONVERSION: Final = CODES["conversion"]
_DELIVERED: Final = CODES["delivered"]
BY_PLAY, BY_PROGRESS, BY_EVENT, BY_ORDER, BY_CONVERSION, BY_CLAIMED_ORDER, BY_CLAIM = range(1, 8)
"""The kinds of identity by which a pixel counts once (specification 1.3)."""

_QUOTE, _COLON, _COMMA, _SPACE, _OPEN, _SHUT, _BACKSLASH, _ZERO, _NINE = b'":, {}\\09'
_MACRO_STARTS: Final = np.array([byte in b"[%${@-" for byte in range(256)])


def _word_table(words: Sequence[str]) -> tuple[Array, Array, Array]:
    """The text of all words, the offset of each, and a table of 256 slots for `_word`, with a word's number
    or -1.
    """
    text = "".join(words).encode()
    begins = np.cumsum([0, *map(len, words)])
    slots = np.full(256, -1, np.int64)
    for number, word in enumerate(words):
        slot = (len(word) * 7 + word.encode()[0] * 3 + word.encode()[-1] * 31) % 256
        while slots[slot] >= 0:
            slot = (slot + 1) % 256
        slots[slot] = number
    return np.frombuffer(text, np.uint8).copy(), begins, slots


_FIELD_TEXT, _FIELD_AT, _FIELD_SLOTS = _word_table(FIELDS)
_EVENT_TEXT, _EVENT_AT, _EVENT_SLOTS = _word_table(EVENTS)


@compiled
def _word(block: Any, begin: Any, length: Any, text: Any, begins: Any, slots: Any) -> Any:
    """The number of a word of a block in a table of `_word_table`; -1 if it is not in the table."""
    if length == 0:
        return -1
    slot = (length * 7 + np.int64(block[begin]) * 3 + np.int64(block[begin + length - 1]) * 31) % 256
    while slots[slot] >= 0:
        number = slots[slot]
        if begins[number + 1] - begins[number] == length:
            same = True
            for i in range(length):
                if text[begins[number] + i] != block[begin + i]:
                    same = False
                    break
            if same:
                return number
        slot = (slot + 1) % 256
    return -1


@compiled
def find_pair(tags: Any, first: Any, second: Any) -> Any:
    """The slot of a pair in a table of (first, second, number + 1), or the empty slot for it."""
    mask = len(tags) - 1
    slot = np.int64(first & np.uint64(mask))
    while tags[slot, 2] != 0 and (tags[slot, 0] != first or tags[slot, 1] != second):
        slot = (slot + 1) & mask
    return slot


@compiled
def _read(block: Any, offset: Any, end: Any, whole: Any, begins: Any, lengths: Any, values: Any) -> Any:
    """Find the fields of a line: the begin and length of texts and numbers, and the values of numbers and
    flags. An absent field has the length and the value -1. Returns False if the line is not plain.
    """
    lengths[:] = -1
    values[:] = -1
    seen_fields = np.int64(0)
    if end - offset < 2 or end - offset > MAX_BYTES or block[offset] != _OPEN or block[end - 1] != _SHUT:
        return False
    offset += 1
    while True:
        if block[offset] != _QUOTE:
            return False
        offset += 1
        begin = offset
        while offset < end and block[offset] != _QUOTE:
            if block[offset] < 32 or block[offset] == _BACKSLASH or (block[offset] >= 128 and not whole):
                return False
            offset += 1
        if offset + 2 >= end or block[offset + 1] != _COLON:
            return False
        field = _word(block, begin, offset - begin, _FIELD_TEXT, _FIELD_AT, _FIELD_SLOTS)
        if field >= 0:
            if seen_fields >> field & 1:
                return False
            seen_fields |= np.int64(1) << field
        offset += 2
        offset += block[offset] == _SPACE
        byte = block[offset]
        if byte == _QUOTE:
            offset += 1
            begin = offset
            while offset < end and block[offset] != _QUOTE:
                if block[offset] < 32 or block[offset] == _BACKSLASH or (block[offset] >= 128 and not whole):
                    return False
                offset += 1
            if offset >= end:
                return False
            if field >= len(_TEXTS):
                return False
            if field >= 0:
                begins[field], lengths[field] = begin, offset - begin
            offset += 1
        elif _ZERO <= byte <= _NINE:
            begin = offset
            number = np.int64(0)
            while offset < end and _ZERO <= block[offset] <= _NINE and offset - begin < 18:
                number = number * 10 + (np.int64(block[offset]) - 48)
                offset += 1
            if (byte == _ZERO and offset - begin > 1) or not (
                block[offset] == _COMMA or block[offset] == _SHUT
            ):
                return False
            if field >= 0:
                if not _TS <= field <= _LOW:
                    return False
                begins[field], lengths[field], values[field] = begin, offset - begin, number
        elif (
            byte == 116 and block[offset + 1] == 114 and block[offset + 2] == 117 and block[offset + 3] == 101
        ):  # true
            if field >= 0 and field != _CONSENT:
                return False
            if field >= 0:
                values[field] = 1
            offset += 4
        elif (
            byte == 110 and block[offset + 1] == 117 and block[offset + 2] == 108 and block[offset + 3] == 108
        ):  # null
            offset += 4
        elif (
            byte == 102
            and block[offset + 1] == 97
            and block[offset + 2] == 108
            and block[offset + 3] == 115
            and block[offset + 4] == 101
        ):  # false
            if field >= 0 and field != _CONSENT:
                return False
            if field >= 0:
                values[field] = 0
            offset += 5
        else:
            return False
        if block[offset] == _SHUT:
            return offset + 1 == end
        if block[offset] != _COMMA:
            return False
        offset += 1
        offset += block[offset] == _SPACE


@compiled
def scan(
    block: Any, ends: Any, whole: Any, consent_default: Any, apps: Any, categories: Any, points: Any,
    combos: Any, combos_used: Any, agents: Any, agents_used: Any, rows: Any, keys: Any, spans: Any,
) -> None:  # fmt: skip
    """Read the plain lines of a block into `rows`, `keys` and `spans`.

    Args:
        block: the bytes of the lines, and at least eight more.
        ends: the offset of each line's LF.
        whole: whether each line is certainly UTF-8.
        consent_default: whether a pixel without consent may be measured.
        apps: whether pixels are counted by app.
        categories: whether the content category is a part of a combo.
        points: the points of the polynomials.
        combos, agents: tables of `find_pair`, of combos of names and of user agents, with their sizes.
        rows: int64[lines, ROW]; `PLAIN` is 0 for a line that is not plain.
        keys: uint64[lines, 6]: the pairs of the identity, of the listener and of the household; (0, 0) for
            none.
        spans: int32[lines, len(SPANS), 2]: begin and length of each field, length -1 for an absent one.
    """
    begins = np.zeros(len(FIELDS), np.int64)
    lengths = np.zeros(len(FIELDS), np.int64)
    values = np.zeros(len(FIELDS), np.int64)
    pair = np.zeros(2, np.uint64)
    begin = 0
    for line in range(len(ends)):
        offset, end = begin, ends[line]
        begin = end + 1
        rows[line, PLAIN] = 0
        if not _read(block, offset, end, whole[line], begins, lengths, values):
            continue
        plain = lengths[0] > 0 and lengths[_EVENT_ID] > 0 and 0 <= values[_TS] < NEVER
        for field in range(len(_TEXTS)):
            length = lengths[field]
            if length > 128 and (_LIMITED[field] or field == _AGENT):
                plain = plain and field == _AGENT and length <= 1024
            if length > 0 and _MACROS[field] and _MACRO_STARTS[block[begins[field]]]:
                plain = False
            if length == 0:
                lengths[field] = -1
        if not apps:
            lengths[_APP] = -1
        if lengths[_RECEIVED] >= 0 and not 0 < values[_RECEIVED] < NEVER:
            plain = False
        if not plain or lengths[_EVENT] < 0 or lengths[_TRAFFIC] >= 0 or lengths[_BASIS] >= 0:
            continue
        code = _word(block, begins[_EVENT], lengths[_EVENT], _EVENT_TEXT, _EVENT_AT, _EVENT_SLOTS)
        if code < 0 or code == _CONVERSION or (code >= _DELIVERED and lengths[_CLIENT] >= 0):
            continue

        pair[:] = 0
        for field in range(len(NAMES) + categories):
            feed(pair, points, block, begins[field], lengths[field])
        slot = find_pair(combos, pair[0], pair[1])
        fresh = combos[slot, 2] == 0
        if fresh:
            combos_used[0] += 1
            combos[slot, 0], combos[slot, 1], combos[slot, 2] = pair[0], pair[1], combos_used[0]
        rows[line, COMBO] = combos[slot, 2] - np.uint64(1)
        rows[line, NEW_COMBO] = fresh
        rows[line, AGENT] = -1
        rows[line, NEW_AGENT] = False
        if lengths[_AGENT] > 0:
            pair[:] = 0
            feed(pair, points, block, begins[_AGENT], lengths[_AGENT])
            slot = find_pair(agents, pair[0], pair[1])
            fresh = agents[slot, 2] == 0
            if fresh:
                agents_used[0] += 1
                agents[slot, 0], agents[slot, 1], agents[slot, 2] = pair[0], pair[1], agents_used[0]
            rows[line, AGENT] = agents[slot, 2] - np.uint64(1)
            rows[line, NEW_AGENT] = fresh

        linked = lengths[_PLAY] > 0
        kind = BY_EVENT if not linked else (BY_PROGRESS if code == _PROGRESS else BY_PLAY)
        pair[:] = np.uint64(kind)
        feed(pair, points, block, begins[0], lengths[0])
        field = _PLAY if linked else _EVENT_ID
        feed(pair, points, block, begins[field], lengths[field])
        if kind == BY_PROGRESS:
            feed(pair, points, block, begins[_PLAYHEAD], lengths[_PLAYHEAD])
        keys[line, 0], keys[line, 1] = pair[0], pair[1]
        keys[line, 2:] = 0
        for place, field in enumerate((_LISTENER, _HOUSEHOLD)):
            if lengths[field] > 0:
                pair[:] = 0
                feed(pair, points, block, begins[field], lengths[field])
                keys[line, 2 + 2 * place], keys[line, 3 + 2 * place] = pair[0], pair[1]
        for field in range(len(SPANS)):
            spans[line, field, 0], spans[line, field, 1] = begins[field], lengths[field]
        rows[line, EVENT] = code
        rows[line, SENT] = values[_TS]
        rows[line, RECEIVED] = values[_RECEIVED] if lengths[_RECEIVED] >= 0 else NO_TIME
        rows[line, CONSENT] = values[_CONSENT] if values[_CONSENT] >= 0 else consent_default
        rows[line, LINKED] = linked
        rows[line, LOW] = min(values[_LOW], NEVER) if lengths[_COLLECTOR] > 0 else -1
        rows[line, BASIS] = NO_BASIS
        rows[line, CONFIRMED] = 0
        rows[line, PLAIN] = 1


PLAIN, EVENT, SENT, RECEIVED, CONSENT, LINKED, COMBO, NEW_COMBO, AGENT, NEW_AGENT, T, GREATEST, LOW = range(
    13
)
BASIS, CONFIRMED = 13, 14
ROW: Final = 15
"""The number of columns of a line's row. The columns are: whether the line is a pixel; the event; `ts` and
`received_at` as sent; whether it has consent and a play; the combo and the user agent, and whether each is
new; the event time; the partition's greatest event time so far; the collector's low mark (negative: none);
the basis that the pixel claims; whether the device itself has sent it.
"""


@compiled
def clock(rows: Any, state: Any, guards_receipts: Any) -> Any:
    """Write the event times of pixels, and the partition's greatest event time (specification 1.4); returns
    the number of pixels with a skewed clock.

    Args:
        rows: see `ROW`.
        state: the greatest event time so far, and the jump that waits for the next pixel; `NO_TIME`: none.
        guards_receipts: whether a jump of `received_at` waits for the next pixel, too, since no broker has
            bounded that time.
    """
    skewed = 0
    day = 86_400_000
    for i in range(len(rows)):
        if rows[i, PLAIN] == 0:
            continue
        sent_ms, received = rows[i, SENT], rows[i, RECEIVED]
        event_ms = sent_ms
        if received != NO_TIME:
            event_ms = max(min(sent_ms, received + 60_000), received - day, 0)
            skewed += abs(event_ms - sent_ms) > 300_000
        if state[1] != NO_TIME and event_ms >= state[1] - day:
            state[0] = max(state[0], state[1])
        state[1] = NO_TIME
        if (received != NO_TIME and not guards_receipts) or (
            state[0] != NO_TIME and event_ms <= state[0] + day
        ):
            state[0] = max(state[0], event_ms)
        else:
            state[1] = event_ms
        rows[i, T] = event_ms
        rows[i, GREATEST] = state[0]
    return skewed


def delays(rows: Any) -> Any:
    """The class of each pixel's delay in `DELAYS_S`; 255 for a pixel without `received_at`."""
    bounds = [int(1000 * bound) for bound in DELAYS_S]
    classes = np.searchsorted(bounds, np.minimum(rows[:, RECEIVED] - rows[:, T], bounds[-1]))
    return np.where(rows[:, RECEIVED] == NO_TIME, 255, classes).astype(np.uint8)
