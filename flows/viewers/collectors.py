"""The collectors and the sources by the figures that they write to Redis, and the tags that stay silent."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector as Registered

from connectors.redis import Client, read_rows
from connectors.stream import ConnectError
from flows import metrics
from flows.model.redis_keys import archive_key, collectors_key, row_key, sources_key, tags_key

STALE_MS: Final = 15_000
"""The age of the last report, in ms, from which a collector is away: it reports every two seconds."""
SILENT_MS: Final = 86_400_000
"""The age, in ms, from which a tag that has never fired is silent."""
MIN_FIRES: Final = 20
"""The fewest pixels of a placement by which its tag is judged."""
UNREPLACED_SHARE: Final = 0.5
"""The share of a placement's pixels with an unreplaced macro from which its tag is shown."""
MAX_SHOWN: Final = 1_000
"""The most collectors, and the most silent tags, that are shown."""
MAX_SERVERS: Final = 10
"""The greatest number of shown networks of unverified servers, over all collectors."""
READ_EVERY_S: Final = 1.0
NEVER_FIRED, UNREPLACED = WHY = ("never_fired", "unreplaced")

COUNTS: Final = (
    *("calls", "stored", "not_counted", "rejected", "refused"),
    *("inherited", "acknowledged", "resting", "torn", "spool_bytes"),
)
TIMES: Final = ("started_ms", "updated_ms", "oldest_resting_ms", "low_ms")
ARCHIVE: Final = ("through_ms", "missing", "unreadable", "updated_ms")
SOURCE_COUNTS: Final = (
    *("read", "pixels", "not_ours", "rejected", "behind", "waiting"),
    *("started_ms", "updated_ms", "low_ms"),
)
BY_REASON: Final = ("rejected_by", "refused_by", "not_counted_by", "consent_by", "invalid_traffic_by")


class Server(msgspec.Struct):
    """A network of unverified servers: they send for listeners' devices, and the collector does not trust
    them.

    Attributes:
        agent: the name of the user agent of most of its calls; empty if unknown.
        device_from: the place of the device's address in its calls.
    """

    network: str
    agent: str
    calls: int
    device_from: str


_SERVERS: Final = msgspec.json.Decoder(list[Server])


@dataclass
class Collectors:
    """Reads the collectors' figures, at most once a second for any number of viewers.

    Args:
        now_ms: the wall clock.
    """

    client: Client
    namespace: str
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _read_s: float = float("-inf")
    _latest: dict[str, Any] = field(default_factory=dict)

    def read(self) -> dict[str, Any]:
        """All figures as JSON; raises nothing. While Redis is away the last figures stay, with `error`."""
        with self._lock:
            if time.monotonic() - self._read_s >= READ_EVERY_S:
                try:
                    self._latest = self._read() | {"error": None}
                except (ConnectError, msgspec.MsgspecError, ValueError) as error:
                    self._latest = (self._latest or self._empty()) | {"error": str(error)}
                self._read_s = time.monotonic()
            return self._latest

    def _empty(self) -> dict[str, Any]:
        return {
            "at_ms": 0,
            "hold": None,
            "archive": None,
            "collectors": [],
            "together": _together([]),
            "sources": [],
            "silent_tags": [],
        }

    def _read(self) -> dict[str, Any]:
        now_ms, space = self.now_ms(), self.namespace
        listed, tags, meta, archive = read_rows(
            self.client, [collectors_key(space), tags_key(space), f"{space}:meta", archive_key(space)], None
        )
        ids = sorted(listed, key=lambda name: (-int(listed[name] or 0), name))[:MAX_SHOWN]
        rows = read_rows(self.client, [row_key(space, "collector", name) for name in ids])
        collectors = [_figures(row, now_ms) for row in rows if row]
        collectors.sort(key=lambda figures: str(figures["id"]))
        return {
            "at_ms": now_ms,
            "hold": _hold(meta),
            "archive": {name: _whole(archive.get(name)) for name in ARCHIVE} if archive else None,
            "collectors": collectors,
            "together": _together(collectors),
            "sources": self._sources(now_ms),
            "silent_tags": self._silent(tags, collectors, now_ms)[:MAX_SHOWN],
        }

    def _sources(self, now_ms: int) -> list[dict[str, Any]]:
        """The processes of live sources."""
        (listed,) = read_rows(self.client, [sources_key(self.namespace)])
        ids = sorted(listed)[:MAX_SHOWN]
        rows = (
            read_rows(self.client, [row_key(self.namespace, "source", name) for name in ids]) if ids else []
        )
        return [source_of(row, now_ms) for row in rows if row]

    def _silent(
        self, tags: Mapping[str, str], collectors: list[dict[str, Any]], now_ms: int
    ) -> list[dict[str, Any]]:
        """Tags that have not fired for a day since they were built, unless their flight is to come; and tags
        that fire with unreplaced macros.
        """
        old_tags = {}
        for name, text in tags.items():
            built = msgspec.json.decode(text, type=dict[str, Any])
            if now_ms - int(built.get("built_ms", 0)) >= SILENT_MS:
                old_tags[name] = built
        names = sorted(old_tags)
        keys = [row_key(self.namespace, "placement", name) for name in names]
        states = read_rows(self.client, keys, ["delivery.state"]) if keys else []
        silent = [
            {"placement": name, "why": NEVER_FIRED, **old_tags[name], "fires": 0, "unreplaced": 0}
            for name, row in zip(names, states, strict=True)
            if row.get("delivery.state") != "not_started"
        ]
        fires: Counter[str] = Counter()
        unreplaced_fires: Counter[str] = Counter()
        for collector in collectors:
            for name, (all_fires, unreplaced) in collector["placements_unreplaced"].items():
                fires[name] += all_fires
                unreplaced_fires[name] += unreplaced
        return silent + [
            {"placement": name, "why": UNREPLACED, "fires": fires[name], "unreplaced": count}
            for name, count in unreplaced_fires.most_common()
            if fires[name] >= MIN_FIRES and count >= UNREPLACED_SHARE * fires[name]
        ]


class SilentTags(Registered):
    """The number of silent tags, as a metric."""

    def __init__(self, collectors: Collectors) -> None:
        self._collectors = collectors

    def describe(self) -> Iterator[Metric]:
        """Describe no metric: the registry then collects none before a scrape."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The present number of tags; no metric while Redis is away."""
        definition = metrics.SILENT_TAGS
        family = GaugeMetricFamily(definition.name, definition.help, labels=definition.labels)
        figures = self._collectors.read()
        if figures["error"] is None:
            counts = Counter(tag["why"] for tag in figures["silent_tags"])
            for why in WHY:
                family.add_metric([why], counts[why])
        yield family


def _figures(row: Mapping[str, str], now_ms: int) -> dict[str, Any]:
    counts = {name: _whole(row.get(name)) for name in (*COUNTS, *TIMES)}
    maps = {name: msgspec.json.decode(row.get(name, "{}"), type=dict[str, int]) for name in BY_REASON}
    return {
        "id": row.get("id", ""),
        "version": row.get("version", ""),
        "away": now_ms - (counts["updated_ms"] or 0) > STALE_MS,
        "ready": row.get("ready") == "1",
        "spool_full_ratio": float(row["spool_full_ratio"]) if "spool_full_ratio" in row else None,
        **counts,
        **maps,
        "unreplaced": msgspec.json.decode(row.get("unreplaced", "{}"), type=dict[str, dict[str, int]]),
        "placements_unreplaced": msgspec.json.decode(
            row.get("placements_unreplaced", "{}"), type=dict[str, tuple[int, int]]
        ),
        "platforms_unreplaced": msgspec.json.decode(
            row.get("platforms_unreplaced", "{}"), type=dict[str, tuple[int, int]]
        ),
        "unverified_servers": [
            _listed(server) for server in _SERVERS.decode(row.get("unverified_servers", "[]"))
        ],
    }


def source_of(row: Mapping[str, str], now_ms: int) -> dict[str, Any]:
    """The figures of a source's process: `read` is the sum of `pixels`, `not_ours` and `rejected`."""
    counts = {name: _whole(row.get(name)) for name in SOURCE_COUNTS}
    return {
        "id": row.get("id", ""),
        "source": row.get("source", ""),
        "version": row.get("version", ""),
        "away": now_ms - (counts["updated_ms"] or 0) > STALE_MS,
        **counts,
        "rejected_by": msgspec.json.decode(row.get("rejected_by", "{}"), type=dict[str, int]),
    }


def _listed(server: Server) -> dict[str, Any]:
    """A server, with the line of `audiopixel.toml` that makes its network a verified one."""
    line = f'collect_servers."{server.network}" = "{server.device_from}"'
    return msgspec.structs.asdict(server) | {"line": line}


def _servers(collectors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The networks with most calls to all collectors, each as the collector with most of its calls reports
    it.
    """
    server_by_network: dict[str, dict[str, Any]] = {}
    calls: Counter[str] = Counter()
    for server in sorted(
        (server for collector in collectors for server in collector["unverified_servers"]),
        key=lambda server: -server["calls"],
    ):
        server_by_network.setdefault(server["network"], server)
        calls[server["network"]] += server["calls"]
    return [
        server_by_network[network] | {"calls": count} for network, count in calls.most_common(MAX_SERVERS)
    ]


def _together(collectors: list[dict[str, Any]]) -> dict[str, Any]:
    """The sums over collectors, their worst spool, and the receipt of their oldest resting event."""
    columns = {name: [figures[name] for figures in collectors] for name in (*COUNTS, "spool_full_ratio")}
    sums: dict[str, Any] = {name: None if None in columns[name] else sum(columns[name]) for name in COUNTS}
    for name in BY_REASON:
        sums[name] = dict(sum((Counter(figures[name]) for figures in collectors), Counter[str]()))
    unreplaced: dict[str, Counter[str]] = {}
    for collector in collectors:
        for dialect, counts in collector["unreplaced"].items():
            unreplaced.setdefault(dialect, Counter()).update(counts)
    resting_ms = [figures["oldest_resting_ms"] for figures in collectors if figures["oldest_resting_ms"]]
    return sums | {
        "unreplaced": unreplaced,
        "unverified_servers": _servers(collectors),
        "spool_full_ratio": None
        if None in columns["spool_full_ratio"]
        else max(columns["spool_full_ratio"], default=0.0),
        "oldest_resting_ms": min(resting_ms, default=0),
        "ready": sum(figures["ready"] and not figures["away"] for figures in collectors),
        "away": sum(figures["away"] for figures in collectors),
    }


def _hold(meta: Mapping[str, str]) -> dict[str, Any] | None:
    """The hold that the flow reports: since when the watermark waits (epoch ms), for which collector, and the
    reason, `drain` or `clock`. None without a hold.
    """
    if not (since_ms := _whole(meta.get("held_since_ms"))):
        return None
    return {"since_ms": since_ms, "by": meta.get("held_by", ""), "why": meta.get("held_why", "drain")}


def _whole(text: str | None) -> int | None:
    """A count or a time; None for an absent one, which is not known, never 0."""
    return None if text is None else int(text or 0)
