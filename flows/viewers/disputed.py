"""Others' counts that the page watches, with the waterfalls of a row in sight, from theirs to ours."""

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
from flows.waterfall import Claim, body, compare, read_claims
from flows.waterfall.signed_parts import PART_WORDS

MAX_DAYS: Final = 62
"""The greatest number of their rows that are compared for one of ours: the flight, and the latest days."""
SERVES_S: Final = 5.0
"""The time for which a comparison serves, in s: the page asks every two seconds."""
MAX_CACHED: Final = 100

Key = tuple[str, str]


@dataclass
class Disputed:
    """Compares a watched file with the day counts in Redis, row by row as they are asked for.

    Args:
        path: of their counts, as `flows.waterfall.read_claims` takes it; read again when it changes.
        zone: of the calendar day.
        plans: those in force.
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
            UsageError: it cannot be read, or could not when it last changed.
        """
        try:
            status = self.path.stat()
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be read: {error.strerror}") from None
        stamp = status.st_mtime_ns, status.st_ctime_ns, status.st_size
        if stamp != self._stamp:
            self._stamp, self._refused = stamp, None
            self._take_up()
        if self._refused is not None:
            raise self._refused

    def _take_up(self) -> None:
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
            everything: whether the reader sees all rows: the reason quotes cells of any.
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
        latest = sorted(claims, key=lambda one: (one.day is None, one.day or date.min), reverse=True)[
            :MAX_DAYS
        ]
        comparisons = compare(self.client, self.namespace, self.zone, self.plans(), latest)
        rows = [body(one) for one in comparisons]
        for row in rows:
            for part in row["parts"]:
                part["said"] = PART_WORDS[part["name"].partition(".")[0]]
        if len(self._cached) >= MAX_CACHED:
            self._cached.clear()
        self._cached[key] = time.monotonic(), rows
        return rows
