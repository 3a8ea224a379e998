"""The documents as Chromium shows them: the search, the readers' lists, on a wide and on a narrow screen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser_support import CHROMIUM, MISSING, Browser, chromium
from page_support import axe, axe_findings, exporter

from connectors.embedded import EmbeddedValkey

pytestmark = [pytest.mark.debian, pytest.mark.skipif(CHROMIUM is None, reason=MISSING)]
FIELD = "document.querySelector('search input')"
FOUND = "[...document.querySelectorAll('search li a')]"


@pytest.fixture(scope="module")
def home() -> Iterator[str]:
    with EmbeddedValkey() as server, exporter(server.url, "documents") as port:
        yield f"http://127.0.0.1:{port}/docs"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


def search(browser: Browser, home: str, words: str, name: str = "runbook.md") -> list[str]:
    """The headings that a query finds, in their order."""
    browser.open(f"{home}/{name}")
    browser.until("document.querySelector('search') && !document.querySelector('search').hidden")
    browser.js(f"{FIELD}.focus()")
    for letter in words:
        browser.press(letter)
    browser.until("document.querySelector('search [role=status]').textContent")
    return list(browser.js(f"{FOUND}.map(one => one.textContent)"))


def test_search_finds_headings_settings_and_sentences(browser: Browser, home: str) -> None:
    assert search(browser, home, "upgrading")[0] == "operations › Upgrading"
    assert any("operations" in one for one in search(browser, home, "audiopixel_kafka_on_lost"))
    assert search(browser, home, "signed parts unexplained")[0] == "meaning › The sum"
    assert search(browser, home, "no-such-word") == []
    assert browser.js("document.querySelector('search [role=status]').textContent") == "0 found"
    search(browser, home, "silent feed", "operations.md")
    browser.press("Enter")
    browser.until("location.hash")
    assert (
        browser.js("location.pathname + location.hash") == "/docs/reading-the-page.md#a-feed-that-is-silent"
    )
    assert browser.errors == []


def test_a_slash_goes_to_the_search_and_escape_empties_it(browser: Browser, home: str) -> None:
    assert search(browser, home, "upgrading")
    browser.press("Escape")
    browser.until(f"{FOUND}.length === 0")
    browser.js("document.activeElement.blur()")
    browser.press("/")
    assert browser.js(f"[document.activeElement === {FIELD}, {FIELD}.value]") == [True, ""]


@pytest.mark.skipif(axe() is None, reason="needs axe-core")
def test_axe_finds_nothing_on_wide_and_narrow_screens_in_light_and_dark(browser: Browser, home: str) -> None:
    for width, dark in ((1280, False), (1280, True), (390, True)):
        browser.resize(width, 800)
        browser.dark(dark)
        for name in ("", "production.md"):
            search(browser, home, "kafka", name)
            assert browser.js("document.documentElement.scrollWidth <= innerWidth")
            assert axe_findings(browser, axe() or "") == [], (width, dark, name)
    browser.resize(1280, 800)
