"""Labels of pixels: if only planned labels count, a name that no plan in force lists counts as absent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from flows.model.dimensions import LABELS, SCOPES
from flows.model.events import absent
from flows.model.pixel import INFO, UNKNOWN, UNKNOWN_SHIFT
from flows.model.plan import PlanBook
from flows.state.arrays import U64

_FIRST: Final = SCOPES.index(LABELS[0])


class Labels:
    """The labels that one decoder takes.

    Args:
        planned: whether only labels that plans list are taken; before `follow` none is taken.
    """

    def __init__(self, planned: bool) -> None:
        self._planned = planned
        self._known = PlanBook().labels

    def follow(self, plans: PlanBook) -> None:
        """From now on take the names that these plans list."""
        if self._planned:
            self._known = plans.labels

    def known_names(self, names: Sequence[str | None]) -> tuple[tuple[str | None, ...], int]:
        """A pixel's names, with None for unknown ones, and the bits of `UNKNOWN` for these."""
        if not self._planned:
            return tuple(names), 0
        label_names, unknown = list(names), 0
        for label, known_labels in enumerate(self._known):
            name = names[_FIRST + label]
            if name not in known_labels:
                label_names[_FIRST + label] = None
                unknown |= 0 if absent(name) else 1 << UNKNOWN_SHIFT + label
        return tuple(label_names), unknown


def unknown_labels(pixels: U64) -> Iterator[tuple[str, int]]:
    """The number of pixels with an unknown name, for each label with such pixels."""
    flags = pixels[:, INFO] >> np.uint64(UNKNOWN_SHIFT) & np.uint64(UNKNOWN)
    if flags.any():
        for label, name in enumerate(LABELS):
            if count := int(np.count_nonzero(flags & np.uint64(1 << label))):
                yield name, count
