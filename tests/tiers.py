"""Tests that `make test` leaves to `make test-all`, with what they cost.

`make test` takes four minutes on two quiet cores. It has a seed for each bug of `simulation.mutations` that
any seed finds. A test is long where it kills, waits, starts a JVM or tries all permutations. Continuous
integration runs one part of the long tests with each change: `make test-all PART=2/6`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

APACHE: Final = "Apache Kafka"
"""The key of the tests that start Apache Kafka, wherever they stand."""

LONG: Final = {
    APACHE: 90,
    "tests/dashboards/test_alert_reaches_trader.py": 40,
    "tests/faults": 400,
    "tests/flows/attribution/test_attribution_model.py": 25,
    "tests/flows/attribution/test_claimed_logs.py": 20,
    "tests/flows/attribution/test_conversion_logs.py": 120,
    "tests/flows/cli/test_cli.py::test_ctrl_c": 40,
    "tests/flows/cli/test_shown.py::test_an_id_in_redis_that_should_not_be_there": 20,
    "tests/flows/clients/test_client_logs.py": 20,
    "tests/flows/collector/test_broken_calls.py::test_a_body_that_is_cut_at_any_byte": 20,
    "tests/flows/collector/test_clock_steps.py": 15,
    "tests/flows/collector/test_kills.py": 60,
    "tests/flows/demo": 150,
    "tests/flows/engine/test_saves.py::test_from_every_save": 30,
    "tests/flows/plays/test_plays_state.py": 20,
    "tests/flows/viewers/test_page_access.py": 30,
    "tests/flows/viewers/test_page_browser.py": 60,
    "tests/fuzz/test_fuzz.py": 60,
    "tests/proofs": 230,
    "tests/test_bench.py": 60,
    "tests/test_chaos.py": 90,
    "tests/test_soak.py": 40,
}
"""Beginnings of node ids, and seconds on one of two quiet cores."""

SHORT: Final = (
    "tests/faults/test_faults_recovery.py::test_after_a_kill_the_log_is_read_again",
    "tests/faults/test_faults_members.py::test_when_a_member_dies_the_others_end",
    "tests/faults/test_verify.py",
    "tests/flows/engine/test_saves.py::test_from_every_save_a_flow_ends_as_the_undisturbed_one[1]",
    "tests/flows/demo/test_steps.py",
    "tests/flows/viewers/test_page_browser.py::test_the_page_is_small_and_loads_nothing_from_outside",
)
"""Beginnings of node ids among the long ones that `make test` runs: one of each kind."""


def long_key(nodeid: str, apache: bool) -> str | None:
    """The key of `LONG` that a test belongs to; None: `make test` runs it."""
    if apache:
        return APACHE
    if nodeid.startswith(SHORT):
        return None
    return next((key for key in LONG if nodeid.startswith(key)), None)


def part_of(number: int, parts: int, keys: Iterable[str] = LONG) -> set[str]:
    """The keys of one part of several (`number` from 1 on), which take about as long each."""
    dealt = [set[str]() for _ in range(parts)]
    seconds = [0] * parts
    for key in sorted(keys, key=lambda key: (-LONG[key], key)):
        least = seconds.index(min(seconds))
        dealt[least].add(key)
        seconds[least] += LONG[key]
    return dealt[number - 1]
