"""The placements and campaigns of the plans, for a collector that lets nobody else make a row."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

Read = Callable[[], Iterable[tuple[str, str | None]] | None]
EVERY_S: Final = 5.0


@dataclass
class Planned:
    """Knows who is planned.

    Args:
        read: the placements of the plans in force with their campaigns, if these are others than before,
            else None; it may take a while.
    """

    read: Read
    placements: Mapping[str, str | None] = field(default_factory=dict)
    campaigns: frozenset[str] = field(default=frozenset())

    def __call__(self, placement: str | None, campaign: str | None) -> bool:
        """True if a placement is planned, and a campaign beside it is its plan's, or any plan's where it has
        none; of a call that names no placement, if its campaign is planned.
        """
        if not placement:
            return campaign in self.campaigns
        if placement not in self.placements or not campaign:
            return placement in self.placements
        own = self.placements[placement]
        return campaign == own if own else campaign in self.campaigns

    def refresh(self) -> None:
        """Read the plans again."""
        if (found := self.read()) is None:
            return
        self.placements = dict(found)
        self.campaigns = frozenset(campaign for campaign in self.placements.values() if campaign)

    async def keep(self) -> None:
        """Follow the plans, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            await asyncio.get_running_loop().run_in_executor(None, self.refresh)
