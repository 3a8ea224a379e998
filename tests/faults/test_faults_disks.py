"""Members of a cluster that each keep their saves on a disk of their own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults_support import ROOT, Flow, World, eventually, in_memory

from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from connectors.ports import free_ports
from flows.engine.execution import recovery_lock
from flows.state.saves import SaveStore


def disks(world: World, members: int) -> list[Path]:
    return [world.directory / f"disk-{member}" for member in range(members)]


def start(world: World, directories: list[Path]) -> list[Flow]:
    """A member on each disk."""
    addresses = ";".join(f"127.0.0.1:{port}" for port in free_ports(len(directories)))
    return [
        world.start(
            "--member", str(member), "--addresses", addresses, ready=False, RECOVERY_DIR=str(directory)
        )
        for member, directory in enumerate(directories)
    ]


def outputs(flows: list[Flow]) -> str:
    return "\n".join(f"code {flow.process.poll()}\n{flow.said()}" for flow in flows)


def counts(world: World, flows: list[Flow], more: int) -> None:
    """Send so many pixels, and wait until readers see all that was ever sent."""
    world.send(more)
    eventually(
        lambda: world.ledger() == world.sent or any(flow.process.poll() is not None for flow in flows),
        90,
        lambda: f"{world.ledger()} of {world.sent}\n{outputs(flows)}",
    )
    assert world.ledger() == world.sent, outputs(flows)


def saved(flows: list[Flow], directories: list[Path]) -> None:
    """Wait until each member has two saves, of its own alone."""
    stores = [SaveStore(directory) for directory in directories]
    eventually(lambda: all(len(store.cuts()) > 1 for store in stores), 30, lambda: outputs(flows))
    for member, store in enumerate(stores):
        assert {one for cut in store.cuts() for one in store.members_at(cut)} <= {member}


def stop(flows: list[Flow]) -> None:
    for flow in flows:
        flow.process.terminate()
    for flow in flows:
        assert flow.ended(30) == 0, flow.said()


def end(flows: list[Flow]) -> None:
    """Assert that the remaining members end by themselves after one has died."""
    for flow in flows:
        assert flow.ended() != 0


def as_undisturbed(world: World) -> None:
    """Another flow counts the log without any fault: every placement's counts are the same."""

    def rows_by_key(namespace: str) -> dict[str, dict[str, str]]:
        with world.client() as client:
            return {
                key.removeprefix(namespace): {
                    name: value
                    for name, value in client.hgetall(key).items()
                    if name.startswith("flight.") or name in ("received", "accepted", "rejected", "repeated")
                }
                for kind in ("placement", "partition")
                for key in client.scan_iter(f"{namespace}:{kind}:*")
            }

    namespace = f"{world.topic}:undisturbed"
    whole = rows_by_key(f"{world.topic}:v1")
    flow = world.start(ready=False, NAMESPACE=namespace, RECOVERY_DIR=str(world.directory / "undisturbed"))
    eventually(
        lambda: rows_by_key(namespace) == whole,
        60,
        lambda: f"{rows_by_key(namespace)}\n{whole}\n{flow.said()}",
    )
    flow.stop()


def all_die_and_are_as_undisturbed(
    world: World, flows: list[Flow], directories: list[Path], more: int
) -> None:
    for flow in flows:
        flow.kill()
    flows = start(world, directories)
    counts(world, flows, more)
    stop(flows)
    as_undisturbed(world)


@pytest.mark.parametrize("members", [2, 3])
def test_members_on_disks_of_their_own_go_on_behind_every_death(world: World, members: int) -> None:
    directories = disks(world, members)
    flows = start(world, directories)
    counts(world, flows, 300)
    saved(flows, directories)
    for dying in range(members):  # one after the other, as an upgrade restarts them
        flows[dying].kill()
        end(flows)
        flows = start(world, directories)
        counts(world, flows, 100)
        assert all("resumed from a save" in flow.said() for flow in flows), outputs(flows)
    all_die_and_are_as_undisturbed(world, flows, directories, 100)


def state(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.cli", "state", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_two_members_become_four_and_three_by_dealing(world: World) -> None:
    directories = disks(world, 2)
    flows = start(world, directories)
    counts(world, flows, 300)
    saved(flows, directories)
    running = state("deal", *directories, "--members", 4, "--to", world.directory / "early")
    assert running.returncode == 3
    assert "another execution is running" in running.stderr
    for members in (4, 3):
        stop(flows)
        to = world.directory / f"dealt-{members}"
        (directories[0] / "lock-of-a-backup").touch()
        dealt = state("deal", *directories, "--members", members, "--to", to)
        assert dealt.returncode == 0, dealt.stderr
        directories = [to / f"member-{member}" for member in range(members)]
        shown = state(*directories)
        assert shown.returncode == 0, shown.stderr
        assert f"of member {members - 1} of {members}: whole" in shown.stdout
        flows = start(world, directories)
        counts(world, flows, 200)
        assert all("resumed from a save" in flow.said() for flow in flows), outputs(flows)
        saved(flows, directories)
    all_die_and_are_as_undisturbed(world, flows, directories, 50)


def test_one_torn_manifest_sends_all_members_to_the_previous_save(world: World) -> None:
    directories = disks(world, 2)
    flows = start(world, directories)
    counts(world, flows, 300)
    saved(flows, directories)
    stop(flows)
    store = SaveStore(directories[1])
    newest, before = store.cuts()[:2]
    torn = directories[1] / "saves" / f"{newest:020d}" / "manifest-1"
    torn.write_bytes(torn.read_bytes()[:-9])

    flows = start(world, directories)

    counts(world, flows, 50)
    for flow in flows:
        assert "a save is damaged" in flow.said()
        assert f"damaged={newest}" in flow.said()
        assert f"taken={before}" in flow.said()
    stop(flows)
    as_undisturbed(world)


# Refusals


@pytest.fixture(scope="module")
def stopped_cluster(broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world with a cluster of two that ran and stopped in order."""
    with EmbeddedValkey() as server:
        world = in_memory(broker, server, tmp_path_factory.mktemp("stopped_cluster"))
        flows = start(world, disks(world, 2))
        counts(world, flows, 50)
        saved(flows, disks(world, 2))
        stop(flows)
        yield world
        world.close()


@pytest.fixture
def copies(stopped_cluster: World, tmp_path: Path) -> list[Path]:
    return [Path(shutil.copytree(one, tmp_path / one.name)) for one in disks(stopped_cluster, 2)]


def refused(world: World, directories: list[Path]) -> str:
    """The output of members that refuse to start."""
    flows = start(world, directories)
    codes = [flow.ended(60) for flow in flows]
    assert 3 in codes, outputs(flows)
    assert 0 not in codes
    return outputs(flows)


def test_a_member_without_its_disk_is_refused_with_what_to_do(
    stopped_cluster: World, copies: list[Path]
) -> None:
    shutil.rmtree(copies[1])
    told = refused(stopped_cluster, copies)
    assert "the disk of member 1 has no save, and those of others have: restore its recovery" in told
    assert "--recompute" in told


def test_missing_and_doubled_shards_are_refused(stopped_cluster: World, copies: list[Path]) -> None:
    shutil.rmtree(copies[1])
    shutil.copytree(copies[0], copies[1])
    told = refused(stopped_cluster, copies)
    assert "the shards of member 1 are missing: its disk has those of member 0, which are doubled" in told


def test_another_number_of_members_is_refused_without_dealing(
    stopped_cluster: World, copies: list[Path]
) -> None:
    told = refused(stopped_cluster, [*copies, copies[0].with_name("disk-2")])
    assert "the newest save is of 2 members, and 3 have started" in told
    assert "audiopixel state deal --members 3" in told


def test_dealing_refuses_shards_that_are_missing_and_doubled(
    stopped_cluster: World, copies: list[Path]
) -> None:
    to = copies[0].with_name("dealt")
    missing = state("deal", copies[0], "--members", 1, "--to", to)
    assert missing.returncode == 3
    assert "is of 2 members, and the shards of 1 are missing" in missing.stderr
    with recovery_lock(to / "member-1", 1):  # a member that starts too early
        early = state("deal", *copies, "--members", 2, "--to", to)
    assert early.returncode == 3
    assert "another execution is running on the recovery directory" in early.stderr
    shutil.rmtree(to)
    assert state("deal", *copies, "--members", 2, "--to", to).returncode == 0
    again = state("deal", *copies, "--members", 2, "--to", to)
    assert again.returncode == 3
    assert "has saves already" in again.stderr
    doubled = state("deal", *copies, to / "member-0", "--members", 3, "--to", to.with_name("other"))
    assert doubled.returncode == 3
    assert "is of another start, and doubles shards" in doubled.stderr
    mixed = refused(stopped_cluster, [copies[0], to / "member-1"])
    assert "the members have no whole save in common" in mixed
