"""The placements and campaigns of the plans, for a collector that lets nobody else make a row."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
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
    placements: frozenset[str] = frozenset()
    campaigns: frozenset[str] = field(default=frozenset())

    def __call__(self, placement: str | None, campaign: str | None) -> bool:
        """True if a placement is planned; of a call that names none, if its campaign is."""
        return placement in self.placements if placement else campaign in self.campaigns

    def refresh(self) -> None:
        """Read the plans again."""
        if (found := self.read()) is None:
            return
        pairs = list(found)
        self.placements = frozenset(placement for placement, _ in pairs)
        self.campaigns = frozenset(campaign for _, campaign in pairs if campaign)

    async def keep(self) -> None:
        """Follow the plans, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            await asyncio.get_running_loop().run_in_executor(None, self.refresh)
