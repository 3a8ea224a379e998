"""AdCP: what the exporter answers validates against the schemas of the protocol, and its values are the
row's.
"""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from access_support import SECRET, access, app_of, asked, bearer, put_two_advertisers, token
from adcp_support import DATA, validator
from page_support import HOUR_MS, exporter, now_ms, planned, unjudged
from pydantic import SecretStr
from redis import Redis
from starlette.applications import Starlette

from connectors.embedded import EmbeddedValkey
from flows.settings import Settings, load
from flows.viewers.access import Access
from flows.viewers.adcp import attribution_window
from flows.viewers.adcp_doors import MAX_BODY_BYTES, TASKS

RESPONSES = {
    "get_adcp_capabilities": "protocol/get-adcp-capabilities-response.json",
    "get_media_buy_delivery": "media-buy/get-media-buy-delivery-response.json",
    "get_reporting_status": "media-buy/get-reporting-status-response.json",
}


FULL = {
    "flight.clicks": 40, "flight.starts": 900, "flight.first_quartiles": 800, "flight.midpoints": 700,
    "flight.third_quartiles": 600, "flight.completes": 500, "flight.completions_per_impression": "0.5",
    "flight.conversions": "2.5", "flight.conversion_value": 30_000_000, "conversion_currency": "GBP",
    "flight.return_on_ad_spend": "3", "flight.cost_per_acquisition": "4", "flight.reach": 300,
    "flight.frequency": "3.3", "generation": 1, "fence": 2, "rev": 3, "impression_basis": "mixed",
}  # fmt: skip


@pytest.fixture(scope="module")
def settings(valkey: Any) -> Settings:
    put_two_advertisers(valkey.url, "adcp")
    now = now_ms()
    over = {"delivery.start_ms": now - 48 * HOUR_MS, "delivery.end_ms": now - 24 * HOUR_MS}
    with Redis.from_url(valkey.url) as client:
        client.hset("adcp:campaign:{c-mine}", mapping=planned("under", 0.5, 4_000, now) | FULL)
        client.hset("adcp:placement:{mine-planned}", mapping=FULL)
        client.hset(
            "adcp:campaign:{zebra-over}", mapping=planned("ended_short", 0.5, 4_000, now) | FULL | over
        )
        client.hset(
            "adcp:campaign:{zebra-free}",
            mapping={"delivery.state": "not_started", "delivery.judged": 1, "flight.impressions": 1},
        )
        client.zadd("adcp:index:campaign", {"zebra-over": 1, "zebra-free": 1})
        client.hset("adcp:meta", mapping={"generation": 1, "fence": 2, "rev": 9, "methodology": "m-1"})
    return load(redis_url=valkey.url, namespace="adcp")


@pytest.fixture(scope="module")
def app(settings: Settings) -> Starlette:
    return app_of(settings, access())


def post(app: Starlette, task: str, name: str, body: bytes) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app, client=("203.0.113.9", 1))
        async with httpx.AsyncClient(transport=transport, base_url="https://desk.example") as client:
            return await client.post(f"/adcp/{task}", content=body, headers=bearer(name))

    return asyncio.run(send())


def call(app: Starlette, task: str, name: str = "mine", **said: Any) -> dict[str, Any]:
    """An answer that validates."""
    answer = post(app, task, name, json.dumps(said).encode())
    body: dict[str, Any] = answer.json()
    assert answer.status_code == 200, body
    assert problems(task, body) == []
    return body


def problems(task: str, body: dict[str, Any]) -> list[str]:
    """The findings of the schema of a task's answer."""
    return [f"{list(one.path)}: {one.message[:300]}" for one in validator(RESPONSES[task]).iter_errors(body)]


def errors(body: dict[str, Any]) -> list[str]:
    return [one["code"] for one in body.get("errors", ())]


def test_the_schemas_refuse_an_invalid_answer() -> None:
    for path in RESPONSES.values():
        assert list(validator(path).iter_errors({"status": "completed"}))
    body = {"status": "completed", "currency": "GBP", "media_buy_deliveries": [{"media_buy_id": "a"}]}
    assert len(list(validator(RESPONSES["get_media_buy_delivery"]).iter_errors(body))) > 1


def test_capabilities_tell_every_metric_of_a_placement_with_its_methodology(app: Starlette) -> None:
    found = call(app, "get_adcp_capabilities", context={"trace": 7})
    told = found["measurement"]["metrics"]
    assert len({one["metric_id"] for one in told}) == len(told) > 15
    assert {"flight_impressions", "mature_completion_rate_1h"} <= {one["metric_id"] for one in told}
    assert {one["methodology_version"] for one in told} == {"m-1"}
    assert found["context"] == {"trace": 7}
    assert found["adcp"]["supported_versions"] == ["3.2"]
    assert found["supported_protocols"] == ["media_buy", "measurement"]


def test_capabilities_are_available_without_redis(settings: Settings) -> None:
    with EmbeddedValkey() as server:
        away = app_of(settings.model_copy(update={"redis_url": SecretStr(server.url)}), access())
    found = call(away, "get_adcp_capabilities")
    assert all("methodology_version" not in one for one in found["measurement"]["metrics"])


def test_delivery_has_the_rows_of_campaign_and_placements(app: Starlette) -> None:
    found = call(app, "get_media_buy_delivery")
    (buy,) = found["media_buy_deliveries"]
    assert (buy["media_buy_id"], buy["status"], buy["is_final"], buy["pacing_index"]) == (
        "c-mine",
        "active",
        False,
        0.5,
    )
    totals = buy["totals"]
    assert (totals["impressions"], totals["spend"], totals["completion_rate"]) == (1_000, 10, 0.5)
    assert totals["quartile_data"] == {"q1_views": 800, "q2_views": 700, "q3_views": 600, "q4_views": 500}
    assert (totals["reach"], totals["reach_unit"], totals["reach_window"]) == (
        300,
        "custom",
        {"kind": "cumulative"},
    )
    assert (totals["conversions"], totals["conversion_value"], totals["roas"]) == (2.5, 30, 3)
    (package,) = buy["by_package"]
    assert (package["package_id"], package["rate"], package["currency"]) == ("mine-planned", 10, "GBP")
    assert (package["measurement_window"], package["delivery_status"]) == ("live", "delivering")
    assert found["attribution_window"]["post_click"] == {"interval": 30, "unit": "days"}
    assert found["aggregated_totals"]["media_buy_count"] == 1
    assert found["reporting_period"]["start"] < found["reporting_period"]["end"]
    assert "errors" not in found


def test_delivery_contains_its_methodology(app: Starlette) -> None:
    assert call(app, "get_media_buy_delivery")["ext"] == {"audiopixel": {"methodology": "m-1"}}


def test_a_media_buy_and_its_packages_have_an_impression_basis(app: Starlette) -> None:
    (buy,) = call(app, "get_media_buy_delivery")["media_buy_deliveries"]
    mixed = {"audiopixel": {"impression_basis": "mixed"}}
    assert (buy["ext"], [package["ext"] for package in buy["by_package"]]) == (mixed, [mixed])


def test_a_fractional_attribution_window_is_exact() -> None:
    told = attribution_window(load(click_window=timedelta(hours=36), listen_window=timedelta(days=14)))
    assert told == {
        "post_click": {"interval": 36, "unit": "hours"},
        "post_view": {"interval": 14, "unit": "days"},
        "model": "last_touch",
    }


def test_an_ended_flight_is_final_since_a_fixed_time(app: Starlette) -> None:
    (buy,) = call(app, "get_media_buy_delivery", "all", media_buy_ids=["zebra-over"])["media_buy_deliveries"]
    assert (buy["status"], buy["is_final"]) == ("completed", True)
    assert datetime.fromisoformat(buy["finalized_at"]) < datetime.now(UTC)


def test_a_flight_is_final_by_the_lateness_of_the_flow(app: Starlette, settings: Settings) -> None:
    quiet = planned("ended_short", 0.5, 4_000, now_ms()) | FULL
    quiet |= {"delivery.start_ms": now_ms() - 48 * HOUR_MS, "delivery.end_ms": now_ms() - 24 * HOUR_MS}
    found = []
    with Redis.from_url(settings.redis_url.get_secret_value()) as client:
        client.hset("adcp:campaign:{quiet}", mapping=quiet | {"final_through_ms": 1})
        client.zadd("adcp:index:campaign", {"quiet": 1})
        try:
            for lateness_ms in (HOUR_MS, 48 * HOUR_MS):
                client.hset("adcp:meta", "allowed_lateness_ms", lateness_ms)
                (buy,) = call(app, "get_media_buy_delivery", "all", media_buy_ids=["quiet"])[
                    "media_buy_deliveries"
                ]
                found.append(buy["is_final"])
        finally:
            client.hdel("adcp:meta", "allowed_lateness_ms")
            client.zrem("adcp:index:campaign", "quiet")
    assert found == [True, False]


@pytest.mark.parametrize(("before_ms", "final"), [(1, False), (0, True)])
def test_a_flight_is_final_once_its_last_minute_is(
    before_ms: int, final: bool, app: Starlette, settings: Settings
) -> None:
    """Ten minutes behind its end by the watermark, also where its row was written last before that."""
    end_ms = (now_ms() - 24 * HOUR_MS) // HOUR_MS * HOUR_MS
    over = planned("ended_short", 0.5, 4_000, now_ms()) | FULL | {"delivery.end_ms": end_ms}
    over |= {"delivery.start_ms": end_ms - HOUR_MS, "final_through_ms": 1}
    with Redis.from_url(settings.redis_url.get_secret_value()) as client:
        usual = client.hget("adcp:meta", "watermark_ms")
        client.hset("adcp:meta", "watermark_ms", end_ms + 600_000 - before_ms)
        client.hset("adcp:campaign:{edge}", mapping=over)
        client.zadd("adcp:index:campaign", {"edge": 1})
        try:
            found = call(app, "get_media_buy_delivery", "all", media_buy_ids=["edge"])
        finally:
            client.zrem("adcp:index:campaign", "edge")
            client.hset("adcp:meta", "watermark_ms", usual or "")
    (buy,) = found["media_buy_deliveries"]
    assert buy["is_final"] is final
    told = datetime.fromtimestamp(end_ms / 1000 + 600, UTC).isoformat(timespec="milliseconds")
    assert buy.get("finalized_at") == (told.replace("+00:00", "Z") if final else None)


def test_a_missing_price_is_an_error_instead_of_zero_spend(app: Starlette) -> None:
    found = call(app, "get_media_buy_delivery", "all", media_buy_ids=["zebra-free"])
    assert (found["media_buy_deliveries"], found["currency"], errors(found)) == ([], "XXX", ["SPEND_UNKNOWN"])
    told = call(app, "get_media_buy_delivery", "all", status_filter="completed")["media_buy_deliveries"]
    assert [buy["media_buy_id"] for buy in told] == ["zebra-over"]


@pytest.mark.parametrize("task", ["get_media_buy_delivery", "get_reporting_status"])
def test_anothers_media_buy_is_answered_like_a_missing_one(app: Starlette, task: str) -> None:
    def answered(**said: Any) -> tuple[int, dict[str, Any]]:
        answer = post(app, task, "mine", json.dumps({"view": "summary", **said}).encode())
        assert not (of_status or answer.status_code == 200) or problems(task, answer.json()) == []
        return answer.status_code, answer.json()

    of_status = task == "get_reporting_status"
    hidden, absent = answered(media_buy_ids=["zebra-c"]), answered(media_buy_ids=["nobody"])
    assert json.dumps(hidden).replace("zebra-c", "nobody") == json.dumps(absent)
    code = "NOT_FOUND" if of_status else "MEDIA_BUY_NOT_FOUND"
    assert (hidden[0], errors(hidden[1])) == (404 if of_status else 200, [code])
    assert "zebra" not in json.dumps(call(app, task, view="summary"))
    accounts = [answered(account={"account_id": one}) for one in ("all", "no")]
    assert accounts[0] == accounts[1]
    assert accounts[0][0] == 404
    assert accounts[0] == hidden or not of_status


def test_the_coverage_of_a_status_names_what_delivery_leaves_out(app: Starlette) -> None:
    def coverage(*names: str) -> dict[str, Any]:
        found = call(app, "get_reporting_status", "all", view="summary", media_buy_ids=list(names))
        of: dict[str, Any] = found["coverage"]
        return of

    over, free, mine = coverage("zebra-over"), coverage("zebra-free"), coverage("c-mine")
    assert (over["status"], over["fully_covered_media_buy_ids"]) == ("full", ["zebra-over"])
    assert (free["status"], free["unsupported_media_buy_ids"]) == ("none", ["zebra-free"])
    assert (mine["status"], mine["partially_covered_media_buy_ids"]) == ("partial", ["c-mine"])
    assert (mine["covered_package_ids"], mine["unsupported_package_ids"]) == (
        ["mine-planned"],
        ["mine-unplanned"],
    )
    both = coverage("c-mine", "zebra-free")
    reason = {"reason": "offering_unsupported"}
    assert both["limitations"] == [
        reason | {"media_buy_id": "zebra-free"},
        reason | {"media_buy_id": "c-mine", "package_ids": ["mine-unplanned"]},
    ]


def test_the_status_has_the_ledger_and_the_owed_reports(app: Starlette) -> None:
    found = call(app, "get_reporting_status", view="summary", account={"account_id": "mine"})
    assert (found["health"], found["issues"], found["account_id"]) == ("healthy", [], "mine")
    assert (found["ledger_snapshot_id"], found["scope"]["media_buy_ids"]) == ("1.2.9", ["c-mine"])
    assert found["data_through"] < found["ledger_as_of"]
    revision = found["ext"]["audiopixel"]["revisions"]["c-mine"]
    assert [revision[part] for part in ("generation", "fence", "rev")] == [1, 2, 3]
    over = call(app, "get_reporting_status", "all", view="summary", media_buy_ids=["zebra-over"])
    assert (over["health"], over["scope"]["scope_closed"]) == ("complete", True)
    waiting = call(app, "get_reporting_status", "all", view="summary", media_buy_ids=["zebra-free"])
    assert (waiting["health"], waiting["obligation_counts"]["waiting"]) == ("waiting", 1)


def test_a_lagging_flow_is_reported_late(settings: Settings) -> None:
    with Redis.from_url(settings.redis_url.get_secret_value()) as client:
        client.hset(
            "adcp:meta", mapping={"unjudged_since_ms": now_ms(), "unjudged_reason": "lagging", "judged": 0}
        )
        try:
            found = call(app_of(settings, access()), "get_reporting_status", view="summary")
        finally:
            client.hdel("adcp:meta", "unjudged_since_ms", "unjudged_reason")
            client.hset("adcp:meta", "judged", 1)
    assert (found["health"], found["obligation_counts"]["delayed"]) == ("delayed", 1)
    assert [one["severity"] for one in found["issues"]] == ["delayed"]
    assert found["scope"]["delivery_config_generations"][0]["feed_purpose"] == "pacing"


def test_a_media_buy_that_does_not_say_that_it_is_judged_is_late(settings: Settings) -> None:
    with Redis.from_url(settings.redis_url.get_secret_value()) as client:
        client.hdel("adcp:campaign:{c-mine}", "delivery.judged")
        try:
            found = call(app_of(settings, access()), "get_reporting_status", view="summary")
        finally:
            client.hset("adcp:campaign:{c-mine}", "delivery.judged", 1)
    assert (found["health"], found["obligation_counts"]["delayed"]) == ("delayed", 1)
    assert [one["message"] for one in found["issues"]] == ["Delivery is not judged (unjudged)."]


def test_only_a_media_buy_with_a_silent_feed_is_late(settings: Settings) -> None:
    since_ms = now_ms() - 600_000
    with Redis.from_url(settings.redis_url.get_secret_value()) as client:
        client.hset("adcp:campaign:{c-mine}", mapping=unjudged("platform:x", since_ms))
        try:
            app = app_of(settings, access())
            found = call(app, "get_reporting_status", view="summary")
            other = call(app, "get_reporting_status", "all", view="summary", media_buy_ids=["zebra-over"])
        finally:
            client.hset("adcp:campaign:{c-mine}", "delivery.judged", 1)
    assert (found["health"], found["obligation_counts"]["delayed"]) == ("delayed", 1)
    assert [one["issue_id"] for one in found["issues"]] == [f"feed_silent:{since_ms}"]
    assert (other["health"], other["issues"]) == ("complete", [])


@pytest.mark.parametrize(
    ("task", "body", "status", "code"),
    [
        ("get_media_buy_delivery", b'{"start_date": "2026-11-01"}', 400, "UNSUPPORTED_FEATURE"),
        ("get_reporting_status", b'{"view": "periods"}', 400, "UNSUPPORTED_FEATURE"),
        ("get_media_buy_delivery", b'{"media_buy_ids": "c-mine"}', 400, "INVALID_REQUEST"),
        ("get_media_buy_delivery", b'{"media_buy_ids": [7]}', 400, "INVALID_REQUEST"),
        ("get_media_buy_delivery", b"[", 400, "INVALID_REQUEST"),
        ("get_media_buy_delivery", b'{"ext":' * 2_000, 400, "INVALID_REQUEST"),
        ("get_media_buy_delivery", b'{"view":"\xff"}', 400, "INVALID_REQUEST"),
        ("get_media_buy_delivery", b" " * (MAX_BODY_BYTES + 1), 413, "INVALID_REQUEST"),
        ("get_reporting_status", b"[", 400, "INVALID_REQUEST"),
        ("get_reporting_status", b'{"media_buy_ids": [7], "context": {"a": 1}}', 400, "INVALID_REQUEST"),
        ("get_reporting_status", b'{"adcp_version": "4.0"}', 400, "VERSION_UNSUPPORTED"),
        ("get_media_buy_delivery", b'{"adcp_major_version": 2}', 400, "VERSION_UNSUPPORTED"),
        ("create_media_buy", b"{}", 404, "NOT_FOUND"),
    ],
)
def test_an_unsupported_request_is_refused_with_the_protocols_error(
    app: Starlette, task: str, body: bytes, status: int, code: str
) -> None:
    answer = post(app, task, "mine", body)
    assert (answer.status_code, errors(answer.json()), answer.json()["status"]) == (status, [code], "failed")
    assert answer.json()["adcp_error"]["recovery"] == "correctable"
    if task == "get_reporting_status":
        assert problems(task, answer.json()) == []
    if b"context" in body:
        assert answer.json()["context"] == {"a": 1}


def test_our_release_answers_others_of_the_same_major(app: Starlette) -> None:
    for said in ("3.0", "3.2", "3.9"):
        assert call(app, "get_reporting_status", view="summary", adcp_version=said)["adcp_version"] == "3.2"


def test_a_stranger_may_ask_for_the_capabilities_and_for_nothing_else(app: Starlette) -> None:
    capabilities, status, tools = asked(
        app,
        *(
            ("POST", path, {})
            for path in ("/adcp/get_adcp_capabilities", "/adcp/get_reporting_status", "/mcp/")
        ),
    )
    assert (capabilities.status_code, problems("get_adcp_capabilities", capabilities.json())) == (200, [])
    for refused in (status, tools):
        assert (refused.status_code, errors(refused.json())) == (401, ["AUTH_MISSING"])
        assert refused.headers["www-authenticate"] == 'Bearer realm="audiopixel"'
    assert problems("get_reporting_status", status.json()) == []
    wrong = {"authorization": "Bearer mine.no"}
    paths = ("/adcp/get_adcp_capabilities", "/adcp/get_reporting_status", "/mcp")
    for answer in asked(app, *(("POST", path, wrong) for path in paths)):
        assert (answer.status_code, errors(answer.json())) == (401, ["AUTH_INVALID"])
        assert answer.headers["content-type"] == "application/json"


def test_a_token_without_the_right_to_read_is_refused_as_json(settings: Settings) -> None:
    readers = Access({"scrape": token(read_all=True, rights=("metrics",))})
    (answer,) = asked(app_of(settings, readers), ("POST", "/adcp/get_reporting_status", bearer("scrape")))
    assert (answer.status_code, errors(answer.json())) == (403, ["PERMISSION_DENIED"])


def test_strangers_see_only_capabilities_by_default(
    settings: Settings,
) -> None:
    app = app_of(settings, Access())
    told, refused = asked(
        app, ("POST", "/adcp/get_adcp_capabilities", {}), ("POST", "/adcp/get_reporting_status", {})
    )
    assert (told.status_code, refused.status_code) == (200, 401)


def test_a_stranger_may_only_call_the_capabilities_tool(settings: Settings) -> None:
    pytest.importorskip("mcp", reason="needs mcp: pip install 'audiopixel[mcp]'")

    def called(port: int, task: str) -> dict[str, Any]:
        said = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": task, "arguments": {}}}
        headers = {"accept": "application/json, text/event-stream"}
        answer = httpx.post(f"http://127.0.0.1:{port}/mcp", json=said, headers=headers, timeout=60)
        result: dict[str, Any] = answer.json()["result"]
        return result

    url = settings.redis_url.get_secret_value()
    with exporter(url, "adcp", access=access(), settings=settings) as port:
        capabilities, status = called(port, "get_adcp_capabilities"), called(port, "get_reporting_status")
    assert problems("get_adcp_capabilities", capabilities["structuredContent"]) == []
    assert status["isError"]
    assert errors(status["structuredContent"]) == ["AUTH_MISSING"]


@pytest.mark.parametrize("more", [{}, {"last-event-id": "1"}])
def test_mcp_offers_no_stream(settings: Settings, more: dict[str, str]) -> None:
    pytest.importorskip("mcp", reason="needs mcp: pip install 'audiopixel[mcp]'")
    url = settings.redis_url.get_secret_value()
    headers = {**bearer("mine"), "accept": "application/json, text/event-stream", **more}
    with exporter(url, "adcp", access=access(), settings=settings) as port:
        for method in ("GET", "DELETE"):
            answer = httpx.request(method, f"http://127.0.0.1:{port}/mcp", headers=headers, timeout=10)
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_an_mcp_client_lists_and_calls_the_tools(settings: Settings, app: Starlette) -> None:
    pytest.importorskip("mcp", reason="needs mcp: pip install 'audiopixel[mcp]'")
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    async def use(port: int) -> tuple[set[str], Any, Any]:
        headers = {"authorization": f"Bearer mine.{SECRET}"}
        async with httpx2.AsyncClient(headers=headers) as http:
            transport = streamable_http_client(f"http://127.0.0.1:{port}/mcp", http_client=http)
            async with Client(transport) as client:
                tools = {tool.name for tool in (await client.list_tools()).tools}
                told = await client.call_tool(
                    "get_media_buy_delivery", {"media_buy_ids": ["c-mine", "zebra-c"]}
                )
                refused = await client.call_tool("get_reporting_status", {"view": "revision"})
                return tools, told, refused

    url = settings.redis_url.get_secret_value()
    with exporter(url, "adcp", access=access(), settings=settings) as port:
        tools, told, refused = asyncio.run(use(port))
    assert tools == set(TASKS)
    found = told.structured_content
    assert json.loads(told.content[0].text) == found
    assert list(validator(RESPONSES["get_media_buy_delivery"]).iter_errors(found)) == []
    assert [buy["media_buy_id"] for buy in found["media_buy_deliveries"]] == ["c-mine"]
    assert (told.is_error, errors(found)) == (False, ["MEDIA_BUY_NOT_FOUND"])
    assert (refused.is_error, errors(refused.structured_content)) == (True, ["UNSUPPORTED_FEATURE"])


def test_the_documents_example_equals_the_answer(app: Starlette) -> None:
    text = (DATA.parents[2] / "docs" / "api.md").read_text()
    found = re.search(r"^\$ curl -d '(\{.*\})' .*/adcp/(\w+)\n(.*)\n", text, re.M)
    assert found is not None
    assert post(app, found[2], "mine", found[1].encode()).text == found[3]
