"""The job that rivals do: its columns, its answers, and why a rival cannot be had."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import Answers

EVENTS: Final = ("impression", "start", "firstQuartile", "midpoint", "thirdQuartile", "complete")
METRICS: Final = ("impressions", "starts", *EVENTS[2:], "listeners")
"""Two bear the names of the flow's minutes, which they have to equal. The later milestones are not start
cohorts, and are compared among rivals alone.
"""


class Unavailable(Exception):
    """A rival cannot be had on this machine; the message says why, and how to get it."""


def answers(rows: Iterable[Sequence[Any]]) -> Answers:
    """Rows of (placement, minute since the epoch, the six counts, listeners) as answers."""
    return Answers(
        minutes={
            f"{placement}|{int(minute) * 60_000}": dict(zip(METRICS, map(int, counts), strict=True))
            for placement, minute, *counts in rows
        }
    )


def read(path: Path) -> Answers:
    """The answers of a file of such rows."""
    with path.open(newline="") as file:
        return answers(csv.reader(file))
