"""The checker of tags: the event that the door would make of a URL, and in words the faults of the URL.

The checker runs the door's own code on the URL as a player would send it. It also finds faults that the door
cannot see: a macro that no vendor will replace, an ampersand that a page's editor escaped, a fragment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import SplitResult, urlsplit

from connectors.http_path import as_served
from flows.collector.call import Call, Outcome
from flows.collector.cleaner import present
from flows.collector.dialects import CLAIMS, CONSENT, Dialect, plain
from flows.collector.invalid_traffic import UNVERIFIED
from flows.collector.query import decoded, parameters, target_of
from flows.collector.reading import PER_FIRE
from flows.collector.tags import CONSENT_STRINGS, LONGEST_URL, VENDOR
from flows.collector.tracing import LOOKED_FOR
from flows.collector.understand import TRACKED, Understanding
from flows.collector.unread import near, unread_names
from flows.model.catalogue.limits import MAX_LINE_BYTES

AGENT: Final = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Safari/604.1"
"""The user agent of a player, so that the checker itself is no bot."""
Level = Literal["error", "warning", "note"]
_REASONS: Final = {
    "unsigned": "its signature is of another placement or campaign: build it again with `audiopixel tag`",
    "unknown_event": "{}: no event of this name is counted",
    "malformed": "it cannot be read",
    "head": "a HEAD call is nobody's listening",
}
_WORDS_OF_NUMBERS: Final = {
    "reach": ("listener_id", "ifa"),
    "completion": ("play_id",),
    "attribution": ("listener_id", "ifa", "ip"),
}
"""By number, the words of which a tag needs one."""


class Finding(NamedTuple):
    """A finding about a tag; with an `error` the pixel or a number is lost."""

    level: Level
    words: str


@dataclass(frozen=True, slots=True)
class Checked:
    """The door's verdict on a tag, and remarks for its author."""

    trace: Mapping[str, Any]
    findings: tuple[Finding, ...]

    @property
    def good(self) -> bool:
        """True if no finding is an error."""
        return not any(finding.level == "error" for finding in self.findings)


def check(understanding: Understanding, url: str, now_ms: int) -> Checked:
    """Check a tag as it was pasted, with macros or with values in their place; stores nothing.

    Args:
        now_ms: of the call, epoch ms.
    """
    text = url.strip()
    if len(text) > MAX_LINE_BYTES:
        words = f"{len(text):,} characters, and the collector takes {MAX_LINE_BYTES:,} at most"
        return Checked({}, (Finding("error", words),))
    try:
        parts = urlsplit(text)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or re.search(r"[\s\"'<>]", _without_macros(text)):
        words = "this is no plain URL: paste https://… alone, without <img>, quotes or spaces"
        return Checked({}, (Finding("error", words),))
    path = as_served(parts.path)
    call = Call("GET", path, parts.query, {"user-agent": AGENT}, b"", "", now_ms)
    if path.split(";")[0].strip("/").split("/")[0] not in ("p", "b", "c"):
        words = f"{parts.path or '/'} is no door: a tag's path begins with /p, /b or /c"
        return Checked({}, (Finding("error", words),))
    name, dialect = understanding.dialect_of(call)
    trace = understanding.pixel(call, trace=True).trace or {}
    pairs = [pair.partition("=")[::2] for pair in re.split(f"[{dialect.separators}]", parts.query) if pair]
    findings = [
        *_of_url(text, parts),
        *_of_door(understanding, parts, call, name),
        *_of_names(dialect, pairs),
        *_of_macros(name, dialect, pairs, trace),
        *_of_trace(trace),
        *_of_claims(dialect, trace),
    ]
    return Checked(trace, tuple(sorted(dict.fromkeys(findings), key=lambda finding: _ORDER[finding.level])))


_ORDER: Final[dict[Level, int]] = {"error": 0, "warning": 1, "note": 2}
_E_MAIL: Final = re.compile(r"[^@\s](?:@|%40)[\w-]+\.[a-z]{2}", re.IGNORECASE)
MOST_UNREAD: Final = 20
"""The greatest number of unread parameters that have a finding each."""
_ANGLED: Final = re.compile(r"<[A-Za-z_.-]+>")


def _without_macros(text: str) -> str:
    return _ANGLED.sub("", text)


def _of_url(text: str, parts: SplitResult) -> Iterator[Finding]:
    """Find the faults of the URL itself."""
    if len(text) > LONGEST_URL:
        yield Finding("warning", f"{len(text):,} characters: vendors' forms take {LONGEST_URL:,}")
    if parts.scheme == "http":
        yield Finding("warning", "http: players on secure pages do not fetch it")
    if "&amp;" in text:
        yield Finding("error", "&amp; stands where & belongs: what follows is not read")
    if "#" in text:
        yield Finding("error", "# ends a URL: nothing after it is sent; write %23 in a value")
    if "?" in parts.query:
        yield Finding("error", "a second ? stands where & belongs")


def _of_door(understanding: Understanding, parts: SplitResult, call: Call, name: str) -> Iterator[Finding]:
    path = call.path.split(";")[0].strip("/").split("/")
    if "%3b" in parts.path.lower():
        yield Finding("error", "%3B in the path separates parameters, as ; does: write the value after the ?")
    if len(path) > 1 and path[1].lower() != name.lower():
        yield Finding("error", f"{path[1]!r} is no known dialect: the call is read as our own")
    if path[0] == "c":
        words = parameters(call.query)
        target, signature = target_of(words.get("u", "")), decoded(words.get("s", ""))
        if not understanding.signatures.may_lead_to(target, signature):
            yield Finding("error", "u: the click leads nowhere: its target is neither signed nor listed")


def _of_names(dialect: Dialect, pairs: list[tuple[str, str]]) -> Iterator[Finding]:
    """Find parameters that the door does not read, that appear twice, or that hold a secret or a person."""
    not_read = set(unread_names(dialect, (name for name, _ in pairs)))
    values: dict[str, str] = {}
    unread = 0
    for name, value in pairs:
        if name in ("token", "secret", "key", "password", "api_key"):
            yield Finding("error", f"{name}: no secret may stand in a URL, which listeners see")
        elif name in not_read and (unread := unread + 1) <= MOST_UNREAD:
            close = near(name, dialect)
            meant = f"; did you mean {close}?" if close else ""
            yield Finding("warning", f"{name}: nothing reads it, and it is not kept{meant}")
        if name in values and values[name] != value:
            effect = "the first value counts, the other is not read"
            if dialect.word(name) in CONSENT:
                effect = "the refusal counts, the other value is not read"
            elif dialect.word(name) in CLAIMS:
                effect = f"a caller that names two devices is a server ({UNVERIFIED})"
            yield Finding("error", f"{name} appears twice: {effect}")
        values.setdefault(name, value)
        if _E_MAIL.search(value):
            yield Finding("error", f"{name}: an e-mail address; no person may be named in a tag")
    if unread > MOST_UNREAD:
        yield Finding("warning", f"{unread - MOST_UNREAD:,} more parameters that nothing reads")


def _of_macros(
    name: str, dialect: Dialect, pairs: list[tuple[str, str]], trace: Mapping[str, Any]
) -> Iterator[Finding]:
    """Find the macros that a vendor will replace, and those that no vendor will."""
    vendor_macros = {plain(macro).casefold() for macro in dialect.macros.values()}
    for parameter, value in pairs:
        text = decoded(value)
        if present(text)[1] != "unreplaced":
            continue
        kind = re.sub(r"GDPR_CONSENT_\d+", VENDOR, text)
        if (text != value and not value.startswith("%")) or re.search("%(5B|7B|40|24)", value, re.IGNORECASE):
            yield Finding("error", f"{parameter}: {text} is percent-encoded, and no vendor replaces it so")
        elif kind.casefold() in vendor_macros:
            yield Finding("note", f"{parameter}: {text} waits for {name} to replace it")
        elif dialect.macros:
            yield Finding("error", f"{parameter}: {text} is no macro of {name} that is known")
        else:
            yield Finding("warning", f"{parameter}: no known vendor replaces {text}")
        word = dialect.word(parameter)
        if word in ("placement_id", "campaign_id") and trace["reason"] != "unsigned":
            yield Finding("error", f"{parameter}: write the {word.removesuffix('_id')} itself")


def _of_trace(trace: Mapping[str, Any]) -> Iterator[Finding]:
    """Find the faults that the door's own trace shows."""
    fields = trace["fields"]
    if trace["reason"] == TRACKED:
        yield Finding("note", "it redirects and counts no click: the click's own pixel counts it")
    elif trace["outcome"] != Outcome.STORED:
        wrong = trace["wrong"] or ""
        unsigned = trace["reason"] == "unsigned"
        lacks_signature = unsigned and fields.get("signature", {}).get("state") != "given"
        if lacks_signature:
            yield Finding("error", "k: it is not signed: build it with `audiopixel tag`")
        field_trace = fields.get(wrong.rpartition(".")[2], {"from": wrong, "state": "absent", "cleaned": ()})
        if (words := _REASONS.get(trace["reason"])) and not lacks_signature:
            yield Finding("error", words.format(field_trace["from"]))
        if trace["reason"] not in _REASONS or (unsigned and field_trace["state"] != "given"):
            fault = "it is too long, or unknown"
            if "unreadable" in field_trace["cleaned"]:
                fault = "it cannot be read"
            elif field_trace["state"] != "given":
                fault = f"it is {field_trace['state']}"
            yield Finding("error", f"rejected for its {wrong}: {fault}")
    for word, field_trace in fields.items():
        if "unreadable" in field_trace["cleaned"]:
            effect = "so that no listener is measured" if word in CONSENT else "and is left out"
            yield Finding("warning", f"{field_trace['from']}: its value cannot be read as {word}, {effect}")
    yield from _of_consent(trace["consent"] or {}, fields)
    for number, lacking in trace["missing"].items():
        if lacking and lacking != ["consent"] and not _waits(fields, _WORDS_OF_NUMBERS[number]):
            yield Finding("warning", f"no {number} by this pixel: it has no {' or '.join(lacking)}")
    if (trace["event_id"] or {}).get("rule") == "new" and not _waits(fields, PER_FIRE):
        yield Finding("warning", "no cachebuster, time or play: a retry counts again")


def _of_claims(dialect: Dialect, trace: Mapping[str, Any]) -> Iterator[Finding]:
    """Find the parameters by which a call names another device, and whose senders must be verified."""
    claim_traces = {word: trace["fields"][word] for word in sorted(CLAIMS) if word in trace["fields"]}
    claims = trace["invalid_traffic"]["rule"] == UNVERIFIED
    names = [
        field_trace["from"]
        for word, field_trace in claim_traces.items()
        if claims
        or field_trace["state"] == "unreplaced"
        or (word == "ip" and field_trace["state"] == "given")
    ]
    if not names:
        return
    place = dialect.device_from or ("query" if {"ip", "user_agent"} & set(claim_traces) else "x-device")
    words = (
        f"{', '.join(names)}: a call with this names another device. From an unverified server it is invalid "
        f"traffic ({UNVERIFIED}): list the server's network, "
        f'collect_servers."NETWORK" = "{place}", or give the server a token'
    )
    yield Finding("warning" if claims else "note", words)


def _of_consent(consent: Mapping[str, Any], fields: Mapping[str, Any]) -> Iterator[Finding]:
    if not consent or consent["result"] or _waits(fields, CONSENT_STRINGS):
        return
    level: Level = "error" if consent["reason"] in ("unreadable", "policy") else "warning"
    yield Finding(level, f"no listener is measured: {consent['words']}")


def _waits(fields: Mapping[str, Any], words: tuple[str, ...]) -> bool:
    """True if one of these words is a macro that its vendor has yet to replace."""
    return any(fields.get(word, {}).get("state") == "unreplaced" for word in words)


def in_words(checked: Checked) -> str:
    """The remarks on a tag, in words for a person."""
    lines = [f"{finding.level}: {finding.words}" for finding in checked.findings]
    if not checked.trace:
        return "\n".join(lines)
    trace = checked.trace
    head = f"{trace['outcome']}" + (f": {trace['reason']}" if trace["reason"] else "")
    absent = [word for word in LOOKED_FOR if trace["fields"].get(word, {}).get("state") == "absent"]
    if absent:
        lines.append(f"not in it: {', '.join(absent)}")
    if trace["event"]:
        lines.append(json.dumps(trace["event"], indent=2))
    return "\n".join([head, *lines])
