"""Dead letters of a door and of the flow, and the pixels that are made of them."""

from __future__ import annotations

import json
from typing import Any

from collector_support import NOW_MS, call, understanding, usual

from flows.collector.call import Outcome
from flows.collector.letters import letter
from flows.intake.dead_letters import explain
from flows.intake.dead_letters import letter as flow_letter
from flows.rejected import Letter, letter_of
from flows.resend import Resender, ResendResult
from flows.settings import load

KEY = "a key of a test, 16 bytes or more"
PIXEL = {
    "event_id": "e1",
    "event": "start",
    "placement_id": "breakfast-uk",
    "play_id": "play-1",
    "ts": NOW_MS,
}


def of_the_door(placements: str = "signed", **parameters: Any) -> Letter:
    """The letter of a call that the door rejected."""
    found = understanding(placements=placements).pixel(call(usual(**parameters)))
    assert found.outcome is Outcome.REJECTED
    made = letter_of(letter("c1", found).value)
    assert made is not None
    return made


def of_the_flow(**changes: Any) -> Letter:
    raw = json.dumps(PIXEL | changes).encode()
    ((position, rejection),) = ((7, explain(raw)),)
    made = letter_of(flow_letter("audio-pixels/0", position, rejection)[1])
    assert made is not None
    return made


class Again:
    """Sends letters again, and has the pixels of all."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def __call__(
        self, letters: list[Letter], watermark_ms: int = NOW_MS, unsigned: bool = True, **changes: str
    ) -> ResendResult:
        """Send letters again, at NOW_MS."""
        sender = Resender(load(collect_key=KEY), watermark_ms, 600_000, NOW_MS, changes, unsigned)
        for line in sender.lines(letters):
            self.events.append(json.loads(line.body))
            sender.result.accepted += 1
        return sender.result
