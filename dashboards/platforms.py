"""The table *Platforms*: what each platform tells of its plays, beside the others."""

from __future__ import annotations

from string import ascii_uppercase
from typing import Final

from grafana_foundation_sdk.models.dashboard import Panel

from dashboards import queries as q
from dashboards.panels import Column, Query, rows
from flows import metrics as m

_TITLES: Final = ("Start", "25 %", "50 %", "75 %", "End", "Listener", "Play id", "Consent", "Macro left")
_SHARES: Final = tuple(zip(_TITLES, (one for one in m.PLATFORM if one is not m.PLATFORM_DELAY), strict=True))


def _of(definition: m.Definition) -> Query:
    return Query(f"max by (platform) ({q.select(definition)})")


def platforms() -> Panel:
    """One row a platform, that with the fewest starts first."""
    shares = [
        Column(title, f"Value #{ascii_uppercase[at]}", "percentunit", decimals=1)
        for at, (title, _) in enumerate(_SHARES)
    ]
    delay = Column("Median delay", f"Value #{ascii_uppercase[len(_SHARES)]}", "s")
    return rows(
        "Platforms",
        "Shares of today's plays that tell of a start, a quartile, the end and a listener; of starts those "
        "with a play id. Consent and the delay are of all pixels since the platform's first, macros of what "
        "collectors took since they started.",
        [*(_of(definition) for _, definition in _SHARES), _of(m.PLATFORM_DELAY)],
        [Column("Platform", "platform"), *shares, delay],
        join="platform",
        sort="Start",
    )
