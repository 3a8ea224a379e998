"""Reads media buys from the exporter's agent, for delivery reports, whose loop reads no topic (`NoTopic`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from connectors.kafka import Place, Places, Record
from connectors.stream import ConnectError
from flows.viewers.access import EVERYTHING
from flows.viewers.adcp import Agent
from flows.viewers.reader import STATE, Snapshot

JUDGED: Final = "delivery.judged"
FIELDS: Final = (STATE, JUDGED, "campaign_id")
SCOPES: Final = ("placement", "campaign")
_OVER: Final = ("complete", "ended_short", "ended_unknown")
_NOT_STARTED: Final = "not_started"


@dataclass
class MediaBuys:
    """The media buys of an agent whose reader reads `FIELDS` of `SCOPES`."""

    agent: Agent
    clock_s: Callable[[], float] = time.time

    def _snapshot(self) -> Snapshot:
        snapshot = self.agent.reader.refresh()
        if not snapshot.up:
            raise ConnectError(snapshot.error)
        return snapshot

    def names(self) -> Mapping[str, bool]:
        """The media buys that have begun, each with whether its flight is over by the present plans. Raises
        ConnectError.
        """
        self.agent.owners.refresh()
        states = {name: row.get(STATE) for name, row in self._snapshot().rows.get("campaign", {}).items()}
        return {
            name: state in _OVER
            for name, state in sorted(states.items())
            if state not in (None, _NOT_STARTED)
        }

    def judged(self, name: str) -> bool:
        """False while the delivery of a media buy cannot be judged."""
        snapshot = self._snapshot()
        row = snapshot.rows.get("campaign", {}).get(name, {})
        return snapshot.unjudged_at(self.clock_s()) is None and row.get(JUDGED) == "1"

    def delivery(self, name: str) -> Mapping[str, Any]:
        """The answer of `get_media_buy_delivery` for a media buy. Raises ConnectError."""
        return self.agent.call("get_media_buy_delivery", {"media_buy_ids": [name]}, EVERYTHING)


@dataclass
class NoTopic:
    """A reader without messages, whose `read` paces the loop."""

    places: Mapping[Place, int] = field(default_factory=dict)
    lag: Mapping[Place, int] = field(default_factory=dict)

    def read(self, most: int, wait: timedelta) -> Sequence[Record]:
        """Wait for `wait`, and return no message."""
        time.sleep(wait.total_seconds())
        return []

    def ends(self) -> Places:
        """An empty map."""
        return {}

    def passed(self, ends: Places) -> bool:
        """True, since there is nothing to read."""
        return True

    def commit(self, places: Places) -> None:
        """Commit nothing."""
