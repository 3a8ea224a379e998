"""Chaos: a live stream, everything killed again and again, and the numbers of an undisturbed run in the end.

Adversarial traffic goes in real time into Apache Kafka (or into the embedded broker, which is then spared).
Flow processes, broker and Redis are killed and hindered at random moments, the last one after the last
event; the flow is stopped, rescaled and started anew on the way. A reader polls every row all the time.
Settings are so small that finality, expiry and retention happen within the run. The seed decides what is
sent, and which faults come in which order; not how fast the machine is.

Exit code 1: a backward step, a torn row, a difference from the log's recomputation or an undisturbed run.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Final

from benchmarks.chaos_bugs import BUGS
from benchmarks.chaos_plan import Plan
from benchmarks.chaos_run import LATENESS_CHANGED, Chaos

BUG_VARIABLE: Final = "CHAOS_BUG"
LONG: Final = {
    "all": 6, "one": 8, "again_while_starting": 3, "broker_killed": 3, "redis_emptied": 3, "redis_refuses": 1,
    "redis_hangs": 1, "redis_full": 1, "redis_read_only": 1, "rolled": 2, "rescaled": 3, "clock_stepped": 6,
    "redis_flushed": 4, "interval_changed": 3, "partition_added": 1,
}  # fmt: skip
"""How often which fault in six minutes: 20 kills of flow processes, or of all of them. A longer run has more.
"""
LONG_MINUTES: Final = 6.0
SHORT: Final = {
    "all": 1, "one": 1, "redis_emptied": 1, "redis_hangs": 1, "rolled": 1, "rescaled": 1, "clock_stepped": 2,
    "redis_flushed": 1, "interval_changed": 1,
}  # fmt: skip


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=LONG_MINUTES, help="of traffic")
    parser.add_argument("--rate", type=float, default=1000.0, help="pixels a second")
    parser.add_argument("--short", action="store_true", help="half a minute, few faults, the embedded broker")
    parser.add_argument("--lateness", action="store_true", help="change the allowed lateness on the way, too")
    parser.add_argument("--embedded", action="store_true", help="not Apache Kafka, even where it can be had")
    parser.add_argument("--keep", type=Path, help="a new directory for the log, the stores and what was said")
    chosen = parser.parse_args()
    bug = os.environ.get(BUG_VARIABLE)
    if bug is not None and bug not in BUGS:
        parser.error(f"{BUG_VARIABLE} is one of {', '.join(BUGS)}")
    times = max(1, round(chosen.minutes / LONG_MINUTES))
    seconds, rate = 60 * chosen.minutes, chosen.rate
    faults = {name: count if name == "partition_added" else times * count for name, count in LONG.items()}
    if chosen.short:
        seconds, rate, faults = 25.0, min(500.0, chosen.rate), SHORT
        if bug is not None:  # what differs in the end is then its work alone
            seconds, faults = 10.0, {}
    if chosen.lateness:
        faults = faults | {LATENESS_CHANGED: 4}
    keep = None if chosen.keep is None else chosen.keep.resolve()
    plan = Plan(chosen.seed, seconds, rate, faults, chosen.short or chosen.embedded, bug, keep)
    sys.exit(0 if Chaos(plan).run() else 1)


if __name__ == "__main__":
    main()
