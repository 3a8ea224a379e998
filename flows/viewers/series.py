"""Series of placements and campaigns for Prometheus, rendered from rows in Redis."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from connectors.prometheus import Exposition, Family, label_string
from flows import metrics
from flows.metrics import Definition
from flows.model.catalogue.fields import LABELS as ROW_LABELS
from flows.model.catalogue.metrics import BY_FIELD, Unit
from flows.viewers import feed
from flows.viewers.reader import STATE, Rows, Snapshot

CAP: Final = 20_000
"""Placements with series of their own: up to 47 series of about 3 KB in the server each. The planned
campaigns, nine series each, are fewer than the placements.
"""

BLOCK: Final = 500
"""Rows rendered at a time: they fit into the processor's cache. All rows at once take twice as long."""

OTHER: Final = "other"

COUNTERS: Final = {metric: metric.field for metric in metrics.PLACEMENT if metric.kind == "counter"}
GAUGES: Final = {
    metric: metric.field for metric in metrics.PLACEMENT if metric.kind == "gauge" and metric.field
}
CAMPAIGN_GAUGES: Final = {metric: metric.field for metric in metrics.CAMPAIGN if metric.field}
HOUR_S: Final = 3600
SINCE: Final = "flight.since_ms"
NO_ROW: Final[Mapping[str, str]] = {}
NEW_MS: Final = 86_400_000
"""The age, in ms, from which a row that the last read lacked is a row that had ended and has come back."""


def _seconds_of(ms: str) -> str:
    return repr(int(ms) / 1000)


def _millionths(number_text: str) -> str:
    return str(Decimal(number_text).scaleb(-6))


_TO_SERIES: Final[Mapping[str, Callable[[str], str]]] = {
    Unit.MILLIONTH: _millionths,
    Unit.AN_HOUR: lambda an_hour: repr(float(an_hour) / HOUR_S),
    Unit.MILLISECOND: _seconds_of,
}
UNITS: Final = {
    field: _TO_SERIES[metric.unit]
    for field, metric in BY_FIELD.items()
    if metric.series and metric.unit in _TO_SERIES
}
"""Functions from a field's text to its number in the series' unit, for fields whose series has another unit.
"""
LABELS: Final = dict(
    zip(
        metrics.PLACEMENT_INFO.labels[1:], (*ROW_LABELS, "delivery.currency", "impression_basis"), strict=True
    )
)
FIELDS: Final = tuple(
    dict.fromkeys((*COUNTERS.values(), *GAUGES.values(), STATE, SINCE, *LABELS.values(), *feed.FIELDS))
)
"""The fields of a row that the exporter shows, and that its `RowsReader` reads."""


class Cap:
    """Separates the rows of placements into those shown and those summed as `other`.

    Rows with a plan are shown whatever the cap. Among the others the busiest get the places, and keep them;
    later rows get a place while one is free. A row once in `other` stays there until the log is recomputed or
    the exporter restarted; when it ends, its last counts stay. Showing the busiest of each moment would make
    `other` fall when a row is promoted. Prometheus takes a falling counter for a restarted counter, and would
    count all of `other` again.

    Ended rows are stored as sums alone. A row that comes back has its old counts, which these sums may
    include, so only its growth is added to `other`.

    Args:
        places: the most rows to show.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._generation = ""
        self._begin()

    def _begin(self) -> None:
        self._shown: set[str] = set()
        self._cut: dict[str, list[Decimal]] = {}
        self._counted_before: dict[str, list[Decimal]] = {}
        self._ended = self._beyond = [Decimal()] * len(COUNTERS)
        self._read_ms = 0.0

    def part(
        self, rows: Rows, generation: str, at_s: float = 0.0, beyond: Mapping[str, str] = NO_ROW
    ) -> tuple[list[str], int, list[Decimal]]:
        """The rows to show, the number of rows that are cut, and the sums of the cut rows' fields.

        Args:
            at_s: event time that the rows have reached, epoch s.
            beyond: the counts of all names without a row together. Like a row, it is removed when it is
                quiet.
        """
        if generation != self._generation:
            self._begin()
            self._generation = generation
        planned = {name for name, row in rows.items() if STATE in row} - {OTHER}
        self._end([name for name in self._cut if name not in rows or name in planned])
        fresh = rows.keys() - self._shown - self._cut.keys() - planned - {OTHER}
        returned = {name for name in fresh if self._returned(rows[name])} if any(self._ended) else set()
        still_shown = (self._shown & rows.keys()) - planned
        busiest = sorted(
            fresh - returned, key=lambda name: (-int(rows[name].get("flight.impressions", 0)), name)
        )
        room = max(0, self._places - len(planned) - len(still_shown))
        self._shown = still_shown | planned | set(busiest[:room])
        self._counted_before |= {name: self._counts(rows[name]) for name in returned}
        for name in [*self._cut, *busiest[room:], *returned, *({OTHER} & rows.keys())]:
            self._cut[name] = self._growth(name, self._counts(rows[name]))
        self._read_ms = 1000 * at_s
        self._beyond = [max(pair) for pair in zip(self._beyond, self._counts(beyond), strict=True)]
        parts = (self._ended, self._beyond, *self._cut.values())
        sums = [sum(column, Decimal()) for column in zip(*parts, strict=True)]
        return sorted(self._shown), len(self._cut), sums

    def _end(self, names: Iterable[str]) -> None:
        """Add the counts of these rows to those of ended rows, and drop their names."""
        for name in names:
            counts = self._cut.pop(name)
            self._counted_before.pop(name, None)
            self._ended = [total + count for total, count in zip(self._ended, counts, strict=True)]

    def _returned(self, row: Mapping[str, str]) -> bool:
        """True if a row that the last read lacked had begun at least `NEW_MS` before it."""
        return 0 < int(row.get(SINCE, 0)) < self._read_ms - NEW_MS

    def _growth(self, name: str, counts: list[Decimal]) -> list[Decimal]:
        before = self._counted_before.get(name)
        return counts if before is None else [now - was for now, was in zip(counts, before, strict=True)]

    def _counts(self, row: Mapping[str, str]) -> list[Decimal]:
        # Shares of a conversion are decimals, which binary sums would falsify.
        return [Decimal(row.get(field, 0)) for field in COUNTERS.values()]


class _Named(NamedTuple):
    """A placement's label strings: of all its series, and of its info series, whose label values are
    `belongs`.
    """

    belongs: tuple[str | None, ...]
    labels: str
    info: str


class Placements:
    """Renders snapshots; stores the labels' text and the cap's separation from one scrape to the next."""

    def __init__(self, cap: int = CAP, clock_s: Callable[[], float] = time.time) -> None:
        self._cap, self._clock_s = Cap(cap), clock_s
        self._named: dict[str, _Named] = {}
        self._lock = threading.Lock()

    def render(self, snapshot: Snapshot) -> bytes:
        """The exposition: the exporter's own state, then placements and campaigns, family by family."""
        with self._lock:
            return self._render(snapshot).encode()

    def _render(self, snapshot: Snapshot) -> str:
        rows = snapshot.rows.get("placement", {})
        names, cut, sums = self._cap.part(
            rows,
            snapshot.meta.get("generation", ""),
            snapshot.watermark_s or 0.0,
            snapshot.beyond_cap.get("placement", NO_ROW),
        )
        text = Exposition()
        exporter_values = {
            metrics.EXPORTER_UP: int(snapshot.up),
            metrics.EXPORTER_READ: snapshot.read_s or None,
            metrics.EXPORTER_WATERMARK: snapshot.watermark_s,
            metrics.EXPORTER_LAST_FLUSH: snapshot.flushed_s,
            metrics.EXPORTER_CUT: cut,
        }
        for definition, value in exporter_values.items():
            text.add(_family(definition), [""], [value])
        why = snapshot.unjudged_at(self._clock_s())
        reasons = [] if why is None else [label_string({metrics.EXPORTER_UNJUDGED.labels[0]: why.reason})]
        text.add(_family(metrics.EXPORTER_UNJUDGED), reasons, [] if why is None else [why.since_s])
        self._named = named = {name: self._name(name, rows[name]) for name in names}
        for start in range(0, len(names) or 1, BLOCK):
            block = names[start : start + BLOCK]
            shown, labels = [rows[name] for name in block], [named[name].labels for name in block]
            for definition, field in COUNTERS.items():
                text.add(_family(definition), labels, [row.get(field) for row in shown])
            _gauges(text, GAUGES, labels, shown)
            _states(text, metrics.PLACEMENT_STATE, block, shown)
            text.add(_family(metrics.PLACEMENT_INFO), [named[name].info for name in block], [1] * len(block))
        if cut or any(sums):
            other_labels = [label_string({"placement": OTHER})]
            for definition, total in zip(COUNTERS, sums, strict=True):
                text.add(_family(definition), other_labels, [str(total)])
            text.add(_family(metrics.PLACEMENT_INFO), other_labels, [1])
        planned = {name: row for name, row in snapshot.rows.get("campaign", {}).items() if STATE in row}
        campaigns = [label_string({"campaign": name}) for name in planned]
        _gauges(text, CAMPAIGN_GAUGES, campaigns, [*planned.values()])
        _states(text, metrics.CAMPAIGN_STATE, planned, [*planned.values()])
        return text.text()

    def _name(self, name: str, row: Mapping[str, str]) -> _Named:
        belongs = tuple(map(row.get, LABELS.values()))
        named = self._named.get(name)
        if named is not None and named.belongs == belongs:
            return named
        whole = {
            "placement": name,
            **{label: value or "" for label, value in zip(LABELS, belongs, strict=True)},
        }
        return _Named(belongs, label_string({"placement": name}), label_string(whole))


def _gauges(
    text: Exposition,
    gauges: Mapping[Definition, str],
    labels: Sequence[str],
    rows: Sequence[Mapping[str, str]],
) -> None:
    """Add the families of some rows' fields."""
    for definition, field in gauges.items():
        values = [row.get(field) for row in rows]
        if (shown := UNITS.get(field)) is not None:
            values = [None if value is None else shown(value) for value in values]
        text.add(_family(definition), labels, values)


def _states(
    text: Exposition, definition: Definition, names: Iterable[str], rows: Sequence[Mapping[str, str]]
) -> None:
    """Add the family of the states of those rows that have one, and say whether it is judged: an alert would
    take the state of another row for a judged one.
    """
    owner, state = definition.labels
    stated = [
        label_string({owner: name, state: row[STATE]})
        for name, row in zip(names, rows, strict=True)
        if STATE in row and "delivery.judged" in row
    ]
    text.add(_family(definition), stated, [1] * len(stated))


def _family(definition: Definition) -> Family:
    return Family(definition.name, "counter" if definition.kind == "counter" else "gauge", definition.help)
