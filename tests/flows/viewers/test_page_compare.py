"""A publisher's file dropped on the page, and a campaign's report, as Chromium shows them."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from browser_support import CHROMIUM, MISSING, Browser, chromium
from page_support import axe, axe_findings, desk_rows, exporter, now_ms, put_desk

from connectors.embedded import EmbeddedValkey
from connectors.redis import connect, put_fields
from flows.model.redis_keys import day_key
from flows.settings import load
from flows.viewers.collectors import Collectors
from flows.viewers.compared import MAX_FILE_BYTES, MAX_FILE_ROWS, Compared
from flows.waterfall import letter
from flows.waterfall.signed_parts import Difference, Part

DAY = datetime.now(UTC).date() - timedelta(days=1)
COUNTS = {
    "impressions": "1000",
    "repeated": "30",
    "invalid_traffic": '{"<b>bot</b>":20}',
    "clock_moved": "-5",
}
HEAD = "placement_id,campaign_id,day,impressions\n"
CSV = {"content-type": "text/csv"}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with EmbeddedValkey() as server:
        client = connect(server.url, timeout=timedelta(seconds=1))
        put_fields(client, {day_key("t", "starved", DAY): COUNTS}, timedelta(hours=1))
        rows = desk_rows(now_ms())
        rows["starved"] |= {"flight.consent_coverage": "0.8"}
        put_desk(server.url, "t", rows, now_ms())
        settings = load(redis_url=server.url, namespace="t", timezone="UTC")
        with exporter(server.url, "t", settings=settings, collectors=Collectors(client, "t")) as found:
            yield found
        client.close()


def sent(port: int, body: str | bytes, headers: dict[str, str] = CSV) -> tuple[int, dict[str, Any]]:
    answer = httpx.post(f"http://127.0.0.1:{port}/api/discrepancy", content=body, headers=headers, timeout=30)
    return answer.status_code, answer.json()


def test_a_dropped_file_is_explained_to_the_unit(port: int) -> None:
    status, told = sent(port, f"{HEAD}starved,,{DAY},1200\nstarved,,flight,5\n")
    assert status == 200
    first = told["rows"][0]
    assert (first["ours"], first["theirs"], first["band"]) == (1000, 1200, "breach")
    assert sum(part["impressions"] for part in first["parts"]) + first["unexplained"] == 200
    words = first["letter"]
    assert words.startswith(f"For placement starved you report 1,200 impressions on {DAY}. We count 1,000: ")
    assert "200 fewer, 20.0% of our count. The difference is over the tolerance." in words
    assert "30 came again with a key that had counted before, so we leave them out" in words
    assert "20 are invalid traffic by the IAB's lists and rules (<b>bot</b>)" in words
    assert "155 that you count more are not explained by our records." in words
    for ours_alone in ("audiopixel", "breach", "Redis"):
        assert ours_alone not in words


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("", 400, "your file: has no rows"),
        (HEAD, 400, "your file: has no rows"),
        ("a;b\n1;2\n", 400, "columns are separated by commas"),
        (f"{HEAD}p,,yesterday,1\n", 400, "your file:2: day: takes a date"),
        (f"{HEAD}p,,{DAY},1e3\n", 400, "takes a whole number"),
        (f"{HEAD}p,,{DAY},1\np,,{DAY},2\n", 400, "your file:3: counts the same as line 2"),
        (b"\xff\xfe", 400, "is not UTF-8"),
        (
            HEAD + "".join(f"p{n},,{DAY},1\n" for n in range(MAX_FILE_ROWS + 1)),
            400,
            "takes at most 1,000 rows",
        ),
        ("x" * (MAX_FILE_BYTES + 1), 413, "takes at most 1,048,576 bytes"),
    ],
)
def test_an_incomparable_file_is_refused_with_a_reason(
    port: int, body: str | bytes, status: int, words: str
) -> None:
    found, told = sent(port, body)
    assert (found, list(told)) == (status, ["error"])
    assert words in told["error"]


def test_another_sites_form_sends_no_file_and_a_second_waits(port: int) -> None:
    assert sent(port, HEAD, {"content-type": "text/plain"})[0] == 415
    compared = Compared(None, "t", None, dict)  # type: ignore[arg-type]  # it gets no further
    with compared._lock:
        assert compared.answer(b"")[0] == 429
    assert compared.answer(b"")[0] == 400
    assert isinstance(compared._lock, type(threading.Lock()))


def test_a_letter_states_equal_and_unknown_counts() -> None:
    same = Difference("placement", "p", "flight", 5, 5, ())
    assert (
        letter(same) == "For placement p you report 5 impressions over the whole flight. We count the same."
    )
    unknown = Difference("campaign", "c", "2026-11-25", None, 5, (), note="it has no plan")
    assert letter(unknown).endswith("Our number is not known: it has no plan.")
    less = Difference("placement", "p", "flight", 10, 8, (Part("outside_flight", -2),))
    assert "2 were outside the flight, so we count them and you may not" in letter(less)
    assert "not explained" not in letter(less)


pytest_browser = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


def dropped(browser: Browser, text: str) -> None:
    """Drop a file on the page, as a mouse does."""
    browser.js(f"""(() => {{ const data = new DataTransfer();
        data.items.add(new File([{json.dumps(text)}], 'theirs.csv', {{ type: 'text/csv' }}));
        const drop = new DragEvent('drop', {{ dataTransfer: data, bubbles: true, cancelable: true }});
        document.querySelector('#compare-drop').dispatchEvent(drop); }})()""")


@pytest.mark.debian
@pytest_browser
@pytest.mark.parametrize("dark", [True, False])
def test_a_dropped_file_gives_a_waterfall_with_a_labelled_axis(
    port: int, browser: Browser, dark: bool
) -> None:
    browser.dark(dark)
    browser.errors.clear()
    browser.open("about:blank")
    browser.open(f"http://127.0.0.1:{port}/#view=compare")
    browser.until("document.querySelector('#compare-drop')?.offsetParent")
    dropped(browser, f"{HEAD}starved,,{DAY},1200\n")
    made = "document.querySelector('#compare-made')"
    browser.until(f"{made}.querySelectorAll('article').length === 1")
    told = browser.js(f"{made}.innerText")
    assert "Theirs 1,200, ours 1,000: +200 (20.0 %), over the tolerance" in told
    assert "The axis is cut: the bars begin at 800, not at 0." in told
    assert browser.js(f"{made}.querySelectorAll('.w-break').length") == 4
    assert browser.js(f"{made}.querySelector('textarea').value").startswith("For placement starved")
    assert browser.js(f"{made}.querySelector('b')") is None, "a reason is text"
    assert browser.errors == []
    if (source := axe()) is not None:
        assert axe_findings(browser, source) == []
    dropped(browser, f"{HEAD}starved,,{DAY},3000\n")
    browser.until(f"{made}.innerText.includes('The axis begins at 0.')")
    widths = browser.js(
        f"[...{made}.querySelectorAll('.w-ends')].map(one => Number(one.getAttribute('width')))"
    )
    assert abs(widths[1] / widths[0] - 3) < 0.05, "three times is three times as long"
    dropped(browser, "no such column\n1\n")
    browser.until(f"{made}.querySelector('.trouble')")


@pytest.mark.debian
@pytest_browser
def test_a_phone_shows_the_whole_form_and_boxes_the_table(port: int, browser: Browser) -> None:
    browser.resize(390, 844)
    try:
        browser.open("about:blank")
        browser.open(f"http://127.0.0.1:{port}/#view=compare")
        browser.until("document.querySelector('#compare-drop')?.offsetParent")
        box = "document.querySelector('#compare-drop %s').getBoundingClientRect()"
        assert browser.js(f"{box % 'input'}.right <= {box % 'p'}.right + 1")
        assert browser.js(f"Math.abs({box % 'input'}.width - {box % 'p'}.width) <= 1"), "as wide as the form"
        assert browser.js(f"{box % 'label span'}.height") < 45, "two lines at most"
        dropped(browser, f"{HEAD}starved,,{DAY},1200\n")
        browser.until("document.querySelectorAll('#compare-made article').length === 1")
        sheet = "document.querySelector('#compare')"
        assert browser.js(f"{sheet}.scrollWidth <= {sheet}.clientWidth")
        assert browser.js("document.documentElement.scrollWidth") <= 390
        held = "document.querySelector('#compare-made table').parentElement"
        assert browser.js(f"getComputedStyle({held}).overflowX") == "auto"
        assert browser.js(f"{held}.tabIndex") == 0, "keys scroll it"
        assert (
            browser.js("getComputedStyle(document.querySelector('#compare-made td')).whiteSpace") == "normal"
        )
        if (source := axe()) is not None:
            assert axe_findings(browser, source) == []
    finally:
        browser.resize(1280, 800)


@pytest.mark.debian
@pytest_browser
def test_a_campaigns_report_prints_on_one_page_without_scripts(port: int, browser: Browser) -> None:
    browser.dark(True)
    browser.errors.clear()
    browser.open("about:blank")
    browser.open(f"http://127.0.0.1:{port}/#view=campaigns&open=c-7")
    browser.until("document.querySelector('#p-report a')?.offsetParent")
    browser.click("#p-report a")
    browser.until("document.querySelector('h1')?.textContent === 'Campaign c-7'")
    told = browser.js("document.querySelector('main').innerText")
    for words in ("costly", "starved", "GBP 2,160", "GBP 7.50"):
        assert words in told
    facts = dict(
        browser.js("[...document.querySelectorAll('.facts div')].map(one => one.innerText.split(/\\n+/))")
    )
    assert re.fullmatch(r"\d\d \w{3} \d{4}, \d\d:\d\d UTC", facts["flight starts"])
    assert re.fullmatch(r"\d\d \w{3} \d{4}, \d\d:\d\d UTC", facts["flight ends"])
    assert "completed, flight" in facts, "a share names its window"
    assert "good" not in told
    assert browser.js("document.scripts.length") == 0
    if (source := axe()) is not None:
        assert axe_findings(browser, source) == []
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        ground = browser.js("getComputedStyle(document.body).backgroundColor")
        assert ground == "rgb(255, 255, 255)"
        assert browser.js("getComputedStyle(document.querySelector('.back')).display") == "none"
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")
    assert httpx.get(f"http://127.0.0.1:{port}/report", params={"id": "no-such"}).status_code == 404
