"""What every input looks like to a flow: named partitions of raw messages, each with a position.

A connector reads; it does not decode. Positions are integers that grow along a partition (a Kafka offset, a file's
line number); `open(partition, position)` reads from that position on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class ConnectError(Exception):
    """A system cannot be reached or refuses: says which, where, and what to do."""


class EndOfInput(Exception):
    """A finite partition has been read to its end."""


@dataclass(frozen=True, slots=True)
class Messages:
    """A run of raw messages of one partition, in order.

    Attributes:
        values: payloads; `b""` for a Kafka tombstone.
        positions: one a message, strictly growing.
        next_position: where to read on; greater than the last of `positions`.
        timestamps_ms: the broker's timestamps, one a message (0 where absent), or None where the input has none.
    """

    values: Sequence[bytes]
    positions: Sequence[int]
    next_position: int
    timestamps_ms: Sequence[int] | None = None


class Reader(Protocol):
    """One open partition."""

    @property
    def position(self) -> int:
        """Where the next `read` begins."""
        ...

    @property
    def caught_up(self) -> bool:
        """Whether the last `read` reached the partition's present end."""
        ...

    @property
    def lag(self) -> int:
        """Messages that are there and unread, as far as is known without asking."""
        ...

    @property
    def errors(self) -> int:
        """Faults got over by trying again."""
        ...

    @property
    def skipped(self) -> int:
        """Messages lost to retention and moved over by choice."""
        ...

    def read(self, limit: int) -> Messages | None:
        """At most about `limit` messages, without blocking; None when there are none now.

        Raises:
            EndOfInput: a finite partition is at its end.
            ConnectError: the system is gone for good (a passing fault is retried inside).
        """
        ...

    def commit(self, position: int) -> None:
        """Show `position` as progress to the system's own tools; nothing is ever read back from there."""
        ...

    def close(self) -> None: ...


class Input(Protocol):
    """A set of partitions."""

    @property
    def live(self) -> bool:
        """Whether the partitions go on growing, with a broker's timestamps, or end."""
        ...

    def partitions(self) -> list[str]:
        """All partition names, the same on every worker, unique and stable over restarts."""
        ...

    def open(self, partition: str, position: int | None) -> Reader:
        """Open at `position`, or where the configuration says when None."""
        ...
