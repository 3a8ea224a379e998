"""The archive of a chaos run: a writer that is killed again and again, and the comparison of its archive with
the topic.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.chaos_process import Process
from benchmarks.chaos_stream import Worker
from benchmarks.chaos_verdict import messages
from connectors.kafka.reader import KafkaInput
from connectors.stream import EndOfInput
from flows.archive import ArchiveInput, Ledgers, check, ledger_of, store_of
from flows.archive.message_lines import lines_of
from flows.settings.fields import Settings

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
        self.place = directory / "archive"
        self._settings, self._log = {**settings, **SETTINGS}, directory / "archive.log"
        self._random, self._every_s = random.Random(seed), every_s
        self._over = threading.Event()
        self.done: Counter[str] = Counter()

    def work(self) -> None:
        """Write, and be killed, until the run ends."""
        writer = self._writer()
        writer.start()
        try:
            while not self._over.is_set():
                lives_s = self._random.expovariate(1 / self._every_s)
                while lives_s > 0 and not self._over.wait(LOOK_S):
                    lives_s -= LOOK_S
                    if not writer.lives:  # Kafka or Redis was away at its start
                        writer.start()
                if not self._over.is_set():
                    writer.kill()
                    self.done["archive writer killed"] += 1
                    writer.start()
        finally:
            writer.kill()

    def end(self) -> None:
        """Kill the writer a last time, and let another one write all that is there.

        Raises:
            AssertionError: that one did not end well.
        """
        self._over.set()
        self.join()
        last = self._writer("--once")
        last.start()
        code = last.wait()
        assert code == 0, f"audiopixel archive --once ended with code {code}"

    def close(self) -> None:
        """End it, however."""
        self._over.set()
        if self.is_alive():
            self.join()

    def _writer(self, *more: str) -> Process:
        return Process("archive", "--to", str(self.place), *more, settings=self._settings, log=self._log)


def against_the_archive(place: Path, settings: Settings, client: Any, brokers: str) -> Iterator[str]:
    """The differences of an archive from its topic and the flow's ledger."""
    store, topic = store_of(str(place)), KafkaInput(brokers, [settings.kafka_topic])
    checked = check(store, Ledgers(*ledger_of(client, settings.namespace), {}, topic.open))
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
