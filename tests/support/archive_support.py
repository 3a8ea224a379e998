"""Topics with everything in them, archives of them, and what is in their files."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from connectors.embedded import EmbeddedBroker
from connectors.kafka import KafkaWriter, ensure_topic
from connectors.objects import Directory, Objects
from flows.archive.checking import Checked, check
from flows.archive.manifest import part_paths, parts
from flows.archive.segments import opened
from flows.archive.writer import Writer
from flows.settings import Settings
from flows.state.arrays import U64

HOUR_MS = 3_600_000
CANARY = "canary-7d1f"


def pixel(n: int, **more: Any) -> bytes:
    """An impression of a listener of its own."""
    at = int(time.time() * 1000)
    event = {"event_id": f"e{n}", "event": "impression", "ts": at, "received_at": at, "placement_id": "p"}
    event |= {"play_id": f"play{n}", "listener_id": f"L{n}", "consent": True, **more}
    return json.dumps(event).encode()


def mixed(n: int) -> bytes:
    """Mostly pixels, one in seven something else."""
    odd = (b"", b"{", b"\xff\xfe", b"[1]", json.dumps({"collector": "c", "low_ms": n}).encode(), b'{"a":\n1}')
    return odd[n // 7 % len(odd)] if n % 7 == 6 else pixel(n)


def send(settings: Settings, values: Sequence[tuple[int, bytes, int]]) -> None:
    """Messages as (partition, value, timestamp in ms)."""
    writer = KafkaWriter(settings.kafka_brokers, settings.kafka_topic)
    for partition, value, ts in values:
        writer.send(partition, b"", value, ts)
    writer.close()


def topic_settings(broker: Any, make: Callable[..., Settings], partitions: int = 2, **more: Any) -> Settings:
    """Settings with a topic of their own."""
    topic = f"pixels-{uuid.uuid4().hex[:8]}"
    if isinstance(broker, EmbeddedBroker):
        broker.create_topic(topic, partitions)
        brokers = broker.bootstrap
    else:
        ensure_topic(brokers := broker.brokers, topic, partitions)
    known = {"kafka_brokers": brokers, "kafka_topic": topic, "listener_key": "a key of the archive"}
    return make(**known, archive_port=0, archive_forget_interval=0, **more)


def archived(settings: Settings, store: Objects | Path, denied: Callable[[], U64] | None = None) -> None:
    """Write what is in the topic now."""
    place = Directory(store) if isinstance(store, Path) else store
    nobody = np.zeros(0, np.uint64)
    with place.alone():
        Writer(settings, place, threading.Event(), once=True, denied=denied or (lambda: nobody)).run()


def messages_of(store: Objects) -> Iterator[tuple[int, int, int, bytes]]:
    """(partition, offset, timestamp, line) of all messages, in order."""
    for partition, paths in part_paths(store).items():
        for part in parts(store, paths):
            for segment in part.segments:
                content = opened(store.get(segment.path)[0], segment)
                for offset, stamp, line in zip(
                    content.offsets.tolist(), content.stamps_ms.tolist(), content.lines, strict=True
                ):
                    yield partition, offset, stamp, line


def whole(store: Objects) -> Checked:
    """The archive's check, which finds nothing wrong."""
    found = check(store)
    assert found.wrong == []
    return found


def texts(root: Path) -> dict[str, bytes]:
    """All files below a directory, unpacked."""
    found = {}
    for path in root.rglob("*"):
        if path.is_file():
            body = path.read_bytes()
            if body[:4] == b"\x28\xb5\x2f\xfd":
                body += zstandard.ZstdDecompressor().decompressobj().decompress(body)
            found[str(path.relative_to(root))] = body
    return found
