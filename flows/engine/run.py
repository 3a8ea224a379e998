"""Running a dataflow in this process: its recovery store, its errors as ours, its panics kept off the
terminal.
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO, Final

from bytewax.dataflow import Dataflow
from bytewax.recovery import (
    InconsistentPartitionsError,
    MissingPartitionsError,
    NoPartitionsError,
    RecoveryConfig,
    init_db_dir,
)
from bytewax.testing import cluster_main, run_main

from connectors.durable import sync_directory
from connectors.stream import ConnectError
from flows.errors import AudiopixelError, StateError
from flows.state.allocator import keep_memory
from flows.state.durable import private_directory, privately

STORE_PARTITIONS: Final = 8
"""SQLite files of a recovery store, over which keys are spread; at most so many workers write at once."""
_INCOMPLETE: Final = (NoPartitionsError, MissingPartitionsError, InconsistentPartitionsError)
_SQLITE: Final = re.compile(r'SqliteFailure\(.*?(?:Some\("([^"]*)"\)|None)\)', re.DOTALL)


@contextmanager
def recovery_store(directory: Path | None, process: int = 0) -> Iterator[RecoveryConfig | None]:
    """The recovery store in `directory`, made on first use, and held by process number `process` of one
    execution alone.

    Raises:
        StateError: another execution is running on it, or it cannot be used.
    """
    if directory is None:
        yield None
        return
    try:
        private_directory(directory)
        with privately():
            lock = open(directory / f"lock-{process}", "w")  # noqa: SIM115 (held as long as the store)
    except OSError as error:
        raise StateError(f"the recovery directory {directory} cannot be used: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StateError(
                f"another execution is running on the recovery directory {directory}: stop it first, "
                "or give this one a directory and a namespace of its own"
            ) from None
        with privately(), open(directory / "init", "w") as once:
            fcntl.flock(once, fcntl.LOCK_EX)
            if not any(directory.glob("*.sqlite3")):
                init_db_dir(directory, STORE_PARTITIONS)
            for part in directory.glob("*.sqlite3"):  # SQLite gives its logs the mode of the file itself
                part.chmod(0o600)
            sync_directory(directory)
        yield RecoveryConfig(str(directory))


def execute(
    flow: Dataflow,
    *,
    recovery_dir: Path | None,
    epoch_interval: timedelta,
    workers: int = 1,
    addresses: list[str] | None = None,
    process: int = 0,
) -> None:
    """Run `flow` to its end, as one process or as one of a cluster.

    Args:
        workers: threads of this process; they share the interpreter, so processes scale and threads do not.
        addresses: `host:port` of every process of the cluster.
        process: which of them this is.

    Raises:
        AudiopixelError, ConnectError: what a step raised, out of the engine's wrapping.
        StateError: the recovery store is damaged, incomplete, or cannot be written.
    """
    keep_memory()
    with ExitStack() as stack:
        store = stack.enter_context(recovery_store(recovery_dir, process))
        panics = stack.enter_context(_panics())
        try:
            if workers == 1 and not addresses:
                run_main(flow, epoch_interval=epoch_interval, recovery_config=store)
            else:
                cluster_main(
                    flow,
                    addresses or [],
                    process,
                    epoch_interval=epoch_interval,
                    recovery_config=store,
                    worker_count_per_proc=workers,
                )
        except BaseException as error:
            if not isinstance(error, Exception) and not _panicked(error):
                raise
            ours = _ours(error)
            if ours is not None:
                raise ours from None
            panics.seek(0)
            said = panics.read().decode(errors="replace")
            damage = _damage(error, said)
            if damage is not None:
                raise StateError(
                    f"the recovery directory {recovery_dir} cannot be used ({damage}): restore all of it "
                    "from one backup, or give an empty one, to count the log again from its beginning"
                ) from None
            if _panicked(error) and addresses is not None and len(addresses) > 1:
                raise AudiopixelError(
                    "another member of the cluster has gone, and this one with it: its own last line says "
                    "why; start all of them again"
                ) from None
            sys.stderr.write(said)
            raise


def _ours(error: BaseException | None) -> Exception | None:
    while error is not None:
        if isinstance(error, (AudiopixelError, ConnectError)):
            return error
        error = error.__cause__ or error.__context__
    return None


def _panicked(error: BaseException) -> bool:
    """True if a thread of the engine's native code panicked, as those do that speak to a member that has
    gone.
    """
    return type(error).__module__ == "pyo3_runtime"


def _damage(error: BaseException, said: str) -> str | None:
    """The damage of the recovery store, if that ended the engine, by the words of its native code."""
    if isinstance(error, _INCOMPLETE):
        return " ".join(str(error).split())
    found = _SQLITE.search(f"{error}\n{said}")
    return None if found is None else found[1] or "SQLite failed"


@contextmanager
def _panics() -> Iterator[IO[bytes]]:
    """Keep what the engine's native code writes to standard error (a backtrace a failed step) in a file;
    Python's own output goes on.
    """
    sys.stderr.flush()
    kept, terminal = sys.stderr, os.dup(2)
    with tempfile.TemporaryFile() as file, os.fdopen(terminal, "w", buffering=1) as direct:
        os.dup2(file.fileno(), 2)
        sys.stderr = direct
        try:
            yield file
        finally:
            os.dup2(terminal, 2)
            sys.stderr = kept
