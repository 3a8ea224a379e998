"""The definition of a Prometheus metric, and lists of such definitions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

PREFIX: Final = "audiopixel_"


@dataclass(frozen=True, slots=True)
class Definition:
    """The definition of a metric.

    Attributes:
        name: the whole name, with its unit, and `_total` for a counter.
        field: the field of a row in Redis whose value it has; empty if there is none.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    help: str
    labels: tuple[str, ...] = ()
    field: str = ""

    def __post_init__(self) -> None:
        assert self.name.startswith(PREFIX), self.name
        assert (self.kind == "counter") == self.name.endswith("_total"), self.name


class Metrics:
    """The metrics of one subject, in the order in which they are defined.

    Args:
        labels: the labels that each metric has before its own.
    """

    def __init__(self, *labels: str) -> None:
        self._labels = labels
        self._all: list[Definition] = []

    def __iter__(self) -> Iterator[Definition]:
        return iter(self._all)

    def __getitem__(self, field: str) -> Definition:
        """The metric that has the value of a field of a row.

        Raises:
            KeyError: no metric has it.
        """
        metric = next((metric for metric in self._all if metric.field == field), None) if field else None
        if metric is None:
            raise KeyError(field)
        return metric

    def _define(
        self,
        kind: Literal["counter", "gauge", "histogram", "info"],
        name: str,
        text: str,
        labels: tuple[str, ...],
        field: str,
    ) -> Definition:
        self._all.append(Definition(PREFIX + name, kind, text, self._labels + labels, field))
        return self._all[-1]

    def counter(self, name: str, text: str, *labels: str, field: str = "") -> Definition:
        """Define a metric that never falls while its process or its row exists."""
        return self._define("counter", name, text, labels, field)

    def gauge(self, name: str, text: str, *labels: str, field: str = "") -> Definition:
        """Define a metric that may fall."""
        return self._define("gauge", name, text, labels, field)

    def histogram(self, name: str, text: str, *labels: str) -> Definition:
        """Define a distribution of seconds."""
        return self._define("histogram", name, text, labels, "")

    def info(self, name: str, text: str, *labels: str) -> Definition:
        """Define a series whose value is always 1, and whose labels are the information."""
        return self._define("info", name, text, labels, "")
