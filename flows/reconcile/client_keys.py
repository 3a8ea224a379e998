"""The keys by which deliveries and downloads count once a client (specification 7.2)."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from flows.reconcile.line import LISTENER, Denied, Pixel
from flows.reconcile.polynomials import Hash

_EPISODE, _PODCAST, _CREATIVE, _PLACEMENT = range(16, 20)
"""Kinds of keys, after those of `flows.reconcile.scan`."""
_TIES: Final = 0x7FFFFFFF


def client_columns(
    pixel: Pixel, hashed: Hash, tie_key: bytes, denied: Denied | None
) -> tuple[str, int, bool] | None:
    """The key of a delivery or download, its order among equal times (0 without `tie_key`), and whether the
    client is on the deny-list; None for an event without a key.
    """
    placement, *_, podcast, _, creative, _ = pixel.names
    if pixel.client is None or pixel.event not in ("delivered", "download"):
        return None
    texts: tuple[str | None, ...] = (pixel.client,)
    if pixel.event == "delivered":
        kind = _PLACEMENT if creative is None else _CREATIVE
        texts += (creative or placement, pixel.episode)
    elif pixel.episode is not None or podcast is not None:
        kind = _PODCAST if pixel.episode is None else _EPISODE
        texts += (pixel.episode or podcast,)
    else:
        return None
    first, second = hashed(kind, texts)
    digest = blake2b(pixel.event_id.encode(), digest_size=4, key=tie_key).digest() if tie_key else b""
    tie = int.from_bytes(digest, "big") & _TIES
    return f"{first} {second}", tie, denied is not None and denied(LISTENER, pixel.client.encode())
