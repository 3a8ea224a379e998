"""Decodes raw messages to a packed batch: one row of 64-bit columns for each pixel, with interned names and
hashed identities.

Only this step has a listener's id, household, address or user agent. `flows.intake.scanner` reads the lines
of the common form, msgspec all others, with the same `Batch` as the result.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from secrets import randbits
from typing import Final

import msgspec
import numpy as np

from connectors.stream import Lines, Messages
from flows.intake.agents import Verdicts
from flows.intake.brand_safety import flag_of
from flows.intake.client_keys import Clients
from flows.intake.conversion_fields import conversion_of
from flows.intake.dead_letters import Rejection, explain
from flows.intake.dimension_numbers import MAX_COMBOS, DimensionNumbers
from flows.intake.fingerprints import FingerprintCache
from flows.intake.holds import BYE, CollectorMarks
from flows.intake.identity import EVENT, NO_PLAYHEAD, PLAY, Identities, identities
from flows.intake.keywords import NAMED
from flows.intake.labels import Labels
from flows.intake.layouts import MISSED, Layouts
from flows.intake.refused import refused
from flows.intake.scanner import AGAIN, AGENTS, LEFT, NAMES, REFUSED, Desk, collector_of, scan
from flows.intake.schema import NOTHING, Event, Invalid, decode, mark_of, times
from flows.model.basis import BASES
from flows.model.basis import CODES as BASIS_CODES
from flows.model.dimensions import WITHOUT_APPS, Dimensions
from flows.model.events import (
    CODES,
    CONVERSION,
    DELIVERED,
    EVENTS_OF_PEOPLE,
    MAX_AGENT_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_MS,
    PROGRESS,
    absent,
    cut_bytes,
    present,
)
from flows.model.pixel import (
    BASIS_SHIFT,
    CLAIMED,
    COLUMNS,
    COMBO,
    CONFIRMED,
    CONSENTED,
    INVALID_SHIFT,
    KEY,
    LINKED,
    POSITION,
    TIE_SHIFT,
    ConversionPixel,
)
from flows.model.plan import BROWSER, SERVER, From, PlanBook
from flows.model.ticks import is_method
from flows.state.arrays import I64, U64
from flows.state.keys import NAMES as NAMES_LABEL
from flows.state.keys import sub_key
from flows.state.people import People

_MAX_AGENTS: Final = 50_000
_MAX_LISTENERS: Final = 400_000
"""The greatest number of cached listeners, of 16 bytes each. A listener that is not cached costs a seventh of
a microsecond.
"""


@dataclass(slots=True)
class Batch:
    """The decoded messages of one read.

    Attributes:
        pixels: (n, `COLUMNS`) uint64, in arrival order; `COMBO` indexes `combos`, or `conversions`.
        combos: all dimensions so far, by index; the list grows, or starts over.
        conversions: the conversions among the pixels.
        rejected: position and rejection of every message that is no pixel.
        received: the number of messages, without marks.
        collector_marks: the collectors and low marks of the messages.
        marks: the number of collectors' marks.
        methods: the methods of the collectors that sent marks, each with its first low mark.
        refused: the rejected impressions that name a placement, as pixels with `REFUSED`.
        numbering: the numbering of `combos`; see `flows.intake.dimension_numbers`.
    """

    pixels: U64
    combos: list[Dimensions]
    conversions: list[ConversionPixel]
    rejected: list[tuple[int, Rejection]]
    received: int
    collector_marks: CollectorMarks
    marks: int = 0
    methods: dict[str, int] = field(default_factory=dict)
    refused: list[tuple[int, ...]] = field(default_factory=list)
    numbering: int = 0


@dataclass
class Decoder:
    """Decodes the messages of one partition, batch by batch.

    Args:
        listener_key: the secret of up to 64 bytes; listeners and identities are hashed with keys that are
            derived from it.
        consent_default: whether a pixel without a consent field may be measured.
        agents: by reason, regular expressions of further user agents that are invalid traffic; see
            `flows.intake.agents.Verdicts`.
        scanning: whether to try `flows.intake.scanner` first, which only changes the time.
        platform_basis: by platform, the basis of impressions without one.
        names: the fields that pixels are counted by, the first of `flows.model.dimensions.NAMES`.
        planned: whether labels that no plan lists count as absent.
        conversions_from: the senders whose conversions count, for campaigns whose plans have no such field.
    """

    listener_key: bytes
    consent_default: bool = False
    agents: Mapping[str, re.Pattern[str]] = field(default_factory=dict)
    scanning: bool = True
    platform_basis: Mapping[str, str] = field(default_factory=dict)
    names: Sequence[str] = WITHOUT_APPS
    planned: bool = False
    conversions_from: From = BROWSER
    _plans: PlanBook = field(default_factory=PlanBook)

    def __post_init__(self) -> None:
        self._names, self._agents = FingerprintCache(MAX_COMBOS), FingerprintCache(_MAX_AGENTS)
        self._listeners = FingerprintCache(_MAX_LISTENERS)
        self._people = People(self.listener_key)
        self._layouts = Layouts.none()
        self._verdicts = Verdicts(self.agents)
        self._identities = Identities(self.listener_key)
        self._clients = Clients(self.listener_key)
        self._labels = Labels(self.planned)
        own = np.frombuffer(sub_key(self.listener_key, NAMES_LABEL)[:16], "<u8")
        secret = [randbits(64), randbits(64), *own, *self._people.home_key]
        self._secret = np.array(secret, np.uint64)
        self._names_of, self._tags = attrgetter(*self.names), NAMED + len(self.names)
        self._begin_names()

    def _begin_names(self) -> None:
        self._dimensions = DimensionNumbers(self._identities, len(self.names))
        self._names.clear()

    def follow(self, plans: PlanBook) -> None:
        """From now on judge content categories, labels and claimed conversions by these plans."""
        self._plans = plans
        self._labels.follow(plans)
        self._names.clear()  # its cache has the blocked categories and unknown labels of the former plans

    def decode(self, messages: Messages) -> Batch:
        """Decode each of `messages` to a pixel, a mark, or a rejection with its reason. No input raises."""
        if self._dimensions.full:
            self._begin_names()
        count = len(messages.values)
        collector_marks = CollectorMarks.of(count)
        batch = Batch(
            np.empty((count, COLUMNS), np.uint64), self._dimensions.combos, [], [], count, collector_marks
        )
        batch.numbering = self._dimensions.numbering
        left: Sequence[int] = range(count)
        if self.scanning and count:
            left = self._scan(messages, batch)
        if left and (wrong := self._decode_plainly(messages, left, batch)):
            batch.pixels = np.delete(batch.pixels, wrong, axis=0)
        batch.received -= batch.marks
        return batch

    def _scan(self, messages: Messages, batch: Batch) -> Sequence[int]:
        """Decode the lines of the common form; returns the other lines, in order."""
        values, pixels = messages.values, batch.pixels
        pixels[:, POSITION] = messages.position_array()
        lines = values if isinstance(values, Lines) else Lines.join(values)
        block = np.frombuffer(lines.block, np.uint8)
        stamps = np.array(messages.timestamps_ms or [], np.int64)
        desk = Desk.of(len(lines), self._tags, batch.collector_marks)
        memos = names, agents, listeners = self._names, self._agents, self._listeners
        left: list[int] = []

        def read(line_numbers: I64, done: int) -> int:
            done = scan(
                block, lines.ends, lines.begin, line_numbers, done, stamps, self._secret,
                self.consent_default, names.slots, names.used, agents.slots, agents.used, listeners.slots,
                listeners.used, self._people.key, self._dimensions.keys, self._tags, pixels, desk,
                self._layouts,
            )  # fmt: skip
            left.extend(desk.left[: desk.filled[LEFT]].tolist())
            self._answer(lines.block, desk)
            return done

        every, done = np.arange(len(lines)), 0
        while done < len(lines):
            for memo in memos:
                memo.make_room()
            done = read(every, done)
            if again := int(desk.filled[AGAIN]):
                for memo in memos:
                    memo.grow()  # without dropping any: these lines have requested all that they need
                read(desk.again[:again].copy(), 0)
        if (missed := int(self._layouts.counters[MISSED])) >= 0:
            self._layouts.learn(lines[missed])
            self._layouts.counters[MISSED] = -1
        return sorted(left)

    def _answer(self, block: bytes, desk: Desk) -> None:
        """Number the names and user agents that the scan has requested."""
        filled = desk.filled.tolist()
        if filled[NAMES]:
            requests = desk.names[: filled[NAMES]]
            numbers = [self._numbered(block, places) for places in requests[:, 1:].tolist()]
            self._names.slots[requests[:, 0], 1] = np.array(numbers, np.uint64)
        if filled[AGENTS]:
            requests = desk.agents[: filled[AGENTS]]
            reasons = [self._verdicts.reason(block[a:b].decode()) for a, b in requests[:, 1:].tolist()]
            self._agents.slots[requests[:, 0], 1] = reasons

    def _numbered(self, block: bytes, places: list[int]) -> int:
        """The number of a line's dimensions, whose names are at `places`, with the flag for the scanner."""
        ends = iter(places)
        category, *names = [None if a < 0 else block[a:b].decode() for a, b in zip(ends, ends, strict=True)]
        label_names, flags = self._labels.known_names(names)
        combo = self._dimensions.number(label_names)
        placement = self._dimensions.combos[combo][0]
        if placement is None:
            return int(REFUSED)
        flags |= flag_of(self._plans, placement, category) | self._basis(None, combo)
        return combo | flags << 32

    def _basis(self, basis: str | None, combo: int) -> int:
        """The bits of a pixel's basis: its own, else the basis that is set for its platform."""
        code = BASIS_CODES.get(basis or "")
        if code is None:
            platform = self._dimensions.combos[combo][2]
            code = BASIS_CODES[self.platform_basis.get(platform or "", BASES[0])]
        return code << BASIS_SHIFT

    def _decode_plainly(self, messages: Messages, left: Sequence[int], batch: Batch) -> list[int]:
        """Decode some lines on the slow path; returns the lines that are no pixels."""
        rows, right, wrong = array("Q"), list[int](), list[int]()
        unhashed, line_marks = list[tuple[int, int, bytes]](), list[tuple[str, int]]()
        values = messages.values
        raws = values.payloads_at(left) if isinstance(values, Lines) else [values[line] for line in left]
        for line, raw in zip(left, raws, strict=True):
            position = messages.positions[line]
            stamp = messages.timestamps_ms[line] if messages.timestamps_ms else 0
            try:
                rows.extend(self._pixel(raw, position, stamp, batch.conversions, unhashed, line_marks))
                if line_marks:
                    self._note_mark(batch, line, *line_marks.pop())
                right.append(line)
                continue
            except Invalid as invalid:
                suspect = invalid.field
            except (KeyError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                suspect = "?"
            wrong.append(line)
            if (mark := mark_of(raw)) is not None:
                batch.marks += 1
                if is_method(mark.method):
                    batch.methods.setdefault(mark.method, mark.low_ms)
                self._note_mark(batch, line, mark.collector, BYE if mark.bye else mark.low_ms)
                batch.collector_marks.nows[line] = mark.now_ms or 0
                batch.collector_marks.logged[line] = mark.logged_ms or 0
            else:
                rejection = explain(raw, suspect, self._verdicts.named)
                batch.rejected.append((position, rejection))
                batch.refused += refused(rejection, position, stamp, self._dimensions)
        pixels = np.array(rows, np.uint64).reshape(-1, COLUMNS)
        if unhashed:
            self._hash_identities(pixels, unhashed)
        batch.pixels[right] = pixels
        return wrong

    def _hash_identities(self, pixels: U64, unhashed: list[tuple[int, int, bytes]]) -> None:
        """Compute the identities that are hashed from texts, with the scanner's kernel."""
        kinds, playheads, texts = zip(*unhashed, strict=True)
        ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)))
        to = np.flatnonzero(pixels[:, KEY] == 0)
        pixels[to, KEY] = identities(
            np.frombuffer(b"".join([*texts, bytes(8)]), np.uint8),
            ends,
            self._dimensions.keys[pixels[to, COMBO].astype(np.int64)],
            np.array(kinds, np.int64),
            np.array(playheads, np.uint64),
        )

    def _pixel(
        self,
        raw: bytes,
        position: int,
        stamp: int,
        conversions: list[ConversionPixel],
        unhashed: list[tuple[int, int, bytes]],
        line_marks: list[tuple[str, int]],
    ) -> tuple[int, ...]:
        """Decode one message on the slow path; returns the columns. The identity is 0 if `unhashed` gets its
        text. The collector and low mark are added to `line_marks`.

        Raises:
            Invalid, KeyError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError: the message is
            rejected.
        """
        if not raw.isascii():
            raw.decode()  # msgspec skips unread fields, including their bad UTF-8
        if len(raw) > MAX_MESSAGE_BYTES:
            raise Invalid("")
        event = decode(raw)
        code = CODES[event.event]
        names, info = self._labels.known_names(self._names_of(event))
        combo = self._dimensions.number(names)
        placement = self._dimensions.combos[combo][0]
        if placement is None and code != CONVERSION:
            raise Invalid("placement_id")
        ts, received = times(event, stamp)
        if absent(event.event_id):
            raise Invalid("event_id")
        info |= code | flag_of(self._plans, placement, event.content_category)
        info |= self._basis(event.basis, combo) | CONFIRMED * (event.device_confirmed is True)
        if event.invalid_traffic and not absent(event.invalid_traffic):
            info |= self._verdicts.number_of(event.invalid_traffic) << INVALID_SHIFT
        elif event.user_agent:
            info |= self._verdicts.reason(cut_bytes(event.user_agent, MAX_AGENT_BYTES)) << INVALID_SHIFT
        listener = household = 0
        if event.consent or (event.consent is None and self.consent_default):
            info |= CONSENTED
            if code >= DELIVERED:
                listener = self._client(event, code, self._dimensions.combos[combo])
                info |= self._clients.tie(event.event_id) << TIE_SHIFT if listener else 0
            elif code in EVENTS_OF_PEOPLE and event.listener_id is not None and not absent(event.listener_id):
                listener = self._people.listener(event.listener_id.encode())
            if code in EVENTS_OF_PEOPLE and event.household_id is not None and not absent(event.household_id):
                household = self._people.household(event.household_id.encode())
        play, key = event.play_id, 0
        if code == CONVERSION:
            people = self._people if info & CONSENTED else None
            dimensions = self._dimensions.combos[combo]
            whose = self._plans.conversions_from.get(dimensions[1] or "", self.conversions_from)
            key, conversion = conversion_of(event, dimensions, self._identities, people, whose == SERVER)
            info |= CLAIMED * (conversion.claimed and not conversion.apart)
            conversions.append(conversion)
            combo = len(conversions) - 1
        elif event.conversion is not NOTHING and bytes(event.conversion)[:1] not in (b"{", b"n"):
            raise Invalid("conversion")
        elif play is None or absent(play):
            unhashed.append((EVENT, NO_PLAYHEAD, event.event_id.encode()))
        else:
            info |= LINKED
            playhead = event.playhead_ms
            if code != PROGRESS:
                unhashed.append((PLAY, NO_PLAYHEAD, play.encode()))
            elif playhead is None or playhead in (-1, -2):
                unhashed.append((PROGRESS, NO_PLAYHEAD, play.encode()))
            elif 0 <= playhead < 2**63:
                unhashed.append((PROGRESS, playhead, play.encode()))
            else:
                key = self._identities.of("progress", placement, play, str(playhead))
        if event.low_ms is not None and event.collector is not None and not absent(event.collector):
            line_marks.append((event.collector, min(max(event.low_ms, 0), MAX_MS)))
        return key, listener, ts, received, position, info, combo, household

    def _note_mark(self, batch: Batch, line: int, collector: str, low_ms: int) -> None:
        """Store a line's collector and low mark."""
        text = collector.encode()
        block = np.frombuffer(text + bytes(8), np.uint8)
        batch.collector_marks.collectors[line] = collector_of(self._secret, block, 0, len(text))
        batch.collector_marks.lows[line] = low_ms

    def deny(self, listeners: U64) -> None:
        """From now on make no key for these clients (sorted keyed hashes, as of listeners)."""
        self._clients.denied = listeners

    def _client(self, event: Event, code: int, combo: Dimensions) -> int:
        """The hash by which a `delivered` or `download` counts once; 0 without a client."""
        if (client := present(event.client_id)) is None:
            return 0
        return self._clients.key(client, self._people.listener(client.encode()), code, event, combo)
