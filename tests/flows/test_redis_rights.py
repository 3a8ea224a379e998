"""Each process works under the rights that production.md lists for it, and a missing right is named."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from audiopixel_client import Client as BidderClient
from redis import Redis
from redis_support import TIMEOUT, eventually

from connectors.embedded import EmbeddedValkey
from connectors.redis import connect, drop_fields, put_fields, read_rows, server_clock
from connectors.stream import ConnectError
from flows.collector.tag_answers import note
from flows.doctor import Doctor, Level
from flows.replay import replay
from flows.settings import load
from flows.viewers.collectors import Collectors
from flows.viewers.reader import RowsReader as Reader

ROOT = Path(__file__).parents[2]
NAMESPACE = "audiopixel:v1"
RIGHTS = dict(
    re.findall(
        r"^ACL SETUSER (\w+) on >SECRET (.+)$", (ROOT / "docs" / "production.md").read_text(), re.MULTILINE
    )
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server, admin(server) as client:
        for user, rights in RIGHTS.items():
            client.execute_command("ACL", "SETUSER", user, "on", ">secret", *rights.split())
        now_ms = int(time.time() * 1000)
        pixels = [
            {
                "event": "impression",
                "event_id": f"e{n}",
                "ts": now_ms,
                "placement_id": f"p{n % 7}",
                "consent": True,
            }
            for n in range(100)
        ]
        log = tmp_path_factory.mktemp("rights") / "log.ndjson"
        log.write_text("".join(f"{json.dumps(pixel)}\n" for pixel in pixels))
        settings = load(redis_url=url_of(server, "flow"), namespace=NAMESPACE, metrics_port=0)
        replay([str(log)], settings, b"a key of the listeners")
        assert refused(client) == []
        yield server


def admin(server: EmbeddedValkey) -> Redis:
    return Redis(port=server.port, decode_responses=True)


def url_of(server: EmbeddedValkey, user: str) -> str:
    return server.url.replace("//", f"//{user}:secret@")


def refused(client: Redis) -> list[str]:
    """What the server has refused to a user, as it names it."""
    entries: Any = client.acl_log()
    client.execute_command("ACL", "LOG", "RESET")
    return [f"{one['username']} {one['reason']} {one['object']}" for one in entries]


def run_exporter(url: str) -> None:
    client = connect(url, timeout=TIMEOUT)
    snapshot = Reader(client, NAMESPACE, ["flight.impressions"]).refresh()
    assert snapshot.up, snapshot.error
    assert len(snapshot.rows["placement"]) == 7
    assert Collectors(client, NAMESPACE).read()["error"] is None
    note(client, NAMESPACE, {"placement": "p1", "campaign": "c"}, 1)
    server_clock(client, f"{NAMESPACE}:meta", "flushed_ms")


def run_writer(url: str) -> None:
    client, key = connect(url, timeout=TIMEOUT), f"{NAMESPACE}:door:{{c1}}"
    put_fields(client, {key: {"a": "1", "b": "2"}}, ttl=TIMEOUT)
    assert read_rows(client, [key]) == [{"a": "1", "b": "2"}]


def run_collector(url: str) -> None:
    run_writer(url)
    drop_fields(connect(url, timeout=TIMEOUT), f"{NAMESPACE}:door:{{c1}}", ["a"])


def run_archive(url: str) -> None:
    client = connect(url, timeout=TIMEOUT)
    put_fields(client, {f"{NAMESPACE}:archive": {"through_ms": "1"}})
    read_rows(client, [f"{NAMESPACE}:forgotten"])


def run_reader(url: str) -> None:
    client = connect(url, timeout=TIMEOUT)
    assert Reader(client, NAMESPACE, ["flight.impressions"]).refresh().up
    server_clock(client, f"{NAMESPACE}:meta", "flushed_ms")
    with pytest.raises(ConnectError):
        put_fields(client, {f"{NAMESPACE}:archive": {"through_ms": "1"}})


def run_doctor(url: str) -> None:
    doctor = Doctor(load(redis_url=url, kafka_brokers="127.0.0.1:1", namespace=NAMESPACE))
    levels = {one.part: one.level for one in doctor.findings()}
    assert levels["Redis"] == levels["rows"] == levels["clocks"] == Level.OK


def run_bidder(url: str) -> None:
    with BidderClient(url, placements=["p1"]) as client:
        eventually(lambda: client["p1"].version)
        assert client.error is None


PROCESSES: dict[str, Callable[[str], None]] = {
    "exporter": run_exporter,
    "collector": run_collector,
    "archive": run_archive,
    "forget": run_archive,
    "reader": run_reader,
    "doctor": run_doctor,
    "bidder": run_bidder,
}


@pytest.mark.parametrize("user", RIGHTS)
def test_a_process_needs_no_right_beyond_the_documented_ones(server: EmbeddedValkey, user: str) -> None:
    if user == "flow":  # the fixture has run it
        return
    with admin(server) as client:
        refused(client)
        PROCESSES[user](url_of(server, user))
        assert refused(client) == (["reader command hset"] if user == "reader" else [])


@pytest.mark.parametrize(
    ("rights", "says"),
    [
        (RIGHTS["flow"].replace(" +time", ""), "time"),
        (RIGHTS["flow"].replace("+@scripting", "-@scripting"), "eval"),
        (RIGHTS["flow"].replace("~audiopixel:v1:*", "~other:*"), "key"),
    ],
)
def test_a_refusal_names_the_missing_right(
    server: EmbeddedValkey, tmp_path: Path, rights: str, says: str
) -> None:
    with admin(server) as client:
        client.execute_command("ACL", "SETUSER", "poor", "reset", "on", ">secret", *rights.split())
    log = tmp_path / "log.ndjson"
    log.write_text("")
    settings = load(redis_url=url_of(server, "poor"), namespace=f"{NAMESPACE}:{says}", metrics_port=0)
    with pytest.raises(ConnectError, match=rf"refuses a right of this user \(.*{says}.*production\.md"):
        replay([str(log)], settings, b"a key of the listeners")
