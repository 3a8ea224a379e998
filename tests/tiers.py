"""Tests that `make test` leaves to `make test-all`, with what they cost.

`make test` takes seven minutes from a fresh clone on two quiet cores. It has a seed for each bug of
`simulation.mutations` that any seed finds. A test is long where it kills, waits, starts a JVM or tries all
permutations. Continuous integration runs one part of them with each change: `make test-all PART=2/6`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

APACHE: Final = "Apache Kafka"
"""The key of the tests that start Apache Kafka, wherever they stand."""

LONG: Final = {
    APACHE: 90,
    "tests/clients/test_client_cases.py": 25,
    "tests/clients/test_client_faults.py": 50,
    "tests/clients/test_client_wheel.py::test_it_runs_in_a_bare_python": 10,
    "tests/connectors/test_kafka_unanswered.py": 15,
    "tests/connectors/test_redis_faults.py": 10,
    "tests/dashboards/test_alert_reaches_trader.py": 40,
    "tests/dashboards/test_alert_rules.py::test_a_fault_put_into_a_rule": 60,
    "tests/dashboards/test_alert_rules.py::test_the_rules_tell_the_stories": 45,
    "tests/dashboards/test_panels": 20,
    "tests/faults/test_faults_brokers.py": 60,
    "tests/faults/test_faults_collector.py": 60,
    "tests/faults/test_faults_disks.py": 60,
    "tests/faults/test_faults_feeds.py": 60,
    "tests/faults/test_faults_kafka.py": 90,
    "tests/faults": 200,
    "tests/flows/archive/test_archive_live.py": 20,
    "tests/flows/archive/test_forgotten.py": 10,
    "tests/flows/archive/test_four_weeks.py": 60,
    "tests/flows/archive/test_history.py": 40,
    "tests/flows/archive/test_hours.py": 10,
    "tests/flows/archive/test_recompute.py": 60,
    "tests/flows/archive/test_writer.py": 10,
    "tests/flows/attribution/test_attribution_model.py": 25,
    "tests/flows/attribution/test_claimed_logs.py": 20,
    "tests/flows/attribution/test_conversion_logs.py": 120,
    "tests/flows/cli/test_cli.py::test_ctrl_c": 40,
    "tests/flows/cli/test_forget_confirmed.py": 25,
    "tests/flows/cli/test_shown.py::test_an_id_in_redis_that_should_not_be_there": 20,
    "tests/flows/clients/test_client_logs.py": 20,
    "tests/flows/collector/test_beacons_browser.py": 10,
    "tests/flows/collector/test_broken_calls.py::test_a_body_that_is_cut_at_any_byte": 20,
    "tests/flows/collector/test_clock_steps.py": 15,
    "tests/flows/collector/test_consent_libraries.py": 10,
    "tests/flows/collector/test_kills.py": 60,
    "tests/flows/collector/test_planned.py": 20,
    "tests/flows/delivery/test_first_day.py": 10,
    "tests/flows/demo": 200,
    "tests/flows/engine/test_saves.py::test_a_flow_whose_saves": 20,
    "tests/flows/engine/test_saves.py::test_from_every_save": 30,
    "tests/flows/exports/test_notices.py": 10,
    "tests/flows/exports/test_parquet.py::test_a_day_is_the_same_bytes": 15,
    "tests/flows/exports/test_parquet.py::test_a_kill_between": 15,
    "tests/flows/exports/test_targets_that_fail.py": 25,
    "tests/flows/intake/test_scanner_damage.py::test_damaged_lines_are_read_the_same[100000": 10,
    "tests/flows/plays/test_plays_state.py": 20,
    "tests/flows/reconcile/test_reconcile_caps.py": 20,
    "tests/flows/reconcile/test_reconcile_labels.py": 10,
    "tests/flows/reconcile/test_reconcile_late_plans.py": 10,
    "tests/flows/reconcile/test_reconcile_memory.py": 10,
    "tests/flows/reconcile/test_reconcile_opening.py": 25,
    "tests/flows/reconcile/test_reconcile_plans.py::test_a_simulated_log": 10,
    "tests/flows/silence/test_weeks.py": 20,
    "tests/flows/sources/test_again.py": 15,
    "tests/flows/sources/test_killed.py": 25,
    "tests/flows/sources/test_live.py": 20,
    "tests/flows/sources/test_registry.py": 25,
    "tests/flows/state/test_lean.py": 25,
    "tests/flows/viewers/test_access_browser.py": 10,
    "tests/flows/viewers/test_adcp_clients.py": 15,
    "tests/flows/viewers/test_documents_browser.py": 10,
    "tests/flows/viewers/test_page_": 90,
    "tests/fuzz/test_fuzz.py": 60,
    "tests/proofs": 230,
    "tests/test_bench.py": 60,
    "tests/test_chaos.py": 90,
    "tests/test_equal_rival.py": 60,
    "tests/test_soak.py": 40,
}
"""Beginnings of node ids, the narrower first, and seconds on one of two quiet cores."""

SHORT: Final = (
    "tests/clients/test_client_wheel.py::test_it_runs_in_a_bare_python[3.9-",
    "tests/dashboards/test_alert_rules.py::test_the_rules_tell_the_stories[delivery",
    "tests/faults/test_faults_recovery.py::test_after_a_kill_the_log_is_read_again",
    "tests/faults/test_faults_members.py::test_when_a_member_dies_the_others_end",
    "tests/faults/test_verify.py",
    "tests/flows/engine/test_saves.py::test_from_every_save_a_flow_ends_as_the_undisturbed_one[1]",
    "tests/flows/demo/test_steps.py",
    "tests/flows/viewers/test_page_browser.py::test_the_page_is_small_and_loads_nothing_from_outside",
    "tests/flows/reconcile/test_reconcile_caps.py::test_a_flow_of_capped_rows_reconciles_and_a_wrong_other_is_found[flight.impressions]",
    "tests/flows/reconcile/test_reconcile_opening.py::test_each_field_of_such_a_row_is_compared[balance]",
    "tests/flows/viewers/test_page_desk.py",
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
