"""Bad, slow, empty and too much input: data, and never a reason to crash, to lose or to forget."""

from __future__ import annotations

import hashlib
import json
import threading
import time

from faults_support import World, eventually

from connectors.kafka.reader import KafkaInput
from connectors.kafka.writer import KafkaWriter
from connectors.redis.commands import read_rows

MEGABYTE = 1_000_000
DAY_MS = 86_400_000
MAX_GROWTH_MB = 250


def letters(world: World) -> dict[str, dict[str, object]]:
    """The dead letters by position."""
    source = KafkaInput(world.brokers, [f"{world.topic}-rejected"], group=f"{world.topic}-letters")
    (partition,) = source.partitions()
    reader, found = source.open(partition, None), {}
    while not reader.caught_up:
        for value in messages.values if (messages := reader.read(1000)) is not None else ():
            letter = json.loads(value)
            found[letter["position"]] = letter
    reader.close()
    return found


def test_a_mostly_rejected_topic_stops_the_flow_every_time(world: World) -> None:
    now_ms = int(time.time() * 1000)
    world.send_raw([(n % 2, b"<html>not found</html>", now_ms) for n in range(300)])
    world.send(50)

    for _ in range(2):
        flow = world.start(ready=False, REJECT_LEAST="200")

        assert flow.ended(60) == 4
        assert "of 350 messages were rejected (malformed 300)" in flow.last()
        assert "AUDIOPIXEL_REJECT_SHARE" in flow.last()


def test_a_message_of_a_megabyte_is_one_dead_letter_without_its_payload(world: World) -> None:
    flow = world.start()
    big = (b'{"event_id":"big","padding":"' + b"x" * MEGABYTE)[: MEGABYTE - 1000]
    world.send_raw([(0, big, int(time.time() * 1000))])
    world.send(20)

    world.shown(flow)

    assert world.ledger("rejected.malformed") == 1
    assert world.row()["flight.impressions"] == "20"
    eventually(lambda: letters(world))
    (letter,) = letters(world).values()
    assert letter["position"] == f"{world.topic}/0/0"
    assert letter["reason"] == "malformed"
    assert letter["length"] == len(big)
    assert letter["sha256"] == hashlib.sha256(big).hexdigest()
    assert len(json.dumps(letter)) < 500
    flow.stop()


def test_an_empty_partition_does_not_hold_time(world: World) -> None:
    flow = world.start()
    old_ms = int(time.time() * 1000) - 3_600_000
    world.send(10, partition=0, ts_ms=old_ms)
    world.send(10, partition=0)

    world.shown(flow)

    eventually(lambda: world.meta("watermark_ms") > old_ms + 3_000_000, otherwise=flow.said)
    row = world.row()
    assert int(row["final_through_ms"]) > old_ms


def test_junk_and_old_pixels_of_a_quiet_partition_do_not_hold_time(world: World) -> None:
    flow = world.start(QUIET="PT2S", REJECT_SHARE="1")
    world.send(20)
    world.shown(flow)
    began_ms = world.meta("watermark_ms")
    began = time.monotonic()
    while world.meta("watermark_ms") < began_ms + 6_000:
        assert time.monotonic() < began + 60, flow.said()
        now_ms = int(time.time() * 1000)
        world.send_raw([(1, b"ping", now_ms)])
        world.send(1, partition=1, ts_ms=now_ms - 2 * DAY_MS, received_at=now_ms)
        time.sleep(0.5)


def test_a_partition_of_junk_alone_does_not_hold_time(world: World) -> None:
    over = threading.Event()

    def send() -> None:
        writer = KafkaWriter(world.brokers, world.topic)
        while not over.wait(0.1):
            writer.send(1, b"", b"ping", int(time.time() * 1000))
        writer.close()

    sending = threading.Thread(target=send)
    sending.start()
    try:
        flow = world.start(ready=False, REJECT_SHARE="1")
        now_ms = int(time.time() * 1000)
        world.send(20, partition=0)
        eventually(lambda: world.ledger("accepted") == 20, 60, flow.said)
        eventually(lambda: world.meta("watermark_ms") > now_ms - DAY_MS, 20, flow.said)
    finally:
        over.set()
        sending.join()


def test_the_first_pixel_of_a_partition_does_not_hold_time(world: World) -> None:
    flow = world.start(QUIET="PT2S")
    world.send(20, partition=0)
    world.shown(flow)
    time.sleep(2)  # in which the other partition turns out to be empty, again and again
    began_ms = int(time.time() * 1000)
    world.send(1, partition=1, ts_ms=began_ms - 2 * DAY_MS, received_at=began_ms)
    world.shown(flow)
    eventually(lambda: world.meta("watermark_ms") > began_ms, 60, flow.said)


def test_partitions_at_different_speeds_lose_nothing_when_catching_up(world: World) -> None:
    """An hour's backlog in a long and a short partition of the same hour; no pixel of it is late."""
    now_ms = int(time.time() * 1000)
    hour_ms = 3_600_000
    messages = []
    for partition, count in ((0, 20_000), (1, 400)):
        for n in range(count):
            ts = now_ms - hour_ms + hour_ms * n // count
            event = {
                "event_id": f"{partition}-{n}",
                "play_id": f"{partition}-{n}",
                "placement_id": f"p{partition}",
            }
            event |= {"event": "impression", "ts": ts, "received_at": ts}
            messages.append((partition, json.dumps(event).encode(), ts))
    world.send_raw(messages)

    flow = world.start(ready=False, BATCH_MESSAGES="300")

    world.shown(flow)
    assert world.ledger("accepted") == world.sent
    assert world.ledger("rejected.too_late") == 0
    with world.client() as client:
        rows = read_rows(client, [f"{world.topic}:v1:placement:{{p{n}}}" for n in (0, 1)])
    assert [row["flight.impressions"] for row in rows] == ["20000", "400"]


def test_an_overload_costs_freshness_without_memory_or_pixels(
    world: World,
) -> None:
    """The flow gets a sixteenth of the time, so that any machine's producer outruns it."""
    flow = world.start(BATCH_MESSAGES="1000")
    world.send(2000)
    world.shown(flow)
    before_mb, most_mb, most_lag = flow.memory_mb(), 0.0, 0.0
    enough = threading.Event()

    def throttle() -> None:
        while not enough.is_set():
            flow.pause()
            time.sleep(0.75)
            flow.resume()
            time.sleep(0.05)

    throttler = threading.Thread(target=throttle)
    throttler.start()
    try:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            world.send(7000)
            most_mb = max(most_mb, flow.memory_mb())
            most_lag = max(most_lag, flow.metric("consumer_lag_messages"))
    finally:
        enough.set()
        throttler.join()
    flow.pause()
    world.send(7000)
    assert world.ledger() < world.sent
    flow.resume()

    assert most_lag > 5_000, "the producer did not outrun the flow"
    world.shown(flow, seconds=90)
    assert flow.metric("consumer_lag_messages") == 0
    assert max(most_mb, flow.memory_mb()) - before_mb < MAX_GROWTH_MB
    assert world.row()["flight.impressions"] == str(world.sent)
    assert world.ledger("accepted") == world.sent
