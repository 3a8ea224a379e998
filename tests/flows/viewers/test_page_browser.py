"""The live page as Chromium shows it, served by the exporter over what the flow wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from board_support import TRUTH, eventually, free_port, put_rows, python, replayed
from browser_support import CHROMIUM, MISSING, Browser, chromium
from redis import Redis

from connectors.embedded import EmbeddedValkey
from flows.viewers.series import FIELDS

pytestmark = [pytest.mark.debian, pytest.mark.skipif(CHROMIUM is None, reason=MISSING)]

SERVE = (
    "from flows.viewers.exporter import serve; from flows.settings import load; "
    "serve(load(redis_url={!r}, namespace={!r}), '127.0.0.1', {})"
)
ON_PLAN = {"delivery.booked": "2000", "delivery.expected": "1000", "flight.impressions": "1000"}
DESK = {
    "good": {**ON_PLAN, "delivery.state": "on_track", "delivery.indicator": "1"},
    "starved": {
        "delivery.state": "under",
        "delivery.indicator": "0.25",
        "delivery.booked": "2000",
        "delivery.expected": "1000",
        "flight.impressions": "250",
        "campaign_id": "c-7",
        "flight.starts": "200",
        "flight.first_quartiles": "160",
        "flight.completes": "100",
        "flight.repeated": "11",
    },
    "silent": {**ON_PLAN, "flight.impressions": "0", "delivery.state": "under", "delivery.indicator": "0"},
    "unplanned": {"flight.impressions": "5000"},
}
HOSTILE = [
    "<img src=x onerror=window.broken=1>",
    "'\"><script>window.broken=1</script>",
    "constructor",
    "__proto__",
    "..",
    "two\nlines",
    "\u202eright to left",
]
NAMES = "[...document.querySelectorAll('#rows tr:not(.pad) td.name')].map(cell => cell.textContent)"
LEVEL = "document.querySelector('#bar').dataset.level"


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


class Desk:
    """The page over a namespace of its own."""

    def __init__(self, browser: Browser, url: str, namespace: str) -> None:
        self.browser, self.url, self.namespace = browser, url, namespace

    def put(self, rows: dict[str, dict[str, str]], **meta: int) -> None:
        put_rows(self.url, self.namespace, rows)
        if meta:
            with Redis.from_url(self.url) as client:
                client.hset(f"{self.namespace}:meta", mapping=meta)


@pytest.fixture
def desk(browser: Browser, valkey: EmbeddedValkey, request: pytest.FixtureRequest) -> Iterator[Desk]:
    namespace = request.function.__name__
    put_rows(valkey.url, namespace, getattr(request, "param", DESK))
    yield from served(browser, valkey.url, namespace)


@pytest.fixture(scope="module")
def shared_port(valkey: EmbeddedValkey) -> Iterator[int]:
    """Of an exporter for all that changes nothing but how fresh its rows are."""
    put_rows(valkey.url, "shared", DESK)
    with exporter(valkey.url, "shared") as port:
        yield port


@pytest.fixture
def shared_desk(browser: Browser, valkey: EmbeddedValkey, shared_port: int) -> Iterator[Desk]:
    yield from shown(browser, shared_port, valkey.url, "shared")


@contextmanager
def exporter(url: str, namespace: str) -> Iterator[int]:
    port = free_port()
    with python(SERVE.format(url, namespace, port)):
        eventually(lambda: answers(port))
        yield port


def shown(browser: Browser, port: int, url: str, namespace: str) -> Iterator[Desk]:
    browser.errors.clear()
    browser.open(f"http://127.0.0.1:{port}/")
    browser.until(f"{NAMES}.length")
    yield Desk(browser, url, namespace)
    browser.open("about:blank")


def served(browser: Browser, url: str, namespace: str) -> Iterator[Desk]:
    with exporter(url, namespace) as port:
        yield from shown(browser, port, url, namespace)


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def test_the_worst_delivery_is_first_and_red_and_says_so_in_words(shared_desk: Desk) -> None:
    browser = shared_desk.browser
    assert browser.js(NAMES) == ["silent", "starved", "good", "unplanned"]
    first = "document.querySelector('#rows tr:not(.pad)')"
    assert browser.js(f"{first}.querySelector('.state').textContent") == "under"
    red, green, blue = browser.js(
        f"getComputedStyle({first}.querySelector('.state')).color.match(/\\d+/g).map(Number)"
    )
    assert red > 2 * max(green, blue) or (red > 200 and max(green, blue) < 140)
    plain = "getComputedStyle(document.querySelectorAll('#rows tr:not(.pad)')[2]).backgroundColor"
    assert browser.js(f"getComputedStyle({first}).backgroundColor !== {plain}")
    assert browser.errors == []


def test_a_change_in_redis_reaches_the_cell_and_the_order(desk: Desk) -> None:
    desk.put({"good": {**ON_PLAN, "delivery.delivered": "1234", "delivery.state": "at_risk"}})
    desk.browser.until("document.querySelector('#rows').textContent.includes('1,234')")
    desk.browser.until(f'JSON.stringify({NAMES}) === \'["silent","starved","good","unplanned"]\'')
    desk.put({"good": {**ON_PLAN, "delivery.state": "under", "delivery.indicator": "-1"}})
    desk.browser.until(f"{NAMES}[0] === 'good'")


@pytest.mark.parametrize("desk", [dict.fromkeys(HOSTILE, DESK["starved"])], indirect=True)
def test_hostile_ids_are_text_in_the_table_and_in_the_pane(desk: Desk) -> None:
    browser = desk.browser
    assert sorted(browser.js(NAMES)) == sorted(HOSTILE)
    for _ in HOSTILE:
        browser.press("j")
        browser.press("Enter")
        browser.until("document.querySelector('#p-id').textContent === chosen")
        browser.until("document.querySelector('#p-funnel').textContent.includes('160')")
        browser.js("document.querySelector('#p-funnel').replaceChildren()")
    assert browser.js("window.broken") is None
    assert browser.js("document.querySelectorAll('img, #rows script, #pane script').length") == 0
    assert browser.errors == []


def test_the_keyboard_does_it_all(desk: Desk) -> None:
    browser = desk.browser
    browser.press("j")
    browser.press("ArrowDown")
    assert browser.js("document.querySelector('[aria-selected=true] td.name').textContent") == "starved"
    browser.press("Enter")
    browser.until("document.querySelector('#p-integrity').textContent.includes('repeated11')")
    steps = "[...document.querySelectorAll('.step')].map(step => step.lastChild.textContent)"
    assert browser.js(steps) == ["100.0 %", "80.0 %", "–", "–", "50.0 %"]
    browser.until("document.querySelector('#p-chart canvas')")
    assert "starved" in browser.js("location.hash")
    browser.press("k")
    browser.until("document.querySelector('#p-id').textContent === 'silent'")
    browser.press("Escape")
    assert browser.js("document.querySelector('#pane').hidden")
    browser.press("s")
    assert browser.js("document.querySelector('#sorted').textContent") == "busiest first"
    assert browser.js(NAMES)[0] == "unplanned"
    browser.press("/")
    for key in "c-7":
        browser.press(key)
    browser.until(f"JSON.stringify({NAMES}) === '[\"starved\"]'")
    browser.press("Escape")
    browser.until(f"{NAMES}.length === 4")
    ground = "getComputedStyle(document.body).backgroundColor"
    browser.dark(False)
    grounds = []
    for _ in range(3):
        browser.press("t")
        grounds.append(browser.js(ground))
    assert len(set(grounds)) == 2, "dark, light, and light as the system is"
    assert browser.errors == []


def test_the_bar_follows_the_flow_from_live_to_slow_to_stalled(desk: Desk) -> None:
    browser = desk.browser
    assert browser.js(LEVEL) == "wait"
    now_ms = int(browser.js("Date.now()"))
    for age_s, level in ((0, "ok"), (10, "slow"), (60, "down")):
        desk.put({}, flushed_ms=now_ms - age_s * 1000)
        browser.until(f"{LEVEL} === '{level}'", 10)
    assert browser.js("document.querySelector('#verdict').textContent").startswith("stalled")


def test_numbers_that_are_written_and_old_are_not_called_live(desk: Desk) -> None:
    browser = desk.browser
    now_ms = int(browser.js("Date.now()"))
    for behind_s, level in ((70, "ok"), (1500, "slow")):
        desk.put({}, flushed_ms=now_ms + 3_000, watermark_ms=now_ms - behind_s * 1000)
        browser.until(f"{LEVEL} === '{level}'", 10)
    assert browser.js("document.querySelector('#verdict').textContent") == "behind: numbers of 25 min ago"


OVERFLOW = """[...document.querySelectorAll('#bar, #bar *, nav, nav *, footer, footer *')]
    .filter(one => one.offsetParent && one.getBoundingClientRect().right > innerWidth + 0.5)
    .map(one => one.id)"""


@pytest.mark.parametrize("width", [320, 420, 560, 800, 1280])
def test_freshness_is_in_sight_and_nothing_overflows_at_any_width(shared_desk: Desk, width: int) -> None:
    browser = shared_desk.browser
    words = "document.querySelector('#verdict')"
    try:
        browser.resize(width, 800)
        for age_s, level in ((0, "ok"), (60, "down")):
            shared_desk.put({}, flushed_ms=int(browser.js("Date.now()")) - age_s * 1000)
            browser.until(f"{LEVEL} === '{level}'", 10)
            assert browser.js(f"{words}.scrollWidth <= {words}.clientWidth && {words}.clientWidth > 30")
            assert browser.js("document.querySelector('#flushed').textContent").endswith("ago")
            assert browser.js("document.querySelector('#flushed').clientWidth") > 30
            assert browser.js("document.documentElement.scrollWidth") <= width
            assert browser.js(OVERFLOW) == []
        assert browser.js("document.querySelector('#theme').clientWidth") > 30
    finally:
        browser.resize(1280, 800)


def test_a_quiet_row_is_drawn_as_quiet(shared_desk: Desk) -> None:
    heights = "sparkPath([%s]).match(/[\\d.]+(?=L|$)/g).map(Number)"
    noise = shared_desk.browser.js(heights % "0, 1, 0, 2, 1")
    assert max(noise) - min(noise) < 4, "of 16 px: one impression more or less is no peak"
    busy = shared_desk.browser.js(heights % "0, 100, 50")
    assert max(busy) - min(busy) == 16


def test_the_bar_says_when_redis_is_down_and_the_numbers_stay(browser: Browser) -> None:
    with EmbeddedValkey() as mortal:
        put_rows(mortal.url, "t", DESK)
        for desk in served(browser, mortal.url, "t"):
            mortal.kill()
            browser.until(f"{LEVEL} === 'down'")
            assert (
                browser.js("document.querySelector('#verdict').textContent")
                == "Redis is unavailable (connection)"
            )
            assert len(browser.js(NAMES)) == len(DESK)
            mortal.start()
            desk.put(DESK)
            browser.until(f"{LEVEL} === 'wait'")


MANY = {
    f"pl-{n:05}": {**dict.fromkeys(FIELDS, str(n)), "delivery.state": "under" if n % 9 == 0 else "on_track"}
    for n in range(10_000)
}


@pytest.mark.parametrize("desk", [MANY], indirect=True)
def test_ten_thousand_placements_are_few_elements_and_little_work(desk: Desk) -> None:
    browser = desk.browser
    browser.until("document.querySelector('#count').textContent === '10,000 placements'")
    assert browser.js("document.querySelectorAll('#rows tr').length") < 60
    cost = "(() => { const began = performance.now(); %s; return performance.now() - began; })()"
    rows = {f"pl-{n:05}": {"7": str(n + 5)} for n in range(2000)}
    message = json.dumps({"rows": rows, "gone": [], "grown": {}})
    costs_ms = {
        "change and draw": browser.js(cost % f"change({{...{message}, status}})"),
        "order": browser.js(cost % "arrange(ORDERS[0])"),
        "filter": browser.js(cost % "(document.querySelector('#filter').value = 'pl-0999', sift())"),
    }
    print({name: f"{round(ms)} ms" for name, ms in costs_ms.items()})
    assert len(browser.js(NAMES)) == 10
    assert max(costs_ms.values()) < 500
    browser.js("document.querySelector('#filter').value = ''; sift()")
    browser.press("End")
    browser.until(f"{NAMES}.includes(shown.at(-1).id)")


def test_it_shows_what_the_flow_wrote(browser: Browser) -> None:
    with EmbeddedValkey() as server:
        replayed(server)
        for _ in served(browser, server.url, "audiopixel:v1"):
            shown = browser.js("[...rows.values()].map(row => [row.id, number(row, 'flight.impressions')])")
            assert dict(shown) == {name: int(TRUTH[name]["flight.impressions"]) for name, _ in shown}
            assert len(shown) > 90
            browser.until("!document.querySelector('#watermark').textContent.includes('–')")
            assert browser.errors == []
