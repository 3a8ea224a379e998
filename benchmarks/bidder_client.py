"""The cost of the Python client for bidders to its process, with `hiredis` and without: of a read, the time
until a change is seen, processor time, and memory.

`python -m benchmarks.bidder_client`: a flow's own writer has 10,000 placements, of which 1,000 change with
each flush, twice a second. Of a row 20 fields are read beside those that the client's rules need. The time
until a change is seen begins with its message.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from itertools import cycle, islice
from typing import Any, Final

import numpy as np

from benchmarks.bars import ROOT, finish
from connectors.embedded import EmbeddedValkey
from flows.model.fields import FIELDS, empty
from flows.model.messages import Flush, PackedRow
from flows.model.ticks import Cut
from flows.publish.layout import LAYOUTS
from flows.publish.publisher import Publisher
from flows.settings.loading import load

PLACEMENTS: Final = 10_000
CHANGED: Final = 1_000
EVERY_S: Final = 0.5
FLUSHES: Final = 60
READS: Final = 1_000_000
READ: Final = (
    *(f"{window}.{name}" for window in ("5m", "1h", "flight") for name in ("starts", "completes", "clicks")),
    *("1h.completion_rate", "1h.reach", "1h.frequency", "flight.reach", "flight.impressions"),
    *(
        "delivery.indicator",
        "delivery.required_rate",
        "delivery.end_ms",
        "campaign_id",
        "platform",
        "as_of_ms",
    ),
)


def main() -> int:
    """Measure and print; exit code 1 where a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bidder_client", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="short: judge no bar")
    chosen = parser.parse_args()
    figures, table = (
        dict[str, float](),
        [["", "a read, µs", "seen, ms: half", "99 of 100", "of a core", "KiB a placement"]],
    )
    for name, plain in (("with hiredis", False), ("without", True)):
        found = _measure(plain, 4 if chosen.smoke else FLUSHES, 200 if chosen.smoke else PLACEMENTS)
        table.append([name, *(f"{found[of]:.2f}" for of in ("read_us", "p50_ms", "p99_ms", "core", "kib"))])
        figures |= {f"{of}{'_plain' if plain else ''}": value for of, value in found.items()}
    about = f"{PLACEMENTS:,} placements, {CHANGED:,} changed every {EVERY_S:g} s, {len(READ)} fields"
    return finish("bidder_client", about, table, figures, not chosen.smoke)


def _measure(plain: bool, flushes: int, placements: int) -> dict[str, float]:
    """The figures of a client in a separate process, with a writer in this process."""
    with EmbeddedValkey() as valkey:
        writer = Writer(valkey.url, placements)
        writer.flush(placements)
        command = [sys.executable, "-m", "benchmarks.bidder_reader", valkey.url, str(flushes), *READ]
        command += ["--without-hiredis"] * plain
        reader = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        for _ in range(flushes):
            time.sleep(max(0.0, EVERY_S - writer.took_s))
            writer.flush(CHANGED)
        told = json.loads(reader.stdout.readline())
        assert reader.wait() == 0
        writer.publisher.close()
    seen = {int(number): at_s for number, at_s in told.pop("seen").items()}
    waits_ms = [1000 * (seen[number] - at_s) for number, at_s in writer.published.items() if number in seen]
    assert len(waits_ms) > flushes // 2
    p50, p99 = np.percentile(waits_ms, [50, 99])
    return {"p50_ms": float(p50), "p99_ms": float(p99), **told}


class Writer:
    """A flow's publisher of rows that are as wide as real ones.

    Attributes:
        published: number of a message to when it went out, epoch s.
        took_s: the time that the last flush took.
    """

    def __init__(self, url: str, placements: int) -> None:
        settings = load(redis_url=url, recovery_dir=None)
        self.publisher = Publisher(settings, ["log"], False)
        self.publisher.open()
        self.published: dict[int, float] = {}
        self.took_s, self._number = 0.0, 0
        self._names = cycle(f"placement-{number:05}" for number in range(placements))
        writer = self.publisher.writer
        client: Any = writer._client
        publish = client.publish

        def noted(*message: Any) -> None:
            self.published[writer.flush_number] = time.time()
            publish(*message)

        client.publish = noted

    def flush(self, changed: int) -> None:
        """A flush of so many rows."""
        began_s, now_ms = time.monotonic(), time.time_ns() // 1_000_000
        self._number += 1
        values = empty(now_ms)
        told = {
            "delivery.state": "under",
            "delivery.judged": 1,
            "delivery.booked": 24_000,
            "campaign_id": "autumn-sale",
            "delivery.delivered": 10_000 + self._number,
            "delivery.projected": "21200.500000",
            "delivery.indicator": "0.913000",
            "delivery.required_rate": "1713.250000",
            "platform": "acast",
            "delivery.end_ms": now_ms + 86_400_000,
            "1h.completion_rate": "0.871000",
            "1h.frequency": "1.200000",
            **{
                name: 1_000 + self._number
                for name in FIELDS
                if name.endswith((".impressions", ".starts", ".completes"))
            },
        }
        for name, value in told.items():
            values[FIELDS.index(name)] = value
        packed = LAYOUTS["row"].pack(values)
        some = [PackedRow("placement", name, now_ms, packed) for name in islice(self._names, changed)]
        cut = Cut(self._number, now_ms, False, (("log", self._number),), counted_since_ms=1)
        self.publisher.flush(cut, [Flush(0, cut, some)])
        self.took_s = time.monotonic() - began_s


if __name__ == "__main__":
    sys.exit(main())
