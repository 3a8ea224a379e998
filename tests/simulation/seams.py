"""An archive before the topic: the real `HistoryInput` over an archive in memory and a topic that forgets.

An archive grows and a topic forgets at the moments of a history, each partition up to a time of its own. The
topic keeps at least what is behind the archive's end.
"""

from __future__ import annotations

import json
import random
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple

from connectors.kafka import KafkaTrouble
from connectors.objects import NotThere
from connectors.stream import Messages, Reader
from flows.archive import HistoryInput
from flows.archive.manifest import Part
from flows.archive.message_lines import Forgetting
from flows.archive.reader import ArchiveReader
from flows.archive.series import Series
from simulation.log import Entry, Log, LogReader
from simulation.world import T0_MS, Fault, World

TOPIC: Final = "audio-pixels"
SHARE: Final = 0.15
"""Of the seeds whose history may have seams, those that have some."""
_NOBODY: Final = Forgetting(b"nobody is forgotten", ())


class Seam(NamedTuple):
    """The content of archive and topic from a moment on.

    Attributes:
        at_ms: the moment, in ms since the beginning of the history.
        archived_ms: messages up to this time are in the archive, by partition.
        deleted_ms: messages up to this time are not in the topic any more; at most `archived_ms`.
    """

    at_ms: int
    archived_ms: Mapping[str, int]
    deleted_ms: Mapping[str, int]


def seams(seed: int, entries: Mapping[str, Sequence[Entry]]) -> tuple[tuple[Seam, ...], tuple[Fault, ...]]:
    """The seams of a seed's history, which begins at the first one, and crashes around them; or none."""
    source = random.Random(f"seams of {seed}")
    if source.random() >= SHARE:
        return (), ()
    times = sorted(entry.at_ms for some in entries.values() for entry in some)
    more = source.sample(times, min(len(times), source.choice((0, 1, 2, 2))))
    moments = sorted([source.choice(times[: 1 + len(times) // 2]), *more])  # much follows the first seam
    found, archived, deleted = list[Seam](), dict.fromkeys(entries, -1), dict.fromkeys(entries, -1)
    for at_ms in moments:
        archived = {name: source.randint(before, at_ms) for name, before in archived.items()}
        archived = {name: at_ms if source.random() < 0.2 else there for name, there in archived.items()}
        deleted = {
            name: archived[name] if source.random() < 0.5 else source.randint(before, archived[name])
            for name, before in deleted.items()
        }
        found.append(Seam(at_ms, archived, deleted))
    most = 2 * len(entries)
    faults = [Fault("seam", source.randint(1, most), "crash") for _ in range(source.choice((0, 1, 1, 2)))]
    # Before and after the seam, at a possible save.
    faults += [Fault("step", source.randint(1, 40), "crash") for _ in range(source.choice((0, 1)))]
    faults += [Fault("step", source.randint(40, 400), "crash") for _ in range(source.choice((0, 1, 2)))]
    # When the topic has just deleted what a save may still need.
    faults += [Fault("deleted", number, "crash") for number in range(1, len(found)) if source.random() < 0.6]
    return tuple(found), tuple(faults)


class Memory:
    """Objects in memory, as `connectors.objects.Objects` describes them."""

    def __init__(self) -> None:
        self._bodies: dict[str, bytes] = {}

    def alone(self) -> AbstractContextManager[None]:
        return nullcontext()

    def put(self, path: str, body: bytes) -> None:
        self._bodies[path] = body

    def put_file(self, path: str, file: Path) -> None:
        self.put(path, file.read_bytes())

    def swap(self, path: str, body: bytes, tag: str | None) -> str | None:
        self.put(path, body)
        return ""

    def get(self, path: str) -> tuple[bytes, str | None]:
        try:
            return self._bodies[path], ""
        except KeyError:
            raise NotThere(path) from None

    def delete(self, path: str) -> None:
        self._bodies.pop(path, None)

    def names(self, prefix: str) -> list[str]:
        return sorted(path for path in self._bodies if path.startswith(f"{prefix}/"))


class ForgettingLog(Log):
    """A topic that has only what is behind `begins`, by partition."""

    def __init__(self, world: World, entries: Mapping[str, Sequence[Entry]]) -> None:
        super().__init__(world, entries, None)
        self.begins = dict.fromkeys(entries, 0)

    def open(self, partition: str, position: int | None, log_id: str = "") -> LogReader:
        begin = self.begins[partition]
        position = begin if position is None else position
        if position < begin:
            raise KafkaTrouble(
                f"{partition} has nothing before {begin}, and {position} is asked", "lost", TOPIC
            )
        return NamedReader(self._world, self._entries[partition], position)

    def topic_ids(self) -> dict[str, str]:
        return {TOPIC: NamedReader.log_id}


class NamedReader(LogReader):
    """A reader of a topic with an id, which separates its positions from those in the archive."""

    log_id = "T"


class SeamedLog(HistoryInput):
    """An archive and a topic, as they are at the present moment."""

    def __init__(self, world: World, entries: Mapping[str, Sequence[Entry]], to_come: Sequence[Seam]) -> None:
        self._world, self._entries, self._to_come = world, entries, [*to_come]
        self._log, self._memory = ForgettingLog(world, entries), Memory()
        self._series: dict[str, Series] = {}
        for number, name in enumerate(entries):
            part = Part(topic=TOPIC, partition=number, first=0, log_id=NamedReader.log_id)
            series = Series(self._memory, part, None, 1 << 20)
            series.begin()
            self._series[name] = series
        self._grow()
        super().__init__(self._memory, self._log, self._log, TOPIC)  # type: ignore[arg-type]

    @property
    def ends(self) -> dict[str, int]:
        """The offset after the archive's last message now, by partition."""
        return {name: series.reached for name, series in self._series.items()}

    def next_ms(self) -> int | None:
        """When something comes next; a process may die when the topic has deleted more."""
        if self._grow():
            for _ in self._world.moment("deleted"):
                self._world.crash()
        return self._log.next_ms()

    def open(self, partition: str, position: int | None, log_id: str = "") -> Any:
        self._grow()
        return super().open(partition, position, log_id)

    def behind(self, partition: str, position: int) -> ArchiveReader | Reader:
        """As `HistoryInput.behind`; a process may die before it and after it."""
        self._moment()
        self._grow()
        found = super().behind(partition, position)
        self._moment()
        return found

    def _moment(self) -> None:
        for _ in self._world.moment("seam"):
            self._world.crash()

    def _grow(self) -> bool:
        """Let archive and topic be as they are now; returns whether they have changed."""
        before = len(self._to_come)
        while self._to_come and self._to_come[0].at_ms <= self._world.elapsed_ms:
            seam = self._to_come.pop(0)
            for name, entries in self._entries.items():
                self._write(self._series[name], entries[: _count(entries, seam.archived_ms[name])])
                self._log.begins[name] = _count(entries, seam.deleted_ms[name])
            self._world.tell(
                f"the archive ends at {[*self.ends.values()]}, and the topic begins at "
                f"{[*self._log.begins.values()]}"
            )
        return len(self._to_come) < before

    def _write(self, series: Series, entries: Sequence[Entry]) -> None:
        for begin, end in _pieces(self._world, series.reached, len(entries)):
            some = entries[begin:end]
            stamps = [T0_MS + entry.at_ms for entry in some]
            messages = Messages([entry.value for entry in some], range(begin, end), end, stamps)
            series.take(messages, NamedReader.log_id, stamps[-1], 0.0, _NOBODY)
            series.seal()


def whole_letter(letter: bytes, entries: Mapping[str, Sequence[Entry]]) -> bytes:
    """A dead letter, that of a malformed message as if it had been read in the topic: an archive gives the
    empty message for it (docs/archive.md).
    """
    told = json.loads(letter)
    if told["reason"] == "malformed" and not told["length"]:
        raw = entries[told["partition"]][told["offset"]].value
        told |= {"length": len(raw), "sha256": sha256(raw).hexdigest()}
    return json.dumps(told).encode()


def _count(entries: Sequence[Entry], through_ms: int) -> int:
    return bisect_right([entry.at_ms for entry in entries], through_ms)


def _pieces(world: World, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Ranges of segments."""
    while begin < end:
        following = min(end, begin + world.random.randint(1, 8))
        yield begin, following
        begin = following
