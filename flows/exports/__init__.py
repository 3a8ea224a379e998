"""Exports to others: days for a warehouse, calls to other systems. It reads what is published and costs the
flow nothing.

Owns: its place in the topics, as a consumer group. Receives: minutes, decisions, alerts and pixels from
Kafka; `meta` from Redis. Sends: files and calls, at least once, each repeat with the same key; dead letters.
Must not import: a stage, the engine.
"""

from __future__ import annotations

from flows.exports.run import (
    Exports,
    export_adcp,
    export_adobe,
    export_ga4,
    export_parquet,
    export_slack,
    export_webhook,
)

__all__ = [
    "Exports",
    "export_adcp",
    "export_adobe",
    "export_ga4",
    "export_parquet",
    "export_slack",
    "export_webhook",
]
