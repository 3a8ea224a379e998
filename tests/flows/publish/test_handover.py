"""The handover: the flow waits for no reply of Redis, and what the publisher raises ends the flow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.redis.client import Client
from flows.errors import AudiopixelError, StateError
from flows.model.decisions import DecisionRecord
from flows.model.fields import FIELDS, empty
from flows.model.messages import Flush, PackedRow
from flows.model.ticks import Cut
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
    """Let Redis answer nobody for so long."""
    client.execute_command("CLIENT", "PAUSE", int(1000 * seconds), "ALL")


def test_the_flow_waits_for_redis_once_two_flushes_are_behind_and_no_sooner(
    flow: Flow, client: Client
) -> None:
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


def test_a_close_tries_again_for_what_redis_did_not_take(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    flow = Flow(settings_of(redis_timeout=0.3))
    client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")  # until it is told otherwise
    flow.flush(last=True)
    assert flow.handover._publisher.writer.backlog.waits
    client.execute_command("CLIENT", "UNPAUSE")
    flow.handover.close()
    assert shown(client, flow) == "1"


@pytest.mark.parametrize("finds_out", ["flush", "snapshot"])
def test_what_the_publisher_raises_ends_the_flow_and_nothing_is_written_behind_it(
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


def test_a_crash_behind_a_snapshot_loses_no_decision_that_redis_did_not_have_yet(
    flow: Flow, client: Client
) -> None:
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


def test_decisions_of_a_cut_that_readers_do_not_get_are_in_redis_and_in_no_snapshot(
    flow: Flow, client: Client
) -> None:
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


def test_decisions_that_redis_did_not_take_at_such_a_cut_go_with_the_next_one(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    flow = Flow(settings_of(redis_timeout=0.3))
    flow.flush(last=True)
    client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")  # until it is told otherwise
    flow.flush(decided("a"), last=True, publish=False)
    assert [len(some) for _, some in flow.handover.snapshot()[1]] == [1]
    client.execute_command("CLIENT", "UNPAUSE")
    deadline_s = time.monotonic() + 30
    while not orders(client, flow) and time.monotonic() < deadline_s:
        flow.flush(last=True, publish=False)
    assert orders(client, flow) == {"a"}
    assert flow.handover.snapshot()[1] == []
    flow.handover.close()


def test_an_execution_that_was_superseded_writes_no_decision(flow: Flow, client: Client) -> None:
    newer = Flow(flow.settings)
    with pytest.raises(AudiopixelError, match="another execution took over"):
        flow.flush(decided("a"), last=True, publish=False)
    assert orders(client, flow) == set()
    newer.handover.close()


def test_redis_that_is_emptied_between_two_flushes_gets_the_decisions_since(
    flow: Flow, client: Client
) -> None:
    client.flushall()
    flow.flush(decided("a"), last=True, publish=False)
    flow.flush(decided("b"), last=True)
    assert (orders(client, flow), shown(client, flow)) == ({"a", "b"}, "3")


@given(st.lists(st.integers(0, 5), max_size=12))
def test_of_the_decisions_of_an_outage_a_snapshot_keeps_the_newest(numbers: list[int]) -> None:
    class Away:
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
    assert kept == told[len(told) - len(kept) :]
    assert len(kept) <= 7
    assert len(kept) == len(told) or len(kept) > 7 - 5


def test_state_of_another_format_is_refused(settings_of: Callable[..., Settings]) -> None:
    for state in (1, (FORMAT_TO_COME, [])):
        publisher = Publisher(settings_of(), ["log"], True)
        publisher.open()
        with pytest.raises(StateError, match="writer's state of format"):
            Handover(publisher, state=state)
        publisher.close()


FORMAT_TO_COME = module.FORMAT + 1
