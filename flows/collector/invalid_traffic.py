"""Invalid traffic, judged where the call arrives: the first rule that matches decides.

Calls that the IAB's rules do not count (HEAD, prefetch, the first bytes alone) are set apart before. The
rules of user agents follow, in this order: bots of the operator's lists; known apps and devices, which are
**valid** and end these rules, since lists of crawlers take podcast apps for bots; libraries; the lists of IAB
and ABC; crawlers; an empty user agent. The data centre comes next, and last the unverified server that names
another device. A caller without the right to name another device is judged by its own user agent and address.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from typing import Any, Final, NamedTuple

from flows.collector.callers import Address, Device
from flows.errors import SettingsError
from flows.model.pixel import KNOWN_REASONS, OTHER_REASON

REASONS: Final = tuple(reason for reason in KNOWN_REASONS if reason != OTHER_REASON)
UNVERIFIED: Final = "unverified_server"
assert UNVERIFIED in REASONS
_DECLARED_BOT: Final = re.compile(r"bot\b|bot/|crawler|spider", re.IGNORECASE)
_PODCAST_APPS: Final = {
    "AntennaPod": "AntennaPod",
    "AppleCoreMedia": "AppleCoreMedia",
    "Podcasts": "Podcasts?/",
    "Pocket Casts": "Pocket ?Casts",
    "Overcast": "Overcast",
    "Castro": "Castro",
    "Castbox": "Castbox",
    "Podimo": "Podimo",
    "Podbean": "Podbean",
    "Podkicker": "Podkicker",
    "Podcast Addict": "Podcast ?Addict",
    "Spotify": "Spotify/",
    "Stitcher": "Stitcher",
    "Deezer": "Deezer",
    "TuneIn": "TuneIn",
    "iHeartRadio": "iHeartRadio",
    "Audible": "Audible",
    "Downcast": "Downcast",
    "Player FM": "Player ?FM",
    "RadioPublic": "RadioPublic",
    "BBC Sounds": "BBC ?Sounds",
    "GlobalPlayer": "GlobalPlayer",
}
"""Expressions by the names of their apps. A name taken from the user agent would be the caller's choice."""
_APP_NAMES: Final = tuple(_PODCAST_APPS)
_PODCAST_APP: Final = re.compile(
    "|".join(f"({pattern})" for pattern in _PODCAST_APPS.values()), re.IGNORECASE
)
_WATCH: Final = re.compile(r"^(?:atc/.* watchOS|\(null\)/\(null\) watchOS)", re.IGNORECASE)
_PURPOSES: Final = ("sec-purpose", "purpose", "x-purpose", "x-moz")
_SETS_APART: Final = (*_PURPOSES, "range")
"""Headers for which a call may not count."""
_HEAD: Final = 4
"""The number of leading characters by which texts of crawlers are looked up."""
_MAX_KNOWN: Final = 50_000
_LONGEST_KNOWN: Final = 512
"""The greatest length of a user agent whose verdict is cached: 50 MB at most, however many an enemy sends."""


class Verdict(NamedTuple):
    """The verdict on a user agent: a reason of `REASONS` or empty, the list that decided, and the app, if
    recognised.
    """

    reason: str = ""
    list: str = ""
    app: str = ""


def not_counted(method: str, headers: Mapping[str, str]) -> str:
    """The reason not to count a call as a listener's: `head`, `prefetch` or `range`; empty if it counts."""
    if method == "HEAD":
        return "head"
    if headers.keys().isdisjoint(_SETS_APART):
        return ""
    for name in _PURPOSES:
        purpose = headers.get(name, "").lower()
        if "prefetch" in purpose or "preview" in purpose:
            return "prefetch"
    wanted = headers.get("range", "")
    if wanted and re.sub(r"\s", "", wanted.lower()) in ("bytes=0-1", "bytes=0-0"):
        return "range"
    return ""


def is_double(agent: str) -> bool:
    """True if a watch repeats the download of its phone."""
    return _WATCH.match(agent) is not None


@dataclass
class Judge:
    """Judges user agents and addresses.

    Args:
        bots, apps, libraries: lists of the Open Podcast Analytics Working Group, as (expression, name).
        iab: whether a user agent is invalid by the lists of IAB and ABC.
        data_centres: networks, sorted, by family.
        hashes: SHA-256 of each list by its name, for the methodology.
    """

    bots: Sequence[tuple[re.Pattern[str], str]] = ()
    apps: Sequence[tuple[re.Pattern[str], str]] = ()
    libraries: Sequence[tuple[re.Pattern[str], str]] = ()
    iab: Callable[[str], bool] | None = None
    data_centres: Ranges | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    _verdicts: dict[str, Verdict] = field(default_factory=dict)

    def verdict_on(self, device: Device) -> Verdict:
        """The verdict on a device's user agent and on the address that the call came from. For a believed
        server's call the judge takes the user agent that the server sends.
        """
        if not device.user_agent and device.basis == "trusted":
            return Verdict()  # the user agent is absent because the server sends no device
        verdict = self._verdicts.get(device.user_agent)
        if verdict is None:
            verdict = self._of_agent(device.user_agent)
            if len(device.user_agent) <= _LONGEST_KNOWN:
                if len(self._verdicts) >= _MAX_KNOWN:
                    self._verdicts.clear()
                self._verdicts[device.user_agent] = verdict
        if verdict.reason or device.basis == "trusted":
            return verdict
        address = device.address or device.caller
        if self.data_centres is not None and address is not None and address in self.data_centres:
            return Verdict("data_centre", "data_centres", verdict.app)
        if device.basis == "claimed" and not device.perhaps_itself:
            return Verdict(UNVERIFIED, "servers", verdict.app)
        return verdict

    def _of_agent(self, agent: str) -> Verdict:
        for expression, name in self.bots:
            if expression.search(agent):
                return Verdict("opawg_bot", name)
        for expression, name in self.apps:
            if expression.search(agent):
                return Verdict("", "opawg_apps", name)
        if (app := _PODCAST_APP.search(agent)) is not None:
            return Verdict("", "podcast_apps", _APP_NAMES[(app.lastindex or 0) - 1])
        if _DECLARED_BOT.search(agent):
            return Verdict("declared_bot", "declared")
        for expression, name in self.libraries:
            if expression.search(agent):
                return Verdict("opawg_library", name)
        if self.iab is not None and agent and self.iab(agent):
            return Verdict("iab_list", "iab")
        if agent and agent in _crawlers():
            return Verdict("crawler_list", "crawler-user-agents")
        return Verdict() if agent.strip() else Verdict("no_user_agent", "none")


class Crawlers:
    """Patterns of crawlers. Patterns that are plain texts are looked up by their first four characters.

    One expression of all patterns takes up to 4 ms for a new user agent instead of 2: a sender of random user
    agents could fill a processor.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        texts, expressions = list[str](), list[str]()
        for pattern in patterns:
            text = re.sub(r"\\([^A-Za-z0-9])", "\0\\1", pattern)
            plain = not re.search(r"(?<!\0)[.^$*+?{}\[\]\\|()]", text)
            (texts if plain else expressions).append(text.replace("\0", "") if plain else pattern)
        self._short = tuple(text for text in texts if len(text) < _HEAD)
        self._by_head: dict[str, list[str]] = {}
        for text in texts:
            if len(text) >= _HEAD:
                self._by_head.setdefault(text[:_HEAD], []).append(text)
        self._expression = re.compile("|".join(f"(?:{pattern})" for pattern in expressions) or r"(?!)")

    def __contains__(self, agent: str) -> bool:
        by_head = self._by_head
        for offset in range(len(agent) - _HEAD + 1):
            for text in by_head.get(agent[offset : offset + _HEAD], ()):
                if agent.startswith(text, offset):
                    return True
        return any(text in agent for text in self._short) or self._expression.search(agent) is not None


@cache
def _crawlers() -> Crawlers:
    from crawleruseragents import CRAWLER_USER_AGENTS_DATA

    return Crawlers(crawler["pattern"] for crawler in CRAWLER_USER_AGENTS_DATA)


class Ranges:
    """Sets of addresses by networks, looked up by binary search."""

    def __init__(self, texts: Sequence[str]) -> None:
        ranges_by_version: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
        for text in texts:
            network = ip_network(text, strict=False)
            ranges_by_version[network.version].append((int(network[0]), int(network[-1])))
        self._begins: dict[int, list[int]] = {}
        self._ends: dict[int, list[int]] = {}
        for version, ranges in ranges_by_version.items():
            joined: list[list[int]] = []
            for begin, end in sorted(ranges):
                if joined and begin <= joined[-1][1] + 1:
                    joined[-1][1] = max(joined[-1][1], end)
                else:
                    joined.append([begin, end])
            self._begins[version] = [begin for begin, _ in joined]
            self._ends[version] = [end for _, end in joined]

    def __contains__(self, address: Address) -> bool:
        version = 4 if isinstance(address, IPv4Address) else 6
        place = bisect_right(self._begins[version], int(address)) - 1
        return place >= 0 and int(address) <= self._ends[version][place]


# Lists, as they are published or bought


def judge_of(lists: Mapping[str, Path], today: datetime | None = None) -> Judge:
    """A judge by the operator's lists.

    Args:
        lists: files by `opawg_bots`, `opawg_apps`, `opawg_devices`, `opawg_libraries` (runtime JSON),
            `iab_include`, `iab_exclude` (the form of IAB and ABC), `data_centres` (a network a line).

    Raises:
        SettingsError: a list cannot be read.
    """
    contents = {name: _bytes(path) for name, path in lists.items()}
    hashes = {name: sha256(content).hexdigest() for name, content in contents.items()}
    judge = Judge(hashes=hashes)
    for name, content in contents.items():
        try:
            if name.startswith("opawg_"):
                entries = opawg(content)
                if name == "opawg_bots":
                    judge.bots = entries
                elif name == "opawg_libraries":
                    judge.libraries = entries
                else:
                    judge.apps = [*judge.apps, *entries]
            elif name == "data_centres":
                judge.data_centres = Ranges(lines(content))
        except (ValueError, KeyError, TypeError, re.error) as error:
            raise SettingsError(f"{lists[name]}: cannot be read as a list of {name}: {error}") from None
    if "iab_include" in contents or "iab_exclude" in contents:
        include, exclude = contents.get("iab_include"), contents.get("iab_exclude")
        try:
            judge.iab = iab(include, exclude, today or datetime.now(UTC))
        except ValueError as error:
            raise SettingsError(f"the lists of IAB and ABC cannot be read: {error}") from None
    return judge


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None


def opawg(content: bytes) -> list[tuple[re.Pattern[str], str]]:
    """Entries of a runtime JSON of github.com/opawg/user-agents-v2: `{"entries": [{"pattern", "name"}]}`."""
    document: Any = json.loads(content)
    entries = document["entries"] if isinstance(document, dict) else document
    return [(re.compile(entry["pattern"]), str(entry["name"])) for entry in entries]


def lines(content: bytes) -> list[str]:
    """Lines of a list, without comments."""
    texts = (
        line.partition("#")[0].strip()
        for line in content.removeprefix(BOM_UTF8).decode("latin-1").splitlines()
    )
    return [text for text in texts if text]


def iab(include: bytes | None, exclude: bytes | None, today: datetime) -> Callable[[str], bool]:
    """True if a user agent is invalid by the International Spiders and Bots List of IAB and ABC.

    A user agent is invalid if no pattern of the include list names it. It is also invalid if the exclude list
    names it, unless it names an exception too. Fields are separated by `|`; a flag marks a pattern that
    stands at the start alone.
    """
    wanted = [_iab_entry(line, 1, 2, 3, today) for line in lines(include or b"")]
    unwanted = [(_iab_entry(line, 1, 5, 6, today), _exceptions(line)) for line in lines(exclude or b"")]

    def invalid(agent: str) -> bool:
        text = agent.lower()
        if include is not None and not any(_matches(entry, text) for entry in wanted):
            return True
        return any(
            _matches(entry, text) and not any(exception in text for exception in exceptions)
            for entry, exceptions in unwanted
        )

    return invalid


def _iab_entry(line: str, active: int, start: int, until: int, today: datetime) -> tuple[str, bool]:
    """An entry as (pattern, whether it stands at the start alone); the pattern is empty if it is not in
    force.
    """
    parts = [part.strip() for part in line.split("|")] + [""] * 8
    over = bool(parts[until]) and datetime.strptime(parts[until], "%m/%d/%Y").replace(tzinfo=UTC) <= today
    in_force = parts[active] == "1" and not over
    return (parts[0].lower() if in_force else ""), parts[start] == "1"


def _exceptions(line: str) -> list[str]:
    parts = [*line.split("|"), "", "", ""]
    return [text.strip().lower() for text in parts[2].split(",") if text.strip()]


def _matches(entry: tuple[str, bool], text: str) -> bool:
    pattern, at_start = entry
    return bool(pattern) and (text.startswith(pattern) if at_start else pattern in text)
