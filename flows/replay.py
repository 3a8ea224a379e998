"""The same flow over files. A replay ends at the end of the logs, when every minute is final."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from connectors.durable import Taken, alone
from connectors.files import FileInput
from connectors.redis import connect, read_rows
from connectors.stream import ConnectError
from flows.archive import ADDRESS, ArchiveInput, store_of
from flows.check import first_fault
from flows.delivery import require_label_plans
from flows.engine import (
    FileOutput,
    LinesSink,
    PixelSource,
    RedisSink,
    StopSignal,
    execute,
    fresh,
    lay_foundation,
    settings_of_store,
    store_methodology,
)
from flows.errors import MOST_REJECTED, UsageError
from flows.intake import DenyList, line_ends, refuse_less
from flows.methodology import methodology
from flows.model.dimensions import SCOPES
from flows.model.redis_keys import row_key
from flows.pixels import Sinks, build
from flows.publish import ShownRows, positions_of, refuse_foreign
from flows.settings import Settings
from flows.state.keys import fingerprint

PACE: Final = timedelta(seconds=20)
"""The time between two flushes. No bid depends on a log that is being replayed, and its rows change until the
end.
"""
OUTPUTS: Final = ("rejected.ndjson", "minutes.ndjson", "credits.ndjson")
"""The names of output files, in the order of the flow's sinks."""
METHODOLOGY: Final = "methodology.json"
"""The name of the file with the description of methodology."""


def replay(
    files: Sequence[str],
    settings: Settings,
    listener_key: bytes,
    *,
    out: Path | None = None,
    workers: int = 1,
    recompute: bool = False,
    recovery_dir: Path | None = None,
    stop: StopSignal | None = None,
) -> None:
    """Run the flow over NDJSON logs, each file a partition, into Redis.

    Args:
        files: paths of plain, `.gz` or `.zst` files, which are the names of the partitions. Or one archive,
            `archive:DIR|URL`, whose partitions have the names of its topic's partitions.
        out: the directory of `METHODOLOGY` and of `OUTPUTS`; the latter are emptied unless an interrupted
            replay continues. None for no files.
        workers: the number of threads, on which the numbers do not depend.
        recompute: whether to begin a new generation in Redis.
        recovery_dir: the directory of saves, to continue after an interruption; None for no saves.
        stop: ends the replay early when it is set.

    Raises:
        ConnectError, AudiopixelError: see the messages.
    """
    with _alone(out):
        _replay(files, settings, listener_key, out, workers, recompute, recovery_dir, stop or StopSignal())


def _replay(
    files: Sequence[str],
    settings: Settings,
    listener_key: bytes,
    out: Path | None,
    workers: int,
    recompute: bool,
    recovery_dir: Path | None,
    stop: StopSignal,
) -> None:
    source, settings = _input(files), settings.model_copy(update={"recovery_dir": recovery_dir})
    outputs = {} if out is None else {name: FileOutput(out / name) for name in OUTPUTS}
    for output in outputs.values():
        _refuse_own_input(output.path, files)
    _refuse_other_numbers(source.partitions(), settings, recompute)
    require_label_plans(settings)
    lay_foundation(settings, listener_key)
    settings = settings_of_store(settings)
    store_methodology(settings)
    if out is not None:
        _refuse_own_input(out / METHODOLOGY, files)
        _, text = methodology(settings).line()
        _write(out / METHODOLOGY, text + b"\n")
    if fresh(recovery_dir):
        for output in outputs.values():
            output.begin()

    def lines(name: str) -> LinesSink | None:
        return LinesSink(outputs[name]) if name in outputs else None

    flow = build(
        PixelSource(source, settings, listener_key, stop, denied=DenyList(settings)),
        Sinks(
            RedisSink(
                settings, source, recompute, pace=PACE, stop=stop, listener_key=fingerprint(listener_key)
            ),
            *map(lines, OUTPUTS),
        ),
        settings,
        shown=ShownRows(settings, recompute),
    )
    execute(flow, recovery_dir=recovery_dir, workers=workers)
    for output in outputs.values():
        output.begin()


def _input(files: Sequence[str]) -> FileInput | ArchiveInput:
    if not any(file.startswith(ADDRESS) for file in files):
        return FileInput(files, ends=line_ends)
    if len(files) > 1:
        raise UsageError("an archive is replayed alone: name no other file")
    return ArchiveInput(store_of(files[0]))


def partitions_of(files: Sequence[str]) -> list[str]:
    """The names of the partitions in a replay of `files`.

    Raises:
        ConnectError, AudiopixelError: they cannot be read.
    """
    return _input(files).partitions()


@contextmanager
def _alone(out: Path | None) -> Iterator[None]:
    """Hold the lock of a directory of outputs, to which no two replays may write."""
    if out is None:
        yield
        return
    with ExitStack() as locks:
        try:
            out.mkdir(parents=True, exist_ok=True)
            locks.enter_context(alone(out))
        except OSError as error:
            raise ConnectError(f"{out}: cannot be written: {error.strerror}") from None
        except Taken:
            raise UsageError(f"another replay writes to {out}: give --out another directory") from None
        yield


def _write(path: Path, text: bytes) -> None:
    try:
        path.write_bytes(text)
    except OSError as error:
        raise ConnectError(f"{path}: cannot be written: {error.strerror}") from None


def _refuse_own_input(output: Path, files: Sequence[str]) -> None:
    for file in files:
        if not file.startswith(ADDRESS) and output.exists() and output.samefile(file):
            raise UsageError(f"{file} would be written over: give --out another directory")


def _refuse_other_numbers(partitions: Sequence[str], settings: Settings, recompute: bool) -> None:
    """Refuse a Redis with another log's numbers, or whose numbers would fall. Call this before any file is
    emptied.
    """
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    (row,) = read_rows(client, [f"{settings.namespace}:positions"])
    if "positions" in row and not recompute:
        refuse_foreign(positions_of(row), partitions, settings.namespace)
        if fresh(settings.recovery_dir):
            refuse_less(client, settings.namespace)
    client.close()


def closing_line(files: Sequence[str], settings: Settings) -> tuple[str, str]:
    """The closing line of a replay, from Redis: the accounts of its logs, the number of rows, and the end of
    the last final minute. Then the reason against these numbers, if over `MOST_REJECTED` of the messages were
    rejected; else an empty text.

    Raises:
        ConnectError: Redis does not serve, or a log cannot be read again.
    """
    namespace = settings.namespace
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    accounts = read_rows(client, [row_key(namespace, "partition", name) for name in partitions_of(files)])

    def total(*names: str) -> int:
        return sum(int(count) for account in accounts for name, count in account.items() if name in names)

    rejected = total(*(name for account in accounts for name in account if name.startswith("rejected.")))
    rows = sum(int(client.zcard(f"{namespace}:index:{scope}")) for scope in SCOPES)
    newest = map(str, client.zrange(f"{namespace}:index:{SCOPES[0]}", 0, 0, desc=True))
    through = read_rows(
        client, [row_key(namespace, SCOPES[0], name) for name in newest], ["final_through_ms"]
    )
    client.close()
    ends = [datetime.fromtimestamp(int(row["final_through_ms"]) / 1000, UTC) for row in through if row]
    final = f", final through {ends[0].isoformat().replace('+00:00', 'Z')}" if ends else ""
    received = total("received")
    line = (
        f"received {received:,} = accepted {total('accepted'):,} + repeated {total('repeated'):,} "
        f"+ rejected {rejected:,}; {rows:,} rows{final}"
    )
    if rejected <= MOST_REJECTED * received:
        return line, ""
    fault = None if files[0].startswith(ADDRESS) else first_fault(files)
    where = f"the first at {fault}" if fault else "each is a pixel by itself; --out lists the reasons"
    return line, f"{rejected:,} of {received:,} messages are rejected: {where}"
