"""Dimensions of a pixel: placement, campaign, platform, station, podcast, program, creative."""

from __future__ import annotations

from typing import Final

Dimensions = tuple[str | None, str | None, str | None, str | None, str | None, str | None, str | None]
"""placement, campaign, platform, station, podcast, program, creative: where a pixel counts."""

SCOPES: Final = ("placement", "campaign", "platform", "station", "podcast", "program", "creative")
NAMES: Final = ("placement_id", "campaign_id", *SCOPES[2:6], "creative_id")
"""The fields of an event that name them."""


OTHER_NAME: Final = "other"
"""Scope of the rows in which the names beyond a scope's cap count; the name is that scope."""


FORGET_AT: Final = 100_000
"""The number of tuples of dimensions in memory from which on those without a play are dropped."""
