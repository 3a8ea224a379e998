"""What the oracle is told of the settings, and of the plans that they name: the one place that says so."""

from __future__ import annotations

from typing import Any

from flows.planfiles import read_plans
from flows.reconcile import Planned
from flows.settings import Settings


def rules(settings: Settings) -> dict[str, Any]:
    """The keyword arguments of `flows.reconcile.recompute` for what a flow of these settings counts.

    The plan file is read as it is now: plans that were others while the flow ran are not known. Its bad rows
    are left out, as by the flow.

    Raises:
        PlanError: the plan file cannot be read.
    """
    book = {} if settings.plans is None else read_plans(settings.plans)[0]
    return {
        "out_of_orderness": settings.out_of_orderness,
        "allowed_lateness": settings.allowed_lateness,
        "horizon": settings.horizon,
        "conversion_horizon": settings.conversion_horizon,
        "consent": settings.consent,
        "model": settings.attribution,
        "click_window": settings.click_window,
        "listen_window": settings.listen_window,
        "half_life": settings.half_life,
        "touch_listens": settings.touch_listens,
        "touch_clicks": settings.touch_clicks,
        "utm_placements": settings.utm_placements,
        "plans": {
            name: Planned(plan.start_ms, plan.currency, plan.campaign_id, plan.blocked_categories)
            for name, plan in book.items()
        },
    }
