"""Measure the flow beside others on one log: outputs are compared, then times, memory and the bars shown."""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.bench import Bench
from benchmarks.peers.bench import PeersBench
from connectors.stream import ConnectError
from flows.errors import AudiopixelError

EVENTS: Final = 1_000_000
SMOKE_EVENTS: Final = 60_000


def main() -> int:
    """`python -m benchmarks`; exit code 1 where outputs differ or a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--events", type=int, help=f"how many ({EVENTS:,}; {SMOKE_EVENTS:,} in a smoke run)")
    parser.add_argument("--smoke", action="store_true", help="short: compare outputs, judge no bar")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the log, outputs and results there")
    parser.add_argument("--peers", action="store_true", help="beside engines that others build, instead")
    parser.add_argument("--readme", action="store_true", help="print README's tables, and nothing else")
    arguments = parser.parse_args()
    events = arguments.events or (SMOKE_EVENTS if arguments.smoke else EVENTS)
    with ExitStack() as stack:
        directory = arguments.keep or stack.enter_context(
            tempfile.TemporaryDirectory(prefix="audiopixel-bench-")
        )
        directory = Path(directory).resolve()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            bench = PeersBench if arguments.peers else Bench
            return bench(events, arguments.smoke, directory, arguments.readme).run()
        except (AudiopixelError, ConnectError, OSError) as error:
            print(f"bench: {error}", file=sys.stderr)
        except KeyboardInterrupt:
            return 130
    return 1


if __name__ == "__main__":
    sys.exit(main())
