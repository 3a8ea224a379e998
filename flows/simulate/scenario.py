"""The scenario: placements, listeners with their devices, and rates of faults."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

DURATIONS_MS: Final = (15_000, 20_000, 30_000, 30_000, 60_000)
_PLATFORMS: Final = ("spotify", "acast", "global-player", "tunein", "programmatic")
USUAL: Final = "vast_impression"
HOSTED: Final = "ad_delivered"
DOWNLOADED: Final = "download"
_BASES: Final = {
    "acast": HOSTED,
    "global-player": "audible_2s",
    "tunein": DOWNLOADED,
    "programmatic": "streamed_full",
}
"""Platforms to the basis of their impressions, if it is not `USUAL`."""
_CONFIRMS: Final = "spotify"
"""The platform whose devices send their calls themselves."""
AGENTS: Final = (
    "Spotify/8.9.10 iOS/17.4 (iPhone14,5)",
    "AppleCoreMedia/1.0.0.21E236 (iPhone; U; CPU OS 17_4 like Mac OS X; en_us)",
    "Overcast/3.0 (+http://overcast.fm/; iOS podcast app)",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0",
    "[USERAGENT]",
)
APPS: Final = {AGENTS[0]: "Spotify", AGENTS[1]: "AppleCoreMedia", AGENTS[2]: "Overcast"}
"""User agents to the listening apps that a collector recognises by them."""
BOTS: Final = (
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "AudioCRAWLER 1.1",
    "Baiduspider-render/2.0",
)
MACROS: Final = ("[X]", "%5BX%5D", "${X}", "{x}", "@X@", "-1", "-2")


@dataclass(frozen=True, slots=True)
class Trouble:
    """Rates of faults. All but `disorder_ms` are probabilities of a play, unless the text names another unit.

    Attributes:
        repeats: a pixel is sent again, seconds to 18 min later.
        refires: the player sends a pixel again, under another `event_id`.
        late: the whole play arrives 1 to 6 min late.
        late_pixels: a pixel arrives 20 s to 6 min late.
        too_late: the whole play is 15 to 25 min old when it arrives.
        disorder_ms: the longest delay of a pixel that is not late, in ms.
        clock_ahead, clock_behind: the clock is ahead or behind by years.
        clock_off: the clock is off by up to 3 min.
        malformed, invalid, unknown: for each call, the probability of a further call to be rejected.
        macros: an optional field is an unreplaced macro.
        foreign: the calls have another JSON writer's form, RFC 3339 times and unknown fields.
        bots, no_consent, absent_consent: the listener is a bot, refuses consent, or has none stated.
        withdrawn: the listener withdraws consent during the play.
        lost_starts: the start is lost.
        lost_milestones: a milestone is lost.
        unheard: the ad is delivered and never starts.
        errors: the ad fails.
        no_play_id: the player sends no `play_id`.
        shared_ids: all pixels of the play have one `event_id`.
        no_received_at: a pixel has no `received_at`.
        households: a household listens to an ad, and converts.
        skips: a play that ends early was skipped.
        mutes, pauses, progress, clicks, conversions: no faults, but rare.

    Raises:
        ValueError: a value is no probability, `repeats` is above 0.5, or `disorder_ms` is above 8000.
    """

    repeats: float = 0.01
    refires: float = 0.003
    late: float = 0.01
    late_pixels: float = 0.005
    too_late: float = 0.002
    disorder_ms: int = 5000
    clock_ahead: float = 0.001
    clock_behind: float = 0.0005
    clock_off: float = 0.01
    malformed: float = 0.0005
    invalid: float = 0.0005
    unknown: float = 0.0003
    macros: float = 0.01
    foreign: float = 0.02
    bots: float = 0.03
    no_consent: float = 0.15
    absent_consent: float = 0.05
    withdrawn: float = 0.005
    lost_starts: float = 0.01
    lost_milestones: float = 0.02
    unheard: float = 0.03
    errors: float = 0.005
    no_play_id: float = 0.04
    shared_ids: float = 0.01
    no_received_at: float = 0.02
    skips: float = 0.6
    mutes: float = 0.03
    pauses: float = 0.03
    progress: float = 0.02
    clicks: float = 0.01
    conversions: float = 0.01
    households: float = 0.001

    def __post_init__(self) -> None:
        chances = [getattr(self, field.name) for field in fields(self) if field.name != "disorder_ms"]
        if not all(0 <= chance <= 1 for chance in chances) or self.repeats > 0.5:
            raise ValueError("probabilities are from 0 to 1, and repeats at most 0.5")
        if not 0 <= self.disorder_ms <= 8000:
            raise ValueError(
                "disorder_ms is from 0 to 8000: the flow's bound of 10 s must not make a pixel late"
            )

    @classmethod
    def none(cls) -> Trouble:
        """Plain traffic without faults: impressions, starts and milestones, in order."""
        return cls(**dict.fromkeys((field.name for field in fields(cls)), 0))

    @classmethod
    def much(cls) -> Trouble:
        """All rare faults at five times their usual rate, for short logs."""
        usual = cls()
        return cls(**{name: getattr(usual, name) * 5 for name in _RARE})


_RARE: Final = (
    "repeats", "refires", "late", "late_pixels", "too_late", "clock_ahead", "clock_behind", "clock_off",
    "malformed", "invalid", "unknown", "macros", "foreign", "withdrawn", "lost_starts", "lost_milestones",
    "errors", "shared_ids", "mutes", "pauses", "progress", "clicks", "conversions",
    "households",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Placement:
    """A placement: the labels of its calls, its share of all plays, its share of complete plays, and the
    basis of its impressions.
    """

    id: str
    labels: dict[str, Any]
    share: float
    completion_rate: float
    basis: str = USUAL


def new_placements(count: int) -> list[Placement]:
    """Placements with shares by Zipf's law. The last one is starved: its share is a twentieth of the share
    before it.
    """
    weights = [(rank + 1) ** -1.1 for rank in range(count)]
    if count > 1:
        weights[-1] = weights[-2] / 20
    total = sum(weights)
    return [
        Placement(
            f"pl-{rank:04}",
            {
                "placement_id": f"pl-{rank:04}",
                "campaign_id": f"c-{rank % 7}",
                "creative_id": f"cr-{rank % 11}",
                "platform": _PLATFORMS[rank % 5],
                "station": f"st-{rank % 13}",
                "podcast": f"Füße & Ohren «{rank}»" if rank % 10 == 3 else f"pod-{rank % 29}",
                "program": f"prog-{rank % 3}",
                **({"device_confirmed": True} if _PLATFORMS[rank % 5] == _CONFIRMS else {}),
            },
            weight / total,
            0.5 + 0.45 * (rank * 7 % 10) / 9,
            _BASES.get(_PLATFORMS[rank % 5], USUAL),
        )
        for rank, weight in enumerate(weights)
    ]
