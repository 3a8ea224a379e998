"""`audiopixel top` says what the live page says: the same cells and orders."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, get_args

import pytest
from redis import Redis

import flows.viewers
from flows.delivery.opening import Unknown
from flows.model.catalogue.states import UNKNOWN_BEFORE
from flows.viewers.columns import COLUMNS
from flows.viewers.columns import FIELDS as READ
from flows.viewers.desk import Desk
from flows.viewers.feed import FIELDS, LABELS, Feed
from flows.viewers.reader import RowsReader
from flows.viewers.table import cell_of, ordered
from flows.viewers.words import ATTENTION, STATES

STATIC = Path(flows.viewers.__file__).parent / "static"
NODE = shutil.which("node")


def test_reasons_of_unknown_delivery_are_those_of_plans() -> None:
    assert set(UNKNOWN_BEFORE) == set(get_args(Unknown))


def test_every_state_is_once_in_the_order_of_attention() -> None:
    states = [state for tier in ATTENTION for state in tier]
    assert sorted(states) == sorted(["blocked", *STATES])
    event = Feed(RowsReader(Redis(), "none", FIELDS)).whole()[1]
    assert json.loads(event.partition(b"data: ")[2])["attention"] == [[*tier] for tier in ATTENTION]


def run_on_the_page(scopes: dict[str, dict[str, dict[str, str]]], script: str) -> Any:
    """The output of a script of the page's modules after these rows."""
    if NODE is None:
        pytest.skip("needs node: apt-get install nodejs")
    message = {
        "fields": FIELDS,
        "attention": ATTENTION,
        "labels": LABELS,
        "spark_s": 600,
        "sampled_s": [0],
        "status": {},
        "rows": {
            scope: {name: [*map(row.get, FIELDS)] for name, row in of.items()} for scope, of in scopes.items()
        },
        "grown": {scope: {} for scope in scopes},
        "alerts": [],
    }
    whole = f"""globalThis.matchMedia = () => ({{ matches: false }});
        globalThis.location = {{ hash: "" }};
        const {{ all, desk }} = await import("file://{STATIC}/data.js");
        const {{ COLUMNS, inOrder, unitOf }} = await import("file://{STATIC}/columns.js");
        all({json.dumps(message)});
        console.log(JSON.stringify({script}));"""
    done = subprocess.run([NODE, "--input-type=module", "-e", whole], capture_output=True, text=True)
    return json.loads(done.stdout or done.stderr)


def test_heads_and_cells_are_those_of_the_page() -> None:
    full = {field: str(37 * place % 1000 + 1) for place, field in enumerate(FIELDS)}
    full |= {"delivery.state": "under", "delivery.judged": "1", "delivery.currency": "GBP"}
    full |= {"delivery.start_ms": "1", "delivery.end_ms": "253402300799000"}
    zero = full | dict.fromkeys(("delivery.short_by", "delivery.at_stake", "delivery.at_stake_end"), "0")
    rows = {"full": full, "zero": zero, "empty": {}, "priceless": {"flight.cost": "12.5"}}
    scopes = {"placement": rows, "campaign": {}, "creative": {}, "app": {}}
    found = run_on_the_page(
        scopes,
        """{ heads: COLUMNS.map((one) => [one.key, one.title, unitOf(one)]),
            cells: Object.fromEntries([...desk.rows.placement].map(([id, row]) =>
                [id, Object.fromEntries(COLUMNS.map((one) => [one.key, one.text(row)]))])) }""",
    )
    desk = Desk.from_scopes(scopes, 1000 * time.time())
    assert [head for head in found["heads"] if head[0] != "spark"] == [
        [column.key, *column.heading(desk)] for column in COLUMNS
    ]
    compared = 0
    for row in desk.rows["placement"]:
        for column in COLUMNS:
            if column.key not in ("state", "ends"):  # blocked content has a mark of its own in a terminal
                assert cell_of(column, row, desk) == (found["cells"][row.id][column.key] or ""), column.key
                compared += 1
    assert compared > 120


def test_rows_stand_in_the_order_of_the_page() -> None:
    stakes = (None, "0.000000", "3.500000", "20.000000")
    rows: dict[str, dict[str, str]] = {}
    for state in STATES:
        for stake in stakes:
            row = {"delivery.currency": "GBP", "flight.impressions": str(len(rows) * 7 % 13)}
            row |= {"delivery.at_stake": stake} if stake else {}
            row |= {} if state == "none" else {"delivery.state": "under" if state == "unjudged" else state}
            row |= {} if state in ("none", "unjudged") else {"delivery.judged": "1"}
            rows[f"{state}-{stake}"] = row
            if stake == "3.500000":
                rows[f"{state}-blocked"] = row | {"flight.blocked_impressions": "5"}
    scopes = {"placement": rows, "campaign": {}, "creative": {}, "app": {}}
    page = run_on_the_page(scopes, "inOrder([...desk.rows.placement.values()]).map((row) => row.id)")
    desk = Desk.from_scopes(scopes, 0.0)
    assert [row.id for row in ordered(desk.rows["placement"], "", desk)] == page
    assert page.index("on_track-20.000000") > page.index("warming_up-None"), "what is well waits"


def test_top_reads_every_field_of_the_page() -> None:
    assert set(READ) >= set(FIELDS)
