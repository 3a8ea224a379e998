"""The interface of every input: named partitions of raw messages, each with a position.

A connector reads messages and decodes none. Positions are integers that grow along a partition (a Kafka
offset, a file's line number). `open(partition, position)` reads from that position on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias, overload

import numpy as np
import numpy.typing as npt

LATEST_MS: Final = 4_102_444_800_000
"""The year 2100, epoch ms. Writers to a topic choose its timestamps; a timestamp from then on counts as
absent.
"""
SPARE_BYTES: Final = 64
"""Bytes after joined lines, for a reader that loads this many bytes at a time."""


class ConnectError(Exception):
    """A system cannot be reached or refuses; the error names the system, its address, and the remedy."""


class EndOfInput(Exception):
    """A finite partition has been read to its end."""


def line_ends(block: bytes) -> npt.NDArray[np.int64]:
    """The place of every LF."""
    return np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))


LineEnds: TypeAlias = Callable[[bytes], npt.NDArray[np.int64]]
"""`line_ends`, or a faster equivalent."""


class Lines(Sequence[bytes]):
    """Payloads in one block of bytes, each cut out on access; cheaper than a list of payloads.

    Args:
        block: bytes; LF follows each payload, and any byte may follow the last one.
        ends: int64, the end of each payload: the place of its LF, or the end of the block.
        begin: the place of the first payload.
    """

    def __init__(self, block: bytes, ends: npt.NDArray[np.int64], begin: int = 0) -> None:
        self.block, self.ends, self.begin = block, ends, begin

    @classmethod
    def split(cls, block: bytes, ends: LineEnds = line_ends) -> Lines:
        """All lines of `block` that end in LF."""
        return cls(block, ends(block))

    @classmethod
    def join(cls, values: Sequence[bytes]) -> Lines:
        """Join `values`, which may contain LF, and add `SPARE_BYTES`."""
        lengths = np.fromiter(map(len, values), np.int64, len(values))
        return cls(b"\n".join([*values, bytes(SPARE_BYTES)]), np.cumsum(lengths + 1) - 1)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Lines: ...
    def __getitem__(self, index: int | slice) -> bytes | Lines:
        if isinstance(index, int) and 0 <= index < len(self.ends):
            return self.block[self._begin(index) : self.ends[index]]
        places = range(len(self.ends))[index]
        if isinstance(places, range):
            if places.step != 1:
                raise ValueError("lines can be sliced only in order, without gaps")
            return Lines(self.block, self.ends[places.start : places.stop], self._begin(places.start))
        return self.block[self._begin(places) : self.ends[places]]

    def payloads_at(self, places: Sequence[int]) -> list[bytes]:
        """The payloads at `places`, none of which is negative; cheaper than single accesses."""
        line_numbers = np.array(places, np.int64)
        begins = np.where(line_numbers > 0, self.ends[line_numbers - 1] + 1, self.begin).tolist()
        return [
            self.block[begin:end] for begin, end in zip(begins, self.ends[line_numbers].tolist(), strict=True)
        ]

    def _begin(self, place: int) -> int:
        return int(self.ends[place - 1]) + 1 if place else self.begin


@dataclass(frozen=True, slots=True)
class Messages:
    """A run of raw messages of one partition, in order.

    Attributes:
        values: payloads, a list or `Lines`; `b""` for a Kafka tombstone.
        positions: one for each message, strictly ascending.
        next_position: the position to continue at; greater than the last of `positions`.
        timestamps_ms: the broker's timestamps, one for each message (0: absent); None if the input has none.
        lost: the number of lost messages before the first one, skipped by choice.
    """

    values: Sequence[bytes]
    positions: Sequence[int]
    next_position: int
    timestamps_ms: Sequence[int] | None = None
    lost: int = 0

    def position_array(self) -> npt.NDArray[np.int64]:
        """The positions as int64. Converts a range in a tenth of numpy's time."""
        places = self.positions
        if isinstance(places, range):
            return np.arange(places.start, places.stop, places.step, dtype=np.int64)
        return np.asarray(places, np.int64)


class Reader(Protocol):
    """The reader of one open partition."""

    @property
    def position(self) -> int:
        """The position at which the next `read` begins."""
        ...

    @property
    def caught_up(self) -> bool:
        """True if the last `read` reached the partition's present end."""
        ...

    @property
    def in_history(self) -> bool:
        """True while the messages are history: counted long after their time, so that no reader acts on
        them.
        """
        ...

    @property
    def log_id(self) -> str:
        """The id of the log; empty if unknown. Another log of the same name has another id."""
        ...

    def proven(self) -> bool:
        """True if all messages of the partition have been read, by the system's answer to a request sent
        after the last call. Does not block. Call it after a `read`.

        Unlike `caught_up`, the answer cannot be stale after an outage or a suspension of the machine. It can
        be True for a partition that gets new messages all the time.
        """
        ...

    @property
    def lag(self) -> int:
        """The number of unread messages, as far as known without a request."""
        ...

    @property
    def errors(self) -> int:
        """The number of faults that a retry overcame."""
        ...

    @property
    def skipped(self) -> int:
        """The number of messages that retention deleted, skipped by choice."""
        ...

    def read(self, limit: int) -> Messages | None:
        """About `limit` messages at most, without blocking; None if there are none now.

        Raises:
            EndOfInput: a finite partition is at its end.
            ConnectError: the system has failed for good (temporary faults are retried inside).
        """
        ...

    def commit(self, position: int) -> None:
        """Commit `position` as progress for the system's own tools; audiopixel never reads it."""
        ...

    def close(self) -> None: ...


class Input(Protocol):
    """A set of partitions."""

    @property
    def live(self) -> bool:
        """True if the partitions keep growing and have a broker's timestamps; False if they end."""
        ...

    def partitions(self) -> list[str]:
        """The names of all partitions: the same on every worker, unique, and stable over restarts."""
        ...

    def open(self, partition: str, position: int | None, log_id: str = "") -> Reader:
        """Open at `position`; with None, at the configured beginning.

        Args:
            log_id: the id of the log that `position` belongs to; in another log the position is invalid.
        """
        ...
