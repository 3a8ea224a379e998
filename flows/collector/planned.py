"""The placements and campaigns of the plans, for a collector that makes rows for these alone.

The spool's directory holds the last book of plans. A collector begins with it, also while its plans cannot be
read. A collector that never had a book cannot decide on any call: it is unready, and answers 503.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import structlog

from connectors.durable import replace_file
from connectors.stream import ConnectError
from flows.errors import UNREADABLE

Pairs = Sequence[tuple[str, str | None]]
Read = Callable[[], Iterable[tuple[str, str | None]] | None]
EVERY_S: Final = 5.0
FIRST_S: Final = 5.0
"""The time, in s, for which a start waits for the plans."""


@dataclass
class Planned:
    """Answers whether a placement or campaign is in the plans.

    Args:
        read: returns the placements of the plans in force with their campaigns, or None if the plans have not
            changed. The call may take a while, and raise `ConnectError`.

    Attributes:
        has_read: whether there has been a book of plans, even an empty one.
    """

    read: Read
    placements: Mapping[str, str | None] = field(default_factory=dict)
    campaigns: frozenset[str] = field(default=frozenset())
    has_read: bool = False

    def __post_init__(self) -> None:
        self._log = structlog.get_logger("plans")
        self._stored_path: Path | None = None
        self._away = False
        self._looked = asyncio.Event()

    def __call__(self, placement: str | None, campaign: str | None) -> bool:
        """True if a placement is planned and the campaign, if given, is the plan's. A plan without a campaign
        accepts any planned campaign. Without a placement, True if the campaign is planned.
        """
        if not placement:
            return campaign in self.campaigns
        if placement not in self.placements or not campaign:
            return placement in self.placements
        plan_campaign = self.placements[placement]
        return campaign == plan_campaign if plan_campaign else campaign in self.campaigns

    async def begin(self, directory: Path) -> None:
        """Begin with the stored book of a directory, and wait a little for the present plans."""
        self._stored_path = directory / "plans"
        self._take_stored(self._stored_path)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._looked.wait(), FIRST_S)
        if not self.has_read:
            self._log.warning("no plans yet: unready, and 503 to each call that they would decide")

    def refresh(self) -> None:
        """Read the plans again, and store them. If they cannot be read, the last ones stay in force."""
        try:
            plans = self.read()
        except ConnectError as error:
            if not self._away:
                self._log.warning("plan not taken", problem=f"{error}; the plans read last stay in force")
            self._away = True
            return
        self._away = False
        if plans is None:
            return
        pairs = list(plans)
        self._take(pairs)
        if self._stored_path is not None:
            try:
                replace_file(self._stored_path, msgspec.json.encode(pairs))
            except OSError as error:
                self._log.warning("the plans cannot be stored for the next start", error=str(error))

    async def keep(self) -> None:
        """Follow the plans, until cancelled."""
        while True:
            await asyncio.get_running_loop().run_in_executor(None, self.refresh)
            self._looked.set()
            await asyncio.sleep(EVERY_S)

    def _take(self, pairs: Pairs) -> None:
        self.placements = dict(pairs)
        self.campaigns = frozenset(campaign for campaign in self.placements.values() if campaign)
        self.has_read = True

    def _take_stored(self, path: Path) -> None:
        if self.has_read:
            return
        try:
            self._take(msgspec.json.decode(path.read_bytes(), type=list[tuple[str, str | None]]))
        except FileNotFoundError:
            pass
        except (OSError, *UNREADABLE) as error:
            self._log.warning("the stored plans cannot be read", path=str(path), error=str(error))
