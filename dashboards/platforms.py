"""The table *Platforms*: the facts that each platform sends of its plays, a row each."""

from __future__ import annotations

from string import ascii_uppercase
from typing import Final

from grafana_foundation_sdk.models.dashboard import Panel

from dashboards import queries as q
from dashboards.panels import Column, Query, rows
from flows import metrics as m

_SHARES: Final = {
    "Start": m.PLATFORM["1d.start_share"],
    "25 %": m.PLATFORM["1d.first_quartile_share"],
    "50 %": m.PLATFORM["1d.midpoint_share"],
    "75 %": m.PLATFORM["1d.third_quartile_share"],
    "End": m.PLATFORM["1d.complete_share"],
    "Listener": m.PLATFORM["1d.listener_share"],
    "Play id": m.PLATFORM["1d.play_id_share"],
    "Consent": m.PLATFORM["flight.consent_coverage"],
    "Macro left": m.PLATFORM["unreplaced_share"],
}
"""Columns, by title."""


def _by_platform(definition: m.Definition) -> Query:
    return Query(f"max by (platform) ({q.select(definition)})")


def platforms() -> Panel:
    """A row a platform; the platform with the fewest starts comes first."""
    shares = [
        Column(title, f"Value #{ascii_uppercase[place]}", "percentunit", decimals=1)
        for place, title in enumerate(_SHARES)
    ]
    delay = Column("Median delay", f"Value #{ascii_uppercase[len(_SHARES)]}", "s")
    return rows(
        "Platforms",
        "Shares of today's plays that have a start, a quartile, the end and a listener; of starts those "
        "with a play id. Consent and the delay are of all pixels since the platform's first, macros of what "
        "collectors took since they started.",
        [*map(_by_platform, _SHARES.values()), _by_platform(m.PLATFORM["flight.delay_p50_seconds"])],
        [Column("Platform", "platform"), *shares, delay],
        join="platform",
        sort="Start",
    )
