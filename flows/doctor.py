"""The state of an installation, one line for each part: Kafka, topics, Redis, clocks, disks, flow, lag,
collectors, sources.

A part is `ok`, `look` (it works, but needs attention) or `wrong`. The last two have a remedy. Nothing is
written.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec

from connectors.kafka import ANSWER_S, TIMEOUT_S, Cluster
from connectors.redis import (
    Client,
    RedisUnavailable,
    connect,
    read_fields,
    read_rows,
    scan_index,
    server_clock,
    server_infos,
)
from connectors.stream import ConnectError
from flows.errors import UNREADABLE, StateError
from flows.model.dimensions import SCOPES
from flows.model.redis_keys import collectors_key, row_key, sources_key
from flows.settings import Settings, kafka_options
from flows.shown import LINE, shown
from flows.state.keys import fingerprint

FRESH_MS: Final = 30_000
"""The age, in ms, of the flow's last write above which the flow is down."""
AWAY_MS: Final = 15_000
"""The age, in ms, of a collector's last figures above which it is away. It writes them every two seconds."""
CLOCKS_MS: Final = 2_000
"""The difference of two clocks, in ms, above which one should be set."""
LEAST_FREE: Final = 0.1
"""The share of a disk, or of Redis's memory, that should be free."""
MOST_LAG_S: Final = 60
"""The age of the watermark, in s, above which the flow is behind."""


class Level(StrEnum):
    """The state of a part."""

    OK = "ok"
    LOOK = "look"
    WRONG = "wrong"


MAX_NAMED: Final = 10
"""The greatest number of rows that a finding names."""


class Finding(NamedTuple):
    """The state of a part, in words, with the remedy if it is not `ok`."""

    level: Level
    part: str
    words: str
    remedy: str = ""


def ok(part: str, words: str) -> Finding:
    """The finding of a part that works."""
    return Finding(Level.OK, part, words)


def look(part: str, words: str, remedy: str) -> Finding:
    """The finding of a part that works, but needs attention."""
    return Finding(Level.LOOK, part, words, remedy)


def wrong(part: str, words: str, remedy: str) -> Finding:
    """The finding of a part that does not work."""
    return Finding(Level.WRONG, part, words, remedy)


@dataclass
class Doctor:
    """Examines an installation by its settings.

    Args:
        now_ms: the wall clock, epoch ms.
    """

    settings: Settings
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000

    def __post_init__(self) -> None:
        self._ends: dict[str, int] = {}

    def findings(self) -> Iterator[Finding]:
        """The findings of each part in turn. A fault of a system is a finding, never an error."""
        yield from self._kafka()
        client: Client | None = None
        try:
            began_s = time.perf_counter()
            client = connect(self.settings.redis_url.get_secret_value(), timeout=self.settings.redis_timeout)
            client.ping()
            took_ms = 1000 * (time.perf_counter() - began_s)
            yield from self._redis(client, took_ms)
        except (ConnectError, RedisUnavailable) as error:
            yield wrong("Redis", str(error), "start it, or set AUDIOPIXEL_REDIS_URL")
        yield from self._disk()
        if client is None:
            return
        try:
            for part, examine in (
                ("clocks", self._clocks),
                ("flow", self._flow),
                ("rows", self._rows),
                ("collectors", self._collectors),
                ("sources", self._sources),
            ):
                try:
                    yield from examine(client)
                except RedisUnavailable as error:
                    yield wrong("Redis", str(error), "look at its log: it answered a moment ago")
                except (ConnectError, StateError) as error:
                    yield wrong(
                        part,
                        str(error),
                        "docs/production.md#3-redis lists the rights; does another program write here?",
                    )
        finally:
            client.close()

    # Kafka

    def _kafka(self) -> Iterator[Finding]:
        settings = self.settings
        cluster = Cluster(settings.kafka_brokers, kafka_options(settings))
        try:
            admin = cluster.client(AdminClient, {}, {})
            began_s = time.perf_counter()
            metadata = cluster.call(admin, "brokers", lambda: admin.list_topics(timeout=TIMEOUT_S))
            took_ms = 1000 * (time.perf_counter() - began_s)
        except ConnectError as error:
            yield wrong("Kafka", str(error), "start it, or set AUDIOPIXEL_KAFKA_BROKERS")
            return
        yield ok(
            "Kafka", f"{settings.kafka_brokers}: {len(metadata.brokers)} brokers answer in {took_ms:.0f} ms"
        )
        yield from self._pixel_topic(cluster, admin, metadata.topics.get(settings.kafka_topic))
        wanted = [*settings.output_topics, settings.kafka_methodology_topic]
        missing = [name for name in wanted if name not in metadata.topics]
        if missing:
            yield wrong(
                "topics",
                f"missing: {', '.join(missing)}",
                "make them: docs/operations.md#kafka-and-the-input",
            )
        else:
            yield ok("topics", f"{len(wanted)} topics of the flow exist")

    def _pixel_topic(self, cluster: Cluster, admin: AdminClient, topic: Any) -> Iterator[Finding]:
        name = self.settings.kafka_topic
        if topic is None:
            yield wrong(
                "pixel topic", f"{name} is missing", "make it: docs/operations.md#kafka-and-the-input"
            )
            return
        partitions = topic.partitions
        leaderless = [number for number, partition in partitions.items() if partition.leader < 0]
        if leaderless:
            yield wrong(
                "pixel topic",
                f"{name}: {len(leaderless)} of {len(partitions)} partitions have no leader",
                "start their broker",
            )
            return
        replicas = min(len(partition.replicas) for partition in partitions.values())
        behind = [number for number, each in partitions.items() if len(each.isrs) < len(each.replicas)]
        words = f"{name}: {len(partitions)} partitions, each {replicas} times"
        if behind:
            yield look(
                "pixel topic",
                f"{words}; {len(behind)} partitions lack an in-sync replica",
                "look at its brokers",
            )
        elif replicas < 2:
            yield look(
                "pixel topic",
                words,
                "one replica: a lost disk loses pixels; give it 3, and min.insync.replicas=2",
            )
        else:
            yield ok("pixel topic", words)
        try:
            yield from self._stamps(cluster, admin)
            latest_offsets = {TopicPartition(name, number): OffsetSpec.latest() for number in partitions}
            for partition, future in admin.list_offsets(latest_offsets, request_timeout=TIMEOUT_S).items():
                self._ends[f"{name}/{partition.partition}"] = cluster.call(
                    admin, name, partial(future.result, ANSWER_S)
                ).offset
        except ConnectError as error:
            yield look("pixel topic", f"its ends are not known: {error}", "try again")

    def _stamps(self, cluster: Cluster, admin: AdminClient) -> Iterator[Finding]:
        topic_resource = ConfigResource(ConfigResource.Type.TOPIC, self.settings.kafka_topic)
        future = admin.describe_configs([topic_resource], request_timeout=TIMEOUT_S)[topic_resource]
        try:
            config = cluster.call(admin, self.settings.kafka_topic, partial(future.result, ANSWER_S))
        except ConnectError:
            return  # brokers may refuse to return their settings
        stamp = config.get("message.timestamp.type")
        if stamp is not None and stamp.value != "LogAppendTime":
            yield look(
                "pixel topic",
                f"message.timestamp.type is {stamp.value}",
                "set it to LogAppendTime: the brokers' clocks then reveal a collector's wrong clock",
            )

    # Redis

    def _redis(self, client: Client, took_ms: float) -> Iterator[Finding]:
        try:
            infos = server_infos(client)
        except RedisUnavailable:
            raise
        except ConnectError as error:
            yield look(
                "Redis",
                f"answers in {took_ms:.0f} ms; its memory and maxmemory-policy are not seen: {error}",
                "allow INFO, or look at both where the service shows them",
            )
            return
        version = infos[0].get("valkey_version") or infos[0].get("redis_version", "?")
        used = sum(int(info.get("used_memory", 0)) for info in infos)
        words = f"{version} answers in {took_ms:.0f} ms; {used / 2**20:,.0f} MiB used"
        if len(infos) > 1:
            words += f" by {len(infos)} primaries"
        bounded = [info for info in infos if int(info.get("maxmemory", 0))]
        policies = {str(info.get("maxmemory_policy", "")) for info in bounded} - {"noeviction"}
        full = [info for info in bounded if info["used_memory"] > (1 - LEAST_FREE) * info["maxmemory"]]
        if policies:
            yield wrong(
                "Redis",
                f"{words}; maxmemory-policy is {', '.join(sorted(policies))}",
                "set noeviction: an evicted row is a wrong number",
            )
        elif full:
            yield wrong("Redis", f"{words} of {full[0]['maxmemory'] / 2**20:,.0f}", "give it more memory")
        else:
            yield ok("Redis", words)

    def _clocks(self, client: Client) -> Iterator[Finding]:
        clock_ms, _ = server_clock(client, f"{self.settings.namespace}:meta", "rev")
        ahead_ms = clock_ms - self.now_ms()
        if abs(ahead_ms) > CLOCKS_MS:
            yield look(
                "clocks",
                f"Redis's differs from this machine's by {ahead_ms / 1000:,.1f} s",
                "set the one that is wrong",
            )
        else:
            yield ok("clocks", "Redis's and this machine's agree")

    # Disk

    def _disk(self) -> Iterator[Finding]:
        for part, path in (("saves", self.settings.recovery_dir), ("spool", self.settings.collect_spool)):
            if path is None:
                continue
            directory = Path(path)
            if not directory.exists():
                if part == "saves":
                    yield look(
                        "saves",
                        f"{directory} is not there yet",
                        "the first start makes it; is it the flow's volume?",
                    )
                continue
            usage = shutil.disk_usage(directory)
            share = usage.free / usage.total
            words = f"{directory}: {usage.free / 2**30:,.1f} GiB free ({share:.0%})"
            if not os.access(directory, os.W_OK):
                yield look(part, f"{directory}: this user may not write there", "run it as the flow's user")
            elif share < LEAST_FREE:
                yield wrong(part, words, "make room, or move it")
            else:
                yield ok(part, words)

    # The flow

    def _flow(self, client: Client) -> Iterator[Finding]:
        namespace, now_ms = self.settings.namespace, self.now_ms()
        (meta,) = read_rows(client, [f"{namespace}:meta"])
        if not meta:
            yield wrong(
                "flow", f"none has written to {namespace}", "start audiopixel run, with this namespace"
            )
            return
        age_ms = now_ms - _number(meta, "flushed_ms")
        if age_ms > FRESH_MS:
            yield wrong(
                "flow", f"has written nothing for {age_ms / 1000:,.0f} s", "start it, or look at its log"
            )
        else:
            version = shown(meta.get("flow_version", "?"), LINE)
            yield ok("flow", f"version {version} wrote {max(0, age_ms) / 1000:.1f} s ago")
        yield self._judged(meta, now_ms)
        yield from self._disagreements(meta)
        yield from self._lag(client)
        if silent := meta.get("silent"):
            yield look("feeds", f"silent: {_units(silent)}", "docs/runbook.md#audiopixelfeedsilent")

    def _rows(self, client: Client) -> Iterator[Finding]:
        """The finding on rows that the indexes name, and that are missing, without a version, or of another
        generation. A row that ends meanwhile leaves its index first, so a faulty row is looked up twice.
        """
        total, faulty = 0, list[str]()
        for scope in SCOPES:
            names = scan_index(client, f"{self.settings.namespace}:index:{scope}")
            total += len(names)
            if unsound := self._unsound(client, scope, names):
                listed = {*scan_index(client, f"{self.settings.namespace}:index:{scope}")}
                unsound = self._unsound(client, scope, [name for name in unsound if name in listed])
                faulty += [f"{scope} {shown(name, 60)}" for name in unsound]
        words = f"{total - len(faulty):,} of {total:,} that the indexes name are there with their version"
        if not faulty:
            yield ok("rows", words)
            return
        more = f" and {len(faulty) - MAX_NAMED:,} more" if len(faulty) > MAX_NAMED else ""
        yield wrong(
            "rows",
            f"{words}; not {', '.join(faulty[:MAX_NAMED])}{more}",
            "something deleted or changed them: the flow writes a row again when it next counts, and all "
            "rows after a restart",
        )

    def _unsound(self, client: Client, scope: str, names: Sequence[str]) -> list[str]:
        """The names whose row has no version of the generation of `meta`."""
        namespace = self.settings.namespace
        (meta,) = read_rows(client, [f"{namespace}:meta"], ["generation"])
        keys = [row_key(namespace, scope, name) for name in names]
        versions = read_fields(client, keys, ("generation", "fence", "rev"))
        return [
            name
            for name, version in zip(names, versions, strict=True)
            if not all(part is not None and part.isdecimal() for part in version)
            or version[0] != meta.get("generation")
        ]

    def _judged(self, meta: Mapping[str, str], now_ms: int) -> Finding:
        behind_s = (now_ms - _number(meta, "watermark_ms")) / 1000
        if meta.get("judged") != "1":
            reason = shown(meta.get("unjudged_reason", "?"), LINE)
            hold_words = (
                f" ({shown(meta['held_by'], LINE)}, {shown(meta.get('held_why', ''), LINE)})"
                if "held_by" in meta
                else ""
            )
            return wrong(
                "numbers",
                f"are not judged: {reason}{hold_words}",
                "docs/runbook.md#audiopixeldeliverynotjudged",
            )
        if (
            behind_s
            > MOST_LAG_S
            + self.settings.out_of_orderness.total_seconds()
            + self.settings.quiet.total_seconds()
        ):
            return look("numbers", f"are of {behind_s:,.0f} s ago", "the flow catches up, or no pixels come")
        return ok("numbers", f"are judged; the watermark is {max(0.0, behind_s):.0f} s back")

    def _disagreements(self, meta: Mapping[str, str]) -> Iterator[Finding]:
        """The settings of this process that differ from those of the flow in Redis."""
        flow_key, own = meta.get("listener_key"), self.settings.listener_key
        if flow_key and own is not None and fingerprint(own.get_secret_value().encode()) != flow_key:
            yield wrong(
                "settings",
                "AUDIOPIXEL_LISTENER_KEY is not the flow's key",
                "give this process the flow's key",
            )
        elif flow_key and own is None:
            yield look(
                "settings", "AUDIOPIXEL_LISTENER_KEY is not set here", "set it, so that it can be compared"
            )
        else:
            yield ok("settings", "the listeners' key is the flow's")
        own_ms = self.settings.allowed_lateness // timedelta(milliseconds=1)
        lateness_ms = _number(meta, "allowed_lateness_ms")
        if "allowed_lateness_ms" in meta and lateness_ms != own_ms:
            yield look(
                "settings",
                f"the flow allows a lateness of {lateness_ms / 1000:,.0f} s, not {own_ms / 1000:,.0f} s",
                "give all processes the same settings",
            )

    def _lag(self, client: Client) -> Iterator[Finding]:
        """The finding on messages that the published rows do not cover yet."""
        (row,) = read_rows(client, [f"{self.settings.namespace}:positions"])
        try:
            positions = msgspec.json.decode(row.get("positions", "{}"), type=dict[str, int])
        except UNREADABLE as error:
            raise StateError(f"{self.settings.namespace}:positions cannot be read: {error}") from None
        if not self._ends or not positions:
            return
        lag = {name: max(0, end - positions.get(name, 0)) for name, end in self._ends.items()}
        worst = max(lag, key=lag.__getitem__)
        words = f"{sum(lag.values()):,} messages are not in the numbers yet"
        words += f"; most in partition {worst}: {lag[worst]:,}" if lag[worst] else ""
        yield (
            ok("lag", words)
            if lag[worst] < 100_000
            else look("lag", words, "docs/runbook.md#audiopixelpipelinelagging")
        )

    # Collectors

    def _collectors(self, client: Client) -> Iterator[Finding]:
        namespace, now_ms = self.settings.namespace, self.now_ms()
        (listed,) = read_rows(client, [collectors_key(namespace)])
        if not listed:
            yield ok("collectors", "none has written figures within a day")
            return
        names = sorted(listed)[:1000]
        rows = read_rows(client, [row_key(namespace, "collector", name) for name in names])
        ready = 0
        for name, row in zip(names, rows, strict=True):
            part, away_ms = f"collector {shown(name, 40)}", now_ms - _number(listed, name)
            if not row or away_ms > AWAY_MS:
                yield look(
                    part,
                    f"has written nothing for {away_ms / 1000:,.0f} s",
                    "it has ended, or hangs; release ends one for good",
                )
            elif row.get("ready") != "1":
                yield wrong(part, "is not ready", "look at its log, its clock and its spool")
            elif (resting := _count(row, "resting")) != "0":
                yield look(
                    part,
                    f"{resting} pixels rest on its disk",
                    "it drains them; is Kafka slow?",
                )
            else:
                ready += 1
        if ready == len(names):  # each other collector has a finding of its own
            yield ok("collectors", f"{ready} of {len(listed)} are ready and have nothing on disk")

    def _sources(self, client: Client) -> Iterator[Finding]:
        namespace, now_ms = self.settings.namespace, self.now_ms()
        (listed,) = read_rows(client, [sources_key(namespace)])
        names = sorted(listed)[:1000]
        rows = read_rows(client, [row_key(namespace, "source", name) for name in names]) if names else []
        for name, row in zip(names, rows, strict=True):
            part, away_ms = f"source {shown(row.get('source', name), 40)}", now_ms - _number(listed, name)
            counts = ", ".join(
                f"{words} {_count(row, field)}"
                for field, words in (
                    *(("read", "read"), ("pixels", "pixels"), ("not_ours", "not ours")),
                    *(("rejected", "rejected"), ("behind", "behind")),
                )
            )
            if not row or away_ms > AWAY_MS:
                yield look(
                    part,
                    f"a process has written nothing for {away_ms / 1000:,.0f} s",
                    "it has ended, or hangs: start it again, or windows wait for it",
                )
            elif (waiting := _count(row, "waiting")) != "0":
                yield look(
                    part,
                    f"{counts}; {waiting} partitions wait for a schema",
                    "is the schema registry away?",
                )
            else:
                yield ok(part, counts)


def _number(row: Mapping[str, str], field: str) -> int:
    text = row.get(field, "")
    return int(text) if text.isdecimal() else 0


def _count(row: Mapping[str, str], field: str) -> str:
    """A count in words; `?` if it is absent or no number, which is not known, never 0."""
    text = row.get(field, "")
    return f"{int(text):,}" if text.isdecimal() else "?"


def _units(silent: str) -> str:
    try:
        units = msgspec.json.decode(silent, type=dict[str, Any])
    except UNREADABLE:
        return "?"
    names = [shown(name, 60) for name in list(units)[:5]]
    return ", ".join(names) + (f" and {len(units) - 5} more" if len(units) > 5 else "")
