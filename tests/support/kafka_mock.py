"""A cluster of librdkafka's own mock brokers, which go down and answer late as a test says.

It runs in a process of its own: `python kafka_mock.py BROKERS TOPIC=PARTITIONS…`, then commands on stdin,
each answered by a line: `leader TOPIC PARTITION BROKER`, `late BROKER MS`, `down BROKER`, `up BROKER`.
A broker that is down remains the leader of its partitions, and what they hold.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from ctypes import c_char_p, c_int, c_int32, c_size_t, c_void_p
from pathlib import Path
from typing import Any, Self


class MockKafka:
    """A mock cluster of librdkafka.

    Args:
        leaders: by partition, of each topic that has it; without it brokers take turns.
        topics: partitions of each.
    """

    def __init__(self, brokers: int, leaders: dict[int, int] | None = None, **topics: int) -> None:
        command = [sys.executable, __file__, str(brokers), *(f"{name}={n}" for name, n in topics.items())]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.bootstrap = self._answer()
        self.brokers = range(1, brokers + 1)
        for topic, partitions in topics.items():
            for partition, leader in (leaders or {}).items():
                if partition < partitions:
                    self._say("leader", topic, partition, leader)

    def late(self, ms: int) -> None:
        """Every broker answers so much later."""
        for broker in self.brokers:
            self._say("late", broker, ms)

    def down(self, broker: int) -> None:
        self._say("down", broker)

    def up(self, broker: int) -> None:
        self._say("up", broker)

    def _say(self, *words: object) -> None:
        assert self._process.stdin is not None
        print(*words, file=self._process.stdin, flush=True)
        assert self._answer() == "0", words

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def _library() -> Any:
    """The library in confluent_kafka's wheel, whose mock brokers Python has no names for."""
    import confluent_kafka

    (path,) = Path(confluent_kafka.__file__).parent.parent.glob("confluent_kafka.libs/librdkafka*")
    library = ctypes.CDLL(str(path))
    takes: dict[str, tuple[Any, list[Any]]] = {
        "conf_new": (c_void_p, []),
        "new": (c_void_p, [c_int, c_void_p, c_char_p, c_size_t]),
        "mock_cluster_new": (c_void_p, [c_void_p, c_int]),
        "mock_cluster_bootstraps": (c_char_p, [c_void_p]),
        "mock_topic_create": (c_int, [c_void_p, c_char_p, c_int, c_int]),
        "mock_partition_set_leader": (c_int, [c_void_p, c_char_p, c_int32, c_int32]),
        "mock_broker_set_rtt": (c_int, [c_void_p, c_int32, c_int]),
        "mock_broker_set_down": (c_int, [c_void_p, c_int32]),
        "mock_broker_set_up": (c_int, [c_void_p, c_int32]),
    }
    for name, (returned, arguments) in takes.items():
        function = getattr(library, f"rd_kafka_{name}")
        function.restype, function.argtypes = returned, arguments
    return library


def _serve(brokers: int, topics: list[tuple[bytes, int]]) -> None:
    library = _library()
    error = ctypes.create_string_buffer(512)
    client = library.rd_kafka_new(0, library.rd_kafka_conf_new(), error, len(error))
    cluster = library.rd_kafka_mock_cluster_new(client, brokers)
    for name, partitions in topics:
        assert library.rd_kafka_mock_topic_create(cluster, name, partitions, 1) == 0
        for partition in range(partitions):
            leader = 1 + partition % brokers
            library.rd_kafka_mock_partition_set_leader(cluster, name, partition, leader)
    print(library.rd_kafka_mock_cluster_bootstraps(cluster).decode(), flush=True)
    for line in sys.stdin:
        command, *words = line.split()
        if command == "leader":
            topic, partition, leader = words[0].encode(), int(words[1]), int(words[2])
            failed = library.rd_kafka_mock_partition_set_leader(cluster, topic, partition, leader)
        elif command == "late":
            failed = library.rd_kafka_mock_broker_set_rtt(cluster, int(words[0]), int(words[1]))
        else:
            failed = getattr(library, f"rd_kafka_mock_broker_set_{command}")(cluster, int(words[0]))
        print(failed, flush=True)


if __name__ == "__main__":
    named = (word.partition("=") for word in sys.argv[2:])
    _serve(int(sys.argv[1]), [(name.encode(), int(partitions)) for name, _, partitions in named])
