"""Signatures of tags and click targets: they decide which tags may make a row, and where a click may lead.

A tag carries `k`: `<key id>.<base64url of the first 12 bytes of HMAC-SHA256>` over the JSON array `["k1",
placement, campaign]`. If labels are signed with it, a third part names them, and the array ends with `[[name,
value], …]`. A click carries `s`, the same over `["s1", scheme, host, port]` of its target, so that macros
elsewhere in the target stay free. Two keys may be in force.

A call that shows its verdict to its sender carries `dbg`: `<epoch s of its end>.<the same over `["d1", that
number]`>`.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from hmac import compare_digest, digest
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from flows.model.catalogue.fields import SIGNED

LABELS: Final = SIGNED
DEBUG: Final = "dbg"
"""The parameter by which a call shows its verdict to its sender."""
LONGEST_DEBUG_S: Final = 31 * 86_400
"""The longest validity of a debug value, in s."""
_PORTS: Final = {"http": 80, "https": 443}
_MAC_BYTES: Final = 12
_MAX_KNOWN: Final = 50_000


class Signatures:
    """Signs and checks.

    Args:
        keys: secrets by their ids; the first signs.
        hosts: hosts of click targets that need no signature.
    """

    def __init__(self, keys: Mapping[str, bytes], hosts: frozenset[str] = frozenset()) -> None:
        self._keys, self._hosts = dict(keys), hosts
        self._verified: set[tuple[str, ...]] = set()

    def of_tag(
        self, placement: str | None, campaign: str | None, labels: Mapping[str, str] | None = None
    ) -> str:
        """The signature of a tag; both ids and the labels stand in it literally."""
        names = sorted(labels or {})
        payload = _tag(placement, campaign, [[name, (labels or {})[name]] for name in names])
        return self._sign(payload) + (f".{','.join(names)}" if names else "")

    def of_target(self, url: str) -> str:
        """The signature of a click's target.

        Raises:
            ValueError: the target is no http or https URL.
        """
        target = _target(url)
        if target is None:
            raise ValueError(f"no http or https URL: {url!r}")
        return self._sign(target)

    def of_debug(self, until_s: int) -> str:
        """The debug value that is valid until `until_s`, epoch s."""
        return f"{until_s}.{self._sign(_debug(until_s))}"

    def may_debug(self, value: str, now_s: float) -> bool:
        """True if a debug value is signed by a key in force, and valid at `now_s`, epoch s."""
        until, _, signature = value.partition(".")
        if len(value) > 128 or not (until.isascii() and until.isdigit() and len(until) <= 12):
            return False
        key, _, mac = signature.partition(".")
        return 0 <= int(until) - now_s <= LONGEST_DEBUG_S and self._is_signed(key, mac, _debug(int(until)))

    def has_key_of(self, signature: str) -> bool:
        """True if the key that a signature names is in force."""
        return signature.partition(".")[0] in self._keys

    def passes(
        self, signature: str, placement: str | None, campaign: str | None, labels: Mapping[str, str | None]
    ) -> bool:
        """True if a tag's ids, and the labels that its signature names, are as they were signed."""
        key, _, mac_and_names = signature.partition(".")
        mac, _, names_text = mac_and_names.partition(".")
        names = names_text.split(",") if names_text else []
        if len(signature) > 128 or not set(names) <= set(LABELS):
            return False
        signed = [[name, labels.get(name) or ""] for name in names]
        signed_values = (signature, placement or "", campaign or "", *(value for _, value in signed))
        if signed_values in self._verified:
            return True
        if not self._is_signed(key, mac, _tag(placement, campaign, signed)):
            return False
        if len(self._verified) >= _MAX_KNOWN:
            self._verified.clear()
        self._verified.add(signed_values)
        return True

    def may_lead_to(self, url: str, signature: str) -> bool:
        """True if a click may be redirected: to a host that the operator lists, or to a signed target."""
        target = _target(url)
        if target is None:
            return False
        key, _, mac = signature.partition(".")
        return str(target[2]) in self._hosts or self._is_signed(key, mac, target)

    def _sign(self, payload: Sequence[Any]) -> str:
        key = next(iter(self._keys))
        return f"{key}.{_mac(self._keys[key], payload)}"

    def _is_signed(self, key: str, mac: str, payload: Sequence[Any]) -> bool:
        """True if a key in force made this MAC of a payload; constant time in the MAC."""
        secret = self._keys.get(key)
        expected = _mac(secret if secret is not None else b"nobody's key", payload)
        return compare_digest(mac.encode(errors="replace"), expected.encode()) and secret is not None


def _tag(placement: str | None, campaign: str | None, labels: Sequence[Sequence[Any]]) -> list[Any]:
    return ["k1", placement or "", campaign or "", *([labels] if labels else [])]


def _debug(until_s: int) -> list[Any]:
    return ["d1", until_s]


def _target(url: str) -> list[Any] | None:
    """The signed part of a click's target; None for a target that no signature can allow."""
    if any(not 0x21 <= ord(letter) < 0x7F for letter in url) or "\\" in url:
        return None  # browsers read control characters and backslashes in ways of their own
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    scheme = parts.scheme.lower()
    if scheme not in _PORTS or not parts.hostname or parts.username is not None:
        return None
    return ["s1", scheme, parts.hostname.lower(), port or _PORTS[scheme]]


def _mac(secret: bytes, payload: Sequence[Any]) -> str:
    signed = digest(secret, msgspec.json.encode(payload), sha256)[:_MAC_BYTES]
    return urlsafe_b64encode(signed).decode().rstrip("=")
