"""The right downloads and deliveries of clients, by chapter 7.2 of the specification. This module shares no
line with the flow.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final
from zoneinfo import ZoneInfo

from simulation.world import KEY

DAY_MS: Final = 86_400_000
ZONE: Final = ZoneInfo("Europe/London")
KINDS: Final = {"download": "downloads", "delivered": "deliveries"}
NAMES: Final = tuple(
    f"{kind}_{name}"
    for kind in KINDS.values()
    for name in ("calendar", "first_touch", "last_touch", "unkeyed")
)
"""The counts of a flight."""
_TIES: Final = blake2b(digest_size=32, key=KEY, person=b"ties").digest()


def counted(pixels: Iterable[Mapping[str, Any]], denied: str) -> list[tuple[Mapping[str, Any], str]]:
    """Each of these accepted pixels with each count that it adds to, once all minutes are final.

    Args:
        denied: a client who is on the deny-list.
    """
    found, by_key = list[tuple[Mapping[str, Any], str]](), defaultdict[Any, list[Mapping[str, Any]]](list)
    for pixel in pixels:
        if pixel["event"] not in KINDS:
            continue
        key = _key(pixel)
        if key is None or pixel.get("consent") is not True or pixel["client_id"] == denied:
            found.append((pixel, f"{KINDS[pixel['event']]}_unkeyed"))
        else:
            by_key[key].append(pixel)
    for some in by_key.values():
        day, began_ms, latest_ms = None, -DAY_MS, -DAY_MS
        for pixel in sorted(some, key=_in_order):
            at_ms, kind = pixel["own_ms"], KINDS[pixel["event"]]
            today = datetime.fromtimestamp(at_ms / 1000, ZONE).date()
            if today != day:
                found.append((pixel, f"{kind}_calendar"))
            if at_ms - began_ms >= DAY_MS:
                found.append((pixel, f"{kind}_first_touch"))
                began_ms = at_ms
            if at_ms - latest_ms >= DAY_MS:
                found.append((pixel, f"{kind}_last_touch"))
            day, latest_ms = today, at_ms
    return found


def _in_order(pixel: Mapping[str, Any]) -> tuple[int, int]:
    """The order of a client's events; that of one moment is by a keyed hash."""
    hashed = blake2b(pixel["event_id"].encode(), digest_size=4, key=_TIES).digest()
    return pixel["own_ms"], int.from_bytes(hashed, "big") % (1 << 31)


def _key(pixel: Mapping[str, Any]) -> tuple[Any, ...] | None:
    client, episode = pixel.get("client_id"), pixel.get("episode")
    if client is None:
        return None
    if pixel["event"] == "delivered":
        of = (
            ("creative", pixel["creative_id"])
            if "creative_id" in pixel
            else ("placement", pixel["placement_id"])
        )
        return client, "delivered", *of, episode
    if episode is not None:
        return client, "episode", episode
    return (client, "podcast", pixel["podcast"]) if "podcast" in pixel else None


def rows(found: Iterable[tuple[Mapping[str, Any], str]], rows_of: Any) -> Mapping[Any, Counter[str]]:
    """The counts of each row."""
    by_row = defaultdict[Any, Counter[str]](Counter)
    for pixel, name in found:
        for row in rows_of(pixel):
            by_row[row][name] += 1
    return by_row
