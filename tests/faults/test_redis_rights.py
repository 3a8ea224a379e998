"""Each process under exactly the rights that docs/production.md gives its user: Redis refuses nothing. A
missing right is named.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from audiopixel_client import Client as BidderClient
from command_support import Command, run_command
from faults_support import ROOT, World, eventually, in_memory

from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from connectors.ports import free_run
from connectors.stream import ConnectError
from flows.replay import replay
from flows.settings import load

KEY = "a key for rights alone"
TOKENS = {"reader": {"sha256": hashlib.sha256(b"secret").hexdigest(), "read_all": True}}
RIGHTS = dict(
    re.findall(r"^ACL SETUSER (\w+) on >SECRET (.*)$", (ROOT / "docs" / "production.md").read_text(), re.M)
)
SOURCE = """
topic = "{topic}-theirs"
[names]
event = "event"
placement_id = "placement"
play_id = "play"
ts = "at"
"""


class Installation:
    """A world with a flow under its user, and processes under theirs."""

    def __init__(self, world: World, directory: Path) -> None:
        self.world, self.directory, self.namespace = world, directory, f"{world.topic}:v1"
        with world.client() as redis:
            for user, rights in RIGHTS.items():
                of_world = rights.replace("audiopixel:v1", self.namespace)
                redis.execute_command("ACL SETUSER", user, "on", f">of {user}", *of_world.split())
        self.flow = world.start(REDIS_URL=self.url("flow"))
        world.send(20)
        world.shown(self.flow)

    def url(self, user: str) -> str:
        return self.world.redis.url.replace("redis://", f"redis://{user}:of%20{user}@")

    def environment(self, user: str, **settings: str) -> dict[str, str]:
        known = {name: value for name, value in os.environ.items() if not name.startswith("AUDIOPIXEL_")}
        told = self.world.settings | {"REDIS_URL": self.url(user), "COLLECT_KEY": KEY} | settings
        return known | {f"AUDIOPIXEL_{name}": value for name, value in told.items()}

    def run(self, user: str, *arguments: str, **settings: str) -> str:
        """What a command prints until it ends."""
        done = run_command(
            *arguments,
            directory=self.directory,
            environment=self.environment(user, **settings),
            into=self.directory,
        )
        assert done.returncode in (0, 1), done.stderr
        return done.stdout

    @contextmanager
    def running(self, user: str, *arguments: str, **settings: str) -> Iterator[Callable[[], str]]:
        """A process, and what it has said."""
        log = self.directory / f"{user}.log"
        process = Command(
            *arguments,
            directory=self.directory,
            environment=self.environment(user, **settings),
            out=log,
        )
        try:
            yield lambda: log.read_text() if log.exists() else ""
        finally:
            process.kill()
            process.wait()

    def fields(self, key: str) -> Mapping[str, str]:
        with self.world.client() as redis:
            fields: dict[str, str] = redis.hgetall(f"{self.namespace}:{key}")  # type: ignore[assignment]
            return fields

    def refused(self) -> set[tuple[str, str]]:
        """User and command or key of each refusal."""
        with self.world.client() as redis:
            found = {(entry["username"], entry["object"]) for entry in redis.acl_log()}
            redis.acl_log_reset()
        return found


@pytest.fixture(scope="module")
def here(broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    directory = tmp_path_factory.mktemp("rights")
    with EmbeddedValkey() as server:
        world = in_memory(broker, server, directory)
        made = Installation(world, directory)
        # The flow asks for the policy of a full memory, which may show secrets, and does without.
        assert made.refused() <= {("flow", "config|get")}
        yield made
        world.close()


def collects(here: Installation) -> None:
    port = free_run(2)
    spool = str(here.directory / "spool")
    with here.running(
        "collector",
        "collect",
        COLLECT_PORT=str(port),
        COLLECT_HEALTH_PORT=str(port + 1),
        COLLECT_SPOOL=spool,
        COLLECT_PLACEMENTS="any",
    ) as said:
        eventually(lambda: here.fields("collectors"), 60, said)


def builds_tags(here: Installation) -> None:
    here.run(
        "collector",
        *("tag", "--placement", "p"),
        COLLECT_URL="https://pixels.example",
        COLLECT_SIGNING_KEYS='{"a1": "a secret of sixteen bytes"}',
    )
    assert here.fields("tags")


def serves(here: Installation) -> None:
    port = free_run(1)
    with here.running("reader", "exporter", "--port", str(port), READ_TOKENS=json.dumps(TOKENS)) as said:
        eventually(lambda: "serving" in said(), 60, said)

        def metrics() -> str:
            asked = urllib.request.Request(f"http://127.0.0.1:{port}/metrics/placements")
            asked.add_header("Authorization", "Bearer reader.secret")
            answer: str = urllib.request.urlopen(asked, timeout=5).read().decode()
            return answer

        eventually(lambda: 'placement="p"' in metrics(), 60, said)


def reads_a_source(here: Installation) -> None:
    assert here.world.create is not None
    here.world.create(f"{here.world.topic}-theirs", 1)
    (here.directory / "sources").mkdir()
    (here.directory / "sources" / "theirs.toml").write_text(SOURCE.format(topic=here.world.topic))
    with here.running("source", "sources", "run", "theirs") as said:
        eventually(lambda: here.fields("sources"), 60, said)


def archives(here: Installation) -> None:
    with here.running("archive", "archive", "--to", str(here.directory / "archive")) as said:
        eventually(lambda: here.fields("archive"), 60, said)


def exports(here: Installation) -> None:
    here.run("reader", "export", "parquet", "--to", str(here.directory / "tables"), "--once")


def watches(here: Installation) -> None:
    assert re.search(r"\bp\b", here.run("reader", "top", "--once", "--all"))


def examines(here: Installation) -> None:
    lines = here.run("doctor", "doctor", "--json").splitlines()
    levels = {one["part"]: one["level"] for one in map(json.loads, lines)}
    assert levels.items() >= {"Redis": "ok", "clocks": "ok", "flow": "ok", "rows": "ok"}.items()


def forgets(here: Installation) -> None:
    here.run("forget", "forget", "L3", "--wait", "5")
    assert here.fields("forgotten")


def bids(here: Installation) -> None:
    with BidderClient(here.url("bidder"), namespace=here.namespace, placements=["p"]) as client:
        eventually(lambda: client["p"].version)
        assert client.error is None


@pytest.mark.parametrize(
    "use",
    [collects, builds_tags, serves, reads_a_source, archives, exports, watches, examines, forgets, bids],
)
def test_a_process_needs_no_more_rights_than_its_page_gives(
    here: Installation, use: Callable[[Installation], None]
) -> None:
    here.refused()
    use(here)
    assert here.refused() == set()


@pytest.mark.parametrize("user", [user for user in RIGHTS if user != "flow"])
def test_no_user_but_the_flow_may_write_a_row(here: Installation, user: str) -> None:
    with here.world.client() as redis:
        for command in (("HSET", f"{here.namespace}:placement:{{p}}", "rev", "1"), ("FLUSHALL",)):
            assert "permissions" in redis.acl_dryrun(user, *command)
        assert "permissions" in redis.acl_dryrun("flow", "FLUSHALL")


@pytest.mark.parametrize(
    ("removed", "says"),
    [
        ("+time", r"'time' command.*the right \+time"),
        ("+@scripting", r"'eval' command.*the right \+eval"),
        ("~audiopixel:v1:*", r"the right to the key"),
    ],
)
def test_a_refusal_names_the_missing_right(
    here: Installation, tmp_path: Path, removed: str, says: str
) -> None:
    with here.world.client() as redis:
        rights = RIGHTS["flow"].replace(removed, "").split()
        redis.execute_command("ACL SETUSER", "poor", "reset", "on", ">of poor", *rights)
    log = tmp_path / "log.ndjson"
    log.write_text("")
    settings = load(redis_url=here.url("poor"), namespace="audiopixel:v1:poor", metrics_port=0)
    with pytest.raises(ConnectError, match=rf"{says}.*production\.md"):
        replay([str(log)], settings, b"a key of the listeners")
