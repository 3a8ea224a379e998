"""The demo as a newcomer runs it: real processes, ended by time, by Ctrl-C and by a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

MARK = "AUDIOPIXEL_NAMESPACE"


def alive(namespace: str) -> list[str]:
    """Command lines of the processes that run with this namespace in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={namespace}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def started(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    namespace = f"demo{uuid.uuid4().hex[:8]}:v1"
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "demo", *arguments],
        env={**os.environ, MARK: namespace},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    return process, namespace


def gone(namespace: str, within_s: float = 8.0) -> list[str]:
    """What is left of a demo after a while."""
    deadline = time.monotonic() + within_s
    while (left := alive(namespace)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def test_a_bounded_demo_ends_with_redis_equal_to_the_ledger() -> None:
    process, namespace = started("--seconds", "20")
    output, _ = process.communicate(timeout=150)
    assert process.returncode == 0, output
    assert "differ" not in output
    assert "flight.completes" in output
    received = next(line for line in output.splitlines() if "received" in line)
    assert int(received.split("│")[2].replace(",", "")) > 10_000
    assert gone(namespace) == []


@pytest.mark.parametrize("after_s", [1.0, 3.0, 9.0])
def test_ctrl_c_ends_a_demo_with_no_process_left_behind(after_s: float) -> None:
    process, namespace = started()
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode in (0, 130), output
    assert "Traceback" not in output
    assert gone(namespace) == []


def test_a_killed_demo_takes_its_processes_along() -> None:
    process, namespace = started()
    time.sleep(6)
    process.kill()
    process.wait(10)
    assert gone(namespace, 15) == []
