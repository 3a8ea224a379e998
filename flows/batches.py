"""Raw messages to a packed batch: one row of 64-bit columns a pixel, names interned, identities hashed.

This is the decode step, and the only place that sees a listener's id, address or user agent. `flows.scanner`
reads the lines of the common form, msgspec all others. Both make the same `Batch`.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from secrets import randbits
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import msgspec
import numpy as np
from xxhash import xxh3_64_intdigest
from xxhash import xxh64_intdigest as xxh64

from connectors.stream import Lines, Messages
from flows.columns import (
    BLOCKED,
    COLUMNS,
    COMBO,
    CONSENTED,
    INFO,
    INVALID_SHIFT,
    KEY,
    LINKED,
    LISTENER,
    POSITION,
    TS,
    WATERMARK,
)
from flows.events import (
    CODES,
    CONVERSION,
    MAX_MESSAGE_BYTES,
    MAX_MS,
    PROGRESS,
    Event,
    Invalid,
    Rejection,
    absent,
    check_conversion,
    decode,
    epoch_ms,
    explain,
    micros,
    present,
)
from flows.kernel import U64
from flows.memo import Memo
from flows.plans import Plan, blocked
from flows.scanner import learn, scan

__all__ = [  # the columns too, which are a batch's
    "COLUMNS", "COMBO", "CONSENTED", "INFO", "INVALID_SHIFT", "KEY", "LINKED", "LISTENER", "POSITION",
    "SCOPES", "TS", "WATERMARK", "Batch", "Combo", "ConversionPixel", "Decoder",
    "shard_of",
]  # fmt: skip

_NOWHERE: Final = 2**63
"""Instead of a seed, which is less: these names have no placement."""
_ALL: Final = 2**64 - 1

_MOST_COMBOS: Final = 500_000
_MOST_AGENTS: Final = 50_000
_MOST_LISTENERS: Final = 200_000
_PATIENCE: Final = 64
"""Lines with unknown names that are met before the first are learnt; then twice as many, and so on."""

_BOT = re.compile(r"bot\b|bot/|crawler|spider", re.IGNORECASE)
_PODCAST_APP = re.compile(
    r"AntennaPod|AppleCoreMedia|Podcasts?/|Pocket ?Casts|Overcast|Castro|Castbox|Podimo|Podbean|Podkicker"
    r"|Podcast ?Addict|Spotify/|Stitcher|Deezer|TuneIn|iHeartRadio|Audible|Downcast|Player ?FM|RadioPublic"
    r"|BBC ?Sounds|GlobalPlayer",
    re.IGNORECASE,
)

Combo = tuple[str | None, str | None, str | None, str | None, str | None, str | None]
"""placement, campaign, platform, station, podcast, program: where a pixel counts."""

SCOPES: Final = ("placement", "campaign", "platform", "station", "podcast", "program")


@dataclass(frozen=True, slots=True)
class ConversionPixel:
    """A conversion beside its row in the columns: the rare pixel that carries more than numbers."""

    combo: Combo
    type: str
    order_id: str | None
    event_id: str
    value_micros: int | None
    currency: str | None
    utm_content: str | None


@dataclass(slots=True)
class Batch:
    """What became of a run of messages.

    Attributes:
        pixels: (n, `COLUMNS`) uint64, in arrival order; `COMBO` indexes `combos`, or `conversions`.
        combos: every combination of names that the decoder has met, by index; it grows, or is begun anew.
        conversions: the conversions among the pixels.
        rejected: (position, why) of every message that is no pixel.
        received: how many messages there were.
    """

    pixels: U64
    combos: list[Combo]
    conversions: list[ConversionPixel]
    rejected: list[tuple[int, Rejection]]
    received: int


def shard_of(name: str, shards: int) -> int:
    """The shard of a name: the same on every machine and in every execution."""
    return int(xxh3_64_intdigest(name.encode())) % shards


@dataclass
class Decoder:
    """Decodes message after message of one partition.

    Args:
        listener_key: secret of the keyed hash that stands for a listener, up to 64 bytes. consent_default:
        whether a pixel that says nothing of consent may be measured. agents: regular expressions of the user
        agents that are invalid traffic besides declared bots; which of
            them is found first is the reason.
        scanning: whether `flows.scanner` goes first, which changes the time and nothing else.
    """

    listener_key: bytes
    consent_default: bool = False
    agents: Sequence[re.Pattern[str]] = ()
    scanning: bool = True
    _plans: Mapping[str, Plan] = field(default_factory=dict)
    _combos: list[Combo] = field(default_factory=list)
    _seeds: list[int] = field(default_factory=list)
    _interned: dict[tuple[str | None, ...], int] = field(default_factory=dict)
    _reasons: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._names, self._agents = Memo(_MOST_COMBOS), Memo(_MOST_AGENTS)
        self._listeners = Memo(_MOST_LISTENERS)
        self._keyed = blake2b(digest_size=8, key=self.listener_key)
        self._secret = np.uint64(randbits(64))

    def follow(self, plans: Mapping[str, Plan]) -> None:
        """Judge content categories by these plans, by placement, from now on."""
        self._plans = plans
        self._names.clear()  # it remembers what was blocked

    def decode(self, messages: Messages) -> Batch:
        """All of `messages`, each either a pixel or rejected with its reason; raises for no input."""
        if len(self._interned) > _MOST_COMBOS:  # a producer that invents names must not fill the memory
            self._combos, self._seeds, self._interned = [], [], {}
            self._names.clear()
        count = len(messages.values)
        batch = Batch(np.empty((count, COLUMNS), np.uint64), self._combos, [], [], count)
        wrong: list[int] = []
        if self.scanning:
            self._scan(messages, batch, wrong)
        else:
            aside = np.zeros((count, 3), np.uint64)
            aside[:, 0] = np.arange(count)
            self._decode_aside(messages, aside, batch, wrong)
        if wrong:
            batch.pixels = np.delete(batch.pixels, wrong, axis=0)
        return batch

    def _scan(self, messages: Messages, batch: Batch, wrong: list[int]) -> None:
        """Fill in the pixels, those of plain lines by the scanner."""
        values, pixels = messages.values, batch.pixels
        positions = messages.positions
        # Element by element numpy takes ten times as long for a range.
        pixels[:, POSITION] = (
            np.arange(positions.start, positions.stop, positions.step)
            if isinstance(positions, range)
            else positions
        )
        lines = values if isinstance(values, Lines) else Lines.join(values)
        block = np.frombuffer(lines.block, np.uint8)
        stamps = np.array(messages.timestamps_ms or [], np.int64)
        names, agents, listeners = self._names, self._agents, self._listeners
        listeners.make_room(len(values))
        aside = np.empty((len(values), 3), np.uint64)
        asked, waiting = np.empty((len(values), 3), np.int64), np.empty((len(values), 2), np.int64)
        line, begin, patience = 0, lines.begin, _PATIENCE
        while line < len(lines):
            line, left, questions, waits = scan(
                block, lines.ends, begin, line, patience, stamps, self._secret, self.consent_default,
                names.slots, agents.slots, listeners.slots, listeners.used, np.array(self._seeds, np.uint64),
                pixels, aside, asked, waiting,
            )  # fmt: skip
            begin = int(lines.ends[line - 1]) + 1
            patience *= 2
            begins, ends, slots = asked[:questions].T
            who = [lines.block[a:b] for a, b in zip(begins.tolist(), ends.tolist(), strict=True)]
            listeners.slots[slots, 1] = [*map(self.listener, who)]
            pixels[waiting[:waits, 0], LISTENER] = listeners.slots[waiting[:waits, 1], 1]
            if left:
                self._decode_aside(messages, aside[:left], batch, wrong)

    def _decode_aside(self, messages: Messages, aside: U64, batch: Batch, wrong: list[int]) -> None:
        """Fill in the pixels of the lines of `aside` the plain way; `wrong` gets those that are none."""
        rows = array("Q")
        right: list[int] = []
        for index, line in enumerate(aside[:, 0].tolist()):
            raw, position = messages.values[line], messages.positions[line]
            stamp = messages.timestamps_ms[line] if messages.timestamps_ms else 0
            try:
                rows.extend(self._pixel(raw, position, stamp, batch.conversions))
                right.append(index)
                continue
            except Invalid as invalid:
                rejection = explain(raw, invalid.field)
            except (KeyError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                rejection = explain(raw)
            batch.rejected.append((position, rejection))
            wrong.append(line)
        aside = aside[right]
        pixels = np.array(rows, np.uint64).reshape(-1, COLUMNS)
        batch.pixels[aside[:, 0].astype(np.int64)] = pixels
        self._names.make_room(len(aside))
        self._agents.make_room(len(aside))
        learn(pixels, aside, self._names.slots, self._names.used, self._agents.slots, self._agents.used)

    def _pixel(
        self, raw: bytes, position: int, stamp: int, conversions: list[ConversionPixel]
    ) -> tuple[int, ...]:
        """One message the plain way: its columns.

        Raises:
            Invalid, KeyError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError: it is rejected.
        """
        if not raw.isascii():
            raw.decode()  # msgspec skips what it does not read, bad UTF-8 included
        if len(raw) > MAX_MESSAGE_BYTES:
            raise Invalid("")
        event = decode(raw)
        code = CODES[event.event]
        names = (
            event.placement_id,
            event.campaign_id,
            event.platform,
            event.station,
            event.podcast,
            event.program,
        )
        combo = self._interned.get(names, -1)
        if combo < 0:
            combo = self._intern(names)
        seed = self._seeds[combo]
        if seed == _NOWHERE and code != CONVERSION:
            raise Invalid("placement_id")
        ts = event.ts if event.ts.__class__ is int else epoch_ms(event.ts, "ts")
        received = event.received_at
        if received is None or (isinstance(received, str) and absent(received)):
            received = stamp
        else:
            if received.__class__ is not int:
                received = epoch_ms(received, "received_at")
            if not 0 <= received < MAX_MS:
                raise Invalid("received_at")
            received = max(received, 1)  # 0 is no receipt at all
            if stamp and received > stamp + 60_000:
                received = stamp + 60_000
        if not 0 <= ts < MAX_MS:
            if not received:
                raise Invalid("ts")
            ts = min(max(ts, 0), MAX_MS)  # it is bounded by the receipt in any case
        if absent(event.event_id):
            raise Invalid("event_id")
        info = code
        if event.content_category and self._plans:
            plan = self._plans.get(self._combos[combo][0] or "")
            if plan is not None and blocked(plan, event.content_category):
                info |= BLOCKED
        if event.user_agent:
            info |= self._reason(event.user_agent) << INVALID_SHIFT
        listener = 0
        if event.consent or (event.consent is None and self.consent_default):
            info |= CONSENTED
            if event.listener_id is not None and not absent(event.listener_id):
                listener = self.listener(event.listener_id.encode())
        play = event.play_id
        if code == CONVERSION:
            key = self._conversion(event, self._combos[combo], conversions)
            combo = len(conversions) - 1
        elif play is None or absent(play):
            key = xxh64(event.event_id.encode(), seed + 1)
        else:
            info |= LINKED
            if code == PROGRESS:
                playhead = event.playhead_ms
                if playhead is None or playhead == -2:
                    playhead = -1
                told = (playhead & _ALL).to_bytes(8, "little")
                key = xxh64(told, xxh64(play.encode(), seed + 2))
            else:
                key = xxh64(play.encode(), seed)
        return key, listener, ts, received, position, info, combo

    def _intern(self, names: tuple[str | None, ...]) -> int:
        """Give the names an index in `combos`, and their placement's plays a seed of hashes."""
        placement, *dimensions = names
        combo: Combo = (present(placement), *(present(name) for name in dimensions))  # type: ignore[assignment]  # six
        index = self._interned[names] = len(self._combos)
        self._combos.append(combo)
        # Halved, so that what is added to it stays within 64 bits.
        self._seeds.append(xxh64(combo[0].encode()) >> 1 if combo[0] else _NOWHERE)
        return index

    def listener(self, who: bytes) -> int:
        """The keyed hash of a listener; not 0, which is nobody."""
        hasher = self._keyed.copy()
        hasher.update(who)
        return int.from_bytes(hasher.digest(), "little") or 1

    def _reason(self, agent: str) -> int:
        reason = self._reasons.get(agent)
        if reason is None:
            if len(self._reasons) > _MOST_AGENTS:
                self._reasons.clear()
            if absent(agent):
                reason = 0
            elif _BOT.search(agent) is not None and _PODCAST_APP.search(agent) is None:
                reason = 1
            else:
                reason = next((at for at, own in enumerate(self.agents, 2) if own.search(agent)), 0)
            self._reasons[agent] = reason
        return reason

    def _conversion(self, event: Event, combo: Combo, conversions: list[ConversionPixel]) -> int:
        """Add the conversion; its key by order, or by event id where it names none."""
        conversion = check_conversion(event)
        order = present(conversion.order_id)
        conversions.append(
            ConversionPixel(
                combo,
                conversion.type,
                order,
                event.event_id,
                micros(conversion.value),
                present(conversion.currency),
                _utm_content(event.landing_url),
            )
        )
        parts = (combo[1] or "", conversion.type, order) if order else (combo[1] or "", event.event_id)
        return xxh64(msgspec.json.encode(parts))


def _utm_content(url: str | None) -> str | None:
    """What a landing URL's query says in `utm_content`, decoded; None where it says nothing or is no URL."""
    try:
        return dict(reversed(parse_qsl(urlsplit(url or "").query))).get("utm_content")
    except ValueError:
        return None
