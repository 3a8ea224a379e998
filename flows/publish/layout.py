"""Layouts of the hashes that the flow writes: field names, in order."""

from __future__ import annotations

from typing import Final

from connectors.redis import FencedHash
from flows.model.fields import ADDITIVE, FIELDS, FREQUENT_FIELDS
from flows.publish import days, ledger

SCHEMA: Final = 1
CHAIN: Final = ("flush", "previous")
"""The fields of `meta` that its writer adds: the number of the message to subscribers; and as JSON the
generation, fence and number of the message before it, or null.
"""
META_FIELDS: Final = (
    "schema",
    "watermark_ms",
    "flushed_ms",
    "flow_version",
    "conversions_accepted",
    "conversions_attributed",
    "unattributed",
    "conversions_pending",
    "conversions_noisy_household",
    "rows_beyond_cap",
    "judged",
    "unjudged_since_ms",
    "unjudged_reason",
    "held_since_ms",
    "held_by",
    "held_why",
    "methodology",
    "allowed_lateness_ms",
    "rows_as_of_ms",
    "silent",
    "silent_more",
    "counted_since_ms",
    "listener_key",
    "forgotten_sum",
    *CHAIN,
)


LAYOUTS: Final = {
    "row": FencedHash(FIELDS, FREQUENT_FIELDS),
    "partition": FencedHash(ledger.FIELDS),
    "positions": FencedHash(("positions", "watermark_ms", "run")),
    "meta": FencedHash(META_FIELDS),
    "sketch": FencedHash(("registers",)),
    "days": FencedHash(days.FIELDS),
    "other": FencedHash((*ADDITIVE, "as_of_ms")),
}
