"""The figures of all inputs that were tried, added up by door in a small file over runs.

A run goes on at the batch at which the door's last one ended.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def tried(file: Path | None, door: str) -> int:
    """The inputs of a door that were tried, by any commit."""
    return sum(_held(file).get(door, {}).get("outcomes", {}).values())


def add_up(file: Path, door: str, outcomes: Mapping[str, int], seconds: float) -> None:
    """Add a run's outcomes and time to those before."""
    held = _held(file)
    before = held.get(door, {"seconds": 0, "outcomes": {}})
    names = sorted({*before["outcomes"], *outcomes})
    counts = {name: before["outcomes"].get(name, 0) + outcomes.get(name, 0) for name in names}
    about = {"inputs": sum(counts.values()), "seconds": round(before["seconds"] + seconds)}
    held[door] = about | {"outcomes": counts}
    lines = ",\n ".join(f"{json.dumps(name)}: {json.dumps(held[name])}" for name in sorted(held))
    file.write_text(f"{{\n {lines}\n}}\n")


def _held(file: Path | None) -> dict[str, Any]:
    if file is None or not file.exists():
        return {}
    held: dict[str, Any] = json.loads(file.read_text())
    return held
