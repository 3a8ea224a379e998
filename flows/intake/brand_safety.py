"""Brand safety: compares a pixel's content categories with those that its plan blocks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from flows.model.pixel import BLOCKED
from flows.model.plan import Plan

_IAB_PARENT: Final = re.compile(r"(IAB\d+)-\d+")


def blocked(plan: Plan, categories: str | Iterable[str] | None) -> bool:
    """True if the plan must not run in content of one of these IAB categories, in any case of letters.

    Args:
        categories: a pixel's `content_category`: one id, several, or none; none is never blocked. `IAB26-1`
            is in `IAB26`, as the form of ids of Content Taxonomy 1 implies. Ids of later taxonomies are
            compared as a whole.
    """
    if not plan.blocked_categories or not categories:
        return False
    for category in (categories,) if isinstance(categories, str) else categories:
        name = category.strip().upper()
        parent = _IAB_PARENT.fullmatch(name)
        if name in plan.blocked_categories or (parent and parent[1] in plan.blocked_categories):
            return True
    return False


def flag_of(plans: Mapping[str, Plan], placement: str | None, categories: str | Iterable[str] | None) -> int:
    """`BLOCKED` if the placement's plan blocks one of the categories, else 0."""
    if not categories or not plans:
        return 0
    plan = plans.get(placement or "")
    return BLOCKED if plan is not None and blocked(plan, categories) else 0
