"""The live page's collectors and tag builder, as Chromium shows them, over what collectors tell in Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from browser_support import CHROMIUM, MISSING, Browser, chromium
from page_support import NO_AXE, axe, axe_findings, exporter, now_ms
from reader_support import tag_door
from redis import Redis

from connectors.embedded import EmbeddedValkey
from connectors.redis import connect
from flows.collector import tag_answers
from flows.model.last_call import LastCall, encoded
from flows.settings import Settings, load
from flows.viewers.collectors import Collectors

pytestmark = [pytest.mark.debian, pytest.mark.skipif(CHROMIUM is None, reason=MISSING)]

BODY = "document.querySelector('#collectors-body')"


def figures(id: str, **more: Any) -> dict[str, Any]:
    """The figures of one collector, as it tells them."""
    counts = ("calls", "stored", "not_counted", "rejected", "refused", "inherited", "acknowledged", "torn")
    maps = ("rejected_by", "refused_by", "not_counted_by", "consent_by", "invalid_traffic_by", "unreplaced")
    return {
        "id": id,
        "version": "0.1.0",
        "ready": 1,
        "updated_ms": now_ms() + 600_000,
        "resting": 0,
        "spool_bytes": 0,
        "spool_full_ratio": 0,
        "oldest_resting_ms": 0,
        "low_ms": now_ms(),
        "placements_unreplaced": json.dumps({"pl-9": [100, 80]}),
        **dict.fromkeys(counts, 0),
        **dict.fromkeys(maps, "{}"),
        **more,
    }


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    with EmbeddedValkey() as server:
        yield load(
            redis_url=server.url,
            namespace="t",
            collect_url="https://pixels.example.com",
            collect_signing_keys={"a1": "a secret for tests"},
        )


@pytest.fixture(scope="module")
def page(settings: Settings) -> Iterator[tuple[Browser, int]]:
    url = settings.redis_url.get_secret_value()
    client = connect(url, timeout=timedelta(seconds=1))
    keys = {"a1": "a secret for tests"}
    with (
        tag_door(collect_url="https://pixels.example.com", collect_signing_keys=keys) as door,
        chromium() as browser,
        exporter(
            url,
            "t",
            settings=load(redis_url=url, namespace="t", **door),
            collectors=Collectors(client, "t"),
        ) as port,
    ):
        yield browser, port
    client.close()


@pytest.fixture
def browser(page: tuple[Browser, int], request: pytest.FixtureRequest) -> Browser:
    one, port = page
    one.errors.clear()
    one.open("about:blank")
    one.open(f"http://127.0.0.1:{port}/#view={request.param}")
    one.until("document.querySelector('#tabs a')")
    return one


at = pytest.mark.parametrize


@at("browser", ["collectors"], indirect=True)
def test_collectors_show_calls_spool_holds_consent_and_macros(browser: Browser, settings: Settings) -> None:
    browser.until(f"{BODY}.textContent.includes('No collector has reported')")
    consent, macros = {"given": 75, "no_string": 25}, {"triton": {"play_id": 7}}
    one = figures(
        "one/0",
        calls=1_234,
        stored=1_200,
        refused=34,
        consent_by=json.dumps(consent),
        refused_by=json.dumps({"calls": 34}),
        unreplaced=json.dumps(macros),
        unverified_servers=json.dumps(
            [{"network": "35.180.1.0/24", "agent": "<i>Acme</i>", "calls": 1_300, "device_from": "query"}]
        ),
    )
    two = figures(
        "<b>two</b>", calls=1, resting=42, oldest_resting_ms=now_ms() - 600_000, spool_full_ratio=0.41
    )
    with Redis.from_url(settings.redis_url.get_secret_value(), decode_responses=True) as client:
        for row in (one, two):
            client.hset(f"t:collector:{{{row['id']}}}", mapping=row)
            client.hset("t:collectors", row["id"], now_ms())
        hold = {"held_since_ms": now_ms() - 120_000, "held_by": "<b>two</b>", "held_why": "drain"}
        client.hset("t:meta", mapping=hold)
    browser.until(f"{BODY}.textContent.includes('one/0')")
    cells = browser.js(f"[...{BODY}.querySelectorAll('tbody tr')].map(row => row.innerText)")
    assert cells[0].split("\t")[:4] == ["<b>two</b>", "ready", "1", "0"]
    assert "42, from" in cells[0]
    assert "41 %" in cells[0]
    assert cells[1].split("\t")[:5] == ["one/0", "ready", "1,234", "1,200", "34"]
    assert cells[2].split("\t")[:5] == ["together", "2 ready, 0 away", "1,235", "1,200", "34"]
    text = browser.js(f"{BODY}.innerText")
    for words in ("collector <b>two</b> holds", "no consent string", "25.0 %", "macros are not replaced"):
        assert words in text
    assert "triton\tplay_id\t7" in text
    listed = '35.180.1.0/24\t<i>Acme</i>\tcollect_servers."35.180.1.0/24" = "query"\t1,300'
    assert listed in text
    with Redis.from_url(settings.redis_url.get_secret_value(), decode_responses=True) as client:
        client.hset("t:meta", "held_why", "clock")
    browser.until(f"{BODY}.textContent.includes('the clock of collector <b>two</b> is wrong')")
    for cell, said in (("td:nth-child(5)", "asked to retry"), (".step span:last-child", "Pixels by the")):
        browser.js(f"{BODY}.querySelector({json.dumps(cell)}).click()")
        browser.until(f"document.querySelector('#how-body').innerText.includes({json.dumps(said)})")
        browser.js("document.querySelector('#how').close()")
    if (source := axe()) is not None:
        assert axe_findings(browser, source) == []


@at("browser", ["collectors"], indirect=True)
def test_the_collectors_page_shows_the_archives_reach_and_gaps(browser: Browser, settings: Settings) -> None:
    said = {"through_ms": now_ms() - 240_000, "missing": 0, "unreadable": 0}
    said["updated_ms"] = now_ms() - 5_000
    with Redis.from_url(settings.redis_url.get_secret_value(), decode_responses=True) as client:
        client.hset("t:archive", mapping=said)
        browser.until(f"{BODY}.textContent.includes('The archive has all pixels up to 4 min')")
        assert "Kafka had deleted" not in browser.js(f"{BODY}.innerText")
        client.hset("t:archive", "missing", 1_250)
        browser.until(f"{BODY}.textContent.includes('but 1,250 that Kafka had deleted')")
        client.hdel("t:archive", "unreadable")
        browser.until(f"{BODY}.textContent.includes('and – of its objects cannot be read')")
        client.delete("t:archive")
    browser.until(f"!{BODY}.textContent.includes('The archive has')")
    assert browser.errors == []


@at("browser", ["platforms"], indirect=True)
def test_platforms_stand_side_by_side(browser: Browser, settings: Settings) -> None:
    told = {"1d.impressions": "90", "1d.starts": "60", "1d.unlinked_starts": "40", "1d.start_share": "1"}
    more = {"1d.listener_share": "0.255", "1d.play_id_share": "0.6", "flight.delay_p50_seconds": "64"}
    with Redis.from_url(settings.redis_url.get_secret_value(), decode_responses=True) as client:
        client.hset("t:platform:{<b>Acast</b>}", mapping=told | more)
        client.zadd("t:index:platform", {"<b>Acast</b>": 1})
    body = "document.querySelector('#platforms-body')"
    browser.until(f"{body}.querySelector('tbody td:nth-child(2)')")
    cells = browser.js(f"[...{body}.querySelectorAll('tbody td')].map(cell => cell.innerText)")
    assert cells[:9] == ["<b>Acast</b>", "100", "100.0 %", "–", "–", "–", "–", "25.5 %", "60.0 %"]
    assert cells[-1] == "≤ 64 s"
    asked = browser.js(f"[...{body}.querySelectorAll('tbody td')].map(cell => cell.dataset.metric ?? null)")
    assert asked[:3] == [None, "impressions", "start_share"]
    assert asked[-3:] == ["consent_coverage", "macro left", "delay_p50_seconds"]
    if (source := axe()) is not None:
        assert axe_findings(browser, source) == []
    assert browser.errors == []


@at("browser", ["tag"], indirect=True)
def test_the_tag_builder_equals_the_command(browser: Browser, settings: Settings) -> None:
    browser.until("document.querySelectorAll('#tag-dialect option').length > 10")
    asked = {"dialect": "triton", "placement": "breakfast-uk", "campaign": "spring"}
    for name, value in asked.items():
        browser.js(f"document.querySelector('#tag-form [name={name}]').value = {json.dumps(value)}")
    browser.js("document.querySelector('#tag-form').requestSubmit()")
    browser.until("document.querySelectorAll('#tag-made textarea').length")
    made = "[...document.querySelectorAll('#tag-made textarea')].map(area => [area.ariaLabel, area.value])"
    built = dict(browser.js(made))
    told = tag_answers.build(settings, asked)
    assert {name: url for name, url in built.items() if url.startswith("https:")} == dict(told.urls)
    assert "<Impression><![CDATA[https://pixels.example.com/p/triton?e=impression" in built["VAST"]
    warnings = browser.js("[...document.querySelectorAll('#tag-made li')].map(one => one.textContent)")
    assert warnings == list(told.warnings)
    assert browser.js("document.querySelector('#tag-made a').hash") == "#open=breakfast-uk"
    browser.js(
        "navigator.clipboard.writeText = words => { window.copied = words; return Promise.resolve(); }"
    )
    browser.js("document.querySelector('#tag-made button').click()")
    browser.until(f"window.copied === {json.dumps(built['impression'])}")
    if (source := axe()) is None:
        pytest.skip(NO_AXE)
    assert axe_findings(browser, source) == []


@at("browser", ["tag"], indirect=True)
def test_an_impossible_tag_is_explained_and_not_built(browser: Browser) -> None:
    browser.until("document.querySelectorAll('#tag-dialect option').length > 10")
    browser.js("document.querySelector('#tag-form [name=placement]').value = '[PLACEMENT]'")
    browser.js("document.querySelector('#tag-form').requestSubmit()")
    browser.until("document.querySelector('#tag-trouble').textContent.includes('looks like a macro')")
    assert browser.js("document.querySelectorAll('#tag-made textarea').length") == 0


@at("browser", ["tag"], indirect=True)
def test_a_sites_snippet_is_built_and_a_tag_is_checked(browser: Browser, settings: Settings) -> None:
    browser.until("document.querySelectorAll('#tag-conversion option').length")
    browser.js("document.querySelector('#tag-conversion').value = 'purchase'")
    browser.js("document.querySelector('#site-form [name=campaign]').value = 'spring'")
    browser.js("document.querySelector('#site-form').requestSubmit()")
    browser.until("document.querySelector('#site-made textarea')")
    snippet = browser.js("document.querySelector('#site-made textarea').value")
    assert snippet == tag_answers.snippet(settings, {"conversion": "purchase", "campaign": "spring"})
    assert "navigator.sendBeacon" in snippet
    url = "https://pixels.example.com/p/triton?e=start&pl=changed-by-hand&k=a1.wrong"
    browser.js(f"document.querySelector('#check-url').value = {json.dumps(url)}")
    browser.js("document.querySelector('#check-form').requestSubmit()")
    browser.until("document.querySelector('#check-made li')")
    assert browser.js("document.querySelector('#check-made p').textContent") == "This tag must be corrected."


@at("browser", ["live"], indirect=True)
def test_live_shows_the_outcome_and_reason_of_each_call(browser: Browser, settings: Settings) -> None:
    body = "document.querySelector('#live-body')"
    browser.until(f"{body}.textContent.includes('No collector has written a call yet')")
    hostile = "<img src=x onerror=window.broken=1>"
    calls = [
        LastCall(
            now_ms(), "rejected", "unknown_event", "event", "impresion", "impression", sender="dialect/native"
        ),
        LastCall(
            now_ms() - 1_000, "stored", placement="mine", campaign="c", event="start", consent="no_string"
        ),
        LastCall(
            now_ms() - 2_000, "rejected", hostile, placement=hostile, campaign="\u202ec", unread=(hostile,)
        ),
        LastCall(now_ms() - 3_000, "stored", placement="pl-9", invalid_traffic="crawler_list", alike=1_234),
    ]
    with Redis.from_url(settings.redis_url.get_secret_value(), decode_responses=True) as client:
        client.hset("t:calls:{one/0}", mapping={"calls": encoded(calls), "events": 5_678})
        client.hset("t:collectors", "one/0", now_ms())
    rows = f"[...{body}.querySelectorAll('tbody tr')]"
    browser.until(f"{rows}.length === 4")
    told = browser.js(f"{rows}.map(row => row.innerText)")
    assert "no event is called impresion; did you mean impression?" in told[0]
    assert "no consent: no consent string" in told[1]
    assert hostile in told[2]
    assert "invalid traffic: crawler list" in told[3]
    assert "+ 1,234" in told[3]
    assert "4 of the last 4 calls, of 5,678" in browser.js(f"{body}.textContent")
    assert browser.js("window.broken") is None
    assert browser.errors == []
    if (source := axe()) is not None:
        assert axe_findings(browser, source) == []
    browser.js(
        "document.querySelector('#filter').value = 'mine pl-9';"
        "document.querySelector('#filter').dispatchEvent(new Event('input'))"
    )
    browser.until(f"{rows}.length === 2")
    assert "open=mine" in browser.js(f"{rows}[0].querySelector('a').getAttribute('href')")


@at("browser", ["platforms"], indirect=True)
def test_unusual_platforms_are_marked_and_link_to_placements(browser: Browser, settings: Settings) -> None:
    shares = {"Acast": 0.9, "Spotify": 0.88, "Triton": 0.91, "site <b>door</b>": 0.0}
    with Redis.from_url(settings.redis_url.get_secret_value(), decode_responses=True) as client:
        client.delete("t:index:platform")
        for name, share in shares.items():
            row = {"flight.impressions": 100, "1d.impressions": 100, "1d.start_share": share}
            client.hset(f"t:platform:{{{name}}}", mapping=row | {"flight.delay_p50_seconds": 2})
            client.zadd("t:index:platform", {name: 1})
        client.hset("t:platform:{Triton}", "flight.delay_p50_seconds", 60)
    body = "document.querySelector('#platforms-body')"
    browser.until(f"{body}.querySelectorAll('tbody a').length === 4")
    marked = browser.js(
        f"[...{body}.querySelectorAll('.outlier')].map(cell => [cell.closest('tr').cells[0].textContent, "
        "cell.textContent, cell.title])"
    )
    assert sorted(marked) == [
        ["Triton", "▲ ≤ 60 s", "The median of the platforms is 2.0 s."],
        ["site <b>door</b>", "▼ 0.0 %", "The median of the platforms is 89.0 %."],
    ]
    href = f"[...{body}.querySelectorAll('tbody a')].find(one => one.textContent === 'Acast')"
    assert browser.js(f"new URLSearchParams({href}.hash.slice(1)).get('q')") == '"Acast"'
    if (source := axe()) is not None:
        assert axe_findings(browser, source) == []
