"""The release of a collector that does not return, so that the flow stops waiting for it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from connectors.kafka_reports import Produced, ReportingProducer
from connectors.stream import ConnectError
from flows.collector.log import Log, mark_of, safe
from flows.settings import Settings, kafka_options

TIMEOUT: Final = timedelta(seconds=20)


async def release(settings: Settings, collector: str) -> int:
    """Write a bye for a collector into every partition. Returns the number of partitions.

    Raises:
        ConnectError: Kafka does not take it.
    """
    loop = asyncio.get_running_loop()
    log = Log(loop)
    producer = ReportingProducer(
        settings.kafka_brokers, settings.kafka_topic, kafka_options(settings), log.take_reports, TIMEOUT
    )
    log.producer = producer
    try:
        partitions = await loop.run_in_executor(None, producer.partitions)
        body = mark_of(collector, 0, bye=True)
        sending = log.send([Produced(body, None, partition) for partition in partitions])
        if not all(map(safe, await sending.within())):
            raise ConnectError(f"{settings.kafka_topic}: Kafka did not take the mark in every partition")
        return len(partitions)
    finally:
        producer.close()
