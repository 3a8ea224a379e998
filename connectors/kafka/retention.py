"""The time for which a topic's settings keep a message."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from confluent_kafka.admin import AdminClient, ConfigResource

from connectors.kafka.client import ANSWER_S, TIMEOUT_S, Cluster


def retention(brokers: str, topic: str, options: Mapping[str, str]) -> timedelta | None:
    """The longest time for which a new message stays; None if messages stay for ever, or have no limit by
    time. A message is deleted with its segment, so the time for which a segment may be open is added.

    Raises:
        ConnectError: the brokers do not answer in 5 s, or not with the settings.
    """
    cluster = Cluster(brokers, options)
    client = cluster.client(AdminClient, {}, {})
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    answer = client.describe_configs([resource], request_timeout=TIMEOUT_S)[resource]
    config = {
        name: one.value for name, one in cluster.call(client, topic, lambda: answer.result(ANSWER_S)).items()
    }
    keeps, open_for = _whole(config.get("retention.ms")), _whole(config.get("segment.ms"))
    if "delete" not in (config.get("cleanup.policy") or "delete") or keeps is None or keeps < 0:
        return None
    return timedelta(milliseconds=keeps + max(0, open_for or 0))


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.lstrip("-").isdigit() else None
