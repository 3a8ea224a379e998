"""Plans in force, and the pacing of their delivery.

Owns: the plans in force, pacing. Receives: plans, delivered impressions. Sends: delivery fields, alerts.
Must not import: another stage, the engine.
"""

from __future__ import annotations

from flows.delivery.moments import moment_problem, moment_text
from flows.delivery.opening import Counting
from flows.delivery.pacer import ALERTED_STATE, DELIVERY_AT, DELIVERY_STATE, Pacer, Unjudged
from flows.delivery.pacing import Thresholds
from flows.delivery.plan_columns import MAX_SOURCE, moment_of, plan_to_json
from flows.delivery.plan_files import parse_plans, read_plans, with_balances
from flows.delivery.plan_source import PlanFollower, PlanReader, open_plans, read_book, require_label_plans

__all__ = [
    "ALERTED_STATE",
    "DELIVERY_AT",
    "DELIVERY_STATE",
    "MAX_SOURCE",
    "Counting",
    "Pacer",
    "PlanFollower",
    "PlanReader",
    "Thresholds",
    "Unjudged",
    "moment_of",
    "moment_problem",
    "moment_text",
    "open_plans",
    "parse_plans",
    "plan_to_json",
    "read_book",
    "read_plans",
    "require_label_plans",
    "with_balances",
]
