"""The definition of a metric, and of those of one subject."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

PREFIX: Final = "audiopixel_"


@dataclass(frozen=True, slots=True)
class Definition:
    """The definition of a metric.

    Attributes:
        name: whole, with its unit, and `_total` on a counter.
        field: the field of a row in Redis that the exporter shows by it, if it does.
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
        labels: labels that each of them has before its own.
    """

    def __init__(self, *labels: str) -> None:
        self._labels = labels
        self._all: list[Definition] = []

    def __iter__(self) -> Iterator[Definition]:
        return iter(self._all)

    def __getitem__(self, field: str) -> Definition:
        """The metric that shows a field of a row.

        Raises:
            KeyError: none does.
        """
        metric = next((one for one in self._all if one.field == field), None) if field else None
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
        """Define a metric that only grows while its process, or its row, lives."""
        return self._define("counter", name, text, labels, field)

    def gauge(self, name: str, text: str, *labels: str, field: str = "") -> Definition:
        """Define a metric that may fall."""
        return self._define("gauge", name, text, labels, field)

    def histogram(self, name: str, text: str, *labels: str) -> Definition:
        """Define a distribution of seconds."""
        return self._define("histogram", name, text, labels, "")

    def info(self, name: str, text: str, *labels: str) -> Definition:
        """Define a series that is always 1, for its labels."""
        return self._define("info", name, text, labels, "")
