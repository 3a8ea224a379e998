"""Calls as players, servers and browsers make them, and an understanding to put them to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from flows.collector.call import Call
from flows.collector.callers import Callers, Token, networks
from flows.collector.consent import Policy
from flows.collector.dialects import load_dialects
from flows.collector.invalid_traffic import Judge
from flows.collector.pseudonyms import Pseudonyms
from flows.collector.signatures import Signatures
from flows.collector.understand import Understanding

NOW_MS = 1_795_600_000_000
SECRET = "a secret of a caller"
CONSENT = "CQtDjkAQtDjkAAfAAAENCWFgAIKAAAAAAAwIAEEkAAAAAAAA.IAEEkAAA.YAAAAAAAAAAA"
"""Purposes 1, 7 and 9; vendors 2, 5 and 8."""
PLAYER = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Safari/604.1"
HOME = "81.2.69.142"


def token(**values: Any) -> Token:
    from hashlib import sha256

    return Token(sha256(SECRET.encode()).hexdigest(), **values)


def understanding(**values: Any) -> Understanding:
    known: dict[str, Any] = {
        "dialects": load_dialects(),
        "callers": Callers(
            {"host": token(rights=frozenset({"write"}), device_from="x-device")},
            networks(["10.0.0.0/8"]),
            [(networks(["198.51.100.0/24"])[0], "xff-first")],
        ),
        "policy": Policy(5),
        "pseudonyms": Pseudonyms(b"a key of the edge, 32 bytes long"),
        "judge": Judge(),
        "signatures": Signatures({"a1": b"a signing key"}, frozenset({"shop.example"})),
        "key": b"ids of calls",
        "placements": "any",
    }
    return Understanding(**known | values)


def call(
    parameters: Mapping[str, Any] | str = "",
    path: str = "/p",
    headers: Mapping[str, str] | None = None,
    peer: str = HOME,
    method: str = "GET",
    body: bytes = b"",
) -> Call:
    query = parameters if isinstance(parameters, str) else urlencode(parameters)
    return Call(method, path, query, {"user-agent": PLAYER} | dict(headers or {}), body, peer, NOW_MS)


def usual(**more: Any) -> dict[str, Any]:
    """The parameters of a usual tag."""
    return {
        "e": "start",
        "pl": "breakfast-uk",
        "cm": "spring",
        "p": "play-1",
        "l": "listener-1",
        "gdpr": "1",
        "gdpr_consent": CONSENT,
        "ts": str(NOW_MS - 1_000),
    } | more
