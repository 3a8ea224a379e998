"""History, then live: an archive and its topic as one input with the same partitions and offsets.

A partition is read from the archive up to the manifest's end. Reading then goes on in the topic at the next
offset, the seam. At the seam the manifest is read again, because the archive's writer has gone on meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import structlog

from connectors.kafka import KafkaInput, KafkaTrouble
from connectors.objects import Objects
from connectors.stream import EndOfInput, Messages, Reader
from flows.archive.reader import ArchiveInput, ArchiveReader
from flows.errors import StateError

_HISTORY: Final = "archive:"
"""The prefix of a log's id until a partition that began in the archive has reached the topic's
present end.
"""


class HistoryInput:
    """All partitions of a topic. A partition that the archive has begins in the archive.

    Args:
        store: the archive's store.
        topic: the topic. A partition that the archive lacks is read from its oldest message on.
        strict: the same topic, as an input that fails at a lost position.
        name: the topic's name.
        begun: the offset of each partition at the very first start; None at that start.

    Raises:
        StateError: there is no archive, or it is of another topic.
        ConnectError: the archive cannot be read.
    """

    live = True

    def __init__(
        self,
        store: Objects,
        topic: KafkaInput,
        strict: KafkaInput,
        name: str,
        begun: Mapping[str, int] | None = None,
    ) -> None:
        self._store, self._topic, self._strict, self._begun = store, topic, strict, begun or {}
        archive = ArchiveInput(store)
        if archive.topic != name:
            raise StateError(f"the archive is of the topic {archive.topic}, and the flow reads {name}")
        self._archived_names = frozenset(archive.partitions())

    def partitions(self) -> list[str]:
        """The partitions of the topic.

        Raises:
            StateError: the archive has a partition that the topic lacks.
        """
        names = self._topic.partitions()
        if missing := self._archived_names - {*names}:
            raise StateError(
                f"the archive has {sorted(missing)[0]}, and the topic has no such partition: name the "
                "topic of the archive, or another archive"
            )
        return names

    def topic_ids(self) -> dict[str, str]:
        """The id of the topic (`KafkaInput.topic_ids`)."""
        return self._topic.topic_ids()

    def open(self, partition: str, position: int | None, log_id: str = "") -> HistoryReader | Reader:
        """Open at an offset.

        The archive is read if there is no offset, or if the archive was read before. An offset that was
        reached in the topic is read in the topic while Kafka has it.

        Raises:
            StateError: the archive has a gap, or neither archive nor topic has the offset.
            ConnectError: there is a gap at the seam, and `on_lost` is `stop`; or the archive or the topic
                cannot be read.
        """
        position = self._begun.get(partition) if position is None else position
        in_history = position is None or log_id.startswith(_HISTORY) or not log_id
        log_id = log_id.removeprefix(_HISTORY)
        if partition not in self._archived_names:
            return self._topic.open(partition, position, log_id)
        if not in_history and self._has(partition, position, log_id):
            return self._topic.open(partition, position, log_id)
        reader = self._archive().open(partition, None)
        if position is not None and not reader.begin <= position < reader.end:
            return HistoryReader(self, partition, None, self._topic.open(partition, position, log_id))
        # If the topic no longer has the offset at the archive's end, this fails now, and not hours later at
        # the seam.
        self._topic.open(partition, reader.end, reader.end_id).close()
        reader.position = reader.begin if position is None else position
        return HistoryReader(self, partition, reader, None)

    def _has(self, partition: str, position: int | None, log_id: str) -> bool:
        """True if the topic has the message at a position, or will have it as its next one."""
        try:
            self._strict.open(partition, position, log_id).close()
        except KafkaTrouble as error:
            if error.kind != "lost":
                raise
            return False
        return True

    def _archive(self) -> ArchiveInput:
        return ArchiveInput(self._store)

    def behind(self, partition: str, position: int) -> ArchiveReader | Reader:
        """The reader after the end of an archive's reader: the archive if it has grown, else the topic.

        Raises:
            as `open`.
        """
        archive = self._archive().open(partition, position)
        if position < archive.end:
            return archive
        return self._topic.open(partition, position, archive.end_id)


class HistoryReader:
    """A partition, made by `HistoryInput.open`.

    Attributes:
        in_history: True until the partition has reached the topic's end.
    """

    def __init__(
        self, source: HistoryInput, partition: str, archive: ArchiveReader | None, topic: Reader | None
    ) -> None:
        self._source, self._partition = source, partition
        self._archive, self._topic = archive, topic
        self._skipped = 0
        self.in_history = True

    @property
    def _reader(self) -> Reader:
        reader = self._archive or self._topic
        assert reader is not None
        return reader

    @property
    def position(self) -> int:
        """The next offset to read."""
        return self._reader.position

    @property
    def caught_up(self) -> bool:
        """True once the topic's present end was reached."""
        return self._archive is None and self._reader.caught_up

    @property
    def log_id(self) -> str:
        """The id of the topic's log, with the prefix `archive:` while the partition is in history."""
        return f"{_HISTORY if self.in_history else ''}{self._reader.log_id}"

    @property
    def lag(self) -> int:
        """The number of messages that are known to be unread."""
        return self._reader.lag

    @property
    def errors(self) -> int:
        """The number of faults that reading survived."""
        return self._reader.errors

    @property
    def skipped(self) -> int:
        """The number of messages that were missing and skipped."""
        return self._skipped + self._reader.skipped

    def read(self, limit: int) -> Messages | None:
        """At most `limit` messages; None if there are none now.

        Raises:
            as `HistoryInput.open`.
        """
        if self._archive is not None:
            try:
                return self._archive.read(limit)
            except EndOfInput:
                self._pass_seam(self._archive)
                return None
        messages = self._reader.read(limit)
        if self.in_history and self._reader.caught_up:
            self._leave_history()
        return messages

    def _pass_seam(self, archive: ArchiveReader) -> None:
        """Go on after the archive's end."""
        behind = self._source.behind(self._partition, archive.position)
        self._skipped += archive.skipped
        if isinstance(behind, ArchiveReader):
            self._archive = behind
            return
        structlog.get_logger("archive").info(
            "the archive is read to its end: reading continues in the topic",
            partition=self._partition,
            offset=archive.position,
        )
        self._archive, self._topic = None, behind

    def _leave_history(self) -> None:
        self.in_history = False
        structlog.get_logger("archive").info(
            "the history is counted, and the flow is live", partition=self._partition, offset=self.position
        )

    def proven(self) -> bool:
        """The answer of the topic's reader; False in the archive."""
        proven = self._archive is None and self._reader.proven()
        if proven and self.in_history:
            self._leave_history()
        return proven

    def commit(self, position: int) -> None:
        """Show progress in the topic to Kafka's tools."""
        if self._archive is None:
            self._reader.commit(position)

    def close(self) -> None:
        """Close both readers."""
        self._reader.close()
