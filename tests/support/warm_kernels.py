"""Kernels are compiled once for all processes of a test run, before a flow is started that has a deadline to
meet. From a clean checkout that takes 45 s of processor, which every process would take for itself.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

from flows.state.kernel_cache import place_of_all

ROOT = Path(__file__).resolve().parents[2]


def warm() -> None:
    """Compile the kernels of these sources; of several processes the first compiles, the others wait."""
    with (Path(place_of_all(ROOT / "flows", os.environ.get("NUMBA_CACHE_DIR", ""))) / "warm").open(
        "a+"
    ) as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)
        mark.seek(0)
        if not mark.read():
            command = [sys.executable, "-c", "from flows.compile import compile_kernels; compile_kernels()"]
            subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
            mark.write("all that a flow needs")


if __name__ == "__main__":
    warm()
