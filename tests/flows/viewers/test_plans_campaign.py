"""A planned placement is of its plan's campaign, in all views, whatever its latest pixel names."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from board_support import put_rows
from typer.testing import CliRunner

from connectors.embedded import EmbeddedValkey
from connectors.redis import connect
from flows.cli.commands import app
from flows.viewers import feed
from flows.viewers.access import Owner, Owners
from flows.viewers.feed import FIELDS, Feed
from flows.viewers.page import plain_table
from flows.viewers.reader import RowsReader

NODE = shutil.which("node")
PAGE = Path(feed.__file__).parent / "static"
SHORT = {
    "delivery.state": "under",
    "delivery.judged": "1",
    "delivery.short_by": "1000",
    "delivery.booked": "9000",
    "delivery.currency": "GBP",
}
ROWS = {
    "p": {**SHORT, "delivery.cpm": "20", "campaign_id": "forged"},
    "q": {**SHORT, "delivery.cpm": "30", "campaign_id": "spring"},
    "acmes": {**SHORT, "delivery.cpm": "40", "campaign_id": "spring"},
    "unplanned": {"flight.impressions": "5", "campaign_id": "heard"},
}
PLANS = [
    Owner("p", "spring", None),
    Owner("q", "spring", None),
    Owner("acmes", None, "acme"),
    Owner("none", "c", None),
]
CAMPAIGNS = {"p": "spring", "q": "spring", "acmes": None, "unplanned": "heard"}
HEAD = "placement_id,campaign_id,advertiser,start,end,booked,timezone\n"
FLIGHT = "2026-11-01T00:00:00,2026-12-30T00:00:00,9000,UTC\n"


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        put_rows(server.url, "t", ROWS)
        put_rows(
            server.url,
            "t",
            {"spring": {**SHORT, "delivery.at_stake": "50"}, "forged": {"flight.impressions": "1"}},
            "campaign",
        )
        yield server


def watched(url: str, owners: Owners | None) -> Feed:
    scopes = ("placement", "campaign")
    view = Feed(RowsReader(connect(url), "t", FIELDS, scopes=scopes, interval=timedelta(0)), owners=owners)
    view.tick(watched=True)
    return view


def campaigns(event: bytes) -> dict[str, Any]:
    rows = json.loads(event.partition(b"data: ")[2])["rows"]["placement"]
    return {name: cells[FIELDS.index("campaign_id")] for name, cells in rows.items()}


def test_the_page_follows_changed_campaigns_of_plans(
    valkey: EmbeddedValkey,
) -> None:
    plans = [PLANS]
    owners = Owners(lambda: plans.pop() if plans else None)
    view = watched(valkey.url, owners)
    assert campaigns(view.whole()[1]) == {name: row["campaign_id"] for name, row in ROWS.items()}
    owners.refresh()
    view.tick(watched=True)
    change = json.loads(view.everything.latest[1].partition(b"data: ")[2])["rows"]["placement"]
    at = str(FIELDS.index("campaign_id"))
    assert change == {"p": {at: "spring"}, "acmes": {at: None}}
    assert campaigns(view.whole()[1]) == CAMPAIGNS
    opened = view.row("placement", "p", "1h")
    assert opened is not None
    assert opened["row"]["campaign_id"] == "spring"
    assert "forged" not in plain_table(view)


def test_the_page_sums_a_campaigns_money_at_stake_by_plans(valkey: EmbeddedValkey) -> None:
    if NODE is None:
        pytest.skip("needs node: apt-get install nodejs")
    owners = Owners(lambda: PLANS)
    owners.refresh()
    whole = watched(valkey.url, owners).whole()[1].partition(b"data: ")[2].decode()
    script = f"""import {{ all, desk, stake }} from "file://{PAGE}/data.js";
        all({whole}); console.log(JSON.stringify(stake(desk.rows.campaign.get("spring"))));"""
    done = subprocess.run([NODE, "--input-type=module", "-e", script], capture_output=True, text=True)
    assert json.loads(done.stdout or done.stderr) == 50


def test_top_sums_a_campaigns_money_at_stake_by_plans(
    valkey: EmbeddedValkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = tmp_path / "plans.csv"
    plans.write_text(f"{HEAD}p,spring,,{FLIGHT}q,spring,,{FLIGHT}acmes,,acme,{FLIGHT}")
    for name, value in {"REDIS_URL": valkey.url, "NAMESPACE": "t", "PLANS": str(plans)}.items():
        monkeypatch.setenv(f"AUDIOPIXEL_{name}", value)
    told = CliRunner().invoke(app, ["top", "--campaigns", "--once"])
    assert told.exit_code == 0, told.output
    (spring,) = (line for line in told.output.splitlines() if "spring" in line)
    assert "50.00" in spring
    (forged,) = (line for line in told.output.splitlines() if "forged" in line)
    assert "20.00" not in forged
