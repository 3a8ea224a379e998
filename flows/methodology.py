"""The description of methodology: how every published number is counted, in words, and its hash.

The description is made from the declarations of metrics (`flows.model.catalogue.metrics`), the words of their
rules, and the settings in force. No part of it is written by hand elsewhere. Its hash is published with the
numbers: in `meta`, in every final minute, and as the key of the text in the topic.
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
    f" A {', '.join(LISTED[:-1])} or {LISTED[-1]} that no plan in force lists when a pixel is read "
    "counts as absent."
)
_encode: Final = msgspec.json.Encoder(order="sorted").encode


class Methodology(NamedTuple):
    """The whole description.

    Attributes:
        hash: the hash of the text, 16 hexadecimal digits.
        rules: the rules of all numbers, by subject.
        metrics: the sentences of each metric, by subject.
    """

    hash: str
    version: str
    rules: Mapping[str, str]
    metrics: Mapping[str, Mapping[str, str]]

    def line(self) -> tuple[bytes, bytes]:
        """The description as a message of the topic: key and JSON."""
        return self.hash.encode(), _encode(self._asdict())

    def sentences_of(self, metric: str) -> Mapping[str, str] | None:
        """The sentences of a metric, with or without its window; None for an unknown one."""
        window, _, name = metric.partition(".")
        return self.metrics.get(name if window in WINDOWS else metric) or self.metrics.get(metric)


def digest(text: bytes) -> str:
    """The hash of a text, as it is published with numbers."""
    return blake2b(text, digest_size=HASH_BYTES).hexdigest()


def methodology(settings: Settings, methods: Methods = ()) -> Methodology:
    """The description of a flow of these settings, whose pixels came through collectors of these methods."""
    rules = _rules(settings)
    if methods:
        parts = " ".join(sorted(method for _, method in methods))
        rules["collectors"] = (
            f"Collectors made pixels of calls by the parts {parts}; the topic has each part."
        )
    metrics = {metric.name: _described(metric, settings) for metric in METRICS}
    return Methodology(digest(_encode([VERSION, rules, metrics])), VERSION, rules, metrics)


class Hashes:
    """The hash of a flow's description, with the methods of the collectors whose marks it has read.

    Attributes:
        of: the hash with some methods. Marks choose the methods, so only `MAX_HASHES` hashes are cached.
    """

    def __init__(self, settings: Settings) -> None:
        self.of = lru_cache(MAX_HASHES)(lambda methods: methodology(settings, methods).hash)

    def of_minute(self, methods: Methods, at_ms: int) -> str:
        """The hash for the minute of a time in epoch ms, with the methods whose marks came by the minute's
        end.
        """
        return self.of(methods_of(methods, at_ms - at_ms % MINUTE_MS))


def _long(duration: timedelta) -> str:
    for unit, seconds in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        if duration >= timedelta(seconds=seconds) and duration.total_seconds() % seconds == 0:
            return f"{duration.total_seconds() / seconds:g} {unit}"
    return f"{duration.total_seconds():g} s"


def _rules(settings: Settings) -> dict[str, str]:
    consent = "must be given" if settings.consent == "required" else "is assumed if a pixel does not state it"
    return {
        "time": "Event time is the caller's clock, limited to the span from 24 h before the receipt to 60 s "
        f"after it. The watermark is {_long(settings.out_of_orderness)} behind the greatest event time, and "
        f"in a quiet partition {_long(settings.quiet)} behind the elapsed time. It waits for events that "
        f"collectors have not sent yet, for at most {_long(settings.max_hold)} and {settings.max_state} "
        "pixels of a partition.",
        "lateness": f"A minute is provisional until {_long(settings.allowed_lateness)} after its end by the "
        "watermark, then final. A pixel that comes later is too late and never counts.",
        "consent": f"Consent {consent}. A pixel without consent counts, and identifies no listener.",
        "identity": "Listeners, households, plays and events are identified by keyed hashes. Only the "
        "operator has the key.",
        "joining": "A conversion that names its placement is credited to it. Any other is credited to "
        "eligible touches of its own listener, else of its household, else of both by the edge's previous "
        f"key, else by utm_content to a placement of the plans{_utm(settings)}. A conversion that names a "
        "campaign is credited to touches of that campaign alone, and by utm_content to no placement whose "
        "plan names another campaign. A credit without a touch has the conversion's campaign, else the "
        "campaign of its placement's plan. Touches of a household are not eligible if it has more than "
        f"{settings.household_listeners} listeners within {_long(settings.listen_window)}.",
        "claims": _claims(settings),
        "invalid_traffic": " ".join(_lists(settings)),
        "basis": _bases(settings),
        "calendar": f"A day is a calendar day in {settings.timezone}.",
        "flight": f"A row without a pixel for {_long(settings.row_memory)} begins again.",
        "rows": f"A scope has rows of {settings.row_cap} names, an equal part of them in each shard, and of "
        f"all planned names. At most {settings.unplanned_rows} rows of all scopes are of names that no plan "
        f"has, and no such row begins while they take {settings.unplanned_bytes} bytes of memory. Names "
        "beyond these limits count together as other."
        + (_PLANNED_LABELS if settings.labels == "planned" else ""),
        "maturity": "Starts count in mature_completion_rate once their minute ended "
        f"{_long(settings.mature_after)} ago.",
        "delivery": "A flight is not judged in the first "
        f"{_long(settings.delivery_grace)} of unpaused time in which it is counted. It is under if its "
        f"indicator is below {settings.under}, over if it is above {settings.over}, each by more than a "
        f"standard error and for {_long(settings.state_hold)}. A flight that began more "
        "than 15 min, and more than 0.1 % of its length, before anything was counted is unknown_before.",
        "version": f"audiopixel {VERSION}",
    }


def _claims(settings: Settings) -> str:
    """The rule of conversions of public tags and of servers."""
    return (
        "A conversion that a public tag has sent is claimed. The plans of its campaign set whose conversions "
        "count, server if any of them says server; without such a plan the setting does, "
        f"{settings.conversions_from}. With server a claimed conversion does not take its order's place, and "
        "counts in conversions_claimed alone. With browser the first conversion of an order counts. A "
        f"server's conversion that comes after a claimed one, within {_long(settings.conversion_horizon)}, "
        "confirms it where it was credited, in the minute of the later of both, and else counts as new."
    )


def _utm(settings: Settings) -> str:
    """The settings' own table of utm_content as its hash, since the table may be long."""
    if not settings.utm_placements:
        return ""
    return f", or by the settings' table, hash {digest(_encode(settings.utm_placements))}"


def _bases(settings: Settings) -> str:
    own = [f"{platform}: {basis}" for platform, basis in sorted(settings.platform_basis.items())]
    named = f" Bases of platforms whose pixels state none: {', '.join(own)}." if own else ""
    return (
        "An impression has the basis that its pixel states, else its platform's, else vast_impression. Of "
        f"several bases of one play the strongest counts, in the order {', '.join(STRONGEST)}.{named}"
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
    return [
        *sentences,
        "A reason that the collector found counts unchanged; the collector's lists are in its own part.",
    ]


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
"""Metrics of which another metric counts the pixels without a play id."""
_SINCE_FIRST: Final = (*BY_FLIGHT, "consent_coverage")
"""Metrics that are not counted by minutes, so that a plan's start cannot split them."""


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
                "delivery its creative, else its placement, and its episode; remembered for 25 h. "
                "Events of one moment are in the order of a hash of their event ids."
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
        return "Only listeners with consent count."
    if rule in (Rule.CONVERSION, Rule.CONFIRMED):
        return "Only touches of listeners with consent are stored; declared and utm credits need no consent."
    if rule is Rule.CLIENT:
        return "Only clients with consent have a key."
    counted = (Rule.PLAY, Rule.START, Rule.OF_PLAY, Rule.PLAIN, Rule.UNKEYED)
    return "Not needed." if rule in counted else ""


def _lookback(rule: Rule, settings: Settings) -> str:
    if rule not in (Rule.CONVERSION, Rule.CONFIRMED):
        return ""
    if settings.attribution == "off":
        return "No touches are stored; only declared and utm conversions are credited."
    half = f", half-life {_long(settings.half_life)}" if settings.attribution == "time_decay" else ""
    return (
        f"Credited by {settings.attribution}{half}: clicks of the last {_long(settings.click_window)}, "
        f"listens of the last {_long(settings.listen_window)}; a listener's newest {settings.touch_listens} "
        f"listens and {settings.touch_clicks} clicks of a campaign, {settings.touch_listens_in_all} and "
        f"{settings.touch_clicks_in_all} of all."
    )
