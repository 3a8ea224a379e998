"""A bidder in a chaos run: the project's own client, read all the time, and believed in nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1] / "clients" / "python"))  # a package of its own, not ours

from audiopixel_client import Client

STALE_S: Final = 5.0
"""Instead of 30 s, so that the run's faults outlast it."""
SLACK_S: Final = 5.0
JUDGED: Final = ("delivery.state", "delivery.judged", "flight.blocked_impressions")
UNKNOWN: Final = ("unknown_before", "ended_unknown")
Version = tuple[int, ...]


class Bidder:
    """Compares what the client shows with what a reader of Redis has seen before.

    Attributes:
        reads: of rows, by the client.
        usable: how many of them might be acted on if they had a plan.
        behind_s: the longest time for which the client had an older row than Redis, while Redis served.
    """

    def __init__(self, url: str, namespace: str) -> None:
        self.client = Client(url, JUDGED, namespace=namespace, stale_s=STALE_S)
        self.reads, self.usable, self.behind_s = 0, 0, 0.0
        self._prefix = f"{namespace}:placement:{{"
        self._shown: dict[str, Version] = {}
        self._known: dict[str, list[tuple[float, Version]]] = {}

    def check(self, rows: Mapping[str, Mapping[str, str]]) -> Iterator[dict[str, Any]]:
        """The errors in the client's rows, after a reading of Redis; `rows` by key."""
        now_s = time.monotonic()
        for key, told in rows.items():
            if not key.startswith(self._prefix):
                continue
            name = key[len(self._prefix) : -1]
            if told:
                self._know(name, tuple(int(told[of]) for of in ("generation", "fence", "rev")), now_s)
            yield from self._look(key, name, now_s)

    def _know(self, name: str, version: Version, now_s: float) -> None:
        """Note when Redis had a version first."""
        known = self._known.setdefault(name, [])
        if not known or version > known[-1][1]:
            known.append((now_s, version))

    def _look(self, key: str, name: str, now_s: float) -> Iterator[dict[str, Any]]:
        row = self.client[name]
        self.reads += 1
        if not row.version:
            return
        version, shown = tuple(row.version), self._shown.get(name, ())
        if version < shown:
            yield {"what": "client backward", "row": key, "was": shown, "is": version}
        self._shown[name] = version
        known = self._known.get(name, [])
        while known and known[0][1] <= version:
            known.pop(0)
        waits_s = now_s - known[0][0] if known else 0.0
        # No placement of a run has a plan, which is the last reason that the client looks for.
        if row.reason not in (None, "no_plan"):
            return
        self.usable, self.behind_s = self.usable + 1, max(self.behind_s, waits_s)
        if waits_s > STALE_S + SLACK_S:
            yield {"what": "client behind", "row": key, "is": version, "was": known[0][1]}
        state, judged, blocked = (row[name] for name in JUDGED)
        if state in UNKNOWN or judged not in (None, 1) or blocked:
            yield {"what": "client usable", "row": key, "is": [state, judged, blocked]}
