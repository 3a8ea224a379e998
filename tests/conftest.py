"""For all tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from tiers import LONG, is_wholly_long, long_key, part_of, turn_of
from xdist.scheduler import LoadScopeScheduling

# Who starts the tests in the background has them ignore Ctrl-C, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# The terminal's size of the caller does not change what a test prints,
for _name in ("COLUMNS", "LINES"):
    os.environ.pop(_name, None)
# and hundreds of processes do not each compile our sources again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Deadlines would be of a machine that others use, too, and of kernels that are compiled on first use.
hypothesis.settings.register_profile("ci", max_examples=40, deadline=None)
hypothesis.settings.register_profile("nightly", max_examples=1000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

APART = ("test_chaos.py", "test_conversion_logs.py", "/faults/")
"""Files whose tests need not be one worker's."""
TESTS = Path(__file__).parent


@pytest.fixture(autouse=True)
def _own_handlers() -> Iterator[None]:
    """Let a test that runs a command in this process leave its handlers of signals to no other."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def group_of(nodeid: str) -> str:
    """The group of tests that one worker runs in sequence: a file, a single test, or all tests that share a
    JVM.
    """
    path = nodeid.partition("::")[0]
    if "test_faults_kafka" in path or "apache" in nodeid.partition("[")[2]:
        return f"Apache Kafka in {Path(path).parent}"
    return nodeid if any(one in path for one in APART) else path


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", metavar="K/N", help="only the long tests of part K of N; see tests/tiers.py")


def pytest_configure(config: pytest.Config) -> None:
    """Let each worker begin to collect at another file, and keep the order of the files otherwise.

    pytest rewrites the asserts of a file that nobody has collected before, which takes ten times as long as
    to import it. Workers that begin at the same file rewrite all files at once, each for itself.
    """
    worker = getattr(config, "workerinput", None)
    if worker and config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        patterns = config.getini("python_files")
        files = sorted({str(path) for pattern in patterns for path in TESTS.rglob(pattern)})
        first = len(files) * int(worker["workerid"].removeprefix("gw")) // worker["workercount"]
        config.args[:] = files[first:] + files[:first]
        config.pluginmanager.register(SameOrder())


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile the kernels once, in parallel to the first tests; otherwise each worker would compile them
    itself.
    """
    config = session.config
    if config.getoption("numprocesses", None) and config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        command = [sys.executable, str(TESTS / "support" / "warm_kernels.py")]
        environment = {**os.environ, "PYTHONPATH": str(TESTS.parent)}
        # Its log is no part of the tests' output. If it fails, the first `warm` of a test fails in its place.
        silent = subprocess.DEVNULL
        compiling = subprocess.Popen(
            command, env=environment, start_new_session=True, stdout=silent, stderr=silent
        )
        config.add_cleanup(lambda: _end(compiling))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process with those that it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
    process.wait()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Spare `make test` the import of files of which it runs no test."""
    if config.getoption("markexpr") != "not long" or not collection_path.is_relative_to(TESTS):
        return None
    return is_wholly_long(str(collection_path.relative_to(TESTS.parent))) or None


class SameOrder:
    """Sorts what a worker has collected by file, before pytest groups it by parameters of fixtures."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: str(item.path))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the long tests, leave out those of other parts, and begin with what takes longest.

    The short ones begin with those that can run before the kernels are compiled.
    """
    keys = {item: long_key(item.nodeid, _is_apache(item)) for item in items}
    for item, key in keys.items():
        if key is not None:
            item.add_marker("long")
    if part := config.getoption("--part"):
        number, _, parts = part.partition("/")
        chosen = part_of(int(number), int(parts))
        config.hook.pytest_deselected(items=[item for item in items if keys[item] not in chosen])
        items[:] = [item for item in items if keys[item] in chosen]
    items.sort(key=lambda item: (-LONG.get(keys[item] or "", 0), turn_of(item.nodeid)))


def _is_apache(item: pytest.Item) -> bool:
    return item.get_closest_marker("apache") is not None or "apache" in item.nodeid.partition("[")[2]


class Groups(LoadScopeScheduling):
    """Hands groups to workers; xdist's own marks for groups do nothing under pytest 9."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


@pytest.hookimpl(optionalhook=True)  # without xdist there is no such hook
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    return Groups(config, log)
