"""audiopixel from a file to Redis, with recovery on, as shipped: `audiopixel replay LOG --recovery DIR`."""

from __future__ import annotations

from pathlib import Path

from benchmarks.measure import UNPLANNED, Answers, Job, Meter, Result
from benchmarks.published import bytes_a_play, flights, minutes
from flows.replay import replay
from flows.settings.fields import Settings
from flows.settings.loading import load

KEY = b"sixteen secret b"


def run(job: Job, attribution: str = "last_touch") -> Result:
    """Replay the log; `bytes_a_play` among the facts."""
    warm_up(job)
    settings = load(
        redis_url=job.redis_url,
        namespace=f"bench:{Path(job.scratch).name}",
        attribution=attribution,
        **UNPLANNED,
    )
    out = Path(job.scratch, "out") if job.minutes else None
    with Meter() as meter:
        replay([job.log], settings, KEY, out=out, recovery_dir=Path(job.scratch, "recovery"))
    facts = {"bytes_a_play": bytes_a_play(), "recovery_mib": _size_mib(Path(job.scratch, "recovery"))}
    found = {} if out is None else minutes(out / "minutes.ndjson")
    return meter.result(job.events, Answers(flights(settings), found), facts)


def warm_up(job: Job) -> Settings:
    """Load the kernels, by a small log into a namespace of its own."""
    settings = load(redis_url=job.redis_url, namespace="bench:warm")
    replay([job.warm], settings, KEY, recompute=True, recovery_dir=Path(job.scratch, "warm"))
    return settings


def _size_mib(directory: Path) -> float:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) / (1 << 20)
