"""Platforms side by side: the facts that their pixels bring or lack, by their rows and the collectors'
figures.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector as Registered

from connectors.redis import Client, latest_members, read_rows
from connectors.stream import ConnectError
from flows import metrics
from flows.model.redis_keys import row_key
from flows.viewers.collectors import Collectors
from flows.viewers.words import number

CANDIDATES: Final = 1_000
"""The most platforms, those with the latest pixels, among which the busiest are shown: senders choose the
names.
"""
MAX_PLATFORMS: Final = 100
"""The most platforms that are shown."""
UNREPLACED: Final = "unreplaced_share"
"""The share of a platform's pixels at the collectors with an unreplaced macro."""
FIELDS: Final = tuple(
    dict.fromkeys(
        (
            *("1d.impressions", "1d.starts", "1d.unlinked_starts", "flight.impressions"),
            *(metric.field for metric in metrics.PLATFORM if metric.field != UNREPLACED),
        )
    )
)
"""The fields of a row that are shown."""


@dataclass
class Platforms:
    """Reads the rows of platforms, at most once a second for any number of viewers."""

    client: Client
    namespace: str
    collectors: Collectors
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _read_s: float = float("-inf")
    _latest: list[dict[str, Any]] = field(default_factory=list)
    _error: str | None = None

    def read(self) -> dict[str, Any]:
        """The busiest platforms; raises nothing. While Redis is away the last answer stays, with `error`."""
        with self._lock:
            if time.monotonic() - self._read_s >= 1:
                try:
                    self._latest, self._error = self._read(), None
                except (ConnectError, msgspec.MsgspecError, ValueError) as error:
                    self._error = str(error)
                self._read_s = time.monotonic()
            return {"error": self._error, "platforms": self._latest}

    def _read(self) -> list[dict[str, Any]]:
        names = latest_members(self.client, f"{self.namespace}:index:platform", CANDIDATES)
        keys = [row_key(self.namespace, "platform", name) for name in names]
        rows = {
            name: row for name, row in zip(names, read_rows(self.client, keys, FIELDS), strict=True) if row
        }
        unreplaced = self._unreplaced()
        busiest = sorted(rows, key=lambda name: (-number(rows[name].get("flight.impressions", "0")), name))
        return [
            {"platform": name, **rows[name], **unreplaced.get(name, {})} for name in busiest[:MAX_PLATFORMS]
        ]

    def _unreplaced(self) -> Mapping[str, dict[str, str]]:
        fires: Counter[str] = Counter()
        unreplaced_fires: Counter[str] = Counter()
        for collector in self.collectors.read()["collectors"]:
            for platform, (all_fires, unreplaced) in collector["platforms_unreplaced"].items():
                fires[platform] += all_fires
                unreplaced_fires[platform] += unreplaced
        return {
            name: {UNREPLACED: f"{unreplaced_fires[name] / count:.6f}"}
            for name, count in fires.items()
            if count
        }


class PlatformSeries(Registered):
    """The shares of platforms, as metrics."""

    def __init__(self, platforms: Platforms) -> None:
        self._platforms = platforms

    def describe(self) -> Iterator[Metric]:
        """Describe no metric: the registry then collects none before a scrape."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The present figures of platforms; no metric while Redis is away."""
        figures = self._platforms.read()
        rows = [] if figures["error"] else figures["platforms"]
        for definition in metrics.PLATFORM:
            family = GaugeMetricFamily(definition.name, definition.help, labels=definition.labels)
            for row in rows:
                if (value := row.get(definition.field)) is not None:
                    family.add_metric([row["platform"]], float(value))
            yield family
