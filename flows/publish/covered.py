"""The minutes that earlier executions have published, for the row shards. Until the replay has passed them, a
published minute may be final already.

The positions in Redis never fall, and this execution's writer writes its own only once they are past those
that it found. Whenever they are read, a flow that has passed them has passed the earlier execution. Redis may
be away while minutes are published. The end of the final ones is therefore written to disk, too, before any
final one is published.
"""

from __future__ import annotations

import fcntl
import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Final

import msgspec

from connectors.redis import connect, read_rows
from connectors.stream import ConnectError
from flows.errors import SettingsError, StateError
from flows.model.ticks import Cut
from flows.publish.fence import latest_fence_record
from flows.settings import Settings
from flows.state.durable import private_directory, privately
from flows.state.sealed import Damaged, Missing, put_sealed, read_sealed

RETRY_S: Final = 15.0
"""Seconds between two attempts to read from a Redis that does not answer: each may take a timeout."""
NEVER: Final = 1 << 40
"""A minute that never comes."""
_FILE: Final = "final"
_FORM: Final = msgspec.json.Decoder(tuple[int])
ANEW: Final = "say --recompute, with an empty recovery directory, to begin a new generation"
SHORTER: Final = (
    "the log ended before the positions that Redis already holds: it is another or a shorter log; give it a "
    f"Redis or a namespace of its own, or {ANEW}"
)


def positions_key(namespace: str) -> str:
    """The hash of the last flush's positions."""
    return f"{namespace}:positions"


def positions_of(fields: Mapping[str, str]) -> dict[str, int]:
    """The positions of that hash; empty if none were ever written.

    Raises:
        StateError: another program has written there.
    """
    text = fields.get("positions", "{}")
    try:
        return msgspec.json.decode(text, type=dict[str, int])
    except msgspec.DecodeError:
        raise StateError(_foreign("positions", text)) from None


def number_of(fields: Mapping[str, str], name: str) -> int:
    """A number of a hash that an execution has written; 0 without one.

    Raises:
        StateError: another program has written there.
    """
    text = fields.get(name) or "0"
    try:
        return int(text)
    except ValueError:
        raise StateError(_foreign(name, text)) from None


def _foreign(name: str, text: str) -> str:
    return (
        f"Redis holds {text[:40]!r} as {name} of an earlier execution, which none has written: restore what "
        "it held, or give the flow a namespace of its own"
    )


def positions_text(positions: Mapping[str, int]) -> str:
    """Positions as the log shows them."""
    return " ".join(f"{partition}:{position}" for partition, position in positions.items())


def refuse_foreign(stored_partitions: Collection[str], partitions: Collection[str], namespace: str) -> None:
    """Refuse a Redis that holds numbers of a partition that is not among the flow's.

    Raises:
        SettingsError: they are not.
    """
    foreign = sorted(set(stored_partitions) - set(partitions))
    if foreign:
        raise SettingsError(
            f"Redis ({namespace}) holds numbers of {', '.join(foreign[:3])}, which this flow does not read: "
            f"give it a Redis or a namespace of its own, or {ANEW}"
        )


@dataclass
class Covered:
    """The knowledge that one process has of covered minutes; asked at each cut, from the first on.

    Args:
        recompute: whether `--recompute` was given: the first execution with it has no earlier one to pass.
    """

    settings: Settings
    recompute: bool = False
    clock_s: Callable[[], float] = time.monotonic
    _positions: dict[str, int] | None = None
    _next_s: float = -math.inf
    _final_minute: int = 0
    _durable_minute: int = 0
    _begun: bool = False
    _lock: Lock = field(default_factory=Lock)

    def _begin(self) -> None:
        """Load what earlier executions have left. This happens after the start, at which the members have
        exchanged the generation that was begun.
        """
        with self._lock:
            directory = self.settings.recovery_dir
            if not self._begun and self.recompute and not latest_fence_record(directory).begun:
                self._positions = {}
            elif not self._begun and directory is not None:
                self._final_minute = self._durable_minute = final_before(directory)
            self._begun = True

    def provisional_from(self, cut: Cut) -> int:
        """The first minute, since the epoch, that may be published as provisional at a cut. There is none
        while the cut is before the last flush or of history, or Redis does not answer.

        Raises:
            StateError: the recovery directory cannot be read.
        """
        if not self._begun:
            self._begin()
        return NEVER if self._behind(cut) or cut.in_history else self._final_minute

    def tell_final(self, before: int) -> None:
        """Make durable that minutes before `before` may have been published as final, before they are.

        Raises:
            StateError: the disk does not take it.
        """
        directory = self.settings.recovery_dir
        with self._lock:
            if directory is not None and before > self._durable_minute:
                self._durable_minute = keep_final(directory, before)

    def _behind(self, cut: Cut) -> bool:
        if self._positions is None:
            self._ask()
        if self._positions and cut.reaches(self._positions):
            self._positions = {}
        return self._positions != {}

    def _ask(self) -> None:
        if (now_s := self.clock_s()) < self._next_s:
            return
        self._next_s = now_s + RETRY_S
        try:
            client = connect(self.settings.redis_url.get_secret_value(), timeout=self.settings.redis_timeout)
            (fields,) = read_rows(client, [positions_key(self.settings.rows_at)])
            client.close()
        except ConnectError:  # asked again; until then nothing is published that might be taken back
            return
        self._positions = positions_of(fields)


def keep_final(directory: Path, before: int) -> int:
    """Make durable that minutes before `before` may have been published as final. Returns the latest such
    minute of all members in the directory.

    Raises:
        StateError: the disk does not take it.
    """
    try:
        private_directory(directory)
        with privately():
            lock = open(directory / f"{_FILE}.lock", "w")  # noqa: SIM115 (closed below)
        with lock:  # other members may have the same file
            fcntl.flock(lock, fcntl.LOCK_EX)
            latest = max(before, final_before(directory))
            put_sealed(directory / _FILE, [latest])
    except OSError as error:
        raise StateError(f"the recovery directory {directory} cannot be used: {error.strerror}") from None
    return latest


def final_before(directory: Path) -> int:
    """The minute before which all may have been published as final, according to a recovery directory.

    Raises:
        StateError: the file cannot be read.
    """
    try:
        (before,) = read_sealed(directory / _FILE, _FORM)
    except Missing:
        return 0
    except Damaged as error:
        raise StateError(
            f"{error}: restore it, or put the minute there, since the epoch, before which all is final, as a "
            "line [minute]"
        ) from None
    return before
