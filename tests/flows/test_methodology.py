"""The description of methodology: of every metric, by the settings in force, and found again by its hash."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from board_support import eventually
from click.testing import Result
from typer.testing import CliRunner

from connectors.embedded import EmbeddedBroker
from connectors.redis import put_fields
from connectors.redis.client import Client
from flows.cli.commands import app
from flows.engine import publish_methodology
from flows.engine.sinks import Described
from flows.methodology import MAX_HASHES, Hashes, methodology
from flows.model.basis import BASES, STRONGEST
from flows.model.catalogue.events import EVENTS, Way
from flows.model.catalogue.metrics import BY_FIELD, COUNTED, FREQUENCY, METRICS, names
from flows.model.counts import BY_FLIGHT
from flows.model.fields import COUNTS, FIELDS, WINDOWS
from flows.model.redis_keys import methodology_key
from flows.model.ticks import MAX_METHODS, Methods, first_of, is_method
from flows.publish.publisher import Publisher
from flows.replay import replay
from flows.settings import Settings, load
from flows.state.hyperloglog import STANDARD_ERROR

START_MS = 1_764_000_000_000

CHANGES: dict[str, Any] = {
    "allowed_lateness": timedelta(minutes=20),
    "out_of_orderness": timedelta(seconds=20),
    "horizon": timedelta(hours=1),
    "conversion_horizon": timedelta(days=50),
    "timezone": "Europe/Berlin",
    "consent": "assumed",
    "platform_basis": {"acast": "ad_delivered"},
    "invalid_agents": {"own_list": "curl"},
    "attribution": "linear",
    "click_window": timedelta(days=29),
    "listen_window": timedelta(days=13),
    "touch_listens": 63,
    "touch_clicks": 15,
    "touch_listens_in_all": 999,
    "touch_clicks_in_all": 249,
    "household_listeners": 19,
    "utm_placements": {"spring": "a"},
    "mature_after": timedelta(seconds=60),
    "delivery_grace": timedelta(minutes=30),
    "under": 0.8,
    "over": 1.2,
    "max_hold": timedelta(hours=5),
    "row_memory": timedelta(days=90),
    "quiet": timedelta(seconds=90),
    "max_state": 1_000_000,
    "row_cap": 100_000,
    "unplanned_rows": 30_000,
    "unplanned_bytes": 1 << 30,
}
"""Settings that change a number, each with another value than its default."""


def published() -> set[str]:
    """The metrics that rows have, without windows and classes."""
    found = set()
    for field in FIELDS:
        first, _, rest = field.partition(".")
        if first in WINDOWS:
            found.add(rest)
        elif first == "frequency":
            found.add(f"frequency.{field.rpartition('.')[2]}")
        elif first == "delivery":
            found.add(field)
    return found


def test_each_published_metric_is_declared_exactly_once() -> None:
    declared = names(METRICS)
    assert len(declared) == len(set(declared))
    assert set(declared) == published()
    assert BY_FIELD.keys() <= {*FIELDS, *names(FREQUENCY)}
    assert names(COUNTED) == COUNTS, "in the order of the events that they count"


@pytest.mark.parametrize("name", CHANGES)
def test_a_setting_with_effect_on_numbers_changes_text_and_hash(name: str) -> None:
    usual, other = methodology(load()), methodology(load(**{name: CHANGES[name]}))
    assert usual.hash != other.hash
    assert (usual.rules, usual.metrics) != (other.rules, other.metrics)


def test_labels_listed_by_plans_change_text_and_hash() -> None:
    plans = Path("plans.csv")
    usual, other = methodology(load(plans=plans)), methodology(load(plans=plans, labels="planned"))
    assert usual.hash != other.hash
    assert "no plan in force lists" in other.rules["rows"]
    assert usual.rules == methodology(load()).rules


def test_the_order_of_bases_is_of_all_of_them() -> None:
    assert sorted(STRONGEST) == sorted(BASES)


def test_a_setting_without_effect_on_numbers_changes_no_hash() -> None:
    assert methodology(load()).hash == methodology(load(shards=4, metrics_port=0, namespace="x:v2")).hash


def test_a_skip_without_a_start_is_documented_in_its_own_minute() -> None:
    """Specification 2.2; `flight.skips` has plays that never started."""
    metrics = methodology(load()).metrics
    for name, done in (("skips", "skipped"), ("mutes", "muted")):
        assert metrics[name]["counts"] == f"Plays that were {done}."
        assert metrics[name]["minute"] == "In the minute of the play's start; in its own while there is none."


def test_pixels_without_a_play_id_count_as_documented(
    settings_of: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    settings, described = settings_of(), methodology(load())
    own = [event.name for event in EVENTS if event.way in (Way.PLAIN, Way.START, Way.OF_PLAY, Way.SENT)]
    of_play = [event.counts for event in EVENTS if event.way is Way.OF_PLAY]
    assert len(own) >= 8
    assert {"skips", "mutes"} <= {*of_play}
    events = (*own, "firstQuartile", "midpoint", "thirdQuartile", "complete")
    pixels = [
        {"event_id": f"{event}-{n}", "event": event, "ts": START_MS, "placement_id": "p"}
        for event in events
        for n in (0, 0, 1)
    ]
    (tmp_path / "log.ndjson").write_text("".join(json.dumps(one) + "\n" for one in pixels))
    replay([str(tmp_path / "log.ndjson")], settings, b"a key of a test!")
    row = client.hgetall(f"{settings.namespace}:placement:{{p}}")
    elsewhere, by_event = [], []
    for name, found in described.metrics.items():
        once, value = found.get("once", ""), row.get(f"flight.{name}")
        if "Pixels without a play id" in once:
            elsewhere.append(name)
            assert value == "0", name
        elif value and ("by placement and event id" in once):
            by_event.append(name)
            assert value == (str(2 * len(events)) if name == "pixels" else "2") or name in (
                "consented",
                "blocked_impressions",
            )
    milestones = ["first_quartiles", "midpoints", "third_quartiles", "completes"]
    assert sorted(elsewhere) == sorted(["starts", *milestones, *of_play, "orphans", "repaired"])
    assert {*by_event} > {
        "impressions",
        "clicks",
        "errors",
        "deliveries",
        *(f"unlinked_{m}" for m in milestones),
    }
    assert described.metrics["starts"]["once"].endswith("Pixels without a play id count in unlinked_starts.")
    assert described.metrics["skips"]["once"].endswith("Pixels without a play id do not count in it.")


def test_reach_is_said_to_have_a_standard_error() -> None:
    for name in ("reach", "household_reach"):
        accuracy = methodology(load()).metrics[name]["accuracy"]
        assert accuracy.startswith("Exact up to 1,000, then an estimate")
        assert (
            f"standard error of {100 * STANDARD_ERROR:.1f} %: two of three values lie within it" in accuracy
        )


def test_metrics_outside_minutes_are_documented_since_the_first_pixel() -> None:
    described = methodology(load())
    for name in (*BY_FLIGHT, "consent_coverage"):
        assert described.metrics[name]["windows"] == "flight: since the first pixel, also with a plan."
    assert described.metrics["impressions"]["windows"].endswith(
        "; flight: since the plan's start, without a plan since the first pixel."
    )


def test_the_documented_order_of_joining_is_the_real_one() -> None:
    joining = methodology(load(utm_placements={"spring": "a"})).rules["joining"]
    words = ("names its placement", "own listener", "household", "utm_content", "the settings' table, hash ")
    places = [joining.index(word) for word in words]
    assert places == sorted(places)
    assert (
        "A conversion that names a campaign is credited to touches of that campaign alone, and by utm_content"
        in joining
    )


def test_the_half_life_is_described_only_if_used() -> None:
    half = {"attribution": "time_decay", "half_life": timedelta(days=3)}
    described = methodology(load(**half)).sentences_of("1d.conversions")
    assert described is not None
    assert "half-life 3 d" in described["lookback"]


def test_an_expression_in_settings_is_shown_only_by_its_hash() -> None:
    said = methodology(load(invalid_agents={"own_list": "secret-vendor"})).rules["invalid_traffic"]
    assert "own_list: an expression of the settings, hash " in said
    assert "secret-vendor" not in said


def test_a_metric_is_found_with_and_without_its_window() -> None:
    described = methodology(load())
    assert (
        described.sentences_of("reach")
        == described.sentences_of("flight.reach")
        == described.metrics["reach"]
    )
    assert described.sentences_of("delivery.booked") is not None
    assert described.sentences_of("shoe") is None


def asked(monkeypatch: pytest.MonkeyPatch, settings: Settings, *arguments: str) -> Result:
    monkeypatch.setenv("AUDIOPIXEL_REDIS_URL", settings.redis_url.get_secret_value())
    monkeypatch.setenv("AUDIOPIXEL_NAMESPACE", settings.namespace)
    monkeypatch.setenv("AUDIOPIXEL_KAFKA_BROKERS", settings.kafka_brokers)
    return CliRunner().invoke(app, ["methodology", *arguments])


def printed(monkeypatch: pytest.MonkeyPatch, settings: Settings, *arguments: str) -> str:
    found = asked(monkeypatch, settings, *arguments)
    assert found.exit_code == 0, found.output
    return found.output


def test_the_command_describes_the_flows_settings_not_its_own(
    settings_of: Callable[..., Settings],
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The flow has another lateness and lookback than the settings here."""
    flow = settings_of(allowed_lateness=timedelta(minutes=7), click_window=timedelta(days=9))
    log = tmp_path / "log.ndjson"
    pixel = {"event_id": "e", "event": "impression", "ts": START_MS, "placement_id": "<b>"}
    log.write_text(json.dumps(pixel) + "\n")
    replay([str(log)], flow, b"a key of sixteen bytes or more")
    counts_by, here = methodology(flow).hash, methodology(load()).hash
    assert counts_by != here
    every = printed(monkeypatch, flow)
    assert every.startswith(f"methodology {counts_by} of audiopixel ")
    assert f", by the flow of {flow.namespace}\n" in every
    assert "until 7 min after its end" in every
    assert json.loads(printed(monkeypatch, flow, "--json"))["hash"] == counts_by
    assert "clicks of the last 9 d" in printed(monkeypatch, flow, "conversions")
    of_row = printed(monkeypatch, flow, "<b>")
    assert f"placement <b>, methodology {counts_by}, by the flow of {flow.namespace}\n" in of_row
    assert "flight.impressions = 1" in of_row
    own = printed(monkeypatch, flow, "--local")
    assert own.startswith(f"methodology {here} of audiopixel ")
    assert ", by the settings here (--local)\n" in own
    assert f"the flow counts by {counts_by}: leave --local out" in printed(
        monkeypatch, flow, "<b>", "--local"
    )


def test_without_a_flow_or_its_text_the_command_describes_nothing(
    settings_of: Callable[..., Settings], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of()
    none = asked(monkeypatch, settings)
    assert none.exit_code == 1
    assert f"no flow has written to {settings.namespace}:meta" in none.stderr
    assert "Exact up to 1,000" in printed(monkeypatch, settings, "flight.reach", "--local")
    keys = {f"{settings.namespace}:meta": {"methodology": "0123456789abcdef"}}
    put_fields(client, keys, timedelta(minutes=5))
    lost = asked(monkeypatch, settings, "reach")
    assert lost.exit_code == 1
    assert "methodology --hash 0123456789abcdef reads it from Kafka" in lost.stderr
    key = methodology_key(settings.namespace, "0123456789abcdef")
    for text in ("{", '{"hash": "0123456789abcdef"}', '"text"'):
        put_fields(client, {key: {"text": text}}, timedelta(minutes=5))
        damaged = asked(monkeypatch, settings, "reach")
        assert (damaged.exit_code, "is damaged" in damaged.stderr) == (1, True)
    assert asked(monkeypatch, settings, "--hash", "0123456789abcdef", "--local").exit_code == 2


def test_a_text_is_found_by_its_hash_after_a_change(
    settings_of: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedBroker() as broker:
        broker.create_topic("methodology", 1)
        earlier = settings_of(kafka_brokers=broker.bootstrap, attribution="linear")
        for settings in (earlier, settings_of(kafka_brokers=broker.bootstrap)):
            publish_methodology(settings)
        text = printed(monkeypatch, earlier, "--hash", methodology(earlier).hash, "--json")
        assert json.loads(text)["hash"] == methodology(earlier).hash
        assert "Credited by linear" in text


def test_a_flow_without_the_topic_says_so_and_goes_on(
    settings_of: Callable[..., Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    with EmbeddedBroker() as broker:
        publish_methodology(settings_of(kafka_brokers=broker.bootstrap, kafka_methodology_topic="missing"))
    said = capsys.readouterr()
    assert "the methodology is not published" in said.out + said.err


@pytest.mark.parametrize("workers", [1, 2])
def test_a_final_minute_has_the_collectors_methods_by_its_end(
    workers: int, settings_of: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    settings, wanted = settings_of(batch_messages=3), dict[int, str]()
    moments = range(0, 50 * 60_000, 20_000)
    spoke = {"aaaa1111": 10 * 60_000 + 30_000, "bbbb2222": 30 * 60_000}
    files = []
    for name in ("0", "1"):  # the second partition gets each method a while later
        lines = list[dict[str, Any]]()
        for at in moments:
            ts = START_MS + at
            event = {"event_id": f"{name}-{at}", "event": "impression", "ts": ts, "placement_id": f"p{name}"}
            lines.append(event | {"received_at": ts})
            method = max((one for one, ms in spoke.items() if at >= ms + int(name) * 240_000), default="")
            lines.append({"collector": f"c{name}", "low_ms": ts, "method": method})
        files.append(tmp_path / f"{name}.ndjson")
        files[-1].write_text("".join(json.dumps(line) + "\n" for line in lines))
    for minute in range(50):
        heard = {method: START_MS + ms for method, ms in spoke.items() if ms < (minute + 1) * 60_000}
        methods = tuple((ms, method) for method, ms in heard.items())
        wanted[START_MS + minute * 60_000] = methodology(settings, methods).hash
    assert len(set(wanted.values())) == 3
    replay([*map(str, files)], settings, b"a key of a test!", out=tmp_path / "out", workers=workers)
    told = [json.loads(line) for line in (tmp_path / "out" / "minutes.ndjson").read_text().splitlines()]
    final = {
        (one["placement_id"], one["minute_ms"]): one["methodology"] for one in told if "methodology" in one
    }
    assert final == {(f"p{name}", minute): found for minute, found in wanted.items() for name in "01"}
    last = wanted[START_MS + 49 * 60_000]
    assert client.hget(f"{settings.namespace}:meta", "methodology") == last
    for found in set(wanted.values()):
        eventually(lambda: client.exists(f"{settings.namespace}:methodology:{{{found}}}"))  # noqa: B023
    text = json.loads(client.hget(f"{settings.namespace}:methodology:{{{last}}}", "text"))
    assert "aaaa1111 bbbb2222" in text["rules"]["collectors"]


def test_the_newest_methods_are_kept_by_their_first_mark() -> None:
    many = [(n, f"m{n}") for n in range(MAX_METHODS + 9)]
    assert first_of([*many, (900, "m70"), (1_000, "m3")]) == tuple(many[9:])
    assert [is_method(text) for text in ("0123abcd", "", "a" * 33, "é", "a b")] == [True, *[False] * 4]


def test_a_flood_of_methods_fills_no_table() -> None:
    begun: list[Sequence[Methods]] = []
    away = Event()

    def hold_publication(_: Settings, several: Sequence[Methods]) -> None:
        begun.append(several)
        assert away.wait(60)

    settings = load()
    described, hashes = Described(settings, hold_publication), Hashes(settings)
    flood = [((n, f"m{n}"), (n + 1, f"m{n + 1}")) for n in range(MAX_HASHES + 50)]
    for methods in flood:
        assert described(methods) == hashes.of(methods) == methodology(settings, methods).hash
    assert len(begun) == 1
    assert hashes.of.cache_info().currsize == MAX_HASHES
    away.set()
    newest = flood[-1]

    def is_published() -> bool:
        described(newest)
        return len(begun) > 1

    eventually(is_published)
    assert begun[1] == [newest[:1], newest]
    described(newest)
    assert len(begun) == 2


def test_an_emptied_redis_gets_the_text_with_the_rows(
    settings_of: Callable[..., Settings], client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(flush_interval=timedelta(milliseconds=1), batch_messages=2)
    log = tmp_path / "log.ndjson"
    pixels = [
        {"event_id": f"e{n}", "event": "impression", "ts": START_MS + n * 60_000, "placement_id": "a"}
        for n in range(40)
    ]
    log.write_text("".join(json.dumps(one) + "\n" for one in pixels))
    flush, flushes = Publisher.flush, count(1)

    def loses(self: Publisher, *of: Any) -> None:
        if next(flushes) == 6:
            client.delete(*client.keys(f"{settings.namespace}:*"))
        flush(self, *of)

    monkeypatch.setattr("flows.replay.PACE", timedelta(0))
    monkeypatch.setattr(Publisher, "flush", loses)
    replay([str(log)], settings, b"a key of sixteen bytes or more")
    assert next(flushes) > 7
    assert client.hget(f"{settings.namespace}:placement:{{a}}", "flight.impressions") == "40"
    named = client.hget(f"{settings.namespace}:meta", "methodology")
    eventually(lambda: client.exists(methodology_key(settings.namespace, named)) == 1)


def test_each_text_of_the_methods_is_published_again_after_a_loss() -> None:
    begun: list[Sequence[Methods]] = []
    described, losses = Described(load(), lambda _, several: begun.append(several)), 0
    described.losses = lambda: losses
    first: Methods = ((1, "m1"),)

    def is_published(number: int) -> bool:
        described(first)
        return len(begun) == number

    described(())
    assert begun == [], "the flow's start has told it"
    eventually(lambda: is_published(1))
    losses = 1
    eventually(lambda: is_published(2))
    described(first)
    assert begun == [[first], [(), first]]
