"""The partition of a key as Kafka's producers choose it, and the partitions that wait for a lane."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from kafka_mock import MockKafka

from connectors.kafka_reports import Produced, Report, ReportingProducer
from flows.collector.partitions import Standing, partition_of
from flows.errors import SettingsError


@pytest.mark.parametrize("partitions", [7, 12])
def test_a_keys_partition_is_the_producers(partitions: int) -> None:
    rng, reports = random.Random(partitions), list[Report]()
    keys = [rng.randbytes(length) for length in range(1, 60) for _ in range(5)]
    keys += [f"ключ-{n}".encode() for n in range(20)]
    with MockKafka(1, px=partitions) as kafka:
        producer = ReportingProducer(kafka.bootstrap, "px", None, reports.extend)
        assert producer.produce([(key, Produced(b"{}", key)) for key in keys]) == []
        deadline_s = time.monotonic() + 20
        while len(reports) < len(keys):
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        producer.close()
    assert {report.partition for report in reports} == set(range(partitions))
    for report in reports:
        assert not report.error
        assert report.partition == partition_of(report.token, partitions)


def test_the_next_start_finds_the_position_of_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "marked"
    standing = Standing(path)
    assert not standing.whole(0)
    assert not standing.stands_in(0)
    standing.keep(3, {0, 2})
    again = Standing(path)
    assert [again.stands_in(one) for one in range(3)] == [True, False, True]
    assert (again.topic_partitions, again.whole(0)) == (3, False)
    again.keep(3, {0, 1, 2})
    assert Standing(path).whole(0)
    assert not Standing(path).whole(4)  # the topic has grown
    again.keep(3, ())
    assert not again.whole(0)
    assert not path.exists()  # an earlier version takes any file for all partitions


def test_the_empty_file_of_an_earlier_version_stands_for_all_partitions(tmp_path: Path) -> None:
    (tmp_path / "marked").touch()
    standing = Standing(tmp_path / "marked")
    assert standing.whole(0)
    assert standing.whole(12)
    assert standing.stands_in(11)


@pytest.mark.parametrize("text", ["twelve", "12 x", "\x00"])
def test_a_damaged_file_is_one_line_and_proves_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "marked").write_text(text)
    with pytest.raises(SettingsError, match="remove the file"):
        Standing(tmp_path / "marked")
