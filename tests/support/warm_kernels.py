"""Kernels are compiled before a flow is started that has a deadline to keep, and can then be loaded once for
all that are forked. From a clean checkout that is half a minute, which else every flow would take for itself.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from flows.state.kernel_cache import place_of_all

ROOT = Path(__file__).resolve().parents[2]
LOG = ROOT / "tests" / "data" / "adversarial.ndjson.gz"


def warm() -> None:
    """Have the kernels of these sources in numba's cache; of several processes the first compiles."""
    with (Path(place_of_all(ROOT / "flows", os.environ.get("NUMBA_CACHE_DIR", ""))) / "warm").open(
        "a+"
    ) as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)
        mark.seek(0)
        if not mark.read():
            path = os.pathsep.join((str(ROOT), str(Path(__file__).parent)))
            command = [sys.executable, "-m", "warm_kernels"]
            subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path})
            mark.write("all that a replay needs")


def _replay() -> None:
    from connectors.embedded import EmbeddedValkey
    from flows.replay import replay
    from flows.settings import load

    with EmbeddedValkey() as valkey, TemporaryDirectory() as name:
        settings = load(redis_url=valkey.url, metrics_port=0, shards=8)
        directory = Path(name)
        replay([str(LOG)], settings, bytes(16), out=directory / "out", recovery_dir=directory / "recovery")


if __name__ == "__main__":
    _replay()
