"""Layouts of the hashes that the flow writes: field names, in order."""

from __future__ import annotations

from typing import Final

from connectors.redis import FencedHash
from flows.model.conversions import BY_LISTENER
from flows.model.fields import ADDITIVE, FIELDS, LABELS, OWN, REACH_UNIT, TIMES, WINDOWS, empty
from flows.publish import days, ledger

SCHEMA: Final = 1
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
    "methodology",
)


def _one_impression() -> list[int | str | None]:
    """The row of a placement with one consented impression, as most new rows are."""
    usual = dict(zip(FIELDS, empty(0), strict=True)) | dict.fromkeys((*TIMES, *LABELS), 0)
    usual |= {"flight.pixels": 1, "flight.consented": 1, "flight.consent_coverage": "1", "flight.since_ms": 0}
    usual[REACH_UNIT] = BY_LISTENER
    for window in WINDOWS:
        usual |= {f"{window}.{name}": 1 for name in ("impressions", "reach")}
        rates = {"frequency": "1", "completions_per_impression": "0", "conversion_rate": "0"}
        usual |= {f"{window}.{name}": rate for name, rate in rates.items()}
    return [usual[name] for name in FIELDS]


LAYOUTS: Final = {
    "row": FencedHash(FIELDS, _one_impression(), own=len(OWN)),
    "partition": FencedHash(ledger.FIELDS),
    "positions": FencedHash(("positions", "watermark_ms", "run")),
    "meta": FencedHash(META_FIELDS),
    "sketch": FencedHash(("registers",)),
    "days": FencedHash(days.FIELDS),
    "other": FencedHash((*ADDITIVE, "as_of_ms")),
}
