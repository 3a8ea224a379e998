"""Calls a collector as players do, over many connections: as fast as it answers, or at a rate."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

TICK_S: Final = 0.002
_END: Final = b"\r\n\r\n"
_CONSENTS: Final = (
    "CQtDjkAQtDjkAAfAAAENCWFgAIKAAAAAAAwIAEEkAAAAAAAA.IAEEkAAA.YAAAAAAAAAAA",
    "CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA",
)
_AGENTS: Final = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Safari/604.1",
    "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 Chrome/131.0 Mobile Safari/537.36",
    "Spotify/9.0.2 Android/35 (SM-S921B)",
    "AppleCoreMedia/1.0.0.22F76 (iPhone; U; CPU OS 18_5 like Mac OS X; en_gb)",
    "Overcast/2024.12 (+http://overcast.fm/; iOS podcast app)",
)
_EVENTS: Final = ("start", "first_quartile", "midpoint", "third_quartile", "complete")


class Outcome(NamedTuple):
    """The results of the calls of one stretch; latencies in ms."""

    calls: int
    seconds: float
    statuses: dict[str, int]
    p50: float
    p99: float


def requests(seed: int) -> Iterator[bytes]:
    """Calls without end: plays with their events, each call another URL."""
    rng = random.Random(seed)
    for number in itertools.count():
        play, event = divmod(number, len(_EVENTS))
        query = {
            "e": _EVENTS[event],
            "pl": f"placement-{play % 120}",
            "cm": f"campaign-{play % 20}",
            "cr": f"creative-{play % 40}",
            "p": f"{seed:x}-play-{play}",
            "l": f"listener-{rng.randrange(100_000)}",
            "st": "station-1",
            "gdpr": "1",
            "gdpr_consent": _CONSENTS[play % len(_CONSENTS)],
            "ts": str(time.time_ns() // 1_000_000),
            "cb": f"{rng.getrandbits(48):x}",
        }
        yield (
            f"GET /p?{urlencode(query)} HTTP/1.1\r\nHost: pixel.example\r\n"
            f"User-Agent: {_AGENTS[play % len(_AGENTS)]}\r\nAccept: image/*,*/*;q=0.8\r\n"
            "Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en-GB,en;q=0.9\r\n"
            f"Referer: https://player.example/\r\nX-Forwarded-For: 81.2.{play % 250}.{number % 250}\r\n\r\n"
        ).encode()


class _Connection(asyncio.Protocol):
    """A connection, with one call at a time."""

    def __init__(self, caller: _Caller) -> None:
        self._caller, self._found = caller, b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._caller.idle.append(self)

    def send(self, due_s: float) -> None:
        self._due_s = due_s
        self._transport.write(next(self._caller.requests))

    def data_received(self, data: bytes) -> None:
        self._found += data
        head = self._found.find(_END)
        if head < 0:
            return
        told = self._found.lower().find(b"content-length: ", 0, head)
        length = int(self._found[told + 16 : self._found.index(b"\r", told)]) if told >= 0 else 0
        if len(self._found) < head + len(_END) + length:
            return
        status, self._found = self._found[9:12], b""
        self._caller.answered(self, status, self._due_s)

    def connection_lost(self, error: Exception | None) -> None:
        self._caller.statuses[b"gone"] += 1


class _Caller:
    def __init__(self, seed: int, rate: float) -> None:
        self.requests, self.rate = requests(seed), rate
        self.statuses: Counter[bytes] = Counter()
        self.idle: deque[_Connection] = deque()
        self._waits: list[float] = []
        self._over = False

    def answered(self, one: _Connection, status: bytes, due_s: float) -> None:
        now_s = time.perf_counter()
        self.statuses[status] += 1
        self._waits.append(now_s - due_s)
        if self.rate or self._over:
            self.idle.append(one)
        else:
            one.send(now_s)

    async def run(self, port: int, connections: int, seconds: float) -> Outcome:
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            await loop.create_connection(lambda: _Connection(self), "127.0.0.1", port)
        began_s = time.perf_counter()
        if self.rate:
            sent = 0
            while (now_s := time.perf_counter()) < began_s + seconds:
                # By the clock, and not by when a connection is free: a slow server is waited for too.
                while self.idle and (due_s := began_s + sent / self.rate) <= now_s:
                    self.idle.popleft().send(due_s)
                    sent += 1
                await asyncio.sleep(TICK_S)
        else:
            for one in list(self.idle):
                one.send(began_s)
            self.idle.clear()
            await asyncio.sleep(seconds)
        self._over = True
        seconds = time.perf_counter() - began_s
        await asyncio.sleep(1.0)
        self._waits.sort()
        calls = len(self._waits)
        statuses = {status.decode(): count for status, count in self.statuses.items()}
        middle, late = self._waits[calls // 2], self._waits[calls * 99 // 100]
        return Outcome(calls, seconds, statuses, middle * 1000, late * 1000)


def main() -> None:
    """`python -m benchmarks.caller PORT CONNECTIONS SECONDS RATE SEED`; rate 0: as fast as it answers."""
    port, connections, seconds, rate, seed = sys.argv[1:]
    outcome = asyncio.run(_Caller(int(seed), float(rate)).run(int(port), int(connections), float(seconds)))
    print(json.dumps(outcome._asdict()))


if __name__ == "__main__":
    main()
