"""Stopping, dying, going on: the recovery store is one execution's, and is read whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults_support import World, children, eventually

from benchmarks.chaos_bugs import doctor
from flows.state.saves import SaveStore, decode, encode


def saved_positions(world: World) -> int:
    """The sum of the newest saved positions of all source partitions."""
    store = SaveStore(world.directory / "recovery")
    cuts = store.cuts()
    return sum(store.manifest(cuts[0]).positions.values()) if cuts else 0


def test_sigterm_drains_and_ends_with_0_and_nothing_is_read_again(world: World) -> None:
    flow = world.start()
    world.send(1000)
    world.shown(flow)

    assert flow.stop() < 10

    world.send(10)
    again = world.start()
    world.shown(again)
    assert again.metric("received_total") == 10
    assert world.row()["flight.impressions"] == "1010"


def test_a_trace_shows_a_flows_calls_and_durations(world: World) -> None:
    path = world.directory / "trace.json"
    flow = world.start("--trace", str(path))
    world.send(60_000)
    world.shown(flow)
    flow.stop()
    told = json.loads(path.read_text().rstrip().rstrip(",") + "]")
    spans = {one["name"]: one["dur"] for one in told if one["ph"] == "X"}
    names = {one["args"]["name"] for one in told if one["ph"] == "M"}
    # Calls under 5 ms are not traced: nearly all on a quick machine, except for 20,000 lines at once.
    assert "intake next_batch" in spans
    assert "MainThread" in names
    assert min(spans.values()) >= 5_000


def test_sigterm_in_the_midst_of_much_loses_nothing(world: World) -> None:
    flow = world.start(BATCH_MESSAGES="500")
    flow.pause()
    world.send(100_000)
    flow.resume()
    eventually(lambda: flow.metric("received_total") >= 500)

    assert flow.stop() < 10
    assert int(world.row()["flight.impressions"]) < 100_000, "all was read before the stop"

    again = world.start()
    world.shown(again)
    assert world.row()["flight.impressions"] == "100000"
    assert again.metric("received_total") < 100_000, "the log was read from its beginning"


def test_a_killed_flow_reads_the_log_again_from_the_last_snapshot(world: World) -> None:
    flow = world.start()
    world.send(700)
    world.shown(flow)
    eventually(lambda: saved_positions(world) == 700, otherwise=flow.said)
    world.send(200)
    world.shown(flow)

    flow.kill()

    again = world.start()
    world.shown(again)
    assert again.metric("received_total") <= 200
    assert world.row()["flight.impressions"] == world.row()["flight.reach"] == "900"


@pytest.mark.parametrize("processes", ["1", "2"])
def test_two_executions_on_one_recovery_directory_are_refused(world: World, processes: str) -> None:
    first = world.start("--processes", processes)

    second = world.start(ready=False)

    assert second.ended() == 3
    assert "another execution is running on the recovery directory" in second.last()
    assert first.process.poll() is None
    first.stop()


def newer_partitions(state: Any) -> Any:
    """Partitions' state of a newer format."""
    return {name: encode((99, *decode(packed)[1:])) for name, packed in state.items()}


@pytest.mark.parametrize(
    ("step", "change"),
    [
        ("partitions", newer_partitions),
        ("plays", lambda state: ((99, *state[0][1:]), *state[1:])),
        ("attribution", lambda state: ((99, *state[0][1:]), *state[1:])),
        ("households", lambda state: ((99, *state[0][1:]), *state[1:])),
        ("clients", lambda state: ((99, *state[0][1:]), *state[1:])),
        ("rows", lambda state: ((99, *state[0][1:]), *state[1:])),
        ("ledger", lambda state: ((99, *state[0][1:]), *state[1:])),
        ("credits", lambda state: ((99, *state[0][1:]), *state[1:])),
    ],
)
def test_state_of_a_newer_format_stops_with_what_to_do(
    stopped: World, store: Path, step: str, change: Callable[[Any], Any]
) -> None:
    shown = stopped.row()
    doctor(store, lambda of, _, state: change(state) if of == step else state)

    flow = stopped.start(ready=False, RECOVERY_DIR=str(store))

    assert flow.ended() == 3
    assert "format 99" in flow.last()
    assert "run the version that wrote it" in flow.last()
    assert stopped.row() == shown


@pytest.mark.parametrize("shards", ["4", "16"])
def test_another_number_of_shards_stops_with_what_to_do(stopped: World, store: Path, shards: str) -> None:
    flow = stopped.start(ready=False, SHARDS=shards, RECOVERY_DIR=str(store))

    assert flow.ended() == 3
    assert f"made with shards=8, now shards={shards}" in flow.last()
    assert "AUDIOPIXEL_SHARDS" in flow.last()


def test_a_recovery_directory_that_cannot_be_written_stops_with_one_line(world: World) -> None:
    (world.directory / "file").write_text("")

    flow = world.start(ready=False, RECOVERY_DIR=str(world.directory / "file"))

    assert flow.ended() == 3
    assert "cannot be used" in flow.last()


def test_a_lost_recovery_store_never_makes_counts_fall(world: World) -> None:
    flow = world.start()
    world.send(50)
    world.shown(flow)
    flow.stop()
    elsewhere = world.start(RECOVERY_DIR=str(world.directory / "fresh"))
    world.send(5)

    world.shown(elsewhere)

    assert world.row()["flight.impressions"] == "55"


def test_one_two_and_four_processes_produce_equal_numbers(world: World) -> None:
    flow = world.start()
    for processes in ("2", "4", "1"):
        world.send(200)
        world.shown(flow)
        assert flow.stop() < 10
        flow = world.start("--processes", processes)
    world.send(200)
    world.shown(flow)

    row = world.row()
    assert row["flight.impressions"] == row["flight.reach"] == "800"
    assert row["fence"] == "4"


@pytest.mark.parametrize("after_s", [0.0, 0.8, 1.6, 2.4])
def test_a_stop_while_the_members_are_starting_ends_soon_and_well(world: World, after_s: float) -> None:
    flow = world.start("--processes", "4", ready=False)
    eventually(lambda: len(children(flow.process.pid)) == 4, otherwise=flow.said)
    time.sleep(after_s)
    assert flow.stop() < 10
    assert "Traceback" not in flow.said()


def test_when_a_member_dies_all_start_again(world: World) -> None:
    flow = world.start("--processes", "2", "--restarts", "5")
    world.send(100)
    world.shown(flow)
    members = children(flow.process.pid)
    assert len(members) == 2

    os.kill(min(members), signal.SIGKILL)

    world.send(100)
    world.shown(flow)
    assert not children(flow.process.pid) & members
    assert world.row()["flight.impressions"] == "200"
    flow.stop()


def test_a_crashed_recomputation_resumes_unseen_by_readers(
    world: World,
) -> None:
    before = world.start()
    world.send(50)
    world.shown(before)
    before.stop()
    elsewhere = str(world.directory / "empty")
    flow = world.start(
        *("--recompute", "--restarts", "3"),
        RECOVERY_DIR=elsewhere,
        SAVE_INTERVAL="PT60S",
        BATCH_MESSAGES="20",
    )
    world.send(400)
    eventually(lambda: world.row()["flight.impressions"] == "450", otherwise=flow.said)
    (child,) = children(flow.process.pid)

    os.kill(child, signal.SIGKILL)

    seen: list[tuple[int, ...]] = []

    def again() -> bool:
        row = world.row()
        seen.append(tuple(int(row[name]) for name in ("generation", "flight.impressions", "fence")))
        return seen[-1][2] == 3

    world.send(10)
    eventually(again, 60, otherwise=flow.said)
    assert {generation for generation, _, _ in seen} == {2}
    assert {count for _, count, _ in seen} <= {450, 460}
    flow.stop()


def test_when_the_supervisor_dies_its_members_end_and_the_next_can_start(world: World) -> None:
    flow = world.start("--processes", "2")
    members = children(flow.process.pid)
    assert len(members) == 2

    flow.kill()

    eventually(lambda: not [pid for pid in members if Path(f"/proc/{pid}").exists()], 5)
    again = world.start("--processes", "2")
    world.send(10)
    world.shown(again)
    again.stop()
