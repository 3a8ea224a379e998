"""The brokers' id of a topic. A topic that was deleted and created again has another id, and the old offsets
do not apply to it.
"""

from __future__ import annotations

import time
from concurrent.futures import Future
from threading import Lock
from typing import Final

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, TopicDescription

from connectors.kafka.client import ANSWER_S, TIMEOUT_S, Cluster

ASK_EVERY_S: Final = 5.0
"""Seconds between two requests for the id of a topic that is being read."""
CREATED_AGAIN: Final = "the topic was deleted and created again, so its offsets began again"
_NONE: Final = "A" * 22
"""The id from brokers without ids, as before Kafka 2.8."""


class TopicId:
    """A topic's id, for all readers of one client; `text` is empty if the brokers have none.

    Args:
        client: used by this process alone, and open as long as this object is used.

    Raises:
        ConnectError: the brokers do not answer, or the topic is missing.
    """

    def __init__(self, cluster: Cluster, client: AdminClient, topic: str) -> None:
        self._cluster, self._client, self._topic = cluster, client, topic
        self._lock = Lock()
        self._id_request: Future[TopicDescription] | None = None
        self._requested_s = time.monotonic()
        self.text = self._now()

    def changed(self) -> bool:
        """True if the topic has been created again.

        Raises:
            ConnectError: the brokers do not answer, or the topic is missing.
        """
        return self._differs(self._now())

    def seen_to_change(self) -> bool:
        """`changed` by an answer that is at most some seconds old, without waiting; False without an
        answer.
        """
        if self._id_request is None and time.monotonic() - self._requested_s < ASK_EVERY_S:
            return False
        with self._lock:
            if self._id_request is None:
                self._id_request, self._requested_s = self._ask(), time.monotonic()
            if not self._id_request.done():
                return False
            answer, self._id_request = self._id_request, None
        try:
            return self._differs(_text(answer.result()))
        except KafkaException:  # the readers report missing brokers and topics
            return False

    def _differs(self, text: str) -> bool:
        # During a rolling upgrade only some brokers return an id.
        return bool(text and self.text) and text != self.text

    def _now(self) -> str:
        return _text(self._cluster.call(self._client, self._topic, lambda: self._ask().result(ANSWER_S)))

    def _ask(self) -> Future[TopicDescription]:
        topics = TopicCollection([self._topic])
        answer: Future[TopicDescription]
        (answer,) = self._client.describe_topics(topics, request_timeout=TIMEOUT_S).values()
        return answer


def _text(description: TopicDescription) -> str:
    text = str(description.topic_id)
    return "" if text == _NONE else text
