"""Several processes in one world: each is a thread that runs alone, from one of its moments to the next.

A moment is a call of Redis, a write to the disk, or a sleep. Who plays says which process runs next, and
which dies at its moment.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from simulation.world import Crash, Fault, PlayedThread, World

PATIENCE_S = 60.0
"""Real time for one piece of work: behind it the simulation itself hangs."""


class Actor(PlayedThread):
    """A process.

    Args:
        work: what it does; its end is the process's.

    Attributes:
        due_ms: when it runs on, by `World.elapsed_ms`.
        faults: what happens at the moment at which it waits.
        dead: whether it was killed: nothing of it goes on.
        over: whether it has ended.
        error: what has ended it, if it was not killed.
    """

    def __init__(self, world: Actors, name: str, work: Callable[[], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._world, self._work = world, work
        self._go, self._back = threading.Lock(), threading.Lock()
        for one in (self._go, self._back):  # locked until the other side releases it
            one.acquire()
        self.due_ms = world.elapsed_ms
        self.faults: list[Fault] = []
        self.dead = self.over = False
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        self._go.acquire()
        try:
            if not self.dead:
                self._work()
        except Crash:
            self.dead = True
        except Exception as error:
            self.error = error
        self.over = True
        self._back.release()

    def resume(self) -> None:
        """Let it run up to its next moment."""
        self._world.running = self
        self._go.release()
        assert self._back.acquire(timeout=PATIENCE_S), f"{self.name} does not come to a moment"
        self._world.running = None

    def pause(self) -> None:
        """Wait for the next turn; raises Crash if it was killed meanwhile."""
        if not self.dead:
            self._back.release()
            self._go.acquire()
        if self.dead:
            raise Crash

    def kill(self) -> None:
        """End it where it stands."""
        self.dead = True
        if not self.over:
            self.resume()


class Actors(World):
    """A world of several processes.

    Attributes:
        running: the one that runs now; None: who plays.
    """

    def __init__(self, order: int) -> None:
        super().__init__(order)
        self.running: Actor | None = None

    def moment(self, what: str) -> list[Fault]:
        self.moments[what] += 1
        running = self.running
        if running is None:
            return []
        running.pause()
        faults, running.faults = [one for one in running.faults if one.what == what], []
        for fault in faults:
            self.tell(f"*** {running.name}: {fault}")
        return faults

    def sleep(self, seconds: float) -> None:
        assert self.running is not None
        self.running.due_ms = self.elapsed_ms + 1000 * seconds
        self.running.pause()

    def crash(self) -> None:
        assert self.running is not None
        self.running.dead = True
        super().crash()
