"""The labels of placements: of each the value with the latest event time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from flows.model.dimensions import SCOPES

NONE: Final[tuple[str | None, ...]] = (None,) * (len(SCOPES) - 1)


class Labels:
    """Campaign, platform, station, podcast, program and creative by row, each with its event time."""

    def __init__(self) -> None:
        self._of: dict[int, list[tuple[int, str] | None]] = {}

    def note(self, row: int, ts: int, names: Sequence[str | None]) -> None:
        """Take the labels of a pixel; of two with the same time, the greater stays."""
        labels = self._of.get(row)
        if labels is None:
            self._of[row] = [None if name is None else (ts, name) for name in names]
            return
        for place, name in enumerate(names):
            if name is not None and ((held := labels[place]) is None or (ts, name) > held):
                labels[place] = (ts, name)

    def of(self, row: int) -> tuple[str | None, ...]:
        """The labels of a row; none of what is no placement."""
        labels = self._of.get(row)
        return NONE if labels is None else tuple(label and label[1] for label in labels)

    def take_out(self, row: int) -> list[tuple[int, str] | None] | None:
        """Forget a row's labels; returns them as plain values."""
        return self._of.pop(row, None)

    def put_back(self, row: int, taken: list[Any] | None) -> None:
        """Give a row what `take_out` gave."""
        if taken is not None:
            self._of[row] = [label and (label[0], label[1]) for label in taken]

    def snapshot(self) -> dict[int, list[tuple[int, str] | None]]:
        """Plain state."""
        return {row: list(of) for row, of in self._of.items()}

    def restore(self, state: dict[int, list[Any]]) -> None:
        """Take up `snapshot`'s state."""
        self._of = {row: list(of) for row, of in state.items()}
