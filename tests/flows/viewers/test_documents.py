"""The documents as pages of the exporter: every link and every anchor that anybody is sent to is there."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from dashboards.build import generated
from dashboards.site import Site
from flows.viewers.documents import FOLDER, READERS, routes, sections, to_html
from flows.viewers.page import STATIC

HOME = "http://testserver/docs/"


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(Starlette(routes=routes()))


@pytest.fixture(scope="module")
def pages(client: TestClient) -> dict[str, str]:
    found = {path.name: client.get(f"/docs/{path.name}").text for path in FOLDER.glob("*.md")}
    assert len(found) > 8
    return found


def missing(client: TestClient, pages: dict[str, str], address: str) -> bool:
    """True if an address below `/docs/` leads to no file or to no anchor in it."""
    parts = urlsplit(address)
    name = parts.path.removeprefix("/docs/")
    if parts.fragment:
        return f'id="{parts.fragment}"' not in pages.get(name, "")
    return client.get(parts.path).status_code != 200


def test_every_link_and_picture_of_a_document_leads_somewhere(
    client: TestClient, pages: dict[str, str]
) -> None:
    addresses = {
        urljoin(f"{HOME}{name}", said)
        for name, html in pages.items()
        for said in re.findall(r'(?:href|src)="([^"]+)"', html)
    }
    own = sorted(one for one in addresses if one.startswith(HOME))
    assert len(own) > 20
    assert [one for one in own if missing(client, pages, one)] == []


def test_the_pages_advice_and_every_alert_lead_to_a_heading(
    client: TestClient, pages: dict[str, str]
) -> None:
    words = STATIC.joinpath("words.js").read_text()
    advice = re.findall(r'"([\w-]+\.md[#\w-]*)"', words.split("const ADVICE")[1].split("};")[0])
    rules = generated(Site(docs="http://testserver/docs"))["rules.yml"]
    alerts = re.findall(r"runbook_url: (\S+)", rules)
    assert (len(advice), len(alerts)) > (5, 15)
    assert [one for one in [*(HOME + one for one in advice), *alerts] if missing(client, pages, one)] == []


def test_each_document_is_listed_for_one_reader_with_its_title(client: TestClient) -> None:
    listed = [stem for stems in READERS.values() for stem in stems]
    html = client.get("/docs/").text
    main = html.split("<main>")[1]
    assert re.findall(r'<a href="/docs/([\w-]+)\.md">', main) == listed
    assert ["<h2 id" in one for one in main.splitlines()].count(True) == len(READERS)
    title = (FOLDER / "meaning.md").read_text().splitlines()[0].removeprefix("# ")
    assert f'<a href="/docs/meaning.md">{title}</a><br>Every published number has a description: ' in main


def test_a_document_for_no_reader_is_the_last_readers(tmp_path: Path) -> None:
    (tmp_path / "plans.md").write_text("# Plans & co\n")
    (tmp_path / "new.md").write_text("# New\n")
    html = TestClient(Starlette(routes=routes(tmp_path))).get("/docs/new.md").text
    assert re.findall(r'<a href="(/docs/[^"]*)"', html) == ["/docs/", "/docs/plans.md", "/docs/new.md"]
    assert html.count("aria-current") == 1


def test_the_search_has_every_section_and_each_leads_to_its_heading(
    client: TestClient, pages: dict[str, str]
) -> None:
    found = client.get("/docs/search.json").json()
    headings = sum(len(re.findall(r"<h[123] id", html.split("<main>")[1])) for html in pages.values())
    assert len(found) == headings > 200
    assert [address for address, *_ in found if missing(client, pages, f"/docs/{address}")] == []


def test_a_section_has_its_first_sentence_and_its_code_words() -> None:
    text = "# A *b*\n\nOne `x` is\nhere. Two.\n\n## C\n\n"
    text += "| `y` | z |\n|-|-|\n| `w` | `y` |\n\n#### D\n\nLater `v`.\n"
    assert list(sections("n", text)) == [
        ("n.md", "A b", "One x is here.", "x"),
        ("n.md#c", "C", "Later v.", "y w v"),
    ]


def test_an_unknown_document_name_is_404_and_never_a_path(client: TestClient) -> None:
    for name in ("nope.md", "..%2fpyproject.toml", "%2e%2e/pyproject.toml", "/etc/passwd", "pictures"):
        assert client.get(f"/docs/{name}").status_code == 404, name
    assert client.get("/docs/pixels.schema.json").headers["content-type"] == "application/json"


def test_an_installation_without_documents_says_so(tmp_path: Path) -> None:
    answer = TestClient(Starlette(routes=routes(tmp_path))).get("/docs/")
    assert (answer.status_code, answer.text) == (404, "This installation has no documents.\n")


def test_headings_have_githubs_anchors_and_unserved_targets_no_link() -> None:
    html = to_html("## The `meta` row: what's *new*?\n\n[a](../x.py) and [b](y.md)\n\n|t|\n|-|\n|1|\n")
    assert '<h2 id="the-meta-row-whats-new">' in html
    assert re.findall(r'href="([^"]*)"', html) == ["y.md"]
    assert "<td>1</td>" in html
