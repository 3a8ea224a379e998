"""Virtual time, seeded choices, and the moments at which something goes wrong."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

KEY = b"a secret of the simulation"
T0_MS = 1_790_000_040_000
"""The beginning of every history, epoch ms: the begin of a minute."""


class Crash(BaseException):
    """All of an execution dies at once; nothing of it may catch this."""


class Wrong(Exception):
    """A promise is broken; the text says which."""


class Fault(NamedTuple):
    """Something that goes wrong.

    Attributes:
        what: the kind of moment, as `World.moment` counts them: `step`, `redis`, `disk`, `topic`.
        at: the number of that moment, of its kind.
        how: what happens then.
        detail: of the fault's kind.
    """

    what: str
    at: int
    how: str
    detail: int = 0

    def __str__(self) -> str:
        return f"{self.how.replace('_', ' ')} at {self.what} {self.at}" + (
            f" ({self.detail})" if self.detail else ""
        )


class World:
    """The common parts of a history: one clock, one source of choices, the faults to come.

    Args:
        order: seeds the choices of the scheduler.
        faults: all that goes wrong; none happens while `calm`.
    """

    def __init__(self, order: int, faults: tuple[Fault, ...] = ()) -> None:
        self.random = random.Random(order)
        self.elapsed_ms = 0.0
        self.wall_ahead_ms = 0
        self.calm = False
        self.crashes = 0
        self.moments: Counter[str] = Counter()
        self.story: list[tuple[int, str]] = []
        self._due: dict[tuple[str, int], list[Fault]] = defaultdict(list)
        for fault in faults:
            self._due[fault.what, fault.at].append(fault)

    @property
    def now_ms(self) -> int:
        """True time, epoch ms: that of brokers and of Redis."""
        return T0_MS + int(self.elapsed_ms)

    def tell(self, text: str) -> None:
        """Add a line to the story."""
        self.story.append((int(self.elapsed_ms), text))

    def moment(self, what: str) -> list[Fault]:
        """Another moment of a kind; returns what goes wrong at it."""
        self.moments[what] += 1
        if not self._due:
            return []
        found = self._due.pop((what, self.moments[what]), ())
        if self.calm or not found:
            return []
        for fault in found:
            self.tell(f"*** {fault}")
        return list(found)

    def sleep(self, seconds: float) -> None:
        """Let time pass for who waits."""
        self.elapsed_ms += 1000 * seconds

    def crash(self) -> None:
        """End the execution here.

        Raises:
            Crash: always.
        """
        self.crashes += 1
        raise Crash


class PlayedThread(threading.Thread):
    """A thread that has a part in the play."""


class VirtualTime:
    """The module `time`, as our modules find it: it asks the world that is being played."""

    CLOCK_MONOTONIC = 1
    CLOCK_BOOTTIME = 7
    world: World

    def time(self) -> float:
        return (self.world.now_ms + self.world.wall_ahead_ms) / 1000

    def monotonic(self) -> float:
        return 1000 + self.world.elapsed_ms / 1000

    def time_ns(self) -> int:
        return int(self.time() * 1e9)

    def monotonic_ns(self) -> int:
        return int(self.monotonic() * 1e9)

    def clock_gettime_ns(self, _: int) -> int:
        return self.monotonic_ns()

    def sleep(self, seconds: float) -> None:
        thread = threading.current_thread()
        if thread is threading.main_thread() or isinstance(thread, PlayedThread):
            self.world.sleep(seconds)
        else:  # of a test before, whose module has no part in the play
            time.sleep(seconds)


TIME = VirtualTime()


def below(source: random.Random, limit: int) -> int:
    """The number that `source.randrange(limit)` would be, without its checks, which take most of its time."""
    bits = limit.bit_length()
    found = source.getrandbits(bits)
    while found >= limit:
        found = source.getrandbits(bits)
    return found


@contextmanager
def instead(real: Any, of_ours: Any) -> Iterator[None]:
    """Let every module of the flow that names `real` find `of_ours`."""
    places = [
        (module, name)
        for path, module in list(sys.modules.items())
        if path.split(".")[0] in ("flows", "connectors")
        for name, value in list(vars(module).items())
        if value is real
    ]
    assert places, f"nobody names {real}"
    for module, name in places:
        setattr(module, name, of_ours)
    try:
        yield
    finally:
        for module, name in places:
            setattr(module, name, real)


@contextmanager
def virtual_time() -> Iterator[None]:
    """Let every module of the flow that looks at `time` look at the world's."""
    with instead(time, TIME):
        yield
