"""Polars' streaming engine on one thread: a lazy scan with a schema, two group-bys."""

from __future__ import annotations

import os

from benchmarks.measure import Job, Meter, Result
from benchmarks.peers.job import EVENTS, answers, installed


def version() -> str:
    """What is measured.

    Raises:
        Unavailable: it is not installed.
    """
    return f"Polars {installed('polars')}"


def run(job: Job) -> Result:
    """Query the log."""
    os.environ["POLARS_MAX_THREADS"] = "1"  # read when it is imported
    import polars as pl

    schema = {
        "event": pl.String,
        "ts": pl.Int64,
        "placement_id": pl.String,
        "play_id": pl.String,
        "listener_id": pl.String,
        "consent": pl.Boolean,
    }
    event = pl.col("event")
    heard = pl.col("consent") & event.is_in(["impression", "start"])
    once = [pl.col(name).first() for name in ("ts", "listener_id", "consent")]
    counts = [(event == name).sum().alias(name) for name in EVENTS]
    minute = (pl.col("ts") // 60_000).alias("minute")

    def query(log: str) -> list[tuple[object, ...]]:
        pixels = pl.scan_ndjson(log, schema=schema).group_by("placement_id", "play_id", "event").agg(once)
        found = pixels.group_by("placement_id", minute).agg(
            *counts, pl.col("listener_id").filter(heard).n_unique().alias("listeners")
        )
        rows: list[tuple[object, ...]] = found.collect(engine="streaming").rows()
        return rows

    query(job.warm)
    with Meter() as meter:
        rows = query(job.log)
    return meter.result(job.events, answers(rows))
