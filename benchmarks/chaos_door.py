"""The collectors of a chaos run, which are killed with calls in flight, and players that call them. A player
sends a call again, under the same event id, until it is answered as stored.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from benchmarks.chaos_process import RESTS, WITHIN_S, Process, get
from benchmarks.chaos_services import until
from benchmarks.chaos_stream import Breaker, Worker
from connectors.ports import free_run
from flows.simulate.feed import now_ms

COLLECTORS: Final = 2
PLAYERS: Final = 12
PLACEMENTS: Final = 6
EVENTS: Final = {
    "impression": "impressions", "start": "starts", "first_quartile": "first_quartiles",
    "midpoint": "midpoints", "third_quartile": "third_quartiles", "complete": "completes",
}  # fmt: skip
"""Of a play, in their order, each with the count that it is in."""
PATIENCE_S: Final = 5.0
"""For an answer; then a player calls again."""
AGAIN_S: Final = 0.05
STRIKE_S: Final = 2.0
SETTINGS: Final = {
    "KAFKA_REJECTED_TOPIC": "door-rejected",
    "COLLECT_KEY": "a key of the edge for chaos alone",
    "COLLECT_PLACEMENTS": "any",
    "COLLECT_CALLS_PER_CALLER": "0",
    "COLLECT_DRAIN": "PT0.3S",
}


class Collector(Process):
    """`audiopixel collect`, over one spool."""

    def __init__(self, settings: Mapping[str, str], directory: Path) -> None:
        directory.mkdir()
        self.port = free_run(2)
        own = {
            "COLLECT_PORT": self.port,
            "COLLECT_HEALTH_PORT": self.port + 1,
            "COLLECT_SPOOL": directory / "spool",
        }
        super().__init__(
            "collect", settings={**settings, **SETTINGS, **own}, log=directory.with_suffix(".log")
        )

    @property
    def ready(self) -> bool:
        """True if a balancer may send calls to it."""
        assert self.lives, "a collector ended by itself"
        return get(self.port + 1, "/ready")[0] == 200


class Player(Worker):
    """Plays ads one after the other, and calls for each event of a play until it is answered as stored.

    Attributes:
        answered: the events by their ids: placement, and the count that they are in.
        playing: held from the first call of a play to its last answer.
        again: how often it had to send one again.
    """

    def __init__(self, name: str, ports: list[int], seed: int, rate: float, hurry: threading.Event) -> None:
        super().__init__(name)
        self._random, self._pause_s, self._hurry = random.Random(seed), 1 / rate, hurry
        self._doors = [HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S) for port in ports]
        self._over, self.playing = threading.Event(), threading.Lock()
        self.answered: dict[str, tuple[str, str]] = {}
        self.again = 0

    def work(self) -> None:
        """Play until the run ends; the last play is played to its end."""
        for number in itertools.count():
            with self.playing:
                self._play(f"{self.name}-{number}")
            self._pause()
            if self._over.is_set():
                break

    def end(self) -> None:
        """Begin no more plays."""
        self._over.set()

    def _play(self, play: str) -> None:
        """Play once; the listener may leave after any event."""
        placement = f"door-{self._random.randrange(PLACEMENTS)}"
        for number, event in enumerate(list(EVENTS)[: self._random.randint(1, 9)]):
            if number:
                self._pause()
            self._call(play, placement, event)

    def _pause(self) -> None:
        if not self._hurry.is_set():
            self._over.wait(self._random.uniform(0.0, 2.0) * self._pause_s)

    def _call(self, play: str, placement: str, event: str) -> None:
        event_id = f"{play}-{event}"
        query = {"e": event, "pl": placement, "p": play, "id": event_id, "ts": now_ms()}
        path, deadline_s = f"/p?{urlencode(query)}", time.monotonic() + WITHIN_S
        self._random.shuffle(self._doors)
        while not self._answered(path):
            assert time.monotonic() < deadline_s, f"{event_id} was not answered within {WITHIN_S:.0f} s"
            self.again += 1
            self._doors.reverse()
            time.sleep(AGAIN_S)
        self.answered[event_id] = placement, EVENTS[event]

    def _answered(self, path: str) -> bool:
        door = self._doors[0]
        try:
            door.request("GET", path, headers={"User-Agent": "VLC/3.0"})
            answer = door.getresponse()
            answer.read()
            return answer.status == 200
        except (OSError, HTTPException):
            door.close()
            return False


class Door(Breaker):
    """All collectors and players; once started it kills collectors at random, whatever else is being broken.

    Attributes:
        strike: set while Kafka is away: the next fault is due in a moment, while something rests.
    """

    def __init__(
        self,
        settings: Mapping[str, str],
        directory: Path,
        seed: int,
        seconds: float,
        rate: float,
        faults: int,
    ) -> None:
        super().__init__(seed, seconds, faults)
        self._collectors = [Collector(settings, directory / f"collector-{n}") for n in range(COLLECTORS)]
        self._hurry, self.strike = threading.Event(), threading.Event()
        ports = [one.port for one in self._collectors]
        self._players = [
            Player(f"door-{seed}-{n}", list(ports), seed * PLAYERS + n, rate / PLAYERS, self._hurry)
            for n in range(PLAYERS)
        ]

    def open(self) -> None:
        """Start the collectors: their marks stand in every partition when it returns."""
        for one in self._collectors:
            one.start()
        self._until_ready(self._collectors)

    def work(self) -> None:
        """Play, and kill collectors."""
        for one in self._players:
            one.start()
        began_s = time.monotonic()
        faults = (self._one, self._one, self._one, self._all, self._again_while_starting, self._rolled)
        for moment_s in self.moments_s():
            if self.strike.wait(max(0.0, moment_s - (time.monotonic() - began_s))):
                time.sleep(self._random.uniform(0.0, STRIKE_S))
            if self._over.is_set():
                return
            self.strike.clear()
            with self._breaking:
                self._random.choice(faults)()

    @contextmanager
    def shut(self) -> Iterator[None]:
        """No play goes on, and no collector has anything left to send: keys may get other partitions."""
        with ExitStack() as stack:
            for lock in (self._breaking, *(player.playing for player in self._players)):
                stack.enter_context(lock)
            self._until_ready(self._collectors)
            self._end_collectors()
            yield
            self.open()

    def end(self) -> None:
        """End the players, then the collectors: by a kill after the last answer, and a start that sends the
        rest.

        Raises:
            AssertionError: a player was not answered, or a collector did not get rid of its spool.
        """
        self._leave()
        self.join()
        for player in self._players:
            player.end()
        for player in self._players:
            player.join()
        for failed in (self.failed, *(player.failed for player in self._players)):
            if failed is not None:
                raise failed
        self._kill(self._collectors)
        self._until_ready(self._collectors)
        self._end_collectors()

    @property
    def answered(self) -> dict[str, tuple[str, str]]:
        """All events that were answered as stored, as players have them."""
        return {key: what for one in self._players for key, what in one.answered.items()}

    @property
    def again(self) -> int:
        """Calls that were sent again."""
        return sum(one.again for one in self._players)

    def close(self) -> None:
        """Kill what is left."""
        self._leave()
        for player in self._players:
            player.end()
        for one in self._collectors:
            one.kill()

    def _end_collectors(self) -> None:
        for one in self._collectors:
            code = one.end()
            if code == RESTS:  # as the manual says
                one.start()
                self._until_ready([one])
                code = one.end()
            assert code == 0, f"a collector ended with code {code} on SIGTERM"

    def _leave(self) -> None:
        self._over.set()
        self.strike.set()

    # Faults

    def _one(self) -> None:
        self._kill([self._random.choice(self._collectors)], self._random.uniform(0.0, 2.0))

    def _all(self) -> None:
        self._kill(self._collectors, self._random.uniform(0.0, 1.0))

    def _again_while_starting(self) -> None:
        one = self._random.choice(self._collectors)
        self._kill([one])
        time.sleep(self._random.uniform(0.3, 3.0))
        self._kill([one])

    def _rolled(self) -> None:
        """SIGTERM and start, as on an upgrade."""
        one = self._random.choice(self._collectors)
        self._until_ready([one])  # before that it has no handler of signals
        assert (code := one.end()) in (0, RESTS), f"a collector ended with code {code} on SIGTERM"
        one.start()
        self.done["collector stopped"] += 1

    def _kill(self, some: list[Collector], away_s: float = 0.0) -> None:
        """SIGKILL in a burst of calls, and start after `away_s`."""
        self._hurry.set()
        time.sleep(self._random.uniform(0.05, 0.4))
        for one in some:
            assert one.lives, "a collector ended by itself"
            one.kill()
        self._hurry.clear()
        self.done["collector killed"] += len(some)
        time.sleep(away_s)
        for one in some:
            one.start()

    def _until_ready(self, some: list[Collector]) -> None:
        until(lambda: all(one.ready for one in some), WITHIN_S, "the collectors were not ready")
