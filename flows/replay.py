"""The same flow over files: finite, ends when the logs end, with every window final."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from connectors.files import FileInput
from flows.engine import execute
from flows.forget import DenyList
from flows.outputs import FileLines
from flows.pixels import Sinks, build
from flows.settings import Settings, ms
from flows.sinks import LinesSink, RedisSink
from flows.source import PixelSource, Stop


def replay(
    files: Sequence[str],
    settings: Settings,
    listener_key: bytes,
    *,
    out: Path | None = None,
    workers: int = 1,
    recompute: bool = False,
    recovery_dir: Path | None = None,
    stop: Stop | None = None,
) -> None:
    """Run the flow over NDJSON logs, each file a partition, into Redis.

    Args:
        files: plain, `.gz` or `.zst`; paths as given name the partitions.
        out: where to write `minutes.ndjson` and `rejected.ndjson`; None: nowhere.
        workers: threads; the numbers do not depend on it.
        recompute: begin a new generation in Redis.
        recovery_dir: snapshots, to go on after an interruption; None: none.
        stop: ends it early when set.

    Raises:
        ConnectError, AudiopixelError: see the messages.
    """
    source, settings = FileInput(files), settings.model_copy(update={"recovery_dir": recovery_dir})

    def lines(name: str) -> LinesSink | None:
        return None if out is None else LinesSink(lambda position: FileLines(out / name, position))

    flow = build(
        PixelSource(
            source,
            settings,
            listener_key,
            stop or Stop(ms(settings.flush_interval)),
            denied=DenyList(settings),
        ),
        Sinks(
            RedisSink(settings, source, recompute),
            lines("rejected.ndjson"),
            lines("minutes.ndjson"),
            lines("credits.ndjson"),
        ),
        settings,
    )
    execute(flow, recovery_dir=recovery_dir, epoch_interval=settings.epoch_interval, workers=workers)
