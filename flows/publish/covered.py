"""The minutes that earlier executions have published; the row shards ask for them. Until the replay has
passed them, a published minute may be final already.

The positions in Redis never fall: the writer of this execution waits until its own positions are past them. A
flow that has passed the positions in Redis has therefore passed the earlier execution, at any time. Redis may
not answer while minutes are published. The end of the final minutes is therefore also written to disk, before
any final minute is published.
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
"""Seconds between two attempts to read from a Redis that does not answer; each attempt may last a timeout."""
NEVER: Final = 1 << 40
"""A minute after all others, since the epoch."""
_FILE: Final = "final"
_FORM: Final = msgspec.json.Decoder(tuple[int])
ANEW: Final = "begin a new generation with --recompute and an empty recovery directory"
SHORTER: Final = (
    "the log ended before the positions that Redis already holds: it is another or a shorter log; give it a "
    f"Redis or a namespace of its own, or {ANEW}"
)


def positions_key(namespace: str) -> str:
    """The key of the hash that holds the last flush's positions."""
    return f"{namespace}:positions"


def positions_of(fields: Mapping[str, str]) -> dict[str, int]:
    """The positions in the hash at `positions_key`; empty before the first flush.

    Raises:
        StateError: another program has written there.
    """
    text = fields.get("positions", "{}")
    try:
        return msgspec.json.decode(text, type=dict[str, int])
    except msgspec.DecodeError:
        raise StateError(_foreign("positions", text)) from None


def number_of(fields: Mapping[str, str], name: str) -> int:
    """A number in a hash that an execution has written; 0 for an absent field.

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
        f"Redis holds {text[:40]!r} as {name} of an earlier execution, and no flow writes that: restore the "
        "hash, or give the flow a namespace of its own"
    )


def positions_text(positions: Mapping[str, int]) -> str:
    """Positions as the log shows them."""
    return " ".join(f"{partition}:{position}" for partition, position in positions.items())


def refuse_foreign(stored_partitions: Collection[str], partitions: Collection[str], namespace: str) -> None:
    """Check that Redis holds numbers of the flow's own partitions alone.

    Raises:
        SettingsError: it holds numbers of another partition.
    """
    foreign = sorted(set(stored_partitions) - set(partitions))
    if foreign:
        raise SettingsError(
            f"Redis ({namespace}) holds numbers of {', '.join(foreign[:3])}, which this flow does not read: "
            f"give it a Redis or a namespace of its own, or {ANEW}"
        )


@dataclass
class Covered:
    """The covered minutes as far as one process has read them; the flow asks at each cut.

    Args:
        recompute: whether `--recompute` was given: the first execution with it has no earlier execution to
            pass.
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
        """Read the positions and the last final minute of earlier executions. Call it after the start, at
        which the members exchange the begun generation.
        """
        with self._lock:
            directory = self.settings.recovery_dir
            if not self._begun and self.recompute and not latest_fence_record(directory).begun:
                self._positions = {}
            elif not self._begun and directory is not None:
                self._final_minute = self._durable_minute = final_before(directory)
            self._begun = True

    def provisional_from(self, cut: Cut) -> int:
        """The first minute since the epoch that a cut may publish as provisional. `NEVER` while the cut is
        before the last flush or in history, or Redis does not answer.

        Raises:
            StateError: the recovery directory cannot be read.
        """
        if not self._begun:
            self._begin()
        return NEVER if self._behind(cut) or cut.in_history else self._final_minute

    def record_final(self, before: int) -> None:
        """Store that minutes before `before` may be final; returns once it is durable, before any of them is
        published.

        Raises:
            StateError: the disk does not take it.
        """
        directory = self.settings.recovery_dir
        with self._lock:
            if directory is not None and before > self._durable_minute:
                self._durable_minute = store_final(directory, before)

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
        except ConnectError:  # asked again later; until then no minute is published as provisional
            return
        self._positions = positions_of(fields)


def store_final(directory: Path, before: int) -> int:
    """Store in a recovery directory that minutes before `before` may have been published as final. Returns
    the greatest such minute of all members.

    Raises:
        StateError: the disk does not take it.
    """
    try:
        private_directory(directory)
        with privately():
            lock = open(directory / f"{_FILE}.lock", "w")  # noqa: SIM115 (closed below)
        with lock:  # other members may write the same file
            fcntl.flock(lock, fcntl.LOCK_EX)
            latest = max(before, final_before(directory))
            put_sealed(directory / _FILE, [latest])
    except OSError as error:
        raise StateError(f"the recovery directory {directory} cannot be used: {error.strerror}") from None
    return latest


def final_before(directory: Path) -> int:
    """The minute before which all minutes may have been published as final, according to a recovery
    directory.

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
