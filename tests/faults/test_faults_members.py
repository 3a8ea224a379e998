"""Several machines, on one loopback: the recipes of docs/operations.md, run as they are written."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faults_support import ROOT, Flow, World, children, eventually

from connectors.ports import free_ports, free_run
from flows.state.saves import SaveStore

RECIPES = re.findall(
    r"```sh\n(.*?)```", (ROOT / "docs/operations.md").read_text().partition("## On several machines")[2], re.S
)
ADDRESSES = "'10.8.0.1:2101;10.8.0.2:2101'"


@contextmanager
def machines(world: World, recipe: str, **settings: str) -> Iterator[list[Flow]]:
    """A shell a machine: the lines that name a machine are that one's alone, the others the first one's."""
    ports, metrics = free_ports(2), free_run(2)
    here = shlex.quote(f"127.0.0.1:{ports[0]};127.0.0.1:{ports[1]}")
    recipe = recipe.replace(ADDRESSES, here)
    own = [line for line in recipe.splitlines() if "# on " in line and "once" not in line]
    common = [line for line in recipe.splitlines() if line not in own]
    assert len(own) == 2, recipe
    known = {name: value for name, value in os.environ.items() if not name.startswith("AUDIOPIXEL_")}
    told = {**world.settings, "METRICS_PORT": str(metrics), **settings}
    environment = {**known, **{f"AUDIOPIXEL_{name}": value for name, value in told.items()}}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    flows = []
    try:
        for number, line in enumerate(own):
            script = [*(common if number == 0 else common[:1]), f"exec {line}"]
            own_disk = str(world.directory / f"disk-{number}")
            log = world.directory / f"machine-{number}.log"
            with log.open("wb") as out:
                process = subprocess.Popen(
                    ["sh", "-ec", "\n".join(script).replace("/var/lib/audiopixel", own_disk)],
                    cwd=world.directory,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
            flows.append(Flow(process, log, metrics + number))
        yield flows
    finally:
        for flow in flows:
            flow.kill()


@pytest.mark.parametrize("recipe", RECIPES, ids=["audiopixel", "bytewax"])
def test_the_recipe_for_several_machines_runs_as_it_is_written(world: World, recipe: str) -> None:
    with machines(world, recipe) as flows:
        world.send(300)
        eventually(
            lambda: world.ledger() == 300 or any(flow.process.poll() is not None for flow in flows),
            60,
            lambda: "".join(flow.said() for flow in flows),
        )
        for flow in flows:
            assert flow.process.poll() is None, flow.said()
            assert flow.metric("build_info") == 1
        for flow in flows:
            flow.process.terminate()
        assert [flow.ended(20) for flow in flows] == [0, 0]
    assert world.row()["flight.impressions"] == "300"


def test_a_missing_key_is_one_line_also_under_bytewaxs_command(world: World) -> None:
    del world.settings["LISTENER_KEY"]
    with machines(world, RECIPES[1]) as flows:
        for flow in flows:
            assert flow.ended() == 2
            assert "AUDIOPIXEL_LISTENER_KEY is not set" in flow.last()


def test_a_member_that_waits_for_the_others_obeys_sigterm(world: World) -> None:
    with machines(world, RECIPES[0]) as flows:
        flows[1].kill()
        eventually(lambda: "event=starting" in flows[0].said(), otherwise=flows[0].said)
        assert flows[0].stop() < 5


def test_when_a_member_dies_the_others_end_with_one_line(world: World) -> None:
    with machines(world, RECIPES[0]) as flows:
        world.send(100)
        eventually(lambda: world.ledger() == 100, 60, lambda: "".join(flow.said() for flow in flows))
        flows[1].kill()
        assert flows[0].ended() == 1
        assert "another member of the cluster has gone" in flows[0].last()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--member", "0"], "--member and --addresses go together"),
        (["--addresses", "127.0.0.1:2101"], "--member and --addresses go together"),
        (["--member", "2", "--addresses", "127.0.0.1:2101;127.0.0.1:2102"], "takes 0 to 1"),
        (["--member", "0", "--addresses", "127.0.0.1:2101,127.0.0.1:2102"], "takes 'HOST:PORT;HOST:PORT'"),
        (["--member", "0", "--addresses", "127.0.0.1:0"], "takes 'HOST:PORT;HOST:PORT'"),
        (["--member", "0", "--addresses", "127.0.0.1:2101;127.0.0.1:2101"], "is there twice"),
        (
            ["--member", "0", "--addresses", "192.0.2.1:2101"],
            "cannot listen at 192.0.2.1:2101 (Cannot assign",
        ),
        (
            ["--member", "0", "--addresses", "0.0.0.0:2101;127.0.0.1:2102"],
            "AUDIOPIXEL_MEMBER_NETWORK=private",
        ),
        (["--member", "0", "--addresses", "127.0.0.1:2101", "--processes", "2"], "for one machine"),
        (["--member", "0", "--addresses", "127.0.0.1:2101", "--restarts", "2"], "for one machine"),
    ],
)
def test_a_wrong_place_in_a_cluster_is_one_line(world: World, arguments: list[str], said: str) -> None:
    flow = world.start(*arguments, ready=False)
    assert flow.ended() == 2
    assert said in flow.last()


def test_only_a_supervised_member_ends_with_its_standard_input(world: World) -> None:
    (port,) = free_ports(1)
    flow = world.start("--member", "0", "--addresses", f"127.0.0.1:{port}")  # its input is empty
    world.send(10)
    world.shown(flow)
    flow.stop()

    flow = world.start("--processes", "2")
    members = children(flow.process.pid)
    os.kill(flow.process.pid, signal.SIGKILL)
    eventually(lambda: not [pid for pid in members if Path(f"/proc/{pid}").exists()], 5)


def test_a_taken_metrics_port_is_one_line_and_no_other_port(world: World) -> None:
    first = world.start()
    second = world.start(
        ready=False, METRICS_PORT=str(first.port), RECOVERY_DIR=str(world.directory / "other")
    )
    assert second.ended() == 2
    assert f"/metrics cannot be served at 127.0.0.1:{first.port} (Address already in use)" in second.last()
    first.stop()


def test_the_first_line_names_metrics_inputs_and_the_store(world: World) -> None:
    flow = world.start()
    starting = next(line for line in flow.said().splitlines() if "event=starting" in line)
    assert f"metrics=http://127.0.0.1:{flow.port}/metrics" in starting
    assert f"topic={world.topic}" in starting
    assert f"recovery={world.directory / 'recovery'}" in starting
    assert "behind=" not in flow.said()
    flow.stop()


def test_a_lag_behind_redis_is_reported_readably(world: World) -> None:
    flow = world.start()
    world.send(20)
    world.shown(flow)
    flow.stop()
    again = world.start()
    assert re.search(rf'behind="?{world.topic}/0:10 {world.topic}/1:10"?$', again.said(), re.M), again.said()
    again.stop()


@pytest.mark.parametrize(
    "damage", [b"", b"no manifest at all" * 300, None], ids=["emptied", "garbage", "cut"]
)
def test_a_damaged_save_is_reported_and_the_previous_one_used(world: World, damage: bytes | None) -> None:
    flow = world.start()
    world.send(50)
    world.shown(flow)
    flow.stop()
    store = world.directory / "recovery"
    newest, before = SaveStore(store).cuts()
    manifest = store / "saves" / f"{newest:020d}" / "manifest-0"
    manifest.write_bytes(manifest.read_bytes()[:-9] if damage is None else damage)

    again = world.start(ready=False)

    world.send(10)
    eventually(lambda: world.row()["flight.impressions"] == "60", 60, again.said)
    assert re.search(rf"a save is damaged.*damaged={newest}.*taken={before}", again.said()), again.said()
    assert world.ledger() == 60
    again.stop()


def test_without_a_whole_save_a_start_is_refused_in_one_line(stopped: World, store: Path) -> None:
    for manifest in store.glob("saves/*/manifest-0"):
        manifest.write_bytes(b"")

    again = stopped.start(ready=False, RECOVERY_DIR=str(store))

    assert again.ended() == 3
    assert f"the recovery directory {store} has no whole save" in again.last()
    assert "panicked" not in again.said()


@pytest.mark.parametrize("name", ["KAFKA_TOPIC", "KAFKA_REJECTED_TOPIC", "KAFKA_MINUTES_TOPIC", "PLANS"])
def test_a_missing_topic_is_reported_with_its_setting_before_the_start(world: World, name: str) -> None:
    flow = world.start(ready=False, **{name: "kafka:nosuch" if name == "PLANS" else "nosuch"})
    assert flow.ended() == 1
    assert flow.last().endswith(f"create the topic nosuch, or set AUDIOPIXEL_{name} to another")
    assert "event=starting" not in flow.said()


def test_a_missing_kafka_is_reported_with_its_setting_by_members(world: World) -> None:
    flow = world.start(ready=False, KAFKA_BROKERS="127.0.0.1:1")
    assert flow.ended() == 1
    assert "set AUDIOPIXEL_KAFKA_BROKERS to its host:port" in flow.last()


def test_an_overtaken_member_does_not_report_lost_data(world: World) -> None:
    first = world.start()
    second = world.start(RECOVERY_DIR=str(world.directory / "other"))
    world.send(20)
    assert first.ended() == 1
    assert "another execution took over" in first.last()
    assert "redis lost its data" not in first.said()
    second.stop()
