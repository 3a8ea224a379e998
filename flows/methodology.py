"""The description of methodology: how every published number is counted, in words, and its hash.

It is made from the metrics' one declaration (`flows.model.catalogue.metrics`), the words of their rules, and
the settings in force. Nothing of it is written by hand elsewhere, so that it cannot drift. Its hash goes with
the numbers: in `meta`, in every final minute, and as the key of the text in the topic.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec

from flows.intake import DEFAULT_AGENTS
from flows.model.basis import STRONGEST
from flows.model.catalogue.fields import LISTED
from flows.model.catalogue.metrics import METRICS, WINDOWS, Metric, Rule
from flows.model.counts import BY_FLIGHT
from flows.model.pixel import DECLARED_BOT
from flows.model.release import VERSION
from flows.model.ticks import MINUTE_MS, Methods, methods_of
from flows.settings import NO_AGENT, Settings

HASH_BYTES: Final = 8
MAX_HASHES: Final = 256
_PLANNED_LABELS: Final = (
    f" A {', '.join(LISTED[:-1])} or {LISTED[-1]} that no plan in force lists when a pixel is read is "
    "as absent from it."
)
_encode: Final = msgspec.json.Encoder(order="sorted").encode


class Methodology(NamedTuple):
    """The whole description.

    Attributes:
        hash: 16 hexadecimal digits of the text.
        rules: what holds for all numbers, by subject.
        metrics: of each metric its sentences, by subject.
    """

    hash: str
    version: str
    rules: Mapping[str, str]
    metrics: Mapping[str, Mapping[str, str]]

    def line(self) -> tuple[bytes, bytes]:
        """The message of the topic: key and JSON."""
        return self.hash.encode(), _encode(self._asdict())

    def sentences_of(self, metric: str) -> Mapping[str, str] | None:
        """The sentences of a metric, with or without its window; None for an unknown one."""
        window, _, rest = metric.partition(".")
        return self.metrics.get(rest if window in WINDOWS else metric) or self.metrics.get(metric)


def digest(text: bytes) -> str:
    """The hash of a text, as it is published with numbers."""
    return blake2b(text, digest_size=HASH_BYTES).hexdigest()


def methodology(settings: Settings, methods: Methods = ()) -> Methodology:
    """The description of a flow of these settings, whose pixels came through collectors of these methods."""
    rules = _rules(settings)
    if methods:
        parts = " ".join(sorted(method for _, method in methods))
        rules["collectors"] = f"Calls became pixels by the collectors' parts {parts}: each is in the topic."
    metrics = {metric.name: _described(metric, settings) for metric in METRICS}
    return Methodology(digest(_encode([VERSION, rules, metrics])), VERSION, rules, metrics)


class Hashes:
    """The hash of a flow's description, with the methods of the collectors that it has read marks of.

    Attributes:
        of: the hash with some methods; the newest `MAX_HASHES` are remembered, since marks choose them.
    """

    def __init__(self, settings: Settings) -> None:
        self.of = lru_cache(MAX_HASHES)(lambda methods: methodology(settings, methods).hash)

    def of_minute(self, methods: Methods, at_ms: int) -> str:
        """The hash for the minute of a time, with the methods whose marks came by its end."""
        return self.of(methods_of(methods, at_ms - at_ms % MINUTE_MS))


def _long(duration: timedelta) -> str:
    for unit, seconds in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        if duration >= timedelta(seconds=seconds) and duration.total_seconds() % seconds == 0:
            return f"{duration.total_seconds() / seconds:g} {unit}"
    return f"{duration.total_seconds():g} s"


def _rules(settings: Settings) -> dict[str, str]:
    consent = "must be given" if settings.consent == "required" else "is assumed where a pixel is silent"
    return {
        "time": "Event time is the caller's clock, held to between 24 h before and 60 s after the receipt. "
        f"The watermark stays {_long(settings.out_of_orderness)} behind the greatest event time, of a quiet "
        f"partition {_long(settings.quiet)} behind the elapsed time. It waits for what collectors still "
        f"hold, at most {_long(settings.max_hold)} and {settings.max_state} pixels of a partition.",
        "lateness": f"A minute is provisional until {_long(settings.allowed_lateness)} after its end by the "
        "watermark, then final; what comes later is too late and never counts.",
        "consent": f"Consent {consent}. Without it a pixel counts, and nobody is known by it.",
        "identity": "Listeners, households, plays and events are known by keyed hashes; the operator alone "
        "has the key.",
        "joining": "A conversion that names its placement is credited there. Any other is credited to "
        "eligible touches of its own listener, else of its household, else of both by the edge's key of "
        f"before, else by utm_content to a placement of the plans{_utm(settings)}. One that names a campaign "
        "is credited to touches of that campaign alone, by utm_content to no placement whose plan names "
        "another. A credit without a touch is of the conversion's campaign, else of its placement's plan's. "
        "A household of more than "
        f"{settings.household_listeners} listeners within {_long(settings.listen_window)} joins nobody.",
        "claims": _claims(settings),
        "invalid_traffic": " ".join(_lists(settings)),
        "basis": _bases(settings),
        "calendar": f"A day is a calendar day in {settings.timezone}.",
        "flight": f"A row of which nothing was heard for {_long(settings.row_memory)} begins anew.",
        "rows": f"A scope has rows of {settings.row_cap} names, an equal part of them in each shard, and of "
        f"all planned ones. At most {settings.unplanned_rows} rows of all scopes are of names that no plan "
        f"has, and none of these begins while they take {settings.unplanned_bytes} bytes of memory. Names "
        "beyond that count together as other." + (_PLANNED_LABELS if settings.labels == "planned" else ""),
        "maturity": "Starts count in mature_completion_rate once their minute ended "
        f"{_long(settings.mature_after)} ago.",
        "delivery": "A flight is not judged in the first "
        f"{_long(settings.delivery_grace)} of unpaused time in which it is counted. It is under where its "
        f"indicator is below {settings.under}, over where it is above {settings.over}, each by more than a "
        f"standard error and for {_long(settings.state_hold)}. One that began more "
        "than 15 min, and more than 0.1 % of its length, before anything was counted is unknown_before.",
        "version": f"audiopixel {VERSION}",
    }


def _claims(settings: Settings) -> str:
    """Conversions of public tags and of servers."""
    return (
        "A conversion that a public tag has sent is claimed. Whose conversions count is what the plans of "
        f"its campaign say, server if any of them says so, else {settings.conversions_from}. By server a "
        "claimed conversion takes no order's place and counts in conversions_claimed alone. By browser the "
        "first of an order counts; a server's that comes behind a claimed one, within "
        f"{_long(settings.conversion_horizon)}, confirms it where it was credited, in the minute of the "
        "later of both, and else counts as new."
    )


def _utm(settings: Settings) -> str:
    """The settings' own table of utm_content, which may be long."""
    if not settings.utm_placements:
        return ""
    return f", or by the settings' table, hash {digest(_encode(settings.utm_placements))}"


def _bases(settings: Settings) -> str:
    own = [f"{platform}: {basis}" for platform, basis in sorted(settings.platform_basis.items())]
    named = f" Of platforms whose pixels say none: {', '.join(own)}." if own else ""
    return (
        "An impression has the basis that its pixel says, else its platform's, else vast_impression; of a "
        f"play with several the strongest counts, in the order {', '.join(STRONGEST)}.{named}"
    )


def _lists(settings: Settings) -> list[str]:
    default = digest(_encode(DEFAULT_AGENTS))
    sentences = [
        "Invalid traffic is accepted, counted by reason, and kept out of every other number.",
        f"{DECLARED_BOT}: the flow's own rule for user agents, of version {VERSION}, hash {default}.",
    ]
    for reason, expression in settings.invalid_agents.items():
        if expression != NO_AGENT:
            sentences.append(f"{reason}: an expression of the settings, hash {digest(expression.encode())}.")
    return [*sentences, "A reason that the collector found counts as it is; its lists are in its own part."]


def _described(metric: Metric, settings: Settings) -> dict[str, str]:
    sentences = {
        "counts": metric.means,
        "unit": str(metric.unit),
        "windows": _windows(metric, settings),
        "once": _once(metric, settings),
        "minute": _minute(metric.rule),
        "consent": _consent(metric.rule),
        "lookback": _lookback(metric.rule, settings),
        "accuracy": _ACCURACY if metric.name in _REACHED else "",
    }
    return {subject: sentence for subject, sentence in sentences.items() if sentence}


_REACHED: Final = ("reach", "household_reach")
_ACCURACY: Final = (
    "Exact up to 1,000, then an estimate (HyperLogLog) with a standard error of 0.8 %: two of three values "
    "lie within it."
)
_UNLINKED: Final = "unlinked_"
_ALSO_UNLINKED: Final = {
    metric.name.removeprefix(_UNLINKED) for metric in METRICS if metric.name.startswith(_UNLINKED)
}
"""Metrics whose pixels without a play id another metric counts."""
_SINCE_FIRST: Final = (*BY_FLIGHT, "consent_coverage")
"""Metrics that are not counted by minutes, so that a plan's start splits nothing of them."""


def _windows(metric: Metric, settings: Settings) -> str:
    if metric.rule is Rule.FREQUENCY:
        return "Since a listener's first impression of the campaign, until 60 d without one."
    window_words = {
        "5m": "5m: the five minutes up to the watermark's",
        "1h": "1h: the sixty minutes up to the watermark's",
        "1d": f"1d: the calendar day in {settings.timezone}",
        "flight": "flight: since the plan's start, without a plan since the first pixel",
    }
    if metric.name in _SINCE_FIRST:
        return "flight: since the first pixel, also with a plan."
    windows = "; ".join(window_words[window] for window in metric.windows)
    return f"{windows}." if windows else "At the watermark."


def _once(metric: Metric, settings: Settings) -> str:
    match metric.rule:
        case Rule.PLAY | Rule.START | Rule.OF_PLAY | Rule.PLAIN | Rule.UNKEYED:
            key, besides = _key(metric)
            return f"Once by {key}; recognised for {_long(settings.horizon)} behind the watermark.{besides}"
        case Rule.CLIENT:
            return (
                "By a keyed hash of client and content: of a download its episode, else its podcast; of a "
                "delivery its creative, else its placement, and its episode; remembered for 25 h. At one "
                "moment the order is by a hash of the event id."
            )
        case Rule.KEPT_OUT:
            return "Every pixel that was kept out."
        case Rule.CONVERSION | Rule.CONFIRMED:
            return (
                "Once by campaign, type and order id; without an order by campaign and event id; recognised "
                f"for {_long(settings.conversion_horizon)}."
            )
        case _:
            return ""


def _key(metric: Metric) -> tuple[str, str]:
    """The key by which a pixel counts once, and the metric that counts it without a play id."""
    if metric.name.startswith(_UNLINKED):
        return "placement and event id", ""
    if metric.name in _ALSO_UNLINKED:
        return "placement, play and event", f" Pixels without a play id count in {_UNLINKED}{metric.name}."
    if metric.rule in (Rule.START, Rule.OF_PLAY) or metric.name == "orphans":
        return "placement, play and event", " Pixels without a play id do not count in it."
    return "placement, play and event; without a play id by placement and event id", ""


def _minute(rule: Rule) -> str:
    match rule:
        case Rule.START:
            return "In the minute of the play's start, however late the milestone comes."
        case Rule.OF_PLAY:
            return "In the minute of the play's start; in its own while there is none."
        case Rule.CLIENT:
            return "In the minute of its own event time, decided when that is final, by order of event time."
        case Rule.PLAY | Rule.PLAIN | Rule.KEPT_OUT | Rule.PEOPLE | Rule.UNKEYED:
            return "In the minute of its own event time."
        case Rule.CONVERSION:
            return "In the minute of the conversion, decided once when that minute is final."
        case Rule.CONFIRMED:
            return "In the minute of the confirmation, decided once when that minute is final."
        case _:
            return ""


def _consent(rule: Rule) -> str:
    if rule in (Rule.PEOPLE, Rule.FREQUENCY):
        return "Only listeners who consented are known and count."
    if rule in (Rule.CONVERSION, Rule.CONFIRMED):
        return "Touches of listeners who consented alone are remembered; declared and utm need none."
    if rule is Rule.CLIENT:
        return "Only clients who consented have a key."
    counted = (Rule.PLAY, Rule.START, Rule.OF_PLAY, Rule.PLAIN, Rule.UNKEYED)
    return "Not needed." if rule in counted else ""


def _lookback(rule: Rule, settings: Settings) -> str:
    if rule not in (Rule.CONVERSION, Rule.CONFIRMED):
        return ""
    if settings.attribution == "off":
        return "No touches are kept: only declared and utm conversions are credited."
    half = f", half-life {_long(settings.half_life)}" if settings.attribution == "time_decay" else ""
    return (
        f"Credited by {settings.attribution}{half}: clicks of the last {_long(settings.click_window)}, "
        f"listens of the last {_long(settings.listen_window)}; a listener's newest {settings.touch_listens} "
        f"listens and {settings.touch_clicks} clicks of a campaign, {settings.touch_listens_in_all} and "
        f"{settings.touch_clicks_in_all} of all."
    )
