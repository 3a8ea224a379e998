"""What readers are told of a decision on a conversion: by which rule, of which touches, for whom. No listener
is in it.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from flows.attribution import Decision
from flows.rows import exact

_encode = msgspec.json.Encoder().encode


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
    body = {
        "conversion": order or pixel.event_id,
        "order_id": order,
        "event_id": pixel.event_id,
        "type": pixel.type,
        "ts": conversion.ts_ms,
        "campaign_id": campaign,
        "value_micros": None if pixel.value_micros is None else exact(pixel.value_micros),
        "currency": pixel.currency,
        "rule": decision.rule,
        "eligible": decision.eligible,
        "capped": decision.capped,
        "credits": [
            {
                "placement_id": one.combo[0],
                "campaign_id": one.combo[1],
                "way": one.way,
                "millionths": one.millionths,
                "touched_at": None if one.age_ms is None else conversion.ts_ms - one.age_ms,
            }
            for one in decision.found
        ],
    }
    names = [pixel.event_id] if order is None else list(dict.fromkeys((order, pixel.event_id)))
    return Told(_encode(one).decode(), names, _encode(body))
