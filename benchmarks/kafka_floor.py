"""The floor below a flow from Kafka: consume every message of the topic and throw it away."""

from __future__ import annotations

from benchmarks.measure import Answers, Job, Meter, Result
from benchmarks.topic import TOPIC
from connectors.kafka.reader import KafkaInput

_BATCH = 20_000


def run(job: Job) -> Result:
    """Read all partitions in turn."""
    source = KafkaInput(job.brokers, [TOPIC])
    readers = [source.open(name, None) for name in source.partitions()]
    left = job.events
    with Meter() as meter:
        while left:
            for reader in readers:
                messages = reader.read(_BATCH)
                left -= len(messages.values) if messages is not None else 0
    for reader in readers:
        reader.close()
    return meter.result(job.events, Answers())
