"""Calls of strangers, and the same calls with claims added: what a claim may never change.

A case is a tuple of bytes, made by a `Random`: the form and path of a call, its own parameters and headers,
its way to the door, the parameters and headers that are added, the number of a door, and where they go.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any, Final, cast
from urllib.parse import quote, unquote_plus, urlencode

from collector_support import CONSENT, HOME, NOW_MS, PLAYER, SECRET, token, understanding

from connectors.http_server import NOT_ASCII
from flows.collector.call import Call, Outcome, Understood
from flows.collector.callers import Callers, networks
from flows.collector.consent import Policy
from flows.collector.dialects import load_dialects
from flows.collector.doors import Doors
from flows.collector.invalid_traffic import Judge, Ranges
from flows.collector.store import Store
from flows.collector.understand import Understanding

Case = tuple[bytes, ...]
PROXY, CENTRE, ELSE, SIX, SERVER = "10.0.0.1", "35.180.1.1", "9.9.9.9", "2a02:c7c:1:2::3", "198.51.100.7"
ADDRESSES: Final = (HOME, CENTRE, SIX, "127.0.0.1", "")
REFUSED: Final = "CQtDjkAQtDjkAAfAAAENCWFgAAAAAAAAAAwIAAAAAAAA.IAAA.YAAAAAAAAAAA"
OPTED_OUT: Final = "DBACTvA~1---~BUkAAABA.QA~BFoAABA"
"""Its section 8 opts out; 9 does not."""
SIGNALS: Final[Sequence[dict[str, str]]] = (
    {"gdpr": "1", "gdpr_consent": CONSENT},
    {"gdpr_consent": REFUSED},
    {"gdpr": "1"},
    {"us_privacy": "1YNN"},
    {"us_privacy": "1YYN"},
    {"us_privacy": "1---"},
    {"gdpr": "0"},
    {"gpp": OPTED_OUT},
    {"gpp": OPTED_OUT, "gpp_sid": "8"},
    {"gpp": OPTED_OUT, "gpp_sid": "9"},
    {"gpp": OPTED_OUT, "gpp_sid": "28"},
    {"lmt": "1", "gdpr_consent": CONSENT},
    {"coppa": "1", "us_privacy": "1YNN"},
    {"gpc": "1"},
    {"lmt": "perhaps"},
)
AGENTS: Final = (
    PLAYER, "VLC/3.0", "Overcast/3.0", "AcmeCast/3.1 (bot protection)", "AcmeBot/1", "Googlebot/2.1",
    "okhttp/4.9", "python-requests/2.31", "HeadlessChrome/120", "", " ", NOT_ASCII, "atc/1.0 watchOS/9",
)  # fmt: skip
FORMS: Final = ("GET", "GET", "FORM", "JSON")
PATHS: Final = ("/p", "/p", "/p/vast4", "/p/triton", "/p/acast", "/p/prx", "/p/cm360", "/b/appsflyer", "/c")
SAID: Final[Mapping[str, Sequence[str]]] = {
    "server_side": ("0", "1", "2", "-1", "[SERVERSIDE]", "true", ""),
    "ip": (HOME, CENTRE, ELSE, SIX, "192.168.0.7", "::1", "unknown", "[DEVICEIP]", "-1", "", f"{HOME}:81"),
    "user_agent": (*AGENTS, "[DEVICEUA]", "-1", quote(PLAYER)),
    "country": ("US", "GB", "us", "USA", "[CO]"),
    "ifa": ("CA9A4141-03EE-455A-B3C4-E57283966239", "0", "[IFA]", ""),
    "consent": ("1", "true", "yes", "0", "maybe", "[CONSENT]"),
}
"""Words that a stranger adds, with values."""
HEADERS: Final[Mapping[str, Sequence[str]]] = {
    "x-device-ip": (HOME, ELSE, CENTRE, "192.168.0.7", "here", NOT_ASCII, ""),
    "x-device-user-agent": (*AGENTS,),
    "x-device-referer": ("https://radio.example/",),
    "x-forwarded-for": (
        HOME, ELSE, SIX, SERVER, PROXY, "127.0.0.1", "unknown", NOT_ASCII, f"{ELSE}, {SERVER}",
        ",".join([ELSE] * 40), ",".join([PROXY] * 40),
    ),
}  # fmt: skip
LISTS: Final[dict[str, Any]] = {
    "bots": [(re.compile("^AcmeBot"), "Acme")],
    "apps": [(re.compile("^AcmeCast/"), "AcmeCast")],
    "libraries": [(re.compile("^okhttp/"), "OkHttp")],
}
POLICIES: Final = (Policy(5), Policy(5, required=False), Policy(5, free=frozenset({"US"})))
CAP: Final = 2
OWN: Final = {
    *("event_id", "consent", "invalid_traffic", "device_basis", "device_confirmed", "app"),
    *("listener_id", "client_id", "household_id", "previous", "ga_client_id"),
}
"""Fields that the door judges; what else stands in an event the call itself has said."""


@cache
def names_of(path: str) -> dict[str, list[str]]:
    """The names of the words of `SAID` in calls of a path."""
    dialect = load_dialects()[path.split("/")[2] if path.count("/") > 1 else "native"]
    known = ("ss", "ip", "ua", "co", "ifa", *SAID, *dialect.names)
    return {word: [name for name in known if dialect.word(name) == word] for word in SAID}


def make(rng: Random) -> Case:
    """The next case."""
    path = rng.choice(PATHS)
    form = rng.choice(FORMS) if path != "/c" else "GET"
    if path in ("/p/acast", "/p/cm360") and rng.random() < 0.5:  # they part parameters in the path
        form = "PATH"
    own = {"e": "start", "pl": "a", "p": "play", "l": "joe", "cb": str(rng.randrange(10**6))}
    own |= rng.choice(SIGNALS) | ({"u": "https://shop.example/"} if path == "/c" else {})
    if path == "/b/appsflyer":
        own |= {"event_name": "install", "clickid": "play"}
        del own["e"]
    headers = {"user-agent": rng.choice(AGENTS)}
    if rng.random() < 0.1:
        headers["sec-gpc"] = rng.choice(("1", "0", NOT_ASCII))
    pairs = [*own.items()]
    if rng.random() < 0.4:  # it may claim something itself
        pairs += _claims(rng, path)
        headers |= _headers(rng)
    way = f"{rng.choice(('direct', 'proxy'))} {rng.choice(ADDRESSES)}"
    added = _claims(rng, path)
    if rng.random() < 0.2:
        added += [(f"unknown{n}", "x") for n in range(rng.choice((1, 2, 20, 130, 130)))]
    door = f"{rng.randrange(len(POLICIES))}{rng.choice('-----+')}"
    more = _headers(rng)
    texts = (f"{form} {path}", urlencode(pairs), _lines(headers), way, urlencode(added), _lines(more), door)
    return (*(text.encode() for text in texts), str(rng.randint(0, len(pairs))).encode())


def _claims(rng: Random, path: str) -> list[tuple[str, str]]:
    names = {word: of for word, of in names_of(path).items() if of}
    words = rng.sample(sorted(names), rng.randint(0, len(names)))
    return [(rng.choice(names[word]), rng.choice(SAID[word])) for word in words]


def _headers(rng: Random) -> dict[str, str]:
    names = rng.sample(sorted(HEADERS), rng.choice((0, 0, 1, 1, 2, 4)))
    return {name: rng.choice(HEADERS[name]) for name in names}


def _lines(headers: Mapping[str, str]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in headers.items())


def calls_of(case: Case) -> tuple[Call, Call]:
    """The call, and the same with what is added."""
    line, own, headers, way, added, more, _, place = (part.decode(errors="replace") for part in case)
    pairs, at = own.split("&"), int(place)
    both = "&".join([*pairs[:at], *filter(None, added.split("&")), *pairs[at:]])
    # A header that is there is not added twice, but a list grows.
    before = _header_lines(headers)
    after = before | {name: value for name, value in _header_lines(more).items() if name not in before}
    if "x-forwarded-for" in before and (told := _header_lines(more).get("x-forwarded-for")):
        both_told = (told, before["x-forwarded-for"])
        after["x-forwarded-for"] = ", ".join(both_told if at % 2 else both_told[::-1])
    return _call(line, own, before, way), _call(line, both, after, way, own)


def _call(line: str, query: str, headers: dict[str, str], way: str, first: str = "") -> Call:
    form, _, path = line.partition(" ")
    how, _, address = way.partition(" ")
    headers, peer = dict(headers), address
    if how == "proxy":
        peer = PROXY
        told = headers.get("x-forwarded-for", "")
        headers["x-forwarded-for"] = f"{told}, {address}" if told else address
    if not headers.get("x-forwarded-for", "").isascii():
        headers["x-forwarded-for"] = NOT_ASCII  # as the server hands it over: all of it
    if form == "PATH":
        return Call("GET", f"{path};{query.replace('&', ';')}", "", headers, b"", peer, NOW_MS)
    if form == "GET":
        return Call("GET", path, query, headers, b"", peer, NOW_MS)
    if form == "FORM":
        return Call("POST", path, "", headers, query.encode(), peer, NOW_MS)
    # In JSON a name that is there is not added again: of two the last would replace it.
    own = _pairs(first)
    said = {name: own.get(name, value) for name, value in _pairs(query).items()}
    return Call("POST", path, "", headers, json.dumps(said).encode(), peer, NOW_MS)


def _pairs(query: str) -> dict[str, str]:
    """The parameters of a query in their order, of each name the first."""
    found: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        name, _, value = pair.partition("=")
        found.setdefault(unquote_plus(name), unquote_plus(value))
    return found


def _header_lines(text: str) -> dict[str, str]:
    split = (line.partition(": ") for line in text.split("\n") if line)
    return {name: value for name, _, value in split}


@dataclass
class _Kept:
    """A store that keeps all."""

    events: list[Understood] = field(default_factory=list)

    async def keep(self, understood: Sequence[Understood], received_ms: int) -> bool:
        self.events += understood
        return True

    def refuse(self, events: int, reason: str) -> None:
        pass


BEARER: Final = {"authorization": f"Bearer host.{SECRET}", "user-agent": "adserver/1"}


def believed() -> list[Call]:
    """Calls of a caller with a token, and of a known server."""
    said = {
        "e": "start",
        "pl": "a",
        "p": "play",
        "l": "joe",
        "id": "i",
        "consent": "1",
        "co": "US",
        "ss": "1",
    }
    device = {"x-device-ip": HOME, "x-device-user-agent": PLAYER}
    forwarded = {"user-agent": "Overcast/3.0", "x-forwarded-for": f"{HOME}, {ELSE}"}
    return [
        Call("GET", "/p", urlencode(said), BEARER | device, b"", CENTRE, NOW_MS),
        Call("POST", "/p", "", forwarded, json.dumps(said).encode(), SERVER, NOW_MS),
        Call(
            "GET",
            "/p/prx",
            urlencode(said),
            forwarded | {"x-forwarded-for": f"{HOME}, {SERVER}"},
            b"",
            PROXY,
            NOW_MS,
        ),
    ]


class Checker:
    """Checks cases against the invariants of a claim. All cases share one set of doors, because strangers
    share its memory with trusted callers.
    """

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._doors = [_door(policy) for policy in POLICIES]
        self._believed = [[_event(_door(policy), call) for call in believed()] for policy in POLICIES]

    def check(self, case: Case) -> str:
        """The outcome of one case.

        Raises:
            AssertionError: a claim has given something.
        """
        base, more = calls_of(case)
        number = int(case[6][:1])
        door = self._doors[number]
        (before,), (after,) = self._answered(door, [base])[1], self._answered(door, [more])[1]
        if case[6].endswith(b"+"):
            self._hold_to_cap(door, base, more)
            assert [_event(door, call) for call in believed()] == self._believed[number], "believed callers"
        if before.outcome is not Outcome.STORED:
            assert after.outcome is not Outcome.STORED, "a claim made a pixel of it"
            return "no pixel"
        if after.outcome is not Outcome.STORED:
            return "rejected"
        held(before.event, after.event)
        changed = before.event.get("invalid_traffic") != after.event.get("invalid_traffic")
        return "suspected" if changed else "as it was"

    def _answered(
        self, door: Understanding, calls: Sequence[Call], cap: int = 0
    ) -> tuple[list[int], list[Understood]]:
        """The statuses of calls within one second, and what was kept of them."""
        store = _Kept()
        doors = Doors(door, cast(Store, store), calls_per_caller=cap)

        async def answers() -> list[int]:
            return [(await doors.answer(call)).status for call in calls]

        return self._runner.run(answers()), store.events

    def _hold_to_cap(self, door: Understanding, base: Call, more: Call) -> None:
        _, before = self._answered(door, [base] * (CAP + 2), CAP)
        known = believed() * (CAP + 2)
        statuses, after = self._answered(door, [*[more] * (CAP + 2), *known], CAP)
        assert statuses[-len(known) :] == [200] * len(known), "believed callers are capped"
        assert _stored(after) - len(known) <= _stored(before), "a claim lifted the cap"

    def close(self) -> None:
        """Close the event loop."""
        self._runner.close()


def _stored(understood: Sequence[Understood]) -> int:
    return sum(one.outcome is Outcome.STORED for one in understood)


def held(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Hold an event with claims to the one without."""
    if before.get("invalid_traffic"):
        assert after.get("invalid_traffic"), f"a claim lifted {before['invalid_traffic']}"
    assert before["consent"] or not after["consent"], "a claim gave consent"
    assert after["device_basis"] in (before["device_basis"], "claimed"), "a claim is believed"
    assert before.get("device_confirmed") or not after.get("device_confirmed")
    for name in ("client_id", "household_id"):
        assert after.get(name) in (None, before.get(name)), f"a claim gave {name}"
    # Who has agreed may name the own device by `ifa`, where the call has no other id.
    named = before["consent"] and "listener_id" not in before and before["device_basis"] != "claimed"
    assert after.get("listener_id") in (None, before.get("listener_id")) or named, "a claim gave a listener"
    assert {name: value for name, value in before.items() if name not in OWN} == {
        name: value for name, value in after.items() if name not in OWN
    }, "a claim changed what the call says"


def _door(policy: Policy) -> Understanding:
    judge = Judge(**LISTS, data_centres=Ranges(["35.180.0.0/16"]))
    callers = Callers(
        {"host": token(rights=frozenset({"write"}), device_from="x-device")},
        networks(["10.0.0.0/8"]),
        [(networks(["198.51.100.0/24"])[0], "xff-first")],
    )
    return understanding(judge=judge, callers=callers, policy=policy)


def _event(door: Understanding, call: Call) -> dict[str, Any]:
    return door.pixel(call).event
