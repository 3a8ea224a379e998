"""The handover: the flow waits for no reply of Redis, and what the publisher raises ends the flow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.redis.client import Client, RedisUnavailable
from flows.errors import AudiopixelError, StateError
from flows.model.decisions import DecisionRecord
from flows.model.fields import FIELDS, empty
from flows.model.messages import Flush, PackedRow
from flows.model.ticks import Cut
from flows.publish import decided as decided_module
from flows.publish import handover as module
from flows.publish.handover import MAX_BEHIND, Handover
from flows.publish.layout import LAYOUTS
from flows.publish.publisher import Publisher
from flows.settings.fields import Settings

T0 = 1_790_000_000_000
PAUSE_S = 1.5
"""Far more than a flush takes, on a loaded machine too."""


class Flow:
    """The flow's side: it hands over cuts, each with one row that has the cut's number."""

    def __init__(self, settings: Settings, state: object = None, number: int = 0) -> None:
        self.settings, self.number = settings, number
        publisher = Publisher(settings, ["log"], state is not None)
        publisher.open()
        self.handover = Handover(publisher, state=state)

    def flush(self, *decisions: DecisionRecord, last: bool = False, publish: bool = True) -> float:
        """Hand over a cut; returns for how long the flow waited."""
        self.number += 1
        values = empty(T0)
        values[FIELDS.index("flight.impressions")] = self.number
        row = PackedRow("placement", "p", T0, LAYOUTS["row"].pack(values))
        cut = Cut(self.number, T0, False, (("log", self.number),), publish=publish)
        began_s = time.monotonic()
        self.handover.flush(cut, [Flush(0, cut, [row], decisions=decisions)], last)
        return time.monotonic() - began_s


def decided(name: str) -> DecisionRecord:
    return DecisionRecord(name.encode(), [f"order-{name}"], b'{"of":"%s"}' % name.encode())


@pytest.fixture
def flow(settings_of: Callable[..., Settings]) -> Iterator[Flow]:
    flow = Flow(settings_of())
    flow.flush(last=True)
    yield flow
    flow.handover.close()


def shown(client: Client, flow: Flow) -> str | None:
    return client.hget(f"{flow.settings.namespace}:placement:{{p}}", "flight.impressions")


def orders(client: Client, flow: Flow) -> set[str]:
    found = client.keys(f"{flow.settings.namespace}:conversion:*")
    return {key.partition("{order-")[2][:-1] for key in found}


def held_up(client: Client, seconds: float = PAUSE_S) -> None:
    """Let Redis answer no client for so long."""
    client.execute_command("CLIENT", "PAUSE", int(1000 * seconds), "ALL")


def test_the_flow_waits_for_redis_only_with_two_pending_flushes(flow: Flow, client: Client) -> None:
    held_up(client)
    waited = [flow.flush() for _ in range(MAX_BEHIND + 1)]
    assert max(waited[:MAX_BEHIND]) < PAUSE_S / 2 < waited[MAX_BEHIND]
    flow.flush(last=True)
    assert shown(client, flow) == str(MAX_BEHIND + 3)


def test_an_end_waits_until_all_is_written(flow: Flow, client: Client) -> None:
    held_up(client)
    flow.flush()
    assert flow.flush(last=True) > PAUSE_S / 2
    assert shown(client, flow) == "3"


def test_a_close_waits_until_all_is_written(flow: Flow, client: Client) -> None:
    held_up(client)
    flow.flush()
    flow.flush()
    flow.handover.close()
    assert shown(client, flow) == "3"


def test_a_close_retries_decisions_refused_by_redis(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    flow = Flow(settings_of(redis_timeout=0.3))
    client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")  # until UNPAUSE
    flow.flush(last=True)
    assert flow.handover._publisher.writer.backlog.waits
    client.execute_command("CLIENT", "UNPAUSE")
    flow.handover.close()
    assert shown(client, flow) == "1"


@pytest.mark.parametrize("finds_out", ["flush", "snapshot"])
def test_a_publishers_error_ends_the_flow_without_further_writes(
    flow: Flow, client: Client, finds_out: str
) -> None:
    newer = Flow(flow.settings)
    newer.number = 10
    newer.flush(last=True)
    flow.number = 20
    held_up(client, 0.2)
    flow.flush()
    flow.flush()
    time.sleep(0.2)

    def go_on() -> None:
        deadline_s = time.monotonic() + 30
        while time.monotonic() < deadline_s:
            flow.flush() if finds_out == "flush" else flow.handover.snapshot()

    with pytest.raises(AudiopixelError, match="another execution took over"):
        go_on()
    flow.handover.close()
    assert shown(client, flow) == "11"
    newer.handover.close()


def test_a_crash_after_a_snapshot_loses_no_pending_decision(flow: Flow, client: Client) -> None:
    flow.flush(decided("a"), last=True)
    held_up(client)
    flow.flush(decided("b"), decided("c"))
    state = flow.handover.snapshot()
    assert [one[0] for _, some in state[1] for one in some] == [b"b", b"c"], (
        "those that are there are not kept"
    )
    flow.handover.close()
    client.delete(*(f"{flow.settings.namespace}:conversion:{{order-{one}}}" for one in "bc"))  # as if it died

    again = Flow(flow.settings, state, flow.number)
    again.flush(last=True)
    assert orders(client, flow) == {"a", "b", "c"}
    assert again.handover.snapshot()[1] == []
    again.handover.close()


def test_decisions_of_unpublished_cuts_are_in_redis_not_in_snapshots(flow: Flow, client: Client) -> None:
    flow.flush(decided("a"), decided("b"), last=True, publish=False)
    assert orders(client, flow) == {"a", "b"}
    assert shown(client, flow) == "1"
    flow.flush(last=True, publish=False)
    assert flow.handover.snapshot()[1] == []
    held_up(client)
    flow.flush(decided("c"), publish=False)
    assert [one[0] for _, some in flow.handover.snapshot()[1] for one in some] == [b"c"]
    flow.flush(last=True)
    assert (orders(client, flow), shown(client, flow)) == ({"a", "b", "c"}, "5")


def test_decisions_refused_at_an_unpublished_cut_join_the_next_flush(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    flow = Flow(settings_of(redis_timeout=0.3))
    flow.flush(last=True)
    client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")  # until UNPAUSE
    flow.flush(decided("a"), last=True, publish=False)
    assert [len(some) for _, some in flow.handover.snapshot()[1]] == [1]
    client.execute_command("CLIENT", "UNPAUSE")
    flow.flush(last=True)
    assert orders(client, flow) == {"a"}
    assert flow.handover.snapshot()[1] == []
    flow.handover.close()


def test_a_save_waits_for_redis_with_too_many_decisions(
    flow: Flow, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_SAVED", 7)
    every = [decided(str(number)) for number in range(20)]
    held_up(client)
    flow.flush(*every[:10], publish=False)
    flow.flush(*every[10:], publish=False)
    state = flow.handover.snapshot()
    assert [one[0] for _, some in state[1] for one in some] == [one.key for one in every[-7:]]
    began_s = time.monotonic()
    flow.handover.settle()
    assert time.monotonic() - began_s > PAUSE_S / 2
    assert orders(client, flow) == {str(number) for number in range(20)}


def test_a_save_fails_if_its_awaited_writes_are_impossible(
    flow: Flow, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_SAVED", 7)
    held_up(client)
    flow.flush(*[decided(str(number)) for number in range(20)], publish=False)
    flow.handover.snapshot()
    monkeypatch.setattr(decided_module, "AT_ONCE", 5)
    positions = f"{flow.settings.namespace}:positions"
    monkeypatch.setattr(decided_module, "put_shared", lambda *_: client.hset(positions, "fence", 2))
    with pytest.raises(AudiopixelError, match="another execution took over"):
        flow.handover.settle()


def test_a_save_does_not_wait_for_an_unavailable_redis(
    settings_of: Callable[..., Settings], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_SAVED", 7)
    flow = Flow(settings_of(redis_timeout=0.3))
    client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
    flow.flush(*[decided(str(number)) for number in range(20)])
    assert len(flow.handover.snapshot()[1][0][1]) == 7
    flow.handover.settle()
    assert orders(client, flow) == set()
    client.execute_command("CLIENT", "UNPAUSE")
    flow.handover.close()
    assert len(orders(client, flow)) == 20


def test_a_failure_at_an_unpublished_cut_does_not_delay_the_next_flush(
    flow: Flow, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object) -> None:
        raise RedisUnavailable("timeout", "for a moment")

    with monkeypatch.context() as patched:
        patched.setattr(decided_module, "put_shared", down)
        for name in "abcdefgh":  # a pause would be of ten seconds
            flow.flush(decided(name), last=True, publish=False)
    assert orders(client, flow) == set()
    flow.flush(decided("i"), last=True)
    assert (orders(client, flow), shown(client, flow)) == (set("abcdefghi"), "10")


@pytest.mark.parametrize("newer", [{"fence": 2}, {"generation": 2, "fence": 0}])
def test_a_superseded_execution_writes_no_decision(flow: Flow, client: Client, newer: dict[str, int]) -> None:
    client.hset(f"{flow.settings.namespace}:positions", mapping=newer)
    with pytest.raises(AudiopixelError, match="another execution took over"):
        flow.flush(decided("a"), last=True, publish=False)
    assert orders(client, flow) == set()


def test_decisions_are_written_in_parts_until_a_newer_execution_is_seen(
    flow: Flow, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = decided_module.put_shared

    def and_superseded(*some: Any) -> None:
        put(*some)
        client.hset(f"{flow.settings.namespace}:positions", "fence", 2)

    monkeypatch.setattr(decided_module, "AT_ONCE", 2)
    monkeypatch.setattr(decided_module, "put_shared", and_superseded)
    with pytest.raises(AudiopixelError, match="another execution took over"):
        flow.flush(*map(decided, "abcde"), last=True, publish=False)
    assert orders(client, flow) == {"a", "b"}


def test_an_emptied_redis_gets_the_decisions_since_the_last_flush(flow: Flow, client: Client) -> None:
    client.flushall()
    flow.flush(decided("a"), last=True, publish=False)
    flow.flush(decided("b"), last=True)
    assert (orders(client, flow), shown(client, flow)) == ({"a", "b"}, "3")


def test_only_the_newest_sketch_of_a_living_row_is_kept(flow: Flow, client: Client) -> None:
    def cut(publish: bool, sketches: dict[str, str], *ended: tuple[str, str]) -> None:
        flow.number += 1
        here = Cut(flow.number, T0, False, (("log", flow.number),), publish=publish)
        part = Flush(0, here, sketches=[*sketches.items()], ended=ended)
        flow.handover.flush(here, [part], last=True)

    def sketches() -> dict[str, str | None]:
        found = client.keys(f"{flow.settings.namespace}:sketch:*")
        return {key.partition("{")[2][:-1]: client.hget(key, "registers") for key in found}

    cut(False, {"p": "1", "q": "1", "r": "1"})
    cut(False, {"p": "2"}, ("placement", "q"), ("campaign", "p"))
    publisher = flow.handover._publisher
    assert {name: registers for name, (_, registers) in publisher._sketches.items()} == {"p": "2", "r": "1"}
    assert not any(flush.sketches for _, flush in publisher._held_flushes)
    cut(True, {"r": "3"})
    assert sketches() == {"p": "2", "r": "3"}
    cut(False, {}, ("placement", "p"))
    cut(False, {"p": "4"})
    cut(True, {})
    assert sketches() == {"p": "4", "r": "3"}


@given(st.lists(st.integers(0, 5), max_size=12))
def test_of_the_decisions_of_an_outage_a_snapshot_keeps_the_newest(numbers: list[int]) -> None:
    class Away:
        takes = False
        pacer = None

        class writer:
            decided = -1

        def flush(self, *_: object) -> None:
            pass

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "MAX_SAVED", 7)
        handover = Handover(Away(), in_line=True)  # type: ignore[arg-type]  # never served
        told = []
        for number, some in enumerate(numbers):
            records = [decided(f"{number}-{one}") for one in range(some)]
            told += records
            cut = Cut(number, T0, False, ())
            handover.flush(cut, [Flush(0, cut, decisions=records)])
        kept = [DecisionRecord(*one) for _, some in handover.snapshot()[1] for one in some]
        handover.settle()
    assert kept == told[-7:]


def test_state_of_another_format_is_refused(settings_of: Callable[..., Settings]) -> None:
    for state in (1, (FORMAT_TO_COME, [])):
        publisher = Publisher(settings_of(), ["log"], True)
        publisher.open()
        with pytest.raises(StateError, match="writer's state of format"):
            Handover(publisher, state=state)
        publisher.close()


FORMAT_TO_COME = module.FORMAT + 1
