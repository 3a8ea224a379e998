"""Receipts of lines. A partition counts since its first receipt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flows.reconcile.holds import CollectorTimes
from flows.reconcile.scan import NEVER, NO_TIME, PLAIN, RECEIVED, SENT


def receipts(rows: Any, times_by_line: Mapping[int, CollectorTimes]) -> Iterator[int]:
    """The receipt of each line, epoch ms.

    The receipt of a pixel is its `received_at`, or its `ts` without that field. The receipt of a mark is its
    low mark. Any other line has 0.

    Args:
        rows: see `flows.reconcile.scan.ROW`.
        times_by_line: the values of lines about their collectors, by place in `rows`.
    """
    for i in range(len(rows)):
        if rows[i, PLAIN]:
            received = int(rows[i, RECEIVED])
            yield min(max(int(rows[i, SENT]), 0), NEVER) if received == NO_TIME else received
        else:
            times = times_by_line.get(i)
            yield (times.low_ms if times is not None else 0) or 0
