"""Which of the demo's processes are started again."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.demo.processes import QUICK_ENDS, Processes
from flows.errors import AudiopixelError
from flows.settings import load

SAID: list[str] = []


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Processes]:
    """Processes whose commands are lines of a shell: the last argument."""
    shell = tmp_path / "shell"
    shell.write_text('#!/bin/sh\nfor last; do :; done\necho x >> "$0.starts"\nexec sh -c "$last" "$0"\n')
    shell.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(shell))
    SAID.clear()
    made = Processes(load(), tmp_path, SAID.append)
    yield made
    made.end()


def starts(directory: Path) -> int:
    return len((directory / "shell.starts").read_text().split())


def check_until(processes: Processes, lines: int) -> None:
    deadline_s = time.monotonic() + 30
    while len(SAID) < lines:
        assert time.monotonic() < deadline_s
        processes.check()
        time.sleep(0.02)


def test_a_failed_archive_is_restarted_with_a_log_line(processes: Processes, tmp_path: Path) -> None:
    once = '[ $(wc -l < "$0.starts") -gt 1 ] && exec sleep 60; echo Kafka timed out; exit 1'
    processes.start("archive", once, again=True)
    check_until(processes, 1)
    assert SAID == ["the archive ended with code 1 (Kafka timed out): started again"]
    time.sleep(0.2)
    processes.check()
    assert starts(tmp_path) == 2, "it runs"


def test_a_process_failing_at_each_start_ends_the_demo(processes: Processes, tmp_path: Path) -> None:
    processes.start("archive", "exit 1", again=True)
    with pytest.raises(AudiopixelError, match="the archive ended with code 1"):
        check_until(processes, QUICK_ENDS + 1)
    assert starts(tmp_path) == QUICK_ENDS


@pytest.mark.parametrize(("again", "code"), [(True, 2), (True, 0), (False, 1)])
def test_wrong_settings_and_other_ended_processes_end_the_demo(
    processes: Processes, again: bool, code: int
) -> None:
    processes.start("archive", f"exit {code}", again=again)
    with pytest.raises(AudiopixelError, match=f"the archive ended with code {code}"):
        check_until(processes, 1)
    assert SAID == []
