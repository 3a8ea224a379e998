"""The findings of `sources check`: outcomes of messages, metrics that they allow, times, and consent."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from rich.table import Table

from flows.collector.call import Outcome, Understood
from flows.collector.cleaner import wall_time
from flows.collector.consent import WORDS
from flows.model.catalogue.fields import CALLER_FIELDS
from flows.model.events import UNKNOWN_EVENT
from flows.shown import LINE, cell, shown
from flows.sources.paths import Message, Path, is_present, plain
from flows.sources.source import Source, alternatives, parse_source, presets
from flows.sources.unreadable import UnreadableValues

MOST_REJECTED: Final = 0.01
"""The greatest acceptable share of rejected messages among ours."""
MAX_EVENTS: Final = 1_000
"""The greatest number of events' names with a count of their own. Further names share one count."""
MOST_EVENTS: Final = 10
"""The greatest number of events' names in a line of the report."""
LONGEST_EVENT: Final = 64
OTHERS: Final = "others"
AHEAD_MS: Final = 5_000
"""The time by which an event may be later than its receipt before its clock counts as ahead."""
_CONSENT: Final[Mapping[str, str]] = {str(reason): words for reason, words in WORDS.items()}
_NUMBER: Final = re.compile(r"-?\d{1,20}(?:\.\d{0,20})?", re.ASCII)
_QUARTILES: Final = ("firstQuartile", "midpoint", "thirdQuartile", "complete")


class Metric(NamedTuple):
    """A metric.

    Attributes:
        able: the number of pixels that allow the metric.
        pixels: the number of pixels that concern it.
        why: the reason if some of them do not allow it.
    """

    name: str
    able: int
    pixels: int
    why: str

    @property
    def state(self) -> str:
        """`whole`, `in part`, or `absent`."""
        if not self.able:
            return "absent"
        return "whole" if self.able == self.pixels else f"in part: {self.able / self.pixels:.1%}"


@dataclass
class Report:
    """The findings so far.

    Args:
        source: the checked source.
        lateness_ms: the lateness that the flow allows.

    Attributes:
        read, not_ours: numbers of messages.
        events: pixels by event.
        rejected: messages by reason and field; `first` has the position of the first of each.
        consent, invalid: pixels by basis of consent, and by reason of invalid traffic.
        has: pixels by event and name of a field that they have.
        unreplaced: pixels with a macro that was sent as it is.
        ahead: pixels whose event is over `AHEAD_MS` later than its receipt.
        late_ms: the lateness of each pixel.
        units: pixels by unit of their time.
        foreign, unknown: messages by event: not ours, and unknown.
        nothing: rejected messages by field without a value.
        listed: events of `values.event` that a message has.
        categories: pixels with an object or a list at `consent`.
        walls: pixels whose time has no offset.
        ids: pixels by hash of their event id.
        unreadable: values that cannot be read.
    """

    source: Source
    lateness_ms: int
    read: int = 0
    not_ours: int = 0
    events: Counter[str] = field(default_factory=Counter)
    rejected: Counter[tuple[str, str]] = field(default_factory=Counter)
    first: dict[tuple[str, str], str] = field(default_factory=dict)
    consent: Counter[str] = field(default_factory=Counter)
    invalid: Counter[str] = field(default_factory=Counter)
    has: Counter[tuple[str, str]] = field(default_factory=Counter)
    unreplaced: int = 0
    ahead: int = 0
    late_ms: list[int] = field(default_factory=list)
    units: Counter[str] = field(default_factory=Counter)
    foreign: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    nothing: Counter[str] = field(default_factory=Counter)
    listed: set[str] = field(default_factory=set)
    categories: int = 0
    walls: int = 0
    ids: Counter[int] = field(default_factory=Counter)
    unreadable: UnreadableValues = field(default_factory=UnreadableValues)

    def __post_init__(self) -> None:
        self._paths = {
            name: [Path(one) for one in alternatives(paths)] for name, paths in self.source.names.items()
        }

    def take(self, message: Message, understood: Understood | None) -> None:
        """Count one message's outcome."""
        self.read += 1
        event_name = plain(event) if is_present(event := self._value(message, "event")) else ""
        if event_name in self.source.values.get("event", ()):
            self.listed.add(event_name)
        if understood is None or understood.outcome is Outcome.NOT_COUNTED:
            self.not_ours += 1
            if event_name:
                _count(self.foreign, event_name)
            return
        self.unreadable.take(understood)
        if understood.outcome is Outcome.REJECTED:
            reason = understood.reason, understood.wrong
            self.rejected[reason] += 1
            self.first.setdefault(reason, f"{message.topic}/{message.partition}/{message.offset}")
            if understood.reason == UNKNOWN_EVENT:
                _count(self.unknown, str(understood.event.get("event", "")))
            mapped = understood.wrong.removeprefix("conversion.")
            if mapped in self._paths and self._value(message, mapped) is None:
                self.nothing[mapped] += 1
            return
        time = self._value(message, "ts")
        if time is not None:
            self.units[unit_of(plain(time))] += 1
            self.walls += wall_time(plain(time)) is not None
        event = understood.event
        kind = event["event"]
        self.events[kind] += 1
        self.ids[hash(event["event_id"])] += 1
        self.consent[understood.consent] += 1
        self.categories += isinstance(self._value(message, "consent"), Mapping | list)
        self.unreplaced += understood.unreplaced
        if invalid_reason := event.get("invalid_traffic"):
            self.invalid[invalid_reason] += 1
        for name in event:
            self.has[kind, name] += 1
        for name in event.get("conversion", ()):
            self.has[kind, f"conversion.{name}"] += 1
        behind_ms = event["received_at"] - event["ts"]
        self.ahead += behind_ms < -AHEAD_MS
        self.late_ms.append(max(0, behind_ms))

    def _value(self, message: Message, name: str) -> Any:
        """The value of a mapped field; None if nothing stands at its paths."""
        values_at_paths = (path.value_in(message) for path in self._paths.get(name, ()))
        return next((one for one in values_at_paths if is_present(one)), None)

    @property
    def pixels(self) -> int:
        """The number of messages that are pixels."""
        return self.events.total()

    @property
    def late_99_ms(self) -> int:
        """The lateness, in ms, that 99 % of the pixels do not exceed; 0 if there are none."""
        return _quantile(sorted(self.late_ms), 0.99)

    def metrics(self) -> Iterator[Metric]:
        """Each metric, and whether these pixels allow it."""
        for kind, article in (("impression", "an"), ("start", "a")):
            count = self.events[kind]
            yield Metric(f"{kind}s", count, count, f"no message is {article} {kind}")
        quartiles = sum(self.events[kind] for kind in _QUARTILES)
        yield Metric("quartiles", quartiles, quartiles, "no message is a quartile or complete")
        plays = self._counts_with(("start", *_QUARTILES), "play_id")
        yield Metric("completion rate", *plays, "a play's pixels are linked by its play_id")
        yield Metric("reach, frequency", *self._counts_with(("impression",), "listener_id"), self._listener())
        yield Metric(
            "reach by household", *self._counts_with(("impression",), "household_id"), self._household()
        )
        conversions = self.events["conversion"]
        yield Metric("conversions", conversions, conversions, "no message is a conversion")
        if conversions:
            yield Metric("attribution", *self._counts_with(("conversion",), "listener_id"), self._listener())
            yield Metric(
                "value", *self._counts_with(("conversion",), "conversion.value"), "needs value and currency"
            )
        pixels = tuple(self.events)
        for name in CALLER_FIELDS[1:]:
            yield Metric(
                name.removesuffix("_id"), *self._counts_with(pixels, name), f"{name} is not mapped, or absent"
            )
        agents = self.pixels if "user_agent" in self.source.names else 0
        yield Metric("invalid traffic", agents, self.pixels, "user_agent is not mapped")

    def table(self) -> Table:
        """The metrics as a table."""
        table = Table(box=None, pad_edge=False)
        for head in ("metric", "these messages give it", "because"):
            table.add_column(head, overflow="fold")
        for metric in self.metrics():
            table.add_row(metric.name, metric.state, "" if metric.state == "whole" else metric.why)
        return table

    def lines(self) -> Iterator[str]:
        """The findings in sentences, the most important first."""
        rejected = self.rejected.total()
        outcomes = f"pixels {self.pixels:,} + not ours {self.not_ours:,} + rejected {rejected:,}"
        yield f"read {self.read:,} = {outcomes}"
        if self.events:
            yield "pixels: " + _counts(self.events)
        if self.foreign:
            yield "events that are not ours: " + _counts(self.foreign, MOST_EVENTS)
        if self.unknown:
            yield "unknown events: " + _counts(self.unknown, MOST_EVENTS)
        for name, count in self.nothing.most_common():
            paths = " or ".join(alternatives(self.source.names[name]))
            yield f"{name}: nothing stands at {paths} in {count:,} messages"
        if unseen := self._unseen():
            names = ", ".join(f'"{shown(name, LONGEST_EVENT)}"' for name in unseen[:MOST_EVENTS])
            unshown = f" and {len(unseen) - MOST_EVENTS:,} more" if len(unseen) > MOST_EVENTS else ""
            yield f"values.event: no message has {names}{unshown}"
        if self.late_ms:
            late = sorted(self.late_ms)
            quantiles = ", ".join(
                f"{share:.0%} {_quantile(late, share) / 1000:,.1f} s" for share in (0.5, 0.9, 0.99)
            )
            beyond = sum(one > self.lateness_ms for one in late)
            yield (
                f"lateness: {quantiles}; allowed are {self.lateness_ms / 1000:,.0f} s, "
                f"which {beyond / len(late):.1%} exceed"
            )
        if self.ahead:
            yield f"clocks: {self.ahead:,} events are over {AHEAD_MS // 1000} s later than their receipt"
        if self.consent:
            bases = ((_CONSENT.get(reason, reason), count) for reason, count in self.consent.most_common())
            yield "consent: " + ", ".join(f"{words} {count:,}" for words, count in bases)
        if self.categories:
            yield (
                f"consent: {self.categories:,} messages have an object or a list at consent, which counts as "
                "no consent: map the category that allows measurement"
            )
        if self.invalid:
            yield "invalid traffic: " + _counts(self.invalid)
        if self.unreplaced:
            yield f"macros: {self.unreplaced:,} pixels have a macro that was not replaced"
        if shared := [count for count in self.ids.values() if count > 1]:
            yield f"repeats: {sum(shared):,} messages share {len(shared):,} ids, and each id counts once"
        if not self.recognises_repeats:
            yield "repeats of these events cannot be recognised: map event_id, or name identity"
        elif self._by_urls:
            yield (
                "repeats of these events are recognised only if the tag's URL has a play or a random number: "
                "name identity"
            )
        recognised = f"; of these messages: {_counts(self.units)}" if self.units else ""
        yield f"times: {_units(self.source)}{recognised}"
        if self.walls:
            zone = self.source.timezone or 'UTC (timezone = "Europe/Stockholm" names another zone)'
            yield f"times: {self.walls:,} have no offset: read as {zone}"
        yield from self.unreadable.lines()

    def _unseen(self) -> list[str]:
        """The events of the source's own table, not of its preset's, that no message has."""
        preset = self.source.preset
        preset_events = (
            parse_source(presets()[preset], preset, preset).values.get("event", {}) if preset else {}
        )
        table = self.source.values.get("event", {}) if self.read else {}
        return sorted(table.keys() - preset_events.keys() - self.listed)

    @property
    def recognises_repeats(self) -> bool:
        """True if a message that is written twice counts once."""
        names = self.source.names
        return (
            "event_id" in names or bool(self.source.identity) or "play_id" in names or bool(self.source.url)
        )

    @property
    def _by_urls(self) -> bool:
        """True if nothing but a tag's URL can recognise a repeat."""
        names = self.source.names
        return bool(self.source.url) and "event_id" not in names and not self.source.identity

    def rejections(self) -> Table:
        """The rejections by reason and field, with the first position of each."""
        table = Table(box=None, pad_edge=False)
        for head in ("reason", "field", "messages", "first at"):
            table.add_column(head, justify="right" if head == "messages" else "left", overflow="fold")
        for (reason, wrong), count in self.rejected.most_common(20):
            table.add_row(reason, wrong or "–", f"{count:,}", cell(self.first[reason, wrong], LINE))
        return table

    def faults(self) -> Sequence[str]:
        """The reasons against running this source."""
        reasons, ours = [], self.pixels + self.rejected.total()
        if not self.pixels and (self.read or self.source.files is None):
            reasons.append("no message is a pixel")
        elif self.rejected.total() > MOST_REJECTED * ours:
            reasons.append(
                f"{self.rejected.total() / ours:.1%} are rejected; at most {MOST_REJECTED:.0%} may be"
            )
        if self.source.live and self.late_99_ms > self.lateness_ms:
            beyond = sum(one > self.lateness_ms for one in self.late_ms) / len(self.late_ms)
            reasons.append(
                f"{beyond:.1%} of these events are too late: 1 % come over {self.late_99_ms / 1000:,.0f} s "
                f"late, and the flow allows {self.lateness_ms / 1000:,.0f} s (AUDIOPIXEL_ALLOWED_LATENESS)"
            )
        return reasons

    def _counts_with(self, kinds: Sequence[str], name: str) -> tuple[int, int]:
        """The number of pixels of some kinds that have a field, and the number of all of these pixels."""
        return sum(self.has[kind, name] for kind in kinds), sum(self.events[kind] for kind in kinds)

    def _listener(self) -> str:
        names = self.source.names
        if not {"listener_id", "ifa"} & names.keys() and not ({"ip", "user_agent"} <= names.keys()):
            return "no listener is mapped (listener_id, ifa, or ip with user_agent)"
        return "a message needs a listener and consent"

    def _household(self) -> str:
        if "ip" not in self.source.names and not self.source.url:
            return "no address is mapped (ip)"
        return "a message needs an address and consent"


def unit_of(time: str) -> str:
    """The likely unit of a time."""
    if _NUMBER.fullmatch(time.strip()) is None:
        return "ISO 8601"
    number = float(time)
    return "seconds" if number < 1e11 else "milliseconds" if number < 1e14 else "microseconds"


def _count(counts: Counter[str], name: str) -> None:
    """Count a name that a sender may have invented, in a bounded table."""
    name = shown(name[: LONGEST_EVENT + 1], LONGEST_EVENT)
    counts[name if name in counts or len(counts) < MAX_EVENTS else OTHERS] += 1


def _counts(counts: Counter[str], most: int | None = None) -> str:
    """Names with their counts, the most frequent first.

    Args:
        most: the number of names to show. The other names are counted.
    """
    named = counts.most_common(most)
    unnamed = len(counts) - len(named)
    unnamed_words = (
        [f"{unnamed:,} more names {counts.total() - sum(count for _, count in named):,}"] if unnamed else []
    )
    return ", ".join([*(f"{name} {count:,}" for name, count in named), *unnamed_words])


def _quantile(ordered: Sequence[int], share: float) -> int:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0


def _units(source: Source) -> str:
    units = {
        "s": "seconds since 1970",
        "ms": "milliseconds since 1970",
        "us": "microseconds since 1970",
        "iso": "ISO 8601",
        "": "numbers by their magnitude (seconds, ms, µs), text as ISO 8601",
    }
    mapped = "ts" in source.names or source.url
    return units[source.time] if mapped else "no ts is mapped: an event is of the time of its receipt"
