"""Starts the demo's processes with the demo's own settings, watches them, and ends them with the demo, even
after a kill.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from connectors.redis import RedisUnavailable
from flows.errors import AudiopixelError
from flows.settings import PREFIX, Settings
from flows.shown import shown

# Ends a child once this process ends, even by a kill, which closes our end of the pipe. TERM comes first, so
# that the child drains.
_GUARD: Final = 'read -r end; kill -TERM "$1" 2>/dev/null; sleep 3; kill -KILL "$1" 2>/dev/null'
QUICK_ENDS: Final = 20
"""The number of successive failures soon after a start by which a command cannot run. It is high, since a
command that needs Kafka at its start fails every few seconds while Kafka is away.
"""
_SOON_S: Final = 10.0
_WRONG: Final = 2
"""The exit code for a wrong setting."""
_SHOWN_LETTERS: Final = 120


class Processes:
    """Commands of `audiopixel` that run next to the demo.

    Args:
        settings: its explicitly set fields are in the commands' environment.
        directory: the directory for logs.
        show: receives texts for the viewer.
    """

    def __init__(self, settings: Settings, directory: Path, show: Callable[[str], None]) -> None:
        self._directory, self._show = directory, show
        self._environment = {**os.environ, **environment(settings)}
        self._children: list[tuple[str, subprocess.Popen[bytes], subprocess.Popen[bytes]]] = []
        self._again: dict[str, tuple[str, ...]] = {}
        self._began_s: dict[str, float] = {}
        self._quick_ends: Counter[str] = Counter()

    def start(self, name: str, *arguments: str, again: bool = False) -> str:
        """Start a command, and return its name.

        Args:
            again: whether `check` starts the command again after a kill or a failure.
        """
        self._began_s[name] = time.monotonic()
        if again:
            self._again[name] = arguments
        with (self._directory / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "flows.cli", *arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        guard = subprocess.Popen(
            ["sh", "-c", _GUARD, "guard", str(child.pid)], stdin=subprocess.PIPE, start_new_session=True
        )
        self._children.append((name, child, guard))
        return name

    def finish(self, name: str, stopping: threading.Event, within: timedelta) -> None:
        """Wait until a command ends by itself, or until the demo must stop.

        Raises:
            AudiopixelError: the command failed, or has not ended in time.
        """
        (entry,) = (entry for entry in self._children if entry[0] == name)
        deadline_s = time.monotonic() + within.total_seconds()
        while entry[1].poll() is None and not stopping.is_set():
            if time.monotonic() > deadline_s:
                raise AudiopixelError(f"the {name} has not ended within {within.total_seconds():.0f} s")
            time.sleep(0.05)
        if not stopping.is_set():
            if entry[1].returncode:
                self.check()
            self._children.remove(entry)

    def end(self) -> None:
        """End all processes."""
        for _, child, _ in self._children:
            child.terminate()
        for _, child, guard in self._children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(12)
            child.kill()
            child.wait()
            guard.kill()
            guard.wait()

    def check(self) -> None:
        """Start killed and failed processes again if they were started with `again`.

        Raises:
            AudiopixelError: another process has ended, or a process fails at each start.
        """
        for entry in [*self._children]:
            name, child, guard = entry
            if child.poll() is None:
                continue
            if not self._may_start_again(name, child.returncode):
                raise AudiopixelError(f"the {name} ended with code {child.returncode}: {self._tail(name)}")
            ended = (
                f"was killed ({signal.Signals(-child.returncode).name})"
                if child.returncode < 0
                else f"ended with code {child.returncode} ({shown(self._tail(name, 1), _SHOWN_LETTERS)})"
            )
            self._children.remove(entry)
            guard.kill()  # the guard's process id may now belong to another process
            guard.wait()
            self.start(name, *self._again[name], again=True)
            self._show(f"the {name} {ended}: started again")

    def _may_start_again(self, name: str, code: int) -> bool:
        if name not in self._again or code in (0, _WRONG):
            return False
        if code > 0:
            soon = time.monotonic() - self._began_s[name] < _SOON_S
            self._quick_ends[name] = self._quick_ends[name] + 1 if soon else 0
        return self._quick_ends[name] < QUICK_ENDS

    def _tail(self, name: str, lines: int = 5) -> str:
        log = self._directory / f"{name}.log"
        return " | ".join(log.read_text(errors="replace").strip().splitlines()[-lines:])

    def wait(
        self, ready: Callable[[], bool], stopping: threading.Event, within: timedelta, name: str
    ) -> None:
        """Wait until a condition holds, or until the demo must stop.

        Args:
            name: the process that the condition is about.

        Raises:
            AudiopixelError: a process has ended, or the condition does not hold in time.
        """
        deadline_s = time.monotonic() + within.total_seconds()
        while not stopping.is_set():
            self.check()
            with suppress(RedisUnavailable):
                if ready():
                    return
            if time.monotonic() > deadline_s:
                raise AudiopixelError(
                    f"the {name} was not ready within {within.total_seconds():.0f} s: the machine is slow or "
                    "busy: run the demo again, which keeps the kernels that are compiled. The log of the "
                    f"{name} ends: {self._tail(name)}"
                )
            time.sleep(0.1)


def environment(settings: Settings) -> dict[str, str]:
    """The explicitly set settings as environment variables."""
    return {
        f"{PREFIX}{name.upper()}": _text(getattr(settings, name))
        for name in sorted(settings.model_fields_set)
    }


def _text(value: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, timedelta):
        return str(value.total_seconds())
    if isinstance(value, Mapping | tuple | list):
        return json.dumps(value, default=_plain)
    return str(value)


def _plain(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value.model_dump()
