"""Paths into a message: `a.b[0].c`, `$key`, `$timestamp`, `$partition`, `$offset`, `$headers.x`, `$schema`.

A path goes through objects by name, and through lists by place (`[0]`, `[-1]`) or by the value of a field
(`headers[name="User-Agent"].value`, in letters of either case). It also goes through text that is JSON. A
name with other characters is quoted: `"Event Name".id`. If a field or a column has the whole path as its
name, that field counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from flows.collector.body import OBJECT, Number, Unreadable
from flows.errors import UNREADABLE

LONGEST_PATH: Final = 512
MAX_STEPS: Final = 16
LONGEST_TEXT: Final = 65_536
"""The greatest length, in characters, of text within a message that is read as JSON."""
_STEP: Final = re.compile(
    r"""\.?(?:
        (?P<name>[A-Za-z0-9_@$:/ -]+)
      | "(?P<quoted>[^"]+)"
      | \[(?P<place>-?\d{1,6})\]
      | \[(?P<by>[A-Za-z0-9_-]+)="(?P<value>[^"]*)"\]
    )""",
    re.VERBOSE,
)
_LIST: Final = msgspec.json.Decoder(list[Any], float_hook=Number)
_NOTHING: Final[tuple[Any, ...]] = (None, "", [], ())
"""Values with nothing inside: some writers encode an empty object as a list."""
ROOTS: Final = ("$key", "$timestamp", "$partition", "$offset", "$topic", "$headers", "$schema")


class Message(NamedTuple):
    """A message or row of a source.

    Attributes:
        document: the decoded object; None if the value is no object.
        offset: the offset in a topic, or the number of a line in a file, from 1.
        timestamp_ms: the record's timestamp, in epoch ms; 0 if it has none.
        headers: the last header of each name.
        tombstone: whether the record has no value; such a record removes a key, and is no event.
        schema: the full name of its schema; empty if it has none.
        wrong: the field that its schema lacks, or `schema` if the schema itself is unusable.
    """

    document: Mapping[str, Any] | None
    topic: str = ""
    partition: int = 0
    offset: int = 0
    timestamp_ms: int = 0
    key: bytes = b""
    headers: Mapping[str, bytes] = {}
    schema: str = ""
    wrong: str = ""
    tombstone: bool = False

    def root(self, name: str) -> Any:
        """A fact about the record itself, by its name in a path; None if the record has none."""
        if name == "$key":
            return _text(self.key) if self.key else None
        if name == "$headers":
            return {header: _text(value) for header, value in self.headers.items()}
        roots: dict[str, Any] = {
            "$timestamp": self.timestamp_ms or None,
            "$partition": self.partition,
            "$offset": self.offset,
            "$topic": self.topic or None,
            "$schema": self.schema or None,
        }
        return roots[name]


class Path:
    """A compiled path.

    Attributes:
        root: the first name of a path that begins at the record, else empty.
        steps: names, places in lists, and (name, value) of a list's object.

    Raises:
        ValueError: the text is no path.
    """

    __slots__ = ("root", "steps", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        steps: list[str | int | tuple[str, str]] = []
        position = 0
        if not text or len(text) > LONGEST_PATH:
            raise ValueError(f"a path has 1 to {LONGEST_PATH} characters")
        while position < len(text):
            match = _STEP.match(text, position)
            if match is None or (position == 0 and text[0] in ".["):
                raise ValueError(
                    f'{text}: is no path from character {position + 1} on: a.b[0].c, or "a name".b'
                )
            position = match.end()
            name, quoted, place, by, value = match.groups()
            steps.append(int(place) if place else (by, value.lower()) if by else (name or quoted))
        self.root = ""
        if isinstance(steps[0], str) and steps[0].startswith("$"):
            self.root = steps.pop(0)  # type: ignore[assignment]
            if self.root not in ROOTS:
                raise ValueError(f"{text}: a record has {', '.join(ROOTS)}")
        if len(steps) > MAX_STEPS:
            raise ValueError(f"{text}: has more than {MAX_STEPS} steps")
        self.steps = tuple(steps)

    def names(self) -> tuple[str, ...]:
        """The names of the objects' fields on this path.

        Raises:
            ValueError: the path goes through a list, or begins at the record.
        """
        names = tuple(step for step in self.steps if isinstance(step, str))
        if self.root or len(names) < len(self.steps):
            raise ValueError(f"{self.text}: goes through more than objects")
        return names

    def value_in(self, message: Message) -> Any:
        """The value at this path; None if there is none. `Unreadable` if a step leads into text that is not
        JSON, or through a value of another shape: consent that changes its shape is not absent.
        """
        if self.root:
            value = message.root(self.root)
        else:
            value = message.document
            if isinstance(value, Mapping) and self.text in value:
                return value[self.text]
        for step in self.steps:
            if value.__class__ is str and value:
                value = _parsed(value)
                if value.__class__ is Unreadable:
                    return value
            if value in _NOTHING:
                return None
            if isinstance(step, str) and isinstance(value, Mapping):
                value = value.get(step)
            elif isinstance(step, str) or not isinstance(value, list | tuple):
                return Unreadable()
            elif isinstance(step, int):
                value = value[step] if -len(value) <= step < len(value) else None
            else:
                value = _first_object(value, *step)
            if value is None:
                return None
            if value.__class__ is Unreadable:
                return value
        return value


def _first_object(items: Sequence[Any], name: str, wanted: str) -> Any:
    """The first object of a list whose field has a value."""
    for item in items:
        if (
            isinstance(item, Mapping)
            and isinstance(field_value := item.get(name), str)
            and field_value.lower() == wanted
        ):
            return item
    return None


def _parsed(text: str) -> Any:
    if len(text) > LONGEST_TEXT:
        return Unreadable()
    try:
        return (_LIST if text.lstrip()[:1] == "[" else OBJECT).decode(text.encode())
    except (*UNREADABLE, UnicodeEncodeError):
        return Unreadable()


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return Unreadable()


class Condition:
    """A condition on a message: `PATH=VALUE`, `PATH!=VALUE`, `PATH contains VALUE` (a list has the value),
    `PATH` (it leads to a value), `!PATH` (it leads to none).

    `VALUE` may have alternatives, `A|B`. Parts joined by ` & ` must all hold.

    Raises:
        ValueError: the text is no condition.
    """

    __slots__ = ("_parts", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._parts = [_part(part) for part in text.split(" & ")]

    @property
    def paths(self) -> list[Path]:
        """The paths that this condition reads."""
        return [path for path, _, _, _ in self._parts]

    def read(self) -> Iterator[tuple[Path, frozenset[str]]]:
        """The paths that this condition reads, each with the values that it compares; no values if it tests
        only whether the path leads to a value.
        """
        for path, wanted, _, _ in self._parts:
            yield path, wanted or frozenset()

    def holds(self, message: Message) -> bool | None:
        """True if the condition holds for a message; None if a deciding value cannot be read."""
        verdict: bool | None = True
        for path, wanted, negated, in_list in self._parts:
            value = path.value_in(message)
            if wanted is None:
                holds = is_present(value)
            elif value.__class__ is Unreadable or (in_list and not isinstance(value, list | tuple | None)):
                verdict = None
                continue
            elif in_list:
                holds = not wanted.isdisjoint(map(plain, value or ()))
            else:
                holds = value is not None and plain(value) in wanted
            if holds is negated:
                return False
        return verdict


def _part(text: str) -> tuple[Path, frozenset[str] | None, bool, bool]:
    """The path of a part, its values, whether it is negated, and whether the path leads to a list."""
    pattern = r"\s*(?P<path>.+?)(?:\s*(?P<how>!?=)|\s+(?P<list>contains)\s)\s*(?P<values>.*?)\s*"
    if match := re.fullmatch(pattern, _without_quoted(text)):
        path, values = text[: match.end("path")], text[match.start("values") :]
        wanted = frozenset(one.strip() for one in values.split("|"))
        return Path(path.strip()), wanted, match["how"] == "!=", match["list"] is not None
    negated = text.strip().startswith("!")
    return Path(text.strip().removeprefix("!").strip()), None, negated, False


def _without_quoted(text: str) -> str:
    """A text with `x` for each character in brackets or quotes: an equals sign in them ends no path."""
    return re.sub(r'\[[^\]]*\]|"[^"]*"', lambda match: "x" * len(match[0]), text)


def is_present(value: Any) -> bool:
    """True if a path leads to a value. A value that cannot be read exists, even if its text is empty."""
    return value is not None and (value != "" or value.__class__ is Unreadable)


def plain(value: Any) -> str:
    """A value in the form that conditions and tables of values use."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
