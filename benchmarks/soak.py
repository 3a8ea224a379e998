"""Soak: a year of names that come and go, in five minutes: `python -m benchmarks.soak [--days 365]`.

Every day brings new placements, campaigns, stations, listeners, user agents and orders, and old ones leave.
The flow reads the days as fast as it can, with snapshots as shipped. What it takes a day is printed: memory,
its recovery store, Redis, and processor time an event. What grows without end shows as a second half that is
not flat.

Bar: each figure of the last quarter is within 5 % of the quarter before it. Exit code 1 where one is not, or
where an event was not counted.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import mean
from typing import Any, Final, NamedTuple

import structlog
from rich.console import Console

from benchmarks.bars import console, finish
from benchmarks.measure import UNPLANNED
from connectors.embedded import EmbeddedValkey
from connectors.redis import connect
from connectors.stream import EndOfInput, Messages
from flows.engine import PixelSource, RedisSink, StopSignal, execute, lay_foundation
from flows.instruments import instruments
from flows.metrics import STATE_PLAYS, STATE_TOUCHES
from flows.model.redis_keys import row_key
from flows.model.ticks import DAY_MS
from flows.pixels import Sinks, build
from flows.publish.days import TTL
from flows.settings.loading import load

KEY: Final = b"sixteen secret b"
T0_MS: Final = 1_764_028_800_000
PARTITION: Final = "days"
LEFT_A_DAY: Final = 0.1
"""The share of all names that leave a day, and of those that come."""
CONVERTS: Final = 0.02
CHUNK: Final = 10_000
DAYS: Final = 365
PLAYS: Final = 40_000
ALIVE: Final = 1_000
"""The usual size: a year in five minutes."""
REMEMBERED: Final = timedelta(days=10)
"""For so long conversions and touches are remembered here, so that what is kept is full long before the half.
"""


class Day(NamedTuple):
    """The flow's state at the end of a day, and its work since the day before: events, and processor time
    without the generator's.
    """

    memory_mib: float
    store_mib: float
    redis_mib: float
    keys: float
    plays: float
    touches: float
    events: int
    cpu_s: float


NAMES: Final = (
    "memory, MiB",
    "store, MiB",
    "Redis, MiB",
    "keys in Redis",
    "plays kept",
    "touches kept",
    "processor, µs an event",
)
"""Of the figures of some days."""


@dataclass
class Days:
    """An input of one partition, made while it is read, and its reader.

    Attributes:
        ended: called at each day's end.
        spent_s: processor time of making the events.
    """

    days: int
    plays_a_day: int
    names: int
    ended: Callable[[], None]
    live: bool = False
    position: int = 0
    caught_up: bool = False
    in_history: bool = False
    lag: int = 0
    errors: int = 0
    skipped: int = 0
    log_id: str = ""
    spent_s: float = 0.0
    _rng: random.Random = field(default_factory=lambda: random.Random(1))
    _waiting: list[bytes] = field(default_factory=list)
    _plays: int = 0

    def partitions(self) -> list[str]:
        """The only partition."""
        return [PARTITION]

    def open(self, partition: str, position: int | None, log_id: str = "") -> Days:
        """Itself: a soak begins at the beginning."""
        assert position is None
        return self

    def read(self, limit: int) -> Messages:
        """The next events."""
        began_s = time.thread_time()
        while len(self._waiting) < limit and self._plays < self.days * self.plays_a_day:
            self._make()
        values, self._waiting = self._waiting[:limit], self._waiting[limit:]
        self.spent_s += time.thread_time() - began_s
        if not values:
            raise EndOfInput
        self.position += len(values)
        return Messages(values, range(self.position - len(values), self.position), self.position)

    def _make(self) -> None:
        """The plays of a part of a day."""
        day, place = divmod(self._plays, self.plays_a_day)
        if place == 0 and day:
            self.ended()
        many = min(CHUNK, self.plays_a_day - place)
        step_ms = DAY_MS / self.plays_a_day
        first, choose = int(day * self.names * LEFT_A_DAY), self._rng.random
        for number in range(place, place + many):
            name = first + int(choose() * self.names)
            who, ts = (
                50 * first + int(choose() * 50 * self.names),
                T0_MS + day * DAY_MS + int(number * step_ms),
            )
            common = (
                b'"placement_id":"pl-%d","campaign_id":"c-%d","station":"st-%d","listener_id":"l-%d","consent":true'
                % (name, name // 5, name // 20, who)
            )
            play = self._plays + number - place
            for event in (b"impression", b"start", b"complete"):
                self._waiting.append(
                    b'{"event_id":"%s-%d","event":"%s","ts":%d,"play_id":"p-%d","user_agent":"Player/%d",%s}'
                    % (event[:1], play, event, ts, play, name, common)
                )
            if choose() < CONVERTS:
                self._waiting.append(
                    b'{"event_id":"v-%d","event":"conversion","ts":%d,"conversion":{"type":"purchase",'
                    b'"order_id":"o-%d","value":"12.50","currency":"EUR"},%s}' % (play, ts, play, common)
                )
        self._plays += many

    def proven(self) -> bool:
        """Never: the partition ends."""
        return False

    def commit(self, position: int) -> None:
        """Do nothing: no tool reads the position."""

    def close(self) -> None:
        """Do nothing: no resource is open."""


class Soak:
    """A run."""

    def __init__(self, days: int, plays_a_day: int, names: int, console: Console) -> None:
        self._console = console
        self._source = Days(days, plays_a_day, names, self._take)
        self._every = max(1, days // 20)
        self.days: list[Day] = []

    def run(self) -> int:
        """Run the flow over all days; returns how many events of it were not counted, or not once."""
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
        with tempfile.TemporaryDirectory(prefix="audiopixel-soak-") as directory, EmbeddedValkey() as valkey:
            settings = load(
                redis_url=valkey.url,
                metrics_port=0,
                recovery_dir=Path(directory, "store"),
                conversion_horizon=REMEMBERED,
                click_window=REMEMBERED,
                listen_window=REMEMBERED,
                row_memory=REMEMBERED + timedelta(days=1),
                **UNPLANNED,
            )
            self._store, self._namespace = Path(directory, "store"), settings.namespace
            self._client: Any = connect(valkey.url)
            self._began_s, self._made_s, self._from = time.process_time(), 0.0, 0
            lay_foundation(settings, KEY)
            flow = build(
                PixelSource(self._source, settings, KEY, StopSignal()),
                Sinks(RedisSink(settings, self._source, pace=timedelta(seconds=1))),
                settings,
            )
            execute(flow, recovery_dir=self._store)
            key = row_key(self._namespace, "partition", PARTITION)
            counts: list[Any] = self._client.hmget(key, "accepted", "repeated")
        return self._source.position - int(counts[0]) + int(counts[1])

    def _take(self) -> None:
        source, now_s = self._source, time.process_time()
        cpu_s = now_s - self._began_s - (source.spent_s - self._made_s)
        events = source.position - self._from
        self._forget()
        day = Day(
            _resident_mib(),
            _size(self._store) / (1 << 20),
            self._client.info("memory")["used_memory"] / (1 << 20),
            self._client.dbsize(),
            _gauge(STATE_PLAYS.name),
            _gauge(STATE_TOUCHES.name),
            events,
            cpu_s,
        )
        self._began_s, self._made_s, self._from = time.process_time(), source.spent_s, source.position
        self.days.append(day)
        if len(self.days) % self._every == 0:
            figures = zip(NAMES, _figures(self.days[-self._every :]), strict=True)
            shown = "; ".join(f"{name} {_shown(value)}" for name, value in figures)
            self._console.print(f"day {len(self.days)}: {shown}", highlight=False, soft_wrap=True)

    def _forget(self) -> None:
        """Take the decisions out of Redis, and days behind their time to live: it goes by the wall clock,
        which is not compressed.
        """
        decided = self._client.scan_iter(row_key(self._namespace, "conversion", "*"), count=10_000)
        over = datetime.fromtimestamp(T0_MS / 1000, UTC).date() + timedelta(days=len(self.days)) - TTL
        counted = self._client.scan_iter(row_key(self._namespace, "days", "*") + ":*", count=10_000)
        old = (key for key in counted if date.fromisoformat(key.rpartition(":")[2]) < over)
        keys = [*decided, *old]
        for at in range(0, len(keys), 1000):
            self._client.unlink(*keys[at : at + 1000])


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def _gauge(name: str) -> float:
    families = instruments().registry.collect()
    return sum(one.value for family in families if family.name == name for one in family.samples)


def _figures(days: Sequence[Day]) -> list[float]:
    """Means of what was held, and processor time an event, in the order of `NAMES`."""
    *held, events, cpu_s = zip(*days, strict=True)
    return [*map(mean, held), sum(cpu_s) / max(1, sum(events)) * 1e6]


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def changes(days: Sequence[Day]) -> tuple[list[list[str]], dict[str, float]]:
    """The last two quarters, as a table; and by what share each figure grew from one to the other."""
    quarter = len(days) // 4
    table, grown = [["", "third quarter", "last quarter", "change"]], {}
    quarters = _figures(days[-2 * quarter : -quarter]), _figures(days[-quarter:])
    for name, third, last in zip(NAMES, *quarters, strict=True):
        change = grown[name.partition(",")[0].lower()] = last / third - 1 if third else 0.0
        table.append([name, _shown(third), _shown(last), f"{change:+.1%}"])
    return table, grown


def _size(directory: Path) -> int:
    """The bytes of all files that are there: saves come and go meanwhile."""
    size = 0
    for within, _, files in os.walk(directory):
        for name in files:
            with suppress(FileNotFoundError):
                size += Path(within, name).stat().st_size
    return size


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; exit code 1 where a bar is missed or an event was not counted once."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--days", type=int, default=DAYS, help=f"of event time ({DAYS}; at least 8)")
    parser.add_argument("--plays", type=int, default=PLAYS, help=f"a day ({PLAYS:,}), of three events each")
    parser.add_argument("--names", type=int, default=ALIVE, help=f"of placements alive at a time ({ALIVE:,})")
    parser.add_argument("--smoke", action="store_true", help="short: judge no bar")
    chosen = parser.parse_args(arguments)
    if chosen.days < 8 or min(chosen.plays, chosen.names) < 1:
        parser.error("at least 8 days, of at least one play and name")
    days, plays, names = (9, 400, 20) if chosen.smoke else (chosen.days, chosen.plays, chosen.names)
    run = Soak(days, plays, names, console())
    began_s = time.perf_counter()
    uncounted = run.run()
    print(f"events not counted once: {uncounted}")
    about = (
        f"{days} days of {3 * plays:,} events, {names:,} placements at a time, a tenth of them new each day; "
    )
    about += f"{time.perf_counter() - began_s:,.0f} s"
    table, grown = changes(run.days)
    return finish("soak", about, table, grown, not (chosen.smoke or uncounted)) or int(uncounted != 0)


if __name__ == "__main__":
    sys.exit(main())
