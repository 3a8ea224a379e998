"""The text of a collector's method gets into its topic, also where that is made while the collector runs."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from connectors.embedded import EmbeddedBroker
from connectors.kafka import whole
from connectors.kafka_reports import Durability, ReportingProducer
from flows.collector import serve
from flows.collector.method import Method
from flows.settings import load

LINE = b"0123456789abcdef", b"{}"


class Answering:
    """A producer whose broker answers; `asked` times for the partitions."""

    asked = 0

    def partitions(self) -> list[int]:
        self.asked += 1
        return [0]

    def durability(self) -> Durability:
        return Durability(3, 2, True)


def test_a_topic_created_later_gets_the_text_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve, "PARTITIONS_EVERY_S", 0.05)

    async def keeping(broker: EmbeddedBroker) -> None:
        collector = serve.Collector(load(kafka_brokers=broker.bootstrap))
        collector._method = Method(LINE[0].decode(), LINE)
        producer = Answering()
        task = asyncio.create_task(collector._keep_partitions(cast(ReportingProducer, producer)))

        async def asked(more: int) -> None:
            wanted = producer.asked + more
            async with asyncio.timeout(60):
                while producer.asked < wanted:
                    await asyncio.sleep(0.01)

        await asked(4)
        broker.create_topic("methodology", 1)
        await asked(4)
        task.cancel()

    with EmbeddedBroker() as broker:
        asyncio.run(keeping(broker))
        found = [(one.key, one.value) for one in whole(broker.bootstrap, "methodology", {})]
    assert found == [LINE]
    said = capsys.readouterr()
    assert (said.out + said.err).count("the methodology is not published") == 1
