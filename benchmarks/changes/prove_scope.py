"""The change `scope` is whole: a market is read, counted, published, shown, exported and documented."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from connectors.redis import read_rows
from connectors.redis.client import Client
from flows.archive.whole_hours import TEXTS
from flows.cli.commands import app
from flows.cli.reconcile_settings import rules
from flows.methodology import methodology
from flows.reconcile.comparison import differences
from flows.reconcile.recomputation import recompute
from flows.replay import replay
from flows.settings import Settings, load
from flows.simulate.scenario import new_placements
from flows.viewers.feed import FIELDS, SCOPES, Feed
from flows.viewers.reader import RowsReader

START_MS = 29_000_000 * 60_000
DOCS = Path(__file__).parents[2] / "docs"
KEY = b"a key of a test!"
PLANS = """placement_id,booked,start,end,markets
p,100,2025-01-01T00:00Z,2025-12-31T00:00Z,north;east
"""


def line(number: int, pixel: tuple[str, str | None]) -> str:
    event, market = pixel
    at_ms = START_MS + 1_000 * number
    found = {
        "event_id": f"e-{number}",
        "event": event,
        "ts": at_ms,
        "received_at": at_ms,
        "placement_id": "p",
        "play_id": f"play-{number // 2}",
        "market": market,
    }
    return json.dumps(found) + "\n"


def replayed(settings: Settings, directory: Path) -> Path:
    """A log of two plays in the north, one in the south, and one nowhere, replayed."""
    log = directory / "log.ndjson"
    markets = ("north", "south", "north", "[MARKET]")
    pixels = [(event, market) for market in markets for event in ("impression", "start")]
    log.write_text("".join(map(line, range(len(pixels)), pixels)))
    replay([str(log)], settings, KEY, out=directory / "out")
    return log


def test_a_market_has_a_row_that_the_oracle_finds_too(
    settings_of: Callable[..., Settings], client: Client, rows_of: Callable[..., Any], tmp_path: Path
) -> None:
    settings = settings_of()
    log = replayed(settings, tmp_path)
    starts = {name: row["flight.starts"] for name, row in rows_of(settings, "market").items()}
    assert starts == {"north": "2", "south": "1"}
    (row,) = read_rows(client, [f"{settings.namespace}:placement:{{p}}"])
    assert (row["flight.starts"], row["market"]) == ("4", "north"), "the latest that says one"
    assert not differences(recompute([log], rules(settings)), client, settings.namespace)
    client.hset(f"{settings.namespace}:market:{{north}}", "flight.starts", "3")
    found = differences(recompute([log], rules(settings)), client, settings.namespace)
    assert any("market" in str(one) for one in found), "the oracle compares rows of markets"


def test_markets_count_that_plans_list(
    settings_of: Callable[..., Settings], client: Client, rows_of: Callable[..., Any], tmp_path: Path
) -> None:
    plans = tmp_path / "plans.csv"
    plans.write_text(PLANS)
    settings = settings_of(plans=plans, labels="planned")
    log = replayed(settings, tmp_path)
    assert set(rows_of(settings, "market")) == {"north"}
    assert not differences(recompute([log], rules(settings)), client, settings.namespace)


def test_viewers_show_a_market(settings_of: Callable[..., Settings], client: Client, tmp_path: Path) -> None:
    settings = settings_of()
    replayed(settings, tmp_path)
    paths = ("/v1/markets/north", "/v1/placements/p", "/v1/openapi.json")
    support: Any = import_module("access_support")
    calls = (("GET", path, support.bearer("all")) for path in paths)
    row, placement, document = support.asked(support.app_of(settings, support.access()), *calls)
    assert (row.json()["scope"], row.json()["fields"]["flight.starts"]) == ("market", 2)
    assert placement.json()["fields"]["market"] == "north"
    assert "/v1/markets/{id}" in document.json()["paths"]
    board = RowsReader(client, settings.namespace, FIELDS, scopes=SCOPES, interval=timedelta(0))
    feed = Feed(board)
    feed.tick()
    shown = json.loads(feed.whole()[1].partition(b"data: ")[2])
    assert "market" in shown["labels"]
    assert "north" in shown["rows"]["placement"]["p"]


def test_a_tag_names_a_market_and_signs_it() -> None:
    made = CliRunner().invoke(
        app,
        ["tag", "--placement", "p", "--campaign", "c", "--market", "north", "--base", "https://px.example"],
        env={"AUDIOPIXEL_COLLECT_SIGNING_KEYS": '{"a1": "a signing key of a test"}'},
    )
    assert made.exit_code == 0, made.output
    assert all("mk=north" in url for url in made.stdout.split())


def test_a_market_is_archived_simulated_and_documented() -> None:
    assert "market" in TEXTS
    assert {"market-0", "market-1"} <= {place.labels["market"] for place in new_placements(8)}
    assert "market" in methodology(load(labels="planned", plans=Path("plans.csv"))).rules["rows"]
    for name, words in (
        ("pixels.md", "| `market` |"),
        ("plans.md", "| `markets` |"),
        ("contracts.md", "program market creative`"),
        ("collector.md", "| `mk` | `market` |"),
        ("sources.md", "program market creative_id`"),
        ("privacy.md", "`market`"),
        ("pixels.schema.json", '"market": {'),
    ):
        assert words in (DOCS / name).read_text(), name
