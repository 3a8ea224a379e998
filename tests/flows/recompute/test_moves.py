"""A comparison of two namespaces: what moves, by what, and when nothing can be said."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from redis import Redis

from connectors.embedded import EmbeddedValkey
from connectors.redis import Client
from flows.errors import AudiopixelError, StateError
from flows.methodology import methodology
from flows.model.redis_keys import day_key, methodology_key, recomputation_namespace, row_key
from flows.recompute import as_json, difference, report, turn
from flows.settings import Settings

LONDON = ZoneInfo("Europe/London")
NOW_MS = int(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp() * 1000)
DAY_MS = 86_400_000


class Sides:
    """Two namespaces, as flows would have written them."""

    def __init__(self, url: str) -> None:
        self.redis = Redis.from_url(url, decode_responses=True)
        self.serving = f"moves-{uuid.uuid4().hex[:8]}:v1"
        self.other = recomputation_namespace(self.serving, "august")

    def meta(self, at: str, **fields: object) -> None:
        known = {"generation": 1, "fence": 1, "rev": 9, "watermark_ms": NOW_MS, "flushed_ms": NOW_MS}
        known |= {"allowed_lateness_ms": 600_000, "counted_since_ms": NOW_MS - 5 * DAY_MS, "methodology": "m"}
        self.redis.hset(f"{at}:meta", mapping={**known, **fields})

    def row(self, at: str, name: str, **fields: object) -> None:
        self.redis.zadd(f"{at}:index:placement", {name: NOW_MS})
        version = {"generation": 1, "fence": 1, "rev": 9}
        values = {of.replace("__", "."): value for of, value in fields.items()}
        self.redis.hset(row_key(at, "placement", name), mapping={**version, **values})

    def day(self, at: str, name: str, day: date, **fields: object) -> None:
        self.redis.hset(day_key(at, name, day), mapping={"generation": 1, **fields})


@pytest.fixture
def sides(valkey: EmbeddedValkey) -> Sides:
    made = Sides(valkey.url)
    for at in (made.serving, made.other):
        made.meta(at)
        made.row(at, "a", flight__impressions=100, as_of_ms=NOW_MS, delivery__state="under")
        made.row(at, "b", flight__impressions=1000, flight__clicks=0)
    return made


def test_equal_sides_are_equal_whatever_their_versions_and_times_are(sides: Sides, client: Client) -> None:
    sides.meta(sides.other, generation=1, fence=7, rev=12)
    sides.row(sides.other, "a", fence=7, as_of_ms=NOW_MS - 1, updated_ms=3)
    found = difference(client, sides.serving, sides.other, LONDON)
    assert (found.moves, found.days, found.placements) == ([], (), 2)
    assert "equal" in report(found)


def test_the_largest_relative_move_comes_first(sides: Sides, client: Client) -> None:
    sides.row(sides.other, "a", flight__impressions=40, delivery__state="on_track")
    sides.row(sides.other, "b", flight__impressions=900, flight__reach=7)
    sides.row(sides.other, "c", flight__impressions=3)
    found = difference(client, sides.serving, sides.other, LONDON)
    told = [(one.placement, one.field, one.was, one.now) for one in found.moves]
    assert told[-2:] == [
        ("a", "flight.impressions", "100", "40"),
        ("b", "flight.impressions", "1000", "900"),
    ]
    assert {*told[:-2]} == {
        ("a", "delivery.state", "under", "on_track"),
        ("b", "flight.reach", None, "7"),
        ("c", "flight.impressions", None, "3"),
    }
    assert (found.moves[-1].difference, found.moves[-1].relative) == (-100, -0.1)
    lines = report(found, most=2)
    assert "5 values move, the 2 that move most:" in lines
    assert len(lines[lines.index("5 values move, the 2 that move most:") :]) == 4
    assert json.loads(as_json(found))["moved"] == 5


def test_a_changed_rule_is_named_with_its_moves(
    sides: Sides, client: Client, settings_of: Callable[..., Settings]
) -> None:
    texts = [methodology(settings_of(**more)) for more in ({}, {"click_window": timedelta(days=1)})]
    for at, text in zip((sides.serving, sides.other), texts, strict=True):
        sides.meta(at, methodology=text.hash)
        _, body = text.line()
        sides.redis.hset(methodology_key(sides.serving, text.hash), "text", body)
    sides.row(sides.other, "a", flight__conversions="2", flight__impressions=99)
    found = difference(client, sides.serving, sides.other, LONDON)
    assert "conversions.lookback" in found.methods
    assert "clicks of the last 1 d" in str(found.methods["conversions.lookback"][1])
    by = {one.field: one.by for one in found.moves}
    assert by["flight.conversions"] == ("conversions.lookback",)
    assert by["flight.impressions"] == ()  # no text that differs is about it


def test_at_different_watermarks_final_days_are_compared(sides: Sides, client: Client) -> None:
    sides.meta(sides.other, watermark_ms=NOW_MS - 1)
    sides.row(sides.other, "a", flight__impressions=99)  # of another moment: says nothing
    days = [date(2026, 11, 15) + timedelta(days=n) for n in range(6)]
    for at in (sides.serving, sides.other):
        for day in days:
            sides.day(at, "a", day, impressions=10, invalid_traffic='{"declared_bot":1}', as_of_ms=NOW_MS)
    sides.day(sides.other, "a", days[0], impressions=1)  # counted in part
    sides.day(sides.other, "a", days[2], impressions=7, invalid_traffic='{"declared_bot":4}')
    sides.day(sides.other, "a", days[3], generation=2, impressions=1)  # another flow's
    sides.day(sides.other, "a", days[5], impressions=1)  # not over
    found = difference(client, sides.serving, sides.other, LONDON)
    assert found.days == days[1:5]
    assert found.left_out == 1
    assert {(one.day, one.field, one.was, one.now) for one in found.moves} == {
        ("2026-11-17", "impressions", "10", "7"),
        ("2026-11-17", "invalid_traffic.declared_bot", "1", "4"),
    }


def test_incomparable_namespaces_are_refused(sides: Sides, client: Client) -> None:
    sides.meta(sides.other, watermark_ms=NOW_MS - 1, counted_since_ms=NOW_MS - 1_000)
    with pytest.raises(AudiopixelError, match="nothing can be compared"):
        difference(client, sides.serving, sides.other, LONDON)
    with pytest.raises(AudiopixelError, match="no flow has written to"):
        difference(client, sides.serving, recomputation_namespace(sides.serving, "july"), LONDON)


def test_ids_and_texts_from_outside_are_shown_as_letters(sides: Sides, client: Client) -> None:
    sides.row(sides.other, "\x1b[31mred\u202e", flight__impressions=3, platform="\x1b[2J")
    text = "\n".join(report(difference(client, sides.serving, sides.other, LONDON)))
    assert "\x1b" not in text
    assert "\u202e" not in text


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"flushed_ms": 1}, "has written nothing"),
        ({"unjudged_reason": "catching_up"}, "is not live yet"),
        ({"watermark_ms": NOW_MS - 61_000}, "61 s behind"),
    ],
)
def test_an_unfit_flow_is_refused(sides: Sides, client: Client, fields: dict[str, object], why: str) -> None:
    now_ms = sides.redis.time()[0] * 1000
    sides.meta(sides.other, **{"flushed_ms": now_ms, **fields})
    with pytest.raises(StateError, match=why):
        turn(client, sides.serving, "august", patience_s=0.1)
    assert not sides.redis.exists(f"{sides.serving}:switch")


def test_an_unanswered_switch_is_withdrawn(sides: Sides, client: Client) -> None:
    sides.meta(sides.other, flushed_ms=sides.redis.time()[0] * 1000)
    sides.redis.hset(f"{sides.serving}:positions", mapping={"generation": 1, "fence": 1})
    found = turn(client, sides.serving, "august", patience_s=0.5)
    assert (found.done, found.generation) == (False, 1)
    assert sides.redis.hget(f"{sides.serving}:switch", "asked_ms") == "0"
