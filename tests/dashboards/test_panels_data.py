"""Every query of every panel, and every variable, gives data from a Prometheus that scraped what really runs.

A flow replays a log into Valkey; the exporter that reads it and the flow's own registry are scraped. What a
log cannot give is added: delivery and windows of today in one placement's row, a live partition's latencies.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import generate_latest
from prometheus_support import GENERATED, Site, eventually, exporter, prometheus, scrape
from redis import Redis

from connectors.embedded import EmbeddedValkey
from dashboards import queries
from dashboards.rules import COLLECTOR_JOB, EXPORTER_JOB, FLOW_JOB, PLACEMENTS_JOB
from dashboards.site import USUAL_SITE
from flows.instruments import instruments
from flows.metrics import RECEIVED, Definition
from flows.model.redis_keys import collectors_key, row_key
from flows.process_metrics import COLLECT, EXPORT
from flows.replay import replay
from flows.settings.loading import load
from flows.viewers.series import FIELDS

pytestmark = pytest.mark.debian

LOG = str(Path(__file__).parents[1] / "data" / "adversarial.ndjson.gz")
KEY = b"a key of a test!"
BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted(GENERATED.glob("*.json"))}
TARGETS = [
    pytest.param(panel, target, id=f"{name}: {panel['title']} {target['refId']}")
    for name, board in BOARDS.items()
    for panel in board["panels"]
    for target in panel.get("targets", [])
]
VARIABLES = [
    pytest.param(variable["query"], id=f"{name}: {variable['name']}")
    for name, board in BOARDS.items()
    for variable in board["templating"]["list"]
    if variable["type"] == "query"
]
PLANNED = {
    "5m.mature_completion_rate": "0.81",
    "1h.mature_completion_rate": "0.8",
    "flight.conversions": "3",
    "flight.conversion_value": "42000000",
    "flight.conversion_value_claimed": "7000000",
    "flight.blocked_impressions": "2",
    "flight.conversions_by_household": "1",
    "flight.conversions_claimed": "2",
    "flight.conversions_confirmed": "1",
    "flight.household_reach": "812",
    "flight.downloads_calendar": "9",
    "flight.downloads_first_touch": "7",
    "flight.downloads_last_touch": "6",
    "flight.deliveries_calendar": "12",
    "flight.deliveries_first_touch": "11",
    "flight.deliveries_last_touch": "8",
    "delivery.booked": "40000",
    "delivery.expected": "9000",
    "delivery.indicator": "0.66",
    "delivery.delivered": "5940",
    "delivery.projected": "26000",
    "delivery.required_rate": "1440",
    "delivery.state": "under",
    "delivery.judged": "1",
    "delivery.target_completion_rate": "0.75",
    "flight.cost_per_acquisition": "12.5",
    "flight.cost": "74.25",
    "delivery.short_by": "3060",
    "delivery.since_ms": "1764000000000",
    "delivery.end_ms": "1795000000000",
    "delivery.cpm": "12.5",
    "delivery.at_stake": "38.25",
    "delivery.currency": "GBP",
}


def collected(began_s: float) -> bytes:
    """A collector's and an export's /metrics by their definitions: what counts grows by ten a second."""
    lines = []
    grown = 10 * (time.time() - began_s)
    for one in (*COLLECT, *EXPORT):
        outcome = "rejected" if "sender" in one.labels else "stored"
        told = {"outcome": outcome, "reason": "given", "how": "unreplaced"}
        labels = ",".join(f'{name}="{told.get(name, "x")}"' for name in one.labels)
        value = grown if one.kind == "counter" else 0.2
        lines.append(f"# TYPE {one.name} {one.kind}")
        if one.kind == "histogram":
            buckets = [f'{one.name}_bucket{{{labels},le="{bound}"}} {grown}' for bound in ("0.1", "+Inf")]
            lines += [*buckets, *(f"{one.name}_{part}{{{labels}}} {grown}" for part in ("sum", "count"))]
        else:
            lines.append(f"{one.name}{{{labels}}} {value}")
    return "\n".join([*lines, ""]).encode()


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, str]]:
    """A Prometheus that has scraped the stack for some seconds, and the placement with a plan."""
    directory = tmp_path_factory.mktemp("prometheus")
    metrics = instruments()
    with ExitStack() as stack:
        valkey = stack.enter_context(EmbeddedValkey())
        replay([LOG], load(redis_url=valkey.url), KEY)
        with Redis.from_url(valkey.url, decode_responses=True) as redis:
            names = redis.zrange("audiopixel:v1:index:placement", 0, -1)
            rows = {name: redis.hgetall(f"audiopixel:v1:placement:{{{name}}}") for name in names}
            planned = max(rows, key=lambda name: int(rows[name]["flight.starts"]))
            assert set(PLANNED) <= set(FIELDS)
            redis.hset(f"audiopixel:v1:placement:{{{planned}}}", mapping=PLANNED)
            campaign = rows[planned]["campaign_id"]
            redis.hset(f"audiopixel:v1:campaign:{{{campaign}}}", mapping=PLANNED)
            (platform,) = redis.zrange("audiopixel:v1:index:platform", 0, 0)
            macros = {"id": "c1", "platforms_unreplaced": json.dumps({platform: [100, 7]})}
            redis.hset(row_key("audiopixel:v1", "collector", "c1"), mapping=macros)
            redis.hset(collectors_key("audiopixel:v1"), "c1", 1)
            port = stack.enter_context(exporter(valkey.url, directory))
            flow = stack.enter_context(Site(lambda *_: (200, generate_latest(metrics.registry))))
            began_s = time.time()
            door = stack.enter_context(Site(lambda *_: (200, collected(began_s))))
            metrics.redis_errors.labels("timeout").inc()
            (directory / "rules.yml").write_text(re.sub(r"\n    for: \w+", "", USUAL_SITE.rules))
            config = {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(directory / "rules.yml")],
                "scrape_configs": [
                    scrape(FLOW_JOB, flow.port),
                    scrape(PLACEMENTS_JOB, port, "/metrics/placements"),
                    scrape(EXPORTER_JOB, port),
                    scrape(COLLECTOR_JOB, door.port),
                ],
            }
            client = stack.enter_context(prometheus(directory, config))
            eventually(lambda: values(client, "count(up == 1) == 4"))
            # Once more, elsewhere, so that the flow's counters move while they are scraped.
            metrics.redis_errors.labels("timeout").inc()
            replay([LOG], load(redis_url=valkey.url, namespace="again:v1"), KEY)
            metrics.event_to_redis.observe(0.4, 1000)
            for name, more in {"flight.blocked_impressions": 1, "flight.starts": 100, "rev": 1}.items():
                redis.hincrby(f"audiopixel:v1:placement:{{{planned}}}", name, more)
            moved = "rate(audiopixel_event_to_redis_seconds_count[15s]) > 0"
            eventually(lambda: values(client, moved) and values(client, 'ALERTS{area="pipeline"}'))
            time.sleep(2)
            yield client, planned


def values(client: httpx.Client, query: str) -> list[dict[str, Any]]:
    """The values of an instant query, without NaN."""
    found = client.get("/api/v1/query", params={"query": query}).raise_for_status().json()["data"]["result"]
    return [series for series in found if not math.isnan(float(series["value"][1]))]


def chosen(text: str, placement: str) -> str:
    """The dashboard's variables as they are at first, and a placement."""
    for name, value in {
        "$__rate_interval": "15s",
        "$job": ".+",
        "$instance": ".+",
        "$campaign": ".*",
        "$platform": ".*",
        "$station": ".*",
        " offset 1d": "",
        "$placement": placement,
    }.items():
        text = text.replace(name, value)
    assert "$" not in text
    return text


@pytest.mark.parametrize(("panel", "target"), TARGETS)
def test_a_panel_has_data(
    panel: dict[str, Any], target: dict[str, Any], asked: tuple[httpx.Client, str]
) -> None:
    client, placement = asked
    query = chosen(target["expr"], placement)
    assert values(client, query), query
    if not target["instant"]:
        now_s = time.time()
        span = {"query": query, "start": now_s - 5, "end": now_s, "step": 1}
        answer = client.get("/api/v1/query_range", params=span).raise_for_status().json()
        assert answer["data"]["result"]
    for label in re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")):
        assert all(series["metric"].get(label) for series in values(client, query)), label


@pytest.mark.parametrize(("panel", "target"), TARGETS)
def test_a_panel_without_scrapes_is_empty_instead_of_zero(
    panel: dict[str, Any], target: dict[str, Any], asked: tuple[httpx.Client, str]
) -> None:
    client, placement = asked
    if "ALERTS" not in target["expr"]:
        assert values(client, chosen(target["expr"].replace("$instance", "nowhere"), placement)) == []


def test_a_share_of_an_absent_counter_is_0(asked: tuple[httpx.Client, str]) -> None:
    client, placement = asked
    never = Definition("audiopixel_never_total", "counter", "Nothing.")
    for part, found in ((never, ["0"]), (RECEIVED, ["1"])):
        assert [
            s["value"][1] for s in values(client, chosen(queries.share(part, RECEIVED), placement))
        ] == found
    assert values(client, chosen(queries.share(RECEIVED, never), placement)) == []


@pytest.mark.parametrize("query", VARIABLES)
def test_a_variable_has_values(query: str, asked: tuple[httpx.Client, str]) -> None:
    client, placement = asked
    match = re.fullmatch(r"label_values\((.+), (\w+)\)", query)
    assert match
    found = values(client, f"count by ({match[2]}) ({chosen(match[1], placement)})")
    assert [series for series in found if series["metric"].get(match[2])]


@pytest.mark.parametrize("name", BOARDS)
def test_every_column_of_a_table_has_a_field(name: str, asked: tuple[httpx.Client, str]) -> None:
    client, placement = asked
    for panel in BOARDS[name]["panels"]:
        if panel["type"] != "table":
            continue
        letters = {f"Value #{target['refId']}" for target in panel["targets"]}
        if len(panel["targets"]) == 1:
            letters = {"Value"}
        labels = {
            label
            for target in panel["targets"]
            for series in values(client, chosen(target["expr"], placement))
            for label in series["metric"]
        }
        (organize,) = (t["options"] for t in panel["transformations"] if t["id"] == "organize")
        # Alerts of one kind have no label of another.
        optional = {"job", "campaign", "placement"} if "Alerts" in panel["title"] else set()
        assert set(organize["renameByName"]) <= labels | letters | optional


@pytest.mark.parametrize(
    ("panel", "target"),
    [param for param in TARGETS if "_placement_delivery_delivered" in param.values[1]["expr"]],
)
def test_delivered_counts_for_the_plan_and_without_one_is_all_impressions(
    panel: dict[str, Any], target: dict[str, Any], asked: tuple[httpx.Client, str]
) -> None:
    client, planned = asked
    counted = {
        series["metric"]["placement"]: series["value"][1]
        for series in values(client, "audiopixel_placement_impressions_total")
    }
    assert counted[planned] != PLANNED["delivery.delivered"]
    unplanned = min(counted.keys() - {planned})
    for placement, wanted in ((planned, PLANNED["delivery.delivered"]), (unplanned, counted[unplanned])):
        shown = values(client, chosen(target["expr"], placement))
        assert [s["value"][1] for s in shown if s["metric"].get("placement", placement) == placement] == [
            wanted
        ]
