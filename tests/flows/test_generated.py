"""The files that follow from the catalogue, and from other definitions, are current."""

from __future__ import annotations

import re

import pytest

from flows.generated import DOCUMENTS, FILES, LINES, ROOT, TABLES, current

HOW = "python -m flows.generated writes it anew"


@pytest.mark.parametrize("name", FILES)
def test_a_generated_file_is_current(name: str) -> None:
    text = (ROOT / name).read_text()
    assert FILES[name](text) == text, HOW


def test_every_table_and_line_stands_in_a_document() -> None:
    said = "".join((ROOT / name).read_text() for name in DOCUMENTS)
    assert {name for name in TABLES if f"<!-- {name} -->\n" not in said} == set()
    assert {begin for begin in LINES if not re.search(f"^{re.escape(begin)}", said, re.M)} == set()


def test_only_an_outdated_table_is_replaced() -> None:
    text = "before\n<!-- consent -->\n| old |\n<!-- /consent -->\nbehind\n"
    made = current(text)
    assert made.startswith("before\n<!-- consent -->\n| reason |")
    assert made.endswith("|\n<!-- /consent -->\nbehind\n")
    assert "old" not in made
