"""A desk for the tests of the live page: rows by hand as the contract lays them out, an exporter in a thread,
and axe-core where npm can bring it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import uvicorn
from board_support import eventually, free_port
from browser_support import Browser
from reader_support import signed_in
from redis import Redis

from connectors.redis import connect
from flows.viewers.exporter import create_app
from flows.viewers.feed import SCOPES
from flows.viewers.reader import RowsReader
from flows.viewers.series import FIELDS

AXE = "axe-core@4.14.1"
NO_AXE = f"needs npm and its registry for {AXE}; or AXE_CORE=FILE names its axe.min.js"
HOUR_MS = 3_600_000


@cache
def axe() -> str | None:
    """The source of axe-core, or None where it cannot be had."""
    if named := os.environ.get("AXE_CORE"):
        return Path(named).read_text()
    if (npm := shutil.which("npm")) is None:
        return None
    with tempfile.TemporaryDirectory(prefix="axe-") as folder:
        install = [npm, "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", AXE]
        try:
            subprocess.run(install, cwd=folder, check=True, timeout=120, capture_output=True)
        except (subprocess.SubprocessError, OSError):
            return None
        return (Path(folder) / "node_modules" / "axe-core" / "axe.min.js").read_text()


def axe_findings(browser: Browser, source: str) -> list[Any]:
    """Serious and critical violations of WCAG 2.2 AA, with the elements."""
    browser.js(f"{source}; 0")
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    report = json.loads(browser.js(f"axe.run({{runOnly: {json.dumps(tags)}}}).then(JSON.stringify)"))
    assert len(report["passes"]) > 15, "it has looked"
    return [
        (one["id"], [(node["target"], node["failureSummary"][:300]) for node in one["nodes"][:3]])
        for one in report["violations"]
        if one["impact"] in ("serious", "critical")
    ]


def planned(
    state: str, pacing: float, booked: int, now_ms: int, cpm: float = 10.0, **more: Any
) -> dict[str, Any]:
    """A row halfway through its flight of 48 hours."""
    due = booked / 2
    delivered = int(due * pacing)
    return {
        "delivery.state": state,
        "delivery.judged": 1,
        "delivery.since_ms": now_ms - HOUR_MS,
        "delivery.indicator": f"{pacing:.6f}",
        "delivery.booked": booked,
        "delivery.delivered": delivered,
        "delivery.expected": f"{due:.6f}",
        "delivery.short_by": f"{max(0.0, due - delivered):.6f}",
        "delivery.projected": int(booked * pacing),
        "delivery.at_stake": f"{max(0.0, due - delivered) * cpm / 1000:.6f}",
        "delivery.at_stake_end": f"{max(0, booked - int(booked * pacing)) * cpm / 1000:.6f}",
        "delivery.required_rate": f"{(booked - delivered) / 24:.6f}",
        "delivery.start_ms": now_ms - 24 * HOUR_MS,
        "delivery.end_ms": now_ms + 24 * HOUR_MS,
        "delivery.remaining_seconds": 86_400,
        "delivery.cpm": cpm,
        "delivery.currency": "GBP",
        "flight.cost": f"{delivered * cpm / 1000:.6f}",
        "flight.impressions": delivered,
        "flight.starts": 200,
        "flight.first_quartiles": 160,
        "flight.completes": 100,
        "flight.repeated": 11,
        "flight.blocked_impressions": 0,
        "1h.impressions": delivered // 24,
        "1h.mature_completion_rate": "0.871",
        "flight.reach": 100,
        "flight.frequency": "2.4",
        "as_of_ms": now_ms - 10_000,
        "final_through_ms": now_ms - 700_000,
        **more,
    }


def desk_rows(now_ms: int) -> dict[str, dict[str, Any]]:
    """Placements of three campaigns: one in blocked content, two under, the lesser has more at stake."""
    return {
        "starved": planned("under", 0.25, 2_000, now_ms, campaign_id="c-7", platform="Acast"),
        "costly": planned("under", 0.88, 2_000_000, now_ms, 18.0, campaign_id="c-7", platform="Spotify"),
        "good": planned("on_track", 1.0, 4_000, now_ms, campaign_id="c-8", platform="Spotify"),
        "unsafe": planned(
            "on_track",
            1.01,
            8_000,
            now_ms,
            campaign_id="c-8",
            platform="Acast",
            **{"flight.blocked_impressions": 12},
        ),
        "young": planned("warming_up", 1.02, 4_000, now_ms, campaign_id="c-9", platform="Triton"),
        "unplanned": {"flight.impressions": 5_000, "campaign_id": "c-9", "platform": "Triton"},
    }


def put_desk(url: str, namespace: str, rows: Mapping[str, Mapping[str, Any]], now_ms: int) -> None:
    """Write rows, their campaigns, a creative, an app, an alert of each that is under, and a fresh `meta`."""
    with Redis.from_url(url) as client, client.pipeline(transaction=False) as pipe:
        for name, row in rows.items():
            pipe.hset(f"{namespace}:placement:{{{name}}}", mapping=dict(row))
            pipe.zadd(f"{namespace}:index:placement", {name: 1})
        for name in {str(row["campaign_id"]) for row in rows.values() if "campaign_id" in row}:
            row = planned("on_track", 0.97, 10_000, now_ms)
            of = [one for one in rows.values() if one.get("campaign_id") == name and "delivery.cpm" in one]
            one_currency = len({one["delivery.currency"] for one in of}) == 1
            for stake in ("delivery.at_stake", "delivery.at_stake_end"):
                del row[stake]
                if one_currency:
                    row[stake] = f"{sum(float(one[stake]) for one in of):.6f}"
            pipe.hset(f"{namespace}:campaign:{{{name}}}", mapping=row)
            pipe.zadd(f"{namespace}:index:campaign", {name: 1})
        heard = {"flight.impressions": 900, "1h.mature_completion_rate": "0.75"}
        for scope, name in (("creative", "k-1"), ("app", "an app")):
            pipe.hset(f"{namespace}:{scope}:{{{name}}}", mapping=heard)
            pipe.zadd(f"{namespace}:index:{scope}", {name: 1})
        for name, row in rows.items():
            if row.get("delivery.state") == "under":
                pipe.xadd(f"{namespace}:alerts", alert(name, row))
        pipe.hset(
            f"{namespace}:meta", mapping={"flushed_ms": now_ms, "watermark_ms": now_ms - 12_000, "judged": 1}
        )
        pipe.execute()


def alert(name: str, row: Mapping[str, Any], to: str = "under") -> dict[str, Any]:
    """A change of state as the flow tells it."""
    numbers = ("booked", "delivered", "expected", "indicator", "projected", "required_rate")
    return {
        "id": f"{name}|{to}|{row['delivery.since_ms']}",
        "placement": name,
        "from": "on_track",
        "to": to,
        "campaign": row["campaign_id"],
        "as_of_ms": row["delivery.since_ms"],
        **{number: row[f"delivery.{number}"] for number in numbers},
    }


def unjudged(unit: str, since_ms: int) -> dict[str, Any]:
    """The fields of a row that is not judged for a silent feed."""
    return {
        "delivery.judged": 0,
        "delivery.unjudged_reason": "feed_silent",
        "delivery.unjudged_since_ms": since_ms,
        "delivery.unjudged_by": unit,
    }


JUDGED = {"delivery.judged": 1}


def silent(since_ms: int, placements: int = 0, **money: str) -> dict[str, Any]:
    """A unit in `meta.silent`."""
    return {"since_ms": since_ms, "placements": placements, "money_per_hour": money}


def feed_alert(unit: str, since_ms: int, placements: int, ended_ms: int | None = None) -> dict[str, Any]:
    """An entry of the stream of alerts: a unit that fell silent, or is back."""
    states = ("live", "silent") if ended_ms is None else ("silent", "live")
    told = {
        "id": f"feed|{unit}|{states[1]}|{since_ms}",
        "kind": "feed",
        "unit": unit,
        **dict(zip(("from", "to"), states, strict=True)),
        "since_ms": since_ms,
        "as_of_ms": since_ms + 70_000 if ended_ms is None else ended_ms,
    }
    more = {"placements": placements, "money_per_hour": '{"GBP":"12.34"}'}
    return told | more if ended_ms is None else told


@contextmanager
def exporter(
    url: str, namespace: str, port: int | None = None, anonymous: bool = False, **more: Any
) -> Iterator[int]:
    """The port of the exporter's application in a thread of this process; None chooses a free one.

    Every request shows the token that it makes, unless it is `anonymous`. Its curves begin an hour ago, and
    get a point with each second.
    """
    port, client, began_s = port or free_port(), connect(url, timeout=timedelta(seconds=1)), time.time()

    def clock_s() -> float:
        return began_s - 3_000 + 10 * (time.time() - began_s)

    interval = timedelta(milliseconds=100)
    board = RowsReader(client, namespace, FIELDS, scopes=SCOPES, interval=interval, clock_s=clock_s)
    app = create_app(board, **more)
    reader = app if anonymous else signed_in(app)
    server = uvicorn.Server(
        uvicorn.Config(reader, port=port, lifespan="on", log_config=None, access_log=False)
    )
    app.state.feed.closing = lambda: server.should_exit
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        eventually(lambda: server.started)
        yield port
    finally:
        server.should_exit = True
        thread.join()
        board.close()


def now_ms() -> int:
    return time.time_ns() // 1_000_000
