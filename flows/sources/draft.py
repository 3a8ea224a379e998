"""Guesses a first mapping from messages, by the preset that recognises them or by usual names of fields."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from flows.collector.cleaner import event_name
from flows.model.catalogue.events import EVENTS, Way
from flows.model.catalogue.fields import FIELDS
from flows.model.events import CODES
from flows.sources.paths import Condition, Message, Path, plain
from flows.sources.source import Format, parse_source, presets

MAX_MESSAGES: Final = 10_000
"""The greatest number of messages that a guess reads."""
MAX_PATHS: Final = 2_000
MAX_DEPTH: Final = 6
LONGEST_EVENT: Final = 128
"""The greatest length of an event's name that is written into the draft: longer text names no event."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9_@-]+(?: [A-Za-z0-9_@-]+)*")
SYNONYMS: Final[Mapping[str, Sequence[str]]] = {
    **{field.name: field.synonyms for field in FIELDS if field.synonyms},
    "ifa": ("ifa", "idfa", "gaid", "aaid", "advertising_id", "advertisingid"),
    "gdpr": ("gdpr", "gdpr_applies"),
    "gdpr_consent": ("gdpr_consent", "tcf_string", "tc_string", "tcfv2", "consent_string"),
    "gpp": ("gpp", "gpp_string"),
    "us_privacy": ("us_privacy", "usprivacy", "ccpa"),
    "country": ("country", "country_code"),
    "duration": ("duration", "ad_duration", "length"),
    "order_id": ("order_id", "transaction_id", "transactionid"),
    "value": ("revenue", "total", "value", "amount"),
    "currency": ("currency", "currency_code"),
}
"""Usual names of each field, in lower case, the likeliest first."""
_SHORT_NAMES: Final[Mapping[str, Sequence[str]]] = {
    "ts": ("at", "date"),
    "play_id": ("play",),
    "listener_id": ("listener", "user"),
    "user_agent": ("device_agent", "agent"),
}
"""Names of each field that count if no message has one of its synonyms."""
_GUESS_ORDER: Final = sorted(
    EVENTS, key=lambda event: (event.way is not Way.MILESTONE, event.name == "start")
)
"""The events in the order of guesses: milestones first, so that "started first quartile" is a quartile."""


def draft(messages: Iterable[Message], where: Mapping[str, str], format_: Format, registry: str = "") -> str:
    """The text of a source's file. Comments name the fields that could not be guessed.

    Args:
        where: `topic` or `files`, and `separator` and `encoding` if they are not the usual ones, as keys of
            the source's file.
        format_: of the messages.
        registry: the address of their schema registry.
    """
    decoded = [one for one in islice(messages, MAX_MESSAGES) if one.document is not None]
    head = [f"{name} = {_quoted(value)}" for name, value in where.items()]
    if format_ != "json":
        head.append(f'format = "{format_}"')
    kinds = Counter(one.schema for one in decoded if one.schema)
    if len(kinds) > 1:
        (likeliest, _), *_ = kinds.most_common(1)
        counts = ", ".join(f"{_printable(kind)} {count:,}" for kind, count in kinds.most_common(10))
        head += [f"# Messages by schema: {counts}", f"skip = [{_quoted(f'$schema!={likeliest}')}]"]
        decoded = [one for one in decoded if one.schema == likeliest]
    tables = ["", "[registry]", f"url = {_quoted(registry)}"] if registry else []
    if (preset := _recognised(decoded)) is not None:
        about = parse_source(presets()[preset], preset, preset).about
        advice = "# Add names, values and examples of your own: they win over the preset's."
        return "\n".join([f"# Recognised: {about}.", *head, f'preset = "{preset}"', *tables, "", advice, ""])
    path_counts = _paths(decoded)
    guessed = {name: path for name in SYNONYMS if (path := _guess(name, path_counts)) is not None}
    lines = [f"# Guessed from {len(decoded):,} messages: look at each line.", *head, *tables, "", "[names]"]
    lines += [f"{name} = {_quoted(path)}" for name, path in guessed.items()]
    if (path := guessed.get("event")) is not None and (without_event := len(decoded) - path_counts[path]):
        without = f"# {without_event:,} of {len(decoded):,} messages have no event: not ours?"
        lines.insert(1 + len(head), f"# skip = [{_quoted(f'!{path}')}]  {without}")
    missing = [name for name in ("event", "placement_id", "play_id", "ts") if name not in guessed]
    lines += [f"# {name} = {_quoted('?')}  # no path has such a name" for name in missing]
    lines += ["", *_events(decoded, guessed.get("event"))]
    unread = sorted(path_counts.keys() - set(guessed.values()))
    lines += ["", "# Paths that no field reads:", *(f"#   {_printable(path)}" for path in unread[:60])]
    lines += [
        "",
        "# A message of yours, and the pixel that must come of it: `sources check` runs it.",
        "# [[example]]",
        "# message = '{…}'",
        '# pixel = { event = "start", placement_id = "breakfast-uk" }',
        "",
    ]
    return "\n".join(lines)


def _recognised(messages: Sequence[Message]) -> str | None:
    """The preset that recognises most messages."""
    # A preset that extends another one recognises its messages by more conditions.
    own_first = sorted(presets().items(), key=lambda one: "preset =" not in one[1])
    for name, text in own_first:
        conditions = [Condition(one) for one in parse_source(text, name, name).recognise]
        recognised_count = sum(any(one.holds(message) for one in conditions) for message in messages)
        if messages and recognised_count > len(messages) / 2:
            return name
    return None


def _paths(messages: Sequence[Message]) -> Counter[str]:
    """The number of messages that have a value, by path."""
    path_counts: Counter[str] = Counter()
    for message in messages:
        for path, _ in _leaves(message.document or {}, "", 0):
            if path in path_counts or len(path_counts) < MAX_PATHS:
                path_counts[path] += 1
    return path_counts


def _leaves(table: Mapping[str, Any], before: str, depth: int) -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        step = name if _PLAIN.fullmatch(name) else f'"{name}"'
        if '"' in name or len(name) > 64:
            continue
        path = f"{before}.{step}" if before else step
        if isinstance(value, Mapping):
            if depth < MAX_DEPTH:
                yield from _leaves(value, path, depth + 1)
        elif value is not None and value != "":
            yield path, value


def _guess(field: str, path_counts: Mapping[str, int]) -> str | None:
    """The likeliest path of a field: by its name, then by the number of messages that have it, then the
    shortest.
    """
    best: tuple[int, int, int] | None = None
    chosen, wanted = None, (*SYNONYMS[field], *_SHORT_NAMES.get(field, ()))
    for path, count in path_counts.items():
        ranks = [wanted.index(name) for name in _names(path) if name in wanted]
        if not ranks:
            continue
        rank = (min(ranks), -count, len(path))
        if best is None or rank < best:
            best, chosen = rank, path
    return chosen


def _names(path: str) -> Iterator[str]:
    """The names that a path may stand for: `ad.placement.id` may be `placement_id` or `placement`. A last
    step `id` alone is no name.
    """
    steps = [one.strip('"').lower().replace("-", "_").replace(" ", "_") for one in path.split(".")]
    last = steps[-1]
    if len(steps) == 1:
        yield last
        return
    yield f"{steps[-2]}_{last}"
    yield steps[-2] if last == "id" else last


def _events(messages: Sequence[Message], path: str | None) -> list[str]:
    """A table of the events in the messages, each with our event if the names are alike."""
    if path is None:
        return []
    event_path = Path(path)
    event_names = Counter(plain(value) for one in messages if (value := event_path.value_in(one)) is not None)
    lines = ["[values.event]"]
    for name, count in event_names.most_common(40):
        event = our_event(name)
        if event == name or len(name) > LONGEST_EVENT:
            continue
        text = f'{_quoted(name)} = "{event or "?"}"  # {count:,}'
        lines.append(text if event else f"# {text}")
    return lines if len(lines) > 1 else []


def our_event(name: str) -> str | None:
    """Our event whose name is like `name`, or None."""
    canonical, _ = event_name(name)
    if canonical in CODES:
        return canonical
    words_of_name = re.sub(r"[^a-z]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()).split()
    text = f" {' '.join(words_of_name)} "
    return next((one.name for one in _GUESS_ORDER if any(f" {words} " in text for words in one.spoken)), None)


def _quoted(text: str) -> str:
    """A basic string of TOML."""
    return '"' + _printable(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _printable(text: str) -> str:
    """A text on one line, with TOML's escapes for unprintable characters."""
    return "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in text)
