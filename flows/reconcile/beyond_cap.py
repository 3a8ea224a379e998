"""The row `other:{<scope>}`, which counts the names beyond a scope's cap, against the sums of the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from flows.reconcile.fields import COUNTS, SIDE_WINDOWS, SIDES, VERSIONS, WHOLE_METRICS, WINDOWS, Check
from flows.reconcile.report import Difference
from flows.reconcile.truth import Truth
from flows.reconcile.values import wrong_of

_SUMMED: Final = {
    **{
        f"{window}.{name}": (name, place)
        for place, window in enumerate(WINDOWS)
        for name in (*COUNTS, "conversions")
    },
    **{f"{window}.{name}": (name, WINDOWS.index(window)) for window in SIDE_WINDOWS for name in SIDES},
    **{f"flight.{name}": (name, WINDOWS.index("flight")) for name in WHOLE_METRICS},
}
"""Fields to their metric and the place of their window."""
_NOTHING: Final = (0, 0, 0, 0)


class BeyondCap:
    """Sums of the names of a scope that have no row.

    A name whose row has ended may have had a row, or may have counted beyond the cap. It widens the bounds.

    Attributes:
        row: the row `other` in Redis; empty if no name of the scope was beyond the cap.
        open, ended: the numbers of names without a row, by whether their rows would have ended.
    """

    def __init__(self, scope: str, row: Mapping[str, str]) -> None:
        self.row, self._scope = row, scope
        self.open = self.ended = 0
        self._open, self._ended = Counter[str](), Counter[str]()

    def add(self, truth: Truth, ended: bool) -> None:
        """Add the log's numbers of a name without a row; `ended` as for `BeyondCap.ended`."""
        self.ended, self.open = self.ended + ended, self.open + (not ended)
        sums = self._ended if ended else self._open
        for name, (metric, window) in _SUMMED.items():
            sums[name] += truth.windows.get(metric, _NOTHING)[window]

    def differences(self, without: Collection[str], compared: Counter[str]) -> Iterator[Difference]:
        """Every field of the row that is not the sum of the added names."""
        if not self.row:
            return
        for name in _SUMMED.keys() | self.row.keys():
            actual = self.row.get(name)
            if name in (*VERSIONS, "as_of_ms") or name.partition(".")[2] in without:
                continue
            if name not in _SUMMED:
                yield Difference("other", self._scope, name, "no such field", actual or "")
                continue
            compared[Check.EXACT if name.startswith("flight.") else Check.AT] += 1
            least, most = Decimal(self._open[name]), Decimal(self._open[name] + self._ended[name])
            if name.endswith(".conversions"):
                least, most = least / 1_000_000, most / 1_000_000
            want: Any = least if least == most else (least, most)
            if (wrong := wrong_of(want, "0" if actual is None else actual)) is not None:
                yield Difference("other", self._scope, name, wrong, actual or "")
