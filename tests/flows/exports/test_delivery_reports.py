"""AdCP's delivery reports: at their time, in their order, valid, and the same to the byte when repeated."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from adcp_support import validator
from command_support import Command
from export_support import NOW_MS, Site, put_campaign, until
from page_support import JUDGED, unjudged

from connectors.kafka import whole
from connectors.redis.client import Client
from flows.errors import StateError
from flows.exports.calls import Caller
from flows.exports.delivery_reports import DeliveryReports, Reports
from flows.exports.handover import Busy, Refused
from flows.exports.media_buys import FIELDS, SCOPES, MediaBuys
from flows.exports.notices import SignedWebhook
from flows.settings import Settings
from flows.viewers.access import Owner, Owners
from flows.viewers.adcp import Agent
from flows.viewers.reader import RowsReader

SECRET = "0123456789abcdef01234567"
HOUR_MS = 3_600_000
NOON_MS = 1_790_000_000_000 // HOUR_MS * HOUR_MS
RESPONSE = "media-buy/get-media-buy-delivery-response.json"


class World:
    """The reports of one campaign, by a clock of the test's own.

    Attributes:
        owners: of the placements, by plans that the test changes.
    """

    def __init__(self, settings: Settings, client: Client, target: Site, folder: Path) -> None:
        self.settings, self.client, self.target, self.folder = settings, client, target, folder
        self.now_ms = NOON_MS
        self.plans: list[list[Owner]] = []
        self.owners = Owners(lambda: self.plans.pop() if self.plans else None)
        self.begin()

    def begin(self) -> None:
        """Start, or start again from the disk."""
        space = self.settings.namespace
        at_once = timedelta(0)
        board = RowsReader(self.client, space, FIELDS, scopes=SCOPES, interval=at_once, clock_s=self.clock_s)
        agent = Agent(board, self.settings, self.owners, self.clock_s)
        self.reports = Reports(self.folder, "adcp")
        self.loop = DeliveryReports(
            MediaBuys(agent, self.clock_s), self.reports, Caller(self.target.url, timedelta(seconds=5)),
            SignedWebhook([SECRET.encode()]), "op-1", timedelta(hours=1), timedelta(hours=72), self.clock_s,
        )  # fmt: skip

    def clock_s(self) -> float:
        return self.now_ms / 1000

    def turn(self, hours: float = 0) -> list[str]:
        """The outcomes of the reports due some hours later."""
        self.now_ms += int(hours * HOUR_MS)
        self.loop.looked_s = float("-inf")
        became = []
        for parcel in self.loop.sort([]).parcels:
            try:
                parcel.hand_over()
                became.append("taken")
            except (Busy, Refused) as error:
                became.append(error.reason)
        self.loop.places({})
        return became

    def told(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.target.taken]


@pytest.fixture
def target(site: Callable[..., Site]) -> Site:
    return site(lambda _: (204, {}))


@pytest.fixture
def world(
    settings_of: Callable[..., Settings], client: Client, target: Site, tmp_path: Path
) -> Iterator[World]:
    one = World(settings_of(), client, target, tmp_path)
    yield one
    one.reports.close()


def wrong(result: object) -> list[str]:
    return [error.message[:200] for error in validator(RESPONSE).iter_errors(result)]


def test_a_valid_report_is_due_every_hour(world: World) -> None:
    put_campaign(world.client, world.settings.namespace, world.now_ms)
    assert world.turn() == ["taken"]
    assert world.turn(0.5) == []
    put_campaign(world.client, world.settings.namespace, world.now_ms + HOUR_MS)
    assert world.turn(1) == ["taken"]
    first, second = world.told()
    assert first["task_type"] == "media_buy_delivery"
    assert (first["operation_id"], first["task_id"]) == ("op-1", "delivery:spring")
    assert first["idempotency_key"] != second["idempotency_key"]
    for number, one in enumerate((first, second), 1):
        result = one["result"]
        assert (result["notification_type"], result["sequence_number"]) == ("scheduled", number)
        assert wrong(result) == []
        assert "aggregated_totals" not in result
        (delivery,) = result["media_buy_deliveries"]
        assert (delivery["media_buy_id"], delivery["is_final"]) == ("spring", False)
        assert [part["package_id"] for part in delivery["by_package"]] == ["breakfast-spring"]
    assert second["result"]["next_expected_at"] > second["timestamp"]
    assert wrong({**second["result"], "sequence_number": 0}), "the schema looks at it"


def test_final_reports_are_sent_once_unless_recounted(world: World) -> None:
    space = world.settings.namespace
    put_campaign(world.client, space, world.now_ms)
    assert world.turn() == ["taken"]
    over = {"delivery.end_ms": world.now_ms, "final_through_ms": world.now_ms + HOUR_MS}
    put_campaign(world.client, space, world.now_ms + HOUR_MS // 2, "complete", **over)
    assert world.turn(0.5) == ["taken"], "not at the next hour: at once"
    assert world.turn(1) == []
    client, row = world.client, f"{space}:campaign:{{spring}}"
    client.hset(row, "delivery.delivered", "1999")
    assert world.turn(0.5) == ["taken"]
    for clicks in range(1, 6):  # in the hours after the flight, one by one
        client.hset(row, "flight.clicks", clicks)
        assert world.turn(0.1) == [], "an adjustment an hour at most"
    client.hdel(row, "flight.clicks")
    assert world.turn(30) == []
    _, final, adjusted = (one["result"] for one in world.told())
    assert (final["notification_type"], adjusted["notification_type"]) == ("final", "adjusted")
    for result in (final, adjusted):
        assert "next_expected_at" not in result
        assert wrong(result) == []
        (delivery,) = result["media_buy_deliveries"]
        assert delivery["is_final"]
        assert [part["is_final"] for part in delivery["by_package"]] == [True]
    (package,) = final["media_buy_deliveries"][0]["by_package"]
    assert (package["measurement_window"], package["supersedes_window"]) == ("final", "live")


def test_a_reopened_campaign_is_reported_until_it_is_final_again(world: World) -> None:
    space = world.settings.namespace
    over = {"delivery.end_ms": NOON_MS, "final_through_ms": NOON_MS + HOUR_MS}
    put_campaign(world.client, space, world.now_ms, "complete", **over)
    assert world.turn() == ["taken"]
    for hour in (1, 2):  # the plan was extended
        put_campaign(world.client, space, NOON_MS + hour * HOUR_MS)
        assert world.turn(0.5) == []
        assert world.turn(0.5) == ["taken"]
        world.reports.close()
        world.begin()
    put_campaign(world.client, space, NOON_MS, "complete", **over)  # and cut again to what it was
    assert world.turn(0.5) == ["taken"], "not at the next hour: at once"
    assert world.turn(30) == []
    results = [one["result"] for one in world.told()]
    assert [one["notification_type"] for one in results] == ["final", "scheduled", "scheduled", "adjusted"]
    assert [one["sequence_number"] for one in results] == [1, 2, 3, 4]
    windows = []
    for one in results:
        assert wrong(one) == []
        (delivery,) = one["media_buy_deliveries"]
        assert delivery["is_final"] is ("next_expected_at" not in one)
        (part,) = delivery["by_package"]
        windows.append((part["measurement_window"], part.get("supersedes_window")))
    assert windows == [("final", "live"), ("live", None), ("live", None), ("final", "live")]


def test_a_stalled_flow_is_reported_as_delayed(world: World) -> None:
    put_campaign(world.client, world.settings.namespace, world.now_ms - HOUR_MS)
    assert world.turn() == ["taken"]
    (result,) = (one["result"] for one in world.told())
    assert result["notification_type"] == "delayed"
    assert (result["partial_data"], result["unavailable_count"]) == (True, 1)
    assert result["media_buy_deliveries"][0]["status"] == "reporting_delayed"
    assert wrong(result) == []


def test_a_campaign_with_a_silent_feed_is_delayed_until_judged(world: World) -> None:
    space = world.settings.namespace
    put_campaign(world.client, space, world.now_ms, **unjudged("platform:x", world.now_ms))
    assert world.turn() == ["taken"]
    put_campaign(world.client, space, world.now_ms + HOUR_MS, **JUDGED)
    assert world.turn(1) == ["taken"]
    silent, back = (one["result"] for one in world.told())
    assert silent["notification_type"] == "delayed"
    assert silent["media_buy_deliveries"][0]["status"] == "reporting_delayed"
    assert wrong(silent) == []
    assert back["notification_type"] == "scheduled"


def test_a_repeated_report_is_identical_after_a_restart(
    settings_of: Callable[..., Settings], client: Client, site: Callable[..., Site], tmp_path: Path
) -> None:
    trouble: dict[int, tuple[int, dict[str, str]]] = {1: (500, {}), 2: (503, {}), 3: (429, {})}
    target = site(lambda number: trouble.get(number, (204, {})))
    world = World(settings_of(), client, target, tmp_path)
    put_campaign(client, world.settings.namespace, world.now_ms)
    for hours in (0, 0.1, 1.5):
        assert world.turn(hours) != ["taken"]
        world.reports.close()
        world.begin()
    assert world.turn() == ["taken"]
    assert len({body for _, body in target.calls}) == 1
    assert len({headers["webhook-id"] for headers, _ in target.calls}) == 1
    assert world.turn() == ["taken"]
    assert [one["result"]["sequence_number"] for one in world.told()] == [1, 2]
    with pytest.raises(StateError, match="another process has it"):
        Reports(tmp_path, "adcp")
    world.reports.close()


def test_refused_and_outdated_reports_are_dead_letters(
    settings_of: Callable[..., Settings], client: Client, site: Callable[..., Site], tmp_path: Path
) -> None:
    target = site(lambda number: (400, {}) if number == 1 else (503, {}))
    world = World(settings_of(), client, target, tmp_path)
    put_campaign(client, world.settings.namespace, world.now_ms)
    assert world.turn() == ["status_400"]
    assert world.turn(1) == ["status_503"]
    assert world.reports.state.buys["spring"].pending is not None
    assert world.turn(73) == ["status_503"]
    assert world.reports.state.buys["spring"].pending is None
    assert world.turn() == ["status_503"]
    numbers = [json.loads(body)["result"]["sequence_number"] for _, body in target.calls]
    assert numbers == [1, 2, 2, 3]
    world.reports.close()


def test_a_dead_letter_names_its_campaign_and_outlives_a_stop(
    settings: Settings, client: Client, export: Callable[..., Command], site: Callable[..., Site]
) -> None:
    target = site(lambda number: (503, {}) if number == 2 else (400, {}))
    told = {"AUDIOPIXEL_EXPORT_ADCP": target.url, "AUDIOPIXEL_EXPORT_WEBHOOK_SECRETS": f'["{SECRET}"]'}
    for name in ("autumn", "spring"):
        put_campaign(client, settings.namespace, NOW_MS, name=name)
    process = export("adcp", **told)
    until(lambda: len(target.calls) == 2)
    process.terminate()  # autumn's was refused, spring's waits
    assert process.wait(20) == 0
    assert export("adcp", "--once", **told).wait(60) == 0
    letters = whole(settings.kafka_brokers, settings.kafka_exports_rejected_topic, {})
    assert sorted((one.key, json.loads(one.value or b"")["reason"]) for one in letters) == [
        (b"adcp|adcp/autumn/0/1", "status_400"),
        (b"adcp|adcp/spring/0/1", "status_400"),
    ]
    numbers = {headers["webhook-id"]: json.loads(body)["result"] for headers, body in target.calls}
    assert [one["sequence_number"] for one in numbers.values()] == [1, 1]


def test_a_clock_once_a_year_ahead_silences_no_report(world: World) -> None:
    put_campaign(world.client, world.settings.namespace, world.now_ms)
    assert world.turn() == ["taken"]
    year = 365 * 24
    assert world.turn(year) == ["taken"]
    world.reports.close()
    world.begin()
    assert world.turn(-year) == []
    assert [world.turn(0.5) for _ in range(4)] == [[], ["taken"], [], ["taken"]]


def test_a_campaign_without_a_price_is_left_out(world: World) -> None:
    put_campaign(world.client, world.settings.namespace, world.now_ms)
    world.client.hdel(f"{world.settings.namespace}:campaign:{{spring}}", "flight.cost", "delivery.currency")
    assert world.loop.sort([]).left_out == ["no_price"]
    assert world.told() == []


def test_a_package_belongs_to_its_newest_plans_media_buy(world: World) -> None:
    space = world.settings.namespace
    put_campaign(world.client, space, world.now_ms)
    put_campaign(world.client, space, world.now_ms, name="autumn")
    world.turn()
    world.plans.append([Owner("breakfast-autumn", "spring", None), Owner("breakfast-spring", "spring", None)])
    world.turn(1)
    packages = {
        (number, buy["media_buy_id"]): [part["package_id"] for part in buy["by_package"]]
        for one in world.told()
        for number, buy in [(one["result"]["sequence_number"], one["result"]["media_buy_deliveries"][0])]
    }
    assert packages == {
        (1, "autumn"): ["breakfast-autumn"],
        (1, "spring"): ["breakfast-spring"],
        (2, "autumn"): [],
        (2, "spring"): ["breakfast-autumn", "breakfast-spring"],
    }


def test_a_report_is_sent_only_after_its_write_to_disk(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    put_campaign(world.client, world.settings.namespace, world.now_ms)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("os.fsync", full)
        for _ in range(3):
            with pytest.raises(Busy, match="No space left"):
                world.turn()
    assert world.turn() == ["taken"]
    world.reports.close()
    world.begin()
    assert world.turn(1) == ["taken"]
    assert [one["result"]["sequence_number"] for one in world.told()] == [1, 2]
