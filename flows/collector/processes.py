"""Several processes of the collector at one port, one a core, each with a seat: its spool and its health
port.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from types import FrameType
from typing import Final

PAUSE_S: Final = 1.0
"""Before a process that died is started again."""


def run_all(processes: int) -> int:
    """Run so many, start again what dies, and pass signals on; returns the greatest exit code at the end."""
    ending = False
    children: list[subprocess.Popen[bytes]] = []

    def start(seat: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "flows.cli", "collect"]
        return subprocess.Popen([*command, "--processes", str(processes), "--seat", str(seat)])

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal ending
        ending = True
        for child in children:
            child.send_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    children += [start(seat) for seat in range(processes)]
    while not ending:
        for seat, child in enumerate(children):
            try:
                code = child.wait(PAUSE_S)
            except subprocess.TimeoutExpired:
                continue
            if not ending and code != 0:
                children[seat] = start(seat)
    return max(child.wait() for child in children)
