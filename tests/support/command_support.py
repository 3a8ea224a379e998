"""`audiopixel` in processes forked from one that has imported all of it: a start costs a tenth of a second of
processor, not a second and a half. Tests of the import run `python -m flows.cli`.
"""

from __future__ import annotations

import atexit
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing import forkserver, get_context
from pathlib import Path
from time import monotonic

from warm_kernels import warm

ROOT = Path(__file__).resolve().parents[2]
PRELOADED = (
    *("flows.cli.commands", "flows.replay", "flows.pixels", "flows.reconcile.recomputation"),
    *("flows.collector.serve", "flows.collector.processes", "flows.delivery"),
    *("flows.viewers.exporter", "loaded_kernels", __name__),  # kernels behind all that has some
)
_context = get_context("forkserver")


def _serve() -> None:
    """Start the process to fork from, once, where it finds our modules, and their kernels compiled."""
    if getattr(forkserver._forkserver, "_forkserver_pid", None) is None:
        warm()
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(Path(__file__).parent)))
    try:
        _context.set_forkserver_preload([*PRELOADED])
        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before


def _become(
    arguments: list[str], directory: str, environment: dict[str, str], stdin: str, out: str, err: str
) -> None:
    """Within the fork: be `audiopixel`, in a session of its own."""
    os.setsid()
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    writing = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for number, path, flags in ((0, stdin, os.O_RDONLY), (1, out, writing), (2, err, writing)):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  # as long as the process
    sys.argv = ["audiopixel", *arguments]
    from flows.cli.__main__ import main

    try:
        main()
    finally:
        atexit._run_exitfuncs()


def errors_in(said: str) -> list[str]:
    """The errors with which commands ended: lines for people, or lines of a log with their time and level."""
    lines = [line for line in said.splitlines() if line.startswith("audiopixel: ")]
    logged = re.findall(r'^timestamp=\S+ level=error event=("(?:[^"\\]|\\.)*"|\S+)$', said, re.MULTILINE)
    return lines + [re.sub(r"\\(.)", r"\1", event.strip('"')) for event in logged]


class Command:
    """A run of `audiopixel`, like `subprocess.Popen`.

    Args:
        environment: all of it.
        out: file that standard output is appended to; standard error, too, without `err`.
    """

    def __init__(
        self,
        *arguments: str,
        directory: Path,
        environment: Mapping[str, str],
        out: Path,
        err: Path | None = None,
        stdin: str = os.devnull,
    ) -> None:
        _serve()
        told = ([*arguments], str(directory), dict(environment), stdin, str(out), str(err or out))
        self._process = _context.Process(target=_become, args=told, daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (code := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired("audiopixel", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def run_command(
    *arguments: str, directory: Path, environment: Mapping[str, str], into: Path, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """`audiopixel` until it ends; what it says goes through files in `into`."""
    told, out, err = (into / f".{name}-{monotonic()}" for name in ("in", "out", "err"))
    told.write_text(stdin)
    command = Command(
        *arguments, directory=directory, environment=environment, out=out, err=err, stdin=str(told)
    )
    try:
        code = command.wait(120)
    finally:
        command.kill()
    said = [path.read_text() if path.exists() else "" for path in (out, err)]
    return subprocess.CompletedProcess(["audiopixel", *arguments], code, *said)
