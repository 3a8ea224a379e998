"""Receipts of lines; a partition counts since its first one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flows.reconcile.holds import Said
from flows.reconcile.scan import NEVER, NO_TIME, PLAIN, RECEIVED, TOLD


def receipts(rows: Any, told: Mapping[int, Said]) -> Iterator[int]:
    """The receipt of each line, ms. A pixel has its `received_at`, else its `ts`. A mark has its low
    mark, any other line 0. `flows.reconcile.decode` makes `rows` and `told`.
    """
    for i in range(len(rows)):
        if rows[i, PLAIN]:
            received = int(rows[i, RECEIVED])
            yield min(max(int(rows[i, TOLD]), 0), NEVER) if received == NO_TIME else received
        else:
            word = told.get(i)
            yield (word.low if word is not None else 0) or 0
