"""A watched file of others' counts, and the waterfalls of a row in sight, from their count to ours."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from connectors.redis import Client
from connectors.stream import ConnectError
from flows.errors import AudiopixelError, UsageError
from flows.model.plan import Plan
from flows.waterfall import Claim, Difference, body, compare, read_claims
from flows.waterfall.signed_parts import PART_WORDS

MAX_DAYS: Final = 62
"""The most rows of their file that are compared for one row of ours: the flight, and the latest days."""
SERVES_S: Final = 5.0
"""The time for which a comparison serves, in s: the page requests it every two seconds."""
MAX_CACHED: Final = 100

Key = tuple[str, str]


def described(comparison: Difference) -> dict[str, Any]:
    """A comparison for JSON, with the words of each part as `said`."""
    row = body(comparison)
    for part in row["parts"]:
        part["said"] = PART_WORDS[part["name"].partition(".")[0]]
    return row


@dataclass
class Disputed:
    """Compares a watched file with the day counts in Redis, row by row as they are asked for.

    Args:
        path: the file of their counts, for `flows.waterfall.read_claims`; read again when it changes.
        zone: the zone of calendar days.
        plans: returns the plans in force.
    """

    path: Path
    client: Client
    namespace: str
    zone: ZoneInfo
    plans: Callable[[], Mapping[str, Plan]]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stamp: tuple[int, ...] = ()
    _refused: UsageError | None = None
    _claims: dict[Key, list[Claim]] = field(default_factory=dict)
    _cached: dict[Key, tuple[float, list[dict[str, Any]]]] = field(default_factory=dict)

    def look(self) -> None:
        """Read the file if it has changed.

        Raises:
            UsageError: the file cannot be read, or could not be read when it last changed.
        """
        try:
            status = self.path.stat()
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be read: {error.strerror}") from None
        stamp = status.st_mtime_ns, status.st_ctime_ns, status.st_size
        if stamp != self._stamp:
            self._stamp, self._refused = stamp, None
            self._read()
        if self._refused is not None:
            raise self._refused

    def _read(self) -> None:
        """Read the file; if that fails, the last content stays."""
        claims: dict[Key, list[Claim]] = {}
        try:
            for claim in read_claims(self.path):
                claims.setdefault((claim.scope, claim.name), []).append(claim)
        except UsageError as error:
            self._refused = error
        else:
            self._claims = claims
            self._cached.clear()

    def waterfalls(self, scope: str, name: str, everything: bool = False) -> dict[str, Any]:
        """The waterfalls of a row, the flight's first, then the latest days; `error` is the reason why they
        are old.

        Args:
            everything: true if the reader sees all rows. Only then `error` may quote cells of the file.
        """
        with self._lock:
            failed = None
            try:
                self.look()
            except UsageError as error:
                whole = str(error).replace(f"{self.path}", self.path.name)
                failed = whole if everything else "their file cannot be read now"
            claims = self._claims.get((scope, name), [])
            try:
                return {"error": failed, "rows": self._rows((scope, name), claims) if claims else []}
            except (ConnectError, AudiopixelError) as error:
                # Readers of a part must not see the address of Redis, or one of its keys.
                explained = everything and isinstance(error, AudiopixelError)
                return {"error": str(error) if explained else "our counts cannot be read now", "rows": []}

    def _rows(self, key: Key, claims: Sequence[Claim]) -> list[dict[str, Any]]:
        cached = self._cached.get(key)
        if cached is not None and time.monotonic() - cached[0] < SERVES_S:
            return cached[1]
        latest = sorted(claims, key=lambda claim: (claim.day is None, claim.day or date.min), reverse=True)[
            :MAX_DAYS
        ]
        comparisons = compare(self.client, self.namespace, self.zone, self.plans(), latest)
        rows = [described(comparison) for comparison in comparisons]
        if len(self._cached) >= MAX_CACHED:
            self._cached.clear()
        self._cached[key] = time.monotonic(), rows
        return rows
