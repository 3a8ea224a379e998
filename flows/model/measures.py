"""Published metrics of a row, each defined once, in words: the text of `audiopixel methodology`.

A test checks that these are exactly the metrics of `flows.model.fields`. `flows.methodology` adds the rules
of each kind of metric, and the settings.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from flows.model.basis import BASES
from flows.model.conversions import WAYS
from flows.model.events import CONVERSION_TYPES


class Kind(StrEnum):
    """The kind of a metric, by which the rules of its counting are chosen."""

    PLAY = "play"
    START = "start"
    SKIP = "skip"
    PLAIN = "plain"
    KEPT_OUT = "kept_out"
    RATE = "rate"
    PEOPLE = "people"
    CONVERSION = "conversion"
    CONFIRMED = "confirmed"
    MONEY = "money"
    DELIVERY = "delivery"
    CLIENT = "client"
    UNKEYED = "unkeyed"
    FREQUENCY = "frequency"


class Measure(NamedTuple):
    """A metric.

    Attributes:
        name: as it stands in a row, without its window.
        unit: what 1 of it is.
        what: what it counts, as a sentence.
    """

    name: str
    kind: Kind
    unit: str
    what: str


def _milestones() -> list[Measure]:
    said = {
        "first_quartiles": "a quarter",
        "midpoints": "half",
        "third_quartiles": "three quarters",
        "completes": "the end",
    }
    found = []
    for name, part in said.items():
        what = f"Plays that started and reached {part} of the ad, by their own pixel or a later milestone's."
        found.append(Measure(name, Kind.START, "play", what))
    for name, part in ({"starts": "the start"} | said).items():
        what = f"Pixels without a play id that say that {part} of the ad was reached."
        found.append(Measure(f"unlinked_{name}", Kind.PLAIN, "pixel", what))
    return found


_CONVERSIONS: Final = (
    Measure("conversions", Kind.CONVERSION, "conversion", "Conversions credited to the row."),
    *(
        Measure(f"conversions_{kind}", Kind.CONVERSION, "conversion", f"Credited conversions of type {kind}.")
        for kind in CONVERSION_TYPES
    ),
    *(
        Measure(f"conversions_{way}", Kind.CONVERSION, "conversion", f"Conversions credited by way of {way}.")
        for way in WAYS
    ),
    Measure(
        "conversions_claimed",
        Kind.CONVERSION,
        "conversion",
        "Credited conversions that public tags have sent; no part of conversions where servers' alone count.",
    ),
    Measure(
        "conversions_confirmed",
        Kind.CONFIRMED,
        "conversion",
        "Conversions of public tags whose order a server has sent since, credited as those are.",
    ),
    Measure(
        "conversion_value",
        Kind.CONVERSION,
        "millionth of the row's currency",
        "Value of the credited conversions in the row's currency as servers have sent it; of one that "
        "confirms a public tag's, in the minute of the confirmation.",
    ),
    Measure(
        "conversion_value_claimed",
        Kind.CONVERSION,
        "millionth of the row's currency",
        "Value of the credited conversions in the row's currency that public tags have sent and no server "
        "has confirmed: whoever reads the page can send another one. A confirmation takes it off, in its own "
        "minute.",
    ),
    Measure(
        "conversion_value_other_count",
        Kind.CONVERSION,
        "conversion",
        "Credited conversions whose value is in another currency, or no number.",
    ),
    Measure(
        "conversions_by_listener",
        Kind.CONVERSION,
        "conversion",
        "Conversions credited to touches of their own listener.",
    ),
    Measure(
        "conversions_by_household",
        Kind.CONVERSION,
        "conversion",
        "Conversions credited to touches of their household, for their own listener has no eligible one.",
    ),
    Measure(
        "conversion_rate",
        Kind.CONVERSION,
        "ratio",
        "Credited conversions by reach; by household reach where no listener is known.",
    ),
    Measure(
        "time_to_convert_p50_seconds",
        Kind.CONVERSION,
        "second",
        "Median time from the credited touch to the conversion: the upper bound of its class.",
    ),
    Measure(
        "time_to_convert_p90_seconds",
        Kind.CONVERSION,
        "second",
        "Time from the credited touch to the conversion that nine of ten stay below: the upper bound of its "
        "class.",
    ),
    Measure("conversions_accepted", Kind.CONVERSION, "conversion", "Conversions that name the campaign."),
    Measure(
        "conversions_attributed",
        Kind.CONVERSION,
        "conversion",
        "Conversions that name the campaign and were credited to anybody.",
    ),
    Measure(
        "conversions_unattributed",
        Kind.CONVERSION,
        "conversion",
        "Conversions that name the campaign and were credited to nobody.",
    ),
    Measure(
        "conversions_pending",
        Kind.CONVERSION,
        "conversion",
        "Conversions that name the campaign and whose minute is not final.",
    ),
    Measure(
        "conversions_noisy_household",
        Kind.CONVERSION,
        "conversion",
        "Conversions that name the campaign and whose household has too many listeners to join them.",
    ),
)

_WORDS: Final = {
    "calendar": "the first of its key on a calendar day counts",
    "first_touch": "one of its key counts, and the next one that comes 24 h later or more",
    "last_touch": "one of its key counts that has none in the 24 h before it, counted or not",
}


def _by_client() -> list[Measure]:
    found = []
    for name, one in (("downloads", "download"), ("deliveries", "delivery")):
        for window, words in _WORDS.items():
            what = f"{name.capitalize()} by the IAB's {window.replace('_', ' ')} window: {words}."
            found.append(Measure(f"{name}_{window}", Kind.CLIENT, one, what))
            estimate = f"Estimate of what minutes that are not final add to {name}_{window}; it may fall."
            found.append(Measure(f"{name}_{window}_provisional", Kind.CLIENT, one, estimate))
        what = f"{name.capitalize()} that have no key: no client with consent, or nothing that was sent."
        found.append(Measure(f"{name}_unkeyed", Kind.UNKEYED, one, what))
    return found


_DELIVERY: Final = tuple(
    Measure(f"delivery.{name}", Kind.DELIVERY, unit, what)
    for name, unit, what in (
        ("booked", "impression", "Impressions that the plan has booked."),
        ("delivered", "impression", "Impressions of the flight up to its plan's end."),
        ("expected", "impression", "Impressions that the plan's delivery curve wants by the watermark."),
        (
            "short_by",
            "impression",
            "Impressions that are due and not delivered; of a campaign the sum of its placements'.",
        ),
        ("indicator", "ratio", "Delivered by expected impressions."),
        ("state", "word", "The judgement of the delivery."),
        ("since_ms", "millisecond", "The watermark at which that state began."),
        ("alerted_state", "word", "The state of the last alert, where it is another one."),
        ("projected", "impression", "Impressions at the flight's end at the rate of the last hour."),
        ("required_rate", "impression an hour", "Rate that the rest of the flight needs."),
        ("start_ms", "millisecond", "The flight's start."),
        ("end_ms", "millisecond", "The flight's end."),
        ("remaining_seconds", "second", "Unpaused time that is left of the flight."),
        ("target_completion_rate", "ratio", "Completion rate that the plan wants."),
        (
            "delivered_before",
            "impression",
            "Opening balance: impressions that were delivered before they were counted, as its source says.",
        ),
        ("delivered_before_until_ms", "millisecond", "The moment up to which the opening balance is."),
        ("delivered_before_source", "text", "The source of the opening balance."),
        ("gap_ms", "millisecond", "Unpaused time of the flight of which nothing was counted."),
        ("unknown_reason", "word", "The reason why the delivered impressions are not known."),
        ("plan_changed_ms", "millisecond", "The watermark at which the plan in force came for another one."),
        ("booked_before", "impression", "Impressions that the plan before had booked, where these differ."),
        ("cpm", "unit of the plan's currency", "The plan's price of a thousand impressions."),
        ("currency", "ISO 4217 code", "The plan's currency."),
        (
            "at_stake",
            "unit of the plan's currency",
            "Price of the impressions that are due and not delivered.",
        ),
        (
            "at_stake_end",
            "unit of the plan's currency",
            "Price of the booked impressions that the projection lacks at the flight's end.",
        ),
        ("blocked_at_stake", "unit of the plan's currency", "Price of the impressions in blocked content."),
        ("judged", "0 or 1", "Whether the delivery is judged: 0 while its feed is silent."),
        ("unjudged_reason", "word", "Why it is not."),
        ("unjudged_since_ms", "millisecond", "Since when it is not."),
        ("unjudged_by", "unit of a feed", "The silent unit that had most of its impressions."),
    )
)

MEASURES: Final[tuple[Measure, ...]] = (
    Measure("impressions", Kind.PLAY, "impression", "Impression pixels."),
    *(
        Measure(
            f"impressions_{basis}",
            Kind.PLAY,
            "impression",
            f"Impressions of the basis {basis}: of a play the strongest that its pixels claim until its "
            "minute is final.",
        )
        for basis in BASES
    ),
    Measure("deliveries", Kind.PLAY, "delivery", "Pixels that say that the ad was sent; no impressions."),
    *_by_client(),
    Measure("confirmed_plays", Kind.PLAY, "play", "Plays whose start the listener's device itself called."),
    Measure(
        "play_through",
        Kind.RATE,
        "ratio",
        "Confirmed plays by deliveries, where a row has both and the ratio is at most 1.",
    ),
    Measure("starts", Kind.PLAY, "play", "Plays whose start pixel came."),
    *_milestones(),
    Measure("skips", Kind.SKIP, "play", "Plays that were skipped."),
    Measure("mutes", Kind.SKIP, "play", "Plays that were muted."),
    Measure("clicks", Kind.PLAY, "click", "Click pixels, one a play."),
    Measure("errors", Kind.PLAY, "play", "Plays whose player told of an error."),
    Measure(
        "orphans", Kind.PLAIN, "milestone", "Milestones whose own minute became final before a start came."
    ),
    Measure(
        "repaired",
        Kind.START,
        "milestone",
        "Milestones without a pixel of their own that a later one implies.",
    ),
    Measure("completion_rate", Kind.RATE, "ratio", "Completes by starts of the plays that started."),
    Measure("completions_per_impression", Kind.RATE, "ratio", "Completes by impressions."),
    Measure(
        "mature_completion_rate",
        Kind.RATE,
        "ratio",
        "Completes by starts of the minutes that are old enough for their plays to have completed.",
    ),
    Measure(
        "unlinked_completion_rate", Kind.RATE, "ratio", "Completes by starts of pixels without a play id."
    ),
    *(
        Measure(
            name,
            Kind.RATE,
            "ratio",
            f"Of a platform: {what} A row's plays are its impressions, or its starts where these are more.",
        )
        for name, what in (
            ("start_share", "plays that started, with or without a play id, by plays."),
            ("first_quartile_share", "plays that reached a quarter, by plays."),
            ("midpoint_share", "plays that reached half, by plays."),
            ("third_quartile_share", "plays that reached three quarters, by plays."),
            ("complete_share", "plays that reached the end, by plays."),
            (
                "listener_share",
                "plays of which a consenting listener is known, by plays; null where some are a start "
                "without a play id.",
            ),
        )
    ),
    Measure("play_id_share", Kind.RATE, "ratio", "Of a platform: starts with a play id, by all starts."),
    Measure(
        "delay_p50_seconds",
        Kind.RATE,
        "second",
        "Of a platform: median time from a pixel's event time to its receipt: the upper bound of its class.",
    ),
    Measure("reach", Kind.PEOPLE, "listener", "Distinct listeners of an impression or a start."),
    Measure(
        "household_reach",
        Kind.PEOPLE,
        "household",
        "Distinct households of an impression or a start.",
    ),
    Measure("frequency", Kind.PEOPLE, "play", "Plays with a listener by reach, at least 1."),
    *_CONVERSIONS,
    Measure(
        "cost",
        Kind.MONEY,
        "unit of the plan's currency",
        "Impressions by the plan's price; of the flight those that are delivered up to the plan's end.",
    ),
    Measure("cost_per_acquisition", Kind.MONEY, "unit of the plan's currency", "Cost by conversions."),
    Measure(
        "return_on_ad_spend",
        Kind.MONEY,
        "ratio",
        "Value of the conversions by cost; claimed values are no part of it.",
    ),
    Measure("pixels", Kind.PLAIN, "pixel", "Accepted pixels without invalid traffic."),
    Measure("consented", Kind.PLAIN, "pixel", "Those of them with consent."),
    Measure("consent_coverage", Kind.RATE, "ratio", "Pixels with consent by all of them."),
    Measure("since_ms", Kind.DELIVERY, "millisecond", "Event time from which the flight counts."),
    Measure(
        "counted_since_ms",
        Kind.DELIVERY,
        "millisecond",
        "Moment from which a planned flight was counted: its start, or when the deployment began to count.",
    ),
    Measure("repeated", Kind.KEPT_OUT, "pixel", "Pixels that had counted before."),
    Measure("too_late", Kind.KEPT_OUT, "pixel", "Pixels that came after their minute was final."),
    Measure("invalid_traffic", Kind.KEPT_OUT, "pixel", "Pixels of invalid traffic."),
    Measure("blocked_impressions", Kind.PLAY, "impression", "Impressions in content that the plan blocks."),
    *_DELIVERY,
    *(
        Measure(f"frequency.{name}", Kind.FREQUENCY, unit, what)
        for name, unit, what in (
            ("listeners", "listener", "Listeners of a campaign who have had so many impressions of it."),
            ("conversions", "conversion", "Conversions of listeners who had had so many by then."),
            ("conversion_rate", "ratio", "Those conversions by the listeners who ever had as many."),
        )
    ),
)
