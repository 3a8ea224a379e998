"""A click on a number says how it was counted: over HTTP, and as Chromium shows it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest
from browser_support import CHROMIUM, MISSING, Browser, chromium
from page_support import axe, axe_findings, desk_rows, exporter, now_ms, put_desk

from connectors.embedded import EmbeddedValkey
from connectors.redis import connect, read_rows
from flows.engine import store_methodology
from flows.methodology import methodology
from flows.settings import Settings, load

HOW = "document.querySelector('#how')"
BODY = "document.querySelector('#how-body').innerText"


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    with EmbeddedValkey() as server:
        yield load(redis_url=server.url, namespace="t", allowed_lateness="PT7M")


@pytest.fixture(scope="module")
def port(settings: Settings) -> Iterator[int]:
    url = settings.redis_url.get_secret_value()
    put_desk(url, "t", desk_rows(now_ms()), now_ms())
    store_methodology(settings)
    client = connect(url, timeout=timedelta(seconds=1))
    client.hset("t:meta", "methodology", methodology(settings).hash)
    client.close()
    with exporter(url, "t") as one:
        yield one


def test_readers_find_the_flows_methodology_by_its_hash(settings: Settings, port: int) -> None:
    here = methodology(settings)
    told = httpx.get(f"http://127.0.0.1:{port}/v1/methodology").json()
    assert told == json.loads(here.line()[1])
    assert "7 min" in told["rules"]["lateness"]
    by_hash = httpx.get(f"http://127.0.0.1:{port}/v1/methodology/{here.hash}")
    assert by_hash.json() == told
    assert httpx.get(f"http://127.0.0.1:{port}/v1/methodology/other").status_code == 404
    client = connect(settings.redis_url.get_secret_value(), timeout=timedelta(seconds=1))
    (kept,) = read_rows(client, [f"t:methodology:{{{here.hash}}}"])
    client.close()
    assert kept.keys() == {"text"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


def opened(browser: Browser, port: int, view: str = "") -> Browser:
    browser.errors.clear()
    browser.resize(1280, 800)
    browser.open("about:blank")
    browser.open(f"http://127.0.0.1:{port}/{view}")
    browser.until("document.querySelectorAll('#rows tr:not(.pad)').length")
    return browser


def explained_metric(browser: Browser) -> str:
    browser.until(f"{HOW}.open && {BODY}.includes('For all numbers')")
    return str(browser.js("document.querySelector('#how-metric').value"))


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)


@pytest.mark.debian
@needs_chromium
def test_a_click_on_any_figure_explains_its_count(browser: Browser, port: int, settings: Settings) -> None:
    opened(browser, port)
    browser.click("#rows tr:not(.pad) td.c-hour")
    assert explained_metric(browser) == "impressions"
    assert methodology(settings).metrics["impressions"]["counts"] in browser.js(BODY)
    assert methodology(settings).hash in browser.js(f"{HOW}.innerText")
    browser.click("#how-close")
    browser.until(f"!{HOW}.open")
    browser.click("#pipeline-open")
    browser.until("document.querySelector('#pipeline').matches(':popover-open')")
    browser.click("#repeated")
    assert explained_metric(browser) == "repeated share"
    opened(browser, port, "#open=starved")
    for selector, metric in (("#p-reach tr:nth-child(4) td:nth-child(3) button", "reach"),):
        browser.until(f"document.querySelector({json.dumps(selector)})")
        browser.js(f"document.querySelector({json.dumps(selector)}).click()")
        assert explained_metric(browser) == metric
    if (source := axe()) is not None:
        assert axe_findings(browser, source) == []
    assert browser.errors == []


@pytest.mark.debian
@needs_chromium
def test_a_click_explains_a_groups_sum_or_folds_the_group(browser: Browser, port: int) -> None:
    opened(browser, port, "#group=platform&cols=hour,downloads_calendar,by_household")
    rows = "document.querySelectorAll('#rows tr:not(.pad)')"
    shown = browser.js(f"{rows}.length")
    browser.click("#rows tr[data-state=sum] td.c-hour")
    assert explained_metric(browser) == "impressions"
    browser.click("#how-close")
    browser.until(f"!{HOW}.open")
    assert browser.js(f"{rows}.length") == shown, "no group was folded"
    browser.click("#rows tr[data-state=sum] td.c-id button")
    browser.until(f"{rows}.length < {shown}")
    browser.click("#total td.c-by_household")
    assert explained_metric(browser) == "conversions_by_household"
    assert browser.errors == []


@pytest.mark.debian
@needs_chromium
def test_keys_alone_explain_any_number_and_keep_the_focus(
    browser: Browser, port: int, settings: Settings
) -> None:
    opened(browser, port)
    browser.js("document.querySelector('#scroll').focus()")
    browser.press("i")
    assert explained_metric(browser) == "delivery.at_stake"
    names = browser.js("[...document.querySelectorAll('#how-metric option')].map(one => one.value)")
    assert set(methodology(settings).metrics) <= set(names)
    browser.press("Escape")
    browser.until(f"!{HOW}.open")
    opened(browser, port, "#open=starved")
    browser.until("document.querySelector('#p-integrity button')")
    browser.js("document.querySelector('#p-more').open = true")
    browser.js("document.querySelector('#p-integrity button').focus()")
    browser.js("window.before = document.activeElement; new Promise(done => setTimeout(done, 4500))")
    assert browser.js("document.activeElement === window.before"), "the pane is drawn anew every two seconds"
    browser.press("Enter")
    assert explained_metric(browser) == "repeated"
    browser.press("Escape")


@pytest.mark.debian
@needs_chromium
def test_every_column_and_figure_names_a_described_metric(
    browser: Browser, port: int, settings: Settings
) -> None:
    opened(browser, port, "#open=starved")
    browser.until("document.querySelector('#p-integrity button')")
    browser.press("i")
    explained_metric(browser)
    names = set(browser.js("[...document.querySelectorAll('#how-metric option')].map(one => one.value)"))
    figures = browser.js("[...document.querySelectorAll('[data-metric]')].map(one => one.dataset.metric)")
    columns = browser.js("import('/page/how.js').then(one => Object.values(one.OF_COLUMN))")
    assert len(figures) > 40
    assert set(figures) | set(columns) <= names


def test_a_page_without_a_methodology_leads_to_the_documents(settings: Settings) -> None:
    url = settings.redis_url.get_secret_value()
    put_desk(url, "none", desk_rows(now_ms()), now_ms())
    with exporter(url, "none") as port:
        assert httpx.get(f"http://127.0.0.1:{port}/v1/methodology").status_code == 404
