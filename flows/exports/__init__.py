"""Exports to others: days for a warehouse, calls to other systems. Exports read published data and cost the
flow nothing.

Owns: its place in the topics, as a consumer group. Receives: minutes, decisions, alerts and pixels from
Kafka; `meta` from Redis. Sends: files and calls, at least once, each repeat with the same key; dead letters.
Must not import: a stage, the engine.
"""

from __future__ import annotations

from flows.exports.runners import RUNS, Exports

__all__ = ["RUNS", "Exports"]
