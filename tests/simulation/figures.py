"""The figures of all seeds that were played, added up in a small file over runs.

The file has the sum, the seed that is next, and the newest `RUNS` runs, one a line. Runs of one day and one
commit that follow each other are one.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, Final

COUNTED: Final = ("seeds", "failures", "steps", "crashes", "executions", "flushes", "commits")
RUNS: Final = 100
SAVED_EVERY_S: Final = 60
_OF_A_RUN: Final = ("failures", "seconds", "steps", "crashes")


def first_seed(file: Path | None) -> int:
    """The one behind all that were played, by any commit."""
    return int(_held(file)["next_seed"]) if file is not None else 0


def add_up(
    file: Path, figures: Mapping[str, int], first: int, seconds: float, of: tuple[str, str]
) -> dict[str, int]:
    """Add a run's figures to those before; returns the sum.

    Args:
        figures: of `COUNTED`, of the seeds from `first` on without a gap.
        of: the day and the commit of the run.
    """
    held, last = _held(file), first + figures["seeds"] - 1
    counts = {**figures, "seconds": round(seconds)}
    total = {name: held["sum"].get(name, 0) + number for name, number in counts.items()}
    run = {"date": of[0], "commit": of[1], "from": first, "to": last}
    run |= {name: counts[name] for name in _OF_A_RUN}
    runs = [*held["runs"], run]
    if len(runs) > 1 and all(runs[-2][name] == run[name] for name in ("date", "commit")):
        before, _ = runs[-2:]
        if before["to"] + 1 == first:
            more = {name: before[name] + run[name] for name in _OF_A_RUN}
            runs[-2:] = [run | more | {"from": before["from"]}]
    lines = ",\n  ".join(map(json.dumps, runs[-RUNS:]))
    next_seed = max(held["next_seed"], last + 1)
    partial = file.with_name(f"{file.name}.part")
    partial.write_text(
        f'{{\n "sum": {json.dumps(total)},\n "next_seed": {next_seed},\n "runs": [\n  {lines}\n ]\n}}\n'
    )
    partial.replace(file)
    return total


class Sum:
    """The figures of a run as they come. The run writes them to the file once in `SAVED_EVERY_S`, which is
    the most that a kill loses.

    Args:
        file: None: there is none.
        first: the first seed.
    """

    def __init__(self, file: Path | None, first: int) -> None:
        self.figures = dict.fromkeys(COUNTED, 0)
        self.total = _held(file)["sum"] if file is not None else {}
        self._file, self._next, self._of = file, first, today_and_commit()
        self._fresh = dict(self.figures)
        self._since_s = time.monotonic()

    def add(self, some: Mapping[str, int]) -> None:
        """Add the figures of the next seeds."""
        for held in (self.figures, self._fresh):
            for name, number in some.items():
                held[name] += number
        if time.monotonic() - self._since_s >= SAVED_EVERY_S:
            self.save()

    def save(self) -> None:
        """Add to the file what is not in it."""
        now_s, seeds = time.monotonic(), self._fresh["seeds"]
        if self._file is not None and seeds:
            self.total = add_up(self._file, self._fresh, self._next, now_s - self._since_s, self._of)
        self._next, self._since_s = self._next + seeds, now_s
        self._fresh = dict.fromkeys(COUNTED, 0)


def today_and_commit() -> tuple[str, str]:
    """Today, and the commit that is checked out, with a + where something has been changed since."""
    where = Path(__file__).parent
    command = ["git", "describe", "--always", "--dirty=+"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=where)
    return date.today().isoformat(), found.stdout.strip()


def _held(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {"sum": {}, "next_seed": 0, "runs": []}
    held: dict[str, Any] = json.loads(file.read_text())
    return held
