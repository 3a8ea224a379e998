"""Labels of pixels: where only planned ones are taken, a name that no plan in force lists is as absent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from flows.model.dimensions import LABELS, SCOPES
from flows.model.events import absent
from flows.model.pixel import INFO, UNKNOWN, UNKNOWN_SHIFT
from flows.model.plan import PlanBook
from flows.state.kernel import U64

_FIRST: Final = SCOPES.index(LABELS[0])


class Labels:
    """The labels that one decoder takes.

    Args:
        planned: whether these are the ones that plans list, of which there is none before `follow`; else
            they are all.
    """

    def __init__(self, planned: bool) -> None:
        self._planned = planned
        self._known = PlanBook().labels

    def follow(self, plans: PlanBook) -> None:
        """Know the names that these plans list, from now on."""
        if self._planned:
            self._known = plans.labels

    def taken(self, names: Sequence[str | None]) -> tuple[tuple[str | None, ...], int]:
        """A pixel's names, None for each that is unknown, and the bits of `UNKNOWN` that say which."""
        if not self._planned:
            return tuple(names), 0
        found, unknown = list(names), 0
        for label, known in enumerate(self._known):
            name = names[_FIRST + label]
            if name not in known:
                found[_FIRST + label] = None
                unknown |= 0 if absent(name) else 1 << UNKNOWN_SHIFT + label
        return tuple(found), unknown


def unknown_labels(pixels: U64) -> Iterator[tuple[str, int]]:
    """Of each label of which any pixel had an unknown name, how many had one."""
    flags = pixels[:, INFO] >> np.uint64(UNKNOWN_SHIFT) & np.uint64(UNKNOWN)
    if flags.any():
        for label, name in enumerate(LABELS):
            if count := int(np.count_nonzero(flags & np.uint64(1 << label))):
                yield name, count
