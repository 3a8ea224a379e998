"""The fields that a plan adds, in a module of their own: a viewer that needs them loads no compiler."""

from __future__ import annotations

from typing import Final

from flows.model.catalogue.metrics import JUDGED, MONEY, OPENED
from flows.model.catalogue.metrics import WINDOWS as WINDOWS

SPENDING: Final = tuple(metric.field(window) for window in WINDOWS for metric in MONEY)
DELIVERY: Final = (
    *(field for metric in JUDGED for field in metric.fields()),
    *SPENDING,
    *(field for metric in OPENED for field in metric.fields()),
)
"""Delivery fields of a planned placement or its campaign, which `flows.delivery.pacer` fills; money in the
plan's currency.
"""
