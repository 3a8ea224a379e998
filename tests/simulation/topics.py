"""Kafka's side of the outputs: messages are in order, and durable after a flush."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from simulation.world import World


class Topic:
    """The messages that readers of a topic find; `seen` gets each message as it comes."""

    def __init__(self, world: World, name: str, seen: Callable[[bytes, bytes], None]) -> None:
        self._world, self.name, self._seen = world, name, seen
        self.messages: list[tuple[bytes, bytes]] = []

    def land(self, key: bytes, value: bytes) -> None:
        self.messages.append((key, value))
        self._seen(key, value)


class TopicWriter:
    """A producer: it sends in order, some at once, the rest at the latest when it is flushed."""

    position = 0

    def __init__(self, world: World, topic: Topic) -> None:
        self._world, self._topic = world, topic
        self._waiting: list[tuple[bytes, bytes]] = []

    def write(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        self._waiting += items
        self._send(self._world.random.randint(0, len(self._waiting)))
        for _ in self._world.moment("topic"):
            self._world.crash()

    def flush(self) -> None:
        self._send(len(self._waiting))
        for _ in self._world.moment("topic"):
            self._world.crash()

    def close(self) -> None:
        self._send(len(self._waiting))

    def _send(self, number: int) -> None:
        for key, value in self._waiting[:number]:
            self._topic.land(key, value)
        del self._waiting[:number]
