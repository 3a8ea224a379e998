"""The rival of equal work: written by hand for Hazelcast Jet, the fastest engine of the bench of rivals.

It does, by the flow's rules: each pixel once by (placement, play, event), plays stored for 30 minutes; start
cohorts with implied milestones, and those that wait for their start; orphans, lateness by watermark, clock
bounds; invalid traffic, consent, rejections by reason, and the account; minutes, and the windows 5m, 1h, 1d
and flight of each placement, campaign, platform and station with rates, labels and reach; reach exact up to
1,000 listeners and a sketch of the same precision beyond; keyed hashes; a snapshot a second, exactly-once;
absolute values to Redis as often as the flow writes them.

It does not: conversions, their touches, frequency and households; downloads, deliveries, skips, mutes,
progress and other bases; plans, pacing and alerts; calendar days, sketches and
provisional minutes for readers; silent feeds; ended rows, caps on rows, forgotten listeners; marks of
collectors; several partitions or members; versions of rows, without which its numbers may go back after a
crash until the replay has passed them. It sums its cells anew at each publication: a replay has one every
20 s, a live flow two a second.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Final

from benchmarks.measure import Answers, Counts, Job, Result
from benchmarks.peers import java
from benchmarks.published import MINUTE_METRICS, flights
from flows.model.counts import BY_MINUTE, CONSENTED_PLAYS
from flows.settings.loading import load

_COLUMNS: Final = tuple(name for name in BY_MINUTE[:CONSENTED_PLAYS] if name not in ("skips", "mutes"))
"""The counts of a minute, in the order in which the rival writes them."""

WARM_EVENTS: Final = 10_000_000
"""After four million, a loaded machine still compiles for a third of a short run's processor time."""
_MOST_WARM_RUNS: Final = 10


def version() -> str:
    """The engine and its version.

    Raises:
        Unavailable: no JDK, no Maven, or no repository.
    """
    java.prepared()
    return f"Hazelcast Jet {java.version_of('hazelcast')}"


def namespace(scratch: str) -> str:
    """The namespace in Redis of the run with a scratch directory."""
    return f"bench:{scratch}".replace(".", "-")


def run(job: Job, engine: str = "equal", warm_runs: int = 0) -> Result:
    """Run it over the log.

    Args:
        warm_runs: runs before the measured one; 0 takes those of `WARM_EVENTS`.
    """
    warm_runs = warm_runs or java.warm_runs_of(job.events, WARM_EVENTS, _MOST_WARM_RUNS)
    rows_in = namespace(Path(job.scratch).name)
    options = [f"-Dredis.url={job.redis_url}", f"-Dredis.namespace={rows_in}"]

    def answers(path: Path) -> Answers:
        settings = load(redis_url=job.redis_url, namespace=rows_in)
        return Answers(flights(settings), minutes(path))

    return java.run(engine, job, options, answers, warm_runs)


def minutes(path: Path) -> dict[str, Counts]:
    """The minutes of a file of placement, minute since the epoch, and counts; a placement may have several
    lines of one minute, which are added.
    """
    found: dict[str, Counts] = {}
    with path.open(newline="") as file:
        for placement, minute, *counts in csv.reader(file):
            of = found.setdefault(f"{placement}|{int(minute) * 60_000}", dict.fromkeys(MINUTE_METRICS, 0))
            for name, count in zip(_COLUMNS, counts, strict=True):
                if name in of:
                    of[name] += int(count)
    return found
