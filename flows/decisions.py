"""What readers are told of a decision on a conversion: by which rule, of which touches, for whom. No listener
is in it.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from flows.attribution import Decision
from flows.rows import exact

_encode = msgspec.json.Encoder().encode


class Share(msgspec.Struct):
    """One touch of a decision; `touched_at` None: credited without one."""

    placement_id: str | None
    campaign_id: str | None
    way: str
    millionths: int
    touched_at: int | None


class Body(msgspec.Struct):
    """A decision's JSON."""

    conversion: str
    order_id: str | None
    event_id: str
    type: str
    ts: int
    campaign_id: str | None
    value_micros: int | str | None
    currency: str | None
    rule: str
    eligible: int
    capped: bool
    credits: list[Share]


class Told(NamedTuple):
    """A decision as it is given out.

    Attributes:
        key: JSON of what makes the conversion one: `[campaign, type, order]`, or `[campaign, event]`.
        names: the ids by which people ask for it: of its order, and of its event.
        body: JSON.
    """

    key: str
    names: list[str]
    body: bytes


def told(decision: Decision) -> Told:
    """A decision for readers."""
    conversion, pixel = decision.conversion, decision.conversion.pixel
    campaign, order = pixel.combo[1], pixel.order_id
    # JSON, since an id may hold any separator: joined, another's conversion could take this one's place.
    one = (campaign or "", pixel.event_id) if order is None else (campaign or "", pixel.type, order)
    ts_ms, value = conversion.ts_ms, pixel.value_micros
    body = Body(
        order or pixel.event_id,
        order,
        pixel.event_id,
        pixel.type,
        ts_ms,
        campaign,
        None if value is None else exact(value),
        pixel.currency,
        decision.rule,
        decision.eligible,
        decision.capped,
        [
            Share(combo[0], combo[1], way, millionths, None if age_ms is None else ts_ms - age_ms)
            for combo, millionths, way, age_ms in decision.found
        ],
    )
    names = [pixel.event_id] if order is None else list(dict.fromkeys((order, pixel.event_id)))
    return Told(_encode(one).decode(), names, _encode(body))
