"""The supervisor of a collector's processes: what its exit code tells."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from flows.collector import processes

DRAINED_IN_PART = """import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
signal.pause()"""


def test_the_exit_code_is_that_of_the_process_that_cannot_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start: Any = subprocess.Popen

    def started(command: list[str], **more: Any) -> Any:
        return start([sys.executable, "-c", DRAINED_IN_PART if command[-1] == "0" else "exit(2)"], **more)

    monkeypatch.setattr(processes.subprocess, "Popen", started)
    monkeypatch.setattr(processes.signal, "signal", lambda *_: None)
    monkeypatch.setattr(processes, "PAUSE_S", 0.5)
    assert processes.run_all(2) == 2
