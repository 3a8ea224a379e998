"""The fields that a plan adds. This module of their own lets viewers import them without the compiler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from flows.model.catalogue.metrics import JUDGED, MONEY, OPENED
from flows.model.catalogue.metrics import WINDOWS as WINDOWS
from flows.model.catalogue.states import STATES

SPENDING: Final = tuple(metric.field(window) for window in WINDOWS for metric in MONEY)
DELIVERY: Final = (
    *(field for metric in JUDGED for field in metric.fields()),
    *SPENDING,
    *(field for metric in OPENED for field in metric.fields()),
)
"""Delivery fields of a planned placement or its campaign, which `flows.delivery.pacer` fills. Money is in the
plan's currency.
"""


def shown_state(row: Mapping[str, str]) -> str:
    """The state of a row as viewers show it, a key of `STATES`: `none` without a plan, `unjudged` unless
    `delivery.judged` is 1, else the delivery state. An absent `delivery.judged` is not known, never judged.
    """
    state = row.get("delivery.state", "none")
    if state == "none" or row.get("delivery.judged") == "1":
        return state if state in STATES else "none"
    return "unjudged"
