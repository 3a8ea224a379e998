"""Global Privacy Platform strings: their sections, and whether a section of the United States opts out.

Source: InteractiveAdvertisingBureau/Global-Privacy-Platform, `Core/Consent String Specification.md` and
`Sections/`.
"""

from __future__ import annotations

from typing import Final

from flows.collector.bits import Bits

TCF_EU, USP = 2, 6
"""Ids of the sections that hold a TC string, and a US privacy string."""
_HEADER: Final = 3
_OPTED_OUT: Final = 1
_GPC: Final = 1
"""Type of the sub-section that holds the Global Privacy Control."""
OPT_OUTS: Final = {
    7: (18, 20, 22),  # usnat: sale, sharing, targeted advertising; versions 1 and 2 alike
    8: (12, 14),  # usca: sale, sharing
    9: (12, 14),  # usva: sale, targeted advertising
}
"""Places of the two-bit fields in a section's core that are 1 where the user has opted out. A section that is
not here is not guessed at.
"""
_MAX_SECTIONS: Final = 64
_MAX_SUBSECTIONS: Final = 8


def sections(text: str) -> dict[int, str]:
    """The sections of a GPP string by their ids.

    Raises:
        ValueError: it is none, or cut short.
    """
    header, *bodies = text.split("~")
    bits = Bits(header)
    if bits.number(6) != _HEADER:
        raise ValueError("not a GPP header")
    bits.number(6)
    ids: list[int] = []
    last = 0
    for _ in range(bits.number(12)):
        many = bits.flag()
        first = last + bits.fibonacci()
        last = first + bits.fibonacci() if many else first
        if last - first + len(ids) >= _MAX_SECTIONS:
            raise ValueError("more sections than there are")
        ids += range(first, last + 1)
    if len(ids) != len(bodies):
        raise ValueError("other sections than its header says")
    return dict(zip(ids, bodies, strict=True))


def is_known(section: int) -> bool:
    """True if the bits of a section of the United States are known here."""
    return section == USP or section in OPT_OUTS


def opted_out(section: int, body: str) -> bool | None:
    """True if a known section of the United States opts out of sale, sharing or targeted advertising; None:
    it says that its law does not apply.

    Raises:
        ValueError: it is cut short.
    """
    if section == USP:
        return us_privacy(body)
    places = OPT_OUTS[section]
    core, *others = body.split(".", _MAX_SUBSECTIONS)
    if len(others) >= _MAX_SUBSECTIONS:
        raise ValueError("more sub-sections than there are")
    for place in places:
        bits = Bits(core)
        bits.number(place)
        if bits.number(2) == _OPTED_OUT:
            return True
    for other in others:
        bits = Bits(other)
        if bits.number(2) == _GPC and bits.flag():
            return True
    return False


def us_privacy(text: str) -> bool | None:
    """True if a US privacy string (`1YNN`) opts out of sale; None (`1---`): the law does not apply, so that
    the string is nobody's answer. Publishers send it from everywhere.

    Raises:
        ValueError: it is none.
    """
    if len(text) != 4 or text[0] != "1" or not set(text[1:].upper()) <= set("YN-"):
        raise ValueError("not a US privacy string")
    return {"Y": True, "N": False, "-": None}[text[2].upper()]
