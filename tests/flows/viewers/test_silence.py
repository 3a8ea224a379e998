"""A silent feed in what readers are sent: the page's stream, the table without scripts, and `top`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, timedelta
from io import StringIO
from typing import Any

import pytest
from board_support import put_rows
from page_support import feed_alert, silent, unjudged
from redis import Redis
from rich.console import Console

from connectors.embedded import EmbeddedValkey
from connectors.redis.client import connect
from flows.viewers.access import Owners, Sight
from flows.viewers.columns import FIELDS as READ
from flows.viewers.desk import Desk
from flows.viewers.feed import FIELDS as SHOWN
from flows.viewers.feed import SCOPES, Feed, View
from flows.viewers.page import plain_table
from flows.viewers.reader import DAMAGED, RowsReader, Snapshot
from flows.viewers.series import FIELDS
from flows.viewers.silence import SENT, Silence, Unit, named, sentences, silence_of
from flows.viewers.table import ordered
from flows.viewers.top_lines import render, sums, verdict

SINCE_MS = 1_764_086_400_000
NOW_S = SINCE_MS / 1000 + 240  # 25 Nov 2025, 16:04 UTC
PLANNED = {
    "delivery.state": "under",
    "delivery.judged": "1",
    "delivery.booked": "1000",
    "delivery.short_by": "90",
}


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        yield server


def held(unit: str, campaign: str = "c", since_ms: int = SINCE_MS) -> dict[str, str]:
    told = {name: str(value) for name, value in unjudged(unit, since_ms).items()}
    return {**PLANNED, "campaign_id": campaign, **told}


def snapshot(rows: dict[str, dict[str, str]], **units: dict[str, Any]) -> Snapshot:
    meta = {"flushed_ms": str(int(1000 * NOW_S)), "judged": "1", "silent": json.dumps(units)}
    return Snapshot(True, "", NOW_S, meta, {"placement": rows})


def put(url: str, namespace: str, rows: dict[str, dict[str, str]], **units: dict[str, Any]) -> None:
    put_rows(url, namespace, rows)
    with Redis.from_url(url) as client:
        client.hset(f"{namespace}:meta", mapping=dict(snapshot(rows, **units).meta))


def feed(url: str, namespace: str) -> Feed:
    client = connect(url, timeout=timedelta(seconds=1))
    return Feed(RowsReader(client, namespace, FIELDS, scopes=SCOPES, interval=timedelta(0)))


def lines(told: Snapshot, width: int = 120, height: int | None = None) -> list[str]:
    out = StringIO()
    console = Console(file=out, width=width, color_system=None)
    console.print(render(told, NOW_S, width, height, zone=UTC))
    return out.getvalue().splitlines()


# What is said


def test_a_placements_money_counts_once_over_several_units() -> None:
    told = snapshot(
        {"a": held("platform:x"), "b": held("platform:x"), "c": PLANNED},
        **{
            "platform:x": silent(SINCE_MS, 2, GBP="10.50"),
            "platform:y": silent(SINCE_MS, 1, GBP="1", EUR="7"),
            "partition:3": silent(SINCE_MS + 9, 3, GBP="11.25"),
        },
    )
    silence = silence_of(told)
    assert [unit.key for unit in silence.units] == ["partition:3", "platform:x", "platform:y"]
    assert (silence.placements, silence.money) == (2, "EUR 7.00 and GBP 11.50")


def test_units_not_named_in_meta_are_counted() -> None:
    told = snapshot({}, **{f"sender:{n}": silent(SINCE_MS) for n in range(50)})
    silence = silence_of(replace(told, meta={**told.meta, "silent_more": "9"}))
    assert silence.count == 59
    words = sentences(silence, 1000 * NOW_S, UTC)
    assert words is not None
    assert words[0].startswith("0, 1, 10 and 56 more (sender) have been silent since ")


def test_a_row_unjudged_for_another_reason_waits_for_no_feed() -> None:
    other = {**held("platform:x"), "delivery.unjudged_reason": "of_tomorrow"}
    told = snapshot({"a": other}, **{"platform:x": silent(SINCE_MS)})
    assert silence_of(told).placements == 0
    (row,) = (line for line in lines(told) if " a " in line)
    assert row.startswith("not judged  a")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["platform:programmatic"], "programmatic (platform)"),
        (["platform:a", "platform:b"], "a and b (platform)"),
        (["platform:a", "partition:3"], "a (platform) and 3 (partition)"),
        (["sender:a", "sender:b", "sender:c", "sender:d", "sender:e"], "a, b, c and 2 more (sender)"),
        (["platform:a:b"], "a:b (platform)"),
        (["platform:\x1b[31m\u202e" + "n" * 200], "\ufffd[31m\ufffd" + "n" * 33 + "… (platform)"),
    ],
)
def test_units_are_named_by_the_first_without_control_characters(keys: list[str], words: str) -> None:
    assert named([Unit(key, 0.0) for key in keys], len(keys)) == words


def test_a_row_shows_the_first_silences_begin() -> None:
    units = [Unit("platform:a", SINCE_MS + 60_000, 2), Unit("sender:b", SINCE_MS)]
    told = sentences(Silence(units, 0), 1000 * NOW_S, UTC)
    assert told == (
        "a (platform) and b (sender) have been silent since 25 Nov, 16:00 UTC (4 min ago): this is the feed, "
        "not delivery.",
        "No placement waits for it.",
    )
    assert sentences(Silence(), 1000 * NOW_S) is None


@pytest.mark.parametrize(
    "damaged",
    ["{", "[]", '{"platform:x": {}}', '{"platform:x": {"since_ms": 1, "money_per_hour": {"GBP": "x"}}}'],
)
def test_an_unreadable_silence_is_damage(valkey: EmbeddedValkey, damaged: str) -> None:
    put(valkey.url, "damaged", {"a": PLANNED})
    with Redis.from_url(valkey.url) as client:
        client.hset("damaged:meta", "silent", damaged)
    reader = RowsReader(connect(valkey.url, timeout=timedelta(seconds=1)), "damaged", FIELDS)
    read = reader.refresh()
    assert not read.up
    assert read.error.startswith(DAMAGED)


# The page's stream


def test_a_page_gets_the_most_affected_units_and_the_total(valkey: EmbeddedValkey) -> None:
    units = {f"sender:s-{n}": silent(SINCE_MS + n, n) for n in range(2_000)}
    put(valkey.url, "many", {"a": held("sender:s-7")}, **units)
    one = feed(valkey.url, "many")
    one.tick()
    told = one.everything.status["silence"]
    assert len(told["units"]) == SENT
    assert told["units"][0] == ["sender", "s-1999", SINCE_MS + 1999]
    assert (told["count"], told["placements"], told["since_ms"]) == (2_000, 1, SINCE_MS)


def test_a_restricted_reader_sees_only_its_own_silent_placements(
    valkey: EmbeddedValkey,
) -> None:
    rows = {"a": held("platform:x", "mine", SINCE_MS + 5), "b": held("platform:y", "theirs"), "c": PLANNED}
    units = {"platform:x": silent(SINCE_MS, 9, GBP="12.34"), "platform:y": silent(SINCE_MS, 1)}
    put(valkey.url, "sight", rows, **units)
    one, mine = feed(valkey.url, "sight"), Sight("me", False, frozenset(["mine"]), owners=Owners())
    view = View(mine)
    snapshot = one._reader.refresh()
    view.take(snapshot, False)
    assert view.status["silence"] == {
        "units": [["platform", "x", SINCE_MS + 5]],
        "count": 1,
        "since_ms": SINCE_MS + 5,
        "placements": 1,
        "money": "",
    }
    nobody = View(Sight("other", False, frozenset(["none"]), owners=Owners()))
    nobody.take(snapshot, False)
    assert nobody.status["silence"] is None


def test_only_full_readers_get_a_feeds_alert_once(
    valkey: EmbeddedValkey,
) -> None:
    put(valkey.url, "stream", {"a": held("platform:x", "mine")})
    with Redis.from_url(valkey.url) as client:
        for ended_ms in (None, None, SINCE_MS + 300_000):
            client.xadd("stream:alerts", feed_alert("platform:x", SINCE_MS, 1, ended_ms))
        client.xadd("stream:alerts", {"id": "of a later version", "kind": "of tomorrow"})
    one = feed(valkey.url, "stream")
    one.tick()
    told = json.loads(one.whole()[1].partition(b"data: ")[2])["alerts"]
    assert [(alert["unit"], alert["to"]) for alert in told] == [
        ("platform:x", "silent"),
        ("platform:x", "live"),
    ]
    view = View(Sight("me", False, frozenset(["mine"]), owners=Owners()))
    view.take(one._reader.refresh(), False)
    assert json.loads(one.whole(view)[1].partition(b"data: ")[2])["alerts"] == []
    view.build_event(view.shown(), {}, [*one._alerts])
    assert json.loads(view.latest[1].partition(b"data: ")[2])["alerts"] == []
    row = one.row("placement", "a", "1h")
    assert row is not None
    assert row["alerts"] == []


def test_the_scriptless_table_names_the_unit_in_the_row_and_above(valkey: EmbeddedValkey) -> None:
    put(
        valkey.url,
        "plain",
        {"a": held("platform:<b>x"), "b": PLANNED},
        **{"platform:<b>x": silent(SINCE_MS, 1)},
    )
    text = plain_table(feed(valkey.url, "plain"))
    assert "&lt;b&gt;x (platform) has been silent since 25 Nov" in text
    assert "1 placement is not judged; do not change bids by it." in text
    assert "<td>not judged: feed silent, &lt;b&gt;x (platform)</td>" in text
    assert "<td>under</td>" in text
    assert "<b>x" not in text


# The terminal


def test_top_has_the_banner_of_the_page_and_the_rows_state() -> None:
    rows = {"waiting": held("platform:programmatic"), "starved": PLANNED}
    told = snapshot(rows, **{"platform:programmatic": silent(SINCE_MS, 1, GBP="1")})
    shown = lines(told)
    began = "programmatic (platform) has been silent since 25 Nov, 16:00 UTC (4 min ago)"
    assert shown[0] == f"{began}: this is the feed, not delivery."
    assert shown[1] == "1 placement is not judged; do not change bids by it. It brings GBP 1.00 an hour."
    assert shown[2].startswith("live, but 1 feed is silent · ")
    states = {name: line for line in shown for name in rows if f" {name} " in line}
    assert states["waiting"].startswith("not judged: feed silent  waiting")
    assert states["starved"].startswith("under ")
    assert verdict(told, NOW_S) == ("live, but 1 feed is silent", "yellow")


def test_a_terminal_of_80_columns_shows_the_consequence() -> None:
    told = snapshot({"a": held("platform:" + "x" * 300)}, **{"platform:" + "x" * 300: silent(SINCE_MS, 1)})
    shown = lines(told, 80, 24)
    assert max(map(len, shown)) <= 80
    assert shown[1] == "1 placement is not judged; do not change bids by it."


def test_a_waiting_row_is_not_under_and_sorts_after_under_ones() -> None:
    rows = {"costly": held("platform:x") | {"delivery.short_by": "9000"}, "starved": PLANNED}
    desk = Desk.from_scopes(snapshot(rows).rows, 1000 * NOW_S)
    assert [row.id for row in ordered(desk.rows["placement"], "", desk)] == ["starved", "costly"]
    said = sums(desk.rows["placement"], desk)
    assert said.startswith("1 under · 1 not judged · ")
    assert "9,0" not in said, "a sum judges no row that is not judged"
    assert [row.id for row in desk.rows["placement"] if row.matches(["feed", "silent"])] == ["costly"]


def test_both_viewers_read_every_field_of_a_silence() -> None:
    wanted = {
        "delivery.judged",
        "delivery.unjudged_reason",
        "delivery.unjudged_since_ms",
        "delivery.unjudged_by",
    }
    assert wanted <= set(SHOWN)
    assert wanted <= set(READ)
