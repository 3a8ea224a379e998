"""The metrics of a row, each declared once, and the parts of their names.

The groups have the order of a row's fields. A metric that counts an event has the name of `counts` in
`flows.model.catalogue.events`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal, NamedTuple, get_args

WINDOWS: Final = ("5m", "1h", "1d", "flight")
SIDE: Final = ("1d", "flight")
"""The windows of metrics that most pixels lack."""
FLIGHT: Final = ("flight",)
NO_WINDOW: Final = ()
"""The windows of a metric whose name is the whole name of its field."""
CONVERSION_TYPES: Final = (
    "site_visit",
    "sign_up",
    "purchase",
    "app_download",
    "phone_call",
    "form_submission",
)
WAYS: Final = ("click", "listen", "utm", "declared")
"""The ways in which a conversion is credited."""
JOINED: Final = ("listener", "household")
"""The ids by which a touch joins a conversion: its own listener before its household."""
Basis = Literal["vast_impression", "audible_2s", "streamed_full", "ad_delivered", "download"]
BASES: Final[tuple[Basis, ...]] = get_args(Basis)
"""A basis's code is its place, part of the state's format. A pixel that names no basis has the first."""
CLIENT_WINDOWS: Final = {
    "calendar": ("calendar day", "the first of its key on a calendar day counts"),
    "first_touch": (
        "first-touch window",
        "one of its key counts, and the next one that comes 24 h later or more",
    ),
    "last_touch": (
        "last-touch window",
        "one of its key counts that has none in the 24 h before it, counted or not",
    ),
}
"""The windows of the IAB's Podcast Measurement Guidelines 2.3, each with its name and its rule in words."""


class Rule(StrEnum):
    """The rule by which a metric is counted; `flows.methodology` has its words."""

    PLAY = "play"
    START = "start"
    OF_PLAY = "of a play"
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


class Unit(StrEnum):
    """Units that decide the form in which a value is published. Other units are words alone."""

    RATIO = "ratio"
    MILLISECOND = "millisecond"
    AN_HOUR = "impression an hour"
    MONEY = "unit of the plan's currency"
    MILLIONTH = "millionth of the row's currency"
    TRUTH = "0 or 1"
    WORD = "word"
    TEXT = "text"
    CODE = "ISO 4217 code"
    FEED = "unit of a feed"


TEXTS: Final = (Unit.WORD, Unit.TEXT, Unit.CODE, Unit.FEED)
"""The units of values that are texts."""


class Series(NamedTuple):
    """A metric's series in Prometheus.

    Attributes:
        name: without the common prefix. Its first word is the scope whose rows it shows; `_total` makes it a
            counter.
        help: its help in Prometheus.
        window: the window that it shows.
    """

    name: str
    help: str
    window: str = "flight"


class Metric(NamedTuple):
    """A published metric.

    Attributes:
        name: as it stands in a row, without its window.
        rule: the rule by which it is counted.
        unit: the meaning of 1.
        means: its meaning in a sentence.
        windows: the windows in which it is published.
        series: its series in Prometheus.
        adcp: its names in a delivery of AdCP, which has the flight's value unchanged. A dot separates an
            object from its field.
        api: its sentence in OpenAPI, if there is one.
    """

    name: str
    rule: Rule
    unit: str
    means: str
    windows: tuple[str, ...] = WINDOWS
    series: tuple[Series, ...] = ()
    adcp: tuple[str, ...] = ()
    api: str = ""

    def field(self, window: str) -> str:
        """The name of its field in a row for a window."""
        return f"{window}.{self.name}" if self.windows else self.name

    def fields(self) -> tuple[str, ...]:
        """The names of its fields in a row."""
        return tuple(map(self.field, self.windows or FLIGHT))


def names(metrics: tuple[Metric, ...]) -> tuple[str, ...]:
    """The names of metrics, without windows."""
    return tuple(metric.name for metric in metrics)


def _reached(name: str, part: str, series: tuple[Series, ...], *adcp: str) -> Metric:
    help_text = f"Plays that started and reached {part} of the ad, by their own pixel or a later milestone's."
    return Metric(name, Rule.START, "play", help_text, series=series, adcp=adcp)


def _unlinked(name: str, part: str) -> Metric:
    help_text = f"Pixels without a play id that say that {part} of the ad was reached."
    return Metric(f"unlinked_{name}", Rule.PLAIN, "pixel", help_text)


COUNTED: Final = (
    Metric("impressions", Rule.PLAY, "impression", "Impression pixels.",
        series=(Series("placement_impressions_total", "Impressions of the flight."),)),
    Metric("starts", Rule.PLAY, "play", "Plays whose start pixel came.",
        series=(Series("placement_starts_total", "Plays of the flight that started."),), adcp=("views",)),
    _reached("first_quartiles", "a quarter",
        (
            Series("placement_first_quartiles_total",
                "Started plays of the flight that reached a quarter."),
        ), "quartile_data.q1_views"),
    _reached("midpoints", "half",
        (Series("placement_midpoints_total", "Started plays of the flight that reached half."),),
        "quartile_data.q2_views"),
    _reached("third_quartiles", "three quarters",
        (
            Series("placement_third_quartiles_total",
                "Started plays of the flight that reached three quarters."),
        ), "quartile_data.q3_views"),
    _reached("completes", "the end",
        (Series("placement_completes_total", "Started plays of the flight that completed."),),
        "completed_views", "quartile_data.q4_views"),
    Metric("skips", Rule.OF_PLAY, "play", "Plays that were skipped."),
    Metric("mutes", Rule.OF_PLAY, "play", "Plays that were muted."),
    Metric("clicks", Rule.PLAY, "click", "Click pixels, one a play.",
        series=(Series("placement_clicks_total", "Clicks of the flight."),), adcp=("clicks",)),
    Metric("errors", Rule.PLAY, "play", "Plays whose player reported an error.",
        series=(Series("placement_errors_total", "Player errors of the flight."),)),
    Metric("orphans", Rule.PLAIN, "milestone",
        "Milestones whose own minute became final before a start came."),
    Metric("repaired", Rule.START, "milestone",
        "Milestones without a pixel of their own that a later one implies."),
    _unlinked("starts", "the start"),
    _unlinked("first_quartiles", "a quarter"),
    _unlinked("midpoints", "half"),
    _unlinked("third_quartiles", "three quarters"),
    _unlinked("completes", "the end"),
)  # fmt: skip
"""Counts of a minute, each of which has every window."""

RATES: Final = (
    Metric("completion_rate", Rule.RATE, Unit.RATIO, "Completes by starts of the plays that started."),
    Metric("completions_per_impression", Rule.RATE, Unit.RATIO, "Completes by impressions."),
    Metric("reach", Rule.PEOPLE, "listener", "Distinct listeners of an impression or a start.",
        series=(
            Series("placement_reach_listeners", "Distinct consenting listeners of the flight."),
            Series("placement_reach_1h_listeners", "Distinct consenting listeners of the last hour.", "1h"),
        )),
    Metric("frequency", Rule.PEOPLE, "play", "Plays with a listener by reach, at least 1.",
        series=(Series("placement_frequency_plays", "Plays of the flight by listener of its reach."),)),
    Metric("mature_completion_rate", Rule.RATE, Unit.RATIO,
        "Completes by starts of the minutes that are old enough for their plays to have completed.",
        ("5m", "1h"),
        (
            Series("placement_mature_completion_5m_ratio",
                "Completes by starts of the last five minutes, without the youngest, which cannot have "
                "completed yet.", "5m"),
            Series("placement_mature_completion_1h_ratio",
                "Completes by starts of the last hour, without the youngest, which cannot have completed "
                "yet.", "1h"),
        )),
    Metric("unlinked_completion_rate", Rule.RATE, Unit.RATIO,
        "Completes by starts of pixels without a play id.", ("1h", "1d", "flight")),
)  # fmt: skip

CREDITED: Final = (
    Metric("conversions", Rule.CONVERSION, "conversion", "Conversions credited to the row.",
        series=(Series("placement_conversions_total", "Conversions of the flight credited to it."),),
        adcp=("conversions",)),
    *(
        Metric(f"conversions_{kind}", Rule.CONVERSION, "conversion", f"Credited conversions of type {kind}.")
        for kind in CONVERSION_TYPES
    ),
    *(
        Metric(f"conversions_{way}", Rule.CONVERSION, "conversion", f"Conversions credited by way of {way}.")
        for way in WAYS
    ),
    Metric("conversions_by_listener", Rule.CONVERSION, "conversion",
        "Conversions credited to touches of their own listener."),
    Metric("conversions_by_household", Rule.CONVERSION, "conversion",
        "Conversions credited to touches of their household, for their own listener has no eligible one.",
        series=(
            Series("placement_conversions_by_household_total",
                "Those of them that a touch of their household joins, for their own listener has none."),
        )),
    Metric("conversions_claimed", Rule.CONVERSION, "conversion",
        "Credited conversions that public tags have sent; no part of conversions where servers' alone "
        "count.",
        series=(
            Series("placement_conversions_claimed_total",
                "Conversions of the flight credited to it that public tags have sent."),
        )),
    Metric("conversions_confirmed", Rule.CONFIRMED, "conversion",
        "Conversions of public tags whose order a server has sent since, credited as those are.",
        series=(
            Series("placement_conversions_confirmed_total", "Those of them that a server has confirmed."),
        )),
    Metric("conversion_value", Rule.CONVERSION, Unit.MILLIONTH,
        "Value of the credited conversions in the row's currency as servers have sent it; of one that "
        "confirms a public tag's, in the minute of the confirmation.",
        series=(
            Series("placement_conversion_value",
                "Value of the conversions of the flight credited to it, in its row's currency, claimed "
                "values apart; a refund makes it fall."),
        )),
    Metric("conversion_value_claimed", Rule.CONVERSION, Unit.MILLIONTH,
        "Value of the credited conversions in the row's currency that public tags have sent and no server "
        "has confirmed: anybody who reads the page can send another value. A confirmation subtracts it, in "
        "its own minute.",
        series=(
            Series("placement_conversion_value_claimed",
                "The same for values that public tags have sent: anybody who reads the page can send another "
                "value."),
        )),
    Metric("conversion_value_other_count", Rule.CONVERSION, "conversion",
        "Credited conversions whose value is in another currency, or no number."),
)  # fmt: skip
"""A row's counts of credited conversions, in the order of its columns."""

CONVERTED: Final = (
    Metric("conversion_rate", Rule.CONVERSION, Unit.RATIO,
        "Credited conversions by reach; by household reach where no listener is known."),
    Metric("time_to_convert_p50_seconds", Rule.CONVERSION, "second",
        "Median time from the credited touch to the conversion: the upper bound of its class."),
    Metric("time_to_convert_p90_seconds", Rule.CONVERSION, "second",
        "Time from the credited touch to the conversion that nine of ten stay below: the upper bound of "
        "its class."),
)  # fmt: skip


def _of_client(name: str, unit: str) -> tuple[Metric, ...]:
    """The counts once a client: final ones by window, those without a key, and estimates by window."""
    title = name.capitalize()
    final, estimates = [], []
    for window, (words, rule) in CLIENT_WINDOWS.items():
        help_text = f"{title} by the IAB's {window.replace('_', ' ')} window: {rule}."
        text = f"{title} of the flight, once a client by the IAB's {words}; of final minutes."
        series = (Series(f"placement_{name}_{window}_total", text),)
        final.append(Metric(f"{name}_{window}", Rule.CLIENT, unit, help_text, SIDE, series))
        estimate = f"Estimate of what minutes that are not final add to {name}_{window}; it may fall."
        estimates.append(Metric(f"{name}_{window}_provisional", Rule.CLIENT, unit, estimate, SIDE))
    help_text = f"{title} that have no key: no client with consent, or nothing that was sent."
    return (*final, Metric(f"{name}_unkeyed", Rule.UNKEYED, unit, help_text, SIDE), *estimates)


BY_CLIENT: Final = (*_of_client("downloads", "download"), *_of_client("deliveries", "delivery"))
SIDES: Final = (
    *(
        Metric(
            f"impressions_{basis}",
            Rule.PLAY,
            "impression",
            f"Impressions of the basis {basis}: of a play the strongest that its pixels claim until its "
            "minute is final.",
            SIDE,
        )
        for basis in BASES
    ),
    Metric("deliveries", Rule.PLAY, "delivery", "Pixels that say that the ad was sent; no impressions.",
        SIDE),
    Metric("confirmed_plays", Rule.PLAY, "play", "Plays whose start the listener's device itself called.",
        SIDE),
    *BY_CLIENT,
    Metric("play_through", Rule.RATE, Unit.RATIO,
        "Confirmed plays by deliveries, where a row has both and the ratio is at most 1.", SIDE),
)  # fmt: skip
"""Metrics that most pixels do not change. A count of 0 is absent."""
HOUSEHOLD_REACH: Final = Metric(
    "household_reach",
    Rule.PEOPLE,
    "household",
    "Distinct households of an impression or a start.",
    SIDE,
    (Series("placement_reach_households", "Distinct consenting households of the flight."),),
)

MONEY: Final = (
    Metric("cost", Rule.MONEY, Unit.MONEY,
        "Impressions by the plan's price; of the flight those that are delivered up to the plan's end.",
        series=(
            Series("placement_cost",
                "Price of the delivered impressions of the flight, in its plan's currency."),
        ), adcp=("spend",)),
    Metric("cost_per_acquisition", Rule.MONEY, Unit.MONEY, "Cost by conversions.",
        adcp=("cost_per_acquisition",)),
    Metric("return_on_ad_spend", Rule.MONEY, Unit.RATIO,
        "Value of the conversions by cost; claimed values are no part of it."),
)  # fmt: skip


def _both(name: str, text: str) -> tuple[Series, ...]:
    """The series of a plan's metric, with the same help for placements and campaigns."""
    return tuple(Series(f"{scope}_{name}", text) for scope in ("placement", "campaign"))


def _delivery(
    name: str,
    unit: str,
    means: str,
    *series: Series,
    adcp: tuple[str, ...] = (),
    api: str = "",
) -> Metric:
    return Metric(f"delivery.{name}", Rule.DELIVERY, unit, means, NO_WINDOW, series, adcp, api)


JUDGED: Final = (
    _delivery("booked", "impression", "Impressions that the plan has booked.",
        Series("placement_delivery_booked_impressions", "Impressions that its plan has booked."),
        Series("campaign_delivery_booked_impressions", "Impressions that its plans have booked.")),
    _delivery("delivered", "impression", "Impressions of the flight up to its plan's end.",
        Series("placement_delivery_delivered_impressions",
            "Impressions of the flight up to its plan's end."),
        Series("campaign_delivery_delivered_impressions",
            "Impressions of its planned placements' flights up to their ends."), adcp=("impressions",)),
    _delivery("expected", "impression",
        "Impressions that the plan's delivery curve wants by the watermark.",
        Series("placement_delivery_expected_impressions",
            "Impressions that its plan's delivery curve wants by now."),
        Series("campaign_delivery_expected_impressions", "Impressions that its plans want by now.")),
    _delivery("short_by", "impression",
        "Impressions that are due and not delivered; of a campaign the sum of its placements'.",
        *_both("delivery_short_impressions",
            "Impressions that are due and not delivered: 0 where it is ahead, absent while it is not "
            "judged.")),
    _delivery("indicator", Unit.RATIO, "Delivered by expected impressions.",
        *_both("delivery_indicator_ratio",
            "Delivered by expected impressions: 1 is on plan; absent while nothing is to be delivered.")),
    _delivery("state", Unit.WORD, "The judgement of the delivery."),
    _delivery("since_ms", Unit.MILLISECOND, "The watermark at which that state began.",
        Series("placement_delivery_since_timestamp_seconds",
            "Event time at which the state of its delivery began.")),
    _delivery("projected", "impression", "Impressions at the flight's end at the rate of the last hour.",
        Series("placement_delivery_projected_impressions",
            "Impressions at the end of the flight at the last hour's rate."),
        Series("campaign_delivery_projected_impressions",
            "Impressions at the end of its flights at the last hour's rate.")),
    _delivery("required_rate", Unit.AN_HOUR, "Rate that the rest of the flight needs.",
        Series("placement_delivery_required_impressions_per_second",
            "Impressions a second of unpaused time that are still needed; absent while none are."),
        Series("campaign_delivery_required_impressions_per_second",
            "Impressions a second that its placements need together now; absent while none are.")),
    _delivery("start_ms", Unit.MILLISECOND, "The flight's start."),
    _delivery("end_ms", Unit.MILLISECOND, "The flight's end.",
        Series("placement_flight_end_timestamp_seconds", "When the flight of its plan ends."),
        Series("campaign_flight_end_timestamp_seconds", "When the last flight of its plans ends.")),
    _delivery("remaining_seconds", "second", "Unpaused time that is left of the flight."),
    _delivery("target_completion_rate", Unit.RATIO, "Completion rate that the plan wants.",
        Series("placement_target_completion_ratio", "Completion rate that its plan wants.")),
    _delivery("cpm", Unit.MONEY, "The plan's price of a thousand impressions."),
    _delivery("currency", Unit.CODE, "The plan's currency."),
    _delivery("at_stake", Unit.MONEY, "Price of the impressions that are due and not delivered.",
        Series("placement_delivery_at_stake",
            "Price of the impressions that are due and not delivered, in its plan's currency."),
        api="Price of the impressions that are due and not delivered, in whole units of "
        "`delivery.currency`; of a campaign the sum of its placements'."),
    _delivery("at_stake_end", Unit.MONEY,
        "Price of the booked impressions that the projection lacks at the flight's end.",
        Series("placement_delivery_at_stake_end",
            "Price of the booked impressions that its projection lacks at the flight's end, in its plan's "
            "currency."),
        api="Price of the booked impressions that the projection lacks at the flight's end."),
    _delivery("blocked_at_stake", Unit.MONEY, "Price of the impressions in blocked content.",
        api="Price of the impressions in blocked content; absent where there were none."),
)  # fmt: skip
"""Metrics of a plan's flight; its `MONEY` follows them in a row."""
OPENED: Final = (
    _delivery("alerted_state", Unit.WORD, "The state of the last alert, where it is another one."),
    _delivery("judged", Unit.TRUTH, "Whether the delivery is judged: 0 while its feed is silent.",
        api="Of rows with a plan. 0: do not act on it, for `delivery.unjudged_reason`."),
    _delivery("unjudged_reason", Unit.WORD, "Why it is not.",
        api="Why the row is not judged, such as `feed_silent`; absent where it is."),
    _delivery("unjudged_since_ms", Unit.MILLISECOND, "Since when it is not.",
        Series("placement_delivery_unjudged_since_timestamp_seconds",
            "Since when its delivery is not judged, as while its feed is silent; absent while it is judged."),
        api="Since when it is not, epoch ms."),
    _delivery("unjudged_by", Unit.FEED, "The silent unit that had most of its impressions.",
        api="The silent unit, `partition:NAME`, `platform:NAME` or `sender:ID`."),
    Metric("counted_since_ms", Rule.DELIVERY, Unit.MILLISECOND,
        "Moment from which a planned flight was counted: its start, or when the deployment began to count.",
        FLIGHT),
    _delivery("delivered_before", "impression",
        "Opening balance: impressions that were delivered before they were counted, as its source says."),
    _delivery("delivered_before_until_ms", Unit.MILLISECOND,
        "The moment up to which the opening balance is."),
    _delivery("delivered_before_source", Unit.TEXT, "The source of the opening balance."),
    _delivery("gap_ms", Unit.MILLISECOND, "Unpaused time of the flight of which nothing was counted."),
    _delivery("unknown_reason", Unit.WORD, "The reason why the delivered impressions are not known."),
    _delivery("plan_changed_ms", Unit.MILLISECOND,
        "The watermark at which the plan in force came for another one."),
    _delivery("booked_before", "impression",
        "Impressions that the plan before had booked, where these differ."),
)  # fmt: skip
"""Metrics of a plan's flight that follow its money: alert, judgement, opening balance, change."""

SINCE: Final = Metric(
    "since_ms", Rule.DELIVERY, Unit.MILLISECOND, "Event time from which the flight counts.", FLIGHT
)
WHOLE: Final = (
    Metric("pixels", Rule.PLAIN, "pixel", "Accepted pixels without invalid traffic.", FLIGHT),
    Metric("consented", Rule.PLAIN, "pixel", "Those of them with consent.", FLIGHT),
    Metric("repeated", Rule.KEPT_OUT, "pixel", "Pixels that had counted before.", FLIGHT,
        (Series("placement_repeated_total", "Pixels that had counted before."),)),
    Metric("too_late", Rule.KEPT_OUT, "pixel", "Pixels that came after their minute was final.", FLIGHT,
        (Series("placement_too_late_total", "Pixels that came after their minute was final."),)),
    Metric("invalid_traffic", Rule.KEPT_OUT, "pixel", "Pixels of invalid traffic.", FLIGHT,
        (Series("placement_invalid_traffic_total", "Pixels kept out of every other number."),)),
    Metric("blocked_impressions", Rule.PLAY, "impression", "Impressions in content that the plan blocks.",
        FLIGHT,
        (
            Series("placement_blocked_impressions_total",
                "Impressions since its first pixel in content that its plan blocks."),
        )),
)  # fmt: skip
"""Counts of a whole row, since its first pixel."""
COVERAGE: Final = Metric(
    "consent_coverage",
    Rule.RATE,
    Unit.RATIO,
    "Pixels with consent by all of them.",
    FLIGHT,
    tuple(
        Series(name, "Pixels since its first with consent, by all of them.")
        for name in ("placement_consent_coverage_ratio", "platform_consent_ratio")
    ),
)

FREQUENCY: Final = tuple(
    Metric(f"frequency.{name}", Rule.FREQUENCY, unit, means, NO_WINDOW)
    for name, unit, means in (
        ("listeners", "listener", "Listeners of a campaign who have had so many impressions of it."),
        ("conversions", "conversion", "Conversions of listeners who had had so many by then."),
        ("conversion_rate", Unit.RATIO, "Those conversions by the listeners who ever had as many."),
    )
)
"""Metrics of a campaign by impressions per listener. A row has each for each class of impressions."""
ACCOUNT: Final = tuple(
    Metric(
        f"conversions_{name}",
        Rule.CONVERSION,
        "conversion",
        f"Conversions that name the campaign{means}.",
        FLIGHT,
    )
    for name, means in (
        ("accepted", ""),
        ("attributed", " and were credited to anybody"),
        ("unattributed", " and were credited to nobody"),
        ("pending", " and whose minute is not final"),
        ("noisy_household", " and whose household has too many listeners to join them"),
    )
)
"""Conversions that name a campaign, wherever they are credited."""


def _share(name: str, means: str, today: str) -> Metric:
    help_text = (
        f"Of a platform: {means} A row's plays are its impressions, or its starts where these are more."
    )
    series = (Series(f"platform_{name}_ratio", today, "1d"),)
    return Metric(f"{name}_share", Rule.RATE, Unit.RATIO, help_text, SIDE, series)


SHARES: Final = (
    _share("start", "plays that started, with or without a play id, by plays.",
        "Today's plays that started, by plays."),
    _share("first_quartile", "plays that reached a quarter, by plays.",
        "Today's plays that reached a quarter, by plays."),
    _share("midpoint", "plays that reached half, by plays.", "Today's plays that reached half, by plays."),
    _share("third_quartile", "plays that reached three quarters, by plays.",
        "Today's plays that reached three quarters, by plays."),
    _share("complete", "plays that reached the end, by plays.",
        "Today's plays that reached the end, by plays."),
    _share("listener",
        "plays of which a consenting listener is known, by plays; null where some are a start without a "
        "play id.", "Today's plays of which a consenting listener is known, by plays."),
    Metric("play_id_share", Rule.RATE, Unit.RATIO, "Of a platform: starts with a play id, by all starts.",
        SIDE,
        (Series("platform_play_id_ratio", "Today's starts with a play id, by all starts.", "1d"),)),
)  # fmt: skip
"""The shares of a platform's plays that carry each fact."""
DELAY: Final = Metric(
    "delay_p50_seconds",
    Rule.RATE,
    "second",
    "Of a platform: median time from a pixel's event time to its receipt: the upper bound of its class.",
    FLIGHT,
    (
        Series(
            "platform_delay_median_seconds",
            "Median time from a pixel's event time to its receipt, since its first: the upper bound of its "
            "class.",
        ),
    ),
)

METRICS: Final = (
    *COUNTED,
    *RATES,
    *CREDITED,
    *CONVERTED,
    *SIDES,
    HOUSEHOLD_REACH,
    *JUDGED,
    *MONEY,
    *OPENED,
    SINCE,
    *WHOLE,
    COVERAGE,
    *FREQUENCY,
    *ACCOUNT,
    *SHARES,
    DELAY,
)
BY_FIELD: Final = {field: metric for metric in METRICS for field in metric.fields()}
"""The metric of each field of a row, except those of `FREQUENCY`, which a row has for each class."""
