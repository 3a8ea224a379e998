"""Clients of simulated traffic: the key by which a download or delivery counts once, and the events that a
correct flow counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from flows.simulate.scenario import MACROS

DAY_MS: Final = 86_400_000
KINDS: Final = {"download": "downloads", "delivered": "deliveries"}
"""Events with keys, to the names of their counts."""
WINDOWS: Final = ("calendar", "first_touch", "last_touch")
COUNTS: Final = tuple(f"{kind}_{window}" for kind in KINDS.values() for window in (*WINDOWS, "unkeyed"))
_LISTENERS_A_CLIENT: Final = 3
"""The number of listeners behind one address and user agent."""
_EPISODES: Final = 5


class KeyedEvent(NamedTuple):
    """A download or delivery that has a key.

    Attributes:
        key: the key by which it counts once.
        ms: its event time, epoch ms.
        kind: a value of `KINDS`.
        beside: see `flows.simulate.truth.Truth`.
    """

    key: str
    ms: int
    event_id: str
    kind: str
    placement: str
    beside: tuple[tuple[str, str], ...]


def add_client(labels: dict[str, Any], listener: int, play: int) -> None:
    """Add a client and an episode to a play's labels. A few plays get no client or episode, or a macro as
    client.
    """
    client = f"client-{listener // _LISTENERS_A_CLIENT}"
    if play % 11 > 0:
        labels["client_id"] = MACROS[play % len(MACROS)] if play % 11 == 1 else client
    if play % 4 > 0:
        labels["episode"] = f"episode-{play % _EPISODES}"


def key_of(event: str, labels: Mapping[str, Any]) -> str | None:
    """The key by which an event with these labels counts once; None if the labels lack a part of it."""
    client, episode, podcast, creative = (
        None if labels.get(name) in (None, *MACROS) else labels[name]
        for name in ("client_id", "episode", "podcast", "creative_id")
    )
    if client is None or event not in KINDS:
        return None
    if event == "delivered":
        return repr((event, client, creative or (labels["placement_id"],), episode))
    return repr((event, client, episode or (podcast,))) if episode or podcast else None


def _low(hashed: bytes) -> bytes:
    """The bytes of a big-endian number, without its greatest bit."""
    return bytes([hashed[0] & 0x7F, *hashed[1:]])


def counted(events: Iterable[KeyedEvent], timezone: str, secret: bytes) -> Iterator[tuple[KeyedEvent, str]]:
    """The events that count, each with the name of the count, once for each window in which it counts.

    Args:
        timezone: IANA name of the zone of calendar days.
        secret: the flow's key, by which events of one moment are ordered; empty for the order of their names.
    """
    ties = blake2b(digest_size=32, key=secret, person=b"ties").digest() if secret else b""

    def order(event_id: str) -> bytes:
        return _low(blake2b(event_id.encode(), digest_size=4, key=ties).digest()) if ties else b""

    zone, last, began, days = ZoneInfo(timezone), dict[str, int](), dict[str, int](), set[tuple[str, int]]()
    for event in sorted(
        events, key=lambda each: (each.ms, order(each.event_id), each.placement, each.beside)
    ):
        day = event.key, datetime.fromtimestamp(event.ms / 1000, zone).toordinal()
        if day not in days:
            yield event, f"{event.kind}_calendar"
        if event.ms - began.get(event.key, -DAY_MS) >= DAY_MS:
            began[event.key] = event.ms
            yield event, f"{event.kind}_first_touch"
        if event.ms - last.get(event.key, -DAY_MS) >= DAY_MS:
            yield event, f"{event.kind}_last_touch"
        days.add(day)
        last[event.key] = event.ms
