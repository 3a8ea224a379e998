"""Transparency & Consent Framework strings, versions 2.2 and 2.3: the answers of a string about a vendor.

Source: InteractiveAdvertisingBureau/GDPR-Transparency-and-Consent-Framework,
`TCFv2/IAB Tech Lab - Consent string and vendor list formats v2.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from flows.collector.bits import Bits

_VERSION: Final = 2
_DISCLOSED: Final = 1
"""Type of the segment that lists the vendors which the CMP showed."""
MAX_SEGMENTS: Final = 4
"""The core, vendors disclosed and allowed, and the publisher's."""
PURPOSES: Final = 24
MAX_RESTRICTIONS: Final = 256
"""Four types for each of 64 purposes, one restriction each."""
NOT_ALLOWED, REQUIRE_CONSENT, REQUIRE_INTEREST = range(3)
"""Types of a publisher's restriction."""

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Vendors:
    """A set of vendor ids, as a bit field or as ranges, both ends inclusive."""

    most: int
    field: int = 0
    ranges: Ranges = ()

    def __contains__(self, vendor: int) -> bool:
        if 1 <= vendor <= self.most and self.field >> (self.most - vendor) & 1:
            return True
        return any(first <= vendor <= last for first, last in self.ranges)


@dataclass(frozen=True, slots=True)
class Restriction:
    """A publisher's restriction of a purpose for some vendors."""

    purpose: int
    type: int
    vendors: Ranges

    def holds_for(self, vendor: int) -> bool:
        """True if the vendor is among those restricted."""
        return any(first <= vendor <= last for first, last in self.vendors)


@dataclass(frozen=True)
class TcString:
    """A TC string, decoded.

    Attributes:
        created_ms: epoch ms.
        policy_version: of the framework's policies.
        service_specific: False for a string of the global scope, which no longer exists.
        purposes, interests: bit p - 1 from the left of 24: purpose p by consent, by legitimate interest.
        purpose_one_treatment: whether the publisher's country requires no consent to purpose 1.
        vendors, vendor_interests: by consent, by legitimate interest.
        disclosed: vendors that the user was shown; None if the string has no list of them.
    """

    created_ms: int
    policy_version: int
    service_specific: bool
    purposes: int
    interests: int
    purpose_one_treatment: bool
    vendors: Vendors
    vendor_interests: Vendors
    restrictions: tuple[Restriction, ...]
    disclosed: Vendors | None

    def consents_to(self, purpose: int) -> bool:
        """True if the user consents to a purpose, 1 to 24."""
        return bool(self.purposes >> (PURPOSES - purpose) & 1)

    def accepts_interest(self, purpose: int) -> bool:
        """True if a legitimate interest may be the basis of a purpose; never of purposes 1 and 3 to 6."""
        return purpose not in (1, 3, 4, 5, 6) and bool(self.interests >> (PURPOSES - purpose) & 1)

    def restricted(self, purpose: int, vendor: int, *types: int) -> bool:
        """True if the publisher restricts the vendor's purpose in one of these ways."""
        return any(
            restriction.type in types and restriction.holds_for(vendor)
            for restriction in self._by_purpose.get(purpose, ())
        )

    @cached_property
    def _by_purpose(self) -> dict[int, list[Restriction]]:
        by_purpose: dict[int, list[Restriction]] = {}
        for restriction in self.restrictions:
            by_purpose.setdefault(restriction.purpose, []).append(restriction)
        return by_purpose


def decode(text: str) -> TcString:
    """Read a TC string.

    Raises:
        ValueError: the text is no TC string, of another version, or cut short.
    """
    core, *segments = text.split(".", MAX_SEGMENTS)
    if len(segments) >= MAX_SEGMENTS:
        raise ValueError("too many segments")
    bits = Bits(core)
    if bits.number(6) != _VERSION:
        raise ValueError("not version 2")
    created = bits.number(36)
    bits.number(36 + 12 + 12 + 6 + 12 + 12)
    policy, service_specific = bits.number(6), bits.flag()
    bits.number(1 + 12)
    purposes, interests = bits.number(PURPOSES), bits.number(PURPOSES)
    one_treatment = bits.flag()
    bits.number(12)
    vendors, vendor_interests = _vendors(bits), _vendors(bits)
    if (count := bits.number(12)) > MAX_RESTRICTIONS:
        raise ValueError("too many restrictions")
    restrictions = tuple(Restriction(bits.number(6), bits.number(2), _ranges(bits)) for _ in range(count))
    disclosed = None
    for segment in segments:
        segment_bits = Bits(segment)
        if segment_bits.number(3) == _DISCLOSED:
            disclosed = _vendors(segment_bits)
    return TcString(
        created_ms=created * 100,
        policy_version=policy,
        service_specific=service_specific,
        purposes=purposes,
        interests=interests,
        purpose_one_treatment=one_treatment,
        vendors=vendors,
        vendor_interests=vendor_interests,
        restrictions=restrictions,
        disclosed=disclosed,
    )


def _vendors(bits: Bits) -> Vendors:
    most = bits.number(16)
    if bits.flag():
        return Vendors(0, ranges=_ranges(bits))
    return Vendors(most, field=bits.number(most))


def _ranges(bits: Bits) -> Ranges:
    ranges = []
    for _ in range(bits.number(12)):
        is_range, first = bits.flag(), bits.number(16)
        ranges.append((first, bits.number(16) if is_range else first))
    return tuple(ranges)
