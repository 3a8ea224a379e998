"""The collector's part of the methodology and its hash: the lists and policy by which calls become pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import blake2b, sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from flows.model.release import VERSION
from flows.settings import Settings

HASH_BYTES: Final = 8
_CHANGE: Final = (
    "After a change of the key each listener has another pseudonym: reach across the change counts both. "
    "Conversions also carry the previous pseudonyms."
)
_encode: Final = msgspec.json.Encoder(order="sorted").encode


class Method(NamedTuple):
    """The collector's part of the methodology.

    Attributes:
        hash: the hash of the text, 16 hexadecimal digits, which every mark carries.
        line: key and JSON of the message in the topic of the methodology.
    """

    hash: str
    line: tuple[bytes, bytes]


def method_of(settings: Settings, hashes: Mapping[str, str], keys: Sequence[str]) -> Method:
    """The collector's part of the methodology, by the settings.

    Args:
        hashes: SHA-256 of each list by its name.
        keys: ids of the collector's keys; the first is in force.
    """
    text: dict[str, Any] = {
        "part": "collector",
        "version": VERSION,
        "lists": {str(name): {"sha256": hashes.get(str(name), "")} for name in settings.collect_lists},
        "crawlers": f"crawler-user-agents {version('crawler-user-agents')}",
        "consent": {
            "default": settings.consent,
            "vendor": settings.collect_vendor,
            "purposes": settings.collect_purposes,
            "interest_purposes": settings.collect_interest_purposes,
            "needs_disclosure": settings.collect_needs_disclosure,
            "consent_free": sorted(settings.collect_consent_free),
        },
        "pseudonyms": {"key": keys[0], "keys_before": keys[1:], "change": _CHANGE},
        "placements": settings.collect_placements,
        "calls_per_caller": settings.collect_calls_per_caller,
        "callers": _digest(_callers(settings)),
        "own_dialects": _digest(_bytes_of(settings.collect_dialects)),
    }
    digest = blake2b(_encode(text), digest_size=HASH_BYTES).hexdigest()
    # The dates stay out of the hash: a new copy of the same list is the same method.
    dated = {str(name): _dated(path) for name, path in settings.collect_lists.items()}
    return Method(digest, (digest.encode(), _encode({"hash": digest, "lists_dated": dated} | text)))


def _callers(settings: Settings) -> bytes:
    """The callers that may name a device or decide on consent: networks, and tokens without their secrets."""
    tokens = {
        name: (sorted(token.rights), sorted(token.campaigns), token.device_from, token.masked)
        for name, token in settings.collect_tokens.items()
    }
    return _encode((tokens, sorted(settings.collect_proxies), settings.collect_servers))


def _digest(content: bytes) -> str:
    """The SHA-256 of inputs that the method depends on and does not show; empty if there are none."""
    return sha256(content).hexdigest() if content else ""


def _bytes_of(path: Path | None) -> bytes:
    try:
        return b"" if path is None else path.read_bytes()
    except OSError:
        return b""


def _dated(path: Path) -> str:
    """The day on which a list was last changed; empty if the file does not exist."""
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()
    except OSError:
        return ""
