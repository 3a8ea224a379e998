"""Which files of tests find which injected bugs: `PYTHONPATH=tests python -m simulation.matrix FILES`.

pytest runs the files once as they are, and then once under each bug, in a process of its own. It takes all
arguments that the matrix does not: `-m "not long"` chooses what `make test` runs of the files. A bug is in
that process alone: a command that a test starts is without it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from simulation.mutations import mutated, mutations

FOUND: Final = Path(__file__).with_name("found.json")
TESTS: Final = Path(__file__).parents[1]
_BUG: Final = "TESTED_BUG"
_FAILED: Final = "TESTED_FAILED"
_stack: Final = ExitStack()
_failed: Final[set[str]] = set()


def pytest_configure() -> None:
    """As a plugin: put the bug in before any test is imported."""
    if bug := os.environ.get(_BUG):
        _stack.enter_context(mutated(bug))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        _failed.add(report.nodeid.partition("::")[0])


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        _failed.add(report.nodeid.partition("::")[0])


def pytest_unconfigure() -> None:
    _stack.close()
    if path := os.environ.get(_FAILED):
        Path(path).write_text(json.dumps(sorted(_failed)))


def failing(bug: str, arguments: Sequence[str]) -> list[str]:
    """The files of which a test fails under a bug; without a bug if `bug` is empty.

    Raises:
        RuntimeError: pytest ran no test.
    """
    with tempfile.TemporaryDirectory() as name:
        failed = Path(name) / "failed.json"
        path = os.pathsep.join((str(TESTS), os.environ.get("PYTHONPATH", "")))
        environment = os.environ | {_BUG: bug, _FAILED: str(failed), "PYTHONPATH": path}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "simulation.matrix"]
        done = subprocess.run(
            [*command, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode not in (0, 1, 2) or not failed.exists():
            raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
        return [str(name) for name in json.loads(failed.read_text())]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the files that find each bug; exit code 1 where none does."""
    parser = argparse.ArgumentParser(prog="python -m simulation.matrix", description=__doc__)
    parser.add_argument("--bug", action="append", metavar="NAME", help="this one alone; may be repeated")
    parser.add_argument("--rest", action="store_true", help="the bugs that no seed of found.json finds")
    chosen, others = parser.parse_known_args(arguments)
    bugs = chosen.bug or sorted(mutations())
    if chosen.rest:
        bugs = [name for name in bugs if name not in json.loads(FOUND.read_text())]
    if wrong := failing("", others):
        print(f"fails without any bug: {', '.join(wrong)}", file=sys.stderr)
        return 2
    unfound = 0
    for bug in bugs:
        files = failing(bug, others)
        unfound += not files
        print(f"{bug}: {', '.join(files) or 'none'}", flush=True)
    return int(unfound > 0)


if __name__ == "__main__":
    raise SystemExit(main())
