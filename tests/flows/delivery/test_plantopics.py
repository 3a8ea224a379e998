"""Topics of plans: accepted messages, reports, the last good plan in force, one reader per process."""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from command_support import run_command
from confluent_kafka import Producer

from connectors.embedded import EmbeddedBroker
from connectors.kafka.table import Change, KafkaTable
from connectors.stream import ConnectError
from flows.delivery import plan_topics
from flows.delivery.plan_columns import plan_of
from flows.delivery.plan_files import read_plans
from flows.delivery.plan_source import open_plans, read_book
from flows.delivery.plan_topics import Entries, PlanTopic, Refusal, TopicFeed, plan_topic
from flows.errors import SettingsError
from flows.model.plan import Plan
from flows.settings.fields import Settings, Topic
from flows.settings.loading import load


def plan(name: str, booked: Any = 1000, **more: Any) -> dict[str, Any]:
    times = {"start": "2026-11-02T00:00Z", "end": "2026-11-03T00:00Z"}
    return {"placement_id": name, "booked": booked, **times, **more}


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as server:
        yield server


class Plans:
    """A topic of plans on a broker, and a feed of it."""

    def __init__(self, broker: EmbeddedBroker, partitions: int = 1) -> None:
        self.broker, self.topic = broker, f"plans-{uuid.uuid4().hex[:8]}"
        broker.create_topic(self.topic, partitions)

    def put(self, *messages: tuple[str | None, Any], partition: int = 0) -> None:
        """Messages as (key, value): a plan, a text as it is, or None."""
        producer = Producer({"bootstrap.servers": self.broker.bootstrap, "log_level": 0})
        for key, value in messages:
            text = value if value is None or isinstance(value, str) else json.dumps(value)
            producer.produce(self.topic, text, key, partition)
            assert producer.flush(10) == 0

    def follow(self) -> TopicFeed:
        self.feed = TopicFeed(self.topic, lambda: KafkaTable(self.broker.bootstrap, self.topic))
        self.view = PlanTopic(self.feed)
        assert self.feed.ready.wait(10)
        return self.feed

    def told(self) -> list[str]:
        return [str(one).replace(self.topic, "T") for one in self.view.refresh(0)]

    def booked(self) -> dict[str, int]:
        self.view.refresh(0)
        return {name: plan.booked for name, plan in sorted(self.view.book.items())}


@pytest.fixture
def plans(broker: EmbeddedBroker) -> Iterator[Plans]:
    plans = Plans(broker, 2)
    yield plans
    if hasattr(plans, "feed"):  # a test that failed before has started none
        plans.feed.close()


def eventually(holds: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"did not come true within {seconds:g} s"
        time.sleep(0.05)


# What messages make


def change(offset: int, key: str | None, value: Any, partition: int = 0, timestamp_ms: int = 0) -> Change:
    body = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
    return Change(partition, offset, timestamp_ms, None if key is None else key.encode(), body)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("a", plan("a", "many"), "T/0, offset 7: a: booked: takes impressions"),
        ("a", plan("b"), "T/0, offset 7: a: placement_id: 'b' is not the message's key"),
        ("a", b"", "T/0, offset 7: a: is empty: takes a plan, or a tombstone"),
        ("a", b"{", "T/0, offset 7: a: not JSON"),
        ("a", b"\xff", "T/0, offset 7: a: not JSON"),
        ("a", [plan("a")], "T/0, offset 7: a: takes a JSON object"),
        ("a", b'{"cpm":1e9999999999999999999}', "T/0, offset 7: a: "),
        ("a", plan("a", campaign_id="\ud800"), "T/0, offset 7: a: campaign_id: takes a text"),
        (None, plan("a"), "T/0, offset 7: has no key: takes the placement_id"),
    ],
)
def test_a_bad_message_is_reported_and_the_last_good_plan_stays(
    key: str | None, value: Any, said: str
) -> None:
    entries = Entries("T")
    assert entries.take(change(6, "a", plan("a"))) == []
    (refusal,) = entries.take(change(7, key, value))
    assert str(refusal).startswith(said)
    assert key is None or str(refusal).endswith("the plan read last stays in force")
    assert (refusal.partition, refusal.offset) == (0, 7)
    assert entries.book()["a"].booked == 1000


def test_a_plan_with_an_unknown_name_counts_with_a_report() -> None:
    entries = Entries("T")
    (refusal,) = entries.take(change(0, "a", plan("a", pause="x")))
    assert str(refusal) == "T/0, offset 0: a: pause: no such name, ignored"
    assert list(entries.book()) == ["a"]


def test_the_latest_message_of_several_partitions_counts() -> None:
    old = [change(0, "a", plan("a", 1), 0, 10), change(1, "b", plan("b", 1), 0, 30)]
    new = [
        change(0, "a", plan("a", 2), 1, 20),
        change(1, "b", None, 1, 40),
        change(2, "c", plan("c", 2), 1, 50),
    ]
    books = []
    for changes in (old + new, new + old):
        entries = Entries("T")
        for one in changes:
            assert entries.take(one) == []
        books.append(entries.book())
    assert [{name: plan.booked for name, plan in book.items()} for book in books] == [{"a": 2, "c": 2}] * 2
    assert books[0].version == books[1].version


# Followed


def test_a_plan_appears_changes_and_is_removed_by_a_tombstone(plans: Plans) -> None:
    plans.put(("a", plan("a", 1)), ("a", plan("a", 2)))
    plans.put(("b", plan("b", 3)), partition=1)
    plans.follow()
    assert plans.booked() == {"a": 2, "b": 3}
    first = plans.view.book.version

    plans.put(("c", plan("c", 4)), ("a", plan("a", 5)))
    eventually(lambda: plans.booked() == {"a": 5, "b": 3, "c": 4})
    assert plans.view.book.version != first

    plans.put(("c", None), ("a", plan("a", 2)))
    eventually(lambda: plans.booked() == {"a": 2, "b": 3})
    assert plans.view.book.version == first
    assert plans.told() == []


def test_a_bad_message_is_reported_once_to_every_view(plans: Plans) -> None:
    plans.put(("a", plan("a")))
    plans.follow()
    other = PlanTopic(plans.feed)
    plans.put(("a", plan("a", -1)), ("b", plan("b")))
    eventually(lambda: plans.booked() == {"a": 1000, "b": 1000} or plans.told())
    told = [str(one) for one in other.refresh(0)]
    assert [line.split(":")[0] for line in told] == [f"{plans.topic}/0, offset 1"]
    assert "a: booked: takes impressions" in told[0]
    assert other.refresh(0) == []
    assert plans.feed.book["a"].booked == 1000


def test_a_message_corrected_later_is_not_reported_at_the_start(plans: Plans) -> None:
    plans.put(("a", "nonsense"), ("a", plan("a")), ("b", plan("b")), ("b", "nonsense"), ("c", "nonsense"))
    plans.follow()
    assert [line.split(": ")[:2] for line in plans.told()] == [
        ["T/0, offset 3", "b"], ["T/0, offset 4", "c"],
    ]  # fmt: skip
    assert plans.booked() == {"a": 1000, "b": 1000}


@pytest.mark.parametrize("gathered", [1, 50, plan_topics.MAX_GATHERED])
def test_few_of_many_repeated_plans_are_parsed_at_the_start(
    plans: Plans, monkeypatch: pytest.MonkeyPatch, gathered: int
) -> None:
    monkeypatch.setattr(plan_topics, "MAX_GATHERED", gathered)
    read: list[str] = []

    def counted(columns: Mapping[str, Any]) -> Plan:
        read.append(columns["placement_id"])
        return plan_of(columns)

    monkeypatch.setattr(plan_topics, "plan_of", counted)
    plans.put(*((name, plan(name, booked)) for booked in range(1, 101) for name in ("a", "b")))
    plans.put(("a", "nonsense"), *(("b", plan("b", -1)) for _ in range(20)), ("c", plan("c")), ("c", None))
    plans.follow()
    told: list[str] = []
    eventually(lambda: told.extend(plans.told()) or told)
    assert [line.split(": ")[:2] for line in told] == [
        ["T/0, offset 200", "a"], ["T/0, offset 220", "b"],
    ]  # fmt: skip
    assert plans.booked() == {"a": 100, "b": 100}
    assert len(read) < 60


def test_an_equivalent_book_is_the_same_object(plans: Plans) -> None:
    plans.put(("a", plan("a")))
    before = plans.follow().book
    plans.put(("a", plan("a")), ("z", plan("z")), ("z", None), ("n", "nonsense"))
    eventually(plans.told)
    assert plans.feed.book.version == before.version


def test_the_book_outlives_an_outage_of_kafka_reported_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan_topics, "OUTAGE_S", 0.5)
    with EmbeddedBroker() as broker:
        plans = Plans(broker)
        plans.put(("a", plan("a")), ("b", plan("b")))
        feed = plans.follow()
        broker.kill()
        told: list[str] = []
        eventually(lambda: told.extend(plans.told()) or told)
        time.sleep(3)
        told += plans.told()
        assert len(told) == 1
        assert told[0].startswith(f"T: Kafka at {broker.bootstrap}")
        assert told[0].endswith("the plans read last stay in force")
        assert plans.booked() == {"a": 1000, "b": 1000}

        broker.start()  # it has forgotten its topics
        broker.create_topic(plans.topic, 1)
        plans.put(("c", plan("c")), ("b", "nonsense"))
        eventually(lambda: "c" in plans.booked(), 40)
        assert plans.booked() == {"b": 1000, "c": 1000}
        feed.close()


def test_a_file_and_its_topic_are_the_same_book(plans: Plans, tmp_path: Path) -> None:
    example = Path(__file__).parents[3] / "docs" / "plans.example.csv"
    environment = {**os.environ, "AUDIOPIXEL_KAFKA_BROKERS": plans.broker.bootstrap}
    command = ("plans", str(example), "--to", f"kafka:{plans.topic}")
    done = run_command(*command, directory=tmp_path, environment=environment, into=tmp_path)
    assert done.returncode == 0
    unchecked, put = done.stderr.splitlines()
    assert unchecked.startswith("the moments of balances are not checked: "), "no Redis is there"
    assert put == f"4 plans put into kafka:{plans.topic}"
    plans.follow()
    assert plans.feed.book.version == read_plans(example)[0].version
    assert plans.told() == []


def test_of_a_file_with_a_wrong_row_nothing_is_put(plans: Plans, tmp_path: Path) -> None:
    wrong = tmp_path / "plans.json"
    wrong.write_text(json.dumps([plan("a"), plan("b", 0)]))
    environment = {**os.environ, "AUDIOPIXEL_KAFKA_BROKERS": plans.broker.bootstrap}
    command = ("plans", str(wrong), "--to", plans.topic)
    done = run_command(*command, directory=tmp_path, environment=environment, into=tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith(f"{wrong}:1: booked: takes impressions")
    plans.follow()
    assert plans.booked() == {}


# Settings, and one reader a process


def test_a_source_of_plans_is_a_path_or_a_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIOPIXEL_PLANS", "kafka:audio-plans")
    settings = load()
    assert isinstance(settings.plans, Topic)
    assert (str(settings.plans), settings.plans.name) == ("kafka:audio-plans", "audio-plans")
    monkeypatch.setenv("AUDIOPIXEL_PLANS", "./kafka:x.csv")
    assert load().plans == Path("./kafka:x.csv")
    monkeypatch.setenv("AUDIOPIXEL_PLANS", "kafka:")
    with pytest.raises(SettingsError, match=r"AUDIOPIXEL_PLANS .* takes a file, or kafka:TOPIC"):
        load()


def settings_on(broker: EmbeddedBroker, topic: str) -> Settings:
    return load(kafka_brokers=broker.bootstrap, plans=f"kafka:{topic}")


def test_all_followers_of_a_process_share_one_reader(broker: EmbeddedBroker) -> None:
    plans = Plans(broker, 2)
    plans.put(("a", plan("a")), ("b", "nonsense"))
    settings = settings_on(broker, plans.topic)
    readers = [one for one in threading.enumerate() if one.name == "plans"]
    views: list[Any] = []
    askers = [threading.Thread(target=lambda: views.append(open_plans(settings))) for _ in range(16)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    more = [one for one in threading.enumerate() if one.name == "plans" and one not in readers]
    assert len(more) == 1
    assert {tuple(view.book) for view in views} == {("a",)}
    assert {len(view.refresh(0)) for view in views} == {1}
    assert list(read_book(settings)) == ["a"]


def test_a_missing_topic_is_one_clear_error(broker: EmbeddedBroker) -> None:
    with pytest.raises(ConnectError, match=rf"Kafka at {broker.bootstrap}, no-plans: .*[Uu]nknown topic"):
        open_plans(settings_on(broker, "no-plans"))
    with pytest.raises(ConnectError, match="no-plans"):
        plan_topic(broker.bootstrap, "no-plans", {}, "audiopixel")


def test_an_error_of_the_whole_topic_has_no_position() -> None:
    assert str(Refusal("T", None, None, None, "is away")) == "T: is away"
