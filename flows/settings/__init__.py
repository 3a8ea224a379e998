"""Settings: loads them into a frozen object, and words their errors.

Owns: nothing. Receives: the environment, a TOML file. Sends: `Settings`.
`remedies` is imported by its module, since it loads Kafka's client.
Must not import: a stage, the engine.
"""

from __future__ import annotations

from flows.settings.collect import CollectSettings
from flows.settings.exports import secret_bytes
from flows.settings.fields import (
    NO_AGENT,
    OUTPUT_TOPICS,
    PREFIX,
    UNWATCHED,
    Settings,
    Topic,
    kafka_options,
    ms,
)
from flows.settings.loading import load, source
from flows.settings.read import ReadRight, ReadToken
from flows.settings.wording import nearest

__all__ = [
    "NO_AGENT",
    "OUTPUT_TOPICS",
    "PREFIX",
    "UNWATCHED",
    "CollectSettings",
    "ReadRight",
    "ReadToken",
    "Settings",
    "Topic",
    "kafka_options",
    "load",
    "ms",
    "nearest",
    "secret_bytes",
    "source",
]
