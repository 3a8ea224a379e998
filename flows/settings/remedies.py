"""Adds remedies to errors of connections. Remedies name our settings, which connectors do not know."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from connectors.kafka import KafkaTrouble
from connectors.redis import RedisUnavailable, RedisUnreachable
from flows.errors import SettingsError
from flows.settings.fields import OUTPUT_TOPICS, PREFIX, Settings, Topic
from flows.settings.loading import load
from flows.shown import LINE, shown

_TOPICS: Final = (
    *("kafka_topic", *OUTPUT_TOPICS, "kafka_alerts_topic", "kafka_exports_rejected_topic"),
    *("kafka_methodology_topic", "plans"),
)


def with_remedy(error: Exception) -> str:
    """The error in one line, with a remedy if there is one."""
    message = shown(" ".join(str(error).split()), LINE)
    return "; ".join(filter(None, (message, _remedy(error))))


def exit_code(error: Exception) -> int:
    """The exit code of a process that ends with `error`."""
    if isinstance(error, KafkaTrouble) and error.kind == "options":
        return SettingsError.exit_code
    return getattr(error, "exit_code", 1)


def _remedy(error: Exception) -> str:
    if isinstance(error, RedisUnavailable):
        return f"check Redis, or set {PREFIX}REDIS_URL"
    if isinstance(error, RedisUnreachable):
        return f"or set {PREFIX}REDIS_URL to its address"
    if not isinstance(error, KafkaTrouble):
        return ""
    match error.kind:
        case "away":
            return (
                f"start it, or set {PREFIX}KAFKA_BROKERS to its host:port, and {PREFIX}KAFKA_OPTIONS to the "
                "options that it needs (SASL, TLS)"
            )
        case "lost":
            return (
                f"to go on without the missing messages, set {PREFIX}KAFKA_ON_LOST to earliest or latest: "
                "skipped messages are counted"
            )
        case "damaged":
            return (
                "let a replica lead the partition whose log is whole; or have the brokers delete the "
                f"messages before the first readable one, and set {PREFIX}KAFKA_ON_LOST to earliest: skipped "
                "messages are counted"
            )
        case "missing":
            name = error.topic.partition("/")[0]
            return f"create the topic{_named_by(name)}"
        case "options":
            return f"correct {PREFIX}KAFKA_OPTIONS"
    return ""


def _named_by(topic: str) -> str:
    with suppress(SettingsError):
        settings = load()
        for name in _TOPICS:
            if topic == _topic(settings, name):
                return f" {topic}, or set {PREFIX}{name.upper()} to another"
    return f" {topic} first"


def _topic(settings: Settings, name: str) -> str | None:
    value = getattr(settings, name)
    return value.name if isinstance(value, Topic) else value if isinstance(value, str) else None
