"""User agents: the reasons why some are invalid traffic."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from flows.model.events import MAX_AGENT_BYTES, absent, cut_bytes
from flows.model.pixel import KNOWN_REASONS, OTHER_REASON, traffic_reasons

_MAX_REASONS: Final = 2_000
"""The greatest number of full user agents, of 1 KiB each, that the slow path caches."""

_BOT = re.compile(r"bot\b|bot/|crawler|spider", re.IGNORECASE)
_PODCAST_APP = re.compile(
    r"AntennaPod|AppleCoreMedia|Podcasts?/|Pocket ?Casts|Overcast|Castro|Castbox|Podimo|Podbean|Podkicker"
    r"|Podcast ?Addict|Spotify/|Stitcher|Deezer|TuneIn|iHeartRadio|Audible|Downcast|Player ?FM|RadioPublic"
    r"|BBC ?Sounds|GlobalPlayer",
    re.IGNORECASE,
)

DEFAULT_AGENTS: Final = (_BOT.pattern, _PODCAST_APP.pattern)
"""The default rule: user agents that match the first expression and not the second are declared bots."""


class Verdicts:
    """Judges user agents, and caches some verdicts.

    Args:
        own: by reason, regular expressions of further user agents that are invalid traffic. The first reason
            whose expression matches counts.
    """

    def __init__(self, own: Mapping[str, re.Pattern[str]]) -> None:
        self._own = tuple(enumerate(own.values(), len(KNOWN_REASONS) + 1))
        self._names = traffic_reasons(own)
        self._numbers = {name: number for number, name in enumerate(self._names, 1)}
        self._reasons: dict[str, int] = {}

    def number_of(self, reason: str) -> int:
        """The number of a reason in a pixel; for an unknown reason the number of `other`."""
        return self._numbers.get(reason, self._numbers[OTHER_REASON])

    def named(self, event: Mapping[str, Any]) -> str:
        """The reason why a decoded message is invalid traffic; empty if it is valid. The message need not be
        a pixel.
        """
        own_reason, agent = event.get("invalid_traffic"), event.get("user_agent")
        number = 0
        if isinstance(own_reason, str) and not absent(own_reason):
            number = self.number_of(own_reason)
        elif isinstance(agent, str):
            number = self.reason(cut_bytes(agent, MAX_AGENT_BYTES))
        return self._names[number - 1] if number else ""

    def reason(self, agent: str) -> int:
        """The reason why a user agent is invalid traffic, counted from 1 in
        `flows.model.pixel.traffic_reasons`; 0 if it is valid.
        """
        reason = self._reasons.get(agent)
        if reason is None:
            if len(self._reasons) >= _MAX_REASONS:
                self._reasons.clear()
            if absent(agent):
                reason = 0
            elif _is_bot(agent) and _PODCAST_APP.search(agent) is None:
                reason = 1
            else:
                reason = next((number for number, own in self._own if own.search(agent)), 0)
            self._reasons[agent] = reason
        return reason


def _is_bot(agent: str) -> bool:
    """True if a user agent declares itself a bot. Single words are searched first, since the expression takes
    ten times as long.
    """
    if agent.isascii():
        small = agent.lower()
        if "bot" not in small and "crawler" not in small and "spider" not in small:
            return False
    return _BOT.search(agent) is not None
