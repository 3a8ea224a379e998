"""A changed rule: a second flow counts an archive again, is compared with the live flow, serves, and steps
back.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_support import Command
from faults_support import Flow, World, eventually, free_run, in_memory
from test_archive_live import audiopixel, environment  # type: ignore[import-not-found]

from connectors.embedded import EmbeddedBroker, EmbeddedValkey

NOW_MS = int(time.time() * 1000)
MINUTE_MS = 60_000
BEGAN_MS = (NOW_MS // MINUTE_MS - 30) * MINUTE_MS
RULE = json.dumps({"monitor": "pingdom"})


@pytest.fixture
def world(broker: EmbeddedBroker, valkey: EmbeddedValkey, tmp_path: Path) -> Iterator[World]:
    world = in_memory(broker, valkey, tmp_path)
    world.settings |= {
        "ARCHIVE_PORT": "0",
        "ALLOWED_LATENESS": "PT1M",
        "HORIZON": "PT3M",
        "QUIET": "PT2S",
        "OUT_OF_ORDERNESS": "PT1S",
        "KAFKA_METHODOLOGY_TOPIC": f"{world.topic}-methodology",
    }
    broker.create_topic(f"{world.topic}-methodology", 1)
    for topic in ("rejected", "minutes", "credits"):
        broker.create_topic(f"{world.topic}-{topic}-august", 1)
    yield world
    world.close()


def again(world: World) -> Flow:
    """The recomputation, with another rule for invalid traffic."""
    port, log = free_run(1), world.directory / f"again-{len(world.flows)}.log"
    arguments = ("--from", f"archive:{world.directory / 'archive'}", "--as", "august")
    process = Command(
        *("recompute", *arguments, "--metrics-port", str(port)),
        directory=Path(__file__).parents[3],
        environment=environment(world, INVALID_AGENTS=RULE, METRICS_PORT="0"),
        out=log,
    )
    flow = Flow(process, log, port)
    world.flows.append(flow)
    return flow


class Poller(threading.Thread):
    """A reader that polls all the time: it notes of each generation of `meta` the rows that it uses."""

    def __init__(self, world: World) -> None:
        super().__init__(daemon=True)
        self._world, self._over = world, threading.Event()
        self.generations, self.used, self.read = list[int](), dict[int, set[str]](), 0
        self.wrong = list[str]()

    def run(self) -> None:
        with self._world.client() as client:
            namespace = f"{self._world.topic}:v1"
            while not self._over.wait(0.002):
                pipe = client.pipeline(transaction=False)
                pipe.hmget(f"{namespace}:meta", "generation", "judged", "unjudged_reason")
                pipe.hmget(f"{namespace}:placement:{{p}}", "generation", "flight.invalid_traffic")
                (generation, judged, why), (of, invalid) = pipe.execute()
                self.read += 1
                if generation is None:
                    continue
                if not self.generations or self.generations[-1] != int(generation):
                    self.generations.append(int(generation))
                if of == generation:
                    self.used.setdefault(int(of), set()).add("other" if int(invalid) else "own")
                elif judged == "1":
                    self.wrong.append(f"a row of {of} while meta of {generation} is judged ({why})")

    def stop(self) -> None:
        self._over.set()
        self.join()


def recompute_meta(world: World) -> dict[str, str]:
    with world.client() as client:
        return client.hgetall(f"{world.topic}:v1:recompute:august:meta")


def is_live(world: World) -> bool:
    return recompute_meta(world).get("unjudged_reason", "catching_up") not in ("catching_up", "starting") or (
        recompute_meta(world).get("judged") == "1"
    )


def test_a_changed_rule_is_counted_again_compared_switched_to_and_back(world: World) -> None:
    for minute in range(25):
        at = BEGAN_MS + minute * MINUTE_MS
        world.send(20, ts_ms=at + 5_000)
        world.send(4, ts_ms=at + 6_000, user_agent="Pingdom.com_bot_version_1.4")
    live = world.start()
    world.shown(live)
    assert audiopixel(world, "archive", "--to", str(world.directory / "archive"), "--once").returncode == 0
    assert audiopixel(world, "recompute", "diff", "august").returncode == 2
    assert audiopixel(world, "recompute", "switch", "august").returncode >= 2
    second = again(world)
    eventually(lambda: is_live(world), 90, second.said)
    said = second.said()
    assert f"rows_namespace = {world.topic}:v1:recompute:august" in said
    assert f"kafka_minutes_topic = {world.topic}-minutes-august" in said
    world.send(10)
    world.shown(live)

    found = audiopixel(world, "recompute", "diff", "august", "--json")
    assert found.returncode == 1, found.stdout + found.stderr
    told = json.loads(found.stdout)
    assert "monitor" in told["methods"]["invalid_traffic"]["is"]
    moves = {one["field"]: one for one in told["moves"]}
    assert (moves["flight.impressions"]["serving"], moves["flight.impressions"]["beside"]) == ("610", "510")
    assert moves["flight.impressions"]["difference"] == "-100"
    assert "invalid_traffic" in moves["flight.impressions"]["by"]
    table = audiopixel(world, "recompute", "diff", "august").stdout
    assert "flight.invalid_traffic" in table

    poller = Poller(world)
    poller.start()
    for generation, by in ((2, "other"), (3, "own"), (4, "other")):
        world.send(5)
        done = audiopixel(world, "recompute", "switch", "august")
        assert done.returncode == 0, done.stdout + done.stderr + live.said() + second.said()
        assert f"generation {generation} serves" in done.stdout
        eventually(lambda generation=generation: poller.generations[-1] == generation)  # type: ignore[misc]
        eventually(lambda generation=generation, by=by: poller.used.get(generation) == {by})  # type: ignore[misc]
    assert poller.generations == [1, 2, 3, 4]
    assert poller.used == {1: {"own"}, 2: {"other"}, 3: {"own"}, 4: {"other"}}

    for flow in (live, second):  # both begin again where they are
        flow.kill()
    live, second = world.start(ready=False), again(world)
    world.send(5)
    eventually(lambda: poller.generations[-1] == 4 and is_live(world), 60)
    poller.stop()
    assert poller.generations == [1, 2, 3, 4]
    assert poller.wrong == []
    assert poller.read > 100


def test_a_flow_killed_amid_a_switch_leaves_one_generation_to_readers(world: World) -> None:
    for minute in range(25):
        world.send(20, ts_ms=BEGAN_MS + minute * MINUTE_MS)
        world.send(4, ts_ms=BEGAN_MS + minute * MINUTE_MS, user_agent="Pingdom.com_bot_version_1.4")
    live = world.start()
    world.shown(live)
    assert audiopixel(world, "archive", "--to", str(world.directory / "archive"), "--once").returncode == 0
    second = again(world)
    eventually(lambda: is_live(world), 90, second.said)
    poller, rng = Poller(world), random.Random(46)
    poller.start()

    def settled() -> bool:
        """True once one flow serves and judges, readers use its rows, and the other flow is displaced."""
        with world.client() as client:
            metas = [client.hgetall(f"{world.topic}:v1{at}:meta") for at in ("", ":recompute:august")]
            (of,) = client.hmget(f"{world.topic}:v1:placement:{{p}}", "generation")
            now_ms = client.time()[0] * 1000
        fresh = all(now_ms - int(meta["flushed_ms"]) < 3_000 for meta in metas)
        return fresh and metas[0]["judged"] == "1" and of == metas[0]["generation"]

    def killed(serving: bool, live: Flow, second: Flow) -> tuple[Flow, Flow]:
        """Switch, and kill one of both at a moment of it; both as they go on."""
        done = list[int]()

        def ask() -> None:
            done.append(audiopixel(world, "recompute", "switch", "august").returncode)

        switch = threading.Thread(target=ask)
        switch.start()
        eventually(lambda: reason(world) == "switching" or done, 60)
        time.sleep(rng.random() * 0.6)
        (live if serving else second).kill()
        live, second = (world.start(ready=False), second) if serving else (live, again(world))
        switch.join()
        world.send(5)
        eventually(settled, 90, lambda: live.said() + second.said())
        if done == [0]:  # what it confirmed is so
            assert poller.generations[-1] >= 2
        return live, second

    for serving in (False, True, False):
        live, second = killed(serving, live, second)
    poller.stop()
    assert poller.generations == sorted(poller.generations)
    assert all(len(by) == 1 for by in poller.used.values()), poller.used
    assert poller.wrong == []


def reason(world: World) -> str:
    """Why delivery is not judged."""
    with world.client() as client:
        return str(client.hget(f"{world.topic}:v1:meta", "unjudged_reason"))
