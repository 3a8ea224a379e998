"""The supervisor of a flow's processes: what its exit code tells."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest

from flows.engine import cluster
from flows.engine.cluster import Cluster
from flows.errors import AudiopixelError


@pytest.mark.parametrize(("code", "starts"), [(2, 1), (3, 1), (4, 1), (1, 3), (-9, 3)])
def test_what_would_end_the_same_way_again_is_not_started_again_and_keeps_its_code(
    code: int, starts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        started.append(arguments)
        ending = f"import os; os.kill(os.getpid(), {-code})" if code < 0 else f"raise SystemExit({code})"
        return subprocess.Popen([sys.executable, "-c", ending], stdin=subprocess.PIPE)

    monkeypatch.setattr(cluster, "start_member", start)
    monkeypatch.setattr(cluster, "LONGEST_PAUSE_S", 0.01)
    monkeypatch.setattr(cluster.signal, "signal", lambda *_: None)
    with pytest.raises(AudiopixelError) as failed:
        Cluster(2, restarts=2).run()
    assert failed.value.exit_code == (code if code > 1 else 1)
    assert len(started) == 2 * starts
