"""`audiopixel archive` as its users run it: next to a flow, killed repeatedly, replayed."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from archive_support import CANARY, archived, messages_of, mixed, pixel, send, texts, topic_settings, whole
from command_support import Command, run_command
from faults_support import World, eventually, in_memory

from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from connectors.objects import Directory
from connectors.redis import connect
from flows.replay import replay
from flows.settings import Settings
from flows.viewers.collectors import Collectors

KILLS = int(os.environ.get("ARCHIVE_KILLS", "4"))
"""`make archive-kills KILLS=100` sets it."""
Make = Callable[..., Settings]
NOW_MS = int(time.time() * 1000)


@pytest.fixture
def world(broker: EmbeddedBroker, valkey: EmbeddedValkey, tmp_path: Path) -> Iterator[World]:
    world = in_memory(broker, valkey, tmp_path)
    world.settings |= {"ARCHIVE_PORT": "0", "ARCHIVE_BYTES": str(1 << 16), "ARCHIVE_INTERVAL": "1"}
    yield world
    world.close()


def environment(world: World, **settings: str) -> dict[str, str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith("AUDIOPIXEL_")}
    return known | {f"AUDIOPIXEL_{name}": value for name, value in (world.settings | settings).items()}


def audiopixel(world: World, *arguments: str, **settings: str) -> CompletedProcess[str]:
    return run_command(
        *arguments,
        directory=world.directory,
        environment=environment(world, **settings),
        into=world.directory,
    )


def test_check_holds_the_archive_against_the_ledger_of_the_flow(world: World) -> None:
    flow = world.start(REJECT_SHARE="1")
    to = str(world.directory / "archive")
    world.send_raw([(n % 2, mixed(n), NOW_MS) for n in range(300)])
    marks = sum(b"collector" in mixed(n) for n in range(300))
    world.shown(flow, 300 - marks)
    assert audiopixel(world, "archive", "--to", to, "--once").returncode == 0
    done = audiopixel(world, "archive", "check", to)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "300 messages" in done.stdout
    shown = Collectors(connect(world.redis.url, timeout=timedelta(seconds=5)), f"{world.topic}:v1").read()
    assert shown["archive"]["missing"] == 0
    assert NOW_MS <= shown["archive"]["through_ms"] <= time.time() * 1000
    assert "2 of 2 partitions compared" in done.stdout

    world.send(40)  # the ledger is ahead: what is between stands in the topic
    world.shown(flow, 340 - marks)
    assert "2 of 2 partitions compared" in audiopixel(world, "archive", "check", to).stdout
    flow.stop()
    world.send(40)  # the archive is ahead
    assert audiopixel(world, "archive", "--to", to, "--once").returncode == 0
    done = audiopixel(world, "archive", "check", to)
    assert (done.returncode, "2 of 2" in done.stdout) == (0, True), done.stdout + done.stderr

    with world.client() as client:
        client.hincrby(f"{world.topic}:v1:partition:{{{world.topic}/1}}", "received", 1)
    done = audiopixel(world, "archive", "check", to)
    assert done.returncode == 1
    assert "and the ledger has" in done.stdout


def test_a_repeatedly_killed_writer_leaves_no_gap_and_no_repeat(world: World) -> None:
    to, rng, over = world.directory / "archive", random.Random(KILLS), threading.Event()

    def produce() -> None:
        while not over.wait(0.02):
            world.send_raw(
                [(n % 2, mixed(n), int(time.time() * 1000)) for n in range(world.sent, world.sent + 80)]
            )

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        for kill in range(KILLS):
            writer = Command(
                *("archive", "--to", str(to)),
                directory=world.directory,
                environment=environment(world),
                out=world.directory / "archive.log",
            )
            if kill % 2:  # on its way, or while it begins
                before = len(list(to.rglob("*.zst")))
                eventually(lambda before=before: len(list(to.rglob("*.zst"))) > before, 60)  # type: ignore[misc]
            time.sleep(rng.random() * 1.5)
            assert writer.poll() is None, (world.directory / "archive.log").read_text()
            writer.kill()
            writer.wait()
    finally:
        over.set()
        producer.join()
    assert audiopixel(world, "archive", "--to", str(to), "--once").returncode == 0
    found = whole(Directory(to))
    assert found.messages == world.sent
    done = audiopixel(world, "archive", "check", str(to))
    print(f"{KILLS} kills: {done.stdout}")
    assert done.returncode == 0, done.stdout


def test_sigterm_writes_the_read_messages_and_ends_with_0(world: World) -> None:
    to = world.directory / "archive"
    writer = Command(
        *("archive", "--to", str(to)),
        directory=world.directory,
        environment=environment(world, ARCHIVE_INTERVAL="PT15M"),
        out=world.directory / "archive.log",
    )
    eventually(lambda: len(list(to.rglob("*.json"))) == 2, 60)
    world.send(100)
    second = audiopixel(world, "archive", "--to", str(to))
    assert second.returncode == 3
    assert "another audiopixel archive writes there" in second.stderr
    time.sleep(1)
    writer.send_signal(signal.SIGTERM)
    assert writer.wait(20) == 0, (world.directory / "archive.log").read_text()
    assert whole(Directory(to)).messages == 100


def numbers(rows: Iterable[Mapping[str, object]]) -> list[dict[str, object]]:
    """Rows, or minutes, without which flush wrote them, and when."""
    return [{name: of for name, of in row.items() if name not in ("rev", "updated_ms")} for row in rows]


def test_replays_of_archive_and_log_produce_equal_rows(
    broker: EmbeddedBroker,
    settings_of: Make,
    rows_of: Callable[..., dict[str, dict[str, str]]],
    tmp_path: Path,
) -> None:
    settings = topic_settings(broker, settings_of, partitions=1, archive_bytes=1 << 16)
    values = [pixel(n, placement_id=f"p{n % 5}", ts=NOW_MS - 7_200_000 + n * 100) for n in range(3_000)]
    values[100:100] = [b"rubbish", b"[]"]
    log = tmp_path / "log.ndjson"
    log.write_bytes(b"".join(value + b"\n" for value in values))
    send(settings, [(0, value, NOW_MS) for value in values])
    archived(settings, tmp_path / "archive")
    key, rows = b"a key of the archive", []
    for number, source in enumerate((str(log), f"archive:{tmp_path / 'archive'}")):
        own = settings.model_copy(
            update={"namespace": f"{settings.namespace}:{number}", "row_ttl": timedelta(days=9)}
        )
        out = tmp_path / str(number)
        replay([source], own, key, out=out)
        found = rows_of(own, "placement")
        minutes = [json.loads(one) for one in (out / "minutes.ndjson").read_text().splitlines()]
        final = sorted((one for one in minutes if one["state"] == "final"), key=lambda one: str(one))
        rows.append((numbers(found.values()), numbers(final)))
    assert len(rows[0][0]) == 5
    assert rows[0] == rows[1]
    letters = [json.loads(one) for one in (tmp_path / "1" / "rejected.ndjson").read_text().splitlines()]
    assert [(one["reason"], one["offset"]) for one in letters] == [("malformed", 100), ("malformed", 101)]


def test_replay_says_how_many_messages_an_archive_has(world: World) -> None:
    world.send(50)
    to = world.directory / "archive"
    assert audiopixel(world, "archive", "--to", str(to), "--once").returncode == 0
    done = audiopixel(world, "replay", f"archive:{to}")
    assert done.returncode == 0, done.stderr
    assert re.match(r"received 50 = accepted 50 ", done.stdout), done.stdout
    assert audiopixel(world, "replay", f"archive:{to}", "other.ndjson").returncode == 2
    assert "there is no archive" in audiopixel(world, "replay", "archive:nowhere").stderr


def test_forget_reaches_every_file_of_the_archive(world: World) -> None:
    to = world.directory / "archive"
    for minute in range(4):
        world.send(20, user_agent=f"{CANARY} radio", ip="10.9.8.7", listener_id=CANARY, household_id="home-9")
        world.send(20, ts_ms=NOW_MS + minute)
        assert audiopixel(world, "archive", "--to", str(to), "--once").returncode == 0
    before = [one[:3] for one in messages_of(Directory(to))]
    assert any(CANARY.encode() in body for body in texts(to).values())
    flow = world.start()
    assert audiopixel(world, "forget", CANARY).returncode == 0
    flow.stop()
    world.send(20, listener_id=CANARY)
    done = audiopixel(world, "archive", "--to", str(to), "--once", ARCHIVE_FORGET_INTERVAL="0")
    assert done.returncode == 0, done.stderr
    assert [path for path, body in texts(to).items() if CANARY.encode() in body] == []
    found = whole(Directory(to))
    assert found.messages == len(before) + 20
    assert [one[:3] for one in messages_of(Directory(to))][: len(before) // 2] == before[: len(before) // 2]
