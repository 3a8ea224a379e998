"""Households: listeners of an ad at one address, and a browser at that address that converts without a
listener.

There are families, offices of 25 and a carrier's gateways with 60 listeners. No other call has the address,
so the outcome is certain: a family's conversion is credited to the ad, the conversion of any other household
to no placement. In some households the edge's key changes before the conversion.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from flows.simulate.scenario import Placement
from flows.simulate.truth import MINUTE_MS, PlayTruth, Truth

OFFICE, GATEWAY = 25, 60
MAX_FAMILY: Final = 4
_BETWEEN_MS: Final = 40
_BOUGHT_MS: Final = 45_000
_TRANSIT_MS: Final = 30


class HouseholdCall(NamedTuple):
    """A call of a household: its time of sending, its event time, its message and its truth."""

    sent_ms: int
    event_ms: int
    value: bytes
    truth: Truth


def members_of(dice: float) -> int:
    """The number of listeners of a household, for a random number in [0, 1). Most households are families."""
    if dice < 0.8:
        return 1 + int(dice / 0.8 * MAX_FAMILY)
    return OFFICE if dice < 0.9 else GATEWAY


def household(
    name: str, place: Placement, born: int, members: int, first: int, rekeyed: bool
) -> Iterator[HouseholdCall]:
    """The calls of a household, in order: every member listens to the placement's ad once, then a browser
    converts.

    Args:
        name: the unique id of the household.
        born: the first call, epoch ms.
        members: the number of listeners. In a family the last listener's app sends no listener id.
        first: the number of the first listener.
        rekeyed: whether the edge has another key when the browser converts.
    """
    labels = {key: value for key, value in place.labels.items() if key != "device_confirmed"}
    identity = {"household_id": name, "consent": True}
    beside = (("creative", labels["creative_id"]),)
    for member in range(members):
        at_ms = born + member * _BETWEEN_MS
        listener = None if members <= MAX_FAMILY and member == members - 1 else first + member
        event_id = f"{name}-{member}"
        event = {"event_id": event_id, "event": "impression", "ts": at_ms, **labels, **identity}
        event |= {"play_id": f"{name}-play-{member}", "basis": place.basis}
        event["received_at"] = at_ms + _TRANSIT_MS
        if listener is not None:
            event["listener_id"] = f"L{listener}"
        play = PlayTruth(place.id, listener, True, False, beside)
        truth = play.pixel("impression", event_id, None, at_ms, True, place.basis)
        yield HouseholdCall(
            at_ms + _TRANSIT_MS, at_ms, msgspec.json.encode(event), truth._replace(household=name)
        )
    if rekeyed:
        identity = {"household_id": f"{name}-anew", "consent": True, "previous": {"household_id": name}}
    at_ms = born + _BOUGHT_MS
    conversion = {
        "event_id": f"{name}-bought", "event": "conversion", "ts": at_ms, "received_at": at_ms + _TRANSIT_MS,
        **identity, "campaign_id": labels["campaign_id"],
        "conversion": {"type": "purchase", "order_id": f"{name}-order"},
    }  # fmt: skip
    credit = (place.id, beside, at_ms - at_ms % MINUTE_MS) if members <= MAX_FAMILY else None
    truth = Truth("accepted", second_total="conversions", household_credit=credit)
    yield HouseholdCall(at_ms + _TRANSIT_MS, at_ms, msgspec.json.encode(conversion), truth)
