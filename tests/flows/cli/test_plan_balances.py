"""`audiopixel plans --delivered`: plans with the opening balances of a report."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from redis import Redis
from typer.testing import CliRunner

from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from flows.cli.commands import app
from flows.delivery.plan_columns import plan_from_json
from flows.delivery.plan_files import read_plans
from flows.delivery.plan_source import read_book
from flows.settings.loading import load

PLANS = """placement_id,booked,start,end,timezone,curve,delivered_before,delivered_before_until
breakfast,1200000,2026-11-02T00:00,2026-11-30T00:00,Europe/London,even,5,2026-11-03T00:00
"news, late",400000,2026-11-02T00:00,2026-11-30T00:00,UTC,WEIGHTS,,
other,9,2026-11-02T00:00,2026-11-30T00:00,UTC,even,3,2026-11-02T05:00
""".replace("WEIGHTS", ";".join("123456789" * 2 + "123456"))
THEIRS = """placement_id,day,impressions
breakfast,2026-11-02,43000
breakfast,2026-11-03,42000
"news, late",flight,12345
unknown,flight,1
"""
SINCE_MS = 1_793_700_000_000
"""3 November 2026, 10:00 UTC."""
META = "audiopixel:v1:meta"
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture
def redis(valkey: EmbeddedValkey) -> Iterator[Redis]:
    with Redis.from_url(valkey.url, decode_responses=True) as client:
        client.flushall()
        client.hset(META, mapping={"counted_since_ms": SINCE_MS, "watermark_ms": SINCE_MS + 26 * 3_600_000})
        yield client


@pytest.fixture
def run(valkey: EmbeddedValkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    (tmp_path / "plans.csv").write_text(PLANS)
    (tmp_path / "theirs.csv").write_text(THEIRS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUDIOPIXEL_REDIS_URL", valkey.url)

    def command(*arguments: str, code: int = 0) -> Result:
        done = CliRunner().invoke(app, ["plans", *arguments])
        assert done.exit_code == code, (done.output, done.exception)
        return done

    return command


def by_placement(text: str) -> dict[str, dict[str, str]]:
    return {row["placement_id"]: row for row in csv.DictReader(io.StringIO(text))}


MAKE = ("plans.csv", "--delivered", "theirs.csv", "--until", "2026-11-03T09:30:00Z")


def test_the_plans_are_written_with_their_balances(run: Run, redis: Redis, tmp_path: Path) -> None:
    done = run(*MAKE, "--out", "new.csv", "--source", "=Heart, 3 November")
    assert "no plan is of unknown" in done.stderr
    assert "the report has nothing of other, which stay as they are" in done.stderr
    assert "breakfast" in done.stdout
    assert "85,000" in done.stdout
    rows = {
        row["placement_id"]: row for row in csv.DictReader(io.StringIO((tmp_path / "new.csv").read_text()))
    }
    until = "2026-11-03T09:30:00+00:00"
    before = by_placement(PLANS)
    new = {"delivered_before_until": until, "delivered_before_source": "=Heart, 3 November"}
    assert rows == {
        "breakfast": before["breakfast"] | new | {"delivered_before": "85000"},
        "news, late": before["news, late"] | new | {"delivered_before": "12345"},
        "other": before["other"] | {"delivered_before_source": ""},
    }
    book, problems = read_plans(tmp_path / "new.csv")
    assert not problems
    assert book["breakfast"].delivered_before == 85_000


def test_plans_in_json_stay_in_json(run: Run, redis: Redis, tmp_path: Path) -> None:
    plan = {
        "placement_id": "breakfast;1", "booked": 1200, "start": "2026-11-02T00:00Z",
        "end": "2026-11-30T00:00Z", "timezone": "UTC", "cpm": 12.345678, "currency": "GBP",
        "curve": [0.1] * 24,
        "target_completion_rate": 0.92, "delivered_before": 7, "delivered_before_until": "2026-11-02T01:00Z",
        "delivered_before_source": "they",
    }  # fmt: skip
    (tmp_path / "plans.json").write_text(json.dumps([plan]))
    (tmp_path / "theirs.json").write_text('[{"placement_id":"breakfast;1","day":"flight","impressions":40}]')
    run("plans.json", "--delivered", "theirs.json", "--until", "2026-11-03T05:00Z", "--out", "plans.json")
    book, problems = read_plans(tmp_path / "plans.json")
    assert not problems
    (new,) = book.values()
    expected = plan | {
        "delivered_before": 40,
        "delivered_before_until": "2026-11-03T05:00Z",
        "delivered_before_source": "theirs.json",
    }
    assert new == plan_from_json(json.dumps(expected).encode())


def test_the_balances_go_into_a_topic(run: Run, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedBroker() as broker:
        broker.create_topic("audio-plans", 1)
        monkeypatch.setenv("AUDIOPIXEL_KAFKA_BROKERS", broker.bootstrap)
        run(*MAKE, "--to", "audio-plans")
        book = read_book(load(kafka_brokers=broker.bootstrap, plans="kafka:audio-plans"))
    assert {name: plan.delivered_before for name, plan in book.items()} == {
        "breakfast": 85_000,
        "news, late": 12_345,
        "other": 3,
    }


def test_an_invalid_moment_is_refused_with_the_nearest_valid_one(
    run: Run, redis: Redis, tmp_path: Path
) -> None:
    """The watermark is 4 November, 12:00. Midnight of that day is valid, and so are 11:01 to 12:00."""
    late = [*MAKE[:-1], "2026-11-03T14:00:00Z", "--out", "new.csv"]
    done = run(*late, code=1)
    assert "plans.csv: breakfast: delivered_before_until: 2026-11-03T14:00:00+00:00: counts" in done.stdout
    assert "nearest such moments are 2026-11-03T10:00:00+00:00 and 2026-11-04T00:00:00+00:00" in done.stdout
    assert not (tmp_path / "new.csv").exists()


@pytest.mark.parametrize(("reason", "code"), [(None, 0), ("gap", 0), ("until", 1)])
def test_a_moment_once_accepted_stays_valid(
    run: Run, redis: Redis, tmp_path: Path, reason: str | None, code: int
) -> None:
    until_ms = SINCE_MS + 4 * 3_600_000
    row = {"delivery.delivered_before_until_ms": until_ms}
    redis.hset(
        "audiopixel:v1:placement:{breakfast}",
        mapping=row | ({} if reason is None else {"delivery.unknown_reason": reason}),
    )
    path = tmp_path / "plans.csv"
    path.write_text(PLANS.replace("2026-11-03T00:00", "2026-11-03T14:00+00:00"))
    done = run("plans.csv", code=code)
    assert ("delivered_before_until" in done.stdout) == bool(code)


def test_moments_are_not_checked_without_redis_data(
    run: Run, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis.delete(META)
    assert "not checked: no flow has counted yet" in run("plans.csv").stderr
    monkeypatch.setenv("AUDIOPIXEL_REDIS_URL", "redis://127.0.0.1:1")
    assert "the moments of balances are not checked: Redis at" in run("plans.csv").stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plans.csv", "--until", "2026-11-03T09:30Z"], "--until is for opening balances alone"),
        (["plans.csv", "--out", "new.csv"], "--out is for opening balances alone"),
        (["plans.csv", "--delivered", "theirs.csv"], "--delivered needs --until"),
        ([*MAKE, "--out", "new.json"], "--out writes the plans as .csv"),
        ([*MAKE, "--out", "theirs.csv"], "theirs.csv: is the file of --delivered"),
        ([*MAKE[:-1], "yesterday"], "--until: takes ISO 8601"),
        ([*MAKE[:-1], "2026-11-01T00:00"], "no row counts impressions"),
        (["plans.csv", "--delivered", "plans.csv", "--until", "2026-11-03T09:30Z"], "no such column: booked"),
    ],
)
def test_an_invalid_balance_is_refused(
    run: Run, redis: Redis, tmp_path: Path, arguments: list[str], said: str
) -> None:
    done = CliRunner().invoke(app, ["plans", *arguments])
    assert (done.exit_code or 0) != 0
    assert said in done.stderr + str(done.exception)
    assert not (tmp_path / "new.csv").exists()
    assert (tmp_path / "theirs.csv").read_text() == THEIRS


def test_an_overlong_source_is_refused_with_its_line(run: Run, redis: Redis) -> None:
    done = run(*MAKE, "--source", "x" * 129, code=1)
    assert "plans.csv:2: delivered_before_source: takes a text of up to 128" in done.stdout
