"""Orders that a public tag and a server send, over whole flows, held to what DuckDB finds in them."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from connectors.redis.client import Client
from flows.cli.commands import app
from flows.cli.reconcile_settings import rules
from flows.reconcile.comparison import differences
from flows.reconcile.recomputation import recompute
from flows.reconcile.replay_files import minute_differences
from flows.replay import replay
from flows.settings.fields import Settings

KEY = b"a key of sixteen bytes or more"
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
T0 = 1_764_000_000_000 // DAY * DAY
WHERE = {"a": "red", "b": "red", "c": "blue", "d": None}
Line = dict[str, Any]
Entry = tuple[int, str, Line]
"""When a line arrives, by whom its partition is chosen, and what it is."""

LATER = (
    *(0, SECOND, 40 * SECOND, 3 * MINUTE, 30 * MINUTE),
    *(5 * HOUR, 3 * DAY, 59 * DAY, 60 * DAY, 61 * DAY),
)
"""How long behind a conversion the next one of its order comes."""
SENT = ("t", "s", "ts", "st", "tts", "tss", "tst", "sts", "stst", "ttss")
"""Who sends an order, in turn: the tag, or the server."""


def orders(seed: int, many: int) -> list[Entry]:
    """Touches of some listeners, and orders that tags and servers send in any order with equal or unequal
    values. Some buyers have heard the ad. Some servers' clocks are early.
    """
    rng = random.Random(seed)
    found: list[Entry] = []

    def line(arrives: int, whose: str, event: str, ts: int, **fields: Any) -> None:
        known = {name: value for name, value in fields.items() if value is not None}
        found.append((arrives, whose, {"event_id": f"e{len(found)}", "event": event, "ts": ts, **known}))

    for number in range(many * 2):
        placement, campaign = rng.choice([*WHERE.items()])
        at, who = T0 + rng.randrange(80 * DAY), f"L{rng.randrange(12)}"
        line(
            at, who, rng.choice(["impression", "impression", "click"]), at, placement_id=placement,
            campaign_id=campaign, listener_id=who, household_id=f"H{rng.randrange(5)}", consent=True,
            play_id=f"p{number}" if rng.random() < 0.7 else None,
        )  # fmt: skip
    for number in range(many):
        at, order = T0 + rng.randrange(10 * DAY), f"o{number}"
        campaign = rng.choice(["red", "red", "blue", None])
        price, currency = f"{rng.randrange(1, 90)}.{rng.randrange(100):02}", rng.choice(["GBP", "EUR", None])
        for who in rng.choice(SENT):
            behind = at - rng.choice([0, 0, 0, 2 * SECOND, 2 * MINUTE]) if who == "s" else at
            value = rng.choice([price, price, price, "-3.5", "9000000000000.25", "much", None])
            bought = {
                "type": "purchase",
                "order_id": order,
                "value": value,
                "currency": rng.choice([currency, currency, "GBP"]),
                "claimed": True if who == "t" else rng.choice([None, False]),
            }
            known = {name: one for name, one in bought.items() if one is not None}
            line(
                at, order, "conversion", behind, campaign_id=campaign, conversion=known,
                listener_id=rng.choice([f"L{number % 12}"] * 3 + ["nobody", None]),
                household_id=rng.choice([f"H{number % 5}", None, None]), consent=rng.random() < 0.9,
                placement_id=rng.choice([None] * 9 + ["a"]),
                landing_url=rng.choice([None, None, "https://shop.example/?utm_content=b"]),
                previous={"listener_id": f"L{number % 12}"} if rng.random() < 0.1 else None,
                user_agent="a bot/1.0" if rng.random() < 0.05 else None,
            )  # fmt: skip
            at += rng.choice(LATER)
    end = T0 + 90 * DAY
    for number in range(8):
        line(end, str(number), "impression", end, placement_id="end", play_id=f"end-{number}")
    return sorted(found, key=lambda one: one[0])


def files_of(entries: Sequence[Entry], parts: int, directory: Path) -> list[Path]:
    """The lines by arrival, those of one order in one file."""
    out: list[list[bytes]] = [[] for _ in range(parts)]
    for _, whose, one in entries:
        out[zlib.crc32(whose.encode()) % parts].append(json.dumps(one).encode() + b"\n")
    names = [directory / f"{part}-of-{parts}.ndjson" for part in range(parts)]
    for name, part in zip(names, out, strict=True):
        name.write_bytes(b"".join(part))
    return names


def plans(directory: Path, **said: str) -> Path:
    """Plans of placements whose column `conversions_from` says so."""
    start, end = (datetime.fromtimestamp((T0 + at) / 1000, UTC).isoformat() for at in (0, 100 * DAY))
    rows = [f"{name},1000,{start},{end},{WHERE[name] or ''},{of}" for name, of in said.items()]
    path = directory / "plans.csv"
    path.write_text("\n".join(["placement_id,booked,start,end,campaign_id,conversions_from", *rows]))
    return path


def decisions(directory: Path) -> list[Line]:
    return [json.loads(one) for one in (directory / "credits.ndjson").read_text().splitlines()]


@pytest.mark.parametrize(
    ("parts", "workers", "batch", "model"),
    [(1, 1, 10_000, "linear"), (3, 2, 17, "last_touch"), (4, 4, 60, "linear")],
)
@pytest.mark.parametrize("said", ["browser", "server", "plans"])
def test_orders_match_the_oracle_on_any_partitions_and_workers(
    said: str,
    parts: int,
    workers: int,
    batch: int,
    model: str,
    tmp_path: Path,
    settings_of: Callable[..., Settings],
    client: Client,
) -> None:
    more: dict[str, Any] = {"conversions_from": said}
    if said == "plans":  # of red they disagree
        more = {"plans": plans(tmp_path, a="server", b="browser", c="browser"), "conversions_from": "server"}
    settings = settings_of(
        attribution=model,
        utm_placements={"b": "b"},
        batch_messages=batch,
        flush_interval=timedelta(milliseconds=20),
        row_ttl=timedelta(days=62),
        **more,
    )
    files = files_of(orders(zlib.crc32(f"{said} {model}".encode()), 400), parts, tmp_path)
    replay([str(one) for one in files], settings, KEY, out=tmp_path / "out", workers=workers)
    truth = recompute(files, rules(settings))
    assert differences(truth, client, settings.namespace) == []
    assert minute_differences(truth, tmp_path / "out" / "minutes.ndjson") == []
    red = client.hgetall(f"{settings.namespace}:campaign:{{red}}")
    blue = client.hgetall(f"{settings.namespace}:campaign:{{blue}}")
    confirmed = [one for one in decisions(tmp_path / "out") if one["rule"] == "confirmed"]
    assert float(red["flight.conversions_claimed"]) > 20
    assert (float(red.get("flight.conversions_confirmed", 0)) > 10) == (said == "browser")
    assert (float(blue.get("flight.conversions_confirmed", 0)) > 5) == (said != "server")
    assert (len(confirmed) > 5) == (said != "server")
    assert any(one["claimed"] for one in decisions(tmp_path / "out")) == (said != "server")


def clock_ms(clock: str) -> int:
    """The time of a clock on the first day."""
    hours, minutes = map(int, clock.split(":"))
    return T0 + hours * HOUR + minutes * MINUTE


def sent(order: str, clock: str, value: str | None, *, by_tag: bool, who: str | None = "L") -> Line:
    bought = {"type": "purchase", "order_id": order, "value": value, "currency": "GBP", "claimed": by_tag}
    known = {name: one for name, one in bought.items() if one is not None}
    line = {"event": "conversion", "ts": clock_ms(clock), "campaign_id": "red", "conversion": known}
    return line | ({"listener_id": who, "consent": True} if who else {})


HEARD = {"event": "impression", "ts": clock_ms("9:00"), "placement_id": "a", "campaign_id": "red"}


def replayed(lines: Sequence[Line], settings: Settings, directory: Path) -> dict[str, Line]:
    """Replay lines; the final minutes of placement `a`, by their clocks."""
    file = directory / "log.ndjson"
    who = {"listener_id": "L", "consent": True}
    known = [{"event_id": f"e{number}"} | one for number, one in enumerate([HEARD | who, *lines])]
    file.write_text("".join(json.dumps(one) + "\n" for one in known))
    replay([str(file)], settings, KEY, out=directory / "out")
    told = [json.loads(one) for one in (directory / "out" / "minutes.ndjson").read_text().splitlines()]
    final = [one for one in told if one["state"] == "final" and one["placement_id"] == "a"]
    return {f"{datetime.fromtimestamp(one['minute_ms'] / 1000, UTC):%-H:%M}": one for one in final}


SHOWN = ("conversions", "conversions_claimed", "conversions_confirmed")
VALUES = ("conversion_value_claimed", "conversion_value")


def shown(of: Line, prefix: str = "") -> list[float]:
    counts = [float(of.get(f"{prefix}{name}", 0)) for name in SHOWN]
    return [*counts, *(int(of.get(f"{prefix}{name}", 0)) / 1e6 for name in VALUES)]


ORDER = [sent("88121", "9:12", "59.90", by_tag=True), sent("88121", "14:30", "49.90", by_tag=False)]


def test_the_example_of_the_page_is_right(
    tmp_path: Path, settings_of: Callable[..., Settings], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of()
    free = sent("free", "9:40", None, by_tag=True)
    minutes = replayed([ORDER[0], free, ORDER[1]], settings, tmp_path)
    assert shown(minutes["9:12"]) == [1, 1, 0, 59.90, 0]
    assert shown(minutes["14:30"]) == [0, 0, 1, -59.90, 49.90]
    for row in ("placement:{a}", "campaign:{red}"):
        assert shown(client.hgetall(f"{settings.namespace}:{row}"), "flight.") == [2, 2, 1, 0, 49.90]
    for name, value in (
        ("REDIS_URL", settings.redis_url.get_secret_value()),
        ("NAMESPACE", settings.namespace),
    ):
        monkeypatch.setenv(f"AUDIOPIXEL_{name}", value)
    monkeypatch.setenv("COLUMNS", "200")
    explained = CliRunner().invoke(app, ["explain", "88121"]).output
    assert "59.90 GBP (claimed)" in explained
    assert "49.90 GBP (claimed as 59.90 GBP)" in explained
    valueless = CliRunner().invoke(app, ["explain", "free"]).output
    assert " (claimed), of campaign red" in valueless, "without a value, too"


def test_with_server_the_example_has_the_servers_order_alone(
    tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of(conversions_from="server")
    minutes = replayed(ORDER, settings, tmp_path)
    assert shown(minutes["9:12"]) == [0, 1, 0, 0, 0]
    assert shown(minutes["14:30"]) == [1, 0, 0, 0, 49.90]
    red = client.hgetall(f"{settings.namespace}:campaign:{{red}}")
    assert [red[f"flight.conversions_{name}"] for name in ("accepted", "attributed")] == ["1", "1"]
    assert red["flight.conversion_rate"] == "1"
    assert red["frequency.1.conversions"] == "1"
    assert [one["order_id"] for one in decisions(tmp_path / "out")] == ["88121"]


@pytest.mark.parametrize("said", ["browser", "server"])
@pytest.mark.parametrize("value", ["0.01", None])
def test_order_numbers_claimed_by_a_stranger_take_no_credit(
    said: str, value: str | None, tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of(conversions_from=said)
    numbers = range(1000, 1020)
    stranger = [sent(str(number), "9:30", value, by_tag=True, who=None) for number in numbers]
    shop = [sent(str(number), f"10:{number - 1000:02}", "50", by_tag=False) for number in numbers]
    replayed([*stranger, *shop], settings, tmp_path)
    row = client.hgetall(f"{settings.namespace}:placement:{{a}}")
    assert shown(row, "flight.") == [20, 0, 0, 0, 1000]
    red = client.hgetall(f"{settings.namespace}:campaign:{{red}}")
    assert red["frequency.1.conversions"] == "20", "how often its listeners have heard of it is known"
    claimed = {"browser": ["40", "20", "20"], "server": ["20", "20", "0"]}[said]
    names = ("accepted", "attributed", "unattributed")
    assert [red.get(f"flight.conversions_{name}", "0") for name in names] == claimed


@pytest.mark.parametrize("seed", range(3))
def test_with_server_claimed_orders_change_no_number_of_the_shop(
    seed: int, tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of(
        conversions_from="server",
        attribution="linear",
        utm_placements={"b": "b"},
        row_ttl=timedelta(days=100),
        row_memory=timedelta(days=101),
    )
    entries = orders(seed, 150)
    alone = list[Entry]()
    for at, whose, line in entries:
        other = {
            "event": "impression",
            "placement_id": "other",
            "event_id": line["event_id"],
            "ts": line["ts"],
        }
        claimed = line.get("conversion", {}).get("claimed")
        # Another pixel in place of each, since any pixel moves its partition's clock.
        alone.append((at, whose, other if claimed else line))
    assert sum(one != other for one, other in zip(entries, alone, strict=True)) > 100

    def numbers(some: Sequence[Entry], name: str) -> dict[str, dict[str, str]]:
        directory = tmp_path / name
        directory.mkdir()
        of = settings.model_copy(update={"namespace": f"{settings.namespace}-{name}"})
        replay([str(one) for one in files_of(some, 2, directory)], of, KEY)
        rows = {}
        for row in ("campaign:{red}", "campaign:{blue}", *(f"placement:{{{one}}}" for one in WHERE)):
            fields = client.hgetall(f"{of.namespace}:{row}")
            rows[row] = {
                field: value
                for field, value in fields.items()
                if "conver" in field and not field.endswith(".conversions_claimed")
            }
        return rows

    with_claims = numbers(entries, "claims")
    assert float(with_claims["campaign:{red}"]["flight.conversions"]) > 10
    without = numbers(alone, "alone")
    unlike = {
        (row, field): (value, without[row].get(field))
        for row, fields in with_claims.items()
        for field, value in fields.items()
        if value != without[row].get(field)
    }
    assert unlike == {}
