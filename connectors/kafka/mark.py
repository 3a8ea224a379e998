"""A mark after the last read message. The mark distinguishes a log that has lost its end from the former log.

Such a log may have reached its former length again, under the same topic id. But it continues under a leader
of a later epoch: if the mark's epoch ended before the mark, the message is lost. Librdkafka asks the brokers
for the end of that epoch whenever it begins at an offset with an epoch.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple, Self

import structlog
from confluent_kafka import KafkaError

LOST: Final = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION)
"""Codes of places that are not in the log."""
_ENDED: Final = re.compile(r"broker end offset is (-?\d+)")


class Mark(NamedTuple):
    """The offset after a message, and the epoch of the leader that wrote it."""

    epoch: int
    offset: int

    @classmethod
    def behind(cls, epoch: int | None, offset: int | None) -> Self | None:
        """The mark after the message at `offset`; None if the brokers report no epoch."""
        return None if epoch is None or offset is None or epoch < 0 else cls(epoch, offset + 1)

    def log_id(self, topic_id: str) -> str:
        """The id of the topic's log up to the mark; `marked` parses it."""
        return f"{topic_id}:{self.epoch}:{self.offset}"


def marked(log_id: str) -> tuple[str, Mark | None]:
    """The topic's id, and the mark if the id has one."""
    topic_id, *mark = log_id.split(":")
    return topic_id, Mark(*map(int, mark)) if mark else None


def end_of(error: KafkaError) -> int | None:
    """The offset in the present log at which the former log ends; 0 if the brokers do not know its epoch. The
    offset is parsed from librdkafka's text, since no field has it. None for a text about another error.
    """
    match = _ENDED.search(error.str())
    return None if match is None else max(0, int(match[1]))


class Loss(NamedTuple):
    """An offset that is not in a log from `low` to `high`; `ended` is the result of `end_of`."""

    offset: int
    low: int
    high: int
    ended: int | None

    @property
    def words(self) -> str:
        """The fault and its cause."""
        if self.ended is not None:
            cause = f"from {self.ended} on it has other messages than were read: was the topic created again?"
        elif self.offset < self.low:
            cause = f"{self.low - self.offset} messages were deleted before they were read"
        else:
            cause = "was the topic created again?"
        return f"offset {self.offset} is not in the log, which has {self.low} to {self.high} ({cause})"

    def resume_offset(self, on_lost: Literal["earliest", "latest"], partition: str) -> tuple[int, int]:
        """The offset to continue at (the oldest unread message, or after the newest), and the number of
        skipped messages; logs a warning.
        """
        read_to = self.offset if self.ended is None else self.ended
        target = max(self.low, self.ended or 0) if on_lost == "earliest" else self.high
        skipped = max(0, target - read_to)
        structlog.get_logger("kafka").warning(
            "reading resumes at another offset",
            partition=partition,
            offset=target,
            skipped=skipped,
            why=self.words,
        )
        return target, skipped
