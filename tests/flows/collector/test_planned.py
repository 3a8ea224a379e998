"""Plans say who may make a row: the collector follows them as they change."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from collector_support import SECRET, call, token, understanding, usual
from door_support import Collector, calling, new_topic, until
from store_support import World

from connectors.embedded import EmbeddedBroker
from flows.collector.call import Outcome
from flows.collector.callers import Callers
from flows.collector.doors import Doors
from flows.collector.from_settings import understanding_of
from flows.collector.ledger import Ledger
from flows.collector.planned import Planned
from flows.collector.serve import RESTS
from flows.collector.signatures import Signatures
from flows.errors import SettingsError
from flows.settings import load

HEAD = "placement_id,campaign_id,booked,start,end\n"


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


def plan(path: Path, *placements: str) -> None:
    rows = [f"{name},spring,1000,2026-11-01T00:00Z,2027-11-01T00:00Z\n" for name in placements]
    new = path.with_suffix(".new")
    new.write_text(HEAD + "".join(rows))
    os.replace(new, path)


def test_planned_placements_and_conversions_of_planned_campaigns_pass() -> None:
    books = iter([[("a", "spring"), ("b", None)], None, [("c", "autumn")]])
    planned = Planned(lambda: next(books))
    assert not planned("a", None)
    for _ in range(2):
        planned.refresh()
        assert [planned(name, None) for name in "abc"] == [True, True, False]
        assert (planned(None, "spring"), planned(None, "autumn"), planned(None, None)) == (True, False, False)
    planned.refresh()
    assert (planned("a", "spring"), planned("c", None)) == (False, True)


def test_a_planned_placements_campaign_must_be_planned() -> None:
    planned = Planned(lambda: [("a", "spring"), ("b", None), ("c", "autumn")])
    planned.refresh()
    pairs = [(placement, campaign) for placement in "ab" for campaign in ("spring", "autumn", "evil")]
    assert [pair for pair in pairs if planned(*pair)] == [("a", "spring"), ("b", "spring"), ("b", "autumn")]
    door = understanding(placements="planned", planned=planned)
    refused = door.pixel(call(usual(pl="a", cm="evil")))
    assert (refused.reason, refused.wrong) == ("unsigned", "campaign_id")
    assert door.pixel(call(usual(pl="evil", cm="spring"))).wrong == "placement_id"
    assert door.pixel(call(usual(pl="a", cm="spring"))).outcome is Outcome.STORED


def test_a_token_of_some_campaigns_writes_into_no_placement_of_another() -> None:
    planned = Planned(lambda: [("a", "spring"), ("b", None), ("theirs", "autumn")])
    planned.refresh()
    write = frozenset({"write"})
    callers = Callers(
        {"some": token(rights=write, campaigns=frozenset({"spring"})), "all": token(rights=write)}
    )
    signatures = Signatures({"a1": b"a signing key"})
    door = understanding(placements="planned", planned=planned, callers=callers, signatures=signatures)

    def outcome_of(name: str, **parameters: str) -> tuple[str, str]:
        headers = {"authorization": f"Bearer {name}.{SECRET}"}
        understood = door.pixel(call(usual(**parameters), headers=headers))
        (again,) = door.events(
            call(headers=headers, method="POST"),
            [{"event": "start", "placement_id": parameters["pl"], "campaign_id": parameters["cm"]}],
        )
        if "k" not in parameters:
            assert (again.reason, again.wrong) == (understood.reason, understood.wrong)
        return understood.reason, understood.wrong

    for placement, wrong in (("a", ""), ("b", ""), ("theirs", "campaign_id"), ("nobodys", "placement_id")):
        assert outcome_of("some", pl=placement, cm="spring") == ("unsigned" if wrong else "", wrong)
        assert outcome_of("all", pl=placement, cm="spring") == ("", "")
    assert outcome_of("some", pl="theirs", cm="autumn") == ("unsigned", "campaign_id")
    assert outcome_of("some", pl="new", cm="spring", k=signatures.of_tag("new", "spring")) == ("", "")
    assert outcome_of("some", pl="theirs", cm="spring", k="a1.forged") == ("unsigned", "campaign_id")


def test_a_campaigns_token_sends_its_conversions_before_a_plan() -> None:
    some = token(rights=frozenset({"write"}), campaigns=frozenset({"spring"}))
    door = understanding(placements="planned", callers=Callers({"some": some}))
    asked = {"e": "conversion", "ct": "purchase", "cm": "spring"}
    headers = {"authorization": f"Bearer some.{SECRET}"}
    assert door.pixel(call(asked, headers=headers)).outcome is Outcome.STORED
    assert door.pixel(call(asked | {"pl": "theirs"}, headers=headers)).wrong == "placement_id"


def test_without_plans_nothing_could_pass_and_it_is_said() -> None:
    settings = load(collect_key="a key of the edge for tests", collect_placements="planned")
    with pytest.raises(SettingsError, match="there are no plans"):
        understanding_of(settings)


@contextmanager
def planned_collector(broker: EmbeddedBroker, directory: Path) -> Iterator[tuple[Collector, Path]]:
    """A collector that takes what is planned, and its file of plans, which is not there yet."""
    plans = directory / "plans.csv"
    more = {"collect_placements": "planned", "plans": plans}
    with Collector(directory / "spool", broker.bootstrap, new_topic(broker), **more) as collector:
        yield collector, plans


def test_a_collector_accepts_planned_placements_and_follows_the_file(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    with planned_collector(broker, tmp_path) as (collector, plans):
        plan(plans, "breakfast-uk")
        collector.start()
        with calling(collector.port) as fire:
            assert fire("one", pl="breakfast-uk") == 200
            assert fire("two", pl="evening-uk") == 200
            plan(plans, "breakfast-uk", "evening-uk", "night-uk")
            sent = 2

            def stored() -> bool:
                nonlocal sent
                sent += 1
                assert fire(f"n{sent}", pl="night-uk") == 200
                return b'outcome="stored"} 2' in collector.reads("/metrics")

            until(stored, 30.0)
        assert collector.end() == 0
    ledger = collector.ledger()
    assert (ledger["calls"], ledger["stored"], ledger["rejected"]) == (sent, 2, sent - 2)


def test_only_calls_that_need_plans_are_refused_without_them() -> None:
    planned, told = Planned(lambda: [("a", "spring")]), list[Outcome]()
    callers = Callers({"host": token(rights=frozenset({"write"}))})

    async def answers(world: World) -> list[int]:
        doors = Doors(
            understanding(placements="planned", planned=planned, callers=callers),
            world.store,
            lambda understood: told.extend(one.outcome for one in understood),
            undecided=lambda: not planned.has_read,
        )
        bearer = {"authorization": f"Bearer host.{SECRET}"}
        click = usual(pl="a", cm="spring", u="https://shop.example/")
        calls = [
            call(usual(pl="a", cm="spring")),
            call(usual(pl="a", cm="spring"), headers=bearer),
            call(usual(pl="a", e="nothing")),
            call(click, path="/c"),
            call(usual(u="https://evil.example/"), path="/c"),
        ]
        return [(await doors.answer(one)).status for one in calls]

    async def test(directory: Path) -> tuple[list[int], list[int], Ledger]:
        world = World(directory)
        before = await answers(world)
        planned.refresh()
        after = await answers(world)
        await world.lane.close()
        return before, after, world.ledger

    with TemporaryDirectory() as directory:
        before, after, ledger = asyncio.run(test(Path(directory)))
    assert (before, after) == ([503, 200, 200, 302, 400], [200, 200, 200, 302, 400])
    assert (ledger.refused_by, ledger.stored, ledger.rejected) == ({"plans": 2}, 4, 4)
    assert (told.count(Outcome.STORED), told.count(Outcome.REJECTED)) == (4, 4)


def test_a_collector_without_plans_is_unready_and_refuses(broker: EmbeddedBroker, tmp_path: Path) -> None:
    with planned_collector(broker, tmp_path) as (collector, plans):
        collector.start(ready=False)
        with calling(collector.port) as fire:
            assert (fire("one", pl="breakfast-uk"), collector.looks("/ready")) == (503, 503)
            plan(plans, "breakfast-uk")
            until(lambda: fire("two", pl="breakfast-uk") == 200, 40.0)
        until(lambda: collector.looks("/ready") == 200)
        assert collector.end() == 0
    ledger = collector.ledger()
    assert (ledger["stored"], ledger["rejected"]) == (1, 0)
    assert "plans.csv: cannot be read: No such file or directory" in collector.said
    assert "no plans yet: unready, and 503" in collector.said


def test_a_collector_starts_with_the_last_plans_without_their_file(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    with planned_collector(broker, tmp_path) as (collector, plans):
        plan(plans, "breakfast-uk")
        collector.start()
        collector.kill()
        plans.unlink()
        collector.start()
        with calling(collector.port) as fire:
            assert [fire("one", pl="breakfast-uk"), fire("two", pl="evening-uk")] == [200, 200]
        assert collector.end() == 0
    ledger = collector.ledger()
    assert (ledger["stored"], ledger["rejected"]) == (1, 1)
    assert "plan not taken" in collector.said


def test_a_known_collector_starts_without_kafka_with_its_last_plans(tmp_path: Path) -> None:
    directory = tmp_path / "spool" / "0"
    directory.mkdir(parents=True)
    (directory / "id").write_text("0123456789abcdef")
    (directory / "marked").touch()
    (directory / "plans").write_text('[["breakfast-uk", "spring"]]')
    more = {"collect_placements": "planned", "plans": "kafka:plans"}
    with Collector(tmp_path / "spool", "127.0.0.1:1", "nowhere", **more) as collector:
        collector.start()
        with calling(collector.port) as fire:
            assert [fire("one", pl="breakfast-uk"), fire("two", pl="evening-uk")] == [200, 200]
        assert collector.end() == RESTS
    ledger = collector.ledger()
    assert (ledger["stored"], ledger["rejected"], ledger["resting"]) == (1, 1, 1)


@pytest.mark.parametrize("kept", [b"", b"{}", b'[["a"]]', b"\xff"])
def test_damaged_stored_plans_are_absent(kept: bytes, tmp_path: Path) -> None:
    (tmp_path / "plans").write_bytes(kept)
    books = iter([None, [("a", None)]])
    planned = Planned(lambda: next(books))

    async def begin() -> None:
        keeping = asyncio.create_task(planned.keep())
        await planned.begin(tmp_path)
        keeping.cancel()

    asyncio.run(begin())
    assert not planned.has_read
    planned.refresh()
    assert planned("a", None)
    assert (tmp_path / "plans").read_bytes() == b'[["a",null]]'
