"""The common parts of a history's scenes."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from simulation.delivery import PlanFile

PERHAPS: Final = "perhaps"
"""The placement of pixels that one allowed lateness finds late, and another does not; and the station that
one version of the plans lists, and another does not.
"""
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS


@dataclass
class Stage:
    """The common parts of scenes: a clock, a log to write to, the settings that they need.

    Args:
        send: puts a pixel, whose fields that are None are left out, into a partition with its time.
        send_raw: puts a message there.
        now_ms: when that is, since the beginning of the history.
        names: the partitions.
        begun: those that have had a pixel.
        long: scenes have all of their turns, else a half.
    """

    source: random.Random
    send: Callable[[str, dict[str, Any], int], None]
    send_raw: Callable[[str, bytes], None]
    pass_ms: Callable[[int], int]
    names: Sequence[str]
    begun: Container[str]
    long: bool
    settings: dict[str, Any] = field(default_factory=dict)
    plans: list[PlanFile] = field(default_factory=list)
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
        """Send one of this moment, or of `behind_ms` before it; returns it."""
        self.numbers += 1
        behind_ms = int(more.pop("behind_ms", 0))
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
        self.send(to or self.partition(str(whose)), pixel, self.now_ms - behind_ms)
        return pixel

    def some(self, number: int, span_ms: int) -> range:
        """The numbers of so many turns, or of half as many. All turns together take about `span_ms`, through
        `later`.
        """
        turns = number if self.long else (number + 1) // 2
        self.step_ms = max(1, span_ms // turns)
        return range(turns)

    def later(self) -> None:
        self.pass_ms(self.source.randint(1, 2 * self.step_ms))


def convert(stage: Stage, **more: Any) -> None:
    """Somebody buys something."""
    source, number = stage.source, stage.numbers
    bought: dict[str, Any] = {"type": source.choice(("purchase", "site_visit"))}
    if source.random() < 0.7:
        bought["order_id"] = f"s-{number}"
    if source.random() < 0.6:
        value = source.choice(
            (f"{number}.5", number, "1e2", "none", "[PRICE]", "0.0000001", "1e99999", "9" * 20)
        )
        bought |= {"value": value, "currency": source.choice(("GBP", "EUR"))}
        bought |= ({}, {"claimed": True}, {"claimed": False})[number % 3]
    url = source.choice(
        (
            None,
            None,
            "https://shop.example/?utm_content=promo&x=1",
            "https://shop.example/a?utm_content=%70romo#b",
        )
    )
    stage.pixel(
        "conversion",
        **{
            "placement_id": source.choice((None, None, None, "s0")),
            "campaign_id": source.choice((None, "c0", "c1", "c9")),
            "listener_id": source.choice((None, *(f"m{one}" for one in range(6)))),
            "landing_url": url,
            "conversion": bought,
            "play_id": None,
        }
        | more,
    )
