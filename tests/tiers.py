"""Tests that `make test` leaves to `make test-all`, with what they cost.

`make test` takes under four minutes on two quiet cores with compiled kernels. It has a test for each bug of
`simulation.mutations` that any test finds; `simulation.matrix` shows which. A test is long where it kills,
waits, starts a JVM or tries all permutations. A test of many seeds is short for some of them, and long for
the others. Continuous integration runs one part of the long ones with each change: `make test-all PART=2/6`.
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
    "tests/clients/test_client_sentinel.py": 50,
    "tests/clients/test_client_wheel.py::test_it_runs_in_a_bare_python": 10,
    "tests/connectors/test_kafka_unanswered.py": 15,
    "tests/connectors/test_redis_faults.py": 10,
    "tests/dashboards/test_alert_reaches_trader.py": 40,
    "tests/dashboards/test_alert_rules.py::test_a_fault_put_into_a_rule": 60,
    "tests/dashboards/test_alert_rules.py::test_the_rules_tell_the_stories": 45,
    "tests/dashboards/test_dashboards_generated.py::test_an_unwritable_target": 5,
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
    "tests/flows/attribution/test_frequency.py::test_frequency_equals": 5,
    "tests/flows/attribution/test_households.py::test_a_household_of_many": 5,
    "tests/flows/attribution/test_households.py::test_every_conversion": 5,
    "tests/flows/attribution/test_listens.py::test_a_play_is_one": 5,
    "tests/flows/attribution/test_listens.py::test_listens_match": 5,
    "tests/flows/cli/test_cli.py::test_ctrl_c": 40,
    "tests/flows/cli/test_cli.py::test_on_a_terminal": 5,
    "tests/flows/cli/test_forget_confirmed.py": 25,
    "tests/flows/cli/test_shown.py::test_reconcile_shows_an_unexpected_id_in_redis": 20,
    "tests/flows/clients/test_client_logs.py": 20,
    "tests/flows/collector/test_beacons_browser.py": 10,
    "tests/flows/collector/test_bench_modes.py::test_each_mode": 5,
    "tests/flows/collector/test_broken_calls.py::test_a_truncated_body": 20,
    "tests/flows/collector/test_clock_steps.py": 15,
    "tests/flows/collector/test_consent_libraries.py": 10,
    "tests/flows/collector/test_kills.py": 60,
    "tests/flows/collector/test_planned.py": 20,
    "tests/flows/delivery/test_first_day.py": 10,
    "tests/flows/demo": 200,
    "tests/flows/engine/test_saves.py::test_an_uncommittable_save": 20,
    "tests/flows/engine/test_saves.py::test_from_every_save": 30,
    "tests/flows/exports/test_notices.py": 10,
    "tests/flows/exports/test_parquet.py::test_a_day_is_the_same_bytes": 15,
    "tests/flows/exports/test_parquet.py::test_a_kill_within": 15,
    "tests/flows/exports/test_targets_that_fail.py": 25,
    "tests/flows/intake/test_scanner_damage.py::test_damaged_lines_are_read_the_same[100000": 10,
    "tests/flows/plays/test_plays.py::test_long_runs": 5,
    "tests/flows/plays/test_plays_state.py": 20,
    "tests/flows/publish/test_turned_rows.py::test_no_row_is_older": 5,
    "tests/flows/publish/test_updates.py::test_a_follower_of_updates": 5,
    "tests/flows/reconcile/test_reconcile_caps.py": 20,
    "tests/flows/reconcile/test_reconcile_labels.py": 10,
    "tests/flows/reconcile/test_reconcile_late_plans.py": 10,
    "tests/flows/reconcile/test_reconcile_memory.py": 10,
    "tests/flows/reconcile/test_reconcile_opening.py": 25,
    "tests/flows/reconcile/test_reconcile_plans.py::test_a_simulated_log": 10,
    "tests/flows/reconcile/test_reconcile_rules.py::test_the_whole_log_at_once": 5,
    "tests/flows/reconcile/test_reconcile_truth.py::test_a_log_split": 5,
    "tests/flows/reconcile/test_reconcile_truth.py::test_every_flight_number": 5,
    "tests/flows/rows/test_given_out.py::test_every_change": 15,
    "tests/flows/rows/test_reach.py::test_rolling_reach_counts": 5,
    "tests/flows/rows/test_windows.py::test_a_run_longer": 5,
    "tests/flows/silence/test_weeks.py": 20,
    "tests/flows/simulate/test_simulate.py::test_the_generator_is_fast": 5,
    "tests/flows/simulate/test_simulate.py::test_the_ledger_equals": 5,
    "tests/flows/simulate/test_simulate.py::test_the_ledger_is_right": 5,
    "tests/flows/sources/test_again.py": 15,
    "tests/flows/sources/test_examples.py::test_an_example": 10,
    "tests/flows/sources/test_formats.py": 10,
    "tests/flows/sources/test_killed.py": 25,
    "tests/flows/sources/test_live.py": 20,
    "tests/flows/sources/test_registry.py": 25,
    "tests/flows/state/test_lean.py": 25,
    "tests/flows/test_replay_truth.py::test_a_log_as_it_is": 5,
    "tests/flows/test_replay_truth.py::test_a_simulated_log": 5,
    "tests/flows/test_replay_truth.py::test_neither_order": 5,
    "tests/flows/viewers/test_access_browser.py": 10,
    "tests/flows/viewers/test_adcp_clients.py": 15,
    "tests/flows/viewers/test_curves.py::test_ten_minutes": 5,
    "tests/flows/viewers/test_documents_browser.py": 10,
    "tests/flows/viewers/test_page_": 90,
    "tests/fuzz/test_fuzz.py": 60,
    "tests/proofs": 230,
    "tests/simulation/test_figures.py::test_a_stopped_run": 5,
    "tests/simulation/test_matrix.py": 15,
    "tests/simulation/test_simulation.py::test_shortening": 5,
    "tests/test_bench.py": 60,
    "tests/test_chaos.py": 90,
    "tests/test_equal_rival.py": 60,
    "tests/test_package.py::test_a_demo_without": 5,
    "tests/test_secrets.py::test_no_tracked_file": 25,
    "tests/test_soak.py": 40,
}
"""Beginnings of node ids, the narrower first, and seconds on one of two quiet cores."""


def _cases(file: str, test: str, *cases: str) -> tuple[str, ...]:
    """Some cases of a test with parameters, by the beginnings of their names."""
    return tuple(f"tests/{file}::{test}[{case}" for case in cases)


def _seeds(file: str, test: str, count: int) -> tuple[str, ...]:
    """The first cases of a test whose first parameter is a seed."""
    return _cases(file, test, *(f"{seed}{end}" for seed in range(count) for end in "]-"))


SHORT: Final = (
    "tests/clients/test_client_wheel.py::test_it_runs_in_a_bare_python[3.9-",
    "tests/dashboards/test_alert_rules.py::test_the_rules_tell_the_stories[collector",
    "tests/faults/test_faults_recovery.py::test_a_killed_flow_reads_the_log_again",
    "tests/faults/test_faults_members.py::test_when_a_member_dies_the_others_end",
    "tests/faults/test_verify.py",
    "tests/flows/engine/test_saves.py::test_from_every_save_a_flow_ends_as_the_undisturbed_one[1]",
    "tests/flows/demo/test_steps.py",
    "tests/flows/viewers/test_page_browser.py::test_the_page_is_small_and_loads_nothing_from_outside",
    *_cases(
        "flows/reconcile/test_reconcile_caps.py",
        "test_capped_rows_reconcile_and_a_wrong_other_is_found",
        "flight.impressions]",
    ),
    *_cases(
        "flows/reconcile/test_reconcile_opening.py", "test_each_field_of_such_a_row_is_compared", "balance]"
    ),
    "tests/flows/viewers/test_page_desk.py",
    *_cases(
        "dashboards/test_dashboards_generated.py",
        "test_an_unwritable_target_is_an_error_of_one_line",
        "a file-",
    ),
    *_seeds(
        "flows/attribution/test_households.py",
        "test_a_household_of_many_is_known_whatever_caps_have_dropped",
        20,
    ),
    *_seeds("flows/attribution/test_households.py", "test_every_conversion_is_joined_as_the_words_say", 20),
    *_cases("flows/attribution/test_listens.py", "test_a_play_is_one_listen_within_the_play_horizon", "1-"),
    *_seeds("flows/attribution/test_listens.py", "test_listens_match_the_oracle_for_repeated_plays", 2),
    "tests/flows/plays/test_plays_state.py::test_a_final_minute_stays_final",
    *_seeds(
        "flows/attribution/test_frequency.py",
        "test_frequency_equals_the_counted_listens_after_any_restart",
        2,
    ),
    *_seeds("flows/publish/test_turned_rows.py", "test_no_row_is_older_than_metas_lower_bound", 4),
    *_seeds("flows/publish/test_updates.py", "test_a_follower_of_updates_has_the_rows_of_redis", 4),
    *_cases(
        "flows/rows/test_reach.py",
        "test_rolling_reach_counts_only_listeners_of_5_and_60_minutes",
        "crowded-0-",
        "crowded-1-",
        "exact-0-",
        "exact-1-",
    ),
    *_cases(
        "flows/reconcile/test_reconcile_truth.py",
        "test_every_flight_number_of_the_truth_comes_out",
        "adversarial",
        "mta-mta.truth-listen",
    ),
    *_seeds(
        "flows/reconcile/test_reconcile_rules.py",
        "test_the_whole_log_at_once_equals_a_forward_read",
        2,
    ),
    *_cases(
        "flows/simulate/test_simulate.py",
        "test_the_ledger_equals_an_independent_recomputation_of_the_log",
        "11-",
        "13-",
        "16-",
    ),
    *_seeds("flows/plays/test_plays.py", "test_long_runs_match_the_specification", 10),
    *_seeds("flows/rows/test_given_out.py", "test_every_change_by_time_alone_is_published", 4),
    *_seeds("flows/rows/test_windows.py", "test_a_run_longer_than_its_memory_shows_the_sums", 4),
    *_cases(
        "flows/sources/test_examples.py",
        "test_an_example_goes_from_its_file_to_right_numbers",
        "avro",
        "csv",
        "json-topic",
        "mediatailor",
    ),
    "tests/flows/test_replay_truth.py::test_a_log_as_it_is_gives_its_truth[adversarial-2",
    "tests/flows/test_replay_truth.py::test_a_log_as_it_is_gives_its_truth[mta-4",
    "tests/flows/test_replay_truth.py::test_a_log_as_it_is_gives_its_truth[obd-1",
    *_cases(
        "flows/test_replay_truth.py",
        "test_a_simulated_log_reconciles_without_a_difference",
        "11-last_touch",
        "14-time_decay",
    ),
    *_cases(
        "flows/test_replay_truth.py",
        "test_neither_order_nor_partitions_nor_workers_change_a_number",
        "mta-2-3-2",
        "obd-3-4-4",
    ),
    *_cases(
        "flows/viewers/test_curves.py",
        "test_ten_minutes_are_ten_minutes_however_far_apart_the_samples_lie",
        "10.0-as",
        "15.0-ten",
    ),
)
"""Beginnings of node ids among the long ones that `make test` runs: one of each kind."""


WITHOUT_KERNELS: Final = (
    "tests/clients",
    "tests/dashboards",
    "tests/examples",
    "tests/flows/collector",
    "tests/flows/reconcile/test_reconcile_rules.py",
    "tests/flows/simulate",
    "tests/flows/sources",
    "tests/flows/viewers",
    "tests/flows/waterfall",
    "tests/fuzz",
    "tests/test_",
)
"""Beginnings of node ids of tests that compile next to nothing: they run while a process compiles kernels."""


SIMULATION: Final = "tests/simulation"


def turn_of(nodeid: str) -> int:
    """0 for tests that compile next to nothing, 1 for the simulation, whose files are long, 2 for others."""
    return 0 if nodeid.startswith(WITHOUT_KERNELS) else 1 if nodeid.startswith(SIMULATION) else 2


def is_wholly_long(path: str) -> bool:
    """True if all tests of a file, or of a directory, are long.

    Args:
        path: from the project's root on, as node ids begin.
    """
    return path.startswith(tuple(LONG)) and not any(
        short.startswith(path) or path.startswith(short) for short in SHORT
    )


def long_key(nodeid: str, apache: bool) -> str | None:
    """The key of `LONG` that a test belongs to; None if `make test` runs it."""
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
