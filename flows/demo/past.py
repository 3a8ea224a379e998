"""Makes the hours before a demo: its plans, and an archive of the pixels since their flights began."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from flows.simulate import History, Traffic, plans

ARCHIVE: Final = "archive"
"""The folder of the archive."""
PAST: Final = timedelta(hours=2)
AHEAD: Final = timedelta(hours=6)
"""The time by which flights begin before the demo, and end after its start."""
MAX_PAST: Final = 300_000
"""The greatest number of past pixels. A demo with a high rate therefore has a shorter past."""
PIXELS_A_PAST_PLAY: Final = 2.7
OVER, BLOCKED = 5, 2
"""The positions of the placement that over-delivers, and of the one that runs in blocked content."""
BLOCKED_CATEGORY: Final = "150"


def past_of(traffic: Traffic) -> tuple[list[dict[str, Any]], History]:
    """The plans, and the traffic since their flights began."""
    most = timedelta(seconds=MAX_PAST / PIXELS_A_PAST_PLAY / traffic.impressions_a_second)
    past = min(PAST, most)
    booked = story(plans(traffic, past + AHEAD, began=past))
    blocked = traffic.placements[BLOCKED % len(traffic.placements)].id
    began_ms = traffic.start_ms - past // timedelta(milliseconds=1)
    return booked, History(traffic, began_ms, traffic.start_ms, blocked)


def story(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The plans of a demo: one placement over-delivers, and one runs in content that its plan blocks. The
    traffic starves another one. All others are on track.
    """
    for rank, row in enumerate(rows):
        row["blocked_categories"] = BLOCKED_CATEGORY if rank == BLOCKED else ""
        if rank == OVER and rank < len(rows) - 1:
            row["booked"] = max(1, round(row["booked"] * 0.8))
    return rows


def archived(past: History, directory: Path, topic: str) -> dict[int, int]:
    """Write the past as an archive of a topic, and return the next offset after each partition's last
    message.
    """
    # A late import: it loads the compiler, while the exporter starts.
    from flows.archive import store_of, write_from_messages

    messages = ((call.partition, call.arrival_ms, call.value) for call in past)
    return write_from_messages(store_of(str(directory / ARCHIVE)), topic, messages)
