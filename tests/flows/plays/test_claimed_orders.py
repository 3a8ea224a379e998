"""Orders that a public tag and a server send: which is a repeat, which confirms, which is too late."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from connectors.stream import Messages
from flows.intake.decoder import Decoder
from flows.intake.split import Splitter
from flows.model.decisions import PendingConversion
from flows.model.messages import PixelOutcomes
from flows.model.pixel import TS, WATERMARK
from flows.model.plan import BROWSER, SERVER, From, Plan, PlanBook
from flows.model.ticks import Cut
from flows.plays.play_shard import PlayShard
from flows.state.saves import decode, encode

MINUTE, DAY = 60_000, 86_400_000
T0 = 1_764_000_000_000 // DAY * DAY
LATENESS, HORIZON = 10 * MINUTE, 60 * DAY
BOUND = 10_000
TAG, SHOP = "tag", "shop"


class Flow:
    """A partition and its only shard of plays; each call goes through a new decoder."""

    def __init__(self, setting: From = BROWSER, *plans: Plan) -> None:
        self.decoder = Decoder(b"sixteen secret b", True, conversions_from=setting)
        self.decoder.follow(PlanBook(plans))
        self.splitter = Splitter("f", 1, b"")
        self.plays = PlayShard(0, 1, LATENESS, 30 * MINUTE, HORIZON)
        self.waiting: list[PendingConversion] = []
        self.greatest_ms = self.cuts = 0

    def sends(self, who: str, at: int, order: str | None = "o-1", **more: Any) -> str:
        """The outcome of a conversion of a tag or of the shop's server."""
        line = {"event_id": "e", "event": "conversion", "ts": at, "campaign_id": "red"} | more
        bought = {"type": "purchase", "order_id": order, "claimed": who == TAG}
        values = [json.dumps(line | {"conversion": bought}).encode()]
        batch = self.decoder.decode(Messages(values, [at], at + 1, [0]))
        self.greatest_ms = max(self.greatest_ms, at)
        batch.pixels[:, TS], batch.pixels[:, WATERMARK] = at, max(0, self.greatest_ms - BOUND)
        (item,) = self.splitter.split(batch)
        if self.plays.apply(item):
            self.cut()
            return "too late"
        outcomes = self.cut()
        if not self.waiting:
            return "repeated" if outcomes.repeated else "invalid"
        (one,) = self.waiting
        return "counts" if one.claimed_ms is None else f"confirms, at {one.ts_ms - T0}"

    def cut(self) -> PixelOutcomes:
        self.cuts += 1
        _, (touches,), _, (outcomes,) = self.plays.cut(Cut(self.cuts, self.greatest_ms - BOUND, False, ()))
        self.waiting = touches.conversions
        return outcomes


def became(flow: Flow, *calls: tuple[str, int]) -> list[str]:
    return [flow.sends(who, T0 + at) for who, at in calls]


def test_an_orders_first_conversion_counts_and_a_server_confirms_it_once() -> None:
    flow = Flow()
    calls = [(TAG, 0), (TAG, 1), (SHOP, 5_000), (SHOP, 6_000), (TAG, 7_000)]
    assert became(flow, *calls) == ["counts", "repeated", "confirms, at 5000", "repeated", "repeated"]


def test_a_tag_behind_the_server_is_a_repeat() -> None:
    assert became(Flow(), (SHOP, 0), (TAG, 1), (SHOP, 2)) == ["counts", "repeated", "repeated"]


def test_a_confirmation_is_no_earlier_than_its_claim() -> None:
    assert became(Flow(), (TAG, 90_000), (SHOP, 3_000)) == ["counts", "confirms, at 90000"]


def test_a_late_confirmation_leaves_room_for_a_later_one() -> None:
    flow = Flow()
    late = T0 + 2 * HORIZON // 60
    assert became(flow, (TAG, 0)) == ["counts"]
    flow.greatest_ms = late
    assert flow.sends(SHOP, T0 + MINUTE) == "too late"
    assert flow.sends(SHOP, late) == f"confirms, at {late - T0}"
    assert flow.sends(SHOP, late - DAY) == "repeated", "as every known conversion, also of a final minute"


@pytest.mark.parametrize(
    ("behind", "what"),
    [
        (HORIZON, f"confirms, at {HORIZON}"),
        (HORIZON + 1, "repeated"),
        (HORIZON + BOUND, "repeated"),
        (HORIZON + BOUND + 1, "counts"),
    ],
)
def test_a_server_confirms_a_claim_up_to_the_horizon_behind_it(behind: int, what: str) -> None:
    """The order is known by the watermark for a little longer, as any is."""
    assert became(Flow(), (TAG, 0), (SHOP, behind)) == ["counts", what]


def test_a_confirmed_order_is_known_from_its_confirmation_on() -> None:
    flow = Flow()
    assert became(flow, (TAG, 0), (SHOP, 59 * DAY), (SHOP, 100 * DAY), (TAG, 118 * DAY)) == [
        "counts",
        f"confirms, at {59 * DAY}",
        "repeated",
        "repeated",
    ]


def test_a_claim_is_remembered_over_a_restart(tmp_path: Path) -> None:
    flow = Flow()
    assert became(flow, (TAG, 0)) == ["counts"]
    state = decode(encode(flow.plays.snapshot()))
    flow.plays = PlayShard(0, 1, LATENESS, 30 * MINUTE, HORIZON)
    flow.plays.restore(state)
    assert became(flow, (SHOP, DAY), (SHOP, DAY)) == [f"confirms, at {DAY}", "repeated"]


def test_a_tag_takes_no_order_if_only_servers_count() -> None:
    flow = Flow(SERVER)
    assert became(flow, (TAG, 0), (TAG, 1), (SHOP, 2), (SHOP, 3), (TAG, 4)) == [
        "counts",
        "repeated",
        "counts",
        "repeated",
        "repeated",
    ]
    assert became(Flow(SERVER), (SHOP, 0), (TAG, 1)) == ["counts", "counts"]


def test_a_claim_apart_says_so_and_is_in_no_account() -> None:
    for setting, apart in ((SERVER, True), (BROWSER, False)):
        flow = Flow(setting)
        flow.sends(TAG, T0)
        (one,) = flow.waiting
        assert (one.pixel.claimed, one.pixel.apart, one.accounted) == (True, apart, not apart)


def test_orders_without_an_id_go_by_their_event() -> None:
    flow = Flow()
    assert flow.sends(TAG, T0, None) == "counts"
    assert flow.sends(SHOP, T0 + 1, None) == "confirms, at 1"
    assert flow.sends(SHOP, T0 + 2, None, event_id="another") == "counts"


def test_invalid_traffic_confirms_nothing_and_is_confirmed_by_nothing() -> None:
    bot = {"user_agent": "a bot/1.0"}
    flow = Flow()
    assert flow.sends(TAG, T0, **bot) == "invalid"
    assert flow.sends(SHOP, T0, **bot) == "repeated", "of its own kind"
    assert flow.sends(SHOP, T0) == "counts"
    flow = Flow()
    assert (flow.sends(TAG, T0), flow.sends(SHOP, T0, **bot)) == ("counts", "invalid")
    assert flow.sends(SHOP, T0) == "confirms, at 0"


def plan(placement: str, campaign: str | None, said: From | None) -> Plan:
    return Plan(placement, 100, T0, T0 + DAY, campaign_id=campaign, conversions_from=said)


@pytest.mark.parametrize(
    ("setting", "plans", "order_is_taken"),
    [
        (BROWSER, [plan("a", "red", SERVER)], False),
        (SERVER, [plan("a", "red", BROWSER)], True),
        (BROWSER, [plan("a", "red", BROWSER), plan("b", "red", SERVER)], False),
        (SERVER, [plan("a", "red", SERVER), plan("b", "red", BROWSER)], False),
        (BROWSER, [plan("a", "red", None), plan("b", "red", None)], True),
        (SERVER, [plan("a", "red", None), plan("b", "blue", BROWSER)], False),
    ],
)
def test_plans_precede_the_setting_and_contradictions_prefer_servers(
    setting: From, plans: list[Plan], order_is_taken: bool
) -> None:
    flow = Flow(setting, *plans)
    flow.sends(TAG, T0)
    assert flow.sends(SHOP, T0) == ("confirms, at 0" if order_is_taken else "counts")


@pytest.mark.parametrize(("setting", "taken"), [(BROWSER, True), (SERVER, False)])
def test_a_conversion_without_a_campaign_goes_by_the_setting(setting: From, taken: bool) -> None:
    flow = Flow(setting, plan("a", "red", SERVER if taken else BROWSER))
    flow.sends(TAG, T0, campaign_id=None)
    assert flow.sends(SHOP, T0, campaign_id=None) == ("confirms, at 0" if taken else "counts")


def test_a_taken_order_stays_taken_under_changed_plans() -> None:
    flow = Flow()
    flow.sends(TAG, T0)
    flow.decoder.follow(PlanBook([plan("a", "red", SERVER)]))
    assert flow.sends(SHOP, T0) == "confirms, at 0", "its conversion counts already"
