"""Rules of counting: the settings and plans of a flow, as plain values for the oracle."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Final, Literal

from flows.reconcile.pacing import Planned, Thresholds

PODCAST_APPS: Final = (
    r"overcast|pocket ?casts|podimo|castbox|castro|antennapod|applecoremedia|podcasts?/|podcast ?addict"
    r"|podbean|podkicker|player ?fm|radiopublic|spotify/|deezer|tunein|iheartradio|stitcher|audible|downcast"
    r"|bbc ?sounds|globalplayer"
)
"""A regular expression of user agents that are no bots, even with a bot's words (specification 1.2)."""


@dataclass(frozen=True)
class Rules:
    """The rules of one recomputation. The defaults are those of the settings.

    Attributes:
        mature_after: the age of a minute from which on its plays can have completed.
        row_ttl: the time after its last pixel or credit at which a row without a plan ends.
        row_memory: the time for which an ended row is stored. After a longer silence a row may start again.
        timezone: IANA name of the zone of calendar days.
        consent: whether a pixel without consent may be measured (`assumed`) or not (`required`).
        podcast_apps: a regular expression, case-insensitive. User agents with a match are no bots.
        invalid_agents: more such expressions. User agents with a match count as bots.
        plans: by placement.
        thresholds: the thresholds of delivery.
        utm_placements: `utm_content` to a placement, besides the ids of planned placements.
        touch_listens, touch_clicks: the greatest number of a campaign's touches that a decision uses.
        touch_listens_in_all, touch_clicks_in_all: the greatest number for all campaigns together.
        household_listeners: the greatest number of listeners within the listen window with which a household
            joins.
        platform_basis: platforms to the basis of their impressions that name none.
        app_rows: whether pixels are counted by app, too.
        tie_key: orders the downloads and deliveries of one client and moment; empty if unknown.
        conversions_from: the conversions that count for campaigns whose plans do not define it.
        labels: whether all names count (`any`), or only names that plans list (`planned`).
    """

    out_of_orderness: timedelta = timedelta(seconds=10)
    quiet: timedelta = timedelta(minutes=1)
    max_hold: timedelta = timedelta(hours=6)
    max_state: int = 50_000_000
    allowed_lateness: timedelta = timedelta(minutes=10)
    horizon: timedelta = timedelta(minutes=30)
    conversion_horizon: timedelta = timedelta(days=60)
    mature_after: timedelta = timedelta(seconds=90)
    row_ttl: timedelta = timedelta(hours=48)
    row_memory: timedelta = timedelta(days=62)
    timezone: str = "Europe/London"
    consent: Literal["required", "assumed"] = "required"
    podcast_apps: str = PODCAST_APPS
    invalid_agents: Collection[str] = ()
    model: Literal["last_touch", "first_touch", "linear", "time_decay", "off"] = "last_touch"
    click_window: timedelta = timedelta(days=30)
    listen_window: timedelta = timedelta(days=14)
    half_life: timedelta = timedelta(days=7)
    household_listeners: int = 20
    touch_listens: int = 64
    touch_clicks: int = 16
    touch_listens_in_all: int = 1_000
    touch_clicks_in_all: int = 250
    plans: Mapping[str, Planned] = field(default_factory=dict)
    thresholds: Thresholds = field(default_factory=Thresholds)
    utm_placements: Mapping[str, str] = field(default_factory=dict)
    platform_basis: Mapping[str, str] = field(default_factory=dict)
    app_rows: bool = False
    labels: Literal["any", "planned"] = "any"
    tie_key: bytes = field(default=b"", repr=False)
    conversions_from: Literal["server", "browser"] = "browser"

    @cached_property
    def planned(self) -> frozenset[tuple[str, str]]:
        """The rows with a plan, which do not end: planned placements, and the campaigns of their plans."""
        campaigns = {("campaign", plan.campaign) for plan in self.plans.values() if plan.campaign}
        return frozenset({("placement", name) for name in self.plans} | campaigns)


def ms(duration: timedelta) -> int:
    """Whole milliseconds of a duration."""
    return duration // timedelta(milliseconds=1)
