"""The final view of readers, which has to be the same after any faults on the way."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from benchmarks.chaos_verdict import UNLIKE
from simulation.checker import NAMESPACE, SKETCHED_FROM, Checker
from simulation.history import History
from simulation.reading import SCOPES
from simulation.stage import PERHAPS

PLAN: Final = frozenset(("delivery.plan_changed_ms", "delivery.booked_before"))
"""When a plan changed depends on when it was read."""
NOT_COMPARED: Final = UNLIKE | {"watermark_ms", "delivery.since_ms", "delivery.alerted_state", *PLAN}
"""Fields that depend on when the flow ran, or with which lateness."""
BY_PLAN: Final = re.compile(r"delivery\.|cost|return_on")
"""Which of several plans is in force depends on when the flow looked; the checker knows them all."""
PER_CHANCE: Final = NOT_COMPARED | {"accepted", "rejected.too_late"}
"""Of a partition with pixels that may be late or not; the model counts the others."""


def ending(keys: Mapping[str, Any], checker: Checker, history: History) -> dict[str, Any]:
    """The view of readers without the times and writers of the rows."""
    found, planned = dict[str, Any](), bool(history.plans)
    # Which plans held when a station was read depends on it, too.
    unsure = {"station"} if history.settings.get("labels") == "planned" else set[str]()
    for key, held in keys.items():
        kind = key.removeprefix(f"{NAMESPACE}:").partition(":")[0]
        name = key.partition("{")[2][:-1]
        if kind in (*SCOPES, "sketch") and checker.has_ended(
            ("placement" if kind == "sketch" else kind, name)
        ):
            continue  # it may be there still, or not
        if kind == "sketch" and name in checker.planning.plans:
            continue  # where a plan has moved, it may be due a minute later
        if kind == "sketch" and _reached(keys, name) >= SKETCHED_FROM:
            continue  # it may be behind; the checker knows by how much
        if kind in (*SCOPES, "sketch") and PERHAPS not in key:
            some = [of for of in held if not (planned and BY_PLAN.search(of)) and of not in unsure]
            found |= {f"{key} {of}": held[of] for of in some if of not in NOT_COMPARED}
        elif kind == "partition":
            found |= {f"{key} {of}": value for of, value in held.items() if of not in PER_CHANCE}
        elif kind == "index":
            scope = key.rpartition(":")[2]
            there = [one for one in held[0].items() if not checker.has_ended((scope, one[0]))]
            if some := sorted(one for one in there if one[0] != PERHAPS):  # none of them is as no index
                found[key] = tuple(some)
    for name, value in keys.get(f"{NAMESPACE}:meta", {}).items():
        if "conversions" in name or name == "unattributed":
            found[f"meta {name}"] = value
    found |= {f"minute {key}": value for key, value in checker.minutes.items()}
    letters = checker.letters.items()
    found |= {f"letter {key}": one for key, one in letters if PERHAPS not in json.dumps(one)}
    found |= {f"decision {key!r}": value for key, value in checker.decided.items()}
    return found


def _reached(keys: Mapping[str, Any], placement: str) -> int:
    return int(keys.get(f"{NAMESPACE}:placement:{{{placement}}}", {}).get("flight.reach", 0))
