"""Runs a dataflow in this process: locks its recovery directory, raises its errors as audiopixel's, and keeps
its panics off the terminal.
"""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO, Final

from bytewax.dataflow import Dataflow
from bytewax.testing import cluster_main, run_main

from connectors.stream import ConnectError
from flows.engine.pickled import pickle_once
from flows.engine.saved_step import drain
from flows.engine.saves import refusal
from flows.errors import AudiopixelError, StateError
from flows.state.allocator import keep_memory
from flows.state.durable import private_directory, privately

EPOCH: Final = timedelta(seconds=10)
"""Bytewax's epoch. Nothing is saved at its end. Sources read on only after all of it is processed, which
bounds the lead of one member over another.
"""


@contextmanager
def recovery_lock(directory: Path | None, process: int = 0) -> Iterator[None]:
    """The recovery directory, made on first use, and held by process number `process` of one execution alone.

    Raises:
        StateError: another execution is running on it, or it cannot be used.
    """
    if directory is None:
        yield
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
        try:
            yield
        finally:
            drain()


def execute(
    flow: Dataflow,
    *,
    recovery_dir: Path | None,
    workers: int = 1,
    addresses: list[str] | None = None,
    process: int = 0,
) -> None:
    """Run `flow` to its end, as one process or as one of a cluster.

    Args:
        workers: threads of this process. They share the interpreter, so only processes scale.
        addresses: `host:port` of every process of the cluster.
        process: the number of this process.

    Raises:
        AudiopixelError, ConnectError: a step raised it; the engine's wrapping is removed.
        StateError: the recovery directory is another execution's, or cannot be used.
    """
    keep_memory()
    with ExitStack() as stack:
        stack.enter_context(recovery_lock(recovery_dir, process))
        panics = stack.enter_context(_panics())
        try:
            if workers == 1 and not addresses:
                run_main(flow, epoch_interval=EPOCH)
            else:
                pickle_once()
                cluster_main(
                    flow,
                    addresses or [],
                    process,
                    epoch_interval=EPOCH,
                    worker_count_per_proc=workers,
                )
        except BaseException as error:
            if not isinstance(error, Exception) and not _panicked(error):
                raise
            late = refusal()
            ours = _ours(error) or late
            if ours is not None:
                raise ours from None
            panics.seek(0)
            panic_text = panics.read().decode(errors="replace")
            if _panicked(error) and addresses is not None and len(addresses) > 1:
                raise AudiopixelError(
                    "another member of the cluster has gone, and this one with it: its own last line says "
                    "why; start all of them again"
                ) from None
            sys.stderr.write(panic_text)
            raise
        if (late := refusal()) is not None:
            raise late


def _ours(error: BaseException | None) -> Exception | None:
    while error is not None:
        if isinstance(error, (AudiopixelError, ConnectError)):
            return error
        error = error.__cause__ or error.__context__
    return None


def _panicked(error: BaseException) -> bool:
    """True if a thread of the engine's native code panicked, as threads do that send to a member that is
    gone.
    """
    return type(error).__module__ == "pyo3_runtime"


@contextmanager
def _panics() -> Iterator[IO[bytes]]:
    """Redirect the engine's native standard error (a backtrace a failed step) into a file; Python's own
    output is unchanged.
    """
    sys.stderr.flush()
    own_stderr, terminal = sys.stderr, os.dup(2)
    with tempfile.TemporaryFile() as file, os.fdopen(terminal, "w", buffering=1) as direct:
        os.dup2(file.fileno(), 2)
        sys.stderr = direct
        try:
            yield file
        finally:
            os.dup2(terminal, 2)
            sys.stderr = own_stderr
