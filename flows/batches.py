"""Raw messages to a packed batch: one row of 64-bit columns a pixel, names interned, identities hashed.

This is the decode step, and the only place that sees a listener's id, address or user agent. It can be replaced by a
faster one as long as it returns the same `Batch`.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

import msgspec
import numpy as np
import xxhash

from connectors.stream import Messages
from flows.events import (
    _SUSPECT,
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

KEY, LISTENER, TS, WATERMARK, POSITION, INFO, COMBO = range(7)
"""Columns of a pixel. `TS` and `WATERMARK` hold the caller's clock and the time of receipt until `flows.clock` has judged them."""

COLUMNS: Final = 7
LINKED: Final = 1 << 8
"""Flag in `INFO` (whose low byte is the event's code): the pixel names its play."""
CONSENTED: Final = 1 << 9
"""Flag in `INFO`: this listener may be measured."""
INVALID_SHIFT: Final = 16
"""`INFO >> 16`: why the pixel is invalid traffic, an index of `TRAFFIC_REASONS`; 0 when it is valid."""

TRAFFIC_REASONS: Final = ("", "declared_bot")

_NOWHERE: Final = -1

_BOT = re.compile(r"bot\b|bot/|crawler|spider", re.IGNORECASE)
_PODCAST_APP = re.compile(
    r"AntennaPod|AppleCoreMedia|Podcasts?/|Pocket ?Casts|Overcast|Castro|Castbox|Podimo|Podbean|Podcast ?Addict|Podkicker"
    r"|Spotify/|Stitcher|Deezer|TuneIn|iHeartRadio|Audible|Downcast|Player ?FM|RadioPublic|BBC ?Sounds|GlobalPlayer",
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
        pixels: (n, `COLUMNS`) uint64, in arrival order; `COMBO` indexes `combos`, or for a conversion `conversions`.
        combos: every combination of names that this decoder has met, by index (it only grows within a decoder's life).
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
    return int(xxhash.xxh3_64_intdigest(name.encode())) % shards


@dataclass
class Decoder:
    """Decodes message after message of one partition.

    Args:
        listener_key: secret of the keyed hash that stands for a listener, up to 64 bytes.
        consent_default: whether a pixel that says nothing of consent may be measured.
    """

    listener_key: bytes
    consent_default: bool = False
    _combos: list[Combo] = field(default_factory=list)
    _interned: dict[tuple[str | None, ...], tuple[int, int]] = field(default_factory=dict)
    _listeners: dict[str, int] = field(default_factory=dict)
    _agents: dict[str, int] = field(default_factory=dict)

    def decode(self, messages: Messages) -> Batch:
        """All of `messages`, each either a pixel or rejected with its reason; raises for no input."""
        if len(self._interned) > 500_000:  # a producer that invents names must not fill the memory
            self._combos, self._interned = [], {}
        out = array("Q")
        rejected: list[tuple[int, Rejection]] = []
        conversions: list[ConversionPixel] = []
        append = out.extend
        interned, agents, listeners = self._interned, self._agents, self._listeners
        stamps = messages.timestamps_ms
        xxh3: Callable[..., int] = xxhash.xxh3_64_intdigest
        consent_default = self.consent_default
        for index, raw in enumerate(messages.values):
            position = messages.positions[index]
            try:
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
                combo, seed = interned.get(names) or self._intern(names)
                if seed == _NOWHERE and code != CONVERSION:
                    raise Invalid("placement_id")
                ts = event.ts if event.ts.__class__ is int else epoch_ms(event.ts, "ts")
                received = event.received_at
                if received is None:
                    received = stamps[index] if stamps else 0
                else:
                    if received.__class__ is not int:
                        received = epoch_ms(received, "received_at")
                    if not 0 <= received < MAX_MS:
                        raise Invalid("received_at")
                    if stamps and stamps[index] and received > stamps[index] + 60_000:
                        received = stamps[index] + 60_000
                if not 0 <= ts < MAX_MS:
                    if not received:
                        raise Invalid("ts")
                    ts = min(max(ts, 0), MAX_MS)  # it is bounded by the receipt in any case
                event_id = event.event_id
                if not event_id or event_id[0] in _SUSPECT and absent(event_id):
                    raise Invalid("event_id")
                info = code
                agent = event.user_agent
                if agent:
                    reason = agents.get(agent)
                    if reason is None:
                        reason = self._agent(agent)
                    info |= reason << INVALID_SHIFT
                listener = 0
                if event.consent or (event.consent is None and consent_default):
                    info |= CONSENTED
                    who = event.listener_id
                    if who:
                        listener = listeners.get(who) or self._listener(who)
                play = event.play_id
                if code == CONVERSION:
                    key = self._conversion(event, names, event_id, conversions)
                    combo = len(conversions) - 1
                elif play and not (play[0] in _SUSPECT and absent(play)):
                    info |= LINKED
                    if code == PROGRESS:
                        playhead = event.playhead_ms
                        if playhead is None or playhead < 0:
                            playhead = -1
                        key = xxh3(f"{playhead} {play}".encode(), seed + 2)
                    else:
                        key = xxh3(play.encode(), seed)
                else:
                    key = xxh3(event_id.encode(), seed + 1)
                append((key, listener, ts, received, position, info, combo))
            except Invalid as wrong:
                rejected.append((position, explain(raw, wrong.field)))
            except (KeyError, msgspec.MsgspecError, UnicodeDecodeError):
                rejected.append((position, explain(raw)))
        pixels = np.frombuffer(out, np.uint64).reshape(-1, COLUMNS) if out else np.zeros((0, COLUMNS), np.uint64)
        return Batch(pixels.copy(), self._combos, conversions, rejected, len(messages.values))

    def _intern(self, names: tuple[str | None, ...]) -> tuple[int, int]:
        """(index of the names in `combos`, seed of the hashes of the placement's plays)."""
        placement, *dimensions = names
        combo: Combo = (present(placement), *(present(name) for name in dimensions))  # type: ignore[assignment]  # six, by the unpacking
        # Halved, so that what is added to it stays within 64 bits.
        seed = int(xxhash.xxh3_64_intdigest(combo[0].encode())) >> 1 if combo[0] else _NOWHERE
        self._combos.append(combo)
        entry = (len(self._combos) - 1, seed)
        self._interned[names] = entry
        return entry

    def _listener(self, who: str) -> int:
        if absent(who):
            return 0
        if len(self._listeners) > 200_000:
            self._listeners.clear()
        hashed = int.from_bytes(blake2b(who.encode(), digest_size=8, key=self.listener_key).digest(), "little") or 1
        self._listeners[who] = hashed
        return hashed

    def _agent(self, agent: str) -> int:
        if len(self._agents) > 50_000:
            self._agents.clear()
        reason = int(_BOT.search(agent) is not None and _PODCAST_APP.search(agent) is None)
        self._agents[agent] = reason
        return reason

    def _conversion(
        self, event: Event, names: tuple[str | None, ...], event_id: str, conversions: list[ConversionPixel]
    ) -> int:
        """Add the conversion; its key by order, or by event id where it names none."""
        conversion = check_conversion(event)
        combo = self._combos[self._interned[names][0]]
        order = present(conversion.order_id)
        utm = re.search(r"[?&]utm_content=([^&#]*)", event.landing_url or "")
        conversions.append(
            ConversionPixel(
                combo,
                conversion.type,
                order,
                event_id,
                micros(conversion.value),
                present(conversion.currency),
                utm.group(1) if utm else None,
            )
        )
        parts = (combo[1] or "", conversion.type, order) if order else (combo[1] or "", event_id)
        return int(xxhash.xxh3_64_intdigest(msgspec.json.encode(parts)))
