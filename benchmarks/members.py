"""The processor time of one message in a flow of one, two and four processes.

`python -m benchmarks.members`: each flow is `audiopixel run --processes N`, catches up with a topic, and is
stopped once Redis shows all of it. A message's time is the slope between a short and a long topic, since what
a start costs is in both. Servers run beside them on the same cores, and are not counted. Redis's rows are
compared before any time is.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks import topic
from benchmarks.answers import differences
from benchmarks.bars import finish
from benchmarks.bench import SEED
from benchmarks.flow_file import KEY
from benchmarks.measure import UNPLANNED, Answers
from benchmarks.plain_log import write_log
from benchmarks.published import flights
from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from connectors.redis.client import connect
from connectors.redis.commands import read_rows
from flows.errors import AudiopixelError
from flows.settings.fields import PREFIX
from flows.settings.loading import load

PROCESSES: Final = (1, 2, 4)
EVENTS: Final = (1_000_000, 3_000_000)
SMOKE: Final = (20_000, 40_000)
TURNS: Final = 4
_PATIENCE_S: Final = 300.0
_POLL_S: Final = 0.1


class Flow(NamedTuple):
    """Processor time of all processes of a run, from start to end, and seconds until Redis showed all."""

    cpu_s: float
    seconds: float


class Members:
    """The flows over one short and one long topic.

    Args:
        directory: for recovery directories.
        redis_url, brokers: of the servers; each broker has one of the topics.
    """

    def __init__(self, directory: Path, redis_url: str, brokers: dict[int, str]) -> None:
        self._directory, self._redis_url, self._brokers = directory, redis_url, brokers
        self.answers: dict[int, Answers] = {}
        self.wrong: list[str] = []
        self._runs = 0

    def run(self, processes: int, events: int) -> Flow:
        """Run a flow over the topic of so many events, and compare its rows with those of the first one.

        Raises:
            AudiopixelError: it ended by itself, or took over `_PATIENCE_S`.
        """
        self._runs += 1
        name = f"bench:members:{self._runs}"
        shown = {
            "KAFKA_BROKERS": self._brokers[events],
            "REDIS_URL": self._redis_url,
            "NAMESPACE": name,
            "LISTENER_KEY": KEY.decode(),
            "RECOVERY_DIR": str(self._directory / f"recovery-{self._runs}"),
            "METRICS_PORT": "0",
            **{field.upper(): str(value) for field, value in UNPLANNED.items()},
        }
        environment = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
        environment |= {PREFIX + field: value for field, value in shown.items()}
        environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        began_s = time.monotonic()
        command = [sys.executable, "-m", "flows.cli", "run", "--processes", str(processes)]
        log = self._directory / "log.txt"
        with (
            log.open("w") as out,
            subprocess.Popen(command, env=environment, cwd=self._directory, stdout=out, stderr=out) as flow,
        ):
            try:
                while self._received(name) < events:
                    if flow.poll() is not None or time.monotonic() - began_s > _PATIENCE_S:
                        raise AudiopixelError(
                            f"{processes} processes did not read all:\n{log.read_text()[-2000:]}"
                        )
                    time.sleep(_POLL_S)
                seconds = time.monotonic() - began_s
            finally:
                flow.send_signal(signal.SIGTERM)
                flow.wait(60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = Answers(flights(load(redis_url=self._redis_url, namespace=name)))
        truth = self.answers.setdefault(events, found)
        self.wrong += [f"{processes} processes: {line}" for line in differences(truth, found)]
        return Flow(after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime, seconds)

    def _received(self, namespace: str) -> int:
        client = connect(self._redis_url)
        try:
            keys = list(client.scan_iter(f"{namespace}:partition:*"))
            return sum(int(row.get("received", 0)) for row in read_rows(client, keys, ["received"]))
        finally:
            client.close()


def main() -> int:
    """Measure and print; exit code 1 where rows differ or a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.members", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="short: compare rows, judge no bar")
    smoke = parser.parse_args().smoke
    sizes, turns = (SMOKE, 1) if smoke else (EVENTS, TURNS)
    least: dict[tuple[int, int], Flow] = {}
    with (
        tempfile.TemporaryDirectory(prefix="audiopixel-members-") as name,
        EmbeddedValkey() as valkey,
        EmbeddedBroker() as short,
        EmbeddedBroker() as long,
    ):
        directory = Path(name)
        brokers = dict(zip(sizes, (short, long), strict=True))
        for events, broker in brokers.items():
            log = directory / "log.ndjson"
            write_log(log, events, SEED)
            topic.load(log, broker)
            log.unlink()
        urls = {events: broker.bootstrap for events, broker in brokers.items()}
        members = Members(directory, valkey.url, urls)
        for _ in range(turns):
            for processes in PROCESSES:
                for events in sizes:
                    ran = members.run(processes, events)
                    key = processes, events
                    least[key] = min(ran, least.get(key, ran))
    for line in members.wrong[:20]:
        print(line)
    print(
        f"rows: {f'{len(members.wrong):,} differences' if members.wrong else 'equal'} by all of {PROCESSES}"
    )
    slopes = {
        processes: 1e6
        * (least[processes, sizes[1]].cpu_s - least[processes, sizes[0]].cpu_s)
        / (sizes[1] - sizes[0])
        for processes in PROCESSES
    }
    table = [
        ["processes", "CPU µs a message", "work a CPU second, by one", "CPU s of a short topic", "elapsed s"]
    ]
    for processes, slope in slopes.items():
        first = least[processes, sizes[0]]
        share = f"{slopes[1] / slope:.2f} ×"
        table.append([str(processes), f"{slope:.2f}", share, f"{first.cpu_s:.1f}", f"{first.seconds:.1f}"])
    figures = {f"by_one.{processes}": slopes[1] / slopes[processes] for processes in PROCESSES[1:]}
    about = f"{sizes[0]:,} and {sizes[1]:,} messages in {topic.PARTITIONS} partitions, least of {turns} turns"
    missed = finish("members", about, table, figures, not (smoke or members.wrong))
    return int(bool(members.wrong)) or missed


if __name__ == "__main__":
    sys.exit(main())
