"""The record of a decision on a conversion, for readers: its rule, its touches, its credits. The record names
no listener.
"""

from __future__ import annotations

import msgspec

from flows.model.fields import exact
from flows.model.messages import Body, Decision, DecisionRecord, Share

_encode = msgspec.json.Encoder().encode


def decision_record(decision: Decision) -> DecisionRecord:
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
        decision.joined_by,
        decision.noisy,
    )
    names = [pixel.event_id] if order is None else list(dict.fromkeys((order, pixel.event_id)))
    return DecisionRecord(_encode(one).decode(), names, _encode(body))
