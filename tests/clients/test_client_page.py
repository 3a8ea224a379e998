"""The page for bidders: its program by the client, and the types of its fields."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from audiopixel_client import rows
from audiopixel_client.testing import fill

from connectors.embedded import EmbeddedValkey
from flows.model.fields import FIELDS
from flows.publish.layout import SCHEMA
from flows.viewers.rows_json import TEXTS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "bidders.md").read_text()


def test_its_program_decides_by_a_row_of_each_reason(valkey: EmbeddedValkey) -> None:
    names = [*fill(valkey.url), "nobody"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "bid.py"), valkey.url, *names],
        env={**os.environ, "PYTHONPATH": str(ROOT / "clients" / "python")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    leave = "leave the bid as it is"
    assert dict(line.split(" ", 1) for line in done.stdout.splitlines()) == {
        "usable": "bid 1.25 x (500 impressions in the last hour)",
        "feed_silent": f"{leave} (feed_silent)",
        "gone": f"{leave} (gone)",
        "blocked": "stop (12 impressions in blocked content)",
        "no_plan": f"{leave} (no_plan)",
        "incomplete": f"{leave} (incomplete)",
        "unknown_before": f"{leave} (unknown_before)",
        "complete": f"{leave} (complete)",
        "stopped": f"{leave} (under)",
        "no_rate": f"{leave} (under)",
        "nobody": f"{leave} (gone)",
    }


def test_the_text_fields_are_those_of_the_page() -> None:
    table = PAGE.split("## Fields of a placement\n")[1].split("\n## ")[0]
    texts, numbers = set[str](), set[str]()
    for names, types in re.findall(r"^\| (`[^|]*) \| ([^|]*) \|", table, re.M):
        listed = re.findall("`([^`]+)`", names)
        kinds = types.split(", ") if ", " in types else [types] * len(listed)
        for name, kind in zip(listed, kinds, strict=True):
            (texts if kind == "text" else numbers).add(name)
    assert len(texts) > 5
    assert texts <= rows.TEXTS
    assert not numbers & rows.TEXTS


def test_the_text_fields_are_those_of_the_api() -> None:
    assert rows.TEXTS == TEXTS


def test_both_clients_have_the_same_rules_and_texts() -> None:
    script = (ROOT / "clients" / "node" / "rows.js").read_text()

    def listed(name: str) -> list[str]:
        block = re.search(rf"const {name} = (?:new Set\()?[\[{{](.*?)[\]}}]", script, re.S)
        assert block is not None
        return re.findall(r'"([^"]+)"', block[1])

    assert listed("FORMS") == list(rows.RULE_FIELDS)
    assert set(rows.RULE_FIELDS) - {*rows.VERSION} <= set(FIELDS)
    assert f'SCHEMA = "{rows.SCHEMA}"' in script
    assert str(SCHEMA) == rows.SCHEMA
    assert set(listed("TEXTS")) == rows.TEXTS
    assert listed("STEERABLE") == list(rows.STEERABLE)
    assert listed("UNKNOWN") == list(rows.UNKNOWN)


def test_the_page_names_every_reason() -> None:
    table = PAGE.split("The reasons, the first that holds:")[1].split("\n\n**")[0]
    named = set(re.findall(r"`(\w+)`", "\n".join(line.split("|")[1] for line in table.splitlines()[2:])))
    own = set(re.findall(r"`(\w+)`", rows.Row.reason.__doc__ or ""))
    assert named == own
