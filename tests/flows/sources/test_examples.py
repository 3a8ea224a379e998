"""The sources of `examples/sources`, each from `draft` to right numbers in Redis, as a user would."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from command_support import ROOT, run_command
from google.protobuf.json_format import Parse
from google.protobuf.message_factory import GetMessageClass
from kafka_server import KafkaUnavailable
from registry_server import Apicurio
from registry_support import SmallRegistry, avro, framed

from connectors.embedded import EmbeddedBroker
from connectors.kafka import KafkaWriter
from connectors.redis.client import Client
from flows.cli.reconcile_settings import rules
from flows.reconcile.comparison import differences
from flows.reconcile.recomputation import recompute
from flows.replay import replay
from flows.settings.fields import Settings
from flows.sources.messages import cluster_of
from flows.sources.protobuf import ProtobufSchema
from flows.sources.schemas import Text

EXAMPLES = ROOT / "examples" / "sources"
KEY = b"a key of sixteen bytes or more"
TOPICS = {
    "json-topic": ("player", "player-events"),
    "rudderstack": ("rudder", "rudder"),
    "mediatailor": ("mediatailor",) * 2,
    "segment": ("segment",) * 2,
    "posthog": ("posthog",) * 2,
    "snowplow": ("snowplow",) * 2,
    "prebid": ("prebid",) * 2,
    "cloudevents": ("cloudevents",) * 2,
    "nearly-ours": ("nearly",) * 2,
    "avro": ("avro-player", "avro-events"),
    "protobuf": ("protobuf-player", "protobuf-events"),
}
COUNTS = {
    "json-topic": {"breakfast-uk": (10, 10, 10, 4), "drivetime-uk": (10, 10, 5, 4)},
    "rudderstack": {"breakfast-uk": (10, 10, 10, 4)},
    "mediatailor": {"breakfast-uk": (8, 8, 8, 0)},
    "csv": {"breakfast-uk": (24, 24, 16, 0)},
    "gam": {"5501": (0, 10, 8, 0)},
    "segment": {"breakfast-uk": (10, 10, 8, 4)},
    "posthog": {"breakfast-uk": (10, 10, 8, 4)},
    "snowplow": {"breakfast-uk": (0, 10, 8, 0)},
    "prebid": {"breakfast-uk": (10, 10, 8, 0)},
    "cloudevents": {"breakfast-uk": (10, 10, 8, 4)},
    "nearly-ours": {"breakfast-uk": (10, 10, 8, 4)},
    "avro": {"breakfast-uk": (12, 12, 8, 5)},
    "protobuf": {"breakfast-uk": (12, 12, 8, 5)},
}
"""Impressions, starts, completes, and reach of the flight, counted by hand from how the files were made."""
UNLINKED = ("gam", "snowplow")
"""Their messages have no id of a play: their starts and completes are those that no play links."""
FILES = {"csv": "adserver", "gam": "gam-video"}
"""Sources of files, by example."""
Run = Callable[..., CompletedProcess[str]]
Encoded = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as server:
        yield server


@pytest.fixture(scope="module")
def registry() -> Iterator[SmallRegistry]:
    with SmallRegistry() as server:
        yield server


@pytest.fixture
def run(broker: EmbeddedBroker, registry: SmallRegistry, tmp_path: Path) -> Run:
    """`audiopixel sources` in a directory that has all of the examples."""
    for directory in EXAMPLES.iterdir():
        shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUDIOPIXEL_")}
    environment |= {
        "AUDIOPIXEL_KAFKA_BROKERS": broker.bootstrap,
        "AUDIOPIXEL_COLLECT_KEY": "a key for these examples",
        "AUDIOPIXEL_SOURCES": str(tmp_path),
        "SCHEMA_REGISTRY_URL": registry.url,
    }

    def run(*arguments: str) -> CompletedProcess[str]:
        return run_command("sources", *arguments, directory=tmp_path, environment=environment, into=tmp_path)

    return run


def put(broker: EmbeddedBroker, example: str, registry: SmallRegistry | Apicurio) -> None:
    """Put an example's messages into its topic, over three partitions."""
    _, topic = TOPICS[example]
    broker.create_topic(topic, 3)
    writer = KafkaWriter(broker.bootstrap, topic)
    encoded = ENCODED.get(example, lambda _: bytes)(registry)
    (messages,) = (EXAMPLES / example).glob("messages.*")
    for number, line in enumerate(messages.read_bytes().splitlines()):
        writer.send(number % 3, b"", encoded(line), 1_795_600_800_000 + number)
    writer.close()


def as_avro(registry: SmallRegistry | Apicurio) -> Encoded:
    """Registers the example's schema; encodes a record that is written as JSON."""
    text = (EXAMPLES / "avro" / "ad-event.avsc").read_text()
    schema_id = registry.put("avro-events-value", text)
    return lambda line: framed(schema_id, avro(json.loads(text), json.loads(line)))


def as_protobuf(registry: SmallRegistry | Apicurio) -> Encoded:
    """Likewise; the message's type is the second of its file."""
    text = (EXAMPLES / "protobuf" / "ad_event.proto").read_text()
    schema_id = registry.put("protobuf-events-value", text, "PROTOBUF")
    types = ProtobufSchema(Text("PROTOBUF", text, {}))._file.message_types_by_name
    made = GetMessageClass(types["AdEvent"])
    return lambda line: framed(schema_id, b"\2\2" + Parse(line, made()).SerializeToString())


ENCODED: dict[str, Callable[[SmallRegistry | Apicurio], Encoded]] = {"avro": as_avro, "protobuf": as_protobuf}


@pytest.mark.parametrize("example", [*TOPICS, *FILES])
def test_an_example_goes_from_its_file_to_right_numbers(
    example: str,
    run: Run,
    broker: EmbeddedBroker,
    registry: SmallRegistry,
    tmp_path: Path,
    settings_of: Callable[..., Settings],
    client: Client,
) -> None:
    name = FILES.get(example, "")
    if example in TOPICS:
        name, topic = TOPICS[example]
        put(broker, example, registry)
        options = ("--registry", "env:SCHEMA_REGISTRY_URL") if example in ENCODED else ()
        drafted = run("draft", f"kafka:{topic}", *options)
        assert drafted.returncode == 0, drafted.stderr
        recognised = {
            "rudderstack": 'preset = "rudderstack-track"',
            "mediatailor": 'preset = "mediatailor-beacon"',
            "avro": 'listener_id = "listener.device_id"',
            "protobuf": 'format = "protobuf"',
            "segment": 'preset = "segment-track"',
            "posthog": 'preset = "posthog-capture"',
            "snowplow": 'preset = "snowplow-enriched"',
            "prebid": 'preset = "prebid-server"',
            "cloudevents": 'event_id = "id"',
            "nearly-ours": 'placement_id = "placementId"',
            "json-topic": 'placement_id = "ad.placement.id"',
        }
        assert recognised[example] in drafted.stdout
        file = tmp_path / f"{name}.toml"
        file.write_text(f'mode = "batch"\n{file.read_text()}')
    checked = run("check", name)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    done = run("run", name, "--out", "log.ndjson")
    assert done.returncode == 0, done.stderr
    times = [json.loads(line)["received_at"] for line in (tmp_path / "log.ndjson").read_text().splitlines()]
    assert times == sorted(times)
    settings = settings_of()
    replay([str(tmp_path / "log.ndjson")], settings, KEY)
    truth = recompute([tmp_path / "log.ndjson"], rules(settings))
    assert differences(truth, client, settings.namespace) == []
    found = {}
    for placement in COUNTS[example]:
        row = client.hgetall(f"{settings.namespace}:placement:{{{placement}}}")
        unlinked = "unlinked_" if example in UNLINKED else ""
        counts = ("impressions", f"{unlinked}starts", f"{unlinked}completes", "reach")
        found[placement] = tuple(int(row.get(f"flight.{count}", 0)) for count in counts)
    assert found == COUNTS[example]


@pytest.fixture(scope="module")
def real_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apicurio]:
    try:
        started = Apicurio(tmp_path_factory.mktemp("registry"))
    except KafkaUnavailable as error:
        pytest.skip(str(error))
    with started as registry:
        yield registry


@pytest.mark.apache
@pytest.mark.parametrize("format_", ["avro", "protobuf"])
def test_an_example_is_read_by_a_real_registry(
    format_: str,
    run: Run,
    broker: EmbeddedBroker,
    real_registry: Apicurio,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topic = f"{format_}-events-of-a-real-registry"
    monkeypatch.setitem(TOPICS, format_, ("real", topic))
    put(broker, format_, real_registry)
    text = (tmp_path / f"{format_}-player.toml").read_text()
    text = text.replace("env:SCHEMA_REGISTRY_URL", real_registry.url).replace(f"{format_}-events", topic)
    (tmp_path / "real.toml").write_text(f'mode = "batch"\n{text}')
    checked = run("check", "real")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "read 44 = pixels 44 + not ours 0 + rejected 0" in checked.stdout
    drafted = run("draft", f"kafka:{topic}", "--registry", real_registry.url)
    assert f'format = "{format_}"\n\n[registry]\nurl = "{real_registry.url}"' in drafted.stdout


def test_a_draft_names_its_topics_registry(
    run: Run, broker: EmbeddedBroker, registry: SmallRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TOPICS, "avro", ("other", "avro-without"))
    put(broker, "avro", registry)
    drafted = run("draft", "kafka:avro-without")
    assert drafted.returncode == 2
    messages = len((EXAMPLES / "avro" / "messages.ndjson").read_text().splitlines())
    assert f"{messages} messages begin with a schema id: give --registry" in drafted.stderr
    drafted = run("draft", "kafka:avro-without", "--registry", "http://user:secret@127.0.0.1:1")
    assert "name a variable, env:NAME" in drafted.stderr
    assert "user:secret" not in drafted.stderr
    assert "--registry is for topics alone" in run("draft", "adserver-10.csv", "--registry", "x").stderr


def test_a_draft_of_a_table_guesses_its_columns(run: Run) -> None:
    drafted = run("draft", "adserver-10.csv").stdout
    for line in ('event = "Event"', 'placement_id = "Line item"', 'ts = "Time"', '"Started" = "start"'):
        assert line in drafted
    done = run("draft", "adserver-10.csv", "--out", "mine.toml")
    assert done.stdout == "mine.toml is written: look at each line, then audiopixel sources check mine\n"
    assert run("check", "mine").returncode == 0
    assert "exists already" in run("draft", "adserver-10.csv", "--out", "mine.toml").stderr


def test_a_file_without_an_event_takes_a_fixed_one(run: Run) -> None:
    checked = run("check", "gam-impressions")
    assert "read 10 = pixels 10 + not ours 0 + rejected 0\npixels: impression 10" in checked.stdout
    assert 'preset = "gam-data-transfer"' in run("draft", "NetworkImpressions_1234_20261125_10.csv").stdout


def test_check_names_missing_inputs_and_fails(run: Run, tmp_path: Path) -> None:
    checked = run("check", "adserver")
    rows = {line.split("  ")[0]: line for line in checked.stdout.splitlines()}
    assert "absent" in rows["reach, frequency"]
    assert "no listener is mapped" in rows["reach, frequency"]
    assert "whole" in rows["completion rate"]
    text = (tmp_path / "adserver.toml").read_text()
    (tmp_path / "wrong.toml").write_text(
        text.replace("[names]", "[names]\n", 1).replace('"Event"', '"Order"')
    )
    failed = run("check", "wrong")
    assert failed.returncode == 1
    assert "wrong: no message is a pixel" in failed.stderr
    (tmp_path / "example.toml").write_text(
        text + '[[example]]\nmessage = {Event = "Started"}\npixel = {event = "start"}\n'
    )
    failed = run("check", "example")
    assert "example: example 1: is rejected: invalid ts" in failed.stderr
    assert run("run", "example", "--out", "none.ndjson").returncode == 2, "and does not start"
    unrecognised = text.replace('identity = ["Row"]\n', "").replace('play_id = "Impression"\n', "")
    (tmp_path / "plain.toml").write_text(unrecognised)
    assert "repeats of these events cannot be recognised" in run("check", "plain").stdout


def test_contradicting_options_are_refused(run: Run) -> None:
    for arguments, why in (
        (("run", "adserver"), "a batch takes --out FILE"),
        (("run", "adserver", "--to", "kafka:audio-pixels"), "another than the pixel topic"),
        (("run", "nobody"), "there is no such source"),
        (("stop", "adserver"), "takes draft, check or run"),
        (("draft", "a", "b"), "draft takes one"),
    ):
        done = run(*arguments)
        assert done.returncode == 2
        assert why in done.stderr


@pytest.mark.parametrize("topic", ["audio-pixels", "audio-pixels-rejected"])
def test_a_live_source_of_its_own_output_topic_is_refused(
    topic: str, run: Run, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    broker.create_topic(topic, 1)
    (tmp_path / "own.toml").write_text(f'topic = "{topic}"\n[names]\nevent = "event"\nplacement_id = "p"\n')
    done = run("run", "own")
    assert done.returncode == 2
    assert f"own: {topic} is a topic that sources write to" in done.stderr


def test_a_live_source_is_named_once(run: Run) -> None:
    done = run("run", "player", "player")
    assert done.returncode == 2
    assert "a source is named twice" in done.stderr


def test_a_source_without_a_cluster_of_its_own_reads_from_ours(settings_of: Callable[..., Settings]) -> None:
    from flows.sources import load_source

    source = load_source(EXAMPLES / "json-topic", "player")
    settings = settings_of(kafka_brokers="ours:9092", kafka_options={"sasl.password": "x"})
    assert cluster_of(source, settings) == ("ours:9092", {"sasl.password": "x"})
    other = source.model_copy(update={"kafka": {"bootstrap.servers": "theirs:9092"}})
    assert cluster_of(other, settings) == ("theirs:9092", {})


def test_an_empty_file_has_no_draft_and_brackets_are_literal(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.ndjson").write_text("")
    drafted = run("draft", "empty.ndjson")
    assert drafted.returncode == 2
    assert "empty.ndjson: has no message that is an object or a row" in drafted.stderr
    (tmp_path / "export[1].csv").write_text((tmp_path / "adserver-10.csv").read_text())
    assert 'files = "export[1].csv"' in run("draft", "export[1].csv").stdout
