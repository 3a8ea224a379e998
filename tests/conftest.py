"""For all tests."""

from __future__ import annotations

import os
import signal

import pytest

# Who starts the tests in the background has them ignore Ctrl-C, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Whoever starts them, what is printed is as wide as the test says,
for _name in ("COLUMNS", "LINES"):
    os.environ.pop(_name, None)
# and some hundred processes do not all compile our sources anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

LONGEST = ("test_faults_kafka", "test_chaos", "test_faults_recovery", "test_kafka_input", "test_demo")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest first, so that two workers end together."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
