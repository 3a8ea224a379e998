"""A command of a chaos run that is killed, starved and started again, and what it serves over HTTP."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final

from benchmarks.chaos_services import ROOT
from flows.settings.fields import PREFIX

WITHIN_S: Final = 120.0
"""Time that a process may take to be ready, or to end."""
RESTS: Final = 75
"""Exit code of a process that has something left to send: start it again."""
_PATIENCE_S: Final = 5.0


class Process:
    """`audiopixel COMMAND`.

    Args:
        command: with its arguments.
        settings: without their prefix.
        log: file for what it prints.
    """

    def __init__(self, *command: str, settings: Mapping[str, object], log: Path) -> None:
        self._command, self._log = command, log
        clean = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        own = {PREFIX + name: str(value) for name, value in settings.items()}
        self._environment = clean | own | {"PYTHONPATH": str(ROOT)}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it is ready in a moment."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flows.cli", *self._command],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def code(self) -> int | None:
        """Its exit code. None if it runs, or was never started."""
        return None if self._process is None else self._process.poll()

    @property
    def lives(self) -> bool:
        """True if it has not ended."""
        return self._process is not None and self.code is None

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: it gets no processor."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> int:
        """SIGTERM; returns its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Its exit code, once it has ended by itself."""
        assert self._process is not None
        return self._process.wait(WITHIN_S)


def get(port: int, path: str) -> tuple[int, bytes]:
    """Status and body of a request to a process of this machine. 0 if there was no answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S)
    with suppress(OSError, HTTPException):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    return 0, b""
