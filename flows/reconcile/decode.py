"""The oracle's reader of logs: lines to columns of numbers.

Listeners become numbers, and user agents a flag, so the database has nothing that identifies a person.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from connectors.stream import ConnectError
from connectors.wrapping import READ_ERRORS
from flows.errors import AudiopixelError
from flows.reconcile.client_keys import client_columns
from flows.reconcile.fields import BASES
from flows.reconcile.holds import CollectorTimes, Holds
from flows.reconcile.line import KINDS, Denied, Pixel, Rejected, is_macro, mark_of, parse, pixel_of
from flows.reconcile.logs import blocks
from flows.reconcile.polynomials import Hash
from flows.reconcile.receipts import receipts
from flows.reconcile.scan import (
    AGENT,
    BASIS,
    BY_CLAIM,
    BY_CLAIMED_ORDER,
    BY_CONVERSION,
    BY_EVENT,
    BY_ORDER,
    BY_PLAY,
    BY_PROGRESS,
    CODES,
    COMBO,
    CONFIRMED,
    CONSENT,
    EVENT,
    GREATEST,
    LINKED,
    LOW,
    NAMES,
    NEW_AGENT,
    NEW_COMBO,
    NO_BASIS,
    NO_TIME,
    PLAIN,
    RECEIVED,
    ROW,
    SENT,
    SPANS,
    T,
    clock,
    delays,
    find_pair,
    scan,
)

_AGENT_SPAN: Final = SPANS.index("user_agent")
_COLLECTOR_SPAN: Final = SPANS.index("collector")
_PEOPLE: Final = (*zip(KINDS, (2, 4), map(SPANS.index, ("listener_id", "household_id")), strict=True),)
"""For listeners and for households: the kind, the first column in `keys`, and the span of the text."""
_MAX_AGENTS: Final = 1 << 18
_MAX_BROKEN: Final = 64
_CATEGORY_WITH_PARTS: Final = re.compile(r"IAB[0-9]+", re.IGNORECASE)
_BOT: Final = re.compile(r"bot\b|bot/|crawler|spider", re.IGNORECASE)
NO_APPS: Final[dict[str, Collection[str]]] = {"app": ()}
"""The `listed` names of a reader for which no app counts."""


class Batch(NamedTuple):
    """The pixels of some lines: columns of the table `pixels`, and rows of the tables `combos`,
    `conversion_fields` and `client_keys`.
    """

    pixels: dict[str, Any]
    combos: list[tuple[Any, ...]]
    conversions: list[tuple[Any, ...]]
    clients: list[tuple[Any, ...]]


class Reader:
    """Reads source partitions, one `read` a file, and counts the lines that are no pixel.

    Args:
        consent_default: whether a pixel without consent may be measured.
        podcast_apps: a regular expression, case-insensitive. A user agent with a match is no bot.
        agents: more such expressions. User agents with a match count as bots.
        blocked: placements to the content categories that are blocked there, case-insensitive. A category of
            Content Taxonomy 1, such as `IAB26`, also blocks its parts, such as `IAB26-1`.
        guards_receipts: see `flows.reconcile.scan.clock`.
        denied: see `flows.reconcile.line.Denied`; None denies no listener.
        plainly: whether `flows.reconcile.scan` reads plain lines, which changes the time and nothing else.
        waits: the arguments of `flows.reconcile.holds.Holds`.
        listed: fields to the only names that count in them; other names count as absent. By default no app
            counts.

    Attributes:
        tie_key: see `flows.reconcile.rules.Rules`.
        received: lines by partition number, without the marks of collectors.
        marks: the marks of collectors, by partition number.
        rejected: lines by partition number and reason; without `too_late`, which this reader cannot judge.
        clock_skewed: pixels whose `ts` was clamped by more than 5 min, by partition number.
        greatest: the greatest event time, and the jump that waits for the next pixel (`NO_TIME`: none), by
            partition number.
        holds: the collectors that a partition waited for, by partition number.
        first_receipts: the receipt of the first line that has one, epoch ms, by partition number.
        counts_server_only: returns whether only server conversions count for a campaign (or for None). It is
            set before the first `read`.
        denied_pixels: the number of consented pixels of listeners or households on the deny-list.
    """

    def __init__(
        self,
        consent_default: bool,
        podcast_apps: str,
        blocked: Mapping[str, Sequence[str]] | None = None,
        agents: Collection[str] = (),
        guards_receipts: bool = True,
        denied: Denied | None = None,
        plainly: bool = True,
        waits: tuple[int, int, int, int] = (10_000, 60_000, 21_600_000, 50_000_000),
        listed: Mapping[str, Collection[str]] = NO_APPS,
    ) -> None:
        self.tie_key = b""
        self.received: Counter[int] = Counter()
        self.marks: Counter[int] = Counter()
        self.rejected: Counter[tuple[int, str]] = Counter()
        self.clock_skewed: Counter[int] = Counter()
        self.greatest: dict[int, tuple[int, int]] = {}
        self.holds: dict[int, Holds] = {}
        self.first_receipts, self.denied_pixels = dict[int, int](), 0
        self._waits, self._listed, self._apps = waits, listed, "app" not in listed
        self._consent_default = consent_default
        self.counts_server_only: Callable[[str | None], bool] = lambda _: False
        self._podcast_app = re.compile(podcast_apps, re.IGNORECASE)
        self._agents = [re.compile(agent, re.IGNORECASE) for agent in agents]
        self._blocking = {placement: _any_of(names) for placement, names in (blocked or {}).items()}
        self._guarded, self._denied, self._plainly = guards_receipts, denied, plainly
        self._hash = Hash()
        self._combos, self._combos_used = _table(0), np.zeros(1, np.int64)
        self._begin_agents()

    def read(self, src: int, path: Path) -> Iterator[Batch]:
        """The well-formed pixels of a file (in its wrappings), in its order.

        Raises:
            AudiopixelError: the file cannot be read.
        """
        state, line = np.array([NO_TIME, NO_TIME], np.int64), 0
        holds = self.holds[src] = Holds(*self._waits)
        try:
            for block, ends in blocks(path):
                self.received[src] += len(ends)
                yield self._batch(src, line, block, ends, state, holds)
                line += len(ends)
        except ConnectError as error:
            raise AudiopixelError(str(error)) from error
        except READ_ERRORS as error:
            raise AudiopixelError(f"{path}: cannot be read: {error}") from error
        self.greatest[src] = int(state[0]), int(state[1])

    def pixel(self, line: bytes) -> Pixel:
        """The pixel of a line without its LF.

        Raises:
            Rejected: the line is no pixel.
        """
        document = parse(line)
        if document is None:
            raise Rejected("", "malformed")
        return pixel_of(document, self._apps)

    def _batch(self, src: int, before: int, block: bytes, ends: Any, state: Any, holds: Holds) -> Batch:
        n = len(ends)
        rows, keys = np.zeros((n, ROW), np.int64), np.zeros((n, 6), np.uint64)
        spans = np.full((n, len(SPANS), 2), -1, np.int32)
        self._make_room(n)
        if self._plainly:
            scan(
                np.frombuffer(block + bytes(8), np.uint8), ends, _texts_of(block, ends),
                self._consent_default, self._apps, bool(self._blocking), self._hash.points, self._combos,
                self._combos_used, self._agent_tags, self._agents_used, rows, keys, spans,
            )  # fmt: skip
        plain = np.flatnonzero(rows[:, PLAIN])
        combos = self._learn(block, plain, rows, spans)
        bots = np.zeros(n, bool)
        with_agent = plain[rows[plain, AGENT] >= 0]
        bots[with_agent] = self._bot[rows[with_agent, AGENT]]
        denied = self._denied_of(block, plain, keys, spans)
        times_by_line: dict[int, CollectorTimes] = {
            i: CollectorTimes(_text_at(block, spans[i, _COLLECTOR_SPAN]) or "", int(rows[i, LOW]))
            for i in plain[rows[plain, LOW] >= 0].tolist()
        }
        conversions, clients, claims = [], [], np.zeros(n, bool)
        for i in np.flatnonzero(rows[:, PLAIN] == 0).tolist():
            text = block[int(ends[i - 1]) + 1 if i else 0 : int(ends[i])]
            try:
                pixel = self._countable(self.pixel(text))
            except Rejected as rejection:
                if (mark := mark_of(parse(text))) is not None:
                    self.marks[src] += 1
                    self.received[src] -= 1
                    times_by_line[i] = mark
                    continue
                self.rejected[src, rejection.reason] += 1
                continue
            self._enter(pixel, rows[i], keys[i], combos)
            if pixel.collector is not None:
                times_by_line[i] = pixel.collector
            bots[i] = pixel.invalid or (pixel.agent is not None and self._is_bot(pixel.agent))
            denied[i] = [*map(self._is_denied, KINDS, (pixel.listener, pixel.household))]
            if rows[i, CONSENT]:
                client = client_columns(pixel, self._hash, self.tie_key, self._denied)
                clients += [] if client is None else [(src, before + i + 1, *client)]
            if pixel.conversion is not None:
                kind, _, *details = pixel.conversion
                conversions.append((src, before + i + 1, kind, *details, *self._previous_people(pixel)))
                claims[i] = pixel.conversion.claims
        greatest = int(state[0])
        self.clock_skewed[src] += clock(rows, state, self._guarded)
        if times_by_line or holds.has_collectors:
            _wait(rows, times_by_line, holds, greatest)
        if src not in self.first_receipts:
            first = next(filter(None, receipts(rows, times_by_line)), 0)
            if first:
                self.first_receipts[src] = first
        plain_rows = np.flatnonzero(rows[:, PLAIN])
        self.denied_pixels += int((denied[plain_rows].any(axis=1) & (rows[plain_rows, CONSENT] != 0)).sum())
        return Batch(
            {
                "src": np.full(len(plain_rows), src, np.int32),
                "pos": before + 1 + plain_rows,
                **_columns(rows[plain_rows], keys[plain_rows]),
                "bot": bots[plain_rows],
                "denied": denied[plain_rows, 0],
                "denied_home": denied[plain_rows, 1],
                "claims": claims[plain_rows],
            },
            combos,
            conversions,
            clients,
        )

    def _countable(self, pixel: Pixel) -> Pixel:
        """A pixel with only the names that count. A conversion also gets its `apart`."""
        pixel, conversion = pixel._replace(names=self._counted_names(pixel.names)), pixel.conversion
        if conversion is None or not conversion.claimed or not self.counts_server_only(pixel.names[1]):
            return pixel
        return pixel._replace(conversion=conversion._replace(apart=True))

    def _previous_people(self, pixel: Pixel) -> Iterator[int | bool | None]:
        """The listener and the household by the edge's previous key, and whether each is on the deny-list."""
        for person in pixel.before:
            first, second = (0, 0) if person is None else self._hash(0, (person,))
            yield None if person is None else (int(first) << 61) + int(second)
        yield from map(self._is_denied, KINDS, pixel.before)

    def _is_denied(self, kind: str, person: str | None) -> bool:
        return self._denied is not None and person is not None and self._denied(kind, person.encode())

    def _learn(self, block: bytes, plain: Any, rows: Any, spans: Any) -> list[tuple[Any, ...]]:
        """Judge the user agents that are new in the plain lines; returns the combos that are new in them."""
        for i in plain[rows[plain, NEW_AGENT] != 0].tolist():
            agent = _text_at(block, spans[i, _AGENT_SPAN])
            self._bot[int(rows[i, AGENT])] = agent is not None and not is_macro(agent) and self._is_bot(agent)
        combos = []
        for i in plain[rows[plain, NEW_COMBO] != 0].tolist():
            *names, category = (_text_at(block, spans[i, field]) for field in range(len(NAMES) + 1))
            categories = () if category is None else (category,)
            combos.append(self._combo(int(rows[i, COMBO]), self._counted_names(names), categories))
        return combos

    def _counted_names(self, names: Sequence[str | None]) -> tuple[str | None, ...]:
        """Names, with None for names that are not listed."""
        pairs = zip(NAMES, names, strict=True)
        return tuple(
            None if field in self._listed and name not in self._listed[field] else name
            for field, name in pairs
        )

    def _denied_of(self, block: bytes, plain: Any, keys: Any, spans: Any) -> Any:
        """A flag for each plain line's listener and household on the deny-list, bool[lines, 2]."""
        denied = np.zeros((len(keys), 2), bool)
        for place, (kind, key, span) in enumerate(_PEOPLE if self._denied is not None else ()):
            with_id = plain[(keys[plain, key] != 0) | (keys[plain, key + 1] != 0)]
            _, firsts, text_numbers = np.unique(keys[with_id, key], return_index=True, return_inverse=True)
            texts = [_text_at(block, spans[i, span]) for i in with_id[firsts].tolist()]
            denied_texts = np.array([self._is_denied(kind, text) for text in texts], bool)
            denied[with_id, place] = denied_texts[text_numbers]
        return denied

    def _enter(self, pixel: Pixel, row: Any, key: Any, combos: list[tuple[Any, ...]]) -> None:
        """Write a line that is not plain into the arrays that `scan` fills."""
        placement, campaign, *_ = pixel.names
        linked = pixel.play is not None and pixel.conversion is None
        kind: int
        texts: tuple[str | None, ...]
        if pixel.conversion is not None:
            order = pixel.conversion.order_id
            kinds = (BY_CLAIM, BY_CLAIMED_ORDER) if pixel.conversion.apart else (BY_CONVERSION, BY_ORDER)
            kind = kinds[order is not None]
            texts = (
                campaign or "",
                *((pixel.event_id,) if order is None else (pixel.conversion.kind, order)),
            )
        elif not linked:
            kind, texts = BY_EVENT, (placement, pixel.event_id)
        elif pixel.event == "progress":
            kind = BY_PROGRESS
            texts = placement, pixel.play, None if pixel.playhead is None else str(pixel.playhead)
        else:
            kind, texts = BY_PLAY, (placement, pixel.play)
        key[:2] = self._hash(kind, texts)
        if pixel.listener is not None:
            key[2:4] = self._hash(0, (pixel.listener,))
        if pixel.household is not None:
            key[4:] = self._hash(0, (pixel.household,))
        combo_texts: tuple[str | None, ...] = pixel.names
        if self._blocking:
            combo_texts += pixel.categories or (None,)
        first, second = self._hash(0, combo_texts)
        slot = find_pair(self._combos, np.uint64(first), np.uint64(second))
        if not self._combos[slot, 2]:
            self._combos_used[0] += 1
            self._combos[slot] = first, second, self._combos_used[0]
            combos.append(self._combo(int(self._combos_used[0]) - 1, pixel.names, pixel.categories))
        row[COMBO] = int(self._combos[slot, 2]) - 1
        row[EVENT], row[LINKED], row[PLAIN] = CODES[pixel.event], linked, 1
        row[BASIS] = BASES.index(pixel.basis) if pixel.basis in BASES else NO_BASIS
        row[CONFIRMED] = pixel.confirmed
        row[SENT] = min(max(pixel.ts, -(2**61)), 2**61)
        # A receipt of 0 would stand for none.
        row[RECEIVED] = NO_TIME if pixel.received_at is None else max(pixel.received_at, 1)
        row[CONSENT] = self._consent_default if pixel.consent is None else pixel.consent

    def _combo(self, number: int, names: Sequence[str | None], categories: Sequence[str]) -> tuple[Any, ...]:
        blocking = self._blocking.get(names[0] or "")
        return number, *names, blocking is not None and any(map(blocking.fullmatch, categories))

    def _make_room(self, lines: int) -> None:
        """Make room in the tables for as many new combos and user agents as lines. A full table of agents is
        emptied.
        """
        if 2 * (int(self._combos_used[0]) + lines) > len(self._combos):
            self._combos = _moved(self._combos, int(self._combos_used[0]) + lines)
        if int(self._agents_used[0]) + lines > _MAX_AGENTS:
            self._begin_agents()

    def _begin_agents(self) -> None:
        self._agent_tags, self._agents_used = _table(_MAX_AGENTS), np.zeros(1, np.int64)
        self._bot = np.zeros(_MAX_AGENTS, bool)

    def _is_bot(self, agent: str) -> bool:
        if _BOT.search(agent) and not self._podcast_app.search(agent):
            return True
        return any(pattern.search(agent) for pattern in self._agents)


def _columns(rows: Any, keys: Any) -> dict[str, Any]:
    """The columns of the table `pixels` that `scan` fills in."""
    return {
        "event": rows[:, EVENT].astype(np.uint8),
        "t": rows[:, T],
        "greatest": rows[:, GREATEST],
        "combo": rows[:, COMBO].astype(np.int32),
        "key_1": keys[:, 0],
        "key_2": keys[:, 1],
        "listener_1": keys[:, 2],
        "listener_2": keys[:, 3],
        "household_1": keys[:, 4],
        "household_2": keys[:, 5],
        "linked": rows[:, LINKED].astype(bool),
        "consent": rows[:, CONSENT].astype(bool),
        "basis": rows[:, BASIS].astype(np.uint8),
        "confirmed": rows[:, CONFIRMED].astype(bool),
        "delay": delays(rows),
    }


def _wait(rows: Any, times_by_line: Mapping[int, CollectorTimes], holds: Holds, greatest: int) -> None:
    """Replace the pixels' greatest event times, so that they give the watermark that waits for collectors."""
    for i in range(len(rows)):
        times, moment = times_by_line.get(i), None
        if rows[i, PLAIN]:
            greatest = int(rows[i, GREATEST])
            moment = None if rows[i, RECEIVED] == NO_TIME else max(int(rows[i, RECEIVED]), 1)
        if moment is None and times is not None:
            moment = times.logged_ms or times.now_ms or times.low_ms
        natural = None if greatest == NO_TIME else greatest - holds.bound_ms
        logged_ms = None if times is None else times.logged_ms
        watermark_ms = holds.take_line(moment, times, natural, bool(rows[i, PLAIN]), logged_ms)
        if rows[i, PLAIN] and watermark_ms is not None:
            rows[i, GREATEST] = watermark_ms + holds.bound_ms


def _table(room: int) -> Any:
    """An empty table of `flows.reconcile.scan.find_pair` that is at most half full with `room` pairs."""
    return np.zeros((1 << max(10, (2 * room).bit_length()), 3), np.uint64)


def _moved(table: Any, room: int) -> Any:
    grown = _table(2 * room)
    for pair in table[table[:, 2] != 0]:
        grown[find_pair(grown, pair[0], pair[1])] = pair
    return grown


def _texts_of(block: bytes, ends: Any) -> Any:
    """A flag for each line that is certainly UTF-8. After `_MAX_BROKEN` others, no line counts as certain."""
    sure, view, begin = np.ones(len(ends), bool), memoryview(block), 0
    for _ in range(_MAX_BROKEN):
        try:
            str(view[begin:], "utf-8")
            return sure
        except UnicodeDecodeError as error:
            line = int(np.searchsorted(ends, begin + error.start))
            if line == len(ends):
                return sure
            sure[line] = False
            begin = int(ends[line]) + 1
    sure[line:] = False
    return sure


def _text_at(block: bytes, span: Any) -> str | None:
    """The text of a span (begin and length); None for a negative length."""
    begin, length = span.tolist()
    return None if length < 0 else block[begin : begin + length].decode()


def _any_of(categories: Sequence[str]) -> re.Pattern[str]:
    """A pattern of content categories, with their parts."""
    names = [
        re.escape(name) + (r"(?:-\d+)?" if _CATEGORY_WITH_PARTS.fullmatch(name) else "")
        for name in categories
    ]
    return re.compile(rf"\s*(?:{'|'.join(names)})\s*", re.IGNORECASE)
