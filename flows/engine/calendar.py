"""The calendar days by which rows and clients count."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from flows.settings import Settings

REMEMBERED: Final = 100_000
"""The greatest number of minutes whose day is cached."""


def days_of(settings: Settings) -> Callable[[int], int]:
    """A function from a minute since the epoch to its calendar day in the settings' zone, as an ordinal."""
    zone, remembered = settings.zone, dict[int, int]()

    def day_of(minute: int) -> int:
        if (day := remembered.get(minute)) is None:
            if len(remembered) > REMEMBERED:
                remembered.clear()
            day = remembered[minute] = datetime.fromtimestamp(minute * 60, zone).toordinal()
        return day

    return day_of
