"""The collector's doors: pixels in each dialect, bodies, and what servers say in headers.

Of each call: an answer that is none of our faults; in the ledger once; and what it stores is a pixel to the
flow, which shares no code with the doors.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, Final, cast
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

import msgspec
from collector_support import CONSENT, HOME, PLAYER, SECRET, understanding, usual
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from store_support import Producer, World

from connectors.kafka_reports import Produced
from connectors.stream import Messages
from flows.collector.call import Call, Outcome, Understood
from flows.collector.callers import Callers, Token, networks
from flows.collector.checker import check, in_words
from flows.collector.dialects import LITERAL, NATIVE, WORDS, load_dialects
from flows.collector.doors import Answer, Doors
from flows.collector.instruments import Instruments
from flows.collector.letters import letter
from flows.collector.refusals import Refusals
from flows.collector.store import Store
from flows.collector.tags import Order, build
from flows.errors import UsageError
from flows.intake.decoder import Decoder
from fuzz.corpus import NAMES, conversions, pixels
from fuzz.mutate import damaged, document, packed, query, raw_of, word
from fuzz.run import Input

DIALECTS: Final = load_dialects()
WRITER, DEBUGGER = f"Bearer host.{SECRET}", f"Bearer debug.{SECRET}"
AT_ONCE: Final = 125
_HEADERS: Final = (
    "x-forwarded-for", "forwarded", "user-agent", "x-device-ip", "x-device-user-agent", "authorization",
    "range", "purpose", "sec-purpose", "x-moz", "content-type", "content-encoding", "referer", "cookie",
    "accept", "host",
)  # fmt: skip
_SAID: Final = (
    WRITER, DEBUGGER, "Bearer .", "Bearer host.x", "bearer  host", "Basic eDp5", "bytes=0-1", "prefetch",
    PLAYER, "for=1.2.3.4;proto=https;by=_x", 'for="[2001:db8::1]:9", for=unknown', "81.2.69.142, 10.0.0.1",
    ("1.1.1.1," * 3_000), "[2a02:c7f::1]:443", "2a02:c7f::1%25eth0", "Googlebot/2.1",
    "Overcast/3.0 (+http://overcast.fm/; iOS podcast app)", "atc/1.0 watchOS/9", "gzip", "application/json",
)  # fmt: skip
_CONSENTS: Final = (
    CONSENT,
    "DBABMA~" + CONSENT,
    "DBABBg~1YNN",
    "1YNN",
    "1---",
    "DBACNYA~" + CONSENT + "~1YYN",
    CONSENT.split(".")[0],
)


@cache
def calls() -> tuple[tuple[str, str, list[tuple[str, str]]], ...]:
    """A path of each dialect, the separator of its parameters, and the parameters of a valid call."""
    found = [("/p", "&", [(name, str(value)) for name, value in usual().items()])]
    words = {"placement_id": "breakfast-uk", "campaign_id": "spring", "platform": "x"}
    for name, dialect in DIALECTS.items():
        try:
            urls = build(name, dialect, Order("https://px.example", words), None).urls
        except UsageError:
            urls = {"": f"https://px.example/b/{name}?pl=breakfast-uk&e=impression"}
        for url in urls.values():
            parts = urlsplit(url)
            pairs = parse_qsl(parts.query, keep_blank_values=True)
            more = [(foreign, "x") for foreign in dialect.names]
            more += [(case.partition("=")[0], case.partition("=")[2]) for case in dialect.when][:1]
            found.append((parts.path, dialect.separators[-1], [*pairs, *more]))
    return tuple(found)


@cache
def names() -> tuple[str, ...]:
    """Parameters that some dialect reads."""
    foreign = {name for dialect in DIALECTS.values() for name in dialect.names}
    return (*NATIVE, *sorted(WORDS), *LITERAL, *sorted(foreign), "conversion")


class Shaky(Producer):
    """A log that sometimes takes nothing, and says so late; it keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[bytes] = []

    def produce(self, messages: Sequence[tuple[Any, Produced]]) -> list[Any]:
        loop = asyncio.get_running_loop()
        if self.answers:
            self.taken += [
                message.value for _, message in messages if message.key is not None
            ]  # marks have none
            loop.call_soon(self._tell, list(messages), "")
        else:
            loop.call_later(0.05, self._tell, list(messages), "timed out")
        return []


@dataclass
class _Kept:
    """The times that a call's events were handed to the store, how many they were, and what the last was."""

    times: int = 0
    events: int = 0
    outcome: str = ""


_now: ContextVar[_Kept] = ContextVar("_now")


@dataclass
class _Watching:
    """Passes events on to a store, and counts them for the call that they are of."""

    store: Store

    async def keep(self, understood: Sequence[Understood], received_ms: int) -> bool:
        kept = _now.get()
        kept.times, kept.events = kept.times + 1, kept.events + len(understood)
        kept.outcome = understood[-1].outcome.value
        return await self.store.keep(understood, received_ms)

    def refuse(self, events: int, reason: str) -> None:
        self.store.refuse(events, reason)


class CollectorDoor(ABC):
    """All doors of one collector, over a spool and a log of the test's own."""

    def __init__(self, directory: Path) -> None:
        self._runner = asyncio.Runner()
        self._runner.run(self._open(directory))
        self._decoder = Decoder(b"0123456789abcdef")
        self._faults: list[str] = []
        self._runner.get_loop().set_exception_handler(lambda _, what: self._faults.append(str(what)))

    async def _open(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._log = Shaky()
        self._world = World(directory, producer=self._log)
        secret = sha256(SECRET.encode()).hexdigest()
        tokens = {
            "host": Token(secret, rights=frozenset({"write"}), device_from="x-device"),
            "debug": Token(secret, rights=frozenset({"debug"})),
        }
        known = networks(["198.51.100.0/24"])[0], "xff-first"
        callers = Callers(tokens, networks(["10.0.0.0/8"]), [known])  # type: ignore[list-item]  # a literal
        self._instruments, self._refusals = Instruments(self._world.ledger), Refusals(ZoneInfo("UTC"))
        self._understanding = understanding(callers=callers, on_cleaning=self._instruments.cleaned)
        self._doors = Doors(self._understanding, cast(Store, _Watching(self._world.store)), self._heard)
        self._world.lane.start()

    def _heard(self, understood: Sequence[Understood]) -> None:
        self._instruments.count(understood)
        rejected = [one for one in understood if one.outcome is Outcome.REJECTED]
        self._refusals.count(rejected)
        for one in rejected:
            said = json.loads(letter("c-1", one).value)
            assert said["reason"], said
            assert len(said["position"]) <= 300, said

    @abstractmethod
    def make(self, rng: Random) -> Input:
        """The next input."""

    def run(self, inputs: Sequence[Input]) -> Counter[str]:
        return self._runner.run(self._run(inputs))

    async def _run(self, inputs: Sequence[Input]) -> Counter[str]:
        ledger, outcomes = self._world.ledger, Counter[str]()
        for start in range(0, len(inputs), AT_ONCE):
            some = inputs[start : start + AT_ONCE]
            # By the inputs, so that a part of them does the same.
            self._log.answers = sum(map(len, some[0])) % 40 > 0
            before = ledger.calls
            found = await asyncio.gather(*(self._call(one) for one in some))
            assert ledger.calls - before == sum(kept.events for kept, _ in found), (
                "the ledger has other events"
            )
            outcomes.update(f"{answer.status} {kept.outcome}".strip() for kept, answer in found)
        self._log.answers = True
        while self._world.lane.waiting_events or len(self._world.lane.in_hand):
            await asyncio.sleep(0.01)
        assert ledger.balanced(0), ledger.line(self._world.lane.resting)
        assert ledger.acknowledged == ledger.stored
        assert not self._faults, self._faults
        self._judge_stored()
        return outcomes

    async def _call(self, one: Input) -> tuple[_Kept, Answer]:
        call = self.call_of(one)
        _now.set(kept := _Kept())
        answer = await self._doors.answer(call)
        self._judge(call, answer, kept)
        return kept, answer

    def call_of(self, one: Input) -> Call:
        """The call that a server makes of an input: what is no UTF-8 is a lone surrogate."""
        method, target, lines, body = (*one, b"", b"", b"", b"")[:4]
        path, _, asked = target.decode(errors="surrogateescape").partition("?")
        headers = {}
        for line in lines.decode(errors="surrogateescape").split("\n"):
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        peer = headers.get("peer", HOME)
        return Call(
            method.decode(errors="replace"), path, asked, headers, body, peer, self._world.lane.clock.now_ms()
        )

    def _judge(self, call: Call, answer: Answer, kept: _Kept) -> None:
        assert answer.status in (200, 204, 302, 400, 401, 404, 413, 429, 431, 503), answer
        for name, value in answer.headers:
            assert name.isascii(), answer
            assert value.isascii(), answer
            assert value.isprintable(), answer
        if (looked := call.path.startswith("/debug/p") and call.method == "GET") or answer.status in (
            204,
            404,
        ):
            assert kept.times == 0
        else:
            assert kept.times == 1, f"in the ledger {kept.times} times"
        if answer.status == 200 and answer.body[:1] == b"{":
            said = json.loads(answer.body)
            assert len(said["results"]) == kept.events if not looked else said["outcome"]

    def _judge_stored(self) -> None:
        """Every event in the log is a pixel to the flow, and every metric can be read."""
        taken, self._log.taken = self._log.taken, []
        self._log.sent.clear()
        batch = self._decoder.decode(Messages(taken, range(len(taken)), len(taken), None))
        for position, rejection in batch.rejected:
            raise AssertionError(f"stored, and no pixel ({rejection}): {taken[position]!r}")
        assert batch.marks == 0, "an event is taken for a mark"
        for _ in text_string_to_metric_families(generate_latest(self._instruments.registry).decode()):
            pass

    def close(self) -> None:
        self._runner.run(self._world.lane.close())
        self._runner.close()


def _line(path: str, asked: bytes) -> bytes:
    return raw_of(path) + b"?" + asked


class GetDoor(CollectorDoor):
    """Pixels and clicks by URL, in every dialect; and the checker of tags, over the same URLs."""

    def make(self, rng: Random) -> Input:
        path, separator, good = rng.choice(calls())
        if rng.random() < 0.1:
            path = rng.choice(
                (
                    "/c",
                    "/debug/p",
                    "/p",
                    "/b",
                    "/p/none",
                    "/p;",
                    "//p",
                    "/v1/events",
                    f"/p/{word(rng)}",
                    "/" + word(rng),
                )
            )
        if rng.random() < 0.3:
            good = [*good, ("gdpr_consent", rng.choice(_CONSENTS)), ("u", "https://shop.example/?x=1")]
        asked = query(good, names(), rng, separator)
        if separator == ";" and rng.random() < 0.5:
            return b"GET", raw_of(path) + b";" + asked, b"", b""
        method = rng.choice((b"GET", b"GET", b"GET", b"GET", b"HEAD", b"POST"))
        lines = f"user-agent: {PLAYER}\nauthorization: {rng.choice(('', '', WRITER, DEBUGGER))}".encode()
        return method, _line(path, asked), lines, b""

    async def _run(self, inputs: Sequence[Input]) -> Counter[str]:
        for one in inputs:
            target = one[1].decode(errors="replace") if len(one) > 1 else ""
            found = check(self._understanding, f"https://px.example{target}", 1_795_600_000_000)
            msgspec.json.encode((in_words(found), found.trace))
        return await super()._run(inputs)


class BodyDoor(CollectorDoor):
    """Bodies: sendBeacon's forms and JSON, postbacks, and many events of a server with a token."""

    def make(self, rng: Random) -> Input:
        good = rng.choice(conversions() if rng.random() < 0.3 else pixels())
        dice = rng.random()
        if dice < 0.15:
            pairs = [(name, str(value)) for name, value in good.items()]
            body = query(pairs, names(), rng)
        elif dice < 0.75:
            body = self._many(good, rng)
        elif dice < 0.8:
            body = packed(document(good, NAMES, rng), rng)
        elif dice < 0.85:
            body = document(good, NAMES, rng) * rng.choice((1, 2, 1_001))
        else:
            body = document(good, names(), rng)
        path = rng.choice(("/v1/events", "/v1/events", "/p", "/b/prebid", "/b/appsflyer", "/b/none", "/c"))
        token = rng.choice((WRITER, WRITER, "", "Bearer x.y"))
        return b"POST", raw_of(path), f"authorization: {token}\ncontent-encoding: gzip".encode(), body

    def _many(self, good: dict[str, Any], rng: Random) -> bytes:
        events = [document(good, NAMES, rng) for _ in range(rng.choice((1, 2, 3, 7)))]
        if rng.random() < 0.5:
            return b"\n".join(events)
        body = b"[" + b",".join(events) + b"]"
        return damaged(body, rng) if rng.random() < 0.3 else body


class HeadersDoor(CollectorDoor):
    """Addresses, agents, tokens and consent, as servers and proxies say them."""

    def make(self, rng: Random) -> Input:
        lines = [
            b"peer: " + rng.choice((b"10.0.0.1", b"198.51.100.9", HOME.encode(), b"::1", b"", b"nonsense"))
        ]
        for _ in range(rng.choice((1, 2, 3, 8, 70))):
            value = raw_of(rng.choice(_SAID) if rng.random() < 0.6 else word(rng))
            name = rng.choice(_HEADERS) if rng.random() < 0.95 else word(rng)
            lines.append(
                raw_of(name)
                + b": "
                + (damaged(value, rng) if rng.random() < 0.3 else value).replace(b"\n", b" ")
            )
        consent = raw_of(rng.choice(_CONSENTS))
        if rng.random() < 0.6:
            consent = damaged(consent, rng)
        asked = usual(gdpr=rng.choice(("1", "0", "", word(rng))))
        asked |= {
            "gpp_sid": rng.choice(("2", "6", "7,8", "2_6", word(rng))),
            "co": rng.choice(("GB", "US", word(rng))),
        }
        asked |= {rng.choice(("gpp", "gdpr_consent", "us_privacy")): consent.decode(errors="replace")}
        asked |= {"ip": rng.choice(("9.9.9.9", "::1", word(rng))), "ua": rng.choice((PLAYER, word(rng)))}
        pairs = [(name, str(value)) for name, value in asked.items()]
        return (
            b"GET",
            _line("/p/triton" if rng.random() < 0.2 else "/p", query(pairs, names(), rng)),
            b"\n".join(lines),
            b"",
        )
