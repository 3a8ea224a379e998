"""What the documents quote is what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def said() -> str:
    """All source, with the parts of a message joined."""
    files = [path for package in ("flows", "connectors") for path in sorted((ROOT / package).rglob("*.py"))]
    return re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text() for path in files))


@pytest.mark.parametrize("name", ["runbook.md", "operations.md"])
def test_a_message_in_quotation_marks_is_one_of_the_code(name: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / "docs" / name).read_text(), flags=re.S)
    quoted = [" ".join(one.split()) for one in re.findall(r'"([a-z][^"`=]* [^"`=]*)"', text)]
    assert quoted
    code = said()
    assert [one for one in quoted if one not in code] == []
