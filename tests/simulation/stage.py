"""What the scenes of a history have in common."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Stage:
    """What scenes have in common: a clock, a log to write to, the settings that they ask for.

    Args:
        send: puts a pixel, whose fields that are None are left out, into a partition with its time.
        send_raw: puts a message there.
        now_ms: when that is, since the beginning of the history.
        names: the partitions.
    """

    source: random.Random
    send: Callable[[str, dict[str, Any], int], None]
    send_raw: Callable[[str, bytes], None]
    pass_ms: Callable[[int], int]
    names: Sequence[str]
    settings: dict[str, Any] = field(default_factory=dict)
    plans: list[tuple[int, bytes]] = field(default_factory=list)
    small: bool = False
    numbers: int = 0
    step_ms: int = 1

    @property
    def now_ms(self) -> int:
        return self.pass_ms(0)

    def partition(self, whose: str) -> str:
        """The partition of a play's or a listener's pixels."""
        return self.names[sum(whose.encode()) % len(self.names)]

    def pixel(self, event: str, *, to: str = "", **more: Any) -> dict[str, Any]:
        """Send one of this moment; returns it."""
        self.numbers += 1
        pixel = {
            "event": event,
            "placement_id": f"s{self.source.randrange(3)}",
            "campaign_id": f"c{self.source.randrange(2)}",
            "platform": self.source.choice(("web", "app")),
            "listener_id": f"m{self.source.randrange(6)}",
            "consent": True,
            "user_agent": "Spotify/8.9",
            **more,
        }
        whose = pixel.get("play_id") or pixel.get("listener_id") or ""
        self.send(to or self.partition(str(whose)), pixel, self.now_ms)
        return pixel

    def some(self, number: int, span_ms: int) -> range:
        """So many turns; over all of them about so much time passes, by `later`."""
        self.step_ms = max(1, span_ms // number)
        return range(number)

    def later(self) -> None:
        self.pass_ms(self.source.randint(1, 2 * self.step_ms))
