"""Messages that a broker's disk, or the way from there, has changed: they are never counted as they came."""

from __future__ import annotations

import struct
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka import Producer
from kafka_server import ApacheKafka

from connectors.kafka import GroupReader, KafkaInput, KafkaTable, KafkaTrouble
from connectors.kafka.writer import ensure_topic

pytestmark = pytest.mark.apache
HEAD, BATCH = 61, 50
"""Bytes of a batch before its records, and records in a batch."""


class Damaged(NamedTuple):
    """A topic of three batches or more, of which the second, at offset `at`, was changed on the disk."""

    topic: str
    at: int


@pytest.fixture(params=["none", "lz4", "zstd"])
def damaged(apache: ApacheKafka, request: pytest.FixtureRequest) -> Damaged:
    topic = f"damaged-{uuid.uuid4().hex[:8]}"
    ensure_topic(apache.brokers, topic, 1)
    # A flush ends a batch. A pause and the first metadata of the topic may end one too.
    settings = {"compression.type": request.param, "linger.ms": 20_000}
    producer = Producer({"bootstrap.servers": apache.brokers, **settings})
    for _ in range(3):
        for n in range(BATCH):
            producer.produce(topic, b'{"event_id":"%d"}' % n, b"key")
        assert producer.flush(20) == 0
    return Damaged(topic, change(apache.data / f"{topic}-0" / f"{0:020}.log"))


def length(data: bytearray, at: int) -> int:
    return 12 + int(struct.unpack_from(">i", data, at + 8)[0])


def change(log: Path) -> int:
    """Change the second batch; returns its offset."""
    data = bytearray(log.read_bytes())
    begin = length(data, 0)
    middle = begin + HEAD + (length(data, begin) - HEAD) // 2
    for at in range(middle, middle + 4):
        data[at] ^= 0x5A
    with log.open("r+b") as file:
        file.write(data)
    return int(struct.unpack_from(">q", data, begin)[0])


def wait_for_error(at: int, read: Callable[[], object]) -> None:
    def often() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            read()

    with pytest.raises(KafkaTrouble, match=rf"/0: the message at offset {at} cannot be read \(") as raised:
        often()
    assert raised.value.kind == "damaged"


@pytest.mark.parametrize("on_lost", ["stop", "earliest"])
def test_a_reader_yields_messages_before_the_damage_and_then_raises(
    apache: ApacheKafka, damaged: Damaged, on_lost: str
) -> None:
    reader = KafkaInput(apache.brokers, [damaged.topic], on_lost=on_lost).open(f"{damaged.topic}/0", None)  # type: ignore[arg-type]
    found: list[int] = []

    def read() -> None:
        if (messages := reader.read(1_000)) is not None:
            found.extend(messages.positions)
        time.sleep(0.01)

    wait_for_error(damaged.at, read)
    reader.close()
    assert found == list(range(damaged.at))
    assert reader.skipped == 0


def test_a_table_and_a_group_say_so(apache: ApacheKafka, damaged: Damaged) -> None:
    table = KafkaTable(apache.brokers, damaged.topic)
    wait_for_error(damaged.at, lambda: table.read(timedelta(seconds=0.1)))
    table.close()
    group = GroupReader(apache.brokers, [damaged.topic], group=damaged.topic)
    wait_for_error(damaged.at, lambda: group.read(100, timedelta(seconds=0.1)))
    group.close()
