"""Global Privacy Platform strings: their sections, and whether a section of the United States opts out.

Source: InteractiveAdvertisingBureau/Global-Privacy-Platform, `Core/Consent String Specification.md` and
`Sections/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from flows.collector.bits import Bits

TCF_EU, USP = 2, 6
"""Ids of the sections that hold a TC string, and a US privacy string."""
_HEADER: Final = 3
_OPTED_OUT, _NOT_OPTED_OUT = 1, 2
"""Answers of a field; 0 means not applicable."""
_GPC: Final = 1
"""Type of the sub-section that holds the Global Privacy Control."""
_USNAT: Final = 7
_NO_TYPES: Final = frozenset((25, 26, 27))
"""usin, usky, usri. The second sub-section of these has no type: it lists sensitive data, and may begin with
the bits of the Global Privacy Control.
"""
OPT_OUTS: Final[Mapping[int, tuple[int, ...]]] = {
    _USNAT: (18, 20, 22),  # sale, sharing, targeted advertising
    8: (12, 14),  # usca: sale, sharing
    # Sale, targeted advertising: usva usco usct usfl usmt usor ustx usde usne usnh usnj ustn usmn.
    **dict.fromkeys((9, 10, 12, 13, 14, 15, 16, 17, 19, 20, 21, 22, 23), (12, 14)),
    **dict.fromkeys((11, 18), (14, 16)),  # usut usia
    **dict.fromkeys((24, *_NO_TYPES), (16, 18)),  # usmd usin usky usri
}
"""By section, the bit positions of the two-bit fields in its core that are 1 for a user who has opted out.
Source: `@iabgpp/cmpapi` 3.2.0. The bits of other sections are unknown.
"""
_MAX_SECTIONS: Final = 64
_MAX_SUBSECTIONS: Final = 8
_MAX_KNOWN: Final = 4_096
_LONGEST_KNOWN: Final = 64
"""The greatest length of cached headers and sections, which repeat from call to call."""


def sections(text: str) -> dict[int, str]:
    """The sections of a GPP string by their ids.

    Raises:
        ValueError: the text is no GPP string, or is cut short.
    """
    header, *bodies = text.split("~")
    ids = _known_ids(header) if len(header) <= _LONGEST_KNOWN else _ids(header)
    if len(ids) != len(bodies):
        raise ValueError("another number of sections than in its header")
    return dict(zip(ids, bodies, strict=True))


def _ids(header: str) -> tuple[int, ...]:
    bits = Bits(header)
    if bits.number(6) != _HEADER:
        raise ValueError("not a GPP header")
    bits.number(6)
    ids: list[int] = []
    last = 0
    for _ in range(bits.number(12)):
        is_range = bits.flag()
        first = last + bits.fibonacci()
        last = first + bits.fibonacci() if is_range else first
        if last - first + len(ids) >= _MAX_SECTIONS:
            raise ValueError("too many sections")
        ids += range(first, last + 1)
    return tuple(ids)


_known_ids = lru_cache(_MAX_KNOWN)(_ids)


def is_known(section: int) -> bool:
    """True if the bits of a section of the United States are known."""
    return section == USP or section in OPT_OUTS


def opted_out(section: int, body: str) -> bool | None:
    """True if a known section of the United States opts out of sale, sharing or targeted advertising. None if
    a US privacy string declares that its law does not apply.

    Raises:
        ValueError: the section is cut short, or of an unknown version.
    """
    return us_privacy(body) if section == USP else _two_answers(section, body)[0]


def answers(section: int, body: str) -> bool:
    """True if a known section of the United States answers at least one question with no opt-out. False if it
    opts out, or if no field is applicable.

    Raises:
        ValueError: as for `opted_out`.
    """
    return us_privacy(body) is False if section == USP else _two_answers(section, body)[1]


def _two_answers(section: int, body: str) -> tuple[bool, bool]:
    return (_known_answers if len(body) <= _LONGEST_KNOWN else _answers)(section, body)


def _answers(section: int, body: str) -> tuple[bool, bool]:
    """Read two answers of a section: whether it opts out, and whether any field of it does not."""
    core, *subsections = body.split(".", _MAX_SUBSECTIONS)
    if len(subsections) >= _MAX_SUBSECTIONS:
        raise ValueError("too many sub-sections")
    if not 1 <= Bits(core).number(6) <= (2 if section == _USNAT else 1):
        raise ValueError("an unknown version, whose fields may stand elsewhere")
    answers = []
    for place in OPT_OUTS[section]:
        bits = Bits(core)
        bits.number(place)
        answers.append(bits.number(2))
    out = _OPTED_OUT in answers
    for subsection in subsections if section not in _NO_TYPES else ():
        bits = Bits(subsection)
        out = out or (bits.number(2) == _GPC and bits.flag())
    return out, _NOT_OPTED_OUT in answers


_known_answers = lru_cache(_MAX_KNOWN)(_answers)


def us_privacy(text: str) -> bool | None:
    """True if a US privacy string (`1YNN`) opts out of sale. None if the law does not apply (`1---`):
    publishers send that string from everywhere, so it is no answer.

    Raises:
        ValueError: the text is no US privacy string.
    """
    if len(text) != 4 or text[0] != "1" or not set(text[1:].upper()) <= set("YN-"):
        raise ValueError("not a US privacy string")
    return {"Y": True, "N": False, "-": None}[text[2].upper()]
