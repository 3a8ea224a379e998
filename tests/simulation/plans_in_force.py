"""Holds what the flow says of plans against the versions of their file: what is refused, by which flight a
placement counts, and how it is delivered.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from simulation.delivery import At, PlanFile, Planned, wrong
from simulation.model import Model, Row
from simulation.world import World, Wrong

SETTLED_MS: Final = 10_000
SETTLED_FLUSHES: Final = 8
"""So long, and so many flushes, behind a change each row counts by its plan's flight."""
LOOK_MS: Final = 1_000
SETTLED_LOOKS: Final = 3
"""So many of these flushes are so long apart: a file is read once two looks have found the same. Of those
that come at once, as behind a sleep, one looks.
"""
TOLD: Final = 2_000
"""So much of a file is in the story."""
NONE_YET: Final = PlanFile(0, None, {}, frozenset({(None, None)}), whole=False)
_PROBLEM: Final = re.compile(r".+?\.(?:csv|json)(?::(\d+))?: (?:(\w+): )?", re.DOTALL)

Hash = Mapping[str, str]


class Planning:
    """The file of plans, and the reports about it.

    Args:
        grace_ms: so long behind its begin a flight is not judged.
        capped: rows are only so many.

    Attributes:
        file: the version that is there.
        plans: by placement, all that may be in force by now.
    """

    def __init__(self, grace_ms: int, capped: bool) -> None:
        self._grace_ms, self._capped = grace_ms, capped
        self.file = NONE_YET
        self.plans: dict[str, list[Planned]] = {}
        self._told = set[At]()
        self._whole: PlanFile | None = None
        self._taken = False
        self._written_ms = self._flushes = self._looks = self._looked_ms = 0
        self._to_come = list[PlanFile]()
        self._path = Path()

    def begin(self, versions: Sequence[PlanFile], path: Path) -> None:
        """Write these versions to a file, each when it is time."""
        self._to_come, self._path = list(versions), path

    def next_ms(self) -> int | None:
        """The time of the next version, since the beginning; None if it waits or if there is none."""
        return self._to_come[0].at_ms if self._to_come and self._may_come(self._to_come[0]) else None

    def write_due(self, world: World) -> None:
        """Rewrite or remove the file of plans when a version is due."""
        while (at_ms := self.next_ms()) is not None and at_ms <= world.elapsed_ms:
            self._write(self._to_come.pop(0), world)

    def _may_come(self, file: PlanFile) -> bool:
        """A flow that starts and cannot read its plans has none, an open point: it has read good ones."""
        return file.whole or self._taken

    def starts(self, world: World) -> None:
        """The flow starts; where the file cannot be read, the last good version is put back first."""
        self._taken = False
        if not self.file.whole and self._whole is not None:
            self._write(self._whole, world)

    def _write(self, file: PlanFile, world: World) -> None:
        self._path.unlink(missing_ok=True)
        if file.text is not None:
            self._path.write_bytes(file.text)
            time_ns = int(world.elapsed_ms * 1_000_000)
            os.utime(self._path, ns=(time_ns, time_ns))
        text = (file.text or b"none")[:TOLD].decode(errors="replace")
        world.tell(f"the plans are written: {text}")
        self.file, self._written_ms, self._flushes, self._looks = file, world.now_ms, 0, 0
        self._told = set()
        if file.whole:
            self._whole = file
        for name, plan in file.plans.items():
            self.plans.setdefault(name, []).append(plan)

    def told(self, problem: str) -> None:
        """The flow has refused something.

        Raises:
            Wrong: it is right.
        """
        found = _PROBLEM.match(problem)
        assert found is not None, problem
        line, column = found.groups()
        at = None if line is None else int(line), column
        if at not in self.file.refused:
            raise Wrong(
                f"of the plans {at} is refused, wrong is {sorted(self.file.refused, key=str)}: {problem}"
            )
        self._told.add(at)

    def unsettled(self, now_ms: int) -> bool:
        """True while the last version is there, and the flow has not had the time to take it up."""
        return bool(self.plans) and not self._to_come and not self._settled(now_ms)

    def _settled(self, now_ms: int) -> bool:
        flushed = self._flushes > SETTLED_FLUSHES and self._looks > SETTLED_LOOKS
        return flushed and now_ms > self._written_ms + SETTLED_MS

    def since_ms(
        self, rows: Mapping[Row, Hash], model: Model, positions: Mapping[str, int]
    ) -> dict[Row, int]:
        """From which minute on the flight of each placement counts that a plan has moved, as its row says.

        Raises:
            Wrong: it is that of no plan, nor the first pixel's. Where rows are capped, it may also be the one
                behind the last that counted in `other`, which nobody else knows.
        """
        found = {}
        for name, plans in self.plans.items():
            row = "placement", name
            if "flight.since_ms" in rows.get(row, {}):
                since_ms = int(rows[row]["flight.since_ms"])
                first_ms = model.first_ms(positions, row)
                right = {plan.flight[0] for plan in plans}
                if not self._capped and since_ms != first_ms and since_ms not in right:
                    raise Wrong(f"the flight of {name} is since {since_ms}, right {first_ms} or {right}")
                found[row] = since_ms // 60_000 * 60_000
        return found

    def unlike(
        self,
        rows: Mapping[Row, Hash],
        model: Model,
        positions: Mapping[str, int],
        now_ms: int,
        held: bool,
        late: bool,
        since_ms: int,
    ) -> Iterator[str]:
        """The wrong delivery fields of all rows after a flush.

        Args:
            held: a collector holds time; delivery is as it was until it goes on.
            late: the flush is of an execution that has ended: the next one may have read no plans yet.
            since_ms: the receipt since which everything was counted; 0: not known yet, so all is as it was.
        """
        if not late:
            self._flushes, self._taken = self._flushes + 1, True
            if now_ms >= self._looked_ms + LOOK_MS:
                self._looks, self._looked_ms = self._looks + 1, now_ms
        settled = self._settled(now_ms)
        for name, plans in self.plans.items():
            got = rows.get(("placement", name), {})
            if "delivery.state" in got:
                # A row whose plan the file no longer has keeps for a moment what it showed.
                moves = len({plan.flight for plan in plans}) > 1 or name not in self.file.plans
                sure = not held and since_ms > 0 and (settled or not moves)
                minutes_ms = model.impressions_ms(positions, ("placement", name))
                of = plans, self._grace_ms, minutes_ms, sure, self._capped, since_ms
                for what in wrong(got, *of):
                    yield f"delivery of {name}: {what}"

    def over(self, rows: Mapping[Row, Hash]) -> Iterator[str]:
        """The wrong fields at the end, with the file's last version in force."""
        if untold := self.file.refused - self._told:
            yield f"of the plans {sorted(untold, key=str)} is wrong, and nobody says so"
        for name in self.plans:
            got = rows.get(("placement", name), {})
            plan = self.file.plans.get(name)
            booked = None if plan is None else str(plan.booked)
            if got.get("delivery.booked") != booked or ("delivery.state" in got) != (plan is not None):
                yield f"{name} has {got.get('delivery.booked')} booked, right {booked}"
