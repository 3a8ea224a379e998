"""Instruments of a collector: its metrics, its liveness and its readiness."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector as Registered

from flows import process_metrics as m
from flows.collector.call import Outcome, Understood
from flows.collector.lane import Lane
from flows.collector.ledger import REFUSALS, Ledger
from flows.collector.stages import Stages
from flows.collector.unverified import UnverifiedServers
from flows.registry import Registry

MAX_PLATFORMS: Final = 1_000
MAX_PLACEMENTS: Final = 10_000
"""The greatest number of placements whose pixels are counted, for a rate of unreplaced macros."""
MAX_FIRED: Final = 100_000
"""The greatest number of placements that are reported at a time as having sent a pixel."""


class Instruments(Registered):
    """The collector's metrics, read from its ledger and its lane at each scrape.

    Attributes:
        rejected, not_counted, consent, invalid_traffic: events by reason.
        senders: events by sender, and whether they were stored or rejected.
        fires: by placement, its pixels and those of them with an unreplaced macro; for the first
            `MAX_PLACEMENTS` placements alone.
        platforms: the same by platform, for the first `MAX_PLATFORMS` platforms.
        stages: the time that each stage of a call takes.
        fired: placements that have sent a pixel since `take_fired`, at most `MAX_FIRED`, also without an
            entry in `fires`.
        unverified: servers that name other devices and have no right to.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._cleaned: Counter[tuple[str, str, str]] = Counter()
        self.rejected: Counter[str] = Counter()
        self.senders: Counter[tuple[str, str]] = Counter()
        self.not_counted: Counter[str] = Counter()
        self.consent: Counter[str] = Counter()
        self.invalid_traffic: Counter[str] = Counter()
        self.fires: dict[str, list[int]] = {}
        self.platforms: dict[str, list[int]] = {}
        self.fired: set[str] = set()
        self.unverified = UnverifiedServers()
        self._answers: Counter[int] = Counter()
        self.stages = Stages()
        self.unsent: Callable[[], int] = lambda: 0
        self.lane: Callable[[], Lane | None] = lambda: None
        self.ready: Callable[[], bool] = lambda: False
        self.registry = Registry()
        self.registry.register(self)

    def cleaned(self, dialect: str, word: str, how: str) -> None:
        """Count a cleaned value. All three arguments are the collector's own names, so their combinations are
        bounded. An enemy could fill a lower cap, which would then hide a vendor's fault.
        """
        self._cleaned[dialect, word, how] += 1

    def count(self, understood: Sequence[Understood]) -> None:
        """Count events by outcome, before they are stored."""
        for result in understood:
            if result.outcome is Outcome.STORED:
                self._count_event(result)
            elif result.outcome is Outcome.REJECTED:
                self.rejected[result.reason] += 1
                self.senders[result.sender, str(result.outcome)] += 1
            else:
                self.not_counted[result.reason] += 1

    def _count_event(self, result: Understood) -> None:
        self.senders[result.sender, str(result.outcome)] += 1
        self.consent[result.consent] += 1
        if reason := result.event.get("invalid_traffic"):
            self.invalid_traffic[reason] += 1
        if result.claimant is not None:
            self.unverified.count(result.claimant)
        if (platform := result.event.get("platform")) is not None:
            _count_fire(self.platforms, platform, result.unreplaced, MAX_PLATFORMS)
        if (placement := result.event.get("placement_id")) is None:
            return
        _count_fire(self.fires, placement, result.unreplaced, MAX_PLACEMENTS)
        if len(self.fired) < MAX_FIRED:
            self.fired.add(placement)

    def take_fired(self) -> set[str]:
        """The placements that have fired since the last call of this method."""
        fired, self.fired = self.fired, set()
        return fired

    def put_back(self, fired: set[str]) -> None:
        """Return placements that could not be written to the next `take_fired`, up to `MAX_FIRED`."""
        self.fired |= set(islice(fired - self.fired, MAX_FIRED - len(self.fired)))

    @property
    def by_reason(self) -> dict[str, tuple[m.Definition, Counter[Any]]]:
        """The counts by reason, each with its metric in Prometheus; the keys are the fields in Redis."""
        return {
            "rejected_by": (m.COLLECT_REJECTED, self.rejected),
            "refused_by": (m.COLLECT_REFUSED, self._ledger.refused_by),
            "not_counted_by": (m.COLLECT_NOT_COUNTED, self.not_counted),
            "consent_by": (m.COLLECT_CONSENT, self.consent),
            "invalid_traffic_by": (m.COLLECT_INVALID, self.invalid_traffic),
        }

    def unreplaced(self) -> dict[str, dict[str, int]]:
        """The counts of unreplaced macros, by dialect and parameter."""
        counts: dict[str, dict[str, int]] = {}
        for (dialect, word, how), count in self._cleaned.items():
            if how == "unreplaced":
                counts.setdefault(dialect, {})[word] = count
        return counts

    def answered(self, status: int) -> None:
        """Count an answered call."""
        self._answers[status] += 1

    def describe(self) -> Iterator[Metric]:
        """Describe no metric: the registry then collects none before a scrape."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """All metrics in their present state; called outside the event loop's thread."""
        ledger, lane = self._ledger, self.lane()
        outcomes = {
            "stored": ledger.stored,
            "not_counted": ledger.not_counted,
            "rejected": ledger.rejected,
            "refused": ledger.refused,
        }
        yield _counter(m.COLLECT_EVENTS, {(name,): value for name, value in outcomes.items()})
        yield _counter(m.COLLECT_ACKNOWLEDGED, {(): ledger.acknowledged})
        yield _counter(m.COLLECT_TORN, {(): ledger.torn})
        yield _counter(m.COLLECT_UNSENT, {(): self.unsent()})
        for definition, counts in (*self.by_reason.values(), (m.COLLECT_ANSWERS, self._answers)):
            # Export every reason from the start: Prometheus misses the first increments of a counter that
            # appears above 0.
            shown: dict[Any, int] = dict.fromkeys(REFUSALS if definition is m.COLLECT_REFUSED else (), 0)
            shown.update(dict(counts))
            yield _counter(definition, {(str(name),): value for name, value in shown.items()})
        yield _counter(m.COLLECT_CLEANED, dict(self._cleaned))
        yield _counter(m.COLLECT_SENDERS, dict(self.senders))
        yield from self.stages.collect()
        if lane is not None:
            oldest_ms = lane.oldest_ms
            age_ms = 0 if oldest_ms is None else max(0, lane.clock.now_ms() - oldest_ms)
            yield _gauge(m.COLLECT_READY, int(self.ready()))
            yield _offsets(lane)
            yield _gauge(m.COLLECT_RESTING, lane.resting)
            yield _gauge(m.COLLECT_OLDEST, age_ms / 1000)
            yield _gauge(m.COLLECT_SPOOL_FULL, lane.spool.full)
            yield _gauge(m.COLLECT_LOW, lane.published_ms / 1000)


def _counter(definition: m.Definition, values: dict[Any, int]) -> Metric:
    family = CounterMetricFamily(definition.name, definition.help, labels=definition.labels)
    for labels, value in sorted(values.items()):
        family.add_metric(list(labels), value)
    return family


def _gauge(definition: m.Definition, value: float) -> Metric:
    return GaugeMetricFamily(definition.name, definition.help, value=value)


def _offsets(lane: Lane) -> Metric:
    family = GaugeMetricFamily(m.COLLECT_CLOCK.name, m.COLLECT_CLOCK.help, labels=m.COLLECT_CLOCK.labels)
    family.add_metric(["wall"], lane.clock.offset_ms / 1000)
    if (ahead_ms := lane.brokers.ahead_ms) is not None:
        family.add_metric(["brokers"], ahead_ms / 1000)
    return family


def health_server(
    host: str, port: int, instruments: Instruments, ready: Callable[[], bool], lane: Callable[[], Lane]
) -> Callable[[], None]:
    """Serve /metrics, /live and /ready in threads; port 0 serves nothing. Returns a function that stops it.

    Raises:
        SettingsError: the port is taken, or cannot be one.
    """
    instruments.lane, instruments.ready = lane, ready

    def readiness() -> tuple[str, bytes]:
        return ("200 OK", b"ready\n") if ready() else ("503 Service Unavailable", b"not ready\n")

    pages = {"/live": lambda: ("200 OK", b"alive\n"), "/ready": readiness}
    return instruments.registry.serve(host, port, "AUDIOPIXEL_COLLECT_HEALTH_PORT", pages)


def _count_fire(counts: dict[str, list[int]], name: str, unreplaced: bool, most: int) -> None:
    """Count a pixel by a name, up to `most` names."""
    fires = counts.get(name)
    if fires is None:
        if len(counts) >= most:
            return
        fires = counts[name] = [0, 0]
    fires[0] += 1
    fires[1] += unreplaced
