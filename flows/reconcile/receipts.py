"""Receipts of lines, since the first of which a partition was counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flows.reconcile.holds import Said
from flows.reconcile.scan import NEVER, NO_TIME, PLAIN, RECEIVED, TOLD


def receipts(rows: Any, told: Mapping[int, Said]) -> Iterator[int]:
    """The receipt of each line, ms: of a pixel as it says, else its own clock; of a mark its low mark; else
    0. `rows` and `told` are of `flows.reconcile.decode`.
    """
    for i in range(len(rows)):
        if rows[i, PLAIN]:
            received = int(rows[i, RECEIVED])
            yield min(max(int(rows[i, TOLD]), 0), NEVER) if received == NO_TIME else received
        else:
            word = told.get(i)
            yield (word.low if word is not None else 0) or 0
