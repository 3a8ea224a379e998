"""Chaos: a live stream, everything killed again and again, and the numbers of an undisturbed run in the end.

Adversarial traffic goes in real time into Apache Kafka (or into the embedded broker, which is then spared).
Beside it players call two collectors, and send again what is not answered; a source reads a topic of
another shape, and `audiopixel archive` writes an archive. Flow processes, collectors, the source, the
archive's writer, broker and Redis are killed and hindered at random moments, the last one after the last
event; the flow is stopped, rescaled and started anew on the way. A reader polls every row all the time.
The flow does not begin in an archive, and nobody is forgotten: the simulation plays these.
Settings are so small that finality, expiry and retention happen within the run. The seed decides what is
sent, and which faults come in which order; not how fast the machine is.

Exit code 1: a backward step, a torn row, a difference from the log's recomputation, an undisturbed run, the
archive, the players' list of what was answered as stored, or what the source's topic holds.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Final

from benchmarks.chaos_bugs import BUGS, OF_THE_SOURCE
from benchmarks.chaos_run import LATENESS_CHANGED, Chaos, Plan

BUG_VARIABLE: Final = "CHAOS_BUG"
LONG: Final = {
    "all": 6, "one": 8, "again_while_starting": 3, "broker_killed": 3, "broker_hangs": 3, "redis_emptied": 3,
    "redis_refuses": 1, "redis_hangs": 1, "redis_full": 1, "redis_read_only": 1, "rolled": 2, "rescaled": 3,
    "clock_stepped": 6, "redis_flushed": 4, "interval_changed": 3, "partition_added": 1,
}  # fmt: skip
"""How often which fault in six minutes: 20 kills of flow processes, or of all of them. A longer run has more.
"""
LONG_MINUTES: Final = 6.0
DENSE: Final = {"all": 24, "one": 32, "again_while_starting": 8}
"""Kills in six minutes with --dense: one in five seconds, as long as the next flow took to its first flush
(4.8 s in the mean, 2026-11-26, at a load of 3).
"""
DOOR_FAULT_EVERY_S: Final = 10.0
"""Collectors are killed or stopped so often in the mean, beside all else, and so is the source."""
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
    parser.add_argument("--minutes", type=float, default=LONG_MINUTES, help=f"of traffic; {LONG_MINUTES:g}")
    parser.add_argument("--dense", action="store_true", help="kill a process of the flow every five seconds")
    parser.add_argument("--rate", type=float, default=1000.0, help="pixels a second")
    parser.add_argument("--short", action="store_true", help="half a minute, few faults, the embedded broker")
    parser.add_argument("--lateness", action="store_true", help="change the allowed lateness on the way, too")
    parser.add_argument("--embedded", action="store_true", help="not Apache Kafka, even where it can be had")
    parser.add_argument("--keep", type=Path, help="a new directory for the log, the stores and what was said")
    chosen = parser.parse_args()
    bug = os.environ.get(BUG_VARIABLE)
    bugs = (*BUGS, OF_THE_SOURCE)
    if bug is not None and bug not in bugs:
        parser.error(f"{BUG_VARIABLE} is one of {', '.join(bugs)}")
    sys.exit(0 if Chaos(_plan(chosen, bug)).run() else 1)


def _plan(chosen: argparse.Namespace, bug: str | None) -> Plan:
    """The plan of one run."""
    minutes: float = chosen.minutes
    seconds, rate, times = 60 * minutes, chosen.rate, max(1, round(minutes / LONG_MINUTES))
    faults = {name: count if name == "partition_added" else times * count for name, count in LONG.items()}
    if chosen.dense:
        faults |= {name: max(1, round(minutes / LONG_MINUTES * count)) for name, count in DENSE.items()}
    if chosen.short:
        seconds, rate, faults = 25.0, min(500.0, chosen.rate), SHORT
        if bug is not None:  # what differs in the end is then its work alone
            seconds, faults = 10.0, {}
    if chosen.lateness:
        faults = faults | {LATENESS_CHANGED: 4}
    keep = None if chosen.keep is None else chosen.keep.resolve()
    door_faults = 0 if chosen.short and bug is not None else round(seconds / DOOR_FAULT_EVERY_S)
    embedded = chosen.short or chosen.embedded
    return Plan(chosen.seed, seconds, rate, faults, door_faults, embedded, bug, keep)


if __name__ == "__main__":
    main()
