"""The loop of all exports: read topics by a group, hand over in order, retry, write dead letters, commit.

A place is committed once each message before it is acknowledged by the target, is a dead letter, or is not
for the target. Each message therefore arrives at least once, after any kill. A repeat has the same key.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, NamedTuple, Protocol, TypeVar

import msgspec
import structlog

from connectors.kafka import Place, Places, Record
from connectors.stream import ConnectError
from flows.exports.instruments import Instruments

FIRST_WAIT: Final = timedelta(seconds=1)
LONGEST_WAIT: Final = timedelta(minutes=5)
"""The longest pause of the back-off, which doubles. A target may request more, up to `LONGEST_ASKED`."""
LONGEST_ASKED: Final = timedelta(hours=1)
_POLL: Final = timedelta(milliseconds=200)
GAVE_UP: Final = "gave_up"
MALFORMED: Final = "malformed"

_T = TypeVar("_T")
_log = structlog.get_logger("export")


class Busy(Exception):
    """The target does not take a parcel now.

    Attributes:
        reason: a word for the metric: `timeout`, `status_503`…
        after: the pause that the target requests, or None.
    """

    def __init__(self, reason: str, detail: str = "", after: timedelta | None = None) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.after = reason, after


class Refused(Exception):
    """The target will never take a parcel. `reason` is a word; `detail` explains it and names no listener."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


class Stopped(Exception):
    """The process must end. Parcels without an acknowledgement come again."""


@contextmanager
def reachable() -> Iterator[None]:
    """A context in which an unreachable Kafka or Redis counts as a busy target.

    Raises:
        Busy: it does not answer.
    """
    try:
        yield
    except ConnectError as error:
        raise Busy("away", str(error)) from None


class Malformed(ValueError):
    """A message is malformed. The error names the field, and never quotes the message's content."""


class Letter(NamedTuple):
    """A message that no target will take, with the reason."""

    record: Record
    reason: str
    detail: str = ""


class Parcel(Protocol):
    """Messages that are acknowledged together."""

    @property
    def records(self) -> Sequence[Record]: ...

    def hand_over(self) -> None:
        """Hand over to the target, and return after its acknowledgement.

        Raises:
            Busy: the target does not take the parcel now.
            Refused: the target will never take it.
        """
        ...


class Sorted(NamedTuple):
    """Messages as parcels, dead letters, and a reason for each message that is not for the target."""

    parcels: Sequence[Parcel] = ()
    letters: Sequence[Letter] = ()
    left_out: Sequence[str] = ()


class Target(Protocol):
    """An export's target.

    Attributes:
        most: the greatest number of messages of a turn. So many come again after a kill.
        connections: the number of parcels that are handed over at once. With 1 they arrive in order.
    """

    most: int
    connections: int

    def sort(self, records: Sequence[Record]) -> Sorted:
        """Make parcels. Each turn calls it, even without new messages."""
        ...

    def places(self, read: Places) -> Places:
        """The places up to which all is acknowledged.

        Args:
            read: the places up to which all was read and handed over, or is a durable dead letter.
        """
        ...

    @property
    def waiting(self) -> bool:
        """True while a run with `once` must not end, since the target waits for something."""
        ...


class TopicReader(Protocol):
    """A `GroupReader`, or its substitute for an export without a topic."""

    @property
    def places(self) -> Places: ...
    @property
    def lag(self) -> Mapping[Place, int]: ...
    def read(self, most: int, wait: timedelta) -> Sequence[Record]: ...
    def ends(self) -> Places: ...
    def passed(self, ends: Places) -> bool: ...
    def commit(self, places: Places) -> None: ...


class Letters(Protocol):
    """The topic of the dead letters."""

    def write(self, items: Sequence[tuple[bytes, bytes]]) -> None: ...
    def flush(self) -> None: ...


@dataclass
class Handover:
    """Runs one export.

    Args:
        name: the export's name in metrics, logs and dead letters.
        give_up: the age, by the broker's timestamp, at which a message that cannot be handed over is a dead
            letter.
        stop: set to end the loop.
        poll: the time for which a turn waits for messages.
    """

    name: str
    reader: TopicReader
    target: Target
    letters: Letters
    instruments: Instruments
    give_up: timedelta
    stop: threading.Event = field(default_factory=threading.Event)
    clock_s: Callable[[], float] = time.time
    first_wait: timedelta = FIRST_WAIT
    poll: timedelta = _POLL
    _uncommitted: bool = False

    def run(self, once: bool = False) -> None:
        """Hand over until `stop`; with `once`, until all present messages have been handed over.

        Raises:
            ConnectError: Kafka cannot be read any more, or the dead letters cannot be written.
        """
        ends = self.reader.ends() if once else {}
        while not self.stop.is_set():
            self.turn()
            if once and not self.target.waiting and self.reader.passed(ends):
                return

    def turn(self) -> bool:
        """Take one turn of the loop; False if nothing was read, or the loop must end."""
        records = self.reader.read(self.target.most, self.poll)
        for (topic, partition), lag in self.reader.lag.items():
            self.instruments.lag.labels(self.name, f"{topic}/{partition}").set(lag)
        try:
            sorted_records = self._until_taken(lambda: self.target.sort(records))
            letters = [*sorted_records.letters, *self._hand_over(sorted_records.parcels)]
        except Stopped:
            return False
        for reason in sorted_records.left_out:
            self.instruments.left_out.labels(self.name, reason).inc()
        self._write_letters(letters)
        if records or sorted_records.parcels or self._uncommitted:
            self._commit()
        return bool(records)

    def _hand_over(self, parcels: Sequence[Parcel]) -> list[Letter]:
        if self.target.connections == 1 or len(parcels) < 2:
            return [letter for parcel in parcels for letter in self._deliver(parcel)]
        with ThreadPoolExecutor(self.target.connections, f"export-{self.name}") as pool:
            return [letter for letters in pool.map(self._deliver, parcels) for letter in letters]

    def _deliver(self, parcel: Parcel) -> list[Letter]:
        """Hand over one parcel, however long it takes. Returns its dead letters."""
        try:
            self._until_taken(parcel.hand_over, lambda: self._too_old(parcel))
        except Refused as error:
            return [Letter(record, error.reason, error.detail) for record in parcel.records]
        self.instruments.sent.labels(self.name).inc(len(parcel.records))
        return []

    def _until_taken(self, attempt: Callable[[], _T], in_vain: Callable[[], bool] = lambda: False) -> _T:
        """Repeat an attempt until the target takes it, with pauses that double.

        Args:
            in_vain: returns whether to give up.

        Raises:
            Refused: the target will never take it, or `in_vain` gave up.
            Stopped: the loop must end.
        """
        with ExitStack() as waiting:
            wait, first = self.first_wait, True
            while not self.stop.is_set():
                try:
                    return attempt()
                except Busy as error:
                    if in_vain():
                        raise Refused(GAVE_UP, str(error)) from None
                    if first:
                        waiting.enter_context(self.instruments.waiting.labels(self.name).track_inprogress())
                    self._pause(error, wait)
                wait, first = min(wait * 2, LONGEST_WAIT), False
        raise Stopped

    def _pause(self, error: Busy, wait: timedelta) -> None:
        self.instruments.retried.labels(self.name, error.reason).inc()
        # A random part, so that parcels that failed together are not repeated together.
        pause = max(min(error.after or timedelta(0), LONGEST_ASKED), wait * random.uniform(0.75, 1.0))
        seconds = pause.total_seconds()
        _log.warning(
            "target does not take a parcel", export=self.name, why=str(error), again_s=round(seconds, 1)
        )
        self.stop.wait(seconds)

    def _too_old(self, parcel: Parcel) -> bool:
        oldest_ms = min((record.timestamp_ms for record in parcel.records), default=0)
        return oldest_ms > 0 and self.clock_s() - oldest_ms / 1000 > self.give_up.total_seconds()

    def _write_letters(self, letters: Sequence[Letter]) -> None:
        if not letters:
            return
        self.letters.write([_letter(self.name, letter) for letter in letters])
        self.letters.flush()
        for letter in letters:
            self.instruments.dead.labels(self.name, letter.reason).inc()
            _log.warning("dead letter", export=self.name, at=letter.record.position, why=letter.reason)

    def _commit(self) -> None:
        try:
            self.reader.commit(self.target.places(self.reader.places))
            self._uncommitted = False
        except ConnectError as error:  # the next commit includes this one
            self._uncommitted = True
            _log.warning("place not committed", export=self.name, why=str(error))


def malformed(record: Record, error: Exception) -> Letter:
    """The letter of a message that cannot be read. An error that may quote its content appears as the name
    of its class.
    """
    is_ours = isinstance(error, Malformed | KeyError | msgspec.MsgspecError)
    return Letter(record, MALFORMED, str(error)[:200] if is_ours else type(error).__name__)


def _letter(export: str, letter: Letter) -> tuple[bytes, bytes]:
    """Key and JSON of a dead letter: the place of the message and the reason, nothing of its content."""
    record = letter.record
    body = {
        "export": export,
        "reason": letter.reason,
        "detail": letter.detail,
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
    }
    return f"{export}|{record.position}".encode(), msgspec.json.encode(body)
