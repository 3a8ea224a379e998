"""The writer with 100,000 placements, of which a tenth change a second: `python -m benchmarks.rows`.

An impression of every placement is sent first. Then traffic on all of them alike is sent in real time, so
fast that in each second a tenth of them gets a pixel. Then an exporter is asked for all of them.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Final

from confluent_kafka import Producer

from benchmarks.bars import console, finish
from benchmarks.exporter import asking, exporting, get
from benchmarks.freshness import NAMESPACE, Counts, Live, Traffic, measure, prepare, running
from benchmarks.topic import PARTITIONS, TOPIC
from connectors.redis import connect
from flows.settings.fields import PREFIX
from flows.simulate.feed import now_ms

PLACEMENTS: Final = 100_000
OF_EACH_1000: Final = 114
"""Pixels a second and thousand placements: a tenth of them get one or more."""
MEASURED_S: Final = 20
_PLACE: Final = re.compile(rb'"placement_id":"([^"]+)"')


def introduce(live: Live, placements: int) -> Counts:
    """Send an impression of each placement, wait until Redis shows them; returns messages by partition."""
    producer = Producer(
        {"bootstrap.servers": live.broker.bootstrap, "queue.buffering.max.messages": 1_000_000}
    )
    at_ms = now_ms() - 60_000
    for number in range(placements):
        line = (
            f'{{"event_id":"first-{number}","event":"impression","ts":{at_ms},"placement_id":"pl-{number:05d}",'
            f'"campaign_id":"c-{number % 40}","play_id":"first-{number}","consent":false}}'
        )
        producer.produce(TOPIC, line.encode(), None, number % PARTITIONS)
    producer.flush(300)
    counts = tuple(len(range(partition, placements, PARTITIONS)) for partition in range(PARTITIONS))
    live.shown.until(counts)
    return counts


def changed(traffic: Traffic) -> float:
    """Placements that get a pixel in a second, on average over what is measured."""
    chunks, places, second = iter(traffic.chunks), set[bytes](), 0
    found = []
    lines = [path.open("rb") for path in traffic.files]
    for chunk in chunks:
        if chunk.at_ms // 1000 > second:
            found.append(len(places))
            places, second = set(), chunk.at_ms // 1000
        for file, size in zip(lines, chunk.sizes, strict=True):
            places.update(_PLACE.findall(file.read(size)))
    for file in lines:
        file.close()
    return sum(found[-traffic.measured :]) / traffic.measured


def _first_numbers_s(address: str) -> float:
    """Seconds until the page's stream has sent its first whole event."""
    began_s = time.monotonic()
    with urllib.request.urlopen(asking(f"{address}/events"), timeout=300) as stream:
        while stream.readline().strip():
            pass
    return time.monotonic() - began_s


def main() -> int:
    """Measure and print; exit code 1 where a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rows", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="short: judge no bar")
    smoke = parser.parse_args().smoke
    placements, measured = (1000, 2) if smoke else (PLACEMENTS, MEASURED_S)
    rate = placements * OF_EACH_1000 // 1000
    with tempfile.TemporaryDirectory(prefix="audiopixel-rows-") as name:
        with console(stderr=True).status("writing the traffic"):
            traffic = prepare(rate, Path(name), measured, placements=placements, skew=0.0)
        with running(Path(name)) as live, console(stderr=True).status("sending it"):
            one = measure(live, traffic, introduce(live, placements))
            rows = connect(live.valkey.url).zcard(f"{NAMESPACE}:index:placement")
            with exporting(live.valkey.url, **{f"{PREFIX}NAMESPACE": NAMESPACE}) as (address, _):
                get(f"{address}/metrics/placements")  # the first builds the names
                began_s = time.monotonic()
                get(f"{address}/metrics/placements")
                scrape_s = time.monotonic() - began_s
                page_s = _first_numbers_s(address)
        some = changed(traffic)
    heads = ("rows that change a second", "half within s", "99 of 100 s", "longest gap s", "flow, of a core")
    table = [["placements", *heads, "scrape s", "page's first numbers s"]]
    times = (one.p50_s, one.p99_s, one.gap_s, one.cores, scrape_s, page_s)
    table.append([f"{rows:,}", f"{some:,.0f}", *(f"{value:.2f}" for value in times)])
    about = f"{rate:,} pixels a second for {traffic.seconds} s, the last {measured} of them measured"
    return finish("rows", about, table, {"p99": one.p99_s, "scrape_s": scrape_s, "page_s": page_s}, not smoke)


if __name__ == "__main__":
    sys.exit(main())
