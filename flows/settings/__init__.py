"""A frozen object of settings, its loading, its errors in our words.

Owns: nothing. Receives: the environment, a TOML file. Sends: `Settings`.
Remedies stay behind the door: they load Kafka's client.
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
