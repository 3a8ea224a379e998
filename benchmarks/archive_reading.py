"""Reading an archive against reading the same events from one file, by turns.

python -m benchmarks.archive_reading --events 2000000 --turns 5
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from connectors.embedded import EmbeddedValkey
from connectors.files import FileInput
from connectors.objects import Directory
from connectors.stream import EndOfInput, Messages
from flows.archive.manifest import Part
from flows.archive.message_lines import Forgetting
from flows.archive.series import Series
from flows.replay import replay
from flows.settings import load
from flows.simulate import Traffic, run_log

KEY: Final = b"a key of sixteen bytes or more"


def archive_of(log: Path, root: Path, most_bytes: int) -> None:
    """An archive of one partition with the lines of a log."""
    series = Series(Directory(root), Part(topic="t", partition=0, first=0), None, most_bytes)
    series.begin()
    reader, nobody = FileInput([str(log)]).open(str(log), None), Forgetting(KEY, ())
    try:
        while True:
            found = reader.read(1_000)
            first = found.positions[0] - 1
            positions = range(first, first + len(found.values))
            some = Messages([*found.values], positions, positions.stop, [0] * len(positions))
            series.take(some, "", time.time_ns() // 1_000_000, 0.0, nobody)
    except EndOfInput:
        series.seal()


def timed(source: str, url: str, namespace: str) -> tuple[float, float]:
    """Wall clock and processor seconds of a replay."""
    settings = load(redis_url=url, namespace=namespace, metrics_port=0, recovery_dir=None)
    wall, processor = time.perf_counter(), time.process_time()
    replay([source], settings, KEY)
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    """Measure, and print events a second of each, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--directory", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.directory) as directory, EmbeddedValkey() as redis:
        log, root = Path(directory) / "log.ndjson", Path(directory) / "archive"
        run_log(log, Traffic(1, placements=120, rate=2000.0), asked.events)
        archive_of(log, root, 16 << 20)
        size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
        print(f"{asked.events:,} events: log {log.stat().st_size:,} bytes, archive {size:,}")
        sources = {"file": str(log), "archive": f"archive:{root}"}
        timed(sources["file"], redis.url, "warm")
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in sources}
        for turn in range(asked.turns):
            for name, source in sources.items() if turn % 2 else [*sources.items()][::-1]:
                times[name].append(timed(source, redis.url, f"{name}{turn}"))
        for place, what in ((0, "wall clock"), (1, "processor")):
            of = {name: statistics.median(one[place] for one in found) for name, found in times.items()}
            print(
                f"{what}: file {asked.events / of['file']:,.0f} a second, archive "
                f"{asked.events / of['archive']:,.0f}: {of['file'] / of['archive']:.3f}"
            )


if __name__ == "__main__":
    main()
