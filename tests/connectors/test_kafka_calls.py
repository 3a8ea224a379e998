"""Requests to brokers: what passes by itself is asked again, anything else is an error."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from connectors.kafka.client import Cluster, KafkaTrouble


class Waiting:
    """A client whose waits are counted."""

    def __init__(self) -> None:
        self.waits = 0

    def poll(self, _: float) -> None:
        self.waits += 1


def failing(code: int, times: int) -> Any:
    """A request that fails so many times, and then has a result."""
    left = iter([code] * times)

    def request() -> str:
        if (failed := next(left, None)) is not None:
            raise KafkaException(KafkaError(failed))
        return "answer"

    return request


@pytest.mark.parametrize("code", [KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE])
def test_a_partition_whose_leader_moves_is_asked_again(code: int) -> None:
    client: Any = Waiting()
    assert Cluster("localhost:1", {}).call(client, "pixels", failing(code, 2)) == "answer"
    assert client.waits == 2


def test_another_failure_is_an_error_at_once() -> None:
    client: Any = Waiting()
    with pytest.raises(KafkaTrouble, match="pixels"):
        Cluster("localhost:1", {}).call(client, "pixels", failing(KafkaError.TOPIC_AUTHORIZATION_FAILED, 1))
