"""The fields that a plan adds. This module of their own lets viewers import them without the compiler."""

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
"""Delivery fields of a planned placement or its campaign, which `flows.delivery.pacer` fills. Money is in the
plan's currency.
"""
