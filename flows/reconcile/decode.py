"""The oracle's reader of logs: lines to columns of numbers.

Listeners become keyed hashes, and user agents a flag, so the database has nothing that identifies a person.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from secrets import token_bytes
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from connectors.stream import ConnectError
from connectors.wrapping import READ_ERRORS
from flows.errors import AudiopixelError
from flows.reconcile.fields import BASES, CODES, DELAYS_S, NAMES, NO_BASIS
from flows.reconcile.holds import NO_TIME, Clock, Holds
from flows.reconcile.line import HOUSEHOLD, KINDS, LISTENER, Denied, Pixel, Rejected, mark_of, pixel_of
from flows.reconcile.logs import lines_of

_ROWS: Final = 8_192
"""The greatest number of pixels in a batch."""
_CACHED: Final = 65_536
"""The number of user agents, of people, and of combos, whose judgement is cached."""
_CATEGORY_WITH_PARTS: Final = re.compile(r"IAB[0-9]+", re.IGNORECASE)
_BOT: Final = re.compile(r"bot\b|bot/|crawler|spider", re.IGNORECASE)
NO_APPS: Final[dict[str, Collection[str]]] = {"app": ()}
"""The `listed` names of a reader for which no app counts."""
_COLUMNS: Final = (
    *("pos", "event", "t", "greatest", "combo", "linked", "consent", "bot", "denied", "denied_home"),
    *("basis", "confirmed", "delay", "claims"),
)
_NO_DELAY: Final = 255
_DELAYS_MS: Final = np.array([int(1000 * bound) for bound in DELAYS_S])
_NOBODY: Final = bytes(16)
_KEY_BITS: Final = 124
"""The bits of a hash. A bot's key has one more bit."""
_TIES: Final = 0x7FFFFFFF
_encode: Final = msgspec.json.Encoder().encode


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
        guards_receipts: see `flows.reconcile.holds.Clock`.
        denied: see `flows.reconcile.line.Denied`; None denies no listener.
        waits: the arguments of `flows.reconcile.holds.Holds`.
        listed: fields to the only names that count in them; other names count as absent. By default no app
            counts.

    Attributes:
        tie_key: see `flows.reconcile.rules.Rules`.
        received: lines by partition number, without the marks of collectors.
        marks: the marks of collectors, by partition number.
        rejected: lines by partition number and reason; without `too_late`, which this reader cannot judge.
        clocks: the clock of each partition at its end, by partition number.
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
        waits: tuple[int, int, int, int] = (10_000, 60_000, 21_600_000, 50_000_000),
        listed: Mapping[str, Collection[str]] = NO_APPS,
    ) -> None:
        self.tie_key = b""
        self.received: Counter[int] = Counter()
        self.marks: Counter[int] = Counter()
        self.rejected: Counter[tuple[int, str]] = Counter()
        self.clocks: dict[int, Clock] = {}
        self.denied_pixels = 0
        self.counts_server_only: Callable[[str | None], bool] = lambda _: False
        self._consent_default, self._guarded, self._waits = consent_default, guards_receipts, waits
        self._listed = [(NAMES.index(field), names) for field, names in listed.items()]
        self._podcast_app = re.compile(podcast_apps, re.IGNORECASE)
        self._agents = [re.compile(agent, re.IGNORECASE) for agent in agents]
        self._blocking = {placement: _any_of(names) for placement, names in (blocked or {}).items()}
        self._secret = token_bytes(32)
        self._numbers: dict[tuple[Any, ...], int] = {}
        self._new_combos: list[tuple[Any, ...]] = []
        self._combo = lru_cache(_CACHED)(self._combo_of)
        self._is_bot = lru_cache(_CACHED)(self._judged_bot)
        self._is_denied: Denied = lru_cache(_CACHED)(denied or (lambda *_: False))

    def read(self, src: int, path: Path) -> Iterator[Batch]:
        """The well-formed pixels of a file (in its wrappings), in its order.

        Raises:
            AudiopixelError: the file cannot be read.
        """
        clock = self.clocks[src] = Clock(Holds(*self._waits), self._guarded)
        rows, hashes = list[tuple[Any, ...]](), list[bytes]()
        conversions, clients = list[tuple[Any, ...]](), list[tuple[Any, ...]]()

        def batch() -> Batch:
            combos, self._new_combos = self._new_combos, []
            made = Batch(_columns(src, rows, hashes), combos, conversions[:], clients[:])
            for table in (rows, hashes, conversions, clients):
                table.clear()
            return made

        try:
            for pos, line in enumerate(lines_of(path), 1):
                self.received[src] += 1
                try:
                    pixel = pixel_of(line)
                except Rejected as rejection:
                    if (mark := mark_of(line)) is None:
                        self.rejected[src, str(rejection)] += 1
                    else:
                        self.marks[src] += 1
                        self.received[src] -= 1
                        clock.take_mark(mark)
                    continue
                rows.append((pos, *self._row(src, pos, pixel, clock, hashes, conversions, clients)))
                if len(rows) == _ROWS:
                    yield batch()
        except ConnectError as error:
            raise AudiopixelError(str(error)) from error
        except READ_ERRORS as error:
            raise AudiopixelError(f"{path}: cannot be read: {error}") from error
        if rows:
            yield batch()

    def _row(
        self,
        src: int,
        pos: int,
        pixel: Pixel,
        clock: Clock,
        hashes: list[bytes],
        conversions: list[tuple[Any, ...]],
        clients: list[tuple[Any, ...]],
    ) -> tuple[Any, ...]:
        """The columns of a pixel from `event` on; appends its rows of the other tables."""
        combo, names = self._combo(pixel.names, pixel.categories if self._blocking else ())
        event_ms, greatest_ms = clock.take_pixel(pixel.ts, pixel.received_at, pixel.times)
        consent = self._consent_default if pixel.consent is None else pixel.consent
        denied_listener, denied_household = self._denied_of(pixel.listener, pixel.household)
        self.denied_pixels += consent and (denied_listener or denied_household)
        claims, conversion = False, pixel.conversion
        identity: tuple[Any, ...]
        if conversion is not None:
            if conversion.claimed and self.counts_server_only(names[1]):
                conversion = conversion._replace(apart=True)
            claims = conversion.claims
            order = conversion.order_id
            identity = (
                "conversion",
                conversion.apart,
                names[1],
                *((pixel.event_id,) if order is None else (conversion.kind, order)),
            )
            before = (None if person is None else self._number(person) for person in pixel.before)
            kind, _, *details = conversion
            conversions.append((src, pos, kind, *details, *before, *self._denied_of(*pixel.before)))
        elif pixel.play is None:
            identity = names[0], pixel.event_id
        elif pixel.event == "progress":
            identity = "progress", names[0], pixel.play, str(pixel.playhead)
        else:
            identity = "play", names[0], pixel.play
        hashes.append(self._hash(identity))
        hashes.append(_NOBODY if pixel.listener is None else self._hash(pixel.listener))
        hashes.append(_NOBODY if pixel.household is None else self._hash(pixel.household))
        if consent and pixel.client is not None and (content := _content(pixel, names)) is not None:
            clients.append((src, pos, *self._client_columns(pixel.client, content, pixel.event_id)))
        return (
            CODES[pixel.event],
            event_ms,
            greatest_ms,
            combo,
            pixel.play is not None and conversion is None,
            consent,
            pixel.invalid or (pixel.agent is not None and self._is_bot(pixel.agent)),
            denied_listener,
            denied_household,
            BASES.index(pixel.basis) if pixel.basis in BASES else NO_BASIS,
            pixel.confirmed,
            NO_TIME if pixel.received_at is None else pixel.received_at - event_ms,
            claims,
        )

    def _hash(self, content: object) -> bytes:
        return blake2b(_encode(content), digest_size=16, key=self._secret).digest()

    def _number(self, person: str) -> int:
        """The number of a person in the database."""
        return int.from_bytes(self._hash(person), "big") & ((1 << _KEY_BITS) - 1)

    def _combo_of(
        self, names: tuple[str | None, ...], categories: tuple[str, ...]
    ) -> tuple[int, tuple[str | None, ...]]:
        """The number of a combo, and its names; names that are not listed are None."""
        counted = list(names)
        for place, listed in self._listed:
            if counted[place] not in listed:
                counted[place] = None
        blocking = self._blocking.get(counted[0] or "")
        combo = (*counted, blocking is not None and any(map(blocking.fullmatch, categories)))
        number = self._numbers.get(combo)
        if number is None:
            number = self._numbers[combo] = len(self._numbers)
            self._new_combos.append((number, *combo))
        return number, tuple(counted)

    def _denied_of(self, listener: str | None, household: str | None) -> tuple[bool, bool]:
        """Flags for a listener and a household on the deny-list."""
        return (
            listener is not None and self._is_denied(LISTENER, listener.encode()),
            household is not None and self._is_denied(HOUSEHOLD, household.encode()),
        )

    def _judged_bot(self, agent: str) -> bool:
        if _BOT.search(agent) and not self._podcast_app.search(agent):
            return True
        return any(pattern.search(agent) for pattern in self._agents)

    def _client_columns(self, client: str, content: tuple[Any, ...], event_id: str) -> tuple[str, int, bool]:
        """The key of a delivery or download, its order among equal times (0 without `tie_key`), and whether
        the client is on the deny-list.
        """
        tie = blake2b(event_id.encode(), digest_size=4, key=self.tie_key).digest() if self.tie_key else b""
        return (
            self._hash((client, *content)).hex(),
            int.from_bytes(tie, "big") & _TIES,
            self._is_denied(LISTENER, client.encode()),
        )


def _content(pixel: Pixel, names: Sequence[str | None]) -> tuple[Any, ...] | None:
    """The content that counts once a client: the creative or placement of a delivery in its episode, or the
    episode or podcast of a download. None for any other event, and for a download without both.
    """
    placement, *_, podcast, _, creative, _ = names
    if pixel.event == "delivered":
        of_what = ("placement", placement) if creative is None else ("creative", creative)
        return (*of_what, pixel.episode)
    if pixel.event != "download" or (pixel.episode is None and podcast is None):
        return None
    return ("podcast", podcast) if pixel.episode is None else ("episode", pixel.episode)


def _columns(src: int, rows: Sequence[tuple[Any, ...]], hashes: Sequence[bytes]) -> dict[str, Any]:
    """The columns of the table `chunk` in `flows.reconcile.sql.judging.INSERT`."""
    values = zip(*rows, strict=True) if rows else [()] * len(_COLUMNS)
    columns = {name: np.array(column) for name, column in zip(_COLUMNS, values, strict=True)}
    halves = np.frombuffer(b"".join(hashes), ">u8").astype(np.uint64).reshape(-1, 6)
    for place, name in enumerate(("key", *KINDS)):
        columns[f"{name}_1"] = halves[:, 2 * place] & np.uint64((1 << (_KEY_BITS - 64)) - 1)
        columns[f"{name}_2"] = halves[:, 2 * place + 1]
    delays = columns["delay"]
    classes = np.searchsorted(_DELAYS_MS, np.minimum(delays, _DELAYS_MS[-1]))
    columns["delay"] = np.where(delays == NO_TIME, _NO_DELAY, classes).astype(np.uint8)
    return {"src": np.full(len(rows), src, np.int32), **columns}


def _any_of(categories: Sequence[str]) -> re.Pattern[str]:
    """A pattern of content categories, with their parts."""
    names = [
        re.escape(name) + (r"(?:-\d+)?" if _CATEGORY_WITH_PARTS.fullmatch(name) else "")
        for name in categories
    ]
    return re.compile(rf"\s*(?:{'|'.join(names)})\s*", re.IGNORECASE)
