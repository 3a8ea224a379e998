"""Converts the raw messages of one source partition to packed, timed pixels by shard, and dead letters.

Owns: the partition's position, its watermark, the deny-list. Receives: `connectors.stream.Messages`.
Sends: `flows.model.messages.Output`.
Must not import: another stage, the engine.
"""

from __future__ import annotations

from flows.intake.agents import DEFAULT_AGENTS
from flows.intake.dead_letters import Rejection, is_malformed, late_letter
from flows.intake.decoder import Decoder
from flows.intake.erasure import (
    NOBODY,
    DenyList,
    deny,
    keys_of,
    nobody,
    put_on_the_list,
    refuse_less,
    without,
)
from flows.intake.newlines import line_ends
from flows.intake.partition import Intake, log_of, position_of
from flows.intake.watermark import PartitionClock

__all__ = [
    "DEFAULT_AGENTS",
    "NOBODY",
    "Decoder",
    "DenyList",
    "Intake",
    "PartitionClock",
    "Rejection",
    "deny",
    "is_malformed",
    "keys_of",
    "late_letter",
    "line_ends",
    "log_of",
    "nobody",
    "position_of",
    "put_on_the_list",
    "refuse_less",
    "without",
]
