"""For all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

# Who starts the tests in the background has them ignore Ctrl-C, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Whoever starts them, what is printed is as wide as the test says,
for _name in ("COLUMNS", "LINES"):
    os.environ.pop(_name, None)
# and some hundred processes do not all compile our sources anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Deadlines would be of a machine that others use, too, and of kernels that are compiled on first use.
hypothesis.settings.register_profile("ci", max_examples=40, deadline=None)
hypothesis.settings.register_profile("nightly", max_examples=1000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

FIRST = (
    "test_replay_truth",  # compiles the kernels, while the next two need none
    "test_kafka_input",
    "test_faults_kafka",
    "test_chaos",
    "test_demo",
    "test_bench",
    "test_models",
    "test_faults_recovery",
    "test_faults_members",
    "test_conversion_logs",
    "test_kills",
    "test_page_browser",
    "test_page_access",
)
"""Files that take longest, so that all workers end together."""

APART = ("test_chaos.py", "test_conversion_logs.py", "/faults/")
"""Files whose tests need not be one worker's."""


@pytest.fixture(autouse=True)
def _own_handlers() -> Iterator[None]:
    """Let a test that runs a command in this process leave its handlers of signals to no other."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def group_of(nodeid: str) -> str:
    """What one worker runs one after the other: a file, or a test of its own, or all that share a JVM."""
    path = nodeid.partition("::")[0]
    if "test_faults_kafka" in path or "apache" in nodeid.partition("[")[2]:
        return f"Apache Kafka in {Path(path).parent}"
    return nodeid if any(one in path for one in APART) else path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The groups that take longest first."""
    places = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


class Groups(LoadScopeScheduling):
    """Hands groups to workers; xdist's own marks for groups do nothing under pytest 9."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


@pytest.hookimpl(optionalhook=True)  # without xdist there is no such hook
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    return Groups(config, log)
