"""Receipts of lines; a partition counts since its first one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flows.reconcile.holds import CollectorTimes
from flows.reconcile.scan import NEVER, NO_TIME, PLAIN, RECEIVED, SENT


def receipts(rows: Any, times_by_line: Mapping[int, CollectorTimes]) -> Iterator[int]:
    """The receipt of each line, ms. A pixel has its `received_at`, else its `ts`. A mark has its low
    mark, any other line 0. `flows.reconcile.decode` makes `rows` and `times_by_line`.
    """
    for i in range(len(rows)):
        if rows[i, PLAIN]:
            received = int(rows[i, RECEIVED])
            yield min(max(int(rows[i, SENT]), 0), NEVER) if received == NO_TIME else received
        else:
            times = times_by_line.get(i)
            yield (times.low if times is not None else 0) or 0
