"""Anything at all, by every door: nothing crashes, and the ledger is exact.

`FUZZED_CALLS=1000000 pytest tests/flows/collector/test_fuzz.py --timeout 7200` is the form of a night.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import msgspec
from collector_support import HOME, SECRET, understanding
from store_support import Producer, World

from connectors.kafka_reports import Produced
from flows.collector.call import Call, Outcome, Understood
from flows.collector.doors import MAX_LINE_BYTES, Doors
from flows.collector.store import Store
from flows.intake.schema import decode

CALLS, AT_ONCE = int(os.environ.get("FUZZED_CALLS", "10000")), 500
LONE = "\udcff"
WRITER = f"Bearer host.{SECRET}"
# fmt: off
NAMES = (
    "e", "pl", "cm", "p", "l", "ip", "ua", "ts", "ph", "gdpr", "gdpr_consent", "gpp", "gpp_sid", "k", "u",
    "s", "cat", "id", "o", "v", "cur", "ct", "sq", "oc", "co",
)
VALUES = (
    "start", "[X]", "%00", "%ff%fe", "%25255B", "\u202e", "=cmd()", "<script>", "a" * 5_000, "-1", "0",
    "1e999", "2016-99-99T99:99", "99999999999999999999", "%", "%zz", "{}", "\x1b]0;x\x07",
    "'; --", "CQ", "DBABM~x", LONE, "", "conversion", "https://shop.example/",
    "javascript:alert(1)", "//evil.example",
    "https://shop.example\r\nx: y",
)
PATHS = (
    "/p", "/p/triton", "/p/cm360;e=start;pl=x", "/b/prebid", "/b/appsflyer", "/p/none", "/c",
    "/c/x", "/v1/events", "/debug/p", "/", "/p/" + "x" * 300, "/%ff", "/p;" * 900,
)
HEADERS = (
    "x-forwarded-for", "x-device-ip", "authorization", "user-agent", "range", "purpose",
    "x-device-user-agent",
)
TOLD = (
    "", "," * 5_000, "Bearer .", "Bearer host.x", WRITER, "::1", "x" * 5_000, "9.9.9.9", "[::1]:9", LONE,
    f"Bearer host.{LONE}", "bytes=0-1", "prefetch",
)
BODIES = (
    b"", b"{}", b"[1]", b"[]", b"[{}]", b'{"e":"start","pl":"a"}', b"\xff\xfe", b'{"e":' * 50,
    b"e=start&pl=a", b"[" * 100_000, b"{}\n" * 1_001, b'{"event":1e999}',
)
# fmt: on
EVENT = b'{"event":"start","placement_id":"a"}'
MANY = {
    b"[%s]" % b",".join([EVENT] * 7): 7,
    b"\n".join([EVENT] * 5): 5,
    b'{"event":"start","ts":[]}\n\xff\n{"event":"x"}': 3,
}
"""Bodies of several events, one of them unreadable."""


def hostile(rng: random.Random, now_ms: int) -> Call:
    parts = ["e=start&pl=a"] if rng.random() < 0.5 else []
    for _ in range(rng.randint(0, 20)):
        known = rng.random() < 0.9
        name = rng.choice(NAMES) if known else "".join(chr(rng.randint(33, 255)) for _ in range(5))
        value = rng.choice(VALUES)
        if rng.random() < 0.5 and value != LONE:
            value = quote(value)
        parts.append(f"{name}{rng.choice(['=', '=', '=', '', '=='])}{value}")
    query = rng.choice(["&", "&", ";", "&&"]).join(parts)
    headers = {rng.choice(HEADERS): rng.choice(TOLD) for _ in range(rng.randint(1, 3))}
    method = rng.choice(["GET", "GET", "POST", "POST", "HEAD", "OPTIONS", "PUT"])
    peer = rng.choice([HOME, "", "nonsense", "::1"])
    body = rng.choice((*BODIES, *MANY)) if method == "POST" else b""
    return Call(method, rng.choice(PATHS), query, headers, body, peer, now_ms)


def events_of(one: Call) -> int:
    """How many events the ledger is to count."""
    door = one.path.split(";")[0].split("/")[1]
    if one.path.startswith("/debug") or one.method in ("OPTIONS", "PUT"):
        return 0
    if one.path == "/v1/events":
        several = one.method == "POST"
    elif door in ("p", "b") or (door == "c" and one.method != "POST"):
        several = door != "c" and one.body.startswith(b"[")
    else:
        return 0
    long = len(one.path) + len(one.query) > MAX_LINE_BYTES
    written = several and not long and one.headers.get("authorization") == WRITER
    return MANY.get(one.body, 1) if written else int(one.path != "/v1/events" or one.method == "POST")


class Shaky(Producer):
    """One whose log sometimes takes nothing, and says so late."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = 0

    def produce(self, messages: Sequence[tuple[Any, Produced]]) -> list[Any]:
        loop = asyncio.get_running_loop()
        if self.answers:
            self.taken += sum(message.key is not None for _, message in messages)  # marks have none
            loop.call_soon(self._tell, list(messages), "")
        else:
            loop.call_later(0.05, self._tell, list(messages), "timed out")
        return []


@dataclass
class Seen:
    """Passes events on to a store; the flow takes what it is to keep."""

    store: Store
    events: int = 0

    async def keep(self, understood: Sequence[Understood], received_ms: int) -> bool:
        self.events += len(understood)
        for one in understood:
            if one.outcome is Outcome.STORED:
                assert decode(msgspec.json.encode(one.event)).event == one.event["event"]
                assert one.key
        return await self.store.keep(understood, received_ms)


def test_whatever_is_sent_is_answered_and_in_the_ledger_once(tmp_path: Path) -> None:
    async def fuzz() -> None:
        rng, world = random.Random(7), World(tmp_path, producer=(log := Shaky()))
        seen, statuses, expected = Seen(world.store), Counter[int](), 0
        doors = Doors(understanding(), cast(Store, seen))
        world.lane.start()
        for _ in range(0, CALLS, AT_ONCE):
            log.answers = rng.random() < 0.8
            calls = [hostile(rng, world.lane.clock.now_ms()) for _ in range(AT_ONCE)]
            expected += sum(map(events_of, calls))
            statuses.update(answer.status for answer in await asyncio.gather(*map(doors.answer, calls)))
        log.answers = True
        while world.lane.behind or len(world.lane.in_hand):
            await asyncio.sleep(0.01)
        ledger = world.ledger
        print(statuses, ledger.line(world.lane.resting))
        assert ledger.balanced(0)
        assert ledger.calls == seen.events == expected
        assert ledger.acknowledged == ledger.stored == log.taken > CALLS / 20
        assert min(ledger.rejected, ledger.not_counted) > CALLS / 50
        assert statuses.keys() - {503} == {200, 204, 302, 400, 401, 404, 431}
        await world.lane.close()

    asyncio.run(fuzz())
