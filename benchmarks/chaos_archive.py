"""The archive of a chaos run: a writer that is killed again and again, and what it wrote beside the topic."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.chaos_services import ROOT
from benchmarks.chaos_stream import Worker
from benchmarks.chaos_verdict import messages
from connectors.kafka.reader import KafkaInput
from connectors.stream import EndOfInput
from flows.archive import ArchiveInput, Ledgers, check, ledger_of, store_of
from flows.archive.lines import lines_of
from flows.settings.fields import PREFIX, Settings

WITHIN_S: Final = 120.0
"""The time that a writer has to write what is there and to end."""
SETTINGS: Final = {"ARCHIVE_INTERVAL": "PT1S", "ARCHIVE_BYTES": "65536", "ARCHIVE_PORT": "0"}
LOOK_S: Final = 0.2


class Archive(Worker):
    """`audiopixel archive --to`, killed at random moments, and started again whenever it has ended.

    Args:
        settings: of the flow, without their prefix.
        every_s: the mean time between two kills.

    Attributes:
        done: how often it was killed.
    """

    def __init__(self, settings: Mapping[str, str], directory: Path, seed: int, every_s: float) -> None:
        super().__init__("archive")
        self.place, self._log = directory / "archive", directory / "archive.log"
        clean = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        ours = {PREFIX + name: value for name, value in {**settings, **SETTINGS}.items()}
        self._environment = clean | ours | {"PYTHONPATH": str(ROOT)}
        self._random, self._every_s = random.Random(seed), every_s
        self._over = threading.Event()
        self.done: Counter[str] = Counter()

    def work(self) -> None:
        """Write, and die, until told to end."""
        writer = self._writing()
        try:
            while not self._over.is_set():
                lives_s = self._random.expovariate(1 / self._every_s)
                while lives_s > 0 and not self._over.wait(LOOK_S):
                    lives_s -= LOOK_S
                    if writer.poll() is not None:  # Kafka or Redis was away at its start
                        writer = self._writing()
                if not self._over.is_set():
                    writer.kill()
                    writer.wait()
                    self.done["archive writer killed"] += 1
                    writer = self._writing()
        finally:
            writer.kill()
            writer.wait()

    def end(self) -> None:
        """Kill the writer a last time, and let another one write all that is there.

        Raises:
            AssertionError: that one did not end well.
        """
        self._over.set()
        self.join()
        last = self._writing("--once")
        code = last.wait(WITHIN_S)
        assert code == 0, f"audiopixel archive --once ended with code {code}"

    def close(self) -> None:
        """End it, however."""
        self._over.set()
        if self.is_alive():
            self.join()

    def _writing(self, *more: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "flows.cli", "archive", "--to", str(self.place), *more],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def against_the_archive(place: Path, settings: Settings, client: Any, brokers: str) -> Iterator[str]:
    """What an archive has otherwise than its topic and the flow's ledger."""
    store, topic = store_of(str(place)), KafkaInput(brokers, [settings.kafka_topic])
    checked = check(store, Ledgers(ledger_of(client, settings.namespace), {}, topic.open))
    yield from (f"archive: {one}" for one in [*checked.wrong, *checked.not_compared])
    archived = Counter(_archived(ArchiveInput(store)))
    written = Counter[tuple[str, int, bytes]]()
    for partition, offset, value in messages(brokers, settings.kafka_topic):
        (line,), _ = lines_of([value])
        written[partition, offset, line] += 1
    for said, some in (("is missing in", written - archived), ("is too much in", archived - written)):
        yield from (f"{partition} {offset} {said} the archive" for partition, offset, _ in sorted(some))


def _archived(source: ArchiveInput) -> Iterator[tuple[str, int, bytes]]:
    for partition in source.partitions():
        reader = source.open(partition, None)
        try:
            while True:
                found = reader.read(10_000)
                for offset, value in zip(found.positions, found.values, strict=True):
                    yield partition, offset, bytes(value)
        except EndOfInput:
            pass
