"""The exporter over what the flow wrote, as Prometheus's own tools read it."""

from __future__ import annotations

import asyncio
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest
from board_support import TRUTH, eventually, free_port, put_rows, python, replayed
from prometheus_client.parser import text_string_to_metric_families
from reader_support import READ_ENVIRONMENT, SIGNED_IN, signed_in
from redis import Redis
from starlette.applications import Starlette

from connectors.embedded import EmbeddedValkey
from connectors.redis.client import connect
from flows import metrics
from flows.errors import AudiopixelError
from flows.model.freshness import FLUSH_STALE_S
from flows.settings.fields import Settings
from flows.settings.loading import load
from flows.viewers.exporter import create_app, serve
from flows.viewers.reader import RowsReader, Snapshot
from flows.viewers.series import CAP, COUNTERS, FIELDS, Cap, Placements

SERVE = (
    "from flows.viewers.exporter import serve; from flows.settings import load; "
    "serve(load(redis_url={!r}), '127.0.0.1', {})"
)
PROMTOOL = shutil.which("promtool")


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture(scope="module")
def settings(valkey: EmbeddedValkey) -> Settings:
    return replayed(valkey)


@pytest.fixture(scope="module")
def snapshot(settings: Settings) -> Snapshot:
    return board(settings.redis_url.get_secret_value()).refresh()


def board(url: str, namespace: str = "audiopixel:v1") -> RowsReader:
    return RowsReader(connect(url, timeout=timedelta(seconds=1)), namespace, FIELDS, interval=timedelta(0))


def series(body: bytes) -> dict[str, dict[str, float]]:
    """Values by sample name and placement or campaign (empty where a sample has none)."""
    values: dict[str, dict[str, float]] = defaultdict(dict)
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            owners = [sample.labels.get(scope) for scope in ("placement", "campaign")]
            whose = next((name for name in owners if name is not None), "")
            assert whose not in values[sample.name], "a series twice: Prometheus would refuse the scrape"
            values[sample.name][whose] = sample.value
    return values


def page(app: Starlette, path: str = "/metrics/placements") -> bytes:
    async def get() -> bytes:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(signed_in(app)), base_url="http://127.0.0.1"
        ) as client:
            return (await client.get(path)).raise_for_status().content

    return asyncio.run(get())


def busy(**impressions: int) -> dict[str, dict[str, str]]:
    return {
        name: {"flight.impressions": str(n), "flight.starts": str(2 * n)} for name, n in impressions.items()
    }


def test_every_placement_shows_the_truth_of_the_log(snapshot: Snapshot) -> None:
    values = series(Placements().render(snapshot))
    compared = 0
    for definition, field in COUNTERS.items():
        for name, value in values[definition.name].items():
            if field in TRUTH[name]:
                assert value == int(TRUTH[name][field]), (name, field)
                compared += 1
    assert compared >= 3 * len(snapshot.rows["placement"])
    assert set(values["audiopixel_placement_impressions_total"]) == set(snapshot.rows["placement"])
    assert values["audiopixel_exporter_up"] == {"": 1}
    assert values["audiopixel_exporter_watermark_timestamp_seconds"] == {"": snapshot.watermark_s}


def test_every_definition_is_shown_and_nothing_else(snapshot: Snapshot) -> None:
    row = dict.fromkeys(FIELDS, "1")
    rows = {"placement": {"pl-1": row}, "campaign": {"c-1": row}}
    body = Placements(clock_s=lambda: snapshot.read_s + 1_000).render(replace(snapshot, rows=rows))
    heads = dict(re.findall(r"# TYPE (\S+) (\S+)", body.decode()))
    every = (*metrics.EXPORTER, *metrics.PLACEMENT, *metrics.CAMPAIGN)
    defined = {d.name: d.kind for d in every if d.kind != "histogram"}
    assert heads == {name: "gauge" if kind == "info" else kind for name, kind in defined.items()}
    assert set(series(body)) == set(defined)


def test_it_says_since_when_and_why_delivery_is_not_judged(snapshot: Snapshot) -> None:
    def rendered_lines(after_s: float = 1.0, up: bool = True, **meta: str) -> list[str]:
        fresh = {"watermark_ms": "1000000", "flushed_ms": "1000000", "judged": "1"} | meta
        seen = replace(snapshot, up=up, read_s=1_010.0, meta=fresh, rows={})
        body = Placements(clock_s=lambda: 1_000 + after_s).render(seen).decode()
        return re.findall(r"\naudiopixel_exporter_delivery_unjudged_since_timestamp_seconds(.+)", body)

    assert rendered_lines() == rendered_lines(FLUSH_STALE_S) == []
    why = {"judged": "0", "unjudged_since_ms": "900000", "unjudged_reason": "collector"}
    assert rendered_lines(**why) == ['{reason="collector"} 900.0']
    assert rendered_lines(judged="0", unjudged_reason="switching") == ['{reason="switching"} 1000.0']
    assert rendered_lines(judged="") == ['{reason="unjudged"} 1000.0']
    assert rendered_lines(FLUSH_STALE_S + 1, **why) == ['{reason="down"} 1000.0']
    assert rendered_lines(20, up=False) == ['{reason="redis"} 1010.0']


def test_an_info_series_names_a_placements_campaign_and_labels(snapshot: Snapshot) -> None:
    rows = {"pl-1": {"flight.impressions": "1", "campaign_id": "c-1", "platform": "p", "station": 's"1'}}
    body = Placements().render(replace(snapshot, rows={"placement": rows}))
    families = text_string_to_metric_families(body.decode())
    (info,) = (sample for family in families for sample in family.samples if sample.name.endswith("_info"))
    assert info.labels == {"placement": "pl-1", "campaign": "c-1", "platform": "p", "station": 's"1'}
    assert info.value == 1


def test_delivery_shows_its_state_and_money_in_units_of_its_currency(snapshot: Snapshot) -> None:
    planned = {"delivery.state": "under", "delivery.judged": "1", "delivery.indicator": "0.667"}
    sold = {"flight.conversion_value": "-12500000", "flight.conversions": "1.5"}
    sold["flight.conversion_value_claimed"] = "90071992547409930000001"
    unsaid = {"delivery.state": "under"}  # nobody has judged it
    rows = {"a": planned, "b": {"flight.impressions": "3", **sold}, "c": unsaid}
    body = Placements().render(replace(snapshot, rows={"placement": rows})).decode()
    assert '\naudiopixel_placement_delivery_state{placement="a",state="under"} 1\n' in body
    assert body.count("\naudiopixel_placement_delivery_state{") == 1
    values = series(body.encode())
    assert values["audiopixel_placement_delivery_indicator_ratio"] == {"a": 0.667}
    assert values["audiopixel_placement_conversion_value"] == {"b": -12.5}
    claimed = '\naudiopixel_placement_conversion_value_claimed{placement="b"} 90071992547409930.000001\n'
    assert claimed in body
    assert values["audiopixel_placement_conversions_total"] == {"b": 1.5}


def test_only_a_planned_campaign_shows_pacing(snapshot: Snapshot) -> None:
    paced = {
        "delivery.booked": "1000",
        "delivery.delivered": "90",
        "delivery.expected": "100.5",
        "delivery.indicator": "0.895522",
        "delivery.projected": "950",
        "delivery.required_rate": "1800",
        "delivery.state": "under",
        "delivery.judged": "1",
    }
    rows = {"placement": {"a": paced}, "campaign": {"c": paced, "unplanned": {"flight.impressions": "7"}}}
    body = Placements().render(replace(snapshot, rows=rows))
    assert b'\naudiopixel_campaign_delivery_state{campaign="c",state="under"} 1\n' in body
    values = series(body)
    for whose, owner in (("campaign", "c"), ("placement", "a")):
        shown = {
            name.removeprefix(f"audiopixel_{whose}_delivery_"): of
            for name, of in values.items()
            if name.startswith(f"audiopixel_{whose}_delivery_")
        }
        assert shown == {
            "booked_impressions": {owner: 1000},
            "delivered_impressions": {owner: 90},
            "expected_impressions": {owner: 100.5},
            "indicator_ratio": {owner: 0.895522},
            "projected_impressions": {owner: 950},
            "required_impressions_per_second": {owner: 0.5},
            "state": {owner: 1},
        }


def test_shares_of_conversions_add_up_in_other() -> None:
    rows = {name: {"flight.impressions": "1", "flight.conversions": "0.1"} for name in "abc"}
    sums = Cap(0).part(rows, "1")[2]
    assert str(sums[list(COUNTERS.values()).index("flight.conversions")]) == "0.3"


@pytest.mark.parametrize("cap", [0, 1, 5, 90, CAP])
def test_sums_add_up_under_any_cap(snapshot: Snapshot, cap: int) -> None:
    whole, capped = series(Placements().render(snapshot)), series(Placements(cap).render(snapshot))
    total = len(snapshot.rows["placement"])
    cut = max(0, total - cap)
    assert capped["audiopixel_exporter_cut_placements"] == {"": cut}
    for definition in COUNTERS:
        values = capped[definition.name]
        assert sum(values.values()) == sum(whole[definition.name].values())
        assert len(values) == min(cap, len(whole[definition.name])) + (cut > 0)
    assert set(capped["audiopixel_placement_info"]) == set(capped["audiopixel_placement_starts_total"])
    assert "other" not in capped["audiopixel_placement_reach_listeners"]


def test_the_busiest_are_kept() -> None:
    assert Cap(2).part(busy(a=1, b=5, c=3, d=3), "1")[:2] == (["b", "c"], 2)


DAY_S = 86_400.0


def test_other_never_falls_whoever_overtakes_expires_or_comes() -> None:
    cap = Cap(2)

    def began(day: float, rows: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        return {
            name: {**row, "flight.since_ms": str(round(1000 * day * DAY_S))} for name, row in rows.items()
        }

    other = cap.part(began(1, busy(a=1, b=5, c=3, d=2)), "1", 1.1 * DAY_S)[2][0]
    assert other == 3
    for day, rows, counted in (
        (2.0, began(1, busy(a=100, b=5, c=3, d=2)), 102),
        (3.0, began(1, busy(a=100, b=5)), 102),
        (4.0, began(1, busy(a=100)) | began(4, busy(e=1)), 102),
        (5.0, began(1, busy()), 102),
        # a had counted 100 before its row ended, and d 2; c had a place of its own.
        (9.0, began(1, busy(a=101, b=5, c=3, d=2)) | began(9, busy(e=2, f=9)), 102),
        (10.0, began(1, busy(a=105, b=5, c=3, d=3)) | began(9, busy(e=2, f=9)), 107),
    ):
        names, _, sums = cap.part(rows, "1", day * DAY_S)
        assert len(names) <= 2
        assert "a" not in names
        assert sums[0] == counted >= other
        other = sums[0]


def test_a_planned_placement_has_its_series_beyond_any_cap() -> None:
    planned = {f"planned-{n}": {"flight.impressions": "0", "delivery.state": "under"} for n in range(5)}
    noise = busy(**{f"noise{n}": 9 for n in range(30)})
    for most in (0, 3, 10):
        cap = Cap(most)
        names, cut, sums = cap.part({**planned, **noise}, "1")
        shown = max(0, most - 5)
        assert set(planned) <= set(names)
        assert (len(names), cut, sums[0]) == (5 + shown, 30 - shown, 9 * (30 - shown))
    late = Cap(2)
    late.part(noise, "1")
    assert (
        late.part({**noise, "noise7": {"flight.impressions": "9", "delivery.state": "under"}}, "1")[2]
        == late.part(noise, "1")[2]
    ), "what a placement counted in other before it had a plan stays there"


def test_names_without_a_row_are_in_other() -> None:
    cap = Cap(2)
    rows = busy(a=1, b=5, c=3)
    for beyond, other in ((0, 1), (7, 8), (None, 8), (9, 10)):
        row = {} if beyond is None else {"flight.impressions": str(beyond), "flight.conversions": "0.5"}
        sums = cap.part(rows, "1", beyond=row)[2]
        assert sums[0] == other


def test_the_other_row_of_redis_is_in_the_other_series(valkey: EmbeddedValkey) -> None:
    put_rows(valkey.url, "beyond", {"a": {"flight.impressions": 3}})
    with Redis.from_url(valkey.url) as redis:
        redis.hset("beyond:other:{placement}", mapping={"flight.impressions": 4})
    found = series(page(create_app(board(valkey.url, "beyond"))))["audiopixel_placement_impressions_total"]
    assert found == {"a": 3, "other": 4}


def test_memory_contains_no_name_of_an_ended_row() -> None:
    cap = Cap(3)
    for day in range(40):
        _, cut, sums = cap.part(busy(**{f"d{day}_{n}": 1 for n in range(50)}), "1", day * DAY_S)
        assert cut <= 50
        assert sums[0] == 50 * (day + 1) - 3 * (day + 1)
    assert max(len(of) for of in vars(cap).values() if isinstance(of, (dict, set, list))) <= 50


def test_an_expired_place_goes_to_a_newcomer() -> None:
    cap = Cap(1)
    assert cap.part(busy(a=2, b=1), "1")[0] == ["a"]
    assert cap.part(busy(b=1, c=1), "1")[0] == ["c"]


def test_a_log_recomputed_from_scratch_splits_again() -> None:
    cap = Cap(1)
    cap.part(busy(a=2, b=1), "1")
    assert cap.part(busy(a=2, b=3), "2")[:2] == (["b"], 1)


@pytest.mark.parametrize("cap", [1, CAP])
def test_a_placement_named_other_is_no_duplicate_series(snapshot: Snapshot, cap: int) -> None:
    values = series(Placements(cap).render(replace(snapshot, rows={"placement": busy(a=3, other=4)})))
    assert values["audiopixel_placement_impressions_total"] == {"a": 3, "other": 4}


def test_ten_thousand_placements_render_within_a_second(snapshot: Snapshot) -> None:
    kinds = list(snapshot.rows["placement"].values())
    rows = {f"pl-{n:05}": dict(kinds[n % 40]) for n in range(10_000)}
    many, view = replace(snapshot, rows={"placement": rows}), Placements()
    times_s = []
    for _ in range(3):
        began_s = time.process_time()
        body = view.render(many)
        times_s.append(time.process_time() - began_s)
    print(f"{body.count(b'{'):,} series: first {times_s[0]:.3f} s of CPU, then {min(times_s[1:]):.3f} s")
    assert max(times_s) < 1.0
    assert body.count(b"\naudiopixel_placement_info{") == 10_000


def test_labels_with_quotes_newlines_and_backslashes_survive_the_whole_way(valkey: EmbeddedValkey) -> None:
    names = ['a "quoted" one', "two\nlines", "back\\slash", "emoji 🎧", "\\n", 'end"}']
    put_rows(valkey.url, "odd", {name: {"flight.impressions": n} for n, name in enumerate(names)})
    found = series(page(create_app(board(valkey.url, "odd"))))["audiopixel_placement_impressions_total"]
    assert found == {name: n for n, name in enumerate(names)}


def test_a_scrape_without_redis_has_up_0_and_the_last_numbers() -> None:
    with EmbeddedValkey() as server:
        put_rows(server.url, "t", {"pl-1": {"flight.impressions": 7}})
        app = create_app(board(server.url, "t"))
        before = series(page(app))
        server.kill()
        away = series(page(app))
    assert (before["audiopixel_exporter_up"], away["audiopixel_exporter_up"]) == ({"": 1}, {"": 0})
    assert away["audiopixel_placement_impressions_total"] == {"pl-1": 7}
    read = "audiopixel_exporter_read_timestamp_seconds"
    assert away[read] == before[read]


def test_only_a_scrape_reads_redis_and_once(valkey: EmbeddedValkey, snapshot: Snapshot) -> None:
    app = create_app(board(valkey.url))
    with Redis.from_url(valkey.url) as redis:
        redis.config_resetstat()
        for path in ("/metrics/placements", "/metrics", "/healthz"):
            assert page(app, path)
        calls = redis.info("commandstats")["cmdstat_hmget"]["calls"]
    assert calls == len(snapshot.rows["placement"])


def test_the_process_page_shows_only_the_cost_of_scrapes(valkey: EmbeddedValkey, snapshot: Snapshot) -> None:
    app = create_app(board(valkey.url))
    for _ in range(3):
        page(app)
    families = list(text_string_to_metric_families(page(app, "/metrics").decode()))
    values = {sample.name: sample.value for family in families for sample in family.samples}
    assert values["audiopixel_exporter_render_seconds_count"] == 3
    assert values["audiopixel_exporter_refresh_seconds_count"] == 3
    assert values["audiopixel_exporter_refresh_seconds_sum"] > 0
    assert "process_cpu_seconds_total" in values
    assert not [name for name in values if name.endswith("_created")]
    assert not {definition.name for definition in metrics.PIPELINE} & set(values)


@pytest.mark.debian
@pytest.mark.skipif(
    PROMTOOL is None, reason="needs promtool: apt-get install --no-install-recommends prometheus"
)
@pytest.mark.parametrize("cap", [3, CAP])
def test_promtool_finds_no_fault(valkey: EmbeddedValkey, snapshot: Snapshot, cap: int) -> None:
    assert PROMTOOL is not None
    app = create_app(board(valkey.url), cap=cap)
    for path in ("/metrics/placements", "/metrics"):
        done = subprocess.run(
            [PROMTOOL, "check", "metrics"], input=page(app, path), capture_output=True, timeout=30
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), path


def get(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers=SIGNED_IN)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def test_the_command_takes_a_cap(valkey: EmbeddedValkey, snapshot: Snapshot) -> None:
    port = free_port()
    code = f"from flows.cli.commands import app; app(['exporter', '--port', '{port}', '--cap', '3'])"
    environment = {**os.environ, **READ_ENVIRONMENT, "AUDIOPIXEL_REDIS_URL": valkey.url}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    try:
        eventually(lambda: get(port, "/healthz") == 200)
        body = httpx.get(f"http://127.0.0.1:{port}/metrics/placements", headers=SIGNED_IN).content
    finally:
        process.kill()
        process.wait()
    assert series(body)["audiopixel_exporter_cut_placements"] == {"": len(snapshot.rows["placement"]) - 3}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(valkey: EmbeddedValkey, number: int) -> None:
    port = free_port()
    with python(SERVE.format(valkey.url, port), stderr=subprocess.PIPE) as process:
        eventually(lambda: get(port, "/metrics/placements") == 200)
        process.send_signal(number)
        assert process.wait(timeout=10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_it_is_healthy_while_a_scrape_waits_for_a_hanging_redis() -> None:
    with EmbeddedValkey() as server:
        port = free_port()
        with python(SERVE.format(server.url, port)):
            eventually(lambda: get(port, "/healthz") == 200)
            server.pause()
            scraped: list[tuple[int, float]] = []

            def scrape() -> None:
                scraped.append((get(port, "/metrics/placements"), time.monotonic()))

            def waited() -> bool:
                began_s = time.monotonic()
                thread = threading.Thread(target=scrape)
                thread.start()
                assert get(port, "/healthz") == 200
                healthy_s = time.monotonic()
                thread.join(timeout=10)
                status, scraped_s = scraped[-1]
                assert status == 200
                # Numbers read less than a second ago are shown without waiting.
                return scraped_s - began_s > 0.5 and healthy_s < scraped_s

            eventually(waited)
            server.resume()


def test_a_taken_port_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(AudiopixelError) as caught:
            serve(load(), "127.0.0.1", port)
    where = f"127.0.0.1:{port}"
    assert str(caught.value) == (
        f"the exporter cannot listen at {where} (Address already in use): choose another port or host"
    )


@pytest.mark.parametrize(("host", "port"), [("no-such-host.invalid", 9), ("127.0.0.1", 99_999)])
def test_an_invalid_address_is_one_clear_line(host: str, port: int) -> None:
    with pytest.raises(AudiopixelError, match="cannot listen") as caught:
        serve(load(), host, port)
    assert "\n" not in str(caught.value)
