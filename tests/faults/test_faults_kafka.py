"""Apache Kafka away, trimmed, grown and looked at by its own tools."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions
from faults_support import World, eventually
from kafka_server import ApacheKafka

from connectors.kafka.writer import ensure_topic

pytestmark = pytest.mark.apache


@pytest.fixture
def admin(kafka: ApacheKafka) -> AdminClient:
    """Held by the test: what a client was asked is never answered when it is gone."""
    return AdminClient({"bootstrap.servers": kafka.brokers})


def group_offsets(admin: AdminClient, world: World) -> dict[int, int]:
    """The offsets that lag tools see, by partition."""
    asked = ConsumerGroupTopicPartitions(f"{world.topic}-group")
    (answer,) = admin.list_consumer_group_offsets([asked]).values()
    return {
        one.partition: one.offset for one in answer.result(10).topic_partitions if one.topic == world.topic
    }


@contextmanager
def away(kafka: ApacheKafka) -> Iterator[None]:
    """Killed, and back on the same disk."""
    kafka.kill()
    try:
        yield
    finally:
        kafka.start()


def test_a_broker_that_is_killed_and_comes_back_costs_nothing(kafka_world: World, kafka: ApacheKafka) -> None:
    world = kafka_world
    flow = world.start(MINUTES_INTERVAL="PT1S")
    world.send(500)
    world.shown(flow)
    time.sleep(2)  # every output is open

    with away(kafka):
        eventually(lambda: flow.metric("kafka_errors_total") > 0, otherwise=flow.said)
    world.send(500)

    world.shown(flow)
    assert world.row()["flight.impressions"] == "1000"
    assert flow.stop() < 10


def test_first_outputs_wait_for_absent_brokers(kafka_world: World, kafka: ApacheKafka) -> None:
    world = kafka_world
    flow = world.start(MINUTES_INTERVAL="PT3S")
    world.send(500)
    world.shown(flow)

    with away(kafka):
        time.sleep(8)  # longer than one attempt
        assert flow.process.poll() is None, flow.said()
    world.send(500)

    world.shown(flow)
    assert world.row()["flight.impressions"] == "1000"
    assert flow.stop() < 10


def test_sigterm_without_brokers_ends_with_0_and_loses_nothing(
    kafka_world: World, kafka: ApacheKafka
) -> None:
    world = kafka_world
    flow = world.start(MINUTES_INTERVAL="PT1S")
    world.send(500)
    world.shown(flow)
    time.sleep(2)  # commits to the group have begun

    with away(kafka):
        eventually(lambda: flow.metric("kafka_errors_total") > 0, otherwise=flow.said)
        assert flow.stop() < 10

    again = world.start()
    world.send(100)
    world.shown(again)
    assert world.row()["flight.impressions"] == "600"
    again.stop()


def test_the_flow_waits_for_outputs_during_a_long_outage(kafka_world: World, kafka: ApacheKafka) -> None:
    world = kafka_world
    flow = world.start(MINUTES_INTERVAL="PT1S")
    world.send(500)
    world.shown(flow)
    time.sleep(2)
    world.send(500, placement_id="q")  # minutes of it are due, and cannot be delivered

    with away(kafka):
        time.sleep(50)  # once they were given up after 30 s
        assert flow.process.poll() is None, flow.said()
        assert "the flow waits for Kafka to take an output" in flow.said()

    world.shown(flow)
    assert (world.row()["flight.impressions"], world.row("q")["flight.impressions"]) == ("500", "500")
    eventually(lambda: "Kafka takes the output again" in flow.said(), otherwise=flow.said)
    assert flow.stop() < 10


def test_a_stop_with_a_waiting_output_ends_in_time_without_loss(
    kafka_world: World, kafka: ApacheKafka
) -> None:
    world = kafka_world
    flow = world.start(MINUTES_INTERVAL="PT1S")
    world.send(500)
    world.shown(flow)
    time.sleep(2)
    world.send(500, placement_id="q")

    with away(kafka):
        eventually(lambda: "the flow waits for Kafka to take" in flow.said(), 60, otherwise=flow.said)
        began_s = time.monotonic()
        flow.process.terminate()
        assert flow.ended(30) == 1
        assert time.monotonic() - began_s < 15
        assert f"Kafka at {world.brokers}, {world.topic}-minutes: " in flow.last()

    again = world.start()
    world.shown(again)
    assert (world.row()["flight.impressions"], world.row("q")["flight.impressions"]) == ("500", "500")
    again.stop()


def test_without_kafka_at_the_start_one_line_says_so(kafka_world: World) -> None:
    flow = kafka_world.start(ready=False, KAFKA_BROKERS="127.0.0.1:1")

    assert flow.ended() == 1
    assert "Kafka at 127.0.0.1:1" in flow.last()


def trimmed(admin: AdminClient, world: World) -> None:
    """A flow has read 100 of each partition and stopped; of 200 more, 150 are deleted."""
    flow = world.start()
    world.send(200)
    world.shown(flow)
    flow.stop()
    world.send(400)
    low = [TopicPartition(world.topic, partition, 250) for partition in range(2)]
    for done in admin.delete_records(low).values():
        done.result(10)


def test_a_saved_position_that_was_deleted_stops_the_flow(kafka_world: World, admin: AdminClient) -> None:
    trimmed(admin, kafka_world)

    flow = kafka_world.start(ready=False)

    assert flow.ended() == 1
    assert "offset 100 is not in the log, which has 250 to 300" in flow.last()
    assert "150 messages were deleted before they were read" in flow.last()
    assert kafka_world.row()["flight.impressions"] == "200"


@pytest.mark.parametrize(("told", "skipped", "shown"), [("earliest", 300, 300), ("latest", 400, 200)])
def test_a_flow_set_to_skip_goes_on_and_counts_the_gap(
    kafka_world: World, admin: AdminClient, told: str, skipped: int, shown: int
) -> None:
    trimmed(admin, kafka_world)

    flow = kafka_world.start(KAFKA_ON_LOST=told)

    eventually(lambda: flow.metric("skipped_messages_total") == skipped, otherwise=flow.said)
    eventually(lambda: world_impressions(kafka_world) == shown, otherwise=flow.said)
    kafka_world.send(10)
    eventually(lambda: world_impressions(kafka_world) == shown + 10, otherwise=flow.said)
    flow.stop()


def test_a_lost_log_of_any_length_stops_the_flow_at_each_start(
    kafka_world: World, kafka: ApacheKafka
) -> None:
    """A broker has lost a disk: the topic has its id still."""
    world = kafka_world
    flow = world.start()
    world.send(200)
    world.shown(flow)
    flow.stop()
    kafka.stop()
    for partition in range(2):
        shutil.rmtree(kafka.data / f"{world.topic}-{partition}")
    kafka.start()
    world.send(300)

    for _ in range(2):
        refused = world.start(ready=False)
        assert refused.ended(60) == 1
        assert "it has other messages than were read: was the topic created again?" in refused.last()
        assert "set AUDIOPIXEL_KAFKA_ON_LOST to earliest" in refused.last()
        assert world.row()["flight.impressions"] == "200"

    told = world.start(KAFKA_ON_LOST="earliest")
    eventually(lambda: world_impressions(world) == 500, 60, told.said)
    assert "reading resumes at another offset" in told.said()
    told.stop()
    again = world.start()
    world.send(10)
    eventually(lambda: world_impressions(world) == 510, 60, again.said)
    again.stop()


def recreate_topic(world: World, admin: AdminClient) -> None:
    """A flow has shown 200 pixels, when the topic is deleted and created again with 300 others."""
    flow = world.start()
    world.send(200)
    world.shown(flow)
    flow.stop()
    admin.delete_topics([world.topic])[world.topic].result(10)
    ensure_topic(world.brokers, world.topic, 2)
    world.send(300)


def test_a_flow_without_its_store_refuses_a_recreated_topic(kafka_world: World, admin: AdminClient) -> None:
    world = kafka_world
    recreate_topic(world, admin)
    shutil.rmtree(world.directory / "recovery")

    for _ in range(2):
        flow = world.start(ready=False)
        assert flow.ended(60) == 3
        assert (
            f"numbers of the topic {world.topic} as it was before it was deleted and created" in flow.last()
        )
        assert world.row()["flight.impressions"] == "200"

    anew = world.start("--recompute")
    eventually(lambda: world.row()["generation"] == "2", otherwise=anew.said)
    eventually(lambda: world_impressions(world) == 300, otherwise=anew.said)
    anew.stop()


def test_a_recreated_topic_stops_the_flow_or_is_read_from_its_beginning(
    kafka_world: World, admin: AdminClient
) -> None:
    world = kafka_world
    recreate_topic(world, admin)

    refused = world.start(ready=False)
    assert refused.ended(60) == 1
    assert "the topic was deleted and created again, so its offsets began again" in refused.last()
    assert world.row()["flight.impressions"] == "200"

    told = world.start(KAFKA_ON_LOST="earliest")
    eventually(lambda: world_impressions(world) == 500, 60, told.said)
    told.stop()
    again = world.start()
    world.send(10)
    eventually(lambda: world_impressions(world) == 510, 60, again.said)
    again.stop()


@pytest.mark.parametrize("start", ["latest", "earliest"])
def test_a_flow_dead_before_its_first_snapshot_reads_everything_again(kafka_world: World, start: str) -> None:
    kafka_world.send(30)
    flow = kafka_world.start(KAFKA_START=start, SAVE_INTERVAL="PT10M")
    kafka_world.send(100)
    shown = 100 if start == "latest" else 130
    eventually(lambda: world_impressions(kafka_world) == shown, 60, flow.said)
    flow.kill()
    kafka_world.send(50)

    again = kafka_world.start(KAFKA_START=start)

    kafka_world.send(10)
    eventually(lambda: world_impressions(kafka_world) > shown, 60, again.said)
    eventually(lambda: world_impressions(kafka_world) == shown + 60, 60, again.said)
    assert kafka_world.row()["generation"] == "1"
    again.stop()


def test_a_flow_without_a_snapshot_refuses_a_log_with_a_deleted_start(
    kafka_world: World, admin: AdminClient
) -> None:
    flow = kafka_world.start(SAVE_INTERVAL="PT10M")
    kafka_world.send(200)
    kafka_world.shown(flow)
    flow.kill()
    low = [TopicPartition(kafka_world.topic, partition, 60) for partition in range(2)]
    for done in admin.delete_records(low).values():
        done.result(10)

    again = kafka_world.start(ready=False)

    assert again.ended(60) == 1
    assert "offset 0 is not in the log, which has 60 to 100" in again.last()
    assert kafka_world.row()["flight.impressions"] == "200"


def test_a_later_partition_is_read_from_its_beginning(kafka_world: World, admin: AdminClient) -> None:
    kafka_world.send(20)
    flow = kafka_world.start(KAFKA_START="latest")
    kafka_world.send(100)
    eventually(lambda: world_impressions(kafka_world) == 100, 60, flow.said)
    admin.create_partitions([NewPartitions(kafka_world.topic, 3)])[kafka_world.topic].result(10)
    kafka_world.partitions = 3
    kafka_world.send(60)
    flow.stop()

    again = kafka_world.start(KAFKA_START="latest")

    eventually(lambda: world_impressions(kafka_world) == 160, 60, again.said)
    again.stop()


def world_impressions(world: World) -> int:
    return int(world.row().get("flight.impressions", 0))


def test_lag_tools_see_the_flow_and_never_ahead_of_what_is_saved(
    kafka_world: World, admin: AdminClient
) -> None:
    world = kafka_world
    flow = world.start()
    world.send(200)
    world.shown(flow)

    eventually(lambda: group_offsets(admin, world) == {0: 100, 1: 100}, otherwise=flow.said)
    world.send(100)
    assert max(group_offsets(admin, world).values()) <= 150
    flow.kill()
    assert max(group_offsets(admin, world).values()) <= 150
    again = world.start()
    world.shown(again)
    eventually(lambda: group_offsets(admin, world) == {0: 150, 1: 150}, otherwise=again.said)
    again.stop()


def test_partitions_that_were_added_are_read_after_a_restart(kafka_world: World, admin: AdminClient) -> None:
    world = kafka_world
    flow = world.start()
    world.send(100)
    world.shown(flow)
    admin.create_partitions([NewPartitions(world.topic, 4)])[world.topic].result(10)
    eventually(lambda: len(admin.list_topics(world.topic).topics[world.topic].partitions) == 4)
    world.send(40, partition=3)
    flow.stop()

    again = world.start()

    world.shown(again)
    assert world.row()["flight.impressions"] == "140"
    again.stop()


def test_a_flow_without_its_store_refuses_a_log_with_a_deleted_start(
    kafka_world: World, admin: AdminClient
) -> None:
    trimmed(admin, kafka_world)
    shutil.rmtree(kafka_world.directory / "recovery")

    flow = kafka_world.start(ready=False)

    assert flow.ended() == 3
    assert "begins at 250" in flow.last()
    assert "--recompute" in flow.last()
    assert kafka_world.row()["flight.impressions"] == "200"

    anew = kafka_world.start("--recompute")

    eventually(lambda: kafka_world.row()["generation"] == "2", otherwise=anew.said)
    assert kafka_world.row()["flight.impressions"] == "100"
    anew.stop()
