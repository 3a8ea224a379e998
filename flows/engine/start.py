"""From settings to connections: the Kafka input and topics, files, and a worker's /metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn, cast

import structlog

from connectors.kafka import KafkaInput, KafkaTable, KafkaWriter
from connectors.ports import url_of
from connectors.redis import connect, put_fields, read_rows
from connectors.stream import ConnectError
from flows.archive import ADDRESS, HistoryInput, store_of
from flows.engine.foundation import fresh, lay_foundation
from flows.errors import StateError
from flows.instruments import instruments
from flows.intake import refuse_less
from flows.methodology import methodology
from flows.model.redis_keys import methodology_key, topics_key
from flows.model.ticks import Methods
from flows.publish import (
    STOP_TIMEOUT,
    FileLines,
    LineWriter,
    latest_fence_record,
    number_of,
    positions_key,
    positions_of,
    seated,
)
from flows.settings import PREFIX, Settings, Topic, kafka_options


def kafka_input(settings: Settings, begun: Mapping[str, int] | None = None) -> KafkaInput | HistoryInput:
    """The topic of the pixels, after an archive if the settings name one; `begun` as for `KafkaInput`.

    Raises:
        StateError, ConnectError: the archive is not there, or is of another topic.
    """
    start = settings.kafka_start
    if start.startswith(ADDRESS):
        topic = _topic_input(settings, "earliest", begun)
        strict = _topic_input(settings.model_copy(update={"kafka_on_lost": "stop"}), "earliest", begun)
        return HistoryInput(store_of(start), topic, strict, settings.kafka_topic, begun)
    return _topic_input(
        settings, int(start) if start.isdigit() else cast(Literal["earliest", "latest"], start), begun
    )


def _topic_input(
    settings: Settings, start: Literal["earliest", "latest"] | int, begun: Mapping[str, int] | None
) -> KafkaInput:
    return KafkaInput(
        settings.kafka_brokers,
        [settings.kafka_topic],
        start=start,
        begun=begun,
        options=kafka_options(settings),
        on_lost=settings.kafka_on_lost,
        group=settings.kafka_group,
    )


@dataclass
class FileOutput:
    """A file that an execution writes, without any line of another execution.

    The engine opens an output when its first message is due. A file without a message would otherwise keep
    its old lines.
    """

    path: Path
    opened: bool = False

    def __call__(self, position: int | None) -> LineWriter:
        """Open the file at a saved position; None truncates it."""
        self.opened = True
        return FileLines(self.path, position)

    def begin(self) -> None:
        """Empty the file, unless it was opened.

        Raises:
            ConnectError: it cannot be written.
        """
        if not self.opened:
            FileLines(self.path, None).close()


def serve_metrics(settings: Settings, process: int = 0) -> str | None:
    """Serve this process's /metrics at the port of the settings plus its number. No other port is tried,
    since no scraper would know it. Returns the address, or None for port 0.

    Raises:
        SettingsError: the port is taken, or the host is not this machine's.
    """
    if settings.metrics_port == 0:
        return None
    port, host = settings.metrics_port + process, settings.metrics_host
    instruments().registry.serve(host, port, f"{PREFIX}METRICS_PORT")
    return f"{url_of(host, port)}/metrics"


def store_methodology(settings: Settings, several: Sequence[Methods] = ((),)) -> None:
    """Put the description of methodology into Redis, by its hash, where readers of the rows find it. If Redis
    fails now, readers have rows without the description.

    Args:
        several: the sets of collectors' methods; each gets a description.
    """
    lines = [methodology(settings, methods).line() for methods in several]
    texts = {
        methodology_key(settings.namespace, found.decode()): {"text": text.decode()} for found, text in lines
    }
    try:
        client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
        put_fields(client, texts)
        client.close()
    except ConnectError as error:
        structlog.get_logger("flow").warning("Redis was not told of the methodology", error=str(error))


def publish_methodology(settings: Settings, several: Sequence[Methods] = ((),)) -> None:
    """Write the description of methodology to its topic and to Redis, by its hash, for later readers of final
    minutes. Without the topic the flow runs, and its log names the missing topic.

    Args:
        several: as for `store_methodology`.
    """
    store_methodology(settings, several)
    try:
        writer = KafkaWriter(
            settings.kafka_brokers, settings.kafka_methodology_topic, kafka_options(settings)
        )
        writer.write([methodology(settings, methods).line() for methods in several])
        writer.close(STOP_TIMEOUT)
    except ConnectError as error:
        structlog.get_logger("flow").warning(
            "the methodology is not published: make its topic", error=str(error)
        )


def preflight(settings: Settings, recompute: bool = False) -> None:
    """Check Kafka, its topics and Redis before the start; one line names a missing part.

    Raises:
        ConnectError, SettingsError, StateError: a part is missing; the error has the remedy.
    """
    secret = settings.secret_listener_key()
    source = kafka_input(settings)
    partitions, ids = source.partitions(), source.topic_ids()
    topics = [*settings.output_topics]
    if settings.plans is not None:
        topics.append(settings.kafka_alerts_topic)
    if isinstance(settings.plans, Topic):
        KafkaTable(settings.kafka_brokers, settings.plans.name, kafka_options(settings)).close()
    for topic in topics:
        KafkaWriter(settings.kafka_brokers, topic, kafka_options(settings)).close()
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    settings = seated(settings)
    (position_fields,) = read_rows(client, [positions_key(settings.rows_at)])
    covered: dict[str, int] = {}
    begin_anew = fresh(settings.recovery_dir)
    (known_ids,) = read_rows(client, [topics_key(settings.namespace)])
    if "positions" in position_fields and not recompute and begin_anew:
        refuse_less(client, settings.namespace)
        for topic in ids:
            if known_ids.get(topic, ids[topic]) != ids[topic]:
                _refuse_another_topic(topic, settings)
        # The numbers that an execution on this directory has published were counted from the same beginning.
        if number_of(position_fields, "fence") != latest_fence_record(settings.recovery_dir).fence:
            covered = positions_of(position_fields)

    def begins(known_begins: Mapping[str, int] | None) -> dict[str, int]:
        source = kafka_input(settings, known_begins)
        new_begins = {
            one: _begin(source, one) for one in partitions if known_begins is None or one not in known_begins
        }
        for partition, begin in {**(known_begins or {}), **new_begins}.items():
            if covered.get(partition) and begin > 0:
                _refuse_to_begin_later(partition, begin, settings)
        return new_begins

    if settings.recovery_dir is None:
        begins(None)
    lay_foundation(settings, secret, begins)
    # a flow that continues in another topic is refused later
    if not begin_anew and settings.kafka_on_lost == "stop":
        ids = {topic: of for topic, of in ids.items() if topic not in known_ids}
    put_fields(client, {topics_key(settings.namespace): ids})
    client.close()


def _begin(source: KafkaInput | HistoryInput, partition: str) -> int:
    reader = source.open(partition, None)
    position = reader.position
    reader.close()
    return position


def _refuse_another_topic(topic: str, settings: Settings) -> NoReturn:
    raise StateError(
        f"the recovery directory {settings.recovery_dir} holds nothing, and Redis ({settings.rows_at}) "
        f"holds numbers of the topic {topic} as it was before it was deleted and created again: restore the "
        "directory, or say --recompute to begin a new generation with what is there now"
    )


def _refuse_to_begin_later(partition: str, begin: int, settings: Settings) -> NoReturn:
    """Refuse to begin after the log's beginning. Without saved state, only the whole log yields the numbers
    in Redis; with a part of it, counts would fall.
    """
    raise StateError(
        f"the recovery directory {settings.recovery_dir} holds nothing, but Redis ({settings.rows_at}) "
        f"holds numbers of a log whose beginning would not be read ({partition} begins at {begin}): "
        "restore the directory, or say --recompute to begin a new generation with what is left"
    )
