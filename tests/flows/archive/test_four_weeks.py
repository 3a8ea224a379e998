"""Four weeks of a campaign: a topic of two days and an archive of the others give the numbers of all 28."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from faults_support import World, eventually, in_memory

from benchmarks.chaos_verdict import reached, read_fields
from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from connectors.objects import Directory
from flows.archive import check, write_from_messages
from flows.settings import load
from flows.simulate import History, Traffic, plans, write_plans

DAY_MS: Final = 86_400_000
DAYS, KEPT_DAYS = 28, 2
NOW_MS: Final = int(time.time() * 1000)
BEGAN_MS: Final = NOW_MS - DAYS * DAY_MS
PIXELS_A_SECOND: Final = 0.1
EARLY: Final = 40
"""Listeners who click on the first day, and convert on the last."""

Message = tuple[int, int, bytes]


def event(name: str, at_ms: int, **more: Any) -> bytes:
    pixel = {"event_id": name, "ts": at_ms, "received_at": at_ms, "campaign_id": "c-early", "consent": True}
    return json.dumps(pixel | more).encode()


def early() -> Iterator[Message]:
    """Clicks of day 1, and the conversions that they are credited with on day 28."""
    for n in range(EARLY):
        who = {"listener_id": f"early-{n}"}
        clicked, bought = BEGAN_MS + 60_000 * (n + 1), NOW_MS - DAY_MS + 60_000 * n
        where = {"placement_id": "early", "play_id": f"early-{n}"}
        for kind in ("impression", "start", "click"):
            yield n % 2, clicked, event(f"early-{n}-{kind}", clicked, event=kind, **where, **who)
        sold = {"type": "purchase", "order_id": f"o{n}", "value": "10.00", "currency": "GBP"}
        yield n % 2, bought, event(f"early-{n}-c", bought, event="conversion", conversion=sold, **who)


@pytest.fixture
def worlds(broker: EmbeddedBroker, valkey: EmbeddedValkey, tmp_path: Path) -> Iterator[tuple[World, World]]:
    """A topic that has all, and one that has two days."""
    found = []
    for name in ("along", "late"):
        (tmp_path / name).mkdir()
        world = in_memory(broker, valkey, tmp_path / name)
        world.settings |= {
            "PLANS": str(tmp_path / "plans.csv"),
            "QUIET": "PT2H",  # the watermark stands at the last message
            "REJECT_SHARE": "1",
            "KAFKA_ALERTS_TOPIC": f"{world.topic}-alerts",
        }
        broker.create_topic(f"{world.topic}-alerts", 1)
        found.append(world)
    yield found[0], found[1]
    for world in found:
        world.close()


def fields_of(world: World) -> dict[str, str]:
    with world.client() as client:
        return read_fields(client, f"{world.topic}:v1")


def ended(world: World, count: int) -> bool:
    """True once all is counted, and the last flush is one that changed nothing."""
    if world.ledger() + world.ledger("marks") < count:
        return False
    before = fields_of(world)
    time.sleep(1.5)
    return before == fields_of(world)


def test_an_archive_and_a_topic_produce_the_rows_of_a_whole_log(
    worlds: tuple[World, World], broker: EmbeddedBroker, tmp_path: Path
) -> None:
    along, late = worlds
    traffic = Traffic(7, 4, PIXELS_A_SECOND, start_ms=NOW_MS, partitions=2)
    past = History(traffic, BEGAN_MS, NOW_MS)
    messages: list[Message] = [(call.partition, call.arrival_ms, call.value) for call in past]
    messages = sorted([*messages, *early()], key=lambda one: one[1])
    write_plans(tmp_path / "plans.csv", plans(traffic, timedelta(days=35), began=timedelta(days=DAYS)))
    border_ms = NOW_MS - KEPT_DAYS * DAY_MS
    began_s = time.monotonic()
    archive = Directory(tmp_path / "archive")
    broker.begin_at(
        late.topic, write_from_messages(archive, late.topic, (one for one in messages if one[1] < border_ms))
    )
    written_s = time.monotonic() - began_s
    for world, since_ms in ((along, 0), (late, border_ms)):
        world.send_raw([(to, value, at_ms) for to, at_ms, value in messages if at_ms >= since_ms])

    whole = along.start()
    eventually(lambda: ended(along, len(messages)), 300, whole.said)
    began_s, dice = time.monotonic(), random.Random(28)
    start = {"KAFKA_START": f"archive:{tmp_path / 'archive'}", "SAVE_INTERVAL": "PT0.5S"}
    archived = check(archive).messages
    seen = [0]

    def counted() -> int:
        seen.append(late.ledger())
        return seen[-1]

    places = (dice.randrange(archived), archived - dice.randrange(2_000), archived + dice.randrange(2_000))
    for place in places:  # before, at and after the seam
        flow = late.start(ready=False, BATCH_MESSAGES="500", **start)
        eventually(lambda place=place: counted() >= place, 300, flow.said)  # type: ignore[misc]
        flow.kill()
    flow = late.start(ready=False, **start)
    eventually(lambda: ended(late, len(messages)), 300, flow.said)
    lasted_s = time.monotonic() - began_s
    assert all(one <= other for one, other in pairwise(seen)), "nothing goes back"

    right, found = fields_of(along), fields_of(late)
    unlike = {name: (right.get(name), found.get(name)) for name in {*right, *found}}
    unlike = {name: both for name, both in unlike.items() if both[0] != both[1]}
    # A state began at the first cut that readers got with it, and the flows had other cuts.
    unlike = {name: both for name, both in unlike.items() if not name.endswith(" delivery.since_ms")}
    assert unlike == {}
    row = {
        name.split(" ", 2)[2]: value for name, value in found.items() if name.startswith("placement early ")
    }
    assert row["flight.conversions"] == str(EARLY), "touches of day 1"
    assert row["flight.reach"] == str(EARLY)
    with late.client() as client:
        metas = [client.hgetall(f"{world.topic}:v1:meta") for world in worlds]
    for name in ("counted_since_ms", "watermark_ms", "conversions_accepted", "conversions_attributed"):
        assert metas[0][name] == metas[1][name], name
    for one, other in ((whole, along), (flow, late)):
        one.stop()
        assert other.sent
    sketches = [
        reached(load(**{name.lower(): value for name, value in world.settings.items()})) for world in worlds
    ]
    assert sketches[0] == sketches[1]
    print(
        f"\n28 days: {len(messages):,} messages, {archived:,} of them in an archive of "
        f"{check(archive).bytes:,} bytes, written in {written_s:.1f} s; {len(right):,} fields of rows are "
        f"equal to the unit behind kills at {', '.join(f'{place:,}' for place in places)} and the seam at "
        f"{archived:,}; {row['flight.conversions']} conversions with touches of day 1; "
        f"four starts took {lasted_s:.0f} s"
    )
