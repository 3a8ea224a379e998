"""Conversions among the pixels: by what each counts once, and what it carries beside its row."""

from __future__ import annotations

from flows.intake.identity import Identities
from flows.intake.schema import Event, decode_conversion, micros, utm_content
from flows.model.dimensions import Dimensions
from flows.model.events import present
from flows.model.pixel import ConversionPixel


def conversion_of(event: Event, combo: Dimensions, identities: Identities) -> tuple[int, ConversionPixel]:
    """The conversion of an event, and its key by order, or by event id where it names none.

    Raises:
        Invalid: see `flows.intake.schema.decode_conversion`.
    """
    conversion = decode_conversion(event)
    campaign, order = combo[1] or "", present(conversion.order_id)
    value, other = micros(conversion.value)
    found = ConversionPixel(
        combo,
        conversion.type,
        order,
        event.event_id,
        value,
        present(conversion.currency),
        utm_content(event.landing_url),
        other_value=other,
        claimed=conversion.claimed is True,
    )
    if order:
        return identities.of("order", campaign, conversion.type, order), found
    return identities.of("conversion", campaign, event.event_id), found
