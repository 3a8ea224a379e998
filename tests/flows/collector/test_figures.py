"""Figures of collectors on their way to the page: into Redis, and out of it as JSON."""

from __future__ import annotations

import json
import re
import subprocess
import time
import tomllib
import uuid
from collections.abc import Iterable, Iterator
from datetime import datetime
from http.client import HTTPConnection
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from door_support import Collector, calling, new_topic, until
from prometheus_client.parser import text_string_to_metric_families
from reader_support import signed_in, tag_door
from starlette.testclient import TestClient

from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from connectors.redis import Client, put_fields, read_rows
from flows.collector.call import Call, Claimant, Outcome, Understood
from flows.collector.callers import Device
from flows.collector.instruments import MAX_FIRED, MAX_PLACEMENTS, Instruments
from flows.collector.ledger import Ledger
from flows.collector.pseudonyms import Pseudonyms
from flows.collector.refusals import Refusals, by_day
from flows.collector.signatures import Signatures
from flows.collector.tag_answers import curl
from flows.collector.unverified import AGENT_FROM, MAX_NETWORKS, UnverifiedServers, claimant_of
from flows.model.redis_keys import calls_key, door_key
from flows.settings import Settings, load
from flows.viewers.collectors import SILENT_MS, STALE_MS, Collectors
from flows.viewers.exporter import create_app
from flows.viewers.reader import RowsReader

SECRET = "a secret that signs tags"
Door = dict[str, str]
PLAYER = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) Safari/604.1"


@pytest.fixture
def space() -> str:
    return f"t{uuid.uuid4().hex[:8]}:v1"


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


def exporter(client: Client, settings: Settings) -> TestClient:
    board = RowsReader(client, settings.namespace, ["flight.impressions"])
    collectors = Collectors(client, settings.namespace)
    app = create_app(board, settings=settings, collectors=collectors)
    return TestClient(signed_in(app), base_url="http://127.0.0.1", client=("127.0.0.1", 1))


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    """The door of a collector with signing keys, as an exporter is configured with it."""
    keys = {"a1": SECRET}
    with tag_door(collect_signing_keys=keys, collect_url="https://pixels.example.com") as found:
        yield found


def settings_for(valkey: EmbeddedValkey, space: str, **more: Any) -> Settings:
    return load(redis_url=valkey.url, namespace=space, **more)


def test_a_collector_tells_its_figures_and_the_page_adds_them_up(
    broker: EmbeddedBroker, valkey: EmbeddedValkey, client: Client, space: str, tmp_path: Path
) -> None:
    more = {"collect_figures": "true", "redis_url": valkey.url, "namespace": space}
    with Collector(tmp_path / "spool", broker.bootstrap, new_topic(broker), **more) as collector:
        collector.start()
        with calling(collector.port, PLAYER) as call:
            for number in range(7):
                assert call(f"e{number}", cr="[CREATIVE]") == 200
            assert call("none", e="no-such") == 200
        with calling(collector.port, "curl/8") as call:
            assert call("robot", gdpr="1") == 200
        reader = Collectors(client, space)

        def together() -> dict[str, Any]:
            return reader.read()["together"]  # type: ignore[no-any-return]  # JSON

        until(lambda: together()["stored"] == 8)
        (one,) = reader.read()["collectors"]
        assert (one["id"], one["ready"], one["away"]) == (collector.id(), True, False)
        assert together()["calls"] == together()["stored"] + together()["rejected"] == 9
        assert together()["rejected_by"] == {"unknown_event": 1}
        assert together()["consent_by"] == {"no_string": 8}
        assert together()["invalid_traffic_by"] == {"crawler_list": 1}
        assert together()["unreplaced"] == {"native": {"creative_id": 7}}
        assert one["placements_unreplaced"] == {"breakfast-uk": (8, 7)}
        assert (together()["resting"], together()["ready"], together()["away"]) == (0, 1, 0)
        key = collector.environment["AUDIOPIXEL_COLLECT_KEY"].encode()
        (ours,) = client.hgetall(f"{space}:collector_keys").items()
        assert ours[0] == Pseudonyms(key).key_ids[0]
        assert abs(int(ours[1]) / 1000 - time.time()) < 60
        collector.kill()
        collector.start()  # under another id, in whose place the one before shows no more
        until(lambda: [one["id"] for one in reader.read()["collectors"]] == [collector.id()])


def test_a_pasted_curl_line_shows_its_verdict(
    broker: EmbeddedBroker, valkey: EmbeddedValkey, client: Client, space: str, tmp_path: Path
) -> None:
    more = {"collect_figures": "true", "redis_url": valkey.url, "namespace": space}
    signing = {"collect_signing_keys": json.dumps({"a1": SECRET}), "collect_placements": "signed"}
    topic = new_topic(broker)
    with Collector(tmp_path / "spool", broker.bootstrap, topic, **more, **signing) as collector:
        collector.start()
        settings = settings_for(
            valkey,
            space,
            collect_url=f"http://127.0.0.1:{collector.port}",
            collect_signing_keys={"a1": SECRET},
        )
        line = curl(settings, {"placement": "my first's", "campaign": "$(id) & c"})
        said = subprocess.run(
            ["sh", "-c", line], capture_output=True, text=True, timeout=20, check=True
        ).stdout
        assert re.search(r"^x-audiopixel: stored; consent=no_string\r?$", said, re.MULTILINE), said
        wrong = line.replace("e=impression", "e=impresion")
        said = subprocess.run(
            ["sh", "-c", wrong], capture_output=True, text=True, timeout=20, check=True
        ).stdout
        assert "x-audiopixel: rejected; unknown_event; event=impresion; meant=impression" in said
        page = exporter(client, settings)
        until(lambda: len(page.get("/api/calls").json()["calls"]) == 2, 5)
        told = page.get("/api/calls").json()
        bad, good = told["calls"]
        assert (good["outcome"], good["placement"], good["campaign"]) == ("stored", "my first's", "$(id) & c")
        assert (bad["outcome"], bad["reason"], bad["event"], bad["meant"]) == (
            "rejected", "unknown_event", "impresion", "impression",
        )  # fmt: skip
        assert good["collector"] == collector.id()
        assert (told["events"], told["collectors"], told["error"]) == (2, 1, None)
        key = calls_key(space, collector.id())
        assert 0 < client.ttl(key) <= 600
        put_fields(client, {key: {"calls": "no JSON"}})
        time.sleep(1.1)
        broken = page.get("/api/calls").json()
        assert broken["error"]
        assert broken["calls"] == told["calls"]


def test_unverified_servers_are_listed_with_the_setting_for_them(
    broker: EmbeddedBroker, valkey: EmbeddedValkey, client: Client, space: str, tmp_path: Path
) -> None:
    more = {"collect_figures": "true", "redis_url": valkey.url, "namespace": space}
    more["collect_proxies"] = '["127.0.0.0/8"]'
    with Collector(tmp_path / "spool", broker.bootstrap, new_topic(broker), **more) as collector:
        collector.start()
        connection = HTTPConnection("127.0.0.1", collector.port, timeout=10)
        for number in range(AGENT_FROM + 5):
            for address, claim in ((f"35.180.1.{number}", {"X-Device-IP": "81.2.69.7"}), ("81.2.69.142", {})):
                headers = {"X-Forwarded-For": address, "User-Agent": "AcmeInserter/2 (eu-west)"} | claim
                connection.request("GET", f"/p?e=start&pl=a&id={address}-{number}", headers=headers)
                assert connection.getresponse().read()
        connection.request("GET", "/p?e=start&pl=a&ss=1", headers={"X-Forwarded-For": "2a02:c7c:1:2::3"})
        assert connection.getresponse().read()
        reader = Collectors(client, space)
        until(lambda: reader.read()["together"]["stored"] == 2 * AGENT_FROM + 11)
        assert reader.read()["together"]["invalid_traffic_by"] == {
            "unverified_server": AGENT_FROM + 5,
            "no_user_agent": 1,
        }
        assert reader.read()["together"]["unverified_servers"] == [
            {
                "network": "35.180.1.0/24",
                "agent": "AcmeInserter/2",
                "calls": AGENT_FROM + 5,
                "device_from": "x-device",
                "line": 'collect_servers."35.180.1.0/24" = "x-device"',
            },
            {
                "network": "2a02:c7c:1::/48",
                "agent": "",
                "calls": 1,
                "device_from": "query",
                "line": 'collect_servers."2a02:c7c:1::/48" = "query"',
            },
        ]
    for server in reader.read()["together"]["unverified_servers"]:
        (network,) = load(**tomllib.loads(server["line"])).collect_servers
        assert network == server["network"], "the line is one of audiopixel.toml"


def test_networks_of_claimants_are_bounded_and_the_loudest_stay() -> None:
    counted = UnverifiedServers()
    loud = Claimant("1.2.3.0/24", "Acme/1", "query")
    for _ in range(3):
        counted.count(loud)
    for number in range(20_000):
        counted.count(Claimant(f"net-{number}", "x", "x-device"))
        if number % 100 == 0:
            counted.count(loud if number % 300 else loud._replace(agent="Other/2"))
    assert len(counted._counted) <= MAX_NETWORKS
    first, *others = counted.worst()
    assert (first["network"], first["agent"], first["calls"]) == ("1.2.3.0/24", "Acme/1", 203)
    assert len(others) == 9
    assert {one["agent"] for one in others} == {""}, "of so few calls it may be a person's"


@pytest.mark.parametrize(
    ("agent", "shown"),
    [
        ("AcmeInserter/2 (kitchen)", "AcmeInserter/2"),
        ("Go-http-client/1.1", "Go-http-client/1.1"),
        (PLAYER, "Mozilla/5.0"),
        ("<script>alert(1)</script>", ""),
        ("x" * 1_000, "x" * 40),
        ("\ufffd", ""),
        ("", ""),
    ],
)
def test_of_a_user_agent_the_name_in_front_is_shown(agent: str, shown: str) -> None:
    where = Device(None, agent, "none", "claimed", "nobody", True, ip_address("35.180.1.1"))
    found = claimant_of(where, Call("GET", "/p", "", {}, b"", "", 0), None)
    assert found == ("35.180.1.0/24", shown, "query")


def test_an_unresponsive_collector_is_away_with_its_last_figures(client: Client, space: str) -> None:
    now_ms = int(time.time() * 1000)
    put_fields(client, {f"{space}:collectors": {"a": str(now_ms), "b": str(now_ms)}})
    for name in "ab":
        fields = {"id": name, "updated_ms": str(now_ms), "calls": "3", "resting": "2", "ready": "1"}
        put_fields(client, {f"{space}:collector:{{{name}}}": fields})
    at = now_ms + STALE_MS + 1
    found = Collectors(client, space, lambda: at).read()
    assert [one["away"] for one in found["collectors"]] == [True, True]
    together = found["together"]
    assert (together["calls"], together["away"], together["ready"]) == (6, 2, 0)
    # An absent figure is not known.
    assert (together["refused"], together["spool_full_ratio"]) == (None, None)
    assert found["collectors"][0]["refused"] is None
    assert found["archive"] is None
    put_fields(client, {f"{space}:archive": {"through_ms": "12345", "missing": "0"}})
    archive = Collectors(client, space).read()["archive"]
    assert archive == {"through_ms": 12345, "missing": 0, "unreadable": None, "updated_ms": None}
    assert found["hold"] is None
    put_fields(client, {f"{space}:meta": {"held_since_ms": "12345", "held_by": "a"}})
    assert Collectors(client, space).read()["hold"] == {"since_ms": 12345, "by": "a", "why": "drain"}
    put_fields(client, {f"{space}:meta": {"held_why": "clock"}})
    assert Collectors(client, space).read()["hold"] == {"since_ms": 12345, "by": "a", "why": "clock"}


def test_an_invalid_figure_is_an_error_without_an_exception(client: Client, space: str) -> None:
    put_fields(client, {f"{space}:collectors": {"a": "never"}})
    found = Collectors(client, space).read()
    assert found["error"]
    assert found["collectors"] == []


def test_a_tag_that_never_fires_is_silent_until_it_fires(
    broker: EmbeddedBroker,
    valkey: EmbeddedValkey,
    client: Client,
    space: str,
    door: Door,
    tmp_path: Path,
) -> None:
    page = exporter(client, settings_for(valkey, space, **door))
    asked = {"dialect": "native", "placement": "breakfast-uk", "campaign": "spring"}
    built = page.post("/api/tag", json=asked).json()
    assert page.post("/api/tag", json=asked | {"placement": "evening"}).status_code == 200
    assert [tag["event"] for tag in built["tags"]][:2] == ["impression", "start"]
    assert '<Tracking event="start">' in built["vast"]

    def silent() -> list[str]:
        at = int(time.time() * 1000) + SILENT_MS
        return [one["placement"] for one in Collectors(client, space, lambda: at).read()["silent_tags"]]

    assert Collectors(client, space).read()["silent_tags"] == []
    assert silent() == ["breakfast-uk", "evening"]
    put_fields(client, {f"{space}:placement:{{evening}}": {"delivery.state": "not_started"}})
    assert silent() == ["breakfast-uk"]
    more = {"collect_figures": "true", "redis_url": valkey.url, "namespace": space}
    with Collector(tmp_path / "spool", broker.bootstrap, new_topic(broker), **more) as collector:
        collector.start()
        with calling(collector.port, PLAYER) as call:
            assert call("one") == 200
        until(lambda: silent() == [])


def fire(instruments: Instruments, names: Iterable[str]) -> None:
    instruments.count([Understood(Outcome.STORED, event={"placement_id": name}) for name in names])


def test_a_placement_has_fired_however_many_have_before_it() -> None:
    instruments = Instruments(Ledger())
    fire(instruments, (f"p-{number}" for number in range(MAX_PLACEMENTS)))
    instruments.fired.clear()
    fire(instruments, ["late", "p-1"])
    assert instruments.fired == {"late", "p-1"}


def test_unreportable_placements_wait_in_bounded_memory() -> None:
    instruments = Instruments(Ledger())
    fire(instruments, (f"p-{number}" for number in range(MAX_FIRED + 1)))
    fired = instruments.take_fired()
    assert (len(fired), len(instruments.fired)) == (MAX_FIRED, 0)
    fire(instruments, ["late"])
    instruments.put_back(fired)
    assert (len(instruments.fired), "late" in instruments.fired) == (MAX_FIRED, True)


def test_unreplaced_macros_of_a_tag_are_reported_and_a_metric(
    client: Client, valkey: EmbeddedValkey, space: str
) -> None:
    now = str(int(time.time() * 1000))
    put_fields(client, {f"{space}:collectors": {"a": now}})
    fires = json.dumps({"wrong": [40, 30], "some": [40, 3], "young": [5, 5]})
    fields = {"id": "a", "updated_ms": now, "placements_unreplaced": fires}
    put_fields(client, {f"{space}:collector:{{a}}": fields})
    page = exporter(client, settings_for(valkey, space))
    (silent,) = page.get("/api/collectors").json()["silent_tags"]
    assert silent == {"placement": "wrong", "why": "unreplaced", "fires": 40, "unreplaced": 30}
    families = text_string_to_metric_families(page.get("/metrics").text)
    found = {
        sample.labels["why"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name == "audiopixel_silent_tags"
    }
    assert found == {"never_fired": 0, "unreplaced": 1}


def test_platforms_are_listed_busiest_first_and_as_metrics(
    client: Client, valkey: EmbeddedValkey, space: str
) -> None:
    now = str(int(time.time() * 1000))
    put_fields(client, {f"{space}:collectors": {"a": now, "b": now}})
    for id, fires in (("a", {"Acast": [30, 3], 'odd"\\n': [1, 1]}), ("b", {"Acast": [10, 1]})):
        fields = {"id": id, "updated_ms": now, "platforms_unreplaced": json.dumps(fires)}
        put_fields(client, {f"{space}:collector:{{{id}}}": fields})
    rows = {
        "Acast": {"flight.impressions": "100", "1d.start_share": "0.9", "flight.delay_p50_seconds": "0.5"},
        'odd"\\n': {"flight.impressions": "200", "1d.play_id_share": "0"},
    }
    for name, row in rows.items():
        put_fields(client, {f"{space}:platform:{{{name}}}": row})
        client.zadd(f"{space}:index:platform", {name: 1})
    page = exporter(client, settings_for(valkey, space))
    assert page.get("/api/platforms").json() == {
        "error": None,
        "platforms": [
            {"platform": 'odd"\\n', **rows['odd"\\n'], "unreplaced_share": "1.000000"},
            {"platform": "Acast", **rows["Acast"], "unreplaced_share": "0.100000"},
        ],
    }
    found = {
        (sample.name, sample.labels["platform"]): sample.value
        for family in text_string_to_metric_families(page.get("/metrics").text)
        for sample in family.samples
        if sample.name.startswith("audiopixel_platform_")
    }
    assert found == {
        ("audiopixel_platform_start_ratio", "Acast"): 0.9,
        ("audiopixel_platform_delay_median_seconds", "Acast"): 0.5,
        ("audiopixel_platform_unreplaced_macro_ratio", "Acast"): 0.1,
        ("audiopixel_platform_play_id_ratio", 'odd"\\n'): 0.0,
        ("audiopixel_platform_unreplaced_macro_ratio", 'odd"\\n'): 1.0,
    }


def test_the_page_builds_and_checks_the_tags_that_the_command_does(
    client: Client, valkey: EmbeddedValkey, space: str, door: Door
) -> None:
    page = exporter(client, settings_for(valkey, space, **door))
    choices = page.get("/api/tag").json()
    assert choices["signs"]
    assert "triton" in {one["name"] for one in choices["dialects"]}
    asked = {"dialect": "triton", "placement": "breakfast-uk", "campaign": "spring", "events": "start"}
    built = page.get("/api/tag", params=asked).json()
    (url,) = [tag["url"] for tag in built["tags"]]
    signature = Signatures({"a1": SECRET.encode()}).of_tag("breakfast-uk", "spring")
    assert url.startswith("https://pixels.example.com/p/triton?e=start&pl=breakfast-uk")
    assert f"k={signature}" in url
    good = page.get("/api/tag", params={"check": url}).json()
    assert (good["outcome"], good["good"]) == ("stored", True)
    changed = page.get("/api/tag", params={"check": url.replace("breakfast", "evening")}).json()
    assert (changed["reason"], changed["good"]) == ("unsigned", False)
    snippet = page.get("/api/tag", params={"conversion": "purchase", "campaign": "spring"}).json()
    assert "sendBeacon" in snippet["snippet"]
    assert read_rows(client, [f"{space}:tags"]) == [{}]  # who only asks notes nothing


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"dialect": "nobody", "placement": "a"}, 400),
        ({"placement": "x" * 5_000}, 400),
        ({"conversion": "bought"}, 400),
        (
            {"dialect": "megaphone", "placement": "a", "events": "start,midpoint,complete,skip,mute,click"},
            400,
        ),
    ],
)
def test_a_tag_that_cannot_be_built_is_explained(
    client: Client,
    valkey: EmbeddedValkey,
    space: str,
    door: Door,
    asked: dict[str, str],
    status: int,
) -> None:
    answer = exporter(client, settings_for(valkey, space, **door)).post("/api/tag", json=asked)
    assert answer.status_code == status
    assert len(answer.json()["error"]) > 20


def test_a_body_without_a_form_is_refused(
    client: Client, valkey: EmbeddedValkey, space: str, door: Door
) -> None:
    page = exporter(client, settings_for(valkey, space, **door))
    assert page.post("/api/tag", content=b"[1]").status_code == 400
    assert page.post("/api/tag", content=b"x" * 70_000).status_code == 413


def test_a_rejected_impression_counts_in_its_placements_day(
    broker: EmbeddedBroker, valkey: EmbeddedValkey, client: Client, space: str, tmp_path: Path
) -> None:
    more = {"collect_figures": "true", "redis_url": valkey.url, "namespace": space}
    more |= {"collect_placements": "signed", "collect_signing_keys": json.dumps({"a1": SECRET})}
    put_fields(client, {f"{space}:placement:{{breakfast-uk}}": {"rev": "1"}})
    with Collector(tmp_path / "spool", broker.bootstrap, new_topic(broker), **more) as collector:
        collector.start()
        with calling(collector.port, PLAYER) as call:
            for number in range(3):
                assert call(f"e{number}", e="impression") == 200

        def days() -> list[Any]:
            return list(client.scan_iter(f"{space}:door:*"))

        until(lambda: bool(days()))
        (key,) = days()
        day = datetime.now(load().zone).date().isoformat()
        assert key == door_key(space, "breakfast-uk", day)
        ((field, count),) = client.hgetall(key).items()
        assert (field.partition("/")[0], count) == ("unsigned", "3")
        assert 61 * 86_400 < client.ttl(key) <= 62 * 86_400


def test_a_collector_forgets_days_that_no_call_can_change() -> None:
    refusals, day_ms = Refusals(ZoneInfo("UTC")), 86_400_000
    for day in range(400):
        now_ms = 1_790_000_000_000 + day * day_ms
        for ts in (now_ms, now_ms - day_ms):
            event = {"event": "impression", "placement_id": "p", "ts": ts, "received_at": now_ms}
            refusals.count([Understood(Outcome.REJECTED, "unsigned", event=event)])
        told = refusals.take()
        refusals.written(told, list(told.without_row))
    assert [*by_day(told.with_row["p"]).values()][-3:] == [{"unsigned": 2}, {"unsigned": 2}, {"unsigned": 1}]
    assert len(told.with_row["p"]) <= 4
