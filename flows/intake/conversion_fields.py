"""Conversions in a batch: the key by which each counts once, and the fields outside its columns.

A claimed conversion is one that a public tag has sent. If only the server's conversions count, it has a
separate identity, and never takes the place of an order (`flows.attribution.claims`).
"""

from __future__ import annotations

from flows.intake.identity import Identities
from flows.intake.schema import Event, decode_conversion, decode_previous, micros, utm_content
from flows.model.dimensions import Dimensions
from flows.model.events import present
from flows.model.pixel import ConversionPixel
from flows.state.people import People


def conversion_of(
    event: Event, combo: Dimensions, identities: Identities, people: People | None, from_server: bool = False
) -> tuple[int, ConversionPixel]:
    """The conversion of an event, and its key: by order, or by event id without an order.

    Args:
        people: hashes of the pixel's listener and household by the edge's previous key; None without consent.
        from_server: whether only the server's conversions count for the campaign.

    Raises:
        Invalid: see `flows.intake.schema.decode_conversion` and `decode_previous`.
    """
    conversion, before = decode_conversion(event), decode_previous(event)
    campaign, order = combo[1] or "", present(conversion.order_id)
    value, other_value = micros(conversion.value)
    claimed = conversion.claimed is True
    apart = claimed and from_server
    pixel = ConversionPixel(
        combo,
        conversion.type,
        order,
        event.event_id,
        value,
        present(conversion.currency),
        utm_content(event.landing_url),
        other_value=other_value,
        claimed=claimed,
        before=_hashed(before, people),
        apart=apart,
    )
    kind = "claimed " if apart else ""
    if order:
        return identities.of(f"{kind}order", campaign, conversion.type, order), pixel
    return identities.of(f"{kind}conversion", campaign, event.event_id), pixel


def _hashed(before: tuple[str | None, str | None], people: People | None) -> tuple[int, int]:
    listener, household = before
    if people is None:
        return 0, 0
    return (
        0 if listener is None else people.listener(listener.encode()),
        0 if household is None else people.household(household.encode()),
    )
