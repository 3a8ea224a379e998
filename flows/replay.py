"""The same flow over files: finite, ends when the logs end, with every window final."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import cluster_main, run_main

from connectors.files import FileInput
from flows.outputs import FileLines
from flows.pixels import Sinks, build
from flows.settings import Settings, ms
from flows.steps import LinesSink, PixelSource, RedisSink, Stop

RECOVERY_PARTITIONS = 4


def recovery(directory: Path | None) -> RecoveryConfig | None:
    """The recovery store in a directory, made on first use."""
    if directory is None:
        return None
    if not any(directory.glob("*.sqlite3")):
        directory.mkdir(parents=True, exist_ok=True)
        init_db_dir(directory, RECOVERY_PARTITIONS)
    return RecoveryConfig(str(directory))


def replay(
    files: Sequence[str],
    settings: Settings,
    listener_key: bytes,
    *,
    out: Path | None = None,
    workers: int = 1,
    recompute: bool = False,
    recovery_dir: Path | None = None,
) -> None:
    """Run the flow over NDJSON logs, each file a partition, into Redis, and with `out` into `minutes.ndjson` and `rejected.ndjson`."""
    source = FileInput(files)
    stop = Stop(ms(settings.flush_interval))

    def lines(name: str) -> LinesSink | None:
        return None if out is None else LinesSink(lambda position: FileLines(out / name, position))

    flow = build(
        PixelSource(source, settings, listener_key, stop),
        Sinks(RedisSink(settings, source, recompute), lines("rejected.ndjson"), lines("minutes.ndjson")),
        settings,
    )
    store = recovery(recovery_dir)
    epoch: timedelta = settings.epoch_interval
    if workers == 1:
        run_main(flow, epoch_interval=epoch, recovery_config=store)
    else:
        cluster_main(flow, [], 0, epoch_interval=epoch, recovery_config=store, worker_count_per_proc=workers)
