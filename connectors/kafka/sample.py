"""The latest messages of a topic, read once, without a group."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import partial
from typing import Final

from confluent_kafka import Consumer, KafkaError, TopicPartition

from connectors.kafka.client import AWAY, CHECKED, TIMEOUT_S, Cluster, Farewell
from connectors.kafka.group import Record, record_of

WAIT: Final = timedelta(seconds=10)
"""The time in which the whole sample must be there."""


def sample(
    brokers: str, topic: str, options: Mapping[str, str], most: int, wait: timedelta = WAIT
) -> Iterator[Record]:
    """The latest messages of each partition, `most` in all, each partition in its order. Commits nothing.

    Raises:
        ConnectError: an option is refused, no broker answers in 5 s, the topic is missing, or it may not be
            read.
    """
    cluster = Cluster(brokers, options)
    consumer = cluster.client(
        Consumer,
        CHECKED,
        {"group.id": "audiopixel-sample", "enable.auto.commit": False, "enable.partition.eof": True},
    )
    try:
        left = {}
        ids = cluster.partition_ids(consumer, topic)
        each = max(1, most // max(1, len(ids)))
        for partition in ids:
            at = TopicPartition(topic, partition)
            low, high = cluster.call(
                consumer, topic, partial(consumer.get_watermark_offsets, at, timeout=TIMEOUT_S)
            )
            if high > low:
                left[partition] = (max(low, high - each), high)
        consumer.assign([TopicPartition(topic, one, begin) for one, (begin, _) in left.items()])
        deadline_s, found = time.monotonic() + wait.total_seconds(), 0
        while left and found < most and time.monotonic() < deadline_s:
            for message in consumer.consume(min(1_000, most - found), 0.2):
                error, partition = message.error(), message.partition()
                if error is not None:
                    if error.code() == KafkaError._PARTITION_EOF:
                        left.pop(partition, None)
                    elif error.code() not in AWAY:
                        raise cluster.failed(topic, error.str())
                    continue
                found += 1
                yield record_of(message, True)
                if partition in left and (message.offset() or 0) >= left[partition][1] - 1:
                    left.pop(partition)
        if left and not found:  # the partition has messages, so their absence is no answer
            reason = cluster.faults.last or "no answer"
            raise cluster.failed(topic, f"no message came in {wait.total_seconds():g} s: {reason}", "away")
    finally:
        Farewell().close(consumer)
