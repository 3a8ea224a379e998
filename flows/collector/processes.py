"""Several processes of the collector at one port, one a core, each with a seat: its spool and its health
port.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from types import FrameType
from typing import Final

from flows.errors import CANNOT_BEGIN

PAUSE_S: Final = 1.0
"""Seconds before a dead process is started again."""


def end_with_supervisor() -> None:
    """End this process as on SIGTERM once its supervisor has ended, even by SIGKILL, and its pipe has closed.

    A process without its supervisor would hold its spool, and the next supervisor's process could not begin.
    """

    def wait() -> None:
        os.read(sys.stdin.fileno(), 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def run_all(processes: int) -> int:
    """Run the processes, restart those that die, and pass signals on.

    Returns the greatest exit code at the end. If a process cannot begin, the others are ended and its code is
    returned.
    """
    ending = False
    children: dict[int, subprocess.Popen[bytes]] = {}

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal ending
        ending = True
        for child in children.values():
            child.send_signal(signal.SIGTERM)

    def start(seat: int) -> None:
        command = [sys.executable, "-m", "flows.cli", "collect", "--supervised"]
        children[seat] = subprocess.Popen(
            [*command, "--processes", str(processes), "--seat", str(seat)], stdin=subprocess.PIPE
        )
        if ending:  # it did not exist yet when the others got their signal
            children[seat].send_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    for seat in range(processes):
        start(seat)
    while not ending:
        time.sleep(PAUSE_S)
        for seat, child in list(children.items()):
            code = child.poll()
            if code in CANNOT_BEGIN:
                end(signal.SIGTERM, None)
            elif code is not None and not ending:
                start(seat)
    codes = [_exit_code(child.wait()) for child in children.values()]
    return next((code for code in codes if code in CANNOT_BEGIN), max(codes))


def _exit_code(code: int) -> int:
    """The exit code of a process. A process that SIGTERM killed had not begun to handle signals: 0."""
    if code == -signal.SIGTERM:
        return 0
    return 1 if code < 0 else code
