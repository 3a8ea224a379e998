"""The supervisor of a flow's processes: what its exit code tells."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest

from flows.engine import cluster
from flows.engine.cluster import Cluster
from flows.errors import AudiopixelError


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The codes of the starts to come, of which the last one comes again and again."""
    codes: list[int] = []
    members = 0

    def start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        nonlocal members
        code = codes[min(members // 2, len(codes) - 1)]
        members += 1
        ending = f"import os; os.kill(os.getpid(), {-code})" if code < 0 else f"raise SystemExit({code})"
        return subprocess.Popen([sys.executable, "-c", ending], stdin=subprocess.PIPE)

    monkeypatch.setattr(cluster, "start_member", start)
    monkeypatch.setattr(cluster, "LONGEST_PAUSE_S", 0.01)
    monkeypatch.setattr(cluster.signal, "signal", lambda *_: None)
    return codes


@pytest.mark.parametrize(
    ("code", "restarts", "starts"),
    [(2, 9, 2), (3, 9, 2), (4, 9, 2), (3, 0, 1), (1, 2, 3), (-9, 2, 3)],
)
def test_a_repeated_permanent_failure_is_not_restarted(
    code: int, restarts: int, starts: int, started: list[int]
) -> None:
    started.append(code)
    with pytest.raises(AudiopixelError, match=f"failed {starts} times") as failed:
        Cluster(2, restarts=restarts).run()
    assert failed.value.exit_code == (code if code > 1 else 1)


def test_a_setting_wrong_once_is_tried_again(started: list[int]) -> None:
    started += [2, 3, 2, 0]
    Cluster(2, restarts=3).run()
