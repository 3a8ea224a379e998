"""Dialects: the form of each vendor's calls, as data. No vendor has code of its own.

`dialects.toml` holds our dialects, each with its source and its status: documented, seen in public code, or
inferred. The operator's own file has the same form; its dialects precede ours.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from flows.collector.cleaner import NO_UUID, present
from flows.errors import SettingsError
from flows.model.catalogue.fields import SCOPES
from flows.settings import nearest

Status = Literal["documented", "seen", "inferred"]
Part = tuple[str, str, str | None, tuple[str, str] | None, tuple[str, str]]
"""A parameter of a query: its name, its value still encoded, and its word or None. A plain value has also
(word, value) and the state (name, `given`).
"""

_NAMES: Final = {scope.parameter: scope.field for scope in SCOPES if scope.parameter}
NATIVE: Final = {
    "d": "dialect",
    "e": "event",
    **_NAMES,
    "p": "play_id",
    "id": "event_id",
    "ep": "episode",
    "l": "listener_id",
    "ifa": "ifa",
    "ifat": "ifa_type",
    "lmt": "lmt",
    "coppa": "coppa",
    "ip": "ip",
    "ua": "user_agent",
    "ss": "server_side",
    "gdpr": "gdpr",
    "gdpr_consent": "gdpr_consent",
    "gpp": "gpp",
    "gpp_sid": "gpp_sid",
    "us_privacy": "us_privacy",
    "gpc": "gpc",
    "co": "country",
    "ts": "ts",
    "ph": "playhead",
    "dur": "duration",
    "cat": "content_category",
    "cb": "cachebuster",
    "u": "landing_url",
    "ct": "type",
    "o": "order_id",
    "v": "value",
    "cur": "currency",
    "k": "signature",
    "s": "target_signature",
    "tr": "tracked",
    "ga": "ga_client_id",
}
"""The meanings of our own short parameters, by name."""
WORDS: Final = frozenset((*NATIVE.values(), "basis", "consent", "regulations", "playhead_ms", "duration_ms"))
"""Meanings of parameters; each is a parameter's name too."""
LITERAL: Final = {**_NAMES, **{name: NATIVE[name] for name in ("ep", "ct", "co", "k")}}
"""Parameters that a marketer writes into the URL of a postback, next to the vendor's own names."""
SIGNALS: Final = {
    name: name
    for name in ("gdpr", "gdpr_consent", "gpp", "gpp_sid", "us_privacy", "lmt", "coppa", "gpc", "consent")
} | {"tag_for_child_directed_treatment": "coppa"}
"""Parameters on consent, which every dialect has. Ad servers fill them by these names in any URL, and a
refusal counts at every door.
"""
CONSENT: Final = frozenset((*SIGNALS.values(), "regulations"))
"""Words on consent. If a call has one of them several times, the refusal counts."""
CLAIMS: Final = frozenset(("ip", "user_agent", "server_side"))
"""Words by which a call names a device other than its caller."""
_COMPOSED: Final = ("play_id", "event_id")
"""Ids that a dialect's macros may build from several parts."""
_FIRST_LOST: Final = re.compile(r"-+(?:[12]-)?[^-]*")
"""An id of two parts whose first is empty, or -1 or -2, as VAST writes it."""


class Word(BaseModel):
    """A macro or a name whose status is not its dialect's."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    is_: str = Field(alias="is")
    status: Status


class Dialect(BaseModel):
    """The form of one vendor's calls.

    Attributes:
        use: `tag`: our URL in the vendor's form; `postback`: the vendor's own names.
        urls: the number of URLs that the vendor takes; None for any number.
        time, playhead: the unit of a plain number; with an empty `time` its magnitude decides.
        device_from: the place of the device's address in a call of this vendor's server; None for its
            headers, else its parameters.
        masked: whether that address lacks its last part.
        split: characters that separate parameters besides `&`.
        macros: the vendor's macros by word.
        names: words by the vendor's names.
        events: canonical events by the vendor's names.
        when: words and their values by case, a `name=value` of a parameter; `event_from` names the parameter
            that has the event.
        fixed: the values of words that a call does not have.
        drop: names that are not read, and not reported as unread.
        note: advice to a marketer, as text.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    source: str
    status: Status
    use: Literal["tag", "postback"]
    urls: int | None = None
    time: Literal["", "s", "ms", "us", "iso"] = ""
    playhead: Literal["ms", "s", "hms"] = "ms"
    device_from: Literal["transport", "x-device", "xff-first", "xff-last", "query"] | None = None
    masked: bool = False
    split: tuple[str, ...] = ()
    macros: Mapping[str, str | Word] = {}
    names: Mapping[str, str | Word] = {}
    events: Mapping[str, str] = {}
    when: Mapping[str, Mapping[str, str]] = {}
    fixed: Mapping[str, str] = {}
    drop: tuple[str, ...] = ()
    note: str = ""

    @field_validator("macros", "fixed")
    @classmethod
    def _only_known_words(cls, words: Mapping[str, object]) -> Mapping[str, object]:
        return _only_words(words, words)

    @field_validator("names")
    @classmethod
    def _known_names(cls, names: Mapping[str, str | Word]) -> Mapping[str, str | Word]:
        _only_words(names, map(plain, names.values()))
        return names

    @field_validator("when")
    @classmethod
    def _known_cases(cls, cases: Mapping[str, Mapping[str, str]]) -> Mapping[str, Mapping[str, str]]:
        for case, words in cases.items():
            if "=" not in case:
                raise ValueError(f"{case}: a case is NAME=VALUE")
            _only_words(words, (word for word in words if word != "event_from"))
        return cases

    @cached_property
    def separators(self) -> str:
        """The characters that separate the parameters of a call."""
        return "&" + "".join(self.split)

    def word(self, name: str) -> str | None:
        """The meaning of a parameter; None if the parameter is not read."""
        return self.meanings.get(name)

    @cached_property
    def case_parameters(self) -> frozenset[str]:
        """The parameters that select its cases."""
        events = (words["event_from"] for words in self.when.values() if "event_from" in words)
        return frozenset((*(case.partition("=")[0] for case in self.when), *events))

    @cached_property
    def meanings(self) -> Mapping[str, str]:
        """The meanings of its parameters by name."""
        common = LITERAL if self.use == "postback" else {word: word for word in WORDS} | NATIVE
        words = {name: word for name, word in (common | SIGNALS).items() if name not in self.drop}
        return words | {name: plain(word) for name, word in self.names.items()}

    @cached_property
    def remembered_parts(self) -> dict[str, Part]:
        """Parameters with plain values, by their text in a query; `flows.collector.reading` fills it."""
        return {}

    @cached_property
    def _composed_ids(self) -> frozenset[str]:
        """Ids that this dialect's macro builds from several parts."""
        return frozenset(word for word in _COMPOSED if "-" in plain(self.macros.get(word, "")))

    @cached_property
    def play_names_listener(self) -> bool:
        """True if this dialect's id of a play contains an id of its listener (`@AD_ID@-@COOKIE@`)."""
        return "play_id" in self._listener_ids

    @cached_property
    def _listener_ids(self) -> frozenset[str]:
        """Ids that this dialect's macro builds from an id of its listener."""
        persons = [plain(self.macros[word]) for word in ("listener_id", "ifa") if word in self.macros]
        macros = {word: plain(self.macros.get(word, "")) for word in _COMPOSED}
        return frozenset(word for word in macros if any(person in macros[word] for person in persons))

    def is_whole(self, word: str, text: str) -> bool:
        """True if a value that this dialect's macro builds from several parts (`@AD_ID@-@COOKIE@`) has all of
        them.

        With one part missing the value is the same for all listeners, and all their plays would be one. A
        withheld listener's id leaves its hyphen. An auction's id is present or an unreplaced macro; it may
        begin with hyphens, and contain several together (base64url).
        """
        if word not in self._composed_ids:
            return True
        withheld = word in self._listener_ids
        if NO_UUID in text or ("--" in text if withheld else _FIRST_LOST.fullmatch(text)):
            return False
        parts = text if withheld else text.lstrip("-")
        first, last = parts.partition("-")[0], parts.rpartition("-")[2]
        return present(first)[0] is not None and present(last)[0] is not None


def plain(word: str | Word) -> str:
    """A macro or a name without its status."""
    return word if isinstance(word, str) else word.is_


def _only_words(whole: Mapping[str, object], words: object) -> Mapping[str, object]:
    unknown = sorted(str(word) for word in words if word not in WORDS)  # type: ignore[attr-defined]
    if unknown:
        raise ValueError(f"no such word: {', '.join(unknown)}")
    return whole


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    dialect: Mapping[str, Dialect] = {}


_KEYS: Final = (*_File.model_fields, *Dialect.model_fields)


def load_dialects(own_file: Path | None = None) -> dict[str, Dialect]:
    """All dialects by name; a dialect of the operator's file replaces ours.

    Raises:
        SettingsError: the file cannot be read, or has a key or a word that does not exist.
    """
    ours = _read(files("flows.collector").joinpath("dialects.toml").read_text(), "dialects.toml")
    if own_file is None:
        return ours
    try:
        text = own_file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{own_file}: cannot be read: {error}") from None
    return ours | _read(text, str(own_file))


def _read(text: str, name: str) -> dict[str, Dialect]:
    try:
        return dict(_File.model_validate(tomllib.loads(text)).dialect)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{name}: cannot be read as TOML: {error}") from None
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg'].removeprefix('Value error, ')}"
            + (nearest(str(problem["loc"][-1]), _KEYS) if problem["type"] == "extra_forbidden" else "")
            for problem in error.errors(include_input=False, include_url=False)
        ]
        raise SettingsError(f"{name}: {'; '.join(problems)}") from None
