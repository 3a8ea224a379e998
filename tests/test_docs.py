"""The documents quote the code rightly."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.viewers.documents import READERS

ROOT = Path(__file__).parents[1]


def source_text() -> str:
    """All source, with the parts of a message joined."""
    files = [path for package in ("flows", "connectors") for path in sorted((ROOT / package).rglob("*.py"))]
    return re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text() for path in files))


@pytest.mark.parametrize("name", ["runbook.md", "operations.md"])
def test_a_message_in_quotation_marks_is_one_of_the_code(name: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / "docs" / name).read_text(), flags=re.S)
    quoted = [" ".join(one.split()) for one in re.findall(r'"([a-z][^"`=]* [^"`=]*)"', text)]
    assert quoted
    code = source_text()
    assert [one for one in quoted if one not in code] == []


def glossary() -> dict[str, list[str]]:
    """Each term of the glossary, with the words that it is never called by."""
    table = (ROOT / "docs" / "architecture.md").read_text().split("## Glossary")[1]
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| ?([^|]*)\|$", table, re.M)
    return {term: [word for word in other.strip().split(", ") if word] for term, other in rows[1:]}


def docstrings(source: str) -> Iterator[str]:
    """All texts that stand alone: of modules, classes, functions and constants."""
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            yield " ".join(node.value.value.split())


def misnamed(source: str, words: list[str]) -> list[str]:
    """The refused words in a source's docstrings, whole, in the singular or plural, in any case."""
    refused = re.compile(rf"\b({'|'.join(map(re.escape, words))})s?\b", re.I)
    return [found for text in docstrings(source) for found in refused.findall(text)]


def test_the_glossary_is_alphabetical_without_duplicates() -> None:
    terms = list(glossary())
    assert len(terms) > 30
    assert terms == sorted(terms)


def test_docstrings_call_a_thing_by_the_word_of_the_glossary() -> None:
    words = [word for other in glossary().values() for word in other]
    assert len(words) > 12
    found = {
        str(path.relative_to(ROOT)): wrong
        for path in sorted((ROOT / "flows").rglob("*.py"))
        if (wrong := misnamed(path.read_text(), words))
    }
    assert found == {}


def test_a_docstring_with_another_word_is_found() -> None:
    assert misnamed('def f():\n    """Take a\n    dead-letter queue."""', ["dead-letter queue"]) != []
    assert misnamed('TWICE = 2\n"""Duplicates in a day."""', ["duplicate"]) == ["Duplicate"]
    assert misnamed("duplicate = 2  # a duplicate", ["duplicate"]) == []


def test_the_architecture_has_one_heading_for_each_folder() -> None:
    headings = re.findall(r"^### (\w+)$", (ROOT / "docs" / "architecture.md").read_text(), re.M)
    folders = {path.parent.name for path in (ROOT / "flows").glob("*/__init__.py")}
    assert folders <= set(headings)
    assert len(headings) == len(set(headings))


def test_every_file_named_by_a_document_exists() -> None:
    folders = ("flows", "connectors", "dashboards", "benchmarks", "tests", "clients", "examples")
    names = {path.name for folder in folders for path in (ROOT / folder).rglob("*.py")}
    stale = [
        f"{document.name}: {name}"
        for document in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
        for name in re.findall(r"`(?:[\w/]+/)?(\w+\.py)`", document.read_text())
        if name not in names
    ]
    assert not stale


def test_each_document_is_listed_for_one_reader() -> None:
    """`/docs/` and the README lead to it."""
    listed = [stem for stems in READERS.values() for stem in stems]
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "docs").glob("*.md"))
    readme = (ROOT / "README.md").read_text()
    assert [stem for stem in listed if f"docs/{stem}.md" not in readme] == []


OPENINGS = {"how", "no", "nobody", "nothing", "what", "when", "where", "whether", "which", "who", "why"}
"""Words that a question or a negation begins with: the reader would have to know the answer first."""


def openings(source: str) -> list[str]:
    """The docstrings of a source that begin with one of `OPENINGS`."""
    return [text for text in docstrings(source) if re.match(r"\W*(\w*)", text).group(1).lower() in OPENINGS]  # type: ignore[union-attr]  # it matches any text


@pytest.mark.parametrize("package", ["flows", "connectors", "dashboards"])
def test_a_docstring_begins_with_its_subject(package: str) -> None:
    found = {
        str(path.relative_to(ROOT)): wrong
        for path in sorted((ROOT / package).rglob("*.py"))
        if (wrong := openings(path.read_text()))
    }
    assert found == {}


def test_a_docstring_opening_with_a_question_word_is_found() -> None:
    assert openings('def f():\n    """What it does."""') == ["What it does."]
    assert openings('def f():\n    """Whatever comes goes."""') == []


FOREIGN = "|".join(
    (
        r"\bmend(?:s|ed|ing)?\b",
        r"\banew\b",
        r"\b(?:is|are|was) told\b",
        "take or give numbers",
        "heard to its end",
        "so often at most",
    )
)
"""Phrases that no native reader would use."""
PLAIN = ("README.md", "docs/pixels.md", "docs/bidders.md", "docs/reading-the-page.md", "docs/contracts.md")


@pytest.mark.parametrize("name", PLAIN)
def test_a_document_for_newcomers_is_plain_english(name: str) -> None:
    found = re.finditer(FOREIGN, (ROOT / name).read_text())
    assert [one.group() for one in found] == []


def test_a_command_speaks_plain_english() -> None:
    files = sorted((ROOT / "flows" / "cli").glob("*.py"))
    assert len(files) > 15
    found = {
        path.name: node.value
        for path in files
        if path.name != "paths.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(FOREIGN, node.value)
    }
    assert found == {}


def test_the_pytest_of_the_recipes_finds_the_project() -> None:
    """Without the directory on its path it took `tests/flows` for `flows`, unlike `python -m pytest`."""
    command = [str(Path(sys.executable).with_name("pytest")), "--collect-only", "-q", "tests/flows/settings"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
