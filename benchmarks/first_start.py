"""How long a newcomer waits: `make demo` in a fresh clone, until it shows the page's address, and once more.

`python -m benchmarks.first_start`: the commit that is checked out is cloned, so what is not committed has no
part in it. The demo installs what it needs, compiles, and shows the address once the page has its first rows.
It ends after seconds of traffic with 0 only if Redis equals the truth.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks.bars import ROOT, finish
from flows.errors import AudiopixelError

TRAFFIC_S: Final = 5
_ADDRESS: Final = "http://127.0.0.1:"


def demo(clone: Path) -> float:
    """Seconds until `make demo` in a clone shows the page's address.

    Raises:
        AudiopixelError: it ended with an error, without an address, or with numbers other than the truth.
    """
    began_s, shown_s, said = time.monotonic(), 0.0, list[str]()
    command = ["make", "demo", f"SECONDS={TRAFFIC_S}"]
    with subprocess.Popen(
        command, cwd=clone, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            said.append(line)
            if _ADDRESS in line and not shown_s:
                shown_s = time.monotonic() - began_s
    if running.returncode or not shown_s:
        raise AudiopixelError(f"make demo ended with {running.returncode}:\n{''.join(said[-20:])}")
    return shown_s


def main() -> int:
    """Measure and print; exit code 1 where a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_start", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="judge no bar")
    smoke = parser.parse_args().smoke
    with tempfile.TemporaryDirectory(prefix="audiopixel-clone-") as name:
        clone = Path(name, "audiopixel")
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        first_s, second_s = demo(clone), demo(clone)
    table = [["fresh clone, s", "second start, s"], [f"{first_s:.1f}", f"{second_s:.1f}"]]
    figures = {"seconds": first_s, "second_s": second_s}
    return finish("first_start", "until the page's address is shown", table, figures, not smoke)


if __name__ == "__main__":
    sys.exit(main())
