"""The waterfall of a watched file in the pane, as Chromium shows it, over day counts in Redis."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from browser_support import CHROMIUM, MISSING, Browser, chromium
from page_support import axe, axe_findings, desk_rows, exporter, now_ms, put_desk

from connectors.embedded import EmbeddedValkey
from connectors.redis import connect, put_fields
from connectors.redis.client import Client
from flows.errors import UsageError
from flows.model.redis_keys import day_key
from flows.viewers.disputed import Disputed
from flows.waterfall import Claim, read_claims

TODAY = datetime.now(UTC).date()
DAY, BEFORE = TODAY - timedelta(days=1), TODAY - timedelta(days=2)
GONE = TODAY - timedelta(days=70)
NO_PLANS = "The plans are not read here, so their tolerances are not known."
COUNTS = {
    "impressions": "1000",
    "repeated": "30",
    "invalid_traffic": '{"<b>bot</b>":20}',
    "clock_moved": "-5",
    "bases": '{"audible_2s":40}',
    "sent": '{"deliveries":1100}',
}
HEAD = "placement_id,day,impressions,deliveries,basis\n"
PANE = "document.querySelector('#p-theirs')"
SUM = "document.querySelector('#p-theirs-sum').textContent"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with EmbeddedValkey() as server:
        yield server.url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    one = connect(url, timeout=timedelta(seconds=1))
    for day in (DAY, BEFORE):
        put_fields(one, {day_key("t", "starved", day): COUNTS}, timedelta(hours=1))
    put_desk(url, "t", desk_rows(now_ms()), now_ms())
    yield one
    one.close()


@pytest.fixture
def report_file(tmp_path: Path) -> Path:
    path = tmp_path / "theirs.csv"
    text = f"{HEAD}starved,{DAY},1060,,\nstarved,{BEFORE},930,,vast_impression\nstarved,{DAY},,1100,\n"
    text += f"starved,{GONE},7,,\n"
    path.write_text(text)
    return path


def disputed(client: Client, path: Path) -> Disputed:
    return Disputed(path, client, "t", datetime.now(UTC).astimezone().tzinfo or UTC, dict)  # type: ignore[arg-type]  # a zone


def test_a_row_has_its_waterfalls_and_reports_a_later_broken_file(
    url: str, client: Client, report_file: Path
) -> None:
    watched = disputed(client, report_file)
    with exporter(url, "t", disputed=watched) as port:

        def their_rows(name: str) -> dict[str, object]:
            answer = httpx.get(f"http://127.0.0.1:{port}/row", params={"scope": "placement", "id": name})
            return answer.json()["theirs"]  # type: ignore[no-any-return]

        first = their_rows("starved")
        assert first["error"] is None
        assert [(row["when"], row["counted"], row["unexplained"]) for row in first["rows"]] == [  # type: ignore[attr-defined]
            (DAY.isoformat(), "impressions", 60 - 30 - 20 + 5),
            (DAY.isoformat(), "deliveries", 0),
            (BEFORE.isoformat(), "impressions", -70 - 30 - 20 + 5 + 40),
            (GONE.isoformat(), "impressions", None),
        ]
        assert their_rows("good") == {"error": None, "rows": []}
        report_file.write_text(HEAD + "starved,yesterday,1,,\n")
        broken = their_rows("starved")
        assert "day: takes a date" in str(broken["error"])
        assert str(report_file.parent) not in str(broken["error"])
        assert broken["rows"] == first["rows"]
        report_file.write_text(f"{HEAD}starved,{DAY},1000,,\n")
        assert [row["theirs"] for row in their_rows("starved")["rows"]] == [1000]  # type: ignore[attr-defined]


def test_a_broken_file_is_read_once(
    client: Client, report_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = disputed(client, report_file)
    watched.look()
    reads = []

    def counted(path: Path) -> list[Claim]:
        reads.append(path)
        return read_claims(path)

    monkeypatch.setattr("flows.viewers.disputed.read_claims", counted)
    report_file.write_text(HEAD + "starved,yesterday,1,,\n")
    answers = [watched.waterfalls("placement", "starved", True) for _ in range(5)]
    assert all("day: takes a date" in one["error"] and one["rows"] for one in answers)
    assert len(reads) == 1


@pytest.mark.parametrize("broken", ["day", "meta"])
def test_a_damaged_count_hides_only_the_rows_waterfall(
    url: str, client: Client, report_file: Path, broken: str
) -> None:
    key = day_key("t", "starved", DAY) if broken == "day" else "t:meta"
    field = "repeated" if broken == "day" else "watermark_ms"
    before = client.hget(key, field)
    assert before is not None
    client.hset(key, field, "12.5")
    try:
        with exporter(url, "t", disputed=disputed(client, report_file)) as port:
            asked = {"scope": "placement", "id": "starved"}
            answer = httpx.get(f"http://127.0.0.1:{port}/row", params=asked)
        assert answer.status_code == 200
        told = answer.json()
        assert told["theirs"]["rows"] == []
        assert f"{key} {field} " in told["theirs"]["error"]
        assert told["id"] == "starved"
        of_a_part = disputed(client, report_file).waterfalls("placement", "starved", everything=False)
        assert of_a_part == {"error": "our counts cannot be read now", "rows": []}
    finally:
        client.hset(key, field, before)


def test_a_missing_file_is_refused_at_the_start(client: Client, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        disputed(client, tmp_path / "none.csv").look()


@pytest.fixture
def browser(url: str, client: Client, report_file: Path) -> Iterator[Browser]:
    with exporter(url, "t", disputed=disputed(client, report_file)) as port, chromium() as one:
        one.open(f"http://127.0.0.1:{port}/#open=starved")
        one.until("document.querySelector('#p-theirs svg')")
        yield one


@pytest.mark.debian
@pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
def test_the_pane_takes_their_number_apart_and_keys_choose_another_day(browser: Browser) -> None:
    said = f"{DAY}: theirs 1,060, ours 1,000, difference +60 (6.0 %): worth a look. {NO_PLANS}"
    assert browser.js(SUM) == said
    cells = "row => [...row.cells].slice(0, 2).map(cell => cell.textContent)"
    names = f"[...{PANE}.querySelectorAll('tbody tr')].map({cells})"
    assert browser.js(names) == [
        ["repeated", "+30"],
        ["invalid_traffic.<b>bot</b>", "+20"],
        ["clock_moved", "-5"],
        ["unexplained", "+15"],
    ]
    assert browser.js(f"{PANE}.querySelectorAll('svg rect').length") == 6
    drawn = f"{PANE}.querySelector('svg').getAttribute('aria-label')"
    assert browser.js(drawn).startswith("From ours, 1,000, to theirs, 1,060: repeated +30, ")
    place = "bar => ['x', 'width'].map(name => Number(bar.getAttribute(name)))"
    ends = f"[...{PANE}.querySelectorAll('rect')].map({place})"
    bars = browser.js(ends)
    assert bars[1][0] == pytest.approx(bars[0][0] + bars[0][1], abs=0.2), "a part begins where ours ends"
    browser.js("document.querySelector('#p-theirs-when').focus()")
    browser.press("ArrowDown")
    browser.press("ArrowDown")
    browser.until(f"{SUM}.startsWith('{BEFORE}')")
    assert ["other_basis", "-40"] in browser.js(names)
    browser.js("document.querySelector('#p-theirs-when').focus()")
    browser.press("ArrowDown")
    browser.until(f"{SUM}.startsWith('{GONE}: theirs 7, ours not known: no verdict. Days before ')")
    assert browser.js(f"{PANE}.querySelector('svg, tbody tr')") is None
    browser.press("ArrowUp")
    browser.until(f"{SUM}.startsWith('{BEFORE}')")
    browser.js(f"[...{PANE}.querySelectorAll('tbody tr')].at(-1).querySelector('button').focus()")
    browser.press("Enter")
    browser.until("document.querySelector('#how-body').innerText.includes('What no part explains')")
    assert browser.js("document.querySelector('#how-metric').value") == "part unexplained"
    browser.press("Escape")
    assert all("404" in one for one in browser.errors), "there is no methodology here"


@pytest.mark.debian
@pytest.mark.skipif(CHROMIUM is None or axe() is None, reason="needs Chromium and axe-core")
@pytest.mark.parametrize("dark", [True, False])
@pytest.mark.parametrize("size", [(1280, 800), (390, 844)])
def test_the_waterfall_reads_well_wide_and_narrow_dark_and_light(
    browser: Browser, dark: bool, size: tuple[int, int]
) -> None:
    browser.dark(dark)
    browser.resize(*size)
    browser.until(f"{PANE}.querySelector('svg').viewBox.baseVal.width <= {PANE}.clientWidth")
    assert browser.js(
        "document.querySelector('#pane').scrollWidth <= document.querySelector('#pane').clientWidth"
    )
    assert axe_findings(browser, axe() or "") == []
