"""History, then live: an archive and its topic are one series, whatever dies and wherever the seam is."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from archive_support import archived, mixed, pixel, send, topic_settings
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from faults_support import World, eventually, in_memory
from kafka_server import ApacheKafka
from test_archive_live import audiopixel, numbers  # type: ignore[import-not-found]

from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from connectors.kafka import KafkaInput, KafkaTrouble
from connectors.kafka.read_once import Span
from connectors.objects import Directory
from flows.archive import HistoryInput
from flows.archive.message_lines import line_of
from flows.errors import StateError
from flows.intake import is_malformed
from flows.settings import Settings

Make = Callable[..., Settings]
NOW_MS = int(time.time() * 1000)
MINUTE_MS = 60_000


def history(settings: Settings, root: Path, on_lost: str = "stop", **more: object) -> HistoryInput:
    strict = KafkaInput(settings.kafka_brokers, [settings.kafka_topic])
    topic = KafkaInput(settings.kafka_brokers, [settings.kafka_topic], on_lost=on_lost)  # type: ignore[arg-type]
    return HistoryInput(Directory(root), topic, strict, settings.kafka_topic, **more)  # type: ignore[arg-type]


def read_on(
    source: HistoryInput, name: str, at: tuple[int | None, str], limit: int, enough: int, in_all: int
) -> tuple[list[tuple[int, bytes, int]], tuple[int | None, str], bool]:
    """Messages up to about `enough`, the next position, and whether the reader was live at that time."""
    reader, found = source.open(name, *at), list[tuple[int, bytes, int]]()
    deadline = time.monotonic() + 30
    while len(found) < enough and reader.position < in_all:
        assert time.monotonic() < deadline
        messages = reader.read(limit)
        if messages is not None:
            found += zip(messages.positions, messages.values, messages.timestamps_ms or [], strict=True)
    while len(found) < enough and reader.in_history:
        assert time.monotonic() < deadline
        reader.read(limit)
    place = reader.position, reader.log_id
    live = not reader.in_history
    reader.close()
    return found, place, live


@pytest.mark.parametrize("seed", range(20))
def test_random_seams_and_kills_leave_no_gap_and_no_repeat(
    broker: EmbeddedBroker, settings_of: Make, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    settings = topic_settings(broker, settings_of, partitions=1, archive_bytes=1 << 16)
    count = rng.randint(50, 3_000)
    values = [(0, mixed(n), NOW_MS + n) for n in range(count)]
    seam = rng.randint(0, count)
    send(settings, values[:seam])
    archived(settings, tmp_path)
    send(settings, values[seam:])
    source, name = history(settings, tmp_path), f"{settings.kafka_topic}/0"
    found, place, live = list[tuple[int, bytes, int]](), (None, ""), False
    near = (seam - rng.randint(0, 40), rng.randint(0, 40), rng.randint(1, count))
    for enough in (*(max(1, one) for one in near), count + 1):
        some, place, live = read_on(source, name, place, rng.choice([3, 100, 5_000]), enough, count)
        found += some
        if rng.random() < 0.3:
            archived(settings, tmp_path)  # the seam moves on
    assert [position for position, _, _ in found] == list(range(count))
    assert [stamp for *_, stamp in found] == [stamp for *_, stamp in values]
    for (_, value, _), (_, sent, _) in zip(found, values, strict=True):
        assert value in (sent, line_of(sent)) or (value == b"" and is_malformed(sent))
    assert live


def cut_off(settings: Settings, before: int) -> None:
    admin = AdminClient({"bootstrap.servers": settings.kafka_brokers})
    for done in admin.delete_records([TopicPartition(settings.kafka_topic, 0, before)]).values():
        done.result(20)


@pytest.mark.apache
def test_a_gap_between_archive_and_topic_stops_the_flow_or_is_skipped(
    apache: ApacheKafka, settings_of: Make, tmp_path: Path
) -> None:
    settings = topic_settings(apache, settings_of, partitions=1)
    send(settings, [(0, pixel(n), NOW_MS + n) for n in range(100)])
    archived(settings, tmp_path)
    send(settings, [(0, pixel(n), NOW_MS + n) for n in range(100, 200)])
    name = f"{settings.kafka_topic}/0"
    cut_off(settings, 90)
    found, _, live = read_on(history(settings, tmp_path), name, (None, ""), 1_000, 201, 200)
    assert [position for position, _, _ in found] == list(range(200))
    assert live
    topic_id = KafkaInput(settings.kafka_brokers, [settings.kafka_topic]).topic_ids()[settings.kafka_topic]
    for on_lost in ("stop", "earliest"):  # a place in the topic that Kafka has deleted is in the archive
        found, _, _ = read_on(history(settings, tmp_path, on_lost), name, (50, topic_id), 1_000, 151, 200)
        assert [position for position, _, _ in found] == list(range(50, 200))
    cut_off(settings, 130)
    with pytest.raises(KafkaTrouble, match=r"offset 100 is not in the log, which has 130 to 200"):
        history(settings, tmp_path).open(name, None)
    reader = history(settings, tmp_path, "earliest").open(name, None)
    lost, positions = 0, list[int]()
    while reader.in_history:
        if (messages := reader.read(1_000)) is not None:
            lost += messages.lost
            positions += messages.positions
    assert positions == [*range(100), *range(130, 200)]
    assert (lost, reader.skipped) == (30, 30)
    reader.close()


def test_an_archive_of_another_topic_is_refused(
    broker: EmbeddedBroker, settings_of: Make, tmp_path: Path
) -> None:
    settings = topic_settings(broker, settings_of)
    send(settings, [(0, pixel(1), NOW_MS)])
    archived(settings, tmp_path)
    other = topic_settings(broker, settings_of)
    with pytest.raises(StateError, match="is of the topic"):
        history(other, tmp_path)
    with pytest.raises(StateError, match="there is no archive"):
        history(settings, tmp_path / "nowhere")


@pytest.fixture
def world(broker: EmbeddedBroker, valkey: EmbeddedValkey, tmp_path: Path) -> Iterator[World]:
    world = in_memory(broker, valkey, tmp_path)
    world.settings |= {
        "ARCHIVE_PORT": "0",
        "ARCHIVE_BYTES": str(1 << 16),
        "ALLOWED_LATENESS": "PT1M",
        "HORIZON": "PT3M",
        "QUIET": "PT2S",
        "OUT_OF_ORDERNESS": "PT1S",
        "REJECT_SHARE": "1",
        "PLANS": str(tmp_path / "plans.csv"),
        "KAFKA_ALERTS_TOPIC": f"{world.topic}-alerts",
    }
    (tmp_path / "plans.csv").write_text(
        "placement_id,booked,start,end\np,1000000,2026-01-01T00:00:00Z,2027-12-31T00:00:00Z\n"
    )
    broker.create_topic(f"{world.topic}-alerts", 1)
    yield world
    world.close()


def minutes_of(world: World, topic: str) -> list[dict[str, object]]:
    span = Span(world.brokers, topic, {}, 0)
    try:
        return [json.loads(one.value) for one in span.records()]
    finally:
        span.close()


def final(minutes: list[dict[str, object]]) -> dict[object, list[dict[str, object]]]:
    """Final minutes, each as it was written last."""
    return {one["minute_ms"]: numbers([one]) for one in minutes if one["state"] == "final"}


def meta_of(world: World, namespace: str) -> dict[str, str]:
    with world.client() as client:
        return client.hgetall(f"{namespace}:meta")


def test_a_flow_begun_in_an_archive_has_a_continuous_flows_rows(world: World, broker: EmbeddedBroker) -> None:
    began_ms = (NOW_MS // MINUTE_MS - 60) * MINUTE_MS
    to = str(world.directory / "archive")

    def minutes(begin: int, end: int) -> None:
        for minute in range(begin, end):
            world.send(30, ts_ms=began_ms + minute * MINUTE_MS + 5_000)
            world.send(
                20, ts_ms=began_ms + minute * MINUTE_MS + 20_000, event="start", consent=minute % 2 > 0
            )
            world.send_raw([(minute % 2, b"rubbish", began_ms + minute * MINUTE_MS + 21_000)])

    minutes(0, 30)
    assert audiopixel(world, "archive", "--to", to, "--once").returncode == 0
    minutes(30, 50)
    along = world.start()
    world.shown(along)
    own = f"{world.topic}:own"
    outputs = ("minutes", "rejected", "credits")
    for name in outputs:
        broker.create_topic(f"{own.replace(':', '-')}-{name}", 1)
    mine = {
        "NAMESPACE": own,
        "KAFKA_START": f"archive:{to}",
        "RECOVERY_DIR": str(world.directory / "recovery-own"),
        "KAFKA_GROUP": own.replace(":", "-"),
        "BATCH_MESSAGES": "16",
        **{f"KAFKA_{name.upper()}_TOPIC": f"{own.replace(':', '-')}-{name}" for name in outputs},
    }
    seen, reasons = list[int](), set[str]()

    def received() -> int:
        with world.client() as client:
            rows = [client.hgetall(key) for key in client.scan_iter(f"{own}:partition:*")]
        meta = meta_of(world, own)
        if meta.get("judged") == "0":
            reasons.add(meta["unjudged_reason"])
        seen.append(sum(int(row.get("received", 0)) for row in rows))
        return seen[-1]

    for kill_at in (300, 1_200, 1_600):
        flow = world.start(ready=False, **mine)
        eventually(lambda kill_at=kill_at: received() > kill_at, 90, flow.said)  # type: ignore[misc]
        flow.kill()
    flow = world.start(ready=False, **mine)
    eventually(lambda: received() == world.sent, 90, flow.said)
    assert seen == sorted(seen), "nothing goes back"
    assert "catching_up" in reasons
    eventually(lambda: meta_of(world, own).get("unjudged_reason") != "catching_up", 90, flow.said)
    minutes(50, 58)
    world.shown(along)
    eventually(lambda: received() == world.sent, 60, flow.said)

    with world.client() as client:
        for scope in ("placement:{p}", f"partition:{{{world.topic}/0}}", f"partition:{{{world.topic}/1}}"):
            rows = [client.hgetall(f"{namespace}:{scope}") for namespace in (f"{world.topic}:v1", own)]
            same = [
                {
                    name: of
                    for name, of in row.items()
                    if name.startswith(("flight.", "rejected."))
                    or name in ("received", "accepted", "repeated", "marks", "position")
                }
                for row in rows
            ]
            assert same[0] == same[1] != {}
    counted = [meta_of(world, namespace)["counted_since_ms"] for namespace in (f"{world.topic}:v1", own)]
    assert counted[0] == counted[1]

    def finals(topic: str) -> dict[object, list[dict[str, object]]]:
        return final(minutes_of(world, topic))

    topics = world.settings["KAFKA_MINUTES_TOPIC"], mine["KAFKA_MINUTES_TOPIC"]
    eventually(lambda: len(finals(topics[0])) == len(finals(topics[1])) >= 50, 90)
    found = [finals(topic) for topic in topics]
    for one in found[0].keys() & found[1].keys():
        left, right = ({k: v for k, v in some[one][0].items() if k != "as_of_ms"} for some in found)
        assert left == right
    provisional = [one for one in minutes_of(world, topics[1]) if one["state"] == "provisional"]
    assert all(int(str(one["minute_ms"])) > began_ms + 45 * MINUTE_MS for one in provisional)
