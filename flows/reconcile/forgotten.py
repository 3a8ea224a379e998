"""Rows that the flow dropped after `row_memory`, and that started again with a later pixel."""

from __future__ import annotations

from bisect import bisect_right
from datetime import timedelta
from typing import Any, Final

from flows.reconcile.redis_reading import hash_of
from flows.reconcile.truth import Key, Recomputation
from flows.reconcile.values import moment_of

_MINUTE: Final = timedelta(minutes=1)


def restarted_rows(truth: Recomputation, client: Any, namespace: str) -> dict[Key, int]:
    """Rows that started again, to the minute from which each counts, in epoch ms.

    A row is dropped if it has ended and its next pixel comes later than `row_memory`. Whether it has ended
    depends on the length of the log that one cut covers. After such a silence a row may therefore have
    started again or not, and its `flight.since_ms` shows which. The flow judges the silence by its watermark,
    which is ahead of a pixel's minute by up to the allowed lateness.
    """
    rules = truth.rules
    minutes_by_row = {}
    silences = truth.silences(rules.row_memory - rules.allowed_lateness - _MINUTE)
    for (scope, name), minutes in silences.items():
        since_ms = moment_of(hash_of(client, f"{namespace}:{scope}:{{{name}}}").get("flight.since_ms"))
        before = 0 if since_ms is None else bisect_right(minutes, since_ms)
        if before and (scope, name) not in rules.planned:
            minutes_by_row[scope, name] = minutes[before - 1]
    return minutes_by_row
