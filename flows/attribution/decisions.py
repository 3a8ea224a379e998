"""The published record of a decision on a conversion: its rule, touches and credits. The record names
no listener.
"""

from __future__ import annotations

import msgspec

from flows.model.decisions import Body, Decision, DecisionRecord, Share
from flows.model.fields import exact
from flows.model.plan import SERVER

_encode = msgspec.json.Encoder().encode


def decision_record(decision: Decision, methodology: str | None = None) -> DecisionRecord:
    """The published record of a decision, with the hash of its methodology."""
    conversion, pixel = decision.conversion, decision.conversion.pixel
    campaign, order = pixel.combo[1], pixel.order_id
    # JSON, since an id may contain any separator: the joined ids of two conversions could be equal.
    key: tuple[str | None, ...]
    if conversion.claimed_ms is not None:  # the decision on the claimed conversion stays unchanged
        key = campaign or "", None if order is None else pixel.type, order or pixel.event_id, SERVER
    elif order is None:
        key = campaign or "", pixel.event_id
    else:
        key = campaign or "", pixel.type, order
    claimed_value = decision.claimed_value
    ts_ms, value = conversion.ts_ms, pixel.value_micros
    body = Body(
        conversion=order or pixel.event_id,
        order_id=order,
        event_id=pixel.event_id,
        type=pixel.type,
        ts=ts_ms,
        campaign_id=campaign,
        value_micros=None if value is None else exact(value),
        currency=pixel.currency,
        rule=decision.rule,
        eligible=decision.eligible,
        capped=decision.capped,
        credits=[
            Share(
                one.combo[0],
                one.combo[1],
                one.way,
                one.millionths,
                None if one.age_ms is None else ts_ms - one.age_ms,
            )
            for one in decision.all_credits
        ],
        joined_by=decision.joined_by,
        noisy_household=decision.noisy,
        claimed=pixel.claimed,
        methodology=methodology,
        claimed_value_micros=None
        if claimed_value is None or claimed_value.micros is None
        else exact(claimed_value.micros),
        claimed_currency=None if claimed_value is None else claimed_value.currency,
    )
    names = [pixel.event_id] if order is None else list(dict.fromkeys((order, pixel.event_id)))
    return DecisionRecord(_encode(key), names, _encode(body))
