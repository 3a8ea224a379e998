"""The live page's server side, over what the flow wrote: what a browser is sent, and when."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from html import escape
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from board_support import TRUTH, eventually, free_port, put_rows, python, replayed
from reader_support import SIGNED_IN
from redis import Redis

from connectors.embedded import EmbeddedValkey
from connectors.redis.client import connect
from flows.viewers.curves import LEVELS, POINT_S, POINTS, SPARK_S, History
from flows.viewers.feed import FIELDS as SHOWN
from flows.viewers.feed import MAX_ROWS, Feed, most_urgent
from flows.viewers.page import plain_table
from flows.viewers.reader import RowsReader
from flows.viewers.series import FIELDS

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "flows" / "viewers" / "static"
SERVE = (
    "from flows.viewers.exporter import serve; from flows.settings import load; "
    "serve(load(redis_url={!r}, namespace={!r}), '127.0.0.1', {})"
)
IMPRESSIONS = SHOWN.index("flight.impressions")
HOSTILE = [
    "..",
    "a/../b",
    "two\nlines",
    "<script>alert(1)</script>",
    "constructor",
    "__proto__",
    "%2e%2e",
    "{x}",
]


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        replayed(server)
        yield server


@contextmanager
def exporter(url: str, namespace: str = "audiopixel:v1") -> Iterator[tuple[str, Any]]:
    """Its address and its process."""
    port = free_port()
    with python(SERVE.format(url, namespace, port)) as process:
        address = f"http://127.0.0.1:{port}"
        eventually(lambda: _answers(f"{address}/healthz"))
        yield address, process


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


@dataclass
class Stream:
    """Server-sent events of one connection."""

    lines: Iterator[str]

    def next(self) -> tuple[str, dict[str, Any]]:
        name = next(line for line in self.lines if line.startswith("event: "))
        return name.removeprefix("event: "), json.loads(next(self.lines).removeprefix("data: "))

    def until(self, holds: Any, most: int = 15) -> dict[str, Any]:
        for _ in range(most):
            name, data = self.next()
            if name == "change" and holds(data):
                return data
        raise AssertionError(f"not among {most} events")


@contextmanager
def stream(address: str) -> Iterator[Stream]:
    with httpx.stream("GET", f"{address}/events", timeout=10, headers=SIGNED_IN) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        yield Stream(answer.iter_lines())


def feed(url: str, namespace: str) -> Feed:
    client = connect(url, timeout=timedelta(seconds=1))
    return Feed(RowsReader(client, namespace, FIELDS, interval=timedelta(0)))


def sent(event: bytes) -> dict[str, Any]:
    return json.loads(event.partition(b"data: ")[2])  # type: ignore[no-any-return]


def test_a_browser_gets_all_rows_and_then_only_changes(valkey: EmbeddedValkey) -> None:
    with exporter(valkey.url) as (address, _), stream(address) as events:
        name, first = events.next()
        assert name == "all"
        assert first["fields"] == list(SHOWN)
        assert len(first["rows"]["placement"]) > 90
        for placement, cells in first["rows"]["placement"].items():
            assert cells[IMPRESSIONS] == TRUTH[placement]["flight.impressions"]
        one = next(iter(first["rows"]["placement"]))
        counted = {"flight.impressions": 123456, "rev": 10**6}
        put_rows(valkey.url, "audiopixel:v1", {one: counted, "new": {"platform": "p"}})
        change = events.until(lambda data: data["rows"]["placement"])
        assert change["rows"]["placement"][one] == {str(IMPRESSIONS): "123456"}
        assert set(change["rows"]["placement"]) == {one, "new"}
        with Redis.from_url(valkey.url) as client:
            client.delete("audiopixel:v1:placement:{new}")
        assert events.until(lambda data: data["gone"]["placement"])["gone"]["placement"] == ["new"]


def test_a_second_with_nothing_new_still_says_how_fresh_it_is(valkey: EmbeddedValkey) -> None:
    with exporter(valkey.url) as (address, _), stream(address) as events:
        seen = [events.next()[1] for _ in range(3)]
    assert [data["rows"] for data in seen[1:]] == [
        {"placement": {}, "campaign": {}, "creative": {}, "app": {}}
    ] * 2
    assert seen[1]["status"]["now_s"] < seen[2]["status"]["now_s"] <= time.time()
    assert seen[2]["status"]["up"]
    assert seen[2]["status"]["flushed_s"] > seen[2]["status"]["watermark_s"]


def test_the_stream_reports_an_outage_and_keeps_its_rows() -> None:
    with EmbeddedValkey() as mortal:
        put_rows(mortal.url, "t", {"pl-1": {"flight.impressions": 7}})
        with exporter(mortal.url, "t") as (address, _), stream(address) as events:
            assert events.next()[1]["status"]["up"]
            mortal.kill()
            away = events.until(lambda data: not data["status"]["up"])
            assert away["status"]["error"]
            assert away["gone"] == {"placement": [], "campaign": [], "creative": [], "app": []}
            lost = httpx.get(f"{address}/row", params={"id": "pl-1"}, headers=SIGNED_IN)
            assert (lost.status_code, bool(lost.json()["error"])) == (503, True)
            mortal.start()
            put_rows(mortal.url, "t", {"pl-1": {"flight.impressions": 8}})
            changed = events.until(lambda data: data["rows"]["placement"])["rows"]["placement"]
            assert changed == {"pl-1": {str(IMPRESSIONS): "8"}}


def test_an_open_stream_does_not_hold_up_the_end(valkey: EmbeddedValkey) -> None:
    with exporter(valkey.url) as (address, process), stream(address) as events:
        events.next()
        began_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
        assert time.monotonic() - began_s < 3, (
            "uvicorn would wait five seconds for a stream that does not end"
        )


def test_a_placement_of_any_id_is_sent_whole(valkey: EmbeddedValkey) -> None:
    put_rows(valkey.url, "odd", {name: {"flight.orphans": n} for n, name in enumerate(HOSTILE)})
    with exporter(valkey.url, "odd") as (address, _):
        for n, name in enumerate(HOSTILE):
            found = (
                httpx.get(f"{address}/row", params={"id": name}, headers=SIGNED_IN).raise_for_status().json()
            )
            assert (found["id"], found["row"]) == (name, {"flight.orphans": str(n)})
        for nobody in (
            {"id": "nobody"},
            {},
            {"id": HOSTILE[0], "scope": "campaign"},
            {"scope": "meta", "id": ""},
        ):
            assert httpx.get(f"{address}/row", params=nobody, headers=SIGNED_IN).status_code == 404


def test_every_part_of_the_page_forbids_foreign_and_inline_code(valkey: EmbeddedValkey) -> None:
    with exporter(valkey.url) as (address, _):
        page = httpx.get(address, headers=SIGNED_IN).raise_for_status()
        parts = [word.split('"')[0] for word in page.text.split('="/')[1:]]
        parts = [part for part in parts if not part.startswith("docs/")]  # the documents run no script
        assert len(parts) == 6
        parts += [f"page/{path.name}" for path in PAGE.glob("*.js")]
        for answer in (page, *(httpx.get(f"{address}/{part}", headers=SIGNED_IN) for part in parts)):
            assert answer.status_code == 200
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self';")
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "access-control-allow-origin" not in answer.headers


def test_a_late_viewer_gets_the_latest_rows_and_then_changes(
    valkey: EmbeddedValkey,
) -> None:
    clock = count(0, POINT_S)
    board = RowsReader(
        connect(valkey.url), "calm", FIELDS, interval=timedelta(0), clock_s=lambda: next(clock)
    )
    view = Feed(board)
    for impressions in (1, 2, 5):
        put_rows(valkey.url, "calm", {"pl-1": {"flight.impressions": impressions}})
        board.refresh()  # as a scrape does
        view.tick(watched=False)
    version, event = view.whole()
    everything = sent(event)
    assert everything["rows"]["placement"]["pl-1"][IMPRESSIONS] == "5"
    assert everything["grown"]["placement"] == {"pl-1": [1, 3]}
    put_rows(valkey.url, "calm", {"pl-1": {"flight.impressions": 6}, "pl-2": {"platform": "p"}})
    view.tick(watched=True)
    latest, event = view.everything.latest
    assert latest == version + 1
    change = sent(event)
    assert change["rows"]["placement"]["pl-1"] == {str(IMPRESSIONS): "6"}
    assert set(change["rows"]["placement"]) == {"pl-1", "pl-2"}
    assert change["grown"]["placement"] == {"pl-1": 1}


def put(url: str, namespace: str, rev: int, **impressions: int) -> None:
    """Have placements count so many impressions, from a version on."""
    version = {"generation": 1, "fence": 1, "rev": rev, "updated_ms": 1}
    rows = {name: {"flight.impressions": counted} | version for name, counted in impressions.items()}
    put_rows(url, namespace, rows)


def test_changed_new_and_removed_rows_are_sent_beside_unchanged_ones(valkey: EmbeddedValkey) -> None:
    put_here = partial(put, valkey.url, "told-on")

    def changed_and_gone() -> tuple[Any, Any]:
        view.tick(watched=True)
        change = sent(view.everything.latest[1])
        return change["rows"]["placement"], sorted(change["gone"]["placement"])

    put_here(1, calm=1, busy=1, goes=1)
    view = feed(valkey.url, "told-on")
    view.tick(watched=False)
    assert changed_and_gone() == ({}, [])
    calm = view.everything.shown()["placement"]["calm"]
    put_here(2, busy=2)
    put_here(2, comes=5)
    with Redis.from_url(valkey.url) as client:
        client.delete("told-on:placement:{goes}")
    rows, gone = changed_and_gone()
    new = {str(place): None for place in range(len(SHOWN))} | {str(IMPRESSIONS): "5"}
    assert (rows, gone) == ({"busy": {str(IMPRESSIONS): "2"}, "comes": new}, ["goes"])
    assert view.everything.shown()["placement"]["calm"] is calm, "not put together again"
    assert changed_and_gone() == ({}, [])
    put_here(3, busy=2)  # what is not shown has changed
    assert changed_and_gone() == ({}, [])
    view.tick(watched=False)
    put_here(4, busy=9)
    assert changed_and_gone() == ({"busy": {str(IMPRESSIONS): "9"}}, [])
    assert sent(view.whole()[1])["rows"]["placement"].keys() == {"calm", "busy", "comes"}


def test_a_viewer_joining_an_unwatched_tick_gets_everything(valkey: EmbeddedValkey) -> None:
    put_rows(valkey.url, "amid", {"pl-1": {"flight.impressions": 1}})
    view = feed(valkey.url, "amid")
    view.tick(watched=False)

    async def seen() -> list[bytes]:
        events, found = view.events(), []
        for watched in (True, False, True, True):
            found.append((await anext(events)).split(b"\n")[0])
            view.tick(watched)
        await events.aclose()  # type: ignore[attr-defined]  # it is a generator
        return found

    assert asyncio.run(seen()) == [b"event: all", b"event: change", b"event: all", b"event: change"]


def test_nothing_is_sent_before_the_first_tick(valkey: EmbeddedValkey) -> None:
    put_rows(valkey.url, "early", {"pl-1": {"flight.impressions": 1}})
    view = feed(valkey.url, "early")

    async def first() -> dict[str, Any]:
        events = view.events()
        asked = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.1)
        assert not asked.done()
        view.tick()
        found = sent(await asked)
        await events.aclose()  # type: ignore[attr-defined]  # it is a generator
        return found

    assert asyncio.run(first())["status"]["up"]


def test_damage_in_redis_does_not_stop_the_feed(valkey: EmbeddedValkey) -> None:
    put_rows(valkey.url, "damaged", {"pl-1": {"flight.impressions": "seven", "delivery.expected": ""}})
    with Redis.from_url(valkey.url) as client:
        client.hset("damaged:positions", "positions", '{"p/0": 1}')
        client.hset("damaged:partition:{p/0}", "received", "many")
    view = feed(valkey.url, "damaged")
    view.tick()
    everything = sent(view.whole()[1])
    assert everything["rows"]["placement"]["pl-1"][IMPRESSIONS] == "seven"
    assert everything["status"]["received"] is None


def test_curves_end_at_the_latest_sample_and_are_bounded() -> None:
    history = History()
    rows = {"a": {"flight.impressions": "0", "delivery.expected": "1.5"}}
    for n in range(POINTS + 5):
        rows["a"]["flight.impressions"] = str(n * n)
        new = {"b": {"flight.impressions": "9"}} if n > POINTS else {}
        grown = history.add(n * POINT_S, {**rows, **new})
        assert grown == ({"a": 2 * n - 1} if n else {})
        assert history.add(n * POINT_S + 9.9, rows) is None, (
            "a sample every ten seconds, however often one looks"
        )
    curve = history.curve("a", POINT_S * (POINTS - 1))
    assert [len(column) for column in curve.values()] == [POINTS] * 3
    assert (curve["at_s"][-1], curve["impressions"][-1], curve["expected"][-1]) == (3640, 364**2, 1.5)
    times, sparks = history.sparks(["a", "b", "none"])
    assert (times[0], times[-1], len(sparks["a"])) == (3640 - SPARK_S, 3640, SPARK_S / POINT_S)
    assert (sparks["b"], sparks["none"]) == ([0, 0, 0], [])
    assert history.curve("b")["at_s"] == [3610, 3620, 3630, 3640]
    history.add(3650.0, {})
    assert history.curve("a")["at_s"] == []


def test_a_curve_of_days_has_fine_points_in_its_last_hour() -> None:
    history = History()
    end_s = 3 * 86_400
    for at_s in range(0, end_s + 1, 60):
        history.add(float(at_s), {"a": {"flight.impressions": str(at_s)}})
    whole = history.curve("a")
    assert whole["at_s"] == whole["impressions"] == sorted(set(whole["at_s"]))
    assert (whole["at_s"][0], whole["at_s"][-1]) == (0, end_s)
    day, hours = history.curve("a", 86_400), history.curve("a", 6 * 3_600)
    assert (day["at_s"][0], hours["at_s"][0]) == (end_s - 86_400, end_s - 6 * 3_600)
    assert len(whole["at_s"]) <= sum(points for _, points in LEVELS)


def test_curves_go_on_when_the_wall_clock_is_set_back() -> None:
    history = History()

    def take(count: int, at_s: float, *names: str) -> bool:
        return history.add(at_s, {name: {"flight.impressions": str(count)} for name in names}) is not None

    for n in range(100):
        assert take(n, n * POINT_S, "a")
    ahead_s = 365 * 86_400.0
    for n in range(100, 140):
        assert take(n, n * POINT_S + ahead_s, "a", "b")
    for n in range(140, 180):
        assert take(n, n * POINT_S, "a", "b")
    kept = [*range(100), *range(140, 180)]
    for length_s in (3_600, math.inf):
        curve = history.curve("a", length_s)
        assert (curve["at_s"], curve["impressions"]) == ([n * POINT_S for n in kept], kept)
    assert history.curve("b")["impressions"] == [*range(140, 180)]


def test_a_row_has_its_changes_of_state_latest_first(valkey: EmbeddedValkey) -> None:
    put_rows(valkey.url, "told", {"pl-1": {"flight.impressions": 1}, "pl-2": {"flight.impressions": 1}})
    with Redis.from_url(valkey.url) as client:
        for id, placement in (("1", "pl-1"), ("2", "pl-2"), ("3", "pl-1"), ("3", "pl-1")):
            client.xadd("told:alerts", {"id": id, "placement": placement, "campaign": "c", "to": "under"})
        client.hset("told:campaign:{c}", "flight.impressions", 2)
        view = feed(valkey.url, "told")
        view.tick()
        assert [one["id"] for one in sent(view.whole()[1])["alerts"]] == ["1", "2", "3"]
        client.xadd("told:alerts", {"id": "4", "placement": "pl-1", "to": "on_track"})
        view.tick(watched=True)
    assert [one["id"] for one in sent(view.everything.latest[1])["alerts"]] == ["4"]
    for scope, name, ids in (("placement", "pl-1", ["4", "3", "1"]), ("campaign", "c", ["3", "2", "1"])):
        row = view.row(scope, name, "1h")
        assert row is not None
        assert [one["id"] for one in row["alerts"]] == ids


def test_the_scriptless_table_lists_ids_by_urgency(valkey: EmbeddedValkey) -> None:
    rows = {name: {"flight.impressions": "1"} for name in HOSTILE}
    low = {"delivery.state": "under", "delivery.judged": "1", "delivery.indicator": "0.25"}
    put_rows(valkey.url, "plain", rows | {"low": low})
    view = feed(valkey.url, "plain")
    text = plain_table(view)
    assert "<script" not in text
    assert text.index("low") < min(text.index(escape(name)) for name in HOSTILE if name != "..")
    assert "<td>under</td><td></td><td>25</td>" in text


def test_the_scriptless_table_shows_its_time_and_unjudged_reason() -> None:
    def notice() -> str:
        return plain_table(view).partition("<main>")[2].partition("Reload")[0].partition("<p>")[2]

    with EmbeddedValkey() as mortal:
        put_rows(mortal.url, "plain", {"pl-1": {"delivery.state": "under"}})
        view = feed(mortal.url, "plain")
        assert notice() == "As of an unknown moment; last written never. "
        with Redis.from_url(mortal.url) as client:
            day_ago_s = time.time() - 86_400
            ago = f"{datetime.fromtimestamp(day_ago_s, UTC):%d %b %Y, %H:%M UTC}"
            old_ms, now_ms = int(1000 * day_ago_s), int(1000 * time.time())
            client.hset("plain:meta", mapping={"watermark_ms": old_ms, "flushed_ms": now_ms, "judged": 1})
            assert notice().startswith(f"As of {ago}; last written ")
            assert "judged" not in notice()
            told = {"judged": 0, "unjudged_since_ms": old_ms, "unjudged_reason": "lagging"}
            client.hset("plain:meta", mapping=told)
            since = f" Delivery is not judged since {ago}: "
            beware = ". Do not change bids by these numbers. "
            assert notice().endswith(f"{since}the numbers are old, and the flow is catching up{beware}")
            client.hdel("plain:meta", "unjudged_since_ms", "unjudged_reason")
            client.hset("plain:meta", mapping={"judged": 1, "flushed_ms": old_ms})
            assert notice() == f"As of {ago}; last written {ago}.{since}the flow writes nothing{beware}"
        mortal.kill()
        assert "Redis cannot be read: " in notice()
        assert notice().endswith(f": Redis does not answer{beware}")


def test_a_log_recomputed_from_scratch_is_no_negative_rate() -> None:
    history = History()
    for n, count_ in enumerate((100, 20, 25)):
        history.add(n * POINT_S, {"a": {"flight.impressions": str(count_)}})
    assert history.sparks("a") == ([0, 10, 20], {"a": [0, 5]})


def test_of_too_many_placements_the_urgent_and_the_busiest_are_sent() -> None:
    rows = {f"pl-{n:05}": {"flight.impressions": str(n)} for n in range(MAX_ROWS + 10)}
    rows["pl-00003"] |= {"delivery.state": "under", "delivery.judged": "1"}
    rows["pl-00004"] |= {"delivery.state": "under"}  # nobody has judged it
    kept = most_urgent(rows)
    assert len(kept) == MAX_ROWS
    assert rows.keys() - kept.keys() == {f"pl-{n:05}" for n in range(11)} - {"pl-00003"}


def test_the_most_urgent_rows_are_sent_beyond_the_limit(
    valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.viewers.feed.MAX_ROWS", 2)
    put_here = partial(put, valkey.url, "too-many")
    put_here(1, a=5, b=4, c=3)
    view = feed(valkey.url, "too-many")

    def sent_now() -> set[str]:
        view.tick(watched=True)
        return set(sent(view.whole()[1])["rows"]["placement"])

    assert sent_now() == sent_now() == {"a", "b"}
    put_here(2, c=9)
    assert sent_now() == sent_now() == {"a", "c"}
    put_here(3, a=1)
    assert sent_now() == {"b", "c"}
    with Redis.from_url(valkey.url) as client:
        client.delete("too-many:placement:{c}")
    assert sent_now() == {"a", "b"}
    put_here(4, a=3, b=2)
    assert sent_now() == {"a", "b"}
    put_here(5, c=1, d=9)
    assert sent_now() == {"a", "d"}


def test_ten_thousand_placements_cost_a_tick_little(valkey: EmbeddedValkey) -> None:
    row = dict.fromkeys(FIELDS, "123")
    rows = {f"pl-{n:05}": {**row, "delivery.state": "under", "delivery.judged": "1"} for n in range(10_000)}
    put_rows(valkey.url, "many", rows)
    view = feed(valkey.url, "many")
    costs_s = []
    for n in range(3):
        put_rows(valkey.url, "many", {f"pl-{n:05}": {"flight.impressions": n} for n in range(n * 500)})
        began_s = time.process_time()
        view.tick()
        costs_s.append(time.process_time() - began_s)
    began_s = time.process_time()
    _, event = view.whole()
    whole_s = time.process_time() - began_s
    print(f"CPU of ticks {[round(cost, 3) for cost in costs_s]} s, of all {whole_s:.3f} s, {len(event):,} B")
    assert max(costs_s) < 1.5
    assert len(event) < 4_000_000


def test_the_package_brings_every_file_of_the_page() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    brought = {
        path for pattern in patterns["flows.viewers"] for path in (ROOT / "flows" / "viewers").glob(pattern)
    }
    assert {path for path in PAGE.rglob("*") if path.is_file()} <= brought


def test_the_vendored_chart_has_the_noted_version_and_licence() -> None:
    head = (PAGE / "vendor" / "uPlot.iife.min.js").read_text()[:200]
    noted = (PAGE / "vendor" / "README.md").read_text().split()[1]
    assert f"(v{noted.rstrip(',')})" in head
    assert "MIT License" in (PAGE / "vendor" / "uPlot.LICENSE").read_text()


def test_streams_of_two_browsers_are_one_reading_of_redis(valkey: EmbeddedValkey) -> None:
    put_rows(valkey.url, "two", {"pl-1": {"flight.impressions": 1}})
    with (
        exporter(valkey.url, "two") as (address, _),
        ExitStack() as stack,
        Redis.from_url(valkey.url) as client,
    ):
        browsers = [stack.enter_context(stream(address)) for _ in range(4)]
        for browser in browsers:
            browser.next()
        client.config_resetstat()
        for browser in browsers:
            for _ in range(3):
                browser.next()
        calls = client.info("commandstats")["cmdstat_hmget"]["calls"]
    assert calls <= 4, "one row, once a second, whoever looks"
