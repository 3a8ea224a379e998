"""Rules of counting: the settings and plans of a flow, as the plain values that the oracle takes."""

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
"""User agents that are no bots, whatever else they contain (specification 1.2): a regular expression."""


@dataclass(frozen=True)
class Rules:
    """The rules of one recomputation; the defaults are the settings' own.

    Attributes:
        mature_after: age of a minute from which its starts' rate is mature.
        row_ttl: the time for which a row without a plan stays after its last pixel or credit.
        row_memory: the time for which it is stored: after a longer silence it may start again.
        timezone: whose calendar days are meant.
        consent: how a pixel without consent counts: as not measurable, or measurable.
        podcast_apps: regular expression, case-insensitive; user agents that it finds are no bots.
        invalid_agents: more such expressions, of user agents that are as bots.
        plans: what is planned, by placement.
        thresholds: of their delivery.
        utm_placements: `utm_content` to a placement, besides the plans' own ids.
        touch_listens, touch_clicks: touches of a campaign that a decision of the flow looks at.
        touch_listens_in_all, touch_clicks_in_all: of these, those of all campaigns.
        household_listeners: distinct listeners within the listen window up to which a household joins.
        platform_basis: platform to the basis of its impressions that name none.
        app_rows: whether pixels are counted by their app, too.
        tie_key: orders the downloads and deliveries of one client and moment; empty if unknown.
        conversions_from: the conversions that count, for campaigns whose plans do not define it.
        labels: whether names of the scopes that plans list count where no plan lists them.
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
        """The rows that have a plan, and so no end: placements, and the campaigns of their plans."""
        campaigns = {("campaign", of.campaign) for of in self.plans.values() if of.campaign}
        return frozenset({("placement", name) for name in self.plans} | campaigns)


def ms(duration: timedelta) -> int:
    """Whole milliseconds of a duration."""
    return duration // timedelta(milliseconds=1)
