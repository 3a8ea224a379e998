"""The latest messages of a topic, read once, without a consumer group."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Final

from connectors.kafka.client import Cluster, KafkaTrouble
from connectors.kafka.log import PartitionLog, Record

_NO_END: Final = 1 << 62
WAIT: Final = timedelta(seconds=10)
"""The time in which the whole sample must have been read."""


def sample(
    brokers: str, topic: str, options: Mapping[str, str], most: int, wait: timedelta = WAIT
) -> Iterator[Record]:
    """The latest messages of each partition, `most` in all, each partition in its order. Commits nothing.

    Raises:
        ConnectError: an option is refused, no broker answers in 5 s, or the topic is missing or forbidden.
    """
    log, count = PartitionLog(Cluster(brokers, options), "audiopixel-sample"), 0
    try:
        ids = log.partitions(topic)
        most_each, spans = max(1, most // max(1, len(ids))), {}
        for partition in ids:
            low, high = log.bounds(topic, partition)
            if high > low:  # up to the end that a fetch finds: a broker may state an earlier end
                spans[partition] = max(low, high - most_each), _NO_END
        looks, deadline_s = int(wait / timedelta(seconds=0.2)), time.monotonic() + wait.total_seconds()
        for record in log.records(topic, spans, headers=True, lost_ends=True, quiet_looks=looks):
            yield record
            count += 1
            if count == most or time.monotonic() > deadline_s:
                return
    except KafkaTrouble as error:
        if not count or error.kind != "away":  # a partition without answers may have messages
            raise
    finally:
        log.close()
