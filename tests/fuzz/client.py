"""Rows as a flow writes them, of which fields are gone, of another type, or old, at the clients for bidders.

`rule_refuses` states the rules of docs/bidders.md on its own. No client may call a row usable that a rule
refuses, and none may have a factor where no rule allows it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from audiopixel_client.mirror import META, Mirror, OlderStateError
from audiopixel_client.rows import clock_s

from flows.delivery.pacing import Thresholds, pace
from flows.model.fields import FIELDS
from flows.model.plan import Plan
from flows.publish.layout import META_FIELDS, SCHEMA
from fuzz.mutate import NUMBERS, TEXTS
from fuzz.run import Input

ROOT = Path(__file__).parents[2]
NOW_MS = 1_790_000_000_000
HOUR_MS = 3_600_000
STATES = ("not_started", "paused", "warming_up", "complete", "ended_short", "unknown_before", "ended_unknown")
COUNTS = ("5m.impressions", "1h.impressions", "flight.blocked_impressions")


def rule_refuses(meta: dict[str, str], row: dict[str, str] | None) -> bool:
    """Whether a rule of docs/bidders.md refuses the row: it may not be acted on."""

    def whole(fields: dict[str, str], name: str) -> int | None:
        text = fields.get(name, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None

    flushed_ms, watermark_ms = whole(meta, "flushed_ms"), whole(meta, "watermark_ms")
    if row is None or meta.get("schema") != "1" or meta.get("judged") != "1":
        return True
    if flushed_ms is None or NOW_MS - flushed_ms > 30_000:
        return True
    if watermark_ms is None or NOW_MS - watermark_ms > 300_000:
        return True
    numbers = [whole(row, name) for name in ("generation", "fence", "rev", *COUNTS, "delivery.booked")]
    state = row.get("delivery.state", "")
    if None in numbers or row.get("delivery.judged") != "1" or not state:
        return True
    if numbers[0] != whole(meta, "generation") or numbers[5] != 0:
        return True
    if state in ("unknown_before", "ended_unknown"):
        return True
    return state in ("on_track", "under", "at_risk", "over") and whole(row, "delivery.delivered") is None


def rule_factor_allowed(row: dict[str, str]) -> bool:
    """Whether the rules allow any factor for a row that none of them refuses."""
    try:
        projected = float(row["delivery.projected"])
    except (KeyError, ValueError):
        return False
    steered = row["delivery.state"] in ("on_track", "under", "at_risk", "over")
    stopped = int(row["5m.impressions"]) == 0 and int(row["1h.impressions"]) > 0
    return steered and not stopped and projected > int(row["delivery.delivered"])


class ClientDoor:
    """The mirror of the Python client, and that of the Node client where Node is installed."""

    def __init__(self, _: Path) -> None:
        script = str(ROOT / "tests" / "fuzz" / "client_rows.mjs")
        command = ["node", script, str(ROOT / "clients" / "node")]
        self._node = (
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            if shutil.which("node")
            else None
        )

    def make(self, rng: Random) -> Input:
        meta, row = _meta(), _row(rng)
        hash_there = rng.random() > 0.01
        for fields in rng.choices(((row,), (meta,), (row, meta)), (6, 3, 1))[0]:
            _damage(fields, rng)
        return json.dumps([meta, row if hash_there else None]).encode(), b""

    def run(self, inputs: Sequence[Input]) -> Counter[str]:
        cases = [json.loads(body) for body, _ in inputs]
        outcomes = Counter[str]()
        answers = {"python": [_judged_by_python(*case) for case in cases]}
        if self._node is not None:
            answers["node"] = self._judged_by_node(cases)
        for language, verdicts in answers.items():
            for (meta, row), (reason, factor, blocked) in zip(cases, verdicts, strict=True):
                if reason is None:
                    assert not rule_refuses(meta, row), f"{language}: usable against the rules: {meta} {row}"
                if factor is not None:
                    assert reason is None, f"{language}: a factor, and {reason}"
                    assert rule_factor_allowed(row), f"{language}: a factor against the rules: {row}"
                if row and row.get(COUNTS[2]) == "3" and reason != "no meta":
                    assert blocked == 3, f"{language}: blocked content is not shown: {row}"
                outcomes[f"{language} {reason or 'usable'}"] += 1
        return outcomes

    def _judged_by_node(self, cases: Sequence[Any]) -> list[Any]:
        assert self._node is not None
        assert self._node.stdin is not None
        assert self._node.stdout is not None
        self._node.stdin.write(json.dumps([[*case, NOW_MS] for case in cases]) + "\n")
        self._node.stdin.flush()
        verdicts: list[Any] = json.loads(self._node.stdout.readline())
        return verdicts

    def close(self) -> None:
        if self._node is not None:
            self._node.communicate()


def _judged_by_python(meta: dict[str, str], row: dict[str, str] | None) -> tuple[str | None, Any, int]:
    mirror = Mirror([], None, 30.0, 0.5, 2.0, {})
    texts = [] if row is None else [row.get(name) for name in mirror.fields]
    try:
        reading = mirror.read([meta.get(name) for name in META], NOW_MS / 1000, clock_s())
    except (OlderStateError, ValueError, OverflowError):
        return "no meta", None, 0
    mirror.show({"a": texts}, reading, reading.flush, whole=True)
    shown = mirror.row("a")
    return shown.reason, shown.factor, shown.blocked


def _meta() -> dict[str, str]:
    values = {"schema": SCHEMA, "flushed_ms": NOW_MS - 800, "watermark_ms": NOW_MS - 11_000, "judged": 1}
    assert values.keys() <= {*META_FIELDS}
    values |= {"flush": 7, "generation": 2, "fence": 3, "rev": 9}
    return {name: str(value) for name, value in values.items()}


def _row(rng: Random) -> dict[str, str]:
    """A row of a planned placement, paced as the flow paces it."""
    plan = Plan("a", 24_000, NOW_MS - 12 * HOUR_MS, NOW_MS + 12 * HOUR_MS)
    hour = rng.choice((0, 300, 900, 1_000, 1_100, 2_000))
    found = pace(plan, rng.choice((3_000, 9_000, 12_000, 14_000, 24_000)), hour, NOW_MS, Thresholds())
    row = {f"delivery.{name}": getattr(found, name) for name in ("state", "booked", "delivered", "projected")}
    row |= {"delivery.judged": 1, "5m.impressions": hour // 12, "1h.impressions": hour, "generation": 2}
    row |= {
        "flight.blocked_impressions": rng.choices((0, 3), (9, 1))[0],
        "fence": 3,
        "rev": rng.randrange(1, 99),
    }
    if rng.random() < 0.1:
        row["delivery.state"] = rng.choice(STATES)
    if rng.random() < 0.05:
        row |= {"delivery.judged": 0, "delivery.unjudged_reason": "feed_silent"}
    assert row.keys() - {"generation", "fence", "rev"} <= {*FIELDS}
    return {name: str(value) for name, value in row.items() if value is not None}


def _damage(fields: dict[str, str], rng: Random) -> None:
    """Remove, retype or make old up to three fields; in one case of ten none."""
    for name in rng.sample(sorted(fields), rng.choices((0, 1, 2, 3), (1, 6, 2, 1))[0]):
        kind = rng.randrange(3)
        if kind == 0:
            del fields[name]
        elif kind == 1:
            fields[name] = rng.choice((rng.choice(TEXTS), rng.choice(NUMBERS), "", "0", "1", "2"))
        elif fields[name].isdigit():
            fields[name] = str(max(0, int(fields[name]) - rng.choice((1, 2, 40_000, 400_000))))
