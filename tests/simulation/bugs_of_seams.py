"""Bugs of seams, where an archive ends and the topic goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flows.archive.history import HistoryInput
from flows.archive.reader import ArchiveReader
from flows.publish.covered import Covered
from flows.publish.judging import Judging
from simulation.mutations import mutation


@mutation(HistoryInput, "behind")
def a_message_is_skipped_at_the_seam(right: Any) -> Any:
    def behind(self: Any, partition: str, position: int) -> Any:
        found = right(self, partition, position)
        if not isinstance(found, ArchiveReader):
            found.position += 1
        return found

    return behind


@mutation(HistoryInput, "behind")
def a_message_is_read_twice_at_the_seam(right: Any) -> Any:
    def behind(self: Any, partition: str, position: int) -> Any:
        found = right(self, partition, position)
        if not isinstance(found, ArchiveReader) and position:
            found.position -= 1
        return found

    return behind


@mutation(HistoryInput, "behind")
def the_archive_is_not_looked_at_again_at_the_seam(right: Any) -> Any:
    return lambda self, partition, position: self._topic.open(partition, position, "")


@mutation(HistoryInput, "open")
def a_restart_before_the_seam_begins_the_archive_anew(right: Any) -> Any:
    def open_anew(self: Any, partition: str, position: int | None, log_id: str = "") -> Any:
        return right(self, partition, None if log_id.startswith("archive:") else position, log_id)

    return open_anew


@mutation(HistoryInput, "_has")
def a_position_that_the_topic_has_deleted_is_not_looked_for_in_the_archive(right: Any) -> Any:
    return lambda self, partition, position, log_id: True


@mutation(Judging, "look")
def numbers_of_history_are_judged(right: Any) -> Any:
    def look(self: Any, *args: Any) -> None:
        *others, _in_history, switching = args
        right(self, *others, False, switching)

    return look


@mutation(Covered, "provisional_from")
def minutes_of_history_are_published_before_they_are_final(right: Any) -> Any:
    return lambda self, cut: right(self, replace(cut, in_history=False))
