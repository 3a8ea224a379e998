"""The labels of placements: the value of each label with the latest event time."""

from __future__ import annotations

from typing import Final

from flows.model.dimensions import SCOPES
from flows.rows.row_columns import RowColumns

NONE: Final[tuple[str | None, ...]] = (None,) * (len(SCOPES) - 1)


class Labels:
    """For each row, the names of all `SCOPES` after the placement, each with its event time.

    Names and times are separate tuples of plain values: the garbage collector skips such tuples, and a
    snapshot takes them unchanged.
    """

    def __init__(self, columns: RowColumns) -> None:
        self._names, self._times = columns.label_names, columns.label_times

    def note(self, row: int, ts: int, names: tuple[str | None, ...]) -> None:
        """Take the labels of a pixel. The greater text wins between two labels with the same time."""
        row_labels = self._names.get(row)
        if row_labels is None:
            self._names[row], self._times[row] = names, (ts,) * len(names)
            return
        times = self._times[row]
        if names != row_labels:
            newer = [
                name is not None and (old is None or (ts, name) > (label_ms, old))
                for name, old, label_ms in zip(names, row_labels, times, strict=True)
            ]
            self._names[row] = tuple(
                [name if new else old for name, old, new in zip(names, row_labels, newer, strict=True)]
            )
            self._times[row] = tuple(
                [ts if new else label_ms for label_ms, new in zip(times, newer, strict=True)]
            )
        elif ts > min(times):
            self._times[row] = tuple([max(ts, label_ms) for label_ms in times])

    def names_of(self, row: int) -> tuple[str | None, ...]:
        """The labels of a row; empty for a row that is no placement."""
        row_labels = self._names.get(row, NONE)
        return row_labels if len(row_labels) == len(NONE) else (*row_labels, *NONE[len(row_labels) :])
