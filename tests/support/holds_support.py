"""Logs of several collectors; some of these lag, stop, or send a bye."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000
BOUND, QUIET, HOLD = 10 * SECOND, MINUTE, 2 * MINUTE
T0 = 1_764_000_000_000
KEY = b"0123456789abcdef"


@dataclass(frozen=True)
class Message:
    """An entry of a log: a pixel if it has a `ts`, else a mark if it has a collector, else junk.

    `now`: the clock of a mark's collector.
    """

    stamp: int
    ts: int | None = None
    collector: str | None = None
    low: int | None = None
    bye: bool = False
    now: int | None = None

    def raw(self, number: int, logged: bool = False) -> bytes:
        """The message; with `logged` as in a log on disk, where a mark has its own time."""
        told: dict[str, Any] = {}
        if self.ts is not None:
            told = {"event_id": f"e{number}", "event": "impression", "ts": self.ts, "placement_id": "p"}
        if self.collector is not None:
            told |= {"collector": self.collector, "low_ms": self.low}
            if self.ts is None and self.now is not None:
                told |= {"now_ms": self.now} | ({"logged_ms": self.stamp} if logged else {})
        return json.dumps(told | ({"bye": True} if self.bye else {})).encode()


MESSAGES = st.builds(
    lambda step, behind, collector, lag, kind, off: (step, behind, collector, lag, kind, off),
    st.sampled_from([0, 1, 5, 9, 10, 30, 200, -4, -150]),
    st.integers(-90, 200),
    st.sampled_from("abc"),
    st.sampled_from([0, 5, 60, 300, 3_600, -100]),
    st.sampled_from(["plain", "junk", "event", "event", "mark", "mark", "bye", "standing"]),
    st.sampled_from([None, None, 0, 60, -60, -61, 900, -7_200]),
)


def log_of(drawn: list[tuple[int, int, str, int, str, int | None]]) -> list[Message]:
    stamp, log = T0, []
    for step, behind, collector, lag, kind, off in drawn:
        stamp += step * SECOND
        low = T0 - MINUTE if kind == "standing" else stamp - lag * SECOND
        if kind == "plain":
            log.append(Message(stamp, stamp - behind * SECOND))
        elif kind == "junk":
            log.append(Message(stamp))
        elif kind == "event":
            log.append(Message(stamp, stamp - behind * SECOND, collector, low))
        else:
            now = None if off is None else stamp + off * SECOND
            log.append(Message(stamp, None, collector, low, kind == "bye", now))
    return log


LOGS = st.lists(MESSAGES, max_size=40).map(log_of)
