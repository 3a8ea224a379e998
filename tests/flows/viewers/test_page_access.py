"""The live page for everybody: keyboard, screen reader, zoom, phone, no colours, no scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from board_support import eventually
from browser_support import CHROMIUM, MISSING, Browser, chromium
from page_support import NO_AXE, axe, axe_findings, desk_rows, exporter, now_ms, planned, put_desk
from redis import Redis

from connectors.embedded import EmbeddedValkey

pytestmark = [pytest.mark.debian, pytest.mark.skipif(CHROMIUM is None, reason=MISSING)]

ROWS = "[...document.querySelectorAll('#rows tr:not(.pad)')]"
FOCUS = "document.activeElement.id || document.activeElement.textContent"
SHIFT = 8


class Page:
    """The page over sixty placements in a shared exporter."""

    def __init__(self, browser: Browser, port: int) -> None:
        self.browser, self.port = browser, port

    def open(self, view: str = "", rows: bool = True) -> Browser:
        browser = self.browser
        browser.open("about:blank")
        browser.open(f"http://127.0.0.1:{self.port}/{view}")
        browser.until(f"{ROWS}.length" if rows else "document.querySelector('#tabs a')")
        if "open=" in view:
            browser.until("document.querySelector('#p-chart canvas')")
        return browser


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    now = now_ms()
    many = {f"pl-{n:03}": planned("on_track", 1, 1_000 + n, now, campaign_id=f"c-{n % 5}") for n in range(60)}
    with EmbeddedValkey() as server:
        put_desk(server.url, "t", desk_rows(now) | many, now)
        with Redis.from_url(server.url) as client:  # far ahead: nothing of these tests is about its age
            client.hset("t:meta", mapping={"flushed_ms": now + 300_000, "watermark_ms": now + 300_000})
        with exporter(server.url, "t") as port:
            yield port


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


@pytest.fixture
def page(browser: Browser, port: int) -> Iterator[Page]:
    yield Page(browser, port)
    browser.resize(1280, 800)
    browser.dark(True)
    browser.js("localStorage.clear()")


# axe-core


LOOKS = {
    "dark": ("", "", 1280, True),
    "light": ("", "", 1280, False),
    "open pane, dark": ("#open=starved", "", 1280, True),
    "open pane, light": ("#open=starved", "", 1280, False),
    "phone": ("", "document.querySelector('#more').click()", 390, True),
    "phone, open pane": ("#open=starved", "", 390, False),
    "groups": ("#group=campaign_id", "", 1280, False),
    "campaigns": ("#view=campaigns", "", 1280, True),
    "pipeline": ("", "document.querySelector('#pipeline-open').click()", 1280, False),
    "nothing found": ("#q=no-such", "", 1280, False),
    "live": ("#view=live", "", 1280, False),
    "alerts": ("#view=alerts", "", 1280, False),
    "discrepancy": ("#view=compare", "", 1280, True),
    "discrepancy, phone": ("#view=compare", "", 390, False),
    "live, phone": ("#view=live", "", 390, True),
    "tag": ("#view=tag", "", 1280, False),
    "history": ("#view=history", "", 1280, True),
    "platforms": ("#view=platforms", "", 1280, False),
    "the sheet": ("", "document.querySelector('#help-open').click()", 1280, False),
    "columns": ("", "document.querySelector('#columns-open').click()", 1280, True),
    "views": ("", "document.querySelector('#views-open').click()", 1280, False),
}


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing_serious(page: Page, look: str) -> None:
    if (source := axe()) is None:
        pytest.skip(NO_AXE)
    view, act, width, dark = LOOKS[look]
    page.browser.dark(dark)
    page.browser.resize(width, 800)
    browser = page.open(view, rows="view=" not in view and "q=" not in view)
    browser.js(act or "0")
    assert axe_findings(browser, source) == []


@pytest.mark.parametrize(("name", "width", "dark"), [("runbook", 1280, True), ("operations", 390, False)])
def test_axe_finds_nothing_serious_in_a_document(page: Page, name: str, width: int, dark: bool) -> None:
    if (source := axe()) is None:
        pytest.skip(NO_AXE)
    page.browser.dark(dark)
    page.browser.resize(width, 800)
    page.browser.open(f"http://127.0.0.1:{page.port}/docs/{name}.md")
    page.browser.until(
        "document.querySelectorAll('main h2').length > 1 && document.readyState === 'complete'"
    )
    assert axe_findings(page.browser, source) == []
    assert page.browser.js("document.documentElement.scrollWidth <= innerWidth")


def test_axe_would_find_a_fault(page: Page) -> None:
    if (source := axe()) is None:
        pytest.skip(NO_AXE)
    browser = page.open()
    browser.js("document.querySelector('#filter').removeAttribute('aria-label')")
    browser.js("document.querySelector('#filter').removeAttribute('placeholder')")
    assert [rule for rule, _ in axe_findings(browser, source)] == ["label"]


# By keyboard


def test_every_control_is_reached_by_tab_and_headers_sort(page: Page) -> None:
    browser = page.open()
    wanted = set(
        browser.js("""[...document.querySelectorAll('a[href], button, input, select, [tabindex="0"]')]
        .filter(one => one.offsetParent && one.tabIndex >= 0 && !one.disabled)
        .map(one => (one.n ??= Math.random()))""")
    )
    assert len(wanted) > 30
    reached = set()
    for _ in range(len(wanted) + 5):
        browser.press("Tab")
        reached.add(browser.js("document.activeElement.n ?? null"))
    assert wanted - reached == set()
    browser.js("document.querySelector('#heads .c-needed button').focus()")
    browser.press("Enter")
    assert browser.js("document.querySelector('#heads .c-needed').getAttribute('aria-sort')") == "descending"
    browser.press("Enter")
    assert browser.js("document.querySelector('#heads .c-needed').getAttribute('aria-sort')") == "ascending"
    assert browser.js("document.querySelector('#pane').hidden"), "the key was the header's"


def test_keys_move_open_and_leave_the_grid_with_the_focus(page: Page) -> None:
    browser = page.open()
    browser.js("document.querySelector('#scroll').focus()")
    browser.press("j")
    browser.press("ArrowDown")
    browser.press("Enter")
    browser.until("document.activeElement.id === 'p-id'")
    assert browser.js("document.querySelector('#said').textContent") == "placement costly is open"
    browser.press("j")
    browser.until("document.querySelector('#p-id').textContent === 'starved'")
    browser.press("Escape")
    browser.until("document.activeElement.id === 'scroll'")
    assert browser.js("document.querySelector('#pane').hidden")


def test_each_selected_row_is_announced_by_its_own_id(page: Page) -> None:
    browser = page.open()
    browser.js("document.querySelector('#scroll').focus()")
    seen = []
    for _ in range(50):
        browser.press("ArrowDown")
        seen.append(browser.js("document.querySelector('#scroll').getAttribute('aria-activedescendant')"))
    assert len(set(seen)) == 50
    assert browser.js(f"document.getElementById({json.dumps(seen[-1])}).ariaSelected") == "true"
    assert (
        int(browser.js("document.querySelector('[aria-selected=true]').getAttribute('aria-rowindex')")) == 52
    )


def test_bars_and_curves_in_cells_have_words(page: Page) -> None:
    browser = page.open("#cols=progress,spark")
    told = f"{ROWS}.find(row => row.item.id === 'starved').querySelector('.c-%s').getAttribute('aria-label')"
    assert browser.js(told % "progress") == "13 % of booked delivered, 50 % due"
    browser.until(told % "spark", 15)
    assert "impressions in" in browser.js(told % "spark")


def test_letter_keys_can_be_disabled_and_the_sheet_explains_columns(page: Page) -> None:
    browser = page.open()
    browser.press("?")
    browser.until("document.querySelector('#help').open")
    titles = "(async () => (await import('/page/columns.js')).COLUMNS.map(one => one.title))()"
    sheet = browser.js("document.querySelector('#help-body').innerText")
    assert [title for title in browser.js(titles) if title not in sheet] == []
    assert "warming up" in sheet
    browser.js("document.querySelector('#letters').click()")
    browser.press("Escape")
    browser.until("!document.querySelector('#help').open")
    browser.until("document.activeElement === document.body")  # Chromium takes it off the dialog by a frame
    browser.press("j")
    browser.press("?")
    browser.press("s")
    assert not browser.js("document.querySelector('#help').open")
    assert browser.js("document.querySelector('[aria-selected=true]')") is None
    assert browser.js("location.hash") == ""
    browser.press("ArrowDown")
    browser.until("document.querySelector('[aria-selected=true]')?.item.id === 'unsafe'")


def test_the_curve_is_read_by_keys_and_has_a_unit_and_ranges(page: Page) -> None:
    browser = page.open("#open=good&range=flight")
    legend = "document.querySelector('#p-legend').textContent"
    browser.until(f"{legend}.includes('due 2,000 impressions')", 15)
    browser.until("document.querySelectorAll('#p-ranges [aria-pressed=true]').length === 1")
    assert browser.js("document.querySelector('#p-ranges [aria-pressed=true]').textContent") == "flight"
    browser.js("document.querySelector('#p-plot').focus()")
    browser.press("Home")
    assert "delivered 2,000, due 2,000 impressions" in browser.js(legend)
    browser.js("document.querySelectorAll('#p-ranges button')[1].click()")
    assert "range=6h" in browser.js("location.hash")


# Small, zoomed, without colours


@pytest.mark.parametrize(("width", "height"), [(320, 256), (390, 844)])
def test_a_phone_and_a_desk_at_400_percent_have_whole_cards(page: Page, width: int, height: int) -> None:
    page.browser.resize(width, height)
    browser = page.open()
    assert browser.js("document.documentElement.scrollWidth") <= width
    browser.js("document.querySelector('#rows').scrollIntoView()")
    browser.until(
        f"{ROWS}.some(row => {{ const box = row.getBoundingClientRect(); "
        "return box.top >= 0 && box.bottom <= innerHeight; })"
    )
    facts = f"{ROWS}[1].innerText"
    for words in ("costly", "under", "88 %", "2,160", "4,320"):
        assert words in browser.js(facts)
    named = f"[...{ROWS}[1].cells].map(cell => getComputedStyle(cell, '::before').content.slice(1, -1))"
    assert {"pacing", "at stake", "by the end", "ends in"} <= set(browser.js(named))
    small = """[...document.querySelectorAll('button, select, input, #tabs a, #rows a')]
        .filter(one => one.offsetParent && one.getBoundingClientRect().height < 24)
        .map(one => one.id || one.textContent)"""
    assert browser.js(small) == []
    browser.js("scrollTo(0, 3000)")
    browser.until(f"{ROWS}.some(row => row.item.id > 'pl-02')")
    browser.js(f"{ROWS}.find(row => row.item.id > 'pl-02').querySelector('.c-state').click()")
    browser.until("!document.querySelector('#pane').hidden")
    assert browser.js("document.querySelector('#tools').inert"), "what is covered cannot be reached"


OVERFLOW = """[...document.querySelectorAll('#bar, #bar *, #tools, #tools *, #options *')]
    .filter(one => one.offsetParent && one.getBoundingClientRect().right > innerWidth + 0.5)
    .map(one => one.id)"""


@pytest.mark.parametrize("width", [320, 420, 560, 800, 1024, 1280])
def test_freshness_is_in_sight_and_nothing_overflows_at_any_width(page: Page, width: int) -> None:
    page.browser.resize(width, 800)
    browser = page.open()
    words = "document.querySelector('#verdict')"
    assert browser.js(f"{words}.scrollWidth <= {words}.clientWidth && {words}.clientWidth > 30")
    assert browser.js("document.querySelector('#flushed').textContent").endswith("ago")
    assert browser.js("document.querySelector('#flushed').clientWidth") > 30
    assert browser.js("document.documentElement.scrollWidth") <= width
    assert browser.js(OVERFLOW) == []


def test_an_open_pane_hides_no_column_that_fits(page: Page) -> None:
    page.browser.resize(1920, 1000)
    browser = page.open("#open=starved")
    heads = browser.js("[...document.querySelectorAll('#heads th')].map(head => head.dataset.key)")
    assert {"campaign", "hour", "needed", "progress"} <= set(heads)
    box = "document.querySelector('#scroll')"
    assert browser.js(f"{box}.scrollWidth <= {box}.clientWidth")


def test_state_and_name_stay_in_sight_when_the_table_is_scrolled_sideways(page: Page) -> None:
    page.browser.resize(800, 600)
    browser = page.open("#cols=campaign,pacing,short,stake,ends,delivered,booked,hour,needed,cost,reach")
    browser.js("document.querySelector('#scroll').scrollLeft = 500")
    box = "document.querySelector('#scroll')"
    assert browser.js(f"{box}.scrollLeft") == 500
    assert browser.js(f"{ROWS}[0].querySelector('.c-id').getBoundingClientRect().left") < 200


def test_states_have_marks_without_colours(page: Page) -> None:
    page.browser.dark(True, forced=True)
    page.browser.resize(1440, 800)
    browser = page.open()
    mark = f"getComputedStyle({ROWS}[1].querySelector('.state'), '::before').backgroundColor"
    panel = "getComputedStyle(document.body).backgroundColor"
    assert browser.js(f"{mark} !== {panel}")
    assert browser.js(f"getComputedStyle({ROWS}[1].querySelector('.track b')).backgroundColor !== {panel}")


def test_an_unknown_id_is_reported_without_empty_headings(page: Page) -> None:
    browser = page.open("#q=good")
    browser.js("location.hash = '#q=good&open=nope'")
    browser.until("document.querySelector('#p-labels').textContent === 'There is no such row.'")
    assert browser.js("document.querySelector('#p-body').hidden && document.querySelector('#p-state').hidden")


def test_a_browser_without_scripts_shows_a_table(page: Page, browser: Browser) -> None:
    browser.scripts(False)
    try:
        browser.open(f"http://127.0.0.1:{page.port}/")
        row = 'class="left">costly</th><td>under</td><td>c-7</td><td>88</td><td>120,000</td>'
        eventually(lambda: row in browser.html())
    finally:
        browser.scripts(True)
    if (source := axe()) is None:
        pytest.skip(NO_AXE)
    browser.open(f"http://127.0.0.1:{page.port}/table")
    browser.until("document.querySelectorAll('tbody tr').length > 50")
    assert axe_findings(browser, source) == []


def test_a_quiet_row_is_drawn_as_quiet(page: Page) -> None:
    browser = page.open()
    heights = """(async () => (await import('/page/columns.js')).sparkPath([%s], [0, 10, 20, 30, 40, 50])
        .match(/[\\d.]+(?=L|$)/g).map(Number))()"""
    noise = browser.js(heights % "0, 1, 0, 2, 1")
    assert max(noise) - min(noise) < 4, "of 16 px: one impression more or less is no peak"
    busy = browser.js(heights % "0, 100, 50")
    assert max(busy) - min(busy) == 16


def test_the_theme_goes_from_the_systems_to_dark_to_light(page: Page) -> None:
    page.browser.dark(False)
    browser = page.open()
    grounds = []
    for _ in range(3):
        browser.press("t")
        grounds.append(browser.js("getComputedStyle(document.body).backgroundColor"))
    assert len(set(grounds)) == 2, "dark, light, and light as the system is"
