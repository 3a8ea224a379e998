"""Damage: parameters that cannot have been sent as they came, since no sender writes them so.

A byte that changed on its way turns a good placement, order or value into another, or removes a refusal of
consent. The damage shows if the changed byte is impossible at its place, in a value or between parameters. A
value that may be damaged is treated as unreadable.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from itertools import pairwise, product
from typing import Final

from flows.collector.cleaner import EVENTS
from flows.collector.query import MAX_PARAMETERS, is_url, unquote, url_of
from flows.model.events import CONVERSION_TYPES

_PLAIN: Final = re.compile(
    r"(?!_|-[12]\Z|(?i:null|undefined|none)\Z|AUDIT\Z|00000000-0000)[A-Za-z0-9._~-]{1,512}"
)
is_plain: Final = _PLAIN.fullmatch
"""A match if a value has only characters that need no decoding, and is no macro and no placeholder; else
None. A function around it would take half as long again.
"""
_LETTER: Final = "3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa]"
_ENCODED_LETTER: Final = re.compile(f"%(?:{_LETTER})")
"""A letter or digit in percents, which no encoder writes."""
_NO_ENCODING: Final = re.compile(f"%(?:(?![0-9A-Fa-f]{{2}})|{_LETTER})")
_NOT_IN_A_QUERY: Final = re.compile(r'[\x00-\x20"#<>\[\\\]^`{|}\x7f-\x9f]')
_IN_BRACKETS: Final = re.compile(r"\[[^\[\]]*\]|\$?\{[^{}]*\}")
_ENCODED_AGAIN: Final = re.compile("%(?:2[235]|3[CE]|5[B-E]|60|7[B-D])")
_NO_LETTER: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffd]")
FREE_TEXT: Final = ("landing_url", "user_agent")
"""Words whose values may stand in a URL as they are, with brackets and macros."""
_NAME: Final = re.compile(r"[\w.~-]+", re.ASCII)
_NO_NAME: Final = re.compile(r"[^\w.~-]", re.ASCII)
_LONGEST_SCHEME: Final = 64
"""The length within which a URL's scheme ends, even if parts of it are percent-encoded."""
_MAX_EQUALS: Final = 6
"""The greatest number of equals signs of one parameter that are examined."""
_CLOSED: Final = frozenset(
    (
        *("gdpr", "lmt", "coppa", "gpc", "consent", "us_privacy", "server_side", "tracked"),
        *("event", "type", "basis", "currency", "signature", "target_signature", "cachebuster"),
    )
)
"""Words whose good values never begin like those of another meaning, or that mean nothing by themselves."""
_OF_STRINGS: Final = frozenset(("gdpr_consent", "gpp", "regulations"))
"""Words whose strings show by themselves whether their last letter is missing."""
_TAKES_RIGHTS: Final = frozenset(
    (
        *("gdpr", "lmt", "coppa", "gpc", "us_privacy", "gpp", "gdpr_consent", "regulations", "consent"),
        *("ip", "user_agent", "server_side"),
    )
)
"""Words that may refuse consent, or that mark a server's call."""

_FLAG: Final = re.compile(r"[$%](?:\.0|rue|es|alse|o)?", re.IGNORECASE)
_CONSENT_STRING: Final = re.compile(r"[$%]\w{31,}")
_FIRST_LETTER_LOST: Final[Mapping[str, re.Pattern[str]]] = {
    **dict.fromkeys(("gdpr", "lmt", "coppa", "gpc", "consent"), _FLAG),
    **dict.fromkeys(("server_side", "tracked"), re.compile(r"\$")),
    **dict.fromkeys(("gdpr_consent", "gpp"), _CONSENT_STRING),
    "us_privacy": re.compile(r"[$%][YN_]{3}", re.IGNORECASE),
    "regulations": re.compile(r"[$%](?:dpr|oppa)", re.IGNORECASE),
    "currency": re.compile(r"[$%][A-Z]{2}", re.IGNORECASE),
    "event": re.compile(f"[$%](?:{'|'.join(name[1:] for name in EVENTS)})", re.IGNORECASE),
    "type": re.compile(f"[$%](?:{'|'.join(name[1:] for name in CONVERSION_TYPES)})"),
}
"""Forms of texts that look like a macro (`$x`, `%x`), and may be good values with a changed first letter."""


_SECTIONS: Final = re.compile(r"\d+(?:\.0)?(?:[,_]\d+(?:\.0)?)*", re.ASCII)


def is_intact(word: str, value: str) -> bool:
    """True if a value, still encoded, can have been sent as it came."""
    if word == "cachebuster":
        return True
    if "%" in value:
        if _NO_ENCODING.search(value) is not None:
            return False
        if "%25" in value and _ENCODED_LETTER.search(unquote(value)) is not None:
            return False
    if _NOT_IN_A_QUERY.search(value) is None:
        return True
    return word in FREE_TEXT and _NOT_IN_A_QUERY.search(_IN_BRACKETS.sub("", value)) is None


def as_perhaps_sent(path: str) -> str:
    """The path that may have been sent, from one that the server decoded and encoded again. A character that
    no path may contain may have been sent unencoded, and a percent sign may have encoded nothing.
    """
    return _ENCODED_AGAIN.sub(lambda match: unquote(match.group()), path)


def is_text(text: str) -> bool:
    """True if a decoded value can have been meant. Control characters, bytes that were no UTF-8, and white
    space at its ends may stand for a lost letter.
    """
    if text.isascii() and text.isprintable():
        return text[:1] != " " and text[-1:] != " "
    return _NO_LETTER.search(text) is None and text == text.strip()


def is_list_of_sections(text: str) -> bool:
    """True if a list of sections has no gap; a gap may stand for a lost section."""
    return _SECTIONS.fullmatch(text) is not None


def may_be_a_value(word: str, macro: str) -> bool:
    """True if an unreplaced macro may be a good value with another first letter."""
    form = _FIRST_LETTER_LOST.get(word)
    return form is not None and form.fullmatch(macro) is not None


_BYTE: Final = "\ufffd"
"""Stands for a percent-encoded byte that is no UTF-8."""


class Names:
    """The names of a dialect's parameters, and each name with a hole, by which a damaged name is found. A
    hole replaces one letter. In JSON it may replace two, since a backslash takes the next letter along. After
    a percent sign it may replace three (`di%ected`).

    Args:
        words: meanings by name.
    """

    def __init__(self, words: Mapping[str, str]) -> None:
        self.words = words
        self.longest = max(map(len, words), default=0)
        self._with_a_hole: dict[str, list[str]] = {}
        for name in words:
            for hole_at, letters in product(range(len(name)), (1, 2, 3)):
                hole = _BYTE if letters == 3 else "\0"
                self._with_a_hole.setdefault(f"{name[:hole_at]}{hole}{name[hole_at + letters :]}", []).append(
                    name
                )

    def near(self, name: str) -> list[str]:
        """The names that differ from this one only in a single character that no name has."""
        if len(name) > self.longest:
            return []
        holes = [match.start() for match in _NO_NAME.finditer(name)]
        if len(holes) != 1:
            return []
        before, odd, behind = name[: holes[0]], name[holes[0]], name[holes[0] + 1 :]
        names = self._with_a_hole.get(f"{before}\0{behind}", [])
        return [*names, *self._with_a_hole.get(f"{before}{_BYTE}{behind}", [])] if odd == _BYTE else names


def is_name(name: str) -> bool:
    """True if a parameter may have this name."""
    return _NAME.fullmatch(name) is not None


def cut_parameters(
    text: str, separators: str, names: Names, uncut: Container[str] = ()
) -> Iterator[tuple[str, str]]:
    """Parameters of a query whose value may be cut short, or contain another parameter, as (name, word).

    Args:
        uncut: further words that are never taken for cut.
    """
    parts = _parts(text, separators)
    for place, part in enumerate(parts):
        name, equals, value = part.partition("=")
        if name and equals:
            contains_another = "=" in value and not (_is_url(value) and "?" in value.partition("=")[0])
            if contains_another and name in names.words:
                yield name, names.words[name]
            continue
        name, equals, value = parts[place - 1].partition("=") if place else ("", "", "")
        word = names.words.get(name)
        if word is None or word in uncut or (value and word in _CLOSED):
            continue
        if part or word not in _OF_STRINGS:
            yield name, word


def torn_parameters(
    text: str, separators: str, names: Names, words_of_call: Container[str]
) -> Iterator[tuple[str, str]]:
    """Parameters of a query whose name may be the end of another name, as (name, word).

    Args:
        words_of_call: words of the call, whose names are therefore whole.
    """
    parts = _parts(text, separators)
    for part, next_part in pairwise(parts):
        name = next_part.partition("=")[0]
        if "=" not in part and name in names.words:
            whole_names = names.near(f"{part}&{name}")
            if any(names.words[whole] not in words_of_call for whole in whole_names):
                yield name, names.words[name]


def lost_parameters(text: str, separators: str, names: Names) -> Iterator[tuple[str, str]]:
    """Parameters that a query may have had, as (name, word): a byte of the name, the equals sign or the
    separator before the name may have changed.
    """
    parts = _parts(text, separators)
    for place, part in enumerate(parts):
        name, equals, value = part.partition("=")
        if not (equals and "=" not in value and (name in names.words or is_name(name))):
            yield from _lost(part, names, _is_url(value))
            if not equals and place + 1 < len(parts):
                yield from _lost(f"{part}&{parts[place + 1]}", names)


def _lost(whole: str, names: Names, of_url: bool = False) -> Iterator[tuple[str, str]]:
    equals_at = -1
    for turn in range(_MAX_EQUALS):
        if (equals_at := whole.find("=", equals_at + 1)) < 0:
            break
        for name in names.near(whole[:equals_at]):
            yield name, names.words[name]
        if not turn:  # no other parameter stands before the first equals sign
            continue
        head = whole[max(0, equals_at - names.longest - 1) : equals_at]
        name = _NO_NAME.split(head)[-1]
        if len(name) == len(head) or name not in names.words or head[-len(name) - 1] == "&":
            continue
        # A URL has a query of its own. Only words that take rights away count there.
        if not (of_url and head[-len(name) - 1] == "?") or names.words[name] in _TAKES_RIGHTS:
            yield name, names.words[name]
    begins = _NAME.match(whole[: names.longest + 1])
    name = begins.group() if begins is not None else ""
    if name in names.words and whole[len(name) : len(name) + 1] not in ("", "="):
        yield name, names.words[name]


def _is_url(value: str) -> bool:
    return is_url(url_of(value[:_LONGEST_SCHEME]))


def _parts(text: str, separators: str) -> list[str]:
    for separator in separators[1:]:
        text = text.replace(separator, separators[0])
    return text.split(separators[0], MAX_PARAMETERS)[:MAX_PARAMETERS]
