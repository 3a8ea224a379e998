"""`audiopixel top` says what the live page says: the same columns, words, units and orders."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import pytest
from redis import Redis

import flows.viewers
from flows.delivery.opening import Unknown
from flows.viewers.columns import COLUMNS
from flows.viewers.columns import FIELDS as READ
from flows.viewers.desk import Desk
from flows.viewers.feed import FIELDS, LABELS, Feed
from flows.viewers.reader import RowsReader
from flows.viewers.table import ORDERS, ordered
from flows.viewers.words import ATTENTION, ROW_REASONS, STATES, UNJUDGED, UNKNOWN_BEFORE

STATIC = Path(flows.viewers.__file__).parent / "static"
NODE = shutil.which("node")
OWN = {"id", "progress"}
"""Columns whose meaning is another in a terminal: there is no link and no bar."""


def part(file: str, begins: str, ends: str) -> str:
    return (STATIC / file).read_text().split(begins, 1)[1].split(ends, 1)[0]


def columns_of_the_page() -> list[tuple[str, str, str, str]]:
    """Key, title, unit and meaning of each column."""
    found = []
    for line in part("columns.js", "export const COLUMNS = [\n", "\n];").splitlines():
        told = dict(re.findall(r'(key|title|unit|means): "([^"]*)"', line)) or None
        texts = re.findall(r'"([^"]*)"', line)
        match re.match(r"\s*(?:\{ \.\.\.|lack\()?(count|share|inMoney|label)\(", line):
            case None:
                assert told is not None, line
                found.append((told["key"], told["title"], told["unit"], told["means"]))
            case made if made[1] == "count":
                found.append((texts[0], texts[1], texts[2], texts[3]))
            case made:
                unit = {"share": "%", "inMoney": "money", "label": ""}[made[1]]
                found.append((texts[0], texts[1], unit, texts[2]))
    return found


def test_columns_have_the_titles_the_units_the_meanings_and_the_order_of_the_page() -> None:
    page = [one for one in columns_of_the_page() if one[0] != "spark"]
    assert len(page) > 20
    ours = [(column.key, column.title, column.unit, column.means) for column in COLUMNS]
    assert [one[:3] for one in ours] == [one[:3] for one in page]
    assert [one for one in ours if one[0] not in OWN] == [one for one in page if one[0] not in OWN]


def test_states_have_the_words_and_the_severity_of_the_page() -> None:
    told = re.findall(r'^  (\w+): \["([^"]+)", "([^"]+)"\],$', part("words.js", "STATES = {", "};"), re.M)
    assert [(state, *words) for state, words in STATES.items()] == told


def test_reasons_for_not_judging_are_those_of_the_page() -> None:
    assert dict(re.findall(r'(\w+): "([^"]+)"', part("bar.js", "REASONS = {", "};"))) == UNJUDGED


def test_reasons_for_not_judging_a_row_are_those_of_the_page() -> None:
    assert dict(re.findall(r'(\w+): "([^"]+)"', part("words.js", "ROW_REASONS = {", "};"))) == ROW_REASONS


def test_reasons_for_what_is_unknown_are_those_of_the_page_and_of_the_plans() -> None:
    told = part("words.js", "UNKNOWN_BEFORE = {", "};")
    assert dict(re.findall(r'(\w+): "([^"]+)"', told)) == UNKNOWN_BEFORE
    assert set(UNKNOWN_BEFORE) == set(get_args(Unknown))


def test_orders_are_those_of_the_page() -> None:
    told = part("columns.js", "export const ORDERS = {", "};")
    assert {key.strip('"'): words for key, words in re.findall(r'("[^"]*"|\w+): "([^"]+)"', told)} == ORDERS


def test_the_order_of_what_needs_attention_is_one_list_of_every_state() -> None:
    states = [state for tier in ATTENTION for state in tier]
    assert sorted(states) == sorted(["blocked", *STATES])
    event = Feed(RowsReader(Redis(), "none", FIELDS)).whole()[1]
    assert json.loads(event.partition(b"data: ")[2])["attention"] == [[*tier] for tier in ATTENTION]


def test_rows_stand_in_the_order_of_the_page() -> None:
    if NODE is None:
        pytest.skip("needs node: apt-get install nodejs")
    stakes = (None, "0.000000", "3.500000", "20.000000")
    rows: dict[str, dict[str, str]] = {}
    for state in STATES:
        for stake in stakes:
            row = {"delivery.currency": "GBP", "flight.impressions": str(len(rows) * 7 % 13)}
            row |= {"delivery.at_stake": stake} if stake else {}
            row |= {} if state == "none" else {"delivery.state": "under" if state == "unjudged" else state}
            row |= {"delivery.judged": "0"} if state == "unjudged" else {}
            rows[f"{state}-{stake}"] = row
            if stake == "3.500000":
                rows[f"{state}-blocked"] = row | {"flight.blocked_impressions": "5"}
    scopes = {"placement": rows, "campaign": {}, "creative": {}, "app": {}}
    desk = Desk.of(scopes, 0.0)
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
    script = f"""globalThis.matchMedia = () => ({{ matches: false }});
        globalThis.location = {{ hash: "" }};
        const {{ all, desk }} = await import("file://{STATIC}/data.js");
        const {{ inOrder }} = await import("file://{STATIC}/columns.js");
        all({json.dumps(message)});
        console.log(JSON.stringify(inOrder([...desk.rows.placement.values()]).map((row) => row.id)));"""
    done = subprocess.run([NODE, "--input-type=module", "-e", script], capture_output=True, text=True)
    page = json.loads(done.stdout or done.stderr)
    assert [row.id for row in ordered(desk.rows["placement"], "", desk)] == page
    assert page.index("on_track-20.000000") > page.index("warming_up-None"), "what is well waits"


def test_top_reads_every_field_that_the_page_reads() -> None:
    assert set(READ) >= set(FIELDS)
