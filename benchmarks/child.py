"""The process of one contender: `python -m benchmarks.child NAME RESULT`, with its job as JSON on stdin."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import msgspec

from benchmarks.measure import Job, Result


def main(name: str, result: Path) -> None:
    """Run the contender: a module beside this one, with `run(job) -> Result`, and in this process alone."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    outcome: Result = importlib.import_module(f"benchmarks.{name}").run(job)
    result.write_bytes(msgspec.json.encode(outcome))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
