"""The events of a pixel, each declared once. An event's code is its place, and part of the state's format.

Events that count in a minute come first, so that an event's code is its column in the counts of a minute.
Events of `MILESTONE` adjoin each other; events of `OF_PLAY` follow them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple


class Way(StrEnum):
    """The way in which an event counts; `flows.plays.cohort` has the rules."""

    PLAIN = "plain"
    """Once a play, in its own minute."""
    START = "start"
    """Once a play, and opens the play's cohort."""
    MILESTONE = "milestone"
    """Once a play, in the minute of its start, with the milestones below it."""
    OF_PLAY = "of a play"
    """Once a play, in the minute of its start; in its own while there is none."""
    NOWHERE = "nowhere"
    """Accepted, in no count of its own."""
    CONVERSION = "conversion"
    """Credited to touches."""
    SENT = "sent"
    """Once a client."""


class Event(NamedTuple):
    """An event.

    Attributes:
        name: in VAST 4.2's spelling, where VAST has it.
        way: how it counts.
        counts: the metric in which it counts, of those of a minute.
        means: its meaning in Markdown, for people who make pixels.
        aliases: other names that callers write, in any case.
        spoken: words in other systems' names that suggest it, for a first guess.
    """

    name: str
    way: Way
    counts: str
    means: str
    aliases: tuple[str, ...] = ()
    spoken: tuple[str, ...] = ()


EVENTS: Final = (
    Event(
        "impression",
        Way.PLAIN,
        "impressions",
        "`impressions`: the ad is about to play. Bookings and pacing",
        ("imp", "view"),
        ("impression",),
    ),
    Event(
        "start",
        Way.START,
        "starts",
        "`starts`: its audio began. The base of completion rates. Without a `play_id` `unlinked_starts`",
        spoken=("start", "started", "begin"),
    ),
    Event(
        "firstQuartile",
        Way.MILESTONE,
        "first_quartiles",
        "`first_quartiles`: a quarter was heard. Without a `play_id` `unlinked_first_quartiles`, and so the "
        "next three",
        ("first_quartile", "q1", "25"),
        ("first quartile", "quartile 1", "q1"),
    ),
    Event(
        "midpoint",
        Way.MILESTONE,
        "midpoints",
        "`midpoints`: half",
        ("mid", "50"),
        ("midpoint", "mid point", "second quartile"),
    ),
    Event(
        "thirdQuartile",
        Way.MILESTONE,
        "third_quartiles",
        "`third_quartiles`: three quarters",
        ("third_quartile", "q3", "75"),
        ("third quartile", "q3"),
    ),
    Event(
        "complete",
        Way.MILESTONE,
        "completes",
        "`completes`: played to the end",
        ("100", "end"),
        ("complete", "completed", "finished", "ended"),
    ),
    Event(
        "skip",
        Way.OF_PLAY,
        "skips",
        "`skips`: the listener skipped it; once a play. Without a `play_id` accepted, in no metric of its "
        "own",
        spoken=("skip", "skipped"),
    ),
    Event("mute", Way.OF_PLAY, "mutes", "`mutes`: once a play. Without a `play_id` as `skip`"),
    Event(
        "click",
        Way.PLAIN,
        "clicks",
        "`clicks`, and a touch that a conversion may be credited to",
        spoken=("click", "clicked"),
    ),
    Event("error", Way.PLAIN, "errors", "`errors`"),
    Event("unmute", Way.NOWHERE, "", "accepted, in no metric of its own; once a play"),
    Event("pause", Way.NOWHERE, "", "accepted, in no metric of its own; once a play"),
    Event("resume", Way.NOWHERE, "", "accepted, in no metric of its own; once a play"),
    Event("progress", Way.NOWHERE, "", "accepted, in no metric of its own; once a play and `playhead_ms`"),
    Event(
        "conversion",
        Way.CONVERSION,
        "",
        "`conversions`, once its minute is final",
        spoken=("purchase", "order", "conversion", "signup"),
    ),
    Event(
        "delivered",
        Way.SENT,
        "",
        "`deliveries`: a host says that it sent the ad. Never an impression. Once its minute is final, also "
        "`deliveries_calendar`, `_first_touch` and `_last_touch`, once a client",
    ),
    Event(
        "download",
        Way.SENT,
        "",
        "once its minute is final, `downloads_calendar`, `_first_touch` and `_last_touch`, once a client. "
        "Never an impression",
    ),
)
NAMES: Final = tuple(event.name for event in EVENTS)
ONCE_HEARD: Final = NAMES[: NAMES.index("complete") + 1]
"""The events of a play that is heard to its end."""
