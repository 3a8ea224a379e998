"""The desk's sections of the live page, as Chromium shows them: alerts, and the course of a flight."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

import pytest
from browser_support import CHROMIUM, MISSING, Browser, chromium
from page_support import NO_AXE, axe, axe_findings, exporter, now_ms, planned, put_desk, silent, unjudged
from redis import Redis

from connectors.embedded import EmbeddedValkey
from flows.viewers.minutes_topic import MinutesTopic

pytestmark = [pytest.mark.debian, pytest.mark.skipif(CHROMIUM is None, reason=MISSING)]

NOW = now_ms()
MINUTE_MS = 60_000
HOSTILE = "<img src=x onerror=window.broken=1>"
DESK: dict[str, dict[str, Any]] = {
    "hit": planned(
        "on_track", 1.0, 4_000, NOW, campaign_id="c-1",
        **{"flight.blocked_impressions": 912, "delivery.blocked_at_stake": "9.12"},
    ),
    "poor": planned("under", 0.25, 2_000, NOW, campaign_id="c-2"),
    "dear": planned("under", 0.5, 200_000, NOW, 18.0, campaign_id="c-2"),
    "soon": planned("at_risk", 0.95, 2_000, NOW, campaign_id="c-2"),
    "waits": planned("under", 0.5, 2_000, NOW, campaign_id="c-3", **unjudged("platform:Acast", NOW)),
    "good": planned("on_track", 1.0, 4_000, NOW, campaign_id="c-3"),
    HOSTILE: planned("over", 1.5, 4_000, NOW, campaign_id="c-3"),
}  # fmt: skip
FIRING = "[...document.querySelectorAll('#firing li')]"


class Minutes:
    """A topic of minutes in which one placement had 30 impressions a minute for two hours, then none."""

    from_ms = NOW - 3 * 3_600_000

    def of_placement(self, placement: str) -> tuple[int, list[dict[str, Any]]]:
        first_ms = (NOW - 3 * 3_600_000) // MINUTE_MS * MINUTE_MS
        minutes = [
            {"minute_ms": first_ms + n * MINUTE_MS, "impressions": 30, "state": "final"} for n in range(120)
        ]
        return self.from_ms, minutes if placement == "dear" else []


@pytest.fixture(scope="module")
def page() -> Iterator[tuple[Browser, int, str]]:
    with EmbeddedValkey() as server, chromium() as browser:
        put_desk(server.url, "t", DESK, NOW)
        with Redis.from_url(server.url) as client:
            told = json.dumps({"platform:Acast": silent(NOW - 600_000, 1)})
            client.hset("t:meta", mapping={"silent": told, "judged": 1})
        with exporter(server.url, "t", minutes=cast(MinutesTopic, Minutes())) as port:
            yield browser, port, server.url


def opened(page: tuple[Browser, int, str], view: str) -> Browser:
    browser, port, url = page
    with Redis.from_url(url) as client:
        client.hset(
            "t:meta", mapping={"flushed_ms": now_ms(), "watermark_ms": now_ms() - 12_000, "judged": 1}
        )
    browser.errors.clear()
    browser.open("about:blank")
    browser.open(f"http://127.0.0.1:{port}/{view}")
    browser.until("document.querySelector('#tabs a')")
    return browser


def test_current_alerts_are_ordered_by_blocked_content_then_money(
    page: tuple[Browser, int, str],
) -> None:
    browser = opened(page, "#view=alerts")
    browser.until(f"{FIRING}.length === 6")
    told = browser.js(f"{FIRING}.map(line => line.innerText.replaceAll('\\n', ' '))")
    blocked = told[0]
    assert "hit" in blocked
    assert "critical" in blocked
    assert "feed silent" in told[1]
    assert "912 impressions in content that the plan blocks, GBP 9.12 that will not be paid" in blocked
    names = browser.js(f"{FIRING}.map(line => line.querySelector('a.name')?.textContent ?? '')")
    assert names[2:] == ["dear", "poor", "soon", HOSTILE]
    assert "waits" not in names, "what is not judged begins no alert"
    lefts = "[...document.querySelectorAll('#firing a.name')].map(name => name.offsetLeft)"
    assert len(set(browser.js(lefts))) == 1, "the longest words of a state fit their column"
    assert browser.js("document.querySelector('#tabs [data-view=alerts]').textContent") == "Alerts 6"
    assert browser.js("window.broken") is None
    browser.click("#firing li:nth-child(3) a.name")
    browser.until("document.querySelector('#p-id').textContent === 'dear'")


def test_the_pane_begins_with_blocked_content_in_red(
    page: tuple[Browser, int, str],
) -> None:
    browser = opened(page, "#open=hit")
    badges = "[...document.querySelectorAll('#pane > header .state')].filter(one => one.offsetParent)"
    browser.until(f"{badges}.length")
    assert browser.js(f"{badges}.map(one => one.textContent)") == ["blocked 912", "on track"]
    assert browser.js(f"getComputedStyle({badges}[0]).color") == colour(browser, "--red")
    browser = opened(page, "#open=good")
    browser.until(f"{badges}.length")
    assert browser.js(f"{badges}.map(one => one.textContent)") == ["on track"]


def test_an_unjudged_state_in_the_pane_is_grey(page: tuple[Browser, int, str]) -> None:
    state = "document.querySelector('#p-state')"
    with Redis.from_url(page[2]) as client:
        browser = opened(page, "#open=good")
        browser.until(f"{state}.textContent === 'on track'")
        # A test before may have left delivery not judged, until the exporter's next look.
        browser.until(f"getComputedStyle({state}).color === '{colour(browser, '--green')}'")
        try:
            client.hset("t:meta", mapping={"judged": 0, "unjudged_reason": "collector"})
            browser.until("!document.querySelector('#banner').hidden")
            assert browser.js(f"getComputedStyle({state}).color") == colour(browser, "--soft")
        finally:
            client.hset("t:meta", "judged", 1)


def colour(browser: Browser, name: str) -> Any:
    """A colour of the page's palette, as a computed style names it."""
    return browser.js(f"""(() => {{ const one = document.body.appendChild(document.createElement('i'));
        one.style.color = 'var({name})';
        const found = getComputedStyle(one).color;
        one.remove();
        return found; }})()""")


def test_the_course_reads_the_last_whole_minute(
    page: tuple[Browser, int, str],
) -> None:
    as_of_ms = NOW // MINUTE_MS * MINUTE_MS + 5_000
    begun_ms = as_of_ms - 5_000
    told = {
        "as_of_ms": as_of_ms,
        "flight": {"start_ms": NOW - 3_600_000, "end_ms": NOW + 3_600_000},
        "needed_per_minute": 258,
        "projected_per_minute": 270,
        "minutes": {
            "at_ms": [begun_ms - n * MINUTE_MS for n in range(10, -1, -1)],
            "impressions": [1] + [277] * 9 + [1],
        },
        "marks": [],
    }
    browser = opened(page, "")
    browser.js(f"""(() => {{ const ask = window.fetch;
        window.fetch = async (url, ...more) => String(url).endsWith('/course')
            ? {{ ok: true, json: async () => ({json.dumps(told)}) }} : ask(url, ...more);
        location.hash = '#open=dear'; }})()""")
    legend = "document.querySelector('#p-course-legend').textContent"
    browser.until(f"{legend}.includes('a minute')")
    assert browser.js(legend).endswith(": 277 impressions a minute, needed 258")
    browser.js("document.querySelector('#p-course-plot').focus()")
    browser.press("Home")
    browser.until(f"{legend}.includes(': 1 impression a minute')")
    assert "not over" not in browser.js(legend)
    browser.press("End")
    browser.until(f"{legend}.includes('projected')")
    for _ in range(2):  # the projection begins and ends with a point of its own
        browser.press("ArrowLeft")
    browser.until(f"{legend}.includes(', not over yet: 1 impression a minute, needed 258')")


def test_the_course_labels_rate_need_projection_and_marks(
    page: tuple[Browser, int, str],
) -> None:
    browser = opened(page, "#open=dear&range=6h")
    browser.until("!document.querySelector('#p-course').hidden")
    browser.until("document.querySelector('#p-course-chart canvas')")
    legend = "document.querySelector('#p-course-legend').textContent"
    browser.until(f"{legend}.includes('impressions a minute, needed')")
    assert " 0 impressions a minute" in browser.js(legend)
    browser.js("document.querySelector('#p-course-plot').focus()")
    browser.press("Home")
    browser.until(f"{legend}.includes(' 30 impressions a minute')")
    browser.press("End")
    browser.until(f"{legend}.includes('projected')")
    marks = browser.js("document.querySelector('#p-marks').innerText")
    assert "under, before on track" in marks
    browser.js("[...document.querySelectorAll('#p-course .ranges button')].at(-1).click()")
    browser.until("location.hash.includes('range=flight')")
    browser.until("document.querySelector('#p-course-chart canvas')")
    assert browser.errors == []
    if (source := axe()) is None:
        pytest.skip(NO_AXE)
    assert axe_findings(browser, source) == []
    browser.js("document.querySelector('#bar').dataset.level = 'down'")  # dims the table
    assert axe_findings(browser, source) == []


def test_the_pane_begins_with_its_sentence_and_folds_details(page: tuple[Browser, int, str]) -> None:
    sentence = f"Nearly stopped: 15 an hour of 1,996 needed. {HOSTILE}"
    browser = opened(page, "")
    browser.js(f"""(() => {{ const ask = window.fetch;
        window.fetch = async (url, ...more) => {{ const answer = await ask(url, ...more);
            if (!String(url).startsWith('/row')) return answer;
            const found = {{ ...await answer.json(), sentence: {json.dumps(sentence)} }};
            return {{ json: async () => found }}; }};
        location.hash = '#open=poor'; }})()""")
    told = "document.querySelector('#p-sentence')"
    browser.until(f"{told}.textContent.startsWith('Nearly stopped')")
    assert browser.js(f"{told}.textContent") == sentence
    assert browser.js("window.broken") is None
    folded = "document.querySelector('#p-more')"
    assert not browser.js(f"{folded}.open")
    top = "document.querySelector('%s').getBoundingClientRect().top"
    assert browser.js(f"{top % '#p-sentence'} < {top % '#p-pacing'}")
    browser.js(f"{folded}.querySelector('summary').click()")
    browser.until(f"{folded}.open")
    browser = opened(page, "#open=dear")
    assert browser.js(f"{folded}.open"), "this browser remembers it"
    browser.js("localStorage.clear()")


def test_a_sum_shows_its_number_of_unjudged_rows(
    page: tuple[Browser, int, str],
) -> None:
    browser = opened(page, "")
    words = "document.querySelector('#sums td.c-state')?.innerText.replaceAll('\\n', ' ')"
    browser.until(f"{words} === '1 blocked 2 under, 1 not judged'")
    told = browser.js(
        """(async () => {
            const { desk, number, short } = await import("/page/data.js");
            const rows = [...desk.rows.placement.values()];
            const sum = (of) => of.reduce((so, row) => so + short(row), 0);
            const shown = document.querySelector("#sums td.c-short").innerText.replaceAll(",", "");
            return [Number(shown), sum(rows.filter((row) => row.state !== "unjudged")), sum(rows)];
        })()"""
    )
    assert told[0] == pytest.approx(told[1], abs=1)
    assert told[1] < told[2]


def test_a_row_without_pacing_is_in_no_sum_of_pacing(page: tuple[Browser, int, str]) -> None:
    browser = opened(page, "")
    browser.until("document.querySelector('#sums td.c-pacing')?.innerText.includes('%')")
    paces = browser.js(
        """(async () => {
            const { addUp, desk, newSum, number } = await import("/page/data.js");
            const poor = [...desk.rows.placement.values()].find((row) => row.id === "poor");
            const warm = { ...poor, state: "warming_up", n: [...poor.n] };
            warm.n[desk.fields["delivery.indicator"]] = NaN;
            warm.n[desk.fields["delivery.delivered"]] = 99_000;
            const paced = (rows) => {
                const sum = newSum("", "");
                addUp(sum, rows);
                return number(sum, "delivery.indicator");
            };
            return [paced([poor]), paced([poor, warm]), Number.isNaN(paced([warm]))];
        })()"""
    )
    assert paces == [pytest.approx(0.25, abs=0.01), paces[0], True]


def test_an_unjudged_row_does_not_widen_the_column_of_states(
    page: tuple[Browser, int, str],
) -> None:
    browser = opened(page, "#q=good")
    width = "document.querySelector('#heads .c-progress, #heads .c-pacing').getBoundingClientRect().width"
    browser.until("document.querySelectorAll('#rows tr:not(.pad)').length === 1")
    before = browser.js(width)
    browser.js("(async () => (await import('/page/view.js')).go({q: ''}))()")
    browser.until("document.querySelectorAll('#rows tr:not(.pad)').length > 4")
    assert browser.js(width) == before
    waits = "[...document.querySelectorAll('#rows tr')].find((row) => row.item?.id === 'waits')"
    assert browser.js(f"{waits}.querySelector('.c-state').innerText") == "not judged\nAcast is silent"
    assert browser.js(f"{waits}.querySelector('.state').scrollWidth") <= browser.js(
        f"{waits}.querySelector('.c-state').clientWidth"
    )


CALL = {
    "at_ms": NOW,
    "outcome": "stored",
    "event": "impression",
    "placement": "dear",
    "campaign": "c-2",
    "sender": "network/198.51.100.0/24",
    "consent": "no_string",
    "invalid_traffic": "declared_bot",
    "reason": "",
    "alike": 12,
    "unread": ["first_parameter", "second_parameter"],
}


@pytest.mark.parametrize("width", [1440, 1024, 390])
def test_live_fits_the_width_and_shows_each_call_whole(page: tuple[Browser, int, str], width: int) -> None:
    browser = opened(page, "")
    browser.resize(width, 800)
    told = json.dumps({"calls": [CALL] * 3, "events": 3, "collectors": 1, "error": None})
    browser.js(f"window.fetch = async () => new Response({json.dumps(told)})")
    browser.js("(async () => (await import('/page/view.js')).go({view: 'live'}))()")
    browser.until("document.querySelectorAll('#live-body tbody tr').length === 3")
    box = "document.querySelector('#live-body .wide')"
    assert browser.js(f"{box}.scrollWidth <= {box}.clientWidth"), "no call is cut off at the side"
    assert browser.js("document.documentElement.scrollWidth <= innerWidth")
    text = browser.js("document.querySelector('#live-body tbody tr').innerText")
    for words in (
        "stored",
        "impression",
        "dear",
        "198.51.100.0/24",
        "declared bot",
        "second_parameter",
        "12",
    ):
        assert words in text, (width, words)
    assert browser.js("document.querySelectorAll('#live-body [role=row]').length") == 3
    browser.resize(1280, 800)
    assert browser.errors == []


@pytest.mark.parametrize("view", ["live", "compare", "tag", "placements"])
def test_on_a_phone_the_active_tab_is_in_the_picture(page: tuple[Browser, int, str], view: str) -> None:
    browser = page[0]
    browser.resize(390, 844)
    try:
        opened(page, f"#view={view}")
        browser.until("document.querySelector('#tabs [data-view=alerts]').textContent === 'Alerts 6'")
        browser.until(
            "(({left, right}) => left >= 0 && right <= innerWidth)"
            "(document.querySelector('#tabs [aria-current]').getBoundingClientRect())"
        )
    finally:
        browser.resize(1280, 800)


def test_a_phone_shows_the_selection_bar_at_the_cards_edge(page: tuple[Browser, int, str]) -> None:
    browser = page[0]
    browser.resize(390, 844)
    try:
        opened(page, "#open=dear")
        row = "document.querySelector('#rows tr[aria-selected=true]')"
        browser.until(row)
        shadows = f"[{row}, {row}.cells[0]].map(one => getComputedStyle(one).boxShadow)"
        card, cell = browser.js(shadows)
        assert ("3px 0px 0px" in card, cell) == (True, "none")
    finally:
        browser.resize(1280, 800)


@pytest.mark.parametrize("width", [1440, 390])
def test_links_of_alerts_stand_on_the_line_of_their_text(page: tuple[Browser, int, str], width: int) -> None:
    browser = page[0]
    browser.resize(width, 844)
    try:
        opened(page, "#view=alerts")
        browser.until(f"{FIRING}.length === 6")
        bottoms = browser.js(
            FIRING
            + """.map((line) => [...line.querySelectorAll('.severity, .state, a.name')].map((one) => {
                const words = document.createRange();
                words.selectNodeContents(one);
                const { bottom } = words.getBoundingClientRect();
                return bottom;
            }))"""
        )
        named = [(state, name[0]) for _, state, *name in bottoms if name]
        assert len(named) == 5
        for state, name in named:  # a narrow line breaks before a name
            assert name == pytest.approx(state, abs=1) or (width == 390 and name > state + 15)
    finally:
        browser.resize(1280, 800)
