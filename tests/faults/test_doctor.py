"""`audiopixel doctor` on real services: all is well, and each thing that is not."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from command_support import run_command
from faults_support import World
from redis import Redis

from connectors.embedded import EmbeddedValkey, form_cluster
from connectors.kafka.writer import ensure_topic
from flows.doctor import Doctor
from flows.settings import load


def examined(world: World, tmp_path: Path, **settings: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """The exit code, and of each part its level and words; of several of one part the worst."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUDIOPIXEL_")}
    told = world.settings | {"COLLECT_SPOOL": str(tmp_path / "spool")} | settings
    environment |= {f"AUDIOPIXEL_{name}": value for name, value in told.items()}
    done = run_command("doctor", "--json", directory=tmp_path, environment=environment, into=tmp_path)
    found: dict[str, tuple[str, str]] = {}
    order = ["ok", "look", "wrong"]
    for line in done.stdout.splitlines():
        one = json.loads(line)
        assert (one["level"] == "ok") is not bool(one["remedy"]), one
        before = found.get(one["part"], ("ok", ""))
        if one["part"] not in found or order.index(one["level"]) > order.index(before[0]):
            found[one["part"]] = (one["level"], one["words"])
    assert done.returncode == int(any(level == "wrong" for level, _ in found.values())), done.stderr
    return done.returncode, found


def findings(url: str) -> dict[str, tuple[str, str]]:
    """The findings on a Redis, without a Kafka; of several of one part the last."""
    doctor = Doctor(load(redis_url=url, kafka_brokers="127.0.0.1:1", namespace="d:v1"))
    return {one.part: (one.level.value, one.words) for one in doctor.findings()}


def test_each_primary_of_a_cluster_is_examined() -> None:
    evicts = {"cluster-enabled": "yes", "maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}
    with EmbeddedValkey({"cluster-enabled": "yes"}) as one, EmbeddedValkey(evicts) as two:
        form_cluster(one, two)
        for url in (one.url, two.url):
            level, words = findings(url)["Redis"]
            assert level == "wrong"
            assert words.endswith("by 2 primaries; maxmemory-policy is allkeys-lru")


@pytest.mark.parametrize(
    ("refused", "part", "says"),
    [
        ("info", "Redis", "its memory and maxmemory-policy are not seen"),
        ("time", "clocks", "the right +time"),
    ],
)
def test_a_refused_command_is_a_finding_and_the_other_parts_are_examined(
    refused: str, part: str, says: str
) -> None:
    with EmbeddedValkey() as server, Redis.from_url(server.url) as client:
        sound = findings(server.url)
        client.execute_command("ACL SETUSER", "doctor", "on", ">x", "~*", "+@all", f"-{refused}")
        found = findings(server.url.replace("//", "//doctor:x@"))
    assert found[part][0] != "ok"
    assert says in found[part][1]
    assert {name for name, finding in found.items() if finding[0] != sound[name][0]} == {part}


def test_an_unreadable_value_in_redis_is_a_finding() -> None:
    now_ms = str(int(time.time() * 1000))
    with EmbeddedValkey() as server, Redis.from_url(server.url) as client:
        client.hset("d:v1:meta", mapping={"flushed_ms": now_ms, "allowed_lateness_ms": "x", "silent": "{"})
        client.hset("d:v1:collectors", "c1", "x")
        found = findings(server.url)
        assert found["flow"][0] == "ok"
        assert found["settings"][1].startswith("the flow allows a lateness of 0 s")
        assert found["numbers"][0] == "wrong", "that delivery is judged is nowhere said"
        assert found["collector c1"][0] == "look"
        assert "collectors" not in found, "that none is ready is not ok"
        client.hset("d:v1:collectors", "c1", now_ms)
        client.hset("d:v1:collector:{c1}", "ready", "1")
        assert findings(server.url)["collector c1"] == ("look", "? pixels rest on its disk")
        client.hset("d:v1:positions", "positions", "{")
        found = findings(server.url)
        assert found["flow"][0] == "wrong"
        assert "d:v1:positions cannot be read" in found["flow"][1]
        assert found["collector c1"][0] == "look", "the other parts are examined"
        client.set("d:v1:meta", "no hash")
        assert findings(server.url)["flow"][0] == "wrong"


def test_rows_that_are_deleted_or_changed_in_redis_are_named() -> None:
    now_ms = str(int(time.time() * 1000))
    with EmbeddedValkey() as server, Redis.from_url(server.url) as client:
        client.hset("d:v1:meta", mapping={"flushed_ms": now_ms, "generation": "1"})
        for n in range(30):
            client.zadd("d:v1:index:placement", {f"p{n}": n})
            client.hset(f"d:v1:placement:{{p{n}}}", mapping={"generation": "1", "fence": "2", "rev": "3"})
        words = "of 30 that the indexes name are there with their version"
        assert findings(server.url)["rows"] == ("ok", f"30 {words}")
        client.delete("d:v1:placement:{p1}")
        client.hdel("d:v1:placement:{p2}", "rev")
        client.hset("d:v1:placement:{p3}", "generation", "0")
        level, found = findings(server.url)["rows"]
        assert (level, found) == ("wrong", f"27 {words}; not placement p1, placement p2, placement p3")
        client.set("d:v1:placement:{p1}", "no hash")
        assert findings(server.url)["rows"][0] == "wrong"


@pytest.mark.apache
def test_doctor_passes_a_sound_installation_and_names_each_fault(kafka_world: World, tmp_path: Path) -> None:
    world = kafka_world
    methodology = f"{world.topic}-methodology"
    ensure_topic(world.brokers, methodology, 1)
    world.settings["KAFKA_METHODOLOGY_TOPIC"] = methodology
    flow = world.start()
    world.send(50)
    world.shown(flow)
    code, found = examined(world, tmp_path)
    assert code == 0, found
    levels = {part: level for part, (level, _) in found.items()}
    assert levels | {"pixel topic": "look"} == dict.fromkeys(levels, "ok") | {"pixel topic": "look"}
    assert {
        "Kafka",
        "topics",
        "Redis",
        "clocks",
        "saves",
        "flow",
        "numbers",
        "settings",
        "lag",
    } <= levels.keys()
    assert found["pixel topic"][1].endswith("2 partitions, each 1 times")
    assert found["lag"][1].startswith("0 messages are not in the numbers yet")

    _, other = examined(world, tmp_path, LISTENER_KEY="another key of sixteen bytes", ALLOWED_LATENESS="PT1M")
    assert other["settings"] == ("wrong", "AUDIOPIXEL_LISTENER_KEY is not the flow's key")
    _, other = examined(world, tmp_path, KAFKA_TOPIC="nobodys", KAFKA_MINUTES_TOPIC="none-either")
    assert other["pixel topic"] == ("wrong", "nobodys is missing")
    assert other["topics"] == ("wrong", "missing: none-either")
    _, other = examined(world, tmp_path, NAMESPACE="other:v1")
    assert other["flow"] == ("wrong", "none has written to other:v1")
    _, other = examined(world, tmp_path, REDIS_URL="redis://127.0.0.1:1/0")
    assert other["Redis"][0] == "wrong"
    assert other["Kafka"][0] == "ok"
    _, other = examined(world, tmp_path, KAFKA_BROKERS="127.0.0.1:1")
    assert other["Kafka"][0] == "wrong"
    assert other["Redis"][0] == "ok"

    flow.pause()
    world.send(30)
    _, behind = examined(world, tmp_path)
    assert behind["lag"][1].startswith("30 messages are not in the numbers yet")
    flow.resume()
    with world.client() as client:
        client.hset(f"{world.topic}:v1:meta", "flushed_ms", int(time.time() * 1000) - 60_000)
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.hset(f"{world.topic}:v1:collectors", "c\x1b[2J", int(time.time() * 1000) - 60_000)
    flow.kill()
    with world.client() as client:
        client.hset(f"{world.topic}:v1:meta", "flushed_ms", int(time.time() * 1000) - 60_000)
    code, wrong = examined(world, tmp_path)
    assert code == 1
    assert wrong["flow"][0] == "wrong"
    assert wrong["flow"][1].startswith("has written nothing for 6")
    assert "maxmemory-policy is allkeys-lru" in wrong["Redis"][1]
    (part,) = (part for part in wrong if part.startswith("collector c"))
    assert "\x1b" not in part
    assert wrong[part][0] == "look"
