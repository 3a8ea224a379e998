"""The way to the simulated Redis: redis-py's calls as the project makes them, and what may happen to one.

A call is a run of commands. It may fail before it is sent, behind it, or in its midst; its commands may wait
in the server and land later, beside those of others; the server may lose its data between any two commands,
or come back with older data, which ends connections.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import TimeoutError as TimedOut

from simulation.redis_store import Store
from simulation.world import World

Commands = Sequence[tuple[Any, ...]]


class Server:
    """The server, what waits in it, and what was lost.

    Attributes:
        losses: how often it has lost data.
    """

    def __init__(self, world: World, store: Store) -> None:
        self.world, self.store = world, store
        self.losses = 0
        self._later: list[tuple[int, Commands]] = []
        self._older = store.copy()

    def call(self, commands: Commands) -> list[Any]:
        """The replies to a run of commands.

        Raises:
            Disconnected, TimedOut, Crash: instead of the replies.
        """
        self._wake()
        faults = self.world.moment("redis")
        if not faults:
            return [self.store.run(*one) for one in commands]
        return self._with(faults[0].how, faults[0].detail, commands)

    def _with(self, how: str, detail: int, commands: Commands) -> list[Any]:
        """The replies to a run of commands to which something happens."""
        world, crash = self.world, how.startswith("crash")
        upto = self.world.random.randint(0, len(commands))
        match how.removeprefix("crash_"):
            case "before":
                upto = 0
            case "after":
                upto = len(commands)
            case "stall":
                self._later.append((world.moments["redis"] + detail, list(commands)))
                self._end(crash)
                raise TimedOut("the server does not answer")
            case "emptied":
                found = [self.store.run(*one) for one in commands[:upto]]
                self.lose()
                found += [self.store.run(*one) for one in commands[upto:]]
                if crash:  # what was sent lands all the same
                    world.crash()
                return found
            case "older":
                self.losses += 1
                self.store.become(self._older)
                self._later.clear()  # with the connections that they came by
                upto = 0
            case "copied":
                self._older = self.store.copy()
                return [self.store.run(*one) for one in commands]
        for one in commands[:upto]:
            self.store.run(*one)
        self._end(crash)
        raise Disconnected("the connection is lost")

    def _end(self, crash: bool) -> None:
        if crash:
            self.world.crash()

    def lose(self) -> None:
        """Lose all data: by a restart, which the loaded scripts do not outlast, and by a command in turn."""
        self.losses += 1
        self.store.run("FLUSHALL")
        if self.losses % 2:
            self.store.known.clear()

    def _wake(self) -> None:
        """Commands that waited land, of whoever sent them."""
        due = [some for at, some in self._later if at <= self.world.moments["redis"]]
        self._later = [one for one in self._later if one[0] > self.world.moments["redis"]]
        for some in due:
            self.world.tell(f"{len(some)} commands that waited in Redis land now")
            for one in some:
                self.store.run(*one)


class Pipeline:
    """A pipeline without a transaction."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._commands: list[tuple[Any, ...]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def execute_command(self, *command: Any) -> None:
        self._commands.append(command)

    def hgetall(self, key: str) -> None:
        self._commands.append(("HGETALL", key))

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        return self._server.call(self._commands)


class Client:
    """As much of redis-py's `Redis` as the project uses."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.connection_pool = self
        self._answers: list[Any] = []

    def pipeline(self, transaction: bool = False) -> Pipeline:
        return Pipeline(self._server)

    def eval(self, script: str, number: int, *parts: Any) -> Any:
        return self._one("EVAL", script, number, *parts)

    def publish(self, channel: str, message: Any) -> Any:
        return self._one("PUBLISH", channel, message)

    def script_load(self, script: str) -> Any:
        return self._one("SCRIPT", "LOAD", script)

    def hgetall(self, key: str) -> Any:
        return self._one("HGETALL", key)

    def zrange(self, key: str, start: Any, end: Any, **how: Any) -> list[Any]:
        if how:  # trimming the indexes: no row is as old as that
            return []
        found: list[Any] = self._one("ZRANGE", key)
        return found

    def zscan_iter(self, key: str, count: int) -> list[tuple[str, float]]:
        return [(member, 0.0) for member in self._one("ZRANGE", key)]

    def _one(self, *command: Any) -> Any:
        (answer,) = self._server.call([command])
        if isinstance(answer, Exception):
            raise answer
        return answer

    # A connection and its pool

    def get_connection(self) -> Self:
        return self

    def release(self, _: object) -> None:
        pass

    def disconnect(self, inuse_connections: bool = True) -> None:
        self._answers.clear()

    def send_packed_command(self, packed: Sequence[bytes]) -> None:
        self._answers += self._server.call(list(_commands(b"".join(packed))))

    def parse_response(self, _: object, name: str) -> Any:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        pass


def _commands(packed: bytes) -> Any:
    """The commands that were packed, in RESP."""
    at = 0
    while at < len(packed):
        end = packed.index(b"\r\n", at)
        command, parts, at = [], int(packed[at + 1 : end]), end + 2
        for _ in range(parts):
            end = packed.index(b"\r\n", at)
            begin, length = end + 2, int(packed[at + 1 : end])
            command.append(packed[begin : begin + length])
            at = begin + length + 2
        yield tuple(command)
